"""Adverts that a receiver publishes undecoded on an MQTT broker, as JSON: one an object, or a list of them.

How a receiver names the parts is a table (`FORMS`), and a form can be changed field by field:

    theengs    OpenMQTTGateway, Theengs Gateway: {"id": "A4:C1:38:56:53:84", "rssi": -63, "name": "...",
               "servicedatauuid": "0xfcd2", "servicedata": "44001d...", "manufacturerdata": "590080bc..."}
    minew      Minew G1, MG3 and others: [{"mac": "A4C138565384", "rssi": -63, "bleName": "", "rawData": "020106..."}, ...]

Data is hexadecimal; raw data are AD structures (`advertising_data`). Manufacturer data begins with its company id, low byte
first. Service data without a 16-bit id is not carried.
An entry without an address is nobody's and left out: receivers put their own state and what they have decoded between.

Limits: 256 KiB a message, 2,000 adverts in it, 1,650 bytes of data an advert (the most that an extended advert carries).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from drivers.kit import Advert, BadOption, Reason, Rejected
from drivers.kit.options import known_keys, text
from drivers.protocols import advertising_data
from drivers.protocols.advertising_data import MAX_DATA
from drivers.protocols.published import MAX_TOPIC

MAX_MESSAGE: Final = 256 * 1024
MAX_ADVERTS: Final = 2_000
_ADDRESS: Final = re.compile(r"(?:[0-9A-F]{2}([:-]?))(?:[0-9A-F]{2}\1){4}[0-9A-F]{2}")
_UUID16: Final = re.compile(r"(?:0x)?([0-9a-f]{4})|0000([0-9a-f]{4})-0000-1000-8000-00805f9b34fb", re.IGNORECASE)
_BRACKETS: Final = MAX_ADVERTS + 64


@dataclass(frozen=True, slots=True)
class Form:
    """Under which names a receiver publishes. "" is what it does not publish; `adverts`: the list, "" for the message itself."""

    address: str
    rssi: str = "rssi"
    name: str = ""
    adverts: str = ""
    raw: str = ""
    service_uuid: str = ""
    service_data: str = ""
    manufacturer_data: str = ""


FORMS: Final[Mapping[str, Form]] = {
    "theengs": Form(
        "id", name="name", service_uuid="servicedatauuid", service_data="servicedata", manufacturer_data="manufacturerdata"
    ),
    "minew": Form("mac", name="bleName", raw="rawData"),
}  # fmt: skip


def form_option(word: str, changes: Mapping[str, object], *, name: str) -> Form:
    """Return a form with some of its names changed. Raises BadOption; `name` is the option that holds the changes."""
    known_keys(changes, name=name, allowed=[one.name for one in fields(Form)])
    return replace(FORMS[word], **{key: text(changes, key, name=name, default="") for key in changes})


def filter_option(value: object, key: str) -> str:
    """Check a topic filter: "+" is a whole level, "#" the last (MQTT 5.0, section 4.7). Raises BadOption."""
    good = isinstance(value, str) and 0 < len(value) <= MAX_TOPIC and value.isprintable() and not value.startswith("$")
    levels = value.split("/") if isinstance(value, str) else []
    wild = [at for at, level in enumerate(levels) if set(level) & set("+#")]
    whole = all(levels[at] == "+" or (levels[at] == "#" and at == len(levels) - 1) for at in wild)
    if not good or not whole:
        expected = f"a topic of at most {MAX_TOPIC} characters; + stands for one level, # for the rest"
        zh = f"一个主题（topic），最多 {MAX_TOPIC} 个字符；+ 代表一级，# 代表其余"
        raise BadOption(key, value, expected, zh=zh)
    assert isinstance(value, str)  # noqa: S101 - `good` says so, which mypy does not follow
    return value


def fits(topic: str, pattern: str) -> bool:
    """Does a topic fit a filter?"""
    wanted, levels = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


def adverts(payload: bytes, form: Form) -> list[Advert]:
    """Return the adverts of a message; one without data where their sender was only seen. Raises Rejected."""
    found = [advert for entry in _entries(payload, form) if (advert := _advert(entry, form)) is not None]
    if len(found) > MAX_ADVERTS:
        raise Rejected(Reason.TOO_LONG, f"{len(found)} adverts")
    return found


def _entries(payload: bytes, form: Form) -> Iterator[Mapping[str, object]]:
    if len(payload) > MAX_MESSAGE:
        raise Rejected(Reason.TOO_LONG, f"{len(payload)} bytes")
    if payload.count(b"{") + payload.count(b"[") > _BRACKETS:  # before they are read: they might nest
        raise Rejected(Reason.MALFORMED, f"more than {_BRACKETS} brackets")
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError) as problem:
        raise Rejected(Reason.MALFORMED, str(problem)[:100]) from None
    if form.adverts and isinstance(said, dict):
        said = said.get(form.adverts, [])
    listed = said if isinstance(said, list) else [said]
    objects = [one for one in listed if isinstance(one, dict)]
    if listed and not objects:
        raise Rejected(Reason.MALFORMED, "neither an object nor a list of objects")
    yield from objects


def _advert(entry: Mapping[str, object], form: Form) -> Advert | None:
    address = _address(entry.get(form.address))
    if not address:
        return None
    name, rssi = entry.get(form.name) if form.name else "", entry.get(form.rssi)
    strength = rssi if isinstance(rssi, int) and not isinstance(rssi, bool) and -128 <= rssi <= 20 else None
    raw = advertising_data.advert(
        address, _data(entry, form.raw), rssi=strength, name=name if isinstance(name, str) else ""
    )
    services, makers = dict(raw.service_data), dict(raw.manufacturer_data)
    maker = _data(entry, form.manufacturer_data)
    if len(maker) >= 2:
        makers[int.from_bytes(maker[:2], "little")] = maker[2:]
    uuid = _uuid(entry.get(form.service_uuid)) if form.service_uuid else None
    if uuid is not None:
        services[uuid] = _data(entry, form.service_data)
    return replace(raw, service_data=services, manufacturer_data=makers)


def _address(said: object) -> str:
    """Return an address in capitals with colons; "" for what is none."""
    if not isinstance(said, str) or not _ADDRESS.fullmatch(said.upper()):
        return ""
    digits = said.upper().replace(":", "").replace("-", "")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _uuid(said: object) -> int | None:
    match = _UUID16.fullmatch(said) if isinstance(said, str) else None
    return int(match[1] or match[2], 16) if match else None


def _data(entry: Mapping[str, object], key: str) -> bytes:
    """Return the bytes of a part; none where it is missing, too long, or not hexadecimal."""
    said = entry.get(key) if key else None
    if not isinstance(said, str) or len(said) > 2 * MAX_DATA:
        return b""
    try:
        return bytes.fromhex(said)
    except ValueError:
        return b""
