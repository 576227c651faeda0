"""What an event must look like, as the district platform demands it; every refusal has a code.

Written from the wire contract alone, so that a gateway and this check do not share an error. Sources: CloudEvents 1.0
(section 2 attributes, partitioning and sequence extensions), RFC 3339, RFC 9562 section 5.7 (UUIDv7).
Limits: one message 256 KiB; a telemetry message 100 events and 64 KiB; attribute names [a-z0-9], 1 to 20 characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

PREFIX: Final = "cn.eldercare."
SUFFIX: Final = ".v1"
LANES: Final = ("alarm", "event", "telemetry")
MAX_MESSAGE_BYTES: Final = 256 * 1024
MAX_BATCH_BYTES: Final = 64 * 1024
MAX_BATCH_EVENTS: Final = 100
MAX_SEQUENCE: Final = 2**63 - 1

NOUNS: Final = frozenset(
    f"{noun}.{verb}"
    for noun, verbs in {
        "alarm": "raised prealarm cancelled acknowledged attended escalated closed",
        "device": "birth fault restored battery tamper",
        "gateway": "birth health power link security gap counts",
        "telemetry": "meter environment vital",
        "checkin": "card",
        "bed": "occupancy",
        "sensor": "changed",
        "command": "result",
        "test": "completed",
    }.items()
    for verb in verbs.split()
)
_NOUN_OF: Final = {f"{PREFIX}{noun}{SUFFIX}": noun for noun in NOUNS}
# The batched topic carries what comes often and wakes nobody; nothing of it may take the alarm topic.
_LANES_OF: Final = {
    "alarm": ("alarm",),
    "telemetry": ("telemetry",),
    "checkin": ("event", "telemetry"),
    "bed": ("event", "telemetry"),
    "sensor": ("event", "telemetry"),
}
_EXPIRING: Final = ("telemetry.", "gateway.health")

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_DIGITS20: Final = re.compile(r"[0-9]{20}")
_RFC3339: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_NAME: Final = re.compile(r"[a-z0-9]{1,20}")
_SOURCE: Final = re.compile(r"urn:eldercare:([a-z0-9-]{1,64}):([a-z0-9-]{1,64}):([a-z0-9-]{1,64})")
_SHOWN: Final = 2_000
_TEXTS: Final = ("specversion", "id", "source", "type", "subject", "time", "streamid", "partitionkey", "recordedtime")
_NAMES: Final = frozenset(
    (*_TEXTS, "sequence", "deliveryseq", "correlationid", "data", "datacontenttype", "dataschema")
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an event came from: the three names in its topic or `source`, and the lane (alarm, event or telemetry)."""

    org: str
    site: str
    gateway: str
    lane: str

    @property
    def source(self) -> str:
        """The `source` that every event of this gateway must carry."""
        return f"urn:eldercare:{self.org}:{self.site}:{self.gateway}"


def noun_of(type_: object) -> str:
    """Return "alarm.raised" for "cn.eldercare.alarm.raised.v1", "unknown" for anything that is not in the list."""
    return _NOUN_OF.get(type_, "unknown") if isinstance(type_, str) else "unknown"


def number(value: object) -> int | None:
    """Return a sequence or delivery sequence (20 digits, 1 to 2^63 - 1) as a number; None if it is none."""
    if isinstance(value, str) and _DIGITS20.fullmatch(value) and 1 <= (result := int(value)) <= MAX_SEQUENCE:
        return result
    return None


def read_message(payload: bytes, *, batch: bool) -> tuple[Sequence[object], str | None]:
    """Return the events of a message, and what is wrong with the message as a whole, as a code ("not-json", ...)."""
    try:
        content = json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return [{"malformed": payload[:_SHOWN].decode(errors="replace")}], "not-json"
    if not batch:
        return [content], "too-big" if len(payload) > MAX_MESSAGE_BYTES else None
    if not isinstance(content, list):
        return [content], "not-a-batch"
    if not content:
        return [{"malformed": "[]"}], "empty-batch"
    too_big = len(content) > MAX_BATCH_EVENTS or len(payload) > MAX_BATCH_BYTES
    return content, "batch-too-big" if too_big else None


def sender_of(source: object, lane: str) -> Address | None:
    """Return the gateway that a `source` names; None when it is none."""
    match = _SOURCE.fullmatch(source) if isinstance(source, str) else None
    return Address(match[1], match[2], match[3], lane) if match else None


def defect(event: object, address: Address) -> str | None:
    """Return why an event is malformed, as a code ("missing-id", "bad-sequence", ...); None when it is well formed."""
    if not isinstance(event, dict):
        return "not-an-object"
    return _attributes(event, address) or _lane(event, address) or _numbers(event) or _data(event)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are not JSON (RFC 8259 section 6)


def _attributes(event: Mapping[str, Any], address: Address) -> str | None:
    for name in _TEXTS:
        value = event.get(name)
        if not isinstance(value, str) or not value:
            return f"missing-{name}"
    if event["specversion"] != "1.0":
        return "bad-specversion"
    if not _UUID7.fullmatch(event["id"]):
        return "bad-id"
    if event["source"] != address.source:
        return "bad-source"
    if noun_of(event["type"]) == "unknown":
        return "unknown-type"
    if event["subject"] != f"device/{event['partitionkey']}":
        return "bad-subject"
    for name in ("time", "recordedtime"):
        if not _RFC3339.fullmatch(event[name]):
            return f"bad-{name}"
    if "dataclassification" in event:
        return "forbidden-dataclassification"
    return None if all(_NAME.fullmatch(name) for name in event.keys() - _NAMES) else "bad-attribute-name"


def _lane(event: Mapping[str, Any], address: Address) -> str | None:
    noun = noun_of(event["type"])
    if address.lane not in _LANES_OF.get(noun.partition(".")[0], ("event",)):
        return "wrong-lane"
    if "expirytime" in event:
        if not noun.startswith(_EXPIRING):
            return "forbidden-expirytime"
        if not isinstance(event["expirytime"], str) or not _RFC3339.fullmatch(event["expirytime"]):
            return "bad-expirytime"
    if noun.startswith("alarm."):
        alarm = event.get("correlationid")
        if not isinstance(alarm, str) or not alarm:
            return "missing-correlationid"
    return None


def _numbers(event: Mapping[str, Any]) -> str | None:
    data = event.get("data")
    # An alarm that the gateway's disk refused goes out all the same, marked so, before it has any number.
    # An alarm that a failing disk keeps from its number, or a technician's test, which has none.
    may_lack = event["type"].startswith((f"{PREFIX}alarm.", f"{PREFIX}test."))
    unstored = may_lack and isinstance(data, dict) and data.get("stored") is False
    for name in ("sequence", "deliveryseq"):
        value = event.get(name)
        if value is None:
            if not unstored:
                return f"missing-{name}"
        elif number(value) is None:
            return f"bad-{name}"
    return None


def _data(event: Mapping[str, Any]) -> str | None:
    data = event.get("data")
    if not isinstance(data, dict):
        return "missing-data"
    clock, delivery = data.get("clock"), data.get("delivery")
    if not isinstance(clock, dict) or not _fits(clock, _CLOCK):
        return "bad-clock"
    if not isinstance(delivery, dict) or not _fits(delivery, _DELIVERY):
        return "bad-delivery"
    noun = noun_of(event["type"])
    for name, fits in _FIELDS.get(noun, {}).items():
        if name not in data:
            return f"missing-data-{name}"
        if not fits(data[name]):
            return f"bad-data-{name}"
    for name in ("counter", "n"):
        if data.get(name) is not None and not _count(data[name]):
            return f"bad-data-{name}"
    return None


def _fits(part: Mapping[str, Any], demands: Mapping[str, Callable[[Any], bool]]) -> bool:
    return all(fits(part.get(name)) for name, fits in demands.items())


def _text(value: object) -> bool:
    return isinstance(value, str)


def _named(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _truth(value: object) -> bool:
    return isinstance(value, bool)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _moment(value: object) -> bool:
    return isinstance(value, str) and _RFC3339.fullmatch(value) is not None


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in words


def _registers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(r, dict) and _fits(r, _REGISTER) for r in value)


_CLOCK: Final[Mapping[str, Callable[[Any], bool]]] = {
    "state": _one_of("synced", "corrected", "unsynced"),
    "boot": _named,
    "mono_ms": _count,
    "offset_ms": lambda value: value is None or _count(value),
    **dict.fromkeys(("not_before", "not_after"), lambda value: value is None or _moment(value)),
}
_DELIVERY: Final[Mapping[str, Callable[[Any], bool]]] = {
    "buffered": _truth,
    "age_ms": lambda value: value is None or _count(value),  # of an earlier boot, with a clock that nobody had set
    "attempt": _count,
}
_REGISTER: Final[Mapping[str, Callable[[Any], bool]]] = {
    "quantity": _named,
    "channel": _text,
    "value": lambda value: isinstance(value, str) and _DECIMAL.fullmatch(value) is not None,
    "unit": _text,
}
_ALARM_KINDS: Final = (
    "call", "fall", "smoke", "gas", "carbon_monoxide", "water_leak", "opening", "motion", "vibration", "bed_exit", "tamper",
)  # fmt: skip
_FIELDS: Final[Mapping[str, Mapping[str, Callable[[Any], bool]]]] = {
    "alarm.raised": {
        "kind": _one_of(*_ALARM_KINDS),
        "state": _one_of("ACTIVE", "ACKED"),
        "priority": _one_of("emergency", "urgent"),
        "presses": lambda value: _count(value) and value >= 1,
        "room": _text,
        "bed": _text,
        "verified": _truth,
    },
    "gateway.gap": {
        "link": _text,
        "from": _moment,
        "to": _moment,
        "from_mono_ms": _count,
        "to_mono_ms": _count,
        "reason": _one_of("restart", "link-down", "overflow", "quota", "expired", "thinned", "corrupt"),
        "dropped": _count,
    },
    "gateway.counts": {
        "period": _one_of("hour", "day"),
        "from": _moment,
        "to": _moment,
        "from_mono_ms": _count,
        "to_mono_ms": _count,
        "alarms": lambda value: isinstance(value, dict),
        "destinations": lambda value: isinstance(value, dict),
    },
    "telemetry.meter": {"registers": _registers},
    "sensor.changed": {
        "kind": _one_of("smoke", "gas", "carbon_monoxide", "water_leak", "opening", "motion", "vibration"),
        "room": _text,
        "verified": _truth,
    },
}
