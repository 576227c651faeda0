"""Builds everything, wires it in one TaskGroup, and ends it in order: the only place that constructs the rooms."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from drivers.kit import Answers, Streams
from gateway import __version__
from gateway.alarms import AlarmBook, Change
from gateway.clock import Stamp, SystemClock, iso
from gateway.collect import BusMaster, Collector, Desk, Hearing, StreamReader
from gateway.collect.desk import Heard
from gateway.collect.judge import Judge
from gateway.config import Destination, Settings
from gateway.control import ControlServer
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.errors import GatewayError, StoreError
from gateway.events import Origin
from gateway.health import Health
from gateway.links.ble_radio import BleRadio
from gateway.links.serial_line import SerialLine
from gateway.links.state import LinkState
from gateway.mqtt_session import Endpoint, Tls
from gateway.outbox import Outbox, Route
from gateway.outbox.alive import AliveFile
from gateway.problems import describe
from gateway.uplinks.mqtt import MqttUplink

ALIVE_EVERY_S: Final = 1.0
FLUSH_LIMIT_S: Final = 3.0
ALARM_DRAIN_S: Final = 5.0

_log = structlog.get_logger("gateway")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 0 after an orderly end, 2 when it could not begin."""
    _configure_log()
    try:
        with _sole_owner(settings.gateway.data_dir):
            asyncio.run(_App(settings).run())
    except GatewayError as error:
        text = describe(error.code, settings.gateway.lang, error.subject, error.facts)
        print(f"{error.code} {text.title}\n{text.remedy}", file=sys.stderr)
        return 2
    return 0


def _configure_log() -> None:
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=colours)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextlib.contextmanager
def _sole_owner(data_dir: Path) -> Any:
    """Hold the data directory for this process alone. Raises GatewayError: GW-RUN-01 held, GW-RUN-02 not writable."""
    try:
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GatewayError("GW-RUN-02", str(data_dir), error=error.strerror or str(error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise GatewayError("GW-RUN-01", str(data_dir), error=error.strerror or str(error)) from error
    try:
        yield
    finally:
        os.close(lock)


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
        self._outbox: Outbox
        self._alarms: AlarmBook
        self._collector: Collector
        self._hearing: Hearing

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Build, run, end. Raises StoreError when there is no database to be had."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop.set)
        await self._build()
        _log.info("started", version=__version__, gateway=self._origin.source, stream=self._outbox.streamid)
        async with asyncio.TaskGroup() as group:
            intake = [
                *(group.create_task(radio.run(), name=f"radio {name}") for name, radio in self._radios.items()),
                *(group.create_task(line.run(), name=f"line {name}") for name, line in self._lines.items()),
                *(group.create_task(master.run(), name="bus master") for master in self._masters),
            ]
            outbox = group.create_task(self._outbox.run(), name="outbox")
            outward = [group.create_task(one.run(), name=f"deliver {one.name}") for one in self._deliverers]
            control = group.create_task(self._serve_control(), name="control")
            alive = group.create_task(self._keep_alive(), name="alive")
            await self._stop.wait()
            await self._end(intake, outbox, outward)
            control.cancel()
            alive.cancel()
        self._alive.close()
        await self._outbox.close()
        _log.info("ended", sequence=self._outbox.sequence)

    async def _end(self, intake: list[Any], outbox: Any, outward: list[Any]) -> None:
        """Stop hearing, store what was heard, deliver the alarms, say goodbye (northbound rule 20)."""
        _log.info("ending")
        heard_until = self._clock.stamp()
        for task in intake:
            task.cancel()
        await asyncio.wait(intake, timeout=5.0) if intake else None
        stored = await self._outbox.flush(FLUSH_LIMIT_S)
        await asyncio.gather(*(one.drain_alarms(ALARM_DRAIN_S) for one in self._deliverers))
        for task in outward:
            task.cancel()
        await asyncio.wait(outward, timeout=5.0) if outward else None
        await self._outbox.flush(FLUSH_LIMIT_S)
        outbox.cancel()
        if stored:
            with contextlib.suppress(OSError):
                self._alive.write(heard_until)

    # -- building -----------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        settings = self._settings
        routes = [Route(one.id, tuple(one.types)) for one in settings.destinations]
        self._outbox = Outbox(settings.gateway.data_dir / "outbox.db", routes, clock=self._clock)
        self._outbox.on_trouble = self._on_store_trouble
        await self._outbox.open()
        self._alarms = AlarmBook(self._origin)
        judge = Judge()
        judge.load(await self._outbox.marks(), self._began)
        desks = self._desks()
        self._collector = Collector(
            self._origin, desks, outbox=self._outbox, alarms=self._alarms, judge=judge, health=self._health,
            clock=self._clock, announce=self._announce,
        )  # fmt: skip
        kinds = [(one.id, "ble") for one in settings.ble] + [(one.id, "serial") for one in settings.serial]
        self._hearing = Hearing(
            kinds, deaf_since=self._deaf_since(), clock=self._clock, health=self._health, say=self._say_gap
        )
        for alarm in self._alarms.load(row.doc for row in await self._outbox.alarms()):
            self._announce(Change(alarm, None))
        self._build_links(desks)
        for destination in settings.destinations:
            self._deliverers.append(self._deliverer(destination))
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

    def _build_links(self, desks: Mapping[str, Desk]) -> None:
        for ble in self._settings.ble:
            self._radios[ble.id] = BleRadio(
                link_id=ble.id, adapter=ble.adapter, wanted=self._wanted(ble.id), deliver=self._collector.on_advert,
                on_state=self._hearing.on_state, on_overflow=self._on_overflow(ble.id), clock=self._clock,
            )  # fmt: skip
        for serial in self._settings.serial:
            on_line = [desk for desk in desks.values() if desk.link == serial.id]
            if not on_line:
                continue
            driver = on_line[0].driver
            assert isinstance(driver, Streams | Answers)  # noqa: S101 - the configuration refuses the rest
            reader = self._reader(serial.id, on_line) if isinstance(driver, Streams) else None
            line = SerialLine(
                link_id=serial.id, port=serial.port, line=serial.line(driver.line), quiet_ms=serial.quiet_ms,
                echo=serial.echo, on_state=self._on_line_state, clock=self._clock,
                on_data=reader.on_data if reader else None,
            )  # fmt: skip
            self._lines[serial.id] = line
            if reader:
                reader.attach(line)
            else:
                self._masters.append(
                    BusMaster(line, on_line, collector=self._collector, clock=self._clock, health=self._health)
                )

    def _reader(self, link: str, desks: list[Desk]) -> StreamReader:
        reader = StreamReader(
            link, desks, collector=self._collector, outbox=self._outbox, clock=self._clock, health=self._health
        )
        self._readers[link] = reader
        return reader

    def _deliverer(self, destination: Destination) -> Deliverer:
        path = destination.path[0]
        tls = Tls(path.ca_file, path.cert_file, path.key_file) if path.tls else None
        origin = self._origin
        endpoint = Endpoint(
            path.host, path.port, f"{origin.org}-{origin.site}-{origin.gateway}", path.username,
            path.password.text() if path.password else "", tls,
        )  # fmt: skip
        return Deliverer(
            destination.id, MqttUplink(endpoint, origin, destination=destination.id), self._outbox,
            finish=destination.finish, reconnect_spread_s=destination.reconnect_spread_s, clock=self._clock,
            health=self._health,
            callbacks=DeliveryCallbacks(
                delivered=lambda event_id, level: self._alarms.delivered(destination.id, event_id, level),
                birth=self._birth,
            ),
        )  # fmt: skip

    def _deaf_since(self) -> Stamp:
        """The last sign of life: the alive file, unless a power cut left it behind what is in the database."""
        alive, recorded = self._alive.read(), self._outbox.last_recorded
        signs = [one for one in (alive, recorded) if one is not None]
        if alive is not None and recorded is not None and alive.wall_ms + 2_000 * ALIVE_EVERY_S >= recorded.wall_ms:
            return alive
        return max(signs, key=lambda one: one.wall_ms, default=self._began)

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
        else:
            self._health.on(error.code, "", **error.facts)

    def _say_gap(self, data: Mapping[str, object], at: Stamp) -> None:
        self._collector.gateway_event("gateway.gap", data, at)

    def _announce(self, change: Change) -> None:
        """What staff hear and see: today the log and the control socket; light, sound and board come here."""
        alarm = change.alarm
        _log.warning(
            "alarm", id=alarm.id, state=alarm.state.value, kind=alarm.kind, device=alarm.device, room=alarm.room,
            presses=alarm.presses, verified=alarm.verified,
        )  # fmt: skip

    async def _keep_alive(self) -> None:
        failed = False
        while True:
            at = self._clock.stamp()
            oldest = self._outbox.oldest_waiting
            if oldest is not None and oldest.mono_ms < at.mono_ms and oldest.boot == at.boot:
                at = oldest
            try:
                self._alive.write(at)
                failed = False
            except OSError as error:
                if not failed:
                    _log.error("the alive file cannot be written; gaps will begin too early", error=str(error))
                failed = True
            await asyncio.sleep(ALIVE_EVERY_S)

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

    # -- control ------------------------------------------------------------------------------------------------

    async def _serve_control(self) -> None:
        gateway = self._settings.gateway
        operations = {
            "status": self._op_status,
            "alarms.list": self._op_alarms,
            "alarms.ack": self._op_ack,
            "alarms.close": self._op_close,
            "outbox": self._op_outbox,
        }
        server = ControlServer(gateway.control_socket, operations, listen=self._op_listen, lang=gateway.lang)
        while True:
            try:
                await server.run()
            except OSError as error:
                self._health.on("GW-CTL-04", str(gateway.control_socket), error=error.strerror or str(error))
                await asyncio.sleep(10.0)

    async def _op_status(self, _request: Mapping[str, Any]) -> object:
        lang = self._settings.gateway.lang
        now = self._clock.monotonic()
        problems = []
        for one in self._health.current():
            text = describe(one.code, lang, one.subject, one.facts)
            problems.append({
                "code": one.code, "subject": one.subject, "severity": one.severity, "hidden": one.hidden,
                "since_s": round(now - one.since_monotonic, 1), "title": text.title, "remedy": text.remedy,
            })  # fmt: skip
        dropped = {name: radio.dropped for name, radio in self._radios.items()}
        return {
            "gateway": {"id": self._origin.gateway, "org": self._origin.org, "site": self._origin.site},
            "version": __version__,
            "pid": os.getpid(),
            "started_at": iso(self._began.wall_ms),
            "uptime_s": round((self._clock.stamp().mono_ms - self._began.mono_ms) / 1000, 1),
            "cpu_s": round(time.process_time(), 3),
            "clock": {"state": self._clock.state()},
            "devices": [desk.status(self._clock, self._alarm_of(desk.id)) for desk in self._collector.desks.values()],
            "links": self._hearing.status(dropped),
            "outbox": await self._outbox.status(),
            "destinations": [one.status() for one in self._deliverers],
            "alarms": {"open": self._alarms.open_count},
            "problems": problems,
        }

    def _alarm_of(self, device: str) -> str | None:
        alarm = self._alarms.open_of(device)
        return alarm.id if alarm else None

    async def _op_alarms(self, request: Mapping[str, Any]) -> object:
        return self._alarms.listed(with_closed=bool(request.get("all")))

    async def _op_ack(self, request: Mapping[str, Any]) -> object:
        change = self._collector.acknowledge(str(request["id"]), str(request.get("by", "")))
        return {"id": change.alarm.id, "state": change.alarm.state.value}

    async def _op_close(self, request: Mapping[str, Any]) -> object:
        change = self._collector.close(str(request["id"]), str(request.get("by", "")), str(request.get("why", "")))
        return {"id": change.alarm.id, "state": change.alarm.state.value}

    async def _op_outbox(self, request: Mapping[str, Any]) -> object:
        answer = await self._outbox.status()
        answer["destinations"] = [one.status() for one in self._deliverers]
        if request.get("dead"):
            letters = await self._outbox.dead_letters()
            answer["dead"] = [{**one, "at": iso(int(str(one.pop("at_ms"))))} for one in letters]
        return answer

    def _op_listen(self, take: Callable[[Mapping[str, object]], None]) -> Callable[[], None]:
        def show(heard: Heard) -> None:
            take({
                "t": iso(heard.at.wall_ms), "link": heard.link, "device": heard.device, "address": heard.address,
                "rssi": heard.rssi, "decoded": heard.text, "raw": heard.raw,
            })  # fmt: skip

        self._collector.listeners.add(show)
        return lambda: self._collector.listeners.discard(show)
