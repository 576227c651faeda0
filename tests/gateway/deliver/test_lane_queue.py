"""A lane on its way out: the order of each device holds, nothing is lost, nothing confirmed goes again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.clock import Stamp
from gateway.deliver import lane_queue
from gateway.deliver.lane_queue import LaneQueue
from gateway.events import Lane, Stored
from gateway.outbox.numbers import within

AT = Stamp(0, 0, "boot", "synced")


def row(seq: int, device: str = "m1", body: str = "{}", *, wanted: bool = True) -> Stored:
    return Stored(
        seq, Lane.C, f"id-{seq}", "telemetry.meter", device, 0, AT, {"d": seq} if wanted else {"e": seq}, body
    )


def queue(*rows: Stored, cursor: int = 0, ahead: list[tuple[int, int]] | None = None) -> LaneQueue:
    made = LaneQueue(Lane.C, "d", cursor=cursor, ahead=ahead or [])
    made.load(rows)
    return made


def taken(lane: LaneQueue, *busy: str, count: int = 100, size: int = 64_512) -> list[int]:
    return [one.seq for one in lane.take(lambda device: device in busy, count=count, size=size)]


def test_rows_go_out_in_the_order_of_their_sequence() -> None:
    assert taken(queue(row(1), row(2, "m2"), row(5))) == [1, 2, 5]


def test_the_cursor_moves_over_confirmed_rows_only() -> None:
    lane = queue(row(1), row(2), row(5))
    taken(lane)
    assert lane.done(2)
    assert (lane.cursor, lane.ahead()) == (0, [(2, 2)])
    assert lane.done(1)
    assert (lane.cursor, lane.ahead()) == (2, [])


def test_what_was_stored_for_others_is_passed_by() -> None:
    lane = queue(row(1))
    lane.pass_by(40)
    assert (lane.loaded_to, lane.cursor, lane.ahead()) == (40, 0, [(2, 40)])
    taken(lane)
    lane.done(1)
    assert (lane.cursor, lane.ahead()) == (40, [])


def test_what_was_passed_by_does_not_go_when_it_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_queue, "SET_ASIDE", 1)
    lane = LaneQueue(Lane.C, "d", cursor=0, ahead=[])
    lane.park("m1")
    own, others = [row(1), row(2)], [row(3, "m2", wanted=False), row(4, "m2", wanted=False)]
    lane.load(own)  # the second is skipped
    lane.pass_by(4)
    assert taken(lane, "m1") == []
    lane.release("m1")
    assert lane.loaded_to == 1
    lane.load([*own[1:], *others])
    assert taken(lane) == [1, 2]
    assert lane.done(1)
    assert lane.done(2)
    assert (lane.cursor, lane.ahead()) == (4, [])


def test_confirming_twice_counts_once() -> None:
    lane = queue(row(1), row(2))
    taken(lane)
    assert lane.done(2)
    assert not lane.done(2)
    assert lane.done(1)
    assert not lane.done(1)
    assert not lane.done(99)


def test_rows_that_the_destination_does_not_want_pass_by() -> None:
    lane = queue(row(1, wanted=False), row(2), row(3, wanted=False))
    assert lane.cursor == 1
    assert taken(lane) == [2]
    lane.done(2)
    assert lane.cursor == 3


def test_confirmed_neighbours_in_the_lane_are_one_range_whatever_lies_between() -> None:
    lane = queue(row(1), row(10), row(20), row(30), row(40))
    taken(lane)
    for seq in (10, 20, 40):
        lane.done(seq)
    assert lane.ahead() == [(2, 20), (31, 40)]


def test_what_was_confirmed_before_a_restart_does_not_go_again() -> None:
    lane = queue(row(11), row(12), row(13), row(14), cursor=10, ahead=[(12, 13)])
    assert taken(lane) == [11, 14]
    lane.done(11)
    assert lane.cursor == 13


def test_a_busy_device_keeps_its_rows_and_its_order_while_others_go_on() -> None:
    lane = queue(row(1, "m1"), row(2, "m2"), row(3, "m1"), row(4, "m2"))
    assert taken(lane, "m1") == [2, 4]
    lane.release("m1")
    assert taken(lane) == [1, 3]


def test_a_row_that_came_back_goes_before_its_successors() -> None:
    lane = queue(row(1), row(2), row(3))
    first = lane.take(lambda _device: False, count=1, size=64_512)
    assert taken(lane, "m1") == []
    lane.put_back(first)
    lane.release("m1")
    assert taken(lane) == [1, 2, 3]


def test_a_row_that_was_confirmed_late_is_not_sent_again() -> None:
    lane = queue(row(1), row(2))
    both = lane.take(lambda _device: False, count=2, size=64_512)
    lane.put_back(both)
    lane.release("m1")
    lane.done(1)
    assert taken(lane) == [2]


def test_where_more_waits_than_a_batch_holds_it_leaves_devices_for_the_next_ones() -> None:
    lane = queue(*(row(n, f"m{n % 6}") for n in range(1, 61)))
    batches = []
    busy: set[str] = set()
    for _ in range(3):
        rows = lane.take(busy.__contains__, count=10, size=64_512, parts=3)
        batches.append([one.seq for one in rows])
        busy.update(one.device for one in rows)
    assert batches == [
        [1, 2, 7, 8, 13, 14, 19, 20, 25, 26],
        [3, 4, 9, 10, 15, 16, 21, 22, 27, 28],
        [5, 6, 11, 12, 17, 18, 23, 24, 29, 30],
    ]


def test_what_fits_into_one_batch_goes_in_one_and_few_rows_of_some_devices_leave_no_room() -> None:
    lane = queue(*(row(n, f"m{n}") for n in range(1, 7)))
    assert [one.seq for one in lane.take(lambda _device: False, count=10, size=64_512, parts=3)] == [1, 2, 3, 4, 5, 6]
    lane = queue(row(1, "m1"), row(2, "m2"), row(3, "m3"), *(row(n, "much") for n in range(4, 31)))
    rows = lane.take(lambda _device: False, count=10, size=64_512, parts=3)
    assert [one.seq for one in rows] == list(range(1, 11))


def test_a_row_can_make_a_batch_smaller() -> None:
    """One that was in a batch which nobody answered: the next one has half as many."""
    lane = queue(*(row(n, f"m{n}") for n in range(1, 11)))
    assert [
        one.seq
        for one in lane.take(lambda _d: False, count=10, size=64_512, most=lambda one: 4 if one.seq == 2 else 10)
    ] == [1, 2, 3, 4]
    assert [
        one.seq
        for one in lane.take(lambda _d: False, count=10, size=64_512, most=lambda one: 1 if one.seq == 8 else 10)
    ] == [5, 6, 7]


def test_a_batch_holds_no_more_rows_than_asked_for() -> None:
    lane = queue(*(row(n) for n in range(1, 251)))
    assert [len(taken(lane, count=100)) for _ in range(3)] == [100, 100, 50]


def test_a_batch_holds_no_more_bytes_than_asked_for() -> None:
    # 680 bytes and 320 of envelope: 64 of them make 64,000 bytes.
    lane = queue(*(row(n, body="x" * 680) for n in range(1, 101)))
    assert len(taken(lane, size=64_000)) == 64


def test_what_is_said_of_a_clock_that_was_not_set_has_its_room() -> None:
    # 680 bytes, 320 of envelope and 120 of what is known of the clock: 57 of them make 63,840 bytes.
    unset = Stamp(0, 0, "boot", "unsynced")
    lane = queue(*(row(n, body="x" * 680)._replace(at=unset) for n in range(1, 101)))
    assert len(taken(lane, size=64_000)) == 57


def test_bytes_are_counted_as_they_go_on_the_wire() -> None:
    # 100 characters of three bytes each, and 320 of envelope.
    lane = queue(*(row(n, body="呼" * 100) for n in range(1, 11)))
    assert len(taken(lane, size=3 * 620)) == 3


def test_one_row_always_fits() -> None:
    lane = queue(row(1, body="x" * 100_000), row(2))
    assert taken(lane, size=1000) == [1]
    assert taken(lane, size=1000) == [2]


def test_after_a_lost_connection_everything_unconfirmed_is_read_again() -> None:
    rows = [row(1), row(2), row(3)]
    lane = queue(*rows)
    taken(lane)
    lane.done(2)
    lane.reset()
    assert (lane.cursor, lane.loaded_to, lane.ahead()) == (0, 0, [(2, 2)])
    lane.load(rows)
    assert taken(lane) == [1, 3]


def test_a_skipped_row_that_gave_way_to_the_quota_does_not_hold_up_the_cursor() -> None:
    rows = [row(n, "waits") for n in range(1, 1500)]
    lane = queue(rows[0])
    taken(lane)
    lane.park("waits")
    lane.load(rows[1:])
    assert lane.read_to == 1499
    lane.done(1)
    lane.release("waits")
    skipped_from = lane.loaded_to + 1
    assert 1 < skipped_from <= 1001
    lane.exhausted(1499)  # everything from there on has gone
    for seq in taken(lane, count=5000, size=10**9):
        lane.done(seq)
    assert (lane.cursor, lane.ahead()) == (1499, [])


def test_reading_ahead_is_bounded() -> None:
    lane = queue(*(row(n) for n in range(1, 2001)))
    assert lane.room == 0
    assert not lane.wants_more


def test_a_device_that_has_to_wait_for_days_does_not_stop_the_others() -> None:
    """One device is asked to wait; 15,000 rows of others go by, more than can be held in memory."""
    rows = [row(n, "waits" if n % 3 == 0 else "goes-on") for n in range(1, 22_501)]
    lane = queue()
    gone: list[int] = []
    held = False
    while lane.loaded_to < 22_500 and lane.room > 0:
        lane.load(one for one in rows[lane.loaded_to : lane.loaded_to + min(lane.room, 1000)])
        for seq in taken(lane, "waits", count=5000, size=10**9):
            gone.append(seq)
            lane.done(seq)
        if not held:
            lane.park("waits")
            held = True
    assert len(gone) > 13_000
    assert lane.cursor == 2
    lane.release("waits")
    later: list[int] = []
    while len(later) < 6000:
        lane.load(one for one in rows[lane.loaded_to : lane.loaded_to + min(lane.room, 1000)])
        for seq in taken(lane, count=5000, size=10**9):
            later.append(seq)
            lane.done(seq)
    assert [seq for seq in later if seq % 3 == 0][:6000] == list(range(3, 18_001, 3))[: len(later)]


def read_on(lane: LaneQueue, rows: list[Stored]) -> int:
    """Read on as `Lanes` does, up to 1,000 rows; return how many there were. `rows` are numbered from 1 without a gap."""
    part = rows[lane.loaded_to : lane.loaded_to + min(lane.room, 1000)] if lane.room > 0 else []
    lane.load(part)
    return len(part)


def test_however_much_of_others_goes_by_a_device_that_waits_stops_nobody() -> None:
    """One event that a platform puts off for ever, while 60,000 of others are confirmed behind it."""
    rows = [row(n, "waits" if n % 500 == 1 else "goes-on") for n in range(1, 60_001)]
    lane = queue()
    lane.park("waits")
    gone: list[int] = []
    while read_on(lane, rows):
        for seq in taken(lane, "waits", count=5000, size=10**9):
            gone.append(seq)
            lane.done(seq)
    assert len(gone) == 59_880
    assert (lane.cursor, len(lane._open), len(lane.ahead())) == (0, 120, 120)
    lane.release("waits")
    assert taken(lane, count=5000, size=10**9) == list(range(1, 60_001, 500))


def test_a_device_that_is_tried_again_and_again_does_not_fill_the_room_of_the_others() -> None:
    rows = [row(n, "waits" if n <= 6_000 else "goes-on") for n in range(1, 6_101)]
    lane = queue()
    gone: list[int] = []
    for _ in range(20):
        lane.release("waits")
        while read_on(lane, rows) and lane.room > 0:
            pass
        first = [one for one in lane.take(lambda _device: False, count=100, size=10**9) if one.device == "waits"]
        lane.put_back(first)
        lane.park("waits")
        while read_on(lane, rows) and lane.room > 0:
            pass
        for seq in taken(lane, "waits", count=5000, size=10**9):
            gone.append(seq)
            lane.done(seq)
    assert gone == list(range(6_001, 6_101))
    lane.release("waits")
    later: list[int] = []
    while len(later) < 6_000:
        read_on(lane, rows)
        for seq in taken(lane, count=100, size=10**9):
            later.append(seq)
            lane.done(seq)
    assert later == list(range(1, 6_001))
    assert (lane.cursor, lane.ahead()) == (6_100, [])


def test_a_device_of_which_nothing_is_in_memory_is_read_again_although_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_queue, "SET_ASIDE", 2)
    monkeypatch.setattr(lane_queue, "BEYOND", 10)
    rows = [row(n, "one" if n <= 3 else "two") for n in range(1, 13)]
    lane = queue()
    lane.park("one")
    lane.park("two")
    while read_on(lane, rows):
        pass
    assert lane.room <= 0
    lane.release("two")
    assert lane.room > 0
    read_on(lane, rows)
    assert taken(lane, "one") == list(range(4, lane.read_to + 1))


def test_what_was_confirmed_behind_a_row_that_waits_is_not_read_again() -> None:
    """After each lost connection, and each time that a device is tried again, whoever is new would wait for that."""
    rows = [row(n, "waits" if n == 1 else "goes-on") for n in range(1, 60_001)]
    lane = queue(cursor=0, ahead=[(2, 59_000)])
    sizes = []
    while size := read_on(lane, rows):
        sizes.append(size)
    assert sizes == [1000, 1000]
    assert taken(lane, count=5000, size=10**9) == [1, *range(59_001, 60_001)]


def test_what_was_passed_by_behind_a_skipped_row_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_queue, "SET_ASIDE", 1)
    rows = [row(n, "waits" if n % 5_000 == 1 else "goes-on") for n in range(1, 20_001)]
    lane = queue()
    lane.park("waits")
    while read_on(lane, rows):
        for seq in taken(lane, "waits", count=5000, size=10**9):
            lane.done(seq)
    lane.release("waits")
    sizes = []
    while size := read_on(lane, rows):
        sizes.append(size)
    assert sizes == [1000, 1000, 1000]
    assert taken(lane) == [1, 5_001, 10_001, 15_001]


@dataclass
class Message:
    """A message on the wire: the rows that it waits for, the devices that it keeps busy, the rows to be sent again."""

    waiting: list[Stored]
    devices: set[str]
    again: list[Stored] = field(default_factory=list)


class OneDestination(RuleBasedStateMachine):
    """A destination that answers in any order, late, twice or never, over connections that break, with tiny limits."""

    messages: Bundle[Message] = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.limits = pytest.MonkeyPatch()
        for name, value in {"READ_AHEAD": 8, "SET_ASIDE": 2, "REFILL_BELOW": 3, "BEYOND": 40}.items():
            self.limits.setattr(lane_queue, name, value)
        self.table: list[Stored] = []
        self.last = 0
        self.confirmed: set[int] = set()
        self.busy: set[str] = set()
        self.held: set[str] = set()
        self.aloft: list[Message] = []
        self.landed: list[Message] = []
        self.lane = LaneQueue(Lane.C, "d", cursor=0, ahead=[])

    def teardown(self) -> None:
        try:
            self.run_dry()
        finally:
            self.limits.undo()

    @initialize(devices=st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
    def begin_with_a_backlog(self, devices: list[str]) -> None:
        self.store(devices, wanted=True)

    @rule(devices=st.lists(st.sampled_from("abc"), min_size=1, max_size=8), wanted=st.booleans())
    def store(self, devices: list[str], wanted: bool) -> None:
        for device in devices:
            self.last += 1 + self.last % 2
            self.table.append(row(self.last, device, wanted=wanted))

    @rule(limit=st.integers(1, 8))
    def load(self, limit: int) -> None:
        if self.lane.room > 0 and self.lane.loaded_to < self.last:
            after = self.lane.loaded_to
            rows = [one for one in self.table if one.seq > after][: min(limit, self.lane.room)]
            if rows:
                self.lane.load(rows)
            else:
                self.lane.exhausted(self.last)

    @rule()
    def pass_by(self) -> None:
        """All that came is for others."""
        self.store(["c", "d"], wanted=False)
        may_pass = self.lane.room > 0 and self.lane.loaded_to == self.lane.read_to
        if may_pass and all("d" not in one.route for one in self.table if one.seq > self.lane.loaded_to):
            self.lane.pass_by(self.last)

    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        rows = self.lane.take(lambda device: device in self.busy, count=count, size=10**6)
        if not rows:
            return
        for device in {one.device for one in rows}:
            assert device not in self.busy
            open_rows = [
                one.seq
                for one in self.table
                if one.device == device and "d" in one.route and one.seq not in self.confirmed
            ]
            mine = [one.seq for one in rows if one.device == device]
            assert mine == open_rows[: len(mine)], "a row overtook an older one of its device, or went again"
            self.busy.add(device)
        self.aloft.append(Message(rows, {one.device for one in rows}))

    def answered(self, message: Message, seq: int) -> None:
        self.lane.done(seq)
        self.confirmed.add(seq)

    def land(self, message: Message) -> None:
        self.aloft.remove(message)
        self.landed.append(message)
        self.lane.put_back(message.again)
        for device in message.devices - self.held:
            self.busy.discard(device)
            self.lane.release(device)

    @precondition(lambda self: self.aloft)
    @rule(data=st.data())
    def accept_one(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.aloft))
        one = data.draw(st.sampled_from(message.waiting))
        message.waiting.remove(one)
        self.answered(message, one.seq)
        if not message.waiting:
            self.land(message)

    @rule()
    def serve_who_may_go(self) -> None:
        """The common case: read on, send, and everything on the wire is accepted."""
        self.load(8)
        self.send(4)
        for message in list(self.aloft):
            for one in message.waiting:
                self.answered(message, one.seq)
            message.waiting = []
            self.land(message)

    @precondition(lambda self: self.aloft)
    @rule(data=st.data())
    def ask_to_wait(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.aloft))
        one = data.draw(st.sampled_from(message.waiting))
        message.waiting.remove(one)
        message.again.append(one)
        self.held.add(one.device)
        self.lane.park(one.device)
        if not message.waiting:
            self.land(message)

    @precondition(lambda self: self.aloft)
    @rule(data=st.data())
    def time_out(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.aloft))
        message.again += message.waiting
        message.waiting = []
        self.land(message)

    @rule()
    def all_of_one_device_has_to_wait(self) -> None:
        """A device that the platform does not know yet, while others have much to say."""
        self.store(["a", "b", "a", "c", "a"], wanted=True)
        self.load(8)
        self.send(1)
        for message in [one for one in self.aloft if "a" in one.devices]:
            message.again += message.waiting
            message.waiting = []
            self.held.update(message.devices)
            for device in message.devices:
                self.lane.park(device)
            self.land(message)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def waiting_ends(self, data: st.DataObject) -> None:
        device = data.draw(st.sampled_from(sorted(self.held)))
        self.held.discard(device)
        if not any(device in one.devices for one in self.aloft):
            self.busy.discard(device)
            self.lane.release(device)

    @precondition(lambda self: any(one.again for one in self.landed))
    @rule(data=st.data())
    def accept_late(self, data: st.DataObject) -> None:
        again = [(message, one) for message in self.landed for one in message.again]
        message, one = data.draw(st.sampled_from(again))
        message.again.remove(one)
        carriers = [other for other in self.aloft if one in other.waiting]
        for other in carriers:
            other.waiting.remove(one)
        self.answered(message, one.seq)
        for other in carriers:
            if not other.waiting:
                self.land(other)

    def new_connection(self) -> None:
        self.aloft.clear()
        self.landed.clear()
        self.busy.clear()
        self.held.clear()

    @precondition(lambda self: self.waiting_on_disk())
    @rule(data=st.data())
    def the_quota_takes_a_row(self, data: st.DataObject) -> None:
        """Of what is not in memory: not read yet, or skipped."""
        self.table.remove(data.draw(st.sampled_from(self.waiting_on_disk())))

    def waiting_on_disk(self) -> list[Stored]:
        there = self.confirmed | self.lane._held
        return [one for one in self.table if one.seq > self.lane.cursor and one.seq not in there]

    @rule()
    def lose_the_connection(self) -> None:
        self.lane.reset()
        self.new_connection()

    @rule()
    def restart(self) -> None:
        self.lane = LaneQueue(Lane.C, "d", cursor=self.lane.cursor, ahead=self.lane.ahead())
        self.new_connection()

    @invariant()
    def what_it_says_is_confirmed_is_what_was_confirmed(self) -> None:
        ahead = self.lane.ahead()
        for one in self.table:
            said = one.seq <= self.lane.cursor or within(ahead, one.seq)
            if "d" in one.route:
                assert said == (one.seq in self.confirmed)

    @invariant()
    def it_holds_no_more_than_its_limits(self) -> None:
        assert len(self.lane._held) <= 8
        in_memory = [one.seq for one in self.lane._waiting]
        assert len(in_memory) == len(set(in_memory)), "a row is there twice"
        assert len(self.lane._open) <= 40 + 8

    def run_dry(self) -> None:
        """However it stands: once every device may go on, everything goes out and is confirmed."""
        while self.aloft:
            self.time_out_all()
        for device in sorted(self.held):
            self.held.discard(device)
            self.busy.discard(device)
            self.lane.release(device)
        for _ in range(len(self.table) + 10):
            self.serve_who_may_go()
        left = {one.seq for one in self.table if "d" in one.route}
        assert left <= self.confirmed
        assert self.lane.cursor >= max(left, default=0)
        assert self.lane.ahead() == []

    def time_out_all(self) -> None:
        for message in list(self.aloft):
            message.again += message.waiting
            message.waiting = []
            self.land(message)


TestOneDestination = OneDestination.TestCase
TestOneDestination.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _limits_are_put_back() -> Iterator[None]:
    yield
    assert (lane_queue.READ_AHEAD, lane_queue.BEYOND) == (2_000, 20_000)


def test_devices_of_which_all_was_confirmed_late_do_not_hide_those_that_wait() -> None:
    lane = queue(row(1, "a"), row(2, "a"), row(3, "b"), row(4, "c"))
    first = lane.take(lambda _device: False, count=2, size=64_512, parts=3)
    assert [one.seq for one in first] == [1, 2]
    lane.put_back(first)  # there was no answer in time, and then there is
    assert [lane.done(one.seq) for one in first] == [True, True]
    lane.release("a")
    assert [one.seq for one in lane.take(lambda _device: False, count=2, size=64_512, parts=3)] == [3, 4]
