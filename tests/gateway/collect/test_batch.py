"""Readings, nearly all that comes, are put together from pieces: what comes out is what the encoder would have written."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.devices import json_lines
from drivers.kit import QUANTITIES, Reading
from gateway import events
from gateway.clock import Stamp
from gateway.collect import Desk
from gateway.collect.batch import Batch
from gateway.events import Origin

ORIGIN = Origin("cq-kaizhou", "hanfeng", "gw-01", ("cq", "开州", 'han"feng'))
AT = Stamp(1_800_000_000_123, 77_000, "boot-1", "synced")
names = st.text(st.characters(exclude_categories=()), max_size=12)
readings = st.builds(
    Reading,
    st.sampled_from(sorted(QUANTITIES)),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**15), max_value=10**15),
    names,
    st.none() | st.datetimes(),
)
facts = st.fixed_dictionaries({}, optional={"counter": st.integers(0), "n": st.integers(0), "session": names})


@pytest.fixture(autouse=True, scope="module")
def one_id() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "new_id", lambda: "0190-id")
        yield


def batch(room: str, bed: str, doubts: tuple[str, ...], known: dict[str, object]) -> Batch:
    desk = Desk("meter-1", "json-lines", "line", "m1", room, bed, json_lines.DRIVER, None)
    return Batch(desk, AT, ORIGIN, doubts=doubts, facts=known)


@given(st.lists(readings, min_size=1, max_size=4), names, names, st.sampled_from([(), ("downgrade",)]), facts)
def test_readings_are_written_as_the_encoder_would_write_them(
    said: list[Reading], room: str, bed: str, doubts: tuple[str, ...], known: dict[str, object]
) -> None:
    quick, plain = batch(room, bed, doubts, known), batch(room, bed, doubts, known)
    quick.tell_readings(said)
    registers = [
        {"quantity": one.quantity, "channel": one.channel, "value": f"{one.value:f}", "unit": one.unit}
        | ({"device_time": one.device_time.isoformat()} if one.device_time else {})
        for one in said
    ]
    plain.tell(quick.events[0].noun, {"registers": registers})
    assert quick.events == plain.events


def test_a_reading_of_a_meter_with_its_time() -> None:
    told = batch("hall", "", (), {"n": 7, "session": "boot-3"})
    told.tell_readings([Reading("energy_active_import", Decimal("12.50"), "T1", datetime(2027, 1, 15, 8))])  # noqa: DTZ001 - a meter's
    [event] = told.events
    assert event.noun == "telemetry.meter"
    assert json.loads(event.body)["data"] == {
        "registers": [
            {
                "quantity": "energy_active_import",
                "channel": "T1",
                "value": "12.50",
                "unit": "kWh",
                "device_time": "2027-01-15T08:00:00",
            }
        ],
        "room": "hall",
        "bed": "",
        "verified": True,
        "n": 7,
        "session": "boot-3",
        "org_path": ["cq", "开州", 'han"feng'],
        "clock": {"state": "synced", "boot": "boot-1", "mono_ms": 77000, "offset_ms": 1799999923123},
    }
