"""What people see with `gateway listen`: everything that comes, in words, before it is judged.

It costs nothing while nobody listens. A listener that fails is dropped; the hearing goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from drivers.kit import Advert, Observation, Reading
from gateway.clock import Stamp
from gateway.links.state import HeardAdvert

_log = structlog.get_logger("listen")


@dataclass(frozen=True, slots=True)
class Heard:
    """What came. `device` is empty for strangers, `text` is what it means or why it was refused."""

    link: str
    at: Stamp
    address: str
    device: str
    text: str
    raw: str
    rssi: int | None = None


Listener = Callable[[Heard], None]


class Listeners:
    """Whoever listens now."""

    def __init__(self) -> None:
        self._all: set[Listener] = set()

    def __bool__(self) -> bool:
        """Does anybody listen?"""
        return bool(self._all)

    def add(self, listener: Listener) -> Callable[[], None]:
        """Let somebody listen; return how to end it."""
        self._all.add(listener)
        return lambda: self._all.discard(listener)

    def tell(self, heard: Heard) -> None:
        """Show something to whoever listens."""
        for listener in list(self._all):
            try:
                listener(heard)
            except Exception as bug:  # noqa: BLE001 - nobody who only looks on may stop a call from being taken
                self._all.discard(listener)
                _log.error("a listener was dropped", exc_info=bug)

    def tell_advert(self, heard: HeardAdvert, device: str, said: str | tuple[Observation, ...]) -> None:
        """Show an advert."""
        if self._all:
            advert = heard.advert
            address = advert.address if device else _masked(advert.address)
            self.tell(Heard(heard.link, heard.at, address, device, _in_words(said), _raw(advert), advert.rssi))

    def tell_bytes(
        self, link: str, at: Stamp, *, device: str, address: str, said: str | tuple[Observation, ...], raw: bytes
    ) -> None:
        """Show a frame or a reply."""
        if self._all:
            self.tell(Heard(link, at, address, device, _in_words(said), raw.hex()))


def _in_words(said: str | tuple[Observation, ...]) -> str:
    """Return observations for people."""
    if isinstance(said, str):
        return said
    parts = []
    for one in said:
        channel = f"[{one.channel}]" if one.channel else ""
        if isinstance(one, Reading):
            parts.append(f"{one.quantity}{channel}={one.value}{one.unit}")
        else:
            level = "" if one.level is None else f"={int(one.level)}"
            parts.append(f"{one.kind.value}{channel}{level} {one.code}".rstrip())
    return ", ".join(parts)


def _masked(address: str) -> str:
    """Hide the half of a stranger's address that names the device: the maker's half is enough to recognise a kind."""
    return f"{address[:8]}:··:··:··"


def _raw(advert: Advert) -> str:
    parts = [f"service {key:04x}={value.hex()}" for key, value in advert.service_data.items()]
    parts += [f"maker {key:04x}={value.hex()}" for key, value in advert.manufacturer_data.items()]
    return " ".join(parts)
