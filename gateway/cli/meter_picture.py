"""The picture of a month, as SVG: a lane for each meter, a bar for each day; what is missing is seen at once.

Limits: one month, one register a meter (the total); no library, no font of its own, no script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final
from xml.sax.saxutils import escape

from gateway.cli.meter_month import FREEZE, FUTURE, MISSING, Month

DAY_W: Final = 24
LANE_H: Final = 110
BAR_H: Final = 64
LEFT: Final = 16
TOP: Final = 64
_COLOURS: Final = {"read": "#2f6f9f", "freeze": "#7fb2d6", "missing": "#f6d5d2", "future": "#f4f4f4"}

_GAP: Final = (
    '<defs><pattern id="gap" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#f6d5d2"/><rect width="2" height="6" fill="#c0392b"/></pattern></defs>'
)

Say = Callable[..., str]


def picture(months: Sequence[Month], *, title: str, say: Say) -> str:
    """Return the SVG text. `say` gives the words of "cli.KEY"."""
    days = max((len(one.days) for one in months), default=31)
    width, height = LEFT * 2 + days * DAY_W + 150, TOP + LANE_H * max(1, len(months)) + 16
    box = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        _GAP,
        f'<rect {box} fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="18">{escape(title)}</text>',
        *_legend(say),
    ]
    for lane, month in enumerate(months):
        parts += _lane(month, TOP + lane * LANE_H, say=say)
    return "\n".join([*parts, "</svg>", ""])


def _legend(say: Say) -> list[str]:
    parts, x = [], LEFT
    for key, fill in (("read", _COLOURS["read"]), ("freeze", _COLOURS["freeze"]), ("missing", "url(#gap)")):
        shown = say(f"meters-day-{key}")
        parts.append(f'<rect x="{x}" y="38" width="12" height="12" fill="{fill}"/>')
        parts.append(f'<text x="{x + 17}" y="48">{escape(shown)}</text>')
        x += 40 + 13 * len(shown)
    return parts


def _lane(month: Month, top: int, *, say: Say) -> list[str]:
    meter = month.meter
    use = next((one for one in month.uses if one.name == month.main), None)
    head = " · ".join(str(meter[name]) for name in ("id", "room", "meter") if meter.get(name))
    total = "" if use is None else f"{use.used.normalize():f} {meter['units'].get(use.name, '')}"
    most = max([*month.daily.values(), *month.shared.values()], default=None) or 1
    parts = [
        f'<text x="{LEFT}" y="{top + 12}" font-weight="bold">{escape(head)}</text>',
        f'<text x="{LEFT + len(month.days) * DAY_W + 12}" y="{top + 20 + BAR_H}" font-size="14">{escape(total)}</text>',
    ]
    bottom = top + 20 + BAR_H
    for n, (day, kind) in enumerate(month.days.items()):
        x = LEFT + n * DAY_W
        used = month.daily.get(day, month.shared.get(day))
        parts.append(_background(x, top + 20, kind))
        if used is not None and kind != FUTURE:
            high = max(1, round(BAR_H * float(used / most)))
            fill = (
                "url(#gap)"
                if kind == MISSING
                else _COLOURS["freeze" if kind == FREEZE or day in month.shared else "read"]
            )
            parts.append(
                f'<rect x="{x + 2}" y="{bottom - high}" width="{DAY_W - 4}" height="{high}" fill="{fill}">'
                f"<title>{escape(_tip(day, kind, f'{used:.2f}', say=say))}</title></rect>"
            )
        parts.append(f'<text x="{x + 5}" y="{bottom + 14}" font-size="10" fill="#666666">{day.day}</text>')
    return parts


def _background(x: int, y: int, kind: str) -> str:
    fill = "url(#gap)" if kind == MISSING else "#fafafa"
    opacity = ' opacity="0.35"' if kind == MISSING else ""
    return f'<rect x="{x + 1}" y="{y}" width="{DAY_W - 2}" height="{BAR_H}" fill="{fill}"{opacity}/>'


def _tip(day: date, kind: str, used: str, *, say: Say) -> str:
    return f"{day.isoformat()}: {used} ({say(f'meters-day-{kind}')})"
