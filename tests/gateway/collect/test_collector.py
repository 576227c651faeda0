"""What a press, a fall and a reading lead to: real drivers, a real database, and every doubt that the rules know."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from drivers.kit import Advert, Advertises, Counter, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from gateway.alarms import AlarmState, Change
from gateway.clock import Stamp
from gateway.collect import Desk
from gateway.collect.judge import Judged
from gateway.collect.listening import Heard
from gateway.outbox.outbox import MAX_QUEUED

BUTTON = "A4:C1:38:8D:18:B2"
PENDANT = "E8:56:71:5A:54:F5"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
OTHER_KEY = bytes.fromhex("814aac74c4f17b6c1581e1ab87816b99")
PRESS = "01643a01"  # battery 100 %, press
FALL, UPRIGHT = "80bc3a0108ffff0000000006030000", "80bc3a0100ffff0000000006030000"

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
Radio = Callable[..., Desk]


def plain(packet_id: int, objects: str = PRESS) -> dict[int, str]:
    """A BTHome advert in plain text, with its packet id."""
    return {0xFCD2: f"4000{packet_id:02x}{objects}"}


def sealed(counter: int, objects: str = "3a01", key: bytes = KEY) -> dict[int, str]:
    """An encrypted BTHome advert, made here as the specification says."""
    number = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(BUTTON.replace(":", "")) + b"\xd2\xfc\x41" + number
    text = AESCCM(key, tag_length=4).encrypt(nonce, bytes.fromhex(objects), None)
    return {0xFCD2: (b"\x41" + text[:-4] + number + text[-4:]).hex()}


# Presses.


async def test_a_plain_press_is_one_unverified_alarm_whatever_its_repeats(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    for _ in range(12):
        centre.hear(BUTTON, service=plain(7))
        centre.clock.go_on(0.1)

    assert await centre.told("kind", "code", "presses", "verified", "counter", "doubts") == [
        ("alarm.raised", "call", "press", 1, False, 7, ["unauthenticated"]),
        ("telemetry.environment", None, None, None, False, 7, None),
    ]
    alarm = centre.alarms.open_of("call-1")
    assert (alarm.kind, alarm.room, alarm.bed, alarm.presses) == ("call", "201", "1", 1)
    desk = centre.desks["call-1"]
    assert (desk.heard, desk.repeats, desk.events, desk.last_heard) == (12, 11, 2, 1001.1)
    assert [one.alarm.state for one in centre.announced] == [AlarmState.ACTIVE]


async def test_an_encrypted_press_is_verified(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000))
    centre.hear(BUTTON, service=sealed(1000))
    centre.hear(BUTTON, service=sealed(1001))
    assert await centre.told("presses", "verified", "counter") == [
        ("alarm.raised", 1, True, 1000),
        ("alarm.raised", 2, True, 1001),
    ]
    assert centre.problems == []


async def test_each_press_of_an_open_alarm_has_an_event_of_its_own_with_the_same_alarm(
    opened: Opener, radio: Radio
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    for packet_id in (1, 2, 3):
        centre.hear(BUTTON, service=plain(packet_id, "3a01"))
        centre.clock.go_on(5)
    events = await centre.events()
    assert [one["data"]["presses"] for one in events] == [1, 2, 3]
    assert {one["correlationid"] for one in events} == {centre.alarms.open_of("call-1").id}
    assert len({one["id"] for one in events}) == 3
    assert [one["time"] for one in events] == [
        "2027-01-15T08:00:00.000Z",
        "2027-01-15T08:00:05.000Z",
        "2027-01-15T08:00:10.000Z",
    ]


async def test_a_press_is_known_after_a_restart(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000))
    alarm = centre.alarms.open_of("call-1").id
    await centre.restart()
    centre.hear(BUTTON, service=sealed(1000))
    centre.hear(BUTTON, service=sealed(1001))
    assert await centre.told("presses", "counter") == [("alarm.raised", 1, 1000), ("alarm.raised", 2, 1001)]
    assert centre.alarms.open_of("call-1").id == alarm


async def test_a_press_without_a_counter_is_one_until_the_air_is_silent(opened: Opener, radio: Radio) -> None:
    """Nothing but silence tells a press from the repeats of the one before."""
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    for _ in range(10):
        centre.hear(BUTTON, service={0xFCD2: "403a01"})
        centre.clock.go_on(3)
    centre.hear(BUTTON, service={0xFCD2: "403a02"})
    centre.clock.go_on(25.001)
    centre.hear(BUTTON, service={0xFCD2: "403a01"})
    assert await centre.told("code", "presses") == [
        ("alarm.raised", "press", 1),
        ("alarm.raised", "double", 2),
        ("alarm.raised", "press", 3),
    ]
    assert centre.desks["call-1"].repeats == 9


@pytest.mark.parametrize(
    ("calls_on", "codes"),
    [
        (None, ["press", "double", "hold"]),
        (("press", "hold"), ["press", "hold"]),
        ((), []),
    ],
)
async def test_calls_on_chooses_the_codes_that_call(
    opened: Opener, radio: Radio, calls_on: tuple[str, ...] | None, codes: list[str]
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, calls_on=calls_on)])
    for packet_id, code in enumerate(("01", "02", "00", "80")):
        centre.hear(BUTTON, service=plain(packet_id, f"3a{code}"))
    assert [code for _, code in await centre.told("code")] == codes
    assert centre.desks["call-1"].ignored == 3 - len(codes)


async def test_calls_on_speaks_of_buttons_and_silences_no_fall(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT, calls_on=("press",))])
    centre.hear(PENDANT, maker={0x0059: FALL})
    assert ("alarm.raised", "fall") in await centre.told("kind")


async def test_two_buttons_pressed_at_once_are_two_presses_of_one_alarm(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(9, "3a013a02"))
    centre.hear(BUTTON, service=sealed(3, "3a013a02"))
    assert await centre.told("code", "channel", "presses") == [
        ("alarm.raised", "press", "1", 1),
        ("alarm.raised", "double", "2", 2),
        ("alarm.raised", "press", "1", 3),
        ("gateway.security", "GW-SEC-02", None, None),
        ("alarm.raised", "double", "2", 4),
    ]


# Doubts.


async def test_a_wrong_mic_raises_one_unverified_call_for_each_counter(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    for _ in range(5):
        centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
        centre.clock.go_on(0.2)
    centre.clock.go_on(11)
    centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
    centre.hear(BUTTON, service=sealed(1001, key=OTHER_KEY))

    assert await centre.told("code", "presses", "verified", "counter", "doubts") == [
        ("alarm.raised", "undecipherable", 1, False, 1000, ["bad-key"]),
        ("gateway.security", "GW-SEC-01", None, False, 1000, None),
        ("alarm.raised", "undecipherable", 2, False, 1001, ["bad-key"]),
        ("gateway.security", "GW-SEC-01", None, False, 1001, None),
    ]
    assert sorted(centre.problems) == [("GW-DEV-03", "call-1"), ("GW-SEC-01", "call-1")]
    assert centre.desks["call-1"].rejects == {"bad-key": 7}


async def test_a_wrong_mic_raises_nothing_again_after_a_restart(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
    centre.desks["call-1"].last_undecipherable = None
    await centre.restart()
    centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
    assert [noun for (noun,) in await centre.told()] == ["alarm.raised", "gateway.security"]


async def test_a_flood_of_wrong_mics_raises_one_call_in_ten_seconds(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    for counter in range(200):
        centre.hear(BUTTON, service=sealed(counter, key=OTHER_KEY))
        centre.clock.go_on(0.1)
    assert [presses for noun, presses in await centre.told("presses") if noun == "alarm.raised"] == [1, 2]


@pytest.mark.parametrize("taken", ["acknowledged", "closed"])
async def test_a_press_that_cannot_be_read_is_heard_at_once_after_its_alarm_was_taken(
    opened: Opener, radio: Radio, taken: str
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.clock.go_on(3)
    if taken == "closed":
        centre.collector.close(alarm["id"], "li", "helped")
    else:
        centre.collector.acknowledge(alarm["id"], "li")
    centre.clock.go_on(3)
    centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
    assert [one["state"] for one in centre.alarms.listed(centre.clock.stamp(), with_closed=False)] == (
        [] if taken == "closed" else ["ACKED"]
    ), "the air repeats the same press"
    centre.hear(BUTTON, service=sealed(1001, key=OTHER_KEY))
    centre.hear(BUTTON, service=sealed(1002, key=OTHER_KEY))
    assert [
        (one["state"], one["presses"]) for one in centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    ] == [("ACTIVE", 1 if taken == "closed" else 2)]


async def test_a_press_that_cannot_be_read_calls_whatever_codes_were_chosen(opened: Opener, radio: Radio) -> None:
    """Nobody knows which it was."""
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY, calls_on=("long_press",))])
    centre.hear(BUTTON, service=sealed(1000, key=OTHER_KEY))
    assert ("alarm.raised", "undecipherable") in await centre.told("code")


async def test_a_counter_beside_what_cannot_be_read_is_never_taken_for_a_proven_one(
    opened: Opener, radio: Radio
) -> None:
    """Whatever the driver says of it: a stranger could move the mark, and the next true press would be a repeat."""

    def decode(advert: Advert, key: bytes | None) -> Decoded:
        counter = Counter(advert.manufacturer_data[1][0], 32, authenticated=True)
        if len(advert.manufacturer_data[1]) > 1:
            raise Rejected(Reason.BAD_KEY, counter=counter)
        return Decoded((Signal(SignalKind.CALL, "press"),), counter, authenticated=True)

    driver = Advertises("sealed", Title("", ""), decode, (), may_call=True, key_bytes=16)
    centre = await opened([radio("call-1", "sealed", BUTTON, driver=driver, key=KEY)])
    centre.hear(BUTTON, maker={1: "05"})
    centre.hear(BUTTON, maker={1: "0900"})
    centre.hear(BUTTON, maker={1: "09"})
    assert [one for one in await centre.told("code", "verified") if one[0] == "alarm.raised"] == [
        ("alarm.raised", "press", True), ("alarm.raised", "undecipherable", False), ("alarm.raised", "press", True),
    ]  # fmt: skip


async def test_a_forged_counter_does_not_silence_the_true_button(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000))
    centre.hear(BUTTON, service=sealed(1001, key=OTHER_KEY))
    centre.hear(BUTTON, service=plain(233, "3a01"))  # 1001 modulo 256
    centre.hear(BUTTON, service=sealed(1001))
    raised = [one[1:] for one in await centre.told("counter", "verified") if one[0] == "alarm.raised"]
    assert raised == [(1000, True), (1001, False), (233, False), (1001, True)]


async def test_after_a_forged_plain_advert_a_replay_is_still_known(opened: Opener, radio: Radio) -> None:
    """The plain counter has 8 bits and no key: it must not bring the proven mark down."""
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000))
    centre.hear(BUTTON, service=plain(5, "3a01"))
    centre.clock.go_on(600)
    centre.hear(BUTTON, service=sealed(1000))
    raised = [one[1:] for one in await centre.told("counter", "verified") if one[0] == "alarm.raised"]
    assert raised == [(1000, True), (5, False)]


async def test_a_button_without_its_key_raises_without_an_accusation(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    centre.hear(BUTTON, service=sealed(1000))
    assert await centre.told("verified", "doubts") == [("alarm.raised", False, ["no-key"])]
    assert centre.problems == [("GW-DEV-03", "call-1")]


async def test_the_problem_of_the_key_goes_with_the_first_advert_that_can_be_read(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1, key=OTHER_KEY))
    centre.hear(BUTTON, service=sealed(2))
    assert centre.problems == [("GW-SEC-01", "call-1")]


async def test_plain_text_from_a_device_with_a_key_is_a_downgrade(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=plain(7, "3a01"))
    assert await centre.told("code", "verified", "doubts") == [
        ("alarm.raised", "press", False, ["downgrade"]),
        ("gateway.security", "GW-SEC-03", False, None),
    ]
    assert centre.problems == [("GW-SEC-03", "call-1")]


async def test_a_counter_that_went_backwards_is_raised_unverified(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000))
    for _ in range(3):
        centre.hear(BUTTON, service=sealed(3))
    assert await centre.told("presses", "verified", "counter", "doubts") == [
        ("alarm.raised", 1, True, 1000, None),
        ("alarm.raised", 2, False, 3, ["counter-reset"]),
        ("gateway.security", None, False, 3, None),
    ]
    assert centre.problems == [("GW-SEC-02", "call-1")]


async def test_readings_of_a_message_from_behind_are_not_believed(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000, "3a01"))
    centre.hear(BUTTON, service=sealed(3, PRESS))
    assert "telemetry.environment" not in [noun for (noun,) in await centre.told()]


# Readings and levels.


async def test_advertised_readings_are_published_at_their_interval(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, every_s=60.0), radio("p", "ingics-ibs", PENDANT)])
    for packet_id in range(20):
        centre.hear(BUTTON, service=plain(packet_id, "0164"))
        centre.hear(PENDANT, maker={0x0059: UPRIGHT})
        centre.clock.go_on(10)
    told = await centre.told("registers")
    assert [one[0] for one in told] == ["telemetry.environment"] * 5
    assert told[0][1] == [{"quantity": "battery", "channel": "", "value": "100", "unit": "%"}]
    assert told[1][1] == [{"quantity": "battery_voltage", "channel": "", "value": "3.14", "unit": "V"}]


async def test_a_fall_is_raised_at_its_edge_and_latched(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT, every_s=9_999.0)])
    for bits in (UPRIGHT, FALL, FALL, FALL, UPRIGHT, UPRIGHT, FALL):
        centre.hear(PENDANT, maker={0x0059: bits})
        centre.clock.go_on(5)
    told = await centre.told("kind", "presses", "state")
    assert [one for one in told if one[0].startswith("alarm.")] == [
        ("alarm.raised", "fall", 1, "ACTIVE"),
        ("alarm.raised", "fall", 2, "ACTIVE"),
    ]


async def test_a_fall_is_the_same_one_after_a_restart_and_told_once_more(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT, every_s=9_999.0)])
    centre.hear(PENDANT, maker={0x0059: FALL})
    centre.clock.go_on(3)
    await centre.restart()
    centre.hear(PENDANT, maker={0x0059: FALL})
    centre.hear(PENDANT, maker={0x0059: FALL})
    assert [presses for noun, presses in await centre.told("presses") if noun == "alarm.raised"] == [1, 2]
    assert centre.alarms.open_count == 1


async def test_a_fault_that_stands_in_every_message_is_told_once_and_its_end_by_a_proven_sender_only(
    opened: Opener, radio: Radio
) -> None:
    """A button with a low battery says so in every message, for weeks."""
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    for counter in range(1, 40):
        centre.hear(BUTTON, service=sealed(counter, "1501"))
        centre.clock.go_on(30)
    centre.hear(BUTTON, service=plain(1, "1500"))
    centre.hear(BUTTON, service=sealed(40, "1501"))
    centre.hear(BUTTON, service=sealed(41, "1500"))
    assert await centre.told("kind") == [("device.battery", "low_battery"), ("device.battery", "low_battery"),
                                         ("device.restored", "low_battery")]  # fmt: skip


@pytest.mark.parametrize("kind", [SignalKind.CANCEL, SignalKind.RECOVERED, SignalKind.RESTORED])
async def test_silencing_needs_a_proven_sender(opened: Opener, radio: Radio, kind: SignalKind) -> None:
    def decode(advert: Advert, key: bytes | None) -> Decoded:
        proven = advert.manufacturer_data[1] == b"proven"
        return Decoded((Signal(kind),), Counter(len(advert.manufacturer_data[1]), 8, proven), proven)

    driver = Advertises("odd", Title("", ""), decode, (), may_call=True)
    centre = await opened([radio("odd-1", "odd", BUTTON, driver=driver)])
    centre.hear(BUTTON, maker={1: b"anybody".hex()})
    assert await centre.told() == []
    assert centre.desks["odd-1"].ignored == 1
    centre.hear(BUTTON, maker={1: b"proven".hex()})
    assert await centre.told("kind", "verified") == [("device.restored", kind.value, True)]


@pytest.mark.parametrize("word", ["NaN", "sNaN", "Infinity", "-Infinity"])
async def test_a_value_that_is_no_number_is_refused_by_name_and_costs_no_press_beside_it(
    opened: Opener, radio: Radio, word: str
) -> None:
    def decode(_advert: Advert, _key: bytes | None) -> Decoded:
        said = Reading("battery", Decimal(word)), Reading("temperature", Decimal("21.5")), Signal(SignalKind.CALL)
        return Decoded(said, Counter(1, 8, authenticated=False))

    driver = Advertises("odd", Title("", ""), decode, (), may_call=True)
    centre = await opened([radio("odd-1", "odd", BUTTON, driver=driver)])
    centre.hear(BUTTON, maker={1: "00"})
    assert [one[0:3] for one in await centre.told("kind", "detail", "registers")] == [
        ("alarm.raised", "call", None),
        ("telemetry.environment", None, None),
        ("device.fault", "value-unread", f"battery = {word}"),
    ]
    registers = (await centre.events())[1]["data"]["registers"]
    assert [one["quantity"] for one in registers] == ["temperature"]
    desk = centre.desks["odd-1"]
    assert (desk.rejects, desk.battery_percent) == ({"value-unread": 1}, None)
    assert centre.problems == []


# What must not stop the hearing.


async def test_strangers_are_counted_nowhere(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    centre.hear("11:22:33:44:55:66", service=plain(1))
    assert not centre.collector.wants("11:22:33:44:55:66")
    assert centre.collector.wants(BUTTON)
    assert centre.desks["call-1"].heard == 0
    assert await centre.events() == []


async def test_an_advert_that_is_refused_is_counted_and_heard(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    centre.hear(BUTTON, service={0xFCD2: "20"})
    centre.hear(BUTTON, maker={0x004C: "0215"})
    assert centre.desks["call-1"].rejects == {"unsupported": 1, "not-mine": 1}
    assert centre.desks["call-1"].heard == 2
    assert await centre.events() == []


def _broken(may_call: bool) -> Advertises:
    def decode(advert: Advert, key: bytes | None) -> Decoded:
        if 2 in advert.manufacturer_data:
            raise Rejected(Reason.NOT_MINE)
        raise IndexError("a crafted advert")

    return Advertises("broken", Title("", ""), decode, (), may_call=may_call)


async def test_an_advert_that_its_driver_cannot_stand_raises_one_unverified_call(opened: Opener, radio: Radio) -> None:
    """It may be a press: raising fails open. The daemon lives, and the next advert is taken."""
    centre = await opened([radio("call-1", "broken", BUTTON, driver=_broken(may_call=True))])
    for _ in range(30):
        centre.hear(BUTTON, maker={1: "00"})
        centre.clock.go_on(1)
    centre.hear(BUTTON, maker={2: "00"})
    assert await centre.told("code", "verified", "doubts") == [("alarm.raised", "undecipherable", False, ["fault"])]
    assert centre.desks["call-1"].rejects == {"fault": 30, "not-mine": 1}
    assert centre.problems == [("GW-RUN-03", "call-1")]


async def test_a_press_on_the_air_that_cannot_be_judged_is_raised_and_a_reading_is_not(
    opened: Opener, radio: Radio, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])

    def broken(*_: Any, **_more: Any) -> Judged:
        raise RuntimeError("a bug")

    monkeypatch.setattr(centre.judge, "counter", broken)
    centre.hear(BUTTON, service={0xFCD2: "4000070164"})
    assert centre.announced == []
    for _ in range(3):
        centre.hear(BUTTON, service={0xFCD2: "4000083a01"})
    assert await centre.told("code", "verified", "doubts") == [("alarm.raised", "undecipherable", False, ["fault"])]
    assert centre.desks["call-1"].rejects == {"fault": 4}


async def test_a_driver_that_breaks_and_has_no_calls_raises_nothing(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("tag-1", "broken", BUTTON, driver=_broken(may_call=False))])
    centre.hear(BUTTON, maker={1: "00"})
    assert await centre.events() == []


async def test_a_call_is_stored_although_something_else_in_its_message_breaks(opened: Opener, radio: Radio) -> None:
    def decode(advert: Advert, key: bytes | None) -> Decoded:
        odd: Any = object()
        return Decoded((odd, Signal(SignalKind.CALL, "press")), Counter(1, 8, authenticated=False))

    driver = Advertises("odd", Title("", ""), decode, (), may_call=True)
    centre = await opened([radio("call-1", "odd", BUTTON, driver=driver)])
    centre.hear(BUTTON)
    assert await centre.told("code") == [("alarm.raised", "press")]
    assert centre.problems == [("GW-RUN-03", "call-1")]


async def test_an_alarm_that_cannot_be_announced_is_stored(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])

    def announce(_change: Change) -> None:
        raise OSError("the lamp is gone")

    centre.collector._announce = announce
    centre.hear(BUTTON, service=plain(1, "3a01"))
    assert [noun for (noun,) in await centre.told()] == ["alarm.raised"]


async def test_an_alarm_is_announced_before_it_is_stored(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    sequences: list[int] = []
    centre.collector._announce = lambda _change: sequences.append(centre.outbox.sequence)
    centre.hear(BUTTON, service=plain(1, "3a01"))
    assert await centre.told("presses") == [("alarm.raised", 1)]
    assert sequences == [0]


async def test_a_full_queue_refuses_readings_and_says_so_but_never_a_call(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    centre.committing.cancel()  # the disk hangs
    at: Stamp = centre.clock.stamp()
    for _ in range(MAX_QUEUED):
        assert centre.collector.take(centre.desks["call-1"], Decoded(), at, lambda: None)
    centre.hear(BUTTON, service=plain(1, "0164"))
    centre.hear(BUTTON, service=plain(2, "3a01"))
    assert centre.refused == [("air", at)]
    assert centre.desks["call-1"].rejects == {"queue-full": 1}
    assert centre.outbox.waiting == MAX_QUEUED + 1
    assert centre.alarms.open_count == 1


# Listening.


async def test_a_listener_sees_everything_and_a_broken_one_harms_nobody(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    seen: list[Heard] = []

    def broken(_heard: Heard) -> None:
        raise RuntimeError("a listener's bug")

    stop = centre.collector.listeners.add(seen.append)
    centre.collector.listeners.add(broken)
    assert centre.collector.wants("11:22:33:44:55:66")
    centre.hear(BUTTON, service=sealed(1, "3a010164"))
    centre.hear("11:22:33:44:55:66", maker={0x004C: "0215"})
    centre.hear(BUTTON, service={0xFCD2: "20"})
    stop()
    centre.hear(BUTTON, service=sealed(2))
    assert [(one.device, one.address, one.reason, one.detail, one.rssi) for one in seen] == [
        ("call-1", BUTTON, "", "", -60),
        ("", "11:22:33:··:··:··", "stranger", "", -60),
        ("call-1", BUTTON, "unsupported", "BTHome version 1", -60),
    ]
    assert seen[0].item()["said"] == [
        {"signal": "call", "code": "press", "channel": "", "level": None},
        {"quantity": "battery", "channel": "", "value": "100", "unit": "%"},
    ]
    assert seen[1].capture == {
        "mac": "11:22:33:··:··:··", "name": "", "service_data": {}, "manufacturer_data": {"004c": "0215"},
    }  # fmt: skip
    assert KEY.hex() not in json.dumps([one.item() for one in seen])
    assert [noun for (noun,) in await centre.told()].count("alarm.raised") == 2


async def test_whoever_pairs_sees_the_whole_address_of_what_may_be_a_device_of_ours_and_of_nobody_else(
    opened: Opener,
) -> None:
    centre = await opened([])
    seen: list[Heard] = []
    others: list[Heard] = []
    centre.collector.listeners.add(seen.append, pairing=frozenset({0xFCD2}))
    centre.collector.listeners.add(others.append)
    centre.hear("A4:C1:38:00:00:09", service={0xFCD2: "40003a01"})
    centre.hear("11:22:33:44:55:66", maker={0x004C: "0215"})
    assert [one.address for one in seen] == ["A4:C1:38:00:00:09", "11:22:33:··:··:··"]
    assert [one.capture["mac"] for one in seen] == ["A4:C1:38:00:00:09", "11:22:33:··:··:··"]
    assert [one.address for one in others] == ["A4:C1:38:··:··:··", "11:22:33:··:··:··"]


async def test_the_bytes_of_a_stranger_do_not_tell_its_address_either(opened: Opener) -> None:
    centre = await opened([])
    seen: list[Heard] = []
    whole: list[Heard] = []
    centre.collector.listeners.add(seen.append)
    centre.collector.listeners.add(whole.append, pairing=frozenset({0xFE95}))
    xiaomi = "58598723350537243cc218d67794020000cb2de309"
    centre.hear("18:C2:3C:24:37:05", service={0xFE95: xiaomi}, maker={0x0639: "ff18c23c243705"})
    assert seen[0].capture == {
        "mac": "18:C2:3C:··:··:··", "name": "",
        "service_data": {"fe95": "58598723350000003cc218d67794020000cb2de309"},
        "manufacturer_data": {"0639": "ff18c23c000000"},
    }  # fmt: skip
    assert whole[0].capture["service_data"] == {"fe95": xiaomi}


# People.


async def test_a_person_acknowledges_and_closes_and_it_outlives_a_restart(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    centre.hear(BUTTON, service=plain(1, "3a01"))
    alarm = centre.alarms.open_of("call-1").id
    centre.collector.acknowledge(alarm, "Li Na")
    await centre.restart()
    assert centre.alarms.open_of("call-1").acked_by == "Li Na"
    centre.collector.close(alarm, "Li Na", "helped up")
    await centre.restart()
    assert centre.alarms.open_of("call-1") is None
    assert await centre.told("by", "why", "state") == [
        ("alarm.raised", None, None, "ACTIVE"),
        ("alarm.acknowledged", "Li Na", None, "ACKED"),
        ("alarm.closed", "Li Na", "helped up", "CLOSED"),
    ]
    assert [one.alarm.state for one in centre.announced] == ["ACTIVE", "ACKED", "CLOSED"]


async def test_the_alarm_of_a_device_that_left_the_configuration_can_be_closed(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON)])
    centre.hear(BUTTON, service=plain(1, "3a01"))
    centre.desks.clear()
    await centre.restart()
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.close(alarm["id"], "Li Na", "moved out")
    assert (await centre.told("state"))[-1] == ("alarm.closed", "CLOSED")
