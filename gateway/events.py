"""The event that leaves the gateway: CloudEvents 1.0, structured JSON.

An id (UUIDv7) is minted once, here, when the thing is detected; it stays the same on every path, destination and retry.
What only the commit knows (sequence, recordedtime) and what only the sending knows (deliveryseq, delivery, expirytime, a
time that was put right meanwhile) is spliced into the stored text at send time, so an event is encoded once. No limit of
its own: what drivers and people may say is bounded where it comes in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple

import uuid_utils

from gateway.clock import FLOORED, SYNCED, UNSYNCED, Stamp, Told, iso

PREFIX: Final = "cn.eldercare."
VERSION_SUFFIX: Final = ".v1"


# The first `time` of a body is the attribute, for the quotes of a value are escaped; the last `clock` is the gateway's own.
_TIME: Final = '"time":"'
_CLOCK: Final = '"clock":{"state":'
# Likewise the first `partitionkey`; `id` stands at the beginning.
_ID: Final = '{"specversion":"1.0","id":"'
_DEVICE: Final = '"partitionkey":"'


class Lane(IntEnum):
    """How urgent an event is. A: alarms and their states. B: faults, status, gaps. C: live telemetry. D: backlog."""

    A = 0
    B = 1
    C = 2
    D = 3


# Telemetry alone grows old. Alarms never do, and the sign of life of a gateway is no event: nothing of it is ever stored.
TELEMETRY_LIFE_MS: Final = 30 * 86_400_000
_LAG_MS: Final = 600_000
_LANE_OF_NOUN: Final = {"alarm": Lane.A, "telemetry": Lane.C, "checkin": Lane.C, "bed": Lane.C, "sensor": Lane.C}


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encoded(value: object) -> str:
    """Return a value as JSON text, as events are written; a float that is not finite as null. Raises TypeError for what is none.

    NaN and Infinity are no JSON (RFC 8259, 6), and a platform would refuse the whole event. Where a value is taken they are
    refused by name (`Reading.is_finite`); what comes this far all the same must not cost the alarm that it stands in.
    """
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_finite(value))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


# An encoder takes as long for a text as all the rest of an event takes; names come again and again.
quoted: Final = lru_cache(maxsize=1024)(encoded)
"""Return a text as JSON."""


@lru_cache(maxsize=256)
def lane_of(noun: str) -> Lane:
    """Return the lane that a type belongs to."""
    return _LANE_OF_NOUN.get(noun.partition(".")[0], Lane.B)


@dataclass(frozen=True, slots=True)
class Event:
    """One event before it is stored. `noun` is the type without prefix and version ("alarm.raised")."""

    id: str
    noun: str
    device: str
    at: Stamp
    body: str
    correlation: str = ""

    @property
    def lane(self) -> Lane:
        """The lane that the type belongs to; the outbox may put telemetry behind a backlog (D)."""
        return lane_of(self.noun)


class Stored(NamedTuple):
    """One event as the outbox holds it. `route` maps each destination that wants it to its delivery sequence.

    A named tuple, for one is made of every row of every commit, which takes a fifth of the time of a frozen dataclass.
    `seq` 0 is an alarm that a failing disk has not stored yet: it has no number, and `recorded_ms` is when it was sent.
    """

    seq: int
    lane: Lane
    id: str
    noun: str
    device: str
    recorded_ms: int
    at: Stamp
    route: Mapping[str, int]
    body: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Who speaks: the `source` of every event of this gateway, and its place among the district's levels."""

    org: str
    site: str
    gateway: str
    org_path: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """URN of the gateway."""
        return f"urn:eldercare:{self.org}:{self.site}:{self.gateway}"


def new_id() -> str:
    """Mint a UUIDv7. Order by `sequence`, never by id."""
    return str(uuid_utils.uuid7())


def new_event(
    noun: str,
    origin: Origin,
    *,
    device: str,
    at: Stamp,
    data: Mapping[str, object],
    correlation: str = "",
    event_id: str = "",
) -> Event:
    """Encode one event. `device` is the partition key: a configured device id, or the gateway's own id.

    `org_path` and `clock` of its data are the gateway's own.
    """
    return event_of(
        noun, origin, device=device, at=at, members=encoded(data)[1:-1], correlation=correlation, event_id=event_id
    )


def event_of(
    noun: str, origin: Origin, *, device: str, at: Stamp, members: str, correlation: str = "", event_id: str = ""
) -> Event:
    """Put one event together whose data is encoded already: `members` is what stands in it before `org_path`, as JSON."""
    id_text = encoded(event_id) if event_id else ""
    if not id_text:
        event_id = new_id()
        id_text = f'"{event_id}"'
    before_id, before_time, after_time, org_path = _envelope(noun, origin, device)
    about = f',"correlationid":{quoted(correlation)}' if correlation else ""
    body = (  # data comes last: `sending_text` splices `delivery` into it
        f'{before_id}{id_text}{before_time}{iso(at.wall_ms)}{after_time}{about},"data":{{{members}'
        f'{"," if members else ""}{org_path},"clock":{_clock_text(at)}}}}}'
    )
    if not body.isascii():
        try:
            body.encode()
        except UnicodeEncodeError:  # half a surrogate pair, as a device's JSON may carry: keep it escaped
            body = json.dumps(json.loads(body), separators=(",", ":"))
    return Event(event_id, noun, device, at, body, correlation)


@lru_cache(maxsize=1024)
def _envelope(noun: str, origin: Origin, device: str) -> tuple[str, str, str, str]:
    """Return what stands in every event of a kind of a device: before the id, before the time, after it, and `org_path`."""
    kind = f"{PREFIX}{noun}{VERSION_SUFFIX}"
    about = f'"source":{quoted(origin.source)},"type":{quoted(kind)},"subject":{quoted(f"device/{device}")}'
    after = f'"datacontenttype":"application/json","partitionkey":{quoted(device)}'
    org_path = f'"org_path":{encoded(origin.org_path)}'
    return '{"specversion":"1.0","id":', f',{about},"time":"', f'",{after}', org_path


def _clock_text(at: Stamp) -> str:
    """`offset_ms` + `mono_ms` is the time, for every event of the boot; it stands where the clock is synchronised."""
    state, known = at.clock, ""
    if state == SYNCED:
        known = f',"offset_ms":{at.wall_ms - at.mono_ms}'
    elif state == FLOORED:
        state, known = UNSYNCED, ',"floored":true'
    return f'{{"state":{quoted(state)},"boot":{quoted(at.boot)},"mono_ms":{at.mono_ms}{known}}}'


def lifetime_ms(noun: str) -> int | None:
    """Return after how long an event is of no use any more; None for what never expires."""
    return TELEMETRY_LIFE_MS if noun.startswith("telemetry.") else None


@dataclass(frozen=True, slots=True)
class Sending:
    """What only the sending knows. An alarm older than ten minutes is `historic`: nobody sends an ambulance for it.

    `age_ms` None: it is not known, and `least_age_ms` at least. `told`: its time as it is known now, where it was stored
    with a clock that was not synchronised.
    """

    destination: str
    streamid: str
    age_ms: int | None
    attempt: int
    buffered: bool
    historic: bool = False
    least_age_ms: int = 0
    told: Told | None = None


def sending_text(row: Stored, how: Sending) -> str:
    """Return the event as it goes on the wire, as JSON text."""
    age = f"{how.age_ms}" if how.age_ms is not None else f'null, "least_age_ms": {how.least_age_ms}'
    historic = ', "historic": true' if how.historic else ""
    delivery = (
        f'{{"buffered": {"true" if how.buffered else "false"}, "age_ms": {age}, "attempt": {how.attempt}{historic}}}'
    )
    body, recorded_ms, told = row.body, row.recorded_ms, how.told
    if told is not None:
        body = _retold(body, row.at, told)
        if told.is_trusted:
            lag_ms = recorded_ms - row.at.wall_ms
            # A longer lag: it was recorded when the clock was right already.
            recorded_ms = told.wall_ms + lag_ms if 0 <= lag_ms <= _LAG_MS else max(recorded_ms, told.wall_ms)
    stored, numbers = ',"stored":false', ""
    if row.seq:
        stored, numbers = "", f',"sequence":"{row.seq:020d}","deliveryseq":"{row.route[how.destination]:020d}"'
    return (
        f'{body[:-2]}{stored},"delivery":{delivery}}},"streamid":"{how.streamid}",'
        f'"recordedtime":"{iso(recorded_ms)}"{numbers}{_expiry(row, told)}}}'
    )


def _expiry(row: Stored, told: Told | None) -> str:
    """An untrusted time would let a platform throw away what is new."""
    life_ms = lifetime_ms(row.noun)
    if life_ms is None or (told is None and row.at.clock != SYNCED) or (told is not None and not told.is_trusted):
        return ""
    return f',"expirytime":"{iso((told or row.at).wall_ms + life_ms)}"'


def _retold(body: str, at: Stamp, told: Told) -> str:
    """Put the time right that an event was stored with, and say what is known of its clock."""
    begin, clock_begin = body.find(_TIME) + len(_TIME), body.rfind(_CLOCK)
    if begin < len(_TIME) or clock_begin < 0:
        return body  # of a version that wrote no clock
    # Pieces and no encoder: without a clock chip this is done for each event.
    clock = f'"state":{quoted(told.state)},"boot":{quoted(at.boot)},"mono_ms":{at.mono_ms}'
    if told.offset_ms is not None:
        clock += f',"offset_ms":{told.offset_ms}'
    elif at.clock == FLOORED:
        clock += ',"floored":true'
    for name, limit_ms in (("not_before", told.not_before_ms), ("not_after", told.not_after_ms)):
        if limit_ms is not None:
            clock += f',"{name}":"{iso(limit_ms)}"'
    end, clock_end = body.index('"', begin), body.index("}", clock_begin)
    return f'{body[:begin]}{iso(told.wall_ms)}{body[end:clock_begin]}"clock":{{{clock}}}{body[clock_end + 1 :]}'


def id_and_device(text: str) -> tuple[str, str]:
    """Return the id and the partition key of an event that goes out. Raises ValueError, KeyError for what is no event.

    As they stand in what `event_of` writes: to read all of an event for both would take as long as all else that sends it.
    """
    id_end, begin = text.find('"', len(_ID)), text.find(_DEVICE) + len(_DEVICE)
    device_end = text.find('"', begin)
    if text.startswith(_ID) and id_end > 0 and begin >= len(_DEVICE) and device_end > 0:
        event_id, device = text[len(_ID) : id_end], text[begin:device_end]
        if "\\" not in event_id and "\\" not in device:
            return event_id, device
    whole = json.loads(text)
    return whole["id"], whole["partitionkey"]


def wants(patterns: tuple[str, ...], noun: str) -> bool:
    """Does a destination's `types` filter let the event through? Patterns like "alarm.*", "telemetry.meter", "*"."""
    return any(fnmatchcase(noun, pattern) for pattern in patterns)
