"""Listens to BLE adverts on one adapter, for ever: scans, notices when it no longer hears, and starts again.

An advert is one-shot: what comes while nobody scans is gone. So the time of deafness is kept short (a watch on the bus
tells when adapter or bluetoothd return) and its beginning is told honestly (the last advert from anybody, not the
moment when it was noticed).
Limits: 2,000 wanted adverts wait for `deliver`, the newest are dropped beyond that, counted and announced; each call
into bleak waits 10 s at most; silence of 60 s from everybody counts as deafness; tries again after at most 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import structlog
from bleak import BleakScanner

from drivers.kit import Advert
from gateway.links import ble_problems, bleak_bus
from gateway.links.bluez_watch import AdapterState, BluezWatch
from gateway.links.state import HeardAdvert, LinkState, StateCallback

if TYPE_CHECKING:
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData

    from gateway.clock import Clock, Stamp

OverflowCallback = Callable[[int, "Stamp", "Stamp"], None]

_NO_RSSI: Final = -127  # what bleak gives for a callback that no advert caused (connect, a foreign StopDiscovery)
_BASE_UUID: Final = "-0000-1000-8000-00805f9b34fb"
_FIRST_BACKOFF_S: Final = 0.25
_STEADY_S: Final = 5.0  # a scan that lived so long has proved that starting works
_STOP_TIMEOUT_S: Final = 3.0
_NAMING_S: Final = 0.05  # what the watch may need to name a problem that an error does not name
_TURN: Final = 50  # adverts delivered before others get their turn on the event loop
# States that end a scan. UNKNOWN and DENIED say that the watch cannot look, not that the scan is over.
_ENDING: Final = frozenset(
    {AdapterState.NO_BUS, AdapterState.NO_DAEMON, AdapterState.NO_ADAPTER, AdapterState.SWITCHED_OFF}
)

_log = structlog.get_logger(__name__)


class _Scan:
    """One run of one scanner: since when it scans, and what ended it (problem code, text), once it ended."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.since: float | None = None
        self.connection: object | None = None
        self.spoilt = False
        """The connection must not be used again. Not said lightly: other radios may be scanning on it."""
        self.problem: tuple[str, str] | None = None

    def end(self, code: str, text: str) -> None:
        """End it; the first reason counts."""
        if self.problem is None:
            self.problem = (code, text)
            self.over.set()


class BleRadio:
    """The adverts of the devices that we care for, from one adapter.

    `wanted(address)` says whether we care (upper case, colons); `deliver` gets each advert of theirs, stamped when it
    came; `on_state` each change of hearing; `on_overflow(count, first, last)` what was dropped from a full queue, and
    between which moments. All are called on the event loop and must not block. One that raises is counted in `failed`
    and does not end the scan.
    """

    def __init__(
        self,
        *,
        link_id: str,
        adapter: str,
        wanted: Callable[[str], bool],
        deliver: Callable[[HeardAdvert], None],
        on_state: StateCallback,
        clock: Clock,
        on_overflow: OverflowCallback | None = None,
        silence_s: float = 60.0,
        call_timeout_s: float = 10.0,
        retry_cap_s: float = 30.0,
        limit: int = 2_000,
    ) -> None:
        self._link = link_id
        self._adapter = adapter
        self._wanted = wanted
        self._deliver = deliver
        self._on_state = on_state
        self._on_overflow = on_overflow
        self._clock = clock
        self._silence_s = silence_s
        self._call_timeout_s = call_timeout_s
        self._retry_cap_s = retry_cap_s
        self._limit = limit

        self.heard = 0
        """Adverts from anybody."""
        self.dropped = 0
        """Wanted adverts that a full queue cost."""
        self.failed = 0
        """Exceptions out of the callbacks that we were given, or out of an advert that could not be read."""

        self._waiting: deque[HeardAdvert] = deque()
        self._filled = asyncio.Event()
        self._overflow: tuple[int, Stamp, Stamp] | None = None
        self._told_failures: set[str] = set()

        self._watch = BluezWatch(adapter=adapter, on_change=self._on_adapter, call_timeout_s=call_timeout_s)
        self._usable = asyncio.Event()
        self._scan = _Scan()
        self._stale: object | None = None
        self._last_stamp = clock.stamp()
        self._last_heard = clock.monotonic()
        self._deaf = False
        self._said: tuple[bool, str | None] | None = None
        self._ceased: Stamp | None = None

    async def run(self) -> None:
        """Listen until cancelled. What was heard is delivered before it returns."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch.run(), name=f"{self._link}-watch")
                tasks.create_task(self._consume(), name=f"{self._link}-deliver")
                await self._keep_scanning()
        finally:
            while self._waiting:
                self._deliver_one()
            self._announce_overflow()

    # Scanning.

    async def _keep_scanning(self) -> None:
        failures = 0
        while True:
            self._usable.clear()
            scan = self._scan = _Scan()
            await bleak_bus.drop(self._stale)
            self._stale = None
            code = await self._scan_once(scan)
            # A missing adapter that the watch can see is missing in bleak's memory only.
            if scan.spoilt or (code == ble_problems.NO_ADAPTER and self._watch.state is AdapterState.READY):
                await bleak_bus.drop(bleak_bus.current())
            steady = scan.since is not None and self._clock.monotonic() - scan.since >= _STEADY_S
            # Silence has its own pace already; and after a good scan the first try is made at once.
            if steady or code == ble_problems.DEAF:
                failures = 0
            # Where nothing is known to be missing, the second try is made at once: bleak may just have learned of the
            # adapter some microseconds later than the watch.
            elif failures == 0 and self._watch.state is AdapterState.READY:
                failures = 1
            elif await self._pause(failures):
                failures = 0
            else:
                failures += 1

    async def _pause(self, failures: int) -> bool:
        """Wait before the next try, or until the watch says that the adapter can be used; tell whether it did."""
        ceiling_s = min(self._retry_cap_s, _FIRST_BACKOFF_S * 2 ** min(failures, 16))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0, ceiling_s)):  # noqa: S311 - jitter, nothing secret
                await self._usable.wait()
        return self._usable.is_set()

    async def _scan_once(self, scan: _Scan) -> str:
        """Scan with a fresh scanner until it no longer hears; tell and return why, as a problem code."""
        # A whole new scanner each time: bleak's own cannot be trusted after an adapter went away under it.
        scanner = BleakScanner(self._on_advert, bluez={"adapter": self._adapter, "filters": {"DuplicateData": True}})
        try:
            await self._hear(scanner, scan)
            code, text = scan.problem or (ble_problems.OTHER, "ended without a reason")
            if code == ble_problems.OTHER:
                # The error itself says little; the watch learns at the same moment what is wrong, on its own socket.
                await asyncio.sleep(_NAMING_S)
            seen = self._watch.state
            if seen in _ENDING and seen.problem is not None and seen.problem != code:
                code, text = seen.problem, self._words(seen)
            self._tell_ceased(code, text)
            return code
        except asyncio.CancelledError:
            # Asked to stop, we heard until now.
            self._tell(hearing=False, at=self._clock.stamp(), problem=None, facts={})
            raise
        finally:
            if bleak_bus.alive(scan.connection):
                await self._stop(scanner, scan)
            else:
                # The discovery ended with the connection; bleak's memory of the scanner must end as well.
                self._stale = scan.connection

    async def _hear(self, scanner: BleakScanner, scan: _Scan) -> None:
        """Start, and return when the scan is over; `scan.problem` says why."""
        try:
            async with asyncio.timeout(self._call_timeout_s):
                await scanner.start()
            scan.connection = bleak_bus.current()
            bleak_bus.on_lost(lambda: scan.end(ble_problems.OTHER, "the connection to D-Bus ended"))
            self._tell_scanning()
            await self._until_over(scan)
        except TimeoutError:
            # The start that nobody answered may still be carried out, and be booked for our connection.
            scan.spoilt = True
            scan.end(ble_problems.OTHER, f"bluetoothd did not answer within {self._call_timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - bleak raises what it meets, down to AttributeError on a dying bus
            scan.spoilt = ble_problems.spoils_connection(error)
            scan.end(ble_problems.code_of(error), ble_problems.text_of(error))

    async def _until_over(self, scan: _Scan) -> None:
        self._last_heard = scan.since = self._clock.monotonic()
        self._watch.look()
        while not scan.over.is_set():
            left_s = self._silence_s - (self._clock.monotonic() - self._last_heard)
            if left_s <= 0:
                self._deaf = True
                scan.end(ble_problems.DEAF, f"no advert from anybody for {self._silence_s:g} s")
                return
            # When the whole process stood still, the event loop reads the socket before it looks at its timers: adverts
            # that came meanwhile move `_last_heard` before silence is judged.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await scan.over.wait()

    async def _stop(self, scanner: BleakScanner, scan: _Scan) -> None:
        """Stop a scanner whatever state it is in; how that fails does not matter, for the next one is a new one."""
        try:
            async with asyncio.timeout(min(self._call_timeout_s, _STOP_TIMEOUT_S)):
                await scanner.stop()
        except TimeoutError:
            scan.spoilt = True
        except Exception as error:  # noqa: BLE001 - see above
            _log.debug("ble scanner did not stop cleanly", link=self._link, error=ble_problems.text_of(error))

    def _on_adapter(self, state: AdapterState) -> None:
        if state in {AdapterState.NO_BUS, AdapterState.NO_DAEMON}:
            # What bleak knows of adapters and devices is of a daemon that is gone, and nothing corrects it.
            self._stale = bleak_bus.current()
        if state is AdapterState.READY:
            self._usable.set()
        elif state in _ENDING and state.problem is not None:
            self._scan.end(state.problem, self._words(state))
            if not self._says_hearing():
                # Nothing else would tell it before the next try.
                self._tell_ceased(state.problem, self._words(state))

    def _words(self, state: AdapterState) -> str:
        return f"{self._adapter}: {state.name.lower().replace('_', ' ')}"

    # What is heard.

    def _on_advert(self, device: BLEDevice, data: AdvertisementData) -> None:
        try:
            if data.rssi == _NO_RSSI:
                return
            now = self._clock.stamp()
            self.heard += 1
            self._last_stamp = now
            self._last_heard = self._clock.monotonic()
            # An advert that slips in while the deaf scan is being stopped must not vouch for the next one.
            if self._deaf and not self._scan.over.is_set():
                self._deaf = False
                self._tell(hearing=True, at=now, problem=None, facts={})
            address = device.address.upper()
            if not self._wanted(address):
                return
            if len(self._waiting) >= self._limit:
                self._drop(now)
                return
            self._waiting.append(HeardAdvert(self._link, _advert(address, data), now))
            self._filled.set()
        except Exception as error:  # noqa: BLE001 - what one advert does must not reach the scan
            self._count_failure("advert", error)

    def _drop(self, now: Stamp) -> None:
        self.dropped += 1
        count, first = (1, now) if self._overflow is None else (self._overflow[0] + 1, self._overflow[1])
        self._overflow = (count, first, now)

    async def _consume(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                for _ in range(min(_TURN, len(self._waiting))):
                    self._deliver_one()
                await asyncio.sleep(0)
            self._announce_overflow()

    def _deliver_one(self) -> None:
        heard = self._waiting.popleft()
        try:
            self._deliver(heard)
        except Exception as error:  # noqa: BLE001 - one advert that cannot be handled must not silence the others
            self._count_failure("deliver", error)

    def _announce_overflow(self) -> None:
        overflow, self._overflow = self._overflow, None
        if overflow is None or self._on_overflow is None:
            return
        try:
            self._on_overflow(*overflow)
        except Exception as error:  # noqa: BLE001 - as for deliver
            self._count_failure("overflow", error)

    def _count_failure(self, where: str, error: Exception) -> None:
        self.failed += 1
        kind = f"{where} {type(error).__name__}"
        if kind not in self._told_failures and len(self._told_failures) < self._limit:
            self._told_failures.add(kind)
            _log.error("ble callback failed, adverts go on", link=self._link, where=where, exc_info=error)

    # What is said of it.

    def _tell_scanning(self) -> None:
        now = self._clock.stamp()
        if self._deaf:
            # It says that it scans, as it did before: only an advert proves that it hears.
            self._tell(hearing=False, at=self._last_stamp, problem=ble_problems.DEAF, facts=self._deaf_facts())
            return
        self._last_stamp = now
        self._tell(hearing=True, at=now, problem=None, facts={})

    def _tell_ceased(self, code: str, text: str) -> None:
        facts = self._deaf_facts() if code == ble_problems.DEAF else {"adapter": self._adapter, "detail": text}
        at = self._last_stamp if self._says_hearing() else self._clock.stamp()
        self._tell(hearing=False, at=at, problem=code, facts=facts)

    def _says_hearing(self) -> bool:
        return self._said is not None and self._said[0]

    def _deaf_facts(self) -> Mapping[str, object]:
        return {"adapter": self._adapter, "silent_s": self._silence_s}

    def _tell(self, *, hearing: bool, at: Stamp, problem: str | None, facts: Mapping[str, object]) -> None:
        """Report a change once. While deaf, `at` stays the moment when hearing ended, whatever else goes wrong then."""
        if self._said == (hearing, problem):
            return
        if hearing:
            self._ceased = None
        else:
            at = self._ceased = self._ceased or at
        self._said = (hearing, problem)
        try:
            self._on_state(LinkState(self._link, "ble", hearing, at, problem, facts))
        except Exception as error:  # noqa: BLE001 - as for deliver
            self._count_failure("state", error)


def _advert(address: str, data: AdvertisementData) -> Advert:
    """Return what bleak hands over in the kit's terms: data under 16-bit service ids, and manufacturer data."""
    services = {
        int(uuid[4:8], 16): value
        for uuid, value in data.service_data.items()
        if uuid.startswith("0000") and uuid[8:].lower() == _BASE_UUID
    }
    return Advert(address, data.local_name or "", data.rssi, services, dict(data.manufacturer_data))
