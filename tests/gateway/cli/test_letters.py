"""Dead letters at the command line, against a control server of the test's own: the wire is the contract."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

EVENT = "0197c1de-4a2b-7c3d-8e4f-5a6b7c8d9e0f"
LETTER: dict[str, Any] = {
    "destination": "district", "sequence": 42, "id": EVENT, "type": "alarm.raised", "device": "call-201-1", "code": "E7",
    "reason": "unknown room", "at": "2026-03-01T08:00:00.000Z",
}  # fmt: skip
Answer = Callable[[dict[str, Any]], object]


@asynccontextmanager
async def daemon(folder: Path, *answers: object) -> AsyncIterator[tuple[Path, list[dict[str, Any]]]]:
    requests: list[dict[str, Any]] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(json.loads(await reader.readline()))
        writer.write(json.dumps({"ok": True, "result": left.pop(0)}, ensure_ascii=False).encode() + b"\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, folder / "control.sock"):
        yield folder / "control.sock", requests


async def gateway(*words: object) -> tuple[int, str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *map(str, words),
        env={**kept, "TZ": "Asia/Shanghai", "DAYCARE_GATEWAY_CONFIG": "/nonexistent/gateway.toml"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_they_are_listed_with_their_reasons_and_how_many_there_are(tmp_path: Path) -> None:
    answer = {"counts": {"district": 7, "street": 0}, "dead": [LETTER]}
    async with daemon(tmp_path, answer, answer, answer) as (socket, requests):
        status, out, err = await gateway("outbox", "dead", "--control", socket)
        english = await gateway("outbox", "dead", "--control", socket, "--lang", "en", "--destination", "district")
        as_json = await gateway("outbox", "dead", "--json", "--control", socket)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "  平台      序号  类型          设备        代码  原因          时间                 编号",
        f"  district  42    alarm.raised  call-201-1  E7    unknown room  2026-03-01 16:00:00  {EVENT}",
        "district：共 7 条",
        "street：共 0 条",
        "只显示最新的 1 条",
    ]
    assert english[1].splitlines()[2:] == ["district: 7 in all", "street: 0 in all", "the newest 1 are shown"]
    assert json.loads(as_json[1]) == answer
    assert requests[0] == {"op": "outbox.dead", "destination": ""}
    assert requests[1] == {"op": "outbox.dead", "destination": "district"}


async def test_that_there_are_none_is_said(tmp_path: Path) -> None:
    async with daemon(tmp_path, {"counts": {"district": 0}, "dead": []}) as (socket, _):
        assert await gateway("outbox", "dead", "--control", socket) == (0, "没有死信\n", "")


async def test_one_is_shown_whole(tmp_path: Path) -> None:
    event = {"id": EVENT, "data": {"kind": "call", "note": "房间\x1b[2J"}}
    async with daemon(tmp_path, [{**LETTER, "event": event}]) as (socket, requests):
        status, out, _ = await gateway("outbox", "show", "0197c1de", "--control", socket)
    assert status == 0
    assert out.splitlines()[0] == "district 于 2026-03-01 16:00:00 拒收，序号 42：E7（unknown room）"
    assert json.loads("\n".join(out.splitlines()[1:])) == event
    assert "\x1b" not in out
    assert requests == [{"op": "outbox.show", "id": "0197c1de", "destination": ""}]


async def test_one_goes_again(tmp_path: Path) -> None:
    async with daemon(tmp_path, {"requeued": 1, "left": 0, "upto": None}) as (socket, requests):
        assert await gateway("outbox", "requeue", EVENT, "--control", socket) == (0, "1 条重新发送\n", "")
    assert requests == [{"op": "outbox.requeue", "id": EVENT, "all": False, "destination": "", "upto": None}]


async def test_all_of_a_platform_go_again_in_as_many_requests_as_it_takes(tmp_path: Path) -> None:
    answers = [{"requeued": 500, "left": 20, "upto": 900}, {"requeued": 20, "left": 0, "upto": 900}]
    async with daemon(tmp_path, *answers) as (socket, requests):
        ran = await gateway("outbox", "requeue", "--all", "--destination", "district", "--control", socket)
    assert ran == (0, "520 条重新发送\n", "")
    assert [(one["all"], one["upto"]) for one in requests] == [(True, None), (True, 900)]


async def test_what_could_not_be_queued_is_said(tmp_path: Path) -> None:
    async with daemon(tmp_path, *[{"requeued": 0, "left": 4, "upto": 9}] * 3) as (socket, requests):
        ran = await gateway("outbox", "requeue", "--all", "--destination", "d", "--control", socket, "--lang", "en")
    assert (ran[0], len(requests)) == (3, 3)
    assert ran[1].splitlines() == [
        "nothing to send again", "4 still wait to be sent again: write the command once more",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--all"], [EVENT, "--all", "--destination", "d"]])
async def test_what_is_meant_must_be_said(tmp_path: Path, words: list[str]) -> None:
    async with daemon(tmp_path) as (socket, requests):
        ran = await gateway("outbox", "requeue", *words, "--control", socket)
    assert ran == (3, "", "请写事件编号，或写 --all 和 --destination\n")
    assert requests == []


async def test_without_a_daemon_it_says_how_to_start_it(tmp_path: Path) -> None:
    for words in (["dead"], ["show", EVENT], ["requeue", EVENT]):
        status, out, err = await gateway("outbox", *words, "--control", tmp_path / "none.sock", "--lang", "en")
        assert (status, out) == (3, "")
        assert "GW-CTL-01" in err
        assert "systemctl" in err


async def test_a_range_goes_again_and_what_is_no_longer_kept_is_said(tmp_path: Path) -> None:
    answer = {"stream": "s", "destination": "district", "from": 1, "to": 9, "replayed": 3, "missing": [[1, 4], [6, 6]]}
    words = ("outbox", "replay", "--destination", "district", "--from", "1", "--to", "9")
    async with daemon(tmp_path, answer, {**answer, "missing": []}) as (socket, requests):
        partly = await gateway(*words, "--control", socket)
        whole = await gateway(*words, "--control", socket, "--lang", "en")
    assert partly == (1, "3 条再次发给 district，编号和序号不变\n已不在库里：1-4, 6\n", "")
    assert whole == (0, "3 events go to district again, with their ids and numbers\n", "")
    assert requests[0] == {"op": "outbox.replay", "destination": "district", "from": 1, "to": 9}
