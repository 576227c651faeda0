"""MiBeacon frames published by others: every line is right, refused by name, or listed here with the reason.

Lines of `tests/data/captures/xiaomi-mibeacon/`; `source` in each says where it is from.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.xiaomi_mibeacon import DRIVER
from drivers.kit import Advert, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import mibeacon

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "xiaomi-mibeacon"
Line = dict[str, Any]

# What publishers call our signals: kind, channel, and the level that their True is.
STATES = {
    "binary:smoke": (SignalKind.SMOKE, "", True),
    "binary:opening": (SignalKind.OPENING, "", True),
    "opening": (SignalKind.OPENING, "", True),
    "binary:door": (SignalKind.OPENING, "", True),
    "binary:pry_the_door": (SignalKind.TAMPER, "", True),
    "binary:device_forcibly_removed": (SignalKind.TAMPER, "", True),
    "binary:motion": (SignalKind.MOTION, "", True),
    "binary:moisture": (SignalKind.WATER_LEAK, "", True),
    "moisture detected": (SignalKind.WATER_LEAK, "", True),
    "binary:bottom_submersion": (SignalKind.WATER_LEAK, "bottom", True),
    "binary:top_splash": (SignalKind.WATER_LEAK, "splash", True),
    "binary:occupancy": (SignalKind.OCCUPANCY, "", True),
}
CODES = {
    "press": "press",
    "double_press": "double",
    "long_press": "long",
    "single press": "press",
    "double press": "double",
    "long press": "long",
}
CHANNELS = {"": "", "_left": "left", "_right": "right", "_middle": "middle", "_on": "on"}
READINGS = ("temperature", "humidity", "illuminance", "battery", "moisture")
# What no quantity or signal of ours is, or what the bytes do not say.
NOT_OURS = {
    "_decrypted", "voltage", "conductivity", "binary:light", "binary:power", "binary:lock", "binary:fingerprint", "key_id",
    "event:fingerprint", "event:lock", "lock_method", "binary:toothbrush", "counter", "score", "duration_cleared", "type",
    "packet", "one btn switch", "cont", "darkness", "mac", "event:dimmer",
}  # fmt: skip
NO_TAMPER = Signal(SignalKind.TAMPER, level=False)

# Lines whose expectation is another than ours, on purpose: part of the payload -> what we say, and why.
DIFFERENT: dict[str, tuple[list[Signal | Reading], str]] = {
    "477a3e6a8d7cc4": ([Reading("moisture", Decimal(64))], "expects what the parser remembers of earlier frames"),
    "697a3e6a8d7cc4": ([Reading("temperature", Decimal("24.4"))], "expects what the parser remembers"),
    "50f4830238c1a4": ([Reading("humidity", Decimal("46.7"))], "cuts off the tenths of this product"),
    "0101630838c1a4": ([], "expects the button on a water sensor to be one; it is its installer's"),
    "0fdbab531824d0": ([], "the temperature of a body is none of a room"),
    "1312efbe38c1a4": ([Signal(SignalKind.BED_EXIT, level=True)], "calls a pad that nobody lies on not occupied"),
    "b4e6fea138c1a45a05b5": ([Signal(SignalKind.CALL, "long", "1")], "calls the first of four buttons the left one"),
}
# Objects of products that are known by name only: a scale, a band, and one that its product cannot have.
UNSUPPORTED = ("S400", "MJTZC01YM", "M2456B1", "b4e6fea138c1a4ff47")


def lines() -> list[Line]:
    return [json.loads(line) for line in (CAPTURES / "mibeacon.jsonl").read_text().splitlines()]


def advert(line: Line) -> Advert:
    data = {int(service, 16): bytes.fromhex(payload) for service, payload in line["service_data"].items()}
    frame = data.get(mibeacon.SERVICE, bytes(12))
    return Advert(line.get("mac") or frame[5:11][::-1].hex(":").upper(), line.get("name", ""), service_data=data)


def key(line: Line) -> bytes | None:
    return mibeacon.read_key(line["key"]) if "key" in line else None


def why_different(line: Line) -> tuple[list[Signal | Reading], str] | None:
    payload = line["service_data"].get("fe95", "")
    return next((what for part, what in DIFFERENT.items() if part in payload), None)


def is_unsupported(line: Line) -> bool:
    payload = line["service_data"].get("fe95", "")
    return any(one in line["device"] or one in payload for one in UNSUPPORTED)


def published(expected: Line) -> list[Signal | Reading]:
    """Return what a publisher expects, in our words."""
    found: list[Signal | Reading] = []
    for name, value in expected.items():
        if name in NOT_OURS:
            continue
        if name in READINGS:
            found.append(Reading(name, Decimal(str(value))))
        elif name in STATES:
            kind, channel, level = STATES[name]
            found.append(Signal(kind, channel=channel, level=bool(value) is level))
        elif name == "binary:door_left_open":
            found += [Signal(SignalKind.OPENING, "left-open")] if value else []
        elif name in ("event:motion", "motion"):
            found.append(Signal(SignalKind.MOTION, "moved"))
        else:
            channel = CHANNELS["" if name == "button switch" else name.removeprefix("event:button")]
            found.append(Signal(SignalKind.CALL, CODES[value], channel))
    return found


@pytest.mark.parametrize("line", lines(), ids=lambda line: line["source"].rpartition("/")[2])
def test_a_published_frame_means_what_its_publisher_says(line: Line) -> None:
    expected: Line = line.get("expected") or {}
    if "fe95" not in line["service_data"]:
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(advert(line), key(line))
        assert caught.value.reason is Reason.NOT_MINE
        return
    frame = bytes.fromhex(line["service_data"]["fe95"])
    is_sealed = bool(frame[0] & 0x08) and bool(frame[0] & 0x40)
    if expected.get("_decrypted") is False or (is_sealed and "key" not in line) or is_unsupported(line):
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(advert(line), key(line))
        refused = Reason.BAD_KEY if "key" in line else Reason.NO_KEY
        assert caught.value.reason is (Reason.UNSUPPORTED if is_unsupported(line) else refused)
        assert caught.value.counter
        return
    found = DRIVER.decode(advert(line), key(line))
    if different := why_different(line):
        assert list(found.observations) == different[0], different[1]
        return
    wanted = published(expected)
    assert [one for one in wanted if one not in found.observations] == []
    assert [one for one in found.observations if one not in wanted and one != NO_TAMPER] == []
    assert found.refused == ()
    is_modern = frame[1] >> 4 > 3
    assert found.authenticated is (is_sealed and is_modern)
    assert found.unprovable is (is_sealed and not is_modern)
    if (meta := line.get("meta", {})).get("ext_counter"):
        number = int.from_bytes(bytes([meta["frame_counter"]]) + bytes.fromhex(meta["ext_counter"]), "little")
        assert found.counter
        assert (found.counter.value, found.counter.bits) == (number, 32)


def test_every_difference_is_still_there() -> None:
    assert len(lines()) == 92
    assert sum(why_different(line) is not None for line in lines()) == len(DIFFERENT) == 7
    assert sum(is_unsupported(line) for line in lines()) == 6
    assert sum("fe95" not in line["service_data"] for line in lines()) == 7
