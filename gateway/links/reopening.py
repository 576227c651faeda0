"""When a serial line that was lost is opened again: with full-jitter back-off; a device path that appears is tried at once.

Limits: back-off `RETRY_MIN_S` to `RETRY_CAP_S`; the device path is looked at every `WATCH_S` meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from gateway.links import ports

RETRY_MIN_S = 0.2
RETRY_CAP_S = 5.0
WATCH_S = 0.25


async def wait_to_retry(failures: int, before: object, now: Callable[[], object]) -> None:
    """Wait with full jitter; less when the device path has changed (plugged in, given other rights).

    `before`: its signature before the last try, `now` gives the one of this moment.
    """
    loop = asyncio.get_running_loop()
    ceiling = min(RETRY_CAP_S, RETRY_MIN_S * 2 ** min(failures, 10))
    # S311: jitter, nothing secret.
    until = loop.time() + max(RETRY_MIN_S, random.uniform(0, ceiling))  # noqa: S311
    await asyncio.sleep(RETRY_MIN_S)
    # ASYNC110: a file's appearance is polled; inotify would need a watch on each directory of the path.
    while (left := until - loop.time()) > 0 and now() == before:  # noqa: ASYNC110
        await asyncio.sleep(min(WATCH_S, left))


def signature(port: str, *, is_held: bool) -> object:
    """Return what tells one state of a device path from another; None for a missing one.

    `is_held`: another program held it at the last try.
    """
    try:
        status = Path(port).stat()
    except OSError:
        return None
    # A port that another program holds is tried again as soon as that lets it go.
    held = is_held and ports.is_locked(status)
    return (
        held,
        status.st_dev,
        status.st_ino,
        status.st_rdev,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_ctime_ns,
    )
