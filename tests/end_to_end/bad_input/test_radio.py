"""The bad-input table, Bluetooth: no bus, no adapter, one that is off, one that we are denied, and strangers without end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.dbus_daemon import DbusDaemon

if TYPE_CHECKING:
    from tests.end_to_end.bad_input.conftest import Centre
else:
    Centre = Any

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon"
    ),
]

AIR = """
[[ble]]
id = "air"

[[device]]
id = "call-1"
model = "bthome-button"
link = "air"
address = "A4:C1:38:56:53:84"
allow_plain = true
"""
BUTTON = "A4:C1:38:56:53:84"
RATE_PER_S = 2_000


@dataclass
class Air:
    """A private bus, not started; a bluetoothd on it, not started; and what can be heard."""

    centre: Centre
    bus: DbusDaemon
    bluez: FakeBluez
    counter: int = 0

    async def press(self) -> None:
        """Press the radio button, until it was heard by somebody: BTHome v2, packet id, battery, button press."""
        self.counter += 1
        payload = bytes((0x40, 0x00, self.counter, 0x01, 0x64, 0x3A, 0x01))
        async with asyncio.timeout(45):
            while not self.bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: payload})):
                await asyncio.sleep(0.05)


@pytest.fixture
async def air(centre: Centre) -> AsyncIterator[Air]:
    bus = DbusDaemon(centre.folder)
    centre.gateway.env["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
    here = Air(centre, bus, FakeBluez(bus.address))
    centre.configure(AIR)
    yield here
    await here.bluez.stop()
    await bus.stop()


async def mended(air: Air, code: str) -> None:
    """It is well again, the radio button is heard, and the trouble was told once when it came and once when it went."""
    await air.centre.well()
    await air.press()
    await air.centre.alarms_arrived(1, "call-1")
    air.centre.logged((code, "air", "on"), (code, "air", "off"))


async def test_no_dbus(air: Air) -> None:
    centre = air.centre
    await centre.gateway.start()
    await centre.problem("GW-BLE-01", "air")
    await centre.call_is_heard()

    told = await centre.diagnose()
    told.says_first(
        "GW-BLE-01", "air", status=2,
        zh=(
            "没有 D-Bus 系统总线，蓝牙 air 用不了",
            "执行 sudo systemctl start dbus.socket && sudo systemctl restart daycare-gateway",
        ),
        en=(
            "no D-Bus system bus: Bluetooth air cannot be used",
            "sudo systemctl start dbus.socket && sudo systemctl restart daycare-gateway",
        ),
    )  # fmt: skip
    assert told.bad == [("GW-BLE-01", "air")]

    # bluetoothd and its adapter are there before anybody hears of them: no other trouble comes in between.
    air.bluez.add_adapter()
    await air.bus.start()
    await air.bluez.start()
    await air.centre.well()
    await air.press()
    await centre.alarms_arrived(1, "call-1")
    turns = [turn for turn in centre.gateway.turns() if turn[0] != "GW-BLE-02"]
    assert turns == [("GW-BLE-01", "air", "on"), ("GW-BLE-01", "air", "off")]


async def test_no_adapter(air: Air) -> None:
    centre = air.centre
    await air.bus.start()
    await air.bluez.start()
    await centre.gateway.start()
    await centre.problem("GW-BLE-03", "air")
    await centre.call_is_heard()

    told = await centre.diagnose()
    told.says_first(
        "GW-BLE-03", "air", status=2,
        zh=(
            "找不到蓝牙适配器 hci0（air）",
            "检查 USB 蓝牙是否插好；bluetoothctl list，与配置里的 adapter 对照",
        ),
        en=(
            "no Bluetooth adapter hci0 (air)",
            "check that the USB Bluetooth adapter is plugged in; compare bluetoothctl list with adapter in the configuration",
        ),
    )  # fmt: skip
    assert told.bad == [("GW-BLE-03", "air")]

    air.bluez.add_adapter()
    await mended(air, "GW-BLE-03")


async def test_an_adapter_that_is_off(air: Air) -> None:
    """And that cannot be switched on: one that can, the gateway switches on by itself."""
    centre = air.centre
    air.bluez.add_adapter(powered=False)
    air.bluez.sticky["Properties.Set"] = ("org.bluez.Error.Failed", "the controller does not answer")
    await air.bus.start()
    await air.bluez.start()
    await centre.gateway.start()
    await centre.problem("GW-BLE-04", "air")
    await centre.call_is_heard()

    told = await centre.diagnose()
    told.says_first(
        "GW-BLE-04", "air", status=2,
        zh=(
            "蓝牙适配器 hci0 关着（air）",
            "网关会自己打开它；打不开就执行 sudo rfkill unblock bluetooth && bluetoothctl power on",
        ),
        en=(
            "Bluetooth adapter hci0 is switched off (air)",
            "the gateway tries to switch it on by itself; if that fails: sudo rfkill unblock bluetooth && bluetoothctl power on",
        ),
    )  # fmt: skip
    assert told.bad == [("GW-BLE-04", "air")]

    air.bluez.sticky.clear()
    await mended(air, "GW-BLE-04")


async def test_bluetooth_that_is_denied(air: Air) -> None:
    """The bus lets us in, and its policy lets nobody but its own speak to bluetoothd."""
    centre = air.centre
    air.bluez.add_adapter()
    await air.bus.start()
    await air.bluez.start()
    air.bus.deny_bluez()
    await centre.gateway.start()
    await centre.problem("GW-BLE-05", "air")
    await centre.call_is_heard()

    told = await centre.diagnose()
    told.says_first(
        "GW-BLE-05", "air", status=2,
        zh=(
            "没有权限使用蓝牙（air）",
            "执行 sudo usermod -aG bluetooth daycare-gateway && sudo systemctl restart daycare-gateway",
        ),
        en=(
            "not permitted to use Bluetooth (air)",
            "sudo usermod -aG bluetooth daycare-gateway && sudo systemctl restart daycare-gateway",
        ),
    )  # fmt: skip
    assert told.bad == [("GW-BLE-05", "air")]

    air.bus.allow_bluez()
    await mended(air, "GW-BLE-05")


async def test_a_flood_of_strangers(air: Air) -> None:
    """2,000 adverts a second of 200 strangers: no trouble for anybody. Our button is pressed among them, three times."""
    centre = air.centre
    air.bluez.add_adapter()
    await air.bus.start()
    await air.bluez.start()
    await centre.gateway.start()
    await centre.well()
    flood = Flood(air.bluez)
    strangers = asyncio.create_task(flood.run())
    try:
        for count in range(1, 4):
            sent = flood.sent
            while flood.sent < sent + 2_000:
                await asyncio.sleep(0.05)
            await air.press()
            await centre.alarms_arrived(count, "call-1")
            await centre.call_is_heard()
        told = await centre.diagnose()
        status = await centre.gateway.ask("status")
    finally:
        strangers.cancel()
    assert flood.sent >= 6_000
    assert (flood.heard, air.bluez.lost) == (flood.sent, 0)
    assert [one["dropped"] for one in status["links"]] == [0, 0]

    if not told.as_root:
        assert (told.status, told.document["first"], told.bad) == (0, None, [])
        assert told.paper.splitlines()[-2:] == ["一切正常。", "打电话时请报：OK *16"]
    assert told.bad == []
    told.reads_well()
    assert not any("C0:00" in line for line in centre.gateway.said().splitlines())
    centre.logged()


@dataclass
class Flood:
    """Strangers: how many adverts they have sent, and how many of them were handed to a client that scans."""

    bluez: FakeBluez
    sent: int = 0
    heard: int = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            while self.sent < RATE_PER_S * (loop.time() - began):
                address = f"C0:00:00:00:00:{self.sent % 200:02X}"
                data = self.sent.to_bytes(4, "big")
                self.heard += self.bluez.hear(Report(address, -70, manufacturer_data={0x004C: data}))
                self.sent += 1
            await asyncio.sleep(0.005)
