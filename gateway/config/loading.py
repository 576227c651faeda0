"""One TOML file in, settings out, with everything that is wrong found in one go.

Two outcomes. When nobody can know who this gateway is or where its alarms go (no file, no TOML, a broken [gateway],
no [[destination]]) there are no settings. Otherwise what can run runs, and what cannot is set aside and told. Limit:
1 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.config import findings as found
from gateway.config.brokers import settle_brokers
from gateway.config.destinations import settle_destinations
from gateway.config.devices import Catalogue, Site, implied_rooms, settle_devices
from gateway.config.findings import Findings, close_to
from gateway.config.paths import check_secrets
from gateway.config.positions import positions
from gateway.config.settings import Ble, DeviceTable, Gateway, Link, Mqtt, Outbox, Receiver, Room, Serial, Settings
from gateway.config.syntax import explained
from gateway.config.tables import Entry, read_entry, tables
from gateway.errors import ConfigError, Finding

MAX_BYTES: Final = 1024 * 1024

_SECTIONS: Final = ("gateway", "room", "serial", "ble", "receiver", "mqtt", "device", "destination", "outbox")
_UNSTABLE_PORT: Final = re.compile(r"/dev/tty(USB|ACM)\d+")
_SOCKET: Final = re.compile(r"(?:socket|rfc2217)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_HIGHEST_PORT: Final = 65_535
_LASTING_NAMES: Final = (Path("/dev/serial/by-id"), Path("/dev/serial/by-path"))

T = TypeVar("T")


def load(path: Path, *, catalogue: Catalogue | None = None) -> Settings:
    """Return the settings in the file at `path`, findings with them. Raises ConfigError where there can be none."""
    settings, findings = _read(path, catalogue, Findings(str(path), running=True))
    if settings is None:
        raise ConfigError(findings)
    return settings


def inspect(path: Path, *, catalogue: Catalogue | None = None) -> tuple[Settings | None, tuple[Finding, ...]]:
    """Check the file at `path` by hand: return the settings, or None, and everything that is wrong in it."""
    return _read(path, catalogue, Findings(str(path), running=False))


def _read(path: Path, catalogue: Catalogue | None, notes: Findings) -> tuple[Settings | None, tuple[Finding, ...]]:
    raw = _parsed(path, notes)
    if raw is None:
        return None, notes.all()
    settings = _settled(raw, path, catalogue or _drivers(), notes)
    findings = notes.all()
    if settings is None or any(finding.effect == found.FATAL for finding in findings):
        return None, findings
    return settings, findings


def _drivers() -> Catalogue:
    from drivers.kit import catalogue

    return catalogue


def _parsed(path: Path, notes: Findings) -> dict[str, Any] | None:
    import tomllib

    source = _source(path, notes)
    if source is None:
        return None
    try:
        raw = tomllib.loads(source)
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, or a number of thousands of digits.
        notes.add(found.SYNTAX, effect=found.FATAL, **explained(source, error))
        return None
    notes.lines = positions(source)
    return raw


def _source(path: Path, notes: Findings) -> str | None:
    try:
        if not path.is_file():
            if path.exists():
                notes.add(found.FILE_UNREADABLE, effect=found.FATAL, reason="@hint.not-a-file")
            else:
                notes.add(found.FILE_MISSING, effect=found.FATAL)
            return None
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except PermissionError:
        notes.add(found.FILE_UNREADABLE, effect=found.FATAL, reason="@hint.no-permission")
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        notes.add(found.FILE_UNREADABLE, effect=found.FATAL, reason=reason)
        return None
    if len(content) > MAX_BYTES:
        notes.add(found.FILE_UNREADABLE, effect=found.FATAL, reason="@hint.too-large")
        return None
    try:
        # A byte-order mark is what some Windows editors leave; TOML does not know it.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        notes.add(found.NOT_UTF_8, effect=found.FATAL, line=content.count(b"\n", 0, error.start) + 1)
        return None


def _settled(raw: Mapping[str, Any], path: Path, catalogue: Catalogue, notes: Findings) -> Settings | None:
    for key in raw.keys() - set(_SECTIONS):
        notes.add(found.UNKNOWN_KEY, (key,), effect=found.KEPT, **close_to(key, _SECTIONS))
    gateway = _gateway(raw, notes)
    outbox = _outbox(raw, notes)
    rooms = _unique(_entries(Room, raw, "room", notes), notes)
    serial = _unique(_entries(Serial, raw, "serial", notes, vital=frozenset({"port"})), notes)
    serial = [entry for entry in serial if _port(entry, notes)]
    ble = _unique(_entries(Ble, raw, "ble", notes, vital=frozenset({"adapter"})), notes)
    receivers = _unique(_receivers(raw, notes), notes)
    brokers = _unique(settle_brokers(raw, notes), notes)
    links = _links(
        [*_unique(serial, notes, key="port"), *_unique(ble, notes, key="adapter"), *receivers, *brokers], notes
    )
    site = Site(
        links,
        _named(raw, ("serial", "ble", "receiver", "mqtt")) - links.keys(),
        {room.value.id: room.value for room in rooms},
    )
    devices = settle_devices(
        _entries(DeviceTable, raw, "device", notes, vital=frozenset({"address", "map"})), site, catalogue, notes
    )
    if not devices:
        written = raw.get("device")
        count = len(written) if isinstance(written, list) else 0
        hint = {"hint": "@hint.devices-aside", "count": count} if count else {"hint": "@hint.no-device"}
        notes.add(found.NO_DEVICES, effect=found.KEPT, **hint)
    destinations, aside = settle_destinations(raw, notes)
    if gateway is None:
        return None
    return Settings(
        gateway=gateway,
        rooms=implied_rooms(devices, tuple(site.rooms.values())),
        serial=tuple(link for link in links.values() if isinstance(link, Serial)),
        ble=tuple(link for link in links.values() if isinstance(link, Ble)),
        receivers=tuple(link for link in links.values() if isinstance(link, Receiver)),
        mqtt=tuple(link for link in links.values() if isinstance(link, Mqtt)),
        devices=devices,
        destinations=destinations,
        outbox=outbox,
        path=path,
        findings=notes.all(),
        set_aside_destinations=aside,
    )


def _gateway(raw: Mapping[str, Any], notes: Findings) -> Gateway | None:
    table = raw.get("gateway", {})
    if not isinstance(table, dict):
        notes.add(found.BAD_VALUE, ("gateway",), effect=found.FATAL, expected="@expect.table")
        return None
    vital = frozenset({"id", "org", "site", "org_path", "data_dir"})
    entry = read_entry(Gateway, table, ("gateway",), notes, vital=vital, effect=found.FATAL)
    return entry.value if entry.runs else None


def _outbox(raw: Mapping[str, Any], notes: Findings) -> Outbox:
    table = raw.get("outbox", {})
    if not isinstance(table, dict):
        notes.add(found.BAD_VALUE, ("outbox",), effect=found.KEPT, expected="@expect.table")
        return Outbox()
    return read_entry(Outbox, table, ("outbox",), notes, vital=frozenset(), effect=found.KEPT).value


def _entries(
    kind: type[T], raw: Mapping[str, Any], key: str, notes: Findings, *, vital: frozenset[str] = frozenset()
) -> list[Entry[T]]:
    listed = tables(raw, key, (), notes)
    return [read_entry(kind, table, at, notes, vital=vital, effect=found.SET_ASIDE) for at, table in listed]


def _unique(entries: Iterable[Entry[T]], notes: Findings, *, key: str = "id") -> list[Entry[T]]:
    """Return the entries that run and whose `key` no earlier one has."""
    kept: list[Entry[T]] = []
    owners: dict[object, Entry[T]] = {}
    for entry in entries:
        if not entry.fits(key):
            continue
        value = getattr(entry.value, key)
        owner = owners.setdefault(value, entry)
        if owner is not entry:
            line = notes.line((*owner.at, key))
            notes.add(found.DUPLICATE, (*entry.at, key), effect=found.SET_ASIDE, value=value, other_line=line)
        elif entry.runs:
            kept.append(entry)
    return kept


def _receivers(raw: Mapping[str, Any], notes: Findings) -> list[Entry[Receiver]]:
    entries = _entries(Receiver, raw, "receiver", notes, vital=frozenset({"host", "port"}))
    for entry in entries:
        check_secrets(entry, notes)
    return entries


def _links(
    every: Sequence[Entry[Serial] | Entry[Ble] | Entry[Receiver] | Entry[Mqtt]], notes: Findings
) -> dict[str, Link]:  # fmt: skip
    """Return the links that run: one id each."""
    links: dict[str, Link] = {}
    for entry in every:
        if entry.value.id in links:
            line = next(notes.line((*one.at, "id")) for one in every if one.value.id == entry.value.id)
            value = entry.value.id
            notes.add(found.DUPLICATE, (*entry.at, "id"), effect=found.SET_ASIDE, value=value, other_line=line)
        else:
            links[entry.value.id] = entry.value
    return links


def _named(raw: Mapping[str, Any], keys: Iterable[str]) -> frozenset[str]:
    """Every id that the file gives to a link, whether it runs or not."""
    tables_ = [table for key in keys if isinstance(raw.get(key), list) for table in raw[key] if isinstance(table, dict)]
    return frozenset(table["id"] for table in tables_ if isinstance(table.get("id"), str))


def _port(entry: Entry[Serial], notes: Findings) -> bool:
    port = entry.value.port
    at = (*entry.at, "port")
    server = _SOCKET.fullmatch(port)
    if server and 0 < int(server[2]) <= _HIGHEST_PORT:
        return True
    if not port.startswith("/") or not port.isprintable() or ".." in port.split("/"):
        notes.add(found.BAD_PORT, at, effect=found.SET_ASIDE, value=port)
        return False
    if _UNSTABLE_PORT.fullmatch(port):
        stable = _lasting_name(Path(port))
        hint = "@hint.use-by-id" if stable else "@hint.find-by-id"
        notes.add(found.UNSTABLE_PORT, at, effect=found.KEPT, value=port, hint=hint, stable=stable)
    return True


def _lasting_name(port: Path) -> str:
    """Return a name of the port that a restart does not change, "" where the system shows none."""
    for folder in _LASTING_NAMES:
        try:
            for name in sorted(folder.iterdir()):
                if name.samefile(port):
                    return str(name)
        except OSError:
            continue
    return ""
