"""What each numbered input said: kept beside its number, in its transaction, over restarts and from older databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.outbox import Number, Write
from gateway.outbox.numbers import BLOCK_BYTES, WINDOW, NumberSet, NumberState
from gateway.outbox.store import Store

NEW, DURABLE, REUSED, RESTARTED = NumberState.NEW, NumberState.DURABLE, NumberState.REUSED, NumberState.RESTARTED
Opener = Callable[..., Store]
Commit = Callable[..., list[int]]


class Plain:
    """The same rules over a plain dictionary."""

    def __init__(self) -> None:
        self.said: dict[int, int] = {}

    def state(self, n: int, digest: int) -> NumberState:
        known = self.said.get(n)
        if known is not None:
            return REUSED if known and digest and known != digest else DURABLE
        return RESTARTED if self.said and n <= max(self.said) - WINDOW else NEW

    def add(self, n: int, digest: int) -> None:
        state = self.state(n, digest)
        if state in (REUSED, RESTARTED):
            self.said = {}
        if state is not DURABLE:
            self.said[n] = digest
        self.said = {one: said for one, said in self.said.items() if one > max(self.said) - WINDOW}


NUMBERS = st.one_of(st.integers(0, 40), st.integers(WINDOW - 20, WINDOW + 20), st.integers(2 * WINDOW, 2 * WINDOW + 20))
INPUTS = st.lists(st.tuples(NUMBERS, st.integers(0, 2)), max_size=60)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(INPUTS, INPUTS, st.integers(0, 59))
def test_numbers_and_what_they_said_are_judged_as_by_a_plain_set(
    added: list[tuple[int, int]], asked: list[tuple[int, int]], copied_at: int
) -> None:
    numbers, plain = NumberSet(), Plain()
    for step, (n, digest) in enumerate(added):
        if step == copied_at:
            numbers = numbers.copy()
        assert numbers.state(n, digest) is plain.state(n, digest)
        numbers.add(n, digest)
        plain.add(n, digest)
    for n, digest in [*added, *asked]:
        assert numbers.state(n, digest) is plain.state(n, digest)


def test_a_copy_does_not_change_what_its_original_knows() -> None:
    numbers = NumberSet()
    numbers.add(1, 7)
    copy = numbers.copy()
    assert copy.changed == set()
    copy.add(2, 8)
    assert (copy.changed, numbers.state(2, 8), copy.state(1, 9)) == ({0}, NEW, REUSED)


def test_what_was_not_known_fits_everything() -> None:
    numbers = NumberSet([(1, 3)])
    assert [numbers.state(n, 5) for n in (1, 2, 3, 4)] == [DURABLE, DURABLE, DURABLE, NEW]
    numbers.add(4, 5)
    assert (numbers.state(4, 0), numbers.state(4, 6)) == (DURABLE, REUSED)


def test_a_number_that_is_used_again_makes_all_others_new() -> None:
    numbers = NumberSet()
    for n in (1, 2, 3):
        numbers.add(n, 10 + n, settled=1)
    numbers.add(2, 99)
    assert numbers.ranges == [(2, 2)]
    assert numbers.settled == -1
    assert [numbers.state(n, 10 + n) for n in (1, 3)] == [NEW, NEW]
    assert (numbers.state(2, 99), numbers.state(2, 12)) == (DURABLE, REUSED)


def test_a_settled_number_that_is_stored_again_begins_anew_although_it_says_the_same() -> None:
    numbers = NumberSet()
    numbers.add(1, 5)
    numbers.add(2, 5, settled=1)
    numbers.add(2, 5)
    assert numbers.ranges == [(1, 2)]
    numbers.add(1, 5)
    assert (numbers.ranges, numbers.settled) == ([(1, 1)], -1)


def test_memory_of_a_source_is_bounded() -> None:
    numbers = NumberSet()
    for n in range(3 * WINDOW):
        numbers.add(n, n + 1)
    assert numbers.ranges == [(2 * WINDOW, 3 * WINDOW - 1)]
    assert sum(len(numbers.block(block)) for block in range(64)) == 4 * WINDOW
    assert numbers.changed == set(range(64))


# In the file.


def test_what_was_said_is_known_after_a_restart(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    commit(store, Write(numbers=(Number("d", "", 1, 7), Number("d", "", 2, 8, 1), Number("d", "s", 1, 9))))
    for known in (store, open_store()):
        numbers = known.counters.numbers
        assert [numbers["d", ""].state(n, 7) for n in (1, 2, 3)] == [DURABLE, REUSED, NEW]
        assert (numbers["d", ""].settled, numbers["d", "s"].settled) == (1, -1)
        assert numbers["d", "s"].state(1, 7) is REUSED


def test_a_commit_writes_the_blocks_that_it_changed_and_no_others(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    commit(store, Write(numbers=tuple(Number("d", "", n, n + 1) for n in range(256))))
    before = store._writer.total_changes
    commit(store, Write(numbers=(Number("d", "", 256, 1),)))
    assert store._writer.total_changes - before == 2, "the ranges, and one block"


def test_a_write_that_fails_leaves_no_digest(open_store: Opener, commit: Commit, event: Any) -> None:
    store = open_store()
    commit(store, Write(numbers=(Number("d", "", 1, 7),)))
    good = Write((event(),), numbers=(Number("d", "", 1, 8),))
    bad: Any = Write((event(),), alarms=(object(),))  # type: ignore[arg-type]  # what no database takes
    with pytest.raises(AttributeError):
        commit(store, good, bad)
    assert store.counters.numbers["d", ""].state(1, 7) is DURABLE
    assert open_store().counters.numbers["d", ""].state(1, 7) is DURABLE


def test_the_digests_of_a_forgotten_session_go_with_it(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    for session in range(20):
        commit(store, Write(numbers=(Number("d", f"s{session}", 1, 5),)))
    query = "SELECT count(*) FROM number_digest"
    assert store._writer.execute(query).fetchone() == (8,)
    store._writer.execute("DELETE FROM number WHERE session = 's19'")
    assert open_store()._writer.execute(query).fetchone() == (7,)


def test_a_block_of_another_size_is_not_known(open_store: Opener, commit: Commit) -> None:
    store = open_store()
    commit(store, Write(numbers=(Number("d", "", 1, 7),)))
    store._writer.execute("UPDATE number_digest SET digests = x'0102'")
    assert open_store().counters.numbers["d", ""].state(1, 9) is DURABLE
    assert BLOCK_BYTES == 256


def test_a_database_of_the_first_schema_is_taken_over(open_store: Opener, commit: Commit, tmp_path: Path) -> None:
    first = resources.files("gateway.outbox").joinpath("schema/0001.sql").read_text(encoding="utf-8")
    connection = sqlite3.connect(tmp_path / "outbox.db")
    connection.executescript(first)
    connection.executescript(
        "PRAGMA user_version=1; INSERT INTO fact VALUES ('streamid', 'stream-1'), ('sequence', '7');"
        "INSERT INTO number VALUES ('d', '', '[[1,5],[7,9]]', 6), ('d', 's', '[[1,1]]', 7);"
        "INSERT INTO boot VALUES (1, 'boot-0');"
        "INSERT INTO event_a VALUES (7, 'e7', 'alarm.raised', 'd', 1, 1, 1, 1, 'synced', '{\"district\":7}', '{}');"
    )
    connection.close()
    store = open_store()
    assert store._writer.execute("PRAGMA user_version").fetchone() == (3,)
    assert (store.streamid, store.counters.sequence) == ("stream-1", 7)
    numbers = store.counters.numbers["d", ""]
    assert [numbers.state(n, 12345) for n in (1, 6, 9, 10)] == [DURABLE, NEW, DURABLE, NEW]
    assert numbers.settled == -1
    commit(store, Write(numbers=(Number("d", "", 10, 7),)))
    assert open_store().counters.numbers["d", ""].state(10, 8) is REUSED
