"""From typed device tables to devices with driver, options and key; everything that cannot run is set aside.

People's safety rules here: a device is never silenced by its key. With a key that cannot be had it runs without one,
and where it may call, what cannot be decrypted raises an unverified call. A device whose room nobody wrote down runs
too. On a serial line that cannot serve everybody, what speaks by itself goes before what is polled, then the first in
the file goes before the later ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

from drivers.kit import RAISABLE, Advertises, Answers, BadOption, Decoded, Driver, LineSettings, Streams
from gateway.config import findings as found
from gateway.config.findings import Findings, close_to
from gateway.config.options import settle_options
from gateway.config.positions import KeyPath
from gateway.config.secret import Secret
from gateway.config.settings import Ble, Device, DeviceTable, Link, Mqtt, Receiver, Room, Serial
from gateway.config.tables import Entry
from gateway.errors import SecretError

_RAISABLE: Final = tuple(sorted(kind.value for kind in RAISABLE))
_AIR: Final = ""
_LINE_KEYS: Final = ("baud", "bits", "parity", "stop")
_BLE_ADDRESS: Final = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}")


class Catalogue(Protocol):
    """Where drivers are found: `drivers.kit.catalogue`, or another of the same form."""

    def driver(self, model: str) -> Driver:
        """Return the driver of a model that is among `models`."""

    def models(self) -> tuple[str, ...]:
        """Return the names of all models."""


@dataclass(frozen=True, slots=True)
class Site:
    """What devices refer to. `links` are those that run; `set_aside` are the ids of links that do not."""

    links: Mapping[str, Link]
    set_aside: frozenset[str]
    rooms: Mapping[str, Room]


def settle_devices(
    entries: Sequence[Entry[DeviceTable]], site: Site, catalogue: Catalogue, notes: Findings
) -> tuple[Device, ...]:
    """Return the devices that run, in the order of the file."""
    placed: list[tuple[KeyPath, Device]] = []
    ids: dict[str, KeyPath] = {}
    for entry in entries:
        desk = _Desk(entry, site, catalogue, notes)
        device = desk.settle()
        first = ids.setdefault(entry.value.id, entry.at) if entry.fits("id") else entry.at
        if first != entry.at:
            line = notes.line((*first, "id"))
            value = entry.value.id
            notes.add(found.DUPLICATE, (*entry.at, "id"), effect=found.SET_ASIDE, value=value, other_line=line)
        elif device is not None:
            placed.append((entry.at, device))
    return _without_conflicts(_without_twins(placed, notes), site, notes)


class _Desk:
    """Settles one device: each question is asked even where an earlier one was answered badly."""

    def __init__(self, entry: Entry[DeviceTable], site: Site, catalogue: Catalogue, notes: Findings) -> None:
        self._entry = entry
        self._table = entry.value
        self._site = site
        self._catalogue = catalogue
        self._notes = notes
        self._runs = entry.runs

    def settle(self) -> Device | None:
        """Return the device, or None when it cannot run."""
        driver = self._driver()
        self._link(driver)
        address = self._address(driver)
        self._place()
        self._calls()
        self._alarms()
        options = None
        key = None
        if driver is not None:
            options = self._options(driver)
            key = self._key(driver)
            if isinstance(driver, Streams | Answers) and driver.keyed is not None and self._runs:
                options = driver.keyed(options, key)
            self._pointless(driver)
        if driver is None or not self._runs:
            return None
        table = {item.name: getattr(self._table, item.name) for item in fields(self._table)}
        if isinstance(options, Advertises):
            driver, options = options, None
        return Device(**{**table, "address": address}, driver=driver, options=options, key_bytes=key)

    def _note(self, code: str, key: str | KeyPath, *, effect: str = found.SET_ASIDE, **facts: Any) -> None:
        if effect == found.SET_ASIDE:
            self._runs = False
        at = (*self._entry.at, key) if isinstance(key, str) else (*self._entry.at, *key)
        self._notes.add(code, at, effect=effect, **facts)

    def _driver(self) -> Driver | None:
        if not self._entry.fits("model"):
            return None
        model = self._table.model
        models = self._catalogue.models()
        if model in models:
            return self._catalogue.driver(model)
        self._note(found.UNKNOWN_MODEL, "model", value=model, known=models, **close_to(model, models))
        return None

    def _link(self, driver: Driver | None) -> None:
        if not self._entry.fits("link"):
            return
        name = self._table.link
        link = self._site.links.get(name)
        aside = name in self._site.set_aside and link is None
        radios = sorted(one for one, other in self._site.links.items() if _carries(other, Ble))
        if isinstance(driver, Advertises) and link is None and radios:
            # Whichever radio was meant: those that run may hear it, and then a press is an alarm.
            hint = {} if aside else close_to(name, tuple(self._site.links))
            self._note(found.OTHER_RADIOS, "link", effect=found.KEPT, value=name, radios=radios, **hint)
        elif aside:
            self._note(found.LINK_SET_ASIDE, "link", value=name)
        elif link is None:
            known = tuple(self._site.links)
            self._note(found.UNKNOWN_LINK, "link", value=name, known=known or "-", **close_to(name, known))
        elif driver is not None and not _carries(link, needed := _link_of(driver)):
            table = {Ble: "[[ble]]", Mqtt: "[[mqtt]]", Serial: "[[serial]]"}[needed]
            self._note(found.WRONG_LINK, "link", value=name, model=driver.model, needed=table)

    def _address(self, driver: Driver | None) -> str:
        address = self._table.address.strip()
        if isinstance(driver, Streams) and self._entry.fits("address"):
            self._sender(driver, address)
        if not isinstance(driver, Advertises) or not self._entry.fits("address"):
            return address
        if not address:
            if driver.identify is not None:
                return ""
            self._note(found.MISSING_KEY, "address", expected="A4:C1:38:56:53:84")
        elif not _BLE_ADDRESS.fullmatch(address.upper()):
            self._note(found.BAD_BLE_ADDRESS, "address", value=address)
        return address.upper()

    def _sender(self, driver: Streams, address: str) -> None:
        """What is heard through a receiver of radio needs its address: without one only the receiver itself is meant."""
        if not driver.radio or address or (driver.poll is not None and not self._table.map):
            return
        vectors = (one.expect for one in driver.vectors if isinstance(one.expect, Decoded))
        example = next((one.address for one in vectors if one.address), "?")
        self._note(found.MISSING_KEY, "address", expected=example)

    def _place(self) -> None:
        table = self._table
        if not table.room:
            return
        room = self._site.rooms.get(table.room)
        if room is None:
            hint = close_to(table.room, self._site.rooms)
            self._note(found.UNKNOWN_ROOM, "room", effect=found.KEPT, value=table.room, **hint)
        elif table.bed and room.beds and table.bed not in room.beds:
            facts: dict[str, Any] = {"room": room.id, "known": room.beds, **close_to(table.bed, room.beds)}
            self._note(found.UNKNOWN_BED, "bed", effect=found.KEPT, value=table.bed, **facts)

    def _calls(self) -> None:
        if self._table.calls_on == ():
            self._note(found.NO_CALLS, "calls_on", effect=found.KEPT)
        elif "none" in (self._table.calls_on or ()):
            self._note(
                found.BAD_VALUE, "calls_on", effect=found.KEPT, value=list(self._table.calls_on or ()),
                expected="@expect.calls-on",
            )  # fmt: skip

    def _alarms(self) -> None:
        unknown = [word for word in self._table.alarms_on if word not in _RAISABLE]
        if unknown:
            self._note(
                found.BAD_VALUE, "alarms_on", effect=found.KEPT, value=unknown, expected="@expect.alarms-on",
                **close_to(unknown[0], _RAISABLE),
            )  # fmt: skip

    def _options(self, driver: Driver) -> object:
        facts: dict[str, Any] = {"model": driver.model}
        raw = self._table.map
        if isinstance(driver, Advertises) and driver.options is None:
            if raw:
                self._note(found.NO_EFFECT, "map", effect=found.KEPT, reason="@hint.no-options", **facts)
            return None
        try:
            options, refusals = settle_options(driver, self._table.address.strip(), raw)
        except Exception as bug:  # noqa: BLE001 - one device's options must not keep a whole house from being heard
            error = f"{type(bug).__name__}: {bug}"[:200]
            self._note(found.BAD_OPTION, "map", expected="@hint.driver-error", error=error, **facts)
            return None
        for at, refusal in refusals:
            if self._entry.fits(str(at[0])):
                self._note(found.BAD_OPTION, at, value=refusal.value, expected=_expected(refusal), **facts)
        if isinstance(driver, Streams) and driver.topics is not None and not refusals and self._entry.fits("address"):
            self._topics(driver, options)
        return options

    def _topics(self, driver: Streams, options: object) -> None:
        """Ask what the device speaks under: the address of one on a broker is a topic."""
        assert driver.topics is not None  # noqa: S101 - as its caller has seen
        try:
            driver.topics(self._table.address.strip(), options)
        except BadOption as refusal:
            facts: dict[str, Any] = {"value": refusal.value, "expected": _expected(refusal), "model": driver.model}
            self._note(found.BAD_OPTION, refusal.key, **facts)

    def _key(self, driver: Driver) -> bytes | None:
        """Read the key. Where it cannot be had the device runs without it."""
        reference = self._table.key
        if driver.key_bytes is None:
            if reference is not None:
                self._note(found.NO_EFFECT, "key", effect=found.KEPT, reason="@hint.no-key-model", model=driver.model)
            if isinstance(driver, Advertises):
                self._plain(driver)
            return None
        if reference is None:
            if not isinstance(driver, Advertises):
                return None
            if not driver.plain:
                self._note(found.KEY_NEEDED, "key", effect=found.KEPT, model=driver.model)
            elif self._entry.fits("key"):
                self._plain(driver)
            return None
        try:
            content = reference.read()
        except SecretError as refusal:
            self._note(refusal.code, "key", effect=found.KEPT, **refusal.facts)
            return None
        if reference.too_open:
            self._note(found.SECRET_TOO_OPEN, "key", effect=found.KEPT, path=str(reference.home))
        read = (driver.read_key if isinstance(driver, Advertises) else None) or bytes.fromhex
        return self._key_bytes(reference, content, length=driver.key_bytes, read=read)

    def _key_bytes(
        self, reference: Secret, content: bytes, *, length: int, read: Callable[[str], bytes]
    ) -> bytes | None:  # fmt: skip
        facts: dict[str, Any] = {
            "effect": found.KEPT,
            "length_needed": length,
            "digits": 2 * length,
            "path": str(reference.home),
        }
        try:
            key = read(content.decode("ascii").strip())
        except ValueError:
            self._note(found.BAD_KEY, "key", reason="@hint.key-not-hex", **facts)
            return None
        if len(key) != length:
            self._note(found.BAD_KEY, "key", reason="@hint.key-length", length=len(key), **facts)
            return None
        return key

    def _plain(self, driver: Advertises) -> None:
        """Plain text needs a word from whoever configures it: anybody can imitate such a device."""
        if not self._table.allow_plain and self._entry.fits("allow_plain"):
            effect = found.KEPT if driver.may_call else found.SET_ASIDE
            self._note(found.PLAIN_NOT_ALLOWED, "allow_plain", effect=effect, model=driver.model)

    def _pointless(self, driver: Driver) -> None:
        facts: dict[str, Any] = {"effect": found.KEPT, "model": driver.model}
        if self._table.every_s is not None and isinstance(driver, Streams) and driver.poll is None:
            self._note(found.NO_EFFECT, "every_s", reason="@hint.not-polled", **facts)
        if any(getattr(self._table, name) is not None for name in _LINE_KEYS) and not isinstance(driver, Answers):
            name = next(name for name in _LINE_KEYS if getattr(self._table, name) is not None)
            self._note(found.NO_EFFECT, name, reason="@hint.not-asked", **facts)
        for name in ("ct", "pt"):
            if getattr(self._table, name) != 1 and isinstance(driver, Advertises):
                self._note(found.NO_EFFECT, name, reason="@hint.not-asked", **facts)
        if self._table.allow_plain and not isinstance(driver, Advertises):
            self._note(found.NO_EFFECT, "allow_plain", reason="@hint.not-radio", **facts)


def _link_of(driver: Driver) -> type[Ble] | type[Mqtt] | type[Serial]:
    if isinstance(driver, Advertises):
        return Ble
    return Mqtt if isinstance(driver, Streams) and driver.topics is not None else Serial


def _carries(link: Link | None, needed: type[Ble] | type[Mqtt] | type[Serial]) -> bool:
    """Can what needs a kind of link be heard on this one? A receiver that publishes adverts is a radio, too."""
    is_radio = isinstance(link, Ble | Receiver) or (isinstance(link, Mqtt) and bool(link.adverts))
    return is_radio if needed is Ble else isinstance(link, needed)


def _without_twins(placed: list[tuple[KeyPath, Device]], notes: Findings) -> list[tuple[KeyPath, Device]]:
    """Set aside what has the link and address (or the identity) of an earlier device. Names on a stream keep their case.

    What is heard on the air has no link of its own: there the address alone must differ.
    """
    kept: list[tuple[KeyPath, Device]] = []
    owners: dict[tuple[str, str], str] = {}
    for at, device in placed:
        names = _known_by(device)
        # Every radio hears for every device: one address on two of them is one device, and one press of it two alarms.
        where = _AIR if isinstance(device.driver, Advertises) else device.link
        taken = next((name for name in names if (where, name) in owners), None)
        if taken is None:
            owners.update({(where, name): device.id for name in names})
            kept.append((at, device))
        else:
            facts: dict[str, Any] = {"link": device.link, "other": owners[where, taken]}
            key = "address" if device.address or not isinstance(device.driver, Advertises) else "map"
            notes.add(found.DUPLICATE_ADDRESS, (*at, key), effect=found.SET_ASIDE, value=taken, **facts)
    return kept


def _known_by(device: Device) -> tuple[str, ...]:
    """Return what a device is found by on its link: its address, or who its adverts say that they are."""
    driver = device.driver
    if isinstance(driver, Advertises) and not device.address and driver.identities:
        return tuple(sorted(driver.identities))
    return (device.address if isinstance(driver, Streams) else device.address.upper(),)


def _without_conflicts(placed: list[tuple[KeyPath, Device]], site: Site, notes: Findings) -> tuple[Device, ...]:
    """Set aside what cannot share its serial line with those that have it already."""
    refused: set[str] = set()
    for name, link in site.links.items():
        if not isinstance(link, Serial):
            continue
        sharers = [(at, device) for at, device in placed if device.link == name]
        # Stable: those that speak by themselves first, each kind in the order of the file.
        sharers.sort(key=lambda pair: not isinstance(pair[1].driver, Streams))
        holders: list[Device] = []
        for at, device in sharers:
            facts = _conflict(device, holders, link)
            if facts is None:
                holders.append(device)
                continue
            refused.add(device.id)
            notes.add(found.LINE_CONFLICT, (*at, "link"), effect=found.SET_ASIDE, value=name, link=name, **facts)
    return tuple(device for _, device in placed if device.id not in refused)


def _conflict(device: Device, holders: Sequence[Device], link: Serial) -> dict[str, Any] | None:
    """Return why `device` cannot join the holders of a line, as facts; None when it can."""
    if not holders:
        return None
    first = holders[0]
    ours, theirs = device.driver, first.driver
    if isinstance(ours, Advertises) or isinstance(theirs, Advertises):
        return None
    facts: dict[str, Any] = {"other": first.id, "model": device.model}
    if isinstance(ours, Streams) != isinstance(theirs, Streams):
        return {**facts, "reason": "@hint.mixed-line"}
    if isinstance(ours, Streams) and isinstance(theirs, Streams):
        if ours.framer is not theirs.framer:
            return {**facts, "reason": "@hint.other-framing"}
        if ours.address_of is None or theirs.address_of is None:
            return {**facts, "reason": "@hint.cannot-share"}
    wants, has = device.line(link), first.line(link)
    # A port that can be set is set anew between two who are asked; what is behind a raw socket nobody can set from here.
    resets = isinstance(ours, Answers) and not link.port.startswith("socket:")
    if wants is not None and has is not None and wants != has and not resets:
        return {**facts, "reason": "@hint.other-settings", "wants": _settings(wants), "has": _settings(has)}
    return None


def implied_rooms(devices: Sequence[Device], rooms: Sequence[Room]) -> tuple[Room, ...]:
    """Return the rooms with those added that only devices name: an alarm from an unlisted room is still an alarm."""
    known = {room.id: room for room in rooms}
    for device in devices:
        if device.room:
            known.setdefault(device.room, Room(device.room))
    return tuple(known.values())


def _settings(line: LineSettings) -> str:
    return f"{line.baud} {line.bits}{line.parity}{line.stop}"


def _expected(refusal: BadOption) -> dict[str, str]:
    """What fits, in the driver's words: adding a device must not need a change of `texts`."""
    return {"zh": refusal.zh, "en": refusal.expected}
