"""A private D-Bus daemon: the wire on which the pretended bluetoothd and an unmodified BLE stack meet.

The machine's own system bus is never touched. Who wants the private one sets DBUS_SYSTEM_BUS_ADDRESS to `address`.
Limits: one Unix socket, whose path may have 107 bytes at most; the daemon must listen within 10 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from simulator.processes import die_with_parent

_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0
_SOCKET_PATH_MAX: Final = 107  # sockaddr_un.sun_path, less the closing zero

# A policy of the kind that Debian ships for a system bus, but open: every user may own and call everything.
_CONFIG: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*" eavesdrop="true"/>
    {extra}
  </policy>
</busconfig>
"""
_DENY_BLUEZ: Final = '<deny send_destination="org.bluez"/>'
_DENY_USERS: Final = '<deny user="*"/>'


class DbusDaemonError(Exception):
    """The private bus cannot be had: the message says why, and what to do."""


class DbusDaemon:
    """One dbus-daemon in `directory`. It can be stopped and started again at the same address, as after a crash."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "dbus.sock"
        self._config = directory / "dbus.conf"
        self._process: asyncio.subprocess.Process | None = None
        if len(str(self._socket).encode()) > _SOCKET_PATH_MAX:
            raise DbusDaemonError(f"{self._socket}: longer than {_SOCKET_PATH_MAX} bytes; choose a shorter directory")
        if set(str(self._socket)) & set(";:,=%<>&\"' "):
            raise DbusDaemonError(
                f"{self._socket}: such characters do not fit a D-Bus address; choose another directory"
            )

    @property
    def address(self) -> str:
        """The bus address, for DBUS_SYSTEM_BUS_ADDRESS."""
        return f"unix:path={self._socket}"

    async def start(self, *, refuses_users: bool = False) -> None:
        """Start the daemon and return when it listens, for everybody or for nobody. DbusDaemonError when it does not."""
        program = shutil.which("dbus-daemon")
        if program is None:
            raise DbusDaemonError("dbus-daemon is missing: apt-get install dbus-daemon")
        self._write_config(extra=_DENY_USERS if refuses_users else "")
        self._socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            program,
            f"--config-file={self._config}",
            "--nofork",
            "--nopidfile",
            "--nosyslog",
            "--print-address",
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=die_with_parent(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if self._process.stdout is None or self._process.stderr is None:
            raise DbusDaemonError("dbus-daemon has no output pipes")
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                if await self._process.stdout.readline():
                    return
                said = (await self._process.stderr.read()).decode(errors="replace").strip()
        except TimeoutError:
            said = f"it does not listen within {_START_TIMEOUT_S:g} s"
        await self.stop()
        raise DbusDaemonError(f"dbus-daemon does not start: {said or 'it ended without a word'}")

    async def stop(self) -> None:
        """End the daemon; every connection to it breaks. Does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        # asyncio closes the pipes' transports only when both have been read to their end.
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                await pipe.read()

    def allow_bluez(self) -> None:
        """Let everybody call org.bluez again; takes effect at once."""
        self._reload(extra="")

    def deny_bluez(self) -> None:
        """Refuse every call to org.bluez with AccessDenied, as a hardened bus policy does; takes effect at once."""
        self._reload(extra=_DENY_BLUEZ)

    def _reload(self, *, extra: str) -> None:
        if self._process is None:
            raise DbusDaemonError("dbus-daemon does not run")
        self._write_config(extra=extra)
        self._process.send_signal(signal.SIGHUP)

    def _write_config(self, *, extra: str = "") -> None:
        self._config.write_text(_CONFIG.format(socket=self._socket, extra=extra), encoding="utf-8")


@contextlib.asynccontextmanager
async def dbus_daemon(directory: Path) -> AsyncIterator[str]:
    """Run a private bus in `directory`; yields its address. DbusDaemonError when it cannot be had."""
    daemon = DbusDaemon(directory)
    await daemon.start()
    try:
        yield daemon.address
    finally:
        await daemon.stop()
