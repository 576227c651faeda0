"""One run of the gateway, from its lock to its goodbye.

Where a bug may go: in the hearing it costs one message (guards stand where bytes of others are read); in a delivery or
the control socket it costs that room, which is built anew; in the outbox or here it ends the process, and the service
manager starts it again. Limit: an orderly end takes at most `END_LIMIT_S`; after that the process ends itself, for what
is stored is safe and what is not lies in the gap that the next start tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gateway import __version__
from gateway.alarms import AlarmBook, Change
from gateway.app.counting import Counting
from gateway.app.desks import desks_of
from gateway.app.inward import Inward
from gateway.app.keepers import Keepers
from gateway.app.outward import Outward
from gateway.app.progress import buses, delivering, radios, storing, ticking
from gateway.app.sign_of_life import SignOfLife
from gateway.app.timekeeping import Timekeeping
from gateway.clock import Stamp, SystemClock
from gateway.collect import Collector, Desk, Hearing
from gateway.collect.hearing import TICK_S, heard_by, last_sign
from gateway.collect.judge import Judge
from gateway.config import Settings
from gateway.control import ControlServer
from gateway.errors import GatewayError, StoreError
from gateway.events import Lane, Origin, wants
from gateway.health import Health
from gateway.journal import configure_log
from gateway.lifetime import Owner, end_after, sole_owner
from gateway.operations import Operations, Rooms
from gateway.outbox import AlarmRow, Mark, Outbox, Route
from gateway.outbox.alive import AliveNotes
from gateway.outbox.replay import KEPT
from gateway.problems import describe
from gateway.texts import table, text
from gateway.watchdog import Loop, ServiceManager, Watchdog

ALIVE_TOLERANCE_MS: Final = 2_000
INTAKE_LIMIT_S: Final = 4.0
FLUSH_LIMIT_S: Final = 2.0
ALARM_DRAIN_S: Final = 5.0
GOODBYE_LIMIT_S: Final = 2.0
END_LIMIT_S: Final = 14.0
CONTROL_RETRY_S: Final = 10.0
CONTROL_READY_S: Final = 2.0
NOTE_LIMIT_S: Final = 0.5
DISK_SILENT_S: Final = 5.0
# For so long the event loop keeps the interpreter from the thread that commits, at each of its statements, in a flood.
SWITCH_S: Final = 0.0001

_log = structlog.get_logger("gateway")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 0 after an orderly end, 2 when it could not begin."""
    configure_log()
    for lang in {settings.gateway.lang, "en"}:  # the log is English
        table(lang)  # now: a Pi takes some tenths of a second for it, in which the event loop would hear nobody
    sys.setswitchinterval(SWITCH_S)
    faulthandler.enable()  # a watchdog's SIGABRT leaves in the journal where every thread stood
    try:
        with sole_owner(settings.gateway.data_dir) as owner:
            asyncio.run(_run(settings, owner))
    except GatewayError as error:
        told = describe(error.code, settings.gateway.lang, error.subject, error.facts)
        print(f"{error.code} {told.title}\n{told.remedy}", file=sys.stderr)
        return 2
    return 0


async def _run(settings: Settings, owner: Owner) -> None:
    try:
        await _App(settings, hold=owner.hold).run()
    except GatewayError:
        raise
    except Exception:
        # A thread that hangs in a disk would keep what a bug has ended: deaf, and not started again.
        end_after(END_LIMIT_S).start()
        raise


class _App:
    """One run of the gateway."""

    def __init__(self, settings: Settings, *, hold: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._hold = hold
        gateway = settings.gateway
        self._clock = SystemClock()
        self._began = self._clock.stamp()
        self._origin = Origin(gateway.org, gateway.site, gateway.id, tuple(gateway.org_path))
        self._health = Health(self._clock)
        near = gateway.control_socket.with_name(f"{gateway.control_socket.name}.alive")
        self._alive = AliveNotes(gateway.data_dir / "alive", near)
        self._sign = SignOfLife(self._alive, clock=self._clock, on_written=self._on_sign_written)
        self._service = ServiceManager()
        self._ticks = self._signs_failed = 0
        self._stop = asyncio.Event()
        self._control_known = asyncio.Event()
        self._is_built = self._is_store_told = False
        self._outbox: Outbox
        self._alarms: AlarmBook
        self._judge: Judge
        self._collector: Collector
        self._hearing: Hearing
        self._inward: Inward
        self._outward: Outward
        self._counting: Counting
        self._timekeeping: Timekeeping
        self._watchdog: Watchdog

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Build, run, end."""
        last_resort = end_after(END_LIMIT_S)

        def end() -> None:
            if not self._stop.is_set():
                self._stop.set()
                last_resort.start()

        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, end)
        try:
            await self._build()
            gc.freeze()  # what the start has made stays: the collector need not look at it again and again
            gc.enable()
            _log.info("started", version=__version__, gateway=self._origin.source, stream=self._outbox.streamid)
            await self._serve()
            self._tell_unstored()
            await self._sign.close()
            await self._outbox.close()
        finally:
            last_resort.cancel()
            self._service.close()
        _log.info("ended", sequence=self._outbox.sequence)

    async def _serve(self) -> None:
        """Do everything at once until told to stop, then end it."""
        async with asyncio.TaskGroup() as group:
            outbox = group.create_task(self._outbox.run(), name="outbox")
            control = group.create_task(self._serve_control(), name="control")
            await self._tell_ready()
            watchdog = group.create_task(self._watchdog.run(), name="watchdog")
            intake = self._inward.start(group)
            outward = [
                group.create_task(self._outward.run(at), name=f"deliver {one.id}")
                for at, one in enumerate(self._settings.destinations)
            ]
            alive = group.create_task(self._keep_alive(), name="alive")
            keepers = [group.create_task(work, name=name) for name, work in self._keepers().by_name().items()]
            timekeeping = group.create_task(self._timekeeping.run(), name="timekeeping")
            await self._stop.wait()
            for one in (alive, *keepers, timekeeping):
                one.cancel()
            self._watchdog.end()
            self._service.stopping()
            await self._end(intake, outward)
            outbox.cancel()
            control.cancel()
            watchdog.cancel()

    def _tell_unstored(self) -> None:
        """What no disk has taken ends with this process: the log is the last place where it can stand."""
        waiting = self._outbox.waiting_events()
        if waiting:
            alarms = [f"{one.noun} {one.device} {one.id}" for one in waiting if one.lane is Lane.A]
            by_type = dict(Counter(one.noun for one in waiting))
            _log.error("ended with events that were never stored", count=len(waiting), types=by_type, alarms=alarms)

    async def _tell_ready(self) -> None:
        """The database is open and whoever asks is answered. Not later: a call to a sleeping BlueZ can block for 25 s."""
        try:
            async with asyncio.timeout(CONTROL_READY_S):
                await self._control_known.wait()
        except TimeoutError:
            pass  # it is told as a problem when it fails; calls must be heard meanwhile
        self._service.ready()

    async def _end(self, intake: list[asyncio.Task[None]], outward: list[asyncio.Task[None]]) -> None:
        """Stop hearing, store what was heard, deliver the alarms, say goodbye (northbound rule 20)."""
        heard_until = self._clock.stamp()
        # At once, and no later stamp after it: whoever kills us while we end must find the beginning of the silence.
        await self._sign.note_last(self._durable_until(heard_until), limit_s=NOTE_LIMIT_S)
        _log.info("ending")
        self._hearing.end()
        await _cancelled(intake, INTAKE_LIMIT_S)
        self._hearing.tick()
        self._collector.keep_registers()
        stored = await self._outbox.flush(FLUSH_LIMIT_S)
        await asyncio.gather(*(one.drain_alarms(ALARM_DRAIN_S) for one in self._outward.deliverers))
        await _cancelled(outward, GOODBYE_LIMIT_S)
        if stored and await self._outbox.flush(FLUSH_LIMIT_S / 2):
            await self._sign.note_last(self._durable_until(heard_until), limit_s=NOTE_LIMIT_S)

    async def _serve_control(self) -> None:
        gateway = self._settings.gateway
        operations = Operations(
            Rooms(
                self._origin, gateway.lang, self._began, self._clock, self._health, self._outbox, self._alarms,
                self._collector, self._hearing, self._outward.deliverers, self._inward.dropped, self._inward.buses,
            )
        )  # fmt: skip
        path = gateway.control_socket

        def serving() -> None:
            self._health.off("GW-CTL-04", str(path))
            self._control_known.set()

        server = ControlServer(
            path, operations.by_name(), listen=operations.listen, lang=gateway.lang, on_ready=serving
        )
        while True:
            try:
                await server.run()
            except OSError as error:
                self._health.on("GW-CTL-04", str(path), detail=error.strerror or str(error))
            except Exception as bug:  # noqa: BLE001 - who asks must not end the hearing of calls
                _log.error("the control socket failed and is opened anew", exc_info=bug)
                self._health.on("GW-CTL-04", str(path), detail=repr(bug)[:200])
            self._control_known.set()
            await asyncio.sleep(CONTROL_RETRY_S)

    def _keepers(self) -> Keepers:
        return Keepers(
            self._settings, self._origin, self._outbox, self._outward, self._alarms, self._clock, self._health,
            self._announce,
        )  # fmt: skip

    async def _keep_alive(self) -> None:
        heard_until = self._clock.stamp()
        while True:
            self._ticks += 1
            # Of the tick before: what has just come may still lie in a queue of the kernel's, which nobody has looked into.
            self._sign.note(self._durable_until(heard_until))
            heard_until = self._clock.stamp()
            self._hearing.tick()
            self._inward.on_stored()
            self._counting.tick()
            self._judge_disk()
            self._timekeeping.tick()
            await asyncio.sleep(TICK_S)

    def _durable_until(self, at: Stamp) -> Stamp:
        """Return the last sign of life: never later than what was heard and is not yet durable, nor than a deaf time."""
        waiting = [one for one in (self._outbox.oldest_waiting, self._hearing.not_durable_since) if one is not None]
        return min(at, *waiting, key=lambda one: (one.boot == at.boot, one.mono_ms)) if waiting else at

    def _on_sign_written(self, error: BaseException | None) -> None:
        path = str(self._settings.gateway.data_dir / "alive")
        # The greater trouble is told by the outbox, which meets the same disk within a second.
        self._signs_failed = 0 if error is None or self._outbox.is_failing else self._signs_failed + 1
        if not self._signs_failed:
            self._health.off("GW-STO-01", path)
        elif self._signs_failed > 1:
            detail = getattr(error, "strerror", None) or repr(error)
            self._health.on("GW-STO-01", path, folder=str(self._settings.gateway.data_dir), detail=detail)

    def _judge_disk(self) -> None:
        """A disk that gives an error is told by who meets it; one that gives no answer at all is told here."""
        silent_s = self._sign.silent_s
        oldest, now = self._outbox.oldest_waiting, self._clock.stamp()
        if self._outbox.is_failing and not self._is_store_told and oldest is not None and oldest.boot == now.boot:
            silent_s = max(silent_s, (now.mono_ms - oldest.mono_ms) / 1000)
        if silent_s >= DISK_SILENT_S:
            self._health.on("GW-RUN-05", "", path=str(self._settings.gateway.data_dir), seconds=round(silent_s))
        else:
            self._health.off("GW-RUN-05")

    # -- the service manager ------------------------------------------------------------------------------------

    def _watch(self) -> Watchdog:
        deliveries = [
            delivering(one.id, lambda: self._outward.deliverers, self._outbox, self._health)
            for one in self._settings.destinations
        ]
        loops: list[Loop] = [
            storing(self._outbox), ticking(lambda: self._ticks), *deliveries,
            *radios(self._settings, self._hearing, self._inward.heard),
            *buses(self._settings, self._hearing, self._collector.desks),
        ]  # fmt: skip
        return Watchdog(
            self._service, loops, clock=self._clock, words=self._words,
            on_stall=lambda name, still_s: self._health.on("GW-RUN-04", name, seconds=round(still_s)),
            on_move=lambda name: self._health.off("GW-RUN-04", name),
        )  # fmt: skip

    def _words(self) -> str:
        """How it is, in the line that `systemctl status` shows."""
        deaf = [one["id"] for one in self._hearing.status({}) if not one["hearing"]]
        away = [one.name for one in self._outward.deliverers if not one.connected]
        return text(
            "service.status", self._settings.gateway.lang, alarms=self._alarms.open_count, deaf=", ".join(deaf),
            away=", ".join(away),
        )  # fmt: skip

    # -- building -----------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        settings = self._settings
        # Events wait for a destination that is set aside: mending the configuration must find them all.
        wanting = (*settings.destinations, *settings.set_aside_destinations)
        routes = [Route(one.id, tuple(one.types)) for one in wanting]
        self._outbox = Outbox(
            settings.gateway.data_dir / "outbox.db", routes, clock=self._clock, hold=self._hold, retain=KEPT,
            linger_s=settings.outbox.linger_s,
        )  # fmt: skip
        self._outbox.on_trouble = self._on_store_trouble
        self._outbox.on_bug = self._on_store_bug
        self._timekeeping = Timekeeping(
            self._clock, self._origin, outbox=self._outbox, health=self._health, alive=self._alive.read()
        )
        await self._outbox.open()
        self._timekeeping.begin()
        marks = await self._outbox.marks()
        self._alarms = AlarmBook(self._origin, [one.id for one in wanting if wants(one.types, "alarm.raised")])
        judge = self._judge = Judge()
        judge.load(marks)
        desks = desks_of(settings)
        self._collector = Collector(
            self._origin, desks, outbox=self._outbox, alarms=self._alarms, judge=judge, health=self._health,
            clock=self._clock, announce=self._announce,
        )  # fmt: skip
        self._collector.registers.load(marks)
        self._hearing = self._hearing_of(desks, marks)
        self._collector.on_refused = self._hearing.on_refused
        for alarm in self._alarms.load(row.doc for row in await self._outbox.alarms()):
            self._announce(Change(alarm, None))
        for one in settings.destinations:
            with contextlib.suppress(
                StoreError
            ):  # how far an alarm has come is then not known; it is sent all the same
                pending = await self._outbox.pending_alarm_ids(one.id)
                self._alarms.seed_delivery(one.id, pending, finish=one.finish)
        self._is_built = True
        if self._outbox.was_replaced:
            self._collector.store_again()
        self._hearing.begin()
        self._inward = Inward(
            settings, desks, origin=self._origin, collector=self._collector, judge=judge, hearing=self._hearing,
            outbox=self._outbox, clock=self._clock, health=self._health,
        )  # fmt: skip
        self._outward = Outward(
            settings, self._origin, outbox=self._outbox, alarms=self._alarms, clock=self._clock, health=self._health,
            on_time=self._timekeeping.platform_says,
        )  # fmt: skip
        self._counting = Counting(
            self._origin, self._outbox, clock=self._clock, began=self._began, silent=self._collector.silent_since
        )
        self._watchdog = self._watch()
        self._outbox.live = self._outward.is_live
        self._outbox.on_stored = self._on_stored
        self._outbox.on_found = self._on_found
        self._outbox.on_recalled = self._on_recalled
        for finding in settings.findings:
            self._health.on(finding.code, finding.where, **finding.facts)

    def _hearing_of(self, desks: Mapping[str, Desk], marks: list[Mark]) -> Hearing:
        used = {desk.link for desk in desks.values()}
        links = [(one.id, "ble") for one in self._settings.ble]
        links += [(one.id, "receiver") for one in self._settings.receivers]
        links += [(one.id, "serial") for one in self._settings.serial if one.id in used]
        links += [(one.id, "mqtt") for one in self._settings.mqtt if one.id in used or one.adverts]
        deaf_since = last_sign(
            self._alive.read(), heard_by(self._outbox.last_recorded), began=self._began, tolerance_ms=ALIVE_TOLERANCE_MS,
            boots=self._outbox.boots,
        )  # fmt: skip
        return Hearing(
            links, marks, deaf_since=deaf_since, clock=self._clock, health=self._health,
            store=self._collector.store_gap, radios=self._settings.radios,
        )  # fmt: skip

    # -- wires --------------------------------------------------------------------------------------------------

    def _on_stored(self) -> None:
        self._inward.on_stored()
        self._outward.wake()

    def _on_store_trouble(self, error: StoreError | None) -> None:
        self._is_store_told = error is not None
        passing = ("GW-STO-01", "GW-STO-03", "GW-STO-05", "GW-RUN-01")
        for code in passing:
            if error is None or (error.code in passing and error.code != code):
                self._health.off(code)
        if error is None:
            return
        self._health.on(error.code, "", **{"folder": str(self._settings.gateway.data_dir), **error.facts})
        if error.code == "GW-STO-02" and self._is_built:
            self._collector.store_again()
            self._timekeeping.store_again()
            self._hearing.begin()

    def _on_found(self, marks: list[Mark], alarms: list[AlarmRow]) -> None:
        """The database that could not be opened at the start is there: what it remembers joins what came since."""
        self._timekeeping.found()
        self._counting.found()
        self._on_recalled(marks, alarms)

    def _on_recalled(self, marks: list[Mark], alarms: list[AlarmRow]) -> None:
        """What could not be read at the start was brought over from a damaged database: it joins what came since."""
        self._judge.recall(marks)
        self._collector.registers.load(marks)
        self._hearing.recall(marks, until=self._began)
        for alarm in self._alarms.recall(row.doc for row in alarms):
            self._announce(Change(alarm, None))

    def _on_store_bug(self, bug: Exception) -> None:
        self._health.on("GW-RUN-03", "outbox", detail=f"{type(bug).__name__}: {bug}"[:200])

    def _announce(self, change: Change) -> None:
        """What staff hear and see: today the log and the control socket; light, sound and board come here."""
        alarm = change.alarm
        _log.warning(
            "alarm", id=alarm.id, state=alarm.state.value, kind=alarm.kind, device=alarm.device, room=alarm.room,
            presses=alarm.presses, verified=alarm.verified,
        )  # fmt: skip


async def _cancelled(tasks: list[asyncio.Task[None]], limit_s: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=limit_s)
