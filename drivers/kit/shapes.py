"""The three shapes of a device: it advertises, it streams, or it answers. A driver is one value of one of them.

The catalogue finds a driver as `DRIVER` in its file under `drivers/devices/`; vectors stand in the same value, so the
generic tests and the reference page need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from drivers.kit.observations import Decoded, Observation, Reason
from drivers.kit.options import known_keys

if TYPE_CHECKING:
    from drivers.kit.searching import Searching


@dataclass(frozen=True, slots=True)
class Title:
    """The name that people read, Chinese first."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Advert:
    """One BLE advertisement as a radio hands it over.

    `address`: upper case, colons. `service_data` and `manufacturer_data` are keyed by the 16-bit id; data under a
    128-bit service id of its own is not carried (no device of ours uses it). `cached`: which of these two, by name, the
    system keeps from an earlier report and only shows again with this one: it says nothing about now.
    """

    address: str
    name: str = ""
    rssi: int | None = None
    service_data: Mapping[int, bytes] = field(default_factory=dict)
    manufacturer_data: Mapping[int, bytes] = field(default_factory=dict)
    cached: frozenset[str] = frozenset()

    def fresh(self, part: str) -> Mapping[int, bytes]:
        """Return "service_data" or "manufacturer_data" where it came with this report; else nothing."""
        data: Mapping[int, bytes] = {} if part in self.cached else getattr(self, part)
        return data


class Framer(Protocol):
    """Cuts a byte stream into frames. Bounded: it never holds more than `limit` bytes, and resyncs by itself.

    `skipped` counts bytes that belonged to no frame; `rejects` counts candidate frames that were refused, by reason.
    """

    limit: int
    skipped: int
    rejects: dict[Reason, int]

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in any cut, return the whole frames that they complete, in order."""

    def reset(self) -> None:
        """Forget a half frame (the line was reopened, or a turn ended)."""


class Strangers(StrEnum):
    """What a message is worth whose address no device has.

    TOLD: it is not taken, and told as a problem (most likely one of ours whose address is mistyped). RAISED: it is taken
    all the same, since what speaks there is a call system, and a bed that nobody configured is a bed. IGNORED: it is
    counted only; a radio receiver hears the neighbours, too.
    """

    TOLD = "told"
    RAISED = "raised"
    IGNORED = "ignored"


class Names(StrEnum):
    """What a frame on a bus names: METER, the number of whoever has sent it; PLACE, where on the bus that one is."""

    METER = "meter"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How a serial line is set for a device unless the configuration says otherwise."""

    baud: int = 9600
    bits: int = 8
    parity: str = "N"
    stop: int = 1


@dataclass(frozen=True, slots=True)
class Ask:
    """One request on a bus. `answers` says whether a whole frame is the reply to it (address, function, identifier)."""

    request: bytes
    answers: Callable[[bytes], bool]
    timeout_s: float = 1.0
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Poll:
    """What a streaming device wants to be asked, and how often."""

    request: bytes
    every_s: float


@dataclass(frozen=True, slots=True)
class AdvertVector:
    """A published or synthetic advert and what it means under `options`.

    `source` says where it is from, or "synthetic: ...".
    """

    source: str
    advert: Advert
    expect: Decoded | Reason
    key: bytes | None = None
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamVector:
    """A whole frame, as the framer cuts it, and what it means under `options`."""

    source: str
    frame: bytes
    expect: Decoded | Reason
    options: Mapping[str, object] = field(default_factory=dict)


Polled = tuple[Observation, ...] | Decoded
"""What one poll brought. Decoded where something in it could not be taken (`refused`) beside what could."""


@dataclass(frozen=True, slots=True)
class AnswerVector:
    """An exchange: each request that `talk()` must make, with the reply it gets (None: silence), and the outcome."""

    source: str
    address: str
    exchange: tuple[tuple[bytes, bytes | None], ...]
    expect: Polled | Reason
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Advertises:
    """A device that is heard on the air.

    `may_call`: an advert of it that cannot be decrypted may be a call for help, so it raises one (unverified).
    `key_bytes`: length of its key; None when the protocol has none. `plain`: it can also speak without a key.
    `level_hold_s`: a level signal that is not repeated for so long has ended. `options(raw)`: checks the device's `map`
    table from the configuration (BadOption) and returns this driver as it is configured; None when it takes no options.
    `identify`: who an advert says that it is, the most exact first, where that may stand for an address (a beacon that
    changes its own); a driver as it is configured has the `identities` that its options name. No IO, no exception.
    `read_key`: reads the key as the maker prints it (ValueError); None: hexadecimal digits. `only_when_used`: it gives no
    sign of life, so that its silence means something after a week without a test press only.
    """

    model: str
    title: Title
    decode: Callable[[Advert, bytes | None], Decoded]
    vectors: tuple[AdvertVector, ...]
    options: Callable[[Mapping[str, object]], Advertises] | None = None
    key_bytes: int | None = None
    plain: bool = True
    may_call: bool = False
    level_hold_s: float = 25.0
    identify: Callable[[Advert], tuple[str, ...]] | None = None
    identities: frozenset[str] = frozenset()
    read_key: Callable[[str], bytes] | None = None
    only_when_used: bool = False

    def configured(self, raw: Mapping[str, object]) -> Advertises:
        """Return this driver as a device's options make it. Raises BadOption."""
        if self.options is not None:
            return self.options(raw)
        known_keys(raw, name="map", allowed=())
        return self


@dataclass(frozen=True, slots=True)
class Streams:
    """A device, or a receiver of several, that speaks by itself on a serial line or socket.

    `options(raw)` checks the device's `map` table from the configuration (BadOption) and returns what `decode` takes.
    Where several devices share the line, `address_of` says whose a frame is ("" where it names nobody), and the gateway
    lets the options of that device decode it. A device with a `poll` that says nothing for three of them, and 60 s at
    least, is a problem: whatever it says counts, but the question itself that comes back must be refused as NOT_MINE.
    `readings_every_s`: readings that it repeats by itself are published so often at most; 0: each.
    `repeat_s`: where a message carries no number, an equal one that is the next within so long is the same message again (its
    acknowledgement was missed, or the radio repeats it), while its alarm is not taken; 0: each is new.
    `radio`: what arrives came through the air, so nothing of it is verified unless a key proved it. `beats`: what
    it hears gives signs of life by itself (else it speaks only when it is pressed).
    `note`: what whoever looks for a fault must know of how it is mounted or of what it cannot do, in half a line.
    `topics(address, options)`, where it is there, says under which topics of a broker the device speaks: it is heard over
    an [[mqtt]] link then and not over a line, and a frame is one message (`drivers.protocols.published`).
    `shows(frame)`: whether a frame shows that the protocol is spoken, where `decode` takes more than that; None: each does.
    `may_call`: a message of it that meets a bug of ours may be a call for help, so it raises one (unverified).
    `keyed(options, key)`, where what it says may be encrypted, returns the options with the device's key (None: it has none)
    of `key_bytes` bytes.
    """

    model: str
    title: Title
    framer: Callable[[], Framer]
    options: Callable[[Mapping[str, object]], Any]
    decode: Callable[[bytes, Any], Decoded]
    vectors: tuple[StreamVector, ...]
    address_of: Callable[[bytes, Any], str] | None = None
    line: LineSettings = LineSettings()
    poll: Poll | None = None
    level_hold_s: float = 25.0
    readings_every_s: float = 0.0
    repeat_s: float = 0.0
    strangers: Strangers = Strangers.TOLD
    radio: bool = False
    beats: bool = False
    note: Title | None = None
    topics: Callable[[str, Any], tuple[str, ...]] | None = None
    shows: Callable[[bytes], bool] | None = None
    may_call: bool = False
    keyed: Callable[[Any, bytes | None], Any] | None = None
    key_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """A device that speaks when asked.

    `options(address, raw)` checks address and options (BadOption) and returns the target that `talk` takes.
    `talk(target)` yields `Ask`s, is sent each reply frame, and returns the observations of one successful poll (Decoded where
    it has to tell what could not be taken of it; its `address` is the gateway's to fill in).
    It raises Rejected when the device answers what cannot be a reading; NoReply passes through it.
    `sender(frame)`: the address in a whole frame that a device has sent, as the configuration writes it; "" where it names
    nobody or is no device's. It helps to find who speaks without being asked, and shows that a meter was replaced.
    `history(target, days)`: the target whose poll reads, beside everything else, what the meter froze at the last `days`
    midnights, on channels that end in "D1", "D2".. and with the time of each; None where the protocol has none.
    `search`: how such devices are looked for on a bus that nobody knows (`drivers.kit.searching`); None: not at all.
    `keyed(target, key)`, where what it answers may be encrypted, returns the target with the device's key (None: it has none)
    of `key_bytes` bytes. `names`: what `sender` returns: the number of a meter, or only its place on the bus, which says
    nothing of a meter that was replaced.
    """

    model: str
    title: Title
    framer: Callable[[], Framer]
    options: Callable[[str, Mapping[str, object]], Any]
    talk: Callable[[Any], Generator[Ask, bytes, Polled]]
    vectors: tuple[AnswerVector, ...]
    line: LineSettings = LineSettings()
    every_s: float = 900.0
    sender: Callable[[bytes], str] | None = None
    history: Callable[[Any, int], Any] | None = None
    search: Searching | None = None
    keyed: Callable[[Any, bytes | None], Any] | None = None
    key_bytes: int | None = None
    names: Names = Names.METER


Driver = Advertises | Streams | Answers
