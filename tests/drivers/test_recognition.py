"""Which models an advert of a stranger may be: each driver's own vectors, what is encrypted, and what is nobody's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivers.kit import Advert, Advertises, Decoded, Reason, catalogue
from drivers.kit.recognition import recognise

DRIVERS = {
    model: driver
    for model in catalogue.models()
    if isinstance(driver := catalogue.driver(model), Advertises)
}  # fmt: skip
PRESS = Advert("BC:02:6E:AA:BB:CC", service_data={0xFCD2: bytes.fromhex("40001d01643a01")})


@pytest.mark.parametrize("model", DRIVERS)
def test_what_a_driver_reads_is_recognised_as_its_own(model: str) -> None:
    for vector in DRIVERS[model].vectors:
        if not isinstance(vector.expect, Decoded):
            continue
        found = recognise(vector.advert, DRIVERS.values())
        assert model in [one.driver.model for one in found], vector.source
        family = {one.driver.model.partition("-")[0] for one in found}
        assert family == {model.partition("-")[0]}, "another maker's driver takes it for its own"


@pytest.mark.parametrize(
    ("data", "model"),
    [("40001d01643a01", "bthome-button"), ("4400052901", "bthome-detector"), ("402001", "bthome-detector"),
     ("40012b1a01", "bthome-sensor")],
)  # fmt: skip
def test_of_several_models_the_one_that_speaks_of_such_things_comes_first(data: str, model: str) -> None:
    advert = Advert("BC:02:6E:AA:BB:CC", service_data={0xFCD2: bytes.fromhex(data)})
    assert recognise(advert, DRIVERS.values())[0].driver.model == model


def test_what_is_encrypted_is_recognised_by_its_frame() -> None:
    sealed = Advert("54:48:E6:8F:80:A5", service_data={0xFCD2: bytes.fromhex("41a6bf55cb00112233e9e7c705")})
    first = recognise(sealed, DRIVERS.values())[0]
    assert (first.driver.model, first.locked, first.said) == ("bthome-button", True, ())
    assert first.counter is not None
    assert first.counter.value == 857870592


def test_a_beacon_is_told_by_its_identity() -> None:
    data = bytes.fromhex("0215e2c56db5dffb48d2b060d0f5a71096e000640000c5")
    (found,) = recognise(Advert("00:00:00:00:00:01", manufacturer_data={0x004C: data}), DRIVERS.values())
    assert (found.driver.model, found.said) == ("beacon-button", ())
    assert found.identity == "ibeacon e2c56db5dffb48d2b060d0f5a71096e0/100/0"


@pytest.mark.parametrize(
    "advert",
    [
        Advert("00:00:00:00:00:01"),
        Advert("00:00:00:00:00:01", manufacturer_data={0x004C: bytes.fromhex("1005031c8a3f2b")}),
        Advert("00:00:00:00:00:01", manufacturer_data={0x0006: bytes(20)}),
        Advert("00:00:00:00:00:01", service_data={0xFCD2: b""}),
    ],
)
def test_what_is_nobody_s_is_not_recognised(advert: Advert) -> None:
    assert recognise(advert, DRIVERS.values()) == ()


def test_a_driver_that_fails_keeps_the_others_from_nothing() -> None:
    def broken(_advert: Advert, _key: bytes | None) -> Decoded:
        raise ZeroDivisionError

    failing = replace(DRIVERS["bthome-button"], model="failing", decode=broken, identify=broken)  # type: ignore[arg-type]  # that is the point
    assert [one.driver.model for one in recognise(PRESS, [failing, DRIVERS["bthome-button"]])] == ["bthome-button"]


def test_vectors_that_are_refused_for_want_of_a_key_only_are_locked() -> None:
    for model, driver in DRIVERS.items():
        for vector in driver.vectors:
            if vector.expect is Reason.NO_KEY:
                assert recognise(vector.advert, [driver])[0].locked, model
