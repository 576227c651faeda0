"""From a native event to the words of another platform: templates with {placeholders}, compiled once.

`{data.kind}` is a value of the event; alone in its string it keeps its type. `{data.bed?}` may be absent: its key is then
left out. A key may have placeholders, too. `|ms`, `|s`, `|iso`, `|local` write a time, `|number`, `|text`, `|snake` a value,
`|values` a list of registers as an object, `|enum:NAME` looks a word up in a table. Pure: no IO. Limits: templates nest 8
deep; a text comes out at 64 KiB at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

DEEPEST: Final = 8
LONGEST: Final = 64 * 1024
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+(?:\.[A-Za-z0-9_-]+)*)(\??)((?:\|[a-z]+(?::[a-z_]+)?)*)\}")
ROOTS: Final = frozenset(
    (
        "specversion", "id", "source", "type", "subject", "time", "partitionkey", "correlationid", "recordedtime",
        "expirytime", "datacontenttype", "sequence", "deliveryseq", "streamid", "data", "noun", "gateway", "parameter",
        "message", "events",
    )
)  # fmt: skip
FILTERS: Final = ("ms", "s", "iso", "local", "number", "text", "snake", "values", "enum")
_ABSENT: Final = object()


class MappingError(Exception):
    """An event that a profile cannot say, with what is wrong."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One place in a template. `filters` are pairs of a name and its argument."""

    path: tuple[str, ...]
    is_optional: bool
    filters: tuple[tuple[str, str], ...]

    @property
    def written(self) -> str:
        """The path as it stands in the file."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Words:
    """How values are written: the tables of `|enum`, and the zone of `|local`."""

    tables: Mapping[str, Mapping[str, object]]
    zone: timezone = timezone(timedelta(hours=8))


Text = tuple["str | Placeholder", ...]
Body = Any  # Text, or a mapping, list or plain value that has such in it


def compiled(template: object) -> Body:
    """Return a template with its placeholders found. Raises ValueError with what does not look like one."""
    if isinstance(template, str):
        return _text(template)
    if isinstance(template, Mapping):
        return {_text(name): compiled(part) for name, part in template.items()}
    if isinstance(template, list):
        return [compiled(part) for part in template]
    return template


def _text(template: str) -> Text:
    parts: list[str | Placeholder] = []
    end = 0
    for match in _PLACEHOLDER.finditer(template):
        parts += [template[end : match.start()], _placeholder(match)]
        end = match.end()
    parts.append(template[end:])
    kept = tuple(part for part in parts if part)
    for part in kept:
        if isinstance(part, str) and ("{" in part or "}" in part):
            raise ValueError(template)
    return kept


def _placeholder(match: re.Match[str]) -> Placeholder:
    filters = []
    for one in match[3].split("|")[1:]:
        name, _, argument = one.partition(":")
        filters.append((name, argument))
    return Placeholder(tuple(match[1].split(".")), match[2] == "?", tuple(filters))


def placeholders(body: Body) -> Iterator[Placeholder]:
    """Yield every placeholder of a compiled template."""
    if isinstance(body, Placeholder):
        yield body
    elif isinstance(body, Mapping):
        for name, part in body.items():
            yield from placeholders(name)
            yield from placeholders(part)
    elif isinstance(body, list | tuple):
        for part in body:
            yield from placeholders(part)


def depth(body: Body) -> int:
    """Return how deep a compiled template nests."""
    if isinstance(body, Mapping):
        return 1 + max((depth(part) for part in body.values()), default=0)
    if isinstance(body, list):
        return 1 + max((depth(part) for part in body), default=0)
    return 0


def rendered(body: Body, values: Mapping[str, Any], words: Words) -> Any:
    """Fill a compiled template. Raises MappingError where the event lacks something or has what cannot be written."""
    if isinstance(body, Mapping):
        filled = ((name, rendered(part, values, words)) for name, part in body.items())
        return {rendered_text(name, values, words): value for name, value in filled if value is not _ABSENT}
    if isinstance(body, list):
        return [value for part in body if (value := rendered(part, values, words)) is not _ABSENT]
    if not isinstance(body, tuple):
        return body
    if len(body) == 1 and isinstance(body[0], Placeholder):
        return _value(body[0], values, words)
    return rendered_text(body, values, words)


def rendered_text(text: Text, values: Mapping[str, Any], words: Words) -> str:
    """Fill a compiled text. Raises MappingError."""
    said = ""
    for part in text:
        if isinstance(part, Placeholder):
            value = _value(part, values, words)
            said += "" if value is _ABSENT else _as_text(value)
        else:
            said += part
    if len(said) > LONGEST:
        raise MappingError(f"a text of {len(said)} characters")
    return said


def _value(place: Placeholder, values: Mapping[str, Any], words: Words) -> Any:
    value: Any = values
    for name in place.path:
        value = value.get(name, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is _ABSENT:
            break
    if value is _ABSENT or value is None:
        if place.is_optional:
            return _ABSENT
        raise MappingError(f"the event has no {place.written}")
    for name, argument in place.filters:
        try:
            value = _FILTERS[name](value, argument, words)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise MappingError(f"{place.written}|{name}: {str(error)[:80]}") from error
    return value


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise MappingError(f"a {type(value).__name__} within a text")


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment


def _ms(value: Any, _argument: str, _words: Words) -> int:
    moment = _moment(value)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def _number(value: Any, _argument: str = "", _words: Words | None = None) -> int | float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,24}(\.\d{1,24})?", value):
        raise ValueError(f"not a number: {value!r}"[:60])
    return float(value) if "." in value else int(value)


def _values(value: Any, _argument: str, _words: Words) -> dict[str, int | float]:
    registers: Sequence[Mapping[str, Any]] = value
    return {
        f"{one['quantity']}_{one['channel']}" if one["channel"] else str(one["quantity"]): _number(one["value"])
        for one in registers
    }


def _enum(value: Any, table: str, words: Words) -> object:
    known = words.tables[table]
    word = _as_text(value)
    if word in known:
        return known[word]
    if "default" in known:
        return known["default"]
    raise ValueError(f"{word!r} is not in the table {table}"[:80])


_FILTERS: Final[Mapping[str, Callable[[Any, str, Words], Any]]] = {
    "ms": _ms,
    "s": lambda value, argument, words: _ms(value, argument, words) // 1000,
    "iso": lambda value, _argument, _words: _moment(value).isoformat(timespec="milliseconds"),
    "local": lambda value, _argument, words: f"{_moment(value).astimezone(words.zone):%Y-%m-%d %H:%M:%S}",
    "number": _number,
    "text": lambda value, _argument, _words: _as_text(value),
    "snake": lambda value, _argument, _words: re.sub(r"[^A-Za-z0-9]+", "_", _as_text(value)),
    "values": _values,
    "enum": _enum,
}
