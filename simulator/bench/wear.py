"""What one event costs the card: bytes that the block device is given while the real gateway stores, beside raw limits.

The gateway runs as a process of its own with its data on a `Card`; devices are lines of JSON over a socket. Limits, with
the bytes of the same event: a row in a bare table with WAL and FULL, a log that grows with each fsync, and a log whose
room was reserved, so that nothing but data is written. Rows differ in what is stored with the event: a polled register
has nothing, a numbered input its number and a digest, a call its alarm and the device's mark. "Delivered" means that the
platform's confirmations and the deletion of what is confirmed everywhere are in the figure.

Limits: about three minutes, root. What nobody acknowledges comes `PACE_S` apart, each when the one before is stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from simulator.bench.card import Card, Written
from simulator.bench.figures import Figure
from simulator.bench.talker import Talker
from simulator.control_client import NoAnswer, ask
from simulator.processes import Children
from simulator.scenario import free_ports

PACE_S: Final = 0.01
ALONE: Final = 800
GROUP: Final = 10
GROUPS: Final = 150
WARM: Final = 6_000
COOL: Final = 300  # commits of four pages: more than a WAL of 1,024 pages holds
WINDOW: Final = 1_000
RAW: Final = 600
RAW_WARM: Final = 1_200
SLOW_EVENTS: Final = 15
SLOW_PACE_S: Final = 2.0
LINGER_S: Final = 5
IDLE_S: Final = 60.0
WAIT_S: Final = 60.0
PLATFORM: Final = "district"
_LIMIT: Final = "limit: "
_BARE: Final = f"{_LIMIT}bare rowid table"

_CONFIG: Final = """
[gateway]
id = "gw-bench"
org = "kz-civil-affairs"
site = "bench-centre"
org_path = ["cq", "kaizhou", "hanfeng"]
data_dir = "{card}/data"
control_socket = "{run}/gw.sock"

[outbox]
linger_s = {linger_s}

[[room]]
id = "hall"

[[serial]]
id = "line"
port = "socket://127.0.0.1:{line}"

[[device]]
id = "meter-main"
model = "json-lines"
link = "line"
address = "m1"
room = "hall"
map = {{ reading = [
  {{ field = "kwh", quantity = "energy_active_import", channel = "total" }},
  {{ field = "v", quantity = "voltage", channel = "A" }},
  {{ field = "a", quantity = "current", channel = "A" }},
  {{ field = "kw", quantity = "power_active", channel = "total" }},
] }}

[[device]]
id = "call-301-1"
model = "json-lines"
link = "line"
address = "b1"
room = "hall"
map = {{ signal = [{{ field = "press", equals = 1, is = "call", code = "press" }}] }}

[[destination]]
id = "district"
reconnect_spread_s = 1
[[destination.path]]
url = "mqtt://127.0.0.1:{district}"
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, per event; `event_bytes` is the event's JSON. `idle` rows are per hour, without events."""

    what: str
    event_bytes: int
    bytes: float
    requests: float
    flushes: float

    @property
    def ratio(self) -> float | None:
        """How many times the event's own bytes; None where there is no event."""
        return self.bytes / self.event_bytes if self.event_bytes else None


def meter_line(n: int, *, numbered: bool) -> str:
    """Return one reading of an electricity meter, as its bridge would say it."""
    number = f'"n":{n},' if numbered else ""
    return f'{{"dev":"m1",{number}{meter_values(n)}}}'


def meter_values(n: int) -> str:
    """Return the four registers of one reading, as JSON members."""
    return f'"kwh":{12345 + n / 100:.2f},"v":221.4,"a":3.217,"kw":0.7122'


def call_line(_n: int) -> str:
    """Return one press of a call button."""
    return '{"dev":"b1","press":1}'


async def measure(run: Path, card: Card, *, quick: bool) -> list[Row]:
    """Measure with a gateway that has its data on `card`; `quick` leaves out all but the two rows of `make bench`."""
    ports = free_ports([PLATFORM, "line"])
    talker = Talker()
    server = await asyncio.get_running_loop().create_server(lambda: talker, "127.0.0.1", ports["line"])
    try:
        async with Children(run) as children:
            bench = _Bench(run, card, talker, children, ports=ports)
            await bench.start(linger_s=0)
            return await (bench.quick() if quick else bench.whole())
    finally:
        server.close()


class _Bench:
    """One run of the gateway, and what is asked of it."""

    def __init__(self, run: Path, card: Card, talker: Talker, children: Children, *, ports: dict[str, int]) -> None:
        self._run = run
        self._card = card
        self._talker = talker
        self._children = children
        self._ports = ports
        self._n = 0
        self._found: list[tuple[str, str, Written, int]] = []

    async def start(self, *, linger_s: int) -> None:
        """Start the gateway, and wait until it hears its line."""
        config = self._run / "gateway.toml"
        text = _CONFIG.format(run=self._run, card=self._card.root, linger_s=linger_s, **self._ports)
        config.write_text(text, encoding="utf-8")
        await self._children.start("gateway", [sys.executable, "-m", "gateway", "run", "--config", str(config)])
        async with asyncio.timeout(WAIT_S):
            await self._talker.connected.wait()

    async def quick(self) -> list[Row]:
        await self._warm()
        await self._numbered("numbered reading, alone", group=1, count=ALONE // 2)
        await self._numbered(f"numbered reading, {GROUP} a commit", group=GROUP, count=GROUPS // 2)
        return await self._finish(groups=(1, GROUP))

    async def whole(self) -> list[Row]:
        await self._numbered("numbered reading, alone, the WAL still grows", group=1, count=150)
        await self._warm()
        await self._paced("meter reading, alone", "meter", self._meter, count=ALONE)
        await self._paced(f"meter reading, {GROUP} a commit", "meter", self._meter, count=GROUPS, group=GROUP)
        await self._numbered("numbered reading, alone", group=1, count=ALONE)
        await self._numbered(f"numbered reading, {GROUP} a commit", group=GROUP, count=GROUPS)
        await self._paced("call, alone", "call", call_line, count=ALONE)
        await self._start_platform()
        await self._paced("meter reading, alone, delivered", "meter", self._meter, count=ALONE // 2, pace_s=4 * PACE_S)
        await self._paced("call, alone, delivered", "call", call_line, count=ALONE // 2, pace_s=4 * PACE_S)
        slow = f"meter reading, one in {SLOW_PACE_S:.0f} s, delivered"
        await self._paced(slow, "meter", self._meter, count=SLOW_EVENTS, pace_s=SLOW_PACE_S)
        await self._children.stop("gateway")
        await self.start(linger_s=LINGER_S)
        await self._paced(
            f"the same, where it may linger for {LINGER_S} s", "meter", self._meter, count=SLOW_EVENTS, pace_s=SLOW_PACE_S,
            is_stored=False,
        )  # fmt: skip
        idle = await self._idle()
        return [*await self._finish(groups=(1, GROUP)), idle]

    # -- what is said -------------------------------------------------------------------------------------------

    def _meter(self, n: int) -> str:
        return meter_line(n, numbered=False)

    async def _warm(self) -> None:
        """Fill the WAL once, so that it is used again in place; then let the checkpoint pass that the burst has left."""
        numbers = range(self._n + 1, self._n + 1 + WARM)
        await self._talker.burst(lambda n: meter_line(n, numbered=True), numbers, window=WINDOW)
        self._n += WARM
        await self._say(group=1, count=COOL)

    async def _numbered(self, what: str, *, group: int, count: int) -> None:
        """`count` times `group` lines in one piece, and the next when all are acknowledged."""
        before = self._card.written()
        await self._say(group=group, count=count)
        self._found.append((what, "numbered", self._card.written().since(before), count * group))

    async def _say(self, *, group: int, count: int) -> None:
        for _ in range(count):
            acked = self._talker.acked
            self._talker.say(*(meter_line(self._n + 1 + at, numbered=True) for at in range(group)))
            self._n += group
            await self._talker.acknowledged(acked + group)

    async def _paced(
        self, what: str, kind: str, line: Callable[[int], str], *, count: int, group: int = 1, pace_s: float = PACE_S,
        is_stored: bool = True,
    ) -> None:  # fmt: skip
        await self._settled()
        before = self._card.written()
        stored = await self._sequence()
        for at in range(count):
            self._talker.say(*(line(at * group + k) for k in range(group)))
            await asyncio.sleep(pace_s)
            if is_stored:
                await self._stored(stored + (at + 1) * group)
        await self._settled()
        self._found.append((what, kind, self._card.written().since(before), await self._sequence() - stored))

    async def _idle(self) -> Row:
        """An hour in which nothing happens, from `IDLE_S` of it, as the kernel writes by itself."""
        await self._settled()
        before = self._card.written()
        await asyncio.sleep(IDLE_S)
        wrote = self._card.written(flush=False).since(before)
        hours = IDLE_S / 3600
        return Row("an hour without events", 0, wrote.bytes / hours, wrote.requests / hours, wrote.flushes / hours)

    # -- the gateway and its platform ---------------------------------------------------------------------------

    async def _start_platform(self) -> None:
        where = [
            "--run",
            self._run,
            "--destination",
            PLATFORM,
            "--port",
            self._ports[PLATFORM],
            "--control",
            self._run / "p.sock",
        ]
        await self._children.start(PLATFORM, [sys.executable, "-m", "simulator", "platform", *map(str, where)])
        await self._drained()

    async def _status(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    status: dict[str, Any] = await ask(self._run / "gw.sock", "status")
                except NoAnswer:
                    await asyncio.sleep(0.05)
                else:
                    return status

    async def _sequence(self) -> int:
        return int((await self._status())["outbox"]["sequence"])

    async def _stored(self, sequence: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while await self._sequence() < sequence:
                await asyncio.sleep(PACE_S)

    async def _settled(self) -> None:
        """Wait until nothing is on its way to the disk, confirmations of the last events (after a second) included."""
        await asyncio.sleep(1.5)
        while (await self._status())["outbox"]["unstored"]:
            await asyncio.sleep(0.05)

    async def _drained(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while any(sum(one["pending"].values()) for one in (await self._status())["destinations"]):
                await asyncio.sleep(0.1)

    # -- the table ----------------------------------------------------------------------------------------------

    async def _finish(self, *, groups: tuple[int, ...]) -> list[Row]:
        """End the gateway, and measure the limits with the bytes of its own events."""
        if not (self._run / f"platform-{PLATFORM}.jsonl").exists():
            await self._start_platform()
        await self._children.stop("gateway")
        sizes = _event_bytes(self._run / f"platform-{PLATFORM}.jsonl")
        ours = [_row(what, sizes[kind], wrote, events) for what, kind, wrote, events in self._found]
        size = sizes["numbered"]
        return [*await asyncio.to_thread(_limits, self._card, size, groups), *ours]


def _row(what: str, size: int, wrote: Written, events: int) -> Row:
    return Row(what, size, wrote.bytes / events, wrote.requests / events, wrote.flushes / events)


def _event_bytes(ledger: Path) -> dict[str, int]:
    """Return how long an event of each kind is, as the platform was given it last."""
    sizes = {}
    for line in ledger.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)["event"]
        noun, data = event["type"], event["data"]
        kind = "call" if ".alarm." in noun else "numbered" if "n" in data else "meter" if ".meter." in noun else ""
        sizes[kind] = len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode())
    return sizes


def _limits(card: Card, size: int, groups: tuple[int, ...]) -> list[Row]:
    rows = []
    for group in groups:
        how = "alone" if group == 1 else f"{group} a commit"
        rows.append(_bare_table(card, size, group, f"{_BARE}, WAL, FULL, {how}"))
        rows.append(_log(card, size, group, f"{_LIMIT}log that grows, fsync, {how}", reserve=False))
        rows.append(_log(card, size, group, f"{_LIMIT}log in reserved room, fdatasync, {how}", reserve=True))
    return rows


def _repeat(card: Card, what: str, size: int, group: int, once: Callable[[], object]) -> Row:
    before = card.written()
    for _ in range(RAW):
        once()
    return _row(what, size, card.written().since(before), RAW * group)


def _bare_table(card: Card, size: int, group: int, what: str) -> Row:
    connection = sqlite3.connect(card.root / f"bare-{group}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, body TEXT)")
    bodies = [("x" * size,)] * group

    def once() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO event (body) VALUES (?)", bodies)
        connection.execute("COMMIT")

    try:
        for _ in range(RAW_WARM // len(bodies)):  # the WAL is filled once, then used again in place
            once()
        return _repeat(card, what, size, group, once)
    finally:
        connection.close()


def _log(card: Card, size: int, group: int, what: str, *, reserve: bool) -> Row:
    text = b"x" * (size - 1) + b"\n"
    file = os.open(card.root / f"log-{reserve}-{group}", os.O_WRONLY | os.O_CREAT, 0o600)
    if reserve:
        blank = b"\0" * (1 << 20)
        for _ in range(RAW * group * size // len(blank) + 1):
            os.write(file, blank)
        os.fsync(file)
        os.lseek(file, 0, os.SEEK_SET)

    def once() -> None:
        os.write(file, text * group)
        (os.fdatasync if reserve else os.fsync)(file)

    try:
        return _repeat(card, what, size, group, once)
    finally:
        os.close(file)
        (card.root / f"log-{reserve}-{group}").unlink()


def table(rows: list[Row]) -> str:
    """Return the rows as a table for people."""
    lines = [f"{'what':<52}{'event B':>9}{'card B':>12}{'x event':>9}{'writes':>9}{'flushes':>9}"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        size = f"{row.event_bytes:,}" if row.event_bytes else ""
        lines.append(f"{row.what:<52}{size:>9}{row.bytes:>12,.0f}{ratio:>9}{row.requests:>9.2f}{row.flushes:>9.2f}")
    return "\n".join(lines)


def figures(rows: list[Row]) -> list[Figure]:
    """Return ours beside the bare table, for the table of `make bench`."""
    ours = [row for row in rows if not row.what.startswith(_LIMIT)]
    bare = [row for row in rows if row.what.startswith(_BARE)]
    return [
        Figure(f"card: {row.what}", row.bytes, "B", limit.bytes, f"a bare rowid table, {row.event_bytes} B of event")
        for row, limit in zip(ours, bare, strict=True)
    ]


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows for a report."""
    return [asdict(row) | {"ratio": row.ratio} for row in rows]
