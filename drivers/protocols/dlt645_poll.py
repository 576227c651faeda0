"""One poll of a DL/T 645 meter, whatever its edition: each register as a block first, then value by value.

A meter that refuses the block (total and all tariffs, all phases), or is silent to it, is asked for each value. An answer of
several frames is put together. What of a register could not be read is told by its name and why (`Decoded.refused`), beside
what could; a poll that brought nothing at all is rejected, and one that was silent to its first block and value is silence.

Where the tariffs of an energy are more than its total, the block is asked for again: what comes twice is what the meter counts,
what does not was garbled on the way.

With a wildcard the first reply says who the meter is, and the rest is asked of that one: no poll mixes two meters.

Limits: `MAX_PARTS` frames an answer, `MAX_ASKS` questions a poll; after `MAX_SILENT` of them in a row without a reply, or beyond
these, the rest is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import partial
from typing import Final, Protocol

from drivers.kit import Ask, BadOption, Decoded, NoReply, Observation, Polled, Reading, Reason, Rejected, Title
from drivers.kit.options import known_keys
from drivers.protocols import dlt645
from drivers.protocols.dlt645_layout import Data, is_past

RETRIES: Final = 2
MAX_PARTS: Final = 8
MAX_SILENT: Final = 2
MAX_REGISTERS: Final = 24
MAX_ASKS: Final = 60
# Once a meter has answered it lives, and may take its time for a long answer: 200 bytes last 1.9 s at 1200 baud.
LONGER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Register:
    """The identifier to ask, and those to ask instead, one by one, where the meter refuses it."""

    identifier: int
    instead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A meter and what to read of it: names of registers, whether its clock, and how many daily freezes back."""

    address: str
    registers: tuple[str, ...]
    clock: bool = False
    daily_freezes: int = 0


class Pairs(Protocol):
    """Whether a whole frame is the reply to a read."""

    def __call__(self, frame: bytes, *, address: str, identifier: int) -> bool:
        """Pair by address, function and identifier."""


@dataclass(frozen=True, slots=True)
class Edition:
    """What differs between the editions.

    `next_request` builds the request for a part (from 1) and says what answers it; `numbered`: parts have numbers, so that one
    may be asked for again. `layout` refuses an identifier that is no quantity.
    """

    registers: Mapping[str, Register]
    read_request: Callable[[str, int], bytes]
    answers: Pairs
    next_part: Callable[[str, int, int], tuple[bytes, Callable[[bytes], bool]]]
    numbered: bool
    value_of: Callable[[dlt645.Frame], bytes]
    decode: Callable[[int, bytes], Data]
    layout: Callable[[int], object]
    clock: Callable[[bytes, bytes], datetime | None]
    clock_identifiers: tuple[int, int]
    refusal: Callable[[dlt645.Frame], str]
    digits: int
    timeout_s: float

    def register(self, name: str) -> Register | None:
        """Return a register by its name, or by its identifier in hexadecimal digits where that is a quantity."""
        if (known := self.registers.get(name)) is not None:
            return known
        try:
            identifier = int(name, 16)
            self.layout(identifier)
        except (ValueError, Rejected):
            return None
        return Register(identifier) if len(name) == self.digits and name.isalnum() else None


CLOCK: Final = "clock"
SILENCE: Final = "no reply"
# What is cut off a register when it is shown: total and tariffs of one meter differ by as much.
ROUNDING: Final = Decimal("0.01")
MAX_DAILY_FREEZES: Final = 20


def options(
    address: str,
    raw: Mapping[str, object],
    *,
    edition: Edition,
    default: Sequence[str],
    expected: Title,
    allowed: tuple[str, ...] = ("registers",),
) -> Target:
    """Check address and options. Raises BadOption."""
    try:
        dlt645.address_bytes(address)
    except ValueError:
        raise BadOption("address", address, expected.en, zh=expected.zh) from None
    known_keys(raw, name="map", allowed=allowed)
    names = raw.get("registers", default)
    known = ", ".join(default)
    if not isinstance(names, Sequence) or isinstance(names, str) or not 1 <= len(names) <= MAX_REGISTERS:
        raise BadOption(
            "map.registers",
            names,
            f"a list of 1 to {MAX_REGISTERS} registers such as {known}; all of them: docs/reference/registers.md",
            zh=f"1 到 {MAX_REGISTERS} 个寄存器名字组成的列表，例如 {known}；全部名字见 docs/reference/registers.md",
        )
    for index, name in enumerate(names):
        if not isinstance(name, str) or (name != CLOCK and edition.register(name) is None):
            close = get_close_matches(str(name), edition.registers, n=3) or list(default)
            raise BadOption(
                f"map.registers[{index}]",
                name,
                f"a register such as {', '.join(close)}, or an identifier of {edition.digits} hexadecimal digits; "
                f"all of them: docs/reference/registers.md",
                zh=f"寄存器名字，例如 {', '.join(close)}，或 {edition.digits} 位十六进制数据标识；"
                "全部名字见 docs/reference/registers.md",
            )
    chosen = tuple(dict.fromkeys(str(name) for name in names))
    read = tuple(name for name in chosen if name != CLOCK) or tuple(default)
    return Target(address.upper(), read, clock=CLOCK in chosen)


Asking = Generator[Ask, bytes, bytes | None]


@dataclass(slots=True)
class Conversation:
    """One poll under way: what was found so far, and what could not be read."""

    address: str
    edition: Edition
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    reason: Reason | None = None
    why: str = ""
    heard: bool = False
    silent: int = 0
    asked: int = 0

    def is_over(self) -> bool:
        """Is it time to ask no more?"""
        return self.silent >= MAX_SILENT or self.asked >= MAX_ASKS

    def data(self, identifier: int) -> Asking:
        """Ask for one identifier: its data, all parts together; None, and `why`, where the meter does not give it.

        NoReply passes while the meter has not said anything yet.
        """
        edition, address = self.edition, self.address
        answers = partial(edition.answers, address=address, identifier=identifier)
        frame = yield from self._ask(edition.read_request(address, identifier), answers, RETRIES)
        data = b""
        for part in range(1, MAX_PARTS + 1):
            if frame is None:
                return None
            if frame.refused or not frame.data:
                self.why = edition.refusal(frame) if frame.refused else "a reply without data"
                return None
            data += edition.value_of(frame)
            if not frame.more:
                return data
            if part == MAX_PARTS:
                break
            request, answers_next = edition.next_part(self.address, identifier, part)
            frame = yield from self._ask(request, answers_next, RETRIES if edition.numbered else 0)
        self.why = f"more than {MAX_PARTS} frames"
        return None

    def _ask(
        self, request: bytes, answers: Callable[[bytes], bool], retries: int
    ) -> Generator[Ask, bytes, dlt645.Frame | None]:
        self.asked += 1
        try:
            reply = yield Ask(request, answers, self.edition.timeout_s + LONGER_S * self.heard, retries)
        except NoReply:
            if not self.heard:
                raise
            self.silent += 1
            self.why = SILENCE
            return None
        if not answers(reply):
            raise Rejected(Reason.NOT_MINE, f"no reply to {request.hex()}")
        frame = dlt645.parse(reply)
        if not self.heard and "AA" not in frame.address:
            self.address = frame.address
        self.heard, self.silent = True, 0
        return frame

    def register(self, name: str, register: Register) -> Generator[Ask, bytes, None]:
        """Read one register into `readings`; what of it cannot be read goes into `refused`."""
        if self.is_over():
            self.refused.append(f"{name} = not asked any more")
            return
        told = len(self.refused)
        try:
            whole = yield from self.data(register.identifier)
        except NoReply:
            # Some meters are silent to a block that they do not know: only one that is silent to a single value, too, is silent.
            if not register.instead:
                raise
            whole = None
        if whole is not None and self.is_odd(register.identifier, whole):
            again = yield from self.data(register.identifier)
            if again not in (whole, None) and self.is_odd(register.identifier, again):
                self.reason = self.reason or Reason.IMPLAUSIBLE
                self.refused.append(f"{name} = two answers differ, and neither adds up")
                return
            whole = again or whole
        taken = whole is not None and self.take(register.identifier, whole, name)
        for identifier in register.instead if whole is None else ():
            if self.is_over():
                break
            if (value := (yield from self.data(identifier))) is not None:
                taken = self.take(identifier, value, name) or taken
            elif self.why == SILENCE:
                self.refused.append(f"{name} {identifier:0{self.edition.digits}x} = {SILENCE}")
        if not taken and len(self.refused) == told:
            self.refused.append(f"{name} = {self.why or 'the meter has no value'}")

    def is_odd(self, identifier: int, value: bytes) -> bool:
        """Say whether the tariffs of an energy are more than its total: then one of its digits was garbled on the way, or the
        meter counts so. The check of a frame is a sum of eight bits, which two errors can leave as it is."""
        try:
            readings = self.edition.decode(identifier, value).readings
        except Rejected:
            return False
        total, *tariffs = [one.value for one in readings] or [Decimal(0)]
        if len(tariffs) < 2 or not readings[0].quantity.startswith("energy_") or readings[0].channel[:1] == "T":
            return False
        return total >= 0 and sum(tariffs) > total + ROUNDING * len(tariffs)

    def take(self, identifier: int, value: bytes, name: str, at: datetime | None = None) -> bool:
        """Read the data of an identifier; `at`: of which time it is. False where that brought nothing."""
        self.why = ""
        try:
            data = self.edition.decode(identifier, value)
        except Rejected as rejected:
            self.reason = self.reason or rejected.reason
            self.refused.append(f"{name} = {rejected.detail}")
            return False
        if data.refused:
            self.reason = self.reason or Reason.IMPLAUSIBLE
            self.refused += data.refused
        for reading in data.readings:
            one = reading if at is None else Reading(reading.quantity, reading.value, reading.channel, at)
            self.readings[one.quantity, one.channel] = one
        return bool(data.readings)

    def clock(self) -> Generator[Ask, bytes, datetime | None]:
        """Read the meter's own clock; None, and a line in `refused`, where it has none."""
        if self.is_over():
            self.refused.append(f"{CLOCK} = not asked any more")
            return None
        date_id, time_id = self.edition.clock_identifiers
        try:
            date = yield from self.data(date_id)
            time = (yield from self.data(time_id)) if date is not None else None
            if date is not None and time is not None and time[1:] == b"\0\0":
                # Midnight lay between the two questions, or will soon have: the date of before may be yesterday's.
                date = yield from self.data(date_id)
            if date is None or time is None:
                self.refused.append(f"{CLOCK} = {self.why}")
                return None
            now = self.edition.clock(date, time)
        except Rejected as rejected:
            if rejected.reason is Reason.NOT_MINE:
                raise
            self.refused.append(f"{CLOCK} = {rejected.detail}")
            return None
        if now is None:
            self.refused.append(f"{CLOCK} = the meter has none")
        return now

    def end(self, observations: tuple[Observation, ...]) -> Polled:
        """Return what the poll brought. Raises Rejected where that is nothing."""
        if not observations:
            raise Rejected(self.reason or Reason.UNSUPPORTED, "; ".join(dict.fromkeys(self.refused)))
        return Decoded(observations, refused=tuple(self.refused)) if self.refused else observations


def poll(target: Target, edition: Edition) -> Generator[Ask, bytes, Conversation]:
    """Read the registers and the clock of a target. Raises Rejected where a reply is not the meter's; NoReply passes."""
    talk = Conversation(target.address, edition)
    for name in target.registers:
        register = edition.register(name)
        if register is not None:
            yield from talk.register(name, register)
    if target.clock and (now := (yield from talk.clock())) is not None:
        for key, one in talk.readings.items():
            if one.device_time is None and not is_past(one.channel):
                talk.readings[key] = Reading(one.quantity, one.value, one.channel, now)
    return talk
