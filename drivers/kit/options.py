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
            names = ", ".join(sorted(allowed))
            raise BadOption(
                f"{name}.{key}",
                value,
                f"no such option; known here: {names or 'none'}",
                zh=f"没有这个选项，只有 {names}" if names else "这里没有选项",
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
        expected = f"a text of at most {MAX_NAME} characters"
        raise BadOption(f"{name}.{key}", value, expected, zh=f"一段文字，最多 {MAX_NAME} 个字符")
    return value


def number(
    table: Mapping[str, object], key: str, *, name: str, least: float, most: float, default: float | None = None
) -> float:
    """Read a number from `least` to `most`; where these are whole numbers, a whole one. Without a default it must be there."""
    value = table.get(key, default)
    whole = isinstance(least, int)
    kinds = int if whole else (int, float)
    # `bool` is an `int` in Python, and NaN is within no bounds.
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        kind, zh = ("a whole number", "整数") if whole else ("a number", "数")
        expected = f"{kind} from {least:g} to {most:g}"
        raise BadOption(f"{name}.{key}", value, expected, zh=f"{least:g} 到 {most:g} 的{zh}")
    return value


def choice(table: Mapping[str, object], key: str, *, name: str, among: Collection[str]) -> str:
    """Read one of the given words."""
    value = table.get(key)
    if not isinstance(value, str) or value not in among:
        words = ", ".join(among)
        raise BadOption(f"{name}.{key}", value, f"one of {words}", zh=f"{words} 之一")
    return value


def words(
    table: Mapping[str, object], key: str, *, name: str, allowed: Collection[str], among: Collection[str]
) -> dict[str, str]:
    """Read a table that says of some of the allowed names which of the given words each means; absent means none."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        example = f'{{ {next(iter(allowed))} = "{next(iter(among))}" }}'
        raise BadOption(f"{name}.{key}", value, f"a table, such as {example}", zh=f"一张表，例如 {example}")
    known_keys(value, name=f"{name}.{key}", allowed=allowed)
    return {one: choice(value, one, name=f"{name}.{key}", among=among) for one in value}


def tables(table: Mapping[str, object], key: str, *, name: str, most: int) -> list[tuple[str, Mapping[str, object]]]:
    """Read an array of tables, each with its own dotted name; absent means none. At most `most` of them."""
    value = table.get(key, ())
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > most:
        header = f"[[device.{name}.{key}]]"
        raise BadOption(f"{name}.{key}", value, f"at most {most} tables {header}", zh=f"最多 {most} 个 {header}")
    rows: list[tuple[str, Mapping[str, object]]] = []
    for index, row in enumerate(value):
        if not isinstance(row, Mapping):
            header = f"[[device.{name}.{key}]]"
            raise BadOption(f"{name}.{key}[{index}]", row, f"a table {header}", zh=f"一张表，写成 {header}")
        rows.append((f"{name}.{key}[{index}]", row))
    return rows
