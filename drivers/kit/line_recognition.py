"""Which protocol speaks on a line that nobody has configured: every framer gets its bytes, and no driver is trusted not to fail.

What makes it one is that most of the bytes belong to frames that the driver reads: what is heard at a wrong speed, or is of
another protocol, leaves most of them over. Of several the one comes first that a frame tells something, an address or a
signal: any object is a JSON line, few name a transmitter. Pure.
Limits: the first `MAX_BYTES` bytes, `MAX_ADDRESSES` addresses, `MAX_FRAMES` frames that are shown; a frame without any check
of its own (EV1527 boards, TAP's bare lines) may be noise that looks like one: press twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from drivers.kit.observations import BadOption, Decoded, Observation, Reason, Rejected
from drivers.kit.shapes import LineSettings, Streams

MAX_BYTES: Final = 16_384
MAX_ADDRESSES: Final = 16
MAX_FRAMES: Final = 8
# Of all bytes, how many must belong to frames that are read.
ENOUGH: Final = 0.6
# A sound frame of the protocol, of which nothing could be taken.
_ODD: Final = frozenset({Reason.UNSUPPORTED, Reason.IMPLAUSIBLE})


@dataclass(frozen=True, slots=True)
class Spoken:
    """One protocol that a line may speak.

    `read` frames, `telling` those of them that say something, `share` of the bytes that belong to frames that were read, 0 to 1.
    `frames` the first telling ones. `needs_map`: what its fields mean has to be configured.
    """

    driver: Streams
    read: int
    telling: int
    share: float
    addresses: tuple[str, ...]
    said: tuple[Observation, ...]
    frames: tuple[bytes, ...]
    needs_map: bool = False


def recognise_line(data: bytes, drivers: Iterable[Streams]) -> tuple[Spoken, ...]:
    """Return the protocols that the bytes of a line may be of, the likeliest first."""
    data = data[:MAX_BYTES]
    found = [one for driver in drivers if driver.topics is None and (one := _heard(data, driver)) is not None]
    return tuple(
        sorted(found, key=lambda one: (-bool(one.telling), -round(one.share, 1), -one.telling, one.driver.model))
    )


def with_parity(data: bytes, settings: LineSettings) -> LineSettings:
    """Return how a line is set that was read with eight bits: what shows a parity in the highest bit of each byte has seven."""
    if settings.parity != "N" or not any(byte & 0x80 for byte in data):
        return settings
    ones = {byte.bit_count() % 2 for byte in data}
    return settings if len(ones) == 2 else replace(settings, bits=7, parity="O" if 1 in ones else "E")


def _heard(data: bytes, driver: Streams) -> Spoken | None:
    try:
        options, needs_map = _options(driver)
        frames = driver.framer().feed(data)
    except Exception:  # noqa: BLE001 - one driver that stumbles must not hide the line from the others
        return None
    read, size, telling = 0, 0, []
    addresses: dict[str, None] = {}
    said: dict[Observation, None] = {}
    for frame in frames:
        decoded = _decoded(frame, driver, options)
        if decoded is None:
            continue
        read, size = read + 1, size + len(frame)
        if decoded.observations or decoded.address or decoded.replies or decoded.refused:
            telling.append(frame)
            addresses |= dict.fromkeys([decoded.address] if decoded.address else [])
            said |= dict.fromkeys(decoded.observations)
    share = size / len(data) if data else 0.0
    if not read or share < ENOUGH:
        return None
    return Spoken(
        driver, read, len(telling), share, tuple(addresses)[:MAX_ADDRESSES], tuple(said)[:MAX_FRAMES],
        tuple(dict.fromkeys(telling))[:MAX_FRAMES] or tuple(dict.fromkeys(frames))[:MAX_FRAMES], needs_map,
    )  # fmt: skip


def _decoded(frame: bytes, driver: Streams, options: Any) -> Decoded | None:
    """Return what a frame says, nothing of it where the frame is sound and odd; None for what is no frame of the protocol."""
    try:
        if driver.shows is not None and not driver.shows(frame):
            return None
        return driver.decode(frame, options)
    except Rejected as rejected:
        return Decoded() if rejected.reason in _ODD else None
    except Exception:  # noqa: BLE001 - a frame that its driver stumbles over is no sign of its protocol
        return None


def _options(driver: Streams) -> tuple[Any, bool]:
    """Return options to read with: none, or the first vector's where there must be some."""
    nothing: Mapping[str, object] = {}
    try:
        return driver.options(nothing), False
    except BadOption:
        return driver.options(driver.vectors[0].options), True
