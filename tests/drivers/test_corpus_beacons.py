"""Beacon frames published by others: every line is read as its publisher says, or refused by name; and what slots mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivers.devices.beacon_button import DRIVER
from drivers.kit import Advert, BadOption, Decoded, Reason, Rejected, Signal, SignalKind
from drivers.protocols import beacons
from tests.drivers.captures import Line, advert, lines, readings, title

LINES = lines("beacon-button", "beacons.jsonl")
UUID = "e2c56db5-dffb-48d2-b060-d0f5a71096e0"
ANY = {"slot": [{"is": "alive", "uuid": UUID}]}
# Lines that say nothing which we may believe: source -> why.
REFUSED = {
    "EDDYSTONE_ETLM": Reason.UNSUPPORTED,  # encrypted telemetry: needs the identity key and the beacon's clock
    "EDDYSTONE_EID": Reason.UNSUPPORTED,  # an identifier that changes: likewise
}
# What publishers call our readings. Ours are exact to hundredths; theirs are rounded, or cut.
QUANTITIES = {
    "tempc": "temperature", "temperature": "temperature", "hum": "humidity", "humidity": "humidity",
    "volt": "battery_voltage", "voltage": "battery_voltage", "batteryVoltage": "battery_voltage",
}  # fmt: skip


def why_refused(line: Line) -> Reason | None:
    return next((why for source, why in REFUSED.items() if source in line["source"]), None)


def test_the_corpus_is_whole() -> None:
    assert len(LINES) == 24
    assert sum(why_refused(line) is not None for line in LINES) == len(REFUSED)


@pytest.mark.parametrize("line", LINES, ids=title)
def test_a_published_frame_means_what_its_publisher_says(line: Line) -> None:
    expected: dict[str, Any] = line["expected"]
    if reason := why_refused(line):
        with pytest.raises(Rejected) as caught:
            beacons.parse(advert(line))
        assert caught.value.reason is reason
        return
    (frame,) = beacons.parse(advert(line))
    if "uuid" in expected:
        name = f"ibeacon {expected['uuid']}/{expected['major']}/{expected['minor']}"
        assert isinstance(frame, beacons.Slot)
        assert frame.names[0] == name
    elif "deviceIds" in expected and isinstance(frame, beacons.Slot) and frame.names:
        uuid, major, minor = expected["deviceIds"][0].split("/")
        assert frame.names[0] == f"ibeacon {uuid}/{int(major, 16)}/{int(minor, 16)}"
    elif "EDDYSTONE_URL" in line["source"]:
        assert frame == beacons.Slot(("url https://getpareto.com",))
    else:
        found = readings(DRIVER.configured(ANY).decode(advert(line), None))
        told = {QUANTITIES[name]: value for name, value in expected.items() if name in QUANTITIES}
        assert found == pytest.approx(told, abs=0.011)


def ibeacon(uuid: str = UUID, *, major: int = 100, minor: int = 7) -> Advert:
    data = bytes.fromhex("0215" + uuid.replace("-", "")) + major.to_bytes(2, "big") + minor.to_bytes(2, "big") + b"\xc5"
    return Advert("C0:00:00:00:00:01", manufacturer_data={beacons.APPLE: data})


def uid(namespace: str, instance: str, *, more: str = "0000") -> Advert:
    return Advert(
        "C0:00:00:00:00:01", service_data={beacons.EDDYSTONE: bytes.fromhex("00ee" + namespace + instance + more)}
    )


def said(driver: Any, heard: Advert) -> list[str] | Reason:
    try:
        decoded: Decoded = driver.decode(heard, None)
    except Rejected as refusal:
        return refusal.reason
    calls = [one for one in decoded.observations if isinstance(one, Signal)]
    assert all(one.kind is SignalKind.CALL and one.level is None for one in calls)
    return [one.code for one in calls]


def test_the_most_exact_slot_says_what_a_frame_means() -> None:
    slots = [
        {"is": "alive", "uuid": UUID},
        {"is": "press", "uuid": UUID, "major": 100},
        {"is": "long", "uuid": UUID, "major": 100, "minor": 7},
    ]
    driver = DRIVER.configured({"slot": slots})
    assert said(driver, ibeacon(minor=7)) == ["long"]
    assert said(driver, ibeacon(minor=8)) == ["press"]
    assert said(driver, ibeacon(major=5)) == []
    assert said(driver, ibeacon("00112233-4455-6677-8899-aabbccddeeff")) is Reason.NOT_MINE


@pytest.mark.parametrize(
    ("last", "code"), [("e0", []), ("e3", ["long"]), ("e4", ["press"]), ("e5", ["double"]), ("e6", ["triple"])]
)
def test_a_changed_uuid_says_how_the_button_was_pressed(last: str, code: list[str]) -> None:
    driver = DRIVER.configured({"slot": [{"is": "content-change", "uuid": UUID, "major": 100}]})
    assert said(driver, ibeacon(UUID[:-2] + last)) == code
    assert said(driver, ibeacon(UUID[:-2] + "e7")) is Reason.NOT_MINE


@pytest.mark.parametrize("changed", ["00000000-0000-0000-0000-000000000102", "00000000-0000-0000-0000-000000000002"])
def test_a_changed_uuid_is_heard_whether_its_last_byte_carries_or_not(changed: str) -> None:
    driver = DRIVER.configured({"slot": [{"is": "content-change", "uuid": "00000000-0000-0000-0000-0000000000fe"}]})
    assert said(driver, ibeacon(changed)) == ["press"]


def test_an_eddystone_is_known_by_namespace_and_instance() -> None:
    slots = [{"is": "press", "namespace": "00112233445566778899", "instance": "aabbccddeeff"}]
    driver = DRIVER.configured({"slot": slots})
    for more in ("0000", ""):  # some tags leave the two reserved bytes out
        assert said(driver, uid("00112233445566778899", "aabbccddeeff", more=more)) == ["press"]
    assert said(driver, uid("00112233445566778899", "aabbccddee00")) is Reason.NOT_MINE
    assert said(driver, uid("00112233445566778890", "aabbccddeeff")) is Reason.NOT_MINE


def test_a_url_can_be_a_slot() -> None:
    driver = DRIVER.configured({"slot": [{"is": "press", "url": "https://getpareto.com"}]})
    heard = Advert("", service_data={beacons.EDDYSTONE: bytes.fromhex("10000367657470617265746f07")})
    assert said(driver, heard) == ["press"]


def test_a_press_lasts_as_long_as_its_slot_and_five_seconds_of_silence() -> None:
    assert DRIVER.configured(ANY).level_hold_s == 25.0
    assert DRIVER.configured({**ANY, "slot_s": 10}).level_hold_s == 15.0


def test_a_device_is_known_by_every_slot_that_it_has() -> None:
    driver = DRIVER.configured(
        {"slot": [{"is": "content-change", "uuid": UUID}, {"is": "press", "url": "http://a.cn"}]}
    )
    assert len(driver.identities) == 6
    assert driver.identify is not None
    assert set(driver.identify(ibeacon())) & driver.identities == {f"ibeacon {UUID.replace('-', '')}/*/*"}
    assert driver.identify(Advert("", manufacturer_data={0x004C: b"\x10\x05"})) == ()


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({}, "map.slot"),
        ({"slot": []}, "map.slot"),
        ({"slot": [{}]}, "map.slot[0].is"),
        ({"slot": [{"is": "scream", "uuid": UUID}]}, "map.slot[0].is"),
        ({"slot": [{"is": "press"}]}, "map.slot[0].uuid"),
        ({"slot": [{"is": "press", "uuid": UUID[:-1]}]}, "map.slot[0].uuid"),
        ({"slot": [{"is": "press", "uuid": UUID, "url": "http://a.cn"}]}, "map.slot[0].uuid"),
        ({"slot": [{"is": "press", "uuid": UUID, "minor": 1}]}, "map.slot[0].minor"),
        ({"slot": [{"is": "press", "uuid": UUID, "major": 65536}]}, "map.slot[0].major"),
        ({"slot": [{"is": "press", "uuid": UUID, "major": True}]}, "map.slot[0].major"),
        ({"slot": [{"is": "press", "uuid": UUID, "instance": "aabbccddeeff"}]}, "map.slot[0].instance"),
        ({"slot": [{"is": "press", "namespace": "0011"}]}, "map.slot[0].namespace"),
        ({"slot": [{"is": "content-change", "namespace": "00112233445566778899"}]}, "map.slot[0].uuid"),
        ({"slot": [{"is": "press", "uuid": UUID}, {"is": "long", "uuid": UUID}]}, "map.slot[1].is"),
        ({**ANY, "slot_s": 0}, "map.slot_s"),
        ({**ANY, "slot_s": float("nan")}, "map.slot_s"),
        ({**ANY, "slot_s": "20"}, "map.slot_s"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(raw: dict[str, object], key: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.configured(raw)
    assert caught.value.key == key
    assert caught.value.expected
    assert caught.value.zh


def test_a_frame_that_is_only_shown_again_says_nothing() -> None:
    driver = DRIVER.configured({"slot": [{"is": "press", "uuid": UUID}]})
    life = {beacons.EDDYSTONE: bytes.fromhex("21010b0c13180000210000fc12")}
    shown = replace(ibeacon(), service_data=life, cached=frozenset({"manufacturer_data"}))
    assert said(driver, replace(shown, cached=frozenset())) == ["press"]
    assert readings(driver.decode(shown, None)) == {"battery_voltage": 3.091, "temperature": 24.0}
    assert driver.decode(replace(shown, cached=frozenset({"manufacturer_data", "service_data"})), None) == Decoded()
    assert driver.identify is not None
    assert driver.identify(shown) == ()


def test_the_second_sensor_frame_of_kkm_is_read_field_by_field() -> None:
    driver = DRIVER.configured(ANY)
    # Acceleration (04), then a field that is cut off.
    one = advert({"service_data": {"feaa": "24070bb817" + "07040001fff6ff00" + "0402ff9c"}})
    assert readings(driver.decode(one, None)) == {"battery_voltage": 3.0}
    both = advert({"service_data": {"feaa": "24070bb817" + "0302ff9c" + "040300d72d"}})
    assert readings(driver.decode(both, None)) == {"battery_voltage": 3.0, "temperature": 21.5, "humidity": 45.0}


@pytest.mark.parametrize("frame", ["06010f00", "07010f00"])
def test_an_encrypted_sensor_frame_is_refused_by_name(frame: str) -> None:
    with pytest.raises(Rejected, match="encrypted") as caught:
        beacons.parse(advert({"service_data": {"feaa": frame}}))
    assert caught.value.reason is Reason.UNSUPPORTED


def test_a_tag_without_a_sign_of_life_is_heard_only_when_it_is_used() -> None:
    assert DRIVER.configured({"slot": [{"is": "press", "uuid": UUID}]}).only_when_used
    assert not DRIVER.configured({"slot": [{"is": "content-change", "uuid": UUID}]}).only_when_used
    assert not DRIVER.configured(ANY).only_when_used
