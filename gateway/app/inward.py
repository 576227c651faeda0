"""The way in, built: radios, lines, and who reads or asks on them.

Only links that a device uses are opened; what they bring goes to the collector, what they say of themselves to the hearing.
The radio's libraries are loaded where there is a radio: they take a tenth of the memory and of the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from drivers.kit import Answers, Streams
from gateway.app.sources import source_of
from gateway.app.transports import said
from gateway.clock import Stamp, SystemClock
from gateway.collect import BusMaster, Collector, Desk, Hearing, MessageReader, Relay, StreamReader
from gateway.collect.judge import Judge
from gateway.config import Mqtt, Serial, Settings
from gateway.events import Origin
from gateway.health import Health
from gateway.links.mqtt_source import MqttSource
from gateway.links.serial_line import SerialLine
from gateway.links.state import HeardAdvert, LinkState
from gateway.outbox import Outbox

if TYPE_CHECKING:
    from gateway.links.ble_radio import BleRadio
    from gateway.links.esphome_proxy import EsphomeProxy

_log = structlog.get_logger("gateway")


class Inward:
    """The links of one gateway."""

    def __init__(
        self, settings: Settings, desks: Mapping[str, Desk], *, origin: Origin, collector: Collector, judge: Judge,
        hearing: Hearing, outbox: Outbox, clock: SystemClock, health: Health,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._origin = origin
        self._collector = collector
        self._judge = judge
        self._hearing = hearing
        self._outbox = outbox
        self._clock = clock
        self._health = health
        self._radios: dict[str, BleRadio] = {}
        self._proxies: dict[str, EsphomeProxy] = {}
        self._lines: dict[str, SerialLine] = {}
        self._readers: dict[str, StreamReader] = {}
        self._masters: list[BusMaster] = []
        self._sources: dict[str, MqttSource] = {}
        self._messages: dict[str, MessageReader] = {}
        self._open: set[str] = set()
        self._untold: set[str] = set()
        self._build(desks)

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Begin to hear; return the tasks."""
        return [
            *(group.create_task(radio.run(), name=f"radio {name}") for name, radio in self._radios.items()),
            *(group.create_task(proxy.run(), name=f"receiver {name}") for name, proxy in self._proxies.items()),
            *(group.create_task(line.run(), name=f"line {name}") for name, line in self._lines.items()),
            *(group.create_task(master.run(), name="bus master") for master in self._masters),
            *(group.create_task(source.run(), name=f"broker {name}") for name, source in self._sources.items()),
            *(group.create_task(one.keep_asking(), name=f"poll {name}") for name, one in self._readers.items()),
        ]

    def dropped(self) -> Mapping[str, int]:
        """How many adverts a full queue has cost each radio."""
        return {name: radio.dropped for name, radio in self._air().items()}

    def heard(self) -> Mapping[str, int]:
        """How many adverts each radio has heard, from anybody."""
        return {name: radio.heard for name, radio in self._air().items()}

    def buses(self) -> Sequence[Mapping[str, Any]]:
        """The figures of each line that is asked."""
        return [master.status() for master in self._masters]

    def _air(self) -> Mapping[str, BleRadio | EsphomeProxy]:
        return {**self._radios, **self._proxies}

    def on_stored(self) -> None:
        """Something was stored: what waits for that may be acknowledged. A bug in one reader keeps none of the others waiting."""
        told = [*((name, one.on_stored) for name, one in self._readers.items())]
        told += [(name, one.retry) for name, one in self._messages.items()]
        for name, tell in told:
            try:
                tell()
            except Exception as bug:  # noqa: BLE001 - what waits on another line may be a call
                if name not in self._untold:
                    self._untold.add(name)
                    _log.error("a reader could not be told of a commit", link=name, exc_info=bug)
                self._health.on("GW-RUN-03", name, detail=f"{type(bug).__name__}: {bug}"[:200])

    def _build(self, desks: Mapping[str, Desk]) -> None:
        if self._settings.ble:
            from gateway.links.ble_radio import BleRadio
        for ble in self._settings.ble:
            self._radios[ble.id] = BleRadio(
                link_id=ble.id, adapter=ble.adapter, silence_s=ble.silence_s, wanted=self._collector.wants,
                known=self._collector.knows, taken=[one.adapter for one in self._settings.ble if one is not ble],
                deliver=self._hear, on_state=self._hearing.on_state,
                on_overflow=self._on_overflow(ble.id), clock=self._clock,
            )  # fmt: skip
        if self._settings.receivers:
            self._build_proxies()
        for serial in self._settings.serial:
            on_line = [desk for desk in desks.values() if desk.link == serial.id]
            if on_line:
                self._build_line(serial, on_line)
        for broker in self._settings.mqtt:
            behind = [one for one in desks.values() if one.link == broker.id and isinstance(one.driver, Streams)]
            if behind or broker.adverts:
                self._build_source(broker, behind)

    def _build_proxies(self) -> None:
        try:
            from gateway.links.esphome_proxy import EsphomeProxy
        except ImportError as error:
            for one in self._settings.receivers:
                self._health.on("GW-RCV-05", one.id, detail=str(error))
            return
        for one in self._settings.receivers:
            self._proxies[one.id] = EsphomeProxy(
                link_id=one.id, host=one.host, port=one.port, key=partial(said, one.key), silence_s=one.silence_s,
                wanted=self._collector.wants, deliver=self._hear, on_state=self._hearing.on_state,
                on_overflow=self._on_overflow(one.id), clock=self._clock,
            )  # fmt: skip

    def _build_source(self, broker: Mqtt, desks: list[Desk]) -> None:
        reader = self._messages[broker.id] = MessageReader(
            broker.id, desks, collector=self._collector, judge=self._judge, clock=self._clock, health=self._health,
            outbox=self._outbox, on_dropped=lambda at: self._hearing.on_refused(broker.id, at),
            relay=Relay(broker.adverts, broker.form) if broker.adverts else None,
        )  # fmt: skip

        def on_state(state: LinkState) -> None:
            if not state.hearing:
                reader.lost()
            self._hearing.on_state(state)

        self._sources[broker.id] = source_of(
            broker, self._origin, topics=reader.topics, on_message=reader.on_message, on_state=on_state,
            on_anew=reader.begin_anew, clock=self._clock,
        )  # fmt: skip

    def _build_line(self, serial: Serial, desks: list[Desk]) -> None:
        driver = desks[0].driver
        assert isinstance(driver, Streams | Answers)  # noqa: S101 - the configuration refuses the rest
        reader = self._reader(serial, desks) if isinstance(driver, Streams) else None
        line = self._lines[serial.id] = SerialLine(
            link_id=serial.id, port=serial.port, line=desks[0].line or serial.line(driver.line), quiet_ms=serial.quiet_ms,
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

    def _hear(self, heard: HeardAdvert) -> None:
        self._collector.on_advert(heard)

    def _on_overflow(self, link: str) -> Callable[[int, Stamp, Stamp], None]:
        return lambda count, first, last: self._hearing.on_overflow(link, count, first=first, last=last)

    def _on_line_state(self, state: LinkState) -> None:
        reader = self._readers.get(state.link)
        if not state.hearing:
            self._open.discard(state.link)
            if reader:
                reader.lost()
        elif state.link not in self._open:
            self._open.add(state.link)
            if reader:
                reader.reopened()
        self._hearing.on_state(state)
