"""One poll of a DL/T 645 meter, whatever its edition: each register as a block first, then value by value.

A meter that refuses the block (total and all tariffs, all phases) is asked for each value. What a meter refuses or has
no value for is left out; a poll that brought nothing at all is rejected. Limit: what `REGISTERS` of a driver can ask.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from drivers.kit import Ask, BadOption, Observation, Reading, Reason, Rejected, Title
from drivers.kit.options import known_keys
from drivers.protocols import dlt645

RETRIES: Final = 2


@dataclass(frozen=True, slots=True)
class Register:
    """The identifier to ask, and those to ask instead, one by one, where the meter refuses it."""

    identifier: int
    instead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A meter and the names of the registers to read of it."""

    address: str
    registers: tuple[str, ...]


class Answers(Protocol):
    """Whether a whole frame is the reply to a read."""

    def __call__(self, frame: bytes, *, address: str, identifier: int) -> bool:
        """Pair by address, function and identifier."""


@dataclass(frozen=True, slots=True)
class Edition:
    """What differs between the editions. `readings` gets an identifier and the whole data of its reply."""

    registers: Mapping[str, Register]
    read_request: Callable[[str, int], bytes]
    answers: Answers
    readings: Callable[[int, bytes], tuple[Reading, ...]]
    refusal: Callable[[dlt645.Frame], str]
    digits: int
    timeout_s: float


def options(
    address: str,
    raw: Mapping[str, object],
    *,
    registers: Mapping[str, Register],
    default: Sequence[str],
    expected: Title,
) -> Target:
    """Check address and options. Raises BadOption."""
    try:
        dlt645.address_bytes(address)
    except ValueError:
        raise BadOption("address", address, expected.en, zh=expected.zh) from None
    known_keys(raw, name="map", allowed=("registers",))
    names = raw.get("registers", default)
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        known = ", ".join(registers)
        raise BadOption("map.registers", names, f"a list of some of {known}", zh=f"由这些名字组成的列表：{known}")
    for index, name in enumerate(names):
        if not isinstance(name, str) or name not in registers:
            known = ", ".join(registers)
            raise BadOption(f"map.registers[{index}]", name, f"one of {known}", zh=f"{known} 之一")
    return Target(address.upper(), tuple(dict.fromkeys(names)))


def poll(target: Target, edition: Edition) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    """Poll once. Raises Rejected where nothing could be read, or a reply is no reading; NoReply passes."""
    found: dict[tuple[str, str], Reading] = {}
    refusals: list[str] = []
    for name in target.registers:
        register = edition.registers[name]
        whole = yield from _read(target.address, register.identifier, edition, refusals)
        parts = [whole]
        if whole is None:
            parts = []
            for identifier in register.instead:
                parts.append((yield from _read(target.address, identifier, edition, refusals)))
        for reading in (reading for part in parts for reading in part or ()):
            found[reading.quantity, reading.channel] = reading
    if not found:
        raise Rejected(Reason.UNSUPPORTED, "; ".join(dict.fromkeys(refusals)) or "the meter has no value")
    return tuple(found.values())


def _read(
    address: str, identifier: int, edition: Edition, refusals: list[str]
) -> Generator[Ask, bytes, tuple[Reading, ...] | None]:
    """Ask for one identifier: its readings, or None where the meter does not give it."""

    def answers(frame: bytes) -> bool:
        return edition.answers(frame, address=address, identifier=identifier)

    shown = f"{identifier:0{edition.digits}x}"
    reply = yield Ask(edition.read_request(address, identifier), answers, edition.timeout_s, RETRIES)
    if not answers(reply):
        raise Rejected(Reason.NOT_MINE, f"no reply to {shown}")
    frame = dlt645.parse(reply)
    if frame.refused:
        refusals.append(edition.refusal(frame))
    elif not frame.data:
        refusals.append("a reply without data")
    elif frame.more:
        refusals.append(f"{shown} does not fit into one frame")
    else:
        return edition.readings(identifier, frame.data[edition.digits // 2 :])
    return None
