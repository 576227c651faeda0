"""MiBeacon: what raises by product, whose counter counts, and what is refused by name."""

from __future__ import annotations

import struct
from decimal import Decimal

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from drivers.devices.xiaomi_mibeacon import DRIVER
from drivers.kit import Advert, Counter, Decoded, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import mibeacon
from drivers.protocols.mibeacon_products import PRODUCTS

ADDRESS = "54:EF:44:E3:9C:BC"
KEY = bytes(range(16))
BUTTON, SMOKE_DETECTOR, LEAK, DOOR, PAD, PILLOW, THERMOMETER, K9B_2, K9B_3 = (
    0x2387, 0x0997, 0x6375, 0x1889, 0x3F4C, 0x20DB, 0x055B, 0x1569, 0x0DFD,
)  # fmt: skip


def plain(product: int, objects: str, *, counter: int = 7, flags: int = 0x5040) -> str:
    return (struct.pack("<HHB", flags, product, counter) + bytes.fromhex(objects)).hex()


def sealed(product: int, objects: str, *, counter: int = 0x0102_0304, key: bytes = KEY) -> str:
    """A frame of version 5 without an address, encrypted here as the specification says."""
    first = struct.pack("<HHB", 0x5048, product, counter & 0xFF)
    extension = (counter >> 8).to_bytes(3, "little")
    nonce = bytes.fromhex(ADDRESS.replace(":", ""))[::-1] + first[2:] + extension
    text = AESCCM(key, tag_length=4).encrypt(nonce, bytes.fromhex(objects), b"\x11")
    return (first + text[:-4] + extension + text[-4:]).hex()


def said(data: str, key: bytes | None = None, address: str = ADDRESS) -> Decoded:
    return DRIVER.decode(Advert(address, service_data={0xFE95: bytes.fromhex(data)}), key)


def refusal(data: str, key: bytes | None = None, address: str = ADDRESS) -> Rejected:
    with pytest.raises(Rejected) as caught:
        said(data, key, address)
    return caught.value


def call(code: str, channel: str = "") -> Signal:
    return Signal(SignalKind.CALL, code, channel)


def level(kind: SignalKind, on: object, channel: str = "") -> Signal:
    return Signal(kind, channel=channel, level=bool(on))


# Trust.


def test_an_encrypted_press_is_authenticated_and_counted_by_its_32_bits() -> None:
    found = said(sealed(BUTTON, "0c4e00"), KEY)
    assert found == Decoded((call("press"),), Counter(0x01020304, 32, authenticated=True), authenticated=True)


def test_the_counter_goes_on_where_its_lower_byte_wraps() -> None:
    """Two published frames of an XMWXKG01LM: 08 00 00/FF, then 09 00 00/01."""
    assert [said(sealed(BUTTON, "0c4e00", counter=number), KEY).counter for number in (0x8FF, 0x901)] == [
        Counter(0x8FF, 32, authenticated=True), Counter(0x901, 32, authenticated=True),
    ]  # fmt: skip


def test_a_plain_press_is_read_under_a_key_but_proves_nothing() -> None:
    found = said(plain(0x07BF, "011003000000"), KEY)
    assert found == Decoded((call("press"),), Counter(7, 8, authenticated=False))


def test_what_cannot_be_decrypted_still_tells_its_counter() -> None:
    frame = sealed(BUTTON, "0c4e00")
    for key, reason in ((bytes(16), Reason.BAD_KEY), (None, Reason.NO_KEY), (b"short", Reason.BAD_KEY)):
        refused = refusal(frame, key)
        assert (refused.reason, refused.counter) == (reason, Counter(0x01020304, 32, authenticated=False))


@pytest.mark.parametrize("at", range(2, 15))
def test_any_changed_byte_of_an_encrypted_press_is_refused(at: int) -> None:
    data = bytearray.fromhex(sealed(BUTTON, "0c4e00"))
    data[at] ^= 0x01
    assert refusal(data.hex(), KEY).reason is Reason.BAD_KEY


def test_an_encrypted_press_from_another_address_is_refused() -> None:
    assert refusal(sealed(BUTTON, "0c4e00"), KEY, "54:EF:44:E3:9C:BD").reason is Reason.BAD_KEY


@pytest.mark.parametrize(
    ("product", "is_harmless"),
    [
        (BUTTON, False), (SMOKE_DETECTOR, False), (LEAK, False), (PILLOW, False), (0xBEEF, False),
        (THERMOMETER, True), (DOOR, True), (PAD, True), (0x0A8D, True),
    ],
)  # fmt: skip
def test_what_cannot_be_decrypted_may_be_a_call_only_from_what_can_call(product: int, is_harmless: bool) -> None:
    assert refusal(sealed(product, "0c4e00")).harmless is is_harmless
    assert refusal(sealed(product, "0c4e00"), bytes(16)).harmless is is_harmless


def test_the_old_encryption_proves_no_sender_and_is_no_downgrade() -> None:
    """The published frame of a YLKG07YL that is turned, with its key as the maker gives it: 24 digits."""
    key = mibeacon.read_key("b853075158487ca39a5b5ea9")
    assert key.hex() == "b853075158488d3d3c977ca39a5b5ea9"
    frame = "5830b603368b98c54124f88bb8f2661351000000d6"
    found = said(frame, key, "F8:24:41:C5:98:8B")
    assert found == Decoded((), Counter(0x36, 32, authenticated=False), unprovable=True)
    assert refusal(frame, None, "F8:24:41:C5:98:8B").counter == Counter(0x36, 32, authenticated=False)


def test_a_key_is_read_in_both_lengths_only() -> None:
    assert mibeacon.read_key(KEY.hex()) == KEY
    with pytest.raises(ValueError, match="hexadecimal"):
        mibeacon.read_key("zz")


# Products.


@pytest.mark.parametrize(
    ("product", "objects", "calls"),
    [
        (BUTTON, "0c4e00", [call("press")]),
        (BUTTON, "0d4e00", [call("double")]),
        (BUTTON, "0e4e00", [call("long")]),
        (0x1949, "0c4e0101", [call("press", "left")]),
        (0x1949, "0d4e0102", [call("double", "right")]),
        (0x1949, "0e4e0103", [call("long", "left"), call("long", "right")]),
        (0x1949, "0c4e0109", [call("press")]),
        (0x1949, "0c4e00", [call("press")]),
        (0x1C10, "0c4e0101", [call("press")]),
        (0x1C10, "0c4e0108", [call("long")]),
        (0x1C10, "0c4e010f", [call("double")]),
        (0x1C10, "0c4e0142", [call("unknown-42")]),
        (0x38BB, "0d4a00", [call("double")]),
        (0x5968, "0c4a0100", [call("press", "left")]),
        (0x5968, "0e4a0101", [call("long", "right")]),
        (0x3A61, "0c560104", [call("press", "4")]),
        (0x3E17, "0e560101", [call("long", "1")]),
        (0x520B, "0d5600", [call("double")]),
        (0x07BF, "011003000001", [call("double")]),
        (0x07BF, "011003000002", [call("long")]),
        (0x07BF, "011003000077", [call("unknown-77")]),
        (0x07BF, "01100100", [call("unknown")]),
        (0x1568, "011003000001", [call("long")]),
        (0x1568, "011003000002", [call("double")]),
        (K9B_2, "011003010000", [call("press", "right")]),
        (K9B_2, "011003020002", [call("double", "left"), call("double", "right")]),
        (K9B_3, "011003030000", [call("press", "left"), call("press", "middle")]),
        (K9B_3, "011003040000", [call("press", "middle"), call("press", "right")]),
        (K9B_3, "011003050000", [call("press", "left"), call("press", "right")]),
        (K9B_3, "011003060001", [call("long", one) for one in ("left", "middle", "right")]),
        (K9B_3, "011003090001", [call("long")]),
        (0x0153, "011003050002", [call("long", "minus")]),
        (0x03BF, "011003080000", [call("press", "heat")]),
        (0x03B6, "011003000103", [call("press")]),
        (0x03B6, "011003010203", [call("long")]),
        (0x03B6, "01100300ff04", []),
        (PILLOW, "165a0103", [call("double")]),
        (PILLOW, "10500102", [call("double")]),
        (0xBEEF, "011003000000", [call("press")]),
    ],
)
def test_a_button_calls_as_its_product_means_it(product: int, objects: str, calls: list[Signal]) -> None:
    assert list(said(sealed(product, objects), KEY).observations) == calls


@pytest.mark.parametrize(
    ("product", "objects", "found"),
    [
        (SMOKE_DETECTOR, "15100101", [level(SignalKind.SMOKE, 1)]),
        (SMOKE_DETECTOR, "15100102", [level(SignalKind.SMOKE, 1)]),
        (SMOKE_DETECTOR, "15100100", [level(SignalKind.SMOKE, 0)]),
        (SMOKE_DETECTOR, "011003000000", []),
        (0x0863, "14100101", [level(SignalKind.WATER_LEAK, 1)]),
        (0x3F0F, "06480100", [level(SignalKind.WATER_LEAK, 0)]),
        (LEAK, "06480101", [level(SignalKind.WATER_LEAK, 1, "bottom")]),
        (LEAK, "7b480101", [level(SignalKind.WATER_LEAK, 1, "splash")]),
        (LEAK, "684a0100", [level(SignalKind.WATER_LEAK, 1, "bottom")]),
        (LEAK, "684a0101", [level(SignalKind.WATER_LEAK, 0, "bottom")]),
        (LEAK, "684a0102", [level(SignalKind.WATER_LEAK, 1, "splash")]),
        (LEAK, "684a0103", [level(SignalKind.WATER_LEAK, 0, "splash")]),
        (LEAK, "684a0104", []),
        (DOOR, "04480101", [level(SignalKind.OPENING, 1)]),
        (DOOR, "124a0102", [level(SignalKind.OPENING, 0), level(SignalKind.TAMPER, 0)]),
        (DOOR, "1a4a0101", [level(SignalKind.OPENING, 1), Signal(SignalKind.OPENING, "left-open")]),
        (DOOR, "0f4a0101", [level(SignalKind.OPENING, 1), level(SignalKind.TAMPER, 1)]),
        (DOOR, "134a0101", []),
        (0x098B, "19100100", [level(SignalKind.OPENING, 1)]),
        (0x098B, "19100101", [level(SignalKind.OPENING, 0), level(SignalKind.TAMPER, 0)]),
        (0x098B, "19100102", [level(SignalKind.OPENING, 1), Signal(SignalKind.OPENING, "left-open")]),
        (0x098B, "19100103", []),
        (0x78D1, "0c480100", [level(SignalKind.OPENING, 1)]),
        (0x0784, "07000104", [level(SignalKind.OPENING, 1), level(SignalKind.TAMPER, 1)]),
        (0x0784, "07000103", []),
        (0x0784, "014a0101", [level(SignalKind.LOW_BATTERY, 1)]),
        (0x09B0, "0f100101", [level(SignalKind.OPENING, 1)]),
        (0x09B0, "0f100100", [level(SignalKind.OPENING, 0), level(SignalKind.TAMPER, 0)]),
        (0x0A8D, "0f0003000100", [level(SignalKind.MOTION, 1)]),
        (0x0A8D, "1710043c000000", [level(SignalKind.MOTION, 0)]),
        (0x0A8D, "17100400000000", [level(SignalKind.MOTION, 1)]),
        (0x2AEB, "1848021e00", [level(SignalKind.MOTION, 1)]),
        (0x2AEB, "1848021f00", [level(SignalKind.MOTION, 0)]),
        (0x2AEB, "084a0400004c42", [level(SignalKind.MOTION, 1), Reading("illuminance", Decimal("51.00"))]),
        (0x2AEB, "084a040000c07f", [level(SignalKind.MOTION, 1)]),
        (0x50FB, "4e48011f", [level(SignalKind.OCCUPANCY, 1)]),
        (0x4683, "4e480101", [level(SignalKind.OCCUPANCY, 1)]),
        (0x4683, "4e480102", [level(SignalKind.OCCUPANCY, 0)]),
        (0x6A0F, "13540101", [level(SignalKind.OCCUPANCY, 1, "close")]),
        (PAD, "3c480101", [level(SignalKind.BED_EXIT, 0)]),
        (PAD, "3c480100", [level(SignalKind.BED_EXIT, 1)]),
        (PILLOW, "165a0101", [level(SignalKind.BED_EXIT, 0)]),
        (PILLOW, "165a0102", [level(SignalKind.BED_EXIT, 1)]),
        (PILLOW, "164e0101", [level(SignalKind.BED_EXIT, 0)]),
        (PILLOW, "174e0101", [level(SignalKind.BED_EXIT, 1)]),
        (BUTTON, "014e0101", [level(SignalKind.LOW_BATTERY, 1)]),
        (BUTTON, "034c0132", [Reading("battery", Decimal(50))]),
        (THERMOMETER, "04100234ff", [Reading("temperature", Decimal("-20.4"))]),
        (THERMOMETER, "014c049a99c941", [Reading("temperature", Decimal("25.20"))]),
    ],
)
def test_a_sensor_is_read_as_its_product_means_it(product: int, objects: str, found: list[Signal | Reading]) -> None:
    assert list(said(sealed(product, objects), KEY).observations) == found


def test_an_id_is_another_thing_in_another_product() -> None:
    """4E16 is the pillow's bed and the weight of a scale."""
    assert said(sealed(PILLOW, "164e0101"), KEY).observations == (level(SignalKind.BED_EXIT, 0),)
    refused = refusal(sealed(0x45C9, "164e0101"), KEY)
    assert (refused.reason, refused.detail) == (Reason.UNSUPPORTED, "MJTZC02YM, object 4e16")


def test_a_product_that_nobody_knows_is_read_by_what_all_share() -> None:
    assert said(sealed(0xBEEF, "15100101"), KEY).observations == (level(SignalKind.SMOKE, 1),)
    refused = refusal(sealed(0xBEEF, "0f4e00"), KEY)
    assert (refused.reason, refused.detail) == (Reason.UNSUPPORTED, "product beef, object 4e0f")


@pytest.mark.parametrize(
    ("event", "code"), [("0c4a00", "press"), ("0c4e00", "press"), ("0d5600", "double"), ("0e5a0102", "long")]
)
def test_the_press_of_a_button_that_nobody_knows_is_a_call(event: str, code: str) -> None:
    assert list(said(sealed(0xBEEF, event), KEY).observations) == [call(code)]


@pytest.mark.parametrize("property_", ["0c4800", "0c4c00", "0c5000"])
def test_a_property_of_it_with_such_a_number_is_no_press(property_: str) -> None:
    assert refusal(sealed(0xBEEF, property_), KEY).reason is Reason.UNSUPPORTED


def test_an_unknown_object_costs_none_of_the_others() -> None:
    found = said(sealed(SMOKE_DETECTOR, "99990142" + "15100101" + "0a100163"), KEY)
    assert found.observations == (level(SignalKind.SMOKE, 1), Reading("battery", Decimal(99)))


def test_a_cut_object_ends_the_parse_and_what_was_read_stands() -> None:
    assert said(plain(SMOKE_DETECTOR, "15100101" + "0a1005")).observations == (level(SignalKind.SMOKE, 1),)
    assert refusal(plain(SMOKE_DETECTOR, "151005")).reason is Reason.TOO_SHORT


@pytest.mark.parametrize(
    ("objects", "refused"),
    [
        ("0a100165", "object 100a = 65"),
        ("0410020080", "object 1004 = 0080"),
        ("04100117", "object 1004 = 17"),
        ("0a1000", "object 100a = "),
        ("0d10041001f401", ""),
        ("0d10041001e903", "object 100d = 1001e903"),
        ("014c040000807f", "object 4c01 = 0000807f"),
    ],
)
def test_what_cannot_be_is_refused_and_the_smoke_beside_it_stands(objects: str, refused: str) -> None:
    product = THERMOMETER
    found = said(sealed(product, objects + "15100101"), KEY)
    assert found.observations[-1] == level(SignalKind.SMOKE, 1)
    assert found.refused == ((refused,) if refused else ())


# Layout.


def test_a_frame_without_an_object_is_a_sign_of_life() -> None:
    """Its counter is also that of the next event, so it is not told."""
    assert said(plain(BUTTON, "", flags=0x5000)) == Decoded()
    assert said(plain(BUTTON, "", flags=0x5008)) == Decoded()


def test_an_address_and_capabilities_before_the_objects_are_read_past() -> None:
    """Two bytes follow a capability with bit 5: 28 01 00 stands in a frame of an LYWSD03MMC."""
    inside = bytes.fromhex(ADDRESS.replace(":", ""))[::-1].hex()
    for flags, between in ((0x5050, inside), (0x5060, "0d"), (0x5060, "280100"), (0x5070, inside + "280100")):
        assert said(plain(SMOKE_DETECTOR, between + "15100101", flags=flags)).observations == (
            level(SignalKind.SMOKE, 1),
        )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", Reason.TOO_SHORT),
        ("50500907", Reason.TOO_SHORT),
        (plain(BUTTON, "0c4e00", flags=0x1040), Reason.UNSUPPORTED),
        (plain(BUTTON, "0c4e00", flags=0x50C0), Reason.UNSUPPORTED),
        (plain(BUTTON, "aabbccddeeff" + "0c4e00", flags=0x5050), Reason.NOT_MINE),
        (plain(BUTTON, "aabb", flags=0x5050), Reason.TOO_SHORT),
        (plain(BUTTON, "", flags=0x5060), Reason.TOO_SHORT),
        (plain(BUTTON, "", flags=0x5040), Reason.TOO_SHORT),
        (plain(BUTTON, "000000", flags=0x5048), Reason.TOO_SHORT),
        (plain(BUTTON, "0c4e00" * 90), Reason.TOO_LONG),
    ],
)
def test_what_is_no_frame_of_ours_is_refused_by_name(data: str, reason: Reason) -> None:
    assert refusal(data, KEY).reason is reason


def test_what_has_no_service_data_is_not_ours() -> None:
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(Advert(ADDRESS, service_data={0xFCD2: b"\x40\x3a\x01"}), None)
    assert caught.value.reason is Reason.NOT_MINE


def test_what_may_call_are_buttons_and_detectors() -> None:
    assert len(PRODUCTS) == 97
    assert sorted(one.model for one in PRODUCTS.values() if one.may_call) == sorted((
        "YLAI003", "YLYK01YL", "YLYK01YL-FANCL", "YLYK01YL-VENFAN", "YLYB01YL-BHFRC", "YLKG07YL/YLKG08YL", "K9B-1BTN",
        "K9B-2BTN", "K9B-3BTN", "K9BB-1BTN", "XMWXKG01YL", "XMWXKG01LM", "PTX_YK1_QMIMB", "XMWS01XS", "KS1", "KS1BP", "KS2BB",
        "AFWXKG220000", "JTYJGD03MI", "SJWS01LM", "SJWS02LM", "zhiee.flood.sj01", "RS1BB(MI)", "MJZNZ018H",
    ))  # fmt: skip
