"""Listens to BLE adverts on one adapter, for ever: scans, notices when it no longer hears, and starts again.

An advert is one-shot: what comes while nobody scans is gone. So the time of deafness is kept short (a watch on the bus
tells when adapter or bluetoothd return) and its beginning is told honestly: no later than the last moment that surely
was a hearing one, which is when an advert from anybody came at the earliest (`looks`), or the start of a scan that
nothing spoke against.
What is done about silence, and when it is called deafness, stands in `silence`. A new scan made on its account is not
told when it is over within 1 s: the controller itself leaves holes of that order. One that is made because bleak dropped an
advert always is.
Limits: each call into bleak waits 10 s at most; tries again after at most 3 s; the queue's stand in `advert_queue`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

import structlog
from bleak import BleakScanner

from gateway.links import ble_problems, bleak_bus
from gateway.links.adapter_power import AdapterPower
from gateway.links.advert_monitor import AdvertMonitor
from gateway.links.advert_queue import AdvertQueue, OverflowCallback, Reports, advert_of
from gateway.links.ble_scan import ENDING, VAGUE, WATCHED, Scan
from gateway.links.bluez_adapters import AdapterState
from gateway.links.bluez_watch import IDLE_AFTER_S, BluezWatch
from gateway.links.looks import Looks
from gateway.links.silence import Ended, Repair, Silence
from gateway.links.state import HeardAdvert, LinkState, StateCallback

if TYPE_CHECKING:
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData

    from gateway.clock import Clock, Stamp

_NO_RSSI: Final = -127  # what bleak gives for a callback that no advert caused (connect, a foreign StopDiscovery)
_FIRST_BACKOFF_S: Final = 0.25
_STEADY_S: Final = 5.0  # a scan that lived so long has proved that starting works
_STOP_TIMEOUT_S: Final = 3.0
_SLOW_START_S: Final = 2.0  # what was said before is not what is wrong now
_FIRST_LOOK_S: Final = 1.0  # what the watch may need to see anything at all
_NAMING_S: Final = 0.05  # what the watch may need to name a problem that an error does not name
_UNTOLD_MS: Final = 1_000

_log = structlog.get_logger(__name__)


class BleRadio:
    """The adverts of the devices that we care for, from one adapter.

    `wanted(address)` says whether we care now, `known(address)` whether it is one of ours (upper case, colons); `deliver`
    gets each wanted advert, stamped when it came; `on_state` each change of hearing; `on_overflow(count, first, last)` what
    was dropped from a full queue, and between which moments. All are called on the event loop and must not block. One that
    raises is counted in `failed` and does not end the scan. `taken`: adapters that belong to other radios.
    """

    def __init__(
        self,
        *,
        link_id: str,
        adapter: str,
        wanted: Callable[[str], bool],
        known: Callable[[str], bool],
        deliver: Callable[[HeardAdvert], None],
        on_state: StateCallback,
        clock: Clock,
        on_overflow: OverflowCallback | None = None,
        taken: Collection[str] = (),
        silence_s: float = 60.0,
        call_timeout_s: float = 10.0,
        retry_cap_s: float = 3.0,
        power_grace_s: float = 5.0,
        limit: int = 2_000,
    ) -> None:
        self.heard = 0
        """Adverts from anybody."""
        self._link = link_id
        self._configured = adapter
        self._wanted = wanted
        self._on_state = on_state
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._retry_cap_s = retry_cap_s
        self._reports = Reports()
        self._queue = AdvertQueue(link_id, deliver, on_overflow, limit=limit)
        self._watch = BluezWatch(
            adapter=adapter,
            on_change=self._on_adapter,
            on_idle=self._on_idle,
            taken=taken,
            call_timeout_s=call_timeout_s,
        )
        self._power = AdapterPower(self._watch, adapter=adapter, link=link_id, grace_s=power_grace_s)
        self._monitor = AdvertMonitor(self._watch, link=link_id)
        self._silence = Silence(after_s=silence_s, known=known, now=clock.monotonic())

        self._looks = Looks(clock)
        self._usable = asyncio.Event()
        self._looked = asyncio.Event()
        self._scan = Scan(adapter)
        self._repairing: tuple[Repair, Stamp] | None = None
        self._unsure = False
        self._idle_at = self._missed_at = float("-inf")
        # Since when what a device said was dropped by bleak; None: nothing was.
        self._missed_since: Stamp | None = None
        self._stale: object | None = None
        # When a scan began after a deaf time; when an advert last came at the earliest, or that scan began; and when hearing
        # was last sure beyond doubt.
        self._began_at = self._heard_at = self._sure_at = clock.stamp()
        self._said: tuple[bool, str | None] | None = None
        self._ceased: Stamp | None = None

    @property
    def dropped(self) -> int:
        """Wanted adverts that a full queue cost."""
        return self._queue.dropped

    @property
    def failed(self) -> int:
        """Exceptions out of the callbacks that we were given, or out of an advert that could not be read."""
        return self._queue.failed

    async def run(self) -> None:
        """Listen until cancelled. What was heard is delivered before it returns."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._looks.run(), name=f"{self._link}-looks")
                tasks.create_task(self._watch.run(), name=f"{self._link}-watch")
                tasks.create_task(self._power.run(), name=f"{self._link}-power")
                tasks.create_task(self._monitor.run(), name=f"{self._link}-monitor")
                tasks.create_task(self._queue.run(), name=f"{self._link}-deliver")
                await self._keep_scanning()
        finally:
            self._queue.flush()

    # Scanning.

    async def _keep_scanning(self) -> None:
        failures = 0
        while True:
            self._usable.clear()
            scan = self._scan = Scan(self._watch.adapter)
            await bleak_bus.drop(self._stale)
            self._stale = None
            code = await self._scan_once(scan, first=failures == 0)
            if scan.repair is Repair.POWER_CYCLE:
                await self._power.cycle()
            # A missing adapter that the watch can see is missing in bleak's memory only.
            if scan.spoilt or (code == ble_problems.NO_ADAPTER and self._watch.state is AdapterState.READY):
                await bleak_bus.drop(bleak_bus.current())
            steady = scan.since is not None and self._clock.monotonic() - scan.since >= _STEADY_S
            # Silence has its own pace already; and after a good scan the first try is made at once.
            if steady or scan.repair is not None:
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

    async def _scan_once(self, scan: Scan, *, first: bool) -> str:
        """Scan with a fresh scanner until it no longer hears; tell and return why, as a problem code ("" for a repair)."""
        # A whole new scanner each time: bleak's own cannot be trusted after an adapter went away under it.
        scanner = BleakScanner(self._on_advert, bluez={"adapter": scan.adapter, "filters": {"DuplicateData": True}})
        try:
            await self._hear(scanner, scan)
            if scan.repair is not None:
                self._begin_repair(scan.repair)
                return ""
            code, text = scan.problem or (ble_problems.OTHER, "ended without a reason")
            if code in VAGUE:
                # The error itself says little; the watch learns at the same moment what is wrong, on its own socket.
                await asyncio.sleep(_NAMING_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FIRST_LOOK_S):
                        await self._looked.wait()
            seen = self._watch.state
            knows = seen in ENDING or (seen is AdapterState.DENIED and code in VAGUE)
            if knows and seen.problem is not None and seen.problem != code:
                code, text = seen.problem, self._words(seen)
            # What the watch sees is mended already is not told, unless the next try, made at once, finds the same.
            mended = seen is AdapterState.READY and code in WATCHED
            if self._says_hearing() or not (first and mended):
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

    async def _hear(self, scanner: BleakScanner, scan: Scan) -> None:
        """Start, and return when the scan is over; it says why."""
        try:
            slow = asyncio.get_running_loop().call_later(_SLOW_START_S, self._on_slow_start, scan)
            try:
                async with asyncio.timeout(self._call_timeout_s):
                    await scanner.start()
            finally:
                slow.cancel()
            scan.connection = bleak_bus.current()
            bleak_bus.on_lost(lambda: scan.end(ble_problems.OTHER, "the connection to D-Bus ended"))
            # What the watch saw while it started counts: such a start is not told, neither as hearing nor as its end.
            if not scan.over.is_set():
                scan.since = self._clock.monotonic()
                self._tell_scanning()
                forget = bleak_bus.on_missed(self._on_missed)
                try:
                    await self._until_over(scan)
                finally:
                    forget()
        except TimeoutError:
            # The start that nobody answered may still be carried out, and be booked for our connection.
            scan.spoilt = True
            scan.end(ble_problems.OTHER, f"bluetoothd did not answer within {self._call_timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - bleak raises what it meets, down to AttributeError on a dying bus
            scan.spoilt = ble_problems.spoils_connection(error)
            scan.end(ble_problems.code_of(error), ble_problems.text_of(error))

    async def _until_over(self, scan: Scan) -> None:
        self._monitor.wake()
        self._watch.expect_scan()
        while not scan.over.is_set():
            repair, wait_s = self._silence.next(self._clock.monotonic())
            if wait_s <= 0:
                scan.end_for(repair)
                return
            # When the whole process stood still, the event loop reads the socket before it looks at its timers: adverts
            # that came meanwhile end the silence before it is judged.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await scan.over.wait()

    async def _stop(self, scanner: BleakScanner, scan: Scan) -> None:
        """Stop a scanner whatever state it is in; how that fails does not matter, for the next one is a new one."""
        try:
            async with asyncio.timeout(min(self._call_timeout_s, _STOP_TIMEOUT_S)):
                await scanner.stop()
        except TimeoutError:
            scan.spoilt = True
        except Exception as error:  # noqa: BLE001 - see above
            _log.debug("ble scanner did not stop cleanly", link=self._link, error=ble_problems.text_of(error))

    # What the watch sees.

    def _on_adapter(self, state: AdapterState) -> None:
        self._looked.set()
        self._power.on_state(state)
        if state in {AdapterState.NO_BUS, AdapterState.NO_DAEMON}:
            # What bleak knows of adapters and devices is of a daemon that is gone, and nothing corrects it.
            self._stale = bleak_bus.current()
        if state is AdapterState.READY:
            self._usable.set()
            self._monitor.wake()
            if self._scan.adapter != self._watch.adapter:
                self._scan.end_for(Repair.NEW_START)
        elif state in ENDING and state.problem is not None and not self._power.cycling:
            self._scan.end(state.problem, self._words(state))
            if not self._says_hearing():
                # Nothing else would tell it before the next try.
                self._tell_ceased(state.problem, self._words(state))

    def _on_idle(self) -> None:
        now = self._clock.monotonic()
        since = self._scan.since
        if since is None or now - since < IDLE_AFTER_S:
            return
        # Adverts prove the contrary. And should some release not tell of scans, they are not cut to pieces.
        wait_s = max(IDLE_AFTER_S - self._silence.silent_s(now), _STEADY_S - (now - self._idle_at))
        if wait_s > 0:
            self._watch.expect_scan(after_s=wait_s)
            return
        self._idle_at = now
        self._scan.end(ble_problems.OTHER, "bluetoothd ended the scan")

    def _on_missed(self) -> None:
        """bleak drops what one of the devices says: a new connection knows it. Now and then only, should that not help.

        What was dropped is told with that new start, however short it is.
        """
        now = self._clock.monotonic()
        self._missed_since = self._missed_since or self._came_after()
        if now - self._missed_at >= _STEADY_S:
            self._missed_at = now
            self._scan.spoilt = True
            self._scan.end_for(Repair.NEW_START)
            _log.info("bleak had forgotten a device, the scan starts anew", link=self._link)

    def _on_slow_start(self, scan: Scan) -> None:
        if scan is self._scan and self._watch.state is AdapterState.READY:
            self._tell_ceased(ble_problems.OTHER, f"bluetoothd has not answered for {_SLOW_START_S:g} s")

    def _words(self, state: AdapterState) -> str:
        words = f"{self._watch.adapter}: {state.name.lower().replace('_', ' ')}"
        return f"{words} ({self._power.refusal})" if self._power.refusal else words

    # What is heard.

    def _on_advert(self, device: BLEDevice, data: AdvertisementData) -> None:
        try:
            if data.rssi == _NO_RSSI:
                return
            now = self._clock.stamp()
            address = device.address.upper()
            self.heard += 1
            # One that slips in while a scan is being started or stopped does not vouch for it.
            if self._scan.since is not None and not self._scan.over.is_set():
                self._note_hearing(address, now)
            if self._wanted(address):
                advert = advert_of(address, data, self._reports.cached(address, data))
                self._queue.put(HeardAdvert(self._link, advert, now))
        except Exception as error:  # noqa: BLE001 - what one advert does must not reach the scan
            self._queue.count_failure("advert", error)

    def _note_hearing(self, address: str, now: Stamp) -> None:
        was_deaf = self._silence.claimed
        ended, silent_s = self._silence.heard(address, self._clock.monotonic())
        if ended is Ended.DEAFNESS:
            # A silence without example, and a repair ended it: only now it is known to have been deafness.
            self._tell_deaf(silent_s)
        elif ended is Ended.DOUBTFUL:
            self._tell(hearing=False, at=self._heard_at, problem=None, facts={})
        if was_deaf or ended is not Ended.USUAL:
            self._began_at = now
        self._heard_at = self._sure_at = self._came_after()
        if was_deaf or self._unsure or ended is not Ended.USUAL:
            self._unsure = False
            self._tell_hearing(now)

    # What is said of it.

    def _begin_repair(self, repair: Repair) -> None:
        """Say what silence means by now, before something is done about it."""
        monotonic = self._clock.monotonic()
        if repair is Repair.POWER_CYCLE and self._silence.overdue(monotonic):
            self._silence.claimed = True
            self._tell_deaf(self._silence.silent_s(monotonic))
        elif not self._silence.claimed and self._silence.unsure(monotonic):
            self._unsure = True
            self._tell_hearing(self._sure_at)
        self._repairing = (repair, self._clock.stamp())

    def _tell_scanning(self) -> None:
        now = self._clock.stamp()
        repairing, self._repairing = self._repairing, None
        missed, self._missed_since = self._missed_since, None
        if missed is not None and self._says_hearing():
            self._tell(hearing=False, at=missed, problem=None, facts={})
        if repairing is not None:
            repair, since = repairing
            self._silence.repaired(repair, self._clock.monotonic())
            if self._says_hearing() and now.mono_ms - since.mono_ms > _UNTOLD_MS:
                self._tell(hearing=False, at=since, problem=None, facts={})
        if self._silence.claimed:
            # It says that it scans, as it did before: only an advert proves that it hears.
            self._tell_deaf(self._silence.silent_s(self._clock.monotonic()))
            return
        if not self._says_hearing() and repairing is None:
            self._silence.began(self._clock.monotonic())
            self._heard_at = self._began_at = now
            self._unsure = False
        self._sure_at = self._came_after()
        self._tell_hearing(now)

    def _came_after(self) -> Stamp:
        """Return after which moment that has come which is read now: whoever sent it may be gone since then."""
        return max(self._looks.sure, self._began_at, key=lambda at: at.mono_ms)

    def _tell_hearing(self, now: Stamp) -> None:
        """It hears; and what people should know of it nevertheless."""
        code: str | None = None
        facts: dict[str, object] = {}
        if self._unsure:
            code, facts = ble_problems.SILENT, self._silent_facts(self._silence.silent_s(self._clock.monotonic()))
        elif self._scan.adapter != self._configured:
            code, facts = ble_problems.STANDS_IN, {"adapter": self._configured, "other": self._scan.adapter}
        self._tell(hearing=True, at=now, problem=code, facts=facts)

    def _tell_deaf(self, silent_s: float) -> None:
        self._tell(hearing=False, at=self._heard_at, problem=ble_problems.DEAF, facts=self._silent_facts(silent_s))

    def _tell_ceased(self, code: str, text: str) -> None:
        """It no longer hears, and everybody knows why."""
        self._repairing = None
        at = self._sure_at if self._says_hearing() else self._clock.stamp()
        missed, self._missed_since = self._missed_since, None
        at = at if missed is None or missed.mono_ms > at.mono_ms else missed
        self._tell(hearing=False, at=at, problem=code, facts={"adapter": self._watch.adapter, "detail": text})

    def _says_hearing(self) -> bool:
        return self._said is not None and self._said[0]

    def _silent_facts(self, silent_s: float) -> dict[str, object]:
        return {"adapter": self._scan.adapter, "silent_s": round(silent_s, 1), "cycles": self._silence.cycles or None}

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
            self._queue.count_failure("state", error)
