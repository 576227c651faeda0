"""What a driver can say: a Reading (a quantity has a value) or a Signal (something happened).

Limits: a value is an exact `Decimal`, never a float; a unit is never free text, it is the one that `QUANTITIES` gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from drivers.kit.quantities import QUANTITIES

if TYPE_CHECKING:
    from datetime import datetime


class SignalKind(StrEnum):
    """Everything that can happen at a device. What is in `RAISING` raises an alarm; the rest is told.

    With a level: OCCUPANCY is on while somebody is there, BED_EXIT while the bed is empty, OPENING while a door or window
    stands open, the others while it lasts. A detector that tests itself is no SMOKE.
    """

    CALL = "call"
    FALL = "fall"
    CANCEL = "cancel"
    RECOVERED = "recovered"
    BED_EXIT = "bed_exit"
    TAMPER = "tamper"
    LOW_BATTERY = "low_battery"
    RESTORED = "restored"
    OCCUPANCY = "occupancy"
    SMOKE = "smoke"
    GAS = "gas"
    CARBON_MONOXIDE = "carbon_monoxide"
    WATER_LEAK = "water_leak"
    OPENING = "opening"
    MOTION = "motion"
    VIBRATION = "vibration"
    PROBLEM = "problem"


MAX_DETAIL: Final = 200
# What a sensor finds in a room: a state that lasts, that the sensor ends by itself, and that a person must have seen.
HAZARDS: frozenset[SignalKind] = frozenset(
    {SignalKind.SMOKE, SignalKind.GAS, SignalKind.CARBON_MONOXIDE, SignalKind.WATER_LEAK}
)
RAISING: frozenset[SignalKind] = HAZARDS | {SignalKind.CALL, SignalKind.FALL}
# Told, unless the configuration of a device says (`alarms_on`) that there they raise an alarm.
RAISABLE: frozenset[SignalKind] = frozenset(
    {SignalKind.OPENING, SignalKind.MOTION, SignalKind.VIBRATION, SignalKind.BED_EXIT, SignalKind.TAMPER}
)


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one quantity. `channel` tells apart equal quantities of a device (phase "A", tariff "T1")."""

    quantity: str
    value: Decimal
    channel: str = ""
    device_time: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse a quantity that the dictionary does not know: KeyError is a bug of the driver, its vectors find it."""
        QUANTITIES[self.quantity]

    @property
    def is_finite(self) -> bool:
        """Is the value a number? What is none (NaN, Infinity) is refused by the gateway, whatever made it; it raises nothing."""
        return Decimal(self.value).is_finite()  # also where a driver broke its word, and gave a float

    @property
    def unit(self) -> str:
        """The unit of the value: the dictionary's, always."""
        return QUANTITIES[self.quantity].unit


@dataclass(frozen=True, slots=True)
class Counter:
    """The protocol's own counter of a message: it tells a repeat from a new press. `bits` is its width."""

    value: int
    bits: int
    authenticated: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """Something happened. `code` is the device's word for it ("press", "double"), `channel` which of its buttons.

    `level` is None for a thing that happens once. A protocol without a counter repeats a state instead: then it is
    True or False, and the edges are judged by the gateway. `count` is how often it has happened at the device so far,
    where an advert says that (a counter of this signal, not of the message): each rise is an event, however many
    adverts were lost; the first one heard is where counting begins, and an event only where `level` says that it is on.
    `detail` is what a call system says in words, in one printable line of at most `MAX_DETAIL` characters: it is told
    with the event and decides nothing.
    """

    kind: SignalKind
    code: str = ""
    channel: str = ""
    level: bool | None = None
    detail: str = ""
    count: Counter | None = None


Observation = Reading | Signal


@dataclass(frozen=True, slots=True)
class SourceNumber:
    """The number that a source gives to an input which it resends until acknowledged; unique within `session`."""

    session: str
    n: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes to send back on the same line: at once ("now"), or when the event is durable ("committed")."""

    data: bytes
    when: str = "now"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one advert or frame says.

    `authenticated`: a key proved the sender. `address` names the device on a line that several share.
    `source_number` is set where the source resends until acknowledged. `refused` names what in it could not be taken
    (an implausible value) beside what could: it is told as a fault of the device, not dropped. `unprovable`: it was encrypted
    in a way that proves no sender, so that nobody is told of a downgrade. `reachable`: whoever speaks for the device says
    that it is there, or not. `meter`: the number that a meter says of itself, where no frame of it names one.
    """

    observations: tuple[Observation, ...] = ()
    counter: Counter | None = None
    authenticated: bool = False
    address: str = ""
    source_number: SourceNumber | None = None
    replies: tuple[Reply, ...] = ()
    refused: tuple[str, ...] = ()
    unprovable: bool = False
    reachable: bool | None = None
    meter: str = ""


class Reason(StrEnum):
    """Why a driver will not decode. Counted per device; shown to technicians."""

    NOT_MINE = "not-mine"
    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    BAD_CHECK = "bad-check"
    BAD_KEY = "bad-key"
    NO_KEY = "no-key"
    KEY_IN_CLEAR = "key-in-clear"
    UNSUPPORTED = "unsupported"
    IMPLAUSIBLE = "implausible"
    MALFORMED = "malformed"


class Rejected(Exception):
    """A driver refuses an advert or a frame. `counter` is what stands readable beside a part that is not.

    `replies` go back at once: a protocol may have a word for "not understood, say it again". `harmless`: the readable part
    says that the sender is of a kind that never calls for help (a thermometer).
    """

    def __init__(
        self, reason: Reason, detail: str = "", *, counter: Counter | None = None, address: str = "",
        replies: tuple[Reply, ...] = (), harmless: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
        self.counter = counter
        self.address = address
        self.replies = replies
        self.harmless = harmless


class BadOption(Exception):
    """A device's configuration does not fit its driver. `key` is the option's name (dotted), `expected` what fits.

    `zh` says what fits in Chinese; left out, people read the English.
    """

    def __init__(self, key: str, value: object, expected: str, *, zh: str = "") -> None:
        super().__init__(f"{key} = {value!r}: expected {expected}")
        self.key = key
        self.value = value
        self.expected = expected
        self.zh = zh or expected


class NoReply(Exception):
    """Thrown into `talk()` at its `yield` when the device did not answer in time, after all retries."""
