"""What was heard, written as Python and pasted into a driver, is a vector that the generic tests accept."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers import kit
from drivers.kit import Advert, Advertises, AdvertVector, Answers, AnswerVector, Reason, Streams, StreamVector, vectors

# The generic tests themselves, from their file: the folder of the tests is no package.
_SPEC = importlib.util.spec_from_file_location("generic_tests", Path(__file__).with_name("test_every_driver.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
generic: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generic)

PASTED = "captured 2026-03-01: ..."


def pasted(source: str) -> Any:
    """What Python makes of the text, with the names that every driver file has imported."""
    names = {name: getattr(kit, name) for name in kit.__all__} | {"Decimal": Decimal, "datetime": datetime}
    return eval(source, names)  # noqa: S307 - text of our own, as a person would paste it


def accepted(name: str, driver: Any, vector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the generic vector test of a driver that has this vector and no other."""
    changed = replace(driver, vectors=(vector,))
    if isinstance(driver, Advertises):
        monkeypatch.setitem(generic.ADVERTISING, name, changed)
        generic.test_adverts_mean_what_their_vectors_say(name)
    elif isinstance(driver, Streams):
        monkeypatch.setitem(generic.STREAMING, name, changed)
        generic.test_frames_mean_what_their_vectors_say(name)
    else:
        monkeypatch.setitem(generic.ANSWERING, name, changed)
        generic.test_polls_end_as_their_vectors_say(name)


@pytest.mark.parametrize("name", generic.ADVERTISING)
def test_an_advert_comes_back_as_a_vector_without_its_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = generic.ADVERTISING[name]
    for known in driver.vectors:
        made = vectors.of_advert(driver, known.advert, source=PASTED, options=known.options)
        again = pasted(vectors.source_of(made))
        assert isinstance(again, AdvertVector)
        assert again == made
        assert again.key is None
        if known.key is None:
            assert again == replace(known, source=PASTED)
        else:
            assert known.key.hex() not in vectors.source_of(made)
        accepted(name, driver, again, monkeypatch)


@pytest.mark.parametrize("name", generic.STREAMING)
def test_a_frame_comes_back_as_the_vector_that_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = generic.STREAMING[name]
    for known in driver.vectors:
        made = vectors.of_frame(driver, known.frame, source=PASTED, options=known.options)
        again = pasted(vectors.source_of(made))
        assert isinstance(again, StreamVector)
        assert again == replace(known, source=PASTED)
        accepted(name, driver, again, monkeypatch)


@pytest.mark.parametrize("name", generic.ANSWERING)
def test_a_poll_comes_back_as_the_vector_that_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver: Answers = generic.ANSWERING[name]
    for known in driver.vectors:
        exchange = [(asked, None if reply is None else generic.cut(driver, reply)) for asked, reply in known.exchange]
        made = vectors.of_exchange(driver, exchange, address=known.address, source=PASTED, options=known.options)
        assert made is not None
        again = pasted(vectors.source_of(made))
        assert isinstance(again, AnswerVector)
        assert again == replace(known, source=PASTED, exchange=tuple(exchange))
        accepted(name, driver, again, monkeypatch)


def test_an_exchange_without_an_end_is_no_vector() -> None:
    driver = generic.ANSWERING["dlt645-2007"]
    (asked, reply), *_ = driver.vectors[0].exchange
    assert reply is not None

    def made(*exchange: tuple[bytes, bytes | None]) -> AnswerVector | None:
        return vectors.of_exchange(driver, exchange, address="000000193600", source="", options={})

    assert made((asked, None)) is None
    assert made((asked, reply)) is None, "three registers were not asked"
    assert made() is None


def test_every_kind_of_value_is_written_so_that_python_reads_it_back() -> None:
    value = {
        "text": 'a "quoted" 文字',
        "list": [1, True, None, -2.5],
        "one": (Decimal("0.10"),),
        "bytes": b"\x00\xff",
        "reason": Reason.BAD_CHECK,
        "advert": Advert("A4:C1:38:56:53:84", rssi=-60, service_data={0xFCD2: b"\x44"}),
    }
    source = vectors.source_of(value)
    assert pasted(source) == value
    assert '0xFCD2: bytes.fromhex("44")' in source
    assert "manufacturer_data" not in source, "what is as usual is left out"
