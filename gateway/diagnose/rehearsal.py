"""`--full`: logs in to a platform by itself, publishes one test event, and waits until the application accepts it.

With a client id of its own ("-diagnose" behind the gateway's): the same id would eject the daemon. It announces neither
birth nor state, and leaves no will: what the platform knows of the gateway stays as it is. The event is `test.completed`
with `test: true`, has no number of the stream (`stored: false`), and goes the way of alarms' acknowledgements. Limits:
`LOGIN_S`, `CONFIRM_S` for the transport, `ACCEPT_S` for the application.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.config import DestinationPath, Settings
from gateway.errors import SecretError, SessionError
from gateway.events import Origin, Sending, Stored, new_event, sending_text
from gateway.mqtt_session import Endpoint, MqttSession, NotSpoken, Version
from gateway.tls import Tls, tls_context
from gateway.uplinks import AckStatus
from gateway.uplinks.mqtt import parse_acks

LOGIN_S: Final = 10.0
CONFIRM_S: Final = 5.0
ACCEPT_S: Final = 10.0
LIMIT_S: Final = LOGIN_S + CONFIRM_S + ACCEPT_S
REFUSED: Final = "GW-NET-12"
UNANSWERED: Final = "GW-NET-13"
_MQTT_FAILURE: Final = 0x80  # MQTT 5.0 section 2.4
_NO_SUBSCRIBER: Final = 0x10  # section 3.4.2.1: where delivery is all, it is none
_TAKEN: Final = (AckStatus.ACCEPTED, AckStatus.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How far the test event came: `reached` counts login, publish, accepted. `code` is the problem beyond it."""

    reached: int
    code: str = ""
    detail: str = ""
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Event:
    id: str
    text: str


def rehearse(settings: Settings, path: DestinationPath, destination: str, *, finish: str) -> Rehearsal:
    """Log in, publish, wait. Blocks up to `LIMIT_S`. Never raises for what a network or a platform does."""
    gateway = settings.gateway
    origin = Origin(gateway.org, gateway.site, gateway.id, tuple(gateway.org_path))
    event = _event(origin, destination)
    began = time.monotonic()
    try:
        if path.transport == "http":
            done = _over_http(path, event, finish)
        else:
            done = asyncio.run(_over_mqtt(path, origin, event, finish))
    except SessionError as error:
        return Rehearsal(0, error.code, str(error.facts.get("error") or ""))
    except SecretError as error:
        return Rehearsal(0, error.code, str(error.facts.get("reason") or ""))
    return Rehearsal(done.reached, done.code, done.detail, round(1000 * (time.monotonic() - began), 1))


def _event(origin: Origin, destination: str) -> _Event:
    at = SystemClock().stamp()
    event = new_event("test.completed", origin, device=origin.gateway, at=at, data={"test": True, "kind": "diagnose"})
    row = Stored(0, event.lane, event.id, event.noun, event.device, at.wall_ms, at, {}, event.body)
    # A stream of its own: it must leave no gap in that of the gateway.
    how = Sending(destination, event.id, 0, 1, buffered=False)
    return _Event(event.id, sending_text(row, how))


def _tls(path: DestinationPath) -> Tls | None:
    return Tls(path.ca_file, path.cert_file, path.key_file) if path.tls else None


# -- MQTT --------------------------------------------------------------------------------------------------------


async def _over_mqtt(path: DestinationPath, origin: Origin, event: _Event, finish: str) -> Rehearsal:
    versions: tuple[Version, ...] = ("5", "3.1.1") if path.mqtt_version == "auto" else (path.mqtt_version,)
    for version in versions[:-1]:
        try:
            return await _in_session(path, origin, event, finish, version=version)
        except NotSpoken:
            continue
    return await _in_session(path, origin, event, finish, version=versions[-1])


async def _in_session(
    path: DestinationPath, origin: Origin, event: _Event, finish: str, *, version: Version
) -> Rehearsal:
    loop = asyncio.get_running_loop()
    confirmed: asyncio.Future[int] = loop.create_future()
    answered: asyncio.Future[tuple[AckStatus, str]] = loop.create_future()

    def on_message(_topic: str, payload: bytes) -> None:
        for ack in parse_acks(payload)[0]:
            if ack.id == event.id and not answered.done():
                answered.set_result((ack.status, ack.code))

    def on_lost(why: SessionError) -> None:
        for waiting in (confirmed, answered):
            if not waiting.done():
                waiting.set_exception(why)

    client_id = f"{origin.org}-{origin.site}-{origin.gateway}-diagnose"
    password = path.password.text() if path.password else ""
    session = MqttSession(
        Endpoint(path.host, path.port, client_id, path.username, password, _tls(path)),
        will=None, on_message=on_message, on_lost=on_lost, version=version,
        on_puback=lambda _mid, reason: None if confirmed.done() else confirmed.set_result(reason),
    )  # fmt: skip
    root = f"eldercare/v1/{origin.org}/{origin.site}/{origin.gateway}"
    try:
        async with asyncio.timeout(LOGIN_S):
            await session.open()
            await session.subscribe(f"{root}/down/ack", limit_s=CONFIRM_S)
    except TimeoutError:
        await session.close()
        raise SessionError("GW-NET-05", path.host, error=f"no login within {LOGIN_S:g} s") from None
    try:
        session.publish(f"{root}/up/event", event.text.encode())
        return await _followed(confirmed, answered, finish)
    except SessionError as error:
        return Rehearsal(1, REFUSED, str(error.facts.get("error") or ""))
    finally:
        for waiting in (confirmed, answered):
            waiting.cancel()
        await session.close()


async def _followed(
    confirmed: asyncio.Future[int], answered: asyncio.Future[tuple[AckStatus, str]], finish: str
) -> Rehearsal:
    try:
        async with asyncio.timeout(CONFIRM_S):
            reason = await confirmed
    except TimeoutError:
        return Rehearsal(1, REFUSED, f"no PUBACK within {CONFIRM_S:g} s")
    if reason >= _MQTT_FAILURE or (finish == "L1" and reason == _NO_SUBSCRIBER):
        return Rehearsal(1, REFUSED, f"PUBACK reason 0x{reason:02X}")
    if finish == "L1":
        return Rehearsal(3)
    try:
        async with asyncio.timeout(ACCEPT_S):
            status, code = await answered
    except TimeoutError:
        return Rehearsal(2, UNANSWERED, f"no down/ack within {ACCEPT_S:g} s")
    return _judged(status, code)


def _judged(status: AckStatus, code: str) -> Rehearsal:
    return Rehearsal(3) if status in _TAKEN else Rehearsal(2, UNANSWERED, f"{status.value} {code}".strip())


# -- HTTP --------------------------------------------------------------------------------------------------------


def _over_http(path: DestinationPath, event: _Event, finish: str) -> Rehearsal:
    headers = {"Content-Type": "application/cloudevents+json"}
    if path.token is not None:
        headers["Authorization"] = f"Bearer {path.token.text()}"
    elif path.username:
        pair = f"{path.username}:{path.password.text() if path.password else ''}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
    tls = _tls(path)
    connection = (
        http.client.HTTPConnection(path.host, path.port, timeout=LOGIN_S)
        if tls is None
        else http.client.HTTPSConnection(
            path.host, path.port, timeout=LOGIN_S, context=tls_context(tls, host=path.host, port=path.port)
        )
    )
    try:
        connection.request("POST", f"{path.base}/v1/events", event.text.encode(), headers)
        if connection.sock is not None:
            connection.sock.settimeout(ACCEPT_S)
        try:
            answer = connection.getresponse()
            body = answer.read(65_536)
        except TimeoutError:
            return Rehearsal(1, UNANSWERED, f"no answer within {ACCEPT_S:g} s")
    except (OSError, http.client.HTTPException) as error:
        return Rehearsal(0, "GW-NET-05", str(error) or type(error).__name__)
    finally:
        connection.close()
    return _judged_status(answer.status, body, event, finish)


def _judged_status(status: int, body: bytes, event: _Event, finish: str) -> Rehearsal:
    if status in (401, 403):
        return Rehearsal(0, "GW-NET-04", f"HTTP {status}")
    if not 200 <= status < 300:
        return Rehearsal(1, REFUSED, f"HTTP {status}")
    result = _result(body, event.id)
    if result is None:
        return Rehearsal(3) if finish == "L1" else Rehearsal(2, UNANSWERED, f"HTTP {status}, no result")
    try:
        return _judged(AckStatus(str(result.get("status"))), str(result.get("code") or "")[:80])
    except ValueError:
        return Rehearsal(2, UNANSWERED, "status?")


def _result(body: bytes, event_id: str) -> Mapping[str, Any] | None:
    try:
        results = json.loads(body)["results"]
        return next((one for one in results if isinstance(one, dict) and one.get("id") == event_id), None)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
