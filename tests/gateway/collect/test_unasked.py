"""Who speaks on a bus without being asked is named where his frames name him."""

from __future__ import annotations

from drivers.kit import Answers, catalogue
from gateway.collect import Desk
from gateway.collect.unasked import MAX_NAMES, Unasked

# C source of a PLC collector, serial log of 2014-11-28, meter 000000193600.
REPLY = bytes.fromhex("680036190000006891183332343363693333893533334c3333336b3333334a663333e916")
REQUEST = bytes.fromhex("fefefefe68003619000000681104333234330016")


def bus() -> Unasked:
    driver = catalogue.driver("dlt645-2007")
    assert isinstance(driver, Answers)
    return Unasked([Desk(name, driver.model, "bus", name, "", "", driver, None) for name in ("m1", "m2")])


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
