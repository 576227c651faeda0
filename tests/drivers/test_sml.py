"""SML telegrams that others published, each value as its publisher says; checks, escapes, signs, and what is cut."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from drivers.devices.sml_meter import DRIVER, Options, decode
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected
from drivers.protocols import sml
from tests.drivers.captures import lines

MORE = lines("sml-meter", "more_sml.jsonl")
PUBLISHED = {line["name"]: bytes.fromhex(line["hex"]) for line in lines("sml-meter", "sml.jsonl")}
CUT = "EasyMeter_Q3A_A1064V1009, cut by its head"
AUTO = Options("auto")

HOLLEY = [
    ("energy_active_import", "T1", "0.0000"),
    ("energy_active_import", "T2", "177.3601"),
    ("energy_active_export", "", "314.9260"),
    ("power_active", "", "0.460"),
    ("voltage", "A", "232.3"),
    ("voltage", "B", "232.5"),
    ("voltage", "C", "232.5"),
    ("current", "A", "1.06"),
    ("current", "B", "1.74"),
    ("current", "C", "0.91"),
    ("frequency", "", "50.0"),
]
EXPECTED = {
    "DZG_DVS-7412.2_jmberg": [("energy_active_import", "", "5430.1577"), ("energy_active_export", "", "26244.5726")],
    "HOLLEY_DTZ541-ZDBA": HOLLEY,
    "HOLLEY_DTZ541-ZDBA, second": [
        *HOLLEY[:1], ("energy_active_import", "T2", "177.3603"), HOLLEY[2], ("power_active", "", "0.459"), *HOLLEY[4:6],
        ("voltage", "C", "232.6"), ("current", "A", "1.07"), *HOLLEY[8:],
    ],
    "ISKRA_MT175_eHZ": [
        ("energy_active_import", "", "22462.4136"),
        ("energy_active_import", "T1", "22462.4136"),
        ("energy_active_import", "T2", "0.0000"),
        ("power_active", "", "0.168"),
        ("power_active", "A", "0.117"),
        ("power_active", "B", "0.022"),
        ("power_active", "C", "0.029"),
    ],
}  # fmt: skip


def told(decoded: Decoded) -> list[tuple[str, str, str]]:
    return [(one.quantity, one.channel, str(one.value)) for one in decoded.observations if isinstance(one, Reading)]


def check(body: bytes, *, inverted: bool = True) -> bytes:
    """The sum, worked out bit by bit."""
    value = 0xFFFF if inverted else 0
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
    return (value ^ 0xFFFF).to_bytes(2, "little") if inverted else value.to_bytes(2, "big")


def telegram(*values: str, time: str = "01", server: str = "0a014953", inverted: bool = True) -> bytes:
    """A telegram with these values in its list."""
    body = f"7701{len(server) // 2 + 1:02x}{server}01{time}7{len(values):x}{''.join(values)}0101"
    message = bytes.fromhex(f"76050000000162006200726307 01{body}63000000".replace(" ", ""))
    padding = -len(message) % 4
    content = message.replace(sml.ESCAPE, sml.ESCAPE * 2) + bytes(padding)
    whole = sml.BEGIN + content + sml.ESCAPE + bytes([0x1A, padding])
    return whole + check(whole, inverted=inverted)


def value(code: str, number: str, *, unit: str = "621e", scaler: str = "52ff") -> str:
    return f"7707{code}0101{unit}{scaler}{number}01"


IMPORT = value("0100010800ff", "59000000000000162e")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_telegram_reads_as_its_publisher_says(name: str) -> None:
    (frame,) = sml.framer().feed(PUBLISHED[name])
    assert told(decode(frame, AUTO)) == EXPECTED[name]


def test_every_published_telegram_is_listed() -> None:
    assert set(EXPECTED) | {CUT} == set(PUBLISHED)


@pytest.mark.parametrize("line", MORE, ids=lambda line: line["name"])
def test_more_published_telegrams_read_as_their_publishers_say(line: dict[str, Any]) -> None:
    raw = bytes.fromhex(line["hex"])
    frames = sml.framer().feed(raw)
    if line.get("refused") == "no frame":
        assert frames == []
        return
    assert frames == [raw]
    if "refused" in line:
        with pytest.raises(Rejected) as caught:
            decode(raw, AUTO)
        assert caught.value.reason is Reason(line["refused"])
        return
    assert decode(raw, AUTO).refused == tuple(line.get("doubtful", ()))
    signed = decode(raw, Options("signed"))
    assert [list(one) for one in told(signed)] == line["expected"]
    assert signed.refused == ()


def test_the_further_corpus_is_whole() -> None:
    assert (len(MORE), sum("expected" in line for line in MORE)) == (34, 31)


def test_what_cannot_be_below_nothing_is_refused() -> None:
    decoded = decode(
        telegram(IMPORT, value("0100020800ff", "53ffff"), value("0100200700ff", "53ffff", unit="6223")), AUTO
    )
    assert told(decoded) == [("energy_active_import", "", "0.5678")]
    assert decoded.refused == ("energy_active_export  = -0.0001", "voltage A = -0.1")


def test_a_register_told_twice_is_taken_once_or_not_at_all() -> None:
    other = value("0100010800ff", "59000000000000162f")
    assert told(decode(telegram(IMPORT, IMPORT), AUTO)) == [("energy_active_import", "", "0.5678")]
    decoded = decode(telegram(IMPORT, other, value("0100020800ff", "5216")), AUTO)
    assert told(decoded) == [("energy_active_export", "", "0.0022")]
    assert decoded.refused == ("energy_active_import  = 0.5678 and 0.5679",)


def test_another_channel_than_the_meters_own_is_refused() -> None:
    decoded = decode(telegram(IMPORT, value("0102020800ff", "5216")), AUTO)
    assert told(decoded) == [("energy_active_import", "", "0.5678")]
    assert decoded.refused == ("energy_active_export  = 22 of channel 2",)


@pytest.mark.parametrize("code", ["0100100700ff", "0100240700ff", "01004c0700ff"])
def test_every_power_of_a_doubtful_maker_waits_for_the_configuration(code: str) -> None:
    frame = telegram(IMPORT, value(code, "538b28", unit="621b", scaler="52fe"), server="0a01445a47000282225e")
    assert len(told(decode(frame, AUTO))) == 1
    assert told(decode(frame, Options("unsigned")))[1][2] == "0.35624"


def test_padding_beyond_what_is_needed_is_zeros_or_refused() -> None:
    for filling, fits in ((bytes(4), True), (b"\x00\x00\x01\x00", False)):
        frame = telegram(IMPORT)
        whole = frame[:-8] + filling + sml.ESCAPE + bytes([0x1A, frame[-3] + 4])
        whole += check(whole)
        if fits:
            assert told(decode(whole, AUTO)) == [("energy_active_import", "", "0.5678")]
            continue
        with pytest.raises(Rejected):
            decode(whole, AUTO)


def test_what_an_optical_head_cut_is_no_telegram_and_the_next_is_found_behind_it() -> None:
    framer = sml.framer()
    assert framer.feed(PUBLISHED[CUT]) == []
    good = PUBLISHED["ISKRA_MT175_eHZ"]
    assert framer.feed(good) == [good]
    assert framer.rejects[Reason.MALFORMED] == 3


@pytest.mark.parametrize("name", EXPECTED)
def test_no_byte_can_change_unseen(name: str) -> None:
    raw = PUBLISHED[name]
    for at in range(8, len(raw), 3):
        changed = raw[:at] + bytes([raw[at] ^ 0x04]) + raw[at + 1 :]
        assert sml.framer().feed(changed) == []


def test_a_check_without_its_inversions_is_taken_too() -> None:
    for inverted in (True, False):
        frame = telegram(IMPORT, inverted=inverted)
        assert sml.framer().feed(frame) == [frame]
        assert told(decode(frame, AUTO)) == [("energy_active_import", "", "0.5678")]


def test_an_escape_in_the_data_is_sent_twice_and_read_once() -> None:
    energy = value("0100010800ff", "591b1b1b1b1b1b1b1b")
    frame = telegram(energy)
    assert sml.framer().feed(frame + frame) == [frame, frame]
    assert told(decode(frame, AUTO)) == [("energy_active_import", "", str(Decimal(0x1B1B1B1B1B1B1B1B).scaleb(-4)))]


@pytest.mark.parametrize("tail", ["1b", "1b1b", "1b1b1b"])
def test_data_that_ends_like_an_escape_does_not_hide_the_end(tail: str) -> None:
    number = "00" * (8 - len(tail) // 2) + tail
    frame = telegram(value("0100010800ff", "59" + number))
    found = sml.framer().feed(frame)
    assert found == [frame]
    raw = sml.BEGIN + bytes.fromhex("00" + tail) + sml.ESCAPE + b"\x1a\x00"
    whole = raw + check(raw)
    assert sml.framer().feed(whole) == [whole]


@pytest.mark.parametrize(
    ("number", "unit", "scaler", "expected"),
    [
        ("5216", "621e", "5203", "22"),
        ("52ea", "621e", "5203", "-22"),
        ("62ff", "621e", "5203", "255"),
        ("6300ff", "621e", "5200", "0.255"),
        ("5800000000000001", "621e", "52ff", "0.0001"),
        ("59ffffffffffffffff", "621e", "52ff", "-0.0001"),
        ("69ffffffffffffffff", "621e", "52ff", "1844674407370955.1615"),
    ],
)
def test_a_number_is_read_with_its_sign_and_scaler(number: str, unit: str, scaler: str, expected: str) -> None:
    frame = telegram(value("0100100800ff", number, unit=unit, scaler=scaler))
    decoded = decode(frame, AUTO)
    assert [one.value for one in decoded.observations if isinstance(one, Reading)] == [Decimal(expected)]


@pytest.mark.parametrize(
    ("code", "number", "unit", "what"),
    [
        ("0100010800ff", "5216", "621b", "energy_active_import  = 22 in unit 27, scaler -1"),
        ("0100010800ff", "5216", "01", "energy_active_import  = 22 in unit None, scaler -1"),
        ("0100200700ff", "5216", "6221", "voltage A = 22 in unit 33, scaler -1"),
    ],
)
def test_a_unit_that_does_not_fit_is_refused_beside_the_others(code: str, number: str, unit: str, what: str) -> None:
    decoded = decode(telegram(IMPORT, value(code, number, unit=unit)), AUTO)
    assert told(decoded) == [("energy_active_import", "", "0.5678")]
    assert decoded.refused == (what,)


def test_histories_names_and_texts_are_read_past() -> None:
    decoded = decode(
        telegram(
            IMPORT,
            value("010001080060", "5216"),
            value("0100600100ff", "0b0a01484c59020003a910", unit="01", scaler="01"),
            value("0100010802ff", "01"),
            value("0100510701ff", "6278", unit="6208", scaler="5200"),
        ),
        AUTO,
    )
    assert told(decoded) == [("energy_active_import", "", "0.5678")]
    assert decoded.refused == ()


@pytest.mark.parametrize(
    ("server", "power", "expected"),
    [
        ("0a01445a47000282225e", "auto", None),
        ("0a01445a47000282225e", "unsigned", "0.35624"),
        ("0a01445a47000282225e", "signed", "-0.29912"),
        ("0a0149534b000403df63", "auto", "-0.29912"),
        ("0a0149534b000403df63", "unsigned", "0.35624"),
    ],
)
def test_a_power_that_may_lack_its_sign_is_settled_by_the_configuration(
    server: str, power: str, expected: str | None
) -> None:
    frame = telegram(IMPORT, value("0100100700ff", "538b28", unit="621b", scaler="52fe"), server=server)
    decoded = decode(frame, Options(power))
    assert told(decoded)[1:] == ([] if expected is None else [("power_active", "", expected)])
    assert len(decoded.refused) == (1 if expected is None else 0)


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("7262026565a0e280", datetime(2024, 1, 12, 6, 56, 0, tzinfo=UTC)),
        ("72620165000f4240", None),
        ("65000f4240", None),
        ("01", None),
        ("7262026500000001", None),
    ],
)
def test_a_clock_is_one_where_the_meter_says_so(time: str, at: datetime | None) -> None:
    decoded = decode(telegram(IMPORT, time=time), AUTO)
    (one,) = decoded.observations
    assert isinstance(one, Reading)
    assert one.device_time == at


@pytest.mark.parametrize(
    "message",
    [
        "77",
        "7fff",
        "8f8f8f8f00",
        "72",
        "71" * 20,
        "7605000000016200620072630701",
        "76050000000162006200726307017101" + "0163000000",
        "76050000000162006200726307017701010101" + "7162" + "01010163000000",
        "5a112233445566778899",
        "00" * 3 + "62",
    ],
)
def test_what_is_cut_or_of_no_form_is_refused_by_name(message: str) -> None:
    raw = bytes.fromhex(message)
    padding = -len(raw) % 4
    whole = sml.BEGIN + raw + bytes(padding) + sml.ESCAPE + bytes([0x1A, padding])
    frame = whole + check(whole)
    assert sml.framer().feed(frame) == [frame]
    with pytest.raises(Rejected) as caught:
        decode(frame, AUTO)
    assert caught.value.reason is Reason.MALFORMED


def test_a_line_of_beginnings_is_forgotten() -> None:
    framer = sml.framer()
    assert framer.feed(sml.BEGIN * 3_000) == []
    assert framer.feed(sml.BEGIN + bytes(20_000)) == []
    assert framer.held <= framer.limit
    good = PUBLISHED["ISKRA_MT175_eHZ"]
    assert framer.feed(good * 2)[-1] == good


@pytest.mark.parametrize("raw", [{"power": "maybe"}, {"power": 1}])
def test_an_option_that_does_not_fit_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(raw)
    assert caught.value.key == "map.power"
