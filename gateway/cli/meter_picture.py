"""The picture of a month, as SVG: a lane for each meter, a bar a day, a line for each gap: what is missing is seen at once.

It shrinks with a narrow window and keeps its shape. Limits: one month, one register a meter (the first total, named), at most
`MOST_LINES` lines of what happened; no library, no font of its own, no script.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final
from xml.sax.saxutils import escape

from gateway.cli.layout import Paper, clean, width
from gateway.cli.meter_month import FUTURE, MISSING, Month
from gateway.cli.meter_notes import Line, shown_unit, used_of, word

DAY_W: Final = 25
LANE_H: Final = 124
BAR_H: Final = 64
MARGIN: Final = 16
TOP: Final = 66
LINE_H: Final = 18
COLUMN_W: Final = 6.6
"""What a column of a terminal takes of the text of 12 px: a Latin letter is about so wide, a Chinese one twice."""
BOLD_W: Final = 7.4
"""The same of bold text, and of that of 13 px."""
MOST_LINES: Final = 200
_COLOURS: Final = {"read": "#2f6f9f", "freeze": "#7fb2d6"}
_INK: Final = "#444444"
_INKS: Final = {"problem": "#c0392b", "warning": "#8a5a00"}
_FONTS: Final = "'Noto Sans CJK SC','PingFang SC','Microsoft YaHei','WenQuanYi Micro Hei',sans-serif"
_EVENTS: Final = frozenset(
    {"swap", "number", "ratio", "rollover", "jump", "held", "unconfirmed", "withdrawn", "clock", "dial"}
)
_HATCH: Final = (
    '<pattern id="{}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="{}"/><rect width="2" height="6" fill="{}"/></pattern>'
)
_PATTERNS: Final = "".join(
    ("<defs>", _HATCH.format("gap", "#f6d5d2", "#c0392b"), _HATCH.format("even", "#d3e3ef", "#2f6f9f"), "</defs>")
)


def picture(months: Sequence[Month], *, title: str, lines: Sequence[Line], paper: Paper) -> str:
    """Return the SVG text, in the language of the paper; `lines` stand below the lanes."""
    days = max((len(one.days) for one in months), default=31)
    wide = MARGIN * 2 + days * DAY_W
    parts_of = [(part, style, n) for text, style in _shown(paper, lines) for n, part in enumerate(_wrapped(text, wide))]
    below = TOP + LANE_H * len(months) + 8
    high = below + LINE_H * len(parts_of) + MARGIN
    size = f'width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" style="max-width:100%;height:auto"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONTS}" font-size="12">',
        _PATTERNS,
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="26" font-size="18">{_text(title)}</text>',
        *_legend(paper, months),
    ]
    for lane, month in enumerate(months):
        parts += _lane(month, TOP + lane * LANE_H, wide, paper=paper)
    parts += [
        f'<text x="{MARGIN + 14 * bool(part)}" y="{below + LINE_H * n + 12}" fill="{_INKS.get(style, _INK)}">{_text(line)}</text>'
        for n, (line, style, part) in enumerate(parts_of)
    ]
    return "\n".join([*parts, "</svg>", ""])


def _shown(paper: Paper, lines: Sequence[Line]) -> list[Line]:
    left = len(lines) - MOST_LINES
    return [*lines] if left <= 0 else [*lines[:MOST_LINES], (paper.say("meters-more-lines", count=left), "problem")]


def _wrapped(text: str, wide: int) -> Iterator[str]:
    """Cut a text into lines that fit, between words where there are any; those after the first are set in."""
    room = int((wide - 2 * MARGIN - 14) / COLUMN_W)
    line = ""
    for piece in _pieces(text):
        if line and width(line + piece.rstrip()) > room:
            yield line.rstrip()
            line = piece.lstrip()
        else:
            line += piece
    yield line.rstrip()


def _pieces(text: str) -> Iterator[str]:
    """Yield what may stand on a line by itself: a Chinese character, or a word with the blank behind it."""
    piece = ""
    for c in text:
        if width(c) == 2:
            if piece:
                yield piece
            piece = ""
            yield c
        else:
            piece += c
            if c == " ":
                yield piece
                piece = ""
    if piece:
        yield piece


def _legend(paper: Paper, months: Sequence[Month]) -> list[str]:
    parts, x = [], float(MARGIN)
    kinds = (
        ("read", _COLOURS["read"]),
        ("freeze", _COLOURS["freeze"]),
        ("missing", "url(#gap)"),
        ("shared", "url(#even)"),
    )
    for key, fill in kinds:
        shown = paper.say(f"meters-day-{key}")
        parts.append(f'<rect x="{x:g}" y="40" width="12" height="12" fill="{fill}"/>')
        parts.append(f'<text x="{x + 17:g}" y="50">{_text(shown)}</text>')
        x = round(x + 40 + COLUMN_W * width(shown))
    if any(row["kind"] in _EVENTS for month in months for row in month.told):
        parts.append(f'<path d="{_flag(x + 6, 42)}" fill="#8a5a00"/>')
        parts.append(f'<text x="{x + 17:g}" y="50">{_text(paper.say("meters-day-event"))}</text>')
    return parts


def _lane(month: Month, top: int, wide: int, *, paper: Paper) -> list[str]:
    meter, use = month.meter, month.main
    head = " · ".join(clean(meter[name]) for name in ("id", "room", "meter") if meter.get(name))
    most = max([*month.daily.values(), *month.shared.values(), Decimal(0)])
    parts, total = [], ""
    if use is not None:
        unit = shown_unit(use.name)
        total = f"{word(paper, use.name)} {used_of(use)} {unit}".strip()
        parts.append(f'<text x="{wide - MARGIN}" y="{top + 12}" text-anchor="end" font-size="13">{_text(total)}</text>')
        scale = paper.say("meters-most-a-day", most=f"{most:.2f}", unit=unit)
        place = f'x="{wide - MARGIN}" y="{top + 108}" text-anchor="end"'
        parts.append(f'<text {place} font-size="9" fill="#666666">{_text(scale)}</text>')
    head = _cut(head, int((wide - 2 * MARGIN) / BOLD_W) - width(total) - 2)
    parts.append(f'<text x="{MARGIN}" y="{top + 12}" font-weight="bold">{_text(head)}</text>')
    happened: dict[str, list[str]] = {}
    for row in month.told:
        happened.setdefault(row["day"], []).append(row["kind"])
    for n, (day, kind) in enumerate(month.days.items()):
        parts += _day(month, day, kind, MARGIN + n * DAY_W, top, most=most, paper=paper, happened=happened)
    return parts


def _day(
    month: Month, day: date, kind: str, x: int, top: int, *, most: Decimal, paper: Paper, happened: Mapping[str, Any]
) -> list[str]:  # fmt: skip
    bottom = top + 20 + BAR_H
    used = month.daily.get(day, month.shared.get(day))
    parts = [_background(x, top + 20, kind)]
    if used is not None and kind != FUTURE:
        high = max(1, round(BAR_H * float(used / most))) if most else 1
        is_shared = day in month.shared
        fill = "url(#gap)" if kind == MISSING else "url(#even)" if is_shared else _COLOURS[kind]
        tip = f"{day.isoformat()}: {used:.2f} ({paper.say(f'meters-day-{kind}')})"
        parts.append(
            f'<rect x="{x + 2}" y="{bottom - high}" width="{DAY_W - 4}" height="{high}" fill="{fill}">'
            f"<title>{_text(tip)}</title></rect>"
        )
    if day.isoformat() in happened:
        parts.append(f'<path d="{_flag(x + DAY_W / 2, top + 20)}" fill="#8a5a00"/>')
    parts.append(
        f'<text x="{x + DAY_W / 2:g}" y="{bottom + 13}" text-anchor="middle" font-size="10" fill="#666666">{day.day}</text>'
    )
    return parts


def _cut(text: str, room: int) -> str:
    """Return as much of a text as has room, so that it does not run into what stands at the other end."""
    if width(text) <= room:
        return text
    while text and width(text) >= room:
        text = text[:-1]
    return f"{text}…"


def _flag(x: float, y: float) -> str:
    """Return a small triangle that points down at `x`."""
    return f"M{x - 5:g} {y:g}h10l-5 8z"


def _background(x: int, y: int, kind: str) -> str:
    fill = "url(#gap)" if kind == MISSING else "#fafafa" if kind == FUTURE else "#eef2f5"
    opacity = ' opacity="0.35"' if kind == MISSING else ""
    return f'<rect x="{x + 1}" y="{y}" width="{DAY_W - 2}" height="{BAR_H}" fill="{fill}"{opacity}/>'


def _text(shown: str) -> str:
    return escape(clean(shown))
