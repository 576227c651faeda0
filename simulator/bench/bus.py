"""A bus of meters, polled as fast as its wires allow: how much of the line's time the gateway makes use of.

The theoretical cycle of one exchange, in seconds: (request + reply) * bits a byte / baud, the time that the meter thought,
and the quiet time that the configuration asks for. What the gateway needs beyond that is waste, whatever it comes from.
A dead meter is part of the theory with one request and its time-out, `NOTICE_S` in all: somebody has to notice.
The meters answer on a pty that is paced like a UART; the gateway is a process of its own, with its outbox, and polls every
meter again as soon as its turn comes.
Limits: a pty knows no parity, so a byte has 10 bits here where a real meter's has 11: the cycle is shorter, and waste
weighs more than at a site. The first `SETTLE` exchanges of a run are not counted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from simulator.bench.figures import Figure
from simulator.bus import Exchange, Ledger, MeterBus
from simulator.control_client import NoAnswer, ask
from simulator.meters import Meter, Quirks
from simulator.processes import Children
from simulator.scenario import free_ports

METERS: Final = 32
DEAD: Final = 4
LEAST_SHARE: Final = 0.95
BAUD: Final = 2400
QUIET_MS: Final = 50
BITS: Final = 10
SETTLE: Final = 8
SECONDS: Final = 60.0
START_LIMIT_S: Final = 60.0
# 20 bytes out, 1.5 s as the driver of DL/T 645 waits, and the quiet time.
NOTICE_S: Final = 20 * BITS / BAUD + 1.5 + QUIET_MS / 1000

_HEAD: Final = """
[gateway]
id = "gw-bench"
org = "bench"
site = "bench"
data_dir = "{run}/data"
control_socket = "{run}/gw.sock"

[[serial]]
id = "bus"
port = "{run}/ttyMETER"
baud = {baud}
parity = "N"
quiet_ms = {quiet_ms}

[[destination]]
id = "nobody"
[[destination.path]]
url = "mqtt://127.0.0.1:{nobody}"
"""
_METER: Final = """
[[device]]
id = "{id}"
model = "dlt645-2007"
link = "bus"
address = "{address}"
every_s = 1
map = {{ registers = ["energy_active_import"] }}
"""


@dataclass(slots=True)
class Line:
    """What passed on one bus, and what the wires would have allowed."""

    baud: int
    quiet_s: float
    dead: int = 0
    exchanges: list[Exchange] = field(default_factory=list)

    def ideal_s(self, one: Exchange) -> float:
        """Return the theoretical cycle of one exchange."""
        return (one.asked_bytes + one.reply_bytes) * BITS / self.baud + one.thought_s + self.quiet_s

    @property
    def counted(self) -> Sequence[Exchange]:
        """The exchanges after the start has settled."""
        return self.exchanges[SETTLE:]

    @property
    def share(self) -> float:
        """Return which share of its time the line did what it must: the theoretical cycles beside the measured ones."""
        return self.read_s / self.took_s

    @property
    def share_with_notice(self) -> float:
        """The same, with each dead meter noticed once as a part of what the line must do."""
        return (self.read_s + self.dead * NOTICE_S) / self.took_s

    @property
    def read_s(self) -> float:
        """How long the counted exchanges would have taken by the theory."""
        return sum(self.ideal_s(one) for one in self.counted[1:])

    @property
    def took_s(self) -> float:
        """How long they took."""
        return self.counted[-1].ended_at - self.counted[0].ended_at


async def measure(run: Path, *, seconds: float = SECONDS, silent: int = 0) -> Line:
    """Poll `METERS` meters for `seconds`; the last `silent` of them never answer. Raises NoAnswer, ProcessDied."""
    addresses = {f"m{n:02d}": f"{190_000 + n:012d}" for n in range(1, METERS + 1)}
    text = _HEAD.format(run=run, baud=BAUD, quiet_ms=QUIET_MS, **free_ports(["nobody"]))
    text += "".join(_METER.format(id=name, address=address) for name, address in addresses.items())
    (run / "gateway.toml").write_text(text, encoding="utf-8")
    line = Line(BAUD, QUIET_MS / 1000, silent)
    quiet = list(addresses)[METERS - silent :]
    meters = [
        Meter(device=name, address=address, seed=7, start=time.time(), quirks=Quirks(silent=name in quiet))
        for name, address in addresses.items()
    ]
    ledger = Ledger(run / "bus.jsonl")
    bus = MeterBus(
        path=run / "ttyMETER", baud=BAUD, meters=meters, ledger=ledger, on_exchange=line.exchanges.append
    )  # fmt: skip
    wires = asyncio.create_task(bus.run())
    try:
        async with Children(run) as children:
            command = [sys.executable, "-m", "gateway", "run", "--config", str(run / "gateway.toml")]
            await children.start("gateway", command)
            await _until_asked(run, line)
            await asyncio.sleep(seconds)
    finally:
        wires.cancel()
        await asyncio.gather(wires, return_exceptions=True)
        ledger.close()
    return line


async def _until_asked(run: Path, line: Line) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while len(line.exchanges) <= SETTLE:
        if time.monotonic() > deadline:
            await ask(run / "gw.sock", "status")  # NoAnswer, where it does not even run
            raise NoAnswer(f"the bus was not polled within {START_LIMIT_S:g} s")
        await asyncio.sleep(0.1)


def figures(line: Line, what: str) -> list[Figure]:
    """Return the figures of one line for the table."""
    counted = line.counted
    gaps = sorted(later.ended_at - before.ended_at - line.ideal_s(later) for before, later in pairwise(counted))
    ideal = (len(counted) - 1) / line.read_s
    polls = Counter(one.device for one in counted)
    return [
        Figure(f"{what}: polls", (len(counted) - 1) / line.took_s, "/s", ideal, "theoretical cycle of the line", more=True),
        Figure(f"{what}: share of the theoretical rate", 100 * line.share, "%"),
        Figure(f"{what}: the same, each dead one noticed once", 100 * line.share_with_notice, "%"),
        Figure(f"{what}: wasted a cycle, p50", 1000 * gaps[len(gaps) // 2], "ms"),
        Figure(f"{what}: wasted a cycle, p99", 1000 * gaps[len(gaps) * 99 // 100], "ms"),
        Figure(f"{what}: polls of the least polled meter", float(min(polls.values())), "", float(max(polls.values())),
               "those of the most polled one", more=True),
    ]  # fmt: skip
