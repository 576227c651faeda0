"""From one raw TOML table to one typed value, with a finding for each key that does not fit.

A bad value that has a default gives way to it and the entry runs; without a default, or where the default would mean
something else than was meant (`vital`), the entry is set aside. The rest of a broken entry is still typed, with
stand-ins, so that everything wrong in it is found in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Final, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from gateway.config import findings as found
from gateway.config.findings import Findings, close_to
from gateway.config.positions import KeyPath

T = TypeVar("T")

# Fits every required field that there is: an id, a port, a model, a URL.
_STAND_IN: Final = "x"
_REQUIRED: Final = object()
# Where people paste a secret, or a whole private key, by mistake.
_NEVER_SHOWN: Final = frozenset({"key", "password", "token", "key_file"})


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One typed table. `bad`: keys whose value stands in for what was written. `runs`: nothing vital is among them."""

    at: KeyPath
    value: T
    bad: frozenset[str]
    runs: bool

    def fits(self, key: str) -> bool:
        """Is the value of `key` what was written (or its default), not a stand-in?"""
        return key not in self.bad


def read_entry(
    kind: Callable[..., T],
    raw: Mapping[str, object],
    at: KeyPath,
    notes: Findings,
    *,
    vital: frozenset[str],
    effect: str,
) -> Entry[T]:
    """Type the table `raw` at `at` as `kind`. `effect` is that of a bad vital key: "set-aside" or "fatal"."""
    defaults = _defaults(kind)
    errors = _errors(kind, raw)
    bad = frozenset(str(location[0]) for location, _ in errors)
    for location, error in errors:
        key = str(location[0])
        lost = key in vital or defaults.get(key) is _REQUIRED
        _report(kind, raw, at, location, error, notes, effect if lost else found.KEPT)
    kept = {key: value for key, value in raw.items() if key not in bad}
    stand_ins = {key: _STAND_IN for key in bad if defaults.get(key) is _REQUIRED}
    value = _adapter(kind).validate_python({**kept, **stand_ins})
    lost_keys = bad & (vital | stand_ins.keys())
    return Entry(at, value, bad & defaults.keys(), runs=not lost_keys)


def tables(
    raw: Mapping[str, object], key: str, at: KeyPath, notes: Findings
) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the entries of an array of tables with their key paths; a finding where it is something else."""
    listed = raw.get(key, [])
    if not isinstance(listed, list):
        notes.add(found.BAD_VALUE, (*at, key), effect=found.SET_ASIDE, expected="@expect.tables")
        return
    for number, entry in enumerate(listed):
        place: KeyPath = (*at, key, number)
        if isinstance(entry, dict):
            if isinstance(entry.get("id"), str):
                notes.ids[place] = str(entry["id"])[:64]
            yield place, entry
        else:
            notes.add(found.BAD_VALUE, place, effect=found.SET_ASIDE, expected="@expect.tables")


def _errors(kind: Callable[..., Any], raw: Mapping[str, object]) -> list[tuple[tuple[str | int, ...], str]]:
    try:
        _adapter(kind).validate_python(raw)
    except ValidationError as refusal:
        listed = refusal.errors(include_url=False, include_context=False, include_input=False)
        first: dict[tuple[str | int, ...], str] = {}
        for error in listed:  # a union reports each of its branches
            first.setdefault(_location(error["loc"], raw), error["type"])
        items = {location[0] for location in first if len(location) > 1}
        # What is wrong with a list as a whole follows from what is wrong with its items.
        return [(location, error) for location, error in first.items() if len(location) > 1 or location[0] not in items]
    return []


def _location(location: tuple[str | int, ...], raw: Mapping[str, object]) -> tuple[str | int, ...]:
    """Keep what leads to something in the table: pydantic appends the branches of unions."""
    first = str(location[0])
    value = raw.get(first)
    if len(location) > 1 and isinstance(location[1], int) and isinstance(value, list):
        return (first, location[1])
    return (first,)


def _report(
    kind: Callable[..., Any],
    raw: Mapping[str, object],
    at: KeyPath,
    location: tuple[str | int, ...],
    error: str,
    notes: Findings,
    effect: str,
) -> None:
    key = str(location[0])
    names = _defaults(kind)
    if key not in names:
        notes.add(found.UNKNOWN_KEY, (*at, key), effect=found.KEPT, **close_to(key, names))
        return
    expected = f"@expect.{_description(kind, key)}"
    if error == "missing":
        notes.add(found.MISSING_KEY, (*at, key), effect=effect, expected=expected)
    elif error == "secret_reference":
        notes.add(found.BAD_REFERENCE, (*at, key), effect=effect)
    else:
        value = raw[key]
        if len(location) > 1 and isinstance(value, list):
            value = value[int(location[1])]
        default = names[key] if effect == found.KEPT else None
        shown = found.show(default) if isinstance(default, (str, int, float)) else None
        facts: dict[str, Any] = {"expected": expected, "default": shown}
        if key not in _NEVER_SHOWN:
            facts["value"] = value
        notes.add(found.BAD_VALUE, (*at, *location), effect=effect, **facts)


@cache
def _adapter(kind: Callable[..., T]) -> TypeAdapter[T]:
    return TypeAdapter(cast("type[T]", kind))


@cache
def _defaults(kind: Any) -> Mapping[str, object]:
    """The keys of a table and their defaults."""
    return {
        item.name: _REQUIRED if item.default is MISSING and item.default_factory is MISSING else item.default
        for item in fields(kind)
    }


def _description(kind: Any, key: str) -> str:
    return str(kind.__pydantic_fields__[key].description)
