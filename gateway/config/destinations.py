"""From typed destination tables to destinations with their paths; and whether every alarm reaches one that runs.

A destination is set aside when nobody can know what it is (id, profile) or none of its paths can be used; its events
wait. Types that cannot be read give way to everything: a destination gets too much rather than no alarm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.config import findings as found
from gateway.config.findings import Findings, close_to
from gateway.config.paths import settle_paths
from gateway.config.positions import KeyPath
from gateway.config.profiles import finish_of, paths_fit_for, profile_of
from gateway.config.settings import Destination
from gateway.config.tables import Entry, read_entry, tables
from gateway.events import wants
from gateway.profiles import NATIVE, load_profile

# Every type that leaves a gateway (northbound: "Types"), without prefix and version.
EVENT_TYPES: Final = (
    *(
        f"alarm.{verb}"
        for verb in ("raised", "prealarm", "cancelled", "acknowledged", "attended", "escalated", "closed")
    ),
    *(f"device.{verb}" for verb in ("birth", "fault", "restored", "battery", "tamper")),
    *(f"gateway.{verb}" for verb in ("birth", "health", "power", "link", "security", "gap", "counts")),
    *(f"telemetry.{verb}" for verb in ("meter", "environment", "vital")),
    "checkin.card",
    "bed.occupancy",
    "sensor.changed",
    "command.result",
    "test.completed",
)
_ALARM_TYPES: Final = tuple(noun for noun in EVENT_TYPES if noun.startswith("alarm."))
WRITABLE_TYPES: Final = (
    "*",
    *(f"{noun}.*" for noun in dict.fromkeys(t.partition(".")[0] for t in EVENT_TYPES)),
    *EVENT_TYPES,
)


def settle_destinations(
    raw: Mapping[str, object], notes: Findings
) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
    """Return the destinations that run, and those set aside: events must wait for them until they are mended."""
    running: dict[KeyPath, Destination] = {}
    aside: list[Destination] = []
    written: dict[KeyPath, Destination] = {}
    ids: dict[str, KeyPath] = {}
    entries = list(tables(raw, "destination", (), notes))
    if not entries:
        notes.add(found.NO_DESTINATION, effect=found.FATAL)
    for at, table in entries:
        entry = read_entry(
            Destination,
            {key: value for key, value in table.items() if key != "path"},
            at,
            notes,
            vital=frozenset({"id", "profile"}),
            effect=found.SET_ASIDE,
        )
        first = ids.setdefault(entry.value.id, at) if entry.fits("id") else at
        if first != at:
            line = notes.line((*first, "id"))
            notes.add(found.DUPLICATE, (*at, "id"), effect=found.SET_ASIDE, value=entry.value.id, other_line=line)
        paths = settle_paths(table, at, notes)
        _types(entry, notes)
        written[at] = entry.value
        profile = profile_of(entry, notes) if entry.fits("profile") else load_profile(NATIVE)
        usable = paths_fit_for(profile, entry, paths, notes, table) if profile else ()
        if usable and profile and entry.runs and first == at:
            running[at] = replace(entry.value, path=usable, finish=finish_of(profile, entry, notes, table))
        elif entry.fits("id") and first == at:
            aside.append(entry.value)
    running = _apart(running, aside, notes)
    if written:
        _alarms_taken(running, written, notes)
    return tuple(running.values()), tuple(aside)


def _apart(
    running: Mapping[KeyPath, Destination], aside: list[Destination], notes: Findings
) -> dict[KeyPath, Destination]:
    """Return the destinations that do not throw each other out: at one broker a gateway has one client id.

    An id for each destination would not do: many brokers bind it to the login, and the topics would be the same all the
    same, so that each would take the acknowledgements of the other for its own. With another login the broker may keep
    them apart, by tenants; that is told and tried.
    """
    kept: dict[KeyPath, Destination] = {}
    logins: dict[tuple[str, int], dict[str, KeyPath]] = {}
    for at, one in running.items():
        paths = []
        for path in one.path:
            there = logins.setdefault((path.host, path.port), {}) if path.transport == "mqtt" else {}
            is_other_login = path.username not in there
            if there:
                other = next(iter(there.values())) if is_other_login else there[path.username]
                notes.add(
                    found.SAME_BROKER, (*at, "path"), effect=found.KEPT if is_other_login else found.SET_ASIDE,
                    value=path.url, other=notes.where(other),
                )  # fmt: skip
            if is_other_login:
                there[path.username] = at
                paths.append(path)
        if paths:
            kept[at] = replace(one, path=tuple(paths))
        else:
            notes.set_aside(at)
            aside.append(one)
    return kept


def _types(entry: Entry[Destination], notes: Findings) -> None:
    """Point out patterns that nothing matches. They do no harm beyond what `_alarms_taken` finds."""
    for number, pattern in enumerate(entry.value.types):
        if not any(wants((pattern,), noun) for noun in EVENT_TYPES):
            at = (*entry.at, "types", number)
            notes.add(
                found.BAD_VALUE, at, effect=found.KEPT, value=pattern, expected="@expect.types",
                **close_to(pattern, WRITABLE_TYPES),
            )  # fmt: skip


def _alarms_taken(
    running: Mapping[KeyPath, Destination], written: Mapping[KeyPath, Destination], notes: Findings
) -> None:
    """Tell which alarms nobody wants, and which are wanted only by destinations that do not run."""
    untaken = _untaken(written.values())
    if untaken:
        notes.add(found.ALARMS_UNTAKEN, ("destination",), effect=found.KEPT, types=untaken)
    waiting = tuple(noun for noun in _untaken(running.values()) if noun not in untaken)
    if waiting:
        wanting = (at for at, one in written.items() if at not in running and any(map(one.takes, waiting)))
        facts: dict[str, Any] = {
            "types": ("alarm.*",) if waiting == _ALARM_TYPES else waiting,
            "destinations": tuple(notes.where(at) for at in wanting),
        }
        notes.add(found.ALARMS_WAIT, ("destination",), effect=found.KEPT, **facts)


def _untaken(destinations: Collection[Destination]) -> tuple[str, ...]:
    return tuple(noun for noun in _ALARM_TYPES if not any(one.takes(noun) for one in destinations))
