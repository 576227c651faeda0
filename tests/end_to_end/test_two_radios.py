"""A gateway with two adapters, as a process over a real bleak: one press is one alarm, whoever hears it, and one may be deaf."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.ble_devices import BthomeButton
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.dbus_daemon import DbusDaemon
from simulator.platform import district

pytestmark = pytest.mark.slow

CONFIG = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "en"

[[ble]]
id = "hall"

[[ble]]
id = "stairs"
adapter = "hci1"

[[device]]
id = "call-201"
model = "bthome-button"
link = "hall"
address = "A4:C1:38:56:53:84"
key = "file:{folder}/key"

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
"""
KEY = "231d39c1d7cc1ab1aee224cd096db932"
HEARING = [("hall", True), ("stairs", True)]


class Air:
    """One button, and how strongly each adapter hears it."""

    def __init__(self, bluez: FakeBluez) -> None:
        self.bluez = bluez
        self.button = BthomeButton("A4:C1:38:56:53:84", key=bytes.fromhex(KEY), counter=1000, name="")

    def press(self, **heard: int) -> None:
        """Let the adapters hear one press, each with its strength."""
        payload = self.button.press("press")
        for adapter, rssi in heard.items():
            assert self.bluez.hear(Report(self.button.address, rssi, service_data=payload.service_data), by=adapter)


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[Any]:
    """A private bus, and a bluetoothd with two adapters on it."""
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    bluez = FakeBluez(daemon.address)
    bluez.add_adapter("hci0")
    bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
    await bluez.start()
    here = Air(bluez)
    here.env = {"DBUS_SYSTEM_BUS_ADDRESS": daemon.address}  # type: ignore[attr-defined]  # a test's own
    yield here
    await bluez.stop()
    await daemon.stop()


def links(status: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(one["id"], one["hearing"]) for one in status["links"]]


def taken(run: Path, noun: str) -> list[dict[str, Any]]:
    """The data of the events of a type that the platform's application has accepted, each once."""
    rows = [json.loads(line) for line in (run / "platform-district.jsonl").read_text().splitlines()]
    events = {
        row["event"]["id"]: row["event"]["data"] for row in rows if row["status"] == "accepted" and noun in row["type"]
    }
    return list(events.values())


async def test_a_press_is_one_alarm_whichever_radios_hear_it_and_while_one_is_deaf(
    gateway: Any, air: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    gateway.env |= air.env
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, platform=platform.port)
        await gateway.start()
        await gateway.until("hearing", lambda said: links(said) == HEARING)

        air.press(hci0=-71, hci1=-52)  # both
        status = await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 2)
        (device,) = status["devices"]
        assert [(one["link"], one["rssi"]) for one in device["receivers"]] == [("stairs", -52), ("hall", -71)]
        assert (device["rssi"], device["repeats"]) == (-52, 1)

        air.press(hci1=-60)  # only the one that its configuration does not name
        await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 3)

        air.bluez.remove_adapter("hci1")
        await gateway.until("one deaf", lambda said: links(said) == [("hall", True), ("stairs", False)])
        air.press(hci0=-80)
        status = await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 4)
        assert [(one["code"], one["subject"]) for one in status["problems"]] == [("GW-BLE-03", "stairs")]
        air.bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
        await gateway.until("hearing", lambda said: links(said) == HEARING)

        def is_all_told() -> bool:
            return len(taken(tmp_path, "gateway.gap")) == 3 and len(taken(tmp_path, "alarm.raised")) == 3

        await eventually(is_all_told, f"told: {(tmp_path / 'platform-district.jsonl').read_text()}")
    calls = taken(tmp_path, "alarm.raised")
    assert [(one["presses"], one["counter"], one["verified"]) for one in calls] == [
        (1, 1001, True),
        (2, 1002, True),
        (3, 1003, True),
    ]
    gaps = taken(tmp_path, "gateway.gap")
    assert sorted((one["link"], one["reason"], tuple(one["others_hearing"])) for one in gaps) == [
        ("hall", "restart", ()), ("stairs", "link-down", ("hall",)), ("stairs", "restart", ()),
    ]  # fmt: skip
    (alarm,) = await gateway.ask("alarms.list")
    assert (alarm["presses"], alarm["verified"]) == (3, True)


async def test_a_deaf_radio_hides_neither_a_press_nor_its_own_deafness(
    gateway: Any, air: Any, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """It says that it scans and hears nothing: what the other hears is heard, and of it nothing is claimed."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    gateway.env |= air.env
    gateway.configure(CONFIG, platform=free_port())
    await gateway.start()
    await gateway.until("hearing", lambda said: links(said) == HEARING)
    air.bluez.wedge("hci0", heals="never")
    air.press(hci1=-70)
    status = await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 1)
    (device,) = status["devices"]
    assert [(one["link"], one["rssi"]) for one in device["receivers"]] == [("stairs", -70)]
    (alarm,) = await gateway.ask("alarms.list")
    assert (alarm["presses"], alarm["verified"]) == (1, True)
