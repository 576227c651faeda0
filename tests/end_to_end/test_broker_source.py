"""A gateway that listens to a broker, as a process: presses while it is dead, and kills between commit and acknowledgement."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

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

[[mqtt]]
id = "zigbee"
url = "mqtt://127.0.0.1:{broker}"
bridge = "zigbee2mqtt/bridge/state"

[[device]]
id = "sos-201"
model = "zigbee2mqtt"
link = "zigbee"
address = "zigbee2mqtt/sos-201"

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
"""
KILLS = 6


class Publisher:
    """Another gateway: presses of one button, each told apart by its link quality, each confirmed by the broker."""

    def __init__(self, port: int) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="zigbee2mqtt", protocol=paho.MQTTv5)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.pressed = 0

    def say(self, topic: str, payload: str, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    async def press(self) -> None:
        self.pressed += 1
        payload = json.dumps({"action": "emergency", "battery": 90, "linkquality": self.pressed})
        await asyncio.to_thread(self.say, "zigbee2mqtt/sos-201", payload)

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Publisher]:
    """A mosquitto, and another gateway that is online on it."""
    if shutil.which("mosquitto", path=SEARCHED) is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto): nothing is proven against a real broker")
    here = Mosquitto(tmp_path, 1)
    await here.start()
    publisher = await asyncio.to_thread(Publisher, here.port)
    publisher.port = here.port  # type: ignore[attr-defined]  # a test's own
    await asyncio.to_thread(publisher.say, "zigbee2mqtt/bridge/state", '{"state":"online"}', retain=True)
    yield publisher
    await asyncio.to_thread(publisher.end)
    await here.stop(kill=True)


def hears(status: dict[str, Any]) -> bool:
    return any(one["id"] == "zigbee" and one["hearing"] for one in status["links"])


def raised(run: Path) -> int:
    """How many presses the platform's application has accepted."""
    rows = [json.loads(line) for line in (run / "platform-district.jsonl").read_text().splitlines()]
    found = {row["event"]["id"] for row in rows if "alarm.raised" in row["type"] and row["status"] == "accepted"}
    return len(found)


def gaps(run: Path) -> list[str]:
    """Why the link was deaf, as the platform has it."""
    rows = [json.loads(line) for line in (run / "platform-district.jsonl").read_text().splitlines()]
    found = [row["event"]["data"] for row in rows if "gateway.gap" in row["type"] and row["status"] == "accepted"]
    return [gap["reason"] for gap in found if gap["link"] == "zigbee"]


async def test_each_press_is_raised_once_whenever_the_gateway_is_killed(
    gateway: Any, broker: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """Presses go on all the time, also while it is dead."""
    rng = random.Random(7)  # noqa: S311 - a seed that can be repeated is the point
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, broker=broker.port, platform=platform.port)
        await gateway.start()
        await gateway.until("hearing", hears)
        is_over = asyncio.Event()

        async def press_on() -> None:
            while not is_over.is_set():
                await broker.press()
                await asyncio.sleep(0.1)

        pressing = asyncio.create_task(press_on())
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 0.6))
            await gateway.end(signal.SIGKILL)
            await gateway.start()
            await gateway.until("hearing", hears)
        is_over.set()
        await pressing
        assert broker.pressed > 2 * KILLS
        await eventually(
            lambda: raised(tmp_path) >= broker.pressed,
            f"of {broker.pressed} presses {raised(tmp_path)} have reached the platform",
        )
        status = await gateway.until("delivered", lambda said: not sum(said["destinations"][0]["pending"].values()))
        assert raised(tmp_path) == broker.pressed
        (alarm,) = await gateway.ask("alarms.list")
        assert (alarm["device"], alarm["presses"]) == ("sos-201", broker.pressed)
        assert [one["verified"] for one in [alarm]] == [False]  # nobody had to log in to the broker
        assert status["problems"] == []


async def test_a_bridge_that_is_offline_is_a_gap(
    gateway: Any, broker: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, broker=broker.port, platform=platform.port)
        await gateway.start()
        await gateway.until("hearing", hears)
        await asyncio.to_thread(broker.say, "zigbee2mqtt/bridge/state", "offline", retain=True)
        status = await gateway.until("deaf", lambda said: not hears(said))
        assert [(one["code"], one["subject"]) for one in status["problems"]] == [("GW-MQS-04", "zigbee")]
        await asyncio.to_thread(broker.say, "zigbee2mqtt/bridge/state", "online", retain=True)
        await gateway.until("hearing", hears)
        await eventually(lambda: gaps(tmp_path) == ["restart", "link-down"], f"gaps: {gaps(tmp_path)}")
