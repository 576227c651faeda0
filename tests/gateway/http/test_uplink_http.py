"""The native profile over HTTP against a platform that works: places, birth, signs of life, alarms beside batches."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from gateway.errors import SecretError, SessionError
from gateway.events import Lane
from gateway.uplinks import AckStatus, http_lines


async def test_a_session_is_announced_and_its_end_too(platform: Any, site: Any) -> None:
    up = await site.opened(platform)
    birth = platform.asked[0]
    assert (birth.method, birth.path) == ("PUT", "/v1/gateways/gw/birth")
    assert birth.headers["content-type"] == "application/json"
    assert birth.content == {
        "epoch": 1, "source": "urn:eldercare:org:site:gw", "gateway": "gw", "rooms": [{"id": "201"}],
    }  # fmt: skip
    await up.close()
    goodbye = platform.asked[1]
    assert (goodbye.method, goodbye.path) == ("PUT", "/v1/gateways/gw/state")
    assert goodbye.content == {"online": False, "epoch": 1, "source": "urn:eldercare:org:site:gw"}
    assert (len(platform.asked), platform.lines, site.told.order) == (2, 1, [])


async def test_events_go_to_their_places_by_lane_and_each_is_acknowledged(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    messages = [(lane, make.texts(lane, 1 if lane < Lane.C else 3)) for lane in Lane]
    tokens = [up.send(lane, texts) for lane, texts in messages]
    await make.until(lambda: len(site.told.sent) == 4)
    assert sorted(site.told.sent) == [(token, True) for token in tokens]
    assert len(set(tokens)) == 4
    ids = [json.loads(text)["id"] for _lane, texts in messages for text in texts]
    assert {ack.id for ack in site.told.acks} == set(ids)
    assert {ack.status for ack in site.told.acks} == {AckStatus.ACCEPTED}
    posts = {one.ids[0]: one for one in platform.posts()}
    single, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
    assert [(posts[ids[n]].path, posts[ids[n]].headers["content-type"]) for n in (0, 1, 2, 5)] == [
        ("/v1/events", single), ("/v1/events", single), ("/v1/events:batch", batch), ("/v1/events:batch", batch),
    ]  # fmt: skip
    assert posts[ids[0]].body.decode() == messages[0][1][0]
    assert posts[ids[2]].ids == ids[2:5]


async def test_the_decisions_are_told_before_the_arrival(platform: Any, site: Any, make: Any) -> None:
    """A destination that finishes at L1 takes an arrival for an acceptance of everything that is not decided."""
    up = await site.opened(platform)
    platform.conduct = lambda asked: make.results(asked.ids, "rejected", code="schema")
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert site.told.order == ["acks", "sent"]
    assert (site.told.acks[0].status, site.told.acks[0].code) == (AckStatus.REJECTED, "schema")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_bare_success_is_an_arrival_and_no_acceptance(platform: Any, site: Any, make: Any, status: int) -> None:
    up = await site.opened(platform)
    platform.conduct = lambda _asked: make.reply(status)
    token = up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (site.told.sent, site.told.acks, up.unreadable_answers) == ([(token, True)], [], 0)


async def test_results_that_miss_an_event_leave_it_undecided(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.conduct = lambda asked: make.results([*asked.ids[:2], "a-stranger"])
    texts = make.texts(Lane.C, 3)
    up.send(Lane.C, texts)
    await make.until(lambda: site.told.sent)
    assert [ack.id for ack in site.told.acks] == [json.loads(text)["id"] for text in texts[:2]]
    assert up.unreadable_answers == 1


@pytest.mark.parametrize(
    "body",
    [b"<html>it works</html>", b"\x00\xff", b'{"results":7}', b'{"results":[7]}', b"[" * 5000],
    ids=["html", "bytes", "shape", "entry", "deep"],
)  # fmt: skip
async def test_garbage_in_an_answer_is_counted_and_the_rest_goes_on(
    platform: Any, site: Any, make: Any, body: bytes
) -> None:
    up = await site.opened(platform)
    platform.conduct = lambda _asked: make.reply(200, body)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (site.told.acks, up.unreadable_answers) == ([], 1)
    platform.conduct = make.good
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)


async def test_an_answer_without_end_is_not_read_to_its_end(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    written = 0

    async def flood(asked: Any) -> bytes:
        nonlocal written
        asked.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while written < 64 * 1024 * 1024:
            asked.writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            written += 0x10000
            await asked.writer.drain()
        return b""

    platform.conduct = flood
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (site.told.acks, up.unreadable_answers) == ([], 1)
    assert written < 16 * 1024 * 1024


async def test_an_answer_that_is_packed_is_not_unpacked(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.conduct = lambda _asked: make.reply(200, b"\x1f\x8b\x08", content_encoding="gzip")
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.sent)
    assert (site.told.acks, up.unreadable_answers) == ([], 1)
    assert platform.posts()[0].headers["accept-encoding"] == "identity"


# Alarms.


async def test_a_press_does_not_wait_behind_a_slow_batch(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    release = asyncio.Event()

    async def slow_batches(asked: Any) -> bytes:
        if asked.path.endswith(":batch"):
            await release.wait()
        return make.good(asked)

    platform.conduct = slow_batches
    batch = [up.send(Lane.D, make.texts(Lane.D, 100)) for _ in range(3)]
    await make.until(lambda: len(platform.posts()) == 3)
    presses = [up.send(Lane.A, [make.text(Lane.A, seq, f"call-{seq}")]) for seq in range(5)]
    await make.until(lambda: len(site.told.sent) == 5)
    assert sorted(token for token, _ok in site.told.sent) == presses
    release.set()
    await make.until(lambda: len(site.told.sent) == 8)
    assert {token for token, _ok in site.told.sent[5:]} == set(batch)


async def test_alarms_go_beside_each_other(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    together = asyncio.Barrier(6)

    async def all_at_once(asked: Any) -> bytes:
        if asked.method == "POST":
            await together.wait()
        return make.good(asked)

    platform.conduct = all_at_once
    for seq in range(6):
        up.send(Lane.A, [make.text(Lane.A, seq, f"call-{seq}")])
    await make.until(lambda: len(site.told.acks) == 6)


async def test_the_first_press_finds_the_connection_open_and_batches_do_not_use_it(
    platform: Any, site: Any, make: Any
) -> None:
    up = await site.opened(platform)
    birth_line = platform.asked[0].line
    up.send(Lane.C, make.texts(Lane.C, 3))
    await make.until(lambda: len(site.told.sent) == 1)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: len(site.told.sent) == 2)
    batch, press = platform.posts()
    assert press.line == birth_line
    assert batch.line != birth_line
    assert platform.lines == 2


async def test_signs_of_life_keep_the_connection_of_the_alarms_open(platform: Any, site: Any, make: Any) -> None:
    await site.opened(platform, sign_of_life=0.1, jitter=0.02)
    await make.until(lambda: len(platform.puts("state")) >= 3)
    assert {one.line for one in platform.asked} == {1}
    assert platform.puts("state")[0].content == {"online": True, "epoch": 1, "source": "urn:eldercare:org:site:gw"}


async def test_connections_of_a_burst_are_let_go_when_they_are_not_used_again(
    platform: Any, site: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_lines, "IDLE_S", 0.3)
    up = await site.opened(platform, sign_of_life=0.2, jitter=0.0)
    together = asyncio.Barrier(3)

    async def all_at_once(asked: Any) -> bytes:
        if asked.method == "POST":
            await together.wait()
        return bytes(make.good(asked))

    platform.conduct = all_at_once
    for seq in range(3):
        up.send(Lane.A, [make.text(Lane.A, seq, f"call-{seq}")])
    await make.until(lambda: len(site.told.sent) == 3)
    burst = platform.posts()
    await make.until(lambda: sum(one.writer.is_closing() for one in burst) >= 2)
    assert site.told.losses == []


async def test_a_connection_that_was_closed_while_it_waited_costs_nothing(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.hang_up()
    await asyncio.sleep(0.05)  # so that the end has arrived; the test below does without
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    assert (site.told.losses, len(platform.posts())) == ([], 1)


# Addresses.


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/v1/events"),
        ("/", "/v1/events"),
        ("/care/in", "/care/in/v1/events"),
        ("/开州区 一", "/%E5%BC%80%E5%B7%9E%E5%8C%BA%20%E4%B8%80/v1/events"),
        ("/a%2Fb", "/a%2Fb/v1/events"),
    ],
)
async def test_a_base_path_is_kept_and_encoded_once(platform: Any, site: Any, make: Any, base: str, path: str) -> None:
    up = site.uplink(f"http://127.0.0.1:{platform.port}{base}")
    await site.open(up)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    assert platform.posts()[0].path == path
    assert platform.asked[0].path == path.replace("events", "gateways/gw/birth")


async def test_an_ipv6_address_is_reached(serving: Any, site: Any, make: Any) -> None:
    platform = await serving(host="::1")
    up = site.uplink(f"http://[::1]:{platform.port}")
    await site.open(up)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    assert platform.asked[0].headers["host"] == f"[::1]:{platform.port}"


async def test_nothing_of_the_environment_leads_the_events_elsewhere(
    platform: Any, serving: Any, site: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await serving()
    for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    up = await site.opened(platform)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    assert (proxy.lines, proxy.heard) == (0, 0)


async def test_text_beyond_ascii_arrives_as_it_was(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    up.send(Lane.A, [make.text(Lane.A, 1, place="二楼东一 ✓")])
    up.send(Lane.C, [make.text(Lane.C, 2, place="三楼")])
    await make.until(lambda: len(site.told.acks) == 2)
    assert {one.path: one.content for one in platform.posts()}["/v1/events"]["data"]["place"] == "二楼东一 ✓"


async def test_a_platforms_cookie_is_not_kept(platform: Any, site: Any, make: Any) -> None:
    up = await site.opened(platform)
    platform.conduct = lambda asked: make.good(asked).replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)
    for turn in (1, 2):
        up.send(Lane.A, make.texts(Lane.A, 1))
        await make.until(lambda: len(site.told.acks) == turn)  # noqa: B023 - awaited within the turn
    assert [one.line for one in platform.asked] == [1, 1, 1]
    assert all("cookie" not in one.headers for one in platform.asked)


# Credentials.


async def test_every_request_carries_the_credential_which_is_asked_anew_for_each_session(
    platform: Any, site: Any, make: Any
) -> None:
    tokens = iter(["Bearer one", "Bearer two"])
    up = site.uplink(f"http://127.0.0.1:{platform.port}", authorization=lambda: next(tokens))
    for epoch in (1, 2):
        await site.open(up, epoch)
        up.send(Lane.A, make.texts(Lane.A, 1))
        up.send(Lane.C, make.texts(Lane.C, 2))
        await make.until(lambda: len(site.told.sent) == 2 * epoch)  # noqa: B023 - awaited within the turn
        await up.close()
    said = [one.headers["authorization"] for one in platform.asked]
    assert said == ["Bearer one"] * 4 + ["Bearer two"] * 4


async def test_reading_a_credential_does_not_hold_up_the_loop(platform: Any, site: Any) -> None:
    turns = 0

    def slow() -> str:
        nonlocal turns
        before = turns
        while turns < before + 3:
            time.sleep(0.005)
        return "Bearer slow"

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    turning = asyncio.create_task(turn())
    await site.open(site.uplink(f"http://127.0.0.1:{platform.port}", authorization=slow))
    turning.cancel()
    assert platform.asked[0].headers["authorization"] == "Bearer slow"


async def test_a_credential_that_cannot_be_had_is_a_login_that_fails(platform: Any, site: Any) -> None:
    def missing() -> str:
        raise SecretError("GW-CFG-21", "credential:token", path="/run/credentials/token", reason="@hint.missing")

    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}", authorization=missing))
    assert (error.code, error.facts["error"]) == ("GW-NET-04", "GW-CFG-21 /run/credentials/token")
    assert platform.asked == []


async def test_a_credential_that_can_no_longer_be_read_is_the_last_that_was(
    platform: Any, site: Any, make: Any
) -> None:
    told: list[str] = ["Bearer one"]

    def once() -> str:
        if not told:
            raise SecretError("GW-CFG-21", "file:/pw", path="/pw", reason="@hint.empty")
        return told.pop()

    up = site.uplink(f"http://127.0.0.1:{platform.port}", authorization=once)
    for epoch in (1, 2):
        await site.open(up, epoch)
        await up.close()
    assert {one.headers["authorization"] for one in platform.asked} == {"Bearer one"}
    platform.conduct = lambda _asked: make.reply(401)
    error = await site.refused(up)
    assert (error.code, error.facts["error"], error.facts["status"]) == (
        "GW-NET-04", "HTTP 401; logged in with what was read earlier: GW-CFG-21 /pw", 401,
    )  # fmt: skip


@pytest.mark.parametrize(
    "credential",
    ["Bearer canary\r\nX-Evil: 1", "Bearer canary\n", "Bearer cänary", " canary", "Bearer canary ", "Bearer "],
)
async def test_a_credential_that_no_header_carries_is_refused_without_being_told(
    platform: Any, site: Any, credential: str
) -> None:
    error = await site.refused(site.uplink(f"http://127.0.0.1:{platform.port}", authorization=lambda: credential))
    assert error.code == "GW-NET-04"
    assert "nary" not in f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert platform.asked == []


async def test_a_credential_that_is_never_read_to_its_end_holds_nothing_up(platform: Any, site: Any) -> None:
    def hanging() -> str:
        time.sleep(0.5)
        return "Bearer late"

    up = site.uplink(f"http://127.0.0.1:{platform.port}", authorization=hanging, open=0.1)
    assert (await site.refused(up)).code == "GW-NET-04"


# Life.


async def test_the_same_uplink_opens_again_and_tokens_are_for_its_session(platform: Any, site: Any, make: Any) -> None:
    up = site.uplink(f"http://127.0.0.1:{platform.port}")
    for epoch in (1, 2, 3):
        await site.open(up, epoch)
        up.send(Lane.A, make.texts(Lane.A, 1))
        await make.until(lambda: len(site.told.acks) == epoch)  # noqa: B023 - awaited within the turn
        await up.close()
    assert [one.content["epoch"] for one in platform.puts("birth")] == [1, 2, 3]
    assert [one.content["online"] for one in platform.puts("state")] == [False] * 3


async def test_what_is_under_way_when_it_is_closed_is_given_up_without_a_word(
    platform: Any, site: Any, make: Any
) -> None:
    before = make.sockets()
    up = await site.opened(platform)
    platform.conduct = lambda asked: make.good(asked) if asked.method == "PUT" else None
    for seq in range(8):
        up.send(Lane.A, [make.text(Lane.A, seq, f"call-{seq}")])
    up.send(Lane.D, make.texts(Lane.D, 100))
    await make.until(lambda: len(platform.posts()) == 9)
    await up.close()
    assert site.told.order == []
    with pytest.raises(SessionError):
        up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: make.sockets() == before)
    assert platform.puts("state")[-1].content["online"] is False


async def test_closing_does_not_wait_for_a_platform_that_says_nothing(platform: Any, site: Any, make: Any) -> None:
    before = make.sockets()
    up = await site.opened(platform, goodbye=0.1)
    platform.conduct = lambda _asked: None
    await up.close()
    await up.close()
    await make.until(lambda: make.sockets() == before)


async def test_given_up_while_opening_it_leaves_nothing_behind(platform: Any, site: Any, make: Any) -> None:
    before = make.sockets()
    platform.conduct = lambda _asked: None
    up = site.uplink(f"http://127.0.0.1:{platform.port}")
    opening = asyncio.create_task(site.open(up))
    await make.until(lambda: platform.asked)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await make.until(lambda: make.sockets() == before)
    assert [one.method for one in platform.asked] == ["PUT"]


async def test_before_a_session_there_is_a_window_but_no_sending(platform: Any, site: Any, make: Any) -> None:
    up = site.uplink(f"http://127.0.0.1:{platform.port}")
    assert (up.window, up.max_bytes) == (16, 1_048_576)
    with pytest.raises(SessionError) as caught:
        up.send(Lane.A, make.texts(Lane.A, 1))
    assert caught.value.code == "GW-NET-05"


async def test_a_gateway_has_its_own_time_for_signs_of_life(platform: Any, site: Any, make: Any) -> None:
    """The phase is the source's CRC-32 as a fraction of the period: 0.789 of it for this one."""
    began = time.monotonic()
    await site.opened(platform, sign_of_life=0.5, jitter=0.0)
    await make.until(lambda: platform.puts("state"))
    assert time.monotonic() - began >= 0.789 * 0.5
