"""The staff and the control client against a real Unix socket that answers as a gateway does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from simulator.control_client import NoAnswer, Refused, ask
from simulator.staff import Staff


@asynccontextmanager
async def gateway(socket: Path, answer: Callable[[dict[str, Any]], bytes]) -> AsyncIterator[list[dict[str, Any]]]:
    requests: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        requests.append(request)
        writer.write(answer(request))
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        yield requests


def ok(result: object) -> bytes:
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


async def test_a_result_is_returned(tmp_path: Path) -> None:
    async with gateway(tmp_path / "s", lambda _: ok({"pid": 7})) as requests:
        assert await ask(tmp_path / "s", "alarms.list", all=True) == {"pid": 7}
    assert requests == [{"op": "alarms.list", "all": True}]


async def test_a_refusal_carries_the_gateways_code(tmp_path: Path) -> None:
    refusal = b'{"ok": false, "error": {"code": "GW-CTL-04", "message": "no such alarm"}}\n'
    async with gateway(tmp_path / "s", lambda _: refusal):
        with pytest.raises(Refused, match="GW-CTL-04: no such alarm") as caught:
            await ask(tmp_path / "s", "alarms.ack", id="x", by="y")
    assert caught.value.code == "GW-CTL-04"


@pytest.mark.parametrize("reply", [b"", b"hello\n", b"[]\n", b'{"ok": true}\n', b"x" * 5_000_000 + b"\n"])
async def test_what_is_no_answer_is_named_so(tmp_path: Path, reply: bytes) -> None:
    async with gateway(tmp_path / "s", lambda _: reply):
        with pytest.raises(NoAnswer):
            await ask(tmp_path / "s", "status")


async def test_a_socket_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="No such file"):
        await ask(tmp_path / "none", "status")


async def test_a_gateway_that_is_silent_is_no_answer(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(silent, tmp_path / "s"):
        with pytest.raises(NoAnswer):
            await ask(tmp_path / "s", "status", timeout_s=0.05)


async def test_an_alarm_is_acknowledged_after_a_while_and_closed_after_another(tmp_path: Path) -> None:
    now = [100.0]
    alarm = {"id": "a1", "state": "ACTIVE"}

    def answer(request: dict[str, Any]) -> bytes:
        if request["op"] == "alarms.ack":
            alarm["state"] = "ACKED"
        if request["op"] == "alarms.close":
            alarm["state"] = "CLOSED"
        return ok([alarm] if request["op"] == "alarms.list" else {"id": "a1"})

    async with gateway(tmp_path / "s", answer) as requests:
        staff = Staff(tmp_path / "s", seed=1, monotonic=lambda: now[0])
        await staff.look()
        now[0] += 0.99
        await staff.look()
        assert {request["op"] for request in requests} == {"alarms.list"}
        now[0] += 1.52  # 2.51 s after it was first seen
        await staff.look()
        assert requests[-1] == {"op": "alarms.ack", "id": "a1", "by": "liu"}
        await staff.look()
        assert requests[-1]["op"] == "alarms.list"
        now[0] += 2.01
        await staff.look()
        assert requests[-1] == {"op": "alarms.close", "id": "a1", "by": "liu", "why": "went there; all is well"}
        await staff.look()
        assert requests[-1]["op"] == "alarms.list"
    assert (staff.acked, staff.closed) == (1, 1)


async def test_a_refusal_and_a_dead_gateway_do_not_end_the_staffs_work(tmp_path: Path) -> None:
    staff = Staff(tmp_path / "s", seed=1)
    await staff.look()
    async with gateway(tmp_path / "s", lambda _: b'{"ok": false, "error": {"code": "GW-CTL-01", "message": "no"}}\n'):
        await staff.look()
    assert (staff.acked, staff.closed) == (0, 0)


async def test_the_staff_go_home_when_told(tmp_path: Path) -> None:
    home = asyncio.Event()
    home.set()
    async with asyncio.timeout(30):
        await Staff(tmp_path / "s", seed=1).work(home)
