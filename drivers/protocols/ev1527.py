"""Fixed codes of 433 MHz remotes and sensors (EV1527, PT2262 in 24 bits), as every receiver hands them over.

    II II IK      I  id, 20 bits;  K  which key or state, 4 bits

There is no counter, no check, no battery and no heartbeat, and anybody can copy a code: nothing of it is verified, and a
transmitter cannot be supervised (press it once a week). What a key means stands in the configuration of its [[device]],
whose `address` is the id, five digits ("CD46B"):

    [device.map]
    keys = { E = "opening", 7 = "closed", B = "tamper", 5 = "water_leak", F = "low_battery", A = "motion" }    # Kerui

    a kind of signal, "closed" (the end of an opening), or "none". A key that is not named, and every key without `keys`,
    is a call

One code is enough for a call: a decoder has compared repeats before it gives a code away, some give it away once only, and of
noise a single code in a million has the id of a given transmitter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import BadOption, Reason, Rejected, Signal, SignalKind
from drivers.kit.options import choice, known_keys

REPEAT_S: Final = 2.0
CODE_BYTES: Final = 3
_NOTHING, _CLOSED = "none", "closed"
_KEYS: Final = "0123456789ABCDEF"


@dataclass(frozen=True, slots=True)
class Keys:
    """What each key means, "" where nothing; a key that is not there is a call."""

    meaning: Mapping[str, str]


def options(raw: Mapping[str, object]) -> Keys:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("keys",))
    keys = raw.get("keys", {})
    if not isinstance(keys, Mapping):
        raise BadOption("map.keys", keys, 'a table, such as { 8 = "call" }', zh='一张表，例如 { 8 = "call" }')
    known_keys(keys, name="map.keys", allowed=_KEYS)
    kinds = [*(kind.value for kind in SignalKind), _CLOSED, _NOTHING]
    return Keys({key: choice(keys, key, name="map.keys", among=kinds) for key in keys})


def address(code: bytes) -> str:
    """Return the id of a code: five digits. Raises Rejected for a code of another length."""
    return _digits(code)[:-1]


def signals(code: bytes, keys: Keys) -> tuple[Signal, ...]:
    """Return what a code says. Raises Rejected for a code of another length."""
    key = _digits(code)[-1]
    meaning = keys.meaning.get(key, SignalKind.CALL.value)
    if meaning == _NOTHING:
        return ()
    if meaning == _CLOSED:
        return (Signal(SignalKind.OPENING, f"key-{key}", level=False),)
    kind = SignalKind(meaning)
    return (Signal(kind, f"key-{key}", level=True if kind is SignalKind.OPENING else None),)


def _digits(code: bytes) -> str:
    if len(code) != CODE_BYTES:
        raise Rejected(Reason.MALFORMED, f"a code of {len(code)} bytes")
    return code.hex().upper()
