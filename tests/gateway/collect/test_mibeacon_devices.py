"""What Xiaomi's frames lead to in the gateway: real frames, real keys, and the doubts that are right for each encryption."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from drivers.protocols import mibeacon
from gateway.collect import Desk

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
Radio = Callable[..., Desk]

# Published by xiaomi-ble, tests/test_parser.py: pressed once; smoke; a dimmer that is turned (version 3).
BUTTON, PRESS = "18:C2:3C:24:37:05", "58598723350537243cc218d67794020000cb2de309"
BUTTON_KEY = bytes.fromhex("7202a2d4201bbf82ea5bb3705657c32a")
DETECTOR, SMOKE = "54:EF:44:E3:9C:BC", "5859970966bc9ce344ef5401081205000000715ebe90"
DETECTOR_KEY = bytes.fromhex("5b51a7c91cde6707c9ef18dfda143a58")
DIMMER, DIMMER_KEY = "F8:24:41:C5:98:8B", "b853075158487ca39a5b5ea9"
# What the published frame of the dimmer says, and what a press would say.
TURNED, TURNED_PLAIN, PRESSED_PLAIN = "5830b603368b98c54124f88bb8f2661351000000d6", "01100300ff04", "011003000103"
THERMOMETER, CLIMATE = "A4:C1:38:D4:3C:48", "58585b0501483cd438c1a49cf255cfdd0000002fae2ff2"
IDLE = "58505b0501"


def pressed() -> str:
    """Return the published frame with what it says exchanged: nothing but the key stream protects the old encryption."""
    frame = bytearray.fromhex(TURNED)
    for at, (was, is_) in enumerate(zip(bytes.fromhex(TURNED_PLAIN), bytes.fromhex(PRESSED_PLAIN), strict=True)):
        frame[11 + at] ^= was ^ is_
    return frame.hex()


async def test_a_press_of_a_proven_sender_is_verified_and_its_repeats_are_one(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "xiaomi-mibeacon", BUTTON, key=BUTTON_KEY)])
    for _ in range(5):
        centre.hear(BUTTON, service={0xFE95: PRESS})
    assert await centre.told("kind", "code", "presses", "verified", "counter") == [
        ("alarm.raised", "call", "press", 1, True, 0x235)
    ]


async def test_smoke_is_an_alarm_of_its_own(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("smoke-1", "xiaomi-mibeacon", DETECTOR, key=DETECTOR_KEY)])
    centre.hear(DETECTOR, service={0xFE95: SMOKE})
    assert await centre.told("kind", "priority", "verified") == [("alarm.raised", "smoke", "emergency", True)]


async def test_the_old_encryption_raises_unverified_and_is_no_downgrade(opened: Opener, radio: Radio) -> None:
    key = mibeacon.read_key(DIMMER_KEY)
    centre = await opened([radio("call-1", "xiaomi-mibeacon", DIMMER, key=key)])
    centre.hear(DIMMER, service={0xFE95: pressed()})
    assert await centre.told("code", "verified", "doubts") == [("alarm.raised", "press", False, ["unauthenticated"])]
    assert centre.problems == []


async def test_what_a_detector_says_without_its_key_may_be_smoke(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("smoke-1", "xiaomi-mibeacon", DETECTOR)])
    centre.hear(DETECTOR, service={0xFE95: SMOKE})
    assert await centre.told("kind", "code", "verified") == [("alarm.raised", "call", "undecipherable", False)]


async def test_a_thermometer_without_its_key_calls_nobody_and_stays_a_problem(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("room-1", "xiaomi-mibeacon", THERMOMETER)])
    centre.hear(THERMOMETER, service={0xFE95: CLIMATE})
    centre.hear(THERMOMETER, service={0xFE95: IDLE})
    assert await centre.events() == []
    assert centre.problems == [("GW-DEV-03", "room-1")]
