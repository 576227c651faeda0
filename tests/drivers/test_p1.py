"""P1 telegrams that others published, each value as its publisher says; checks, encryption, and meters behind the meter."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from drivers.devices.p1_port import DRIVER, decode, keyed, options
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected
from drivers.kit.checks import crc16_arc
from drivers.protocols import obis, p1
from tests.drivers.captures import lines

MORE = lines("p1-port", "more_p1.jsonl")
PUBLISHED = {line["name"]: line["telegram"].encode("latin-1") for line in lines("p1-port", "p1.jsonl")}
KEY = bytes.fromhex("00112233445566778899aabbccddeeff")[::-1]

EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    "V2_2": [
        ("energy_active_import", "T1", "1.001"),
        ("energy_active_import", "T2", "1.001"),
        ("energy_active_export", "T1", "1.001"),
        ("energy_active_export", "T2", "1.001"),
        ("power_active", "import", "1.01"),
        ("power_active", "export", "0.00"),
        ("volume_gas", "M1", "1.001"),
    ],
    "V3": [
        ("energy_active_import", "T1", "12345.678"),
        ("energy_active_import", "T2", "12345.678"),
        ("energy_active_export", "T1", "12345.678"),
        ("energy_active_export", "T2", "12345.678"),
        ("power_active", "import", "1.19"),
        ("power_active", "export", "0.00"),
        ("volume_gas", "M1", "1.001"),
    ],
    "V4_2": [
        ("energy_active_import", "T1", "1581.123"),
        ("energy_active_import", "T2", "1435.706"),
        ("energy_active_export", "T1", "0.000"),
        ("energy_active_export", "T2", "0.000"),
        ("power_active", "import", "2.027"),
        ("power_active", "export", "0.000"),
        ("current", "A", "0"),
        ("current", "B", "6"),
        ("current", "C", "2"),
        ("power_active", "A/import", "0.170"),
        ("power_active", "A/export", "0.000"),
        ("power_active", "B/import", "1.247"),
        ("power_active", "B/export", "0.000"),
        ("power_active", "C/import", "0.209"),
        ("power_active", "C/export", "0.000"),
        ("volume_gas", "M1", "981.443"),
    ],
    "ESY5Q3DB1024": [
        ("energy_active_import", "", "52185.7825309"),
        ("energy_active_export", "", "19949.3221493"),
        ("power_active", "A/import", "0.74785"),
        ("power_active", "B/import", "0.73728"),
        ("power_active", "C/import", "0.63973"),
        ("power_active", "import", "2.12486"),
    ],
    "SAGEMCOM_T210_D_R": [
        ("energy_active_import", "", "6545.766"),
        ("energy_active_import", "T1", "5017.120"),
        ("energy_active_import", "T2", "1528.646"),
        ("power_active", "import", "0.286"),
        ("energy_active_export", "", "0.058"),
        ("energy_active_export", "T1", "0.000"),
        ("energy_active_export", "T2", "0.058"),
        ("power_active", "export", "0.000"),
        ("energy_reactive_import", "", "0.747"),
        ("energy_reactive_import", "T1", "0.000"),
        ("energy_reactive_import", "T2", "0.747"),
        ("power_reactive", "import", "0.000"),
        ("energy_reactive_export", "", "3897.726"),
        ("energy_reactive_export", "T1", "2692.848"),
        ("energy_reactive_export", "T2", "1204.878"),
        ("power_reactive", "export", "0.166"),
    ],
}


def told(decoded: Decoded) -> list[tuple[str, str, str]]:
    return [(one.quantity, one.channel, str(one.value)) for one in decoded.observations if isinstance(one, Reading)]


def telegram(*rows: str, check: str | None = None, head: str = "/XYZ5TEST") -> bytes:
    """A telegram of these lines, with its check or another."""
    body = "\r\n".join((head, "", *rows, "!")).encode()
    return body + (f"{crc16_arc(body):04X}" if check is None else check).encode() + b"\r\n"


def sealed(plain: bytes, *, key: bytes = KEY, authentication_key: bytes = p1.AUTHENTICATION_KEY) -> bytes:
    """A telegram as Luxembourg's meters send it."""
    title, counter = b"SYSTEMID", bytes.fromhex("10000001")
    encryptor = Cipher(AES(key), GCM(title + counter)).encryptor()
    encryptor.authenticate_additional_data(b"\x30" + authentication_key)
    content = encryptor.update(plain) + encryptor.finalize()
    body = b"\x30" + counter + content + encryptor.tag[:12]
    return b"\xdb\x08" + title + b"\x82" + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_telegram_reads_as_its_publisher_says(name: str) -> None:
    (frame,) = p1.framer().feed(PUBLISHED[name])
    decoded = decode(frame, options({}))
    assert told(decoded) == EXPECTED[name]
    assert decoded.refused == ()


def test_every_published_telegram_is_listed() -> None:
    assert set(EXPECTED) == set(PUBLISHED)


@pytest.mark.parametrize("line", MORE, ids=lambda line: line["name"])
def test_more_published_telegrams_read_as_their_publishers_say(line: dict[str, Any]) -> None:
    (frame,) = p1.framer().feed(line["telegram"].encode("latin-1"))
    if "refused" in line:
        with pytest.raises(Rejected) as caught:
            decode(frame, options({}))
        assert caught.value.reason is Reason(line["refused"])
        return
    decoded = decode(frame, options({}))
    assert [list(one) for one in told(decoded)] == line["expected"]
    assert decoded.refused == tuple(line.get("doubtful", ()))


def test_the_further_corpus_is_whole() -> None:
    assert (len(MORE), sum("expected" in line for line in MORE)) == (36, 32)


def test_a_telegram_of_nothing_is_refused_by_name() -> None:
    with pytest.raises(Rejected) as caught:
        decode(b"/!\r\n", options({}))
    assert caught.value.reason is Reason.UNSUPPORTED


def test_a_message_may_hold_what_python_takes_for_the_end_of_a_line() -> None:
    body = b"/AUX5\r\n\r\n0-0:96.13.0(a\x851-0:2.8.0(5*kWh)\x0c\x1c)\r\n1-0:1.8.0(7*kWh)\r\n!"
    decoded = decode(body + f"{crc16_arc(body):04X}\r\n".encode(), options({}))
    assert told(decoded) == [("energy_active_import", "", "7")]


def test_billing_periods_of_before_are_not_the_register_of_now() -> None:
    rows = ("1-0:1.8.0*255(015882.6927*kWh)", "1-0:1.8.0*96(00019.3*kWh)", "1-0:1.8.0*01(00018.0*kWh)")
    decoded = decode(telegram(*rows, check=""), options({}))
    assert told(decoded) == [("energy_active_import", "", "15882.6927")]
    assert decoded.refused == ()


@pytest.mark.parametrize(
    ("rows", "expected", "refused"),
    [
        (["1-0:3.8.0(1.5*kVArh)"], [("energy_reactive_import", "", "1.5")], ()),
        (["1-0:3.7.0(1.5*kVar)"], [("power_reactive", "import", "1.5")], ()),
        (["1-0:32.7.0(0.242*kV)"], [("voltage", "A", "242.000")], ()),
        (["1-0:91.7.0(0.3*A)"], [("current", "N", "0.3")], ()),
        (["1-0:91.8.0(0.3*A)"], [], ()),
        (
            ["1-0:15.8.0(3*kWh)", "1-0:15.7.0(2*W)"],
            [("energy_active_absolute", "", "3"), ("power_active", "absolute", "0.002")],
            (),
        ),
        (["1-0:1.6.0(00.641*kW)(2608091845)"], [("demand_active_import", "", "0.641")], ()),
        (
            ["1-0:1.6.1(0.5*kW)", "1-0:3.6.0(2*kvar)", "1-0:10.6.2(3*kVA)", "1-0:3.4.0(1*kvar)"],
            [
                ("demand_active_import", "T1", "0.5"),
                ("demand_reactive_import", "", "2"),
                ("demand_apparent_export", "T2", "3"),
            ],
            (),
        ),
        (["0-1:24.1.0(004)", "0-1:24.2.1(200512134558S)(5*kWh)"], [("energy_heat", "M1", "5")], ()),
        (["0-1:24.1.0(011)", "0-1:24.2.1(200512134558S)(5*MWh)"], [("energy_cooling", "M1", "5000")], ()),
        (["0-1:24.1.0(008)", "0-1:24.2.1(200512134558S)(5*kWh)"], [("energy_other", "M1", "5")], ()),
        (["1-0:2.8.0(-1*kWh)"], [], ("energy_active_export  = -1*kWh",)),
        (["1-0:2.8.0(1*mWh)"], [], ("energy_active_export  = 1*mWh",)),
        (["1-0:2.8.0(1*kWh)", "1-1:2.8.0(1*kWh)"], [("energy_active_export", "", "1")], ()),
        (["1-0:2.8.0(1*kWh)", "1-1:2.8.0(2*kWh)"], [], ("energy_active_export  = 1 and 2",)),
        (["1-3:2.8.0(2*kWh)"], [], ("energy_active_export  = 2*kWh of channel 3",)),
        (
            ["0-1:24.1.0(003)", "0-1:24.2.1(632525252525W)(00000.000*m3)"],
            [],
            ("M1 = 00000.000*m3 at 632525252525W, which is no time",),
        ),
    ],
)
def test_units_signs_channels_and_what_was_never_read(
    rows: list[str], expected: list[tuple[str, str, str]], refused: tuple[str, ...]
) -> None:
    decoded = decode(telegram("1-0:1.8.0(7*kWh)", *rows), options({}))
    assert told(decoded) == [("energy_active_import", "", "7"), *expected]
    assert decoded.refused == refused


@pytest.mark.parametrize("name", ["V4_2", "SAGEMCOM_T210_D_R"])
def test_no_digit_can_change_unseen(name: str) -> None:
    raw = PUBLISHED[name]
    for at in range(raw.index(b"1-0:1.8."), raw.index(b"!"), 7):
        for other in (raw[at] ^ 0x01, 0x30):
            changed = raw[:at] + bytes([other]) + raw[at + 1 :]
            if changed == raw:
                continue
            for frame in p1.framer().feed(changed):
                with pytest.raises(Rejected):
                    decode(frame, options({}))


def test_a_telegram_of_a_version_with_checks_needs_one() -> None:
    rows = ("1-3:0.2.8(50)", "1-0:1.8.1(000004.426*kWh)")
    assert told(decode(telegram(*rows), options({}))) == [("energy_active_import", "T1", "4.426")]
    with pytest.raises(Rejected) as caught:
        decode(telegram(*rows, check=""), options({}))
    assert caught.value.reason is Reason.BAD_CHECK
    belgian = ("0-0:96.1.4(50217)", "1-0:1.8.1(000004.426*kWh)")
    with pytest.raises(Rejected):
        decode(telegram(*belgian, check=""), options({}))


def test_a_check_without_its_leading_zeros_is_the_same_check() -> None:
    found = 0
    for count in range(4000):
        rows = (f"1-0:1.8.1({count:010.3f}*kWh)",)
        whole = telegram(*rows)
        check = whole.rpartition(b"!")[2].strip().decode()
        if check[0] != "0":
            continue
        found += 1
        short = telegram(*rows, check=check.lstrip("0"))
        assert told(decode(short, options({}))) == told(decode(whole, options({})))
    assert found > 100


def test_a_belgian_telegram_has_demands_and_meters_of_every_kind() -> None:
    decoded = decode(
        telegram(
            "0-0:96.1.4(50217)",
            "0-0:1.0.0(200512135409S)",
            "1-0:1.4.0(02.351*kW)",
            "1-0:1.6.0(200509134558S)(02.589*kW)",
            "0-0:98.1.0(3)(1-0:1.6.0)(1-0:1.6.0)(200501000000S)(200423192538S)(03.695*kW)",
            "1-0:31.4.0(999*A)",
            "0-1:24.1.0(003)",
            "0-1:24.2.3(200512134558S)(00112.384*m3)",
            "0-2:24.1.0(007)",
            "0-2:24.2.1(200512134558S)(00872.234*m3)",
            "0-3:24.1.0(004)",
            "0-3:24.2.1(200512134558S)(00012.345*GJ)",
            "0-4:24.1.0(012)",
            "0-4:24.2.1(200512134558S)(00001.500*MJ)",
            "0-5:24.2.1(200512134558S)(00001.000*m3)",
            "0-6:24.1.0(003)",
            "0-6:24.2.1(700101000000W)(00000000)",
        ),
        options({}),
    )
    assert told(decoded) == [
        ("power_active_demand", "import", "2.351"),
        ("demand_active_import", "", "2.589"),
        ("volume_gas", "M1", "112.384"),
        ("volume_water", "M2", "872.234"),
        ("energy_heat_joule", "M3", "12.345"),
        ("energy_heat_joule", "M4", "0.001500"),
        ("volume", "M5", "1.000"),
    ]
    assert decoded.refused == ("M6 = 00000000",)
    summer = timezone(timedelta(hours=2))
    times = [one.device_time for one in decoded.observations if isinstance(one, Reading)]
    assert times[:3] == [
        datetime(2020, 5, 12, 13, 54, 9, tzinfo=summer),
        datetime(2020, 5, 9, 13, 45, 58, tzinfo=summer),
        datetime(2020, 5, 12, 13, 45, 58, tzinfo=summer),
    ]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("1-0:1.8.0(12x.4*kWh)", "energy_active_import  = 12x.4*kWh"),
        ("1-0:1.8.0(000001.000*m3)", "energy_active_import  = 000001.000*m3"),
        ("1-0:1.8.0(000001.000)", "energy_active_import  = 000001.000"),
        ("1-0:32.7.0()", "voltage A = "),
        ("not a line", "line = 'not a line'"),
    ],
)
def test_what_is_no_value_in_a_whole_telegram_is_refused_beside_the_others(row: str, what: str) -> None:
    decoded = decode(telegram("1-0:2.8.0(000002.000*kWh)", row), options({}))
    assert told(decoded) == [("energy_active_export", "", "2.000")]
    assert decoded.refused == (what,)


def test_a_line_that_is_none_without_a_check_makes_the_telegram_refused() -> None:
    with pytest.raises(Rejected) as caught:
        decode(telegram("1-0:2.8.0(000002.000*kWh)", "1-0:1.8.0(00", check=""), options({}))
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("name", ["SAGEMCOM_T210_D_R", "V4_2"])
def test_an_encrypted_telegram_is_opened_with_its_key_and_proves_its_sender(name: str) -> None:
    (frame,) = p1.framer().feed(b"\x00\xff" + sealed(PUBLISHED[name]))
    decoded = decode(frame, keyed(options({}), KEY))
    assert told(decoded) == EXPECTED[name]
    assert decoded.authenticated
    assert not decode(PUBLISHED[name], keyed(options({}), KEY)).authenticated


def test_an_encrypted_telegram_of_another_key_is_refused() -> None:
    frame = sealed(PUBLISHED["V4_2"])
    other = bytes(16)
    for given, reason in (
        (options({}), Reason.NO_KEY),
        (keyed(options({}), other), Reason.BAD_KEY),
        (keyed(options({"authentication_key": "00" * 16}), KEY), Reason.BAD_KEY),
    ):
        with pytest.raises(Rejected) as caught:
            decode(frame, given)
        assert caught.value.reason is reason
    own = sealed(PUBLISHED["V4_2"], authentication_key=other)
    assert told(decode(own, keyed(options({"authentication_key": "00" * 16}), KEY))) == EXPECTED["V4_2"]


def test_no_bit_of_an_encrypted_telegram_can_change_unseen() -> None:
    frame = sealed(PUBLISHED["V4_2"])
    given = keyed(options({}), KEY)
    for at in range(0, len(frame), 11):
        changed = frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]
        for found in p1.framer().feed(changed):
            with pytest.raises(Rejected):
                decode(found, given)


def test_telegrams_are_found_behind_garbage_and_half_telegrams() -> None:
    raw, other = PUBLISHED["V4_2"], sealed(PUBLISHED["V4_2"])
    framer = p1.framer()
    assert framer.feed(raw[100:] + raw) == [raw]
    assert framer.feed(raw[:300] + b"\r\n" + raw) == [raw], "one that begins inside another"
    assert framer.feed(bytes(range(1, 0x2F)) + other + raw) == [other, raw]
    assert framer.held == 0


def test_a_line_that_never_ends_is_forgotten() -> None:
    framer = p1.framer()
    assert framer.feed(b"/" + b"1" * 20_000) == []
    assert framer.held <= framer.limit
    raw = PUBLISHED["V5" if "V5" in PUBLISHED else "V4_2"]
    assert framer.feed(raw * 2)[-1] == raw


@pytest.mark.parametrize(
    ("c", "d", "e", "expected"),
    [
        (1, 8, 0, ("energy_active_import", "")),
        (2, 8, 2, ("energy_active_export", "T2")),
        (21, 8, 0, ("energy_active_import", "A")),
        (61, 8, 1, ("energy_active_import", "C/T1")),
        (5, 8, 0, ("energy_reactive_q1", "")),
        (5, 7, 0, ("power_reactive", "Q1")),
        (8, 7, 0, ("power_reactive", "Q4")),
        (27, 7, 0, ("power_reactive", "A/Q3")),
        (16, 7, 0, ("power_active", "")),
        (36, 7, 0, ("power_active", "A")),
        (76, 7, 0, ("power_active", "C")),
        (32, 7, 0, ("voltage", "A")),
        (71, 7, 0, ("current", "C")),
        (14, 7, 0, ("frequency", "")),
        (33, 7, 0, ("power_factor", "A")),
        (32, 32, 0, None),
        (81, 7, 1, None),
        (96, 7, 21, None),
        (1, 7, 1, None),
        (1, 8, 64, None),
        (15, 8, 0, ("energy_active_absolute", "")),
        (0, 8, 0, None),
    ],
)
def test_a_code_means_what_the_standard_says(c: int, d: int, e: int, expected: tuple[str, str] | None) -> None:
    assert obis.meaning(c, d, e) == expected


@pytest.mark.parametrize("raw", [{"authentication_key": "00"}, {"authentication_key": 5}, {"utc_offset_h": 99}])
def test_an_option_that_does_not_fit_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(BadOption):
        DRIVER.options(raw)


def test_a_silent_port_is_a_problem_though_nothing_is_asked() -> None:
    assert DRIVER.poll is not None
    assert DRIVER.poll.request == b""


def test_a_checked_telegram_names_its_meter_and_one_without_a_check_does_not() -> None:
    frame = b"/ISk5\\2MT382-1004\r\n\r\n0-0:96.1.1(4B38)\r\n1-0:1.8.1(00001.001*kWh)\r\n!\r\n"
    assert decode(frame, options({})).meter == ""
    belgian = ("0-0:96.1.4(50217)", "0-0:96.1.1(3153414733313031303231363035)", "1-0:1.8.1(000004.426*kWh)")
    assert decode(telegram(*belgian), options({})).meter == "1SAG3101021605"
