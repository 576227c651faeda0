"""Tags through the real rules: signed presses and their replay, slots without counter or address, and what counts itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from drivers.devices.beacon_button import DRIVER as BEACON
from drivers.devices.enocean_ptm import DRIVER as PTM
from drivers.kit import Advert, Advertises, Counter, Decoded, Signal, SignalKind, Title
from drivers.protocols import enocean_ble
from gateway.collect import Desk
from gateway.collect.listening import Heard
from gateway.links.state import HeardAdvert

SWITCH = "E2:15:00:00:19:B8"
KEY = bytes.fromhex("3dda31ad44767ae3ce56dce2b3ce2abb")
TAG = "C0:00:00:00:00:07"
UUID = "e2c56db5dffb48d2b060d0f5a71096e0"

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
Radio = Callable[..., Desk]


def telegram(sequence: int, status: int = 0x11, key: bytes = KEY) -> dict[int, str]:
    body = sequence.to_bytes(4, "little") + bytes([status])
    signed = body + enocean_ble.signature(body, address=bytes.fromhex(SWITCH.replace(":", "")), key=key)
    return {enocean_ble.COMPANY: signed.hex()}


def beacon(last: int = 0, *, minor: int = 1) -> dict[int, str]:
    return {0x004C: f"0215{UUID[:-2]}{0xE0 + last:02x}0064{minor:04x}c5"}


def counting(value: int, bits: int, *, on: bool | None) -> Signal:
    return Signal(SignalKind.CALL, "press", level=on, count=Counter(value, bits, authenticated=False))


def counter_tag(bits: int) -> Advertises:
    """A tag that says how often its button was pressed, and whether it is."""

    def decode(advert: Advert, _key: bytes | None) -> Decoded:
        data = advert.manufacturer_data[0xFFFF]
        on = {0: False, 1: True}.get(data[2])
        return Decoded((counting(int.from_bytes(data[:2], "big"), bits, on=on),))

    return Advertises("counter-tag", Title("", ""), decode, (), may_call=True)


# Signed presses.


async def test_a_signed_press_is_verified_once_and_its_release_calls_nobody(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "enocean-ptm", SWITCH, driver=PTM, key=KEY)])
    for sequence, status in ((1117, 0x11), (1118, 0x10), (1119, 0x03)):
        for _ in range(3):
            centre.hear(SWITCH, maker=telegram(sequence, status))
            centre.clock.go_on(0.02)
    assert await centre.told("code", "channel", "verified", "counter") == [
        ("alarm.raised", "press", "B1", True, 1117),
        ("alarm.raised", "press", "A0", True, 1119),
    ]
    assert centre.problems == []


async def test_a_recorded_press_is_never_verified_also_after_a_restart(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "enocean-ptm", SWITCH, driver=PTM, key=KEY)])
    for sequence in (1000, 2000):
        centre.hear(SWITCH, maker=telegram(sequence))
    await centre.restart()
    centre.clock.go_on(3600)
    centre.hear(SWITCH, maker=telegram(2000))
    centre.hear(SWITCH, maker=telegram(1000))
    told = await centre.told("verified", "counter", "doubts")
    assert told == [
        ("alarm.raised", True, 1000, None),
        ("alarm.raised", True, 2000, None),
        ("alarm.raised", False, 1000, ["counter-reset"]),
        ("gateway.security", False, 1000, None),
    ]
    assert ("GW-SEC-02", "call-1") in centre.problems


async def test_a_press_under_another_key_is_raised_unverified(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "enocean-ptm", SWITCH, driver=PTM, key=KEY)])
    centre.hear(SWITCH, maker=telegram(5, key=bytes(16)))
    assert await centre.told("code", "verified", "doubts") == [
        ("alarm.raised", "undecipherable", False, ["bad-key"]),
        ("gateway.security", "GW-SEC-01", False, None),
    ]


async def test_a_key_in_clear_is_a_problem_and_is_shown_to_nobody(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "enocean-ptm", SWITCH, driver=PTM, key=KEY)])
    heard: list[Heard] = []
    centre.collector.listeners.add(heard.append)
    telegram_in_clear = "71010000" + KEY.hex() + "b819000015e2"
    centre.hear(SWITCH, maker={0x03DA: telegram_in_clear})
    centre.hear("11:22:33:44:55:66", maker={0x03DA: telegram_in_clear})
    assert await centre.told() == []
    assert centre.problems == [("GW-SEC-05", "call-1")]
    assert centre.desks["call-1"].rejects == {"key-in-clear": 1}
    assert [one.reason for one in heard] == ["key-in-clear", "stranger"]
    assert all(KEY.hex() not in repr(one) for one in heard)
    # The telegram counted, and so did the press before it: the next one is new.
    centre.hear(SWITCH, maker=telegram(0x172))
    assert await centre.told("verified") == [("alarm.raised", True)]


# Slots.


def slots(*rows: dict[str, object], slot_s: float = 20.0) -> Advertises:
    return BEACON.configured({"slot": list(rows), "slot_s": slot_s})


async def test_the_next_press_of_a_slot_is_heard_soon_after_a_restart_too(opened: Opener, radio: Radio) -> None:
    driver = slots({"is": "press", "uuid": UUID}, slot_s=10.0)
    centre = await opened([radio("call-1", "beacon-button", TAG, driver=driver)])
    centre.hear(TAG, maker=beacon())
    await centre.restart()
    centre.clock.go_on(14.9)
    centre.hear(TAG, maker=beacon())  # as without a restart
    centre.clock.go_on(15.1)
    centre.hear(TAG, maker=beacon())
    await centre.restart()
    centre.clock.go_on(15.1)
    centre.hear(TAG, maker=beacon())
    assert await centre.told("presses") == [("alarm.raised", 1), ("alarm.raised", 2), ("alarm.raised", 3)]


async def test_a_button_that_is_held_over_a_restart_is_told_once_more_and_not_when_its_alarm_is_closed(
    opened: Opener, radio: Radio
) -> None:
    pendant, held = "E8:56:71:5A:54:F5", {0x0059: "80bc3a0101ffff0000000006030000"}
    centre = await opened([radio("call-1", "ingics-ibs", pendant, every_s=9_999.0)])
    centre.hear(pendant, maker=held)
    await centre.restart()
    centre.desks["call-1"].last_told.clear()  # a new process has told nothing
    centre.hear(pendant, maker=held)
    centre.clock.go_on(0.5)
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.close(alarm["id"], "liu", "went there")
    centre.hear(pendant, maker=held)
    raised = [presses for noun, presses in await centre.told("presses") if noun == "alarm.raised"]
    assert raised == [1, 2]


async def test_a_slot_is_one_call_until_it_was_silent_for_its_time(opened: Opener, radio: Radio) -> None:
    driver = slots({"is": "content-change", "uuid": UUID}, slot_s=10.0)
    centre = await opened([radio("call-1", "beacon-button", TAG, driver=driver)])
    centre.hear(TAG, maker=beacon())
    for _ in range(40):  # ten seconds of the changed slot, with the slot as it stands between
        centre.hear(TAG, maker=beacon(4))
        centre.hear(TAG, maker=beacon())
        centre.clock.go_on(0.25)
    centre.clock.go_on(14.0)
    centre.hear(TAG, maker=beacon(4))
    centre.clock.go_on(15.1)
    centre.hear(TAG, maker=beacon(4))
    centre.hear(TAG, maker=beacon(5))
    assert await centre.told("code", "presses", "verified", "doubts") == [
        ("alarm.raised", "press", 1, False, ["unauthenticated"]),
        ("alarm.raised", "press", 2, False, ["unauthenticated"]),
        ("alarm.raised", "double", 3, False, ["unauthenticated"]),
    ]


async def test_tags_without_an_address_are_told_apart_by_what_they_say(opened: Opener, radio: Radio) -> None:
    desks = [
        radio(
            f"call-{minor}",
            "beacon-button",
            "",
            driver=slots({"is": "press", "uuid": UUID, "major": 100, "minor": minor}),
        )
        for minor in (1, 2)
    ]
    centre = await opened(desks)
    assert centre.collector.wants("FE:01:02:03:04:05")
    centre.hear("FE:01:02:03:04:05", maker=beacon(minor=2))
    centre.hear("FE:01:02:03:04:06", maker=beacon(minor=2))
    centre.hear("FE:01:02:03:04:07", maker=beacon(minor=3))
    centre.hear("FE:01:02:03:04:08", maker={0x004C: "1005"})
    assert await centre.told("code", "presses") == [("alarm.raised", "press", 1)]
    assert (centre.desks["call-1"].heard, centre.desks["call-2"].heard) == (0, 2)
    assert centre.alarms.open_of("call-2").presses == 1


async def test_an_address_goes_before_what_an_advert_says(opened: Opener, radio: Radio) -> None:
    driver = slots({"is": "press", "uuid": UUID})
    centre = await opened(
        [radio("near", "beacon-button", TAG, driver=driver), radio("any", "beacon-button", "", driver=driver)]
    )
    centre.hear(TAG, maker=beacon())
    centre.hear("C0:00:00:00:00:08", maker=beacon())
    assert (centre.desks["near"].heard, centre.desks["any"].heard) == (1, 1)


async def test_a_press_that_is_only_shown_again_ends_and_the_next_is_heard(opened: Opener, radio: Radio) -> None:
    """The tag lives on in service data; the system shows its last press beside it all the time."""
    centre = await opened([radio("call-1", "beacon-button", TAG, driver=slots({"is": "press", "uuid": UUID}))])

    def hear(*cached: str) -> None:
        makers = {key: bytes.fromhex(value) for key, value in beacon().items()}
        services = {0xFEAA: bytes.fromhex("2101010c13")}
        advert = Advert(TAG, "", -60, services, makers, frozenset(cached))
        centre.collector.on_advert(HeardAdvert("air", advert, centre.clock.stamp()))

    hear("service_data")
    for _ in range(30):
        centre.clock.go_on(1)
        hear("manufacturer_data")
    hear("service_data")
    alarms = [one for one in await centre.told("presses") if one[0] == "alarm.raised"]
    assert alarms == [("alarm.raised", 1), ("alarm.raised", 2)]


@pytest.mark.parametrize(
    ("model", "service"), [("holyiot-tag", {0x5242: "4164c6b545f6f18e0606060100"}), ("blueup-tag", {0x8800: "c0"})]
)
async def test_a_press_in_service_data_ends_while_the_tag_lives_on_as_an_ibeacon(
    opened: Opener, radio: Radio, model: str, service: dict[int, str]
) -> None:
    centre = await opened([radio("call-1", model, TAG)])

    def hear(*cached: str) -> None:
        makers = {key: bytes.fromhex(value) for key, value in beacon().items()}
        services = {key: bytes.fromhex(value) for key, value in service.items()}
        advert = Advert(TAG, "", -60, services, makers, frozenset(cached))
        centre.collector.on_advert(HeardAdvert("air", advert, centre.clock.stamp()))

    hear("manufacturer_data")
    for _ in range(30):
        centre.clock.go_on(1)
        hear("service_data")
    hear("manufacturer_data")
    alarms = [one for one in await centre.told("presses") if one[0] == "alarm.raised"]
    assert alarms == [("alarm.raised", 1), ("alarm.raised", 2)]
    assert centre.desks["call-1"].rejects == {}


# What counts itself.


async def test_a_count_that_has_risen_is_a_press_that_nobody_heard(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "counter-tag", TAG, driver=counter_tag(15))])
    for count in (700, 700, 701, 701, 705):
        centre.hear(TAG, maker={0xFFFF: f"{count:04x}00"})
        centre.clock.go_on(1)
    await centre.restart()
    for count in (705, 706):
        centre.hear(TAG, maker={0xFFFF: f"{count:04x}00"})
    assert await centre.told("presses", "counter") == [
        ("alarm.raised", 1, 701), ("alarm.raised", 2, 705), ("alarm.raised", 3, 706),
    ]  # fmt: skip


async def test_the_first_count_heard_is_a_press_only_where_the_button_is_down(opened: Opener, radio: Radio) -> None:
    other = "C0:00:00:00:00:08"
    driver = counter_tag(15)
    centre = await opened(
        [radio("up", "counter-tag", TAG, driver=driver), radio("down", "counter-tag", other, driver=driver)]
    )
    for _ in range(3):
        centre.hear(TAG, maker={0xFFFF: "000900"})
        centre.hear(other, maker={0xFFFF: "000901"})
    assert await centre.told("presses", "counter") == [("alarm.raised", 1, 9)]
    assert centre.alarms.open_of("down").presses == 1


async def test_a_count_that_went_back_is_raised_and_not_trusted(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "counter-tag", TAG, driver=counter_tag(15))])
    for count in (700, 1):
        centre.hear(TAG, maker={0xFFFF: f"{count:04x}00"})
        centre.clock.go_on(120)
    assert await centre.told("counter", "verified") == [("alarm.raised", 1, False), ("gateway.security", 1, False)]
    assert ("GW-SEC-02", "call-1") in centre.problems


@pytest.mark.parametrize(("counts", "presses"), [((3, 3, 4, 5), 2), ((14, 15, 0, 0, 1), 3), ((9, 9), 0)])
async def test_a_count_of_four_bits_goes_round(
    opened: Opener, radio: Radio, counts: tuple[int, ...], presses: int
) -> None:
    centre = await opened([radio("call-1", "counter-tag", TAG, driver=counter_tag(4))])
    for count in counts:
        centre.hear(TAG, maker={0xFFFF: f"{count:04x}02"})
        centre.clock.go_on(70)
    assert [one[0] for one in await centre.told()] == ["alarm.raised"] * presses
