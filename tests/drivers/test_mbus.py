"""M-Bus: what can be sent, pairing, telegrams in turn, selection, and what values, units and media become."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import cast

import pytest

from drivers.devices.mbus import DRIVER, MOST_TELEGRAMS
from drivers.kit import BadOption, Decoded, NoReply, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import mbus, mbus_records
from drivers.protocols.mbus_records import Record

ACK = b"\xe5"
HEADER = "78563412 2440 01 {medium} 55 {status} 0000"


def answer(records: str, *, medium: str = "07", status: str = "00", address: str = "01", header: str = HEADER) -> bytes:
    """A meter's frame, made here by hand."""
    body = bytes.fromhex("08" + address + "72" + header.format(medium=medium, status=status) + records)
    return bytes([0x68, len(body), len(body), 0x68]) + body + bytes([sum(body) % 256, 0x16])


def poll(*replies: bytes | None, address: str = "1", **options: object) -> tuple[Decoded, list[str]]:
    """Run one poll with these replies; gives the outcome and what was asked."""
    talk = DRIVER.talk(DRIVER.options(address, options))
    asked: list[str] = []
    try:
        ask = next(talk)
        for reply in replies:
            asked.append(ask.request.hex())
            if reply is not None:
                assert ask.answers(reply)
            ask = talk.throw(NoReply()) if reply is None else talk.send(reply)
    except StopIteration as end:
        return cast("Decoded", end.value), asked
    raise AssertionError("the poll does not end")


def told(records: str, **changes: str) -> dict[tuple[str, str], str]:
    decoded, _ = poll(ACK, answer(records, **changes))
    return {
        (one.quantity, one.channel): str(one.value)
        for one in decoded.observations
        if isinstance(one, Reading) and one.quantity not in ("status_word", "records_unread")
    }


def record(text: str) -> Record:
    (found,) = mbus_records.read(0x78, bytes.fromhex(text)).records
    return found


def test_requests_are_those_of_the_standard() -> None:
    assert mbus.reset_request(1).hex() == "1040014116"
    assert mbus.data_request(1, turn=True).hex() == "107b017c16"
    assert mbus.data_request(1, turn=False).hex() == "105b015c16"
    assert mbus.select_request("12345678FFFFFFFF").hex() == "680b0b6853fd5278563412ffffffffb216"


def test_nothing_but_resets_questions_and_selections_can_be_built() -> None:
    built = {name for name, one in inspect.getmembers(mbus, inspect.isfunction) if one.__module__ == mbus.__name__}
    makers = {name for name in built if "request" in name}
    assert makers == {"reset_request", "data_request", "select_request"}
    for name in makers:
        assert set(inspect.signature(getattr(mbus, name)).parameters) <= {"address", "turn", "secondary"}, name
    for address in range(256):
        assert mbus.reset_request(address)[1] == 0x40
        assert {mbus.data_request(address, turn=turn)[1] for turn in (True, False)} == {0x5B, 0x7B}
    for secondary in ("0" * 16, "F" * 16, "12345678244001AA"):
        frame = mbus.select_request(secondary)
        assert (len(frame), frame[4], frame[5], frame[6]) == (17, 0x53, 0xFD, 0x52)


def test_a_frame_answers_by_direction_and_address() -> None:
    good = answer("0313153100")
    assert mbus.answers(good, address=1)
    assert mbus.answers(good, address=mbus.ANYBODY)
    assert mbus.answers(good, address=mbus.SELECTED)
    assert not mbus.answers(good, address=2)
    assert not mbus.answers(ACK, address=1)
    assert not mbus.answers(mbus.select_request("F" * 16), address=mbus.SELECTED), "our own echo"
    assert not mbus.answers(mbus.data_request(1, turn=True), address=1)
    assert not mbus.answers(good[:-1], address=1)


def test_telegrams_are_asked_in_turn_until_none_follows() -> None:
    first, second = answer("0313153100" "1f"), answer("0313263100" "1f", status="01")  # fmt: skip
    decoded, asked = poll(ACK, first, second, answer("022e0500"))
    assert [request[2:4] for request in asked] == ["40", "7b", "5b", "7b"]
    assert decoded.refused == ()
    assert decoded.observations[:3] == (
        Reading("volume_water", Decimal("12.565")),
        Reading("volume_water", Decimal("12.582"), "#2"),
        Reading("power_other", Decimal("5.000")),
    )


def test_a_telegram_that_does_not_come_is_told_and_what_came_is_published() -> None:
    first = answer("0313153100" "1f")  # fmt: skip
    for last, why in ((None, "no answer"), (first, "the one before once more")):
        decoded, _ = poll(ACK, first, last)
        assert decoded.observations[0] == Reading("volume_water", Decimal("12.565"))
        assert decoded.refused == (f"further telegram = {why}",)


def test_a_telegram_that_is_the_one_before_but_for_its_access_number_is_not_read_twice() -> None:
    """As the IME meter of wmbusmeters' pull request 1286 answers every question."""
    first, second = answer("0313153100" "1f"), answer("0313153100" "1f", header=HEADER.replace("55", "56"))  # fmt: skip
    decoded, asked = poll(ACK, first, second)
    assert len(asked) == 3
    assert decoded.refused == ("further telegram = the one before once more",)
    assert [reading for reading in decoded.observations if isinstance(reading, Reading) and reading.channel] == []


def test_a_meter_none_of_whose_records_is_known_is_not_called_implausible_for_what_is_missing_behind() -> None:
    """As that IME: each record carries codes of its maker's own."""
    first = answer("8410ff80843bce050500" "1f")  # fmt: skip
    for last, why in ((None, "no answer"), (first, "the one before once more")):
        with pytest.raises(Rejected) as refused:
            poll(ACK, first, last)
        assert (refused.value.reason, refused.value.detail) == (
            Reason.UNSUPPORTED,
            f"no readings; further telegram = {why}",
        )


def test_a_meter_that_never_ends_is_not_asked_for_ever() -> None:
    telegrams = [answer("0313153100" "1f", status=f"{count:02x}") for count in range(MOST_TELEGRAMS + 1)]  # fmt: skip
    decoded, asked = poll(ACK, *telegrams)
    assert len(asked) == MOST_TELEGRAMS + 2
    assert decoded.refused == ("further telegram = one too many",)


def test_a_meter_that_does_not_answer_is_silent() -> None:
    with pytest.raises(NoReply):
        poll(None, None)
    with pytest.raises(NoReply):
        poll(None, None, address="12345678")


@pytest.mark.parametrize(
    ("address", "header", "fits"),
    [
        ("12345678", HEADER, True),
        ("1234567840240107", HEADER, True),
        ("FFFFFFFF4024FFFF", HEADER, True),
        ("12345679", HEADER, False),
        ("1234567840240108", HEADER, False),
    ],
)
def test_who_answers_must_be_who_was_selected(address: str, header: str, fits: bool) -> None:
    reply = answer("0313153100", header=header)
    if fits:
        decoded, asked = poll(ACK, ACK, reply, address=address)
        assert decoded.observations[0] == Reading("volume_water", Decimal("12.565"))
        assert asked[2] == "107bfd7816"
    else:
        with pytest.raises(Rejected) as caught:
            poll(ACK, ACK, reply, address=address)
        assert caught.value.reason is Reason.NOT_MINE


def test_another_meter_that_goes_on_is_refused() -> None:
    other = answer("0313153100", header=HEADER.replace("78563412", "79563412"))
    with pytest.raises(Rejected) as caught:
        poll(ACK, answer("0313153100" "1f"), other)  # fmt: skip
    assert caught.value.reason is Reason.NOT_MINE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (("0113" "05"), "0.005"),
        (("0113" "fb"), "-0.005"),
        (("0213" "fbff"), "-0.005"),
        (("0613" "010000000000"), "0.001"),
        (("0713" "ffffffffffffff7f"), "9223372036854775.807"),
        (("0a13" "3412"), "1.234"),
        (("0c13" "785634f2"), "-2345.678"),
        (("0e13" "129078563412"), "123456789.012"),
        (("0516" "0000c03f"), "1.5"),
        (("0516" "cdcccc3d"), "0.1"),
        (("0d13" "c2" "3412"), "1.234"),
        (("0d13" "d2" "3412"), "-1.234"),
        (("0d13" "e4" "01000000"), "0.001"),
        (("029372" "0500"), "0.0000005"),
        (("02937d" "0500"), "5.000"),
        (("029379" "0500"), "0.015"),
    ],
)  # fmt: skip
def test_a_number_is_read_exactly(text: str, value: str) -> None:
    found = record(text)
    assert found.value == Decimal(value)
    assert found.invalid == ""


@pytest.mark.parametrize(
    "text",
    ["011380", "02130080", "04130000 0080", "0a13a512", "0a13 1a12", "05160000c07f", "05160000807f", "029315 0500"],
)
def test_what_is_no_number_has_no_value(text: str) -> None:
    found = record(text)
    assert found.value is None
    assert found.invalid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("426c7f1c", "2011-12-31"),
        ("026cbf1c", "2013-12-31"),
        ("046d0d1d1811", "2008-01-24 29:13"),
        ("046d1d0d9811", "2012-01-24 13:29:00"),
        ("066d002d0d981100", "2012-01-24 13:45:00"),
        ("046d9d0d9811", "None"),
        ("026c0000", "None"),
        ("026cffff", "None"),
        ("036d010203", "None"),
    ],
)
def test_a_time_is_read_or_is_none(text: str, value: str) -> None:
    expected = "None" if value == "2008-01-24 29:13" else value  # there is no hour 29
    assert str(record(text).value) == expected


@pytest.mark.parametrize("text", ["04", "0413", "041301", "0d13", "0d1305", "0d13fb", "08", "01fd", "0d7c", "3f13"])
def test_a_record_that_is_cut_or_of_no_form_makes_the_telegram_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        mbus_records.read(0x78, bytes.fromhex("0113 05" + text))
    assert caught.value.reason is Reason.MALFORMED


def test_an_encrypted_reply_is_refused_and_an_old_signature_is_none() -> None:
    encrypted = HEADER.replace("0000", "1005")
    with pytest.raises(Rejected) as caught:
        poll(ACK, answer("ab" * 16, header=encrypted))
    assert caught.value.reason is Reason.NO_KEY
    decoded, _ = poll(ACK, answer("0313153100", header=encrypted))
    assert decoded.observations[0] == Reading("volume_water", Decimal("12.565")), "too short for a block"


@pytest.mark.parametrize(
    ("medium", "records", "expected"),
    [
        ("02", "0405e8030000", {("energy_active_import", ""): "100.000"}),
        ("02", "04853ce8030000", {("energy_active_export", ""): "100.000"}),
        ("02", "841005e8030000", {("energy_active_import", "T1"): "100.000"}),
        ("04", "0406e8030000", {("energy_heat", ""): "1000.000"}),
        ("04", "04863ce8030000", {("energy_heat", "negative"): "1000.000"}),
        ("0a", "0406e8030000", {("energy_cooling", ""): "1000.000"}),
        ("0d", "0406e803000004863c05000000", {("energy_heat", ""): "1000.000", ("energy_cooling", ""): "5.000"}),
        ("0d", "84100605000000", {("energy_other", "T1"): "5.000"}),
        ("04", "040fe8030000", {("energy_heat_joule", ""): "10.000000000"}),
        ("00", "0406e8030000", {("energy_other", ""): "1000.000"}),
        ("03", "0413e8030000", {("volume_gas", ""): "1.000"}),
        ("06", "0413e8030000", {("volume_hot_water", ""): "1.000"}),
        ("15", "0413e8030000", {("volume_hot_water", ""): "1.000"}),
        ("16", "0413e8030000", {("volume_water", ""): "1.000"}),
        ("04", "0413e8030000", {("volume_heating", ""): "1.000"}),
        ("00", "0413e8030000", {("volume", ""): "1.000"}),
        ("03", "04933ae8030000", {("volume_gas", "uncorrected"): "1.000"}),
        ("02", "02fd480900", {("voltage", ""): "0.9"}),
        ("02", ("02fdc8ff010900" "0413 01000000"), {("volume", ""): "0.001"}),
        ("04", "025a1502025e0102", {("temperature", "supply"): "53.3", ("temperature", "return"): "51.3"}),
        ("04", "0227 0a00", {("operating_time", ""): "864000"}),
        ("04", "123b 0500 023b 0400", {("flow", "max"): "0.005", ("flow", ""): "0.004"}),
    ],
)  # fmt: skip
def test_a_record_becomes_the_quantity_of_its_medium(
    medium: str, records: str, expected: dict[tuple[str, str], str]
) -> None:
    found = told(records, medium=medium)
    assert {key: Decimal(value) for key, value in found.items()} == {
        key: Decimal(value) for key, value in expected.items()
    }  # fmt: skip


def test_a_record_that_is_no_number_is_refused_beside_the_others_and_one_that_is_empty_left_out() -> None:
    decoded, _ = poll(ACK, answer("0313153100" "0a3b1a12" "02270080"))  # fmt: skip
    assert [one for one in decoded.observations if isinstance(one, Reading)] == [
        Reading("volume_water", Decimal("12.565")),
        Reading("status_word", Decimal(0)),
    ]
    assert decoded.refused == ("record 1, volume flow = 121a is not packed decimal",)


def test_a_stored_value_has_the_date_of_its_storage_and_the_meter_s_clock_is_local() -> None:
    records = "0313153100" "4313153100" "426c7f1c" "046d1d0d9811"  # fmt: skip
    decoded, _ = poll(ACK, answer(records), utc_offset_h=1)
    zone = timezone(timedelta(hours=1))
    assert decoded.observations[:2] == (
        Reading("volume_water", Decimal("12.565"), "", datetime(2012, 1, 24, 12, 29, tzinfo=UTC).astimezone(zone)),
        Reading("volume_water", Decimal("12.565"), "S1", datetime(2011, 12, 31, tzinfo=zone)),
    )


def test_the_status_byte_is_told() -> None:
    decoded, _ = poll(ACK, answer("0313153100", status="1c"))
    assert [one for one in decoded.observations if isinstance(one, Signal)] == [
        Signal(SignalKind.LOW_BATTERY, level=True),
        Signal(SignalKind.PROBLEM, "permanent", "permanent", level=True),
        Signal(SignalKind.PROBLEM, "temporary", "temporary", level=True),
    ]


@pytest.mark.parametrize("address", ["", "251", "252", "253", "255", "1234567", "123456789", "12345678FFFFFFFG"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, {})
    assert caught.value.key == "address"


@pytest.mark.parametrize("raw", [{"utc_offset_h": 20}, {"timeout_s": 0}, {"timeout_s": True}])
def test_an_option_out_of_bounds_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options("1", raw)
    assert caught.value.key == f"map.{next(iter(raw))}"


def test_a_total_of_which_all_bits_are_set_is_no_value_and_keeps_its_place() -> None:
    assert told("0413ffffffff 0c13ffffffff 041301000000") == {("volume_water", "#3"): "0.001"}
    assert told("0413ffffffff 025affff") == {("temperature", "supply"): "-0.1"}


def test_a_total_below_zero_is_refused_and_one_marked_as_negative_is_not() -> None:
    decoded, _ = poll(ACK, answer("0413feffffff 04933cfeffffff 041364000000"))
    assert decoded.refused == ("volume_water = -0.002: a total below zero",)
    assert told("04933cfeffffff") == {("volume_water", "negative"): "-0.002"}


@pytest.mark.parametrize(
    ("records", "left"),
    [
        # A float beside a whole number is the one that is wrong.
        ("070350a6e80400000000 0503cfdaa047", {"": "82355.792"}),
        ("0503cfdaa047 070350a6e80400000000", {"#2": "82355.792"}),
        # Two of a kind: nothing says which of them is wrong.
        ("040340420f00 0403e8030000", {}),
        ("040340420f00 0403d0070000", {"": "1000.000", "#2": "2.000"}),
        ("040300000000 050300000000", {"": "0.000", "#2": "0.000"}),
    ],
)
def test_a_total_that_stands_again_at_a_thousandth_is_told_and_not_published(
    records: str, left: dict[str, str]
) -> None:
    said = told(records + "02fd48e703", medium="02")
    del said["voltage", ""]
    assert said == {("energy_active_import", channel): value for channel, value in left.items()}


def test_a_phase_stands_in_the_channel() -> None:
    assert told("02fdc8fc01f208 02fdc8fc02fc08 02fdc8fc05f808", medium="02") == {
        ("voltage", "A"): "229.0",
        ("voltage", "B"): "230.0",
    }


def test_a_volume_in_gallons_is_told_and_not_published() -> None:
    decoded, _ = poll(ACK, answer("0e933d187301000000 025a0a00"))
    assert decoded.refused == ("record 0, volume = in a unit that is not metric",)


def test_flags_that_are_marked_as_those_of_the_standard_are_read() -> None:
    assert told("02fd971d0100") == {("error_flags", ""): "1"}


@pytest.mark.parametrize(("record", "medium"), [("02fd3a1000", "02"), ("02fdba731000", "07"), ("05fd3a0000803f", "07")])
def test_a_power_factor_or_a_ratio_is_no_count(record: str, medium: str) -> None:
    assert told(record + "025a0a00", medium=medium) == {("temperature", "supply"): "1.0"}


def test_a_whole_number_without_a_unit_is_a_count() -> None:
    assert told("02fd3a1000") == {("count", ""): "16"}


def test_what_a_further_unit_of_an_electricity_meter_counts_is_read_where_its_maker_is_known() -> None:
    """IME: unit 1 of tariff 1. ABB: unit 1 fed in, 2 and 3 reactive, whatever the tariff."""
    ime, abb, other = "78563412 a525 01 {medium} 55 {status} 0000", "78563412 4204 01 {medium} 55 {status} 0000", HEADER
    assert told("8e408400450000000000 8e508400120000000000 8ec0408400550800000000", medium="02", header=abb) == {
        ("energy_active_export", "U1"): "0.45",
        ("energy_active_export", "T1/U1"): "0.12",
        ("energy_reactive_export", "U3"): "8.55",
    }
    assert told("8e500400355873060002fd48e703", medium="02", header=ime) == {
        ("energy_active_import", "T1/U1"): "6735835.00",
        ("voltage", ""): "99.9",
    }
    assert told("8e500400355873060002fd48e703", medium="02", header=other) == {("voltage", ""): "99.9"}


def test_phases_that_a_maker_numbers_in_its_own_way_are_read_where_that_is_known() -> None:
    """Saia: FF 00 the sum, FF 01 to 03 the phases, unit 1 reactive. FF 04 is nothing, and another maker may mean anything."""
    records = "02fdc9ff01ee00 02acff031c00 02acff006200 8240acff001900 02fdc9ff040100 02ff680100"
    saia = "78563412 434c 24 {medium} 55 {status} 0000"
    assert told(records, medium="02", header=saia) == {
        ("voltage", "A"): "238",
        ("power_active", "C"): "0.28",
        ("power_active", ""): "0.98",
        ("power_reactive", "U1"): "0.25",
    }
    assert told("02fd48e703" + records, medium="02") == {("voltage", ""): "99.9"}
    assert told("824004100002fd48e703", medium="02", header=saia) == {("voltage", ""): "99.9"}, (
        "energy of unit 1: not known"
    )


@pytest.mark.parametrize("text", ["volume", "power", "count", "temperature", "date"])
def test_what_a_meter_names_in_plain_text_is_no_quantity_of_the_standard(text: str) -> None:
    """A unit as text (7C) says nothing of cubic metres and watts, whatever word stands there."""
    named = f"047c{len(text):02x}{text.encode()[::-1].hex()}40e20100"
    assert told("0313153100" + named) == {("volume_water", ""): "12.565"}


def test_a_frame_names_its_meter_by_the_secondary_address() -> None:
    assert DRIVER.sender is not None
    assert DRIVER.sender(answer("0313153100")) == "1234567840240107"
    assert DRIVER.sender(mbus.select_request("12345678FFFFFFFF")) == ""
    assert DRIVER.sender(ACK) == ""
