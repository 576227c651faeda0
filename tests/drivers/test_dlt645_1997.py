"""DL/T 645-1997: frames out, pairing, blocks with their end and spare zeros, and a poll against meters that refuse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest

from drivers.devices.dlt645_1997 import DRIVER, REGISTERS
from drivers.kit import BadOption, NoReply, Observation, Reading, Reason, Rejected
from drivers.protocols import dlt645_1997

ADDRESS = "000000063295"


def reply(data: str, control: int = 0x81, address: str = "953206000000") -> bytes:
    """A frame from the meter, made here by hand: `data` without the offset, in wire order, as is the address."""
    content = bytes((byte + 0x33) % 256 for byte in bytes.fromhex(data))
    frame = bytes.fromhex("68" + address + "68") + bytes([control, len(content)]) + content
    return frame + bytes([sum(frame) % 256, 0x16])


def poll(answer: Callable[[str], bytes], *registers: str) -> tuple[tuple[Observation, ...], list[str]]:
    """Run one poll; `answer` gets the identifier as hexadecimal digits. Gives the outcome and what was asked."""
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": list(registers)} if registers else {}))
    asked: list[str] = []
    try:
        ask = next(talk)
        while True:
            (frame,) = DRIVER.framer().feed(ask.request)
            asked.append(bytes((byte - 0x33) % 256 for byte in frame[11:9:-1]).hex())
            found = answer(asked[-1])
            assert ask.answers(found)
            ask = talk.send(found)
    except StopIteration as end:
        return tuple(end.value), asked


def readings(identifier: int, value: str) -> list[tuple[str, str]]:
    found = dlt645_1997.decode(identifier, bytes.fromhex(value))
    assert not found.refused
    return [(one.channel, str(one.value)) for one in found.readings]


def test_requests_are_the_published_ones() -> None:
    # Two ways to find the only meter of a line: one answers to the wildcard, KTS-Intek's only to the broadcast address.
    assert dlt645_1997.read_request("AAAAAAAAAAAA", 0x9010).hex() == "fefefefe68aaaaaaaaaaaa68010243c3d516"
    assert dlt645_1997.read_request("999999999999", 0x9010).hex() == "fefefefe6899999999999968010243c36f16"


def test_every_request_of_a_poll_is_a_read() -> None:
    controls = set()
    for register in REGISTERS:
        talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": [register]}))
        ask = next(talk)
        with suppress(Rejected):
            while True:
                controls.add(ask.request[12])
                ask = talk.send(reply("02", 0xC1))
    assert controls == {0x01}


def test_a_reply_answers_by_address_function_and_identifier() -> None:
    def answers(frame: bytes, address: str = ADDRESS) -> bool:
        return dlt645_1997.answers(frame, address=address, identifier=0x9010)

    assert answers(reply("109015000000"))
    assert answers(reply("109015000000", address="aaaaaaaaaaaa"))
    assert answers(reply("109015000000"), "AAAAAAAAAAAA")
    assert answers(reply("109015000000"), "999999999999")
    assert answers(reply("02", 0xC1))
    assert not answers(reply("209015000000")), "another identifier: a late reply to the question before"
    assert not answers(reply("109015000000", address="963206000000")), "another meter"
    assert not answers(reply("109015000000", control=0x91)), "the edition of 2007"
    assert not answers(dlt645_1997.read_request(ADDRESS, 0x9010)[4:]), "our own echo"
    assert not answers(b"")


@pytest.mark.parametrize(
    ("identifier", "value", "expected"),
    [
        (0x9010, "15000000", [("", "0.15")]),
        (0x9013, "15000000", [("T3", "0.15")]),
        (0x9110, "00000001", [("", "10000.00")]),
        (0xB611, "2002", [("A", "220")]),
        (0xB61F, "200219022102", [("A", "220"), ("B", "219"), ("C", "221")]),
        (0xB61F, "2002ffffffff", [("A", "220")]),
        (0xB61F, "200219022102aa", [("A", "220"), ("B", "219"), ("C", "221")]),
        (0xB622, "3412", [("B", "12.34")]),
        (0xB630, "563412", [("", "12.3456")]),
        (0xB63F, "563412" + "010000" * 3, [("", "12.3456"), ("A", "0.0001"), ("B", "0.0001"), ("C", "0.0001")]),
        # Zeros behind the fourth tariff are spare, a sixth value that is none is not.
        (0x901F, "01000000" * 5 + "00000000" * 2 + "aa", [(name, "0.01") for name in ("", "T1", "T2", "T3", "T4")]),
        (0x901F, "01000000" * 6, [(name, "0.01") for name in ("", "T1", "T2", "T3", "T4", "T5")]),
        (0x901F, "00000000" * 5, [(name, "0.00") for name in ("", "T1", "T2", "T3", "T4")]),
        (0x901F, "ffffffff" * 5, []),
    ],
)
def test_values_are_read(identifier: int, value: str, expected: list[tuple[str, str]]) -> None:
    assert readings(identifier, value) == expected


@pytest.mark.parametrize(
    ("identifier", "value", "reason"),
    [
        (0xC032, "123456", Reason.UNSUPPORTED),
        (0xB610, "2002", Reason.UNSUPPORTED),
        (0xB614, "2002", Reason.UNSUPPORTED),
        (0x9010, "", Reason.TOO_SHORT),
        (0x9010, "aa", Reason.TOO_SHORT),
        (0x9010, "150000", Reason.TOO_SHORT),
        (0x9010, "1500000000", Reason.MALFORMED),
        (0x9010, "1500000015000000", Reason.MALFORMED),
        (0xB61F, "2002" * 4, Reason.MALFORMED),
    ],
)
def test_what_is_no_value_is_refused_by_name(identifier: int, value: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        readings(identifier, value)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("identifier", "value", "refused"),
    [
        (0x9010, "1a000000", "energy_active_import = 1a000000 is not packed decimal"),
        (0xB611, "5322", "voltage A = 2253 cannot be"),  # a meter that sends a decimal all the same
        (0xB611, "7705", "voltage A = 577 cannot be"),
        (0xB630, "000580", "power_active = 000580 is 80.0500 or has a sign"),
        (0xB641, "0580", "power_reactive A = 0580 is 80.05 or has a sign"),
        (0xB650, "0010", "power_factor = 1.000"),
        (0x9000, "01000080", "energy_active_combined = 01000080 is 800000.01 or has a sign"),
    ],
)
def test_a_value_that_cannot_be_or_may_be_two_things_is_no_value(identifier: int, value: str, refused: str) -> None:
    found = dlt645_1997.decode(identifier, bytes.fromhex(value))
    if refused == "power_factor = 1.000":
        assert [f"{one.quantity} = {one.value}" for one in found.readings] == [refused]
        return
    assert (found.readings, found.refused) == ((), (refused,))


@pytest.mark.parametrize(
    ("identifier", "value", "expected"),
    [
        (0x9411, "15000000", [("energy_active_import", "0.15", "T1/S1", "kWh")]),
        (0x9820, "15000000", [("energy_active_export", "0.15", "S2", "kWh")]),
        (0x9130, "15000000", [("energy_reactive_q1", "0.15", "", "kvarh")]),
        (0x9140, "15000000", [("energy_reactive_q4", "0.15", "", "kvarh")]),
        (0x9150, "15000000", [("energy_reactive_q2", "0.15", "", "kvarh")]),
        (0x9160, "15000000", [("energy_reactive_q3", "0.15", "", "kvarh")]),
        (0xA010, "563412", [("demand_active_import", "12.3456", "", "kW")]),
        (0xA520, "563412", [("demand_reactive_export", "12.3456", "S1", "kvar")]),
        (0xB640, "3412", [("power_reactive", "12.34", "", "kvar")]),
        (0xB651, "9909", [("power_factor", "0.999", "A", "1")]),
        (0xB312, "0300", [("meter_phase_failures", "3", "B", "1")]),
        (0xB320, "150000", [("meter_phase_failure_time", "15", "", "min")]),
        (0xB214, "001234", [("meter_battery_time", "341200", "", "min")]),
        (0xC020, "04", [("status_word", "4", "meter", "1")]),
        (0xC030, "001600", [("meter_constant_active", "1600", "", "1/kWh")]),
    ],
)
def test_registers_give_quantity_value_channel_and_unit(
    identifier: int, value: str, expected: list[tuple[str, str, str, str]]
) -> None:
    found = dlt645_1997.decode(identifier, bytes.fromhex(value)).readings
    assert [(one.quantity, str(one.value), one.channel, one.unit) for one in found] == expected


def test_numbers_and_clock_are_read_as_printed() -> None:
    # KTS-Intek's log: C032, C010 and C011 of the meter 201708176934.
    assert dlt645_1997.text(0xC032, bytes.fromhex("346917081720")) == "201708176934"
    assert dlt645_1997.text(0xC033, bytes.fromhex("ffffffffffff")) is None
    now = dlt645_1997.clock(bytes.fromhex("06060719"), bytes.fromhex("042222"))
    assert now is not None
    assert now.isoformat() == "2019-07-06T22:22:04+08:00"
    with pytest.raises(Rejected):
        dlt645_1997.text(0xC032, bytes.fromhex("3469"))


def test_an_answer_of_several_frames_is_put_together_and_a_lost_part_is_never_asked_for_twice() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import"]}))
    next(talk)
    ask = talk.send(reply("1f90" + "06000000" + "01000000" * 2, 0xA1))
    assert ask.request.hex() == "fefefefe6895320600000068020252c3b616"
    assert ask.retries == 0
    with pytest.raises(StopIteration) as end:
        talk.send(reply("1f90" + "02000000" * 2, 0x82))
    values = [str(one.value) for one in end.value.value]
    assert values == ["0.06", "0.01", "0.01", "0.02", "0.02"]

    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import"]}))
    next(talk)
    talk.send(reply("1f90" + "01000000" * 3, 0xA1))
    ask = talk.throw(NoReply())
    assert ask.request == dlt645_1997.read_request(ADDRESS, 0x9010), "the values one by one instead"


def test_a_refused_block_is_asked_value_by_value() -> None:
    def answer(identifier: str) -> bytes:
        return reply("12b61902") if identifier == "b612" else reply("02", 0xC1)

    found, asked = poll(answer, "voltage")
    assert found == (Reading("voltage", Decimal(219), "B"),)
    assert asked == ["b61f", "b611", "b612", "b613"]


def test_a_poll_of_the_default_registers_asks_four_times() -> None:
    values = {"901f": "01000000" * 5, "b61f": "2002" * 3, "b62f": "0001" * 3, "b63f": "000100" * 4}

    def answer(identifier: str) -> bytes:
        return reply(bytes.fromhex(identifier)[::-1].hex() + values[identifier])

    found, asked = poll(answer)
    assert asked == ["901f", "b61f", "b62f", "b63f"]
    assert len(found) == 5 + 3 + 3 + 4


def test_replies_without_data_are_no_values() -> None:
    with pytest.raises(Rejected) as caught:
        poll(lambda _: reply(""), "energy_active_import")
    assert caught.value.reason is Reason.UNSUPPORTED
    assert caught.value.detail == "energy_active_import = a reply without data"


def test_what_was_read_before_a_meter_fell_silent_is_not_lost() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {}))
    next(talk)
    talk.send(reply("1f90" + "01000000" * 5))
    talk.throw(NoReply())  # the block of voltages
    with pytest.raises(StopIteration) as end:
        talk.throw(NoReply())  # the first of them alone: the rest is not asked
    decoded = end.value.value
    assert len(decoded.observations) == 5
    assert decoded.refused == (
        "voltage b611 = no reply",
        "current = not asked any more",
        "power_active = not asked any more",
    )


@pytest.mark.parametrize("address", ["", "63295", "00000006329x", "0000000632955"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, {})
    assert caught.value.key == "address"
    assert "999999999999" in caught.value.expected


@pytest.mark.parametrize("registers", [[], "voltage", ["power_facto"], ["9f10"], ["90100000"], [3]])
def test_a_register_that_is_not_there_is_refused(registers: object) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, {"registers": registers})
    assert caught.value.key.startswith("map.registers")
