"""The real road out over HTTP: outbox, deliverer, uplink, TLS, and a platform that has bad days."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.deliver import Deliverer, DeliveryCallbacks, answers
from gateway.events import Event, Lane, Origin, new_event
from gateway.health import Health
from gateway.outbox import Outbox, Route, Write
from gateway.problems import describe
from gateway.tls import Tls
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths

ORIGIN = Origin("org", "site", "gw")
CLOCK = SystemClock()
TROUBLES = ("break", "half", "503", "429", "bare", "retry", "partial")


class Application:
    """What a platform's application has taken. It fails as often as `troubles` says, each time in another way."""

    def __init__(self, make: Any, *, troubles: int = 0) -> None:
        self._make = make
        self._random = random.Random(7)  # noqa: S311 - bad luck, not a secret
        self._due = [TROUBLES[n % len(TROUBLES)] for n in range(troubles)]
        self.taken: set[str] = set()
        self.order: dict[str, list[int]] = {}
        self.repeats = 0

    def __call__(self, asked: Any) -> bytes:
        if asked.method == "PUT":
            return bytes(self._make.good(asked))
        trouble = self._due.pop() if self._due and self._random.random() < 0.3 else ""
        events = asked.content if isinstance(asked.content, list) else [asked.content]
        if trouble == "break":
            asked.writer.transport.abort()
            return b""
        if trouble in ("503", "429"):
            return bytes(self._make.reply(int(trouble), retry_after="0"))
        if trouble == "retry":
            return bytes(self._make.results(asked.ids, "retry", retry_after_ms=5))
        if trouble == "partial":
            events = events[: (len(events) + 1) // 2]
        for event in events:
            self._take(event)
        if trouble == "bare":
            return bytes(self._make.reply(202))
        answer = bytes(self._make.results([event["id"] for event in events]))
        if trouble == "half":
            asked.writer.write(answer[:-3])
            asked.writer.close()
            return b""
        return answer

    def _take(self, event: dict[str, Any]) -> None:
        if event["id"] in self.taken:
            self.repeats += 1
        else:
            self.taken.add(event["id"])
            self.order.setdefault(event["partitionkey"], []).append(int(event["sequence"]))


class Road:
    """An outbox and its deliverer, running."""

    def __init__(self, folder: Path, uplink: Any) -> None:
        self.outbox = Outbox(folder / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
        self.health = Health(CLOCK)
        self.levels: list[tuple[str, str]] = []
        self._uplink = uplink

    async def __aenter__(self) -> Road:
        await self.outbox.open()
        path = PlatformPath(self._uplink, "127.0.0.1", "http")
        paths = Paths("district", [path], reconnect_spread_s=0.05, clock=CLOCK, health=self.health)
        self.deliverer = Deliverer(
            "district", paths, self.outbox, finish="L2", reconnect_spread_s=0.05, clock=CLOCK, health=self.health,
            callbacks=DeliveryCallbacks(delivered=lambda *one: self.levels.append(one), birth=lambda: {"gateway": "gw"}),
        )  # fmt: skip
        self.outbox.on_stored = self.deliverer.wake
        self.outbox.live = lambda: self.deliverer.is_live
        self._running = [asyncio.create_task(self.outbox.run()), asyncio.create_task(self.deliverer.run())]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in reversed(self._running):
            task.cancel()
        ends = await asyncio.gather(*self._running, return_exceptions=True)
        await self.outbox.close()
        assert [one for one in ends if not isinstance(one, asyncio.CancelledError)] == []

    def submit(self, noun: str, device: str) -> Event:
        event = new_event(noun, ORIGIN, device=device, at=CLOCK.stamp(), data={"n": 1}, correlation="a")
        self.outbox.submit(Write((event,)))
        return event

    @property
    def pending(self) -> int:
        return sum(self.outbox.pending("district").values())


async def test_a_whole_delivery_over_bad_days_is_complete_and_in_order(
    tmp_path: Path, serving: Any, site: Any, make: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lane in Lane:
        monkeypatch.setitem(answers.ACK_LIMIT_S, lane, 1.0)
    care = authority("care")
    platform = await serving(care.server("127.0.0.1"))
    application = platform.conduct = Application(make, troubles=21)
    up = site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(care.file))
    async with Road(tmp_path, up) as road:
        events = []
        for n in range(800):
            alarm = n % 20 == 0
            events.append(
                road.submit("alarm.raised" if alarm else "telemetry.meter", f"{'call' if alarm else 'm'}-{n % 7}")
            )
            if n % 200 == 199:
                platform.hang_up()
            if n % 10 == 0:
                await asyncio.sleep(0.001)
        await make.until(lambda: len(application.taken) == 800, 60)
        await make.until(lambda: road.pending == 0, 60)
        assert application.taken == {event.id for event in events}
        assert {device: sorted(order) for device, order in application.order.items()} == application.order
        assert road.deliverer.status()["dead_letters"] == 0
        assert len([level for _id, level in road.levels if level == "L2"]) == 40
        assert application.repeats > 0  # bare successes and broken answers come again, under the same ids


async def test_a_platform_that_was_away_gets_everything_and_the_alarm_first(
    tmp_path: Path, serving: Any, site: Any, make: Any
) -> None:
    platform = await serving()
    port = platform.port
    await platform.stop()
    up = site.uplink(f"http://127.0.0.1:{port}")
    async with Road(tmp_path, up) as road:
        await make.until(road.health.current)
        assert [one.code for one in road.health.current()] == ["GW-NET-02"]
        for n in range(50):
            road.submit("telemetry.meter", f"m-{n}")
        press = road.submit("alarm.raised", "call-1")
        platform = await serving(port=port)
        application = platform.conduct = Application(make)
        await make.until(lambda: len(application.taken) == 51, 30)
        assert platform.posts()[0].ids == [press.id]
        assert road.health.current() == ()


async def test_an_alarm_that_is_told_to_wait_goes_as_soon_as_it_may(
    tmp_path: Path, platform: Any, site: Any, make: Any
) -> None:
    """The window is nothing meanwhile; an alarm of another button comes, and nobody else wakes the deliverer."""
    application = Application(make)
    refusals = [make.reply(503, retry_after="1")]
    platform.conduct = lambda asked: refusals.pop() if refusals and asked.method == "POST" else application(asked)
    up = site.uplink(f"http://127.0.0.1:{platform.port}")
    async with Road(tmp_path, up) as road:
        await make.until(lambda: road.deliverer.connected)
        first = road.submit("alarm.raised", "call-1")
        await make.until(lambda: up.window == 0)
        second = road.submit("alarm.raised", "call-2")
        await make.until(lambda: road.pending == 0)
        assert application.taken == {first.id, second.id}
        assert len(platform.posts()) == 3


async def test_a_login_that_is_refused_loses_nothing_and_is_asked_for_anew(
    tmp_path: Path, platform: Any, site: Any, make: Any
) -> None:
    application = Application(make)
    platform.conduct = lambda asked: (
        application(asked) if asked.headers["authorization"] == "Bearer new" else make.reply(401)
    )
    tokens = ["Bearer new", "Bearer old"]
    up = site.uplink(
        f"http://127.0.0.1:{platform.port}", authorization=lambda: tokens.pop() if len(tokens) > 1 else tokens[0]
    )
    async with Road(tmp_path, up) as road:
        press = road.submit("alarm.raised", "call-1")
        await make.until(road.health.current)
        await make.until(lambda: road.pending == 0, 30)
        assert application.taken == {press.id}
        assert road.deliverer.status()["dead_letters"] == 0


@pytest.mark.parametrize(
    ("status", "code", "zh", "en"),
    [
        (
            404, "GW-NET-06",
            "平台 district 的地址不对：http://127.0.0.1:{port}/v1/gateways/gw/birth（HTTP 404）",
            "the address of platform district is wrong: http://127.0.0.1:{port}/v1/gateways/gw/birth (HTTP 404)",
        ),
        (502, "GW-PLT-04", "平台 district 暂停服务（HTTP 502）", "platform district is out of service (HTTP 502)"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_in_words_and_taken_back(
    tmp_path: Path, platform: Any, site: Any, make: Any, status: int, code: str, zh: str, en: str
) -> None:
    application = Application(make)
    platform.conduct = lambda _asked: make.reply(status)
    async with Road(tmp_path, site.uplink(f"http://127.0.0.1:{platform.port}")) as road:
        press = road.submit("alarm.raised", "call-1")
        await make.until(road.health.current)
        [trouble] = road.health.current()
        titles = [describe(code, lang, trouble.subject, trouble.facts).title for lang in ("zh", "en")]
        assert (trouble.code, titles) == (code, [one.format(port=platform.port) for one in (zh, en)])
        platform.conduct = application
        await make.until(lambda: application.taken == {press.id}, 30)
        assert road.health.current() == ()


async def test_what_a_platform_refuses_is_kept_as_a_dead_letter_with_its_reason(
    tmp_path: Path, platform: Any, site: Any, make: Any
) -> None:
    application = Application(make)
    platform.conduct = lambda asked: (
        make.reply(422, "no such room") if b'"device/bad"' in asked.body else application(asked)
    )
    async with Road(tmp_path, site.uplink(f"http://127.0.0.1:{platform.port}")) as road:
        for n in range(20):
            road.submit("telemetry.meter", "bad" if n == 11 else f"m-{n}")
        await make.until(lambda: len(application.taken) == 19, 30)
        await make.until(lambda: road.pending == 0)
        problems = {one.code: one.facts for one in road.health.current()}
        assert problems["GW-PLT-02"]["reason"] == "http-422: no such room"
