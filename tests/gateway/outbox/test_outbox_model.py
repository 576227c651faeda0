"""The outbox against a model in memory: whatever is stored, confirmed, restarted and killed, and in whichever order.

The disk fails as well: any statement of a transaction may meet a full disk or an I/O error (at the connection, for a file
system cannot be made to fail from Python), and the file may turn out corrupt. Held at every step: the sequence and each
destination's numbers have no gap; an event that was told durable stays until everybody who wants it has confirmed it, or a
gap has announced that it gave way; one that was not told is still there to be tried again; a failed transaction leaves
nothing; a dead letter is durable no later than the confirmation that lets its row go; what is pending is counted right; of a
corrupt database everything that was not confirmed is in the new stream, with its id, and the numbers are known.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.clock import Stamp
from gateway.deliver.lane_queue import LaneQueue
from gateway.errors import StoreError
from gateway.events import Event, Lane, Origin, Stored, new_event
from gateway.outbox import DeadLetter, Drop, Mark, Number, NumberState, Outbox, Rescue, Route, Write
from gateway.outbox.numbers import within

ORIGIN = Origin("org", "site", "gw")
NOUNS = ("alarm.raised", "gateway.gap", "telemetry.meter", "telemetry.environment")
ROUTES = (Route("all", ("*",)), Route("some", ("alarm.*", "telemetry.meter")))


class Faulty:
    """A connection whose disk fails at the statement that is due, and from then on."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.error: sqlite3.OperationalError | None = None
        self.after = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _may_fail(self, statement: str) -> None:
        if self.error is not None and not statement.startswith("ROLLBACK"):
            self.after -= 1
            if self.after < 0:
                raise self.error

    def execute(self, statement: str, *values: Any) -> Any:
        self._may_fail(statement)
        return self._connection.execute(statement, *values)

    def executemany(self, statement: str, *values: Any) -> Any:
        self._may_fail(statement)
        return self._connection.executemany(statement, *values)


def disk_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return error


class StillClock:
    """A clock that stands still."""

    def stamp(self) -> Stamp:
        return Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")

    def monotonic(self) -> float:
        return 1000.0


@dataclass
class Durable:
    """What must be in the database: rows as they were told, and who has confirmed what, at least and at most."""

    rows: list[Stored] = field(default_factory=list)
    numbers: set[tuple[str, int]] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    letters: set[tuple[str, str]] = field(default_factory=set)
    marks: dict[str, str] = field(default_factory=dict)
    surely: dict[str, set[int]] = field(default_factory=lambda: {route.destination: set() for route in ROUTES})
    perhaps: dict[str, set[int]] = field(default_factory=lambda: {route.destination: set() for route in ROUTES})


class OutboxModel(RuleBasedStateMachine):
    """One outbox, two destinations. Nothing is committed but by `commit`, so that a kill can come at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.durable = Durable()
        self.version = 0
        self.next_n: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        self.open()

    def open(self) -> None:
        async def opened() -> Outbox:
            outbox = Outbox(Path(self.folder.name) / "outbox.db", ROUTES, clock=StillClock())
            await outbox.open()
            return outbox

        self.outbox = self.runner.run(opened())
        self.queues = {
            (route.destination, lane): self.queue(route.destination, lane) for route in ROUTES for lane in Lane
        }
        self.disk = Faulty(self.outbox._store._writer)
        self.outbox._store._writer = self.disk  # type: ignore[assignment]  # a connection all the same
        self.refused: set[tuple[str, str]] = set()
        self.waiting: list[tuple[Write, list[tuple[str, int]]]] = []
        self.told: list[Stored] = []

    def queue(self, destination: str, lane: Lane) -> LaneQueue:
        cursor, ahead = self.outbox.cursor(destination, lane)
        return LaneQueue(lane, destination, cursor=cursor, ahead=ahead)

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.runner.run(self.outbox.close())
        self.runner.close()
        self.folder.cleanup()

    # -- what happens -------------------------------------------------------------------------------------------

    @rule(noun=st.sampled_from(NOUNS), device=st.sampled_from("abc"), live=st.booleans(), numbered=st.booleans())
    def submit(self, noun: str, device: str, live: bool, numbered: bool) -> None:
        event = self.event(noun, device)
        self.version += 1
        numbers: tuple[Number, ...] = ()
        if numbered:
            self.next_n[device] = self.next_n.get(device, 0) + 1
            numbers = (Number(device, "", self.next_n[device]),)
        mark = Mark(device, "counter", str(self.version), self.version)
        write = Write((event,), (mark,), numbers, on_commit=self.told.extend)
        self.outbox.live = lambda: live
        assert self.outbox.submit(write)
        self.waiting.append((write, [(one.device, one.n) for one in numbers]))

    @staticmethod
    def event(noun: str, device: str) -> Event:
        return new_event(noun, ORIGIN, device=device, at=StillClock().stamp(), data={})

    @rule()
    def commit(self) -> None:
        self.told.clear()
        failed = ""
        try:
            self.runner.run(self.outbox._commit_once())
        except StoreError as error:
            failed = error.code
        if failed:
            assert self.disk.error is not None
            assert failed in ("GW-STO-01", "GW-STO-03")
            assert self.told == []
            unstored = {event.id for event in self.outbox.waiting_events()}
            assert unstored == {event.id for write, _numbers in self.waiting for event in write.events}
            return
        self.settle()

    def settle(self) -> None:
        told = {row.id for row in self.told}
        committed = [entry for entry in self.waiting if entry[0].events[0].id in told]
        assert len(committed) == len(self.told)
        self.durable.rows += self.told
        for write, numbers in committed:
            self.waiting.remove((write, numbers))
            self.durable.numbers.update(numbers)
            self.durable.dropped.update(row.seq for drop in write.drops for row in drop.rows)
            for mark in write.marks:
                if int(mark.value) > int(self.durable.marks.get(mark.device, "0")):
                    self.durable.marks[mark.device] = mark.value
        for name, perhaps in self.durable.perhaps.items():
            self.durable.surely[name] |= perhaps
        self.durable.letters |= self.refused

    @rule(name=st.sampled_from(("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC")), after=st.integers(0, 12))
    def the_disk_fails(self, name: str, after: int) -> None:
        """At the statement after so many, then at each, until it is mended or the gateway restarted."""
        self.disk.error, self.disk.after = disk_error(name), after

    @rule()
    def the_disk_is_mended(self) -> None:
        self.disk.error = None

    @rule(destination=st.sampled_from([route.destination for route in ROUTES]), lane=st.sampled_from(list(Lane)))
    def refuse(self, destination: str, lane: Lane) -> None:
        """A platform refuses a row for good: its letter is handed over, then the row is confirmed."""
        queue = self.queues[destination, lane]
        queue.load(self.runner.run(self.outbox.fetch(lane, queue.loaded_to, 1)))
        for row in queue.take(lambda _device: False, count=1, size=10**6):
            self.outbox.dead_letter(DeadLetter(destination, row, "no", "why", row.seq))
            self.refused.add((destination, row.id))
            assert queue.done(row.seq)
            self.durable.perhaps[destination].add(row.seq)
            self.outbox.confirm(destination, lane, seq=queue.cursor, ahead=queue.ahead, done=1)
        queue.reset()

    @rule(lane=st.sampled_from((Lane.C, Lane.D)), count=st.integers(1, 4))
    def give_way(self, lane: Lane, count: int) -> None:
        """The quota drops rows that nobody is sending, with the gap that announces it."""
        going = {row.seq for write, _numbers in self.waiting for drop in write.drops for row in drop.rows}
        floor = max(self.outbox.cursor(route.destination, lane)[0] for route in ROUTES)
        rows = self.runner.run(self.outbox.fetch(lane, floor, count))
        rows = [
            row for row in rows if row.seq not in going and not any(row.seq in one for one in self.durable.perhaps.values())
        ]  # fmt: skip
        if rows:
            write = Write(
                (self.event("gateway.gap", "gw"),), drops=(Drop(lane, tuple(rows)),), on_commit=self.told.extend
            )
            assert self.outbox.submit(write)
            self.waiting.append((write, []))

    @rule()
    def turn_corrupt(self) -> None:
        """The file is set aside while running; what it held comes into the new stream, and what waits does, too."""
        self.disk.error = None
        if self.outbox._intake.batch or any(write.drops for write, _numbers in self.waiting):
            self.drain()
        owed = {row.id for row in self.owed()}
        self.told.clear()

        async def replaced() -> None:
            before = self.outbox.streamid
            self.outbox._corrupt = StoreError("GW-STO-02", "outbox.db")
            running = asyncio.create_task(self.outbox.run())
            while self.outbox.streamid == before:
                await asyncio.sleep(0)
            await Rescue(self.outbox, ORIGIN, clock=StillClock()).once()
            assert await self.outbox.flush(20)
            running.cancel()
            await asyncio.wait({running})

        self.runner.run(replaced())
        waited = {event.id for write, _numbers in self.waiting for event in write.events}
        numbers = {number for _write, its in self.waiting for number in its} | self.durable.numbers
        marks = dict(self.durable.marks)
        marks |= {mark.device: mark.value for write, _numbers in self.waiting for mark in write.marks}
        rows = sorted((row for lane in Lane for row in self.fetched(lane)), key=lambda row: row.seq)
        assert owed | waited <= {row.id for row in rows}
        letters = {(one.destination, one.id) for one in self.runner.run(self.outbox.dead_letters(1_000))}
        assert self.durable.letters <= letters
        self.durable = Durable(rows, numbers, letters=letters, marks=marks)
        self.refused = set()
        self.waiting = []
        self.disk = Faulty(self.outbox._store._writer)
        self.outbox._store._writer = self.disk  # type: ignore[assignment]  # a connection all the same
        self.queues = {
            (route.destination, lane): self.queue(route.destination, lane) for route in ROUTES for lane in Lane
        }

    def owed(self) -> list[Stored]:
        """The rows that somebody has not confirmed."""
        return [
            row for row in self.durable.rows
            if row.seq not in self.durable.dropped and any(row.seq not in self.durable.perhaps[name] for name in row.route)
        ]  # fmt: skip

    def drain(self) -> None:
        while self.waiting or self.outbox._dirty or self.outbox.waiting:
            self.commit()

    @rule(
        destination=st.sampled_from([route.destination for route in ROUTES]),
        lane=st.sampled_from(list(Lane)),
        count=st.integers(1, 6),
        which=st.sets(st.integers(0, 5)),
    )
    def confirm(self, destination: str, lane: Lane, count: int, which: set[int]) -> None:
        """Read on, and confirm some of it in any order; what is not confirmed is read again later."""
        queue = self.queues[destination, lane]
        rows = self.runner.run(self.outbox.fetch(lane, queue.loaded_to, count))
        before = queue.cursor
        queue.load(rows)
        sent = queue.take(lambda _device: False, count=count, size=10**6)
        done = [row for at, row in enumerate(sent) if at in which]
        for row in done:
            assert queue.done(row.seq)
            self.durable.perhaps[destination].add(row.seq)
        if done or queue.cursor != before:
            self.outbox.confirm(destination, lane, seq=queue.cursor, ahead=queue.ahead, done=len(done))
        queue.reset()

    @rule()
    def restart(self) -> None:
        self.disk.error = None
        self.drain()
        self.runner.run(self.outbox.close())
        self.open()
        surely = {name: seqs - self.durable.dropped for name, seqs in self.durable.surely.items()}
        assert self.confirmed() == surely
        self.keeps_letters()

    @rule()
    def kill(self) -> None:
        self.runner.run(self.outbox.close())
        self.open()
        for name, confirmed in self.confirmed().items():
            dropped = self.durable.dropped
            assert self.durable.surely[name] - dropped <= confirmed <= self.durable.perhaps[name]
            self.durable.perhaps[name] = confirmed | (self.durable.surely[name] & dropped)
        self.keeps_letters()

    def keeps_letters(self) -> None:
        """A row that its refusal has let go has left its letter."""
        found = {(one.destination, one.id) for one in self.runner.run(self.outbox.dead_letters(1_000))}
        assert self.durable.letters <= found
        self.durable.letters = found

    def confirmed(self) -> dict[str, set[int]]:
        """What the outbox, just opened, takes for confirmed, of the rows that a destination wants and that did not give way."""
        found: dict[str, set[int]] = {}
        for route in ROUTES:
            found[route.destination] = set()
            for row in self.durable.rows:
                if row.seq in self.durable.dropped:
                    continue  # nobody waits for it, whatever a cursor says
                seq, ahead = self.outbox.cursor(route.destination, row.lane)
                if route.destination in row.route and (row.seq <= seq or within(ahead, row.seq)):
                    found[route.destination].add(row.seq)
        return found

    # -- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def the_sequence_has_no_gap_and_no_number_twice(self) -> None:
        if hasattr(self, "outbox"):
            rows = self.durable.rows
            assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
            assert self.outbox.sequence == len(rows)
            for route in ROUTES:
                numbers = [row.route[route.destination] for row in rows if route.destination in row.route]
                assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def everything_unconfirmed_can_be_fetched(self) -> None:
        if not hasattr(self, "outbox"):
            return
        for lane in Lane:
            there = {row.seq: row for row in self.fetched(lane)}
            assert not there.keys() & self.durable.dropped
            for row in self.owed():
                if row.lane is lane:
                    assert there[row.seq] == row

    def fetched(self, lane: Lane) -> list[Stored]:
        return self.runner.run(self.outbox.fetch(lane, 0, 10_000))

    @invariant()
    def what_is_pending_is_counted(self) -> None:
        if not hasattr(self, "outbox"):
            return
        for route in ROUTES:
            pending = dict.fromkeys(("A", "B", "C", "D"), 0)
            for row in self.owed():
                if route.destination in row.route and row.seq not in self.durable.perhaps[route.destination]:
                    pending[row.lane.name] += 1
            assert self.outbox.pending(route.destination) == pending

    @invariant()
    def numbers_and_marks_are_durable_with_their_events(self) -> None:
        if not hasattr(self, "outbox"):
            return
        for device, last in self.next_n.items():
            for n in range(1, last + 1):
                durable = self.outbox.number_state(device, "", n) is NumberState.DURABLE
                assert durable == ((device, n) in self.durable.numbers)
        marks: list[Any] = self.runner.run(self.outbox.marks())
        assert {mark.device: mark.value for mark in marks} == self.durable.marks

    @invariant()
    def telemetry_of_a_device_goes_back_to_live_only_behind_its_confirmed_backlog(self) -> None:
        for device in "abc":
            backlog = [row for row in self.durable.rows if row.device == device and row.lane is Lane.D]
            for row in self.durable.rows:
                if row.device == device and row.lane is Lane.C:
                    before = [one.seq for one in backlog if one.seq < row.seq]
                    done = self.durable.perhaps["all"] | self.durable.dropped
                    assert all(seq in done for seq in before)


def _with_quick_settings(machine: type[RuleBasedStateMachine]) -> Any:
    case = machine.TestCase
    case.settings = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return case


TestOutboxModel = _with_quick_settings(OutboxModel)
