"""Lines of Ingics' BLE gateways: all published adverts through a line, what else a line may be, and strangers."""

from __future__ import annotations

import pytest

from drivers.devices.ingics_gateway import DRIVER
from drivers.devices.ingics_ibs import DRIVER as ON_AIR
from drivers.kit import Reason, Rejected, Strangers
from drivers.protocols import ingics_lines
from tests.drivers.captures import Line, advert, lines, title

LINES = lines("ingics-ibs", "ingics_ibs.jsonl")


@pytest.mark.parametrize("line", LINES, ids=title)
def test_a_line_says_what_its_advert_says(line: Line) -> None:
    sender = line["mac"].replace(":", "")
    text = f"$GPRP,{sender},CAEE00112233,{line['expected']['_gprp_rssi']},{line['ad'].upper()}\r\n".encode()
    on_air = ON_AIR.decode(advert(line), None)
    found = DRIVER.decode(text, None)
    assert found.observations == on_air.observations
    assert (found.address, found.authenticated, found.counter) == (sender, False, None)
    assert ingics_lines.parse(text).rssi == line["expected"]["_gprp_rssi"]
    assert DRIVER.address_of is not None
    assert DRIVER.address_of(text, None) == sender


@pytest.mark.parametrize(
    ("text", "reason", "address"),
    [
        ("E856715A54F5,CAEE00112233,-60,020106", Reason.NOT_MINE, ""),
        ("$HBRP,CAEE00112233,CAEE00112233,-127,00000000", Reason.NOT_MINE, ""),
        ("$GPRP,E856715A54F5,CAEE00112233,-60", Reason.MALFORMED, ""),
        ("$GPRP,E856715A54F5,CAEE00112233,-60,020106,1,2", Reason.MALFORMED, ""),
        ("$GPRP,E856715A54,CAEE00112233,-60,020106", Reason.MALFORMED, ""),
        ("$GPRP,E856715A54F5,CAEE00112233,loud,020106", Reason.MALFORMED, "E856715A54F5"),
        ("$GPRP,E856715A54F5,CAEE00112233,-60,02010Z", Reason.MALFORMED, "E856715A54F5"),
        ("$GPRP,E856715A54F5,CAEE00112233,-600,020106", Reason.IMPLAUSIBLE, "E856715A54F5"),
        ("$GPRP,E856715A54F5,CAEE00112233,-60,", Reason.NOT_MINE, "E856715A54F5"),
        ("$GPRP,E856715A54F5,CAEE00112233,-60,00FF590080BC", Reason.NOT_MINE, "E856715A54F5"),
        ("$GPRP,E856715A54F5,CAEE00112233,-60,12FF590080BC3A0108", Reason.NOT_MINE, "E856715A54F5"),
        ("$GPRP,É856715A54F5,CAEE00112233,-60,020106", Reason.MALFORMED, ""),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_by_name_with_its_sender_where_it_has_one(
    text: str, reason: Reason, address: str
) -> None:
    frame = f"{text}\r\n".encode()
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(frame, None)
    assert (caught.value.reason, caught.value.address) == (reason, address)


def test_it_is_a_radio_and_hears_the_neighbours() -> None:
    assert DRIVER.radio
    assert DRIVER.strangers is Strangers.IGNORED


def test_small_letters_name_the_same_sender() -> None:
    frame = b"$GPRP,e856715a54f5,caee00112233,-60,02010612ff590080bc3a0108ffff0000000006030000\n"
    assert DRIVER.decode(frame, None).address == "E856715A54F5"
