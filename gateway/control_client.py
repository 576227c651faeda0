"""The asking side of the control socket: one JSON object a line to the daemon, one back.

Limits: 3 s to connect, 10 s for an answer, 1 MiB a line. While listening, silence is no error; the end of the stream is.
Whatever goes wrong is a ControlError with a code that tells the technician what to do.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.errors import ControlError

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 10.0
MAX_LINE_BYTES: Final = 1024 * 1024
_CHUNK_BYTES: Final = 65_536
# While listening: how often the end of the time is looked at.
_SLICE_S: Final = 0.5
# Words of a ControlError itself, which facts from the wire must not stand for.
_OURS: Final = frozenset({"self", "code", "subject", "refused", "message"})

NOT_RUNNING: Final = "GW-CTL-01"
NOT_PERMITTED: Final = "GW-CTL-02"
REFUSED: Final = "GW-CTL-03"
NO_ANSWER: Final = "GW-CTL-05"


def ask(path: Path, op: str, *, limit_s: float | None = None, **arguments: object) -> Any:
    """Ask the daemon at `path` one thing and return its result. Raises ControlError."""
    limit_s = ANSWER_TIMEOUT_S if limit_s is None else limit_s
    with _connected(path) as connection:
        lines = _Lines(connection)
        _send(connection, {"op": op, **arguments})
        line = lines.next(time.monotonic() + limit_s)
    if line is None:
        raise ControlError(NO_ANSWER, detail=f"{limit_s:g} s")
    return _result(_object(line))


def listen(
    path: Path, *, raw: bool, seconds: float | None = None, pairing: Sequence[int] = ()
) -> Iterator[dict[str, Any]]:
    """Yield what the daemon hears, for so many seconds or until the caller stops. Raises ControlError.

    `pairing`: service and company ids; strangers that use one are shown with their whole address.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    with _connected(path) as connection:
        lines = _Lines(connection)
        _send(connection, {"op": "listen", "raw": raw, "pairing": [*pairing]})
        while deadline is None or time.monotonic() < deadline:
            until = time.monotonic() + _SLICE_S
            line = lines.next(until if deadline is None else min(until, deadline))
            if line is None:
                continue
            heard = _object(line)
            if "ok" not in heard:
                yield heard
            elif isinstance(result := _result(heard), dict):
                yield result


class _Lines:
    """Cuts what a socket brings into lines."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = bytearray()

    def next(self, deadline: float) -> bytes | None:
        """Return the next whole line, or None when the monotonic `deadline` has passed."""
        while True:
            end = self._held.find(b"\n")
            if end >= 0:
                line = bytes(self._held[:end])
                del self._held[: end + 1]
                return line
            if len(self._held) > MAX_LINE_BYTES:
                raise ControlError(NO_ANSWER, detail=f"> {MAX_LINE_BYTES} B")
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._connection.settimeout(left)
            try:
                chunk = self._connection.recv(_CHUNK_BYTES)
            except TimeoutError:
                return None
            except OSError as error:
                raise ControlError(NO_ANSWER, detail=error.strerror or str(error)) from None
            if not chunk:
                raise ControlError(NO_ANSWER, detail="EOF")
            self._held += chunk


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except PermissionError:
        failure = ControlError(NOT_PERMITTED, path=str(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        failure = ControlError(NOT_RUNNING, path=str(path))
    except TimeoutError:
        failure = ControlError(NO_ANSWER, detail=f"{CONNECT_TIMEOUT_S:g} s")
    except BlockingIOError:  # what Linux says at once when nobody takes connections from a full queue
        failure = ControlError(NO_ANSWER, detail="EAGAIN")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        failure = ControlError(NO_ANSWER, detail=str(error))
    else:
        return connection
    connection.close()
    raise failure


def _send(connection: socket.socket, request: dict[str, object]) -> None:
    try:
        connection.sendall(json.dumps(request, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    except TimeoutError:
        raise ControlError(NO_ANSWER, detail=f"{CONNECT_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise ControlError(NO_ANSWER, detail=error.strerror or str(error)) from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ControlError(NO_ANSWER, detail="JSON?")
    return answer


def _result(answer: dict[str, Any]) -> Any:
    if answer.get("ok") is True:
        return answer.get("result")
    refusal = answer.get("error")
    if answer.get("ok") is not False or not isinstance(refusal, dict):
        raise ControlError(NO_ANSWER, detail="ok?")
    code = str(refusal.get("code") or REFUSED)
    facts = refusal.get("facts")
    if not isinstance(facts, dict):  # an older daemon sends its own words only
        raise ControlError(code, refused=True, message=str(refusal.get("message") or ""))
    told = {str(name): value for name, value in facts.items() if name not in _OURS}
    raise ControlError(code, str(refusal.get("subject") or ""), refused=True, **told)
