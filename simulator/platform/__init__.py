"""The pretended district platform, a process of its own.

gateway ─┬─ faulty line ── broker or HTTP server ─┬─ application ── ledger
         │  link            *_front               │  who decides     the proof, and the memory
         │  mqtt_link       http_server, session  │  contract, conduct, gateways
         └─ one more way in ──────────────────────┘
remote control: line, conduct, answers over HTTP, of one way or of all, and everything that was counted
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from simulator.platform.control import ControlError, control_socket
from simulator.platform.district import District, district

__all__ = ["ControlError", "District", "control_socket", "district", "main"]


async def main(
    run: Path,
    *,
    destination: str = "district",
    port: int,
    control: Path,
    speaks: str = "mqtt",
    also: Sequence[tuple[str, int]] = (),
    tls_dir: Path | None = None,
    authorization: str = "",
) -> None:
    """Run one platform until SIGTERM or SIGINT; then the ledger is flushed and everything is let go.

    The gateway connects to 127.0.0.1:`port` with what `speaks` says, and to each port of `also` with what stands before it
    (see district). The socket `control` appears when the platform is ready.
    Raises ValueError, BrokerError, CertificateError, LedgerError, ControlError, or OSError when the port is taken.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with (
            district(
                run,
                destination=destination,
                port=port,
                speaks=speaks,
                also=also,
                tls_dir=tls_dir,
                authorization=authorization,
            ) as platform,
            control_socket(platform, control),
        ):
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
