"""BTHome buttons: what raises, what is trusted, and what is refused with its counter."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.devices.bthome_button import DRIVER
from drivers.kit import Advert, Counter, Decoded, Reading, Reason, Rejected, Signal, SignalKind

ADDRESS = "54:48:E6:8F:80:A5"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
# Packet id 7 and a press, encrypted with KEY for ADDRESS under the counter 0x33221100.
ENCRYPTED_PRESS = "41a6bf55cb00112233e9e7c705"


def decode(data: str, key: bytes | None = None, address: str = ADDRESS) -> Decoded:
    return DRIVER.decode(Advert(address, service_data={0xFCD2: bytes.fromhex(data)}), key)


def refusal(data: str, key: bytes | None = None, address: str = ADDRESS) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode(data, key, address)
    return caught.value


def call(code: str, channel: str = "") -> Signal:
    return Signal(SignalKind.CALL, code, channel)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("01", "press"),
        ("02", "double"),
        ("03", "triple"),
        ("04", "long"),
        ("05", "long-double"),
        ("06", "long-triple"),
        ("80", "hold"),
        ("81", "hold-release"),
        ("fe", "hold"),
        ("07", "unknown-07"),
        ("7f", "unknown-7f"),
        ("ff", "unknown-ff"),
    ],
)
def test_every_code_of_a_button_calls_also_an_unknown_one(code: str, word: str) -> None:
    assert decode("403a" + code).observations == (call(word),)


def test_no_press_is_no_call() -> None:
    assert decode("403a00") == Decoded()


def test_buttons_are_told_apart_by_their_position() -> None:
    assert decode("403a003a023a003a04").observations == (call("double", "2"), call("long", "4"))


def test_the_packet_id_is_the_counter_of_a_plain_advert() -> None:
    assert decode("4000ff3a01").counter == Counter(255, 8, authenticated=False)
    assert decode("403a01").counter is None


def test_an_encrypted_press_is_authenticated_and_counted_by_its_32_bits() -> None:
    found = decode(ENCRYPTED_PRESS, KEY)
    assert found.observations == (call("press"),)
    assert found.authenticated
    assert found.counter == Counter(0x33221100, 32, authenticated=True)


def test_a_plain_advert_is_read_under_a_key_but_proves_nothing() -> None:
    found = decode("40003a3a01", KEY)
    assert found.observations == (call("press"),)
    assert not found.authenticated
    assert found.counter == Counter(0x3A, 8, authenticated=False)


@pytest.mark.parametrize("position", range(12))
def test_any_changed_byte_of_an_encrypted_press_is_refused(position: int) -> None:
    data = bytearray.fromhex(ENCRYPTED_PRESS)
    data[1 + position] ^= 0x01
    assert refusal(data.hex(), KEY).reason is Reason.BAD_KEY


def test_an_encrypted_press_from_another_address_is_refused() -> None:
    assert refusal(ENCRYPTED_PRESS, KEY, "54:48:E6:8F:80:A6").reason is Reason.BAD_KEY


def test_what_cannot_be_decrypted_still_tells_its_counter() -> None:
    wrong = refusal(ENCRYPTED_PRESS, bytes(16))
    assert (wrong.reason, wrong.counter) == (Reason.BAD_KEY, Counter(0x33221100, 32, authenticated=False))
    missing = refusal(ENCRYPTED_PRESS)
    assert (missing.reason, missing.counter) == (Reason.NO_KEY, Counter(0x33221100, 32, authenticated=False))
    short = refusal(ENCRYPTED_PRESS, b"15 bytes of key")
    assert (short.reason, short.counter) == (Reason.BAD_KEY, Counter(0x33221100, 32, authenticated=False))
    no_address = refusal(ENCRYPTED_PRESS, KEY, "4D1F2C00-AAAA-BBBB-CCCC-000000000001")
    assert (no_address.reason, no_address.counter) == (Reason.MALFORMED, Counter(0x33221100, 32, authenticated=False))


def test_an_address_inside_the_advert_is_read_past_and_used_for_the_key() -> None:
    assert decode("42a5808fe6485400073a01").observations == (call("press"),)
    # The same press as above with the address included, encrypted under the info byte 43.
    found = decode("43a5808fe64854f35bf36d00112233d838f03b", KEY, "00:00:00:00:00:00")
    assert found.observations == (call("press"),)
    assert found.authenticated


def test_an_unknown_object_ends_the_parse_and_what_was_read_stands() -> None:
    assert decode("4000053a013100023a02").observations == (call("press"),)


def test_a_cut_object_ends_the_parse_and_what_was_read_stands() -> None:
    assert decode("403a0102ca").observations == (call("press"),)
    assert refusal("4002ca").reason is Reason.TOO_SHORT


def test_an_advert_of_unknown_objects_only_is_refused() -> None:
    assert refusal("40feca09").reason is Reason.UNSUPPORTED


def test_texts_are_passed_by_their_length() -> None:
    assert decode("4453024869540101" + "3a01").observations == (call("press"),)
    assert refusal("4453").reason is Reason.TOO_SHORT
    assert refusal("4453054869").reason is Reason.TOO_SHORT


def test_battery_is_told_and_an_impossible_one_is_refused() -> None:
    assert decode("400164").observations == (Reading("battery", Decimal(100)),)
    assert decode("400165") == Decoded(refused=("battery = 101 %",))


def test_low_battery_and_tamper_are_states() -> None:
    assert decode("401501").observations == (Signal(SignalKind.LOW_BATTERY, level=True),)
    assert decode("401500").observations == (Signal(SignalKind.LOW_BATTERY, level=False),)
    assert decode("402b01").observations == (Signal(SignalKind.TAMPER, level=True),)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", Reason.TOO_SHORT),
        ("2000013a01", Reason.UNSUPPORTED),
        ("6000013a01", Reason.UNSUPPORTED),
        ("42a5808fe648", Reason.TOO_SHORT),
        ("4100112233", Reason.TOO_SHORT),
        ("40" + "3a01" * 200, Reason.TOO_LONG),
    ],
)
def test_what_is_no_bthome_is_refused_by_name(data: str, reason: Reason) -> None:
    assert refusal(data).reason is reason


def test_version_one_is_refused_as_unsupported_and_others_as_not_ours() -> None:
    for service, reason in ((0x181C, Reason.UNSUPPORTED), (0x181E, Reason.UNSUPPORTED), (0xFE95, Reason.NOT_MINE)):
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(Advert(ADDRESS, service_data={service: b"\x02\x00\xb4"}), None)
        assert caught.value.reason is reason


def test_an_undecipherable_advert_may_be_a_call() -> None:
    assert DRIVER.may_call
    assert DRIVER.key_bytes == 16
