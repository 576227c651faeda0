"""Where in a TOML file a key stands, so that a finding can name its line.

The standard parser tells no lines. This reads the same text once more for headers and keys only, and relies on the
parser having accepted it: it judges nothing. Keys inside inline tables and items of arrays have the line of the key
before "=".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# ("device", 1, "map", "kind"): names, and indices of arrays of tables counted from 0.
KeyPath = tuple[str | int, ...]

_PIECE: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""'
    r"|'''.*?'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|\n"
    r"|[^\"'\#\n\[\]{}=]+"
    r"|.",
    re.DOTALL,
)
_PART: Final = re.compile(r""""((?:\\.|[^"\\])*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


def positions(source: str) -> Mapping[KeyPath, int]:
    """Return the line, counted from 1, of each key and table header of a valid TOML text."""
    index = _Index()
    for line, pieces in _statements(source):
        if pieces[0] == "[":
            double = pieces[1:2] == ["["]
            index.header(_key("".join(pieces).strip("[] \t")), line, is_array=double)
        elif "=" in pieces:
            index.key(_key("".join(pieces[: pieces.index("=")])), line)
    return index.lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of `path`, or of the nearest thing around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Index:
    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._table: KeyPath = ()
        self._counts: dict[KeyPath, int] = {}

    def header(self, names: list[str], line: int, *, is_array: bool) -> None:
        path = self._resolve(names[:-1]) + tuple(names[-1:])
        if is_array:
            count = self._counts.get(path, 0)
            self._counts[path] = count + 1
            self.lines.setdefault(path, line)
            path = (*path, count)
        self._table = path
        self._note(path, line)

    def key(self, names: list[str], line: int) -> None:
        self._note((*self._table, *names), line)

    def _resolve(self, names: list[str]) -> KeyPath:
        """[a.b] under [[a]] means the last a."""
        path: KeyPath = ()
        for name in names:
            path = (*path, name)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _note(self, path: KeyPath, line: int) -> None:
        """A dotted key also stands for the tables that it opens."""
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)


def _statements(source: str) -> list[tuple[int, list[str]]]:
    """Cut the text into statements: the line that each begins at, and its pieces without comments."""
    found: list[tuple[int, list[str]]] = []
    pieces: list[str] = []
    line = started = 1
    depth = 0
    for match in _PIECE.finditer(source):
        piece = match[0]
        if piece == "\n" and depth <= 0:
            if pieces:
                found.append((started, pieces))
            pieces = []
        elif not piece.startswith("#") and (pieces or piece.strip()):
            if not pieces:
                started = line
                piece = piece.lstrip()
            pieces.append(piece)
            depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        if not pieces:
            depth = 0
        line += piece.count("\n") if piece != "\n" else 1
    if pieces:
        found.append((started, pieces))
    return found


def _key(text: str) -> list[str]:
    return [basic or literal or bare for basic, literal, bare in _PART.findall(text)]
