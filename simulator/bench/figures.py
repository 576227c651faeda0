"""What a benchmark hands over: figures of ours, each beside the limit that was measured in the same run, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any, Final

_LABEL: Final = 46


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `limit` None: nothing to measure it against; `why` says what the limit is.

    The ratio says how much worse than the limit we are: ours/limit, or limit/ours where `more` is better.
    """

    what: str
    ours: float
    unit: str
    limit: float | None = None
    why: str = ""
    more: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times worse than the limit; None without a limit."""
        if not self.limit or not self.ours:
            return None
        return self.limit / self.ours if self.more else self.ours / self.limit

    def as_json(self) -> dict[str, Any]:
        """Return the figure with its ratio, for the report."""
        return asdict(self) | {"ratio": self.ratio}


@dataclass(slots=True)
class Spread:
    """Latencies in seconds; quantiles of them in milliseconds, nearest rank."""

    values: list[float] = field(default_factory=list)

    def at(self, share: float) -> float:
        """Return a quantile in milliseconds. Raises ValueError when nothing was measured."""
        if not self.values:
            raise ValueError("nothing was measured")
        ranked = sorted(self.values)
        return 1000 * ranked[ceil(share * len(ranked)) - 1]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table for people."""
    lines = [f"{'what':<{_LABEL}}{'ours':>11}{'limit':>15}{'ratio':>8}   limit: measured in this run"]
    for one in figures:
        limit = "" if one.limit is None else f"{_number(one.limit)} {one.unit}"
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        lines.append(
            f"{one.what:<{_LABEL}}{_number(one.ours):>11} {one.unit:<4}{limit:>10}{ratio:>8}   {one.why}".rstrip()
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
