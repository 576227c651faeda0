"""Messages of a broker as frames, and what stands in them: objects, words, numbers, who is online, and topics."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.kit import BadOption, Reason, Rejected
from drivers.protocols import published


def test_a_message_is_a_frame_and_comes_back_whole() -> None:
    for topic, payload in (("a/b c", b'{"x":1}'), ("t", b""), ("t", b"tab\there\nand a line")):
        assert published.split(published.frame(topic, payload)) == (topic, payload)


@pytest.mark.parametrize("data", [b"", b"\n", b"a/b\n", b"\tx\n", b"a\tx", b"\xff\tx\n"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        published.split(data)
    assert caught.value.reason is Reason.MALFORMED


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        published.split(published.frame("a", b"x" * published.MAX_MESSAGE))
    assert caught.value.reason is Reason.TOO_LONG


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"ON", "ON"), (b" online\n", "online"), (b"23.50", Decimal("23.50")), (b"-4", Decimal(-4)), (b"007", "007"),
        (b"1.", "1."),(b"0", Decimal(0)), (b"1e3", Decimal(1000)),
        (b"NaN", "NaN"), (b"Infinity", "Infinity"), (b"1_000", "1_000"), (b"-", "-"), (b"", None),
        (b'"ON"', '"ON"'), (b"true", "true"), ("按".encode(), "按"), ("１".encode(), "１"),
    ],
)  # fmt: skip
def test_a_payload_that_is_no_object_is_a_word_or_a_number(payload: bytes, value: object) -> None:
    found = published.fields(payload)
    assert found == {published.WHOLE: value}
    assert type(found[published.WHOLE]) is type(value)


@pytest.mark.parametrize("payload", [b"{", b"x" * 65, b"a\x00b", b"\xff", b'{"a":1,"a":2}', b"{" + b'"a":[' * 300])
def test_a_payload_that_is_neither_is_refused(payload: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        published.fields(payload)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("payload", "online"),
    [(b"online", True), (b"Online", True), (b'{"state":"online"}', True), (b"offline", False), (b'{"state":"offline"}', False),
     (b'{"state":1}', None), (b"{", None), (b"", None), (b"\xff", None), (b"lost", None), (b"1", None)],
)  # fmt: skip
def test_who_is_online(payload: bytes, *, online: bool | None) -> None:
    assert published.says_online(payload) is online


@pytest.mark.parametrize("topic", ["zigbee2mqtt/二楼 201", "a", "a//b", "x" * 256])
def test_a_topic(topic: str) -> None:
    assert published.topic_option(topic, "address") == topic


@pytest.mark.parametrize("topic", ["", "a/+", "#", "$SYS/broker", "a\tb", "x" * 257, 7, None])
def test_what_is_no_topic_is_refused_by_key(topic: object) -> None:
    with pytest.raises(BadOption) as caught:
        published.topic_option(topic, "map.availability")
    assert caught.value.key == "map.availability"
