"""Reads the lines of `tests/data/captures/`: adverts that others published or recorded, with what they say they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drivers.kit import Advert, Decoded, Observation, Reading, Signal, SignalKind

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
Line = dict[str, Any]


def lines(model: str, name: str) -> list[Line]:
    """All lines of one file."""
    return [json.loads(line) for line in (CAPTURES / model / name).read_text(encoding="utf-8").splitlines()]


def title(line: Line) -> str:
    """A name for a test, from the source."""
    return str(line["source"]).rpartition("/")[2][-60:]


def advert(line: Line) -> Advert:
    """The advert as a radio hands it over. A company or service that was sent twice has its last data."""
    return Advert(
        line.get("mac", "00:00:00:00:00:00"),
        line.get("name", ""),
        service_data=_data(line.get("service_data", {})),
        manufacturer_data=_data(line.get("manufacturer_data", {})),
    )


def _data(parts: dict[str, str | list[str]]) -> dict[int, bytes]:
    return {
        int(key, 16): bytes.fromhex(payload if isinstance(payload, str) else payload[-1])
        for key, payload in parts.items()
    }


def readings(decoded: Decoded) -> dict[str, float]:
    """The readings by quantity."""
    return {one.quantity: float(one.value) for one in decoded.observations if isinstance(one, Reading)}


def signals(decoded: Decoded) -> list[tuple[SignalKind, str, str, bool | None]]:
    """The signals, without their counts."""
    return [_told(one) for one in decoded.observations if isinstance(one, Signal)]


def _told(one: Observation) -> tuple[SignalKind, str, str, bool | None]:
    assert isinstance(one, Signal)
    return one.kind, one.code, one.channel, one.level
