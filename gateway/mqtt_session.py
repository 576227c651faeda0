"""One MQTT connection and its life, over paho, inside the event loop.

paho re-sends by itself and keeps a queue in memory; neither is a store. So each connection gets a fresh client, the
session is clean, nothing is published while disconnected, and every PUBACK is handed to whoever published. The blocking
part (name, TCP, TLS) runs in a thread with a time limit; after that paho works on the loop's own socket callbacks,
without a thread. Limits: CONNECT within `CONNECT_LIMIT_S`, keep-alive 30 s, one message at most 256 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.errors import SessionError
from gateway.tls import Tls, tls_context

CONNECT_LIMIT_S: Final = 15.0
TCP_LIMIT_S: Final = 10.0  # for each address that the name has
KEEP_ALIVE_S: Final = 30
MAX_MESSAGE_BYTES: Final = 256 * 1024
_LOGIN_REFUSED: Final = {0x84, 0x85, 0x86, 0x87, 0x8C}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a platform's broker is, and what is needed to get in. `tls` is None for plain text (loopback only)."""

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the gateway vanishes."""

    topic: str
    payload: bytes


class MqttSession:
    """One connection. `open` once, `publish` while it stands, `close` or be told by `on_lost`; never reused."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        will: Will,
        on_message: Callable[[str, bytes], None],
        on_puback: Callable[[int, int], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._on_puback = on_puback
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[int] = self._loop.create_future()
        self._subacks: dict[int, asyncio.Future[int]] = {}
        self._misc: asyncio.Task[None] | None = None
        self._socket: Any = None
        self._ended = False
        self._is_open = False
        self._tls: ssl.SSLContext | None = None
        self._thread = threading.get_ident()
        self.receive_maximum = 65_535  # MQTT 5.0 section 3.2.2.3.3: what a CONNACK without it means
        self.maximum_packet = 268_435_460  # section 3.2.2.3.6: no limit but the protocol's own
        self._client = self._make_client(will)

    def _make_client(self, will: Will) -> paho.Client:
        end = self._endpoint
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=end.client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.max_inflight_messages_set(1000)  # the window is the deliverer's; paho must not queue on its own
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        if end.username:
            client.username_pw_set(end.username, end.password or None)
        client._create_socket = self._dial  # type: ignore[method-assign]  # noqa: SLF001 - see there
        client.on_connect = self._connected
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._lost(f"disconnected: {reason}")
        client.on_message = lambda _c, _u, message: self._on_message(message.topic, bytes(message.payload))
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
                    self._tls = await self._in_thread(lambda: tls_context(tls, host=end.host, port=end.port))
                await self._in_thread(self._connect_blocking)
                self._attach()
                reason = await self._connack
        except TimeoutError as error:
            await self.close()
            raise SessionError("GW-NET-02", end.host, port=end.port, error="no answer in time") from error
        except (OSError, ValueError) as error:
            await self.close()
            raise _connect_error(error, end) from error
        except (SessionError, asyncio.CancelledError):
            await self.close()
            raise
        if reason >= 0x80:  # MQTT 5.0 section 2.4: reason codes from 0x80 are failures
            await self.close()
            code = "GW-NET-04" if reason in _LOGIN_REFUSED else "GW-NET-05"
            raise SessionError(code, end.host, port=end.port, error=f"CONNACK reason 0x{reason:02X}")
        if self._ended:
            raise SessionError("GW-NET-05", end.host, port=end.port, error="ended right after CONNACK")
        self._is_open = True

    def _connect_blocking(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own hole
        properties.MaximumPacketSize = MAX_MESSAGE_BYTES
        self._client.connect_timeout = TCP_LIMIT_S
        end = self._endpoint
        try:
            self._client.connect(end.host, end.port, keepalive=KEEP_ALIVE_S, clean_start=True, properties=properties)
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

    def _attach(self) -> None:
        self._socket = self._client.socket()
        if self._socket is None:
            raise OSError("the connection ended at once")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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

    def _lost(self, why: str) -> None:
        if self._ended:
            return
        self._detach()
        for waiting in self._subacks.values():
            if not waiting.done():
                waiting.set_exception(OSError(why))
        if self._is_open:
            self._on_lost(why)
        elif not self._connack.done():
            self._connack.set_exception(OSError(why))

    # -- traffic ------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send one QoS 1 message; return the number that its PUBACK will carry. Raises SessionError: the line is gone."""
        if self._ended:
            raise SessionError("GW-NET-05", self._endpoint.host, error="session ended")
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise SessionError("GW-NET-05", self._endpoint.host, error=paho.error_string(info.rc))
        return info.mid

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
        if reason >= 0x80:
            code_of_layer = "GW-NET-04" if reason in _LOGIN_REFUSED else "GW-NET-05"
            raise SessionError(code_of_layer, host, error=f"SUBACK reason 0x{reason:02X} for {topic}")

    # -- paho on the loop ---------------------------------------------------------------------------------------

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.maximum_packet = getattr(properties, "MaximumPacketSize", self.maximum_packet)
        if not self._connack.done():
            self._connack.set_result(reason.value)

    def _subscribed(self, mid: int, reasons: list[int]) -> None:
        done = self._subacks.get(mid)
        if done and not done.done():
            done.set_result(max(reasons, default=0))

    def _read(self) -> None:
        if self._socket is None:
            return  # it ended between a turn for what TLS held and this one
        # Brokers leave Nagle's algorithm on: their next message would wait for our delayed TCP ACK, 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self._client.loop_read() != paho.MQTT_ERR_SUCCESS:
            self._lost("connection lost")
        elif self._socket is not None and getattr(self._socket, "pending", lambda: 0)():
            self._loop.call_soon(self._read)  # TLS holds bytes that the selector cannot see

    def _want_write(self) -> None:
        if self._socket is not None:
            self._loop.add_writer(self._socket, self._write)

    def _write(self) -> None:
        if self._client.loop_write() != paho.MQTT_ERR_SUCCESS:
            self._lost("connection lost")

    def _register_write(self, *_paho: Any) -> None:
        if threading.get_ident() == self._thread:
            self._want_write()
        else:
            self._loop.call_soon_threadsafe(self._want_write)

    def _no_write(self) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._client.loop_misc() != paho.MQTT_ERR_SUCCESS:
                self._lost("keep-alive: the broker is silent")
                return

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Run blocking work in a daemon thread: a hanging name server must not hold up the end of the process."""
        done: asyncio.Future[Any] = self._loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as failed:  # noqa: BLE001 - handed over whole
                error = failed
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=run, name="mqtt-connect", daemon=True).start()
        return await done


def _connect_error(error: OSError | ValueError, end: Endpoint) -> SessionError:
    if isinstance(error, socket.gaierror | UnicodeError):  # UnicodeError: a name that IDNA does not know
        code = "GW-NET-01"
    elif isinstance(error, ssl.SSLError | ssl.CertificateError):
        code = "GW-NET-03"
    else:
        code = "GW-NET-02"
    return SessionError(code, end.host, port=end.port, error=str(error) or type(error).__name__)
