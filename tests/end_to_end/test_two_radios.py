"""A gateway with several radios, as a process: one press is one alarm, whoever hears it, and one may be deaf.

Two adapters over a real bleak, and a receiver that publishes what it hears on a real broker.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulator.ble_devices import BthomeButton
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.dbus_daemon import DbusDaemon
from simulator.esphome_proxy import FakeProxy
from simulator.platform import district
from tests.gateway.mqtt.mosquitto.conftest import SEARCHED, Mosquitto

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

    def press(self, **heard: int) -> bytes:
        """Let the adapters hear one press, each with its strength; return its service data."""
        payload = self.button.press("press")
        for adapter, rssi in heard.items():
            assert self.bluez.hear(Report(self.button.address, rssi, service_data=payload.service_data), by=adapter)
        return payload.service_data[0xFCD2]


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


RELAYED = """
[[mqtt]]
id = "attic"
url = "mqtt://127.0.0.1:{broker}"
adverts = "home/OMG/BTtoMQTT/+"
bridge = "home/OMG/LWT"
"""


async def test_a_press_that_a_receiver_behind_a_broker_hears_too_is_one_alarm_and_proven_by_its_key(
    gateway: Any, air: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    if shutil.which("mosquitto", path=SEARCHED) is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto): nothing is proven against a real broker")
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    gateway.env |= air.env
    broker = Mosquitto(tmp_path, 1)
    await broker.start()
    receiver = paho.Client(CallbackAPIVersion.VERSION2, client_id="OMG", protocol=paho.MQTTv5)
    await asyncio.to_thread(receiver.connect, "127.0.0.1", broker.port)
    receiver.loop_start()

    def publish(payload: str, *, topic: str = "BTtoMQTT/A4C138565384", retain: bool = False) -> None:
        receiver.publish(f"home/OMG/{topic}", payload, qos=1, retain=retain).wait_for_publish(10)

    async def relay(service_data: bytes, rssi: int) -> None:
        said = {"id": "A4:C1:38:56:53:84", "rssi": rssi, "servicedatauuid": "0xfcd2", "servicedata": service_data.hex()}
        await asyncio.to_thread(publish, json.dumps(said))

    await asyncio.to_thread(publish, "online", topic="LWT", retain=True)
    try:
        async with district(tmp_path) as platform:
            gateway.configure(CONFIG + RELAYED, platform=platform.port, broker=broker.port)
            await gateway.start()
            every = [*HEARING, ("attic", True)]
            await gateway.until("hearing", lambda said: links(said) == every)

            first = air.press(hci0=-71)
            await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 1)
            await relay(first, -50)  # later, and louder
            status = await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 2)
            assert [one["link"] for one in status["devices"][0]["receivers"]] == ["attic", "hall"]

            second = (
                air.press()
            )  # behind the wall: the receiver alone hears it, and publishes while the gateway is dead
            await gateway.end(signal.SIGKILL)
            await relay(second, -60)
            await gateway.start()
            await gateway.until("hearing", lambda said: links(said) == every)
            await relay(first, -50)  # from its queue, once more

            def is_all_told() -> bool:
                return len(taken(tmp_path, "alarm.raised")) >= 2

            await eventually(is_all_told, f"told: {(tmp_path / 'platform-district.jsonl').read_text()}")
            await gateway.until("heard", lambda said: said["devices"][0]["heard"] >= 2)
            await asyncio.to_thread(publish, "offline", topic="LWT", retain=True)
            status = await gateway.until("deaf", lambda said: links(said) == [*HEARING, ("attic", False)])
            assert [(one["code"], one["subject"]) for one in status["problems"]] == [("GW-MQS-04", "attic")]
            await asyncio.to_thread(publish, "online", topic="LWT", retain=True)
            await gateway.until("hearing", lambda said: links(said) == every)
            await eventually(
                lambda: len(taken(tmp_path, "gateway.gap")) == 7, "seven gaps: two starts of three, one alone"
            )
    finally:
        await asyncio.to_thread(receiver.disconnect)
        receiver.loop_stop()
        await broker.stop(kill=True)
    calls = taken(tmp_path, "alarm.raised")
    assert [(one["presses"], one["counter"], one["verified"]) for one in calls] == [(1, 1001, True), (2, 1002, True)]
    (gap,) = [one for one in taken(tmp_path, "gateway.gap") if one["reason"] == "link-down"]
    assert (gap["link"], gap["others_hearing"]) == ("attic", ["hall", "stairs"])


PROXY = """
[[receiver]]
id = "proxy"
host = "127.0.0.1"
port = {proxy}
key = "file:{folder}/proxy-key"
"""


async def test_a_press_that_a_proxy_hears_too_is_one_alarm_and_its_reboot_is_a_gap(
    gateway: Any, air: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    psk = base64.b64encode(bytes(range(32))).decode()
    for name, content in (("key", KEY), ("proxy-key", psk)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    gateway.env |= air.env
    proxy = FakeProxy(key=psk)
    await proxy.start()
    try:
        async with district(tmp_path) as platform:
            gateway.configure(CONFIG + PROXY, platform=platform.port, proxy=proxy.port)
            await gateway.start()
            every = [HEARING[0], HEARING[1], ("proxy", True)]
            await gateway.until("hearing", lambda said: sorted(links(said)) == sorted(every))

            first = air.press(hci0=-71)
            await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 1)
            assert proxy.hear(Report(air.button.address, -50, service_data={0xFCD2: first}))
            status = await gateway.until("heard", lambda said: said["devices"][0]["heard"] == 2)
            assert [(one["link"], one["rssi"]) for one in status["devices"][0]["receivers"]] == [
                ("proxy", -50), ("hall", -71),
            ]  # fmt: skip

            await proxy.stop()
            status = await gateway.until("deaf", lambda said: ("proxy", False) in links(said))
            assert [(one["code"], one["subject"]) for one in status["problems"]] == [("GW-RCV-01", "proxy")]
            await proxy.start()
            await gateway.until("hearing", lambda said: ("proxy", True) in links(said))
            assert proxy.hear(Report(air.button.address, -50, service_data={0xFCD2: air.press()}))  # it alone
            await eventually(lambda: len(taken(tmp_path, "alarm.raised")) == 2, "the second press")
            await eventually(lambda: len(taken(tmp_path, "gateway.gap")) == 4, "a start of three, and one alone")
    finally:
        await gateway.end(signal.SIGTERM)
        await proxy.stop()
    calls = taken(tmp_path, "alarm.raised")
    assert [(one["presses"], one["counter"], one["verified"]) for one in calls] == [(1, 1001, True), (2, 1002, True)]
    (gap,) = [one for one in taken(tmp_path, "gateway.gap") if one["reason"] == "link-down"]
    assert (gap["link"], gap["others_hearing"]) == ("proxy", ["hall", "stairs"])


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
