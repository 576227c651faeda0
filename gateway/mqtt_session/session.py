"""One MQTT connection and its life, over paho, inside the event loop: MQTT 5, or 3.1.1 where a broker knows nothing newer.

paho re-sends by itself and keeps a queue in memory; neither is a store. So each connection gets a fresh client, the
session is clean unless an `Inbox` is to be kept, nothing is published while disconnected, and every PUBACK is handed to
whoever published. The blocking part (name, TCP, TLS) runs in a thread with a time limit; after that paho works on the
loop's own socket callbacks, without a thread. What 3.1.1 does not say is set here: a refused subscription is a matter of
rights (0x80 is its only refusal), a PUBACK refuses nothing, and our own limit of a message holds for the broker, too.
Limits: CONNECT within `CONNECT_LIMIT_S`, keep-alive 30 s, one message at most 256 KiB; a longer one that comes ends the
connection, and so does what cannot be taken at all. What an `Inbox` gets of a longer one instead is said in `inbox`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.errors import SessionError
from gateway.mqtt_session.blocking import in_thread
from gateway.mqtt_session.endpoint import Endpoint, Version, Will
from gateway.mqtt_session.inbox import KEPT_BYTES, MAX_MESSAGE_BYTES, READ_BYTES, Inbox, delivery_of
from gateway.mqtt_session.refusals import (
    BAD_VERSION,
    LOGIN_REFUSED,
    NOT_AUTHORIZED,
    PROTOCOL_ERROR,
    REFUSED,
    SESSION_TAKEN_OVER,
    TAKEN_OVER,
    NotSpoken,
    Unspoken,
    connect_error,
)
from gateway.tls import judge_again, outdated, tls_context

CONNECT_LIMIT_S: Final = 15.0
TCP_LIMIT_S: Final = 10.0  # for each address that the name has
KEEP_ALIVE_S: Final = 30
CHECK_EVERY_S: Final = 1.0
_TOO_LONG: Final = f"the broker sends a message of more than {MAX_MESSAGE_BYTES} bytes"
_PROTOCOLS: Final = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}

_log = structlog.get_logger("mqtt")


class MqttSession:
    """One connection. `open` once, `publish` while it stands, `close` or be told by `on_lost`; never reused."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        will: Will | None,
        on_message: Callable[[str, bytes], None],
        on_puback: Callable[[int, int], None],
        on_lost: Callable[[SessionError], None],
        version: Version = "5",
        inbox: Inbox | None = None,
    ) -> None:
        """`inbox` takes the messages instead of `on_message`."""
        self._endpoint = endpoint
        self._inbox = inbox
        self._version = version
        self._on_message = on_message
        self._on_puback = on_puback
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[int] = self._loop.create_future()
        self._subacks: dict[int, asyncio.Future[int]] = {}
        self._misc: asyncio.Task[None] | None = None
        self._socket: Any = None
        self._ended = False
        self._heard_at = time.monotonic()
        self._is_open = False
        # paho is reading, and calls us from there: it must not be made to write then. Or it is handed a message.
        self._is_reading = self._is_publishing = self._is_writing = False
        self._tls: ssl.SSLContext | None = None
        self._thread = threading.get_ident()
        self._said = ""
        self.receive_maximum = 65_535  # MQTT 5.0 section 3.2.2.3.3: what a CONNACK without it means
        self.session_present = False  # section 3.2.2.1.1: the broker has kept what came while we were away
        # Section 3.2.2.3.6: no limit but the protocol's own. A broker of 3.1.1 has one and cannot say it.
        self.maximum_packet = 268_435_460 if version == "5" else MAX_MESSAGE_BYTES
        self._client = self._make_client(will)

    def _make_client(self, will: Will | None) -> paho.Client:
        end = self._endpoint
        keeps = self._inbox is not None
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=end.client_id, protocol=_PROTOCOLS[self._version],
            clean_session=not keeps if self._version == "3.1.1" else None, reconnect_on_failure=False, manual_ack=keeps,
        )  # fmt: skip
        client.max_inflight_messages_set(1000)  # the window is the deliverer's; paho must not queue on its own
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        if end.username:
            client.username_pw_set(end.username, end.password or None)
        client._create_socket = self._dial  # type: ignore[method-assign]  # noqa: SLF001 - see there
        client._sock_send = self._send  # type: ignore[assignment,method-assign]  # noqa: SLF001 - see there
        if keeps:
            client._sock_recv = self._receive  # type: ignore[assignment,method-assign]  # noqa: SLF001 - see there
        client.on_connect = self._connected
        client.on_log = self._log
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._lost(f"disconnected: {reason}", reason=reason.value)
        client.on_message = lambda _c, _u, message: self._arrived(message)
        client.on_publish = lambda _c, _u, mid, reason, _p: self._on_puback(mid, reason.value)
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._subscribed(mid, [one.value for one in reasons])
        # Set before connect: CONNECT itself must wait for the loop, not be written by the connecting thread.
        client.on_socket_register_write = self._register_write
        client.on_socket_unregister_write = lambda *_a: self._no_write()
        # Called before paho closes the socket: afterwards the loop could not find it any more.
        client.on_socket_close = lambda *_a: self._unhook()
        return client

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and wait for CONNACK. Raises SessionError with a GW-NET code that names the broken layer."""
        end = self._endpoint
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                tls = end.tls
                if tls is not None:
                    self._tls = await in_thread(lambda: tls_context(tls, host=end.host, port=end.port))
                await in_thread(self._connect_blocking)
                self._attach()
                reason = await self._connack
        except TimeoutError as error:
            await self.close()
            raise SessionError("GW-NET-02", end.host, port=end.port, error="no answer in time") from error
        except Unspoken as error:
            await self.close()
            raise NotSpoken(error.code, end.host, port=end.port, error=str(error)) from error
        except (OSError, ValueError) as error:
            await self.close()
            raise connect_error(error, end) from error
        except (SessionError, asyncio.CancelledError):
            await self.close()
            raise
        if reason >= REFUSED:
            await self.close()
            if reason == BAD_VERSION:
                raise NotSpoken("GW-NET-05", end.host, port=end.port, error=f"the broker refuses MQTT {self._version}")
            code = "GW-NET-04" if reason in LOGIN_REFUSED else "GW-NET-05"
            raise SessionError(code, end.host, port=end.port, error=f"CONNACK reason 0x{reason:02X}")
        if self._ended:
            raise SessionError("GW-NET-05", end.host, port=end.port, error="ended right after CONNACK")
        self._is_open = True

    def _connect_blocking(self) -> None:
        only_in_5: dict[str, Any] = {}  # 3.1.1 begins a clean session by paho's default
        if self._version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own hole
            properties.MaximumPacketSize = MAX_MESSAGE_BYTES
            if self._inbox is not None:
                properties.SessionExpiryInterval = self._inbox.keep_s
                properties.ReceiveMaximum = self._inbox.most
            only_in_5 = {"clean_start": self._inbox is None, "properties": properties}
        self._client.connect_timeout = TCP_LIMIT_S
        end = self._endpoint
        try:
            self._client.connect(end.host, end.port, keepalive=KEEP_ALIVE_S, **only_in_5)
        finally:
            if self._ended:  # we were given up meanwhile
                self._client._sock_close()  # noqa: SLF001 - as in `_detach`

    def _dial(self) -> socket.socket:
        """Connect, and shake hands if it is to be TLS; here, because paho does not close a socket whose handshake fails."""
        end = self._endpoint
        line = socket.create_connection((end.host, end.port), timeout=TCP_LIMIT_S)
        if self._tls is None:
            return line
        try:
            line = self._tls.wrap_socket(line, server_hostname=end.host, do_handshake_on_connect=False)
            line.do_handshake()
        except BaseException:
            line.close()
            raise
        return line

    def _send(self, data: bytes | bytearray) -> int:
        """Give bytes to the socket; where the peer has reset the connection, leave it to the reading side to end it.

        A broker that refuses a certificate, or ends a session with a reason, says so and closes at once. If bytes of ours
        are unread by then, its system resets the connection; paho would close the socket at the first failing write,
        and the reason that lies in it, still to be read, would be lost. What is said to be sent here never was, just
        as bytes are not that the system has taken and the peer has not.
        """
        try:
            return paho.Client._sock_send(self._client, data)  # noqa: SLF001 - what it stands in for
        except (ConnectionError, ssl.SSLEOFError):
            if self._socket is None:
                raise
            return len(data)

    def _receive(self, size: int) -> bytes:
        """Read no more at once than is thrown away at once: paho asks for all that is missing of a message."""
        return paho.Client._sock_recv(self._client, min(size, READ_BYTES))  # noqa: SLF001 - what it stands in for

    def _attach(self) -> None:
        self._socket = self._client.socket()
        if self._socket is None:
            raise OSError("the connection ended at once")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # paho writes a byte to itself with each message, to wake a thread that it does not have here.
        self._client._reset_sockets(sockpair_only=True)  # noqa: SLF001
        self._loop.add_reader(self._socket, self._read)
        self._misc = self._loop.create_task(self._keep_alive(), name="mqtt-keep-alive")
        self._want_write()

    async def close(self) -> None:
        """Say goodbye if the line still stands, and let go of the socket. Never raises, never hangs."""
        if not self._ended and self._socket is not None:
            self._ended = True
            self._client.disconnect()
            self._client.loop_write()
        self._detach()

    def _detach(self) -> None:
        self._ended = True
        if self._misc:
            self._misc.cancel()
        self._unhook()
        # paho closes its socket in this internal call only; without it the descriptor waits for the collector.
        self._client._sock_close()  # noqa: SLF001
        self._client._reset_sockets(sockpair_only=True)  # noqa: SLF001

    def _unhook(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    def _lost(self, why: str, *, reason: int = 0, code: str = "GW-NET-05") -> None:
        if self._ended:
            return
        if self._is_publishing:  # whoever publishes is in the midst of something
            self._loop.call_soon(partial(self._lost, why, reason=reason))
            return
        self._detach()
        # TLS 1.3 refuses a client's certificate after the handshake, with an alert (RFC 8446 section 4.4.2.4).
        refused_by_tls = "[SSL" in self._said and "ALERT" in self._said
        if refused_by_tls:
            why = self._said
        for waiting in self._subacks.values():
            if not waiting.done():
                waiting.set_exception(OSError(why))
        if self._is_open:
            code = {NOT_AUTHORIZED: "GW-NET-04", SESSION_TAKEN_OVER: TAKEN_OVER}.get(reason, code)
            self._on_lost(SessionError(code, self._endpoint.host, error=why))
        elif not self._connack.done():
            self._connack.set_exception(ssl.SSLError(why) if refused_by_tls else self._unspoken(why, reason))

    def _unspoken(self, why: str, reason: int) -> Unspoken:
        if reason == PROTOCOL_ERROR:
            return Unspoken("GW-NET-05", f"the answer to CONNECT is not one of MQTT {self._version}")
        return Unspoken("GW-NET-02", why)

    def _log(self, _client: Any, _data: Any, level: int, text: str) -> None:
        """Keep what paho says of an error: it is the only place where it says what the socket said."""
        if level == paho.MQTT_LOG_ERR:
            self._said = text

    # -- traffic ------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send one QoS 1 message; return the number that its PUBACK will carry. Raises SessionError: the line is gone."""
        if self._ended:
            raise SessionError("GW-NET-05", self._endpoint.host, error="session ended")
        self._is_publishing = not self._is_reading
        try:
            info = self._client.publish(topic, payload, qos=1, retain=retain)
            if info.rc != paho.MQTT_ERR_SUCCESS:
                raise SessionError("GW-NET-05", self._endpoint.host, error=paho.error_string(info.rc))
            if self._is_publishing:  # now, and not after whatever else is to be done in this turn of the loop
                self._client.loop_write()
        finally:
            self._is_publishing = False
        if self._client.want_write():
            self._want_write()
        return info.mid

    @property
    def silent_s(self) -> float:
        """For how long nothing has come from the broker, not even the answer to a keep-alive."""
        return time.monotonic() - self._heard_at

    def acknowledge(self, number: int) -> None:
        """Tell the broker that a message of the inbox is safe. After the end nothing happens: it will come again."""
        if not self._ended:
            self._client.ack(number, 1)

    async def subscribe(self, topic: str, *, limit_s: float = 10.0) -> None:
        """Subscribe with QoS 1 and wait for SUBACK. Raises SessionError: refused, no answer, the line is gone."""
        host = self._endpoint.host
        if self._ended:
            raise SessionError("GW-NET-05", host, error="session ended")
        code, mid = self._client.subscribe(topic, qos=1)
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise SessionError("GW-NET-05", host, error=f"subscribe: {paho.error_string(code)}")
        done = self._subacks[mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(limit_s):
                reason = await done
        except TimeoutError as error:
            raise SessionError("GW-NET-05", host, error="no SUBACK in time") from error
        except OSError as error:
            raise SessionError("GW-NET-05", host, error=str(error)) from error
        finally:
            self._subacks.pop(mid, None)
        if reason >= REFUSED:
            by_rights = reason in LOGIN_REFUSED or self._version == "3.1.1"
            code_of_layer = "GW-NET-04" if by_rights else "GW-NET-05"
            raise SessionError(code_of_layer, host, error=f"SUBACK reason 0x{reason:02X} for {topic}")

    # -- paho on the loop ---------------------------------------------------------------------------------------

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self.session_present = bool(getattr(_flags, "session_present", False))
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.maximum_packet = getattr(properties, "MaximumPacketSize", self.maximum_packet)
        if not self._connack.done():
            self._connack.set_result(reason.value)

    def _arrived(self, message: paho.MQTTMessage) -> None:
        if self._ended:
            return
        if self._inbox is None and len(message.payload) > MAX_MESSAGE_BYTES:  # MQTT 5 forbids the broker to send it
            # Closing inside one of paho's callbacks is a deadlock.
            self._loop.call_soon(self._lost, _TOO_LONG)
        elif self._inbox is None:
            self._on_message(message.topic, bytes(message.payload))
        else:
            self._inbox.on_delivery(delivery_of(message))

    def _subscribed(self, mid: int, reasons: list[int]) -> None:
        done = self._subacks.get(mid)
        if done and not done.done():
            done.set_result(max(reasons, default=0))

    def _read(self) -> None:
        if self._socket is None:
            return  # it ended between a turn for what TLS held and this one
        self._heard_at = time.monotonic()
        # Brokers leave Nagle's algorithm on: their next message would wait for our delayed TCP ACK, 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._is_reading = True
        try:
            code = self._client.loop_read()
        except Exception as error:  # noqa: BLE001 - paho would read the same packet again in each turn of the loop, and no other
            bug = None if isinstance(error, struct.error | UnicodeError) else error
            _log.error(
                "what the broker sent cannot be taken", host=self._endpoint.host, error=repr(error), exc_info=bug
            )
            self._lost(f"what the broker sent cannot be taken: {error!r}"[:200])
            return
        finally:
            self._is_reading = False
        if code != paho.MQTT_ERR_SUCCESS:
            self._lost("connection lost")
        elif self._is_too_long():
            self._lost(_TOO_LONG)
        else:
            if self._client.want_write():  # what paho answers goes now, and not with the next turn of the loop
                self._write()
                if self._client.want_write():
                    self._want_write()
            if self._socket is not None and getattr(self._socket, "pending", lambda: 0)():
                self._loop.call_soon(self._read)  # TLS holds bytes that the selector cannot see

    def _is_too_long(self) -> bool:
        """Is a message that is half here longer than may be? For an inbox no length is: what is too much is let go."""
        half = self._client._in_packet  # noqa: SLF001 - paho has no limit of its own
        if self._inbox is None:
            return bool(half["remaining_length"] > MAX_MESSAGE_BYTES)
        del half["packet"][KEPT_BYTES:]
        return False

    def _want_write(self) -> None:
        if self._socket is not None and not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._socket, self._write)

    def _write(self) -> None:
        if self._client.loop_write() != paho.MQTT_ERR_SUCCESS:
            self._lost("connection lost")

    def _register_write(self, *_paho: Any) -> None:
        if self._is_publishing or self._is_reading:
            return
        if threading.get_ident() == self._thread:
            self._want_write()
        else:
            self._loop.call_soon_threadsafe(self._want_write)

    def _no_write(self) -> None:
        if self._socket is not None and self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._socket)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self._is_refused_now():
                return
            if self._client.loop_misc() != paho.MQTT_ERR_SUCCESS:
                self._lost("keep-alive: the broker is silent")
                return

    def _is_refused_now(self) -> bool:
        """Judge the broker's certificate again, once, when NTP has come to stand by a clock that nobody stood by before."""
        tls, context, line = self._endpoint.tls, self._tls, self._socket
        if tls is None or context is None or not isinstance(line, ssl.SSLSocket) or not outdated(context, tls):
            return False
        if tls.moment() is not None:
            return False  # the other way round: this connection was judged by a clock that was right
        self._tls = None
        try:
            judge_again(line)
        except ssl.SSLCertVerificationError as error:
            self._lost(error.verify_message, code="GW-NET-03")
            return True
        return False
