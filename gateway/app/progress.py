"""What the watchdog looks at: for each loop that people's safety hangs on, whether it has work and what its last step was.

Every figure is one that the room gives anyway; nothing is asked of a disk or a network. Limits, in seconds without a step:
storing `STORE_LIMIT_S`, the tick of the hearing `TICK_LIMIT_S`, a delivery that has an alarm `ALARM_LIMIT_S` (four paths that
each take all their time to fail fit in), a radio three times its silence, a bus twice the interval of its quickest device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from drivers.kit import Answers
from gateway.collect import Desk, Hearing
from gateway.collect.polling import POLL_LIMIT_S, SLOWEST_S
from gateway.config import Settings
from gateway.deliver import Deliverer
from gateway.health import Health
from gateway.outbox import Outbox
from gateway.watchdog import Loop

STORE_LIMIT_S: Final = 30.0
TICK_LIMIT_S: Final = 10.0
ALARM_LIMIT_S: Final = 240.0
RADIO_SILENCES: Final = 3
HELD_BY_PLATFORM: Final = "GW-PLT-03"

Heard = Callable[[], Mapping[str, int]]


def storing(outbox: Outbox) -> Loop:
    """Commits. A disk that fails or hangs is no stall: the outbox knows of it, tries on, and lets alarms out unstored."""
    return Loop("outbox", STORE_LIMIT_S, lambda: None if outbox.is_failing else outbox.oldest_waiting)


def ticking(ticks: Callable[[], int]) -> Loop:
    """The tick that tells gaps and writes the sign of life; it is always due."""
    return Loop("hearing", TICK_LIMIT_S, ticks)


def delivering(name: str, deliverers: Callable[[], Sequence[Deliverer]], outbox: Outbox, health: Health) -> Loop:
    """The delivery to one platform, judged while it has an alarm that the platform has not asked to wait with."""

    def step() -> object:
        if outbox.is_failing or not outbox.alarms_pending(name):
            return None
        if any((one.code, one.subject) == (HELD_BY_PLATFORM, name) for one in health.current()):
            return None
        figures = next(one.status() for one in deliverers() if one.name == name)
        return tuple(figures[word] for word in ("epoch", "connected", "inflight", "accepted", "rejected", "resent"))

    return Loop(f"deliver {name}", ALARM_LIMIT_S, step)


def radios(settings: Settings, hearing: Hearing, heard: Heard) -> Iterator[Loop]:
    """Each radio that says that it hears: it must hear somebody, or find out by itself that it does not."""

    def step_of(radio: str) -> Callable[[], object]:
        return lambda: heard().get(radio) if _hears(hearing, radio) else None

    for ble in settings.ble:
        yield Loop(f"radio {ble.id}", RADIO_SILENCES * ble.silence_s, step_of(ble.id))


def buses(settings: Settings, hearing: Hearing, desks: Mapping[str, Desk]) -> Iterator[Loop]:
    """Each open line whose devices are asked: somebody's turn must come."""

    def step_of(line: str, asked: Sequence[Desk]) -> Callable[[], object]:
        return lambda: sum(one.polls for one in asked) if _hears(hearing, line) else None

    for serial in settings.serial:
        asked = [desk for desk in desks.values() if desk.link == serial.id and isinstance(desk.driver, Answers)]
        if asked:
            yield Loop(f"bus {serial.id}", _slowest_turn_s(asked), step_of(serial.id, asked))


def _hears(hearing: Hearing, link: str) -> bool:
    return any(one["id"] == link and one["hearing"] for one in hearing.status({}))


def _slowest_turn_s(asked: Sequence[Desk]) -> float:
    """Return in what time at least the quickest device of a bus is asked, whatever all the others do."""
    quickest = min(desk.every_s or desk.driver.every_s for desk in asked if isinstance(desk.driver, Answers))
    return 2 * max(quickest, SLOWEST_S) + POLL_LIMIT_S * (len(asked) + 1)
