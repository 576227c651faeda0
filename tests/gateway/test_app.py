"""The whole daemon in this process: what it builds from a configuration, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app import daemon as app
from gateway.app import keepers, outward
from gateway.app.daemon import _App
from gateway.clock import Stamp, SystemClock
from gateway.config import load
from gateway.deliver import Deliverer
from gateway.deliver.wording import Wording
from gateway.errors import StoreError
from gateway.events import Lane
from gateway.links.state import LinkState
from gateway.outbox import Expiry, Mark, Write
from tests.json_board import Board, listening_board

CONFIG = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "en"

[[serial]]
id = "wire"
port = "socket://127.0.0.1:{line}"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}

[[destination]]
id = "district"
reconnect_spread_s = 0
{password}
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
  {secret}
{more}
"""


@dataclass
class Daemon:
    """One daemon, its line, and everything that it logs."""

    folder: Path
    line: int
    texts: dict[str, str] = field(default_factory=dict)
    log: list[Any] = field(default_factory=list)
    app: _App | None = None
    task: asyncio.Task[None] | None = None

    async def start(self) -> _App:
        values = {"password": "", "secret": "", "more": "", "platform": "1", **self.texts}
        (self.folder / "data").mkdir(exist_ok=True)
        path = self.folder / "gateway.toml"
        path.write_text(CONFIG.format(folder=self.folder, line=self.line, **values), encoding="utf-8")
        self.app = _App(load(path))
        self.task = asyncio.create_task(self.app.run())
        await self.until(lambda: (self.folder / "control.sock").exists() or self.ended)
        return self.app

    @property
    def ended(self) -> bool:
        return self.task is not None and self.task.done()

    async def stop(self) -> None:
        assert self.app is not None
        assert self.task is not None
        self.app._stop.set()
        async with asyncio.timeout(30):
            await self.task
        self.task = None

    async def ask(self, op: str, **arguments: object) -> Any:
        reader, writer = await asyncio.open_unix_connection(self.folder / "control.sock")
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        async with asyncio.timeout(30):
            answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        assert answer["ok"], answer
        return answer["result"]

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    def told(self, event: str) -> list[Any]:
        return [entry for entry in self.log if entry["event"] == event]

    def problems(self) -> set[tuple[str, str]]:
        assert self.app is not None
        return {(one.code, one.subject) for one in self.app._health.current()}


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """The far end of the line."""
    async with listening_board() as here:
        yield here


@pytest.fixture
async def daemon(tmp_path: Path, board: Board) -> AsyncIterator[Daemon]:
    here = Daemon(tmp_path, board.port)
    with capture_logs() as log:
        here.log = log
        yield here
        if here.task is not None and not here.task.done():
            await here.stop()


async def press(daemon: Daemon, board: Board) -> None:
    """Press, and wait until it is stored; the gap of the start is stored before it."""
    running = daemon.app
    assert running is not None
    await daemon.until(lambda: running._hearing.status({})[0]["hearing"] and running._outbox.sequence > 0)
    assert await running._outbox.flush(10)
    before = running._outbox.last(Lane.A)
    await board.say(b'{"dev":"b1","ev":"press"}\n')
    await daemon.until(lambda: running._outbox.last(Lane.A) > before)


# Beginning.


async def test_it_serves_what_works_without_a_platform(daemon: Daemon, board: Board) -> None:
    await daemon.start()
    await press(daemon, board)
    status = await daemon.ask("status")
    assert status["gateway"] == {"id": "gw", "org": "org", "site": "site"}
    assert status["outbox"]["sequence"] == 2  # the gap of the start, and the press
    assert [(one["id"], one["hearing"]) for one in status["links"]] == [("wire", True)]
    assert [(one["id"], one["connected"], one["pending"]["A"]) for one in status["destinations"]] == [
        ("district", False, 1)
    ]
    (alarm,) = await daemon.ask("alarms.list")
    assert status["devices"][0]["alarm"] == alarm["id"]
    assert alarm["delivery"] == {"district": "QUEUED"}
    await daemon.stop()
    assert daemon.told("ended")[0]["sequence"] == 2


async def test_a_password_that_cannot_be_had_stops_nothing(daemon: Daemon, board: Board) -> None:
    daemon.texts["secret"] = f'username = "gw"\n  password = "file:{daemon.folder}/no-such-file"'
    await daemon.start()
    await press(daemon, board)
    assert "GW-CFG-21" in {code for code, _ in daemon.problems()}


async def test_events_wait_for_a_destination_that_is_set_aside(daemon: Daemon, board: Board) -> None:
    daemon.texts["more"] = '[[destination]]\nid = "street"\ntypes = ["alarm.*"]\n'
    running = await daemon.start()
    await press(daemon, board)
    (row,) = await running._outbox.fetch(Lane.A, 0, 10)
    assert row.route == {"district": 2, "street": 1}
    assert running._outbox.pending("street")["A"] == 1
    assert [one["id"] for one in (await daemon.ask("status"))["destinations"]] == ["district"]


async def test_a_torn_alive_file_stops_nothing(daemon: Daemon, board: Board) -> None:
    (daemon.folder / "data").mkdir()
    (daemon.folder / "data" / "alive").write_text(
        '{"wall_ms":"x","mono_ms":[],"boot":7,"clock":null}', encoding="utf-8"
    )
    await daemon.start()
    await press(daemon, board)


async def test_a_call_in_1970_goes_out_with_its_right_time_once_the_network_has_set_the_clock(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hours without a clock, then NTP: everything of this boot is put right, and the board shows it."""
    boot_ns, hours_3 = time.clock_gettime_ns(time.CLOCK_BOOTTIME), 3 * 3600 * 10**9
    shift, waited, error_us = [0], [0], [16_000_000]

    def now_ns() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boot_ns + waited[0]

    monkeypatch.setattr(
        app, "SystemClock",
        lambda: SystemClock(
            timesync=daemon.folder / "none", kernel_error_us=lambda: error_us[0],
            wall_ns=lambda: now_ns() + shift[0], boot_ns=now_ns,
        ),
    )  # fmt: skip
    running = await daemon.start()
    await press(daemon, board)
    (shown,) = await daemon.ask("alarms.list")
    assert (shown["raised_at"][:13], shown["clock"]) == ("2026-01-01T00", "unsynced")
    assert ("GW-CLK-02", "") in daemon.problems()
    waited[0], shift[0], error_us[0] = hours_3, 1_800_000_000 * 10**9, 500
    await daemon.until(lambda: running._outbox.boots[running._clock.boot].offset_ms is not None)
    await daemon.until(lambda: ("GW-CLK-02", "") not in daemon.problems())
    (shown,) = await daemon.ask("alarms.list")
    assert (shown["raised_at"][:13], shown["clock"]) == ("2027-01-15T08", "corrected")
    assert (await daemon.ask("status"))["clock"]["state"] == "synced"
    words = Wording("district", running._clock, running._outbox.boots)
    await running._outbox.flush(5)
    (alarm,) = [json.loads(words.text(row)) for row in await running._outbox.fetch(Lane.A, 0, 10)]
    assert (alarm["time"][:13], alarm["data"]["clock"]["state"]) == ("2027-01-15T08", "corrected")
    assert alarm["data"]["delivery"]["historic"] is True
    nouns = [row.noun for row in await running._outbox.fetch(Lane.B, 0, 100)]
    assert nouns.count("gateway.health") == 1


# Going on.


async def test_open_alarms_are_announced_again_after_a_restart_with_their_presses(daemon: Daemon, board: Board) -> None:
    await daemon.start()
    await press(daemon, board)
    await press(daemon, board)
    (before,) = await daemon.ask("alarms.list")
    await daemon.stop()
    daemon.log.clear()
    await daemon.start()
    (alarm,) = daemon.told("alarm")
    assert (alarm["id"], alarm["presses"], alarm["state"]) == (before["id"], 2, "ACTIVE")
    (after,) = await daemon.ask("alarms.list")
    assert {key: after[key] for key in ("id", "presses", "raised_at")} == {
        key: before[key] for key in ("id", "presses", "raised_at")
    }


async def test_people_acknowledge_and_close_over_the_socket(daemon: Daemon, board: Board) -> None:
    await daemon.start()
    await press(daemon, board)
    (alarm,) = await daemon.ask("alarms.list")
    known = {name: alarm[name] for name in ("id", "kind", "device", "room", "bed")}
    acked = {**known, "state": "ACKED", "by": "Li Na", "acked_by": "Li Na", "changed": True}
    assert await daemon.ask("alarms.ack", id=alarm["id"][:20], by="Li Na") == acked
    assert await daemon.ask("alarms.ack", id=alarm["id"], by="Wang") == {**acked, "changed": False}
    with pytest.raises(AssertionError, match="GW-CTL-03"):
        await daemon.ask("alarms.close", id=alarm["id"][:7], by="Wang", why="fine")
    closed = {**known, "state": "CLOSED", "by": "Wang", "acked_by": "Li Na", "changed": True}
    assert await daemon.ask("alarms.close", id=alarm["id"], by="Wang", why="fine") == closed
    assert await daemon.ask("alarms.list") == []
    assert [one["why"] for one in await daemon.ask("alarms.list", all=True)] == ["fine"]
    for wrong in ({}, {"id": 7}, {"id": alarm["id"], "by": None}):
        with pytest.raises(AssertionError, match="GW-CTL-03"):
            await daemon.ask("alarms.ack", **wrong)


async def test_a_bug_in_a_delivery_ends_neither_the_daemon_nor_the_delivery(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Deliverer] = []

    async def run(self: Deliverer) -> None:
        runs.append(self)
        if len(runs) < 3:
            raise IndexError("an answer that nobody thought of")
        await asyncio.Event().wait()

    monkeypatch.setattr(Deliverer, "run", run)
    monkeypatch.setattr(outward, "REBUILD_CAP_S", 0.01)
    await daemon.start()
    await daemon.until(lambda: len(runs) == 3)
    assert len(set(runs)) == 3
    assert daemon.app is not None
    assert list(daemon.app._outward.deliverers) == [runs[-1]]
    assert ("GW-RUN-03", "district") in daemon.problems()
    await press(daemon, board)


async def test_the_problem_of_a_delivery_that_was_begun_anew_goes_when_it_has_run_for_a_while(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Deliverer] = []
    seen: list[bool] = []

    async def run(self: Deliverer) -> None:
        runs.append(self)
        if len(runs) == 1:
            raise IndexError("once")
        seen.append(("GW-RUN-03", "district") in daemon.problems())
        await asyncio.Event().wait()

    monkeypatch.setattr(Deliverer, "run", run)
    monkeypatch.setattr(outward, "REBUILD_CAP_S", 0.01)
    monkeypatch.setattr(outward, "SOUND_AFTER_S", 0.05)
    await daemon.start()
    await daemon.until(lambda: len(runs) == 2 and ("GW-RUN-03", "district") not in daemon.problems())
    assert seen == [True]


async def test_new_telemetry_waits_for_no_destination_that_does_not_want_it(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = '[[destination.path]]\nurl = "mqtt://127.0.0.1:2"\n'
    daemon.texts["more"] = f'[[destination]]\nid = "street"\ntypes = ["alarm.*"]\n{down}'
    running = await daemon.start()
    live = {"district": True, "street": False}
    monkeypatch.setattr(Deliverer, "is_live", property(lambda self: live[self.name]))
    assert running._outward.is_live()
    live.update(district=False, street=True)
    assert not running._outward.is_live()


async def test_the_problem_of_the_control_socket_goes_when_its_directory_comes(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CONTROL_RETRY_S", 0.05)
    path = daemon.folder / "control.sock"
    path.mkdir()
    await daemon.start()
    await daemon.until(lambda: ("GW-CTL-04", str(path)) in daemon.problems())
    await press(daemon, board)
    path.rmdir()
    await daemon.until(lambda: daemon.problems() == {("GW-NET-02", "district")})
    assert (await daemon.ask("status"))["alarms"] == {"open": 1}


async def test_a_replaced_database_gets_the_open_alarms_and_tells_them_anew(daemon: Daemon, board: Board) -> None:
    running = await daemon.start()
    await press(daemon, board)
    (before,) = await daemon.ask("alarms.list")
    running._on_store_trouble(StoreError("GW-STO-02", "outbox.db", path="outbox.db", detail="malformed"))
    assert await running._outbox.flush(5)
    rows = await running._outbox.fetch(Lane.A, 0, 10)
    events = [json.loads(row.body) for row in rows]
    assert [(one["correlationid"], one["data"]["presses"], one["data"].get("retold")) for one in events] == [
        (before["id"], 1, None),
        (before["id"], 1, True),
    ]
    assert ("GW-STO-02", "") in daemon.problems()


@pytest.mark.parametrize("table", ["mark", "event_c"])
async def test_an_open_alarm_outlives_a_torn_page_of_the_database(daemon: Daemon, board: Board, table: str) -> None:
    await daemon.start()
    await press(daemon, board)
    (before,) = await daemon.ask("alarms.list")
    await daemon.stop()
    path = daemon.folder / "data" / "outbox.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [root] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        [page] = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\xa5" * page)
    daemon.log.clear()
    running = await daemon.start()
    assert [(entry["id"], entry["state"]) for entry in daemon.told("alarm")] == [(before["id"], "ACTIVE")]
    await daemon.until(lambda: ("GW-STO-02", "") in daemon.problems() and running._outbox.sequence > 0)
    await press(daemon, board)
    await daemon.until(lambda: not running._outbox.to_rescue)
    rows = await running._outbox.fetch(Lane.A, 0, 10)
    events = [json.loads(row.body) for row in rows]
    told = [(one["correlationid"], one["data"]["presses"], one["data"].get("retold")) for one in events]
    assert told[0] == (before["id"], 1, True)
    own = [one for one in told[1:] if not one[2]]
    assert sorted(own, key=lambda one: one[1]) == [(before["id"], 1, None), (before["id"], 2, None)]
    # Behind what was brought back it is told once more, so that the last word is how it stands now.
    assert [one[0] for one in told[1:] if one[2]] == [before["id"]]
    assert told[-1][1] == 2


async def test_what_a_corrupt_database_held_is_brought_back_while_it_runs(daemon: Daemon, board: Board) -> None:
    running = await daemon.start()
    await press(daemon, board)
    [before] = await running._outbox.fetch(Lane.A, 0, 9)
    await daemon.stop()
    with (daemon.folder / "data" / "outbox.db").open("r+b") as file:
        file.write(b"\0" * 100)
    running = await daemon.start()
    await daemon.until(lambda: not running._outbox.to_rescue and running._outbox.sequence > 0, 15)
    rows = await running._outbox.fetch(Lane.A, 0, 9)
    assert before.id in [row.id for row in rows]


async def test_without_a_database_calls_are_announced_and_kept_and_stored_when_there_is_one(
    daemon: Daemon, board: Board
) -> None:
    blocked = daemon.folder / "data" / "outbox.db"
    blocked.mkdir(parents=True)
    running = await daemon.start()
    await daemon.until(lambda: running._hearing.status({})[0]["hearing"])
    await board.say(b'{"dev":"b1","n":1,"ev":"press"}\n')
    await daemon.until(lambda: bool(daemon.told("alarm")))
    assert ("GW-STO-01", "") in daemon.problems()
    assert [one.noun for one in running._outbox.unstored_alarms("district")] == ["alarm.raised"]
    status = await daemon.ask("status")
    assert (status["outbox"]["sequence"], status["outbox"]["unstored"] > 0) == (0, True)
    assert daemon.told("acked") == []
    blocked.rmdir()
    await daemon.until(lambda: running._outbox.last(Lane.A) > 0, 15)
    await daemon.until(lambda: ("GW-STO-01", "") not in daemon.problems())
    (alarm,) = await daemon.ask("alarms.list")
    (row,) = await running._outbox.fetch(Lane.A, 0, 9)
    assert json.loads(row.body)["correlationid"] == alarm["id"]


async def test_an_alarm_of_a_database_that_opens_late_rings_beside_that_of_the_meantime(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both can be closed; what was known before the end was not lost because the disk came late."""
    await daemon.start()
    await press(daemon, board)
    (before,) = await daemon.ask("alarms.list")
    await daemon.stop()
    data = daemon.folder / "data"
    data.rename(daemon.folder / "away")
    data.write_text("", encoding="utf-8")  # no directory: nothing of it can be read
    (daemon.folder / "blank").mkdir()
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    running = await daemon.start()
    monkeypatch.undo()
    await daemon.until(lambda: running._hearing.status({})[0]["hearing"])
    await board.say(b'{"dev":"b1","ev":"press"}\n')
    await daemon.until(lambda: running._alarms.open_count == 1)
    data.unlink()
    (daemon.folder / "away").rename(data)
    await daemon.until(lambda: running._alarms.open_count == 2, 15)
    alarms = await daemon.ask("alarms.list")
    assert before["id"] in [one["id"] for one in alarms]
    for alarm in alarms:
        await daemon.ask("alarms.close", id=alarm["id"], by="Wang", why="seen to")
    assert await daemon.ask("alarms.list") == []


async def test_what_no_disk_has_taken_is_counted_and_named_at_the_end(daemon: Daemon, board: Board) -> None:
    (daemon.folder / "data" / "outbox.db").mkdir(parents=True)
    running = await daemon.start()
    await daemon.until(lambda: running._hearing.status({})[0]["hearing"])
    await board.say(b'{"dev":"b1","ev":"press"}\n')
    await daemon.until(lambda: bool(daemon.told("alarm")))
    (event,) = running._outbox.waiting_alarms()
    await daemon.stop()
    (told,) = daemon.told("ended with events that were never stored")
    assert told["types"] == {"gateway.gap": 1, "alarm.raised": 1}
    assert (told["count"], told["alarms"]) == (2, [f"alarm.raised board-1 {event.id}"])


async def test_the_silence_of_an_orderly_end_is_told_as_the_restart_that_it_is(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not as a line that somebody should look for."""
    running = await daemon.start()
    await press(daemon, board)
    flush = running._outbox.flush

    async def falls_silent(limit_s: float) -> bool:
        running._hearing.on_state(LinkState("wire", "serial", hearing=False, at=running._clock.stamp()))
        return await flush(limit_s)

    monkeypatch.setattr(running._outbox, "flush", falls_silent)
    await daemon.stop()
    running = await daemon.start()
    await daemon.until(lambda: running._outbox.last(Lane.B) > 2)
    rows = await running._outbox.fetch(Lane.B, 0, 10)
    gaps = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    assert [gap["reason"] for gap in gaps] == ["restart", "restart"]


async def test_alarms_get_their_time_to_leave_before_the_goodbye(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[tuple[float, bool]] = []
    running = await daemon.start()
    await press(daemon, board)

    async def drain(one: Deliverer, limit_s: float) -> None:
        drained.append((limit_s, one in running._outward.deliverers and running._outbox.waiting == 0))

    monkeypatch.setattr(Deliverer, "drain_alarms", drain)
    await daemon.stop()
    assert drained == [(5.0, True)]


async def test_a_disk_that_takes_nothing_is_told_after_some_seconds_and_until_it_does(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "TICK_S", 0.01)
    running = await daemon.start()
    now = running._clock.stamp()
    waits = Stamp(now.wall_ms, now.mono_ms - 6_000, now.boot)
    with monkeypatch.context() as patch:
        patch.setattr(type(running._outbox), "oldest_waiting", property(lambda _self: waits))
        patch.setattr(type(running._outbox), "is_failing", property(lambda _self: True))
        await daemon.until(lambda: ("GW-RUN-05", "") in daemon.problems())
    await daemon.until(lambda: ("GW-RUN-05", "") not in daemon.problems())


async def test_lines_are_looked_after_although_nothing_is_stored(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was held back for a disk must be read again also where that disk never answers."""
    monkeypatch.setattr(app, "TICK_S", 0.01)
    running = await daemon.start()
    await press(daemon, board)
    looked: list[int] = []
    running._outbox.on_stored = lambda: None
    monkeypatch.setattr(running._inward, "on_stored", lambda: looked.append(1))
    await daemon.until(lambda: len(looked) >= 5)


async def test_a_write_that_meets_a_bug_in_the_database_is_told(daemon: Daemon, board: Board) -> None:
    running = await daemon.start()
    odd: Any = object()
    running._outbox.submit(Write(marks=(Mark("x", "y", odd),)))
    await daemon.until(lambda: ("GW-RUN-03", "outbox") in daemon.problems())
    await press(daemon, board)


# The alive file, and the end.


async def test_the_alive_file_is_never_later_than_what_is_not_yet_durable(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await daemon.start()
    oldest = Stamp(1_800_000_000_000, 5, running._began.boot)
    monkeypatch.setattr(type(running._outbox), "oldest_waiting", property(lambda _self: oldest))
    await daemon.until(lambda: running._alive.read() == oldest)


async def test_from_the_moment_it_ends_the_alive_file_stands_still(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever kills it while it says goodbye must find the beginning of the silence."""
    monkeypatch.setattr(app, "TICK_S", 0.01)
    running = await daemon.start()
    await press(daemon, board)  # nothing is on its way to the disk from here on
    held = asyncio.Event()

    async def slow(limit_s: float) -> None:
        async with asyncio.timeout(limit_s):
            await held.wait()

    running._outward.deliverers[0].drain_alarms = slow  # type: ignore[method-assign]  # a platform that does not answer
    running._stop.set()
    stop = asyncio.create_task(daemon.until(lambda: daemon.ended, 15))
    await daemon.until(lambda: bool(daemon.told("ending")))
    first = running._alive.read()
    await asyncio.sleep(0.1)  # ten times the file's rhythm
    assert running._alive.read() == first
    held.set()
    await stop
    assert running._alive.read() == first


async def test_an_alive_file_that_cannot_be_written_is_a_problem_and_no_end(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await daemon.start()
    path = str(daemon.folder / "data" / "alive")

    def full(_at: Stamp) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(running._alive, "write", full)
    await daemon.until(lambda: ("GW-STO-01", path) in daemon.problems())
    monkeypatch.undo()
    await daemon.until(lambda: ("GW-STO-01", path) not in daemon.problems())


# Its end as a process.


def hanging(folder: Path, more: str) -> subprocess.Popen[bytes]:
    """A daemon whose disk hangs at the first commit, and that has a second for its end."""
    path = folder / "gateway.toml"
    path.write_text(
        CONFIG.format(folder=folder, line=1, password="", secret="", more="", platform="1"), encoding="utf-8"
    )
    script = f"""
import threading
from pathlib import Path
from gateway.app import daemon, run
from gateway.config import load
from gateway.outbox.store import Store
daemon.END_LIMIT_S = 1.0
def hang(*_, **__):
    print("hangs", flush=True)
    threading.Event().wait()
Store.commit = hang
{more}
run(load(Path({str(path)!r})))
"""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_a_bug_ends_the_process_although_its_disk_hangs(tmp_path: Path) -> None:
    """A thread that hangs would keep it: deaf, and not started again."""
    bug = "def bug(self):\n    if self._outbox.waiting:\n        raise KeyError\ndaemon._App._judge_disk = bug"
    with hanging(tmp_path, bug) as process:
        try:
            assert process.wait(30) != 0
        finally:
            process.kill()


def test_an_orderly_end_ends_although_the_disk_hangs(tmp_path: Path) -> None:
    with hanging(tmp_path, "") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"hangs\n"
            process.terminate()
            assert process.wait(30) == 1
        finally:
            process.kill()


def test_texts_are_read_before_the_event_loop_begins(tmp_path: Path) -> None:
    """Reading them takes long enough on a small machine for a call to wait behind it."""
    path = tmp_path / "gateway.toml"
    path.write_text(
        CONFIG.format(folder=tmp_path, line=1, password="", secret="", more="", platform="1").replace('"en"', '"zh"'),
        encoding="utf-8",
    )
    script = f"""
from pathlib import Path
from gateway.app import daemon, run
from gateway.config import load
from gateway.texts import table
async def nothing(_self):
    print(table.cache_info().currsize)
daemon._App.run = nothing
settings = load(Path({str(path)!r}))
table.cache_clear()
run(settings)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "2\n"


# One callback that raises.


async def test_whatever_cannot_be_told_of_a_commit_keeps_no_delivery_asleep(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await daemon.start()
    reader = next(iter(running._inward._readers.values()))
    woken: list[int] = []

    def bug() -> None:
        raise KeyError("a reader")

    monkeypatch.setattr(reader, "on_stored", bug)
    [deliverer] = running._outward.deliverers
    monkeypatch.setattr(deliverer, "wake", lambda: woken.append(1))
    await press(daemon, board)
    await daemon.until(lambda: bool(woken) and any(code == "GW-RUN-03" for code, _where in daemon.problems()))
    monkeypatch.undo()
    assert not daemon.ended


async def test_a_deliverer_that_cannot_be_woken_ends_neither_the_store_nor_the_others(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await daemon.start()
    [deliverer] = running._outward.deliverers
    woken: list[int] = []

    def bug() -> None:
        raise KeyError("a wake")

    class Another:
        name = "another"

        def wake(self) -> None:
            woken.append(1)

    another: Any = Another()
    monkeypatch.setattr(deliverer, "wake", bug)
    monkeypatch.setattr(running._outward, "_deliverers", [deliverer, another])
    running._outward.wake()
    assert (woken, ("GW-RUN-03", "district") in daemon.problems()) == ([1], True)
    monkeypatch.undo()
    await press(daemon, board)


async def test_a_bug_in_a_keeper_of_the_outbox_ends_neither_the_daemon_nor_the_keeper(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Expiry] = []

    async def run(self: Expiry) -> None:
        runs.append(self)
        if len(runs) < 3:
            raise IndexError("a row that nobody thought of")
        await asyncio.Event().wait()

    monkeypatch.setattr(Expiry, "run", run)
    monkeypatch.setattr(keepers, "KEEP_CAP_S", 0.01)
    await daemon.start()
    await daemon.until(lambda: len(runs) == 3)
    assert ("GW-RUN-03", "expiry") in daemon.problems()
    await press(daemon, board)


async def test_an_alarm_whose_answer_cannot_be_shown_is_confirmed_all_the_same(
    daemon: Daemon, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await daemon.start()

    def bug(*_args: str) -> None:
        raise KeyError("the board")

    monkeypatch.setattr(running._alarms, "delivered", bug)
    [deliverer] = running._outward.deliverers
    deliverer._callbacks.delivered("an id", "L2")
    assert ("GW-RUN-03", "district") in daemon.problems()
    await press(daemon, board)
