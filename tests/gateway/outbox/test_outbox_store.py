"""The database: what one transaction holds, what survives it, and how trouble is named."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.outbox import AlarmRow, CursorRow, DeadLetter, Mark, MeterDay, Number, NumberState, Route, Write
from gateway.outbox import store as store_module
from gateway.outbox.connection import connect
from gateway.outbox.inserts import put
from gateway.outbox.rows import Counted, Drop
from gateway.outbox.store import Store

Opener = Callable[..., Store]
Commit = Callable[..., list[int]]
Maker = Callable[..., Any]


def held_files(folder: Path) -> list[str]:
    found = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    return [one.name for one in found if one.parent == folder]


def seqs(store: Store, lane: Lane, after: int = 0, limit: int = 1000) -> list[int]:
    return [row.seq for row in store.reader.fetch(lane, after, limit)]


# Opening.


def test_every_connection_survives_a_power_cut(open_store: Opener) -> None:
    store = open_store()
    for connection in (store._writer, store.reader._connection):
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_the_stream_is_the_same_after_a_restart(open_store: Opener) -> None:
    assert open_store().streamid == open_store().streamid


def test_an_empty_file_is_a_new_database(open_store: Opener, tmp_path: Path) -> None:
    (tmp_path / "outbox.db").touch()
    assert open_store().counters.sequence == 0


def test_a_newer_schema_is_refused_and_left_alone(open_store: Opener, tmp_path: Path) -> None:
    open_store()._writer.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError) as caught:
        open_store()
    assert (caught.value.code, caught.value.facts["found"], caught.value.facts["known"]) == ("GW-STO-05", 99, 3)
    assert (tmp_path / "outbox.db").exists()


def test_a_file_that_is_no_database_is_corrupt(open_store: Opener, tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database at all" * 500)
    with pytest.raises(StoreError) as caught:
        open_store()
    assert caught.value.code == "GW-STO-02"


def test_a_folder_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "missing" / "outbox.db", []).open()
    assert caught.value.code == "GW-STO-01"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE fact SET value = 'many' WHERE key = 'sequence'",
        "UPDATE fact SET value = '[]' WHERE key = 'recorded'",
        "UPDATE number SET ranges = '[[1]]'",
        "UPDATE event_c SET route = 'district'; DELETE FROM fact WHERE key = 'sequence'",
        "UPDATE event_c SET route = CAST(x'ff' AS TEXT); DELETE FROM fact WHERE key = 'sequence'",
    ],
)
def test_content_that_makes_no_sense_is_corrupt(open_store: Opener, commit: Commit, event: Maker, damage: str) -> None:
    store = open_store()
    commit(store, Write((event(),), numbers=(Number("m1", "s", 1),)), cursors=[CursorRow("district", Lane.C, 0)])
    store._writer.executescript(damage)
    with pytest.raises(StoreError) as caught:
        open_store()
    assert caught.value.code == "GW-STO-02"


def test_a_failed_opening_holds_no_file(open_store: Opener, tmp_path: Path) -> None:
    open_store()._writer.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError):
        open_store()
    assert held_files(tmp_path) == []


# Sequence.


def test_the_sequence_runs_over_all_lanes_without_a_gap(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    nouns = ("alarm.raised", "telemetry.meter", "gateway.gap", "alarm.closed")
    assert commit(store, *(write(noun) for noun in nouns)) == [1, 2, 3, 4]
    assert (seqs(store, Lane.A), seqs(store, Lane.B), seqs(store, Lane.C)) == ([1, 4], [3], [2])


def test_the_sequence_goes_on_after_a_restart(open_store: Opener, commit: Commit, write: Maker) -> None:
    commit(open_store(), write(), write())
    assert commit(open_store(), write()) == [3]


def test_the_sequence_goes_on_although_every_row_has_left(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    commit(store, write(), write())
    commit(store, delete={Lane.C: 2})
    assert seqs(store, Lane.C) == []
    store = open_store()
    assert store.counters.sequence == 2
    assert commit(store, write()) == [3]


def test_each_destination_counts_what_its_filter_lets_through(open_store: Opener, commit: Commit, write: Maker) -> None:
    def routes(store: Store) -> list[Any]:
        rows = store.reader.fetch(Lane.A, 0, 9) + store.reader.fetch(Lane.C, 0, 9)
        return [dict(row.route) for row in sorted(rows, key=lambda one: one.seq)]

    store = open_store(all=("*",), alarms=("alarm.*",))
    commit(store, write(), write("alarm.raised"), write())
    assert routes(store) == [{"all": 1}, {"all": 2, "alarms": 1}, {"all": 3}]
    store = open_store(all=("*",), alarms=("alarm.*",))
    commit(store, write("alarm.raised"))
    assert routes(store)[3] == {"all": 4, "alarms": 2}


def test_delivery_numbers_go_on_after_every_row_has_left(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store(all=("*",), alarms=("alarm.*",))
    commit(store, write(), write("alarm.raised"))
    commit(store, delete={Lane.A: 2, Lane.C: 2})
    store = open_store(all=("*",), alarms=("alarm.*",))
    assert store.counters.delivery == {"all": 2, "alarms": 1}


def test_marks_beyond_the_written_ones_are_found_in_the_rows(open_store: Opener, commit: Commit, write: Maker) -> None:
    """The high-water marks are written once in 500 events."""
    store = open_store()
    for _ in range(7):
        commit(store, *(write() for _ in range(100)))
    assert store._writer.execute("SELECT value FROM fact WHERE key = 'sequence'").fetchone() == ("500",)
    store = open_store()
    assert (store.counters.sequence, store.counters.delivery) == (700, {"district": 700})


def test_a_transaction_that_could_not_even_be_rolled_back_keeps_no_later_one_out(
    open_store: Opener, commit: Commit, write: Maker
) -> None:
    store = open_store()
    store._writer.execute("BEGIN IMMEDIATE")
    assert commit(store, write()) == [1]


def test_a_migration_that_ends_in_the_middle_has_not_begun(
    open_store: Opener, commit: Commit, write: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one would be met at every start again: "table already exists", and nobody would be heard any more."""
    path = tmp_path / "old.db"
    first = resources.files("gateway.outbox").joinpath("schema/0001.sql").read_text(encoding="utf-8")
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(first)
        old.executescript("INSERT INTO alarm VALUES ('a-1', 1, 1, '{}'); PRAGMA user_version=1;")

    def connect_for_a_while(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        # As if killed between the first change and the second.
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ALTER_TABLE else 0)
        return connection

    monkeypatch.setattr("gateway.outbox.store.connect", connect_for_a_while)
    store = Store(path, [Route("district", ("*",))])
    with pytest.raises(StoreError):
        store.open()
    monkeypatch.undo()
    with contextlib.closing(sqlite3.connect(path)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        assert old.execute("SELECT count(*) FROM sqlite_master WHERE name = 'number_digest'").fetchone() == (0,)
    store.open()
    assert [row.id for row in store.reader.alarms()] == ["a-1"]
    assert commit(store, write()) == [1]
    store.reader.close()
    store.close()


def test_a_failed_transaction_leaves_no_trace(open_store: Opener, commit: Commit, write: Maker, event: Maker) -> None:
    store = open_store()
    commit(store, write())
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(
            [
                (Write((event(),), numbers=(Number("m1", "s", 1),), facts=(("a", "b"),)), (Lane.C,)),
                (Write(alarms=(AlarmRow("a", is_open=True, raised_ms=None, doc="{}"),)), ()),  # type: ignore[arg-type]  # the poison
            ],
            [], now_ms=0, delete={},
        )  # fmt: skip
    assert (store.counters.sequence, store.counters.delivery, store.counters.numbers) == (1, {"district": 1}, {})
    assert commit(store, write()) == [2]
    assert store._writer.execute("SELECT count(*) FROM number").fetchone() == (0,)


def test_the_boot_of_a_row_is_kept_over_restarts(open_store: Opener, commit: Commit, write: Maker) -> None:
    commit(open_store(), write(boot="boot-1"), write(boot="boot-2"))
    store = open_store()
    commit(store, write(boot="boot-1"), write(boot="boot-3"))
    assert [row.at.boot for row in store.reader.fetch(Lane.C, 0, 9)] == ["boot-1", "boot-2", "boot-1", "boot-3"]


def test_rows_come_back_as_they_went_in(open_store: Opener, event: Maker) -> None:
    one = event("alarm.raised", "call-1", text="跌倒")
    store = open_store()
    [[returned]], _ = store.commit([(Write((one,)), (Lane.A,))], [], now_ms=5, delete={})
    [read] = store.reader.fetch(Lane.A, 0, 9)
    assert read == returned == Stored(1, Lane.A, one.id, "alarm.raised", "call-1", 5, one.at, {"district": 1}, one.body)


# Marks, numbers, alarms.


def test_the_newest_mark_wins_whichever_comes_last(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    commit(store, Write(marks=(Mark("d", "k", "newer", 5),)))
    commit(store, Write(marks=(Mark("d", "k", "older", 4),)))
    commit(store, Write(marks=(Mark("d", "other", "1", 6),)), Write(marks=(Mark("d", "other", "0", 3),)))
    assert {(mark.key, mark.value) for mark in store.reader.marks()} == {("k", "newer"), ("other", "1")}


def test_a_mark_of_a_failed_transaction_keeps_no_other_out(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    with pytest.raises(sqlite3.Error):
        commit(store, Write(marks=(Mark("d", "k", "first", 1), Mark("d", "k", "second", 2), Mark("d", "x", None, 1))))  # type: ignore[arg-type]  # the poison
    commit(store, Write(marks=(Mark("d", "k", "first", 1),)))
    assert [mark.value for mark in store.reader.marks()] == ["first"]


def test_after_a_restart_versions_begin_anew(open_store: Opener, commit: Commit) -> None:
    commit(open_store(), Write(marks=(Mark("d", "k", "before", 900),)))
    store = open_store()
    commit(store, Write(marks=(Mark("d", "k", "after", 1),)))
    assert [mark.value for mark in store.reader.marks()] == ["after"]


def test_numbers_are_durable_with_their_event_and_known_after_a_restart(
    open_store: Opener, commit: Commit, event: Maker
) -> None:
    for n in (1, 2, 4):
        commit(open_store(), Write((event(),), numbers=(Number("d", "s", n),)))
    numbers = open_store().counters.numbers["d", "s"]
    assert [numbers.state(n).value for n in (1, 2, 3, 4, 5)] == ["durable", "durable", "new", "durable", "new"]


def test_of_a_device_that_keeps_beginning_sessions_the_last_eight_are_kept(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    for session in range(20):
        commit(store, Write(numbers=(Number("d", f"s{session}", 1), Number("other", "s", session))))
    kept = {("d", f"s{session}") for session in range(12, 20)} | {("other", "s")}
    assert set(store.counters.numbers) == kept
    assert set(open_store().counters.numbers) == kept


def test_the_session_in_use_is_kept_whatever_the_wall_clock_says(open_store: Opener, event: Maker) -> None:
    """A gateway without a clock chip may come back in the past: the newest session must not look like the oldest."""
    store = open_store()
    for session in range(9):
        work = (Write((event(),), numbers=(Number("d", f"s{session}", 1),)), (Lane.C,))
        store.commit([work], [], now_ms=1_000_000 - session, delete={})
    store = open_store()
    assert store.counters.numbers["d", "s8"].state(1) is NumberState.DURABLE
    assert ("d", "s0") not in store.counters.numbers


def test_alarms_come_back_oldest_first_and_only_closed_ones_are_forgotten(
    open_store: Opener, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_KEPT_CLOSED_ALARMS", 3)
    rows = [AlarmRow(f"a{n}", is_open=n < 2, raised_ms=n, doc=str(n)) for n in range(6)]
    commit(open_store(), Write(alarms=tuple(rows)))
    assert [row.id for row in open_store().reader.alarms()] == ["a0", "a1", "a5"]


def test_of_dead_letters_the_newest_and_every_alarm_are_kept(
    open_store: Opener, commit: Commit, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.transaction._KEPT_DEAD_LETTERS", 20)
    store = open_store()
    commit(store, write("alarm.raised"), *(write() for _ in range(99)))
    rows = store.reader.fetch(Lane.A, 0, 1) + store.reader.fetch(Lane.C, 0, 100)
    for row in rows:
        commit(store, Write(dead=(DeadLetter("district", row, "no", "why", row.seq),)))
    store = open_store()
    assert [one.seq for one in store.reader.letters(limit=100)] == [*range(100, 80, -1), 1]


# Leaving.


def test_rows_leave_in_steps(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    for _ in range(12):
        commit(store, *(write() for _ in range(100)))
    assert store.commit([], [], now_ms=0, delete={Lane.C: 1100})[1] == {Lane.C: 500}
    assert store.commit([], [], now_ms=0, delete={Lane.C: 1100})[1] == {Lane.C: 500}
    assert store.commit([], [], now_ms=0, delete={Lane.C: 1100})[1] == {Lane.C: 100}
    assert seqs(store, Lane.C) == list(range(1101, 1201))


def test_the_last_sign_of_life_outlives_its_row(open_store: Opener, event: Maker) -> None:
    store = open_store()
    store.commit([(Write((event(mono_ms=77),)), (Lane.C,))], [], now_ms=5_000, delete={})
    store.commit([], [], now_ms=6_000, delete={Lane.C: 1})
    store = open_store()
    sign = store.reader.last_recorded(store.counted_to, store.counters.recorded)
    assert sign == Stamp(5_000, 77, "boot-1", "synced")


def test_the_last_sign_of_life_is_the_newest_row(open_store: Opener, event: Maker) -> None:
    store = open_store()
    store.commit([(Write((event(),)), (Lane.C,))], [], now_ms=5_000, delete={})
    store.commit([], [], now_ms=6_000, delete={Lane.C: 1})
    store.commit([(Write((event("alarm.raised", mono_ms=99),)), (Lane.A,))], [], now_ms=7_000, delete={})
    store = open_store()
    sign = store.reader.last_recorded(store.counted_to, store.counters.recorded)
    assert sign == Stamp(7_000, 99, "boot-1", "synced")


def test_a_cursor_comes_back_and_that_of_a_destination_that_has_gone_is_forgotten(
    open_store: Opener, commit: Commit
) -> None:
    rows = [CursorRow("district", Lane.C, 7, "[[9,12]]"), CursorRow("gone", Lane.C, 3)]
    commit(open_store(district=("*",), gone=("*",)), cursors=rows)
    assert open_store().reader.cursors() == [CursorRow("district", Lane.C, 7, "[[9,12]]")]


def test_what_is_pending_leaves_out_what_is_confirmed_or_not_wanted(
    open_store: Opener, commit: Commit, write: Maker
) -> None:
    store = open_store(meters=("telemetry.meter",))
    commit(store, *(write("telemetry.meter" if n % 2 else "telemetry.environment") for n in range(1, 11)))
    # Wanted are 1, 3, 5, 7, 9. Confirmed: up to 2, and the ranges 4-5 and 9-9 of the lane.
    confirmed = {"meters": (2, [(4, 5), (9, 9)])}
    assert store.reader.count(Lane.C, 0, 10, confirmed, limit=100) == Counted(10, 10, {"meters": 2}, {})
    nothing: dict[str, tuple[int, list[tuple[int, int]]]] = {"meters": (0, []), "meter": (0, [])}
    assert store.reader.count(Lane.C, 0, 10, nothing, limit=100).pending == {"meters": 5, "meter": 0}
    # In parts: up to the row that the limit ends at, then the rest.
    assert store.reader.count(Lane.C, 0, 9, confirmed, limit=4) == Counted(4, 4, {"meters": 1}, {})
    assert store.reader.count(Lane.C, 4, 9, confirmed, limit=4) == Counted(8, 4, {"meters": 1}, {})
    assert store.reader.count(Lane.C, 8, 9, confirmed, limit=4) == Counted(9, 1, {"meters": 0}, {})
    assert store.reader.count(Lane.C, 9, 9, confirmed, limit=4) == Counted(9, 0, {"meters": 0}, {})


# Trouble.


def test_a_full_disk_is_named_and_passes(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    commit(store, write())
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError) as caught:
        commit(store, *(write(text="x" * 500) for _ in range(100)))
    assert caught.value.code == "GW-STO-03"
    assert "SQLITE_FULL" in caught.value.facts["detail"]
    store._writer.execute("PRAGMA max_page_count=1000000")
    assert commit(store, write()) == [2]


def test_a_disk_that_may_not_be_written_is_named(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    store._writer.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreError) as caught:
        commit(store, write())
    assert (caught.value.code, "SQLITE_READONLY" in caught.value.facts["detail"]) == ("GW-STO-01", True)


def test_a_full_disk_does_not_keep_what_is_stored_from_being_opened(
    open_store: Opener, commit: Commit, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(open_store(), write())

    def full(_self: Store) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "_tidy", full)
    store = open_store()
    assert seqs(store, Lane.C) == [1]
    assert commit(store, write()) == [2]


def test_a_text_that_cannot_be_read_is_corrupt(open_store: Opener, commit: Commit, write: Maker) -> None:
    store = open_store()
    commit(store, write())
    store._writer.execute("UPDATE event_c SET body = CAST(x'ff' AS TEXT)")
    with pytest.raises(StoreError) as caught:
        store.reader.fetch(Lane.C, 0, 1)
    assert caught.value.code == "GW-STO-02"


def test_a_closed_database_is_named(open_store: Opener) -> None:
    store = open_store()
    store.reader.close()
    store.close()
    with pytest.raises(StoreError) as caught:
        store.reader.marks()
    assert caught.value.code == "GW-STO-01"


@pytest.mark.parametrize("field", [{"body": None}, {"body": object()}, {"body": "\ud800"}, {"id": None}])
def test_what_a_write_cannot_store_is_not_blamed_on_the_disk(
    open_store: Opener, event: Maker, field: dict[str, Any]
) -> None:
    store = open_store()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any but StoreError, which is what it is about
        store.commit([(Write((replace(event(), **field),)), (Lane.C,))], [], now_ms=0, delete={})
    assert not isinstance(caught.value, StoreError)
    assert not store._writer.in_transaction


def frames(path: Path) -> list[tuple[int, int, bytes]]:
    """Where each frame of the WAL begins, how many pages the database has after it (0: no commit), and its page."""
    data = path.with_name("outbox.db-wal").read_bytes()
    size = 24 + 4096
    return [
        (at, int.from_bytes(data[at + 4 : at + 8], "big"), data[at + 24 : at + size])
        for at in range(32, len(data) - size + 1, size)
    ]


def test_no_commit_shares_a_block_of_the_wal_with_a_later_one(
    open_store: Maker, write: Maker, commit: Maker, tmp_path: Path
) -> None:
    store = open_store()
    for n in range(20):
        end = len(frames(tmp_path / "outbox.db"))
        commit(store, write(text="x" * 97 * n))
        new = frames(tmp_path / "outbox.db")[end:]
        durable = next(at for at, committed, _page in new if committed) + 24 + 4096
        last, _committed, page = new[-1]
        assert page == next(page for _at, committed, page in new if committed), "only repeated"
        assert durable <= (last + 24 + 4096) // 4096 * 4096, "the next one begins in a later block"


def test_numbers_go_on_after_the_newest_rows_of_a_destination_gave_way(
    open_store: Maker, write: Maker, commit: Maker, event: Maker
) -> None:
    """The rows that showed the last delivery number are gone; the gap that tells of them goes to others."""
    routes = {"district": ("*",), "city": ("telemetry.*",)}
    store = open_store(**routes)
    commit(store, write())
    rows = tuple(store.reader.fetch(Lane.C, 0, 10))
    commit(store, Write((event("gateway.gap"),), drops=(Drop(Lane.C, rows),)))
    store = open_store(**routes)
    commit(store, write())
    [row] = store.reader.fetch(Lane.C, 0, 10)
    assert (row.seq, row.route) == (3, {"district": 3, "city": 2})


def test_the_first_of_a_meter_s_day_stays_and_four_hundred_days_are_kept(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    first = date(2025, 1, 1)
    days = [(first + timedelta(days=n)).isoformat() for n in range(450)]
    for day in days:
        commit(store, Write(days=(MeterDay("m1", day, "read", "{}"), MeterDay("m1", day, "swap", "{}", n=7))))
        commit(store, Write(days=(MeterDay("m1", day, "read", "another"),)))
    rows = store.reader.meter_days("m1", "2000-01-01", "2100-01-01", limit=1_000)
    assert {row.doc for row in rows} == {"{}"}
    assert [row.day for row in rows if row.kind == "read"] == days[50:]
    assert [row.day for row in rows if row.kind == "swap"] == days[50:]
    assert store.reader.meter_days("m2", "2000-01-01", "2100-01-01", limit=1_000) == []


def test_a_day_that_a_wrong_clock_had_written_gives_way_to_its_true_first_reading(
    open_store: Opener, commit: Commit
) -> None:
    store = open_store()
    commit(store, Write(days=(MeterDay("m1", "2026-11-09", "read", "of a clock that was ahead"),)))
    commit(store, Write(days=(MeterDay("m1", "2026-11-09", "read", "true", wins=True),)))
    commit(store, Write(days=(MeterDay("m1", "2026-11-09", "read", "later"),)))
    assert [one.doc for one in store.reader.meter_days("m1", "2026-11-01", "2026-12-01", limit=9)] == ["true"]


def test_the_rows_of_a_meter_are_read_in_parts_and_none_is_left_out(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    rows = [MeterDay("m1", f"2026-11-{day:02d}", "read", "{}") for day in range(1, 31)]
    rows += [MeterDay("m1", "2026-11-05", "held", "{}", n=n) for n in range(16)]
    commit(store, Write(days=tuple(rows)))
    commit(store, Write(days=(MeterDay("m0", "2026-11-05", "read", "{}"),)))
    found, after = [], ("", "", 0)
    while part := store.reader.meter_days("m1", "2026-11-01", "2026-12-01", after=after, limit=7):
        found += part
        after = (part[-1].day, part[-1].kind, part[-1].n)
    assert found == sorted(rows, key=lambda one: (one.day, one.kind, one.n))
    assert store.reader.metered() == ["m0", "m1"]


# Rows of which many are written by one statement.


def test_many_rows_are_put_in_few_statements_and_of_two_with_one_key_the_later_stays(tmp_path: Path) -> None:
    """Each statement has to get the interpreter back from an event loop that may be busy."""
    statements: list[str] = []
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT)")
    connection.set_trace_callback(statements.append)
    put(connection, "fact", [(f"k{n}", str(n)) for n in range(71)])
    put(connection, "fact", [("k1", "old"), ("k1", "new")])
    put(connection, "fact", [])
    connection.set_trace_callback(None)
    assert len(statements) == 5  # 64, 4, 2, 1 and 2
    assert connection.execute("SELECT count(*), min(value) FROM fact WHERE key <> 'k1'").fetchone() == (70, "0")
    assert connection.execute("SELECT value FROM fact WHERE key = 'k1'").fetchone() == ("new",)
    connection.close()
