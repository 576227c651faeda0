"""A platform that is away, busy, wrongly addressed, or that refuses: what the deliverer is told, and what it is not."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.events import Lane
from gateway.uplinks import AckStatus
from simulator.scenario import free_ports


def only_posts(say: Callable[[Any], Any], make: Any) -> Callable[[Any], Any]:
    """Let the signs of life pass; answer the rest so."""
    return lambda asked: make.good(asked) if asked.method == "PUT" else say(asked)


def outcome(site: Any) -> list[tuple[AckStatus, str, float | None]]:
    return [(ack.status, ack.code, ack.retry_after_s) for ack in site.told.acks]


# Opening.


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, "GW-NET-06"), (308, "GW-NET-06"), (401, "GW-NET-04"), (403, "GW-NET-04"), (404, "GW-NET-06"),
        (405, "GW-NET-06"), (410, "GW-NET-06"), (415, "GW-NET-06"), (418, "GW-NET-06"), (408, "GW-PLT-04"),
        (429, "GW-PLT-04"), (500, "GW-PLT-04"), (502, "GW-PLT-04"), (503, "GW-PLT-04"),
    ],
)  # fmt: skip
async def test_a_birth_that_is_not_taken_names_the_layer(
    platform: Any, site: Any, make: Any, status: int, code: str
) -> None:
    before = make.sockets()
    platform.conduct = lambda _asked: make.reply(status, "the reason why")
    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}/base"))
    assert (error.code, error.subject, error.facts) == (code, "127.0.0.1", {
        "url": f"http://127.0.0.1:{platform.port}/base/v1/gateways/gw/birth", "status": status,
        "error": f"HTTP {status} the reason why",
    })  # fmt: skip
    assert len(platform.asked) == 1
    await make.until(lambda: make.sockets() == before)


async def test_a_redirect_is_not_followed_and_says_where_it_led(
    platform: Any, serving: Any, site: Any, make: Any
) -> None:
    elsewhere = await serving()
    there = f"http://127.0.0.1:{elsewhere.port}/in?session=1"
    platform.conduct = lambda _asked: make.reply(307, location=there)
    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}"))
    assert error.facts["error"] == f"HTTP 307 -> http://127.0.0.1:{elsewhere.port}/in"
    assert (elsewhere.lines, len(platform.asked)) == (0, 1)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_an_inventory_that_is_disliked_keeps_no_alarm_back(
    platform: Any, site: Any, make: Any, status: int
) -> None:
    platform.conduct = lambda asked: make.reply(status) if asked.method == "PUT" else make.good(asked)
    up = await site.opened(platform)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)


async def test_a_platform_that_named_a_time_is_not_asked_before(platform: Any, site: Any, make: Any) -> None:
    platform.conduct = lambda _asked: make.reply(503, retry_after="600")
    up = site.uplink(f"http://127.0.0.1:{platform.port}")
    assert (await site.refused(up)).facts["status"] == 503
    again = await site.refused(up)
    assert (again.code, again.facts["error"]) == ("GW-PLT-04", "Retry-After: 600 s")
    assert len(platform.asked) == 1


async def test_a_name_that_is_not_known_is_told_from_a_line_that_is_dead(site: Any) -> None:
    error = await site.refused(site.uplink("http://no-such-host.invalid"))
    assert (error.code, error.subject) == ("GW-NET-01", "no-such-host.invalid")


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "xn--\u00df..example"])
async def test_a_name_that_cannot_be_one_is_said_to_be_unknown(site: Any, host: str) -> None:
    assert (await site.refused(site.uplink(f"http://{host}"))).code == "GW-NET-01"


async def test_a_name_server_that_is_silent_is_told_from_a_line_that_is_dead(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name server here can be made silent: the call into libc is made to take its time."""
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: release.wait(10.0))
    error = await site.refused(site.uplink("http://slow.example", open=0.2))
    release.set()
    assert (error.code, error.facts["error"]) == ("GW-NET-01", "the name server does not answer")


async def test_a_port_that_nobody_listens_at_is_not_reached(site: Any) -> None:
    (port,) = free_ports(["nobody"]).values()
    error = await site.refused(site.uplink(f"http://127.0.0.1:{port}"))
    assert (error.code, error.facts["port"]) == ("GW-NET-02", port)
    assert "refused" in error.facts["error"] or "Connect call failed" in error.facts["error"]


async def test_a_port_that_answers_nothing_is_not_reached(site: Any) -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listening.getsockname())
    error = await site.refused(site.uplink(f"http://127.0.0.1:{listening.getsockname()[1]}", open=0.3))
    for one in (*waiting, listening):
        one.close()
    assert (error.code, error.facts["error"]) == ("GW-NET-02", "no answer in time")


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 300_000],
    ids=["nothing", "ssh", "half", "status", "zeros"],
)  # fmt: skip
async def test_what_is_no_answer_breaks_the_session(platform: Any, site: Any, said: bytes) -> None:
    def then_end(asked: Any) -> bytes:
        asked.writer.write(said)
        asked.writer.close()
        return b""

    platform.conduct = then_end
    assert (await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}"))).code == "GW-NET-05"


async def test_a_platform_that_never_answers_the_birth_is_given_up(platform: Any, site: Any) -> None:
    platform.conduct = lambda _asked: None
    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}", open=0.2))
    assert (error.code, error.facts["error"]) == ("GW-NET-05", "no answer within 0.2 s")


async def test_an_answer_that_trickles_for_ever_is_given_up(platform: Any, site: Any) -> None:
    async def trickle(asked: Any) -> bytes:
        while True:
            asked.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asked.writer.drain()
            await asyncio.sleep(0.01)

    platform.conduct = trickle
    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}", open=0.3))
    assert error.code == "GW-NET-05"


# Refusals of a session that stands.


@pytest.mark.parametrize(
    ("lane", "status", "code"),
    [
        *((lane, status, "GW-NET-04") for lane in (Lane.A, Lane.C) for status in (401, 403)),
        *((Lane.A, status, "GW-NET-06") for status in (404, 405, 410, 415, 302)),
    ],
)
async def test_a_login_or_an_address_that_ceases_to_do_ends_the_session_and_condemns_nothing(
    platform: Any, site: Any, make: Any, lane: Lane, status: int, code: str
) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(status), make)
    up.send(lane, make.texts(lane, 1))
    await make.until(lambda: site.told.losses)
    place = "events" if lane is Lane.A else "events:batch"
    assert (site.told.losses[0].code, site.told.losses[0].facts["url"]) == (
        code, f"http://127.0.0.1:{platform.port}/v1/{place}",
    )  # fmt: skip
    with pytest.raises(SessionError):
        up.send(lane, make.texts(lane, 1))
    await up.close()
    assert site.told.order == ["lost"]
    assert not platform.puts("state")  # a session that is lost has nobody to say goodbye to


@pytest.mark.parametrize("status", [404, 405, 410, 415, 302])
async def test_an_address_of_batches_that_is_wrong_costs_no_alarm_and_is_tried_now_and_then(
    platform: Any, site: Any, make: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("gateway.uplinks.http_courtesy.jittered", lambda times, *, alarm: 0.2 * times)
    up = await site.opened(platform, brief=0.05)
    batches: list[float] = []

    def wrong(asked: Any) -> bytes:
        if not asked.path.endswith(":batch"):
            return bytes(make.good(asked))
        batches.append(asyncio.get_running_loop().time())
        return bytes(make.reply(status) if len(batches) < 3 else make.good(asked))

    platform.conduct = only_posts(wrong, make)
    messages = 0
    while len(batches) < 3:
        for lane in (Lane.C, Lane.A):
            up.send(lane, make.texts(lane, 1))
            messages += 1
            await make.until(lambda: len(site.told.sent) == messages)  # noqa: B023 - it is waited for here
    assert site.told.losses == []
    assert batches[1] - batches[0] >= 0.19
    assert batches[2] - batches[1] >= 0.39
    codes = {one.code for one in site.told.acks if one.status is AckStatus.RETRY}
    assert codes == {f"http-{status}", "on hold"}
    assert [error and error.code for error in site.told.doubts] == ["GW-NET-06", None]
    assert not [one for one in site.told.acks if one.status is AckStatus.REJECTED]


async def test_an_alarm_on_its_way_is_not_cut_off_by_what_a_batch_is_told(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    refused = asyncio.Event()

    async def alarm_after_batch(asked: Any) -> bytes:
        if asked.path.endswith(":batch"):
            refused.set()
            return bytes(make.reply(403))
        await refused.wait()
        await asyncio.sleep(0.1)
        return bytes(make.good(asked))

    platform.conduct = only_posts(alarm_after_batch, make)
    up.send(Lane.A, make.texts(Lane.A, 1))
    up.send(Lane.C, make.texts(Lane.C, 5))
    await make.until(lambda: site.told.losses)
    assert site.told.order == ["acks", "sent", "lost"]
    assert outcome(site) == [(AckStatus.ACCEPTED, "", None)]


@pytest.mark.parametrize("status", [401, 404])
async def test_alarms_on_their_way_are_not_cut_off_by_what_another_alarm_is_told(
    platform: Any, site: Any, make: Any, status: int
) -> None:
    up = await site.opened(platform)
    refused = asyncio.Event()

    async def one_of_two(asked: Any) -> bytes:
        if asked.content["partitionkey"] == "d1":
            refused.set()
            return bytes(make.reply(status))
        await refused.wait()
        await asyncio.sleep(0.1)
        return bytes(make.good(asked))

    platform.conduct = only_posts(one_of_two, make)
    for text in make.texts(Lane.A, 2):
        up.send(Lane.A, [text])
    await make.until(lambda: site.told.losses)
    assert site.told.order == ["acks", "sent", "lost"]
    assert outcome(site) == [(AckStatus.ACCEPTED, "", None)]


async def test_a_refused_alarm_waits_for_the_others_for_a_moment_only_and_never_for_one_that_is_refused_too(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform, farewell=0.1, alarm=30.0, hedge=30.0)

    def refusing(asked: Any) -> bytes | None:
        return bytes(make.reply(401)) if asked.content["partitionkey"] == "d1" else None

    platform.conduct = only_posts(refusing, make)
    for text in make.texts(Lane.A, 2):
        up.send(Lane.A, [text])
    await make.until(lambda: site.told.losses, 5)
    assert site.told.order == ["lost"]
    again = await site.opened(platform, farewell=30.0)
    platform.conduct = only_posts(lambda _asked: make.reply(401), make)
    for text in make.texts(Lane.A, 2):
        again.send(Lane.A, [text])
    await make.until(lambda: len(site.told.losses) == 2, 5)


async def test_a_login_that_is_refused_to_telemetry_alone_ends_one_session_and_no_more(
    platform: Any, site: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the credential is read anew; after that it is that address which is closed, and alarms go on."""
    monkeypatch.setattr("gateway.uplinks.http_courtesy.jittered", lambda _times, *, alarm: 0.2)
    up = await site.opened(platform, brief=0.05)
    shut = True

    def half_open(asked: Any) -> bytes:
        return bytes(make.reply(403) if shut and asked.path.endswith(":batch") else make.good(asked))

    platform.conduct = only_posts(half_open, make)
    up.send(Lane.C, make.texts(Lane.C, 1))
    await make.until(lambda: site.told.losses)
    await site.open(up)
    up.send(Lane.C, make.texts(Lane.C, 1))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.RETRY, "http-403", pytest.approx(0.2, abs=0.1))]
    assert [error and error.code for error in site.told.doubts] == ["GW-NET-04"]
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: outcome(site)[-1][0] is AckStatus.ACCEPTED)
    shut = False
    await asyncio.sleep(0.25)
    up.send(Lane.C, make.texts(Lane.C, 1))
    await make.until(lambda: len(site.told.doubts) == 2)
    assert (site.told.doubts[-1], len(site.told.losses)) == (None, 1)


async def test_a_batch_that_finds_no_connection_costs_no_session_while_the_alarms_have_theirs(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    await platform.deaf()
    up.send(Lane.C, make.texts(Lane.C, 2))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.RETRY, "connection broke", None)] * 2
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: len(site.told.sent) == 2)
    assert (site.told.acks[-1].status, site.told.losses) == (AckStatus.ACCEPTED, [])


async def test_a_loss_is_said_once_and_nothing_after_it(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    together = asyncio.Barrier(6)

    async def all_at_once(asked: Any) -> bytes:
        await together.wait()
        return make.reply(401) if asked.line % 2 else make.good(asked)

    platform.conduct = all_at_once
    for seq in range(6):
        up.send(Lane.A, [make.text(Lane.A, seq, f"call-{seq}")])
    await make.until(lambda: site.told.losses)
    await up.close()
    assert site.told.order.count("lost") == 1
    assert site.told.order[-1] == "lost"


@pytest.mark.parametrize("lane", [Lane.A, Lane.B, Lane.C])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_is_of_the_moment_comes_again_later(
    platform: Any, site: Any, make: Any, lane: Lane, status: int
) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(status, "busy"), make)
    events = 3 if lane is Lane.C else 1
    token = up.send(lane, make.texts(lane, events))
    await make.until(lambda: (token, True) in site.told.sent)
    assert outcome(site) == [(AckStatus.RETRY, f"http-{status}", None)] * events
    assert (site.told.losses, len(platform.posts())) == ([], 1)


async def test_a_time_that_was_named_reaches_every_event_of_the_message(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(503, retry_after="7"), make)
    up.send(Lane.C, make.texts(Lane.C, 4))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.RETRY, "http-503", 7.0)] * 4


async def test_an_alarm_that_is_told_to_wait_closes_the_window_until_then(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(429, retry_after="1"), make)
    token = up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (up.window, site.told.sent) == (0, [(token, True)])
    await make.until(lambda: len(site.told.sent) == 2)  # the deliverer is woken
    woken, _ok = site.told.sent[1]
    assert woken != token
    assert up.window == 16


async def test_the_wait_of_an_alarm_goes_on_in_the_next_session_and_ends_there_too(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(429, retry_after="2"), make)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    await up.close()
    await site.open(up, 2)
    assert up.window == 0
    await make.until(lambda: len(site.told.sent) == 2)
    assert up.window == 16


async def test_a_batch_that_is_told_to_wait_keeps_batches_back_and_no_alarm(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(
        lambda asked: make.good(asked) if asked.path.endswith("events") else make.reply(429, retry_after="60"), make
    )
    up.send(Lane.D, make.texts(Lane.D, 2))
    await make.until(lambda: len(site.told.sent) == 1)
    assert up.window == 16
    up.send(Lane.D, make.texts(Lane.D, 2))
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: len(site.told.sent) == 3)
    assert [one.path for one in platform.posts()] == ["/v1/events:batch", "/v1/events"]
    held = [ack for ack in site.told.acks if ack.code == "on hold"]
    assert [ack.status for ack in held] == [AckStatus.RETRY] * 2
    assert all(55 < (ack.retry_after_s or 0) <= 66 for ack in held)
    assert [ack.status for ack in site.told.acks if ack.code == ""] == [AckStatus.ACCEPTED]


async def test_a_short_wait_is_made_here(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    refusals = iter([make.reply(503, retry_after="1")])
    platform.conduct = only_posts(lambda asked: next(refusals, None) or make.good(asked), make)
    up.send(Lane.C, make.texts(Lane.C, 1))
    await make.until(lambda: len(site.told.sent) == 1)
    up.send(Lane.C, make.texts(Lane.C, 1))
    await make.until(lambda: len(site.told.sent) == 2)
    assert [ack.status for ack in site.told.acks] == [AckStatus.RETRY, AckStatus.ACCEPTED]


# Batches that are too big, or hold what the platform refuses.


async def test_a_batch_that_is_too_big_is_halved_until_it_fits_and_that_is_remembered(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda asked: make.good(asked) if len(asked.ids) <= 30 else make.reply(413), make)
    texts = make.texts(Lane.D, 100)
    token = up.send(Lane.D, texts)
    await make.until(lambda: site.told.sent)
    assert site.told.sent == [(token, True)]
    assert [ack.id for ack in site.told.acks] == [json.loads(text)["id"] for text in texts]
    assert {ack.status for ack in site.told.acks} == {AckStatus.ACCEPTED}
    assert [len(one.ids) for one in platform.posts()][:3] == [100, 50, 25]
    before = len(platform.posts())
    up.send(Lane.D, make.texts(Lane.D, 60))
    await make.until(lambda: len(site.told.sent) == 2)
    assert max(len(one.ids) for one in platform.posts()[before:]) < 60


async def test_one_event_that_is_too_big_alone_is_refused(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(413, "<html>too large</html>"), make)
    up.send(Lane.C, make.texts(Lane.C, 2))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.REJECTED, "http-413", None)] * 2
    assert [len(one.ids) for one in platform.posts()] == [2, 1, 1]


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_only_what_the_platform_refuses_is_refused(platform: Any, site: Any, make: Any, status: int) -> None:
    up = await site.opened(platform)
    texts = make.texts(Lane.D, 100)
    bad = {json.loads(texts[17])["id"], json.loads(texts[71])["id"]}
    platform.conduct = only_posts(
        lambda asked: make.reply(status, '{"why": "bad\tunit"}') if bad & set(asked.ids) else make.good(asked), make
    )
    token = up.send(Lane.D, texts)
    await make.until(lambda: site.told.sent)
    assert site.told.sent == [(token, True)]
    refused = [ack for ack in site.told.acks if ack.status is AckStatus.REJECTED]
    assert {(ack.id, ack.code) for ack in refused} == {(one, f'http-{status}: {{"why": "bad unit"}}') for one in bad}
    assert len([ack for ack in site.told.acks if ack.status is AckStatus.ACCEPTED]) == 98
    assert len(platform.posts()) <= 40


@pytest.mark.parametrize(
    ("first", "goes", "comes_again"),
    [
        ("busy", [5], {0: "http-500", 1: "http-500", 2: "http-500", 3: "http-500", 4: "http-500"}),
        ("some", [3, 5], {0: "later", 2: "later", 4: "later"}),
        ("torn", [5], {3: "no answer", 4: "no answer"}),
    ],
)
async def test_nothing_of_a_device_overtakes_what_comes_again_of_the_same_message(
    platform: Any, site: Any, make: Any, first: str, goes: list[int], comes_again: dict[int, str]
) -> None:
    up = await site.opened(platform)
    texts = [make.text(Lane.D, seq, device) for seq, device in enumerate(("m1", "m2", "m1", "m2", "m1", "m3"), start=1)]
    names = [json.loads(text)["id"] for text in texts]
    retry = {"status": "retry", "code": "later", "retry_after_ms": 700}
    answers = {"busy": make.reply(500), "torn": make.reply(200, "{"), "some": make.reply(200, {"results": [
        {"id": names[0], **retry}, {"id": names[1], "status": "accepted"}, {"id": names[2], **retry}]})}  # fmt: skip
    said = {6: make.reply(400), 3: answers[first]}
    platform.conduct = only_posts(lambda asked: said.pop(len(asked.ids), None) or make.good(asked), make)
    up.send(Lane.D, texts)
    await make.until(lambda: site.told.sent)
    assert [one.ids for one in platform.posts()] == [names, names[:3], [names[at] for at in goes]]
    again = [ack for ack in site.told.acks if ack.status is AckStatus.RETRY]
    assert {names.index(ack.id): ack.code for ack in again} == comes_again
    assert {ack.retry_after_s for ack in again} == {0.7 if first == "some" else None}
    before = len(platform.posts())
    up.send(Lane.D, [texts[0]])  # in a message of its own it goes
    await make.until(lambda: len(site.told.sent) == 2)
    assert [one.ids for one in platform.posts()[before:]] == [[names[0]]]


async def test_a_batch_of_nothing_but_refusals_makes_a_bounded_number_of_requests(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    platform.conduct = only_posts(lambda _asked: make.reply(422), make)
    up.send(Lane.D, make.texts(Lane.D, 100))
    await make.until(lambda: site.told.sent)
    assert len(platform.posts()) == 40
    statuses = [ack.status for ack in site.told.acks]
    assert len(statuses) == 100  # each has its answer
    assert statuses.count(AckStatus.REJECTED) >= 15  # and the next turn is shorter
    assert {ack.code for ack in site.told.acks if ack.status is AckStatus.RETRY} == {"not yet sent"}


async def test_a_refused_alarm_says_why_without_repeating_our_credential(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform, authorization=lambda: "Bearer canary-1234")
    platform.conduct = only_posts(
        lambda asked: make.reply(400, f"no room 999; you said {asked.headers['authorization']}"), make
    )
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.REJECTED, "http-400: no room 999; you said Bearer ***", None)]


# Lines that break.


def breaking(number: int, make: Any, *, path: str = "") -> Callable[[Any], Any]:
    """A platform that ends the connection of the first posts without an answer."""
    left = number

    def say(asked: Any) -> bytes:
        nonlocal left
        if asked.method == "POST" and asked.path.endswith(path) and left:
            left -= 1
            asked.writer.transport.abort()
            return b""
        return bytes(make.good(asked))

    return say


@pytest.mark.parametrize("lane", [Lane.A, Lane.B, Lane.C])
async def test_one_broken_connection_costs_no_session(platform: Any, site: Any, make: Any, lane: Lane) -> None:
    up = await site.opened(platform)
    platform.conduct = breaking(1, make)
    up.send(lane, make.texts(lane, 1))
    await make.until(lambda: site.told.sent)
    assert (outcome(site), site.told.losses) == ([(AckStatus.ACCEPTED, "", None)], [])
    first, second = platform.posts()
    assert first.ids == second.ids
    assert first.line != second.line


async def test_an_answer_that_breaks_off_in_its_middle_is_asked_for_again(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    halves = iter([True])

    def half(asked: Any) -> bytes:
        whole = bytes(make.good(asked))
        if not next(halves, False):
            return whole
        asked.writer.write(whole[:-5])
        asked.writer.close()
        return b""

    platform.conduct = only_posts(half, make)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (outcome(site), len(platform.posts())) == ([(AckStatus.ACCEPTED, "", None)], 2)


async def test_a_message_that_always_breaks_comes_again_in_smaller_parts_while_the_path_stands(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    platform.conduct = breaking(99, make, path=":batch")
    token = up.send(Lane.D, make.texts(Lane.D, 100))
    await make.until(lambda: site.told.sent)
    assert (site.told.sent, site.told.losses) == ([(token, True)], [])
    assert outcome(site) == [(AckStatus.RETRY, "connection broke", None)] * 100
    platform.conduct = make.good
    before = len(platform.posts())
    up.send(Lane.D, make.texts(Lane.D, 100))
    await make.until(lambda: len(site.told.sent) == 2)
    assert [len(one.ids) for one in platform.posts()[before:]] == [50, 50]


async def test_an_alarm_that_always_breaks_ends_the_session_at_the_third_time_and_not_before(
    platform: Any, site: Any, make: Any
) -> None:
    """One alarm that a filter on the way cuts off must not keep the others from going."""
    up = await site.opened(platform)
    platform.conduct = breaking(99, make)
    for turn in (1, 2):
        up.send(Lane.A, make.texts(Lane.A, 1))
        await make.until(lambda: len(site.told.acks) == turn)  # noqa: B023 - awaited within the turn
    assert outcome(site) == [(AckStatus.RETRY, "connection broke", None)] * 2
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == "GW-NET-05"


async def test_a_platform_that_goes_away_ends_the_session(platform: Any, site: Any, make: Any) -> None:
    before = make.sockets()
    up = await site.opened(platform)
    await platform.stop()
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == "GW-NET-02"
    assert site.told.order == ["lost"]
    await up.close()
    await make.until(lambda: make.sockets() < before)


async def test_an_alarm_without_an_answer_goes_over_a_fresh_connection_meanwhile(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform, hedge=0.1, alarm=60.0)
    silent = iter([True])
    platform.conduct = only_posts(lambda asked: None if next(silent, False) else make.good(asked), make)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.ACCEPTED, "", None)]
    first, second = platform.posts()
    assert (first.ids, first.line) == (second.ids, 1)
    assert second.line == 2
    await make.until(first.writer.is_closing)  # nobody waits for the other answer any more


async def test_one_dead_connection_makes_the_others_doubtful_and_no_later_alarm_waits_for_them(
    platform: Any, site: Any, make: Any
) -> None:
    """A router on the way has forgotten all of them at once, and tells nobody."""
    # While all three are answered together, however busy the machine is, none of them is asked for a second time.
    up = await site.opened(platform, hedge=60.0, alarm=60.0)
    together = asyncio.Barrier(3)

    async def all_at_once(asked: Any) -> bytes:
        await together.wait()
        return bytes(make.good(asked))

    platform.conduct = only_posts(all_at_once, make)
    for seq in range(3):
        up.send(Lane.A, [make.text(Lane.A, seq, f"call-{seq}")])
    await make.until(lambda: len(site.told.sent) == 3)
    dead = {one.line for one in platform.asked}
    assert len(dead) == 3
    platform.conduct = lambda asked: None if asked.line in dead else make.good(asked)
    up._session._pace = replace(up._session._pace, hedge=0.3)
    for number in (4, 5, 6):
        up.send(Lane.A, make.texts(Lane.A, 1))
        await make.until(lambda: len(site.told.sent) == number)  # noqa: B023 - awaited within the turn
    assert len([one for one in platform.posts()[3:] if one.line in dead]) == 1


async def test_a_slow_answer_to_an_alarm_still_counts_when_the_second_asking_fails(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform, hedge=0.1)
    second = asyncio.Event()

    async def slow_then_broken(asked: Any) -> bytes:
        if len(platform.posts()) > 1:
            asked.writer.transport.abort()
            second.set()
            return b""
        await second.wait()
        return bytes(make.good(asked))

    platform.conduct = only_posts(slow_then_broken, make)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (outcome(site), site.told.losses) == ([(AckStatus.ACCEPTED, "", None)], [])


async def test_alarms_that_nobody_answers_end_the_session_so_that_another_path_may_try(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform, hedge=0.1, alarm=0.4)
    platform.conduct = only_posts(lambda _asked: None, make)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == "GW-NET-05"
    assert (len(platform.posts()), site.told.acks) == (2, [])


async def test_one_alarm_without_an_answer_among_others_comes_again(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform, hedge=0.1, alarm=0.5)
    platform.conduct = only_posts(
        lambda asked: None if asked.content["partitionkey"] == "bad" else make.good(asked), make
    )
    up.send(Lane.A, [make.text(Lane.A, 1, "bad")])
    await make.until(platform.posts)
    up.send(Lane.A, [make.text(Lane.A, 2, "call-2")])
    await make.until(lambda: len(site.told.sent) == 2)
    assert outcome(site) == [(AckStatus.ACCEPTED, "", None), (AckStatus.RETRY, "no answer", None)]
    assert site.told.losses == []


async def test_a_slow_batch_costs_no_session_while_the_sign_of_life_passes(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform, bulk=0.3)
    platform.conduct = only_posts(lambda _asked: None, make)
    up.send(Lane.D, make.texts(Lane.D, 10))
    await make.until(lambda: site.told.sent)
    assert outcome(site) == [(AckStatus.RETRY, "no answer", None)] * 10
    assert site.told.losses == []
    assert platform.puts("state")[0].content["online"] is True


async def test_a_platform_that_answers_nothing_at_all_is_lost(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform, bulk=0.3, probe=0.3, hedge=0.1)
    platform.conduct = lambda _asked: None
    up.send(Lane.D, make.texts(Lane.D, 10))
    await make.until(lambda: site.told.losses)
    assert (site.told.losses[0].code, site.told.order) == ("GW-NET-05", ["lost"])


# The sign of life.


@pytest.mark.parametrize(("status", "code"), [(401, "GW-NET-04"), (404, "GW-NET-06"), (301, "GW-NET-06")])
async def test_a_sign_of_life_that_is_turned_away_ends_the_session(
    platform: Any, site: Any, make: Any, status: int, code: str
) -> None:
    await site.opened(platform, sign_of_life=0.05, jitter=0.0)
    platform.conduct = lambda _asked: make.reply(status)
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == code
    assert len(platform.puts("state")) == 1


async def test_a_platform_that_is_out_of_service_three_times_is_lost(platform: Any, site: Any, make: Any) -> None:
    await site.opened(platform, sign_of_life=0.05, jitter=0.0)
    said = iter([503, 503, 204, 503, 503, 503, 204])
    platform.conduct = lambda _asked: make.reply(next(said))
    await make.until(lambda: site.told.losses)
    assert (site.told.losses[0].code, site.told.losses[0].facts["status"]) == ("GW-PLT-04", 503)
    assert len(platform.puts("state")) == 6


async def test_a_sign_of_life_that_nobody_answers_ends_the_session(platform: Any, site: Any, make: Any) -> None:
    await site.opened(platform, sign_of_life=0.05, jitter=0.0, alarm=0.3, hedge=0.1)
    platform.conduct = lambda _asked: None
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == "GW-NET-05"


async def test_an_idle_session_whose_platform_goes_away_is_lost_before_its_next_sign_of_life(
    platform: Any, site: Any, make: Any
) -> None:
    await site.opened(platform, sign_of_life=60.0, look=0.02, early=0.1)
    await make.until(lambda: len(platform.asked) == 1)
    await platform.stop()
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == "GW-NET-02"


async def test_an_idle_connection_that_is_closed_costs_one_early_sign_of_life_and_no_session(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform, sign_of_life=60.0, look=0.02, early=0.1)
    platform.hang_up()
    await make.until(lambda: len(platform.asked) == 2)
    await asyncio.sleep(0.3)
    assert [one.path for one in platform.asked] == ["/v1/gateways/gw/birth", "/v1/gateways/gw/state"]
    assert site.told.losses == []
    assert up.send(Lane.A, make.texts(Lane.A, 1)) == 1


async def test_a_fault_of_our_own_is_not_silent(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    up.send(Lane.A, ["{}"])  # no event: the deliverer would never hand it over
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].facts["error"].startswith("KeyError")
