"""Adverts on their way from the radio to whoever takes them: a bounded queue, and what may fail around it.

The radio's callback runs inside the Bluetooth stack, which must get its turn back at once, whatever is done with an
advert. Limits: 2,000 wait (about 1 MB), the newest are dropped beyond that, counted and announced; 50 are handed over
before others get their turn on the event loop; each kind of failure is logged once, 1,000 kinds at most; of 1,024
addresses it is known which data came with which report, the one longest silent goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from drivers.kit import Advert
from gateway.links.state import HeardAdvert

if TYPE_CHECKING:
    from bleak.backends.scanner import AdvertisementData

    from gateway.clock import Stamp

OverflowCallback = Callable[[int, "Stamp", "Stamp"], None]

_TURN: Final = 50
_BASE_UUID: Final = "-0000-1000-8000-00805f9b34fb"
_KINDS: Final = 1_000

_log = structlog.get_logger(__name__)


class AdvertQueue:
    """`deliver` gets each advert; `on_overflow(count, first, last)` what was dropped, and between which moments.

    Both are called on the event loop and must not block; one that raises is counted in `failed`. `dropped`: adverts that
    the full queue cost.
    """

    def __init__(
        self, link: str, deliver: Callable[[HeardAdvert], None], on_overflow: OverflowCallback | None, *, limit: int
    ) -> None:
        self.dropped = 0
        self.failed = 0
        self._link = link
        self._deliver = deliver
        self._on_overflow = on_overflow
        self._limit = limit
        self._waiting: deque[HeardAdvert] = deque()
        self._filled = asyncio.Event()
        self._overflow: tuple[int, Stamp, Stamp] | None = None
        self._told_failures: set[str] = set()

    def put(self, heard: HeardAdvert) -> None:
        """Let it wait for its delivery, or drop it."""
        if len(self._waiting) < self._limit:
            self._waiting.append(heard)
            self._filled.set()
            return
        self.dropped += 1
        count, first = (1, heard.at) if self._overflow is None else (self._overflow[0] + 1, self._overflow[1])
        self._overflow = (count, first, heard.at)

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                for _ in range(min(_TURN, len(self._waiting))):
                    self._deliver_one()
                await asyncio.sleep(0)
            self._announce_overflow()

    def flush(self) -> None:
        """Deliver what waits, and announce what was dropped."""
        while self._waiting:
            self._deliver_one()
        self._announce_overflow()

    def count_failure(self, where: str, error: Exception) -> None:
        """Count an exception out of a callback; the adverts go on."""
        self.failed += 1
        kind = f"{where} {type(error).__name__}"
        if kind not in self._told_failures and len(self._told_failures) < _KINDS:
            self._told_failures.add(kind)
            _log.error("ble callback failed, adverts go on", link=self._link, where=where, exc_info=error)

    def _deliver_one(self) -> None:
        heard = self._waiting.popleft()
        try:
            self._deliver(heard)
        except Exception as error:  # noqa: BLE001 - one advert that cannot be handled must not silence the others
            self.count_failure("deliver", error)

    def _announce_overflow(self) -> None:
        overflow, self._overflow = self._overflow, None
        if overflow is None or self._on_overflow is None:
            return
        try:
            self._on_overflow(*overflow)
        except Exception as error:  # noqa: BLE001 - as for deliver
            self.count_failure("overflow", error)


class Reports:
    """Knows what of an advert came with this very report.

    bleak shows with each report everything that bluetoothd ever told of a device. What a report brings is a new object
    there, what it does not is the object of before. A tag that shows a press in manufacturer data and lives on in service
    data would otherwise be pressed for ever, and never again.
    """

    def __init__(self, *, limit: int = 1_024) -> None:
        self._limit = limit
        self._seen: dict[str, tuple[object, object]] = {}

    def cached(self, address: str, data: AdvertisementData) -> frozenset[str]:
        """Return the names of the parts that are of an earlier report."""
        props = data.platform_data[1] if len(data.platform_data) > 1 else None
        if not isinstance(props, dict):
            return frozenset()
        now = (props.get("ServiceData"), props.get("ManufacturerData"))
        before = self._seen.pop(address, (None, None))
        self._seen[address] = now
        if len(self._seen) > self._limit:
            self._seen.pop(next(iter(self._seen)))
        pairs = zip(("service_data", "manufacturer_data"), now, before, strict=True)
        return frozenset(name for name, new, old in pairs if new is not None and new is old)


def advert_of(address: str, data: AdvertisementData, cached: frozenset[str] = frozenset()) -> Advert:
    """Return what bleak hands over in the kit's terms: data under 16-bit service ids, and manufacturer data."""
    services = {
        int(uuid[4:8], 16): value
        for uuid, value in data.service_data.items()
        if uuid.startswith("0000") and uuid[8:].lower() == _BASE_UUID
    }
    return Advert(address, data.local_name or "", data.rssi, services, dict(data.manufacturer_data), cached)
