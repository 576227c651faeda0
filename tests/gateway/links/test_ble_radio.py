"""What the BLE link hears through a real bleak, a real dbus-daemon and a pretended bluetoothd, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from drivers.kit import Advert
from gateway.clock import Stamp, SystemClock
from gateway.links.ble_radio import BleRadio
from gateway.links.state import HeardAdvert
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report

# What it hears.


async def test_every_repeat_of_a_press_is_delivered_with_its_own_rssi(world: Any) -> None:
    world.radio()
    await world.until_said("hearing")

    for rssi in (-61, -58, -66, -60, -71, -63):
        world.bluez.hear(Report(world.ours, rssi, "SBBT-002C", {0xFCD2: world.press}))
        await asyncio.sleep(0.01)
    await world.until(lambda: len(world.heard) == 6, f"heard {len(world.heard)} of 6")

    assert [one.advert.rssi for one in world.heard] == [-61, -58, -66, -60, -71, -63]
    assert {one.link for one in world.heard} == {"air"}
    first = world.heard[0].advert
    assert first == Advert(world.ours, "SBBT-002C", -61, {0xFCD2: world.press}, {})
    stamps = [one.at.mono_ms for one in world.heard]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] >= 40


async def test_strangers_are_not_delivered_but_prove_that_the_radio_hears(world: Any) -> None:
    radio = world.radio()
    await world.until_said("hearing")

    for _ in range(5):
        world.bluez.hear(Report(world.stranger, -70, manufacturer_data={0x004C: b"\x10\x05"}))
        await asyncio.sleep(0.01)
    await world.until_delivered()

    assert radio.heard >= 6
    assert {one.advert.address for one in world.heard} == {world.ours}


async def test_a_callback_that_no_advert_caused_is_ignored(world: Any) -> None:
    radio = world.radio()
    await world.until_said("hearing")
    await world.until_heard_once()
    before = (radio.heard, len(world.heard))

    world.bluez.invalidate_rssi()
    await asyncio.sleep(0.1)

    assert (radio.heard, len(world.heard)) == before


def _data(
    services: dict[str, bytes], manufacturer: dict[int, bytes] | None = None, rssi: int = -60
) -> AdvertisementData:
    return AdvertisementData(None, manufacturer or {}, services, [], None, rssi, ())


def _quiet_radio(heard: list[HeardAdvert], **options: Any) -> BleRadio:
    settings: dict[str, Any] = {
        "deliver": heard.append,
        "on_state": lambda _: None,
        "wanted": lambda _: True,
        "known": lambda _: True,
        **options,
    }
    return BleRadio(link_id="air", adapter="hci0", clock=SystemClock(), **settings)


def test_service_data_is_keyed_by_16_bit_ids_and_data_under_other_ids_is_not_carried() -> None:
    heard: list[HeardAdvert] = []
    radio = _quiet_radio(heard)
    services = {
        "0000fcd2-0000-1000-8000-00805f9b34fb": b"\x40",
        "0001fcd2-0000-1000-8000-00805f9b34fb": b"\x41",
        "6e400001-b5a3-f393-e0a9-e50e24dcca9e": b"\x42",
    }

    radio._on_advert(BLEDevice("aa:bb:cc:dd:ee:01", None, {}), _data(services, {0x0059: b"\x80\xbc"}))
    radio._queue.flush()

    assert heard[0].advert == Advert("AA:BB:CC:DD:EE:01", "", -60, {0xFCD2: b"\x40"}, {0x0059: b"\x80\xbc"})


def test_a_full_queue_drops_the_newest_and_announces_how_many_and_when() -> None:
    heard: list[HeardAdvert] = []
    overflows: list[tuple[int, Stamp, Stamp]] = []
    radio = _quiet_radio(heard, limit=3, on_overflow=lambda *what: overflows.append(what))

    for n in range(5):
        radio._on_advert(
            BLEDevice("AA:BB:CC:DD:EE:01", None, {}), _data({"0000fcd2-0000-1000-8000-00805f9b34fb": bytes([n])})
        )
    radio._queue.flush()
    radio._queue.flush()

    assert [one.advert.service_data[0xFCD2] for one in heard] == [b"\x00", b"\x01", b"\x02"]
    assert radio.dropped == 2
    assert len(overflows) == 1
    count, first, last = overflows[0]
    assert count == 2
    assert heard[-1].at.mono_ms <= first.mono_ms <= last.mono_ms


async def test_a_callback_that_raises_is_counted_and_the_scan_goes_on(world: Any) -> None:
    calls = 0

    def deliver(_: HeardAdvert) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("a bug of a driver")

    def wanted(address: str) -> bool:
        if address == world.stranger:
            raise KeyError(address)
        return True

    radio = world.radio(wanted=wanted, deliver=deliver)
    await world.until_said("hearing")

    for address in (world.ours, world.stranger, world.ours):
        world.bluez.hear(Report(address, -60, service_data={0xFCD2: world.press}))
        await asyncio.sleep(0.02)
    await world.until(lambda: calls == 2, f"delivered {calls} of 2")

    assert radio.failed == 3
    assert not world.tasks[0].done()
    assert world.said == ["hearing"]


# Which repeats are told, by release, adapter and controller: our scanner is told all that can be told.


@pytest.mark.parametrize(
    "kind",
    [
        {"version": (5, 66), "dual_mode": True},
        {"version": (5, 88), "dual_mode": True},
        {"version": (5, 82), "dual_mode": False},
        {"version": (5, 88), "dual_mode": False},
        {"controller": "by address", "experimental": True},
        {"controller": "by data", "experimental": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("payload", ["same", "changing"])
async def test_all_of_20_adverts_come_through(world: Any, kind: dict[str, Any], payload: str) -> None:
    await world.bluez.stop()
    world.bluez = FakeBluez(world.daemon.address, **kind)
    world.bluez.add_adapter()
    await world.bluez.start()
    radio = world.radio()
    await world.until_said("hearing")
    if "controller" in kind:
        await world.until(lambda: world.bluez.monitors() == 1, "no monitor was registered")
        assert radio._monitor.registered

    for n in range(20):
        data = world.press if payload == "same" else bytes([0x40, 0x00, n])
        world.bluez.hear(Report(world.ours, -60, service_data={0xFCD2: data}))
        await asyncio.sleep(0.005)

    await world.until(lambda: len(world.heard) == 20, "not all 20")


@pytest.mark.parametrize(("controller", "payload", "heard"), [("by address", "changing", 1), ("by data", "same", 1)])
async def test_without_a_monitor_a_controller_that_drops_repeats_costs_adverts(
    world: Any, controller: str, payload: str, heard: int
) -> None:
    """What the monitor is for; and proof that the pretended controller drops anything at all."""
    await world.bluez.stop()
    world.bluez = FakeBluez(world.daemon.address, controller=controller)
    world.bluez.add_adapter()
    await world.bluez.start()
    world.radio()
    await world.until_said("hearing")
    for n in range(20):
        data = world.press if payload == "same" else bytes([0x40, 0x00, n])
        world.bluez.hear(Report(world.ours, -60, service_data={0xFCD2: data}))
        await asyncio.sleep(0.005)
    world.speak("AA:BB:CC:DD:EE:02")
    await world.until(lambda: world.heard and world.heard[-1].advert.address == "AA:BB:CC:DD:EE:02", "not heard")
    assert len(world.heard) == heard + 1


# How it ends.


async def test_cancelling_stops_the_scan_and_says_that_it_no_longer_hears(world: Any) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    assert world.bluez.scanning()
    before = SystemClock().stamp()

    world.tasks[0].cancel()
    await asyncio.wait(world.tasks, timeout=30.0)

    assert world.tasks[0].cancelled()
    assert not world.bluez.scanning()
    end = world.states[-1]
    assert (end.hearing, end.problem) == (False, None)
    assert end.at.mono_ms >= before.mono_ms


async def test_cancelling_does_not_hang_when_bluetoothd_does(world: Any) -> None:
    world.radio(call_timeout_s=0.3)
    await world.until_said("hearing")
    world.bluez.sticky = {"Adapter1.StopDiscovery": "hang"}

    world.tasks[0].cancel()
    done, _ = await asyncio.wait(world.tasks, timeout=30.0)

    assert done


async def test_what_waits_when_cancelled_is_delivered_first(world: Any) -> None:
    radio = world.radio()
    await world.until_said("hearing")

    radio._on_advert(BLEDevice(world.ours, None, {}), _data({"0000fcd2-0000-1000-8000-00805f9b34fb": world.press}))
    world.tasks[0].cancel()
    await asyncio.wait(world.tasks, timeout=30.0)

    assert [one.advert.service_data for one in world.heard] == [{0xFCD2: world.press}]


async def test_a_radio_that_fails_does_not_deafen_another_for_long(world: Any) -> None:
    world.bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
    world.radio()
    await world.until_said("hearing")
    # The second radio's start is never answered: it drops the connection that both share.
    world.bluez.faults["Adapter1.StartDiscovery"] = ["hang"]
    world.radio(adapter="hci1", call_timeout_s=0.2)
    await world.until(lambda: world.said.count("hearing") == 3, f"said {world.said}")

    world.bluez.remove_adapter("hci1")
    await world.until_delivered()

    assert world.bluez.scanning("hci0")


async def test_what_a_report_did_not_bring_is_known_as_cached(world: Any) -> None:
    """A press in manufacturer data is over once only service data comes, although bleak goes on showing it."""
    world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    before = len(world.heard)

    press, life = {0x004C: b"\x02\x15\x01"}, {0xFEAA: b"\x21\x01\x00"}
    parts: list[tuple[dict[int, bytes], dict[int, bytes]]] = [
        ({}, press),
        (life, {}),
        (life, {}),
        ({}, press),
        (life, press),
    ]
    for turn, (services, makers) in enumerate(parts, start=1):
        world.bluez.hear(Report(world.ours, -60, "", services, makers))
        await world.until(lambda turn=turn: len(world.heard) == before + turn, "one advert for each report")

    heard = [one.advert for one in world.heard[before:]]
    shown, late = {"manufacturer_data"}, {"service_data"}
    assert [set(one.cached) for one in heard][1:] == [shown, shown, late, set()]
    assert [dict(one.fresh("manufacturer_data")) for one in heard] == [press, {}, {}, press, press]
    assert heard[1].manufacturer_data == press
