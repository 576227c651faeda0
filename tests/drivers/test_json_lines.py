"""JSON lines: what a map makes of a line, what is acknowledged, and what never loses a call."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal

import pytest

from drivers.devices.json_lines import DRIVER
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected, Reply, Signal, SignalKind, SourceNumber

MAP = """
[[signal]]
field = "ev"
equals = "press"
is = "call"

[[signal]]
field = "fall"
equals = 1
is = "fall"
code = "impact"
channel = "bed-2"

[[signal]]
field = "fall"
equals = 2
is = "recovered"

[[signal]]
field = "open"
equals = true
is = "tamper"
code = "case"

[[reading]]
field = "kwh"
quantity = "energy_active_import"
channel = "T1"

[[reading]]
field = "temp"
quantity = "temperature"
"""
CALL = Signal(SignalKind.CALL, "press")


def mapping(text: str = MAP) -> object:
    return DRIVER.options(tomllib.loads(text))


def decode(line: str | bytes, text: str = MAP) -> Decoded:
    return DRIVER.decode(line if isinstance(line, bytes) else line.encode(), mapping(text))


def refusal(line: str | bytes, text: str = MAP) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode(line, text)
    return caught.value


def address_of(line: bytes, text: str = MAP) -> str:
    assert DRIVER.address_of
    return DRIVER.address_of(line, mapping(text))


def test_signals_and_readings_stand_as_mapped() -> None:
    found = decode('{"dev": "r3", "fall": 1, "kwh": 12.340, "temp": -3, "other": [1, {"a": null}]}\n')
    assert found == Decoded(
        (
            Signal(SignalKind.FALL, "impact", "bed-2"),
            Reading("energy_active_import", Decimal("12.340"), "T1"),
            Reading("temperature", Decimal(-3)),
        ),
        address="r3",
    )


def test_registers_keep_every_digit() -> None:
    (reading,) = decode('{"dev": "m", "kwh": 123456789.10}\n').observations
    assert isinstance(reading, Reading)
    assert str(reading.value) == "123456789.10"


@pytest.mark.parametrize(("text", "expected"), [("1E+3", "1000"), ("1e3", "1000"), ("25e-1", "2.5"), ("0", "0")])
def test_a_number_with_an_exponent_becomes_a_plain_one(text: str, expected: str) -> None:
    (reading,) = decode(f'{{"dev": "m", "kwh": {text}}}\n').observations
    assert isinstance(reading, Reading)
    assert str(reading.value) == expected


def test_a_numbered_line_is_acknowledged_when_it_is_durable() -> None:
    found = decode('{"dev": "b", "n": 9223372036854775807, "ev": "press"}\n')
    assert found.source_number == SourceNumber("", 9223372036854775807)
    assert found.replies == (Reply(b'{"ack": 9223372036854775807}\n', when="committed"),)


def test_a_line_with_a_session_is_acknowledged_with_it() -> None:
    found = decode('{"dev": "b", "n": 0, "s": "boot \\"7\\" 病房", "ev": "press"}\n')
    assert found.source_number == SourceNumber('boot "7" 病房', 0)
    assert found.replies == (Reply(b'{"ack": 0, "s": "boot \\"7\\" \\u75c5\\u623f"}\n', when="committed"),)


def test_an_empty_session_is_returned_as_it_came() -> None:
    assert decode('{"dev": "b", "n": 1, "s": ""}\n').replies == (Reply(b'{"ack": 1, "s": ""}\n', when="committed"),)


def test_a_line_without_a_number_is_not_acknowledged() -> None:
    found = decode('{"dev": "b", "ev": "press"}\n')
    assert (found.source_number, found.replies) == (None, ())


def test_a_numbered_line_that_says_nothing_mapped_is_acknowledged() -> None:
    assert decode('{"dev": "b", "n": 4, "ev": "release"}\n') == Decoded(
        address="b", source_number=SourceNumber("", 4), replies=(Reply(b'{"ack": 4}\n', when="committed"),)
    )


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("1", [SignalKind.FALL]),
        ("1.0", [SignalKind.FALL]),
        ("2", [SignalKind.RECOVERED]),
        ("0", []),
        ("true", []),
        ('"1"', []),
        ("null", []),
        ("[1]", []),
    ],
)
def test_a_signal_fits_its_value_and_no_other_type(value: str, kinds: list[SignalKind]) -> None:
    found = decode(f'{{"dev": "b", "fall": {value}}}\n').observations
    assert [item.kind for item in found if isinstance(item, Signal)] == kinds


@pytest.mark.parametrize(("value", "count"), [("true", 1), ("1", 0), ("false", 0)])
def test_true_is_not_one(value: str, count: int) -> None:
    assert len(decode(f'{{"dev": "b", "open": {value}}}\n').observations) == count


CATCH_ALL = """
address = ""
[[signal]]
field = "ev"
equals = "cancel"
is = "cancel"
[[signal]]
field = "ev"
is = "call"
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"press"', Signal(SignalKind.CALL, "press")),
        ('"cancel"', Signal(SignalKind.CANCEL, "cancel")),
        ("3", Signal(SignalKind.CALL, "3")),
        ("true", Signal(SignalKind.CALL, "true")),
        ("1.5", Signal(SignalKind.CALL, "unknown")),
        ('["long"]', Signal(SignalKind.CALL, "unknown")),
        ('"' + "x" * 65 + '"', Signal(SignalKind.CALL, "unknown")),
        ('"\\ud800"', Signal(SignalKind.CALL, "unknown")),
    ],
)
def test_without_equals_any_value_signals_and_the_first_rule_that_fits_decides(value: str, expected: Signal) -> None:
    assert decode(f'{{"ev": {value}}}\n', CATCH_ALL).observations == (expected,)


@pytest.mark.parametrize("value", ["null", "false", "0", '""', "[]"])
def test_without_equals_a_value_that_says_nothing_does_not_signal(value: str) -> None:
    assert decode(f'{{"ev": {value}}}\n', CATCH_ALL).observations == ()


def test_the_only_device_on_a_line_needs_no_name() -> None:
    assert decode('{"ev": "press"}\n', CATCH_ALL).address == ""
    assert address_of(b'{"dev": "b", "ev": "press"}\n', CATCH_ALL) == ""


def test_a_line_says_whose_it_is() -> None:
    assert address_of(b'{"dev": "b1"}\n') == "b1"
    assert address_of(b'{"dev": 17}\n') == "17"
    for nobody in (
        b"{}",
        b'{"dev": ""}',
        b'{"dev": null}',
        b'{"dev": true}',
        b'{"dev": -1}',
        b'{"dev": [1]}',
        b"{",
        b"",
    ):
        assert address_of(nobody) == ""


def test_a_line_that_names_nobody_belongs_to_the_device_that_has_the_line_to_itself() -> None:
    """The reader hands over no such line where several devices share it: a call must not be lost for a missing name."""
    said = decode('{"ev": "press"}\n')
    assert (said.address, [one.kind for one in said.observations]) == ("", [SignalKind.CALL])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"press\n",
        b'"press"\n',
        b"[1]\n",
        b"7\n",
        b'{"dev": "b", "ev": "press"\n',
        b'{"dev": "b"} {"dev": "b"}\n',
        b'{"dev": "b", "dev": "c"}\n',
        b'{"dev": "b", "a": {"x": 1, "x": 2}}\n',
        b'{"dev": "b", "kwh": NaN}\n',
        b'{"dev": "b", "kwh": -Infinity}\n',
        b'{"dev": "b", "kwh": 1e99999999999999999999}\n',
        b'{"dev": "\xff"}\n',
        b"\xef\xbb\xbf{}\n",
        b'{"dev": "b\x00"}\n',
        b"[" * 4000,
        b'{"a":' * 800,
        b'{"dev": "b", "a": "' + b"[" * 64 + b'"}\n',
    ],
)
def test_what_is_no_single_object_is_malformed(line: bytes) -> None:
    assert refusal(line).reason is Reason.MALFORMED


def test_a_line_over_the_limit_is_too_long() -> None:
    assert refusal(b'{"dev": "' + b"b" * 4096 + b'"}').reason is Reason.TOO_LONG
    assert DRIVER.framer().limit == 4096


@pytest.mark.parametrize(
    "value", ['"12"', "true", "[1]", "{}", "1e15", "1e-13", "0.1234567890123", "1e300", "1" * 300, "-1e20"]
)
def test_a_reading_that_is_no_plausible_number_rejects_the_line(value: str) -> None:
    assert refusal(f'{{"dev": "b", "kwh": {value}}}\n').reason is Reason.IMPLAUSIBLE


def test_a_numbered_line_with_a_broken_reading_is_acknowledged_and_tells_what_was_refused() -> None:
    """Else its source would bring it again for ever, and nothing behind it."""
    decoded = decode('{"dev": "b", "n": 1, "kwh": "broken", "temp": 21.5}\n')
    assert [one.quantity for one in decoded.observations if isinstance(one, Reading)] == ["temperature"]
    assert decoded.source_number == SourceNumber("", 1)
    assert decoded.replies == (Reply(b'{"ack": 1}\n', when="committed"),)
    assert decoded.refused == ("kwh is no number",)


@pytest.mark.parametrize("n", ["-1", "9223372036854775808", "1.0", '"1"', "true", "[]"])
def test_a_number_that_cannot_be_acknowledged_rejects_the_line(n: str) -> None:
    assert refusal(f'{{"dev": "b", "n": {n}, "kwh": 1}}\n').reason is Reason.MALFORMED


@pytest.mark.parametrize("session", ["7", "[]", '"\\u0000"', '"\\ud800"', '"' + "s" * 65 + '"'])
def test_a_session_that_cannot_be_returned_rejects_the_line(session: str) -> None:
    assert refusal(f'{{"dev": "b", "n": 1, "s": {session}, "kwh": 1}}\n').reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        ('"n": -1', "n is no whole number from 0 to 2**63-1"),
        ('"n": 1, "s": 7', "s is no text of at most 64 printable characters"),
    ],
)
def test_a_call_is_never_refused_for_a_number_that_cannot_be_acknowledged(beside: str, why: str) -> None:
    """But it is said: a source that waits for an acknowledgement that cannot come raises the call again for ever."""
    assert decode(f'{{"dev": "b", "ev": "press", {beside}}}\n') == Decoded((CALL,), address="b", refused=(why,))


def test_a_call_is_never_refused_for_a_broken_reading_beside_it() -> None:
    decoded = decode('{"dev": "b", "ev": "press", "kwh": "broken"}\n')
    assert decoded == Decoded((CALL,), address="b", refused=("kwh is no number",))


def test_a_numbered_call_keeps_its_number_beside_a_broken_reading() -> None:
    """Without it the call would never be acknowledged, and each resend would raise it again."""
    decoded = decode('{"dev": "b", "n": 7, "ev": "press", "temp": 1e99}\n')
    assert decoded.observations == (CALL,)
    assert decoded.source_number == SourceNumber("", 7)
    assert decoded.refused == ("temp is out of range",)


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("", "map", "at least one [[device.map.signal]] or [[device.map.reading]]"),
        ("adress = 'dev'", "map.adress", "no such option; known here: address, number, reading, session, signal"),
        ("address = 7", "map.address", "a text of at most 64 characters"),
        ("signal = 7", "map.signal", "at most 32 tables [[device.map.signal]]"),
        ("signal = ['call']", "map.signal[0]", "a table [[device.map.signal]]"),
        ("[[signal]]\nis = 'call'", "map.signal[0].field", "a text of at most 64 characters"),
        (
            "[[signal]]\nfield = 'a'\nis = 'call'\n[[signal]]\nfield = 'b'\nis = 'alarm'",
            "map.signal[1].is",
            "one of " + ", ".join(SignalKind),
        ),
        (
            "[[signal]]\nfield = 'a'\nis = 'call'\nequals = 1.5",
            "map.signal[0].equals",
            "a text, a whole number, true or false",
        ),
        (
            "[[signal]]\nfield = 'a'\nis = 'call'\nequal = 1",
            "map.signal[0].equal",
            "no such option; known here: channel, code, equals, field, is",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_refused_by_key(text: str, key: str, expected: str) -> None:
    with pytest.raises(BadOption) as caught:
        mapping(text)
    assert (caught.value.key, caught.value.expected) == (key, expected)


def test_an_unknown_quantity_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadOption) as caught:
        mapping("[[reading]]\nfield = 'kwh'\nquantity = 'energy'")
    assert caught.value.key == "map.reading[0].quantity"
    assert "energy_active_import" in caught.value.expected


def test_a_map_has_at_most_32_rules_of_a_kind() -> None:
    rows: Mapping[str, object] = {"signal": [{"field": "a", "is": "call"}] * 33}
    with pytest.raises(BadOption) as caught:
        DRIVER.options(rows)
    assert caught.value.key == "map.signal"


def test_fields_can_have_other_names() -> None:
    text = 'address = "id"\nnumber = "seq"\nsession = "boot"\n[[signal]]\nfield = "k"\nis = "call"\ncode = "press"\n'
    assert decode('{"id": "b", "seq": 3, "boot": "x", "k": 1}\n', text) == Decoded(
        (CALL,),
        address="b",
        source_number=SourceNumber("x", 3),
        replies=(Reply(b'{"ack": 3, "s": "x"}\n', when="committed"),),
    )
