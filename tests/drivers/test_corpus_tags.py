"""Tags in adverts that others published: each line means what its publisher says, or is listed here with the reason.

What is compared: calls, openings, motion, vibration, water, tampering, battery, climate, light. A publisher's other values
(acceleration, pressure, names, particles, versions) are read past, on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drivers.kit import Advertises, Decoded, Signal, SignalKind, catalogue
from tests.drivers.captures import Line, advert, lines, readings, title

FILES = {
    "ela-puck": ("ela.jsonl", 15),
    "holyiot-tag": ("holyiot.jsonl", 4),
    "mikrotik-tg-bt5": ("mikrotik.jsonl", 1),
    "minew-tag": ("minew.jsonl", 27),
    "moko-tag": ("moko.jsonl", 2),
    "nodon-niu": ("nodon.jsonl", 4),
    "qingping-sensor": ("qingping.jsonl", 12),
    "switchbot-sensor": ("switchbot.jsonl", 15),
}
LINES = [(model, line) for model, (name, _) in FILES.items() for line in lines(model, name)]
QUANTITIES = {
    "battery": "battery", "batt": "battery", "batteryPercentage": "battery", "temperature": "temperature",
    "tempc": "temperature", "humidity": "humidity", "hum": "humidity", "relativeHumidity": "humidity",
    "volt": "battery_voltage", "batteryVoltage": "battery_voltage", "illuminance": "illuminance", "lux": "illuminance",
    "co2": "co2", "pm2.5": "pm2_5", "pm10": "pm10",
}  # fmt: skip
READ_PAST = {
    "type", "cont", "mac", "color", "version", "uptime", "deviceIds", "name", "firmwareVersion", "frame",  # what it is
    "acceleration", "x_axis", "y_axis", "z_axis", "angularVelocity", "side", "pressure", "luminousFlux", "light",
    "packet", "distance", "distanceCycle", "isMarked", "in_ct", "out_ct", "lightlevel", "led",
    "sensingdistance", "scopetested", "is_light", "tested", "numberOfOccupantsCycle", "passageCounts",
    "passageCountsCycle", "occupancyDetectionCycle", "tamperCycle", "contact_timeout",
}  # fmt: skip
# Values in which we differ, on purpose: source -> the published names that are not compared, and why.
DIFFERENT: dict[str, tuple[set[str], str]] = {
    "V3_TYPE_1E": (
        {"isBatteryLow", "isContactDetected", "isMotionDetected", "isOccupancyDetected"},
        "all four flags are set in the only sample, so that which bit is which is not known",
    ),
    "V3_TYPE_03_S4": ({"isContactDetected", "isTamperDetected"}, "no bit of its block 1F is published one by one"),
    "test_ela_blue_puck_T_with_batt": (
        {"temperature"},
        "one advert with two frames of a company: a radio hands over one",
    ),
    "elainnovation.js:20 TOUCH": (
        {"isButtonPressed"},
        "compared as a level below; the press itself is a rise of its count",
    ),
}
LEVELS: dict[str, tuple[SignalKind, Callable[[Any], bool]]] = {
    "isContactDetected": (SignalKind.OPENING, lambda value: not value[0]),
    "isMotionDetected": (SignalKind.MOTION, lambda value: bool(value[0])),
    "isTamperDetected": (SignalKind.TAMPER, lambda value: bool(value[0])),
    "isLiquidDetected": (SignalKind.WATER_LEAK, lambda value: bool(value[0])),
    "motion": (SignalKind.MOTION, bool),
    "motion_detected": (SignalKind.MOTION, bool),
    "open": (SignalKind.OPENING, bool),
    "contact_open": (SignalKind.OPENING, bool),
    "contact": (SignalKind.OPENING, lambda value: value != "closed"),
    "leak": (SignalKind.WATER_LEAK, bool),
    "tampered": (SignalKind.TAMPER, bool),
    "numberOfOccupants": (SignalKind.OCCUPANCY, lambda value: value > 0),
    "dropping": (SignalKind.VIBRATION, bool),
    "tilt": (SignalKind.MOTION, bool),
}
NIU_CODES = {1: "press", 2: "double", 3: "triple", 9: "long"}


def driver(model: str) -> Advertises:
    found = catalogue.driver(model)
    assert isinstance(found, Advertises)
    return found


def skipped(line: Line) -> set[str]:
    return next((names for source, (names, _) in DIFFERENT.items() if source in line["source"]), set())


def calls(decoded: Decoded) -> list[Signal]:
    return [one for one in decoded.observations if isinstance(one, Signal) and one.kind is SignalKind.CALL]


def level(decoded: Decoded, kind: SignalKind) -> bool | None:
    return next(one.level for one in decoded.observations if isinstance(one, Signal) and one.kind is kind)


def check(line: Line, decoded: Decoded, name: str, value: Any) -> None:
    """Compare one published value."""
    if name in QUANTITIES:
        assert readings(decoded)[QUANTITIES[name]] == pytest.approx(value, abs=0.011), name
    elif name == "isMotionDetected" and "VIBRATION" in line["source"]:
        assert level(decoded, SignalKind.VIBRATION) is value[0]
    elif name in LEVELS:
        kind, meaning = LEVELS[name]
        assert level(decoded, kind) is meaning(value), name
    elif name == "isButtonPressed":
        assert [one.level for one in calls(decoded)] == value
    elif name in ("button_count", "push_ct"):
        assert [one.count.value for one in calls(decoded) if one.count] == [value]
    elif name == "button":
        code = "press" if value == "toggle" else NIU_CODES.get(value)
        assert [one.code for one in calls(decoded)] == ([code] if code else [])
    elif name in ("switch", "impact", "impact x", "impact y", "impact z"):
        assert value == 0  # nothing happened in the only advert
        assert not any(one.level for one in decoded.observations if isinstance(one, Signal))
    else:
        assert name in READ_PAST, name


@pytest.mark.parametrize("model", FILES)
def test_the_corpus_is_whole(model: str) -> None:
    name, count = FILES[model]
    assert len(lines(model, name)) == count


def test_every_difference_is_still_there() -> None:
    for source in DIFFERENT:
        assert sum(source in line["source"] for _, line in LINES) == 1, source


@pytest.mark.parametrize(("model", "line"), LINES, ids=lambda one: one if isinstance(one, str) else title(one))
def test_a_published_advert_means_what_its_publisher_says(model: str, line: Line) -> None:
    decoded = driver(model).decode(advert(line), None)
    assert decoded.refused == ()
    assert not decoded.authenticated
    for name, value in (line.get("expected") or {}).items():
        if name not in skipped(line):
            check(line, decoded, name, value)


def test_a_touch_tells_whether_it_is_pressed_and_how_often_it_was() -> None:
    (line,) = (line for model, line in LINES if "TOUCH" in line["source"])
    (call,) = calls(driver("ela-puck").decode(advert(line), None))
    assert line["expected"] == {"isButtonPressed": [False]}
    assert call.count is not None
    assert (call.level, call.count.value, call.count.bits) == (False, 78, 15)


@pytest.mark.parametrize(
    ("model", "service", "maker", "refused"),
    [
        ("holyiot-tag", {0x5242: "41c8c6b545f6f18e0606060100"}, {}, ("battery = 200",)),
        ("nodon-niu", {0x0000: "02599c37d90287a5215200067f5ab801"}, {}, ("battery = 127",)),
        ("minew-tag", {0xFFE1: "a1216501aabbccddeeff"}, {}, ("battery = 101",)),
        ("moko-tag", {0xFEAB: "70000003e803e9ffff"}, {}, ("humidity = 100.1", "battery_voltage = 65.535")),
        ("teltonika-eye", {}, {0x089A: "0103ff6a65"}, ("humidity = 101",)),
    ],
)
def test_a_value_that_cannot_be_is_told_and_not_taken(
    model: str, service: dict[int, str], maker: dict[int, str], refused: tuple[str, ...]
) -> None:
    line = {
        "service_data": {f"{key:04x}": value for key, value in service.items()},
        "manufacturer_data": {f"{key:04x}": value for key, value in maker.items()},
    }
    decoded = driver(model).decode(advert(line), None)
    assert decoded.refused == refused
    assert not set(readings(decoded)) & {one.partition(" ")[0] for one in refused}


@pytest.mark.parametrize(("flags", "expected"), [("c0", True), ("80", True), ("40", False), ("41", False)])
def test_a_blueup_tag_calls_by_its_flag(flags: str, expected: bool) -> None:
    decoded = driver("blueup-tag").decode(advert({"service_data": {"8800": flags, "180f": "5f"}}), None)
    assert [(one.code, one.level) for one in calls(decoded)] == [("press", expected)]


def test_a_blueup_beacon_without_an_alarm_button_is_only_heard() -> None:
    assert calls(driver("blueup-tag").decode(advert({"service_data": {"8800": "03"}}), None)) == []


def test_a_recorded_eye_beacon_says_its_battery_beside_its_ibeacon() -> None:
    """Source: a public Go test of advertisement fields ("wBu321102"); its repository is not known."""
    line = {"manufacturer_data": {"004c": "0215ffffffff0e40706aa38255aab9ea1a154e2d0055f800", "089a": "018068"}}
    assert readings(driver("teltonika-eye").decode(advert(line), None)) == {"battery_voltage": 3.04}
