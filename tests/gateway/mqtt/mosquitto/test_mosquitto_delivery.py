"""The whole road out over a real mosquitto: outbox, deliverer, one path or two, TLS, a tiny application that acknowledges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.events import Origin, new_event
from gateway.health import Health
from gateway.mqtt_session import Endpoint, MqttSession, Will
from gateway.outbox import Outbox, Route, Write
from gateway.tls import Tls
from gateway.uplinks.mqtt import MqttUplink, client_id
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths
from simulator.platform.link import Link

ORIGIN = Origin("org", "site", "gw")
ROOT = "eldercare/v1/org/site/gw"
CLOCK = SystemClock()
Wait = Callable[..., Any]


class Application:
    """Accepts each id once, whichever broker brings it, and believes states by the rule of the epoch."""

    def __init__(self) -> None:
        self.accepted: dict[str, tuple[str, str, int]] = {}
        self.duplicates = 0
        self.mute = False
        self.online = False
        self.epoch = 0
        self.states: list[tuple[bool, int]] = []

    async def connect(self, port: int, name: str = "application", **more: Any) -> MqttSession:
        session: MqttSession
        end = Endpoint("127.0.0.1", port, name, **more)
        session = MqttSession(
            end, will=Will(f"{name}/gone", b""), on_message=lambda topic, payload: self.heard(session, topic, payload),
            on_puback=lambda _mid, _reason: None, on_lost=lambda _error: None,
        )  # fmt: skip
        await session.open()
        await session.subscribe(f"{ROOT}/up/#")
        await session.subscribe(f"{ROOT}/state")
        return session

    def heard(self, session: MqttSession, topic: str, payload: bytes) -> None:
        told = json.loads(payload)
        kind = topic.removeprefix(f"{ROOT}/")
        if kind == "state":
            self.states.append((told["online"], told["epoch"]))
            if told["epoch"] >= self.epoch:
                self.online, self.epoch = told["online"], told["epoch"]
        elif kind != "up/birth":
            events = told if isinstance(told, list) else [told]
            acks = [{"id": one["id"], "status": self.judge(kind, one)} for one in events]
            if not self.mute:
                session.publish(f"{ROOT}/down/ack", json.dumps({"acks": acks}).encode())

    def judge(self, kind: str, event: dict[str, Any]) -> str:
        if event["id"] in self.accepted:
            self.duplicates += 1
            return "duplicate"
        self.accepted[event["id"]] = (event["partitionkey"], kind, int(event["sequence"]))
        return "accepted"

    def in_order(self) -> bool:
        """Did each device's events of a lane come for the first time in their order?"""
        last: dict[tuple[str, str], int] = {}
        for device, kind, sequence in self.accepted.values():
            if sequence < last.get((device, kind), 0):
                return False
            last[device, kind] = sequence
        return True


class Road:
    """A destination at work."""

    def __init__(self, outbox: Outbox, deliverer: Deliverer, paths: Paths, health: Health) -> None:
        self.outbox = outbox
        self.deliverer = deliverer
        self.paths = paths
        self.health = health
        self.stored: list[str] = []

    def store(self, number: int) -> None:
        noun = "alarm.raised" if number % 10 == 0 else "telemetry.meter"
        event = new_event(noun, ORIGIN, device=f"d{number % 7}", at=CLOCK.stamp(), data={"n": number}, correlation="a")
        self.outbox.submit(Write((event,)))
        self.stored.append(event.id)

    def states(self) -> list[str]:
        return [one["state"] for one in self.deliverer.status()["paths"]]

    def done(self) -> bool:
        return self.deliverer.status()["accepted"] == len(self.stored)


@asynccontextmanager
async def road(folder: Path, *ports: int, **more: Any) -> AsyncIterator[Road]:
    """Deliver over these ports, one path each."""
    health = Health(CLOCK)
    outbox = Outbox(folder / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
    await outbox.open()
    ways = [
        PlatformPath(
            MqttUplink(Endpoint("127.0.0.1", port, client_id(ORIGIN, n), **more), ORIGIN, destination="district"),
            "127.0.0.1", "mqtt",
        )
        for n, port in enumerate(ports, 1)
    ]  # fmt: skip
    paths = Paths("district", ways, reconnect_spread_s=0.1, clock=CLOCK, health=health)
    deliverer = Deliverer(
        "district", paths, outbox, finish="L2", reconnect_spread_s=0.1, clock=CLOCK, health=health,
        callbacks=DeliveryCallbacks(delivered=lambda _i, _l: None, birth=lambda: {"streamid": outbox.streamid}),
    )  # fmt: skip
    outbox.on_stored = deliverer.wake
    outbox.live = lambda: deliverer.is_live
    running = [asyncio.create_task(outbox.run()), asyncio.create_task(deliverer.run())]
    try:
        yield Road(outbox, deliverer, paths, health)
    finally:
        for task in reversed(running):
            task.cancel()
        results = await asyncio.gather(*running, return_exceptions=True)
        await outbox.close()
    assert [one for one in results if isinstance(one, Exception)] == []


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_events_flow_over_tls_and_password_through_cuts_each_accepted_once_in_order(
    mosquitto: Any, authority: Any, login: dict[str, Any], wait_until: Wait, tmp_path: Path, version: str
) -> None:
    ca = authority("ca")
    server = ca.pair("server")
    await mosquitto.start(
        f"certfile {server.file}", f"keyfile {server.key_file}", "allow_anonymous false", mosquitto.password_file(),
        "max_inflight_messages 10",
    )  # fmt: skip
    secure = {"tls": Tls(ca_file=ca.file), **login}
    application = Application()
    platform = await application.connect(mosquitto.port, **secure)
    async with Link(mosquitto.port) as link, road(tmp_path, link.port, version=version, **secure) as way:
        for number in range(1000):
            way.store(number)
            if number % 200 == 199:
                await link.cut()
                link.heal()
            if number % 10 == 0:
                await asyncio.sleep(0.002)
        await wait_until(way.done, 30)
        assert set(application.accepted) == set(way.stored)
        assert application.in_order()
        assert way.deliverer.status()["accepted"] == 1000
        assert way.deliverer.epoch >= 2
        await wait_until(lambda: (application.online, application.epoch) == (True, way.deliverer.epoch))
    await wait_until(lambda: not application.online)
    await platform.close()


async def test_a_broker_that_is_killed_and_started_again_costs_nothing(
    mosquitto: Any, wait_until: Wait, tmp_path: Path
) -> None:
    await mosquitto.start()
    application = Application()
    await application.connect(mosquitto.port)
    async with road(tmp_path, mosquitto.port) as way:
        for number in range(200):
            way.store(number)
        await wait_until(lambda: application.accepted)
        await mosquitto.stop(kill=True)
        for number in range(200, 400):
            way.store(number)
        await wait_until(lambda: not way.deliverer.connected)
        await mosquitto.start()
        platform = await application.connect(mosquitto.port)
        await wait_until(way.done, 40)
        assert set(application.accepted) == set(way.stored)
        assert application.in_order()
        await platform.close()


async def test_two_paths_to_one_broker_each_alarm_and_reading_accepted_once_while_the_lines_break_in_turn(
    mosquitto: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uplinks.paths.ANNOUNCE_AFTER_S", (0.0, 0.2, 0.5))
    await mosquitto.start()
    application = Application()
    platform = await application.connect(mosquitto.port)
    async with (
        Link(mosquitto.port) as first,
        Link(mosquitto.port) as second,
        road(tmp_path, first.port, second.port) as way,
    ):
        await wait_until(lambda: way.states() == ["in use", "standby"])
        for turn in range(6):
            for number in range(100):
                way.store(turn * 100 + number)
            link = (first, second)[turn % 2]
            await link.cut()
            await wait_until(lambda: "down" in way.states())
            link.heal()
            await wait_until(way.done, 20)
            await wait_until(lambda: "down" not in way.states(), 20)
        assert way.deliverer.epoch == 1  # one path stood at every moment
        assert set(application.accepted) == set(way.stored)
        assert application.in_order()
        assert way.deliverer.status()["accepted"] == 600
        await wait_until(lambda: not way.health.current())
        await wait_until(lambda: application.online)
        assert (False, 1) in application.states  # the wills were there
        later = Application()
        newcomer = await later.connect(mosquitto.port, "newcomer")
        await wait_until(lambda: later.states[-1:] == [(True, 1)])  # a will may come late, and is corrected
        await newcomer.close()
    await wait_until(lambda: not application.online)
    await platform.close()


async def test_with_two_brokers_one_of_them_killed_the_alarms_go_over_the_other_and_back_again(
    new_mosquitto: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uplinks.path.PROBATION_S", 0.5)
    monkeypatch.setattr("gateway.uplinks.path.STEADY_S", 0.0)
    brokers = [new_mosquitto(), new_mosquitto()]
    application = Application()
    for n, broker in enumerate(brokers):
        await broker.start()
        await application.connect(broker.port, f"application-{n}")
    async with road(tmp_path, *(broker.port for broker in brokers)) as way:
        await wait_until(lambda: way.states() == ["in use", "standby"])
        for number in range(100):
            way.store(number)
        await brokers[0].stop(kill=True)
        for number in range(100, 200):
            way.store(number)
        await wait_until(way.done, 20)
        assert way.states() == ["down", "in use"]
        [trouble] = way.health.current()
        assert (trouble.code, trouble.subject) == ("GW-NET-07", "district/1")
        assert application.online  # the dead broker could not even publish the will; nobody says otherwise
        await brokers[0].start()
        await application.connect(brokers[0].port, "application-0")
        way.store(200)  # an alarm shortens the wait
        await wait_until(lambda: way.states() == ["in use", "standby"], 20)
        way.store(201)
        await wait_until(way.done, 20)
        assert set(application.accepted) == set(way.stored)
        assert application.in_order()
        assert (way.deliverer.epoch, way.health.current()) == (1, ())


async def test_an_alarm_finds_the_second_path_when_the_first_one_swallows_everything(
    mosquitto: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.deliver.alarm_paths.COPY_AFTER_S", 0.3)
    monkeypatch.setattr("gateway.deliver.dispatch.COPY_AFTER_S", 0.3)
    await mosquitto.start()
    application = Application()
    platform = await application.connect(mosquitto.port)
    async with (
        Link(mosquitto.port) as first,
        Link(mosquitto.port) as second,
        road(tmp_path, first.port, second.port) as way,
    ):
        await wait_until(lambda: way.states() == ["in use", "standby"])
        first.stall()
        way.store(0)
        await wait_until(way.done)
        assert way.states() == ["standby", "in use"]  # passed over, not yet known to be dead
        first.heal()  # the first copy arrives after all
        await wait_until(lambda: application.duplicates == 1)
        assert way.deliverer.status()["accepted"] == 1
    await platform.close()


# Wills and two paths.


@pytest.mark.slow
async def test_a_will_that_comes_late_cannot_leave_a_living_gateway_offline(
    mosquitto: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker notices the dead standby long after we did, and says "offline" with the epoch that is current."""
    monkeypatch.setattr("gateway.mqtt_session.session.KEEP_ALIVE_S", 1)
    monkeypatch.setattr("gateway.uplinks.paths.ANNOUNCE_AFTER_S", (0.0, 9.0))
    await mosquitto.start()
    application = Application()
    platform = await application.connect(mosquitto.port)
    async with (
        Link(mosquitto.port) as first,
        Link(mosquitto.port) as second,
        road(tmp_path, first.port, second.port) as way,
    ):
        await wait_until(lambda: way.states() == ["in use", "standby"])
        await wait_until(lambda: application.states == [(True, 1)] * 2)
        second.stall()
        way.paths.fail(1, "given up by the test")
        await wait_until(lambda: application.states[2:] == [(True, 1)])  # said again at once
        await wait_until(lambda: (False, 1) in application.states)  # 1.5 times the keep-alive later, and up to 5 s
        await wait_until(lambda: application.online)
        assert application.states[-1] == (True, 1)
        later = Application()
        newcomer = await later.connect(mosquitto.port, "newcomer")
        await wait_until(lambda: later.states[-1:] == [(True, 1)])  # a will may come late, and is corrected
        await newcomer.close()
    await platform.close()


async def test_when_both_lines_break_the_gateway_is_offline_and_online_again_when_it_is_back(
    mosquitto: Any, wait_until: Wait, tmp_path: Path
) -> None:
    await mosquitto.start()
    application = Application()
    platform = await application.connect(mosquitto.port)
    async with (
        Link(mosquitto.port) as first,
        Link(mosquitto.port) as second,
        road(tmp_path, first.port, second.port) as way,
    ):
        await wait_until(lambda: way.states() == ["in use", "standby"])
        await first.cut()
        await wait_until(lambda: way.states() == ["down", "in use"])
        await wait_until(lambda: application.online and (False, 1) in application.states)
        await second.cut()
        await wait_until(lambda: not application.online)
        assert not way.deliverer.connected
        first.heal()
        await wait_until(lambda: application.online, 20)
        assert application.epoch == way.deliverer.epoch > 1
    await platform.close()
