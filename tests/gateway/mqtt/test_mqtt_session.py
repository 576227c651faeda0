"""One MQTT connection: over a real broker where a broker will do, over told bytes where it must misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.mqtt_session import Will
from gateway.mqtt_session import session as mqtt_session
from gateway.tls import Moment, Tls
from simulator.platform.broker import Broker
from simulator.platform.link import Link

Wait = Callable[..., Any]


async def failure(session: Any) -> SessionError:
    with pytest.raises(SessionError) as caught:
        await session.open()
    return caught.value


# With a real broker.


async def test_a_message_goes_out_and_comes_back(broker: Broker, ear: Any, wait_until: Wait) -> None:
    session = ear.session(broker.port)
    await session.open()
    await session.subscribe("down/#")
    session.publish("down/ack", b'{"acks":[]}')
    await wait_until(lambda: ear.messages)
    assert ear.messages == [("down/ack", b'{"acks":[]}')]
    await session.close()


async def test_each_puback_carries_the_number_that_publish_returned(broker: Broker, ear: Any, wait_until: Wait) -> None:
    session = ear.session(broker.port)
    await session.open()
    mids = [session.publish("up/alarm", b"x" * n) for n in range(50)]
    await wait_until(lambda: len(ear.pubacks) == 50)
    assert [mid for mid, _reason in ear.pubacks] == mids
    assert len(set(mids)) == 50
    assert all(reason < 0x80 for _mid, reason in ear.pubacks)
    await session.close()


async def test_a_broker_that_dies_is_noticed_once_and_nothing_is_published_afterwards(
    broker: Broker, ear: Any, wait_until: Wait, count_sockets: Callable[[], int]
) -> None:
    before = count_sockets()
    session = ear.session(broker.port)
    await session.open()
    await broker.stop()
    await wait_until(lambda: ear.losses)
    with pytest.raises(SessionError) as caught:
        session.publish("up/alarm", b"x")
    assert (caught.value.code, len(ear.losses)) == ("GW-NET-05", 1)
    assert count_sockets() == before
    await session.close()
    assert len(ear.losses) == 1


async def test_the_will_is_published_when_the_gateway_vanishes(broker: Broker, ear: Any, wait_until: Wait) -> None:
    other = type(ear)()
    async with Link(broker.port) as link:
        observer = other.session(broker.port, client_id="observer")
        await observer.open()
        await observer.subscribe("state")
        session = ear.session(link.port, will=Will("state", b'{"online":false,"epoch":7}'))
        await session.open()
        await link.cut()
        await wait_until(lambda: other.messages)
        assert other.messages == [("state", b'{"online":false,"epoch":7}')]
        await wait_until(lambda: ear.losses)
        await observer.close()


async def test_an_orderly_end_publishes_no_will_and_lets_go_of_its_socket(
    broker: Broker, ear: Any, wait_until: Wait, count_sockets: Callable[[], int]
) -> None:
    other = type(ear)()
    observer = other.session(broker.port, client_id="observer")
    await observer.open()
    await observer.subscribe("#")
    before = count_sockets()
    session = ear.session(broker.port)
    await session.open()
    session.publish("last", b"words")
    await session.close()
    await session.close()
    assert (count_sockets(), ear.losses) == (before, [])
    await wait_until(lambda: other.messages)
    observer.publish("mark", b"")
    await wait_until(lambda: len(other.messages) >= 2)
    assert [topic for topic, _payload in other.messages] == ["last", "mark"]
    await observer.close()


async def test_a_line_that_falls_silent_is_given_up(
    broker: Broker, ear: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_session, "KEEP_ALIVE_S", 1)
    async with Link(broker.port) as link:
        session = ear.session(link.port)
        await session.open()
        link.stall()
        await wait_until(lambda: ear.losses)
        assert len(ear.losses) == 1
        await session.close()


# Connecting in vain.


async def test_a_port_that_nobody_holds(ear: Any, broker: Broker, count_sockets: Callable[[], int]) -> None:
    port = broker.port
    await broker.stop()
    before = count_sockets()
    error = await failure(ear.session(port))
    assert (error.code, error.facts["port"], "refused" in error.facts["error"]) == ("GW-NET-02", port, True)
    assert (count_sockets(), ear.losses) == (before, [])


@pytest.mark.parametrize("host", ["no-such-platform.invalid", "two..dots", "x" * 64 + ".invalid"])
async def test_a_name_that_does_not_exist(ear: Any, host: str) -> None:
    error = await failure(ear.session(1883, host=host))
    assert (error.code, error.subject) == ("GW-NET-01", host)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (0x85, "GW-NET-04"),  # client identifier not valid
        (0x86, "GW-NET-04"),  # bad user name or password
        (0x87, "GW-NET-04"),  # not authorized
        (0x88, "GW-NET-05"),  # server unavailable
        (0x97, "GW-NET-05"),  # quota exceeded
    ],
)
async def test_a_broker_that_refuses(
    told: Any, packets: Any, ear: Any, count_sockets: Callable[[], int], reason: int, code: str
) -> None:
    told.connack = packets.connack(reason)
    error = await failure(ear.session(told.port))
    assert (error.code, error.facts["error"]) == (code, f"CONNACK reason 0x{reason:02X}")
    assert ear.losses == []


async def test_a_broker_that_never_answers(told: Any, ear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_session, "CONNECT_LIMIT_S", 0.1)
    told.connack = b""
    error = await failure(ear.session(told.port))
    assert (error.code, error.facts["error"]) == ("GW-NET-02", "no answer in time")


async def test_a_port_that_takes_no_connection(
    deaf_port: int, ear: Any, wait_until: Wait, count_sockets: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_session, "TCP_LIMIT_S", 0.2)
    before = count_sockets()
    error = await failure(ear.session(deaf_port))
    assert error.code == "GW-NET-02"
    await wait_until(lambda: count_sockets() == before)


@pytest.mark.parametrize("answer", [b"\x20", b"\xff" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x05"])
async def test_a_server_that_speaks_something_else(
    told: Any, ear: Any, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_session, "CONNECT_LIMIT_S", 0.5)
    told.connack = answer
    error = await failure(ear.session(told.port))
    assert error.code in {"GW-NET-02", "GW-NET-04", "GW-NET-05"}
    assert ear.losses == []


async def test_a_server_that_hangs_up_at_once(told: Any, ear: Any) -> None:
    told.connack = b""
    told.then = lambda _kind, writer: writer.close()
    assert (await failure(ear.session(told.port))).code == "GW-NET-02"


@pytest.mark.parametrize("moment", ["tcp", "connack"])
async def test_given_up_half_way_it_leaves_no_socket_behind(
    told: Any, deaf_port: int, ear: Any, wait_until: Wait, count_sockets: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch, moment: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(mqtt_session, "TCP_LIMIT_S", 0.3)
    told.connack = b""
    before = count_sockets()
    opening = asyncio.create_task(ear.session(deaf_port if moment == "tcp" else told.port).open())
    if moment == "tcp":
        await wait_until(lambda: count_sockets() > before)
    else:
        await wait_until(lambda: told.packets)
        before += 1  # the server's own end, until it sees ours go
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await wait_until(lambda: count_sockets() <= before)
    assert ear.losses == []


# What the broker says of itself.


async def test_the_limits_of_the_broker_are_taken_over(told: Any, packets: Any, ear: Any) -> None:
    # MQTT 5.0 section 3.2.2.3: 0x21 Receive Maximum 10, 0x27 Maximum Packet Size 65,536.
    told.connack = packets.connack(0, bytes.fromhex("21000a2700010000"))
    session = ear.session(told.port)
    assert (session.receive_maximum, session.maximum_packet) == (65_535, 268_435_460)
    await session.open()
    assert (session.receive_maximum, session.maximum_packet) == (10, 65_536)
    await session.close()


@pytest.mark.parametrize(("reason", "code"), [(0x87, "GW-NET-04"), (0x80, "GW-NET-05"), (0x8F, "GW-NET-05")])
async def test_a_subscription_that_is_refused(told: Any, ear: Any, reason: int, code: str) -> None:
    told.subscribe_reason = reason
    session = ear.session(told.port)
    await session.open()
    with pytest.raises(SessionError) as caught:
        await session.subscribe("down/ack")
    assert (caught.value.code, f"0x{reason:02X}" in caught.value.facts["error"]) == (code, True)
    await session.close()


async def test_a_subscription_that_is_never_answered(told: Any, ear: Any) -> None:
    told.subscribe_reason = None
    session = ear.session(told.port)
    await session.open()
    with pytest.raises(SessionError, match="no SUBACK in time"):
        await session.subscribe("down/ack", limit_s=0.05)
    await session.close()


async def test_a_line_that_breaks_while_subscribing_is_told_at_once(told: Any, ear: Any) -> None:
    told.subscribe_reason = None
    told.then = lambda kind, writer: writer.close() if kind >> 4 == 8 else None
    session = ear.session(told.port)
    await session.open()
    async with asyncio.timeout(30):
        with pytest.raises(SessionError) as caught:
            await session.subscribe("down/ack", limit_s=60)
    assert (caught.value.code, len(ear.losses)) == ("GW-NET-05", 1)


async def test_a_publication_that_is_refused_is_told_with_its_reason(told: Any, ear: Any, wait_until: Wait) -> None:
    told.publish_reason = 0x97
    session = ear.session(told.port)
    await session.open()
    mid = session.publish("up/alarm", b"x")
    await wait_until(lambda: ear.pubacks)
    assert ear.pubacks == [(mid, 0x97)]
    await session.close()


async def test_why_the_broker_hangs_up_is_told(told: Any, ear: Any, wait_until: Wait) -> None:
    session = ear.session(told.port)
    await session.open()
    told.writers[0].write(b"\xe0\x02\x8b\x00")  # DISCONNECT, 0x8B: server shutting down
    await wait_until(lambda: ear.losses)
    assert ear.losses == ["disconnected: Server shutting down"]


@pytest.mark.parametrize(("reason", "code"), [(0x8E, "GW-PLT-07"), (0x87, "GW-NET-04"), (0x8D, "GW-NET-05")])
async def test_a_takeover_and_a_right_withdrawn_have_codes_of_their_own(
    told: Any, ear: Any, wait_until: Wait, reason: int, code: str
) -> None:
    session = ear.session(told.port)
    await session.open()
    told.writers[0].write(bytes((0xE0, 2, reason, 0)))  # MQTT 5.0 section 3.14.2.1
    await wait_until(lambda: ear.errors)
    assert ear.errors[0].code == code


async def test_closing_does_not_wait_for_a_server_that_reads_no_more(told: Any, ear: Any) -> None:
    session = ear.session(told.port)
    await session.open()
    told.then = lambda _kind, writer: writer.transport.pause_reading()
    for _ in range(20):
        session.publish("up/telemetry", b"x" * 1_000_000)
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await session.close()


async def test_credentials_are_sent(told: Any, ear: Any) -> None:
    session = ear.session(told.port, username="gw-01", password="s3cret")
    await session.open()
    kind, body = told.packets[0]
    assert (kind, body[:7]) == (0x10, b"\x00\x04MQTT\x05")
    # User name, password, will retained with QoS 1, will, clean start (section 3.1.2.3).
    assert body[7] == 0b1110_1110
    assert body.endswith(b"\x00\x05gw-01\x00\x06s3cret")
    await session.close()


# TLS.


async def test_over_tls_with_the_right_authority(secure: Any, ear: Any, wait_until: Wait) -> None:
    server, mine = secure
    session = ear.session(server.port, tls=Tls(ca_file=mine.file))
    await session.open()
    mids = [session.publish("up/alarm", json.dumps({"n": n}).encode()) for n in range(200)]
    await wait_until(lambda: len(ear.pubacks) == 200)
    assert [mid for mid, _reason in ear.pubacks] == mids
    await session.close()
    await wait_until(lambda: 14 in server.kinds())


async def test_an_authority_that_is_not_ours(secure: Any, ear: Any, certificate: Callable[..., Any]) -> None:
    server, _mine = secure
    error = await failure(ear.session(server.port, tls=Tls(ca_file=certificate("stranger").file)))
    assert error.code == "GW-NET-03"


async def test_a_certificate_for_another_host(told: Any, ear: Any, certificate: Callable[..., Any]) -> None:
    other = certificate("elsewhere", host="192.0.2.1")
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0, ssl=other.server_context())
    port = server.sockets[0].getsockname()[1]
    error = await failure(ear.session(port, tls=Tls(ca_file=other.file)))
    assert error.code == "GW-NET-03"
    server.close()


@pytest.mark.parametrize("days", [(-1, 1), (-3, -1)], ids=["valid", "expired"])
async def test_a_connection_that_was_judged_by_a_clock_that_nobody_set_is_judged_again_when_the_clock_is_right(
    told: Any, ear: Any, certificate: Callable[..., Any], wait_until: Wait, monkeypatch: pytest.MonkeyPatch,
    days: tuple[int, int],
) -> None:  # fmt: skip
    monkeypatch.setattr(mqtt_session, "CHECK_EVERY_S", 0.01)
    mine = certificate("platform", days=days)
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0, ssl=mine.server_context())
    known: list[Moment] = [Moment(0.0, is_sure=False)]
    tls = Tls(ca_file=mine.file, moment=lambda: known[0] if known else None)
    session = ear.session(server.sockets[0].getsockname()[1], tls=tls)
    await session.open()
    known.clear()
    await wait_until(lambda: session._tls is None)
    if days == (-1, 1):
        session.publish("up/alarm", b"x")
        await wait_until(lambda: ear.pubacks)
        assert ear.errors == []
    else:
        await wait_until(lambda: ear.errors)
        assert ear.errors[0].code == "GW-NET-03"
        assert ear.losses[0].startswith("certificate has expired on")
    await session.close()
    server.close()


async def test_a_server_without_tls(told: Any, ear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told.then = lambda _kind, writer: writer.close()
    monkeypatch.setattr(mqtt_session, "TCP_LIMIT_S", 0.3)
    error = await failure(ear.session(told.port, tls=Tls()))
    assert error.code in {"GW-NET-02", "GW-NET-03"}


@pytest.mark.parametrize("missing", ["ca_file", "cert_file"])
async def test_a_certificate_file_that_is_missing_is_not_a_platform_that_is_away(
    told: Any, ear: Any, tmp_path: Path, missing: str
) -> None:
    files = {missing: tmp_path / "missing.pem"}
    error = await failure(ear.session(told.port, tls=Tls(**files)))
    assert (error.code, "missing" in error.facts["error"] or "No such file" in error.facts["error"]) == (
        "GW-NET-03",
        True,
    )
    assert told.packets == []


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x32\x01\x00", id="a PUBLISH without a topic"),
        pytest.param(b"\x32\x05\x00\x40ab\x01", id="a topic that is cut off"),
        pytest.param(b"\x30\x05\x00\x01\xff\x00x", id="a topic that is no text"),
        pytest.param(b"\x90\x01\x00", id="a SUBACK without a number"),
    ],
)
async def test_what_cannot_be_read_at_all_ends_the_connection_and_is_not_read_again_and_again(
    told: Any, ear: Any, wait_until: Wait, sent: bytes
) -> None:
    session = ear.session(told.port)
    await session.open()
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    told.writers[-1].write(sent)
    await wait_until(lambda: ear.losses or said)
    assert (len(ear.losses), said) == (1, [])
    await session.close()
