"""The platform's own clock: GET /v1/time, for gateways that no time server reaches.

It is asked for over TLS only: whoever answers has proved who it is. What it says is as good as the round trip, so of two
questions on the same connection the quicker one counts. Nothing of it is the session's trouble: a platform that has no such
address is not asked again in this session. Limits: a round trip of `MOST_ROUND_TRIP_S`; asked every hour, or after
`RETRY_S` where there was no good answer.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from gateway.clock import PlatformTime
from gateway.errors import SessionError
from gateway.uplinks.http_lines import Ask, Lines

MOST_ROUND_TRIP_S: Final = 3.0
EVERY_S: Final = 3_600.0
RETRY_S: Final = 300.0
_UNKNOWN: Final = (404, 405, 410, 501)


async def keep_asking(lines: Lines, url: str, told: Callable[[PlatformTime], None]) -> None:
    """Ask at once and then every hour, for as long as the session lives; ends where the platform has no such address."""
    while True:
        try:
            answers = [await _ask(lines, url), await _ask(lines, url)]
        except _UnknownAddressError:
            return
        except (SessionError, ValueError):
            wait_s = RETRY_S
        else:
            told(min(answers, key=lambda one: one.answered_ms - one.asked_ms))
            wait_s = EVERY_S
        await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))  # noqa: S311 - jitter, not a secret


class _UnknownAddressError(Exception):
    """The platform does not tell the time."""


async def _ask(lines: Lines, url: str) -> PlatformTime:
    """Ask once. Raises SessionError where nobody answers in time, ValueError for what is no time."""
    asked_ms = _boot_ms()
    answer = await lines.ask(Ask("GET", url, "application/json", b""), limit_s=MOST_ROUND_TRIP_S)
    answered_ms = _boot_ms()
    if answer.status in _UNKNOWN:
        raise _UnknownAddressError
    if answer.status != 200:
        raise ValueError(answer.status)
    try:
        moment = datetime.fromisoformat(json.loads(answer.body)["time"])
        if moment.tzinfo is None:
            raise ValueError(moment)  # of which place?
        return PlatformTime(round(moment.timestamp() * 1000), asked_ms, answered_ms)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(answer.body[:100]) from error


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
