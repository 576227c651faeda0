"""The application's connection to its own broker: paho on the event loop, without a thread.

A fresh client each time, clean session: what was not answered when the line broke stays unanswered, and the gateway
sends it again. Limits: 5 s to connect and subscribe, keep-alive 20 s, 10,000 answers on their way (more are refused).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

CONNECT_LIMIT_S: Final = 5.0
KEEP_ALIVE_S: Final = 20
MAX_ON_THE_WAY: Final = 10_000
_READS_A_TURN: Final = 20
_clients = itertools.count(1)


class SessionLost(Exception):
    """The broker is not there, refuses, or is silent."""


class Session:
    """One connection: `open` once, `publish` until `lost` is set, then `close`."""

    def __init__(self, host: str, port: int, *, client_id: str, on_message: Callable[[str, bytes], None]) -> None:
        self._host = host
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[Any] = self._loop.create_future()
        self._suback: asyncio.Future[list[Any]] = self._loop.create_future()
        self._misc: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{client_id}-{os.getpid()}-{next(_clients)}",  # never the same twice: see the broker's fault
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_LIMIT_S
        client.max_inflight_messages_set(MAX_ON_THE_WAY)
        client.max_queued_messages_set(MAX_ON_THE_WAY)
        client.on_connect = lambda _c, _u, _f, reason, _p: self._settle(self._connack, reason)
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._settle(self._suback, reasons)
        client.on_disconnect = lambda *_a: self._gone()
        client.on_message = lambda _c, _u, message: on_message(message.topic, bytes(message.payload))
        client.on_socket_open = self._opened
        client.on_socket_close = self._closed
        client.on_socket_register_write = lambda _c, _u, sock: self._loop.add_writer(sock, client.loop_write)
        client.on_socket_unregister_write = self._written
        self._client = client

    async def open(self, filters: list[str]) -> None:
        """Connect and subscribe with QoS 1. Raises SessionLost."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                # It blocks, but on loopback: the kernel accepts or refuses at once.
                self._client.connect(self._host, self._port, keepalive=KEEP_ALIVE_S, clean_start=True)
                reason = await self._connack
                if reason is None or reason.is_failure:
                    raise SessionLost(f"the broker refuses: {reason}")
                self._client.subscribe([(name, 1) for name in filters])
                reasons = await self._suback
                if not reasons or any(reason.is_failure for reason in reasons):
                    raise SessionLost(f"the broker refuses a subscription: {reasons}")
        except (OSError, TimeoutError) as error:
            raise SessionLost(f"{self._host}:{self._port}: {str(error) or 'no answer in time'}") from error
        self._misc = asyncio.create_task(self._keep_alive(), name="application-keep-alive")

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send one message with QoS 1. False: the line is gone, or too much is on its way."""
        return not self.lost.is_set() and self._client.publish(topic, payload, qos=1).rc == paho.MQTT_ERR_SUCCESS

    async def close(self) -> None:
        """Say goodbye when the line stands, and let go of it. Never raises."""
        if self._misc is not None:
            self._misc.cancel()
            await asyncio.gather(self._misc, return_exceptions=True)
        if not self.lost.is_set() and self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()
        self.lost.set()
        for future in (self._connack, self._suback):
            future.cancel()
        self._client._reset_sockets()  # noqa: SLF001 - paho closes its descriptors in no public call

    def _gone(self) -> None:
        self.lost.set()
        self._settle(self._connack, None)
        self._settle(self._suback, [])

    def _settle(self, future: asyncio.Future[Any], result: Any) -> None:
        if not future.done():
            future.set_result(result)

    def _opened(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock, self._read)

    def _closed(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _written(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _read(self) -> None:
        sock: Any = self._client.socket()
        if sock is not None:  # the broker leaves Nagle's algorithm on: see link.py
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        # paho reads one packet a call; a turn of the loop costs more than the packet.
        for _ in range(_READS_A_TURN):
            if self.lost.is_set() or self._client.loop_read() != paho.MQTT_ERR_SUCCESS:
                return

    async def _keep_alive(self) -> None:
        while self._client.loop_misc() == paho.MQTT_ERR_SUCCESS:
            await asyncio.sleep(1.0)
        self.lost.set()
