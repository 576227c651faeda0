"""What comes on a bus while nobody was asked: late replies, and whoever speaks all the time, named where his frames name him.

Limits: one framer for each kind of framing on the bus, each bounded by itself; `MAX_NAMES` addresses are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from drivers.kit import Answers, Framer
from gateway.collect.desk import Desk

MAX_NAMES: Final = 64


class Unasked:
    """Counts the frames that nobody asked for, by the address that they name."""

    def __init__(self, desks: Iterable[Desk]) -> None:
        self._readers: list[tuple[Framer, Callable[[bytes], str]]] = []
        self._counts: Counter[str] = Counter()
        known = set()
        for desk in desks:
            driver = desk.driver
            if isinstance(driver, Answers) and driver.sender is not None and driver.framer not in known:
                known.add(driver.framer)
                self._readers.append((driver.framer(), driver.sender))

    @property
    def loudest(self) -> str:
        """The address that most of the frames name; "" where none does."""
        return self._counts.most_common(1)[0][0] if self._counts else ""

    def take(self, data: bytes) -> None:
        """Take bytes that came outside of a turn. They are anybody's: what a driver cannot stand is nobody's frame."""
        for framer, sender in self._readers:
            try:
                names = [sender(frame) for frame in framer.feed(data)]
            except Exception:  # noqa: BLE001 - it only helps to find a meter, and must not end the reading of the line
                framer.reset()
                continue
            for name in names:
                if name and (name in self._counts or len(self._counts) < MAX_NAMES):
                    self._counts[name] += 1

    def forget(self) -> None:
        """The line is quiet again."""
        self._counts.clear()
