"""The platform's clock: asked for over TLS only, by its quicker answer, and never to the harm of the session."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.clock import PlatformTime
from gateway.events import Lane
from gateway.tls import Tls
from gateway.uplinks import http_time
from tests.gateway.http.conftest import Asked, good, reply

SAID = '{"time": "2027-01-15T08:00:00.123Z"}'


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def telling(answer: bytes | None) -> Any:
    def conduct(asked: Asked) -> bytes | None:
        return answer if asked.method == "GET" else good(asked)

    return conduct


@pytest.fixture
async def opened(serving: Any, site: Any, authority: Any) -> Any:
    """Open an uplink to a platform that answers GET /v1/time so; return both, and what was told."""

    async def open_it(answer: bytes | None, *, tls: bool = True) -> Any:
        care = authority("care")
        platform = await serving(care.server("127.0.0.1") if tls else None)
        platform.conduct = telling(answer)
        told: list[PlatformTime] = []
        site.on_time = told.append
        url = f"{'https' if tls else 'http'}://127.0.0.1:{platform.port}"
        up = site.uplink(url, tls=Tls(care.file) if tls else None)
        await site.open(up)
        return platform, up, told

    return open_it


def asked_for(platform: Any) -> list[str]:
    return [one.path for one in platform.asked if one.method == "GET"]


async def test_a_platform_s_time_is_told_with_the_moments_of_its_round_trip(opened: Any, make: Any) -> None:
    before = boot_ms()
    platform, _up, told = await opened(reply(200, SAID))
    await make.until(lambda: told)
    (said,) = told
    assert said.wall_ms == 1_800_000_000_123
    assert before <= said.asked_ms <= said.answered_ms <= boot_ms()
    assert asked_for(platform) == ["/v1/time", "/v1/time"]


async def test_without_tls_nobody_is_asked(opened: Any, make: Any) -> None:
    platform, up, told = await opened(reply(200, SAID), tls=False)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: platform.asked[-1].method == "POST")
    assert (told, asked_for(platform)) == ([], [])


async def test_a_platform_that_does_not_tell_the_time_is_not_asked_again(
    opened: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_time, "RETRY_S", 0.01)
    platform, up, told = await opened(reply(404))
    for n in range(5):
        up.send(Lane.A, make.texts(Lane.A, 1))
        await make.until(lambda n=n: sum(one.method == "POST" for one in platform.asked) == n + 1)
    assert (told, asked_for(platform)) == ([], ["/v1/time"])


@pytest.mark.parametrize(
    "answer",
    [
        reply(500), reply(429), reply(204), reply(200, "noon"), reply(200, "[]"), reply(200, '{"time": 7}'),
        reply(200, '{"time": "2027-01-15T08:00:00"}'), reply(200, '{"time": "2027-13-15T08:00:00Z"}'), reply(200, "[" * 9000),
    ],
)  # fmt: skip
async def test_what_is_no_time_is_asked_for_again_later_and_the_session_stands(
    opened: Any, make: Any, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(http_time, "RETRY_S", 0.01)
    platform, up, told = await opened(answer)
    await make.until(lambda: len(asked_for(platform)) >= 3)
    assert told == []
    platform.conduct = telling(reply(200, SAID))
    await make.until(lambda: told)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: platform.asked[-1].method == "POST")


async def test_a_time_that_does_not_come_is_not_the_session_s_trouble(
    opened: Any, make: Any, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_time, "MOST_ROUND_TRIP_S", 0.05)
    monkeypatch.setattr(http_time, "RETRY_S", 0.01)
    platform, up, told = await opened(None)
    await make.until(lambda: len(asked_for(platform)) >= 2)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    assert (told, site.told.losses) == ([], [])
