"""One connection to a real mosquitto: passwords, rights, TLS, limits, wills, restarts and takeovers, in both versions."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.mqtt_session import Will
from gateway.tls import Tls
from simulator.platform.link import Link

Wait = Callable[..., Any]
both = pytest.mark.parametrize("version", ["5", "3.1.1"])


async def failure(session: Any) -> SessionError:
    with pytest.raises(SessionError) as caught:
        await session.open()
    return caught.value


# Passwords and rights.


@both
async def test_the_right_password_gets_in_and_messages_come_back(
    mosquitto: Any, ear: Any, wait_until: Wait, login: dict[str, Any], version: str
) -> None:
    await mosquitto.start("allow_anonymous false", mosquitto.password_file())
    session = ear.session(mosquitto.port, version=version, **login)
    await session.open()
    await session.subscribe("down/ack")
    mid = session.publish("down/ack", b'{"acks":[]}')
    await wait_until(lambda: ear.messages and ear.pubacks)
    assert (ear.messages, ear.pubacks) == ([("down/ack", b'{"acks":[]}')], [(mid, 0)])
    said = {"5": "(p5,", "3.1.1": "(p2,"}  # mosquitto's own numbers for the versions
    assert said[version] in mosquitto.said
    await session.close()


@both
@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"password": ""}, {"username": "nobody"}, {"username": ""}])
async def test_a_wrong_password_is_a_refused_login(
    mosquitto: Any, ear: Any, login: dict[str, Any], version: str, wrong: dict[str, str]
) -> None:
    await mosquitto.start("allow_anonymous false", mosquitto.password_file())
    error = await failure(ear.session(mosquitto.port, version=version, **{**login, **wrong}))
    assert (error.code, ear.errors) == ("GW-NET-04", [])


@both
async def test_without_the_right_to_subscribe_there_is_a_clear_word(mosquitto: Any, ear: Any, version: str) -> None:
    await mosquitto.start(*mosquitto.no_right_to_subscribe())
    session = ear.session(mosquitto.port, version=version)
    await session.open()
    with pytest.raises(SessionError) as caught:
        await session.subscribe("down/ack")
    assert caught.value.code == "GW-NET-04"
    await session.close()


@pytest.mark.parametrize(("version", "reason"), [("5", 0x87), ("3.1.1", 0)])
async def test_without_the_right_to_publish_only_version_5_says_so(
    mosquitto: Any, ear: Any, wait_until: Wait, login: dict[str, Any], version: str, reason: int
) -> None:
    """In 3.1.1 a PUBACK has no room for a no: there it shows by the application's silence."""
    rights = mosquitto.acl_file("user gw-01", "topic read down/#", "topic write up/alarm")
    await mosquitto.start("allow_anonymous false", mosquitto.password_file(), rights)
    session = ear.session(mosquitto.port, version=version, **login)
    await session.open()
    mids = [session.publish("up/alarm", b"x"), session.publish("up/telemetry", b"x")]
    await wait_until(lambda: len(ear.pubacks) == 2)
    # 0x10 is no failure: nobody has subscribed.
    assert [(mid, code) for mid, code in ear.pubacks if code != 0x10] == (
        [(mids[1], 0x87)] if reason else [(mids[0], 0), (mids[1], 0)]
    )
    await session.close()


# TLS.


@both
async def test_over_tls_with_a_password(
    mosquitto: Any, ear: Any, wait_until: Wait, authority: Any, login: dict[str, Any], version: str
) -> None:
    ca = authority("ca")
    server = ca.pair("server")
    await mosquitto.start(
        f"certfile {server.file}", f"keyfile {server.key_file}", "allow_anonymous false", mosquitto.password_file()
    )
    session = ear.session(mosquitto.port, version=version, tls=Tls(ca_file=ca.file), **login)
    await session.open()
    mids = [session.publish("up/alarm", b"x" * 1000) for _ in range(100)]
    await wait_until(lambda: len(ear.pubacks) == 100)
    assert [mid for mid, _reason in ear.pubacks] == mids
    await session.close()
    error = await failure(ear.session(mosquitto.port, version=version, tls=Tls(ca_file=ca.file), username="x"))
    assert error.code == "GW-NET-04"


@pytest.mark.parametrize("fault", ["name", "authority"])
async def test_where_tls_is_not_what_it_should_be_no_password_is_said(
    mosquitto: Any, ear: Any, wait_until: Wait, authority: Any, login: dict[str, Any], fault: str
) -> None:
    ca = authority("ca")
    server = ca.pair("server", addresses=["192.0.2.7"] if fault == "name" else ["127.0.0.1"])
    await mosquitto.start(f"certfile {server.file}", f"keyfile {server.key_file}")
    trusted = ca if fault == "name" else authority("stranger")
    error = await failure(ear.session(mosquitto.port, tls=Tls(ca_file=trusted.file), **login))
    assert error.code == "GW-NET-03"
    # Depending on how far the handshake came, one line or the other; of a CONNECT there is none.
    await wait_until(lambda: "onnection from 127.0.0.1" in mosquitto.said)
    assert "New client connected" not in mosquitto.said
    assert "gw-01" not in mosquitto.said


async def test_a_listener_of_plain_text_gets_no_password_either(
    mosquitto: Any, ear: Any, authority: Any, login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.mqtt_session.session.TCP_LIMIT_S", 2.0)
    await mosquitto.start()
    error = await failure(ear.session(mosquitto.port, tls=Tls(ca_file=authority("ca").file), **login))
    assert error.code in {"GW-NET-02", "GW-NET-03"}
    assert "gw-01" not in mosquitto.said


@both
async def test_with_our_own_certificate_where_the_broker_asks_for_one(
    mosquitto: Any, ear: Any, wait_until: Wait, authority: Any, version: str
) -> None:
    ca = authority("ca")
    server, mine = ca.pair("server"), ca.pair("gw-01")
    await mosquitto.start(
        f"certfile {server.file}", f"keyfile {server.key_file}", f"cafile {ca.file}", "require_certificate true",
        "use_identity_as_username true", "allow_anonymous false",
    )  # fmt: skip
    tls = Tls(ca_file=ca.file, cert_file=mine.file, key_file=mine.key_file)
    session = ear.session(mosquitto.port, version=version, tls=tls)
    await session.open()
    assert "u'gw-01'" in mosquitto.said
    await session.close()


@pytest.mark.parametrize("tls_version", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize("mine", ["none", "a stranger's"])
async def test_without_the_certificate_that_the_broker_asks_for(
    mosquitto: Any, ear: Any, authority: Any, mine: str, tls_version: str
) -> None:
    """TLS 1.3 refuses it after the handshake: that must not look like a broker that hangs up."""
    ca = authority("ca")
    server = ca.pair("server")
    await mosquitto.start(
        f"certfile {server.file}", f"keyfile {server.key_file}", f"cafile {ca.file}", "require_certificate true",
        f"tls_version {tls_version}",
    )  # fmt: skip
    tls = Tls(ca_file=ca.file)
    if mine != "none":
        pair = authority("stranger").pair("gw-01")
        tls = Tls(ca_file=ca.file, cert_file=pair.file, key_file=pair.key_file)
    error = await failure(ear.session(mosquitto.port, tls=tls))
    assert error.code == "GW-NET-03", error
    assert "New client connected" not in mosquitto.said


# Wills and retained states.


@both
async def test_a_gateway_that_is_killed_leaves_its_will_behind_also_for_who_comes_later(
    mosquitto: Any, ear: Any, wait_until: Wait, version: str
) -> None:
    await mosquitto.start()
    observer = ear.session(mosquitto.port, client_id="observer", version=version)
    await observer.open()
    await observer.subscribe("state")
    script = f"""
import asyncio
from gateway.mqtt_session import Endpoint, MqttSession, Will
async def main():
    session = MqttSession(Endpoint("127.0.0.1", {mosquitto.port}, "gateway"), will=Will("state", b"offline"),
                          on_message=print, on_puback=print, on_lost=print, version="{version}")
    await session.open()
    session.publish("state", b"online", retain=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        await wait_until(lambda: ("state", b"online") in ear.messages)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await wait_until(lambda: ("state", b"offline") in ear.messages)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    later = type(ear)()
    newcomer = later.session(mosquitto.port, client_id="newcomer", version=version)
    await newcomer.open()
    await newcomer.subscribe("state")
    await wait_until(lambda: later.messages)
    assert later.messages == [("state", b"offline")]
    await observer.close()
    await newcomer.close()


@both
async def test_a_line_that_is_cut_publishes_the_will_and_an_orderly_end_does_not(
    mosquitto: Any, ear: Any, wait_until: Wait, version: str
) -> None:
    await mosquitto.start()
    heard = type(ear)()
    observer = heard.session(mosquitto.port, client_id="observer")
    await observer.open()
    await observer.subscribe("#")
    async with Link(mosquitto.port) as link:
        session = ear.session(link.port, version=version, will=Will("state", b"cut"))
        await session.open()
        await link.cut()
        await wait_until(lambda: ear.errors)
        await wait_until(lambda: heard.messages)
    orderly = type(ear)().session(mosquitto.port, version=version, will=Will("state", b"never"))
    await orderly.open()
    orderly.publish("state", b"goodbye", retain=True)
    await orderly.close()
    await wait_until(lambda: len(heard.messages) == 2)
    observer.publish("mark", b"")
    await wait_until(lambda: ("mark", b"") in heard.messages)
    assert [payload for topic, payload in heard.messages if topic == "state"] == [b"cut", b"goodbye"]
    await observer.close()


# Limits of the broker.


async def test_the_limits_that_it_states_are_kept_and_nothing_ends_the_connection(
    mosquitto: Any, ear: Any, wait_until: Wait
) -> None:
    await mosquitto.start("max_inflight_messages 5", "max_packet_size 3000")
    session = ear.session(mosquitto.port)
    await session.open()
    assert (session.receive_maximum, session.maximum_packet) == (5, 3000)
    for _ in range(20):
        sent = len(ear.pubacks)
        for _ in range(5):
            session.publish("up/alarm", b"x" * 2900)
        await wait_until(lambda: len(ear.pubacks) == sent + 5)  # noqa: B023 - awaited within the turn
    assert ear.errors == []
    await session.close()


async def test_in_3_1_1_nothing_is_stated_and_our_own_limits_hold(mosquitto: Any, ear: Any) -> None:
    await mosquitto.start("max_inflight_messages 5")
    session = ear.session(mosquitto.port, version="3.1.1")
    await session.open()
    assert (session.receive_maximum, session.maximum_packet) == (65_535, 256 * 1024)
    await session.close()


@both
async def test_a_message_that_is_longer_than_we_read_ends_the_connection_or_never_comes(
    mosquitto: Any, ear: Any, wait_until: Wait, version: str
) -> None:
    await mosquitto.start()
    session = ear.session(mosquitto.port, version=version)
    await session.open()
    await session.subscribe("down/ack")
    other = type(ear)()
    sender = other.session(mosquitto.port, client_id="sender")
    await sender.open()
    sender.publish("down/ack", b"x" * 1_000_000)
    sender.publish("down/ack", b"short")
    await wait_until(lambda: ear.errors if version == "3.1.1" else ear.messages)
    assert [len(payload) for _topic, payload in ear.messages] == ([] if version == "3.1.1" else [5])
    await session.close()
    await sender.close()


# Restarts and takeovers.


@both
@pytest.mark.parametrize("kill", [False, True])
async def test_a_broker_that_restarts_is_noticed_and_takes_us_again(
    mosquitto: Any, ear: Any, wait_until: Wait, version: str, kill: bool
) -> None:
    await mosquitto.start()
    session = ear.session(mosquitto.port, version=version)
    await session.open()
    await mosquitto.stop(kill=kill)
    await wait_until(lambda: ear.errors)
    assert ear.errors[0].code == "GW-NET-05"
    assert (await failure(ear.session(mosquitto.port, version=version))).code == "GW-NET-02"
    await mosquitto.start()
    again = ear.session(mosquitto.port, version=version)
    await again.open()
    await again.close()
    assert len(ear.errors) == 1


@both
async def test_a_second_client_of_our_id_throws_us_out_once_and_is_left_alone(
    mosquitto: Any, ear: Any, wait_until: Wait, version: str
) -> None:
    """This broker (2.0.11) hangs up without the reason 0x8E: then it is a lost session like any other."""
    await mosquitto.start()
    session = ear.session(mosquitto.port, version=version)
    await session.open()
    theirs = type(ear)()
    other = theirs.session(mosquitto.port, version=version)
    await other.open()
    await wait_until(lambda: ear.errors)
    other.publish("up/alarm", b"x")
    await wait_until(lambda: theirs.pubacks)
    assert ([error.code for error in ear.errors], theirs.errors) in (
        (["GW-NET-05"], []), (["GW-PLT-07"] if version == "5" else [], []),
    )  # fmt: skip
    await other.close()
