"""The whole platform in one process: real broker, real line, and a paho client that plays the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulator.platform import District, district
from simulator.platform.broker import Broker, BrokerError
from simulator.platform.ledger import read_ledger

GOLDEN = Path(__file__).parent.parent / "data" / "native"
ROOT = "eldercare/v1/demo/hanfeng/gw-01"
HOST = "127.0.0.1"


class PlayedGateway:
    """A gateway's end of the wire, in paho's own thread. `acks` holds each down/ack message, decoded."""

    def __init__(self, port: int, *, epoch: int = 1, keepalive: int = 30, client_id: str = "gw-01") -> None:
        self.port, self.epoch, self.keepalive = port, epoch, keepalive
        self.acks: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
        self.states: asyncio.Queue[tuple[dict[str, Any], bool]] = asyncio.Queue()
        self.connected, self.lost, self.subscribed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def told(event: asyncio.Event) -> Callable[..., Any]:
            return lambda *_a: loop.call_soon_threadsafe(event.set)

        def message(_c: Any, _u: Any, message: paho.MQTTMessage) -> None:
            content = json.loads(message.payload)
            if message.topic.endswith("/down/ack"):
                loop.call_soon_threadsafe(self.acks.put_nowait, content["acks"])
            else:
                loop.call_soon_threadsafe(self.states.put_nowait, (content, message.retain))

        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        self.client.max_inflight_messages_set(1000)
        self.client.will_set(f"{ROOT}/state", json.dumps({"online": False, "epoch": epoch}), qos=1, retain=True)
        self.client.on_connect, self.client.on_disconnect = told(self.connected), told(self.lost)
        self.client.on_subscribe, self.client.on_message = told(self.subscribed), message

    async def connect(self) -> None:
        self.client.connect(HOST, self.port, keepalive=self.keepalive, clean_start=True)
        self.client.loop_start()
        async with asyncio.timeout(30):
            await self.connected.wait()
            self.client.subscribe(f"{ROOT}/down/ack", qos=1)
            await self.subscribed.wait()

    def announce(self) -> None:
        online = {"online": True, "epoch": self.epoch}
        self.client.publish(f"{ROOT}/state", json.dumps(online), qos=1, retain=True)
        self.client.publish(f"{ROOT}/up/birth", json.dumps({"epoch": self.epoch, "gateway": {"id": "gw-01"}}), qos=1)

    def send(self, lane: str, content: object) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content)
        self.client.publish(f"{ROOT}/up/{lane}", payload, qos=1)

    async def answer(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(30):
            return await self.acks.get()

    async def ask(self, lane: str, content: object) -> list[dict[str, Any]]:
        self.send(lane, content)
        return await self.answer()

    async def no_answer(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.acks.get(), 0.15)

    def freeze(self) -> None:
        """Stop reading and pinging while the connection stays up."""
        self.client._thread_terminate = True

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)
        self.client._reset_sockets()


@contextlib.asynccontextmanager
async def platform_and_gateway(run: Path) -> AsyncIterator[tuple[District, PlayedGateway]]:
    async with district(run) as platform:
        gateway = PlayedGateway(platform.port)
        try:
            await gateway.connect()
            yield platform, gateway
        finally:
            await gateway.close()


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def alarm(n: int, device: str = "call-r101-1") -> dict[str, Any]:
    return numbered(golden("alarm"), n, device)


def meter(n: int, device: str = "meter-1") -> dict[str, Any]:
    return numbered(golden("telemetry")[0], n, device)


def numbered(event: dict[str, Any], n: int, device: str) -> dict[str, Any]:
    event = copy.deepcopy(event)
    event |= {
        "id": f"0190a5c0-0000-7000-8000-{n:012x}",
        "sequence": f"{n:020d}",
        "deliveryseq": f"{n:020d}",
        "partitionkey": device,
        "subject": f"device/{device}",
    }
    return event


def uid(n: int) -> str:
    return f"0190a5c0-0000-7000-8000-{n:012x}"


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


def statuses(run: Path, destination: str = "district") -> list[tuple[str, str]]:
    return [(decision.id, decision.status.value) for decision in read_ledger(run / f"platform-{destination}.jsonl")]


# -- decisions ------------------------------------------------------------------------------------------------------


async def test_an_event_is_accepted_answered_and_in_the_ledger_before_the_answer(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert await gateway.ask("alarm", golden("alarm")) == [{"id": uid(1), "status": "accepted"}]
        assert statuses(tmp_path) == [(uid(1), "accepted")]
        assert await gateway.ask("event", golden("gap")) == [{"id": uid(2), "status": "accepted"}]
        assert await gateway.ask("telemetry", golden("telemetry")) == [
            {"id": uid(3), "status": "accepted"},
            {"id": uid(4), "status": "accepted"},
        ]
        stats = platform.stats()
        assert (stats["accepted"], stats["connections"], stats["gaps"]["deliveryseq_missing"]) == (4, 1, 0)
        assert stats["by_type"] == {
            "alarm.raised": {"accepted": 1},
            "gateway.gap": {"accepted": 1},
            "telemetry.meter": {"accepted": 2},
        }
        assert stats["gaps"]["events"] == 1
        assert stats["last_event_age_s"] < 5


async def test_the_same_event_again_is_a_duplicate_on_every_way(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        await gateway.ask("alarm", alarm(1))
        resent = alarm(1)
        resent["data"]["delivery"] = {"buffered": True, "age_ms": 10_000, "attempt": 2}
        assert await gateway.ask("alarm", resent) == [{"id": uid(1), "status": "duplicate"}]
        batch = [meter(2), meter(2)]
        assert [ack["status"] for ack in await gateway.ask("telemetry", batch)] == ["accepted", "duplicate"]


async def test_an_id_that_was_minted_twice_is_rejected(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        await gateway.ask("alarm", alarm(1))
        other = alarm(2) | {"id": uid(1)}
        assert await gateway.ask("alarm", other) == [{"id": uid(1), "status": "rejected", "code": "id-reused"}]


async def test_an_event_that_comes_again_in_another_stream_is_a_duplicate(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        await gateway.ask("alarm", alarm(1))
        rescued = alarm(2) | {"id": uid(1), "streamid": uid(999)}
        assert await gateway.ask("alarm", rescued) == [{"id": uid(1), "status": "duplicate"}]


@pytest.mark.parametrize(
    ("lane", "content", "acks"),
    [
        ("alarm", b"{", [{"id": "", "status": "rejected", "code": "not-json"}]),
        ("alarm", b"[" * 100_000, [{"id": "", "status": "rejected", "code": "not-json"}]),
        ("alarm", b'{"id": NaN}', [{"id": "", "status": "rejected", "code": "not-json"}]),
        ("alarm", [], [{"id": "", "status": "rejected", "code": "not-an-object"}]),
        ("alarm", [alarm(1)], [{"id": "", "status": "rejected", "code": "not-an-object"}]),
        ("event", alarm(1), [{"id": uid(1), "status": "rejected", "code": "wrong-lane"}]),
        ("telemetry", meter(1), [{"id": uid(1), "status": "rejected", "code": "not-a-batch"}]),
        ("telemetry", [], [{"id": "", "status": "rejected", "code": "empty-batch"}]),
        (
            "telemetry",
            [meter(1), 5],
            [{"id": uid(1), "status": "accepted"}, {"id": "", "status": "rejected", "code": "not-an-object"}],
        ),
        (
            "alarm",
            alarm(1) | {"source": "urn:eldercare:demo:hanfeng:gw-02"},
            [{"id": uid(1), "status": "rejected", "code": "bad-source"}],
        ),
        ("alarm", alarm(1) | {"padding": "x" * 300_000}, [{"id": uid(1), "status": "rejected", "code": "too-big"}]),
    ],
)
async def test_what_is_malformed_is_rejected_with_a_code(
    tmp_path: Path, lane: str, content: object, acks: list[dict[str, Any]]
) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert await gateway.ask(lane, content) == acks
        assert platform.stats()["rejected"] == sum(ack["status"] == "rejected" for ack in acks)
    assert [event_id for event_id, _ in statuses(tmp_path)] == [ack["id"] for ack in acks]


async def test_a_batch_that_is_too_long_is_rejected_whole(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        acks = await gateway.ask("telemetry", [meter(n) for n in range(1, 102)])
        assert len(acks) == 101
        assert {(ack["status"], ack["code"]) for ack in acks} == {("rejected", "batch-too-big")}
        assert len(await gateway.ask("telemetry", [meter(n) for n in range(1, 60)])) == 59


async def test_a_quarter_of_a_mebibyte_passes(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        event = alarm(1) | {"padding": ""}
        event["padding"] = "x" * (256 * 1024 - len(json.dumps(event)))
        assert len(json.dumps(event)) == 262_144
        assert await gateway.ask("alarm", event) == [{"id": uid(1), "status": "accepted"}]


async def test_after_a_retry_a_device_gets_retry_for_the_rest_of_the_batch(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        await gateway.ask("telemetry", [meter(1, "m1")])
        platform.conduct.refuse_some(0.5, seed=1)
        batch = [meter(n, f"m{n % 3}") for n in range(1, 61)]
        acks = await gateway.ask("telemetry", batch)
        first_retry: dict[str, int] = {}
        for place, (event, ack) in enumerate(zip(batch, acks, strict=True)):
            if ack["status"] == "retry":
                first_retry.setdefault(event["partitionkey"], place)
        assert set(first_retry) == {"m0", "m1", "m2"}
        for place, (event, ack) in enumerate(zip(batch, acks, strict=True)):
            expected = "retry" if place >= first_retry[event["partitionkey"]] else "accepted or duplicate"
            assert ack["status"] in expected
        assert {ack.get("code") for ack in acks if ack["status"] == "retry"} == {"busy", "after-retry"}
        platform.conduct.accept()
        acks = await gateway.ask("telemetry", batch)
        assert {ack["status"] for ack in acks} == {"accepted", "duplicate"}
        assert platform.stats()["gateways"]["demo/hanfeng/gw-01"]["reordered"] == 0


# -- ways to behave -------------------------------------------------------------------------------------------------


async def test_refusing_answers_retry_to_everything_with_a_delay(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        await gateway.ask("alarm", alarm(1))
        platform.conduct.refuse(retry_after_ms=1500)
        expected = {"status": "retry", "code": "refusing", "retry_after_ms": 1500}
        assert await gateway.ask("alarm", alarm(1)) == [{"id": uid(1), **expected}]
        assert await gateway.ask("alarm", alarm(2)) == [{"id": uid(2), **expected}]
        platform.conduct.accept()
        assert await gateway.ask("alarm", alarm(2)) == [{"id": uid(2), "status": "accepted"}]
        assert platform.stats()["retried"] == 2


async def test_unwanted_types_and_ids_are_rejected(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.reject(types=["telemetry.*"], ids=[uid(9)], code="not-my-district")
        unwanted = {"status": "rejected", "code": "not-my-district"}
        assert await gateway.ask("telemetry", [meter(1)]) == [{"id": uid(1), **unwanted}]
        assert await gateway.ask("alarm", alarm(9)) == [{"id": uid(9), **unwanted}]
        assert await gateway.ask("alarm", alarm(2)) == [{"id": uid(2), "status": "accepted"}]
        platform.conduct.accept()
        assert await gateway.ask("telemetry", [meter(1)]) == [{"id": uid(1), "status": "accepted"}]


async def test_a_stalled_application_answers_everything_when_released(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.stall()
        gateway.send("alarm", alarm(1))
        gateway.send("alarm", alarm(1))
        gateway.send("alarm", alarm(2))
        await until(lambda: platform.stats()["waiting"] == 3)
        await gateway.no_answer()
        assert statuses(tmp_path) == []
        platform.conduct.unstall()
        answers = [await gateway.answer() for _ in range(3)]
        assert [(a["id"], a["status"]) for [a] in answers] == [
            (uid(1), "accepted"),
            (uid(1), "duplicate"),
            (uid(2), "accepted"),
        ]


async def test_a_forgotten_message_is_neither_stored_nor_answered_and_is_accepted_when_it_comes_again(
    tmp_path: Path,
) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.forget()
        gateway.send("telemetry", [meter(1), meter(2)])
        await gateway.no_answer()
        platform.conduct.remember()
        answer = await gateway.ask("telemetry", [meter(1), meter(2)])
        assert [ack["status"] for ack in answer] == ["accepted", "accepted"]
        assert statuses(tmp_path) == [
            (uid(1), "forgotten"),
            (uid(2), "forgotten"),
            (uid(1), "accepted"),
            (uid(2), "accepted"),
        ]


async def test_forgetting_can_end_by_itself_and_can_be_left_to_chance(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.forget(seconds=0)
        assert await gateway.ask("alarm", alarm(1)) == [{"id": uid(1), "status": "accepted"}]
        platform.conduct.forget(0.5, seed=7)
        for n in range(2, 42):
            gateway.send("alarm", alarm(n))
        await until(lambda: platform.stats()["accepted"] + platform.stats()["forgotten"] == 41)
        assert 5 < platform.stats()["forgotten"] < 35


async def test_a_lost_answer_leaves_the_event_accepted(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.mute()
        gateway.send("alarm", alarm(1))
        await gateway.no_answer()
        platform.conduct.mute(0)
        assert await gateway.ask("alarm", alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        assert platform.stats()["unanswered"] == 1


async def test_answers_can_come_twice_and_late(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.double_acks(on=True)
        platform.conduct.slow(100)
        began = asyncio.get_running_loop().time()
        first = await gateway.ask("alarm", alarm(1))
        assert asyncio.get_running_loop().time() - began >= 0.1
        assert first == await gateway.answer() == [{"id": uid(1), "status": "accepted"}]


async def test_what_the_platform_knows_survives_its_restart(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        await gateway.ask("alarm", alarm(1))
        await gateway.ask("alarm", alarm(3))
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert await gateway.ask("alarm", alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        stats = platform.stats()
        assert (stats["accepted"], stats["duplicates"]) == (2, 1)
        numbers = stats["gateways"]["demo/hanfeng/gw-01"]["deliveryseq"]["5f0c1a52"]
        assert (numbers["highest"], numbers["missing"], numbers["holes"]) == (3, 1, [(2, 2)])


# -- the line and the broker ------------------------------------------------------------------------------------------


async def test_a_cut_drops_the_gateway_publishes_its_will_and_heals(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        gateway.announce()
        await until(lambda: platform.stats()["online"])
        await platform.link.cut()
        async with asyncio.timeout(30):
            await gateway.lost.wait()
        await until(lambda: not platform.stats()["online"])
        with pytest.raises(ConnectionRefusedError):
            PlayedGateway(platform.port).client.connect(HOST, platform.port)
        platform.link.heal()
        again = PlayedGateway(platform.port, epoch=2)
        await again.connect()
        again.announce()
        await until(lambda: platform.stats()["online"] and platform.stats()["epoch"] == 2)
        assert await again.ask("alarm", alarm(1)) == [{"id": uid(1), "status": "accepted"}]
        await again.close()


async def test_a_state_is_retained_for_who_comes_later(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        gateway.announce()
        await until(lambda: platform.stats()["online"])
        late = PlayedGateway(platform.broker.port, client_id="late")
        await late.connect()
        late.client.subscribe("eldercare/v1/+/+/+/state", qos=1)
        async with asyncio.timeout(30):
            assert await late.states.get() == ({"online": True, "epoch": 1}, True)
        await late.close()


async def test_a_late_will_of_an_older_connection_is_ignored(tmp_path: Path) -> None:
    """The line stalls, the gateway comes back by another id of its own, then the broker gives the old one up."""
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        old = PlayedGateway(platform.broker.port, epoch=7, keepalive=1, client_id="gw-01-7")
        await old.connect()
        old.announce()
        await until(lambda: platform.stats()["epoch"] == 7)
        old.freeze()
        gateway.epoch = 8
        gateway.announce()
        await until(lambda: platform.stats()["epoch"] == 8)
        await until(lambda: platform.stats()["gateways"]["demo/hanfeng/gw-01"]["stale_states"] == 1)
        assert platform.stats()["online"] is True
        await old.close()


async def test_a_stalled_line_holds_answers_back_until_it_heals(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.link.stall()
        gateway.send("alarm", alarm(1))
        await gateway.no_answer()
        assert platform.stats()["accepted"] == 0
        platform.link.heal()
        assert await gateway.answer() == [{"id": uid(1), "status": "accepted"}]
        assert not gateway.lost.is_set()


async def test_a_restart_of_the_broker_drops_everyone_and_the_application_returns(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        gateway.announce()
        await gateway.ask("alarm", alarm(1))
        pid = platform.broker.pid
        await platform.restart_broker()
        assert platform.broker.pid != pid
        async with asyncio.timeout(30):
            await gateway.lost.wait()
        assert platform.stats()["online"] is False
        again = PlayedGateway(platform.port, epoch=2)
        await again.connect()
        assert await again.ask("alarm", alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        await again.close()
        assert (platform.stats()["broker"]["restarts"], platform.stats()["sessions"]) == (1, 2)


async def test_a_message_whose_puback_was_lost_comes_again_by_qos_1_and_is_a_duplicate(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.link.delay(200)
        gateway.send("alarm", alarm(1))
        await until(lambda: platform.stats()["accepted"] == 1)
        await platform.link.cut()  # PUBACK and answer are still on their way
        async with asyncio.timeout(30):
            await gateway.lost.wait()
        await asyncio.to_thread(gateway.client.loop_stop)
        gateway.client._reset_sockets(sockpair_only=True)
        platform.link.heal()
        gateway.client.reconnect()  # paho sends what had no PUBACK again, by itself
        gateway.client.loop_start()
        await until(lambda: platform.stats()["duplicates"] == 1)
        assert statuses(tmp_path) == [(uid(1), "accepted"), (uid(1), "duplicate")]


async def test_two_destinations_live_side_by_side(tmp_path: Path) -> None:
    async with district(tmp_path, destination="district") as one, district(tmp_path, destination="city") as two:
        gateways = [PlayedGateway(one.port), PlayedGateway(two.port)]
        for gateway in gateways:
            await gateway.connect()
        two.conduct.refuse()
        assert (await gateways[0].ask("alarm", alarm(1)))[0]["status"] == "accepted"
        assert (await gateways[1].ask("alarm", alarm(1)))[0]["status"] == "retry"
        for gateway in gateways:
            await gateway.close()
    assert statuses(tmp_path, "district") == [(uid(1), "accepted")]
    assert statuses(tmp_path, "city") == [(uid(1), "retry")]


async def test_mqtt_3_1_1_is_understood_on_its_own_port() -> None:
    async with Broker() as broker:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="old", protocol=paho.MQTTv311)
        connected = asyncio.Event()
        loop = asyncio.get_running_loop()
        heard: Callable[..., Any] = lambda *_a: loop.call_soon_threadsafe(connected.set)  # noqa: E731 - typed for paho
        client.on_connect = heard
        client.connect(HOST, broker.port_v4)
        client.loop_start()
        async with asyncio.timeout(30):
            await connected.wait()
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
        client._reset_sockets()


async def test_a_broker_without_its_port_says_so() -> None:
    async with Broker() as first:
        with pytest.raises(BrokerError, match=f"cannot have 127.0.0.1:{first.port}: Address already in use"):
            await Broker(port=first.port).start()


async def test_a_broker_that_dies_ends_the_platform_with_its_name(tmp_path: Path) -> None:
    async def lose_the_broker() -> None:
        async with district(tmp_path) as platform:
            assert platform.broker.pid is not None
            os.kill(platform.broker.pid, signal.SIGKILL)
            await asyncio.sleep(5)

    with pytest.raises(BrokerError, match="ended by itself"):
        await lose_the_broker()


async def test_a_broker_that_panicked_is_started_again(tmp_path: Path) -> None:
    async with district(tmp_path) as platform:
        pid = platform.broker.pid
        platform.broker._panicked.set()  # what its reader does when the broker writes of a panic
        await until(lambda: platform.broker.crashes == 1 and platform.broker.pid not in {None, pid})
        await until(lambda: platform.stats()["sessions"] == 2)
        assert platform.stats()["broker"]["crashes"] == 1


async def test_clients_that_vanish_in_the_handshake_do_not_break_the_broker(tmp_path: Path) -> None:
    """Directly at the broker one of about ten such resets breaks its listener."""
    connect = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x05gw-01"
    async with district(tmp_path) as platform:
        for _ in range(100):
            _, writer = await asyncio.open_connection(HOST, platform.port)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(connect)
            await asyncio.sleep(0.001)
            writer.transport.abort()
        await until(lambda: platform.stats()["connections"] == 0)
        gateway = PlayedGateway(platform.port)
        await gateway.connect()
        assert await gateway.ask("alarm", alarm(1)) == [{"id": uid(1), "status": "accepted"}]
        await gateway.close()
        assert platform.stats()["broker"]["crashes"] == 0
