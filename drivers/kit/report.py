"""What a driver gathers of one message: signals, readings within their bounds, and what could not be taken.

Bounds are those of the thing, not of a room: what lies outside is a broken sensor or a filler, is told as refused, and
never as a value. A percentage of 255 and the like says that there is none, where `none` names it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from drivers.kit.observations import Counter, Decoded, Observation, Reading, Signal, SignalKind

_BOUNDS: Final[dict[str, tuple[Decimal, Decimal]]] = {
    "battery": (Decimal(0), Decimal(100)),
    "battery_voltage": (Decimal(0), Decimal(6)),
    "temperature": (Decimal(-80), Decimal(150)),
    "humidity": (Decimal(0), Decimal(100)),
    "illuminance": (Decimal(0), Decimal(200_000)),
    "pressure": (Decimal(300), Decimal(1_200)),
    "co2": (Decimal(0), Decimal(20_000)),
    "pm2_5": (Decimal(0), Decimal(2_000)),
    "pm10": (Decimal(0), Decimal(2_000)),
}


class Report:
    """Gathers the observations of one message, in the order in which they are given."""

    def __init__(self) -> None:
        self._observations: list[Observation] = []
        self._refused: list[str] = []

    def reading(self, quantity: str, value: Decimal | int | None, *, none: int | None = None) -> None:
        """Add a reading: nothing for None or `none`, refused outside its bounds. KeyError for a quantity without bounds."""
        if value is None:
            return
        least, most = _BOUNDS[quantity]
        exact = Decimal(value)
        if not exact.is_nan() and exact == none:
            return
        if not exact.is_nan() and least <= exact <= most:  # no order is asked of what is no number: it would raise
            self._observations.append(Reading(quantity, exact))
        else:
            self._refused.append(f"{quantity} = {exact}")

    def signal(
        self, kind: SignalKind, code: str = "", *, channel: str = "", level: bool | None = None,
        count: Counter | None = None,
    ) -> None:  # fmt: skip
        """Add a signal."""
        self._observations.append(Signal(kind, code, channel, level, count=count))

    def decoded(self, counter: Counter | None = None) -> Decoded:
        """Return what was gathered; the sender is not proven."""
        return Decoded(tuple(self._observations), counter, refused=tuple(self._refused))
