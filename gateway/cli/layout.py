"""How text lies on a terminal: columns that stay aligned with Chinese in them, colour where it is wanted, ages and sizes.

A Chinese character takes two columns of a terminal. Colour only on a terminal and never with NO_COLOR set; every mark
reads without it. Text that came from outside is stripped of control characters, so nothing can play with the terminal.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

from gateway.texts import text
from gateway.texts.amounts import Age, Size

_STYLES: Final = {"problem": "31", "warning": "33", "notice": "36", "good": "32", "head": "1", "dim": "2"}

# A cell is a text, or a text and the style that it is shown in.
Cell = str | tuple[str, str]


class Paper:
    """A terminal or file to print on, in one language."""

    def __init__(self, lang: str, out: TextIO | None = None) -> None:
        self.lang = lang
        self.out = out or sys.stdout
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.is_terminal = self.out.isatty()
        self.coloured = self.is_terminal and not plain

    def say(self, key: str, /, **values: object) -> str:
        """Return the text of "cli.KEY"."""
        return text(f"cli.{key}", self.lang, **values)

    def word(self, section: str, word: object) -> str:
        """Return the word that people use for `word` of the protocol, or the word itself where there is none."""
        try:
            return text(f"{section}.{word}", self.lang)
        except KeyError:
            return clean(word)

    def print(self, line: str = "") -> None:
        """Print one line."""
        print(line, file=self.out)

    def style(self, shown: str, style: str) -> str:
        """Colour a text, where this paper takes colour."""
        return f"\x1b[{_STYLES[style]}m{shown}\x1b[0m" if self.coloured and style in _STYLES else shown

    def heading(self, key: str) -> None:
        """Begin a section."""
        self.print()
        self.print(self.style(self.say(key), "head"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Print rows under the texts of "column.NAME", aligned, indented by two."""
        header: list[Cell] = [(text(f"column.{name}", self.lang), "dim") for name in columns]
        cells = [header, *([*row] for row in rows)]
        widths = [max(width(_text(row[index])) for row in cells) for index in range(len(columns))]
        for row in cells:
            padded = (self._padded(cell, size) for cell, size in zip(row, widths, strict=True))
            self.print(f"  {'  '.join(padded)}".rstrip())

    def age(self, seconds: float | None) -> str:
        """Return "5 分钟" or "5 min"; "从未" or "never" for None."""
        if seconds is None:
            return self.say("never")
        return Age(seconds).say(self.lang)

    def _padded(self, cell: Cell, size: int) -> str:
        shown = _text(cell)
        padding = " " * (size - width(shown))
        return (self.style(shown, cell[1]) if isinstance(cell, tuple) else shown) + padding


def width(shown: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode annex 11: wide and full-width take two)."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in shown)


def clean(value: object) -> str:
    """Return a value as text of one line, without control characters."""
    shown = "" if value is None else str(value)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "�" for c in shown)


def size(count: float) -> str:
    """Return bytes as "12.3 MiB"."""
    return Size(count).say()


def _text(cell: Cell) -> str:
    return clean(cell[0] if isinstance(cell, tuple) else cell)
