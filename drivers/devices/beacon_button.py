"""Call buttons that are beacons: a press shows as an iBeacon or Eddystone frame that is not there otherwise.

KKM (K4P, KBeaconPro), Minew (B10, E8), and whatever tag can advertise a frame of its own while its button was pressed.
The frames (all of them: `drivers.protocols.beacons`):

    004C : 02 15 UUUUUUUUUUUUUUUU MM NN P    iBeacon: UUID, major, minor
    FEAA : 00 P NNNNNNNNNN IIIIII            Eddystone-UID: namespace, instance
           20 00 VV TT ...                   Eddystone-TLM: battery, temperature
           21 MM ...                         KKM: battery, temperature, humidity

The frames have neither counter nor key. So `[[device.map.slot]]` says which frame means what, one table a frame, and a
call is one time that such a frame is on the air: it begins with the first advert and ends `slot_s` + 5 s after the last,
where `slot_s` is how long the tag keeps the frame up (20 s unless set). A second press before that is heard as the same.

    [[device.map.slot]]
    is = "press"                     alive, press, double, triple, long, content-change
    uuid = "e2c56db5-dffb-48d2-b060-d0f5a71096e0"
    major = 1                        left out: any
    minor = 2                        left out: any
    namespace = "00112233445566778899", instance = "aabbccddeeff", or url = "https://..." instead of uuid

Give the tag an `alive` slot if it has one: without, its silence is told after a week only. `content-change` is KKM's: the
UUID itself changes by a number, 4 press, 5 double, 6 triple, 3 long; as it stands it is alive. A device whose `address` is
empty is known by its slots alone, for tags that change their address.
Not tried on a real tag: the frames are published ones, the rule for `content-change` is KKM's description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Final

from drivers.kit import (
    Advert,
    Advertises,
    AdvertVector,
    BadOption,
    Decoded,
    Observation,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Title,
)
from drivers.kit.options import choice, known_keys, number, tables, text
from drivers.protocols import beacons

MAX_SLOTS: Final = 16
SILENCE_S: Final = 5.0
SLOT_S: Final = 20.0
_MAX_SLOT_S = 600.0
_MAX_16 = 0xFFFF
_ALIVE, _CONTENT_CHANGE = "alive", "content-change"
_MEANINGS = (_ALIVE, "press", "double", "triple", "long", _CONTENT_CHANGE)
# What KKM adds to the UUID (KBeaconProDemo_Android, README 4.3.4.1).
_ADDED: Final = {4: "press", 5: "double", 6: "triple", 3: "long"}
_MAX_VOLTS = Decimal(5)

Slots = Mapping[str, str]


def options(raw: Mapping[str, object]) -> Advertises:
    """Read `slot_s` and the slots. Raises BadOption."""
    known_keys(raw, name="map", allowed=("slot", "slot_s"))
    hold_s = float(number(raw, "slot_s", name="map", least=1.0, most=_MAX_SLOT_S, default=SLOT_S))
    rows = tables(raw, "slot", name="map", most=MAX_SLOTS)
    if not rows:
        expected = "at least one [[device.map.slot]]: which frame of the tag means what"
        raise BadOption("map.slot", raw.get("slot"), expected, zh="至少一张 [[device.map.slot]]：标签的哪一帧表示什么")
    slots: dict[str, str] = {}
    for name, row in rows:
        for identity, meaning in _slot(name, row).items():
            if slots.setdefault(identity, meaning) != meaning:
                expected = "a frame that no slot above has"
                raise BadOption(f"{name}.is", row.get("is"), expected, zh="上面的 slot 没有用过的帧")
    return replace(
        DRIVER, decode=partial(_decode, slots=slots), level_hold_s=hold_s + SILENCE_S, identities=frozenset(slots),
        only_when_used=_ALIVE not in slots.values(),
    )  # fmt: skip


def _slot(name: str, row: Mapping[str, object]) -> Slots:
    known_keys(row, name=name, allowed=("instance", "is", "major", "minor", "namespace", "url", "uuid"))
    meaning = choice(row, "is", name=name, among=_MEANINGS)
    instance = _hex(row, "instance", name=name, size=6) if "instance" in row else None
    kinds = [key for key in ("uuid", "namespace", "url") if key in row]
    if len(kinds) != 1 or (meaning == _CONTENT_CHANGE and kinds != ["uuid"]):
        expected = "uuid (iBeacon), namespace (Eddystone-UID) or url (Eddystone-URL), one of them; content-change: uuid"
        zh = "uuid（iBeacon）、namespace（Eddystone-UID）、url（Eddystone-URL）三选一；content-change 只能用 uuid"
        raise BadOption(f"{name}.uuid", row.get("uuid"), expected, zh=zh)
    for key in {"uuid": ("instance",), "namespace": ("major", "minor"), "url": ("instance", "major", "minor")}[
        kinds[0]
    ]:
        if key in row:
            raise BadOption(f"{name}.{key}", row[key], f"nothing beside {kinds[0]}", zh=f"与 {kinds[0]} 不能同时写")
    if kinds == ["url"]:
        return {beacons.url_name(text(row, "url", name=name)): meaning}
    if kinds == ["namespace"]:
        return {beacons.eddystone_name(_hex(row, "namespace", name=name, size=10), instance): meaning}
    return _ibeacons(name, row, meaning)


def _ibeacons(name: str, row: Mapping[str, object], meaning: str) -> Slots:
    uuid = int.from_bytes(_hex(row, "uuid", name=name, size=16), "big")
    major, minor = (
        int(number(row, key, name=name, least=0, most=_MAX_16)) if key in row else None for key in ("major", "minor")
    )
    if major is None and minor is not None:
        raise BadOption(f"{name}.minor", minor, "major beside it", zh="同时写 major")
    if meaning != _CONTENT_CHANGE:
        return {beacons.ibeacon_name(uuid, major, minor): meaning}
    found = {beacons.ibeacon_name(uuid, major, minor): _ALIVE}
    for added, code in _ADDED.items():
        # Whether the sum of the last byte carries is not written down: both are heard.
        for changed in (uuid & ~0xFF | (uuid + added) & 0xFF, (uuid + added) & (1 << 128) - 1):
            found[beacons.ibeacon_name(changed, major, minor)] = code
    return found


def _hex(row: Mapping[str, object], key: str, *, name: str, size: int) -> bytes:
    value = row.get(key)
    digits = value.replace("-", "").lower() if isinstance(value, str) else ""
    if len(digits) != 2 * size or not re.fullmatch(r"[0-9a-f]+", digits):
        raise BadOption(f"{name}.{key}", value, f"{2 * size} hexadecimal digits", zh=f"{2 * size} 个十六进制字符")
    return bytes.fromhex(digits)


def _decode(advert: Advert, key: bytes | None, *, slots: Slots) -> Decoded:  # noqa: ARG001 - beacons have no key; the shape has
    """Read one advert. Raises Rejected."""
    found: list[Observation] = []
    heard = bool(advert.cached)
    for frame in beacons.parse(advert):
        if isinstance(frame, beacons.Sensor):
            heard = True
            found += _readings(frame)
            continue
        meaning = next((slots[name] for name in frame.names if name in slots), None)
        heard = heard or meaning is not None
        if meaning not in (None, _ALIVE):
            found.append(Signal(SignalKind.CALL, str(meaning)))
    if not heard:
        raise Rejected(Reason.NOT_MINE, "a beacon frame that no slot of this device names")
    return Decoded(tuple(found))


def _readings(sensor: beacons.Sensor) -> list[Observation]:
    named = (
        ("battery_voltage", sensor.battery_v if sensor.battery_v and sensor.battery_v <= _MAX_VOLTS else None),
        ("temperature", sensor.temperature),
        ("humidity", sensor.humidity),
    )
    return [Reading(quantity, value) for quantity, value in named if value is not None]


_UUID_TEXT = "e2c56db5-dffb-48d2-b060-d0f5a71096e0"
_PRESS = {"slot": [{"is": "press", "uuid": _UUID_TEXT, "major": 100, "minor": 0}]}


def _ibeacon(data: str) -> Advert:
    return Advert("6A:6B:C9:A2:3E:43", manufacturer_data={beacons.APPLE: bytes.fromhex(data)})


def _eddystone(data: str) -> Advert:
    return Advert("DD:34:02:06:D0:6C", service_data={beacons.EDDYSTONE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="beacon-button",
    title=Title(zh="信标呼叫按钮（iBeacon、Eddystone）", en="beacon call button (iBeacon, Eddystone)"),
    decode=partial(_decode, slots={}),
    options=options,
    identify=beacons.identify,
    may_call=True,
    level_hold_s=SLOT_S + SILENCE_S,
    vectors=(
        AdvertVector(
            source="custom-components/ble_monitor test_ibeacon_parser.py::test_ibeacon_sensor, taken as a trigger slot",
            advert=_ibeacon("0215e2c56db5dffb48d2b060d0f5a71096e000640000c5"),
            expect=Decoded((Signal(SignalKind.CALL, "press"),)),
            options=_PRESS,
        ),
        AdvertVector(
            source="synthetic: the same frame with KKM's 6 added to its UUID",
            advert=_ibeacon("0215e2c56db5dffb48d2b060d0f5a71096e600640000c5"),
            expect=Decoded((Signal(SignalKind.CALL, "triple"),)),
            options={"slot": [{"is": "content-change", "uuid": _UUID_TEXT}], "slot_s": 15},
        ),
        AdvertVector(
            source="synthetic: an Eddystone-UID with the namespace and instance of the options",
            advert=_eddystone("00ee00112233445566778899aabbccddeeff0000"),
            expect=Decoded((Signal(SignalKind.CALL, "long"),)),
            options={"slot": [{"is": "long", "namespace": "00112233445566778899", "instance": "aabbccddeeff"}]},
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[106] (KKM K9)",
            advert=_eddystone("21010f0e5befbb42d1ffc200000407"),
            expect=Decoded(
                (
                    Reading("battery_voltage", Decimal("3.675")),
                    Reading("temperature", Decimal("-16.27")),
                    Reading("humidity", Decimal("66.82")),
                )
            ),
            options=_PRESS,
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_mfgdata[2] (iBeacon), a tag of somebody else",
            advert=_ibeacon("0215426c7565436861726d426561636f6e730efe1355c5"),
            expect=Reason.NOT_MINE,
            options=_PRESS,
        ),
        AdvertVector(
            source="synthetic: the frame of test_ibeacon_sensor cut before its minor",
            advert=_ibeacon("0215e2c56db5dffb48d2b060d0f5a71096e00064"),
            expect=Reason.TOO_SHORT,
            options=_PRESS,
        ),
    ),
)
