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
MEASURED = {
    "temperature": "",
    "humidity": "",
    "co2": "",
    "temperature_external": "external",
    "temperature_ambient": "ambient",
}
READ_HERE = {"type", "battery_v", "button", "fall", "infrared", *MEASURED}
PASSED_OVER = {"moving", "hall", "flip", "counter", "_gprp_rssi"}


def test_the_corpus_is_whole() -> None:
    assert len(LINES) == 33
    assert {name for line in LINES for name in line["expected"]} == READ_HERE | PASSED_OVER


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["source"].rpartition("/")[2])
def test_a_published_advert_means_what_its_maker_says(line: dict[str, Any]) -> None:
    data = {int(company, 16): bytes.fromhex(payload) for company, payload in line["manufacturer_data"].items()}
    expected = line["expected"]
    beacon = ingics.parse(data)
    assert beacon.name in (expected["type"], "iBS01RG or iBS03RG")
    found = DRIVER.decode(Advert(line["mac"], manufacturer_data=data), None).observations
    measured = {(item.quantity, item.channel): item.value for item in found if isinstance(item, Reading)}
    told = {name: Decimal(str(value)) for name, value in expected.items() if name in {*MEASURED, "battery_v"}}
    assert measured == {
        ("battery_voltage" if name == "battery_v" else name.partition("_")[0], MEASURED.get(name, "")): value
        for name, value in told.items()
    }
    levels = {item.kind: item.level for item in found if isinstance(item, Signal)}
    if "button" in expected:
        assert levels[SignalKind.CALL] is expected["button"]
    assert levels.get(SignalKind.MOTION) is expected.get("infrared")
    # A fall sensor says so also where there is no fall; for all others the maker names no fall.
    assert levels.get(SignalKind.FALL) is expected.get("fall")
