"""DL/T 645-2007: frames out and in, pairing, and a poll against meters that refuse."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.devices.dlt645_2007 import DRIVER, REGISTERS
from drivers.kit import BadOption, Observation, Reading, Reason, Rejected
from drivers.protocols import dlt645

ADDRESS = "000000193600"


def reply(data: str, control: int = 0x91, address: str = "003619000000") -> bytes:
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
            asked.append(bytes((byte - 0x33) % 256 for byte in frame[13:9:-1]).hex())
            found = answer(asked[-1])
            assert ask.answers(found)
            ask = talk.send(found)
    except StopIteration as end:
        return tuple(end.value), asked


def test_a_request_is_the_published_one() -> None:
    # WKJay/DLT645 readme.md:455, and a PLC collector's log for 0001FF00 (there with one wake byte).
    assert dlt645.read_request("AAAAAAAAAAAA", 0x02010100).hex() == "fefefefe68aaaaaaaaaaaa68110433343435b116"
    assert dlt645.read_request(ADDRESS, 0x0001FF00).hex() == "fefefefe68003619000000681104333234330016"


def test_no_function_of_the_codec_takes_a_control_code() -> None:
    for name, found in inspect.getmembers(dlt645, inspect.isfunction):
        if found.__module__ == dlt645.__name__:
            assert not {"control", "function", "c"} & set(inspect.signature(found).parameters), name


def test_every_request_of_a_poll_is_a_read() -> None:
    controls = set()
    for register in REGISTERS:
        talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": [register]}))
        ask = next(talk)
        with suppress(Rejected):
            while True:
                controls.add(ask.request[12])
                ask = talk.send(reply("02", 0xD1))
    assert controls == {0x11}


def test_a_frame_is_taken_apart() -> None:
    frame = dlt645.parse(bytes.fromhex("6861010000000068910733343535cc7c331616"))
    assert frame.address == "000000000161"
    assert (frame.from_meter, frame.refused, frame.more, frame.function) == (True, False, False, 0x11)
    assert frame.identifier == 0x02020100
    assert frame.value == bytes.fromhex("994900")


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", Reason.TOO_SHORT),
        ("68610100000000689107", Reason.TOO_SHORT),
        ("6861010000000068910733343535cc7c3316", Reason.TOO_SHORT),
        ("6861010000000068910733343535cc7c33161600", Reason.TOO_LONG),
        ("6861010000000068910733343535cc7c331716", Reason.BAD_CHECK),
        ("6861010000000068910733343535cc7c331617", Reason.BAD_CHECK),
        ("6961010000000068910733343535cc7c331616", Reason.NOT_MINE),
        ("6861010000000069910733343535cc7c331616", Reason.NOT_MINE),
        ("68610100000000689" + "1c9" + "33" * 20, Reason.NOT_MINE),
    ],
)
def test_what_is_no_frame_is_refused_by_name(frame: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        dlt645.parse(bytes.fromhex(frame))
    assert caught.value.reason is reason


def test_a_reply_answers_by_address_function_and_identifier() -> None:
    def answers(frame: bytes) -> bool:
        return dlt645.answers(frame, address=ADDRESS, identifier=0x00010000)

    assert answers(reply("0000010030360000"))
    assert answers(reply("0000010030360000", address="aaaaaaaaaaaa"))
    assert answers(reply("02", 0xD1))
    assert answers(reply("", 0x91))
    assert not answers(reply("0000020030360000")), "another identifier: a late reply to the question before"
    assert not answers(reply("0000010030360000", address="013619000000")), "another meter"
    assert not answers(reply("0000010030360000", control=0x94)), "another function"
    assert not answers(dlt645.read_request(ADDRESS, 0x00010000)[4:]), "our own echo"
    assert not answers(b"")


def test_a_wildcard_is_answered_by_any_meter_and_a_partial_one_by_those_that_fit() -> None:
    assert dlt645.same_address("AAAAAAAAAAAA", "000000193600")
    assert dlt645.same_address("AAAAAAAA3600", "000000193600")
    assert not dlt645.same_address("AAAAAAAA3601", "000000193600")


@pytest.mark.parametrize(
    ("identifier", "value", "expected"),
    [
        (0x00010000, "30360000", [("energy_active_import", "36.30", "")]),
        (0x00010300, "38000000", [("energy_active_import", "0.38", "T3")]),
        (0x00020000, "26010000", [("energy_active_export", "1.26", "")]),
        (0x00000000, "26010080", [("energy_active_combined", "-1.26", "")]),
        (0x00030000, "26000100", [("energy_reactive_1", "100.26", "")]),
        (0x00040200, "01000080", [("energy_reactive_2", "-0.01", "T2")]),
        (0x0201FF00, "714223062401", [("voltage", f, c) for f, c in (("427.1", "A"), ("62.3", "B"), ("12.4", "C"))]),
        (0x02010300, "6222", [("voltage", "226.2", "C")]),
        (0x02020200, "994980", [("current", "-4.999", "B")]),
        (0x02800001, "150000", [("current", "0.015", "N")]),
        (0x02030000, "050080", [("power_active", "-0.0005", "")]),
        (0x02040000, "314300", [("power_reactive", "0.4331", "")]),
        (0x02050300, "065000", [("power_apparent", "0.5006", "C")]),
        (0x02060000, "9989", [("power_factor", "-0.999", "")]),
        (0x0206FF00, "00109909", [("power_factor", "1.000", ""), ("power_factor", "0.999", "A")]),
        (0x02800002, "0350", [("frequency", "50.03", "")]),
        (
            0x0001FF00,
            "01000000ffffffff03000000",
            [("energy_active_import", f, c) for f, c in (("0.01", ""), ("0.03", "T2"))],
        ),
    ],
)
def test_identifiers_give_quantity_value_and_channel(
    identifier: int, value: str, expected: list[tuple[str, str, str]]
) -> None:
    found = dlt645.readings(identifier, bytes.fromhex(value))
    assert [(item.quantity, str(item.value), item.channel) for item in found] == expected


@pytest.mark.parametrize(
    ("identifier", "value", "reason"),
    [
        (0x00010000, "303600", Reason.TOO_SHORT),
        (0x00010000, "3036000000", Reason.MALFORMED),
        (0x02010100, "000000", Reason.MALFORMED),
        (0x0201FF00, "7123712371237123", Reason.MALFORMED),
        (0x0001FF00, "00" * 4 * 65, Reason.MALFORMED),
        (0x0001FF00, "", Reason.TOO_SHORT),
        (0x00010000, "3a360000", Reason.IMPLAUSIBLE),
        (0x02010100, "ff23", Reason.IMPLAUSIBLE),
        (0x00010001, "30360000", Reason.UNSUPPORTED),
        (0x04000402, "193600000000", Reason.UNSUPPORTED),
        (0x02010000, "7123", Reason.UNSUPPORTED),
        (0x02010400, "7123", Reason.UNSUPPORTED),
        (0x00014000, "30360000", Reason.UNSUPPORTED),
    ],
)
def test_data_that_is_no_reading_is_refused_by_name(identifier: int, value: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        dlt645.readings(identifier, bytes.fromhex(value))
    assert caught.value.reason is reason


def test_the_default_poll_reads_energy_voltage_current_and_power() -> None:
    values = {
        "0001ff00": "00ff0100" + "30360000" + "30360000",
        "0201ff00": "00ff0102" + "0123" + "ffff" + "ffff",
        "0202ff00": "00ff0202" + "500100",
        "02030000": "00000302" + "450300",
    }
    found, asked = poll(lambda identifier: reply(values[identifier]))
    assert asked == ["0001ff00", "0201ff00", "0202ff00", "02030000"]
    assert found == (
        Reading("energy_active_import", Decimal("36.30")),
        Reading("energy_active_import", Decimal("36.30"), "T1"),
        Reading("voltage", Decimal("230.1"), "A"),
        Reading("current", Decimal("0.150"), "A"),
        Reading("power_active", Decimal("0.0345")),
    )


def test_a_meter_that_refuses_the_block_is_asked_value_by_value() -> None:
    def answer(identifier: str) -> bytes:
        values = {"00010000": "0000010030360000", "00010100": "0001010030360000"}
        return reply(values[identifier]) if identifier in values else reply("02", 0xD1)

    found, asked = poll(answer, "energy_active_import")
    assert asked == ["0001ff00", "00010000", "00010100", "00010200", "00010300", "00010400"]
    assert found == (
        Reading("energy_active_import", Decimal("36.30")),
        Reading("energy_active_import", Decimal("36.30"), "T1"),
    )


def test_a_default_poll_of_a_meter_that_refuses_everything_asks_15_times() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {}))
    next(talk)
    asked = 1
    with suppress(Rejected):
        while True:
            talk.send(reply("02", 0xD1))
            asked += 1
    assert asked == 15


def test_a_block_that_does_not_fit_one_frame_is_asked_value_by_value() -> None:
    def answer(identifier: str) -> bytes:
        return reply("00ff01020123", 0xB1) if identifier == "0201ff00" else reply("0001010201" + "23")

    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage"]}))
    next(talk)
    assert talk.send(answer("0201ff00")).request == dlt645.read_request(ADDRESS, 0x02010100)


def test_a_frame_that_is_no_reply_is_not_read_even_when_it_is_handed_over() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage_a"]}))
    next(talk)
    with pytest.raises(Rejected) as caught:
        talk.send(reply("000101020123", address="013619000000"))
    assert caught.value.reason is Reason.NOT_MINE


def test_a_register_without_data_leaves_the_others() -> None:
    found, _ = poll(
        lambda identifier: reply("", 0x91) if identifier == "02020100" else reply("000101020123"),
        "current_a",
        "voltage_a",
    )
    assert found == (Reading("voltage", Decimal("230.1"), "A"),)


@pytest.mark.parametrize(
    ("data", "control", "reason", "detail"),
    [
        ("02", 0xD1, Reason.UNSUPPORTED, "no such data (error word 02, on the wire 35)"),
        ("04", 0xD1, Reason.UNSUPPORTED, "wrong password or not authorised (error word 04, on the wire 37)"),
        ("80", 0xD1, Reason.UNSUPPORTED, "unknown error (error word 80, on the wire b3)"),
        ("", 0xD1, Reason.UNSUPPORTED, "refused without a reason"),
        ("", 0x91, Reason.UNSUPPORTED, "a reply without data"),
        ("00010102ffff", 0x91, Reason.UNSUPPORTED, "the meter has no value"),
        ("000101020a23", 0x91, Reason.IMPLAUSIBLE, "0a23 is not packed decimal"),
    ],
)
def test_a_poll_that_brings_nothing_says_why(data: str, control: int, reason: Reason, detail: str) -> None:
    with pytest.raises(Rejected) as caught:
        poll(lambda _: reply(data, control), "voltage_a")
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    "address", ["", "193600", "00000019360x", "0000001936001", "00 00 00 19 3", "０００００００００００１"]
)
def test_an_address_that_is_no_meter_is_refused(address: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, {})
    assert caught.value.key == "address"


@pytest.mark.parametrize(
    ("registers", "key"),
    [
        ([], "map.registers"),
        ("voltage", "map.registers"),
        (["voltage", "volt"], "map.registers[1]"),
        ([1], "map.registers[0]"),
    ],
)
def test_a_register_that_does_not_exist_is_refused(registers: object, key: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, {"registers": registers})
    assert caught.value.key == key
    assert "energy_active_import" in caught.value.expected


def test_a_line_for_this_meter_is_2400_baud_with_even_parity() -> None:
    assert (DRIVER.line.baud, DRIVER.line.bits, DRIVER.line.parity, DRIVER.line.stop) == (2400, 8, "E", 1)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(
    st.one_of(
        st.integers(0, 0xFFFFFFFF), st.sampled_from([0x0001FF00, 0x0201FF00, 0x02020100, 0x0203FF00, 0x02800002])
    ),
    st.binary(max_size=200),
)
def test_any_data_is_read_or_refused(identifier: int, value: bytes) -> None:
    with suppress(Rejected):
        assert all(reading.value.is_finite() for reading in dlt645.readings(identifier, value))


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.integers(0, 255), st.binary(max_size=40))
def test_any_whole_reply_ends_a_poll(control: int, data: bytes) -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage"]}))
    next(talk)
    with suppress(Rejected, StopIteration):
        for _ in range(8):
            talk.send(reply(data.hex(), control))
        raise AssertionError("the poll does not end")
