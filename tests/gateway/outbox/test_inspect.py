"""Looking into a database from outside: with the gateway running, killed, ended well, or its files damaged; no trace left."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.outbox import inspect as module
from gateway.outbox.inspect import Inspection, inspect_database

ROOT = Path(__file__).parents[3]
# Writes alarms and telemetry, refuses one event for good, confirms some, then waits for its end.
WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.events import Lane, Origin, new_event
from gateway.outbox import AlarmRow, DeadLetter, Mark, Outbox, Route, Write

async def main():
    clock = SystemClock()
    outbox = Outbox(Path(sys.argv[1]), [Route("district", ("*",)), Route("province", ("alarm.*",))], clock=clock)
    await outbox.open()
    running = asyncio.create_task(outbox.run())
    origin = Origin("kz", "site", "gw")
    for n in range(10):
        noun = "alarm.raised" if n % 2 else "telemetry.meter"
        event = new_event(noun, origin, device=f"device-{n % 3}", at=clock.stamp(), data={"n": n})
        alarms = (AlarmRow(f"alarm-{n}", n < 4, n, '{"id": "alarm-%d"}' % n),) if n % 2 else ()
        marks = (Mark("device-1", "counter:proven:32", "{}"), Mark("device-2", "level:call:", "{}"))
        outbox.submit(Write((event,), marks, alarms=alarms))
    await outbox.flush(10)
    rows = await outbox.fetch(Lane.A, 0, 10)
    outbox.dead_letter(DeadLetter("province", rows[0], "bad-time", "in the future", 1))
    outbox.confirm("province", Lane.A, seq=rows[0].seq, ahead=lambda: [(rows[2].seq, rows[2].seq)], done=2)
    await outbox.flush(10)
    await asyncio.sleep(0.05)
    print("written", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    await asyncio.wait({running})
    await outbox.close()

asyncio.run(main())
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    path = tmp_path / "outbox.db"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    yield path, process
    if process.poll() is None:
        process.kill()
    process.communicate()


def listing(path: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for one in sorted(path.parent.iterdir()):
        status = one.stat()
        found.append((one.name, status.st_size, status.st_mtime_ns, status.st_mode))
    return found


def expect(found: Inspection) -> None:
    assert (found.schema, found.wal, found.check) == (1, True, "ok") or found.schema > 1
    assert found.rows == {"A": 5, "B": 0, "C": 5, "D": 0}
    assert found.pending == {
        "district": {"A": 5, "B": 0, "C": 5, "D": 0}, "province": {"A": 3, "B": 0, "C": 0, "D": 0},
    }  # fmt: skip
    assert found.dead == {"province": (1, 1)}
    assert found.counters == {"device-1"}
    assert found.open_alarms == ('{"id": "alarm-1"}', '{"id": "alarm-3"}')
    assert set(found.last_ms) == {"device-0", "device-1", "device-2"}
    now = time.time() * 1000
    assert found.recorded_ms is not None
    assert found.oldest_ms is not None
    assert now - 60_000 < found.oldest_ms <= found.recorded_ms <= now + 1000


NAMES = ("district", "province")


def test_beside_a_gateway_that_runs(writer: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, _ = writer
    before = listing(path)
    expect(inspect_database(path, NAMES))
    assert [one[:2] for one in listing(path)] == [one[:2] for one in before]


def test_after_a_gateway_that_was_killed(writer: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, process = writer
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = listing(path)
    assert "outbox.db-wal" in [one[0] for one in before]
    expect(inspect_database(path, NAMES))
    assert listing(path) == before


def test_after_a_power_cut_that_cost_the_index_of_the_wal(writer: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, process = writer
    process.send_signal(signal.SIGKILL)
    process.communicate()
    path.with_name("outbox.db-shm").unlink()
    before = listing(path)
    expect(inspect_database(path, NAMES))
    assert listing(path) == before


def test_a_wal_without_index_that_is_too_large_to_copy_is_told(
    writer: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process = writer
    process.send_signal(signal.SIGKILL)
    process.communicate()
    path.with_name("outbox.db-shm").unlink()
    monkeypatch.setattr(module, "MAX_COPY_BYTES", 1000)
    with pytest.raises(StoreError) as refused:
        inspect_database(path, NAMES)
    assert refused.value.code == "GW-STO-01"


def test_after_an_orderly_end(writer: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, process = writer
    process.communicate()
    assert process.returncode == 0
    before = listing(path)
    expect(inspect_database(path, NAMES))
    assert listing(path) == before, "no WAL, no index, nothing"


def test_where_nothing_may_be_written(writer: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, process = writer
    process.send_signal(signal.SIGKILL)
    process.communicate()
    mounted = subprocess.run(["mount", "--bind", path.parent, path.parent], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path.parent], check=True)
        expect(inspect_database(path, NAMES))
    finally:
        subprocess.run(["umount", "--lazy", path.parent], check=True)


def test_a_destination_that_a_new_database_does_not_know_is_counted(
    writer: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    path, _ = writer
    assert inspect_database(path, ["elsewhere"]).pending["elsewhere"] == {"A": 0, "B": 0, "C": 0, "D": 0}


# -- damaged -----------------------------------------------------------------------------------------------------


def test_a_damaged_page_is_found_by_the_check(writer: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, process = writer
    process.communicate()
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'boot'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 64)
    found = inspect_database(path, NAMES)
    assert found.check not in ("", "ok")


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_what_is_no_database_is_told_as_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(content)
    with pytest.raises(StoreError) as refused:
        inspect_database(path)
    assert refused.value.code in ("GW-STO-01", "GW-STO-02")


def test_a_file_that_we_may_not_read_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(StoreError) as refused:
        inspect_database(tmp_path / "outbox.db")
    assert (refused.value.code, refused.value.facts["detail"]) == ("GW-STO-01", "Is a directory")


def test_figures_that_take_too_long_are_given_up(
    writer: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = writer
    monkeypatch.setattr(module, "_STEPS_BETWEEN_LOOKS", 1)
    with pytest.raises(StoreError) as refused:
        inspect_database(path, limit_s=0)
    assert refused.value.facts["detail"] == "no answer within 0 s"


def test_a_check_that_takes_too_long_is_left_out(
    writer: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = writer
    monkeypatch.setattr(module, "_STEPS_BETWEEN_LOOKS", 1)
    assert inspect_database(path, limit_s=30, check_s=0).check == ""


def test_a_gateway_that_begins_meanwhile_is_noticed(
    writer: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process = writer
    process.communicate()
    real = module._inspected

    def slow(connection: sqlite3.Connection, *args: object, **more: object) -> Inspection:
        found = real(connection, *args, **more)  # type: ignore[arg-type]
        with sqlite3.connect(path) as other:
            other.execute("INSERT INTO boot VALUES (99, 'x')")
        other.close()
        return found

    monkeypatch.setattr(module, "_inspected", slow)
    with pytest.raises(StoreError) as refused:
        inspect_database(path)
    assert refused.value.facts["detail"] == "the gateway began meanwhile"
