"""A platform that speaks `http-json`: what goes to it, and what its business codes lead to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.events import Lane, Origin, new_event
from gateway.health import Health
from gateway.outbox import Outbox, Route, Write
from gateway.profiles import load_profile
from gateway.profiles.reading import parse_profile
from gateway.uplinks import AckStatus
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths

ORIGIN = Origin("org", "site", "gw")
CLOCK = SystemClock()
HTTP_JSON = load_profile("http-json")
CALL = {"kind": "call", "state": "ACTIVE", "room": "201"}


def ids(asked: Any) -> list[str]:
    """The events of a request, as this platform is told of them."""
    content = asked.content
    return [one["id"] for one in content.get("events", [content])]


def business(make: Any, code: object, message: str = "", **data: object) -> Callable[[Any], bytes]:
    """A platform that always answers 200 with one code."""
    body = {"code": code, "message": message, "data": data}
    return lambda asked: bytes(make.reply(200, body if asked.method == "POST" else {}))


async def opened(site: Any, platform: Any, **more: Any) -> Any:
    up = site.uplink(f"http://127.0.0.1:{platform.port}/care", profile=more.pop("profile", HTTP_JSON), **more)
    await site.open(up)
    return up


def sent(up: Any, make: Any, lane: Lane, number: int = 1) -> list[str]:
    """Send events; return their ids."""
    data = CALL if lane is Lane.A else {"registers": []}
    texts = [make.text(lane, seq, f"d{seq}", **data) for seq in range(1, number + 1)]
    up.send(lane, texts)
    return [json.loads(text)["id"] for text in texts]


async def test_a_session_begins_with_the_probe_and_ends_without_a_word(platform: Any, site: Any, make: Any) -> None:
    platform.conduct = business(make, 0)
    up = await opened(site, platform)
    await up.close()
    assert [(one.method, one.path) for one in platform.asked] == [("GET", "/care/")]


@pytest.mark.parametrize("status", [200, 404, 405, 400])
async def test_whatever_page_answers_the_probe_the_platform_is_there(
    platform: Any, site: Any, make: Any, status: int
) -> None:
    platform.conduct = lambda _asked: make.reply(status)
    await opened(site, platform)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "GW-NET-04"), (403, "GW-NET-04"), (429, "GW-PLT-04"), (503, "GW-PLT-04")],
)
async def test_whatever_the_probe_is_told_alarms_are_sent_and_it_is_said(
    platform: Any, site: Any, make: Any, status: int, code: str
) -> None:
    """The page that is asked for may be closed, or broken, where the address of alarms is not."""
    probe = make.reply(status, retry_after="3600")
    taken = make.reply(200, {"code": 0})
    platform.conduct = lambda asked: taken if asked.method == "POST" else probe
    up = await opened(site, platform, sign_of_life=0.1, jitter=0.0)
    assert [error and error.code for error in site.told.doubts] == [code]
    await make.until(lambda: sum(one.method == "GET" for one in platform.asked) >= 5)
    assert [error and error.code for error in site.told.doubts] == [code]
    [event] = sent(up, make, Lane.A)
    await make.until(lambda: site.told.sent)
    assert [(ack.id, ack.status) for ack in site.told.acks] == [(event, AckStatus.ACCEPTED)]
    assert site.told.losses == []
    probe = make.reply(200)
    await make.until(lambda: site.told.doubts[-1] is None)


async def test_a_probe_that_nobody_answers_is_no_session(platform: Any, site: Any) -> None:
    platform.conduct = lambda _asked: None
    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}", profile=HTTP_JSON, open=0.2))
    assert error.code == "GW-NET-05"


@pytest.mark.parametrize("status", [404, 403])
async def test_a_wrong_address_of_faults_holds_up_faults_and_no_alarm(
    platform: Any, site: Any, make: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("gateway.uplinks.http_courtesy.jittered", lambda _times, *, alarm: 60.0)
    text = Path(parse_profile.__code__.co_filename).with_name("http-json.toml").read_text()
    head, _, rest = text.partition('types = ["*"]\nto = "/events"')
    profile = parse_profile(f'{head}types = ["*"]\nto = "/faults"{rest}')
    taken = make.reply(200, {"code": 0})
    platform.conduct = lambda asked: make.reply(status) if asked.path == "/care/faults" else taken
    up = await opened(site, platform, profile=profile)
    if status == 403:  # once the login is read anew
        sent(up, make, Lane.B)
        await make.until(lambda: site.told.losses)
        await site.open(up)
    before = len(site.told.losses)
    for lane in (Lane.B, Lane.B, Lane.A, Lane.C):
        sent(up, make, lane)
        told = len(site.told.sent) + 1
        await make.until(lambda: len(site.told.sent) == told)  # noqa: B023 - it is waited for here
    assert [ack.code for ack in site.told.acks] == [f"http-{status}", "on hold", "", ""]
    assert [ack.status for ack in site.told.acks[2:]] == [AckStatus.ACCEPTED] * 2
    assert len(site.told.losses) == before


async def test_an_alarm_goes_alone_and_telemetry_together(platform: Any, site: Any, make: Any) -> None:
    platform.conduct = business(make, 0)
    up = await opened(site, platform)
    alarm, meters = sent(up, make, Lane.A), sent(up, make, Lane.C, 3)
    await make.until(lambda: len(site.told.acks) == 4)
    posts = {one.path: one for one in platform.posts()}
    assert {path: ids(one) for path, one in posts.items()} == {
        "/care/events": alarm, "/care/events/batch": meters,
    }  # fmt: skip
    assert posts["/care/events"].content["alarm"]["kind"] == "call"
    assert {ack.status for ack in site.told.acks} == {AckStatus.ACCEPTED}


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (0, AckStatus.ACCEPTED, ""),
        ("200", AckStatus.ACCEPTED, ""),
        (409, AckStatus.DUPLICATE, "code-409: said"),
        (429, AckStatus.RETRY, "code-429: said"),
        (500, AckStatus.RETRY, "code-500: said"),
        (99, AckStatus.RETRY, "code-99: said"),
        (400, AckStatus.REJECTED, "code-400: said"),
    ],
)
async def test_of_a_200_the_business_code_says_what_it_means(
    platform: Any, site: Any, make: Any, code: object, status: AckStatus, said: str
) -> None:
    platform.conduct = business(make, code, "said")
    up = await opened(site, platform)
    [event] = sent(up, make, Lane.A)
    await make.until(lambda: site.told.sent)
    assert [(ack.id, ack.status, ack.code) for ack in site.told.acks] == [(event, status, said)]
    assert site.told.losses == []


async def test_a_code_that_refuses_the_login_ends_the_session_and_condemns_nothing(
    platform: Any, site: Any, make: Any
) -> None:
    platform.conduct = business(make, 401, "token expired")
    up = await opened(site, platform)
    sent(up, make, Lane.A)
    await make.until(lambda: site.told.losses)
    [error] = site.told.losses
    assert (error.code, error.facts["status"], site.told.acks) == ("GW-NET-04", 200, [])
    assert "token expired" in error.facts["error"]


@pytest.mark.parametrize("body", [b"", b"OK", b"[]", b"{}", b'{"code":null}', b"\xff", b"[" * 100_000])
async def test_an_answer_without_a_code_is_no_acceptance(platform: Any, site: Any, make: Any, body: bytes) -> None:
    platform.conduct = lambda _asked: make.reply(200, body)
    up = await opened(site, platform)
    sent(up, make, Lane.A)
    await make.until(lambda: site.told.sent)
    assert (site.told.acks, up.unreadable_answers) == ([], 1)


async def test_results_of_single_events_drive_single_events(platform: Any, site: Any, make: Any) -> None:
    def some(asked: Any) -> bytes:
        codes = (0, 422, 500, 401)
        listed = [{"id": one, "code": code} for one, code in zip(ids(asked), codes, strict=False)]
        return bytes(make.reply(200, {"code": 207, "data": {"results": listed}}))

    platform.conduct = lambda asked: some(asked) if asked.method == "POST" else make.reply(200)
    up = await opened(site, platform)
    events = sent(up, make, Lane.C, 5)
    await make.until(lambda: site.told.sent)
    assert [(ack.id, ack.status) for ack in site.told.acks] == list(zip(
        events, (AckStatus.ACCEPTED, AckStatus.REJECTED, AckStatus.RETRY, AckStatus.RETRY), strict=False
    ))  # fmt: skip


async def test_a_number_of_failures_marks_the_batch_done_and_is_logged(
    platform: Any, site: Any, make: Any, caplog: Any, capsys: Any
) -> None:
    platform.conduct = business(make, 0, failed=2)
    up = await opened(site, platform)
    sent(up, make, Lane.C, 5)
    await make.until(lambda: site.told.sent)
    assert [ack.status for ack in site.told.acks] == [AckStatus.ACCEPTED] * 5
    said = capsys.readouterr().out
    assert "some of its events failed" in said
    assert "failed=2" in said


@pytest.mark.parametrize(("lane", "number", "failed"), [(Lane.A, 1, 1), (Lane.A, 1, 2), (Lane.C, 5, 5)])
async def test_where_everything_failed_nothing_is_accepted(
    platform: Any, site: Any, make: Any, lane: Lane, number: int, failed: int
) -> None:
    platform.conduct = business(make, 0, failed=failed)
    up = await opened(site, platform)
    events = sent(up, make, lane, number)
    await make.until(lambda: site.told.sent)
    assert [(ack.id, ack.status, ack.code) for ack in site.told.acks] == [
        (one, AckStatus.RETRY, f"failed: {failed} of {number}") for one in events
    ]
    assert site.told.losses == []


@pytest.mark.parametrize("code", [0, 409])
@pytest.mark.parametrize("lane", [Lane.A, Lane.C])
@pytest.mark.parametrize(
    "results", [[{"id": "another form", "code": 500}], [{"id": "x", "status": 500}], {"x": 500}, "1 failed"]
)
async def test_results_of_which_none_can_be_read_are_no_acceptance(
    platform: Any, site: Any, make: Any, code: int, lane: Lane, results: object
) -> None:
    platform.conduct = business(make, code, results=results)
    up = await opened(site, platform)
    sent(up, make, lane)
    await make.until(lambda: site.told.sent)
    assert (site.told.acks, up.unreadable_answers, site.told.losses) == ([], 1, [])


@pytest.mark.parametrize("results", [[], {}, "", None])
async def test_a_code_counts_where_nothing_is_said_of_single_events(
    platform: Any, site: Any, make: Any, results: object
) -> None:
    platform.conduct = business(make, 0, results=results)
    up = await opened(site, platform)
    [event] = sent(up, make, Lane.A)
    await make.until(lambda: site.told.sent)
    assert [(ack.id, ack.status) for ack in site.told.acks] == [(event, AckStatus.ACCEPTED)]


async def test_a_batch_with_poison_in_it_is_halved_until_one_is_left(platform: Any, site: Any, make: Any) -> None:
    poison: list[str] = []

    def choosy(asked: Any) -> bytes:
        code = 400 if asked.method == "POST" and set(ids(asked)) & set(poison) else 0
        return bytes(make.reply(200, {"code": code}))

    platform.conduct = choosy
    up = await opened(site, platform)
    texts = [make.text(Lane.C, seq, f"d{seq}", registers=[]) for seq in range(1, 8)]
    events = [json.loads(text)["id"] for text in texts]
    poison.append(events[4])
    up.send(Lane.C, texts)
    await make.until(lambda: site.told.sent)
    found = {ack.id: ack.status for ack in site.told.acks}
    assert found == {one: AckStatus.REJECTED if one == events[4] else AckStatus.ACCEPTED for one in events}


async def test_a_message_that_its_words_make_too_long_goes_in_parts(platform: Any, site: Any, make: Any) -> None:
    platform.conduct = business(make, 0)
    up = await opened(site, platform)
    texts = [make.text(Lane.C, seq, f"d{seq}", registers=[], note="x" * 30_000) for seq in (1, 2, 3)]
    texts.append(make.text(Lane.C, 4, "d4", registers=[], note="x" * 70_000))
    up.send(Lane.C, texts)
    await make.until(lambda: site.told.sent)
    assert [len(ids(one)) for one in platform.posts()] == [2, 1]
    assert all(len(one.body) <= 65_536 for one in platform.posts())
    [refused] = [ack for ack in site.told.acks if ack.status is AckStatus.REJECTED]
    assert (refused.code.startswith("profile: 70"), refused.reason) == (True, "the profile cannot say it")


async def test_without_a_batch_each_event_goes_alone(platform: Any, site: Any, make: Any) -> None:
    text = Path(parse_profile.__code__.co_filename).with_name("http-json.toml").read_text()
    alone = parse_profile(text.replace(text[text.index("[batch]") : text.index("[enum.level]")], ""))
    platform.conduct = business(make, 0)
    up = await opened(site, platform, profile=alone)
    assert up.max_events == 1
    events = sent(up, make, Lane.C, 3)
    await make.until(lambda: len(site.told.acks) == 3)
    assert [ids(one) for one in platform.posts()] == [[one] for one in events]


class Road:
    """An outbox and its deliverer, running."""

    def __init__(self, folder: Path, uplink: Any) -> None:
        self.outbox = Outbox(folder / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
        self.health = Health(CLOCK)
        self._uplink = uplink

    async def __aenter__(self) -> Road:
        await self.outbox.open()
        path = PlatformPath(self._uplink, "127.0.0.1", "http")
        paths = Paths("district", [path], reconnect_spread_s=0.05, clock=CLOCK, health=self.health)
        self.deliverer = Deliverer(
            "district", paths, self.outbox, finish="L2", reconnect_spread_s=0.05, clock=CLOCK, health=self.health,
            callbacks=DeliveryCallbacks(delivered=lambda *_one: None, birth=dict),
        )  # fmt: skip
        self.outbox.on_stored = self.deliverer.wake
        self.outbox.live = lambda: self.deliverer.is_live
        self._running = [asyncio.create_task(self.outbox.run()), asyncio.create_task(self.deliverer.run())]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in reversed(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.outbox.close()

    def submit(self, noun: str, device: str, **data: object) -> str:
        event = new_event(noun, ORIGIN, device=device, at=CLOCK.stamp(), data=data, correlation="a")
        self.outbox.submit(Write((event,)))
        return event.id

    @property
    def pending(self) -> int:
        return sum(self.outbox.pending("district").values())


async def test_an_event_that_the_profile_cannot_say_is_a_dead_letter_and_the_others_go(
    platform: Any, site: Any, make: Any, tmp_path: Path
) -> None:
    platform.conduct = business(make, 0)
    up = site.uplink(f"http://127.0.0.1:{platform.port}", profile=HTTP_JSON)
    async with Road(tmp_path, up) as road:
        good = [road.submit("telemetry.meter", f"m{n}", registers=[]) for n in range(5)]
        bad = road.submit("telemetry.meter", "m9", registers="none")
        mute = road.submit("alarm.raised", "call-1", **{**CALL, "kind": None})
        call = road.submit("alarm.raised", "call-2", **CALL)
        assert await road.outbox.flush(10)
        await make.until(lambda: road.pending == 0)
        await road.outbox.flush(10)
        letters = {one.id: one for one in await road.outbox.dead_letters()}
        assert letters.keys() == {bad, mute}
        assert {one.reason for one in letters.values()} == {"the profile cannot say it"}
        assert letters[mute].code == "profile: the event has no data.kind"
        assert road.deliverer.status()["connected"] is True
        assert {one.code for one in road.health.current()} >= {"GW-PLT-02", "GW-PLT-06"}
    assert {one for asked in platform.posts() for one in ids(asked)} == {*good, call}


async def test_a_platform_with_a_business_error_of_the_moment_gets_everything_later(
    platform: Any, site: Any, make: Any, tmp_path: Path
) -> None:
    posts = 0

    def moody(asked: Any) -> bytes:
        nonlocal posts
        posts += asked.method == "POST"
        return bytes(make.reply(200, {"code": 500 if asked.method == "POST" and posts <= 3 else 0}))

    platform.conduct = moody
    up = site.uplink(f"http://127.0.0.1:{platform.port}", profile=HTTP_JSON)
    async with Road(tmp_path, up) as road:
        call = road.submit("alarm.raised", "call-2", **CALL)
        assert await road.outbox.flush(10)
        await make.until(lambda: road.pending == 0, 30)
        assert road.deliverer.status()["dead_letters"] == 0
    assert [ids(one) for one in platform.posts()] == [[call]] * 4
