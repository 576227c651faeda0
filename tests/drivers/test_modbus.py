"""Modbus RTU meters: what can be asked, frames on a dirty line, late replies, exceptions, and the probe before publishing."""

from __future__ import annotations

import inspect
import struct
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import cast

import pytest

from drivers.devices.modbus_meter import DRIVER
from drivers.kit import BadOption, Decoded, NoReply, Polled, Reading, Reason, Rejected
from drivers.protocols import modbus, modbus_maps
from drivers.protocols.modbus_maps import MAPS
from tests.drivers.captures import Line, lines

PUBLISHED = [*lines("modbus-meter", "modbus.jsonl"), *lines("modbus-meter", "published.jsonl")]
REPLIES = [line for line in PUBLISHED if line["expected"].get("kind") != "request"]


def crc(body: bytes) -> bytes:
    """The sum, worked out bit by bit as the standard shows it (6.2.2)."""
    value = 0xFFFF
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


def reply(data: bytes, *, unit: int = 1, function: int = 4) -> bytes:
    body = bytes([unit, function, len(data)]) + data
    return body + crc(body)


def by_hex(line: Line) -> str:
    return str(line["hex"])


@pytest.mark.parametrize("line", REPLIES, ids=by_hex)
def test_a_published_reply_is_found_and_read(line: Line) -> None:
    expected = line["expected"]
    (frame,) = modbus.framer().feed(bytes.fromhex(line["hex"]))
    said = modbus.parse(frame)
    registers = [int.from_bytes(said.registers[at : at + 2], "big") for at in range(0, len(said.registers), 2)]
    assert (said.unit, said.function) == (expected.get("unit_id", said.unit), expected.get("function", said.function))
    assert said.exception == expected.get("exception", 0)
    assert registers == expected.get("registers", [])
    assert modbus.sender(frame) == str(said.unit)
    if "float_be" in expected:
        value = modbus_maps.real32(said.registers)
        assert value is not None
        assert abs(value - Decimal(expected["float_be"])) < Decimal("0.005")
    assert modbus.answers(frame, unit=said.unit, function=said.function, count=len(registers))


def test_a_published_request_is_built_and_is_no_answer() -> None:
    (line,) = [line for line in PUBLISHED if line["expected"].get("kind") == "request"]
    request = modbus.read_request(1, 4, line["expected"]["address"], line["expected"]["count"])
    assert request.hex() == line["hex"]
    assert modbus.framer().feed(request) == []


def test_nothing_but_reads_can_be_built() -> None:
    built = {name for name, one in inspect.getmembers(modbus, inspect.isfunction) if "request" in name}
    assert built == {"read_request"}
    for function in range(256):
        if function in (3, 4):
            assert modbus.read_request(1, function, 0, 1)[1] == function
        else:
            with pytest.raises(ValueError, match="functions 03 and 04"):
                modbus.read_request(1, function, 0, 1)
    for chosen in MAPS.values():
        assert {block.function for block in chosen.blocks} <= {3, 4}


@pytest.mark.parametrize(
    ("unit", "first", "count"), [(0, 0, 1), (248, 0, 1), (1, 0, 0), (1, 0, 126)]
)  # fmt: skip
def test_a_request_out_of_bounds_cannot_be_built(unit: int, first: int, count: int) -> None:
    with pytest.raises(ValueError, match="units 1 to 247"):
        modbus.read_request(unit, 3, first, count)


GOOD = reply(struct.pack(">f", 230.0))


@pytest.mark.parametrize("before", ["", "00", "ff", "0000ff", "7f", "0104", "0104fa", "0404", "010480", "03"])
@pytest.mark.parametrize("after", ["", "00", "ff00"])
def test_a_frame_is_found_between_stray_bytes(before: str, after: str) -> None:
    assert modbus.framer().feed(bytes.fromhex(before) + GOOD + bytes.fromhex(after)) == [GOOD]


def test_an_echo_and_a_reply_in_one_read_give_the_reply() -> None:
    request = modbus.read_request(1, 4, 0, 2)
    assert modbus.framer().feed(request + GOOD) == [GOOD]


def test_a_reply_answers_by_unit_function_and_length() -> None:
    def answers(frame: bytes, unit: int = 1, function: int = 4, count: int = 2) -> bool:
        return modbus.answers(frame, unit=unit, function=function, count=count)

    assert answers(GOOD)
    assert not answers(GOOD, unit=2)
    assert not answers(GOOD, function=3)
    assert not answers(GOOD, count=4), "a late reply to a question for another block"
    assert not answers(GOOD[:-1] + b"\x00")
    refused = bytes.fromhex("018402")
    assert answers(refused + crc(refused))
    assert not answers(refused + crc(refused), unit=2)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_whole_and_no_two_blocks_have_one_length(name: str) -> None:
    chosen = MAPS[name]
    assert modbus_maps.covered(chosen) == []
    assert modbus.different_lengths(chosen.blocks)
    assert len(chosen.blocks) <= 3
    assert chosen.source
    keys = [(one.quantity, one.channel) for one in chosen.fields]
    assert len(keys) == len(set(keys))
    for one in chosen.fields:
        Reading(one.quantity, Decimal(0), one.channel)


# What a meter shows, in the units of the quantities; a map writes it into its registers.
WELL: Mapping[tuple[str, str], str] = {
    ("voltage", "A"): "230.5", ("voltage", "B"): "231.5", ("voltage", "C"): "229.5",
    ("current", "A"): "10", ("current", "B"): "8", ("current", "C"): "0",
    ("power_active", "A"): "2.25", ("power_active", "B"): "1.5", ("power_active", "C"): "0", ("power_active", ""): "3.75",
    ("power_apparent", "A"): "2.25", ("power_apparent", "B"): "1.75", ("power_apparent", ""): "4",
    ("power_factor", "A"): "0.5", ("power_factor", "B"): "-0.5", ("power_factor", ""): "1",
    ("frequency", ""): "50",
    ("energy_active_import", ""): "1000", ("energy_active_export", ""): "24", ("energy_active_combined", ""): "1024",
    ("energy_active_import", "T1"): "1000", ("energy_active_export", "T4"): "24",
    ("energy_active_combined", "T1"): "1000", ("energy_active_combined", "T4"): "24",
}  # fmt: skip


def written(name: str, **changes: str) -> dict[int, bytes]:
    """The registers of a meter that shows WELL, but for `changes` ("voltage.A")."""
    chosen = MAPS[name]
    shown = {**WELL, **{cast("tuple[str, str]", tuple(key.split("."))): value for key, value in changes.items()}}
    registers = {block.first + at: b"\0\0" for block in chosen.blocks for at in range(block.count)}
    for one in chosen.fields:
        value = Decimal(shown.get((one.quantity, one.channel), "0")) / one.factor
        raw = struct.pack(">f", value) if one.kind == "f32" else _whole(int(value), one.kind)
        for at in range(0, len(raw), 2):
            registers[one.register + at // 2] = raw[at : at + 2]
    for own in chosen.own:
        registers[own.register] = own.none.to_bytes(2, "big")
    return registers


def _whole(number: int, kind: str) -> bytes:
    return number.to_bytes(2 if kind.endswith("16") else 4, "big", signed=kind[0] == "s")


def read(name: str, registers: Mapping[int, bytes], *, settled: bool = False) -> dict[tuple[str, str], Decimal]:
    found = modbus_maps.read(MAPS[name], registers, settled=settled)
    return {(one.quantity, one.channel): one.value for one in found}


@pytest.mark.parametrize("name", MAPS)
def test_a_meter_shows_through_its_map_what_it_shows_on_its_dial(name: str) -> None:
    found = read(name, written(name))
    for key, value in found.items():
        assert abs(value - Decimal(WELL.get(key, "0"))) <= Decimal("0.000001") * max(1, abs(value)), key
    assert any(quantity.startswith("energy_active") for quantity, _ in found)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("eastron-sdm630", {"voltage.A": "23.05"}),
        ("eastron-sdm630", {"voltage.B": "2315"}),
        ("eastron-sdm630", {"voltage.A": "0", "voltage.B": "0", "voltage.C": "0"}),
        ("eastron-sdm630", {"frequency.": "500"}),
        ("eastron-sdm630", {"frequency.": "0"}),
        ("eastron-sdm630", {"power_factor.A": "100"}),
        ("eastron-sdm630", {"power_active.A": "22.5"}),
        ("eastron-sdm630", {"energy_active_combined.": "10.24"}),
        ("eastron-sdm630", {"energy_active_import.": "-1"}),
        ("eastron-sdm72", {"energy_active_combined.": "1"}),
        ("acrel-dtsd1352", {"energy_active_combined.T1": "10"}),
        ("acrel-dtsd1352", {"frequency.": "5"}),
        ("acrel-ddsy1352", {"voltage.A": "0"}),
        ("chint-dtsu666", {"voltage.A": "2305"}),
    ],
)
def test_the_probe_does_not_let_through_what_no_supply_shows(name: str, change: dict[str, str]) -> None:
    with pytest.raises(Rejected) as caught:
        read(name, written(name, **change))
    assert caught.value.reason is Reason.IMPLAUSIBLE
    assert "the probe does not pass" in caught.value.detail


@pytest.mark.parametrize("name", [name for name, one in MAPS.items() if one.fields[0].kind == "f32"])
def test_floats_with_exchanged_words_do_not_pass(name: str) -> None:
    chosen, registers = MAPS[name], written(name)
    for one in chosen.fields:
        first, second = one.register, one.register + 1
        registers[first], registers[second] = registers[second], registers[first]
    with pytest.raises(Rejected) as caught:
        read(name, registers)
    assert caught.value.reason is Reason.IMPLAUSIBLE


def test_the_map_of_a_sister_model_does_not_pass() -> None:
    registers = {**dict.fromkeys(range(0x2000, 0x2010), b"\0\0"), **dict.fromkeys(range(0x4000, 0x400C), b"\0\0")}
    registers |= {key: value for key, value in written("chint-dtsu666").items() if key in registers}
    with pytest.raises(Rejected):
        read("chint-ddsu666", registers)


def test_a_phase_without_voltage_is_no_fault_of_the_map() -> None:
    found = read("eastron-sdm630", written("eastron-sdm630", **{"voltage.C": "0"}))
    assert found["voltage", "C"] == 0


def test_a_ratio_that_the_meter_keeps_must_be_settled_by_the_configuration() -> None:
    registers = written("chint-dtsu666") | {0x0006: b"\0\x28"}
    with pytest.raises(Rejected) as caught:
        read("chint-dtsu666", registers)
    assert "ct = 40" in caught.value.detail
    # What is multiplied is the gateway's: the driver gives the registers as they stand.
    assert read("chint-dtsu666", registers, settled=True)["current", "A"] == 10


def poll(meter: str, *replies: bytes | None, unit: str = "1") -> Polled:
    talk = DRIVER.talk(DRIVER.options(unit, {"meter": meter}))
    try:
        ask = next(talk)
        for one in replies:
            assert one is None or ask.answers(one)
            ask = talk.throw(NoReply()) if one is None else talk.send(one)
    except StopIteration as end:
        return cast("Polled", end.value)
    raise AssertionError("the poll does not end")


def blocks(name: str) -> list[bytes]:
    registers = written(name)
    return [
        reply(b"".join(registers[block.first + at] for at in range(block.count)), function=block.function)
        for block in MAPS[name].blocks
    ]


@pytest.mark.parametrize("name", MAPS)
def test_a_poll_asks_each_block_once(name: str) -> None:
    found = poll(name, *blocks(name), *([None] if MAPS[name].serial else []))
    assert isinstance(found, tuple)
    assert len(found) == len(MAPS[name].fields)


@pytest.mark.parametrize("name", ["eastron-sdm120", "eastron-sdm230", "eastron-sdm630"])
def test_a_meter_that_has_a_number_says_it(name: str) -> None:
    number = reply((19_012_345).to_bytes(4, "big"), function=3)
    found = poll(name, *blocks(name), number)
    assert isinstance(found, Decoded)
    assert (found.meter, len(found.observations)) == ("19012345", len(MAPS[name].fields))


@pytest.mark.parametrize("number", ["00000000", "ffffffff", None, ""])
def test_a_meter_that_has_no_number_is_read_all_the_same(number: str | None) -> None:
    last = None if number is None else reply(bytes.fromhex(number), function=3) if number else refusal(2, 0x83)
    assert poll("eastron-sdm120", *blocks("eastron-sdm120"), last) == poll(
        "eastron-sdm120", *blocks("eastron-sdm120"), None
    )


def refusal(code: int, function: int = 0x84) -> bytes:
    body = bytes([1, function, code])
    return body + crc(body)


def test_a_meter_without_an_optional_block_is_read_without_it() -> None:
    first, _ = blocks("eastron-sdm120")
    found = poll("eastron-sdm120", first, refusal(2), None)
    assert isinstance(found, tuple)
    assert "energy_active_combined" not in {one.quantity for one in found if isinstance(one, Reading)}
    assert Reading("energy_active_import", Decimal(1000)) in found


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1, "illegal function"),
        (2, "illegal data address"),
        (6, "device busy"),
        (11, "did not respond"),
        (99, "unknown"),
    ],
)
def test_an_exception_is_refused_by_name(code: int, name: str) -> None:
    with pytest.raises(Rejected) as caught:
        poll("eastron-sdm120", refusal(code))
    assert caught.value.reason is Reason.UNSUPPORTED
    assert name in caught.value.detail


def test_a_meter_that_falls_silent_in_the_middle_publishes_nothing() -> None:
    first, _ = blocks("eastron-sdm120")
    with pytest.raises(NoReply):
        poll("eastron-sdm120", first, None)


@pytest.mark.parametrize(
    ("address", "raw", "key"),
    [
        ("0", {"meter": "eastron-sdm120"}, "address"),
        ("248", {"meter": "eastron-sdm120"}, "address"),
        ("one", {"meter": "eastron-sdm120"}, "address"),
        ("1", {}, "map.meter"),
        ("1", {"meter": "sdm"}, "map.meter"),
        ("1", {"meter": "eastron-sdm120", "ct": 40}, "map.ct"),
        ("1", {"meter": "eastron-sdm120", "transformers": "unknown"}, "map.transformers"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(address: str, raw: dict[str, object], key: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, raw)
    assert caught.value.key == key


def test_a_map_that_leaves_a_field_unread_is_noticed() -> None:
    chosen = MAPS["chint-ddsu666"]
    assert modbus_maps.covered(replace(chosen, blocks=chosen.blocks[:1])) == [0x4000, 0x4001, 0x400A, 0x400B]
