"""What BTHome objects mean: hazards, openings, faults and readings, whatever kind of device puts them into its packet."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.kit import Advert, Advertises, Decoded, Reading, Reason, Rejected, Signal, SignalKind, catalogue
from drivers.protocols.bthome_meaning import decode

MODELS = ("bthome-button", "bthome-detector", "bthome-sensor")


def said(objects: str) -> Decoded:
    return decode(Advert("A4:C1:38:8D:18:B2", service_data={0xFCD2: bytes.fromhex("40" + objects)}), None)


@pytest.mark.parametrize(
    ("id_", "kind", "channel"),
    [
        ("29", SignalKind.SMOKE, ""),
        ("1c", SignalKind.GAS, ""),
        ("17", SignalKind.CARBON_MONOXIDE, ""),
        ("20", SignalKind.WATER_LEAK, ""),
        ("11", SignalKind.OPENING, "opening"),
        ("1a", SignalKind.OPENING, "door"),
        ("1b", SignalKind.OPENING, "garage_door"),
        ("2d", SignalKind.OPENING, "window"),
        ("21", SignalKind.MOTION, ""),
        ("22", SignalKind.VIBRATION, "moving"),
        ("2c", SignalKind.VIBRATION, "vibration"),
        ("23", SignalKind.OCCUPANCY, "occupancy"),
        ("25", SignalKind.OCCUPANCY, "presence"),
        ("26", SignalKind.PROBLEM, "problem"),
        ("15", SignalKind.LOW_BATTERY, ""),
        ("2b", SignalKind.TAMPER, ""),
    ],
)
def test_a_flag_is_a_state_that_begins_and_ends(id_: str, kind: SignalKind, channel: str) -> None:
    assert said(f"{id_}01").observations == (Signal(kind, channel=channel, level=True),)
    assert said(f"{id_}00").observations == (Signal(kind, channel=channel, level=False),)


def test_safety_is_a_problem_while_it_is_not_safe() -> None:
    assert said("2800").observations == (Signal(SignalKind.PROBLEM, channel="safety", level=True),)
    assert said("2801").observations == (Signal(SignalKind.PROBLEM, channel="safety", level=False),)


def test_two_windows_and_a_door_are_three_openings() -> None:
    assert said("1a002d012d00").observations == (
        Signal(SignalKind.OPENING, channel="door", level=False),
        Signal(SignalKind.OPENING, channel="window1", level=True),
        Signal(SignalKind.OPENING, channel="window2", level=False),
    )


@pytest.mark.parametrize(
    ("objects", "reading"),
    [
        ("02ca09", Reading("temperature", Decimal("25.06"))),
        ("0218fc", Reading("temperature", Decimal("-10.00"))),
        ("451101", Reading("temperature", Decimal("27.3"))),
        ("57ea", Reading("temperature", Decimal(-22))),
        ("58ea", Reading("temperature", Decimal("-7.70"))),
        ("03bf13", Reading("humidity", Decimal("50.55"))),
        ("2e23", Reading("humidity", Decimal(35))),
        ("04138a01", Reading("pressure", Decimal("1008.83"))),
        ("05138a14", Reading("illuminance", Decimal("13460.67"))),
        ("08ca06", Reading("dew_point", Decimal("17.38"))),
        ("12e204", Reading("co2", Decimal(1250))),
        ("133301", Reading("tvoc", Decimal(307))),
        ("0d120c", Reading("pm2_5", Decimal(3090))),
        ("0e021c", Reading("pm10", Decimal(7170))),
        ("14020c", Reading("moisture", Decimal("30.74"))),
        ("0c020c", Reading("voltage", Decimal("3.074"))),
        ("4a020c", Reading("voltage", Decimal("307.4"))),
        ("434e34", Reading("current", Decimal("13.390"))),
        ("5d02ea", Reading("current", Decimal("-5.630"))),
        ("0b021b00", Reading("power_active", Decimal("0.06914"))),
        ("5c02fbffff", Reading("power_active", Decimal("-0.01278"))),
    ],
)
def test_a_measurement_is_a_reading_in_our_unit(objects: str, reading: Reading) -> None:
    """The bytes and values of the table at bthome.io/format, power in kW."""
    assert said(objects).observations == (reading,)


def test_a_quantity_under_two_ids_is_two_channels() -> None:
    assert said("02ca0945110145f400").observations == (
        Reading("temperature", Decimal("25.06"), "1"),
        Reading("temperature", Decimal("27.3"), "2"),
        Reading("temperature", Decimal("24.4"), "3"),
    )


def test_a_percentage_above_a_hundred_is_refused_and_the_rest_stands() -> None:
    found = said("01c82e652901")
    assert found.observations == (Signal(SignalKind.SMOKE, level=True),)
    assert found.refused == ("battery = 200 %", "humidity = 101 %")


def test_a_command_and_a_dimmer_are_passed_by_their_length() -> None:
    """3B: a byte whose low five bits count the arguments, the code, the arguments; 3C: two bytes."""
    assert said("3b0001" + "2901").observations == (Signal(SignalKind.SMOKE, level=True),)
    assert said("3be203aabb" + "3c0203" + "2901").observations == (Signal(SignalKind.SMOKE, level=True),)
    with pytest.raises(Rejected) as caught:
        said("3b0203aa")
    assert caught.value.reason is Reason.TOO_SHORT


def test_what_nobody_is_called_by_is_read_past() -> None:
    assert said("0f011001160118011901" + "1d011e011f0124012701" + "2a01" + "6505" + "f00100" + "2901").observations == (
        Signal(SignalKind.SMOKE, level=True),
    )


def test_every_model_reads_every_object_and_says_whether_what_it_cannot_read_may_be_a_call() -> None:
    drivers = [catalogue.driver(model) for model in MODELS]
    advert = Advert("A4:C1:38:8D:18:B2", service_data={0xFCD2: bytes.fromhex("40290121013a01")})
    for driver in drivers:
        assert isinstance(driver, Advertises)
        assert [one.kind for one in driver.decode(advert, None).observations if isinstance(one, Signal)] == [
            SignalKind.CALL, SignalKind.SMOKE, SignalKind.MOTION,
        ]  # fmt: skip
    assert [isinstance(one, Advertises) and one.may_call for one in drivers] == [True, True, False]
