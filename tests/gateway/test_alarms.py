"""The care lifecycle: what each action makes of an alarm, what is refused, and what a restart brings back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.alarms import KEPT_CLOSED, Alarm, AlarmBook, AlarmState, Call, Change, document
from gateway.clock import Boots, Stamp
from gateway.errors import ControlError
from gateway.events import Lane, Origin

NOW = Stamp(1_800_000_000_000, 5_000, "boot-1", "synced")
LATER = replace(NOW, wall_ms=NOW.wall_ms + 7_000, mono_ms=12_000)
CALL = Call("call", "call-1", "201", "2", NOW, code="press", facts={"counter": 7})


@pytest.fixture
def book() -> AlarmBook:
    return AlarmBook(Origin("org", "site", "gw"), ["district", "street"])


def body(change: Change) -> dict[str, Any]:
    assert change.event is not None
    return dict(json.loads(change.event.body))


def test_a_call_raises_an_alarm_that_is_active_at_once(book: AlarmBook) -> None:
    change = book.raise_alarm(CALL)
    alarm = change.alarm
    assert (alarm.state, alarm.presses, alarm.verified, alarm.raised) == (AlarmState.ACTIVE, 1, True, NOW)
    event = body(change)
    assert event["type"] == "cn.eldercare.alarm.raised.v1"
    assert event["correlationid"] == alarm.id
    assert event["subject"] == "device/call-1"
    assert {key: event["data"][key] for key in ("kind", "state", "priority", "room", "bed", "counter", "code")} == {
        "kind": "call", "state": "ACTIVE", "priority": "emergency", "room": "201", "bed": "2", "counter": 7,
        "code": "press",
    }  # fmt: skip
    assert change.event is not None
    assert change.event.lane is Lane.A


def test_a_repeat_press_counts_up_and_keeps_the_first_moment(book: AlarmBook) -> None:
    first = book.raise_alarm(CALL).alarm
    second = book.raise_alarm(replace(CALL, at=LATER, code="double"))
    assert (second.alarm.id, second.alarm.presses, second.alarm.raised) == (first.id, 2, NOW)
    assert body(second)["time"] == "2027-01-15T08:00:07.000Z"
    assert body(second)["data"]["presses"] == 2
    assert body(second)["id"] != first.last_event
    assert book.open_count == 1


def test_a_press_of_a_device_that_was_moved_sends_help_to_where_it_is_now(book: AlarmBook) -> None:
    """Its alarm was still open when the configuration changed: the old room is where nobody needs help."""
    book.raise_alarm(CALL)
    again = AlarmBook(Origin("org", "site", "gw"), ["district"])
    again.load([document(alarm) for alarm in book._open.values()])
    change = again.raise_alarm(replace(CALL, at=LATER, room="305", bed="1"))
    assert (change.alarm.room, change.alarm.bed, change.alarm.presses) == ("305", "1", 2)
    assert {key: body(change)["data"][key] for key in ("room", "bed", "presses")} == {
        "room": "305", "bed": "1", "presses": 2,
    }  # fmt: skip


def test_an_alarm_that_nobody_verified_is_not_what_a_verified_call_repeats(book: AlarmBook) -> None:
    """The platform may have passed it over; passing over the true one as well would lose both."""
    book.raise_alarm(replace(CALL, doubts=("counter-reset",)))
    assert book.is_active("call-1", "call", verified=False)
    assert not book.is_active("call-1", "call", verified=True)
    book.raise_alarm(CALL)
    assert book.is_active("call-1", "call", verified=True)


def test_another_device_and_another_kind_are_other_alarms(book: AlarmBook) -> None:
    ids = {
        book.raise_alarm(CALL).alarm.id,
        book.raise_alarm(replace(CALL, device="call-2")).alarm.id,
        book.raise_alarm(replace(CALL, kind="fall")).alarm.id,
    }
    assert len(ids) == 3
    assert book.open_count == 3


def test_a_doubtful_press_is_raised_and_says_why(book: AlarmBook) -> None:
    data = body(book.raise_alarm(replace(CALL, doubts=("bad-key",))))["data"]
    assert (data["verified"], data["doubts"]) == (False, ["bad-key"])


def test_one_verified_press_verifies_the_alarm_and_a_doubtful_one_does_not_undo_it(book: AlarmBook) -> None:
    doubtful = replace(CALL, doubts=("unauthenticated",))
    changes = [book.raise_alarm(call) for call in (doubtful, CALL, doubtful)]
    assert [change.alarm.verified for change in changes] == [False, True, True]
    assert [body(change)["data"]["verified"] for change in changes] == [False, True, False]


def test_an_acknowledged_alarm_is_active_again_after_a_press(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    acked = book.acknowledge(alarm.id, " Li  Na ", LATER)
    assert (acked.alarm.state, acked.alarm.acked_by) == (AlarmState.ACKED, "Li Na")
    assert body(acked)["type"] == "cn.eldercare.alarm.acknowledged.v1"
    assert body(acked)["data"]["by"] == "Li Na"
    again = book.raise_alarm(replace(CALL, at=LATER))
    assert (again.alarm.state, again.alarm.acked_by, again.alarm.presses) == (AlarmState.ACTIVE, "", 2)
    assert body(again)["data"]["reopened"] is True


def test_acknowledging_twice_changes_nothing(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    book.acknowledge(alarm.id, "Li Na", NOW)
    second = book.acknowledge(alarm.id, "Wang Wei", LATER)
    assert second.event is None
    assert second.alarm.acked_by == "Li Na"


def test_closing_needs_who_and_why_and_ends_it(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    closed = book.close(alarm.id, "Li Na", "helped up", at=LATER)
    assert (closed.alarm.state, closed.alarm.closed_by, closed.alarm.why) == (AlarmState.CLOSED, "Li Na", "helped up")
    assert body(closed)["type"] == "cn.eldercare.alarm.closed.v1"
    assert book.open_count == 0
    assert book.raise_alarm(CALL).alarm.id != alarm.id


@pytest.mark.parametrize(
    ("by", "why"), [("", "fell"), ("  ", "fell"), ("Li Na", ""), ("Li Na", "\n"), ("x" * 201, "w")]
)
def test_closing_without_who_or_why_is_refused_and_the_alarm_stays_open(book: AlarmBook, by: str, why: str) -> None:
    alarm = book.raise_alarm(CALL).alarm
    with pytest.raises(ControlError) as refusal:
        book.close(alarm.id, by, why, at=NOW)
    assert refusal.value.code == "GW-CTL-03"
    assert book.open_count == 1


def test_what_a_person_says_can_always_be_stored_and_shown(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    closed = book.close(alarm.id, "李\ud800娜\x1b[2J", "扶起来了\n已安抚", at=NOW).alarm
    assert (closed.closed_by, closed.why) == ("李?娜?[2J", "扶起来了 已安抚")
    document(closed).encode()


def test_a_closed_alarm_can_be_neither_acknowledged_nor_closed(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    book.close(alarm.id, "Li Na", "helped up", at=NOW)
    with pytest.raises(ControlError):
        book.acknowledge(alarm.id, "Li Na", NOW)
    with pytest.raises(ControlError):
        book.close(alarm.id, "Li Na", "again", at=NOW)


def test_an_alarm_is_found_by_the_beginning_of_its_id(book: AlarmBook) -> None:
    first = book.raise_alarm(CALL).alarm
    second = book.raise_alarm(replace(CALL, device="call-2")).alarm
    common = "".join(a if a == b else "\n" for a, b in zip(first.id, second.id, strict=True)).partition("\n")[0]
    for prefix, reason in (
        ("", "too-short"), (first.id[:7], "too-short"), ("no-such-alarm", "unknown-alarm"), (common, "ambiguous"),
    ):  # fmt: skip
        with pytest.raises(ControlError) as caught:
            book.acknowledge(prefix, "Li Na", NOW)
        assert caught.value.facts["reason"] == f"@refusal.{reason}"
    book.close(second.id, "Li Na", "helped up", at=NOW)
    assert book.acknowledge(common, "Li Na", NOW).alarm.id == first.id


def test_delivery_is_known_for_the_newest_event(book: AlarmBook) -> None:
    first = book.raise_alarm(CALL).alarm
    (listed,) = book.listed(NOW, with_closed=False)
    assert listed["delivery"] == {"district": "QUEUED", "street": "QUEUED"}
    book.delivered("district", first.last_event, "SENT")
    book.delivered("district", first.last_event, "L2")
    book.delivered("district", "no-such-event", "L2")
    assert book.listed(NOW, with_closed=False)[0]["delivery"] == {"district": "L2", "street": "QUEUED"}
    book.raise_alarm(CALL)
    book.delivered("district", first.last_event, "L2")
    assert book.listed(NOW, with_closed=False)[0]["delivery"] == {"district": "QUEUED", "street": "QUEUED"}


def test_what_no_platform_has_taken_within_half_a_minute_is_shown_as_undelivered(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    book.delivered("street", alarm.last_event, "L2")
    later = replace(NOW, mono_ms=NOW.mono_ms + 30_001)
    assert book.listed(later, with_closed=False)[0]["delivery"] == {"district": "UNDELIVERED", "street": "L2"}
    assert book.listed(NOW, with_closed=False)[0]["delivery"] == {"district": "QUEUED", "street": "L2"}


def test_after_a_restart_delivery_is_known_from_what_is_still_pending(book: AlarmBook) -> None:
    call = book.raise_alarm(CALL).alarm
    fall = book.raise_alarm(replace(CALL, kind="fall")).alarm
    again = AlarmBook(Origin("org", "site", "gw"), ["district"])
    again.load([document(call), document(fall)])
    again.seed_delivery("district", {call.last_event}, finish="L2")
    levels = {one["kind"]: one["delivery"] for one in again.listed(NOW, with_closed=False)}
    assert levels == {"call": {"district": "QUEUED"}, "fall": {"district": "L2"}}
    next_boot = replace(NOW, boot="boot-2", mono_ms=100)
    late = {one["kind"]: one["delivery"] for one in again.listed(next_boot, with_closed=False)}
    assert late == {"call": {"district": "UNDELIVERED"}, "fall": {"district": "L2"}}


def test_the_list_shows_the_oldest_first_and_closed_ones_when_asked(book: AlarmBook) -> None:
    late = book.raise_alarm(replace(CALL, device="call-2", at=LATER)).alarm
    early = book.raise_alarm(CALL).alarm
    assert [one["id"] for one in book.listed(NOW, with_closed=False)] == [early.id, late.id]
    book.close(late.id, "Li Na", "helped up", at=LATER)
    assert [one["id"] for one in book.listed(NOW, with_closed=False)] == [early.id]
    assert {one["id"]: one["state"] for one in book.listed(NOW, with_closed=True)} == {
        late.id: "CLOSED",
        early.id: "ACTIVE",
    }
    open_alarm = book.open_of("call-1")
    assert open_alarm is not None
    assert open_alarm.id == early.id
    assert book.open_of("call-2") is None


def test_the_list_shows_who_has_fallen_first_then_who_calls_then_what_is_less_urgent(book: AlarmBook) -> None:
    for kind in ("opening", "water_leak", "smoke", "call", "fall"):
        book.raise_alarm(replace(CALL, kind=kind))
    book.raise_alarm(replace(CALL, kind="fall", device="call-2", at=LATER))
    shown = [(one["kind"], one["device"]) for one in book.listed(NOW, with_closed=False)]
    assert shown[:4] == [("fall", "call-1"), ("fall", "call-2"), ("call", "call-1"), ("smoke", "call-1")]
    assert {kind for kind, _ in shown[4:]} == {"water_leak", "opening"}


def test_a_restart_brings_back_what_was_open_and_what_was_closed(book: AlarmBook) -> None:
    book.raise_alarm(CALL)
    alarm = book.raise_alarm(replace(CALL, at=LATER, doubts=("downgrade",))).alarm
    acked = book.acknowledge(alarm.id, "李娜", LATER).alarm
    closed = book.close(book.raise_alarm(replace(CALL, device="call-2")).alarm.id, "Li Na", "ok", at=NOW).alarm

    again = AlarmBook(Origin("org", "site", "gw"), ["district"])
    assert again.load([document(closed), document(acked)]) == [acked]
    assert {one["id"] for one in again.listed(NOW, with_closed=True)} == {acked.id, closed.id}
    again.delivered("district", acked.last_event, "L2")
    assert again.listed(NOW, with_closed=False)[0]["delivery"] == {"district": "L2"}
    assert again.raise_alarm(CALL).alarm.presses == 3


def test_an_older_open_alarm_of_the_same_device_that_was_recalled_outlives_further_restarts(book: AlarmBook) -> None:
    before = AlarmBook(Origin("org", "site", "gw"))
    oldest = before.raise_alarm(CALL).alarm
    newest = book.raise_alarm(replace(CALL, at=LATER)).alarm
    assert book.recall([document(oldest)]) == [oldest]
    newest = book.acknowledge(newest.id, "Li Na", LATER).alarm

    again = AlarmBook(Origin("org", "site", "gw"))
    assert again.load([document(oldest), document(newest)]) == [oldest, newest]
    assert [(one["id"], one["state"]) for one in again.listed(LATER, with_closed=False)] == [
        (oldest.id, "ACTIVE"), (newest.id, "ACKED"),
    ]  # fmt: skip
    pressed = again.raise_alarm(replace(CALL, at=LATER)).alarm
    assert (pressed.id, pressed.presses) == (newest.id, 2)
    assert again.close(oldest.id, "Li Na", "helped up", at=LATER).alarm.id == oldest.id
    assert [one["id"] for one in again.listed(LATER, with_closed=False)] == [newest.id]


def test_two_open_alarms_of_one_device_are_both_recalled_beside_one_that_was_raised_since(book: AlarmBook) -> None:
    stored = [AlarmBook(Origin("org", "site", "gw")).raise_alarm(CALL).alarm for _ in range(2)]
    newest = book.raise_alarm(replace(CALL, at=LATER)).alarm
    assert book.recall([document(one) for one in stored]) == stored
    assert book.open_count == 3
    assert book.raise_alarm(replace(CALL, at=LATER)).alarm.id == newest.id
    empty = AlarmBook(Origin("org", "site", "gw"))
    assert empty.recall([document(one) for one in stored]) == stored
    assert empty.open_count == 2


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        '{"id":"x"}',
        '{"id":"x","raised":null,"state":"ACTIVE","presses":1,"doubts":[]}',
    ],
)
def test_an_alarm_that_cannot_be_read_does_not_keep_the_others_from_coming_back(book: AlarmBook, broken: str) -> None:
    alarm = book.raise_alarm(CALL).alarm
    assert AlarmBook(Origin("org", "site", "gw")).load([broken, document(alarm), broken]) == [alarm]


def test_what_a_newer_gateway_has_added_to_an_alarm_is_left_out(book: AlarmBook) -> None:
    alarm = book.raise_alarm(CALL).alarm
    newer = json.loads(document(alarm)) | {"attended_by": "Li Na"}
    assert AlarmBook(Origin("org", "site", "gw")).load([json.dumps(newer)]) == [alarm]


def test_closed_alarms_are_remembered_up_to_the_limit(book: AlarmBook) -> None:
    for number in range(KEPT_CLOSED + 5):
        alarm = book.raise_alarm(replace(CALL, device=f"call-{number}")).alarm
        book.close(alarm.id, "Li Na", "drill", at=NOW)
    listed = book.listed(NOW, with_closed=True)
    assert len(listed) == 200
    assert listed[0]["device"] == "call-5"
    assert len(book._by_event) <= 4 * KEPT_CLOSED
    assert len(book._delivery) == KEPT_CLOSED


def test_a_flood_of_presses_of_one_device_does_not_forget_how_far_another_s_alarm_has_come(book: AlarmBook) -> None:
    first = book.raise_alarm(CALL)
    assert first.event is not None
    for _ in range(5 * KEPT_CLOSED):
        book.raise_alarm(replace(CALL, device="call-2"))
    book.delivered("district", first.event.id, "L2")
    assert book._delivery[first.alarm.id]["district"] == "L2"


def test_an_alarm_raised_before_the_clock_was_set_is_shown_with_its_right_time(book: AlarmBook) -> None:
    boots = Boots()
    boots.begin("boot-1", floor_ms=0)
    early = Stamp(1_767_225_600_000, 5_000, "boot-1", "floored")
    book.raise_alarm(replace(CALL, at=early))
    (before,) = book.listed(NOW, with_closed=False, boots=boots)
    assert (before["raised_at"], before["clock"]) == ("2026-01-01T00:00:00.000Z", "unsynced")
    boots.synced("boot-1", offset_ms=1_800_000_000_000)
    (after,) = book.listed(NOW, with_closed=False, boots=boots)
    assert (after["raised_at"], after["clock"]) == ("2027-01-15T08:00:05.000Z", "corrected")


def test_an_alarm_is_stored_as_these_words() -> None:
    alarm = Alarm(
        "a-1", "fall", "radar-1", "201", "2", Stamp(1_800_000_000_000, 77, "boot-1", "synced"), AlarmState.ACKED, 2,
        verified=False, doubts=("unauthenticated",), acked_by='the "night" 呼', last_event="e-9",
    )  # fmt: skip
    assert document(alarm) == (
        '{"id":"a-1","kind":"fall","device":"radar-1","room":"201","bed":"2","raised":{"wall_ms":1800000000000,'
        '"mono_ms":77,"boot":"boot-1","clock":"synced"},"state":"ACKED","presses":2,"verified":false,'
        '"doubts":["unauthenticated"],"code":"","channel":"","acked_by":"the \\"night\\" 呼","closed_by":"","why":"",'
        '"last_event":"e-9"}'
    )
