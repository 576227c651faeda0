"""Platforms that speak `alink` and `thingsboard`, over a real broker: what goes to them, and what their answers lead to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.app.transports import paths_of
from gateway.clock import SystemClock
from gateway.config import Destination, DestinationPath
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.events import Lane, Origin, Sending, Stored, new_event, sending_text
from gateway.health import Health
from gateway.mqtt_session import Endpoint
from gateway.outbox import Outbox, Route, Write
from gateway.profiles import load_profile
from gateway.profiles.reading import parse_profile
from gateway.uplinks import Ack, AckStatus, Uplink, UplinkEvents
from gateway.uplinks.mqtt import MqttUplink
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths

ORIGIN = Origin("org", "site", "gw")
CLOCK = SystemClock()
PARAMETERS = {"product_key": "a1b2", "device_name": "gw01", "client_id": "a1b2.gw01"}
CALL = {"kind": "call", "state": "ACTIVE", "room": "201", "bed": "1", "verified": True}
# A topic that is made of what an event says.
WILD = """
name = "wild"
transport = "mqtt"
level = "L1"
[[message]]
types = ["*"]
to = "in/{subject}"
body = { id = "{id}" }
"""
REPLY = "/sys/a1b2/gw01/thing/event/alarm_raised/post_reply"


class Platform:
    """The platform's application at the broker. `answer` says what it answers a message with: None for nothing."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.taken: list[tuple[str, Any]] = []
        self.answer: Callable[[Any], Any] = lambda content: {"id": content["id"], "code": 200, "data": {}}

    def on_message(self, topic: str, payload: bytes) -> None:
        content = json.loads(payload)
        self.taken.append((topic, content))
        said = self.answer(content)
        if said is not None:
            self.say(said, topic=topic + "_reply")

    def say(self, content: Any, *, topic: str = REPLY) -> None:
        self._session.publish(topic, content if isinstance(content, bytes) else json.dumps(content).encode())

    @property
    def events(self) -> list[str]:
        return [content["params"]["value"]["id"] for _topic, content in self.taken]


class Told:
    """What a transport has told its deliverer."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.sent: list[tuple[int, bool]] = []
        self.losses: list[Any] = []
        self.events = UplinkEvents(
            acks=self.acks.extend, sent=lambda token, ok: self.sent.append((token, ok)), lost=self.losses.append
        )


@pytest.fixture
async def platform(broker: Any, ear: Any) -> AsyncIterator[Platform]:
    session = ear.session(broker.port, client_id="platform", will=None)
    made = Platform(session)
    session._on_message = made.on_message
    await session.open()
    await session.subscribe("/sys/+/+/thing/event/+/post")
    yield made
    await session.close()


def uplink(
    port: int, profile: str = "alink", *, client_id: str = "org-site-gw", finish: Literal["L1", "L2"] = "L2"
) -> MqttUplink:
    endpoint = Endpoint("127.0.0.1", port, client_id)
    return MqttUplink(
        endpoint, ORIGIN, destination="district", profile=load_profile(profile), parameters=PARAMETERS,
        finish=finish,
    )  # fmt: skip


def text(noun: str, seq: int = 1, **data: object) -> str:
    event = new_event(noun, ORIGIN, device=f"d{seq}", at=CLOCK.stamp(), data=data, correlation="alarm-1")
    row = Stored(
        seq, event.lane, event.id, noun, f"d{seq}", CLOCK.stamp().wall_ms, event.at, {"district": seq}, event.body
    )
    return sending_text(row, Sending("district", "stream-1", 0, 1, buffered=False))


@pytest.fixture
async def up(broker: Any, platform: Platform) -> AsyncIterator[tuple[MqttUplink, Told]]:
    told = Told()
    made = uplink(broker.port)
    await made.open(told.events, epoch=1, birth={})
    yield made, told
    await made.close()


Up = tuple[MqttUplink, Told]


def call(made: MqttUplink, seq: int = 1, **data: object) -> str:
    """Send one alarm; return its id."""
    said = text("alarm.raised", seq, **{**CALL, **data})
    made.send(Lane.A, [said])
    return str(json.loads(said)["id"])


async def test_an_alarm_is_accepted_when_its_reply_has_come(up: Up, platform: Platform, wait_until: Any) -> None:
    made, told = up
    event = call(made)
    await wait_until(lambda: told.acks)
    assert told.acks == [Ack(event, AckStatus.ACCEPTED)]
    [(topic, content)] = platform.taken
    assert topic == "/sys/a1b2/gw01/thing/event/alarm_raised/post"
    assert content["method"] == "thing.event.alarm_raised.post"
    assert content["params"]["value"]["kind"] == "call"
    await wait_until(lambda: told.sent)
    assert made.max_events == 1


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (200, AckStatus.ACCEPTED, ""),
        (429, AckStatus.RETRY, "code-429: said"),
        (500, AckStatus.RETRY, "code-500: said"),
        (7777, AckStatus.RETRY, "code-7777: said"),
        (460, AckStatus.REJECTED, "code-460: said"),
    ],
)
async def test_the_code_of_a_reply_says_what_it_means(
    up: Up, platform: Platform, wait_until: Any, code: int, status: AckStatus, said: str
) -> None:
    made, told = up
    platform.answer = lambda content: {"id": content["id"], "code": code, "message": "said"}
    event = call(made)
    await wait_until(lambda: told.acks)
    assert told.acks == [Ack(event, status, said)]


async def test_a_reply_confirms_the_message_that_it_names_and_no_other(
    up: Up, platform: Platform, wait_until: Any
) -> None:
    made, told = up
    platform.answer = lambda _content: None
    events = [call(made, seq) for seq in (1, 2, 3)]
    await wait_until(lambda: len(platform.taken) == 3)
    second = platform.taken[1][1]["id"]
    for strange in (b"{", b"[]", {"code": 200}, {"id": "99", "code": 200}, {"id": None, "code": 200}, {"id": second}):
        platform.say(strange)
    platform.say({"id": int(second), "code": 200})
    platform.say({"id": second, "code": 400})  # a second answer is not believed
    await wait_until(lambda: made.malformed_acks == 7)
    assert told.acks == [Ack(events[1], AckStatus.ACCEPTED)]


async def test_a_late_reply_of_an_earlier_connection_confirms_nothing(
    up: Up, platform: Platform, wait_until: Any
) -> None:
    made, told = up
    platform.answer = lambda _content: None
    call(made)
    await wait_until(lambda: platform.taken)
    late = platform.taken[0][1]["id"]
    await made.close()
    again = Told()
    await made.open(again.events, epoch=2, birth={})
    call(made)
    await wait_until(lambda: len(platform.taken) == 2)
    assert platform.taken[1][1]["id"] != late
    platform.say({"id": late, "code": 200})
    await wait_until(lambda: made.malformed_acks == 1)
    assert (told.acks, again.acks) == ([], [])


async def test_a_late_reply_to_another_process_or_path_confirms_nothing(
    broker: Any, up: Up, platform: Platform, wait_until: Any
) -> None:
    """All of them hear the same reply topic: their numbers must not be the same."""
    made, told = up
    platform.answer = lambda _content: None
    other, heard = uplink(broker.port, client_id="org-site-gw-2"), Told()
    await other.open(heard.events, epoch=1, birth={})
    call(made, 1)
    await wait_until(lambda: len(platform.taken) == 1)
    event = call(other, 2)
    await wait_until(lambda: len(platform.taken) == 2)
    first, second = (content["id"] for _topic, content in platform.taken)
    platform.say({"id": first, "code": 460})
    await wait_until(lambda: told.acks and other.malformed_acks)
    assert heard.acks == []
    platform.say({"id": second, "code": 200})
    await wait_until(lambda: heard.acks and made.malformed_acks)
    assert heard.acks == [Ack(event, AckStatus.ACCEPTED)]
    assert len(told.acks) == 1
    await other.close()


def test_whatever_an_event_says_no_wildcard_gets_into_a_topic() -> None:
    """MQTT 5.0 section 4.7.1."""
    said = json.loads(text("alarm.raised", **CALL))
    tree = MqttUplink(
        Endpoint("127.0.0.1", 1, "x"), ORIGIN, destination="d", profile=parse_profile(WILD), parameters=PARAMETERS
    )  # fmt: skip
    refused = tree._speech.message(Lane.A, [json.dumps({**said, "subject": "device/+/#"})])
    assert isinstance(refused, Ack)
    assert (refused.status, refused.code) == (AckStatus.REJECTED, "profile: not a topic: in/device/+/#")


async def test_an_alarm_that_cannot_be_said_is_refused_in_the_next_turn(up: Up, wait_until: Any) -> None:
    made, told = up
    said = text("telemetry.meter", registers="none")
    token = made.send(Lane.C, [said])
    await wait_until(lambda: told.sent)
    [refused] = told.acks
    assert (refused.id, refused.status, refused.reason) == (
        json.loads(said)["id"], AckStatus.REJECTED, "the profile cannot say it",
    )  # fmt: skip
    assert told.sent == [(token, True)]


class Road:
    """An outbox and its deliverer, running."""

    def __init__(self, folder: Path, made: Uplink, *, finish: str) -> None:
        self.outbox = Outbox(folder / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
        self.health = Health(CLOCK)
        self.levels: list[tuple[str, str]] = []
        path = PlatformPath(made, "127.0.0.1", "mqtt")
        paths = Paths("district", [path], reconnect_spread_s=0.05, clock=CLOCK, health=self.health)
        self.deliverer = Deliverer(
            "district", paths, self.outbox, finish=finish, reconnect_spread_s=0.05, clock=CLOCK, health=self.health,
            callbacks=DeliveryCallbacks(delivered=lambda *one: self.levels.append(one), birth=dict),
        )  # fmt: skip

    async def __aenter__(self) -> Road:
        await self.outbox.open()
        self.outbox.on_stored = self.deliverer.wake
        self._running = [asyncio.create_task(self.outbox.run()), asyncio.create_task(self.deliverer.run())]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in reversed(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.outbox.close()

    def submit(self, noun: str, device: str, **data: object) -> str:
        event = new_event(noun, ORIGIN, device=device, at=CLOCK.stamp(), data=data, correlation="a")
        self.outbox.submit(Write((event,)))
        return event.id

    @property
    def pending(self) -> int:
        return sum(self.outbox.pending("district").values())


async def test_everything_is_accepted_and_what_cannot_be_said_is_a_dead_letter(
    broker: Any, platform: Platform, wait_until: Any, tmp_path: Path
) -> None:
    posts = 0

    def moody(content: Any) -> Any:
        nonlocal posts
        posts += 1
        return {"id": content["id"], "code": 500 if posts == 2 else 200}

    platform.answer = moody
    async with Road(tmp_path, uplink(broker.port), finish="L2") as road:
        good = [road.submit("telemetry.meter", f"m{n % 3}", registers=[]) for n in range(30)]
        bad = road.submit("telemetry.meter", "m9", registers="none")
        good += [road.submit("alarm.raised", f"call-{n}", **CALL) for n in range(3)]
        assert await road.outbox.flush(10)
        await wait_until(lambda: road.pending == 0, 30)
        assert await road.outbox.flush(10)
        assert [(one.id, one.reason) for one in await road.outbox.dead_letters()] == [
            (bad, "the profile cannot say it")
        ]
        assert len([one for one in road.levels if one[1] == "L2"]) == 3
    assert set(platform.events) == set(good)
    assert len(platform.events) == len(good) + 1  # the one that was asked to come again


async def test_a_platform_without_answers_has_it_when_the_broker_has(
    broker: Any, ear: Any, wait_until: Any, tmp_path: Path
) -> None:
    session = ear.session(broker.port, client_id="platform", will=None)
    await session.open()
    await session.subscribe("v1/gateway/telemetry")
    made = uplink(broker.port, "thingsboard")
    async with Road(tmp_path, made, finish="L1") as road:
        event = road.submit("alarm.raised", "call-1", **CALL)
        assert await road.outbox.flush(10)
        await wait_until(lambda: road.pending == 0)
        assert road.levels[-1] == (event, "L1")
        await wait_until(lambda: ear.messages)
    await session.close()
    [(topic, payload)] = ear.messages
    assert topic == "v1/gateway/telemetry"
    assert json.loads(payload)["call-1"][0]["values"]["event_id"] == event


async def test_what_nobody_has_subscribed_to_is_not_delivered_where_delivery_is_all(
    told: Any, wait_until: Any, tmp_path: Path
) -> None:
    """MQTT 5.0 section 3.4.2.1: the broker took it (0x10), and threw it away."""
    told.publish_reason = 0x10
    path = DestinationPath(f"mqtt://127.0.0.1:{told.port}")
    configured = Destination("district", profile="thingsboard", finish="L1", path=(path,))
    made = paths_of(configured, ORIGIN, clock=CLOCK, health=Health(CLOCK), on_time=lambda _said: None)
    async with Road(tmp_path, made._lines[0].path.uplink, finish="L1") as road:
        event = road.submit("alarm.raised", "call-1", **CALL)
        assert await road.outbox.flush(10)
        await wait_until(lambda: "GW-PLT-03" in {one.code for one in road.health.current()})
        await wait_until(lambda: told.kinds().count(3) >= 2, 30)
        assert (road.pending, {level for _event, level in road.levels}) == (1, {"SENT"})
        told.publish_reason = 0
        await wait_until(lambda: road.pending == 0, 30)
        assert road.levels[-1] == (event, "L1")


@pytest.mark.parametrize(("finish", "is_delivered"), [("L1", False), ("L2", True)])
async def test_a_puback_without_subscribers_counts_by_what_finishes_an_event(
    told: Any, wait_until: Any, finish: Literal["L1", "L2"], is_delivered: bool
) -> None:
    told.publish_reason = 0x10
    heard = Told()
    made = uplink(told.port, finish=finish)
    await made.open(heard.events, epoch=1, birth={})
    call(made)
    await wait_until(lambda: heard.sent)
    assert [ok for _token, ok in heard.sent] == [is_delivered]
    await made.close()
