"""The platform's check of an event: golden payloads pass, and each thing the contract demands is demanded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from simulator.platform.contract import Address, defect, noun_of, number

GOLDEN = Path(__file__).parent.parent / "data" / "native"
GW = ("demo", "hanfeng", "gw-01")
ALARM, EVENT, TELEMETRY = Address(*GW, "alarm"), Address(*GW, "event"), Address(*GW, "telemetry")


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def changed(event: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with one part changed; Ellipsis removes it."""
    event = copy.deepcopy(event)
    *parents, last = path.split("/")
    part: Any = event
    for name in parents:
        part = part[int(name)] if isinstance(part, list) else part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return event


def test_golden_payloads_are_well_formed() -> None:
    assert defect(golden("alarm"), ALARM) is None
    assert defect(golden("gap"), EVENT) is None
    assert [defect(golden(name), ALARM) for name in ("corrected", "unknown-time")] == [None, None]
    assert [defect(golden(name), EVENT) for name in ("counts", "clock", "expired")] == [None, None, None]
    assert defect(changed(golden("counts"), "data/period", "week"), EVENT) == "bad-data-period"
    assert [defect(event, TELEMETRY) for event in golden("telemetry")] == [None, None]


@pytest.mark.parametrize("value", [None, 7, "text", [], [{}]])
def test_what_is_no_object_is_refused(value: object) -> None:
    assert defect(value, ALARM) == "not-an-object"


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("specversion", "0.3", "bad-specversion"),
        ("specversion", ..., "missing-specversion"),
        ("id", ..., "missing-id"),
        ("id", 5, "missing-id"),
        ("id", "", "missing-id"),
        ("id", "0190a5c0-0000-4000-8000-000000000001", "bad-id"),  # version 4
        ("id", "0190a5c0-0000-7000-c000-000000000001", "bad-id"),  # wrong variant
        ("id", "0190A5C0-0000-7000-8000-000000000001", "bad-id"),  # RFC 9562 writes lower case
        ("source", ..., "missing-source"),
        ("source", "urn:eldercare:demo:hanfeng:gw-02", "bad-source"),
        ("type", ..., "missing-type"),
        ("type", "cn.eldercare.alarm.invented.v1", "unknown-type"),
        ("type", "cn.eldercare.alarm.raised.v2", "unknown-type"),
        ("type", "alarm.raised", "unknown-type"),
        ("subject", "device/other", "bad-subject"),
        ("subject", "call-r101-1", "bad-subject"),
        ("partitionkey", ..., "missing-partitionkey"),
        ("time", ..., "missing-time"),
        ("time", "2026-03-05 08:15:30Z", "bad-time"),
        ("time", "2026-13-05T08:15:30Z", "bad-time"),
        ("time", "2026-03-05T08:15:30", "bad-time"),
        ("recordedtime", "yesterday", "bad-recordedtime"),
        ("recordedtime", ..., "missing-recordedtime"),
        ("sequence", ..., "missing-sequence"),
        ("sequence", None, "missing-sequence"),
        ("sequence", "1", "bad-sequence"),
        ("sequence", 1, "bad-sequence"),
        ("sequence", "00000000000000000000", "bad-sequence"),
        ("sequence", "99999999999999999999", "bad-sequence"),
        ("sequence", "0000000000000000000a", "bad-sequence"),
        ("streamid", ..., "missing-streamid"),
        ("deliveryseq", ..., "missing-deliveryseq"),
        ("deliveryseq", "1", "bad-deliveryseq"),
        ("correlationid", ..., "missing-correlationid"),
        ("expirytime", "2026-03-06T08:15:30Z", "forbidden-expirytime"),
        ("dataclassification", "secret", "forbidden-dataclassification"),
        ("Upper_Case", "1", "bad-attribute-name"),
        ("data", ..., "missing-data"),
        ("data", [], "missing-data"),
        ("data/clock", ..., "bad-clock"),
        ("data/clock/state", "guessed", "bad-clock"),
        ("data/clock/boot", "", "bad-clock"),
        ("data/clock/mono_ms", -1, "bad-clock"),
        ("data/clock/mono_ms", True, "bad-clock"),
        ("data/clock/mono_ms", 1.5, "bad-clock"),
        ("data/delivery", ..., "bad-delivery"),
        ("data/delivery/buffered", "no", "bad-delivery"),
        ("data/delivery/age_ms", -4, "bad-delivery"),
        ("data/kind", "fire", "bad-data-kind"),
        ("data/kind", ..., "missing-data-kind"),
        ("data/state", "CLOSED", "bad-data-state"),
        ("data/presses", 0, "bad-data-presses"),
        ("data/verified", 1, "bad-data-verified"),
        ("data/room", ..., "missing-data-room"),
        ("data/bed", None, "bad-data-bed"),
        ("data/counter", "17", "bad-data-counter"),
        ("data/n", -1, "bad-data-n"),
    ],
)
def test_a_malformed_alarm_is_refused_with_a_code(path: str, value: Any, code: str) -> None:
    assert defect(changed(golden("alarm"), path, value), ALARM) == code


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("data/registers", ..., "missing-data-registers"),
        ("data/registers", [], "bad-data-registers"),
        ("data/registers/0/value", 12345.67, "bad-data-registers"),
        ("data/registers/0/value", "1e3", "bad-data-registers"),
        ("data/registers/0/value", "NaN", "bad-data-registers"),
        ("data/registers/0/unit", ..., "bad-data-registers"),
        ("data/registers/0/quantity", "", "bad-data-registers"),
        ("expirytime", "soon", "bad-expirytime"),
    ],
)
def test_a_malformed_meter_event_is_refused_with_a_code(path: str, value: Any, code: str) -> None:
    assert defect(changed(golden("telemetry")[0], path, value), TELEMETRY) == code


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("data/reason", "holiday", "bad-data-reason"),
        ("data/from", "2026-03-05", "bad-data-from"),
        ("data/to_mono_ms", ..., "missing-data-to_mono_ms"),
        ("data/dropped", -1, "bad-data-dropped"),
    ],
)
def test_a_malformed_gap_is_refused_with_a_code(path: str, value: Any, code: str) -> None:
    assert defect(changed(golden("gap"), path, value), EVENT) == code


def test_each_kind_of_event_has_its_topic() -> None:
    assert defect(golden("alarm"), EVENT) == "wrong-lane"
    assert defect(golden("alarm"), TELEMETRY) == "wrong-lane"
    assert defect(golden("gap"), ALARM) == "wrong-lane"
    assert defect(golden("telemetry")[0], ALARM) == "wrong-lane"
    assert defect(golden("telemetry")[0], EVENT) == "wrong-lane"


def test_an_alarm_that_could_not_be_stored_may_come_without_numbers() -> None:
    alarm = changed(changed(golden("alarm"), "sequence", None), "deliveryseq", ...)
    assert defect(alarm, ALARM) == "missing-sequence"
    assert defect(changed(alarm, "data/stored", False), ALARM) is None
    gap = changed(changed(golden("gap"), "sequence", None), "data/stored", False)
    assert defect(gap, EVENT) == "missing-sequence"


def test_numbers_and_types_are_read() -> None:
    assert number("00000000000000000042") == 42
    assert number("09223372036854775807") == 9223372036854775807
    assert number("09223372036854775808") is None
    assert number(42) is None
    assert noun_of("cn.eldercare.telemetry.meter.v1") == "telemetry.meter"
    assert noun_of("cn.eldercare.telemetry.lunch.v1") == "unknown"
    assert noun_of(None) == "unknown"
