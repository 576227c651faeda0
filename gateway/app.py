"""Builds everything, wires it in one TaskGroup, and ends it in order: the only place that constructs the rooms.

Where a bug may go: in the hearing it costs one message (guards stand where bytes of others are read); in a delivery or
the control socket it costs that room, which is built anew; in the outbox or here it ends the process, and the service
manager starts it again. Limit: an orderly end takes at most `END_LIMIT_S`; after that the process ends itself, for what
is stored is safe and what is not lies in the gap that the next start tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from drivers.kit import Answers, Streams
from gateway import __version__
from gateway.alarms import AlarmBook, Change
from gateway.clock import Stamp, SystemClock
from gateway.collect import BusMaster, Collector, Desk, Hearing, StreamReader
from gateway.collect.hearing import TICK_S, last_sign
from gateway.collect.judge import Judge
from gateway.config import Destination, Serial, Settings
from gateway.control import ControlServer
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.errors import GatewayError, SecretError, StoreError
from gateway.events import Origin, wants
from gateway.health import Health
from gateway.journal import configure_log
from gateway.lifetime import end_after, sole_owner
from gateway.links.ble_radio import BleRadio
from gateway.links.serial_line import SerialLine
from gateway.links.state import LinkState
from gateway.mqtt_session import Endpoint, Tls
from gateway.operations import Operations, Rooms
from gateway.outbox import Mark, Outbox, Quota, Route
from gateway.outbox.alive import AliveFile
from gateway.problems import describe
from gateway.uplinks.mqtt import MqttUplink

ALIVE_TOLERANCE_MS: Final = 2_000
INTAKE_LIMIT_S: Final = 4.0
FLUSH_LIMIT_S: Final = 2.0
ALARM_DRAIN_S: Final = 5.0
GOODBYE_LIMIT_S: Final = 2.0
END_LIMIT_S: Final = 14.0
CONTROL_RETRY_S: Final = 10.0
REBUILD_CAP_S: Final = 60.0

_log = structlog.get_logger("gateway")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 0 after an orderly end, 2 when it could not begin."""
    configure_log()
    try:
        with sole_owner(settings.gateway.data_dir):
            asyncio.run(_App(settings).run())
    except GatewayError as error:
        text = describe(error.code, settings.gateway.lang, error.subject, error.facts)
        print(f"{error.code} {text.title}\n{text.remedy}", file=sys.stderr)
        return 2
    return 0


class _App:
    """One run of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        gateway = settings.gateway
        self._clock = SystemClock()
        self._began = self._clock.stamp()
        self._origin = Origin(gateway.org, gateway.site, gateway.id, tuple(gateway.org_path))
        self._health = Health(self._clock)
        self._alive = AliveFile(gateway.data_dir / "alive")
        self._stop = asyncio.Event()
        self._radios: dict[str, BleRadio] = {}
        self._lines: dict[str, SerialLine] = {}
        self._readers: dict[str, StreamReader] = {}
        self._masters: list[BusMaster] = []
        self._deliverers: list[Deliverer] = []
        self._is_built = False
        self._outbox: Outbox
        self._alarms: AlarmBook
        self._collector: Collector
        self._hearing: Hearing

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Build, run, end. Raises StoreError when there is no database to be had."""
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
            _log.info("started", version=__version__, gateway=self._origin.source, stream=self._outbox.streamid)
            await self._serve()
            self._alive.close()
            await self._outbox.close()
        finally:
            last_resort.cancel()
        _log.info("ended", sequence=self._outbox.sequence)

    async def _serve(self) -> None:
        """Do everything at once until told to stop, then end it."""
        async with asyncio.TaskGroup() as group:
            intake = [
                *(group.create_task(radio.run(), name=f"radio {name}") for name, radio in self._radios.items()),
                *(group.create_task(line.run(), name=f"line {name}") for name, line in self._lines.items()),
                *(group.create_task(master.run(), name="bus master") for master in self._masters),
                *(group.create_task(one.keep_asking(), name=f"poll {name}") for name, one in self._readers.items()),
            ]
            outbox = group.create_task(self._outbox.run(), name="outbox")
            outward = [
                group.create_task(self._deliver(at, one), name=f"deliver {one.id}")
                for at, one in enumerate(self._settings.destinations)
            ]
            control = group.create_task(self._serve_control(), name="control")
            alive = group.create_task(self._keep_alive(), name="alive")
            quota = group.create_task(self._quota().run(), name="quota")
            await self._stop.wait()
            alive.cancel()
            quota.cancel()
            await self._end(intake, outward)
            outbox.cancel()
            control.cancel()

    async def _end(self, intake: list[asyncio.Task[None]], outward: list[asyncio.Task[None]]) -> None:
        """Stop hearing, store what was heard, deliver the alarms, say goodbye (northbound rule 20)."""
        _log.info("ending")
        heard_until = self._clock.stamp()
        # At once, and no later stamp after it: whoever kills us while we end must find the beginning of the silence.
        self._write_alive(heard_until)
        self._hearing.end()
        await _cancelled(intake, INTAKE_LIMIT_S)
        self._hearing.tick()
        stored = await self._outbox.flush(FLUSH_LIMIT_S)
        await asyncio.gather(*(one.drain_alarms(ALARM_DRAIN_S) for one in self._deliverers))
        await _cancelled(outward, GOODBYE_LIMIT_S)
        if stored and await self._outbox.flush(FLUSH_LIMIT_S / 2):
            self._write_alive(heard_until)

    async def _deliver(self, at: int, destination: Destination) -> None:
        """Deliver for ever. A bug in it is logged whole, and the deliverer built anew from what is stored."""
        failures = 0
        while True:
            try:
                await self._deliverers[at].run()
            except Exception as bug:  # noqa: BLE001 - a platform's answer must not end the hearing of calls
                _log.error("a delivery failed and is begun anew", destination=destination.id, exc_info=bug)
                self._health.on("GW-RUN-03", destination.id, detail=f"{type(bug).__name__}: {bug}"[:200])
            failures += 1
            await asyncio.sleep(random.uniform(0, min(REBUILD_CAP_S, 2.0 ** min(failures, 10))))  # noqa: S311 - jitter
            self._deliverers[at] = self._deliverer(destination)

    async def _serve_control(self) -> None:
        gateway = self._settings.gateway
        operations = Operations(
            Rooms(
                self._origin, gateway.lang, self._began, self._clock, self._health, self._outbox, self._alarms,
                self._collector, self._hearing, self._deliverers,
                lambda: {name: radio.dropped for name, radio in self._radios.items()},
            )
        )  # fmt: skip
        path = gateway.control_socket
        server = ControlServer(
            path, operations.by_name(), listen=operations.listen, lang=gateway.lang,
            on_ready=lambda: self._health.off("GW-CTL-04", str(path)),
        )  # fmt: skip
        while True:
            try:
                await server.run()
            except OSError as error:
                self._health.on("GW-CTL-04", str(path), detail=error.strerror or str(error))
            except Exception as bug:  # noqa: BLE001 - who asks must not end the hearing of calls
                _log.error("the control socket failed and is opened anew", exc_info=bug)
                self._health.on("GW-CTL-04", str(path), detail=repr(bug)[:200])
            await asyncio.sleep(CONTROL_RETRY_S)

    def _quota(self) -> Quota:
        def trouble(share: float | None) -> None:
            if share is None:
                self._health.off("GW-STO-04")
            else:
                self._health.on("GW-STO-04", "", percent=round(100 * share))

        return Quota(
            self._outbox, self._origin, max_bytes=self._settings.outbox.max_mb * 1024 * 1024, clock=self._clock,
            loaded=lambda lane: max((one.loaded(lane) for one in self._deliverers), default=0), trouble=trouble,
        )  # fmt: skip

    async def _keep_alive(self) -> None:
        while True:
            self._write_alive(self._clock.stamp())
            self._hearing.tick()
            for reader in self._readers.values():
                reader.on_stored()
            await asyncio.sleep(TICK_S)

    def _write_alive(self, at: Stamp) -> None:
        """Note the last sign of life: never later than what was heard and is not yet durable."""
        oldest = self._outbox.oldest_waiting
        if oldest is not None and oldest.mono_ms < at.mono_ms and oldest.boot == at.boot:
            at = oldest
        try:
            self._alive.write(at)
        except OSError as error:
            self._health.on("GW-STO-01", str(self._settings.gateway.data_dir / "alive"), detail=error.strerror)
        else:
            self._health.off("GW-STO-01", str(self._settings.gateway.data_dir / "alive"))

    # -- building -----------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        settings = self._settings
        # Events wait for a destination that is set aside: mending the configuration must find them all.
        wanting = (*settings.destinations, *settings.set_aside_destinations)
        routes = [Route(one.id, tuple(one.types)) for one in wanting]
        self._outbox = Outbox(settings.gateway.data_dir / "outbox.db", routes, clock=self._clock)
        self._outbox.on_trouble = self._on_store_trouble
        await self._outbox.open()
        marks = await self._outbox.marks()
        self._alarms = AlarmBook(self._origin, [one.id for one in wanting if wants(one.types, "alarm.raised")])
        judge = Judge()
        judge.load(marks)
        desks = self._desks()
        self._collector = Collector(
            self._origin, desks, outbox=self._outbox, alarms=self._alarms, judge=judge, health=self._health,
            clock=self._clock, announce=self._announce,
        )  # fmt: skip
        self._hearing = self._hearing_of(desks, marks)
        self._collector.on_refused = self._hearing.on_refused
        for alarm in self._alarms.load(row.doc for row in await self._outbox.alarms()):
            self._announce(Change(alarm, None))
        for one in settings.destinations:
            pending = await self._outbox.pending_alarm_ids(one.id)
            self._alarms.seed_delivery(one.id, pending, finish=one.finish)
        self._is_built = True
        self._hearing.begin()
        self._build_links(desks)
        self._deliverers += [self._deliverer(destination) for destination in settings.destinations]
        self._outbox.live = lambda: all(one.is_live for one in self._deliverers)
        self._outbox.on_stored = self._on_stored
        for finding in settings.findings:
            self._health.on(finding.code, finding.where, **finding.facts)

    def _desks(self) -> dict[str, Desk]:
        return {
            one.id: Desk(
                one.id, one.model, one.link, one.address, one.room, one.bed, one.driver, one.options, one.key_bytes,
                one.calls_on, one.every_s, wired=any(one.link == line.id for line in self._settings.serial),
            )
            for one in self._settings.devices
        }  # fmt: skip

    def _hearing_of(self, desks: Mapping[str, Desk], marks: list[Mark]) -> Hearing:
        used = {desk.link for desk in desks.values()}
        links = [(one.id, "ble") for one in self._settings.ble]
        links += [(one.id, "serial") for one in self._settings.serial if one.id in used]
        deaf_since = last_sign(
            self._alive.read(), self._outbox.last_recorded, began=self._began, tolerance_ms=ALIVE_TOLERANCE_MS
        )
        return Hearing(
            links, marks, deaf_since=deaf_since, clock=self._clock, health=self._health, store=self._collector.store_gap
        )

    def _build_links(self, desks: Mapping[str, Desk]) -> None:
        for ble in self._settings.ble:
            self._radios[ble.id] = BleRadio(
                link_id=ble.id, adapter=ble.adapter, silence_s=ble.silence_s, wanted=self._wanted(ble.id),
                deliver=self._collector.on_advert, on_state=self._hearing.on_state,
                on_overflow=self._on_overflow(ble.id), clock=self._clock,
            )  # fmt: skip
        for serial in self._settings.serial:
            on_line = [desk for desk in desks.values() if desk.link == serial.id]
            if on_line:
                self._build_line(serial, on_line)

    def _build_line(self, serial: Serial, desks: list[Desk]) -> None:
        driver = desks[0].driver
        assert isinstance(driver, Streams | Answers)  # noqa: S101 - the configuration refuses the rest
        reader = self._reader(serial, desks) if isinstance(driver, Streams) else None
        line = self._lines[serial.id] = SerialLine(
            link_id=serial.id, port=serial.port, line=serial.line(driver.line), quiet_ms=serial.quiet_ms,
            echo=serial.echo, on_state=self._on_line_state, clock=self._clock,
            on_data=reader.on_data if reader else None,
        )  # fmt: skip
        if reader:
            reader.attach(line)
        else:
            master = BusMaster(line, desks, collector=self._collector, clock=self._clock, health=self._health)
            self._masters.append(master)

    def _reader(self, serial: Serial, desks: list[Desk]) -> StreamReader:
        def deaf(first: Stamp, last: Stamp) -> None:
            self._hearing.on_overflow(serial.id, 0, first=first, last=last)

        reader = self._readers[serial.id] = StreamReader(
            serial.id, desks, collector=self._collector, outbox=self._outbox, clock=self._clock, health=self._health,
            on_deaf=None if serial.port.startswith("socket:") else deaf,
        )  # fmt: skip
        return reader

    def _deliverer(self, destination: Destination) -> Deliverer:
        path = destination.path[0]
        tls = Tls(path.ca_file, path.cert_file, path.key_file) if path.tls else None
        origin = self._origin
        password = ""
        with contextlib.suppress(SecretError):  # told as a finding; the login fails, loudly, and its events wait
            password = path.password.text() if path.password else ""
        endpoint = Endpoint(
            path.host, path.port, f"{origin.org}-{origin.site}-{origin.gateway}", path.username, password, tls
        )
        return Deliverer(
            destination.id, MqttUplink(endpoint, origin, destination=destination.id), self._outbox,
            finish=destination.finish, reconnect_spread_s=destination.reconnect_spread_s, clock=self._clock,
            health=self._health,
            callbacks=DeliveryCallbacks(
                delivered=lambda event_id, level: self._alarms.delivered(destination.id, event_id, level),
                birth=self._birth,
            ),
        )  # fmt: skip

    # -- wires --------------------------------------------------------------------------------------------------

    def _wanted(self, link: str) -> Callable[[str], bool]:
        return lambda address: self._collector.wants(link, address)

    def _on_overflow(self, link: str) -> Callable[[int, Stamp, Stamp], None]:
        return lambda count, first, last: self._hearing.on_overflow(link, count, first=first, last=last)

    def _on_line_state(self, state: LinkState) -> None:
        reader = self._readers.get(state.link)
        if reader and state.hearing:
            reader.reopened()
        self._hearing.on_state(state)

    def _on_stored(self) -> None:
        for reader in self._readers.values():
            reader.on_stored()
        for deliverer in self._deliverers:
            deliverer.wake()

    def _on_store_trouble(self, error: StoreError | None) -> None:
        if error is None:
            for code in ("GW-STO-01", "GW-STO-03"):
                self._health.off(code)
            return
        self._health.on(error.code, "", **error.facts)
        if error.code == "GW-STO-02" and self._is_built:
            self._collector.store_again()
            self._hearing.begin()

    def _announce(self, change: Change) -> None:
        """What staff hear and see: today the log and the control socket; light, sound and board come here."""
        alarm = change.alarm
        _log.warning(
            "alarm", id=alarm.id, state=alarm.state.value, kind=alarm.kind, device=alarm.device, room=alarm.room,
            presses=alarm.presses, verified=alarm.verified,
        )  # fmt: skip

    def _birth(self) -> Mapping[str, object]:
        settings = self._settings
        return {
            "gateway": self._origin.gateway,
            "version": __version__,
            "profile": "native",
            "streamid": self._outbox.streamid,
            "devices": [
                {"id": one.id, "model": one.model, "room": one.room, "bed": one.bed} for one in settings.devices
            ],
            "rooms": [{"id": one.id} for one in settings.rooms],
        }


async def _cancelled(tasks: list[asyncio.Task[None]], limit_s: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=limit_s)
