"""From typed destination tables to destinations, each with its one path; and whether every alarm is taken.

A destination whose credentials or certificates cannot be had still runs: the login fails, loudly, and its events
wait. It is set aside only when there is nowhere to connect to, or the way there would be plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.config import findings as found
from gateway.config.findings import Findings, close_to
from gateway.config.positions import KeyPath
from gateway.config.settings import Destination, DestinationPath
from gateway.config.tables import Entry, read_entry, tables
from gateway.errors import SecretError
from gateway.events import wants

PROFILES: Final = ("native",)

# Every type that leaves a gateway (northbound: "Types"), without prefix and version.
EVENT_TYPES: Final = (
    *(
        f"alarm.{verb}"
        for verb in ("raised", "prealarm", "cancelled", "acknowledged", "attended", "escalated", "closed")
    ),
    *(f"device.{verb}" for verb in ("birth", "fault", "restored", "battery", "tamper")),
    *(f"gateway.{verb}" for verb in ("birth", "health", "power", "link", "security", "gap")),
    *(f"telemetry.{verb}" for verb in ("meter", "environment", "vital")),
    "checkin.card",
    "bed.occupancy",
    "command.result",
    "test.completed",
)
_ALARM_TYPES: Final = tuple(noun for noun in EVENT_TYPES if noun.startswith("alarm."))
_WRITABLE: Final = (
    "*",
    *(f"{noun}.*" for noun in dict.fromkeys(t.partition(".")[0] for t in EVENT_TYPES)),
    *EVENT_TYPES,
)


def settle_destinations(
    raw: Mapping[str, object], notes: Findings
) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
    """Return the destinations that run, and those set aside: events must wait for them until they are mended."""
    running: list[Destination] = []
    aside: list[Destination] = []
    typed: list[Destination] = []
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
        path = _path(table, at, notes)
        if entry.fits("types"):
            typed.append(entry.value)
        _types(entry, notes)
        known_profile = not entry.fits("profile") or _profile(entry, notes)
        if path is not None and entry.runs and known_profile and first == at:
            running.append(_with_path(entry.value, path))
        elif entry.fits("id") and first == at:
            aside.append(entry.value)
    if typed:
        _alarms_taken(typed, notes)
    return tuple(running), tuple(aside)


def _with_path(destination: Destination, path: DestinationPath) -> Destination:
    return Destination(
        destination.id,
        destination.profile,
        destination.types,
        destination.finish,
        destination.reconnect_spread_s,
        (path,),
    )


def _profile(entry: Entry[Destination], notes: Findings) -> bool:
    profile = entry.value.profile
    if profile in PROFILES:
        return True
    at = (*entry.at, "profile")
    notes.add(
        found.UNKNOWN_PROFILE, at, effect=found.SET_ASIDE, value=profile, known=PROFILES, **close_to(profile, PROFILES)
    )
    return False


def _types(entry: Entry[Destination], notes: Findings) -> None:
    """Point out patterns that nothing matches. They do no harm beyond what `_alarms_taken` finds."""
    for number, pattern in enumerate(entry.value.types):
        if not any(wants((pattern,), noun) for noun in EVENT_TYPES):
            at = (*entry.at, "types", number)
            notes.add(
                found.BAD_VALUE, at, effect=found.KEPT, value=pattern, expected="@expect.types",
                **close_to(pattern, _WRITABLE),
            )  # fmt: skip


def _alarms_taken(destinations: Sequence[Destination], notes: Findings) -> None:
    untaken = [noun for noun in _ALARM_TYPES if not any(one.takes(noun) for one in destinations)]
    if untaken:
        notes.add(found.ALARMS_UNTAKEN, ("destination",), effect=found.KEPT, types=tuple(untaken))


def _path(table: Mapping[str, object], at: KeyPath, notes: Findings) -> DestinationPath | None:
    """Return the path that is used: the first. Further ones are refused, none is missed."""
    entries = list(tables(table, "path", at, notes))
    if not entries:
        if "path" not in table:
            notes.add(found.MISSING_KEY, (*at, "path"), effect=found.SET_ASIDE, expected="@expect.destination-path")
        return None
    for further, _ in entries[1:]:
        notes.add(found.SECOND_PATH, further, effect=found.KEPT)
    place, raw = entries[0]
    entry = read_entry(DestinationPath, raw, place, notes, vital=frozenset({"url"}), effect=found.SET_ASIDE)
    if not entry.fits("url"):
        return None
    usable = _url(entry, notes)
    _credentials(entry, notes)
    return entry.value if usable else None


def _url(entry: Entry[DestinationPath], notes: Findings) -> bool:
    path = entry.value
    at = (*entry.at, "url")
    try:
        parts = urlsplit(path.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if "@" in path.url:
        notes.add(found.SECRET_IN_URL, at, effect=found.SET_ASIDE)
        return False
    tail = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("mqtt", "mqtts") or not host or port == 0 or tail or not path.url.isprintable():
        notes.add(found.BAD_URL, at, effect=found.SET_ASIDE, value=path.url)
        return False
    if not path.tls and not path.loopback:
        notes.add(found.PLAIN_TEXT_REFUSED, at, effect=found.SET_ASIDE, value=path.url, host=host)
        return False
    return True


def _credentials(entry: Entry[DestinationPath], notes: Findings) -> None:
    path = entry.value
    if path.password is not None:
        try:
            path.password.text()
        except SecretError as refusal:
            notes.add(refusal.code, (*entry.at, "password"), effect=found.KEPT, **refusal.facts)
        else:
            _closed(path.password.path, (*entry.at, "password"), notes, too_open=path.password.too_open)
    for key, file in (("ca_file", path.ca_file), ("cert_file", path.cert_file), ("key_file", path.key_file)):
        if file is not None:
            reason = _unusable(file)
            if reason:
                at = (*entry.at, key)
                notes.add(found.CERTIFICATE_UNUSABLE, at, effect=found.KEPT, path=str(file), reason=reason)
    if path.key_file is not None:
        _closed(path.key_file, (*entry.at, "key_file"), notes, too_open=_open_to_others(path.key_file))
    for one, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(path, one) is not None and getattr(path, other) is None and entry.fits(other):
            notes.add(found.MISSING_KEY, (*entry.at, other), effect=found.KEPT, expected="@expect.path")


def _closed(file: Path, at: KeyPath, notes: Findings, *, too_open: bool) -> None:
    if too_open:
        notes.add(found.SECRET_TOO_OPEN, at, effect=found.KEPT, path=str(file))


def _open_to_others(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o066)
    except OSError:
        return False


def _unusable(file: Path) -> str:
    try:
        if not file.is_file():
            return "@hint.not-a-file" if file.exists() else "@hint.missing"
        with file.open("rb") as opened:
            return "" if opened.read(1) else "@hint.empty"
    except PermissionError:
        return "@hint.no-permission"
    except OSError as error:
        return error.strerror or type(error).__name__
