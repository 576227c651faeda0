"""The platform over HTTP: real server, real line, and an httpx client that plays the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.platform import District, district
from simulator.platform.answers import Answers
from simulator.platform.http_front import HttpFront
from simulator.platform.ledger import read_ledger

GOLDEN = Path(__file__).parent.parent / "data" / "native"
SOURCE = "urn:eldercare:demo:hanfeng:gw-01"
GATEWAY = "/v1/gateways/gw-01"
ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class PlayedGateway:
    """A gateway's end of the wire: one connection unless several requests are under way."""

    def __init__(self, platform: District) -> None:
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.port}", timeout=30, trust_env=False)

    async def post(self, content: object, *, content_type: str = ONE, **headers: str) -> httpx.Response:
        path = "/v1/events:batch" if content_type == BATCH or isinstance(content, list) else "/v1/events"
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.client.post(path, content=body, headers={"content-type": content_type, **headers})

    async def ask(self, event: object) -> list[dict[str, Any]]:
        answer = await self.post(event)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    async def ask_batch(self, events: object) -> list[dict[str, Any]]:
        answer = await self.post(events, content_type=BATCH)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    async def put(self, what: str, content: object) -> int:
        return (await self.client.put(f"{GATEWAY}/{what}", json=content)).status_code


@contextlib.asynccontextmanager
async def platform_and_gateway(run: Path, **more: Any) -> AsyncIterator[tuple[District, PlayedGateway]]:
    async with district(run, speaks="http", **more) as platform:
        gateway = PlayedGateway(platform)
        try:
            yield platform, gateway
        finally:
            await gateway.client.aclose()


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def numbered(event: dict[str, Any], n: int) -> dict[str, Any]:
    return copy.deepcopy(event) | {"id": uid(n), "sequence": f"{n:020d}", "deliveryseq": f"{n:020d}"}


def alarm(n: int) -> dict[str, Any]:
    return numbered(golden("alarm"), n)


def meter(n: int) -> dict[str, Any]:
    return numbered(golden("telemetry")[0], n)


def uid(n: int) -> str:
    return f"0190a5c0-0000-7000-8000-{n:012x}"


def rows(run: Path) -> list[tuple[str, str, str]]:
    return [(one.id, one.status.value, one.lane) for one in read_ledger(run / "platform-district.jsonl")]


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


# -- decisions ------------------------------------------------------------------------------------------------------


async def test_an_event_is_accepted_answered_and_in_the_ledger_before_the_answer(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert await gateway.ask(golden("alarm")) == [{"id": uid(1), "status": "accepted"}]
        assert rows(tmp_path) == [(uid(1), "accepted", "alarm")]
        assert await gateway.ask(golden("gap")) == [{"id": uid(2), "status": "accepted"}]
        assert await gateway.ask_batch(golden("telemetry")) == [
            {"id": uid(3), "status": "accepted"},
            {"id": uid(4), "status": "accepted"},
        ]
        assert [lane for _, _, lane in rows(tmp_path)] == ["alarm", "event", "telemetry", "telemetry"]
        stats = platform.stats()
        assert (stats["transport"], stats["accepted"], stats["connections"]) == ("http", 4, 1)
        assert (stats["connected"], stats["waiting"], stats["unanswered"]) == (True, 0, 0)
        assert stats["gaps"] == {"events": 1, "deliveryseq_missing": 0, "sequence_missing": 0}
        assert stats["http"]["requests"] == {"alarm": 1, "event": 1, "batch": 1}
        assert stats["http"]["statuses"] == {"200": 3}
        assert "broker" not in stats


async def test_the_same_event_again_is_a_duplicate_also_after_a_restart(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "accepted"}]
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        assert (await gateway.post(b"{")).status_code == 400
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        assert await gateway.ask(alarm(2) | {"id": uid(1)}) == [
            {"id": uid(1), "status": "rejected", "code": "id-reused"}
        ]
        # What nobody has sent belongs to nobody.
        assert list(platform.stats()["gateways"]) == ["demo/hanfeng/gw-01"]


async def test_a_ledger_of_one_transport_is_the_memory_of_another(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        await gateway.ask(alarm(1))
    async with district(tmp_path) as platform:
        assert (platform.stats()["transport"], platform.stats()["accepted"]) == ("mqtt", 1)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ([], "not-an-object"),
        (meter(1), "wrong-lane"),
        ({**alarm(1), "source": "urn:eldercare:demo:hanfeng"}, "bad-source"),
        ({**alarm(1), "deliveryseq": "1"}, "bad-deliveryseq"),
        ({key: value for key, value in alarm(1).items() if key != "deliveryseq"}, "missing-deliveryseq"),
        ({**alarm(1), "type": "cn.eldercare.alarm.unheard.v1"}, "unknown-type"),
    ],
)
async def test_a_malformed_event_is_rejected_with_a_code(tmp_path: Path, event: object, code: str) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        body = json.dumps(event).encode()
        answer = await gateway.client.post("/v1/events", content=body, headers={"content-type": ONE})
        assert (answer.status_code, [one["code"] for one in answer.json()["results"]]) == (200, [code])
        assert [status for _, status, _ in rows(tmp_path)] == ["rejected"]
        assert platform.stats()["rejected"] == 1


async def test_a_batch_takes_telemetry_of_one_gateway_and_never_an_alarm(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        other = meter(3) | {"source": "urn:eldercare:demo:hanfeng:gw-02"}
        assert await gateway.ask_batch([meter(1), alarm(2), other, 5]) == [
            {"id": uid(1), "status": "accepted"},
            {"id": uid(2), "status": "rejected", "code": "wrong-lane"},
            {"id": uid(3), "status": "rejected", "code": "bad-source"},
            {"id": "", "status": "rejected", "code": "not-an-object"},
        ]


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code", "events"),
    [
        (b"{", ONE, 400, "not-json", 1),
        (b"[" * 100_000, ONE, 400, "not-json", 1),
        (b'{"id": NaN}', ONE, 400, "not-json", 1),
        (alarm(1) | {"padding": "x" * 300_000}, ONE, 413, "too-big", 1),
        (b"{}", BATCH, 400, "not-a-batch", 1),
        (b"[]", BATCH, 400, "empty-batch", 1),
        ([meter(n) for n in range(1, 102)], BATCH, 413, "batch-too-big", 101),
        ([meter(1) | {"padding": "x" * 65_536}], BATCH, 413, "batch-too-big", 1),
        (alarm(1), "application/json", 415, "bad-content-type", 1),
        ([meter(1)], ONE, 415, "bad-content-type", 1),
        (alarm(1), "", 415, "bad-content-type", 1),
    ],
)
async def test_a_message_that_is_wrong_as_a_whole_is_refused_and_stands_in_the_ledger(
    tmp_path: Path, content: object, content_type: str, status: int, code: str, events: int
) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        answer = await gateway.post(content, content_type=content_type)
        assert (answer.status_code, answer.json()) == (status, {"error": {"code": code}})
        assert platform.stats()["http"]["refused"] == {code: 1}
        found = list(read_ledger(tmp_path / "platform-district.jsonl"))
        assert [(one.status.value, one.code) for one in found] == [("rejected", code)] * events


async def test_the_content_type_may_carry_a_charset(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        answer = await gateway.post(alarm(1), content_type="Application/CloudEvents+JSON; charset=utf-8")
        assert answer.json() == {"results": [{"id": uid(1), "status": "accepted"}]}


async def test_what_is_not_there_is_404_and_what_is_asked_wrongly_405(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        for path in ("/", "/v1/event", "/v1/events/", "/v1/gateways/GW/birth", "/v1/gateways/gw-01/name"):
            assert (await gateway.client.post(path, content=b"{}")).status_code == 404
        for path, method in (("/v1/events", "POST"), (f"{GATEWAY}/state", "PUT")):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, method)
        assert platform.stats()["http"]["refused"] == {"no-such-path": 5, "wrong-method": 2}
    assert rows(tmp_path) == []


async def test_a_body_of_more_than_a_mebibyte_is_not_read(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        with contextlib.suppress(httpx.WriteError):  # the server hangs up on the rest
            assert (await gateway.post(b" " * 1_048_577)).status_code == 413
        await until(lambda: platform.stats()["http"]["refused"] == {"too-big": 1})
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "accepted"}]


async def test_the_time_is_told(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (_platform, gateway):
        answer = await gateway.client.get("/v1/time")
        assert re.fullmatch(r'\{"time":"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\}', answer.text)


async def test_only_the_right_authorization_is_let_in(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path, authorization="Bearer s3cret") as (platform, gateway):
        assert await gateway.put("birth", {"source": SOURCE, "epoch": 1}) == 401
        answer = await gateway.post(alarm(1), authorization="Bearer other")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (rows(tmp_path), platform.stats()["gateways"]) == ([], {})
        answer = await gateway.post(alarm(1), authorization="Bearer s3cret")
        assert answer.json() == {"results": [{"id": uid(1), "status": "accepted"}]}
        assert platform.stats()["http"]["refused"] == {"unauthorized": 2}


async def test_a_connection_that_carries_alarms_and_other_events_is_counted(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        await gateway.ask_batch([meter(1)])
        await gateway.put("state", {"source": SOURCE, "online": True, "epoch": 1})
        await gateway.client.aclose()
        gateway.client = PlayedGateway(platform).client
        await gateway.ask(alarm(2))
        await gateway.put("state", {"source": SOURCE, "online": True, "epoch": 1})
        await gateway.ask(alarm(3))
        assert platform.stats()["http"]["mixed"] == 0
        await gateway.ask_batch([meter(4)])
        await gateway.ask(alarm(5))
        assert platform.stats()["http"]["mixed"] == 1


# -- who is there -----------------------------------------------------------------------------------------------------


async def test_birth_and_state_tell_who_is_there_and_an_older_epoch_is_ignored(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):

        def seen() -> tuple[bool, int, int, int]:
            one = platform.stats()["gateways"]["demo/hanfeng/gw-01"]
            return one["online"], one["epoch"], one["births"], one["stale_states"]

        assert await gateway.put("birth", {"source": SOURCE, "epoch": 5, "devices": []}) == 204
        assert seen() == (True, 5, 1, 0)
        assert await gateway.put("state", {"source": SOURCE, "online": False, "epoch": 5}) == 204
        assert seen() == (False, 5, 1, 0)
        assert await gateway.put("state", {"source": SOURCE, "online": True, "epoch": 4}) == 204
        assert seen() == (False, 5, 1, 1)
        assert await gateway.put("state", {"source": SOURCE, "online": True, "epoch": 6}) == 204
        assert seen() == (True, 6, 1, 1)
        assert platform.stats()["online"] is True


@pytest.mark.parametrize(
    ("what", "content", "status", "code"),
    [
        ("birth", {"epoch": 1}, 400, "bad-source"),
        ("birth", {"epoch": 1, "source": "urn:eldercare:demo:hanfeng:gw-02"}, 400, "bad-source"),
        ("birth", [], 400, "bad-source"),
        ("birth", {"source": SOURCE}, 400, "bad-birth"),
        ("state", {"source": SOURCE, "epoch": 1}, 400, "bad-state"),
        ("state", {"source": SOURCE, "epoch": True, "online": True}, 400, "bad-state"),
        ("state", b"{", 400, "bad-source"),
        ("state", None, 415, "bad-content-type"),
    ],
)
async def test_a_birth_or_state_that_says_nothing_is_refused(
    tmp_path: Path, what: str, content: object, status: int, code: str
) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "text/plain" if content is None else "application/json"
        answer = await gateway.client.put(f"{GATEWAY}/{what}", content=body, headers={"content-type": kind})
        assert (answer.status_code, answer.json()) == (status, {"error": {"code": code}})
        assert platform.stats()["online"] is False


# -- the same conduct as over MQTT --------------------------------------------------------------------------------------


async def test_refusing_and_rejecting_are_told_per_event(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.refuse(retry_after_ms=1500)
        expected = {"status": "retry", "code": "refusing", "retry_after_ms": 1500}
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), **expected}]
        platform.conduct.accept()
        platform.conduct.reject(types=["telemetry.*"], code="not-my-district")
        assert await gateway.ask_batch([meter(2)]) == [{"id": uid(2), "status": "rejected", "code": "not-my-district"}]
        platform.conduct.double_acks(on=True)
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "accepted"}] * 2


async def test_a_lost_answer_leaves_the_event_accepted(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.mute()
        with pytest.raises(httpx.ReadTimeout):
            await gateway.client.post("/v1/events", json=alarm(1), headers={"content-type": ONE}, timeout=0.2)
        assert rows(tmp_path) == [(uid(1), "accepted", "alarm")]
        platform.conduct.mute(0)
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        assert platform.stats()["unanswered"] == 1


async def test_a_forgotten_message_is_neither_stored_nor_answered(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.forget()
        with pytest.raises(httpx.ReadTimeout):
            await gateway.client.post("/v1/events", json=alarm(1), headers={"content-type": ONE}, timeout=0.2)
        platform.conduct.remember()
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "accepted"}]
        assert [status for _, status, _ in rows(tmp_path)] == ["forgotten", "accepted"]


async def test_a_stalled_application_answers_everything_when_released(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.stall()
        asking = [asyncio.create_task(gateway.ask(alarm(n))) for n in (1, 2, 3)]
        birth = asyncio.create_task(gateway.put("birth", {"source": SOURCE, "epoch": 1}))
        await until(lambda: platform.stats()["waiting"] == 4)
        assert (rows(tmp_path), platform.stats()["online"]) == ([], False)
        platform.conduct.unstall()
        assert [one[0]["status"] for one in await asyncio.gather(*asking)] == ["accepted"] * 3
        assert await birth == 204


async def test_who_has_left_is_decided_on_all_the_same(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.stall()
        asking = asyncio.create_task(gateway.ask(alarm(1)))
        await until(lambda: platform.stats()["waiting"] == 1)
        asking.cancel()
        await until(lambda: platform.stats()["connections"] == 0)
        platform.conduct.unstall()
        await until(lambda: rows(tmp_path) == [(uid(1), "accepted", "alarm")])
        await until(lambda: platform.stats()["unanswered"] == 1)


async def test_a_slow_application_is_slow_for_each_by_itself(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.slow(60_000)
        late = asyncio.create_task(gateway.ask_batch([meter(1)]))
        await until(lambda: platform.stats()["waiting"] == 1)
        platform.conduct.slow(0)
        assert await gateway.ask(alarm(2)) == [{"id": uid(2), "status": "accepted"}]
        assert platform.stats()["waiting"] == 1
        late.cancel()


# -- bad answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 408, 413, 429, 500, 503])
async def test_a_status_is_answered_as_often_as_told_and_nothing_is_decided(tmp_path: Path, status: int) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        faults = platform.front.operations()
        faults["answer"](how=status, n=2, retry_after=7)
        for _ in range(2):
            answer = await gateway.post(alarm(1))
            assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
        assert rows(tmp_path) == []
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "accepted"}]


async def test_a_status_can_come_after_the_decision(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["answer"](how=502, decided=True)
        assert (await gateway.post(alarm(1))).status_code == 502
        assert rows(tmp_path) == [(uid(1), "accepted", "alarm")]
        platform.front.operations()["answer_well"]()
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "duplicate"}]


async def test_a_fault_strikes_only_the_kinds_that_it_is_for(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["answer"](how=503, on=["alarm", "birth"], n=2)
        assert (await gateway.post(golden("gap"))).status_code == 200
        assert (await gateway.post([meter(3)], content_type=BATCH)).status_code == 200
        assert await gateway.put("state", {"source": SOURCE, "online": True, "epoch": 1}) == 204
        assert (await gateway.post(alarm(1))).status_code == 503
        assert await gateway.put("birth", {"source": SOURCE, "epoch": 1}) == 503
        assert (await gateway.post(alarm(1))).status_code == 200


@pytest.mark.parametrize(
    ("how", "status", "body", "stored"),
    [
        (202, 202, "", 2),
        ("bare", 200, "", 2),
        ("garbage", 200, '{"results":[{"id":"0190a5c0-', 2),
        ("page", 200, None, 0),
        ("partial", 200, f'{{"results":[{{"id":"{uid(1)}","status":"accepted"}}]}}', 2),
        (
            "foreign",
            200,
            '{"results":[{"id":"0190a5c0-ffff-7fff-bfff-ffffffffffff","status":"accepted"}]}',
            2,
        ),
        ("redirect", 307, "", 0),
    ],
)
async def test_answers_can_say_less_than_they_should(
    tmp_path: Path, how: int | str, status: int, body: str | None, stored: int
) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["answer"](how=how, n=1)
        answer = await gateway.post([meter(1), meter(2)], content_type=BATCH)
        assert answer.status_code == status
        assert answer.text == body or (body is None and answer.headers["content-type"] == "text/html")
        assert answer.headers.get("location") == ("/v1/elsewhere" if how == "redirect" else None)
        assert len(rows(tmp_path)) == stored
        assert platform.stats()["http"]["statuses"] == {str(status): 1}


async def test_a_bare_answer_can_be_a_lie(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["answer"](how="bare", decided=False)
        assert (await gateway.post(alarm(1))).status_code == 200
        assert rows(tmp_path) == []


@pytest.mark.parametrize(("how", "error"), [("close", "without sending"), ("half", "without sending complete")])
async def test_a_connection_can_end_before_or_within_the_answer(tmp_path: Path, how: str, error: str) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["answer"](how=how, n=1)
        with pytest.raises(httpx.RemoteProtocolError, match=error):
            await gateway.post(alarm(1))
        assert rows(tmp_path) == [(uid(1), "accepted", "alarm")]
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "duplicate"}]
        assert platform.stats()["unanswered"] == 1


async def test_silence_on_batches_leaves_alarms_heard(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["answer"](how="silent", on=["batch"])
        waiting = asyncio.create_task(gateway.ask_batch([meter(1)]))
        await until(lambda: rows(tmp_path) == [(uid(1), "accepted", "telemetry")])
        assert await gateway.ask(alarm(2)) == [{"id": uid(2), "status": "accepted"}]
        assert not waiting.done()
        waiting.cancel()


async def test_what_is_too_long_for_a_lowered_limit_is_413_and_undecided(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.front.operations()["limit"](bytes=4_000)
        assert (await gateway.post([meter(n) for n in range(1, 11)], content_type=BATCH)).status_code == 413
        assert rows(tmp_path) == []
        assert len(await gateway.ask_batch([meter(1), meter(2)])) == 2
        platform.front.operations()["answer_well"]()
        assert len(await gateway.ask_batch([meter(n) for n in range(1, 11)])) == 10


@pytest.mark.parametrize(
    "arguments",
    [
        {"how": 100}, {"how": 600}, {"how": True}, {"how": "oddly"}, {"how": None}, {"how": 503, "n": -1},
        {"how": 503, "on": []}, {"how": 503, "on": ["moon"]}, {"how": 503, "on": "alarm"}, {"how": 503, "decided": 1},
    ],
)  # fmt: skip
def test_a_fault_that_does_not_exist_is_refused(arguments: dict[str, Any]) -> None:
    answers = Answers()
    with pytest.raises(ValueError, match=r"how =|n =|on =|decided ="):
        answers.answer(**arguments)
    assert answers.stats() == {"limit_bytes": 0, "faults": {}}


def test_what_is_switched_on_is_told() -> None:
    answers = Answers()
    answers.answer("bare", on=["event"], n=1)
    answers.answer(429, on=["batch"])
    answers.limit(512)
    assert answers.stats() == {
        "limit_bytes": 512,
        "faults": {
            "event": {"how": "bare", "decided": True, "left": 1},
            "batch": {"how": 429, "decided": False, "left": None},
        },
    }
    assert answers.take("event") is not None
    assert answers.take("event") is None
    assert list(answers.stats()["faults"]) == ["batch"]


# -- the line, and the end ------------------------------------------------------------------------------------------------


async def test_a_cut_line_resets_and_refuses_and_heals(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.stall()
        asking = asyncio.create_task(gateway.ask(alarm(1)))
        await until(lambda: platform.stats()["waiting"] == 1)
        await platform.link.cut()
        with pytest.raises(httpx.ReadError):
            await asking
        with pytest.raises(httpx.ConnectError):
            await gateway.ask(alarm(1))
        platform.link.heal()
        platform.conduct.unstall()
        await until(lambda: rows(tmp_path) == [(uid(1), "accepted", "alarm")])
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "duplicate"}]


async def test_a_stalled_line_holds_a_request_back(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.link.stall()
        asking = asyncio.create_task(gateway.ask(alarm(1)))
        await until(lambda: platform.stats()["connections"] == 1)
        assert platform.stats()["http"]["requests"] == {}
        platform.link.unstall()
        assert await asking == [{"id": uid(1), "status": "accepted"}]


async def test_a_platform_that_ends_says_nothing_to_whom_it_owes_an_answer(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        platform.conduct.mute()
        asking = asyncio.create_task(gateway.post(alarm(1)))
        await until(lambda: platform.stats()["unanswered"] == 1)
        await platform.front._server._server.end()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await asking


async def test_a_platform_that_cannot_write_its_ledger_ends_and_answers_nothing_well(tmp_path: Path) -> None:
    async def fill_the_disk() -> None:
        async with platform_and_gateway(tmp_path) as (platform, gateway):
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, platform.application._ledger._file.fileno())
            os.close(full)
            with contextlib.suppress(httpx.HTTPError):
                assert (await gateway.post(alarm(1))).status_code == 500
            await asyncio.sleep(10)

    with pytest.raises(OSError, match="No space left"):
        await fill_the_disk()


async def test_a_batch_with_an_event_that_is_never_accepted_is_400_whole_until_that_event_comes_alone(
    tmp_path: Path,
) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert await gateway.ask_batch([meter(1)]) == [{"id": uid(1), "status": "accepted"}]
        platform.conduct.poison()
        assert (await gateway.post([meter(1), meter(2), meter(3)], content_type=BATCH)).status_code == 400
        assert rows(tmp_path) == [(uid(1), "accepted", "telemetry")]
        assert await gateway.ask_batch([meter(1), meter(3)]) == [
            {"id": uid(1), "status": "duplicate"},
            {"id": uid(3), "status": "accepted"},
        ]
        assert (await gateway.post([meter(2)], content_type=BATCH)).status_code == 400
        assert (await gateway.post([meter(2)], content_type=BATCH)).status_code == 400
        assert [status for name, status, _ in rows(tmp_path) if name == uid(2)] == ["rejected", "rejected"]
        assert await gateway.ask(alarm(4)) == [{"id": uid(4), "status": "accepted"}]


async def test_a_business_error_is_a_200_that_decides_nothing(tmp_path: Path) -> None:
    async with platform_and_gateway(tmp_path) as (platform, gateway):
        assert isinstance(platform.front, HttpFront)
        platform.front.answers.answer("business", n=1)
        answer = await gateway.post(alarm(1))
        assert (answer.status_code, answer.json()["code"], rows(tmp_path)) == (200, 50013, [])
        assert await gateway.ask(alarm(1)) == [{"id": uid(1), "status": "accepted"}]
