"""DL/T 645-2007: frames out and in, pairing, and a poll against meters that refuse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.devices.dlt645_2007 import DRIVER, REGISTERS
from drivers.kit import BadOption, Decoded, NoReply, Polled, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import dlt645, dlt645_2007
from drivers.protocols.dlt645_layout import Data

ADDRESS = "000000193600"


def reply(data: str, control: int = 0x91, address: str = "003619000000") -> bytes:
    """A frame from the meter, made here by hand: `data` without the offset, in wire order, as is the address."""
    content = bytes((byte + 0x33) % 256 for byte in bytes.fromhex(data))
    frame = bytes.fromhex("68" + address + "68") + bytes([control, len(content)]) + content
    return frame + bytes([sum(frame) % 256, 0x16])


def poll(answer: Callable[[str], bytes], *registers: str) -> tuple[Polled, list[str]]:
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
        return cast("Polled", end.value), asked


def test_a_request_is_the_published_one() -> None:
    # WKJay/DLT645 readme.md:455, and a PLC collector's log for 0001FF00 (there with one wake byte).
    assert dlt645_2007.read_request("AAAAAAAAAAAA", 0x02010100).hex() == "fefefefe68aaaaaaaaaaaa68110433343435b116"
    assert dlt645_2007.read_request(ADDRESS, 0x0001FF00).hex() == "fefefefe68003619000000681104333234330016"


def test_no_request_can_be_built_but_one_that_reads() -> None:
    # Annex of 5.3 and 7.2: 08 sets the time, 14 15 17 18 write, 16 freezes, 19 1A 1B clear, 1C switches the supply.
    allowed = set()
    for function in range(256):
        try:
            frame = dlt645.request(cast("dlt645.Read", function), ADDRESS, b"\0\0\1\0")
        except ValueError:
            continue
        allowed.add(frame[12])
    assert allowed == {0x01, 0x02, 0x11, 0x12, 0x13}


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
    assert dlt645_2007.identifier_of(frame) == 0x02020100
    assert dlt645_2007.value_of(frame) == bytes.fromhex("994900")


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
        return dlt645_2007.answers(frame, address=ADDRESS, identifier=0x00010000)

    assert answers(reply("0000010030360000"))
    assert answers(reply("0000010030360000", address="aaaaaaaaaaaa"))
    assert answers(reply("02", 0xD1))
    assert answers(reply("", 0x91))
    assert not answers(reply("0000020030360000")), "another identifier: a late reply to the question before"
    assert not answers(reply("0000010030360000", address="013619000000")), "another meter"
    assert not answers(reply("0000010030360000", control=0x94)), "another function"
    assert not answers(dlt645_2007.read_request(ADDRESS, 0x00010000)[4:]), "our own echo"
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
    found = dlt645_2007.decode(identifier, bytes.fromhex(value)).readings
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
        (0x0001000D, "30360000", Reason.UNSUPPORTED),
        (0x000100FF, "30360000", Reason.UNSUPPORTED),
        (0x020A0100, "0100", Reason.UNSUPPORTED),
        (0x020A0116, "0100", Reason.UNSUPPORTED),
        (0x0506013F, "30360000", Reason.UNSUPPORTED),
        (0x05060001, "0000150122", Reason.UNSUPPORTED),
        (0x03110001, "00", Reason.UNSUPPORTED),
        (0x0280000B, "000100", Reason.TOO_SHORT),
        (0x05061001, "000100" * 7, Reason.TOO_SHORT),
        (0x01010000, "450300", Reason.MALFORMED),
        (0x04000402, "193600000000", Reason.UNSUPPORTED),
        (0x02010000, "7123", Reason.UNSUPPORTED),
        (0x02010400, "7123", Reason.UNSUPPORTED),
        (0x00014000, "30360000", Reason.UNSUPPORTED),
    ],
)
def test_data_that_is_no_reading_is_refused_by_name(identifier: int, value: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        dlt645_2007.decode(identifier, bytes.fromhex(value))
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


def test_an_answer_of_several_frames_is_put_together() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import"]}))
    next(talk)
    first = talk.send(reply("00ff0100" + "07000000" + "01000000" * 2, 0xB1))
    # 12H with the identifier and the number of the part, from 1.
    assert first.request.hex() == "fefefefe680036190000006812053332343334" + "3616"
    assert not first.answers(reply("00ff0100" + "02000000" + "02", 0x92)), "another part"
    assert not first.answers(reply("00ff0200" + "02000000" + "01", 0x92)), "another identifier"
    assert not first.answers(reply("00ff0100" + "02000000", 0x91)), "the first part again"
    second = talk.send(reply("00ff0100" + "02000000" + "01", 0xB2))
    assert second.request[14:19] == bytes.fromhex("3332343335")
    with pytest.raises(StopIteration) as end:
        talk.send(reply("00ff0100" + "03000000" + "02", 0x92))
    assert [(one.channel, str(one.value)) for one in end.value.value] == [
        ("", "0.07"),
        ("T1", "0.01"),
        ("T2", "0.01"),
        ("T3", "0.02"),
        ("T4", "0.03"),
    ]


def test_an_answer_without_end_is_given_up() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["0001FF00"]}))
    next(talk)
    ask = talk.send(reply("00ff0100" + "01000000", 0xB1))
    for part in range(1, 7):
        ask = talk.send(reply("00ff0100" + "02000000" + f"{part:02x}", 0xB2))
    assert ask.request[18] == 0x33 + 7
    with pytest.raises(Rejected) as caught:
        talk.send(reply("00ff0100" + "02000000" + "07", 0xB2))
    assert caught.value.detail == "0001FF00 = more than 8 frames"


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
    assert found == Decoded((Reading("voltage", Decimal("230.1"), "A"),), refused=("current_a = a reply without data",))


@pytest.mark.parametrize(
    ("data", "control", "reason", "detail"),
    [
        ("02", 0xD1, Reason.UNSUPPORTED, "no such data (error word 02, on the wire 35)"),
        ("04", 0xD1, Reason.UNSUPPORTED, "wrong password or not authorised (error word 04, on the wire 37)"),
        ("80", 0xD1, Reason.UNSUPPORTED, "unknown error (error word 80, on the wire b3)"),
        ("", 0xD1, Reason.UNSUPPORTED, "refused without a reason"),
        ("", 0x91, Reason.UNSUPPORTED, "a reply without data"),
        ("00010102ffff", 0x91, Reason.UNSUPPORTED, "the meter has no value"),
        ("000101020a23", 0x91, Reason.IMPLAUSIBLE, "voltage A = 0a23 is not packed decimal"),
    ],
)
def test_a_poll_that_brings_nothing_says_why(data: str, control: int, reason: Reason, detail: str) -> None:
    with pytest.raises(Rejected) as caught:
        poll(lambda _: reply(data, control), "voltage_a")
    named = detail if detail.startswith("voltage A") else f"voltage_a = {detail}"
    assert (caught.value.reason, caught.value.detail) == (reason, named)


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
        (["voltage", "00010000FF"], "map.registers[1]"),
        (["voltage", "04000402"], "map.registers[1]"),
        (["voltage"] * 25, "map.registers"),
        ([1], "map.registers[0]"),
    ],
)
def test_a_register_that_does_not_exist_is_refused(registers: object, key: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, {"registers": registers})
    assert caught.value.key == key
    assert "docs/reference/registers.md" in caught.value.expected
    assert ("voltage" in caught.value.expected) or key != "map.registers[1]"


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
        assert all(reading.value.is_finite() for reading in dlt645_2007.decode(identifier, value).readings)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.integers(0, 255), st.binary(max_size=40))
def test_any_whole_reply_ends_a_poll(control: int, data: bytes) -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage"]}))
    next(talk)
    with suppress(Rejected, StopIteration):
        for _ in range(8):
            talk.send(reply(data.hex(), control))
        raise AssertionError("the poll does not end")


@pytest.mark.parametrize(
    ("identifier", "value", "expected"),
    [
        (0x00010001, "30360000", [("energy_active_import", "36.30", "S1", "kWh")]),
        (
            0x0001FF0C,
            "3036000001000000",
            [("energy_active_import", f, c, "kWh") for f, c in (("36.30", "S12"), ("0.01", "T1/S12"))],
        ),
        (0x00050000, "30360000", [("energy_reactive_q1", "36.30", "", "kvarh")]),
        (0x00090200, "30360000", [("energy_apparent_import", "36.30", "T2", "kVAh")]),
        (0x000A0000, "30360000", [("energy_apparent_export", "36.30", "", "kVAh")]),
        (0x00150000, "30360000", [("energy_active_import", "36.30", "A", "kWh")]),
        (0x002A0000, "30360000", [("energy_active_export", "36.30", "B", "kWh")]),
        (0x003F0000, "01000080", [("energy_reactive_1", "-0.01", "C", "kvarh")]),
        (0x00810000, "30360000", [("energy_base_import", "36.30", "", "kWh")]),
        (0x00AE0000, "30360000", [("energy_iron_loss", "36.30", "B", "kWh")]),
        (0x00900100, "30360000", [("energy_credit", "36.30", "", "kWh")]),
        (0x00900200, "30360000", [("meter_credit", "36.30", "", "CNY")]),
        (0x02070300, "0024", [("meter_phase_angle", "240.0", "C", "deg")]),
        (0x02080100, "5001", [("voltage_distortion", "1.50", "A", "%")]),
        (0x020A0203, "5001", [("voltage_harmonic", "1.50", "B/H3", "%")]),
        (0x020B01FF, "00015002", [("current_harmonic", f, c, "%") for f, c in (("1.00", "A/H1"), ("2.50", "A/H2"))]),
        (0x02800003, "450380", [("power_active_minute", "-0.0345", "", "kW")]),
        (0x02800007, "5581", [("meter_temperature", "-15.5", "", "Cel")]),
        (0x02800008, "6003", [("meter_battery_voltage", "3.60", "clock", "V")]),
        (0x0280000A, "15000000", [("meter_battery_time", "15", "", "min")]),
        (0x04000409, "001600", [("meter_constant_active", "1600", "", "1/kWh")]),
        (0x04000503, "1000", [("status_word", "16", "3", "1")]),
        (0x04000508, "01000000", [("status_word", "1", "keys", "1")]),
        # Some meters have the state of their keys behind the seven words (STM32 DL/T 645 master: L = 16H).
        (
            0x040005FF,
            "0400" + "0000" * 6 + "ffff0000",
            [("status_word", number, channel, "1") for number, channel in zip("4000000", "1234567", strict=True)]
            + [("status_word", "65535", "keys", "1")],
        ),
        (
            0x05060101,
            "3036000001000000",
            [("energy_active_import", f, c, "kWh") for f, c in (("36.30", "D1"), ("0.01", "T1/D1"))],
        ),
        (0x050602 << 8 | 62, "30360000", [("energy_active_export", "36.30", "D62", "kWh")]),
        (0x05040105, "30360000", [("energy_active_import", "36.30", "O5", "kWh")]),
        (0x05000801, "30360000", [("energy_reactive_q4", "36.30", "F1", "kvarh")]),
        (
            0x05061001,
            "010000" * 4 + "020080" * 4,
            [("power_active", "0.0001", c, "kW") for c in ("D1", "A/D1", "B/D1", "C/D1")]
            + [("power_reactive", "-0.0002", c, "kvar") for c in ("D1", "A/D1", "B/D1", "C/D1")],
        ),
    ],
)
def test_registers_give_quantity_value_channel_and_unit(
    identifier: int, value: str, expected: list[tuple[str, str, str, str]]
) -> None:
    found = dlt645_2007.decode(identifier, bytes.fromhex(value)).readings
    assert [(one.quantity, str(one.value), one.channel, one.unit) for one in found] == expected


def test_a_demand_comes_with_the_time_at_which_it_was_reached() -> None:
    # 1.2345 kW on 2026-11-03 at 18:15, the first tariff never.
    found = dlt645_2007.decode(0x0101FF00, bytes.fromhex("452301" + "1518031126" + "000000" + "0000000000"))
    total, first = found.readings
    assert (total.quantity, str(total.value), total.channel, total.unit) == ("demand_active_import", "1.2345", "", "kW")
    assert total.device_time is not None
    assert total.device_time.isoformat() == "2026-11-03T18:15:00+08:00"
    assert (str(first.value), first.channel, first.device_time) == ("0.0000", "T1", None)
    impossible = dlt645_2007.decode(0x01010000, bytes.fromhex("452301" + "1518033126"))
    assert impossible.readings[0].device_time is None
    assert impossible.refused == ("demand_active_import time = 2026-31-3 18:15:0 is no time",)


@pytest.mark.parametrize(
    ("identifier", "value", "refused"),
    [
        (0x00010000, "3a360000", "energy_active_import = 3a360000 is not packed decimal"),
        (0x02010100, "ff23", "voltage A = ff23 is not packed decimal"),
        (0x02010100, "0150", "voltage A = 500.1 cannot be"),
        (0x02060000, "0110", "power_factor = 1.001 cannot be"),
        (0x02800002, "0020", "frequency = 20.00 cannot be"),
        (0x02800002, "0071", "frequency = 71.00 cannot be"),
        (0x02800007, "0013", "meter_temperature = 130.0 cannot be"),
        (0x00800000, "01000080", "energy_associated = 01000080 is 800000.01 or has a sign"),
    ],
)
def test_a_value_that_cannot_be_is_named_and_is_no_value(identifier: int, value: str, refused: str) -> None:
    assert dlt645_2007.decode(identifier, bytes.fromhex(value)) == Data((), (refused,))


def test_one_bad_value_of_a_block_does_not_cost_the_others() -> None:
    found, _ = poll(lambda _: reply("00ff0102" + "7123" + "2a23" + "6923"), "voltage")
    assert found == Decoded(
        (Reading("voltage", Decimal("237.1"), "A"), Reading("voltage", Decimal("236.9"), "C")),
        refused=("voltage B = 2a23 is not packed decimal",),
    )


@pytest.mark.parametrize(
    ("identifier", "value", "expected"),
    [
        (0x04000402, "914002011807", "071801024091"),
        (0x04000404, "000056303232", "220V"),
        (0x0400040B, "00000000" + "323438534444"[:12], "DDS842"),
        (0x0400040D, "ff" * 16, None),
        (0x04000403, "00" * 32, None),
    ],
)
def test_texts_of_the_meter_are_read_as_printed(identifier: int, value: str, expected: str | None) -> None:
    assert dlt645_2007.text(identifier, bytes.fromhex(value)) == expected


@pytest.mark.parametrize(
    ("identifier", "value", "reason"),
    [
        (0x04000402, "9140", Reason.MALFORMED),
        (0x04000402, "9a4002011807", Reason.IMPLAUSIBLE),
        (0x04000404, "80ff56303232", Reason.IMPLAUSIBLE),
        (0x04000404, "", Reason.MALFORMED),
        (0x00010000, "30360000", Reason.UNSUPPORTED),
    ],
)
def test_what_is_no_text_is_refused(identifier: int, value: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        dlt645_2007.text(identifier, bytes.fromhex(value))
    assert caught.value.reason is reason


def test_a_meter_that_is_asked_by_a_wildcard_is_asked_by_its_address_from_then_on() -> None:
    talk = DRIVER.talk(DRIVER.options("AAAAAAAA3600", {"registers": ["voltage_a", "current_a"]}))
    assert next(talk).request[5:11].hex() == "0036aaaaaaaa"
    ask = talk.send(reply("000101020123"))
    assert ask.request[5:11].hex() == "003619000000"
    assert not ask.answers(reply("00010202010000", address="003620000000")), "another meter that fits the wildcard"


def test_a_meter_says_its_address() -> None:
    # aixiwang/python_dlt645 read_dlt645.py: 001210174069, its question by gams/python-dlt645.
    assert dlt645_2007.address_request().hex() == "fefefefe68aaaaaaaaaaaa681300df16"
    (frame,) = dlt645.framer().feed(bytes.fromhex("fefefefe686940171012006893069c734a4345335f16"))
    assert dlt645_2007.address_in(frame) == "001210174069"
    assert dlt645_2007.address_in(reply("0000010030360000")) is None
    assert dlt645_2007.address_in(reply("02", 0xD3)) is None


def stamped(answer: dict[str, str], **options: object) -> Polled:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import"], **options}))
    try:
        ask = next(talk)
        while True:
            (frame,) = DRIVER.framer().feed(ask.request)
            asked = bytes((byte - 0x33) % 256 for byte in frame[13:9:-1]).hex()
            found = answer.get(asked)
            ask = talk.send(reply("02", 0xD1) if found is None else reply(bytes.fromhex(asked)[::-1].hex() + found))
    except StopIteration as end:
        return cast("Polled", end.value)


def test_the_meters_own_clock_stands_at_each_reading_of_now() -> None:
    answer = {"00010001": "01000000", "0001ff00": "30360000", "04000101": "07291126", "04000102": "593022"}
    found = stamped(answer, registers=["energy_active_import", "00010001", "clock"])
    assert isinstance(found, tuple)
    now, settled = found
    assert isinstance(now, Reading)
    assert now.device_time is not None
    assert now.device_time.isoformat() == "2026-11-29T22:30:59+08:00"
    assert isinstance(settled, Reading)
    assert (settled.channel, settled.device_time) == ("S1", None)


def test_a_date_that_was_asked_before_midnight_is_asked_again() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage_a", "clock"]}))
    next(talk)
    talk.send(reply("000101020123"))
    talk.send(reply("0101000406291126"))
    talk.send(reply("02010004010000"))
    with pytest.raises(StopIteration) as end:
        talk.send(reply("0101000400301126"))
    assert end.value.value[0].device_time.isoformat() == "2026-11-30T00:00:01+08:00"


def test_a_meter_without_a_clock_is_read_without_one() -> None:
    found = stamped(
        {"0001ff00": "30360000", "04000101": "07291326", "04000102": "593022"},
        registers=["energy_active_import", "clock"],
    )
    assert found == Decoded(
        (Reading("energy_active_import", Decimal("36.30")),), refused=("clock = 2026-13-29 22:30:59 is no time",)
    )


def test_daily_freezes_come_with_their_times() -> None:
    answer = {
        "0001ff00": "30360000",
        "05060001": "0000291126",
        "05060101": "2036000010000000",
        "05060002": "0000281126",
        "05060102": "10360000",
        "05060003": "ffffffffff",
    }
    found = stamped(answer, daily_freezes=3)
    assert isinstance(found, Decoded)
    shown = [
        (one.channel, str(one.value), one.device_time and one.device_time.isoformat())
        for one in found.observations
        if isinstance(one, Reading)
    ]
    assert shown == [
        ("", "36.30", None),
        ("D1", "36.20", "2026-11-29T00:00:00+08:00"),
        ("T1/D1", "0.10", "2026-11-29T00:00:00+08:00"),
        ("D2", "36.10", "2026-11-28T00:00:00+08:00"),
    ]
    assert found.refused == ("daily_freeze_3 = the meter has none",)


def test_a_midnight_while_freezes_are_read_costs_them_all() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage_a"], "daily_freezes": 1}))
    next(talk)
    talk.send(reply("000101020123"))
    talk.send(reply("010006050000291126"))
    talk.send(reply("0101060520360000"))
    with pytest.raises(StopIteration) as end:
        talk.send(reply("010006050000301126"))
    assert end.value.value == Decoded(
        (Reading("voltage", Decimal("230.1"), "A"),), refused=("daily_freezes = a day ended while they were read",)
    )


def test_status_words_tell_faults_and_their_ends() -> None:
    found, asked = poll(lambda _: reply("ff050004" + "0400" + "0000" + "1000" + "0100" + "0000" * 2 + "0002"), "status")
    assert asked == ["040005ff"]
    assert isinstance(found, tuple)
    words = [(one.channel, str(one.value)) for one in found if isinstance(one, Reading)]
    assert words == [("1", "4"), ("2", "0"), ("3", "16"), ("4", "1"), ("5", "0"), ("6", "0"), ("7", "512")]
    on = [(one.kind, one.code, one.channel) for one in found if isinstance(one, Signal) and one.level]
    assert on == [
        (SignalKind.LOW_BATTERY, "clock-battery", "clock-battery"),
        (SignalKind.PROBLEM, "relay-open", "relay-open"),
        (SignalKind.PROBLEM, "voltage-lost-a", "voltage-lost-a"),
        (SignalKind.TAMPER, "meter-cover", "meter-cover"),
    ]
    assert sum(1 for one in found if isinstance(one, Signal) and one.level is False) == 4 + 1 + 27 + 7 - 4


def test_a_meter_that_is_silent_to_one_question_is_asked_the_others() -> None:
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import", "price", "voltage_a"]}))
    next(talk)
    talk.send(reply("00ff010030360000"))
    ask = talk.throw(NoReply())
    assert ask.request == dlt645_2007.read_request(ADDRESS, 0x02010100)
    with pytest.raises(StopIteration) as end:
        talk.send(reply("000101020123"))
    assert end.value.value.refused == ("price = no reply",)
    assert len(end.value.value.observations) == 2


def test_a_poll_ends_after_sixty_questions() -> None:
    registers = [name for name in REGISTERS if REGISTERS[name].instead][:24]
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": registers}))
    next(talk)
    for _ in range(59):
        talk.send(reply("02", 0xD1))
    with pytest.raises(Rejected) as caught:
        talk.send(reply("02", 0xD1))
    assert "not asked any more" in caught.value.detail


def test_a_whole_frame_ends_the_wait_behind_a_doubled_start() -> None:
    # WKJay/DLT645 issue 5: a 68 before the frame; here the address ends with 68 as well, so that the first looks like a start.
    frame = reply("000101020123", address="000000000068")
    assert dlt645.framer().feed(b"\x68" + frame) == [frame]


@pytest.mark.parametrize("days", [-1, 21, "3", True])
def test_more_freezes_than_a_poll_can_ask_are_refused(days: object) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, {"daily_freezes": days})
    assert caught.value.key == "map.daily_freezes"


TOTAL, GARBLED, OTHER = "00ff0100" + "30360000", "10270000", "10280000"


def test_tariffs_that_are_more_than_their_total_are_asked_for_again() -> None:
    def asked_twice(first: str, second: str) -> Polled:
        talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import"]}))
        next(talk)
        ask = talk.send(reply(TOTAL + "30360000" + first))
        assert ask.request == dlt645_2007.read_request(ADDRESS, 0x0001FF00)
        assert ask.timeout_s > 2, "a meter that lives may take its time"
        with pytest.raises(StopIteration) as end:
            talk.send(reply(TOTAL + "30360000" + second))
        return cast("Polled", end.value.value)

    # 36.30 in total and in the first tariff; the second was garbled and comes right, or is what the meter counts.
    assert [str(one.value) for one in asked_twice(GARBLED, "00000000") if isinstance(one, Reading)] == [
        "36.30",
        "36.30",
        "0.00",
    ]
    assert [str(one.value) for one in asked_twice(GARBLED, GARBLED) if isinstance(one, Reading)] == [
        "36.30",
        "36.30",
        "27.10",
    ]
    with pytest.raises(Rejected) as caught:
        asked_twice(GARBLED, OTHER)
    assert caught.value.detail == "energy_active_import = two answers differ, and neither adds up"


@pytest.mark.parametrize("tariffs", ["30360000" + "02000000", "00000000" * 4, "10000000" * 2, "ffffffff" * 4])
def test_tariffs_that_are_rounded_or_less_than_their_total_are_taken_at_once(tariffs: str) -> None:
    found, asked = poll(lambda _: reply(TOTAL + tariffs), "energy_active_import")
    assert asked == ["0001ff00"]
    assert isinstance(found, tuple)


def test_a_meter_that_is_silent_to_blocks_is_read_value_by_value_and_a_silent_one_is_asked_twice() -> None:
    def silent(answered: str) -> list[str]:
        talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["energy_active_import", "voltage"]}))
        asked: list[str] = []
        ask = next(talk)
        try:
            while True:
                asked.append(bytes((byte - 0x33) % 256 for byte in ask.request[17:13:-1]).hex())
                known = asked[-1][4:6] != "ff" and answered
                ask = (
                    talk.send(reply(bytes.fromhex(asked[-1])[::-1].hex() + answered))
                    if known
                    else talk.throw(NoReply())
                )
        except (StopIteration, NoReply):
            return asked

    values = ["00010000", "00010100", "00010200", "00010300", "00010400"]
    assert silent("") == ["0001ff00", "00010000"]
    assert silent("00000000") == ["0001ff00", *values, "0201ff00", "02010100", "02010200", "02010300"]


def test_a_status_word_that_a_meter_does_not_have_is_no_word_and_no_faults() -> None:
    found, _ = poll(lambda _: reply("ff050004" + "0000" * 4 + "ffff" * 2 + "0000"), "status")
    assert isinstance(found, tuple)
    assert [one.channel for one in found if isinstance(one, Reading)] == ["1", "2", "3", "4", "7"]
    assert not [one for one in found if isinstance(one, Signal) and one.level]
    assert dlt645_2007.decode(0x04000505, bytes.fromhex("ffff")) == Data(())


@pytest.mark.parametrize(("date", "time"), [("ffffffff", "593022"), ("00000000", "000000"), ("07291126", "ffffff")])
def test_a_clock_that_a_meter_does_not_have_is_told(date: str, time: str) -> None:
    found = stamped(
        {"0001ff00": "30360000", "04000101": date, "04000102": time}, registers=["energy_active_import", "clock"]
    )
    assert found == Decoded(
        (Reading("energy_active_import", Decimal("36.30")),), refused=("clock = the meter has none",)
    )
