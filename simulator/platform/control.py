"""Remote control of a running platform: a Unix socket, one JSON object a line.

`{"op": "cut"}` is answered `{"ok": true, "result": {"t": wall-clock seconds when it had taken effect, ...}}`, a mistake
with `{"ok": false, "error": {"code", "message"}}`. The socket appears when the platform is ready to be connected to.
Everything but `stats` takes `way`: the number of the one way in that is meant, from 1; without it all are that have the op.

  cut · heal                         the line: reset and refuse everything; as new (also ends stall and delay)
  stall · unstall {"where"?}         "link" (default): no byte passes; "application": it receives and is silent
  delay {"ms"}                       the line: each byte so much later, both ways
  refuse {"retry_after_ms"?}         retry to everything
  refuse_some {"p", "seed"?, "retry_after_ms"?}     retry to an event with chance p
  reject {"types"?, "ids"?, "code"?} rejected to these; types are patterns over "alarm.raised"
  accept                             ends refuse, refuse_some and reject
  forget {"p"?, "seconds"?, "seed"?} whole messages: neither stored nor answered; ended by remember
  poison {"n"?}                      the next n events of telemetry are never accepted; over HTTP 400 to their whole batch
  mute {"p"?, "seed"?}               decided and stored, but the answer is lost; p 0 ends it
  slow {"ms"} · double_acks {"on"?}  so long for each message; each answer twice
  stats
Over MQTT:
  restart-broker
Over TLS:
  certificate {"folder"}             server.pem and server.key of a folder, for every connection that is new
Over HTTP (see answers; "on": any of alarm, event, batch, birth, state, time):
  answer {"how", "n"?, "on"?, "decided"?, "retry_after"?, "location"?}   a status or a word: the next n answers, or all
  limit {"bytes"}                    413 to a longer body; 0 ends it
  answer_well                        ends answer and limit

Limits: a request of 64 KiB, 16 clients at once, 30 s for an op.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from simulator.platform.district import District, Way

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_CLIENTS: Final = 16
OP_LIMIT_S: Final = 30.0
_MAX_PATH: Final = 106  # sun_path, unix(7), less the character of the name beside


class ControlError(Exception):
    """The control socket cannot be opened: names the path and the reason."""


Operation = Callable[..., Awaitable[Mapping[str, Any] | None] | Mapping[str, Any] | None]


def operations(platform: District) -> dict[str, Operation]:
    """Return what can be asked of a platform, by name."""
    of_way = {way.number: _operations_of(way) for way in platform.ways}
    names = dict.fromkeys(name for ops in of_way.values() for name in ops)
    return {"stats": platform.stats, **{name: _chosen(name, of_way) for name in names}}


def _chosen(name: str, of_way: Mapping[int, Mapping[str, Operation]]) -> Operation:
    """Return what does one operation on the way that is named, or on all that have it."""

    async def perform(*, way: object = None, **arguments: object) -> None:
        if way is not None and (not isinstance(way, int) or isinstance(way, bool) or way not in of_way):
            raise ValueError(f"way = {way!r}: one of {', '.join(map(str, of_way))}")
        if way is not None and name not in of_way[way]:
            raise ValueError(f"way {way} has no such operation")
        for number, ops in of_way.items():
            if name in ops and way in {None, number}:
                done = ops[name](**arguments)
                if isinstance(done, Awaitable):
                    await done

    return perform


def _operations_of(way: Way) -> dict[str, Operation]:
    conduct, link = way.conduct, way.link

    def stall(where: str = "link") -> None:
        _part(where, link=link.stall, application=conduct.stall)()

    def unstall(where: str = "link") -> None:
        _part(where, link=link.unstall, application=conduct.unstall)()

    def double_acks(on: Any = True) -> None:  # noqa: FBT002 - called by the name that the request gives
        conduct.double_acks(on=bool(on))

    def certificate(folder: str) -> None:
        if way.tls is None:
            raise ValueError("this way in has no certificate")
        way.tls.load_cert_chain(Path(folder) / "server.pem", Path(folder) / "server.key")

    return {
        **({"certificate": certificate} if way.tls is not None else {}),
        "cut": link.cut,
        "heal": link.heal,
        "stall": stall,
        "unstall": unstall,
        "delay": link.delay,
        "refuse": conduct.refuse,
        "refuse_some": conduct.refuse_some,
        "reject": conduct.reject,
        "accept": conduct.accept,
        "forget": conduct.forget,
        "remember": conduct.remember,
        "poison": conduct.poison,
        "mute": conduct.mute,
        "slow": conduct.slow,
        "double_acks": double_acks,
        **way.front.operations(),
    }


@asynccontextmanager
async def control_socket(platform: District, path: Path) -> AsyncIterator[None]:
    """Answer requests on `path` while entered. Raises ControlError; a dead socket file is replaced."""
    _make_room(path)
    ops = operations(platform)
    clients: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(clients) >= MAX_CLIENTS:
            writer.close()
            return
        clients.add(task)
        try:
            await _serve(reader, writer, ops)
        except OSError:
            pass  # the client is gone
        finally:
            clients.discard(task)
            writer.close()

    try:
        # Moved to its place when it listens: a file that is there can be used.
        beside = path.with_name(f"{path.name}~")
        server = await asyncio.start_unix_server(serve, beside, limit=MAX_REQUEST_BYTES)
        beside.chmod(0o600)
        beside.replace(path)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        server.close()
        for client in list(clients):
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one quick call at the end


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ops: Mapping[str, Operation]) -> None:
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            answer = _error("too-long", f"a request may have {MAX_REQUEST_BYTES} bytes")
            writer.write(answer)
            return
        if not line:
            return
        writer.write(await _perform(line, ops))
        async with asyncio.timeout(OP_LIMIT_S):
            await writer.drain()


async def _perform(line: bytes, ops: Mapping[str, Operation]) -> bytes:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _error("not-json", str(error))
    if not isinstance(request, dict) or not isinstance(name := request.pop("op", None), str):
        return _error("no-op", 'a request is an object with "op"')
    operation = ops.get(name)
    if operation is None:
        return _error("unknown-op", f"{name!r}: there are {', '.join(sorted(ops))}")
    try:
        result = partial(operation, **request)()
        if isinstance(result, Awaitable):
            async with asyncio.timeout(OP_LIMIT_S):
                result = await result
    except (TypeError, ValueError) as error:
        return _error("bad-argument", f"{name}: {error}")
    except TimeoutError:
        return _error("too-slow", f"{name}: not done after {OP_LIMIT_S:g} s")
    except Exception as error:  # noqa: BLE001 - told to whoever asked; the platform itself notices a dead part
        return _error("failed", f"{name}: {error!r}")
    return json.dumps({"ok": True, "result": {"t": time.time(), **(result or {})}}).encode() + b"\n"


def _error(code: str, message: str) -> bytes:
    return json.dumps({"ok": False, "error": {"code": code, "message": message}}).encode() + b"\n"


def _part(where: str, **parts: Callable[[], None]) -> Callable[[], None]:
    if where not in parts:
        raise ValueError(f"where = {where!r}: one of {', '.join(parts)}")
    return parts[where]


def _make_room(path: Path) -> None:
    if len(str(path).encode()) > _MAX_PATH:
        raise ControlError(f"{path}: a socket's path may have {_MAX_PATH} bytes")
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        with contextlib.suppress(OSError):
            probe.connect(str(path))
            raise ControlError(f"{path}: another platform answers there")
    if not path.is_socket():
        raise ControlError(f"{path}: is there already, and is no socket")
    path.unlink()
