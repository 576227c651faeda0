"""What a login needs, read anew for each session and never by the event loop: a renewed secret is picked up, a disk that
hangs holds up nobody, and one that fails takes no login away that worked: the last that was read goes on.
Limit: `READ_LIMIT_S` for reading, unless the caller has another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

import structlog

from gateway.errors import GatewayError, SessionError

READ_LIMIT_S: Final = 10.0
_T = TypeVar("_T")
_log = structlog.get_logger("uplink")


class Credential:
    """What one path logs in with. `read` returns it and may block; it is asked anew for each session."""

    def __init__(self, read: Callable[[], str], *, destination: str) -> None:
        self._read = read
        self._destination = destination
        self._last: str | None = None
        self._trouble = ""

    async def text(self, *, host: str, port: int, limit_s: float = READ_LIMIT_S) -> str:
        """Return it, or the last that was read where it cannot be had now: that is logged once.

        Raises SessionError GW-NET-04 where none was read in this process: no login without it.
        """
        try:
            self._last = await secret_text(self._read, host=host, port=port, limit_s=limit_s)
        except SessionError as refusal:
            if self._last is None:
                raise
            if not self._trouble:
                _log.error("a credential cannot be read anew, the last one is used", destination=self._destination,
                           host=host, error=refusal.facts["error"])  # fmt: skip
            self._trouble = str(refusal.facts["error"])
        else:
            self._trouble = ""
        return self._last

    def explained(self, refusal: SessionError) -> SessionError:
        """Return why there is no session; a login that was refused with a credential read earlier names what hinders reading."""
        if not self._trouble or refusal.code != "GW-NET-04":
            return refusal
        error = f"{refusal.facts.get('error', '')}; logged in with what was read earlier: {self._trouble}"
        return SessionError(refusal.code, refusal.subject, **{**refusal.facts, "error": error})


async def secret_text(read: Callable[[], str], *, host: str, port: int, limit_s: float = READ_LIMIT_S) -> str:
    """Return what `read` does. Raises SessionError GW-NET-04 where it cannot be had: no login without it."""
    try:
        async with asyncio.timeout(limit_s):
            return await in_thread(read)
    except SessionError:
        raise
    except GatewayError as refusal:
        told = " ".join(str(part) for part in (refusal.code, refusal.facts.get("path", refusal.subject)) if part)
        raise SessionError("GW-NET-04", host, port=port, error=told) from refusal
    except TimeoutError as error:
        raise SessionError("GW-NET-04", host, port=port, error="credentials cannot be read in time") from error


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a daemon thread: a disk or name server that hangs must not hold up the end of the process."""
    result: Future[_T] = Future()

    def run() -> None:
        result.set_running_or_notify_cancel()  # from here on it cannot be cancelled, only left alone
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed over whole
            result.set_exception(error)

    threading.Thread(target=run, name="uplink-prepare", daemon=True).start()
    return await asyncio.wrap_future(result)
