"""Which protocol a line speaks: each driver's own vectors, what is heard at a wrong speed, and what is nobody's."""

from __future__ import annotations

import random

import pytest

from drivers.kit import Decoded, LineSettings, Streams, catalogue
from drivers.kit.line_recognition import MAX_BYTES, recognise_line, with_parity

DRIVERS = {
    model: driver
    for model in catalogue.models()
    if isinstance(driver := catalogue.driver(model), Streams) and driver.topics is None
}  # fmt: skip
# What more than one kind of device may speak: any object is a JSON line.
GENERAL = {"json-lines"}
POLL = b"\x042\x05"
CALL = b"\x011\x021\x1f301\x1e2\x1fZimmer 301\x1e4\x1f3\x1e6\x1f1\x03"


def found(data: bytes) -> list[str]:
    return [one.driver.model for one in recognise_line(data, DRIVERS.values())]


def xor(data: bytes) -> bytes:
    check = 0
    for byte in data[1:]:
        check ^= byte
    return data + bytes([check])


def even(data: bytes) -> bytes:
    return bytes(byte | (0x80 if byte.bit_count() % 2 else 0) for byte in data)


@pytest.mark.parametrize("model", DRIVERS)
def test_what_a_driver_reads_is_recognised_as_its_own_first(model: str) -> None:
    frames = [one.frame for one in DRIVERS[model].vectors if isinstance(one.expect, Decoded)]
    models = found(b"".join(frames))
    assert models[0] == model
    assert set(models[1:]) <= GENERAL


@pytest.mark.parametrize("model", DRIVERS)
def test_a_half_frame_before_and_noise_after_hide_nothing(model: str) -> None:
    frames = [one.frame for one in DRIVERS[model].vectors if isinstance(one.expect, Decoded)]
    data = frames[0][len(frames[0]) // 2 :] + b"".join(frames * 3) + b"\xfe\x00\x7f"
    assert found(data)[0] == model


def test_a_system_that_only_polls_is_known_by_its_polls() -> None:
    (first,) = recognise_line(POLL * 3, DRIVERS.values())
    assert (first.driver.model, first.read, first.share) == ("espa444", 3, 1.0)


def test_whom_a_system_calls_is_told() -> None:
    (first,) = recognise_line(POLL + xor(CALL) * 2, DRIVERS.values())
    assert (first.driver.model, first.addresses, first.read) == ("espa444", ("301",), 3)


def test_a_system_of_seven_bits_is_known_with_eight_and_its_parity_is_told() -> None:
    data = even(POLL + xor(CALL))
    (first,) = recognise_line(data, DRIVERS.values())
    assert first.driver.model == "espa444"
    assert with_parity(data, LineSettings(baud=9600)) == LineSettings(baud=9600, bits=7, parity="E")
    odd = bytes(byte ^ 0x80 for byte in data)
    assert with_parity(odd, LineSettings(baud=9600)) == LineSettings(baud=9600, bits=7, parity="O")


@pytest.mark.parametrize("data", [b"plain text\r\n", "Zimmer ä".encode(), b"\xff\x00\x01\x80"])
def test_what_shows_no_parity_is_left_as_it_was_heard(data: bytes) -> None:
    assert with_parity(data, LineSettings()) == LineSettings()


def test_a_terminal_that_begins_is_known_by_the_bare_ends_of_lines() -> None:
    assert found(b"\r\r\r") == ["tap"]


def test_of_objects_the_one_that_names_a_transmitter_goes_before_the_general_one() -> None:
    line = b'{"model":"Generic-Remote","id":4711,"cmd":3}\n'
    assert found(line * 2) == ["rtl433", "json-lines"]
    assert recognise_line(line, DRIVERS.values())[0].needs_map
    assert found(b'{"dev":"b1","ev":"press"}\n') == ["json-lines"]


@pytest.mark.parametrize(
    "data", [b"", b"login: \r\npassword: \r\n", b"$GPGGA,123519,4807.038,N*47\r\n" * 4, b"\x00" * 300, b"\x05"]
)
def test_what_is_nobodys_is_nobodys(data: bytes) -> None:
    assert set(found(data)) <= {"espa444"}  # one ENQ alone is an inquiry that names nobody
    assert found(data.replace(b"\x05", b"")) == []


def test_noise_is_nobodys_whatever_it_is() -> None:
    rng = random.Random(7)  # noqa: S311 - a seed that can be repeated is the point
    for _ in range(200):
        assert found(rng.randbytes(rng.randrange(20, 400))) == []


def test_a_driver_that_fails_is_nobodys_fault_and_what_is_long_is_cut() -> None:
    def fails(*_: object) -> None:
        raise ArithmeticError

    line = b'{"dev":"b1","ev":"press"}\n'
    from dataclasses import replace

    broken = [replace(DRIVERS["json-lines"], framer=fails), replace(DRIVERS["json-lines"], decode=fails)]
    assert recognise_line(line, broken) == ()
    (long,) = recognise_line(line * 5_000, [DRIVERS["json-lines"]])
    assert long.read == MAX_BYTES // len(line)
