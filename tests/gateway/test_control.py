"""The control socket: every request is answered, no client can hold it, and it ends whoever is connected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway import control, control_client
from gateway.control import ControlServer
from gateway.errors import ControlError, StoreError
from gateway.problems import describe


async def _echo(request: Mapping[str, Any]) -> object:
    return dict(request)


async def _missing(request: Mapping[str, Any]) -> object:
    return request["id"]


async def _refuse(_request: Mapping[str, Any]) -> object:
    raise ControlError("GW-CTL-03", "x", reason="@refusal.unknown-alarm")


async def _nasty(_request: Mapping[str, Any]) -> object:
    error = ControlError("GW-CTL-03", "y", reason="r")
    error.facts |= {"self": 1, "code": 2, "message": 3}
    raise error


async def _disk(_request: Mapping[str, Any]) -> object:
    raise StoreError("GW-STO-01", "outbox.db", detail="disk I/O error")


async def _bug(_request: Mapping[str, Any]) -> object:
    raise RuntimeError("a bug in an operation")


async def _hang(_request: Mapping[str, Any]) -> object:
    await asyncio.Event().wait()
    return None


async def _large(_request: Mapping[str, Any]) -> object:
    return "x" * 4_000_000


OPERATIONS = {
    "echo": _echo, "missing": _missing, "refuse": _refuse, "disk": _disk, "bug": _bug, "hang": _hang, "nasty": _nasty,
    "large": _large,
}  # fmt: skip


@dataclass
class Bench:
    """A server on a real socket, and what listens to it."""

    path: Path
    listeners: list[Callable[[Mapping[str, object]], None]] = field(default_factory=list)
    ready: int = 0
    task: asyncio.Task[None] | None = None

    def listen(self, take: Callable[[Mapping[str, object]], None], _request: object) -> Callable[[], None]:
        self.listeners.append(take)
        return lambda: self.listeners.remove(take)

    async def start(self) -> None:
        def on_ready() -> None:
            self.ready += 1

        server = ControlServer(self.path, OPERATIONS, listen=self.listen, lang="en", on_ready=on_ready)
        self.task = asyncio.create_task(server.run())
        await until(lambda: self.ready > 0 or bool(self.task and self.task.done()))

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            _, late = await asyncio.wait({self.task}, timeout=30)
            assert not late, "the server did not end"
            self.task = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path, limit=8_000_000)

    async def ask(self, line: bytes) -> dict[str, Any]:
        reader, writer = await self.connect()
        writer.write(line)
        answer: dict[str, Any] = json.loads(await within(reader.readline()))
        await gone(writer)
        return answer


async def within(awaitable: Any, seconds: float = 30.0) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def gone(writer: asyncio.StreamWriter) -> None:
    """Leave."""
    writer.close()
    with contextlib.suppress(OSError):
        await within(writer.wait_closed())


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    here = Bench(tmp_path / "control.sock")
    await here.start()
    yield here
    await here.stop()


async def test_a_request_is_answered_and_the_next_one_on_the_same_connection_too(bench: Bench) -> None:
    reader, writer = await bench.connect()
    for number in range(3):
        writer.write(json.dumps({"op": "echo", "n": number}).encode() + b"\n")
        assert json.loads(await within(reader.readline())) == {"ok": True, "result": {"op": "echo", "n": number}}
    await gone(writer)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b"\n", "GW-CTL-03", "unknown request"),
        (b"nonsense\n", "GW-CTL-03", "unknown request"),
        (b"[]\n", "GW-CTL-03", "unknown request"),
        (b'{"op": 7}\n', "GW-CTL-03", "unknown request"),
        (b'{"op": "no-such"}\n', "GW-CTL-03", "unknown request"),
        (b'{"op": "\\ud800"}\n', "GW-CTL-03", "unknown request"),
        (b"\xff\xfe\n", "GW-CTL-03", "unknown request"),
        (b"[" * 60_000 + b"\n", "GW-CTL-03", "unknown request"),
        (b'{"op": ' + b"9" * 5_000 + b"}\n", "GW-CTL-03", "unknown request"),
        (b"x" * 200_000 + b"\n", "GW-CTL-03", "request too long"),
        (b'{"op": "missing"}\n', "GW-CTL-03", "request not understood"),
        (b'{"op": "refuse"}\n', "GW-CTL-03", "no such alarm"),
        (b'{"op": "disk"}\n', "GW-STO-01", "disk I/O error"),
        (b'{"op": "bug"}\n', "GW-RUN-03", "a bug in an operation"),
    ],
)
async def test_whatever_is_asked_is_answered(bench: Bench, line: bytes, code: str, words: str) -> None:
    answer = await bench.ask(line)
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert words in answer["error"]["message"]
    assert (await bench.ask(b'{"op": "echo"}\n'))["ok"] is True


async def test_half_a_surrogate_pair_in_an_answer_is_escaped(bench: Bench) -> None:
    assert await bench.ask(b'{"op": "echo", "by": "\\udc00"}\n') == {
        "ok": True,
        "result": {"op": "echo", "by": "\udc00"},
    }


async def test_an_operation_that_hangs_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_S", 0.05)
    assert "too long" in (await bench.ask(b'{"op": "hang"}\n'))["error"]["message"]


async def test_a_silent_client_is_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.05)
    reader, writer = await bench.connect()
    assert await within(reader.read()) == b""
    await gone(writer)


async def test_a_client_that_does_not_read_its_answer_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.1)
    monkeypatch.setattr(control, "CLOSE_S", 0.1)
    tasks = len(asyncio.all_tasks())
    sleeper = socket.socket(socket.AF_UNIX)
    sleeper.connect(str(bench.path))
    sleeper.sendall(b'{"op": "large"}\n')
    await until(lambda: len(asyncio.all_tasks()) > tasks)
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    sleeper.close()
    assert (await bench.ask(b'{"op": "echo"}\n'))["ok"] is True


async def test_one_client_too_many_is_told_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CLIENTS", 2)
    held = [await bench.connect() for _ in range(2)]
    for reader, writer in held:
        writer.write(b'{"op": "echo"}\n')
        await within(reader.readline())
    assert "too many clients" in (await bench.ask(b'{"op": "echo"}\n'))["error"]["message"]
    await gone(held[0][1])
    async with asyncio.timeout(30):
        while not (await bench.ask(b'{"op": "echo"}\n'))["ok"]:
            await asyncio.sleep(0.01)
    await gone(held[1][1])


async def test_a_listener_gets_everything_and_its_place_is_given_back(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(b'{"op": "listen"}\n')
    assert json.loads(await within(reader.readline())) == {"ok": True, "result": "listening"}
    for number in range(3):
        bench.listeners[0]({"number": number})
    assert [json.loads(await within(reader.readline())) for _ in range(3)] == [{"number": n} for n in range(3)]
    await gone(writer)
    await until(lambda: not bench.listeners)


async def test_a_listener_that_does_not_read_loses_lines_and_is_told_how_many(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(b'{"op": "listen"}\n')
    await within(reader.readline())
    for number in range(1_500):
        bench.listeners[0]({"number": number})
    lines = [json.loads(await within(reader.readline())) for _ in range(1_001)]
    assert lines[999] == {"number": 999}
    assert lines[1_000] == {"lost": 500}
    await gone(writer)
    await until(lambda: not bench.listeners)


async def test_it_ends_although_clients_are_connected(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """From Python 3.12 on a server waits for its clients unless they are sent away."""
    idle = await bench.connect()
    listener = await bench.connect()
    listener[1].write(b'{"op": "listen"}\n')
    await within(listener[0].readline())
    hanging = await bench.connect()
    hanging[1].write(b'{"op": "hang"}\n')
    await bench.stop()  # where it waits for them it does so for ever
    assert bench.listeners == []
    assert not bench.path.exists()
    for reader, writer in (idle, listener, hanging):
        with contextlib.suppress(ConnectionResetError):
            assert await within(reader.read()) == b""
        await gone(writer)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_only_owner_and_group_may_use_it(bench: Bench) -> None:
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o660


async def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "control.sock"))
    dead.close()
    here = Bench(tmp_path / "control.sock")
    await here.start()
    assert (await here.ask(b'{"op": "echo"}\n'))["ok"] is True
    await here.stop()


async def test_the_socket_is_seen_only_when_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "control.sock"
    seen_too_soon: list[bool] = []
    listen = socket.socket.listen

    def watched(listener: socket.socket, *backlog: int) -> None:
        if not seen_too_soon:
            seen_too_soon.append(path.exists())
        listen(listener, *backlog)

    monkeypatch.setattr(socket.socket, "listen", watched)
    here = Bench(path)
    await here.start()
    await here.stop()
    assert seen_too_soon == [False]
    assert list(tmp_path.iterdir()) == []


async def test_what_is_no_socket_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    here = Bench(path)
    await here.start()
    assert here.task is not None
    with pytest.raises(OSError, match="is no socket"):
        await here.task
    assert path.read_text() == "precious"


async def test_the_socket_of_a_living_daemon_is_left_alone(bench: Bench) -> None:
    second = Bench(bench.path)
    await second.start()
    assert second.task is not None
    with pytest.raises(OSError, match="another daemon"):
        await second.task
    assert (await bench.ask(b'{"op": "echo"}\n'))["ok"] is True
    assert bench.path.exists()


async def test_a_path_that_cannot_be_used_is_an_error_and_nothing_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "important.txt"
    file.write_text("keep me", encoding="utf-8")
    for path in (file, tmp_path, tmp_path / "no" / "such.sock", file / "x.sock", tmp_path / ("x" * 120)):
        here = Bench(path)
        await here.start()
        assert here.task is not None
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the path
            await here.task
    assert file.read_text(encoding="utf-8") == "keep me"


async def test_a_refusal_carries_code_subject_and_facts_for_whoever_reads_another_language(bench: Bench) -> None:
    answer = await bench.ask(b'{"op": "refuse"}\n')
    assert answer["error"] == {
        "code": "GW-CTL-03", "subject": "x", "facts": {"reason": "@refusal.unknown-alarm"},
        "message": "the gateway refused the request (x): no such alarm",
    }  # fmt: skip
    with pytest.raises(ControlError) as refused:
        await asyncio.to_thread(control_client.ask, bench.path, "refuse")
    assert describe(refused.value.code, "zh", refused.value.subject, refused.value.facts).title == (
        "网关拒绝了这个请求（x）：没有这个编号的报警"
    )


async def test_a_refusal_may_have_facts_of_any_name(bench: Bench) -> None:
    with pytest.raises(ControlError) as refused:
        await asyncio.to_thread(control_client.ask, bench.path, "nasty")
    assert (refused.value.code, refused.value.subject, refused.value.facts) == (
        "GW-CTL-03", "y", {"refused": True, "reason": "r"},
    )  # fmt: skip
