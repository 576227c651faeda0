"""The pretended bluetoothd against a real, unmodified bleak on a real dbus-daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakScanner
from bleak.args.bluez import OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.bluezdbus import manager as bleak_manager
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError
from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.bluez_wire import BluezError
from simulator.dbus_daemon import DbusDaemon, DbusDaemonError, dbus_daemon

BUTTON = "AA:BB:CC:DD:EE:01"


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with dbus_daemon(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address
        # bleak keeps its connection for the life of the event loop; this test's loop ends here.
        manager = bleak_manager._global_instances.pop(asyncio.get_running_loop(), None)
        if manager is not None and manager._bus is not None and manager._bus_watcher_task is not None:
            manager._bus.disconnect()
            await asyncio.wait({manager._bus_watcher_task}, timeout=30)


async def until(condition: Callable[[], bool], why: str, *, within_s: float = 30.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, why
        await asyncio.sleep(0.003)


class Ears:
    """A scanner's callback: what it got, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, dict[str, bytes], dict[int, bytes]]] = []

    def __call__(self, device: BLEDevice, data: AdvertisementData) -> None:
        self.heard.append((device.address, data.rssi, data.service_data, data.manufacturer_data))


def _active(ears: Ears, *, duplicates: bool) -> BleakScanner:
    return BleakScanner(ears, bluez={"adapter": "hci0", "filters": {"DuplicateData": duplicates}})


async def test_active_scanning_with_duplicates_hears_every_equal_report(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    ears = Ears()
    scanner = _active(ears, duplicates=True)
    async with asyncio.timeout(30):
        await scanner.start()

    for _ in range(20):
        assert bluez.hear(Report(BUTTON, -60, "SBBT-002C", {0xFCD2: b"\x44\x00\x01"}, {0x0BA9: b"\x01"}))
        await asyncio.sleep(0.002)
    await until(lambda: len(ears.heard) == 20, f"heard {len(ears.heard)} of 20")

    services = {"0000fcd2-0000-1000-8000-00805f9b34fb": b"\x44\x00\x01"}
    assert ears.heard == [(BUTTON, -60, services, {0x0BA9: b"\x01"})] * 20
    async with asyncio.timeout(30):
        await scanner.stop()
    await bluez.stop()


async def test_an_advert_that_nobody_scans_for_is_gone(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    assert not bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: b"\x44\x00\x01"}))

    ears = Ears()
    scanner = _active(ears, duplicates=True)
    async with asyncio.timeout(30):
        await scanner.start()
        bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: b"\x44\x00\x02"}))
        await until(lambda: bool(ears.heard), "heard nothing")
        await scanner.stop()

    assert [services for _, _, services, _ in ears.heard] == [{"0000fcd2-0000-1000-8000-00805f9b34fb": b"\x44\x00\x02"}]
    assert not bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: b"\x44\x00\x03"}))
    await bluez.stop()


async def test_a_client_that_dies_leaves_no_discovery_behind(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    async with asyncio.timeout(30):
        await _active(Ears(), duplicates=True).start()
    assert bluez.scanning()

    manager = bleak_manager._global_instances.pop(asyncio.get_running_loop())
    assert manager._bus is not None
    manager._bus.disconnect()

    await until(lambda: not bluez.scanning(), "the discovery outlived its client")
    await bluez.stop()


async def test_passive_scanning_hears_what_matches_and_tells_changes_only(bus: str) -> None:
    bluez = FakeBluez(bus, experimental=True)
    bluez.add_adapter()
    await bluez.start()
    ears = Ears()
    pattern = OrPattern(0, AdvertisementDataType.SERVICE_DATA_UUID16, b"\xd2\xfc")
    scanner = BleakScanner(ears, scanning_mode="passive", bluez={"adapter": "hci0", "or_patterns": [pattern]})
    async with asyncio.timeout(30):
        await scanner.start()
    await until(bluez.scanning, "the monitor was never activated")

    for payload in (b"\x44\x00\x01", b"\x44\x00\x01", b"\x44\x00\x02"):
        bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: payload}))
        bluez.hear(Report("11:22:33:44:55:66", -60, manufacturer_data={0x004C: payload}))
        await asyncio.sleep(0.02)
    await until(lambda: len(ears.heard) == 2, f"heard {ears.heard}")

    assert {address for address, *_ in ears.heard} == {BUTTON}
    async with asyncio.timeout(30):
        await scanner.stop()
    assert not bluez.scanning()
    await bluez.stop()


@pytest.mark.parametrize(
    ("kind", "filters", "same", "changing"),
    [
        ({"version": (5, 82)}, {}, 20, 20),
        ({"version": (5, 88)}, {}, 1, 20),
        ({"version": (5, 88)}, {"DuplicateData": True}, 20, 20),
        ({"version": (5, 88)}, {"RSSI": -127}, 20, 20),
        ({"version": (5, 82), "dual_mode": False}, {}, 1, 20),
        ({"version": (5, 82), "dual_mode": False}, {"DuplicateData": True}, 20, 20),
        ({"controller": "by address"}, {"DuplicateData": True}, 1, 1),
        ({"controller": "by data"}, {"DuplicateData": True}, 1, 20),
    ],
    ids=str,
)
@pytest.mark.parametrize("payload", ["same", "changing"])
async def test_which_of_20_reports_are_told_depends_on_release_adapter_and_controller(
    bus: str, kind: dict[str, Any], filters: dict[str, Any], same: int, changing: int, payload: str
) -> None:
    bluez = FakeBluez(bus, **kind)
    bluez.add_adapter()
    await bluez.start()
    ears = Ears()
    scanner = BleakScanner(ears, bluez={"adapter": "hci0", "filters": filters})  # type: ignore[typeddict-item]
    async with asyncio.timeout(30):
        await scanner.start()
    for n in range(20):
        bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: b"\x01" if payload == "same" else bytes([n])}))
        await asyncio.sleep(0.003)
    bluez.hear(Report("AA:BB:CC:DD:EE:02", -60))
    await until(lambda: bool(ears.heard) and ears.heard[-1][0] != BUTTON, "the last one was not told")
    assert len(ears.heard) - 1 == (same if payload == "same" else changing)
    async with asyncio.timeout(30):
        await scanner.stop()
    await bluez.stop()


@pytest.mark.parametrize(("filters", "rests"), [({}, True), ({"DuplicateData": True}, False)])
async def test_an_le_only_adapter_rests_between_its_scans_unless_a_client_filters(
    bus: str, monkeypatch: pytest.MonkeyPatch, filters: dict[str, bool], *, rests: bool
) -> None:
    monkeypatch.setattr("simulator.bluez_objects._REGULAR_SCAN_S", 0.2)
    monkeypatch.setattr("simulator.bluez_objects._REGULAR_IDLE_S", 0.1)
    bluez = FakeBluez(bus, dual_mode=False)
    bluez.add_adapter()
    await bluez.start()
    scanner = BleakScanner(Ears(), bluez={"adapter": "hci0", "filters": filters})  # type: ignore[typeddict-item]
    async with asyncio.timeout(30):
        await scanner.start()
    heard = []
    for n in range(100):
        heard.append(bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: bytes([n])})))
        await asyncio.sleep(0.006)
    assert heard[0]
    assert (False in heard) is rests
    async with asyncio.timeout(30):
        await scanner.stop()
    await bluez.stop()


async def test_a_controller_that_is_deaf_hears_again_after_what_heals_it(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    report = Report(BUTTON, -60, service_data={0xFCD2: b"\x01"})
    hears = []
    async with asyncio.timeout(30):
        scanner = _active(Ears(), duplicates=True)
        await scanner.start()
        for heals in ("scan", "power", "never"):
            bluez.wedge(heals=heals)
            assert not bluez.hear(report)
            await scanner.stop()
            await scanner.start()
            hears.append(bluez.hear(report))
            bluez.power(on=False)
            bluez.power(on=True)
            scanner = _active(Ears(), duplicates=True)
            await scanner.start()
            hears.append(bluez.hear(report))
        await scanner.stop()
    assert hears == [True, True, False, True, False, False]
    await bluez.stop()


async def test_a_blocked_adapter_cannot_be_switched_on_and_comes_on_when_it_is_unblocked(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    bluez.block(on=True)
    client = await MessageBus(bus_address=bus).connect()

    async def ask(member: str, signature: str, *body: object) -> Message:
        reply = await client.call(
            Message(
                "org.bluez", "/org/bluez/hci0", "org.freedesktop.DBus.Properties", member, signature=signature,
                body=["org.bluez.Adapter1", *body],
            )
        )  # fmt: skip
        assert reply is not None
        return reply

    assert (await ask("Get", "ss", "PowerState")).body[0].value == "off-blocked"
    refused = await ask("Set", "ssv", "Powered", Variant("b", True))
    assert (refused.error_name, refused.body) == ("org.bluez.Error.Blocked", ["Blocked through rfkill"])
    bluez.block(on=False)
    assert (await ask("Get", "ss", "PowerState")).body[0].value == "on"
    bluez.faults["Properties.Get"] = [0.2, ("Failed", "why")]
    began = asyncio.get_running_loop().time()
    assert (await ask("Get", "ss", "Powered")).body[0].value is True
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert (await ask("Get", "ss", "Powered")).error_name == "org.bluez.Error.Failed"
    client.disconnect()
    await client.wait_for_disconnect()
    await bluez.stop()


async def test_a_bus_can_refuse_everybody(tmp_path: Path) -> None:
    daemon = DbusDaemon(tmp_path)
    await daemon.start(refuses_users=True)
    client = MessageBus(bus_address=daemon.address)
    with pytest.raises((BrokenPipeError, EOFError, ConnectionError)):
        async with asyncio.timeout(30):
            await client.connect()
    client.disconnect()
    await daemon.stop()


async def test_passive_scanning_is_refused_unless_it_is_offered(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    pattern = OrPattern(0, AdvertisementDataType.FLAGS, b"\x06")
    scanner = BleakScanner(Ears(), scanning_mode="passive", bluez={"adapter": "hci0", "or_patterns": [pattern]})

    with pytest.raises(BleakError, match="passive scanning on Linux requires"):
        async with asyncio.timeout(30):
            await scanner.start()
    await bluez.stop()


async def test_a_burst_that_fills_the_socket_does_not_kill_bluetoothd(bus: str) -> None:
    bluez = FakeBluez(bus)
    bluez.add_adapter()
    await bluez.start()
    ears = Ears()
    scanner = _active(ears, duplicates=True)
    async with asyncio.timeout(30):
        await scanner.start()

    for n in range(2_000):
        bluez.hear(Report(f"40:00:00:00:{n >> 8:02X}:{n & 255:02X}", -70, manufacturer_data={0x004C: bytes(20)}))
    await until(lambda: len(ears.heard) == 2_000, f"heard {len(ears.heard)} of 2000", within_s=10)

    assert bluez.lost == 0
    async with asyncio.timeout(30):
        await scanner.stop()
    await bluez.stop()


async def test_a_device_that_is_silent_expires(bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.bluez._SWEEP_S", 0.05)
    bluez = FakeBluez(bus, device_timeout_s=0.1)
    bluez.add_adapter()
    await bluez.start()
    scanner = _active(Ears(), duplicates=True)
    async with asyncio.timeout(30):
        await scanner.start()
    bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: b"\x44"}))
    await until(lambda: len(scanner.discovered_devices) == 1, "never seen")

    await until(lambda: not scanner.discovered_devices, "never expired")

    async with asyncio.timeout(30):
        await scanner.stop()
    await bluez.stop()


async def test_a_second_bluetoothd_on_the_bus_is_refused(bus: str) -> None:
    first, second = FakeBluez(bus), FakeBluez(bus)
    await first.start()

    with pytest.raises(BluezError, match=r"org\.bluez is already owned"):
        await second.start()
    await first.stop()


async def test_no_bus_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BluezError, match="no D-Bus at unix:path="):
        await FakeBluez(f"unix:path={tmp_path / 'nobody.sock'}").start()


async def test_a_missing_dbus_daemon_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DbusDaemonError, match=r"^dbus-daemon is missing: apt-get install dbus-daemon$"):
        await DbusDaemon(tmp_path).start()


def test_a_socket_path_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DbusDaemonError, match="longer than 107 bytes"):
        DbusDaemon(Path("/tmp") / ("x" * 120))
    with pytest.raises(DbusDaemonError, match="do not fit a D-Bus address"):
        DbusDaemon(Path("/tmp/a b"))
