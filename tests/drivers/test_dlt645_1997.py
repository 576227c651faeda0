"""DL/T 645-1997: frames out, pairing, blocks with their end and spare zeros, and a poll against meters that refuse."""

from __future__ import annotations

import inspect
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
    return [(one.channel, str(one.value)) for one in dlt645_1997.readings(identifier, bytes.fromhex(value))]


def test_requests_are_the_published_ones() -> None:
    # Two ways to find the only meter of a line: one answers to the wildcard, KTS-Intek's only to the broadcast address.
    assert dlt645_1997.read_request("AAAAAAAAAAAA", 0x9010).hex() == "fefefefe68aaaaaaaaaaaa68010243c3d516"
    assert dlt645_1997.read_request("999999999999", 0x9010).hex() == "fefefefe6899999999999968010243c36f16"


def test_no_function_of_the_codec_takes_a_control_code() -> None:
    for name, found in inspect.getmembers(dlt645_1997, inspect.isfunction):
        if found.__module__ == dlt645_1997.__name__:
            assert not {"control", "function", "c"} & set(inspect.signature(found).parameters), name


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
        (0x9010, "1a000000", Reason.IMPLAUSIBLE),
    ],
)
def test_what_is_no_value_is_refused_by_name(identifier: int, value: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        readings(identifier, value)
    assert caught.value.reason is reason


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


def test_more_frames_and_empty_replies_are_no_values() -> None:
    with pytest.raises(Rejected) as caught:
        poll(
            lambda identifier: reply("1f9001000000", 0xA1) if identifier == "901f" else reply(""),
            "energy_active_import",
        )
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "901f does not fit into one frame" in caught.value.detail


def test_silence_in_the_middle_of_a_poll_ends_it() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {}))
    next(talk)
    talk.send(reply("1f90" + "01000000" * 5))
    with pytest.raises(NoReply):
        talk.throw(NoReply())


@pytest.mark.parametrize("address", ["", "63295", "00000006329x", "0000000632955"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, {})
    assert caught.value.key == "address"
    assert "999999999999" in caught.value.expected


@pytest.mark.parametrize("registers", [[], "voltage", ["power_factor"], [3]])
def test_a_register_that_is_not_there_is_refused(registers: object) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, {"registers": registers})
    assert caught.value.key.startswith("map.registers")
