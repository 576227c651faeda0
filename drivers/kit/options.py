"""Reads a device's `map` table from the configuration: everything that does not fit is a BadOption with its full name.

Names are dotted from the device's table, so that a message can be shown as it is: `map.signal[0].is`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from drivers.kit.observations import BadOption

MAX_NAME = 64


def known_keys(table: Mapping[str, object], *, name: str, allowed: Collection[str]) -> None:
    """Refuse a table with a key that nobody reads: it is a spelling mistake more often than not."""
    for key, value in table.items():
        if key not in allowed:
            raise BadOption(
                f"{name}.{key}", value, f"no such option; known here: {', '.join(sorted(allowed)) or 'none'}"
            )


def text(table: Mapping[str, object], key: str, *, name: str, default: str | None = None) -> str:
    """Read a printable text of at most 64 characters. Without a default it must be there and not be empty."""
    value = table.get(key, default)
    if (
        not isinstance(value, str)
        or len(value) > MAX_NAME
        or not value.isprintable()
        or (default is None and not value)
    ):
        raise BadOption(f"{name}.{key}", value, f"a text of at most {MAX_NAME} characters")
    return value


def choice(table: Mapping[str, object], key: str, *, name: str, among: Collection[str]) -> str:
    """Read one of the given words."""
    value = table.get(key)
    if not isinstance(value, str) or value not in among:
        raise BadOption(f"{name}.{key}", value, f"one of {', '.join(among)}")
    return value


def tables(table: Mapping[str, object], key: str, *, name: str, most: int) -> list[tuple[str, Mapping[str, object]]]:
    """Read an array of tables, each with its own dotted name; absent means none. At most `most` of them."""
    value = table.get(key, ())
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > most:
        raise BadOption(f"{name}.{key}", value, f"at most {most} tables [[device.{name}.{key}]]")
    rows: list[tuple[str, Mapping[str, object]]] = []
    for index, row in enumerate(value):
        if not isinstance(row, Mapping):
            raise BadOption(f"{name}.{key}[{index}]", row, f"a table [[device.{name}.{key}]]")
        rows.append((f"{name}.{key}[{index}]", row))
    return rows
