"""The simulator's tags against frames that others published, so that simulator and driver cannot share one error."""

from __future__ import annotations

import pytest

from simulator.ble_tags import (
    HOLYIOT,
    MINEW,
    MOKO,
    BeaconTag,
    EnoceanSwitch,
    HolyiotButton,
    MinewButton,
    MokoButton,
    enocean,
    ibeacon,
)


@pytest.mark.parametrize(
    ("address", "key", "sequence", "status", "telegram"),
    [
        # EnOcean PTM 215B user manual, telegram examples.
        ("E2:15:00:00:19:B8", "3dda31ad44767ae3ce56dce2b3ce2abb", 1117, 0x11, "5d04000011b2fa88ff"),
        ("E2:15:00:00:1B:9F", "ab4b9a91852b70b8a652a05e92bb12a0", 361, 0x10, "69010000108ad6c17e"),
    ],
)
def test_a_signature_makes_the_published_telegrams(
    address: str, key: str, sequence: int, status: int, telegram: str
) -> None:
    assert enocean(address=address, key=bytes.fromhex(key), sequence=sequence, status=status).hex() == telegram


def test_a_switch_counts_presses_and_releases_and_gives_no_sign_of_life() -> None:
    key = bytes.fromhex("3dda31ad44767ae3ce56dce2b3ce2abb")
    switch = EnoceanSwitch("E2:15:00:00:19:B8", key=key, sequence=1116)
    press, release = switch.press("press"), switch.release()
    assert (press.counter, release.counter) == (1117, 1118)
    assert press.manufacturer_data[0x03DA].hex() == "5d04000011b2fa88ff"
    assert release.manufacturer_data[0x03DA][:5].hex() == "5e04000010"
    switch.heartbeat()
    assert switch.press("press").counter == 1119


def test_an_ibeacon_is_the_published_one() -> None:
    # custom-components/ble_monitor test_ibeacon_parser.py::test_ibeacon_sensor
    made = ibeacon(0xE2C56DB5DFFB48D2B060D0F5A71096E0, major=100, minor=0)
    assert made.hex() == "0215e2c56db5dffb48d2b060d0f5a71096e000640000c5"


def test_a_beacon_changes_its_uuid_by_how_it_was_pressed() -> None:
    slot = {"is": "content-change", "uuid": "e2c56db5-dffb-48d2-b060-d0f5a71096e0", "major": 100, "minor": 0}
    tag = BeaconTag.of("AC:23:3F:00:00:01", {"slot": [slot]})
    said = [tag.heartbeat(), *(tag.press(code) for code in ("press", "double", "triple", "long"))]
    assert [one.manufacturer_data[0x004C][17] for one in said] == [0xE0, 0xE4, 0xE5, 0xE6, 0xE3]
    assert {one.counter for one in said} == {None}


def test_a_moko_button_tells_how_often_each_way_was_used() -> None:
    button = MokoButton("E0:00:00:00:00:01", presses=0xFFFF)
    said = [button.heartbeat(), button.press("press"), button.press("long"), button.heartbeat()]
    assert [one.service_data[MOKO][:4].hex() for one in said] == ["2000ffff", "20020000", "22020000", "20000000"]
    assert [one.counter for one in said] == [0xFFFF, 0, 0, 0]


def test_a_minew_tag_shows_its_button_as_the_published_one() -> None:
    # reelyactive/advlib-ble-manufacturers test/unit/minew.js INPUT_DATA_MSE01
    tag = MinewButton("AC:23:31:23:45:67", battery=0x45, adverts=0x22)
    down, up = tag.press("press"), tag.heartbeat()
    assert down.manufacturer_data[MINEW].hex() == "51012345220100efb598c3b498c0b63cbed37ebd0398bd"
    assert up.manufacturer_data[MINEW][:5].hex() == "5101244500"
    assert down.counter is None


def test_a_holyiot_tag_shows_its_button_as_the_published_one() -> None:
    # custom-components/ble_monitor test/test_holyiot.py::test_holyiot_button
    tag = HolyiotButton("C6:B5:45:F6:F1:8E")
    assert tag.press("press").service_data[HOLYIOT].hex() == "4164c6b545f6f18e0606060100"
    assert tag.heartbeat().service_data[HOLYIOT].hex() == "4164c6b545f6f18e0606060000"


def test_what_a_tag_cannot_do_is_refused_by_name() -> None:
    switch = EnoceanSwitch("E2:15:00:00:19:B8", key=bytes(16), sequence=0)
    tag = BeaconTag("AC:23:3F:00:00:01", uuid="00" * 16)
    for device, code in ((switch, "double"), (tag, "quadruple"), (MokoButton("E0:00:00:00:00:01"), "triple"),
                         (MinewButton("AC:23:31:23:45:67"), "long"), (HolyiotButton("C6:B5:45:F6:F1:8E"), "long")):  # fmt: skip
        with pytest.raises(ValueError, match=f"knows no '{code}'"):
            device.press(code)
    for options in ({}, {"slot": [{"namespace": "00"}]}):
        with pytest.raises(ValueError, match="first slot names no iBeacon"):
            BeaconTag.of("AC:23:3F:00:00:01", options)
