"""The event on its way out: what is written once, what is spliced in at send time, who wants it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import Stamp, Told
from gateway.deliver.by_device import ENVELOPE_BYTES, UNSET_CLOCK_BYTES
from gateway.events import Lane, Origin, Sending, Stored, id_and_device, new_event, new_id, sending_text, wants

ORIGIN = Origin("cq-kaizhou", "hanfeng", "gw-01", ("cq", "kaizhou", "hanfeng"))
NOON = Stamp(1_800_000_000_123, 77_000, "boot-1", "synced")


def stored(event: Any, seq: int = 42, **route: int) -> Stored:
    return Stored(
        seq, event.lane, event.id, event.noun, event.device, 1_800_000_001_456, event.at, route or {"d": 7}, event.body
    )


def sent(row: Stored, **how: Any) -> Any:
    facts = {"age_ms": 1333, "attempt": 1, "buffered": False, **how}
    return json.loads(sending_text(row, Sending("d", "stream-1", **facts)))


def test_an_event_on_the_wire_is_whole() -> None:
    event = new_event(
        "alarm.raised", ORIGIN, device="call-201", at=NOON, data={"kind": "call", "presses": 1}, correlation="alarm-9",
        event_id="0190-id",
    )  # fmt: skip
    assert sent(stored(event), attempt=2, buffered=True) == {
        "specversion": "1.0",
        "id": "0190-id",
        "source": "urn:eldercare:cq-kaizhou:hanfeng:gw-01",
        "type": "cn.eldercare.alarm.raised.v1",
        "subject": "device/call-201",
        "time": "2027-01-15T08:00:00.123Z",
        "datacontenttype": "application/json",
        "partitionkey": "call-201",
        "correlationid": "alarm-9",
        "data": {
            "kind": "call",
            "presses": 1,
            "org_path": ["cq", "kaizhou", "hanfeng"],
            "clock": {"state": "synced", "boot": "boot-1", "mono_ms": 77000, "offset_ms": 1_799_999_923_123},
            "delivery": {"buffered": True, "age_ms": 1333, "attempt": 2},
        },
        "sequence": "00000000000000000042",
        "streamid": "stream-1",
        "recordedtime": "2027-01-15T08:00:01.456Z",
        "deliveryseq": "00000000000000000007",
    }


names = st.text(st.characters(exclude_categories=()), max_size=8)


@given(
    names, names, names, st.dictionaries(names, names | st.integers() | st.lists(names, max_size=2), max_size=3),
    st.sampled_from(["synced", "unsynced", "floored"]),
)  # fmt: skip
def test_the_pieces_of_an_event_are_what_an_encoder_would_write(
    device: str, boot: str, correlation: str, data: dict[str, Any], state: str
) -> None:
    data = {key: value for key, value in data.items() if key not in {"org_path", "clock"}}
    at = Stamp(1_800_000_000_123, 77_000, boot, state)
    clock: dict[str, Any] = {"state": "synced" if state == "synced" else "unsynced", "boot": boot, "mono_ms": 77_000}
    clock |= {"synced": {"offset_ms": 1_799_999_923_123}, "floored": {"floored": True}}.get(state, {})
    event = {
        "specversion": "1.0",
        "id": "0190-id",
        "source": "urn:eldercare:cq-kaizhou:hanfeng:gw-01",
        "type": "cn.eldercare.device.fault.v1",
        "subject": f"device/{device}",
        "time": "2027-01-15T08:00:00.123Z",
        "datacontenttype": "application/json",
        "partitionkey": device,
        **({"correlationid": correlation} if correlation else {}),
        "data": {**data, "org_path": ["cq", "kaizhou", "hanfeng"], "clock": clock},
    }
    plain = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    if any("\ud800" <= one <= "\udfff" for one in plain):  # half a surrogate pair, which UTF-8 has not
        plain = json.dumps(event, separators=(",", ":"))
    made = new_event(
        "device.fault", ORIGIN, device=device, at=at, data=data, correlation=correlation, event_id="0190-id"
    )
    assert made.body == plain


def test_only_an_old_alarm_is_historic() -> None:
    row = stored(new_event("alarm.raised", ORIGIN, device="a", at=NOON, data={}))
    assert "historic" not in sent(row)["data"]["delivery"]
    assert sent(row, historic=True)["data"]["delivery"]["historic"] is True


def test_an_alarm_that_is_not_stored_says_so_and_has_no_number() -> None:
    event = sent(stored(new_event("alarm.raised", ORIGIN, device="a", at=NOON, data={"kind": "call"}), seq=0))
    assert event["data"]["stored"] is False
    assert "sequence" not in event
    assert "deliveryseq" not in event
    assert (event["streamid"], event["recordedtime"]) == ("stream-1", "2027-01-15T08:00:01.456Z")


def test_each_destination_gets_its_own_delivery_number() -> None:
    row = stored(new_event("alarm.raised", ORIGIN, device="a", at=NOON, data={}), d=3, e=900)
    assert sent(row)["deliveryseq"] == "00000000000000000003"
    text = sending_text(row, Sending("e", "stream-1", 0, 1, buffered=False))
    assert json.loads(text)["deliveryseq"] == "00000000000000000900"


def test_an_event_without_a_correlation_has_no_such_attribute() -> None:
    assert "correlationid" not in sent(stored(new_event("gateway.gap", ORIGIN, device="gw-01", at=NOON, data={})))


def test_half_a_surrogate_pair_stays_escaped_and_can_be_stored() -> None:
    event = new_event("device.fault", ORIGIN, device="a", at=NOON, data={"text": "\ud83d 跌倒"})
    event.body.encode()
    assert sent(stored(event))["data"]["text"] == "\ud83d 跌倒"


def test_chinese_text_is_not_escaped() -> None:
    assert "跌倒" in new_event("device.fault", ORIGIN, device="a", at=NOON, data={"text": "跌倒"}).body


# -- a clock that is not set ------------------------------------------------------------------------------------------

EARLY = Stamp(1_767_225_677_000, 77_000, "boot-1", "floored")
RIGHT = Told(1_800_000_000_123, "corrected", 1_799_999_923_123)
BETWEEN = Told(EARLY.wall_ms, "unsynced", None, 1_799_000_000_000, 1_800_000_000_000)


def early(noun: str, **data: object) -> Stored:
    event = new_event(noun, ORIGIN, device="a", at=EARLY, data=data)
    return Stored(
        42, event.lane, event.id, noun, "a", EARLY.wall_ms + 7, EARLY, {"d": 7}, event.body
    )  # fmt: skip


def test_a_time_that_cannot_be_known_is_marked() -> None:
    event = json.loads(early("alarm.raised").body)
    assert event["time"] == "2026-01-01T00:01:17.000Z"
    assert event["data"]["clock"] == {"state": "unsynced", "boot": "boot-1", "mono_ms": 77000, "floored": True}


def test_what_was_stored_before_the_synchronisation_goes_out_with_its_right_time_and_the_same_identity() -> None:
    row = early("alarm.raised", text='"time":"x","clock":{"state":"y"}', clocked={"clock": {"state": "z"}})
    before, event = json.loads(row.body), sent(row, told=RIGHT)
    assert (event["time"], event["recordedtime"]) == ("2027-01-15T08:00:00.123Z", "2027-01-15T08:00:00.130Z")
    assert event["data"]["clock"] == {
        "state": "corrected", "boot": "boot-1", "mono_ms": 77000, "offset_ms": 1_799_999_923_123,
    }  # fmt: skip
    assert (event["id"], event["sequence"]) == (before["id"], "00000000000000000042")
    assert (event["data"]["text"], event["data"]["clocked"]) == (before["data"]["text"], before["data"]["clocked"])


def test_what_was_recorded_when_the_clock_was_right_already_is_not_moved_again() -> None:
    row = early("alarm.raised")._replace(recorded_ms=1_800_000_000_200)
    assert sent(row, told=RIGHT)["recordedtime"] == "2027-01-15T08:00:00.200Z"


def test_a_boot_that_never_was_synchronised_is_told_with_its_bounds() -> None:
    event = sent(early("alarm.raised"), told=BETWEEN, age_ms=None, least_age_ms=500)
    assert event["time"] == "2026-01-01T00:01:17.000Z"
    assert event["data"]["clock"] == {
        "state": "unsynced", "boot": "boot-1", "mono_ms": 77000, "floored": True,
        "not_before": "2027-01-03T18:13:20.000Z", "not_after": "2027-01-15T08:00:00.000Z",
    }  # fmt: skip
    assert event["data"]["delivery"] == {"buffered": False, "age_ms": None, "least_age_ms": 500, "attempt": 1}


def test_a_body_of_a_version_that_wrote_no_clock_goes_out_as_it_is() -> None:
    row = early("alarm.raised")._replace(body='{"id":"x","data":{"kind":"call"}}')
    assert sent(row, told=RIGHT)["data"]["kind"] == "call"


def test_telemetry_expires_after_30_days_and_only_by_a_time_that_is_trusted() -> None:
    row = stored(new_event("telemetry.meter", ORIGIN, device="m", at=NOON, data={}))
    assert sent(row)["expirytime"] == "2027-02-14T08:00:00.123Z"
    assert sent(early("telemetry.vital"), told=RIGHT)["expirytime"] == "2027-02-14T08:00:00.123Z"
    assert "expirytime" not in sent(early("telemetry.meter"), told=BETWEEN)


@pytest.mark.parametrize(
    "noun", ["alarm.raised", "alarm.closed", "device.fault", "gateway.gap", "gateway.health", "checkin.card"]
)
def test_nothing_but_telemetry_ever_expires(noun: str) -> None:
    assert "expirytime" not in sent(stored(new_event(noun, ORIGIN, device="a", at=NOON, data={})))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_whatever_the_data_the_splice_is_valid_json(data: dict[str, object]) -> None:
    body = sent(stored(new_event("telemetry.meter", ORIGIN, device="m", at=NOON, data=data)))["data"]
    assert body.pop("delivery") == {"buffered": False, "age_ms": 1333, "attempt": 1}
    body.pop("clock")
    body.pop("org_path")
    assert body == {key: value for key, value in data.items() if key not in ("delivery", "clock", "org_path")}


@pytest.mark.parametrize("noun", ["alarm.raised", "telemetry.meter"])
def test_what_is_spliced_in_fits_the_room_that_batches_leave_for_it(noun: str) -> None:
    event = new_event(noun, ORIGIN, device="a", at=NOON, data={})
    row = stored(event, 10**20 - 1, d=10**20 - 1)
    is_alarm = noun.startswith("alarm.")
    how = Sending("d", new_id(), 10**15, 10**9, buffered=False, historic=is_alarm)
    assert len(sending_text(row, how)) - len(event.body) <= ENVELOPE_BYTES


@pytest.mark.parametrize("noun", ["alarm.raised", "telemetry.meter"])
@pytest.mark.parametrize("told", [RIGHT, BETWEEN])
def test_what_a_clock_that_is_not_set_adds_fits_its_room(noun: str, told: Told) -> None:
    row = early(noun)._replace(seq=10**20 - 1, route={"d": 10**20 - 1})
    is_alarm = noun.startswith("alarm.")
    how = Sending("d", new_id(), None, 10**9, buffered=False, historic=is_alarm, least_age_ms=10**15, told=told)
    assert len(sending_text(row, how)) - len(row.body) <= ENVELOPE_BYTES + UNSET_CLOCK_BYTES


@pytest.mark.parametrize(
    ("noun", "lane"),
    [
        ("alarm.raised", Lane.A),
        ("alarm.acknowledged", Lane.A),
        ("alarm.closed", Lane.A),
        ("device.fault", Lane.B),
        ("device.restored", Lane.B),
        ("gateway.gap", Lane.B),
        ("gateway.security", Lane.B),
        ("telemetry.meter", Lane.C),
        ("telemetry.environment", Lane.C),
        ("checkin.card", Lane.C),
        ("bed.occupancy", Lane.C),
        ("something.new", Lane.B),
    ],
)
def test_the_type_says_the_lane(noun: str, lane: Lane) -> None:
    assert new_event(noun, ORIGIN, device="a", at=NOON, data={}).lane is lane


@pytest.mark.parametrize(
    ("patterns", "noun", "wanted"),
    [
        (("*",), "gateway.gap", True),
        (("alarm.*",), "alarm.raised", True),
        (("alarm.*",), "telemetry.meter", False),
        (("alarm.*", "telemetry.meter"), "telemetry.meter", True),
        (("telemetry.meter",), "telemetry.metering", False),
        ((), "alarm.raised", False),
    ],
)
def test_a_destination_gets_what_its_patterns_name(patterns: tuple[str, ...], noun: str, wanted: bool) -> None:
    assert wants(patterns, noun) is wanted


def test_ids_are_time_ordered_uuids_and_never_the_same() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {one[14] for one in ids} == {"7"}  # RFC 9562 section 5.7: the version
    assert {one[19] for one in ids} <= set("89ab")


def test_what_is_no_number_leaves_as_null_and_costs_nothing_beside_it() -> None:
    """NaN and Infinity are no JSON: a platform would refuse the whole alarm."""
    data = {"kind": "call", "height": float("nan"), "path": [1.5, float("inf"), {"low": float("-inf")}]}
    event = new_event("alarm.raised", ORIGIN, device="call-201", at=NOON, data=data)
    told = json.loads(event.body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["data"]
    assert (told["kind"], told["height"], told["path"]) == ("call", None, [1.5, None, {"low": None}])


@pytest.mark.parametrize("device", ["m1", "gw", "呼-1", 'a"b', "a\\b"])
def test_id_and_device_of_what_goes_out_are_those_of_the_whole_text(device: str) -> None:
    data = {"id": "other", "partitionkey": "other", "text": '"partitionkey":"x"'}
    event = new_event("telemetry.meter", ORIGIN, device=device, at=NOON, data=data)
    how = Sending("d", "stream-1", age_ms=1333, attempt=1, buffered=False)
    text = sending_text(stored(event), how)
    assert id_and_device(text) == (json.loads(text)["id"], json.loads(text)["partitionkey"]) == (event.id, device)


def test_id_and_device_of_an_event_that_another_version_wrote_are_found_all_the_same() -> None:
    assert id_and_device('{"partitionkey": "m1", "id": "x"}') == ("x", "m1")
    with pytest.raises(ValueError, match="Expecting"):
        id_and_device("no event")
