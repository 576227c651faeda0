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

from drivers.kit import Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.options import known_keys, words

REPEAT_S: Final = 2.0
NOTE: Final = Title(
    zh="433 MHz 发射器无法监测是否完好，也能被复制：每周按一次试一试",
    en="a 433 MHz transmitter cannot be supervised and can be copied: press it once a week",
)
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
    kinds = [*(kind.value for kind in SignalKind), _CLOSED, _NOTHING]
    return Keys(words(raw, "keys", name="map", allowed=_KEYS, among=kinds))


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
