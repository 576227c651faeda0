"""Ingics adverts that the maker publishes with its parser: all of them, against what the maker says.

Lines of `tests/data/captures/ingics-ibs/`; `source` in each says where it is from. Hall, temperature, humidity, CO2 and
movement are in the lines too; this driver does not read them.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.ingics_ibs import DRIVER
from drivers.kit import Advert, Reading, Signal, SignalKind
from drivers.protocols import ingics

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "ingics-ibs" / "ingics_ibs.jsonl"
LINES: list[dict[str, Any]] = [json.loads(line) for line in CAPTURES.read_text().splitlines()]
READ_HERE = {"type", "battery_v", "button", "fall"}
PASSED_OVER = {"moving", "hall", "flip", "temperature", "humidity", "counter", "co2", "_gprp_rssi"}


def test_the_corpus_is_whole() -> None:
    assert len(LINES) == 19
    assert {name for line in LINES for name in line["expected"]} == READ_HERE | PASSED_OVER


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["source"].rpartition("/")[2])
def test_a_published_advert_means_what_its_maker_says(line: dict[str, Any]) -> None:
    data = {int(company, 16): bytes.fromhex(payload) for company, payload in line["manufacturer_data"].items()}
    expected = line["expected"]
    beacon = ingics.parse(data)
    assert beacon.name in (expected["type"], "iBS01RG or iBS03RG")
    found = DRIVER.decode(Advert(line["mac"], manufacturer_data=data), None).observations
    volts = [item.value for item in found if isinstance(item, Reading)]
    assert volts == ([Decimal(str(expected["battery_v"]))] if "battery_v" in expected else [])
    levels = {item.kind: item.level for item in found if isinstance(item, Signal)}
    if "button" in expected:
        assert levels[SignalKind.CALL] is expected["button"]
    # A fall sensor says so also where there is no fall; for all others the maker names no fall.
    assert levels.get(SignalKind.FALL) is expected.get("fall")
