"""A real mosquitto as a source: it keeps what comes while we are away, and the link says when it cannot hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.clock import Stamp, SystemClock
from gateway.links.mqtt_source import Acknowledge, MqttSource
from gateway.links.state import LinkState
from gateway.mqtt_session import Delivery, Endpoint
from gateway.tls import Tls

Wait = Callable[..., Any]
HOST = "127.0.0.1"
BRIDGE = "zigbee2mqtt/bridge/state"


@dataclass
class Listener:
    """One link, what it heard, and what it said of itself."""

    port: int
    more: dict[str, Any] = field(default_factory=dict)
    heard: list[Delivery] = field(default_factory=list)
    states: list[tuple[bool, str | None]] = field(default_factory=list)
    anew: int = 0
    acknowledges: bool = True
    task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        more = dict(self.more)
        endpoint = Endpoint(HOST, self.port, "gw-broker", more.pop("username", ""), tls=more.pop("tls", None),
                            version=more.pop("version", "auto"))  # fmt: skip
        password = more.pop("password", "")
        self.source = MqttSource(
            link_id="broker", endpoint=endpoint, password=lambda: password, topics=more.pop("topics", ("a/sos",)),
            bridge=more.pop("bridge", ""), on_message=self.take, on_state=self.see, clock=SystemClock(),
            on_anew=self.begin_anew,
        )  # fmt: skip
        self.task = asyncio.create_task(self.source.run())

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})

    def take(self, delivery: Delivery, _at: Stamp, acknowledge: Acknowledge) -> None:
        if delivery.payload == b"a bug":
            raise ArithmeticError
        self.heard.append(delivery)
        if self.acknowledges:
            acknowledge()

    def begin_anew(self) -> None:
        self.anew += 1

    def see(self, state: LinkState) -> None:
        self.states.append((state.hearing, state.problem))

    def said(self) -> list[tuple[bytes, bool]]:
        return [(one.payload, one.again) for one in self.heard]


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """A link that is not begun yet."""
    here = Listener(0)
    yield here
    await here.end()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_what_is_published_while_we_are_away_comes_when_we_are_back(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait, version: str
) -> None:
    await mosquitto.start()
    listener.port, listener.more = mosquitto.port, {"version": version}
    listener.begin()
    await wait_until(lambda: listener.states == [(True, None)])
    await listener.end()
    other = ear.session(mosquitto.port, client_id="other")
    await other.open()
    for payload in (b"1", b"2"):
        other.publish("a/sos", payload)
    await wait_until(lambda: len(ear.pubacks) == 2)
    listener.begin()
    await wait_until(lambda: len(listener.heard) == 2)
    assert listener.said() == [(b"1", False), (b"2", False)]
    await other.close()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_what_was_not_acknowledged_comes_again_and_says_so(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait, version: str
) -> None:
    await mosquitto.start()
    listener.port, listener.more, listener.acknowledges = mosquitto.port, {"version": version}, False
    listener.begin()
    await wait_until(lambda: listener.states == [(True, None)])
    other = ear.session(mosquitto.port, client_id="other")
    await other.open()
    other.publish("a/sos", b"help")
    await wait_until(lambda: len(listener.heard) == 1)
    await listener.end()
    listener.acknowledges = True
    listener.begin()
    # What the broker has kept comes before the subscriptions stand.
    await wait_until(lambda: (len(listener.heard), len(listener.states)) == (2, 2))
    first, second = listener.heard
    assert (first.again, second.again, first.number == second.number) == (False, True, True)
    assert listener.anew == 1  # and not where the broker has kept the session
    await listener.end()
    listener.begin()
    await wait_until(lambda: len(listener.states) == 3)
    other.publish("a/sos", b"after")
    await wait_until(lambda: len(listener.heard) == 3)
    assert listener.said()[2] == (b"after", False)
    await other.close()


async def test_a_broker_that_ends_and_comes_back_is_told_and_found_again(
    mosquitto: Any, listener: Listener, wait_until: Wait
) -> None:
    await mosquitto.start()
    listener.port = mosquitto.port
    listener.begin()
    await wait_until(lambda: listener.states == [(True, None)])
    await mosquitto.stop(kill=True)
    await wait_until(lambda: listener.states[-1] == (False, "GW-MQS-01"))
    await mosquitto.start()
    await wait_until(lambda: listener.states == [(True, None), (False, "GW-MQS-01"), (True, None)])


async def test_the_link_hears_only_while_the_bridge_says_that_it_is_online(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait
) -> None:
    await mosquitto.start()
    listener.port, listener.more = mosquitto.port, {"bridge": BRIDGE}
    listener.begin()
    await wait_until(lambda: listener.states == [(False, "GW-MQS-04")])
    other = ear.session(mosquitto.port, client_id="other")
    await other.open()
    for payload, hearing in ((b'{"state":"online"}', True), (b'{"state":"offline"}', False), (b"online", True)):
        other.publish(BRIDGE, payload, retain=True)
        await wait_until(lambda hearing=hearing: listener.states[-1] == (hearing, None if hearing else "GW-MQS-04"))
    await listener.end()
    listener.states.clear()
    listener.begin()
    await wait_until(lambda: listener.states[-1:] == [(True, None)])
    await other.close()


async def test_a_login_that_is_refused_is_told_as_that(
    mosquitto: Any, listener: Listener, wait_until: Wait, login: dict[str, Any]
) -> None:
    await mosquitto.start("allow_anonymous false", mosquitto.password_file())
    listener.port, listener.more = mosquitto.port, {**login, "password": "wrong"}
    listener.begin()
    await wait_until(lambda: listener.states == [(False, "GW-MQS-02")])


async def test_a_subscription_that_is_refused_is_told_as_that(
    mosquitto: Any, listener: Listener, wait_until: Wait
) -> None:
    await mosquitto.start(*mosquitto.no_right_to_subscribe())
    listener.port = mosquitto.port
    listener.begin()
    await wait_until(lambda: listener.states == [(False, "GW-MQS-03")])


async def test_a_topic_that_the_broker_refuses_leaves_the_others_heard_and_no_hearing_is_claimed(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait
) -> None:
    await mosquitto.start(*mosquitto.no_right_to_subscribe(but="a/sos"))
    listener.port, listener.more = mosquitto.port, {"topics": ("b/sos", "a/sos")}
    listener.begin()
    await wait_until(lambda: listener.states == [(False, "GW-MQS-03")])
    other = ear.session(mosquitto.port, client_id="other")
    await other.open()
    for payload in (b"1", b"2"):
        other.publish("a/sos", payload)
    await wait_until(lambda: listener.said() == [(b"1", False), (b"2", False)])
    assert listener.states == [(False, "GW-MQS-03")]
    await other.close()


async def test_a_message_that_meets_a_bug_is_counted_and_the_next_is_heard_on_the_same_connection(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait
) -> None:
    await mosquitto.start()
    listener.port = mosquitto.port
    listener.begin()
    await wait_until(lambda: listener.states == [(True, None)])
    other = ear.session(mosquitto.port, client_id="other")
    await other.open()
    for payload in (b"a bug", b"help"):
        other.publish("a/sos", payload)
    await wait_until(lambda: listener.said() == [(b"help", False)])
    assert (listener.source.failed, listener.states) == (1, [(True, None)])
    await other.close()


@pytest.mark.parametrize("size", [300_000, 5 * 1024 * 1024, 40 * 1024 * 1024])
async def test_a_message_that_is_too_long_does_not_deafen_a_link_of_mqtt_3_1_1(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait, size: int
) -> None:
    """MQTT 5 lets us say how long one may be. A broker of 3.1.1 sends it, again and again until it is acknowledged."""
    await mosquitto.start()
    listener.port, listener.more = mosquitto.port, {"version": "3.1.1"}
    listener.begin()
    await wait_until(lambda: listener.states == [(True, None)])
    other = ear.session(mosquitto.port, client_id="other")
    await other.open()
    other.publish("a/sos", bytes(size))
    other.publish("a/sos", b"help")
    await wait_until(lambda: len(listener.heard) == 2)
    assert [len(one.payload) for one in listener.heard] == [256 * 1024 + 1, 4]
    assert listener.states == [(True, None)]
    await other.close()


async def test_over_tls_with_a_password(
    mosquitto: Any, ear: Any, listener: Listener, wait_until: Wait, authority: Any, login: dict[str, Any]
) -> None:
    ca = authority("ca")
    server = ca.pair("server")
    await mosquitto.start(
        f"certfile {server.file}", f"keyfile {server.key_file}", "allow_anonymous false", mosquitto.password_file()
    )
    listener.port, listener.more = mosquitto.port, {**login, "tls": Tls(ca_file=ca.file)}
    listener.begin()
    await wait_until(lambda: listener.states == [(True, None)])
    other = ear.session(mosquitto.port, client_id="other", tls=Tls(ca_file=ca.file), **login)
    await other.open()
    other.publish("a/sos", b"help")
    await wait_until(lambda: listener.said() == [(b"help", False)])
    await other.close()
