"""Everything that a driver refuses in a device's options, not only the first thing.

A driver checks its options in its own order and stops at the first that does not fit. To hear of the others, what was
refused is replaced by what fits, taken from the driver's own vectors, or taken out, and the driver is asked again.
Limit: 100 questions a device; each takes microseconds, and they are asked at the start only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from drivers.kit import Advertises, Answers, AnswerVector, BadOption, Driver
from gateway.config.positions import KeyPath

MAX_QUESTIONS: Final = 100

_INDEX: Final = re.compile(r"\[(\d+)\]")
_OUT: Final = object()

Refusal = tuple[KeyPath, BadOption]


def settle_options(driver: Driver, address: str, raw: Mapping[str, object]) -> tuple[object, tuple[Refusal, ...]]:
    """Return what `driver` makes of a device's address and `map`, or None and each refusal with its place."""
    table: object = {"address": address, "map": raw}
    refusals: list[Refusal] = []
    mended: list[KeyPath] = []
    for _ in range(MAX_QUESTIONS):
        try:
            options = _ask(driver, table)
        except BadOption as refusal:
            at = key_path(refusal.key)
            # What lies within, or around, what was mended may be wrong for that only.
            if not any(at[: len(one)] == one[: len(at)] for one in mended):
                refusals.append((at, refusal))
            changed = _mended(table, at, driver, times=mended.count(at))
            if changed is table:
                break
            table = changed
            mended.append(at)
        except Exception:
            if not refusals:
                raise
            break  # of a question that nobody wrote like that
        else:
            return (None if refusals else options), tuple(refusals)
    return None, tuple(refusals)


def key_path(key: str) -> KeyPath:
    """Read a driver's dotted name of an option: "map.signal[0].is" is ("map", "signal", 0, "is")."""
    path: list[str | int] = []
    for part in key.split("."):
        name = _INDEX.sub("", part)
        path += [name] if name else []
        path += [int(index) for index in _INDEX.findall(part)]
    return tuple(path)


def _ask(driver: Driver, table: object) -> object:
    assert isinstance(table, Mapping)  # noqa: S101 - what `_replaced` makes of one
    if isinstance(driver, Answers):
        return driver.options(table["address"], table["map"])
    if isinstance(driver, Advertises):
        return driver.configured(table["map"])
    return driver.options(table["map"])


def _mended(table: object, at: KeyPath, driver: Driver, *, times: int) -> object:
    """Return the table with what was refused at `at` replaced or taken out; the same table where nothing is left to try.

    `times`: how often that was tried before. First what fits, then nothing, then the same for the list item around it.
    """
    while at:
        for fitting in _examples(driver, at) if times == 0 else ():
            return _replaced(table, at, fitting)
        if times <= 1 and isinstance(at[-1], str):
            changed = _replaced(table, at, _OUT)
            if changed != table:
                return changed
        items = [length for length in range(1, len(at)) if isinstance(at[length - 1], int)]
        at, times = (at[: items[-1]], 0) if items else ((), 0)
    return table


def _examples(driver: Driver, at: KeyPath) -> Iterator[object]:
    """Yield what stands at `at` in the driver's vectors; the number of an item does not matter."""
    for vector in driver.vectors:
        address = vector.address if isinstance(vector, AnswerVector) else ""
        yield from _found({"address": address, "map": vector.options}, at)


def _found(node: object, at: KeyPath) -> Iterator[object]:
    if not at:
        yield node
    elif isinstance(node, Mapping):
        if at[0] in node:
            yield from _found(node[at[0]], at[1:])
    elif isinstance(node, list) and isinstance(at[0], int):
        for item in node:
            yield from _found(item, at[1:])


def _replaced(node: object, at: KeyPath, value: object) -> object:
    """Return a copy of `node` with `value` at `at`; the rest is shared. `_OUT` takes out what stands there."""
    if not at:
        return value
    key, rest = at[0], at[1:]
    if isinstance(node, Mapping):
        if not rest and value is _OUT:
            return {name: item for name, item in node.items() if name != key}
        return {**node, key: _replaced(node.get(key, {}), rest, value)}
    if isinstance(node, list) and isinstance(key, int) and key < len(node):
        return [*node[:key], _replaced(node[key], rest, value), *node[key + 1 :]]
    return node
