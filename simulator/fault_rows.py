"""The fault table, as things that are done to a daemon's world: how each is broken, how it is mended, what must be shown.

A row without a `mend` is one that the daemon mends by itself. Rows follow the fault table of Bluetooth and serial lines;
what concerns connections to devices (GATT) is not in it, for the daemon makes none.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from simulator.dbus_daemon import DbusDaemon
from simulator.fault_bench import Bench

Act = Callable[[Bench], Awaitable[None]]
_VHANGUP: Final = 0x5437  # TIOCVHANGUP, asm-generic/ioctls.h
_BUSY_S: Final = 7.0  # how long a killed and restarted BlueZ 5.66 was seen to refuse a new scan
_STOPPED_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `code` "" where nothing need be shown. `loses` False: no press may be lost, and no gap told.

    `bench` groups the rows that share a daemon; `limit_s` is how long the recovery may take; `before` and `after` prepare
    and tidy up. `at_start`:
    the daemon is started while it is broken. `quick`: in the short selection.
    """

    name: str
    link: Literal["air", "wire", "net"]
    code: str
    breaks: Act
    mend: Act | None = None
    before: Act | None = None
    after: Act | None = None
    bench: str = "radio"
    limit_s: float = 5.0
    loses: bool = True
    at_start: bool = False
    quick: bool = False


async def _off(bench: Bench) -> None:
    bench.bluez.power(on=False)


async def _on(bench: Bench) -> None:
    bench.bluez.power(on=True)


async def _pull(bench: Bench) -> None:
    bench.bluez.remove_adapter()


async def _plug(bench: Bench) -> None:
    bench.bluez.add_adapter()


async def _plug_as_other(bench: Bench) -> None:
    bench.bluez.add_adapter("hci1")


async def _name_back(bench: Bench) -> None:
    bench.bluez.add_adapter("hci0")
    bench.bluez.remove_adapter("hci1")


async def _block(bench: Bench) -> None:
    bench.bluez.block(on=True)


async def _unblock(bench: Bench) -> None:
    bench.bluez.block(on=False)


async def _crash(bench: Bench) -> None:
    await bench.bluez.crash()


async def _leave(bench: Bench) -> None:
    await bench.bluez.stop()


async def _bluetoothd(bench: Bench) -> None:
    await bench.bluez.start()


async def _restart(bench: Bench) -> None:
    await bench.bluez.crash()
    await bench.bluez.start()


async def _restart_busy(bench: Bench) -> None:
    bench.bluez.sticky["Adapter1.StartDiscovery"] = ("InProgress", "Operation already in progress")
    await _restart(bench)
    asyncio.get_running_loop().call_later(_BUSY_S, bench.bluez.sticky.clear)


async def _refuse_start(bench: Bench) -> None:
    bench.bluez.sticky["Adapter1.StartDiscovery"] = ("Failed", "Input/output error")
    await _restart(bench)


async def _accept_start(bench: Bench) -> None:
    bench.bluez.sticky.clear()


async def _never_answer_start(bench: Bench) -> None:
    bench.bluez.faults["Adapter1.StartDiscovery"] = ["hang"]
    await _restart(bench)


async def _refuse_stop(bench: Bench) -> None:
    bench.bluez.faults["Adapter1.StopDiscovery"] = [("Failed", "No discovery started"), ("InProgress", "busy")]
    bench.bluez.power(on=False)


async def _end_discovery(bench: Bench) -> None:
    bench.bluez.end_discovery()


async def _deny(bench: Bench) -> None:
    bench.bus.deny_bluez()
    await asyncio.sleep(0.2)
    bench.bluez.end_discovery()


async def _allow(bench: Bench) -> None:
    bench.bus.allow_bluez()


async def _bus_dies(bench: Bench) -> None:
    await bench.bus.stop()
    await bench.bluez.crash()


async def _bus_comes(bench: Bench) -> None:
    await bench.bus.start()
    await bench.bluez.start()


async def _bus_refuses(bench: Bench) -> None:
    await _bus_dies(bench)
    await bench.bus.start(refuses_users=True)


async def _bus_accepts(bench: Bench) -> None:
    await bench.bus.stop()
    await _bus_comes(bench)


async def _bus_mute(bench: Bench) -> None:
    """Somebody listens on the bus's socket and never says a word."""
    await _bus_dies(bench)
    bench.mute = _listen(bench.bus)


async def _bus_speaks(bench: Bench) -> None:
    if bench.mute is not None:
        bench.mute.close()
    await _bus_comes(bench)


def _listen(bus: DbusDaemon) -> socket.socket:
    path = Path(bus.address.removeprefix("unix:path="))
    path.unlink(missing_ok=True)
    mute = socket.socket(socket.AF_UNIX)
    mute.bind(str(path))
    mute.listen(100)
    return mute


async def _live_a_while(bench: Bench) -> None:
    """Deafness is known by who kept a rhythm: 60 pauses."""
    await bench.until_well(within_s=20.0)
    await asyncio.sleep(14.0)


async def _wedge(bench: Bench) -> None:
    bench.bluez.wedge(heals="scan")


async def _wedge_hard(bench: Bench) -> None:
    bench.bluez.wedge(heals="power")


async def _move_in(bench: Bench) -> None:
    """A daemon that knows no rhythm of anybody, and three presses."""
    bench.quiet.add("air")
    await bench.stop_daemon()
    await bench.start_daemon()
    await bench.until_well(within_s=20.0)
    bench.quiet.discard("air")
    await asyncio.sleep(0.7)
    bench.quiet.add("air")


async def _be_quiet(bench: Bench) -> None:
    await asyncio.sleep(25.0)
    bench.quiet.discard("air")


async def _stand_still(bench: Bench) -> None:
    os.kill(bench.daemon_pid, signal.SIGSTOP)
    await asyncio.sleep(_STOPPED_S)
    os.kill(bench.daemon_pid, signal.SIGCONT)


# Serial.


async def _unplug(bench: Bench) -> None:
    # In the middle of a line, as it happens.
    await bench.wire.send(b'{"dev":"w","n":')
    bench.wire.unplug()


async def _replug(bench: Bench) -> None:
    bench.wire.plug()


async def _replug_as_other(bench: Bench) -> None:
    bench.replug()


async def _hang_up(bench: Bench) -> None:
    slave = os.open(bench.folder / "ttyWIRE", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(slave, _VHANGUP)
    os.close(slave)


async def _hold(bench: Bench) -> None:
    """The port comes back, and another program is quicker."""
    bench.wire.unplug()
    await asyncio.sleep(0.1)
    aside = bench.folder / "ttyASIDE"
    bench.wire.path = aside
    bench.wire.plug()
    bench.holder = os.open(aside, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(bench.holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    bench.wire.path = bench.folder / "ttyWIRE"
    aside.rename(bench.wire.path)


async def _let_go(bench: Bench) -> None:
    if bench.holder is not None:
        os.close(bench.holder)
        bench.holder = None


async def _freeze(bench: Bench) -> None:
    """The far end takes nothing more: acknowledgements pile up."""
    bench.wire.frozen = True
    for _ in range(50):
        await bench.wire.send(b'{"dev":"w","n":1000000,"ev":"press"}\n' * 50)


async def _thaw(bench: Bench) -> None:
    bench.wire.frozen = False


async def _server_goes(bench: Bench) -> None:
    bench.server.close()


async def _server_comes(bench: Bench) -> None:
    bench.server.conduct = "serve"
    await bench.server.open()


async def _server_cuts(bench: Bench) -> None:
    bench.server.cut()


async def _server_resets(bench: Bench) -> None:
    bench.server.conduct = "reset"
    bench.server.cut()


async def _server_serves(bench: Bench) -> None:
    bench.server.conduct = "serve"


async def _server_silent(bench: Bench) -> None:
    """Its queue is full: connections are neither taken nor refused."""
    bench.server.close()
    await asyncio.sleep(0.05)
    queue = socket.socket()
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    queue.bind(("127.0.0.1", bench.server.port))
    queue.listen(0)
    bench.fillers = [queue]
    for _ in range(3):
        one = socket.socket()
        one.settimeout(0)
        one.connect_ex(("127.0.0.1", bench.server.port))
        bench.fillers.append(one)


async def _server_answers(bench: Bench) -> None:
    for one in bench.fillers:
        one.close()
    bench.fillers = []
    await _server_comes(bench)


# Hanging a terminal up as the kernel does it needs root; pulling the plug comes near it.
_HANG_UP: Final[tuple[Act, Act | None]] = (_hang_up, None) if os.geteuid() == 0 else (_unplug, _replug)


ROWS: Final = (
    Row("adapter switched off, on again", "air", "GW-BLE-04", _off, _on, quick=True),
    Row("adapter switched off and left so", "air", "GW-BLE-04", _off, limit_s=8.0),
    Row("adapter pulled, back", "air", "GW-BLE-03", _pull, _plug, quick=True),
    Row("adapter pulled, back as hci1", "air", "GW-BLE-03", _pull, _plug_as_other, after=_name_back),
    Row("adapter blocked by rfkill, unblocked", "air", "GW-BLE-08", _block, _unblock),
    Row("bluetoothd killed, back", "air", "GW-BLE-02", _crash, _bluetoothd, quick=True),
    Row("bluetoothd stopped in order, back", "air", "GW-BLE-02", _leave, _bluetoothd),
    Row("bluetoothd restarted at once", "air", "GW-BLE-02", _restart),
    Row("scan refused (Failed), accepted", "air", "GW-BLE-07", _refuse_start, _accept_start, limit_s=8.0),
    Row("stopping the scan refused", "air", "GW-BLE-04", _refuse_stop, _on),
    Row("discovery ended by somebody else", "air", "GW-BLE-07", _end_discovery),
    Row("access denied by policy, allowed", "air", "GW-BLE-05", _deny, _allow, limit_s=8.0),
    Row("dbus-daemon dies, back", "air", "GW-BLE-01", _bus_dies, _bus_comes),
    Row("bus refuses our user, takes it", "air", "GW-BLE-05", _bus_refuses, _bus_accepts, limit_s=8.0),
    Row("process stands still for 3 s", "air", "", _stand_still, limit_s=8.0, loses=False),
    Row("scan refused (InProgress) for 7 s after a kill", "air", "GW-BLE-07", _restart_busy, bench="slow", limit_s=15.0),
    Row("scan start never answered", "air", "GW-BLE-07", _never_answer_start, bench="slow", limit_s=15.0),
    Row("deaf soon after the start, a new scan heals", "air", "", _wedge, bench="slow", limit_s=15.0),
    Row("controller deaf, a new scan heals", "air", "", _wedge, before=_live_a_while, bench="slow", limit_s=15.0),
    Row("controller deaf, a power cycle heals", "air", "GW-BLE-06", _wedge_hard, bench="slow", limit_s=20.0),
    Row("25 s without any advert", "air", "", _be_quiet, before=_move_in, bench="slow", limit_s=30.0, loses=False),
    Row("bus takes connections, says nothing", "air", "GW-BLE-01", _bus_mute, _bus_speaks, bench="start", limit_s=15.0),
    Row("start without bus", "air", "GW-BLE-01", _bus_dies, _bus_comes, bench="start", at_start=True),
    Row("start without bluetoothd", "air", "GW-BLE-02", _crash, _bluetoothd, bench="start", at_start=True),
    Row("start without adapter", "air", "GW-BLE-03", _pull, _plug, bench="start", at_start=True),
    Row("start with the adapter off", "air", "GW-BLE-04", _off, _on, bench="start", at_start=True),
    Row("start without the port", "wire", "GW-SER-01", _unplug, _replug, bench="start", at_start=True),
    Row("port unplugged in mid-line, back", "wire", "GW-SER-01", _unplug, _replug, bench="serial", quick=True),
    Row("port unplugged, back as another tty", "wire", "GW-SER-01", _unplug, _replug_as_other, bench="serial"),
    Row("port hangs up (end of file)", "wire", "GW-SER-04", _HANG_UP[0], _HANG_UP[1], bench="serial"),
    Row("port held by another program, let go", "wire", "GW-SER-03", _hold, _let_go, bench="serial", limit_s=8.0,
        quick=True),
    Row("far end takes no bytes, takes them", "wire", "GW-SER-08", _freeze, _thaw, bench="serial", limit_s=8.0, loses=False),
    Row("serial server refuses, back", "net", "GW-SER-06", _server_goes, _server_comes, bench="serial", limit_s=8.0),
    Row("serial server cuts the connection", "net", "GW-SER-04", _server_cuts, bench="serial"),
    Row("serial server resets each connection", "net", "GW-SER-04", _server_resets, _server_serves, bench="serial",
        limit_s=8.0),
    Row("serial server never answers, back", "net", "GW-SER-06", _server_silent, _server_answers, bench="serial",
        limit_s=15.0),
)  # fmt: skip
