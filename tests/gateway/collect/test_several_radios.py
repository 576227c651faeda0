"""Several radios that hear the same devices, each in its own time: one press is one alarm, and one is heard by either."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from itertools import permutations
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from gateway.collect import Desk

BUTTON = "A4:C1:38:8D:18:B2"
PENDANT = "E8:56:71:5A:54:F5"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
FALL, UPRIGHT = {0x0059: "80bc3a0108ffff0000000006030000"}, {0x0059: "80bc3a0100ffff0000000006030000"}

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
Radio = Callable[..., Desk]


def sealed(counter: int) -> dict[int, str]:
    """One press with one reading, encrypted as BTHome says."""
    number = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(BUTTON.replace(":", "")) + b"\xd2\xfc\x41" + number
    text = AESCCM(KEY, tag_length=4).encrypt(nonce, bytes.fromhex("01643a01"), None)
    return {0xFCD2: (b"\x41" + text[:-4] + number + text[-4:]).hex()}


@pytest.mark.parametrize("order", list(permutations(("hall", "stairs", "proxy"))), ids="-".join)
@pytest.mark.parametrize("lag_s", [0.0, 0.2, 8.0])
async def test_a_press_that_three_radios_hear_is_one_alarm_and_one_reading(
    opened: Opener, radio: Radio, order: tuple[str, ...], lag_s: float
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    for by in order:
        centre.hear(BUTTON, service=sealed(1000), by=by)
        assert len(centre.announced) == 1  # by the first: nobody waits for the others
        centre.clock.go_on(lag_s)
    assert await centre.told("presses", "verified", "counter") == [
        ("alarm.raised", 1, True, 1000), ("telemetry.environment", None, True, 1000),
    ]  # fmt: skip
    assert (centre.desks["call-1"].heard, centre.desks["call-1"].repeats) == (3, 2)
    assert centre.problems == []


async def test_a_radio_that_its_configuration_does_not_name_hears_for_a_device(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    centre.hear(BUTTON, service=sealed(1000), by="stairs")
    assert ("alarm.raised", 1) in await centre.told("presses")


async def test_what_a_lagging_radio_brings_after_the_next_press_is_a_repeat(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    for counter, by in ((1000, "hall"), (1001, "hall"), (1000, "proxy"), (1001, "proxy")):
        centre.hear(BUTTON, service=sealed(counter), by=by)
        centre.clock.go_on(3)
    told = await centre.told("presses", "verified")
    assert [one for one in told if one[0] == "alarm.raised"] == [("alarm.raised", 1, True), ("alarm.raised", 2, True)]


async def test_what_a_radio_replays_much_later_is_never_verified(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    for counter in (1000, 1001):
        centre.hear(BUTTON, service=sealed(counter), by="hall")
    centre.clock.go_on(3600)
    centre.hear(BUTTON, service=sealed(1000), by="proxy")
    told = await centre.told("counter", "verified")
    assert [one for one in told if one[0] == "alarm.raised"] == [
        ("alarm.raised", 1000, True), ("alarm.raised", 1001, True), ("alarm.raised", 1000, False),
    ]  # fmt: skip


async def test_a_fall_that_a_lagging_radio_tells_once_more_does_not_reopen_its_alarm(
    opened: Opener, radio: Radio
) -> None:
    """The pendant counts nothing. Whoever took the alarm is on the way; the proxy brings what the hall has told already."""
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT)])
    centre.hear(PENDANT, maker=UPRIGHT, by="hall")
    centre.hear(PENDANT, maker=FALL, by="hall")
    centre.clock.go_on(1)
    centre.hear(PENDANT, maker=UPRIGHT, by="proxy")  # from before the fall
    centre.hear(PENDANT, maker=FALL, by="hall")
    centre.clock.go_on(3)
    centre.hear(PENDANT, maker=UPRIGHT, by="hall")
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.acknowledge(alarm["id"], "Li")
    centre.clock.go_on(2)
    for _ in range(3):
        centre.hear(PENDANT, maker=FALL, by="proxy")
        centre.clock.go_on(1)
    centre.hear(PENDANT, maker=UPRIGHT, by="proxy")
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    assert (alarm["state"], alarm["presses"]) == ("ACKED", 1)
    # Another fall, whoever hears it, is one.
    centre.hear(PENDANT, maker=FALL, by="proxy")
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    assert (alarm["state"], alarm["presses"]) == ("ACTIVE", 2)


async def test_a_fall_of_which_no_alarm_is_open_is_raised_however_late_it_comes(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT)])
    centre.hear(PENDANT, maker=FALL, by="hall")
    centre.hear(PENDANT, maker=UPRIGHT, by="hall")
    (alarm,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.close(alarm["id"], "Li", "seen to")
    centre.clock.go_on(2)
    for _ in range(2):
        centre.hear(PENDANT, maker=FALL, by="proxy")
    assert [one["presses"] for one in centre.alarms.listed(centre.clock.stamp(), with_closed=False)] == [1]


@pytest.mark.parametrize(("is_closed", "alarms"), [(True, 2), (False, 1)])
async def test_a_fall_whose_end_only_another_radio_heard_does_not_hide_the_next(
    opened: Opener, radio: Radio, is_closed: bool, alarms: int
) -> None:
    """That end may as well be older than the fall: what is said on after it is another one where nobody would come for it."""
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT)])
    for _ in range(5):
        centre.hear(PENDANT, maker=FALL, by="hall")
        centre.clock.go_on(1)
    if is_closed:
        centre.collector.close(centre.announced[0].alarm.id, "Li Na", "helped")
    centre.hear(PENDANT, maker=UPRIGHT, by="stairs")
    for _ in range(20):
        centre.clock.go_on(1)
        centre.hear(PENDANT, maker=FALL, by="hall")
    raised = [change for change in centre.announced if change.alarm.state == "ACTIVE"]
    assert [change.alarm.presses for change in raised] == [1] * alarms


async def test_who_hears_a_device_best_is_known_while_it_is_heard(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("fall-1", "ingics-ibs", PENDANT)])
    for by, rssi in (("hall", -80), ("stairs", -55), ("proxy", -70)):
        centre.hear(PENDANT, maker=UPRIGHT, by=by, rssi=rssi)
        centre.clock.go_on(1)
    desk = centre.desks["fall-1"]
    assert (desk.best_first, desk.rssi) == (["stairs", "proxy", "hall"], -55)
    centre.clock.go_on(100)
    centre.hear(PENDANT, maker=UPRIGHT, by="hall", rssi=-85)
    assert (desk.best_first, desk.rssi) == (["hall"], -85)  # it was carried away from the other two
    assert desk.status(centre.clock, None)["receivers"] == [
        {"link": "hall", "rssi": -85, "last_heard_s": 0.0, "heard": 2}
    ]
