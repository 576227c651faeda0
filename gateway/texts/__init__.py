"""What people read, in Chinese and English, by key. The texts themselves stand in zh.toml and en.toml beside this file.

A text has {placeholders}. A part in <<double angles>> is left out when a value for it is not known (absent, None or
empty), so that a problem reads well however much its finder knew. A value that is itself a key, marked
"@hint.missing", is replaced by that text; one given in both languages, {"zh": ..., "en": ...}, by the one asked for.
Both files are read at the first use, once: about 80 KiB together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Final

LANGUAGES: Final = ("zh", "en")

_OPTIONAL = re.compile(r"<<(.*?)>>", re.DOTALL)


def text(key: str, lang: str, /, **values: object) -> str:
    """Return the text of `key` in `lang` ("zh" or "en") with its placeholders filled; a value not given shows as "?".

    Raises KeyError for a key or a language that is not there.
    """
    shown = {name: _shown(value, lang, values) for name, value in values.items() if value not in (None, "")}
    return _filled(table(lang)[key], shown)


@cache
def table(lang: str, /) -> Mapping[str, str]:
    """Return all texts of a language by their dotted keys. Raises KeyError for a language that is not there."""
    import tomllib

    if lang not in LANGUAGES:
        raise KeyError(lang)
    source = Path(__file__).with_name(f"{lang}.toml").read_text(encoding="utf-8")
    flat: dict[str, str] = {}
    _flatten(tomllib.loads(source), "", flat)
    return flat


def placeholders(template: str, /) -> frozenset[str]:
    """Return the names of the placeholders in a text as it stands in its file."""
    bare = _OPTIONAL.sub(r"\1", template)
    return frozenset(name for _, name, _, _ in Formatter().parse(bare) if name)


def language(asked: str | None = None, configured: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Choose: what the user asked for, else the configuration, else the locale (zh* is zh, another en), else zh.

    A locale that names no language (unset, C, POSIX) leaves it at Chinese: most of our technicians read it.
    """
    for choice in (asked, configured):
        if choice in LANGUAGES:
            return choice
    locale = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    word = locale.partition(".")[0].lower()
    return "zh" if word in ("", "c", "posix") or word.startswith("zh") else "en"


def _flatten(node: Mapping[str, object], prefix: str, flat: dict[str, str]) -> None:
    for name, value in node.items():
        if isinstance(value, Mapping):
            _flatten(value, f"{prefix}{name}.", flat)
        else:
            flat[f"{prefix}{name}"] = str(value)


def _shown(value: object, lang: str, values: Mapping[str, object]) -> str:
    """Show a value; "@key" stands for another text, filled with the same values. A level deep, so it always ends."""
    if isinstance(value, Mapping):
        return str(value.get(lang, "?"))
    if isinstance(value, str) and value.startswith("@"):
        template = table(lang).get(value[1:])
        if template is not None:
            return _filled(template, {name: str(other) for name, other in values.items()})
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(str(item) for item in value)
    return str(value)


def _filled(template: str, values: Mapping[str, str]) -> str:
    def optional(match: re.Match[str]) -> str:
        return match[1] if placeholders(match[1]) <= values.keys() else ""

    return _OPTIONAL.sub(optional, template).format_map(_Unknown(values))


class _Unknown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
