"""The simulator's BLE bytes against frames that others published, so that simulator and driver cannot share one error."""

from __future__ import annotations

import pytest

from simulator.ble_devices import (
    BTHOME_ENCRYPTED,
    BTHOME_PLAIN,
    BTHOME_PLAIN_SLEEPY,
    BthomeButton,
    IngicsPendant,
    bthome_encrypted,
    bthome_objects,
    bthome_plain,
    ingics,
)

# Key and address of the encrypted examples below, as published with them.
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
ADDRESS = "54:48:E6:8F:80:A5"


@pytest.mark.parametrize(
    ("objects", "frame"),
    [
        # 25.06 degrees, 50.55 %. Source: Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bindkey_correct
        ("02ca0903bf13", "41a47266c95f730011223378237214"),
        # Motion. Source: Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_motion
        ("2101", "4187b90011223372b0231f"),
    ],
)
def test_encryption_makes_the_published_frames(objects: str, frame: str) -> None:
    # The counter stands in both as 00 11 22 33, little endian.
    made = bthome_encrypted(bytes.fromhex(objects), address=ADDRESS, key=KEY, counter=0x33221100, info=BTHOME_ENCRYPTED)

    assert made.hex() == frame


@pytest.mark.parametrize(
    ("info", "packet_id", "battery", "buttons", "frame"),
    [
        # A press. Source: Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_shelly_button
        (BTHOME_PLAIN, 82, 100, (0x01,), "40005201643a01"),
        # Triple press. Source: theengs/decoder tests/BLE/test_ble.cpp test_uuid_name_svcdata[22]
        (BTHOME_PLAIN, 31, 100, (0x03,), "40001f01643a03"),
        # A press, trigger based. Source: theengs/decoder tests/BLE/test_ble.cpp test_uuid_name_svcdata[24]
        (BTHOME_PLAIN_SLEEPY, 171, 100, (0x01,), "4400ab01643a01"),
        # First of four buttons. Source: theengs/decoder tests/BLE/test_ble.cpp test_uuid_name_svcdata[27]
        (BTHOME_PLAIN_SLEEPY, 29, 100, (0x01, 0x00, 0x00, 0x00), "44001d01643a013a003a003a00"),
        # Hold. Source: Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_event_button_hold_press
        (BTHOME_PLAIN, None, None, (0x80,), "403a80"),
    ],
)
def test_plain_buttons_make_the_published_frames(
    info: int, packet_id: int | None, battery: int | None, buttons: tuple[int, ...], frame: str
) -> None:
    objects = bthome_objects(packet_id=packet_id, battery=battery, buttons=buttons)

    assert bthome_plain(objects, info=info).hex() == frame


@pytest.mark.parametrize(
    ("variant", "centivolts", "events", "frame"),
    [
        # iBS01G fallen. Source: ingics/ingics-message-parser-py tests/test_ibs01.py:107
        ("ibs01g", 314, 0x08, "80bc3a0108ffff0000000006030000"),
        # iBS01G moving. Source: ingics/ingics-message-parser-py tests/test_ibs01.py:106
        ("ibs01g", 314, 0x02, "80bc3a0102ffff0000000006030000"),
        # iBS03G moving. Source: ingics/ingics-message-parser-py tests/test_ibs03.py test_ibs03g
        ("ibs03g", 318, 0x02, "83bc3e0102aaaaffff000016130000"),
    ],
)
def test_ingics_tags_make_the_published_frames(variant: str, centivolts: int, events: int, frame: str) -> None:
    assert ingics(variant, battery_centivolts=centivolts, events=events).hex() == frame


def test_each_message_of_a_plain_button_has_the_next_packet_id_which_wraps_at_256() -> None:
    button = BthomeButton("AA:BB:CC:DD:EE:01", key=None, counter=253, battery=100)

    payloads = [button.press("press"), button.heartbeat(), button.press("long")]

    assert [payload.counter for payload in payloads] == [254, 255, 0]
    assert [payload.service_data[0xFCD2].hex() for payload in payloads] == [
        "4400fe01643a01",
        "4400ff0164",
        "4400000164" + "3a04",
    ]


def test_an_encrypted_button_counts_in_32_bits_and_hides_its_objects() -> None:
    button = BthomeButton(ADDRESS, key=KEY, counter=0x33221100 - 1, battery=100)

    payload = button.press("press")

    assert payload.counter == 0x33221100
    frame = payload.service_data[0xFCD2]
    # As the encrypted Button1 of theengs/decoder test_uuid_name_svcdata[26]: 45, six bytes, counter, tag of four.
    assert len(frame) == 15
    assert frame[0] == 0x45
    assert frame[7:11].hex() == "00112233"


def test_a_pendant_shows_a_fall_as_one_bit_and_has_no_counter() -> None:
    pendant = IngicsPendant("FE:58:1D:9D:B3:08", variant="ibs01g", battery_centivolts=314)

    fall, rest = pendant.fall(), pendant.heartbeat()

    assert fall.manufacturer_data == {0x0059: bytes.fromhex("80bc3a0108ffff0000000006030000")}
    assert rest.manufacturer_data == {0x0059: bytes.fromhex("80bc3a0100ffff0000000006030000")}
    assert (fall.counter, rest.counter) == (None, None)


def test_an_iBS03_pendant_speaks_under_its_own_company_id() -> None:  # noqa: N802 - the product is written so
    assert list(IngicsPendant("FE:58:1D:9D:B3:08").fall().manufacturer_data) == [0x000D]


def test_what_a_device_cannot_do_is_refused_with_what_it_can() -> None:
    with pytest.raises(ValueError, match="knows no 'knock'; it knows none, press, double"):
        BthomeButton("AA:BB:CC:DD:EE:01", key=None, counter=0).press("knock")
    with pytest.raises(ValueError, match="knows no 'double', only press"):
        IngicsPendant("AA:BB:CC:DD:EE:01").press("double")
    with pytest.raises(ValueError, match="no Ingics tag is called 'ibs99'"):
        IngicsPendant("AA:BB:CC:DD:EE:01", variant="ibs99")
