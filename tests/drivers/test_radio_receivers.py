"""Receivers of radio on a wire: EnOcean ESP3, 433 MHz boards, the Sonoff bridge and rtl_433; published frames and their traps."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices import enocean_esp3, ev1527_board, rtl433, sonoff_rf_bridge
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected, Reply, Signal, SignalKind, Streams
from drivers.kit.checks import crc8

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
CALL, OPENING = SignalKind.CALL, SignalKind.OPENING


def lines(model: str) -> list[dict[str, Any]]:
    text = (CAPTURES / model / f"{model.replace('-', '_')}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def frame_of(driver: Streams, data: bytes) -> bytes:
    (frame,) = driver.framer().feed(data)
    return frame


def said(driver: Streams, data: bytes, options: dict[str, object] | None = None) -> Decoded:
    return driver.decode(frame_of(driver, data), driver.options(options or {}))


def refused(driver: Streams, data: bytes, options: dict[str, object] | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        said(driver, data, options)
    return caught.value


def test_the_corpora_are_whole() -> None:
    assert [len(lines(model)) for model in ("enocean-esp3", "sonoff-rf-bridge", "ev1527-board", "rtl433")] == [
        8,
        11,
        4,
        5,
    ]
    assert len(MORE_ESP3) == 25


# EnOcean: options under which a published packet is read, and what it means. The last two kinds are no telegrams.

ESP3 = enocean_esp3.DRIVER
ENOCEAN: dict[str, tuple[dict[str, object], Decoded | Reason]] = {
    "55000707017af650002989793001ffffffff37009d": ({}, Decoded((Signal(CALL, "BI"),), address="00298979")),
    "55000707017ad50801825dab0001ffffffff360053": (
        {}, Decoded((Signal(OPENING, "contact", level=True),), address="01825DAB"),
    ),
    "55000a0701eba5000055080181b7440001ffffffff2d0075": (
        {"profile": "A5-02-05"}, Decoded((Reading("temperature", Decimal("26.7")),), address="0181B744"),
    ),
    # A5-20-01 is a valve: nothing of it concerns anybody's safety.
    "55000a0701eba532208900deadbeef0003ffffffffff0043": ({}, Reason.UNSUPPORTED),
    # D2-01-01 is a switched socket.
    "550009070156d20400000194e3b90001ffffffff4000bf": ({}, Reason.UNSUPPORTED),
    "5500010005700838": ({}, Reason.UNSUPPORTED),
    "5500050002ce00ff800000da": ({}, Decoded()),
    "5500050102db00ff9e55000a79": ({}, Decoded()),
}  # fmt: skip


@pytest.mark.parametrize("line", lines("enocean-esp3"), ids=lambda line: str(line["bytes"]))
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_published_packet_means_what_its_publisher_says(line: dict[str, Any], step: int) -> None:
    data, framer = bytes.fromhex(line["bytes"]), ESP3.framer()
    options, meaning = ENOCEAN[line["bytes"]]
    (frame,) = [found for at in range(0, len(data), step) for found in framer.feed(data[at : at + step])]
    sender = line["expected"].get("sender", "")
    assert ESP3.address_of is not None
    assert ESP3.address_of(frame, None) == sender
    if isinstance(meaning, Decoded):
        assert ESP3.decode(frame, ESP3.options(options)) == meaning
    else:
        with pytest.raises(Rejected) as caught:
            ESP3.decode(frame, ESP3.options(options))
        assert caught.value.reason is meaning


MORE_ESP3 = [
    json.loads(line)
    for line in (CAPTURES / "enocean-esp3" / "more_esp3.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("line", MORE_ESP3, ids=lambda line: str(line["source"])[:60])
def test_a_telegram_that_somebody_recorded_is_read_without_any_option_or_refused_by_name(line: dict[str, Any]) -> None:
    data, means = bytes.fromhex(line["bytes"]), line["expected"]["means"]
    assert ESP3.address_of is not None
    assert ESP3.address_of(data, ESP3.options({})) == line["expected"]["sender"]
    if means == "unsupported":
        assert refused(ESP3, data).reason is Reason.UNSUPPORTED
    elif means == "F6-10 open":
        assert said(ESP3, data, {"profile": "F6-10"}).observations == (Signal(OPENING, "handle", level=True),)
    elif means in ("closed", "teach-in"):
        contact = (Signal(OPENING, "contact", level=False),) if means == "closed" else ()
        assert said(ESP3, data).observations == contact
    else:
        assert said(ESP3, data).observations == tuple(Signal(CALL, code) for code in means)


def packet(data: bytes, *, kind: int = 1, extra: bytes = b"\x03\xff\xff\xff\xff\x30\x00") -> bytes:
    """A packet made here by hand."""
    head = len(data).to_bytes(2, "big") + bytes([len(extra), kind])
    return b"\x55" + head + bytes([crc8(head)]) + data + extra + bytes([crc8(data + extra)])


def telegram(choice: int, data: str, *, status: int = 0) -> bytes:
    return packet(bytes([choice]) + bytes.fromhex(data) + bytes.fromhex("0181b744") + bytes([status]))


@pytest.mark.parametrize(
    ("data", "status", "codes"),
    [
        ("10", 0x30, ["AI"]), ("30", 0x30, ["A0"]), ("50", 0x30, ["BI"]), ("70", 0x30, ["B0"]), ("15", 0x30, ["AI+BI"]),
        ("00", 0x20, []), ("70", 0x20, ["several"]), ("90", 0x30, ["rocker-4"]),
    ],
)  # fmt: skip
def test_a_rocker_calls_when_it_is_pressed(data: str, status: int, codes: list[str]) -> None:
    found = said(ESP3, telegram(0xF6, data, status=status))
    assert [one.code for one in found.observations if isinstance(one, Signal) and one.kind is CALL] == codes


def test_a_key_can_mean_something_else_or_nothing_but_two_at_once_fail_open() -> None:
    keys: dict[str, object] = {"keys": {"A0": "none", "B0": "bed_exit"}}
    assert said(ESP3, telegram(0xF6, "30", status=0x30), keys).observations == ()
    assert said(ESP3, telegram(0xF6, "70", status=0x30), keys).observations == (Signal(SignalKind.BED_EXIT, "B0"),)
    assert said(ESP3, telegram(0xF6, "35", status=0x30), keys).observations == (Signal(CALL, "A0+BI"),)


@pytest.mark.parametrize(
    ("profile", "choice", "data", "observations"),
    [
        ("F6-04-01", 0xF6, "70", (Signal(SignalKind.OCCUPANCY, "card", level=True),)),
        ("F6-05-01", 0xF6, "11", (Signal(SignalKind.WATER_LEAK, "water", level=True),)),
        ("F6-05-02", 0xF6, "10", (Signal(SignalKind.SMOKE, "smoke", level=True),)),
        ("F6-05-02", 0xF6, "00", (Signal(SignalKind.SMOKE, "smoke", level=False),)),
        ("F6-05-02", 0xF6, "30", (Signal(SignalKind.LOW_BATTERY, "low", level=True),)),
        ("F6-10", 0xF6, "e0", (Signal(OPENING, "handle", level=True),)),
        ("F6-10", 0xF6, "f0", (Signal(OPENING, "handle", level=False),)),
        ("D5-00-01", 0xD5, "09", (Signal(OPENING, "contact", level=False),)),
        ("D5-00-01", 0xD5, "00", ()),
        ("A5-04-01", 0xA5, "007d7d0a", (Reading("humidity", Decimal("50.0")), Reading("temperature", Decimal("20.0")))),
        ("A5-02-05", 0xA5, "0000ff00", ()),
        ("A5-02-14", 0xA5, "0000ff08", (Reading("temperature", Decimal("-20.0")),)),
        ("A5-07-01", 0xA5, "0000c808", (Signal(SignalKind.OCCUPANCY, "presence", level=True),)),
        ("A5-14-01", 0xA5, "96000009", (Signal(OPENING, "contact", level=True), Reading("battery_voltage", Decimal("3.00")))),
        ("A5-30-03", 0xA5, "00000f08", (Signal(SignalKind.WATER_LEAK, "water", level=True),)),
        ("D2-03-0A", 0xD2, "5503", (Signal(CALL, "long"), Reading("battery", Decimal(85)))),
        ("D2-03-0A", 0xD2, "5504", (Reading("battery", Decimal(85)),)),
        ("D2-03-0A", 0xD2, "5509", (Signal(CALL, "unknown"), Reading("battery", Decimal(85)))),
    ],
)  # fmt: skip
def test_a_profile_says_what_the_bytes_mean(
    profile: str, choice: int, data: str, observations: tuple[object, ...]
) -> None:
    found = said(ESP3, telegram(choice, data), {"profile": profile})
    assert found.observations == observations
    assert not found.authenticated


def test_states_that_are_none_and_telegrams_of_another_profile_are_refused_by_name() -> None:
    assert said(ESP3, telegram(0xF6, "55"), {"profile": "F6-05-01"}).refused == ("water = 55",)
    assert refused(ESP3, telegram(0xF6, "50"), {"profile": "A5-02-05"}).reason is Reason.UNSUPPORTED
    assert refused(ESP3, telegram(0xF6, "5000")).reason is Reason.MALFORMED
    assert refused(ESP3, telegram(0x31, "5000")).detail == "choice 31 as no profile"
    assert refused(ESP3, packet(b"\xf6\x50")).reason is Reason.TOO_SHORT


def test_our_question_that_comes_back_is_no_answer() -> None:
    assert ESP3.poll is not None
    assert ESP3.poll.request.hex() == "5500010005700309"
    assert refused(ESP3, ESP3.poll.request).reason is Reason.NOT_MINE


def test_a_55_within_a_packet_or_a_garbled_head_holds_nothing_back() -> None:
    press = bytes.fromhex("55000707017af650002989793001ffffffff37009d")
    framer = ESP3.framer()
    head = b"\x01\xff\x00\x01"
    assert framer.feed(b"\x55\x55" + b"\x55" + head + bytes([crc8(head)])) == []
    assert framer.feed(press) == [press]
    broken = press[:-1] + b"\x00"
    assert framer.feed(broken + press) == [press]
    assert framer.rejects == {Reason.BAD_CHECK: 1}


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("map.profile", {"profile": "F6-99"}), ("map.keys", {"keys": "B0"}), ("map.keys.C0", {"keys": {"C0": "call"}}),
        ("map.keys.B0", {"keys": {"B0": "fire"}}),
    ],
)  # fmt: skip
def test_enocean_options_that_do_not_fit_are_refused_by_name(key: str, raw: dict[str, object]) -> None:
    with pytest.raises(BadOption) as caught:
        ESP3.options(raw)
    assert caught.value.key == key


# EV1527.

BOARD, BRIDGE = ev1527_board.DRIVER, sonoff_rf_bridge.DRIVER
KERUI = {"keys": {"A": "motion", "E": "opening", "7": "closed", "B": "tamper", "5": "water_leak", "F": "low_battery"}}
KERUI_MEANING = {
    "cd46be": Signal(OPENING, "key-E", level=True), "cd46b7": Signal(OPENING, "key-7", level=False),
    "cd46bb": Signal(SignalKind.TAMPER, "key-B"), "cd46b5": Signal(SignalKind.WATER_LEAK, "key-5"),
}  # fmt: skip


@pytest.mark.parametrize("line", lines("ev1527-board"), ids=lambda line: str(line["bytes"]))
def test_a_kerui_code_means_what_the_configuration_says(line: dict[str, Any]) -> None:
    code = bytes.fromhex(line["bytes"])
    board = said(BOARD, b"\xfd" + code + b"\x5a\xdf", KERUI)
    assert board == Decoded((KERUI_MEANING[line["bytes"]],), address=f"{line['expected']['id']:05X}")
    bridge = said(BRIDGE, bytes.fromhex("aaa42828015403fc") + code + b"\x55", KERUI)
    assert bridge.observations == board.observations
    assert bridge.address == board.address


def test_a_key_that_nobody_named_is_a_call_and_none_is_nothing() -> None:
    assert said(BOARD, bytes.fromhex("fdcd46b35adf"), KERUI).observations == (Signal(CALL, "key-3"),)
    assert said(BOARD, bytes.fromhex("fdcd46b35adf"), {"keys": {"3": "none"}}).observations == ()


def test_the_oscillator_byte_does_not_matter_and_may_be_anything() -> None:
    found = {said(BOARD, bytes([0xFD, 0xCD, 0x46, 0xBE, byte, 0xDF])).address for byte in range(256)}
    assert found == {"CD46B"}


def test_an_fd_within_a_code_holds_nothing_back() -> None:
    code = bytes.fromhex("fdcd46be5adf")
    framer = BOARD.framer()
    assert framer.feed(b"\xfd\xfd\x12" + code) == [code]


# The Sonoff bridge. One remote was pressed again and again: the times drift, what it says does not.

REMOTE = "18:3F3C3"
GOT_IT = Reply(b"\xaa\xa0\x55")


@pytest.mark.parametrize("line", lines("sonoff-rf-bridge"), ids=lambda line: str(line["bytes"])[:24])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_published_frame_of_the_bridge_is_read(line: dict[str, Any], step: int) -> None:
    data, framer = bytes.fromhex(line["bytes"]), BRIDGE.framer()
    (frame,) = [found for at in range(0, len(data), step) for found in framer.feed(data[at : at + step])]
    if "unsupported" in line["expected"]:
        with pytest.raises(Rejected) as caught:
            BRIDGE.decode(frame, BRIDGE.options({}))
        assert caught.value.reason is Reason.UNSUPPORTED
        return
    found = BRIDGE.decode(frame, BRIDGE.options({}))
    if "address" in line["expected"]:
        code = f"key-{line['expected']['key']}"
        assert found == Decoded((Signal(CALL, code),), address=line["expected"]["address"])
    elif "ev1527" in line["expected"]:
        assert found == Decoded((Signal(CALL, "key-8"),), address="D0FC3", replies=(GOT_IT,))
    else:
        assert found == Decoded((Signal(CALL, "key-0"),), address=REMOTE)


def test_an_ev1527_code_is_the_same_raw_and_by_its_protocol() -> None:
    pairs = "".join("10" if one == "1" else "01" for one in f"{0xD0FC38:024b}")
    raw = bytes.fromhex("aab103" + "015403fc2828" + pairs + "02" + "55")
    assert said(BRIDGE, raw).address == "D0FC3"
    assert said(BRIDGE, raw).observations == (Signal(CALL, "key-8"),)
    newer = bytes.fromhex("aab103" + "015403fc2828" + pairs.replace("10", "90").replace("01", "81") + "82" + "55")
    assert said(BRIDGE, newer).address == "D0FC3"
    assert said(BRIDGE, bytes.fromhex("aaa60401d0fc3855")).address == "D0FC3"


def test_other_frames_of_the_bridge_are_read_past_or_refused() -> None:
    assert said(BRIDGE, bytes.fromhex("aaa055")) == Decoded()
    assert said(BRIDGE, bytes.fromhex("aaa32828015403fcd0fc3855")) == Decoded()
    assert refused(BRIDGE, bytes.fromhex("aab10201000200" + "0055")).reason is Reason.UNSUPPORTED
    assert refused(BRIDGE, bytes.fromhex("aaa6030101" + "0155")).reason is Reason.MALFORMED


# rtl_433.

RTL = rtl433.DRIVER
RTL_MAPS: list[tuple[dict[str, object], tuple[Signal, ...]]] = [
    # A remote that rtl_433 takes for a smoke alarm: it is what its owner says.
    ({"field": "code", "is": "call", "code": "press"}, (Signal(CALL, "press"),)),
    ({"field": "code", "equals": 983141, "is": "water_leak", "code": "wet"}, (Signal(SignalKind.WATER_LEAK, "wet"),)),
    (
        {"field": "switch1", "equals": "OPEN", "ends": "CLOSED", "is": "opening"},
        (Signal(OPENING, "OPEN", level=True), Signal(SignalKind.LOW_BATTERY, "battery_ok", level=False)),
    ),
    ({"field": "motion", "equals": 1, "is": "motion", "code": "motion"}, (Signal(SignalKind.MOTION, "motion"),)),
    ({"field": "cmd", "equals": 40, "is": "call", "code": "40"}, (Signal(CALL, "40"),)),
]
RTL_ADDRESSES = [
    "Smoke-GS558/27111", "DY-SQ100B-WaterLeak-EV1527/983141", "Interlogix-Security/a55b4b", "Kerui-Security/840811",
    "Generic-Remote/39985",
]  # fmt: skip


@pytest.mark.parametrize("n", range(5))
def test_a_published_line_of_rtl_433_means_what_the_configuration_says(n: int) -> None:
    line, (rule, signals) = lines("rtl433")[n], RTL_MAPS[n]
    found = said(RTL, line["text"].encode() + b"\n", {"signal": [rule]})
    assert found == Decoded(signals, address=RTL_ADDRESSES[n])


def test_a_low_battery_is_told_without_a_map_and_a_share_of_one_is_none() -> None:
    rule = {"field": "motion", "is": "motion"}
    low = said(RTL, b'{"model":"X","id":1,"battery_ok":0}\n', {"signal": [rule]})
    assert low.observations == (Signal(SignalKind.LOW_BATTERY, "battery_ok", level=True),)
    for value in (b"0.5", b"true", b'"1"', b"null"):
        found = said(RTL, b'{"model":"X","id":1,"battery_ok":' + value + b"}\n", {"signal": [rule]})
        assert found.observations == ()


@pytest.mark.parametrize(
    "line", [b'{"model":"X"}\n', b'{"id":1}\n', b'{"model":1.5,"id":1}\n', b'{"model":"X","id":""}\n']
)
def test_a_line_that_names_no_transmitter_is_not_ours(line: bytes) -> None:
    assert refused(RTL, line, {"signal": [{"field": "x", "is": "call"}]}).reason is Reason.NOT_MINE
    assert RTL.address_of is not None
    assert RTL.address_of(line, None) == ""


def test_a_call_is_raised_beside_a_reading_that_is_none() -> None:
    raw: dict[str, object] = {
        "signal": [{"field": "cmd", "is": "call"}], "reading": [{"field": "t", "quantity": "temperature"}],
    }  # fmt: skip
    found = said(RTL, b'{"model":"X","id":1,"cmd":2,"t":"warm"}\n', raw)
    assert found.observations == (Signal(CALL, "2"),)
    assert found.refused == ("t is no number",)
    assert refused(RTL, b'{"model":"X","id":1,"t":"warm"}\n', raw).reason is Reason.IMPLAUSIBLE


# Visonic PowerCode: recorded telegrams of 36 bits, as rtl_433 hands them over (its visonic_powercode.c says which bit is which).


def powercode(data: bytes) -> bytes:
    """What rtl_433 prints of a telegram, whose nine half bytes make nothing of each other."""
    nibbles = [half for byte in data for half in (byte >> 4, byte & 15)][:9]
    check = 0
    for nibble in nibbles:
        check ^= nibble
    assert check == 0
    bits = ("tamper", "alarm", "battery_ok", "else", "restore", "supervised", "spidernet", "repeater")
    fields: dict[str, object] = {"model": "Visonic-Powercode", "id": data[:3].hex()}
    fields |= {name: data[3] >> 7 - n & 1 ^ (name == "battery_ok") for n, name in enumerate(bits)}
    return json.dumps(fields | {"mic": "LRC"}).encode() + b"\n"


POWERCODE = [
    json.loads(line)
    for line in (CAPTURES / "rtl433" / "visonic_powercode.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("line", POWERCODE, ids=lambda line: line["bytes"])
def test_a_telegram_of_visonic_means_what_was_done_to_the_contact(line: dict[str, Any]) -> None:
    data, expected = bytes.fromhex(line["bytes"]), line["expected"]
    rules = {"signal": [{"field": "alarm", "equals": 1, "ends": 0, "is": "opening", "code": "contact"}]}
    decoded = said(RTL, powercode(data), rules)
    assert decoded.address == f"Visonic-Powercode/{expected['id']}"
    assert decoded.observations == (
        Signal(OPENING, "contact", level=expected["contact_open"]),
        Signal(SignalKind.LOW_BATTERY, "battery_ok", level=False),
        Signal(SignalKind.TAMPER, "tamper", level=expected["tamper"]),
    )


def test_the_alarm_of_a_pendant_of_visonic_calls_where_it_is_mapped_to_that() -> None:
    decoded = said(
        RTL, powercode(bytes.fromhex("6f47704c50")), {"signal": [{"field": "alarm", "equals": 1, "is": "call"}]}
    )
    assert decoded.observations[0] == Signal(CALL, "1")


def test_a_rule_for_the_housing_goes_before_what_is_known_of_it() -> None:
    rules = {"signal": [{"field": "tamper", "equals": 1, "is": "call"}]}
    decoded = said(RTL, powercode(bytes.fromhex("6f4770ccd0")), rules)
    assert [one.kind for one in decoded.observations if isinstance(one, Signal)] == [CALL, SignalKind.LOW_BATTERY]
    assert said(RTL, b'{"model":"X","id":1,"tamper":"open"}\n', rules).observations == ()


MORE_RTL = [
    json.loads(line) for line in (CAPTURES / "rtl433" / "more_rtl433.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("line", MORE_RTL, ids=lambda line: str(line["source"])[:60])
def test_a_line_of_an_alarm_systems_contact_is_read_as_it_was_logged(line: dict[str, Any]) -> None:
    field, opened, closed, is_open = line["expected"]["contact"]
    rules = {"signal": [{"field": field, "equals": opened, "ends": closed, "is": "opening", "code": "contact"}]}
    decoded = said(RTL, line["text"].encode() + b"\n", rules)
    assert decoded.address == line["expected"]["address"]
    assert decoded.observations[0] == Signal(OPENING, "contact", level=is_open)
    tamper = (Signal(SignalKind.TAMPER, "tamper", level=False),) if '"tamper"' in line["text"] else ()
    assert decoded.observations[1:] == (Signal(SignalKind.LOW_BATTERY, "battery_ok", level=False), *tamper)
    assert decoded.refused == ()
