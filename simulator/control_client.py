"""Asks the gateway over its control socket: the only words of the gateway that the audit takes.

One connection a request. Limits: an answer is at most 4 MiB and must come within 3 s unless told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Final

MAX_ANSWER: Final = 4 * 1024 * 1024
TIMEOUT_S: Final = 3.0


class NoAnswer(Exception):
    """Nobody answers on the socket, or not in time, or not in the agreed form."""


class Refused(Exception):
    """The gateway refuses the request. `code` is its own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


async def ask(socket: Path, op: str, *, timeout_s: float = TIMEOUT_S, **arguments: object) -> Any:
    """Send one request and return its result. Raises NoAnswer or Refused."""
    request = json.dumps({"op": op, **arguments}, ensure_ascii=False).encode() + b"\n"
    try:
        async with asyncio.timeout(timeout_s):
            line = await _exchange(socket, request)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError, an overlong line a ValueError
        raise NoAnswer(f"{socket}: {str(error) or type(error).__name__}") from error
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return answer["result"]
        raise Refused(str(answer["error"]["code"]), str(answer["error"]["message"]))
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswer(f"{socket}: answered {line[:80]!r}") from error


async def _exchange(socket: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MAX_ANSWER)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
