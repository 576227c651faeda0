"""The pretended district platform, a process of its own: broker, faulty line, application, ledger, remote control."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from simulator.platform.control import ControlError, control_socket
from simulator.platform.district import District, district

__all__ = ["ControlError", "District", "control_socket", "district", "main"]


async def main(run: Path, *, destination: str = "district", port: int, control: Path) -> None:
    """Run one platform until SIGTERM or SIGINT; then the ledger is flushed and everything is let go.

    The gateway connects to 127.0.0.1:`port` with MQTT 5. The socket `control` appears when the platform is ready.
    Raises BrokerError, LedgerError, ControlError, or OSError when the port is taken.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with district(run, destination=destination, port=port) as platform, control_socket(platform, control):
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
