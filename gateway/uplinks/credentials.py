"""What a login needs, read anew for each session and never by the event loop: a renewed secret is picked up, a disk that
hangs holds up nobody. Limit: `READ_LIMIT_S` for reading, unless the caller has another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from gateway.errors import GatewayError, SessionError

READ_LIMIT_S: Final = 10.0
_T = TypeVar("_T")


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
