"""EnOcean telegrams from the maker's manuals and one recorder: each means, or is refused, as its publisher says."""

from __future__ import annotations

import pytest

from drivers.devices.enocean_ptm import DRIVER
from drivers.kit import Advert, Counter, Decoded, Reason, Rejected, Signal, SignalKind
from drivers.kit.redaction import without_keys
from drivers.protocols import enocean_ble
from tests.drivers.captures import Line, advert, lines, title

LINES = lines("enocean-ptm", "enocean_ble.jsonl")
CONTACTS = ("A0", "A1", "B0", "B1")


def key(line: Line) -> bytes | None:
    return bytes.fromhex(line["key"]) if "key" in line else None


def test_the_corpus_is_whole() -> None:
    assert len(LINES) == 9
    assert sum(line["expected"].get("telegram") == "commissioning" for line in LINES) == 2


@pytest.mark.parametrize("line", LINES, ids=title)
def test_a_published_telegram_means_what_its_publisher_says(line: Line) -> None:
    expected = line["expected"]
    if expected.get("telegram") == "commissioning":
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(advert(line), key(line))
        assert caught.value.reason is Reason.KEY_IN_CLEAR
        assert expected["key"] not in str(caught.value)
        return
    telegram = enocean_ble.parse(advert(line), key(line))
    assert telegram.counter.value == expected.get("sequence", expected.get("txCount"))
    assert telegram.authenticated is telegram.counter.authenticated is ("key" in line)
    if "isButtonPressed" in expected:
        pressed = [name for name, is_on in zip(CONTACTS, expected["isButtonPressed"], strict=True) if is_on]
        assert telegram.is_press is bool(pressed)
        assert list(telegram.contacts) == (pressed or ["B0"])  # the publisher tells no contacts of a release
    else:
        assert telegram.is_press is (expected["action"] == "press")
        assert list(telegram.contacts) == expected["buttons"]
        assert telegram.optional.hex() == expected.get("optional_data", "")
    calls = [
        (one.kind, one.code) for one in DRIVER.decode(advert(line), key(line)).observations if isinstance(one, Signal)
    ]
    assert calls == ([(SignalKind.CALL, "press")] if telegram.is_press else [])


@pytest.mark.parametrize("line", [line for line in LINES if "key" in line], ids=title)
def test_a_telegram_with_any_bit_changed_is_not_authentic(line: Line) -> None:
    whole = advert(line)
    data = whole.manufacturer_data[enocean_ble.COMPANY]
    for bit in range(8 * len(data)):
        forged = bytearray(data)
        forged[bit // 8] ^= 1 << bit % 8
        changed = Advert(whole.address, manufacturer_data={enocean_ble.COMPANY: bytes(forged)})
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(changed, key(line))
        assert caught.value.reason in (Reason.BAD_KEY, Reason.UNSUPPORTED)


@pytest.mark.parametrize("line", [line for line in LINES if "telegram" in line["expected"]], ids=title)
def test_a_key_in_clear_is_hidden_where_adverts_are_shown(line: Line) -> None:
    shown = without_keys(advert(line)).manufacturer_data[enocean_ble.COMPANY].hex()
    whole = line["manufacturer_data"]["03da"]
    assert line["expected"]["key"] not in shown
    assert shown == whole[:8] + 32 * "0" + whole[40:]


def test_other_data_is_shown_as_it_is() -> None:
    for line in LINES:
        if "telegram" not in line["expected"]:
            assert without_keys(advert(line)) == advert(line)


@pytest.mark.parametrize(
    ("status", "channel"),
    [(0x01, ""), (0x03, "A0"), (0x05, "A1"), (0x09, "B0"), (0x11, "B1"), (0x13, "A0+B1"), (0x1F, "A0+A1+B0+B1")],
)
def test_a_press_names_its_contacts(status: int, channel: str) -> None:
    key_, address = bytes(range(16)), "E2:15:00:00:19:B8"
    body = (4711).to_bytes(4, "little") + bytes([status])
    sealed = body + enocean_ble.signature(body, address=bytes.fromhex("e215000019b8"), key=key_)
    found = DRIVER.decode(Advert(address, manufacturer_data={enocean_ble.COMPANY: sealed}), key_)
    expected = (Signal(SignalKind.CALL, "press", channel),)
    assert found == Decoded(expected, Counter(4711, 32, authenticated=True), authenticated=True)


@pytest.mark.parametrize(
    ("calls", "heard"), [("press", [True, False]), ("release", [False, True]), ("both", [True, True])]
)
def test_which_movement_calls_is_an_option(calls: str, heard: list[bool]) -> None:
    driver = DRIVER.configured({"calls": calls})
    telegrams = ("5f0000000909df40a3", "60000000084cc8f7a5")
    adverts = [Advert("", manufacturer_data={0x03DA: bytes.fromhex(data)}) for data in telegrams]
    assert [bool(driver.decode(one, None).observations) for one in adverts] == heard


@pytest.mark.parametrize("status", [0x20, 0x40, 0x80])
def test_another_product_of_the_maker_is_refused_by_name(status: int) -> None:
    data = bytes([1, 0, 0, 0, status, 0, 0, 0, 0])
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(Advert("", manufacturer_data={0x03DA: data}), None)
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "text",
    ["3DDA31AD44767AE3CE56DCE2B3CE2ABB", "30SE215000019B8+Z3dda31ad44767ae3ce56dce2b3ce2abb+30PS3221-A215+2PDC06+S01"],
)
def test_the_key_is_read_as_digits_or_from_the_label(text: str) -> None:
    assert enocean_ble.read_key(text).hex() == "3dda31ad44767ae3ce56dce2b3ce2abb"


def test_a_label_without_a_key_is_no_key() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        enocean_ble.read_key("30SE215000019B8+30PS3221-A215")
