"""What others published and no driver is for: each line is listed with the reason, and raises no alarm in any driver."""

from __future__ import annotations

import pytest

from drivers.kit import RAISING, Advertises, Decoded, Rejected, Signal, Streams, catalogue
from drivers.kit.line_recognition import recognise_line
from drivers.kit.recognition import recognise
from tests.drivers.captures import Line, advert, lines, title

LINES = lines("no-driver", "no_driver.jsonl")
DRIVERS = [catalogue.driver(model) for model in catalogue.models()]
ON_AIR = [driver for driver in DRIVERS if isinstance(driver, Advertises)]
ON_LINES = [driver for driver in DRIVERS if isinstance(driver, Streams) and driver.topics is None]

_MEASURES = "measures weight, heart or air: neither a call nor a fall, and no reading that the centre asks for"
_CONNECTION = "is read over a connection (GATT), not from what a device advertises: a second wave"
_NOT_A_SENSOR = "is no call button and no sensor of falls"
# Why there is no driver, by protocol.
REASONS = {
    "Acconeer radar advert": "a presence count of one maker's evaluation kit",
    "AltBeacon": "no call button is known that sends it; iBeacon and Eddystone slots are read (beacon-button)",
    "Amazfit / Mi Band advert": _MEASURES,
    "BeeWi door": "a door sensor that is no longer made",
    "Feasycom beacon": "only its battery is published",
    "GATT 0x2A37": _CONNECTION,
    "GATT 0x2A6E": _CONNECTION,
    "GATT Health Thermometer": _CONNECTION,
    "GATT Heart Rate": _CONNECTION,
    "GATT PLX": _CONNECTION,
    "GATT Weight Scale": _CONNECTION,
    "GSM 7-bit packing": _NOT_A_SENSOR,
    "Heart-rate advert (vendor)": _MEASURES,
    "Hormann door": "a garage door",
    "IEEE-11073 FLOAT": _CONNECTION,
    "Jaalee": "a thermometer beside an iBeacon; as a beacon it can be a slot (beacon-button)",
    "Laica scale advert": _MEASURES,
    "NUT": _NOT_A_SENSOR,
    "RDM6300 RFID": _NOT_A_SENSOR,
    "Ruuvi": _MEASURES,
    "SCAIP XML": "a protocol between centres, over SIP",
    "SMS PDU (3GPP TS 23.040)": _NOT_A_SENSOR,
    "TI mmWave TLV": "921,600 bauds lose bytes, and the fall is judged on the host, from heights: not for now",
    "Vendor GATT (openScale)": _CONNECTION,
    "Xiaogui scale advert": _MEASURES,
    "Xiaomi scale advert": _MEASURES,
    "iNode": "three sensors of one maker, none of which calls",
}


def raising(decoded: Decoded) -> list[Signal]:
    signals = [one for one in decoded.observations if isinstance(one, Signal)]
    return [one for one in signals if one.kind in RAISING and one.level is not False]


def of(link: str) -> list[Line]:
    return [line for line in LINES if line["link"] == link]


def test_each_line_is_listed_with_the_reason() -> None:
    assert {line["protocol"] for line in LINES} == set(REASONS)
    assert (len(LINES), len(of("ble-advert")), len(of("serial"))) == (82, 47, 10)


@pytest.mark.parametrize("line", of("ble-advert"), ids=title)
def test_no_driver_takes_such_an_advert_for_a_call(line: Line) -> None:
    heard = advert(line)
    assert all(not one.said for one in recognise(heard, ON_AIR))
    for driver in ON_AIR:
        for vector in driver.vectors:  # under the options and with the key of each of its own
            try:
                decoded = driver.configured(vector.options).decode(heard, vector.key)
            except Rejected:
                continue
            assert raising(decoded) == [], driver.model


@pytest.mark.parametrize("line", of("serial"), ids=title)
def test_no_driver_takes_such_a_line_for_a_call(line: Line) -> None:
    data = bytes.fromhex(line["bytes"]) if "bytes" in line else f"{line['text']}\r\n".encode()
    assert recognise_line(data, ON_LINES) == ()
    for driver in ON_LINES:
        for frame in driver.framer().feed(data):
            for vector in driver.vectors:
                try:
                    decoded = driver.decode(frame, driver.options(vector.options))
                except Rejected:
                    continue
                assert raising(decoded) == [], driver.model
