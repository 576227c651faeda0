"""The way in over HTTP: births, states and events as requests, one answer each.

  PUT  /v1/gateways/{gw}/birth   application/json                   204; as JSON, with `source` and `epoch`
  PUT  /v1/gateways/{gw}/state   application/json                   204; {"online", "epoch", "source"}
  POST /v1/events                application/cloudevents+json       200 {"results": [...]}; one event, telemetry never
  POST /v1/events:batch          application/cloudevents-batch+json 200 {"results": [...]}; telemetry, alarms never
  GET  /v1/time                                                     200 {"time"}

A message that is wrong as a whole is answered 400, 413 or 415, and its events stand as rejected in the ledger; one that is
not allowed 401, and stands nowhere. There is no will: a gateway of which nothing has been heard for 150 s (it says every
60 s that it is there) counts as offline. A client that has left does not undo what it has sent: that is decided all the
same, and its answer counted as unanswered. Each request waits by itself: a slow one holds no other up.
Limits: those of the server; 10,000 gateways in the roster.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from simulator.platform.answers import Answers, Fault
from simulator.platform.application import Entrance, Message
from simulator.platform.contract import Address, noun_of, read_message, sender_of
from simulator.platform.http_server import BodyTooBig, Exchange, Gone, Headers, HttpServer

JSON: Final = "application/json"
_TYPES: Final = {
    "birth": JSON,
    "state": JSON,
    "event": "application/cloudevents+json",
    "batch": "application/cloudevents-batch+json",
}
_PATHS: Final = {"/v1/events": ("POST", "event"), "/v1/events:batch": ("POST", "batch"), "/v1/time": ("GET", "time")}
_GATEWAY: Final = re.compile(r"/v1/gateways/([a-z0-9-]{1,64})/(birth|state)")
_STATUS_OF: Final = {"bad-content-type": 415, "too-big": 413, "batch-too-big": 413}
_PAGE: Final = b"<!DOCTYPE html><html><title>Log in</title><form action=/login><input name=user></form></html>"
_TORN: Final = b'{"results":[{"id":"0190a5c0-'
_STRANGER: Final = "0190a5c0-ffff-7fff-bfff-ffffffffffff"
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class _Request:
    """A request, read. `kind` is one of answers.KINDS; `message` stands for events, `content` for anything else."""

    kind: str
    gateway: str = ""
    body: bytes = b""
    content: object = None
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: Mapping[str, object] | None = None
    headers: Headers = ()

    @property
    def body(self) -> bytes:
        return b"" if self.content is None else _encode(self.content).encode()


class HttpFront:
    """An HTTP server of our own before the application. Entered: the port is known; `run` serves."""

    def __init__(self, entrance: Entrance, *, authorization: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.answers = Answers()
        self._entrance = entrance
        self._conduct = entrance.conduct
        self._authorization = authorization
        self._server = HttpServer(self._handle, tls=tls)
        self._waiting = 0
        self._unanswered = 0
        self._mixed = 0
        self._requests: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        entrance.accounts.append(self.stats)

    async def __aenter__(self) -> Self:
        """Take a port."""
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Give the port back."""
        await self._server.__aexit__(*exc)

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the ledger cannot be written."""
        await self._server.run()

    @property
    def ready(self) -> asyncio.Event:
        """Set while requests are answered."""
        return self._server.ready

    @property
    def port(self) -> int:
        """The server's own port, behind the line."""
        return self._server.port

    def operations(self) -> Mapping[str, Callable[..., None]]:
        """Return what can be asked of this front alone."""
        return {"answer": self.answers.answer, "answer_well": self.answers.well, "limit": self.answers.limit}

    def stats(self) -> dict[str, Any]:
        """Return what was counted here, as JSON values. `mixed`: connections that carried alarms and other events."""
        return {
            "waiting": self._waiting,
            "unanswered": self._unanswered,
            "connected": self.ready.is_set(),
            "http": {
                "port": self.port,
                "requests": dict(self._requests),
                "statuses": {str(status): n for status, n in sorted(self._statuses.items())},
                "refused": dict(self._refused),
                "mixed": self._mixed,
                "answers": self.answers.stats(),
            },
        }

    # -- one request ----------------------------------------------------------------------------------------------

    async def _handle(self, exchange: Exchange) -> None:
        route = _route(exchange.path)
        if route is None:
            await self._reply(exchange, self._refuse(404, "no-such-path"))
            return
        method, kind, gateway = route
        if exchange.method != method:
            await self._reply(exchange, self._refuse(405, "wrong-method", ("allow", method)))
            return
        try:
            request = _read(kind, gateway, await exchange.body(), content_type=exchange.header("content-type"))
        except Gone:
            return
        except BodyTooBig:
            await self._reply(exchange, self._refuse(413, "too-big", ("connection", "close")))
            return
        except TimeoutError:
            await self._reply(exchange, self._refuse(408, "too-slow", ("connection", "close")))
            return
        self._requests[request.kind] += 1
        self._waiting += 1
        try:
            if self._conduct.slow_s:
                await asyncio.sleep(self._conduct.slow_s)
            await self._conduct.released.wait()
        finally:
            self._waiting -= 1
        await self._serve(exchange, request)

    async def _serve(self, exchange: Exchange, request: _Request) -> None:
        if self._conduct.forgets():
            if request.message is not None:
                self._entrance.forget(request.message)
            await self._keep_silent(exchange)
            return
        fault = self.answers.take(request.kind)
        undecided = fault is not None and not fault.decided
        answer = _Answer(200, {"results": []}) if undecided else self._ordinary(exchange, request)
        if self._conduct.mutes():
            await self._keep_silent(exchange)
        elif fault is None or answer.status == 401:
            await self._reply(exchange, answer)
        else:
            await self._reply_badly(exchange, fault, answer)

    def _ordinary(self, exchange: Exchange, request: _Request) -> _Answer:
        if self._authorization and exchange.header("authorization") != self._authorization:
            scheme = self._authorization.partition(" ")[0]
            return self._refuse(401, "unauthorized", ("www-authenticate", scheme))
        if 0 < self.answers.limit_bytes < len(request.body):
            return self._refuse(413, "over-the-limit")
        if request.message is not None:
            self._watch(exchange.connection.carried, request.kind)
        return self._decide(request)

    def _watch(self, carried: set[str], kind: str) -> None:
        """Alarms have their connections to themselves: behind a batch they would have to wait."""
        before = _is_mixed(carried)
        carried.add(kind)
        self._mixed += _is_mixed(carried) and not before

    # -- decisions --------------------------------------------------------------------------------------------------

    def _decide(self, request: _Request) -> _Answer:
        if request.kind == "time":
            moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            return _Answer(200, {"time": moment})
        if request.message is None:
            return self._state_or_birth(request)
        message = request.message
        poisoned = message.defect is None and self._entrance.is_poisoned(message)
        if poisoned and len(message.events) > 1:
            return self._refuse(400, "poisoned")
        acks = self._entrance.decide(message)
        if message.address.gateway:
            self._entrance.roster.heard(message.address)
        if message.defect is not None:
            return self._refuse(_STATUS_OF.get(message.defect, 400), message.defect)
        if poisoned:
            return self._refuse(400, "poisoned")
        return _Answer(200, {"results": acks * 2 if self._conduct.doubling else acks})

    def _state_or_birth(self, request: _Request) -> _Answer:
        content, roster = request.content, self._entrance.roster
        if content is None:
            return self._refuse(415, "bad-content-type")
        sender = sender_of(content.get("source"), request.kind) if isinstance(content, dict) else None
        if sender is None or sender.gateway != request.gateway:
            return self._refuse(400, "bad-source")
        roster.heard(sender)
        if not (roster.state if request.kind == "state" else roster.birth)(sender, content):
            return self._refuse(400, f"bad-{request.kind}")
        return _Answer(204)

    def _refuse(self, status: int, code: str, *headers: tuple[str, str]) -> _Answer:
        self._refused[code] += 1
        return _Answer(status, {"error": {"code": code}}, headers)

    # -- answers ----------------------------------------------------------------------------------------------------

    async def _reply(self, exchange: Exchange, answer: _Answer) -> None:
        self._unanswered += exchange.gone
        self._statuses[answer.status] += 1
        typed = () if answer.content is None else (("content-type", JSON),)
        await exchange.reply(answer.status, answer.body, headers=(*typed, *answer.headers))

    async def _keep_silent(self, exchange: Exchange) -> None:
        self._unanswered += 1
        await exchange.silence()

    async def _reply_badly(self, exchange: Exchange, fault: Fault, answer: _Answer) -> None:
        match fault.how:
            case int(status):
                headers = [("retry-after", fault.retry_after)] if fault.retry_after else []
                headers += [("connection", "close")] if status == 408 else []  # RFC 9110 section 15.5.9
                await self._reply(exchange, _Answer(status, None if status < 400 else {"error": "as told"}, headers))
            case "silent":
                await self._keep_silent(exchange)
            case "close":
                self._unanswered += 1
                await exchange.close()
            case "half":
                self._unanswered += 1
                await exchange.half(200, answer.body + b" " * 64, headers=[("content-type", JSON)])
            case "redirect":
                await self._reply(exchange, _Answer(307, None, [("location", fault.location)]))
            case "bare":
                await self._reply(exchange, _Answer(200))
            case "business":
                await self._reply(exchange, _Answer(200, {"code": 50013, "message": "系统繁忙", "data": None}))
            case "garbage" | "page":
                self._statuses[200] += 1
                body, kind = (_TORN, JSON) if fault.how == "garbage" else (_PAGE, "text/html")
                await exchange.reply(200, body, headers=[("content-type", kind)])
            case word:
                results = (answer.content or {}).get("results")
                told = _told(results if isinstance(results, list) else [], partial=word == "partial")
                await self._reply(exchange, _Answer(200, {"results": told}))


def _is_mixed(carried: set[str]) -> bool:
    return "alarm" in carried and len(carried) > 1


def _told(results: list[Any], *, partial: bool) -> list[Any]:
    return results[: len(results) // 2] if partial else [{"id": _STRANGER, "status": "accepted"}]


def _route(path: str) -> tuple[str, str, str] | None:
    """Return method, kind and gateway for a path; None when there is nothing."""
    if path in _PATHS:
        return (*_PATHS[path], "")
    match = _GATEWAY.fullmatch(path)
    return ("PUT", match[2], match[1]) if match else None


def _read(kind: str, gateway: str, body: bytes, *, content_type: str) -> _Request:
    fits = content_type.partition(";")[0].strip().lower() == _TYPES.get(kind, "")
    if kind in {"birth", "state"}:
        return _Request(kind, gateway, body, _decoded(body) if fits else None)
    if kind == "time":
        return _Request(kind)
    events, defect = read_message(body, batch=kind == "batch")
    nouns = [noun_of(event.get("type")) if isinstance(event, dict) else "" for event in events]
    if kind == "event" and nouns[0].startswith("alarm."):
        kind = "alarm"
    lane = "telemetry" if kind == "batch" else kind
    # One message is of one gateway: who names another than the first is refused as on a topic that is not its own.
    senders = (sender_of(event.get("source"), lane) for event in events if isinstance(event, dict))
    address = next((sender for sender in senders if sender is not None), Address("", "", "", lane))
    return _Request(kind, "", body, None, Message(address, events, defect if fits else "bad-content-type"))


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return False
