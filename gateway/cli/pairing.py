"""`gateway pair`: walks a technician through a new button: press it, check its key against what it says, choose the room.

Nothing is written: what belongs into the configuration is printed, and was read by the configuration's own loader before. A
press is a new counter, or, of a device without one, an advert that calls after `STILL_S` without. What sends by itself again
and again looks the same where it is encrypted, so whoever pairs confirms the address that is printed on the device.
The key that is typed is shown nowhere, and stays in this process.
Limits: `PRESSES` presses within the time given (60 s); `MAX_SENDERS` senders are counted, `TRIES` tries for a key.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from drivers.kit import Advert, Advertises, Counter, Rejected, Signal, catalogue
from drivers.kit.observations import RAISING
from drivers.kit.recognition import Recognised, recognise
from gateway.cli.devices import written
from gateway.cli.layout import Paper, clean

PRESSES: Final = 3
STILL_S: Final = 1.5
MAX_SENDERS: Final = 256
TRIES: Final = 3
KEPT: Final = 16
_YES: Final = frozenset({"y", "yes", "是", "好", "j"})
_NO_ID: Final = re.compile(r"[^a-z0-9-]+")

Ask = Callable[[str], str]


@dataclass(slots=True)
class Sender:
    """One stranger: what it may be, what it last said, and how often it was pressed."""

    address: str
    link: str
    found: Recognised
    presses: int = 0
    rssi: int | None = None
    counter: Counter | None = None
    called_at: float | None = None
    adverts: list[Advert] = field(default_factory=list)


class Presses:
    """Counts the presses of every stranger that may be a device of ours."""

    def __init__(self, drivers: Iterable[Advertises]) -> None:
        self._drivers = tuple(drivers)
        self.senders: dict[str, Sender] = {}

    def take(self, item: Mapping[str, Any], now: float) -> Sender | None:
        """Take what the daemon heard; return the sender of what is a new press."""
        if item.get("kind") != "advert" or item.get("device"):
            return None
        advert = advert_of(item)
        found = [one for one in recognise(advert, self._drivers) if _may_call(one)] if advert else []
        if advert is None or not found:
            return None
        if advert.address not in self.senders and len(self.senders) >= MAX_SENDERS:
            return None
        first = found[0]
        sender = self.senders.setdefault(advert.address, Sender(advert.address, str(item.get("link", "")), first))
        sender.rssi = advert.rssi
        sender.adverts = [*sender.adverts, advert][-KEPT:]
        if not _is_new(sender, first, now):
            return None
        sender.found = first
        sender.presses += 1
        return sender


def pair(
    paper: Paper, items: Iterator[Mapping[str, Any]], *, config: Path, room: str, name: str, ask: Ask, ask_key: Ask
) -> bool:
    """Walk through it; False when no button was found, or its key is not known. OSError: the configuration."""
    paper.print(paper.say("pair-begin", of=PRESSES))
    sender = wait(paper, items, Presses(callers()))
    if sender is None:
        paper.print(paper.style(paper.say("pair-nobody"), "warning"))
        return False
    driver = sender.found.driver
    if ask(paper.say("pair-is-it", address=sender.address, model=driver.model)).strip().casefold() not in _YES:
        return False
    key = key_of(paper, sender, ask_key) if driver.key_bytes and (sender.found.locked or not driver.plain) else None
    if key is None and sender.found.locked:
        paper.print(paper.style(paper.say("pair-no-key"), "warning"))
    tables = written(config)
    rooms = _rooms(config)
    if not room:
        room = ask(paper.say("pair-room", rooms=", ".join(rooms) or "-")).strip()
    name = name or free_name(room, (str(one.get("id", "")) for one in tables or ()))
    block = table(sender, name=name, room=room, has_key=key is not None or sender.found.locked)
    paper.print(paper.say("pair-paste", file=config))
    paper.print()
    paper.print(block)
    if key is not None or sender.found.locked:
        paper.print(paper.say("pair-store", name=name))
    if tables is None:
        paper.print(paper.style(paper.say("pair-unchecked", file=config), "warning"))
    elif against := findings(config, block):
        paper.print(paper.style(paper.say("pair-against", findings="; ".join(against)), "problem"))
    paper.print(paper.say("pair-then"))
    return True


def _rooms(config: Path) -> list[str]:
    try:
        with config.open("rb") as file:
            rooms = tomllib.loads(file.read().decode("utf-8-sig")).get("room", [])
        return [str(one["id"]) for one in rooms]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []


def ids_of(drivers: Iterable[Advertises]) -> tuple[int, ...]:
    """Return the service and company ids that the vectors of these drivers use, sorted."""
    adverts = [vector.advert for driver in drivers for vector in driver.vectors]
    return tuple(sorted({key for one in adverts for key in (*one.service_data, *one.manufacturer_data)}))


@cache
def on_air() -> tuple[Advertises, ...]:
    """Return the drivers of everything that is heard on the air."""
    found = (catalogue.driver(model) for model in catalogue.models())
    return tuple(one for one in found if isinstance(one, Advertises))


def callers() -> tuple[Advertises, ...]:
    """Return those of them that may call."""
    return tuple(one for one in on_air() if one.may_call)


def advert_of(item: Mapping[str, Any]) -> Advert | None:
    """Read an advert from what the control socket sent; None where it is none."""
    capture = item.get("capture")
    try:
        assert isinstance(capture, Mapping)  # noqa: S101 - told below as what it is: nothing that can be read
        services, makers = (
            {int(key, 16): bytes.fromhex(value) for key, value in capture[name].items()}
            for name in ("service_data", "manufacturer_data")
        )
        rssi = item.get("rssi")
        return Advert(
            clean(capture["mac"]), clean(capture["name"]), rssi if isinstance(rssi, int) else None,
            service_data=services, manufacturer_data=makers,
        )  # fmt: skip
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
        return None


def wait(paper: Paper, items: Iterator[Mapping[str, Any]], presses: Presses) -> Sender | None:
    """Show each press; return the sender of the third. None when what is heard ends before."""
    for item in items:
        sender = presses.take(item, time.monotonic())
        if sender is None:
            continue
        title = sender.found.driver.title
        paper.print(
            paper.say(
                "pair-press", count=sender.presses, of=PRESSES, address=sender.address, model=sender.found.driver.model,
                name=title.zh if paper.lang == "zh" else title.en, rssi="-" if sender.rssi is None else sender.rssi,
            )
        )  # fmt: skip
        paper.out.flush()
        if sender.presses >= PRESSES:
            return sender
    return None


def opens(sender: Sender, key: bytes) -> bool:
    """Does a key open what the device has said?"""
    for advert in reversed(sender.adverts):
        try:
            decoded = sender.found.driver.decode(advert, key)
        except Rejected:
            continue
        if decoded.authenticated or (sender.found.locked and decoded.observations):
            return True
    return False


def key_of(paper: Paper, sender: Sender, ask: Ask) -> bytes | None:
    """Ask for the key until one fits, `TRIES` times; None where none did, or nothing was typed."""
    driver = sender.found.driver
    read = driver.read_key or bytes.fromhex
    for _ in range(TRIES):
        typed = ask(paper.say("pair-key", digits=2 * (driver.key_bytes or 0))).strip()
        if not typed:
            return None
        try:
            key = read(typed)
        except ValueError:
            paper.print(paper.style(paper.say("pair-key-unreadable"), "warning"))
            continue
        if len(key) == driver.key_bytes and opens(sender, key):
            paper.print(paper.style(paper.say("pair-key-fits"), "good"))
            return key
        paper.print(paper.style(paper.say("pair-key-wrong"), "problem"))
    return None


def table(sender: Sender, *, name: str, room: str, has_key: bool) -> str:
    """Return the [[device]] to be pasted."""
    driver = sender.found.driver
    lines = ["[[device]]", f'id = "{name}"', f'model = "{driver.model}"', f'link = "{sender.link}"']
    lines.append(f'address = "{sender.address}"')
    if room:
        lines.append(f'room = "{room}"')
    if has_key:
        lines.append(f'key = "credential:{name}"')
    elif driver.plain and not sender.found.locked:
        lines.append("allow_plain = true")
    return "\n".join(lines) + "\n"


def free_name(room: str, taken: Iterable[str]) -> str:
    """Return an id for a button of a room that no device has."""
    stem = f"call-{_NO_ID.sub('-', room.lower()).strip('-') or 'new'}"[:60]
    known = set(taken)
    return next(name for n in range(1, len(known) + 2) if (name := f"{stem}-{n}") not in known)


def findings(config: Path, block: str) -> list[str]:
    """Return what the loader says against the configuration with `block` at its end, and not against it as it is."""
    from gateway.config import inspect

    text = config.read_text(encoding="utf-8-sig")
    _settings, before = inspect(config)
    with NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as copy:  # readable by its owner only
        copy.write(f"{text.rstrip()}\n\n{block}")
        copy.flush()
        _settings, after = inspect(Path(copy.name))
    known = {(one.code, one.where) for one in before}
    return [f"{one.code} {one.where}" for one in after if (one.code, one.where) not in known and not _of_key(one.where)]


def _of_key(where: str) -> bool:
    """Is it about a key, whose file is still to be made?"""
    return where.endswith(".key")


def _may_call(one: Recognised) -> bool:
    return not one.harmless and one.driver.options is None and (one.locked or bool(one.said) or one.counter is not None)


def _calls(one: Recognised) -> bool:
    return any(
        isinstance(seen, Signal) and seen.kind in RAISING and seen.level is not False and seen.code != "none"
        for seen in one.said
    )


def _is_new(sender: Sender, found: Recognised, now: float) -> bool:
    """Is it a press, and another one than before?"""
    if found.counter is not None and (found.locked or _calls(found)):
        is_new = sender.counter is None or found.counter.value != sender.counter.value
        sender.counter = found.counter
        return is_new
    if not _calls(found):
        return False
    last, sender.called_at = sender.called_at, now
    return last is None or now - last >= STILL_S
