"""Ages and sizes as people read them, in either language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.texts import text

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_UNIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Age:
    """A time span in seconds."""

    seconds: float

    def say(self, lang: str) -> str:
        """Return "5 分钟" or "5 min"."""
        whole = max(0, int(self.seconds))
        if whole < _MINUTE:
            return text("age.seconds", lang, n=whole)
        if whole < _HOUR:
            return text("age.minutes", lang, n=whole // _MINUTE)
        if whole < _DAY:
            return text("age.hours", lang, n=whole // _HOUR, minutes=whole % _HOUR // _MINUTE)
        return text("age.days", lang, n=whole // _DAY, hours=whole % _DAY // _HOUR)

    def plain(self) -> float:
        """Return the number for JSON."""
        return round(self.seconds, 1)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes."""

    count: float

    def say(self, _lang: str = "") -> str:
        """Return "12.3 MiB"."""
        count = self.count
        for unit in ("B", "KiB", "MiB"):
            if count < _UNIT:
                return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
            count /= _UNIT
        return f"{count:.1f} GiB"

    def plain(self) -> float:
        """Return the number for JSON."""
        return self.count
