"""Why a text is not TOML, in words that a technician can act on: the standard parser says it in English, for programmers.

What most often goes wrong here is Chinese punctuation, which looks like the right one; it is named wherever it stands at
the place of the mistake.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_QUOTES: Final = "“”‘’＂"
# The beginnings of what the parser says (tomllib of Python 3.11 to 3.13), and the texts in their place.
_REASONS: Final = (
    (("Unterminated string", "Illegal character '\\n'"), "@hint.toml-unterminated"),
    (("Illegal character", "Found invalid character"), "@hint.toml-character"),
    (("Invalid value",), "@hint.toml-value"),
    (("Invalid statement", "Invalid initial character for a key part"), "@hint.toml-statement"),
    (("Expected newline or end of document",), "@hint.toml-after"),
    (
        ("Cannot declare", "Cannot overwrite", "Cannot redefine", "Cannot mutate", "Duplicate inline"),
        "@hint.toml-twice",
    ),
    (("Expected '='",), "@hint.toml-equals"),
    (("Expected ']'", "Expected ']]'"), "@hint.toml-header"),
    (("Unclosed array", "Unclosed inline table"), "@hint.toml-unclosed"),
    (("Unescaped", "Invalid hex value", "Escaped character"), "@hint.toml-escape"),
    (("Invalid date",), "@hint.toml-date"),
    (("Exceeds the limit",), "@hint.toml-number"),
)


def explained(source: str, error: ValueError | RecursionError) -> dict[str, Any]:
    """Return the facts of a syntax error: line and column where they are known, `detail`, perhaps `character`."""
    if isinstance(error, RecursionError):
        return {"line": None, "column": None, "detail": "@hint.toml-deep"}
    message = str(error)
    place = _PLACE.search(message)
    line = column = None
    if place and place[1]:
        line, column = int(place[1]), int(place[2])
    elif place:
        line = source.rstrip("\n").count("\n") + 1
    detail = _PLACE.sub("", message)[:200]
    for beginnings, text in _REASONS:
        if message.startswith(beginnings):
            detail = text
            break
    foreign = _foreign(source, line, column, unterminated=detail == "@hint.toml-unterminated")
    if foreign:
        return {"line": line, "column": column, "detail": "@hint.toml-chinese", "character": foreign}
    return {"line": line, "column": column, "detail": detail}


def _foreign(source: str, line: int | None, column: int | None, *, unterminated: bool) -> str:
    """Return the punctuation of another script that stands at a place, or that closes a string in its stead."""
    if line is None or column is None:
        return ""
    text = source.replace("\r\n", "\n").split("\n")[line - 1]
    at = text[column - 1 : column]
    if at and not at.isascii() and unicodedata.category(at)[0] in "PSZ":
        return at
    return next((c for c in text if c in _QUOTES), "") if unterminated else ""
