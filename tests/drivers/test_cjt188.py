"""CJ/T 188: frames out, pairing, dialects, and a poll against meters that know one order of the identifier only."""

from __future__ import annotations

import inspect
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import cast

import pytest

from drivers.devices.cjt188 import DRIVER, METERS
from drivers.kit import BadOption, Decoded, NoReply, Reading, Reason, Rejected, Signal, SignalKind
from drivers.kit.fields import CHINA
from drivers.protocols import cjt188, cjt188_layouts
from drivers.protocols.cjt188_layouts import DIALECTS

ADDRESS = "00000051327643"
WATER = "00472c000000462c0000"
TOTALS = "004701002c004601002c"


def reply(data: str, control: int = 0x81, kind: int = 0x10, address: str = "43763251000000") -> bytes:
    """A frame from the meter, made here by hand."""
    content = bytes.fromhex(data)
    frame = bytes([0x68, kind]) + bytes.fromhex(address) + bytes([control, len(content)]) + content
    return frame + bytes([sum(frame) % 256, 0x16])


def poll(*replies: bytes | None, **options: object) -> tuple[Decoded, list[str]]:
    """Run one poll with these replies; gives the outcome and the identifiers that were asked."""
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"meter": "cold-water", **options}))
    asked: list[str] = []
    try:
        ask = next(talk)
        for answer in replies:
            asked.append(ask.request[15:17].hex())
            ask = talk.throw(NoReply()) if answer is None else talk.send(answer)
    except StopIteration as end:
        return cast("Decoded", end.value), asked
    raise AssertionError("the poll does not end")


def values(kind: int, data: str, dialect: str = "auto") -> cjt188_layouts.Data:
    return cjt188_layouts.read(kind, bytes.fromhex(data), DIALECTS[dialect])


def test_requests_are_the_published_ones() -> None:
    assert (
        cjt188.read_request(0x10, cjt188.ANY_ADDRESS, serial=0xAA).hex() == "fefefefe6810aaaaaaaaaaaaaa0103901faa7b16"
    )
    assert cjt188.read_request(0x20, cjt188.ANY_ADDRESS, 0x1F90).hex() == "fefefefe6820aaaaaaaaaaaaaa01031f9000e116"
    assert cjt188.address_request().hex() == "fefefefe68aaaaaaaaaaaaaaaa0303810a004916"


def test_no_function_of_the_codec_takes_a_control_code() -> None:
    for module in (cjt188, cjt188_layouts):
        for name, found in inspect.getmembers(module, inspect.isfunction):
            if found.__module__ == module.__name__ and not name.startswith("_"):
                assert not {"control", "function", "c", "data_out"} & set(inspect.signature(found).parameters), name


def test_whatever_is_asked_for_is_asked_by_a_read() -> None:
    # A017 is the valve: even so it could only be read.
    for identifier in (0x901F, 0x1F90, 0xA017, 0x17A0, 0xA018, 0xA016, 0xFFFF):
        for kind in (0x10, 0x20, 0x30, 0xAA):
            assert cjt188.read_request(kind, ADDRESS, identifier)[13] == 0x01
    assert cjt188.address_request()[13] == 0x03
    for meter in METERS:
        talk = DRIVER.talk(DRIVER.options(ADDRESS, {"meter": meter}))
        controls = [next(talk).request[13]]
        with suppress(NoReply):
            while True:
                controls.append(talk.throw(NoReply()).request[13])
        assert controls == [0x01, 0x01]


@pytest.mark.parametrize("order", ["901f", "1f90"])
def test_a_meter_that_knows_one_order_of_the_identifier_is_read(order: str) -> None:
    whole = reply(order + "00" + TOTALS + "00" * 9)
    answers = [whole] if order == "901f" else [None, whole]
    decoded, asked = poll(*answers)
    assert decoded.observations[:2] == (
        Reading("volume_water", Decimal("147.00")),
        Reading("volume_water", Decimal("146.00"), "S1"),
    )
    assert asked == (["901f"] if order == "901f" else ["901f", "1f90"])


def test_a_meter_that_refuses_one_order_is_asked_in_the_other() -> None:
    decoded, asked = poll(reply("000000", 0xC1), reply("1f9000" + TOTALS + "00" * 9))
    assert asked == ["901f", "1f90"]
    assert decoded.observations[0] == Reading("volume_water", Decimal("147.00"))


def test_the_dialect_says_which_order_is_asked_first() -> None:
    _, asked = poll(reply("1f9000" + TOTALS + "00" * 9), dialect="2018")
    assert asked == ["1f90"]


def test_a_meter_that_refuses_both_is_refused_with_its_status() -> None:
    with pytest.raises(Rejected) as caught:
        poll(reply("000200", 0xC1), reply("000200", 0xC1))
    assert (caught.value.reason, caught.value.detail) == (Reason.UNSUPPORTED, "refused, status 000200")


def test_a_meter_that_is_silent_is_silent() -> None:
    with pytest.raises(NoReply):
        poll(None, None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("00470a002c004601002c" + "00" * 9, Reason.IMPLAUSIBLE),
        ("0047010005004601002c" + "00" * 9, Reason.IMPLAUSIBLE),
        ("004701002d004601002c" + "00" * 9, Reason.IMPLAUSIBLE),
        (WATER + "00" * 9, Reason.IMPLAUSIBLE),
        # Litres in front, or litres behind: both fit.
        ("29000000292900000029" + "00" * 9, Reason.IMPLAUSIBLE),
        (TOTALS + "00" * 8, Reason.MALFORMED),
        ("", Reason.MALFORMED),
    ],
)
def test_what_has_no_sure_unit_or_digits_is_refused(data: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        values(0x10, data)
    assert caught.value.reason is reason


@pytest.mark.parametrize("kind", [0x00, 0x1A, 0x40, 0x50, 0xAA, 0xFF])
def test_a_kind_of_meter_that_is_not_known_is_refused(kind: int) -> None:
    with pytest.raises(Rejected) as caught:
        values(kind, TOTALS + "00" * 9)
    assert caught.value.reason is Reason.UNSUPPORTED


HEAT = "{first}05 10000000 05 {power}17 {flow}35 00010000 2c 005000 004000 120000 00000000000000 0000"


def heat(*, first: str = "00000000", power: str = "00000000", flow: str = "00000000") -> str:
    return HEAT.format(first=first, power=power, flow=flow)


# 1.0000 m3/h that cools by 10 K carries 11.63 kW.
@pytest.mark.parametrize(
    ("power", "flow", "dialect", "told"),
    [
        ("63110000", "00000100", "auto", "1.0000"),
        ("63110000", "00010000", "sanext", "1.00"),
        ("63110000", "00010000", "auto", None),
        ("63110000", "00000100", "sanext", None),
        ("00000000", "00010000", "auto", "0.0100"),
    ],
)
def test_a_flow_that_contradicts_power_and_temperatures_is_refused(
    power: str, flow: str, dialect: str, told: str | None
) -> None:
    data = values(0x20, heat(power=power, flow=flow), dialect)
    if told is None:
        assert "flow" not in data.values
        assert data.refused[0].startswith("flow = ")
    else:
        assert data.values["flow"].number == Decimal(told)
        assert data.refused == []


@pytest.mark.parametrize(
    ("kind", "dialect", "expected"),
    [
        (0x20, "auto", ("energy_heat", "S1")),
        (0x21, "auto", ("energy_cooling", "S1")),
        (0x25, "auto", ("energy_cooling", "")),
        (0x27, "auto", ("energy_cooling", "")),
        (0x20, "sanext", ("energy_cooling", "")),
        (0x22, "auto", None),
    ],
)
def test_what_the_first_slot_of_heat_means_depends_on_the_type(
    kind: int, dialect: str, expected: tuple[str, str] | None
) -> None:
    decoded, _ = poll(
        reply("901f00" + heat(first="07000000"), kind=kind), meter="heat", dialect=dialect
    )  # fmt: skip
    of_first = [one for one in decoded.observations if isinstance(one, Reading) and one.value == Decimal("0.07")]
    assert [(one.quantity, one.channel) for one in of_first] == ([expected] if expected else [])
    assert len(decoded.refused) == (0 if expected else 1)


def test_a_settlement_that_is_more_than_the_total_is_something_else() -> None:
    # A meter for heat and cooling that calls itself one for heat: its first slot is cooling, which has nothing to do with heat.
    decoded, _ = poll(reply("901f00" + heat(first="00020000"), kind=0x20), meter="heat")
    assert Reading("energy_heat", Decimal("0.10")) in decoded.observations
    assert not any(isinstance(one, Reading) and one.channel == "S1" for one in decoded.observations)
    assert decoded.refused == ("first = 2.00 kWh, more than the total of 0.10: name the dialect",)
    known, _ = poll(reply("901f00" + heat(first="00020000"), kind=0x20), meter="heat", dialect="sanext")
    assert Reading("energy_cooling", Decimal("2.00")) in known.observations


def test_joules_stay_joules() -> None:
    decoded, _ = poll(reply("901f00" + heat().replace("05", "11"), kind=0x20), meter="heat")
    assert Reading("energy_heat_joule", Decimal("0.10")) in decoded.observations
    assert not any(isinstance(one, Reading) and one.quantity == "energy_heat" for one in decoded.observations)


def test_a_clock_that_is_a_date_in_either_direction_is_none_until_the_dialect_says_which() -> None:
    two = TOTALS + "20151005092120" + "0000"
    assert values(0x10, two).clock is None
    assert values(0x10, two, "2004").clock == datetime(2021, 9, 5, 10, 15, 20, tzinfo=CHINA)
    assert values(0x10, two, "century-first").clock == datetime(2015, 10, 5, 9, 21, 20, tzinfo=CHINA)


def test_valve_and_battery_are_read_under_a_dialect_that_knows_them_only() -> None:
    data = reply("901f00" + TOTALS + "00" * 7 + "0500")
    plain, _ = poll(data)
    assert plain.observations[-1] == Reading("status_word", Decimal(0x0500))
    known, _ = poll(data, dialect="2004")
    assert known.observations[-3:] == (
        Reading("valve_state", Decimal(1)),
        Signal(SignalKind.PROBLEM, "valve", "valve", level=False),
        Signal(SignalKind.LOW_BATTERY, level=True),
    )


@pytest.mark.parametrize("address", ["", "0000005132764", "0000005132764x", "000000513276433"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, {"meter": "cold-water"})
    assert caught.value.key == "address"


@pytest.mark.parametrize(("key", "raw"), [("map.meter", {}), ("map.meter", {"meter": "steam"})])
def test_what_is_metered_must_be_said(key: str, raw: dict[str, object]) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, raw)
    assert caught.value.key == key
