"""A broker that says why it ends, and resets the connection because bytes of ours were unread: the reason is told.

The order that this is about is rare: the reset comes between the selector's look and our writing. Here it is made.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.mqtt_session import MqttSession
from gateway.tls import Tls

Serve = Callable[[socket.socket], None]


@pytest.fixture
def resetting() -> Iterator[Callable[[Serve], int]]:
    """Serve one connection in a thread and reset it at the end. Return the port."""
    threads = []

    def begin(serve: Serve) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(10)

        def run() -> None:
            with listening:
                line, _ = listening.accept()
            with line:
                line.settimeout(10)
                serve(line)
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # tcp(7): close resets

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return int(listening.getsockname()[1])

    yield begin
    for one in threads:
        one.join(20)
        assert not one.is_alive()


def wait_for_reset(line: socket.socket) -> None:
    """Hold everything up until the reset is here, and with it all that was said before."""
    watch = select.poll()
    watch.register(line, 0)  # only POLLERR and POLLHUP
    assert watch.poll(10_000)


async def test_a_certificate_that_is_refused_after_the_handshake_is_told_though_connect_finds_a_reset(
    resetting: Callable[[Serve], int], ear: Any, certificate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = certificate("platform")
    context = theirs.server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    refusals = []

    def serve(line: socket.socket) -> None:
        with pytest.raises(ssl.SSLError) as refused:
            context.wrap_socket(line.dup(), server_side=True)
        refusals.append(refused.value.reason)

    attach = MqttSession._attach

    def late(session: MqttSession) -> None:
        wait_for_reset(session._client.socket())  # type: ignore[arg-type]  # paho's type for a WebSocket, too
        attach(session)
        session._write()

    monkeypatch.setattr(MqttSession, "_attach", late)
    with pytest.raises(SessionError) as caught:
        await ear.session(resetting(serve), tls=Tls(ca_file=theirs.file)).open()
    assert (caught.value.code, refusals) == ("GW-NET-03", ["PEER_DID_NOT_RETURN_A_CERTIFICATE"])
    assert "ALERT_CERTIFICATE_REQUIRED" in caught.value.facts["error"].replace(" ", "_").upper()


@pytest.mark.parametrize(("reason", "code"), [(0x8E, "GW-PLT-07"), (0x87, "GW-NET-04")])
async def test_the_reason_of_an_end_is_told_though_a_publication_finds_a_reset(
    resetting: Callable[[Serve], int], ear: Any, packets: Any, wait_until: Callable[..., Any], reason: int, code: str
) -> None:
    """Who does not know that another has taken its id over would come back, and throw that one out in turn."""
    is_open = threading.Event()

    def serve(line: socket.socket) -> None:
        assert line.recv(1000)[0] == 0x10
        line.sendall(packets.connack())
        assert is_open.wait(10)
        line.sendall(bytes((0xE0, 2, reason, 0)))  # DISCONNECT, MQTT 5.0 section 3.14.2.1

    session = ear.session(resetting(serve))
    await session.open()
    is_open.set()
    wait_for_reset(session._socket)
    session.publish("up/alarm", b"x")
    session._write()
    await wait_until(lambda: ear.errors)
    assert [error.code for error in ear.errors] == [code]
    with pytest.raises(SessionError):
        session.publish("up/alarm", b"x")


async def test_a_reset_without_a_word_ends_the_session(
    resetting: Callable[[Serve], int], ear: Any, packets: Any, wait_until: Callable[..., Any]
) -> None:
    is_open = threading.Event()

    def serve(line: socket.socket) -> None:
        assert line.recv(1000)[0] == 0x10
        line.sendall(packets.connack())
        assert is_open.wait(10)

    session = ear.session(resetting(serve))
    await session.open()
    is_open.set()
    wait_for_reset(session._socket)
    session.publish("up/alarm", b"x")
    session._write()
    await wait_until(lambda: ear.errors)
    assert [error.code for error in ear.errors] == ["GW-NET-05"]
