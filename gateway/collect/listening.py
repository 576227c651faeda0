"""What people see with `gateway listen`: everything that comes, with what it means, before it is judged.

It costs nothing while nobody listens. A listener that fails is dropped; the hearing goes on. Whoever is not configured
is a stranger: of an address on the air only the maker's half is handed out, unless somebody pairs a new device: then, of
adverts that carry an id which they name, all of it. Keys are never in it.
Limit: of bytes that belong to no frame the first `MAX_NOISE` are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from drivers.kit import Advert, Decoded, NoReply, Observation, Reading, Rejected
from drivers.kit.redaction import without_keys
from gateway.clock import Stamp, iso
from gateway.collect.desk import Desk
from gateway.links.state import HeardAdvert

MAX_NOISE: Final = 64
ADDRESS_BYTES: Final = 6
# Why nothing is known of it, beside the reasons of the drivers.
STRANGER: Final = "stranger"
NOBODY: Final = "names-nobody"
NOISE: Final = "no-frame"
SILENCE: Final = "no-reply"
NOTHING: Final = "nothing-of-interest"
FAULT: Final = "fault"
# Something in a message that was taken was not: no value there, refused by the device, garbled, or what cannot be.
UNREAD: Final = "value-unread"

_log = structlog.get_logger("listen")

Exchange = Sequence[tuple[bytes, bytes | None]]
"""Each request of a poll with its reply; None: silence."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came. `kind`: advert, frame, poll or noise. `device` is empty for strangers.

    `said` is what it means, `reason` and `detail` why nothing or not all of it does; `capture` the bytes as they came.
    """

    link: str
    at: Stamp
    kind: str
    capture: Mapping[str, object]
    device: str = ""
    model: str = ""
    address: str = ""
    said: tuple[Observation, ...] = ()
    reason: str = ""
    detail: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    rssi: int | None = None

    def item(self) -> dict[str, Any]:
        """Return it as the control socket sends it."""
        return {
            "t": iso(self.at.wall_ms), "link": self.link, "kind": self.kind, "device": self.device, "model": self.model,
            "address": self.address, "rssi": self.rssi, "said": [told(one) for one in self.said],
            "reason": self.reason, "detail": self.detail, "options": self.options, "capture": self.capture,
        }  # fmt: skip


Listener = Callable[[Heard], None]
Said = Decoded | Exception
"""What a driver made of something: what it says, or why it says nothing."""


class Listeners:
    """Whoever listens now."""

    def __init__(self) -> None:
        # With the ids in whose adverts a stranger's whole address is of interest.
        self._all: dict[Listener, frozenset[int]] = {}

    def __bool__(self) -> bool:
        """Does anybody listen?"""
        return bool(self._all)

    def add(self, listener: Listener, *, pairing: frozenset[int] = frozenset()) -> Callable[[], None]:
        """Let somebody listen; return how to end it.

        `pairing`: service and company ids; strangers whose advert carries one are shown with their whole address.
        """
        self._all[listener] = pairing
        return lambda: (self._all.pop(listener, None), None)[1]

    def tell(self, heard: Heard) -> None:
        """Show something to whoever listens."""
        for listener in list(self._all):
            self._tell(listener, heard)

    def _tell(self, listener: Listener, heard: Heard) -> None:
        try:
            listener(heard)
        except Exception as bug:  # noqa: BLE001 - nobody who only looks on may stop a call from being taken
            self._all.pop(listener, None)
            _log.error("a listener was dropped", exc_info=bug)

    def tell_advert(self, heard: HeardAdvert, desk: Desk | None, said: Said | None) -> None:
        """Show an advert."""
        if not self._all:
            return
        advert = heard.advert
        if desk is not None:
            known = {**_known(desk, said), "address": advert.address}
            capture = _advert(advert, advert.address)
            self.tell(Heard(heard.link, heard.at, "advert", capture, rssi=advert.rssi, **known))
            return
        ids = {*advert.service_data, *advert.manufacturer_data}
        for listener, pairing in list(self._all.items()):
            is_whole = not pairing.isdisjoint(ids)
            address = advert.address if is_whole else _masked(advert.address)
            capture = _advert(advert if is_whole else _without_address(advert), address)
            self._tell(
                listener,
                Heard(heard.link, heard.at, "advert", capture, address=address, reason=STRANGER, rssi=advert.rssi),
            )

    def tell_frame(self, link: str, at: Stamp, frame: bytes, *, desk: Desk | None, said: Said | str) -> None:
        """Show a frame of a device that speaks by itself; of a stranger `said` is the address that it names."""
        if not self._all:
            return
        capture = {"bytes": frame.hex()}
        if desk is None:
            address = said if isinstance(said, str) else ""
            reason = STRANGER if address else NOBODY
            self.tell(Heard(link, at, "frame", capture, address=address, reason=reason))
        else:
            self.tell(Heard(link, at, "frame", capture, **_known(desk, said if not isinstance(said, str) else None)))

    def tell_noise(self, link: str, at: Stamp, data: bytes, *, skipped: int) -> None:
        """Show that bytes came which belong to no frame."""
        if self._all:
            capture = {"bytes": data[:MAX_NOISE].hex()}
            self.tell(Heard(link, at, "noise", capture, reason=NOISE, detail=str(skipped)))

    def tell_poll(self, link: str, at: Stamp, exchange: Exchange, *, desk: Desk, said: Said) -> None:
        """Show one poll: what was asked, what came back, and what it means."""
        if self._all and exchange:
            pairs = [[request.hex(), None if reply is None else reply.hex()] for request, reply in exchange]
            self.tell(Heard(link, at, "poll", {"exchange": pairs}, **_known(desk, said)))


def _known(desk: Desk, said: Said | None) -> dict[str, Any]:
    """Return what is to be told of a configured device."""
    known: dict[str, Any] = {"device": desk.id, "model": desk.model, "address": desk.address, "options": desk.map}
    if isinstance(said, Decoded):
        reason = UNREAD if said.refused else "" if said.observations else NOTHING
        return {**known, "said": said.observations, "reason": reason, "detail": "; ".join(said.refused)}
    if isinstance(said, Rejected):
        return {**known, "reason": said.reason.value, "detail": said.detail}
    if isinstance(said, NoReply | TimeoutError):
        return {**known, "reason": SILENCE, "detail": str(said)}
    return {**known, "reason": FAULT, "detail": "" if said is None else type(said).__name__}


def told(one: Observation) -> dict[str, object]:
    """Return a reading or a signal as the control socket sends it."""
    if isinstance(one, Reading):
        found: dict[str, object] = {"quantity": one.quantity, "channel": one.channel, "value": format(one.value, "f")}
        return {**found, "unit": one.unit}
    return {"signal": one.kind.value, "code": one.code, "channel": one.channel, "level": one.level}


def _masked(address: str) -> str:
    """Hide the half of a stranger's address that names the device: the maker's half is enough to recognise a kind."""
    return f"{address[:8]}:··:··:··"


def _without_address(advert: Advert) -> Advert:
    """Put zeros for that half where the data tells the address once more (MiBeacon and others do), in either order."""
    try:
        told = bytes.fromhex(advert.address.replace(":", ""))
    except ValueError:
        return advert
    if len(told) != ADDRESS_BYTES:
        return advert
    half = told[:3] + bytes(3)

    def hidden(data: bytes) -> bytes:
        return data.replace(told, half).replace(told[::-1], half[::-1])

    return replace(
        advert,
        service_data={key: hidden(value) for key, value in advert.service_data.items()},
        manufacturer_data={key: hidden(value) for key, value in advert.manufacturer_data.items()},
    )


def _advert(advert: Advert, address: str) -> dict[str, object]:
    advert = without_keys(advert)
    return {
        "mac": address,
        "name": advert.name,
        "service_data": {f"{key:04x}": value.hex() for key, value in advert.service_data.items()},
        "manufacturer_data": {f"{key:04x}": value.hex() for key, value in advert.manufacturer_data.items()},
    }
