"""The silence watchdog with a real bleak: what is done about silence, what is said of it, and what is not."""

from __future__ import annotations

import asyncio
from typing import Any


def gaps(world: Any) -> list[tuple[int, int]]:
    """Return each deaf time that was told, in ms of the boot clock."""
    found = []
    for before, after in zip(world.states, world.states[1:], strict=False):
        if not before.hearing and after.hearing:
            found.append((before.at.mono_ms, after.at.mono_ms))
    return found


async def test_a_deaf_controller_that_a_new_scan_heals_is_told_as_the_deaf_time_that_it_was(world: Any) -> None:
    radio = world.radio(silence_s=2.0)
    await world.until_said("hearing")
    await world.until_rhythm_known(radio)
    last = world.heard[-1].at
    world.bluez.wedge(heals="scan")
    await world.until_delivered()

    await world.until_said("hearing", "GW-BLE-06", "hearing")
    deaf, back = world.states[1], world.states[2]
    assert world.is_told(deaf.at, last)
    # With the first advert, but for those that slipped in while the new scan was being started.
    assert back.at in [one.at for one in world.heard if one.at.mono_ms > last.mono_ms]
    assert 2.0 <= deaf.facts["silent_s"] < 6.0


async def test_a_silence_in_an_unknown_place_that_a_new_scan_ends_is_a_gap_and_no_problem(world: Any) -> None:
    """Shortly after a start nothing is known of what is usual: nobody can vouch for it, and nobody need be alarmed."""
    world.radio(silence_s=2.0)
    await world.until_said("hearing")
    await world.until_heard_once()
    last = world.heard[-1].at
    world.bluez.wedge(heals="scan")
    await world.until_delivered()
    await world.until_said("hearing", "deaf", "hearing")
    assert gaps(world) == [(world.states[1].at.mono_ms, world.states[-1].at.mono_ms)]
    assert world.is_told(world.states[1].at, last)


async def test_a_controller_that_only_a_power_cycle_heals_is_switched_off_and_on_and_hears_again(world: Any) -> None:
    radio = world.radio(silence_s=1.0)
    await world.until_said("hearing")
    await world.until_rhythm_known(radio)
    last = world.heard[-1].at
    world.bluez.wedge(heals="power")

    await world.until_said("hearing", "GW-BLE-06")
    assert world.is_told(world.states[1].at, last)
    # Off and on, with nothing said of it but that it is deaf; only an advert ends that.
    await world.until(lambda: radio._silence.cycles == 1 and world.bluez.scanning())
    await asyncio.sleep(0.2)
    assert world.said == ["hearing", "GW-BLE-06"]
    await world.until_delivered()
    await world.until_said("hearing", "GW-BLE-06", "hearing")
    assert gaps(world) == [(world.states[1].at.mono_ms, world.states[-1].at.mono_ms)]
    assert world.is_told(world.states[1].at, last)


async def test_a_quiet_place_is_never_called_deaf_and_its_silence_is_told_once(world: Any) -> None:
    """One press, then nothing for a long time: no gap, no problem, and after 15 times the silence a word of warning."""
    radio = world.radio(silence_s=0.2)
    await world.until_said("hearing")
    await world.until_heard_once()

    await world.until_said("hearing", "hearing, but GW-BLE-10")
    assert 3.0 <= world.states[-1].facts["silent_s"] < 4.5
    await world.until(lambda: radio._silence.cycles >= 1)
    await asyncio.sleep(0.5)
    assert world.said == ["hearing", "hearing, but GW-BLE-10"]

    await world.until_delivered()
    await world.until_said("hearing", "hearing, but GW-BLE-10", "hearing")
    assert gaps(world) == []


async def test_a_press_during_the_night_comes_through_the_new_scans(world: Any) -> None:
    world.radio(silence_s=0.1)
    await world.until_said("hearing")
    for _ in range(8):
        await asyncio.sleep(0.15)
        before = len(world.heard)
        for _ in range(6):  # as a button does: 6 adverts within 1.2 s, here faster
            world.speak()
            await asyncio.sleep(0.05)
        await world.until(lambda: len(world.heard) > before)  # noqa: B023 - awaited within the turn


async def test_lasting_deafness_is_told_once_however_often_something_is_done_about_it(world: Any) -> None:
    radio = world.radio(silence_s=0.2)
    await world.until_said("hearing")
    await world.until_rhythm_known(radio)
    world.bluez.wedge(heals="never")
    await world.until_said("hearing", "GW-BLE-06")

    await world.until(lambda: radio._silence.cycles >= 2)

    assert world.said == ["hearing", "GW-BLE-06"]
    assert world.bluez.powered()


async def test_an_adapter_that_does_not_come_on_again_is_told_as_switched_off_and_switched_on_later(world: Any) -> None:
    radio = world.radio(silence_s=0.5, power_grace_s=0.5)
    await world.until_said("hearing")
    await world.until_rhythm_known(radio)
    last = world.heard[-1].at
    refused = ("Failed", "Input/output error")
    world.bluez.faults["Properties.Set"] = [0.0, *[refused] * 6]  # "off" passes, 0 s late
    world.bluez.wedge(heals="power")

    await world.until_said("hearing", "GW-BLE-06", "GW-BLE-04")
    await world.until(world.bluez.powered)
    await world.until_delivered()
    assert world.is_told(world.states[2].at, last)
    assert world.said[-1] == "hearing"


async def test_a_new_scan_that_bluetoothd_refuses_is_told_with_the_last_sure_moment(world: Any) -> None:
    world.radio(silence_s=0.4, retry_cap_s=0.1)
    await world.until_said("hearing")
    await world.until_heard_once()
    last = world.heard[-1].at
    world.bluez.sticky = {"Adapter1.StartDiscovery": ("Failed", "Input/output error")}

    await world.until_said("hearing", "GW-BLE-07")
    assert world.is_told(world.states[1].at, last)
    world.bluez.sticky = {}
    await world.until_delivered()
    assert world.said == ["hearing", "GW-BLE-07", "hearing"]


async def test_a_new_scan_that_takes_long_is_told_as_the_gap_that_it_was(world: Any) -> None:
    world.radio(silence_s=0.4)
    await world.until_said("hearing")
    world.bluez.faults["Adapter1.StartDiscovery"] = [1.5]
    await world.until_said("hearing", "deaf", "hearing")
    ((begin, end),) = gaps(world)
    assert 1_500 <= end - begin < 4_000


async def test_cancelled_in_the_middle_of_a_power_cycle_it_leaves_the_adapter_on(world: Any) -> None:
    world.radio(silence_s=0.2)
    await world.until_said("hearing")
    world.bluez.faults["Properties.Set"] = hanging = [0.0, "hang"]
    await world.until(lambda: not world.bluez.powered() and not hanging)  # "on" was asked for, and not answered

    world.tasks[0].cancel()
    await asyncio.wait(world.tasks, timeout=30.0)

    assert world.bluez.powered()
