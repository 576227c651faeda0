"""`--full` against the real platform of the simulator, over MQTT and HTTP: login, publish, accepted, or where it stops."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import inspect
from gateway.diagnose import rehearsal
from gateway.diagnose.rehearsal import Rehearsal, rehearse
from gateway.diagnose.report import Line
from simulator.scenario import free_ports

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Centre
else:
    Centre = Any

ROOT = Path(__file__).parents[3]
Look = Callable[[Any, str], list[Line]]


class Platform:
    """A platform process."""

    def __init__(self, folder: Path, speaks: str, port: int) -> None:
        self.folder, self.speaks, self.port = folder, speaks, port
        self.control = folder / "platform.sock"

    @property
    def url(self) -> str:
        return f"{'http' if self.speaks == 'http' else 'mqtt'}://127.0.0.1:{self.port}"

    async def ask(self, op: str, **arguments: object) -> None:
        reader, writer = await asyncio.open_unix_connection(self.control)
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        assert answer["ok"], answer

    def ledger(self) -> str:
        return (self.folder / "platform-district.jsonl").read_text(encoding="utf-8")


@asynccontextmanager
async def platform(folder: Path, speaks: str, *more: str) -> AsyncIterator[Platform]:
    here = Platform(folder, speaks, *free_ports(["district"]).values())
    with (folder / "platform.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "simulator", "platform", "--run", str(folder), "--port", str(here.port), "--control",
            str(here.control), "--speaks", speaks, *more, cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while not here.control.exists():
                assert process.returncode is None, (folder / "platform.log").read_text()
                await asyncio.sleep(0.05)
        yield here
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def run(centre: Centre, url: str, more: str = "", *, finish: str = "L2") -> Awaitable[Rehearsal]:
    centre.configure(more)
    text = centre.config.read_text(encoding="utf-8").replace("mqtt://127.0.0.1:1", url)
    centre.config.write_text(text, encoding="utf-8")
    settings, findings = inspect(centre.config)
    assert settings is not None, findings
    path = settings.destinations[0].path[0]
    return asyncio.to_thread(rehearse, settings, path, "district", finish=finish)


@pytest.mark.parametrize("speaks", ["mqtt", "mqtt-3.1.1", "http"])
async def test_a_test_event_goes_all_the_way(centre: Centre, tmp_path: Path, speaks: str) -> None:
    async with platform(tmp_path, speaks) as there:
        done = await run(centre, there.url)
        assert (done.reached, done.code, done.detail) == (3, "", "")
        ledger = there.ledger()
    assert '"accepted"' in ledger
    assert "birth" not in [json.loads(line).get("type") for line in ledger.splitlines()]


@pytest.mark.parametrize(
    ("speaks", "expected"),
    [("mqtt", (2, "GW-NET-13", "no down/ack within 0.5 s")), ("http", (1, "GW-NET-13", "no answer within 0.5 s"))],
)
async def test_an_application_that_does_not_answer_is_told(
    centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: str, expected: tuple[int, str, str]
) -> None:
    monkeypatch.setattr(rehearsal, "ACCEPT_S", 0.5)
    async with platform(tmp_path, speaks) as there:
        await there.ask("mute")
        done = await run(centre, there.url)
    assert (done.reached, done.code, done.detail) == expected


async def test_an_answer_to_another_event_is_none_to_ours(
    centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's own events are answered on the same topic at the same time."""
    monkeypatch.setattr(rehearsal, "ACCEPT_S", 1.0)
    async with platform(tmp_path, "mqtt") as there:
        await there.ask("mute")
        other = paho.Client(CallbackAPIVersion.VERSION2, client_id="other", protocol=paho.MQTTv5)
        other.connect("127.0.0.1", there.port)
        other.loop_start()
        trying = asyncio.ensure_future(run(centre, there.url))
        while not trying.done():
            other.publish(
                "eldercare/v1/kz/hanfeng-01/gw-01/down/ack", b'{"acks": [{"id": "x", "status": "accepted"}]}', qos=1
            )
            await asyncio.sleep(0.05)
        other.disconnect()
        other.loop_stop()
        other._reset_sockets()
        done = await trying
    assert (done.reached, done.code) == (2, "GW-NET-13")


async def test_a_profile_that_can_only_do_the_transport_is_content_with_that(centre: Centre, tmp_path: Path) -> None:
    async with platform(tmp_path, "mqtt") as there:
        await there.ask("mute")
        done = await run(centre, there.url, finish="L1")
    assert (done.reached, done.code) == (3, "")


@pytest.mark.parametrize(
    ("reason", "reached", "code", "detail"),
    [(0x00, 3, "", ""), (0x10, 1, "GW-NET-12", "PUBACK reason 0x10"), (0x97, 1, "GW-NET-12", "PUBACK reason 0x97")],
)
async def test_where_the_transport_is_all_a_message_without_subscribers_is_not_delivered(
    reason: int, reached: int, code: str, detail: str
) -> None:
    loop = asyncio.get_running_loop()
    confirmed: asyncio.Future[int] = loop.create_future()
    confirmed.set_result(reason)
    done = await rehearsal._followed(confirmed, loop.create_future(), "L1")
    assert (done.reached, done.code, done.detail) == (reached, code, detail)


@pytest.mark.parametrize("speaks", ["mqtt", "http"])
async def test_an_application_that_rejects_is_told_with_its_code(centre: Centre, tmp_path: Path, speaks: str) -> None:
    async with platform(tmp_path, speaks) as there:
        await there.ask("reject", types=["*"], code="no-tests-please")
        done = await run(centre, there.url)
    assert (done.reached, done.code, done.detail) == (2, "GW-NET-13", "rejected no-tests-please")


async def test_a_login_that_is_refused_is_told(centre: Centre, tmp_path: Path) -> None:
    async with platform(tmp_path, "http", "--authorization", "Bearer right") as there:
        token = tmp_path / "token"
        token.write_text("wrong", encoding="ascii")
        token.chmod(0o600)
        done = await run(centre, there.url, f'token = "file:{token}"\n')
        assert (done.reached, done.code, done.detail) == (0, "GW-NET-04", "HTTP 401")
        token.write_text("right", encoding="ascii")
        done = await run(centre, there.url, f'token = "file:{token}"\n')
        assert (done.reached, done.code) == (3, "")


async def test_a_platform_that_is_away_is_told(centre: Centre) -> None:
    done = await run(centre, "http://127.0.0.1:1")
    assert (done.reached, done.code) == (0, "GW-NET-05")
    done = await run(centre, "mqtt://127.0.0.1:1")
    assert (done.reached, done.code) == (0, "GW-NET-02")


async def test_a_full_diagnosis_puts_it_on_the_ladder(centre: Centre, tmp_path: Path) -> None:
    async with platform(tmp_path, "mqtt") as there:
        centre.configure(port=there.port)
        report = await asyncio.to_thread(centre.diagnose, is_full=True)
        (line,) = next(one for one in report.sections if one.name == "network").lines
        assert (line.code, line.verdict) == ("GW-NET-10", "ok")
        rungs = [(one["rung"], one["state"]) for one in line.facts["ladder"].plain()]  # type: ignore[attr-defined]
        assert rungs == [("tcp", "ok"), ("login", "ok"), ("publish", "ok"), ("accepted", "ok")]
        await there.ask("reject", types=["*"])
        report = await asyncio.to_thread(centre.diagnose, is_full=True)
        (line,) = next(one for one in report.sections if one.name == "network").lines
        assert (line.code, line.verdict, line.facts["whose"]) == ("GW-NET-13", "problem", "@diagnose.whose-platform")
