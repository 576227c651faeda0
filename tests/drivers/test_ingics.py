"""Ingics beacons: falls and presses as levels, and nothing said that a beacon cannot know."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.devices.ingics_ibs import DRIVER
from drivers.kit import Advert, Decoded, Observation, Reading, Reason, Rejected, Signal, SignalKind

FALL = Signal(SignalKind.FALL, "fall", level=True)
NO_FALL = Signal(SignalKind.FALL, "fall", level=False)
PRESS = Signal(SignalKind.CALL, "press", level=True)
NO_PRESS = Signal(SignalKind.CALL, "press", level=False)


def decode(data: str, company: int = 0x0059) -> Decoded:
    return DRIVER.decode(Advert("E8:56:71:5A:54:F5", manufacturer_data={company: bytes.fromhex(data)}), None)


def signals(data: str, company: int = 0x0059) -> tuple[Observation, ...]:
    return tuple(item for item in decode(data, company).observations if isinstance(item, Signal))


def test_fall_and_button_are_sent_as_levels_in_every_advert() -> None:
    assert signals("80bc3a0100ffff0000000006030000") == (NO_FALL, NO_PRESS)
    assert signals("80bc3a0108ffff0000000006030000") == (FALL, NO_PRESS)
    assert signals("80bc3a0101ffff0000000006030000") == (NO_FALL, PRESS)
    assert signals("80bc3a0109ffff0000000006030000") == (FALL, PRESS)


def test_other_bits_are_no_fall_and_no_press() -> None:
    assert signals("80bc3a01f6ffff0000000006030000") == (NO_FALL, NO_PRESS)


def test_the_fall_bit_of_a_beacon_without_a_fall_sensor_is_nothing() -> None:
    assert signals("80bc160108ffff0000000004030000") == (NO_PRESS,)
    # iBS03QY uses the bit for its second input, and has no button.
    assert signals("83bc2d0109aaaa040000001d0a1000", 0x000D) == ()


def test_firmware_without_a_subtype_may_be_a_fall_sensor() -> None:
    assert signals("80bc360108ffffffffffffffffffff") == (FALL, NO_PRESS)
    assert signals("80bcff00087a0d4300ffffffffffff") == (NO_PRESS,)


def test_the_button_of_an_unlisted_subtype_is_heard() -> None:
    assert signals("83bc2d0101aaaa04000000770a1000", 0x082C) == (PRESS,)


def test_the_beacons_with_a_state_word_have_a_button_in_bit_13() -> None:
    assert signals("86bc3e210a00f4ff00ff1600f6ff00ff1400f6ff08ff1704", 0x082C) == (PRESS,)
    assert signals("81bc3e110a00f4ff00ff1600f6ff00ff1400f6ff08ff1704") == (NO_PRESS,)


def test_the_battery_is_told_in_volts_and_a_filler_is_not() -> None:
    assert Reading("battery_voltage", Decimal("3.14")) in decode("80bc3a0100ffff0000000006030000").observations
    assert decode("80bcffff00ffff0000000006030000").observations == (NO_FALL, NO_PRESS)
    assert decode("80bc000000ffff0000000006030000").observations == (NO_FALL, NO_PRESS)


def test_nothing_of_it_is_authenticated_or_counted() -> None:
    found = decode("80bc3a0108ffff0000000006030000")
    assert not found.authenticated
    assert found.counter is None


@pytest.mark.parametrize(
    ("data", "company", "reason"),
    [
        ("", 0x0059, Reason.NOT_MINE),
        ("80", 0x0059, Reason.NOT_MINE),
        ("0215aabb", 0x004C, Reason.NOT_MINE),
        ("80bc", 0x0059, Reason.TOO_SHORT),
        ("80bc3a0108ffff00000000", 0x0059, Reason.TOO_SHORT),
        ("81bc3e", 0x0059, Reason.TOO_SHORT),
        ("87bc330100110b31005a002aff02007b00", 0x082C, Reason.TOO_SHORT),
        ("82bc3a0104ffff0000000001030000", 0x000D, Reason.UNSUPPORTED),
        ("80bc3a0108ffff0000000006030000", 0x082C, Reason.UNSUPPORTED),
    ],
)
def test_what_is_no_beacon_is_refused_by_name(data: str, company: int, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        decode(data, company)
    assert caught.value.reason is reason
