"""How a protocol is looked for on a bus that nobody knows: questions that only read, and what each answer proves.

A driver that can be found this way declares a `Searching` in its own file; the scan plugs it in. The search is a generator,
as `talk` is: it yields an `Ask` and is sent what was `Heard`, or yields what it has `Found` (and is sent nothing of worth).
It never sees a port or a clock. Limits: of a search what its `questions` say; of several meters that answer at once, what
a search by parts of the address can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from drivers.kit.shapes import Ask, LineSettings


@dataclass(frozen=True, slots=True)
class Heard:
    """What came after a question: the frame that answers it, and how many bytes beside it (several that answer at once)."""

    frame: bytes | None = None
    others: int = 0

    @property
    def silent(self) -> bool:
        """Did nobody say anything?"""
        return self.frame is None and not self.others

    @property
    def crowded(self) -> bool:
        """Did more than one answer?"""
        return self.others > 0


@dataclass(frozen=True, slots=True)
class Found:
    """One device: its address as the configuration writes it, the options that fit, and what else is known, in short.

    `complete`: it can be configured as it is; a device that answers, but whose model nobody knows, is not.
    """

    address: str
    options: Mapping[str, object] = field(default_factory=dict)
    about: str = ""
    complete: bool = True


# So many parts of an address in a row, each whole, at which several seem to speak: it is noise that speaks there.
NOISE_PARTS = 3


class Noisy(Exception):
    """What answers everything is noise, or somebody who speaks all the time: taking it apart would take for ever."""


Search = Generator[Ask | Found, Heard, None]


def lines(*written: str) -> tuple[LineSettings, ...]:
    """Return line settings as people write them: "2400 8E1"."""
    found = []
    for one in written:
        baud, _, rest = one.partition(" ")
        found.append(LineSettings(int(baud), int(rest[0]), rest[1], int(rest[2])))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Searching:
    """A search, the settings of the line under which such devices are met (likely ones first), and what it takes.

    `questions`: how many are asked where nobody is there, each for at most `timeout_s`.
    """

    run: Callable[[], Search]
    lines: tuple[LineSettings, ...]
    questions: int
    timeout_s: float
