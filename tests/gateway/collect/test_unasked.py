"""Who speaks on a bus without being asked is named where his frames name him."""

from __future__ import annotations

from drivers.kit import Answers, catalogue
from gateway.collect import Desk
from gateway.collect.unasked import MAX_NAMES, Unasked

# C source of a PLC collector, serial log of 2014-11-28, meter 000000193600.
REPLY = bytes.fromhex("680036190000006891183332343363693333893533334c3333336b3333334a663333e916")
REQUEST = bytes.fromhex("fefefefe68003619000000681104333234330016")


def bus(*models: str) -> Unasked:
    drivers = [catalogue.driver(model) for model in models or ("dlt645-2007", "dlt645-2007")]
    assert all(isinstance(driver, Answers) for driver in drivers)
    return Unasked([Desk(f"m{n}", one.model, "bus", f"m{n}", "", "", one, None) for n, one in enumerate(drivers)])


def test_a_meter_that_repeats_its_reply_is_named_whatever_stands_around_it() -> None:
    unasked = bus()
    for byte in b"\x00\xff" + REPLY + b"\x00" + REPLY:
        unasked.take(bytes([byte]))
    assert unasked.loudest == "000000193600"
    unasked.forget()
    assert unasked.loudest == ""


def test_noise_and_another_master_s_requests_name_nobody() -> None:
    unasked = bus()
    unasked.take(b"\x00" * 5000 + REQUEST)
    assert unasked.loudest == ""


def test_a_crowd_of_addresses_is_bounded() -> None:
    unasked = bus()
    for n in range(200):
        body = b"\x68" + n.to_bytes(6, "little") + b"\x68\x91\x00"
        unasked.take(body + bytes([sum(body) & 0xFF, 0x16]))
    assert len(unasked._counts) == MAX_NAMES


# libmbus (BSD-3-Clause, Raditex Control AB) itron_bm_+m.hex; Tasmota xnrg_08_sdm120: 230.2 V of an Eastron meter.
MBUS = bytes.fromhex(
    "683c3c680808727803491177040e16290000000c7878034911041331d40000426c0000441300000000046d1d0d98110227000009fd0e0209fd0f060f00008f13e816"
)
MODBUS = bytes.fromhex("010404436633341b38")


def test_meters_of_several_protocols_on_one_bus_are_named_each_in_its_own_way() -> None:
    unasked = bus("mbus", "modbus-meter", "cjt188")
    unasked.take(b"\x00" + MODBUS + b"\x00" + MODBUS + b"\x00")
    assert unasked.loudest == "1"  # its unit: a reply says no more
    for byte in MBUS * 3:
        unasked.take(bytes([byte]))
    assert unasked.loudest == "1149037804770E16"
