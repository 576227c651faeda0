"""A platform with several ways in: one application and one ledger, and each way broken by itself. Real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulator import control_client
from simulator.control_client import Refused
from simulator.platform import District, control_socket, district
from simulator.platform.ledger import read_ledger
from simulator.platform.link import Link

ask = partial(control_client.ask, timeout_s=30)

GOLDEN = Path(__file__).parent.parent / "data" / "native"
ROOT = "eldercare/v1/demo/hanfeng/gw-01"
HOST = "127.0.0.1"


def alarm(n: int) -> str:
    event = json.loads((GOLDEN / "alarm.json").read_text())
    return json.dumps(event | {"id": uid(n), "sequence": f"{n:020d}", "deliveryseq": f"{n:020d}"})


def uid(n: int) -> str:
    return f"0190a5c0-0000-7000-8000-{n:012x}"


def rows(run: Path) -> list[tuple[str, str, int]]:
    return [(one.id, one.status.value, one.way) for one in read_ledger(run / "platform-district.jsonl")]


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


class PlayedGateway:
    """A gateway with a path over MQTT and one over HTTP."""

    def __init__(self, platform: District) -> None:
        loop = asyncio.get_running_loop()
        self.told: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
        self.ready, self.lost = asyncio.Event(), asyncio.Event()
        self.mqtt = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="gw-01", protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        self.mqtt.on_connect = lambda client, *_a: client.subscribe(f"{ROOT}/down/ack", qos=1)
        self.mqtt.on_subscribe = lambda *_a: loop.call_soon_threadsafe(self.ready.set)
        self.mqtt.on_disconnect = lambda *_a: loop.call_soon_threadsafe(self.lost.set)
        self.mqtt.on_message = lambda _c, _u, one: loop.call_soon_threadsafe(
            self.told.put_nowait, json.loads(one.payload)["acks"]
        )
        self.mqtt.connect(HOST, platform.ways[0].port)
        self.mqtt.loop_start()
        base = f"http://{HOST}:{platform.ways[1].port}"
        self.http = httpx.AsyncClient(base_url=base, timeout=30, trust_env=False)

    def publish(self, n: int) -> None:
        self.mqtt.publish(f"{ROOT}/up/alarm", alarm(n), qos=1)

    async def over_mqtt(self, n: int) -> str:
        self.publish(n)
        return await self.answer()

    async def answer(self) -> str:
        async with asyncio.timeout(30):
            return str((await self.told.get())[0]["status"])

    async def over_http(self, n: int, **more: Any) -> str:
        headers = {"content-type": "application/cloudevents+json"}
        answer = await self.http.post("/v1/events", content=alarm(n), headers=headers, **more)
        return str(answer.json()["results"][0]["status"]) if answer.is_success else str(answer.status_code)

    async def close(self) -> None:
        await self.http.aclose()
        self.mqtt.disconnect()
        await asyncio.to_thread(self.mqtt.loop_stop)
        self.mqtt._reset_sockets()


@contextlib.asynccontextmanager
async def both(run: Path) -> AsyncIterator[tuple[District, PlayedGateway]]:
    async with district(run, also=[("http", 0)]) as platform, control_socket(platform, run / "c.sock"):
        gateway = PlayedGateway(platform)
        try:
            async with asyncio.timeout(30):
                await gateway.ready.wait()
            yield platform, gateway
        finally:
            await gateway.close()


async def test_an_event_that_comes_over_two_ways_is_accepted_once(tmp_path: Path) -> None:
    async with both(tmp_path) as (platform, gateway):
        assert await gateway.over_mqtt(1) == "accepted"
        assert await gateway.over_http(1) == "duplicate"
        assert await gateway.over_http(2) == "accepted"
        assert await gateway.over_mqtt(2) == "duplicate"
        assert rows(tmp_path) == [
            (uid(1), "accepted", 1),
            (uid(1), "duplicate", 2),
            (uid(2), "accepted", 2),
            (uid(2), "duplicate", 1),
        ]
        stats = platform.stats()
        assert (stats["accepted"], stats["duplicates"], stats["gaps"]["deliveryseq_missing"]) == (2, 2, 0)
    # What was accepted over one way is known to the other after a restart, too.
    async with both(tmp_path) as (_platform, gateway):
        assert (await gateway.over_http(1), await gateway.over_mqtt(2)) == ("duplicate", "duplicate")


async def test_one_way_is_cut_and_healed_while_the_other_stands(tmp_path: Path) -> None:
    async with both(tmp_path) as (platform, gateway):
        await ask(tmp_path / "c.sock", "cut", way=1)
        async with asyncio.timeout(30):
            await gateway.lost.wait()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, platform.ways[0].port)
        assert await gateway.over_http(1) == "accepted"
        stats = await ask(tmp_path / "c.sock", "stats")
        assert [(one["way"], one["transport"], one["link"]["cut"]) for one in stats["ways"]] == [
            (1, "mqtt", True),
            (2, "http", False),
        ]
        await ask(tmp_path / "c.sock", "heal", way=1)
        _, writer = await asyncio.open_connection(HOST, platform.ways[0].port)
        writer.close()


async def test_without_a_way_all_are_meant(tmp_path: Path) -> None:
    async with both(tmp_path) as (platform, _gateway):
        await ask(tmp_path / "c.sock", "cut")
        for way in platform.ways:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, way.port)
        await ask(tmp_path / "c.sock", "mute", p=0.5)
        stats = await ask(tmp_path / "c.sock", "stats")
        assert [one["conduct"]["mute_p"] for one in stats["ways"]] == [0.5, 0.5]
        await ask(tmp_path / "c.sock", "heal")
        await ask(tmp_path / "c.sock", "mute", p=0, way=2)
        stats = await ask(tmp_path / "c.sock", "stats")
        assert [(one["link"]["cut"], one["conduct"]["mute_p"]) for one in stats["ways"]] == [(False, 0.5), (False, 0.0)]


async def test_a_mute_way_takes_and_does_not_answer_while_the_other_does(tmp_path: Path) -> None:
    async with both(tmp_path) as (platform, gateway):
        await ask(tmp_path / "c.sock", "mute", way=1)
        gateway.publish(1)
        await until(lambda: platform.stats()["unanswered"] == 1)
        assert await gateway.over_http(1) == "duplicate"
        assert gateway.told.empty()
        assert [one["unanswered"] for one in platform.stats()["ways"]] == [1, 0]


async def test_a_way_that_hangs_decides_when_it_is_released(tmp_path: Path) -> None:
    async with both(tmp_path) as (platform, gateway):
        await ask(tmp_path / "c.sock", "stall", where="application", way=1)
        gateway.publish(1)
        await until(lambda: platform.stats()["waiting"] == 1)
        assert await gateway.over_http(1) == "accepted"
        assert rows(tmp_path) == [(uid(1), "accepted", 2)]
        await ask(tmp_path / "c.sock", "unstall", where="application", way=1)
        assert await gateway.answer() == "duplicate"
        assert rows(tmp_path) == [(uid(1), "accepted", 2), (uid(1), "duplicate", 1)]


async def test_one_way_asks_to_wait_or_refuses_while_the_other_accepts(tmp_path: Path) -> None:
    async with both(tmp_path) as (_platform, gateway):
        await ask(tmp_path / "c.sock", "refuse", way=1)
        assert (await gateway.over_mqtt(1), await gateway.over_http(1)) == ("retry", "accepted")
        await ask(tmp_path / "c.sock", "accept", way=1)
        await ask(tmp_path / "c.sock", "reject", types=["alarm.*"], way=2)
        assert (await gateway.over_http(2), await gateway.over_mqtt(2)) == ("rejected", "accepted")
        await ask(tmp_path / "c.sock", "accept", way=2)
        await ask(tmp_path / "c.sock", "forget", way=1)
        gateway.publish(3)
        await until(lambda: (uid(3), "forgotten", 1) in rows(tmp_path))
        assert await gateway.over_http(3) == "accepted"


async def test_what_only_one_transport_has_is_done_there(tmp_path: Path) -> None:
    control = tmp_path / "c.sock"
    async with both(tmp_path) as (platform, gateway):
        await ask(control, "answer", how=503, n=1)
        assert (await gateway.over_http(1), await gateway.over_mqtt(1)) == ("503", "accepted")
        await ask(control, "answer", how=503, n=1, way=2)
        assert await gateway.over_http(2) == "503"
        await ask(control, "restart-broker")
        assert platform.stats()["broker"]["restarts"] == 1
        for op, way in (("answer", 1), ("restart-broker", 2)):
            with pytest.raises(Refused, match=rf"bad-argument: {op}: way {way} has no such operation"):
                await ask(control, op, way=way, **({"how": 503} if op == "answer" else {}))


@pytest.mark.parametrize("way", [0, 3, -1, "1", 1.0, True, [1], {}])
async def test_a_way_that_there_is_not_is_said_so(tmp_path: Path, way: object) -> None:
    async with both(tmp_path) as (platform, _gateway):
        with pytest.raises(Refused, match=r"bad-argument: cut: way = .*: one of 1, 2"):
            await ask(tmp_path / "c.sock", "cut", way=way)
        assert not any(one["link"]["cut"] for one in platform.stats()["ways"])


async def test_what_several_ways_count_is_added_up(tmp_path: Path) -> None:
    async with both(tmp_path) as (platform, gateway):
        await ask(tmp_path / "c.sock", "mute")
        gateway.publish(1)
        await until(lambda: platform.stats()["unanswered"] == 1)
        with pytest.raises(httpx.ReadTimeout):
            await gateway.over_http(1, timeout=0.2)
        stats = platform.stats()
        assert (stats["unanswered"], stats["connected"]) == (2, True)
        assert stats["connections_total"] == sum(one["link"]["total"] for one in stats["ways"]) == 2
        assert (stats["transport"], stats["port"]) == ("mqtt", platform.ways[0].port)
        assert stats["sessions"] == 1


async def test_a_way_whose_port_is_taken_ends_the_platform_with_its_other_ways(tmp_path: Path) -> None:
    async with Link(1) as free:
        port = free.port

    async def start(second: int) -> None:
        async with district(tmp_path, port=port, also=[("https", second)]):
            pass

    async with Link(1) as taken:
        with pytest.raises(OSError, match="in use"):
            await start(taken.port)
    await start(0)  # the first way's port was let go


async def test_more_ways_than_four_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    async def start(also: list[tuple[str, int]], **more: Any) -> None:
        async with district(tmp_path, also=also, **more):
            pass

    with pytest.raises(ValueError, match="5 ways in: 4 at most"):
        await start([("http", 0)] * 4)
    with pytest.raises(ValueError, match="speaks = 'fax'"):
        await start([("fax", 0)])
    with pytest.raises(ValueError, match="asks for none"):
        await start([("mqtts", 0)], authorization="Bearer x")
    await start([("http", 0)], authorization="Bearer x")


# -- the process --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def process(run: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = ["-W", "error", "-m", "simulator", "platform", "--run", str(run), "--control", str(run / "c.sock")]
    started = await asyncio.create_subprocess_exec(sys.executable, *command, *options, stderr=asyncio.subprocess.PIPE)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def test_a_process_has_every_way_that_it_was_told(tmp_path: Path) -> None:
    told = ("--port", "0", "--also", "https:0", "--also", "mqtt-3.1.1:0")
    async with process(tmp_path, *told) as platform:
        await until(lambda: (tmp_path / "c.sock").exists() or platform.returncode is not None, 20)
        stats = await ask(tmp_path / "c.sock", "stats")
        assert [(one["way"], one["transport"]) for one in stats["ways"]] == [
            (1, "mqtt"),
            (2, "https"),
            (3, "mqtt-3.1.1"),
        ]
        assert len({one["port"] for one in stats["ways"]}) == 3
        authority = ssl.create_default_context(cafile=tmp_path / "tls" / "ca.pem")
        async with httpx.AsyncClient(verify=authority, trust_env=False) as client:
            assert (await client.get(f"https://localhost:{stats['ways'][1]['port']}/v1/time")).is_success
        platform.terminate()
        _, said = await asyncio.wait_for(platform.communicate(), 10)
        assert (platform.returncode, said.decode()) == (0, "")


@pytest.mark.parametrize("text", ["https", "https:", ":", "https:x", "8443", "https:-1"])
async def test_a_way_that_cannot_be_read_is_a_wrong_argument(tmp_path: Path, text: str) -> None:
    async with process(tmp_path, "--port", "0", "--also", text) as platform:
        _, said = await asyncio.wait_for(platform.communicate(), 20)
        assert platform.returncode == 2
        assert "expected SPEAKS:PORT, as https:8443" in said.decode()
