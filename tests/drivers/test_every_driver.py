"""What every driver passes without writing a test: its vectors, any cut of the stream, garbage, and silence.

A new file in `drivers/devices/` is found by its name; the templates are held to the same, so that a copy starts right.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.kit import (
    RAISING,
    Advert,
    Advertises,
    Answers,
    AnswerVector,
    Ask,
    BadOption,
    Decoded,
    Driver,
    NoReply,
    Observation,
    Polled,
    Reading,
    Reason,
    Rejected,
    Signal,
    Streams,
)
from drivers.kit.catalogue import load, models, templates

MODULES = {model: model.replace("-", "_") for model in models()} | {name: name for name in templates()}
DRIVERS = {name: load(module) for name, module in MODULES.items()}
ADVERTISING = {name: driver for name, driver in DRIVERS.items() if isinstance(driver, Advertises)}
STREAMING = {name: driver for name, driver in DRIVERS.items() if isinstance(driver, Streams)}
ANSWERING = {name: driver for name, driver in DRIVERS.items() if isinstance(driver, Answers)}
FRAMED: dict[str, Streams | Answers] = {**STREAMING, **ANSWERING}

Poll = Generator[Ask, bytes, Polled]

# A poll that asks more often than this would hold up every other meter on its line.
MOST_ASKS = 64
NOISE = b"\x00\xff\x55\xaa\r\n"

quick = settings(deadline=None, max_examples=120, derandomize=True, database=None)
every_driver = pytest.mark.parametrize("name", DRIVERS)
every_framed_driver = pytest.mark.parametrize("name", FRAMED)


def wire_frames(driver: Streams | Answers) -> list[bytes]:
    """The bytes of the driver's vectors as they come over the wire, one whole frame each."""
    if isinstance(driver, Streams):
        return [vector.frame for vector in driver.vectors]
    return [reply for vector in driver.vectors for _, reply in vector.exchange if reply is not None]


def cut(driver: Streams | Answers, data: bytes) -> bytes:
    """The frame that the driver's framer finds in the bytes of one frame."""
    frames = driver.framer().feed(data)
    assert len(frames) == 1, (
        f"the framer makes {len(frames)} frames of the vector {data.hex()}; each vector is one whole frame"
    )
    return frames[0]


@pytest.mark.parametrize("name", STREAMING)
def test_what_calls_in_its_vectors_says_that_a_message_of_it_may_call(name: str) -> None:
    driver = STREAMING[name]
    said = [
        one for vector in driver.vectors if isinstance(vector.expect, Decoded) for one in vector.expect.observations
    ]
    calls = any(isinstance(one, Signal) and one.kind in RAISING and one.level is not False for one in said)
    assert driver.may_call or not calls


def outcome(vector: AnswerVector, driver: Answers) -> Polled | Reason:
    """Play the exchange of a vector; the requests must be the vector's, byte for byte."""
    talk = driver.talk(driver.options(vector.address, vector.options))
    try:
        ask = next(talk)
        for request, reply in vector.exchange:
            assert ask.request == request
            if reply is None:
                ask = talk.throw(NoReply())
                continue
            frame = cut(driver, reply)
            assert ask.answers(frame), "the reply of the vector does not answer the request"
            ask = talk.send(frame)
    except StopIteration as end:
        return cast("Polled", end.value)
    except Rejected as rejection:
        return rejection.reason
    raise AssertionError(f"talk asks for more than the vector has: {ask.request.hex()}")


def played(talk: Poll, replies: list[bytes | None]) -> tuple[Observation, ...]:
    """What a poll gives when the replies come round and round; it must end within MOST_ASKS requests."""
    try:
        ask = next(talk)
        for reply in itertools.islice(itertools.cycle(replies), MOST_ASKS):
            assert isinstance(ask.answers(reply or b""), bool)
            ask = talk.throw(NoReply()) if reply is None else talk.send(reply)
    except StopIteration as end:
        return end.value.observations if isinstance(end.value, Decoded) else tuple(end.value)
    raise AssertionError("the poll does not end")


def mutated(samples: list[bytes], size: int) -> st.SearchStrategy[bytes]:
    """Bytes without meaning, and samples that are cut, flipped and glued."""
    junk = st.binary(max_size=size)
    if not samples:
        return junk
    sample = st.sampled_from(samples)
    positions = st.integers(0, max(map(len, samples)))

    def flip(data: bytes, at: int, to: int) -> bytes:
        return data[:at] + bytes([to]) + data[at + 1 :]

    flipped = st.builds(flip, sample, positions, st.integers(0, 255))
    cut_short = st.builds(lambda data, at: data[:at], sample, positions)
    glued = st.builds(lambda head, middle, tail: head + middle + tail, sample, st.binary(max_size=8), sample)
    return st.one_of(junk, sample, flipped, cut_short, glued)


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def is_sound(observations: Iterable[object]) -> bool:
    return all(
        item.value.is_finite() if isinstance(item, Reading) else isinstance(item, Signal) for item in observations
    )


@every_driver
def test_a_driver_is_named_described_and_has_vectors_of_both_kinds(name: str) -> None:
    driver: Driver = DRIVERS[name]
    assert name.startswith("_") or driver.model == name
    assert driver.title.zh
    assert driver.title.en
    assert len((sys.modules[f"drivers.devices.{MODULES[name]}"].__doc__ or "").splitlines()) >= 3, "no byte map"
    refused = [vector for vector in driver.vectors if isinstance(vector.expect, Reason)]
    assert 2 <= len(driver.vectors) <= 6
    assert refused
    assert len(refused) < len(driver.vectors)
    assert all(vector.source for vector in driver.vectors)


@pytest.mark.parametrize("name", ADVERTISING)
def test_adverts_mean_what_their_vectors_say(name: str) -> None:
    driver = ADVERTISING[name]
    for vector in driver.vectors:
        configured = driver.configured(vector.options)
        if isinstance(vector.expect, Decoded):
            assert configured.decode(vector.advert, vector.key) == vector.expect, vector.source
        else:
            with pytest.raises(Rejected) as caught:
                configured.decode(vector.advert, vector.key)
            assert caught.value.reason is vector.expect, vector.source


@pytest.mark.parametrize("name", STREAMING)
def test_frames_mean_what_their_vectors_say(name: str) -> None:
    driver = STREAMING[name]
    for vector in driver.vectors:
        options = driver.options(vector.options)
        if isinstance(vector.expect, Decoded):
            assert driver.decode(vector.frame, options) == vector.expect, vector.source
            if driver.address_of:
                assert driver.address_of(vector.frame, options) == vector.expect.address
        else:
            with pytest.raises(Rejected) as caught:
                driver.decode(vector.frame, options)
            assert caught.value.reason is vector.expect, vector.source


@pytest.mark.parametrize("name", ANSWERING)
def test_polls_end_as_their_vectors_say(name: str) -> None:
    driver = ANSWERING[name]
    for vector in driver.vectors:
        assert outcome(vector, driver) == vector.expect, vector.source


@every_framed_driver
def test_frames_come_out_the_same_whole_in_bytes_and_glued(name: str) -> None:
    driver = FRAMED[name]
    wire = wire_frames(driver)
    expected = [cut(driver, frame) for frame in wire]
    for size in (1, 2, 3, 7, len(b"".join(wire))):
        framer = driver.framer()
        assert [frame for part in chunks(b"".join(wire), size) for frame in framer.feed(part)] == expected


@every_framed_driver
def test_frames_come_out_after_garbage(name: str) -> None:
    driver = FRAMED[name]
    for wire in wire_frames(driver):
        expected = cut(driver, wire)
        # Garbage, or half a frame, may swallow the next; the line has to recover within what the framer may hold.
        for garbage in (NOISE, wire[: len(wire) // 2]):
            framer = driver.framer()
            found = framer.feed(garbage + wire * (framer.limit // len(wire) + 2))
            assert found[-1] == expected


@every_framed_driver
def test_a_reset_forgets_a_half_frame(name: str) -> None:
    driver = FRAMED[name]
    for wire in wire_frames(driver):
        framer = driver.framer()
        assert framer.feed(wire[:-1]) == []
        framer.reset()
        assert framer.feed(wire) == [cut(driver, wire)]


@every_framed_driver
def test_a_framer_gives_nothing_twice_and_holds_no_more_than_its_limit(name: str) -> None:
    driver = FRAMED[name]

    @quick
    @given(st.lists(mutated(wire_frames(driver), 600), max_size=8))
    def check(parts: list[bytes]) -> None:
        framer = driver.framer()
        fed = given_back = 0
        for part in parts:
            given_back += sum(map(len, framer.feed(part)))
            fed += len(part)
            assert 0 <= fed - given_back - framer.skipped <= framer.limit
        framer.reset()
        assert given_back + framer.skipped == fed

    check()


@pytest.mark.parametrize("name", ADVERTISING)
def test_any_advert_is_decoded_or_refused(name: str) -> None:
    driver = ADVERTISING[name]
    services = sorted({key for vector in driver.vectors for key in vector.advert.service_data} | {0x181A})
    makers = sorted({key for vector in driver.vectors for key in vector.advert.manufacturer_data} | {0xFFFF})
    payloads = [
        data
        for vector in driver.vectors
        for part in (vector.advert.service_data, vector.advert.manufacturer_data)
        for data in part.values()
    ]
    data = mutated(payloads, 64)
    adverts = st.builds(
        Advert,
        address=st.sampled_from(["54:48:E6:8F:80:A5", "", "no address", "54:48"]),
        service_data=st.dictionaries(st.sampled_from(services), data, max_size=2),
        manufacturer_data=st.dictionaries(st.sampled_from(makers), data, max_size=2),
    )
    keys = st.one_of(st.none(), st.sampled_from([vector.key for vector in driver.vectors]), st.binary(max_size=33))

    configured = st.sampled_from([driver.configured(vector.options) for vector in driver.vectors])

    @quick
    @given(adverts, keys, configured)
    def check(advert: Advert, key: bytes | None, driver: Advertises) -> None:
        with suppress(Rejected):
            assert is_sound(driver.decode(advert, key).observations)
        if driver.identify:
            assert all(isinstance(identity, str) for identity in driver.identify(advert))

    check()


@pytest.mark.parametrize("name", STREAMING)
def test_any_frame_is_decoded_or_refused(name: str) -> None:
    driver = STREAMING[name]

    @quick
    @given(mutated(wire_frames(driver), 200), st.sampled_from([vector.options for vector in driver.vectors]))
    def check(frame: bytes, raw: dict[str, object]) -> None:
        options = driver.options(raw)
        if driver.address_of:
            assert isinstance(driver.address_of(frame, options), str)
        with suppress(Rejected):
            assert is_sound(driver.decode(frame, options).observations)

    check()


@pytest.mark.parametrize("name", ANSWERING)
def test_any_reply_ends_a_poll_within_a_bounded_number_of_requests(name: str) -> None:
    driver = ANSWERING[name]
    frames = [cut(driver, wire) for wire in wire_frames(driver)]
    reply = st.one_of(st.none(), mutated(frames, 80))

    @quick
    @given(st.sampled_from(driver.vectors), st.lists(reply, min_size=1, max_size=MOST_ASKS))
    def check(vector: AnswerVector, replies: list[bytes | None]) -> None:
        talk = driver.talk(driver.options(vector.address, vector.options))
        with suppress(Rejected, NoReply):
            assert is_sound(played(talk, replies))

    check()


@pytest.mark.parametrize("name", ANSWERING)
def test_an_echo_of_the_request_is_no_answer(name: str) -> None:
    driver = ANSWERING[name]
    for vector in driver.vectors:
        ask = next(driver.talk(driver.options(vector.address, vector.options)))
        assert not any(ask.answers(frame) for frame in driver.framer().feed(ask.request))


@pytest.mark.parametrize("name", ANSWERING)
def test_silence_ends_a_poll_as_silence(name: str) -> None:
    driver = ANSWERING[name]
    talk = driver.talk(driver.options(driver.vectors[0].address, driver.vectors[0].options))
    with pytest.raises(NoReply):
        played(talk, [None])


@every_driver
def test_a_misspelt_option_is_refused_by_name(name: str) -> None:
    driver = DRIVERS[name]
    raw = {**driver.vectors[0].options, "chanel": "1"}
    if isinstance(driver, Answers):
        check: Callable[[dict[str, object]], object] = partial(driver.options, driver.vectors[0].address)
    else:
        check = driver.configured if isinstance(driver, Advertises) else driver.options
    with pytest.raises(BadOption) as caught:
        check(raw)
    assert caught.value.key == "map.chanel"
    assert caught.value.expected
