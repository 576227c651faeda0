"""What the service manager is told: ready, alive only while the loops make progress, ending (sd_notify(3)).

A restart makes the gateway deaf for about a second, and SIGABRT takes what is heard but not stored yet into the gap that
the next start tells. So the sign of life is withheld only for what a restart can mend:

| what stalls                                   | what happens                                                            |
|-----------------------------------------------|-------------------------------------------------------------------------|
| the event loop (a bug, SIGSTOP, a dead lock)  | no sign of life at all: restarted within WatchdogSec                    |
| a loop that has work and takes no step in its | GW-RUN-04 at once, and no sign of life any more: restarted. Not in the  |
| limit: storing, the tick of the hearing, the  | first `TRUST_S` of a run: what a restart has not mended is tried again  |
| delivery of an alarm, a radio that says that  | after so long only, and told meanwhile                                  |
| it hears, the questions on a bus              |                                                                         |
| the disk (an error, or no answer at all)      | told, not restarted: alarms go out unstored, and a new process could    |
|                                               | not even open the database while the old one hangs in the disk          |
| a platform that refuses, is mute, or says     | told, not restarted: the loop steps (it connects, sends again, holds)   |
| "later"; a network that is down               |                                                                         |
| a radio or a line that is deaf                | told, not restarted: it opens and scans anew by itself                  |
| the control socket                            | built anew by its own loop                                              |
| the service manager does not read             | nothing waits for it: READY=1 and the newest STATUS= are said again     |

Time in which the process as a whole stood still is not counted against its loops: nobody could take a step then.
Limits: a look and a sign of life every second, or a quarter of WATCHDOG_USEC if that is shorter; a status of 200 characters.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.clock import Clock

LOOK_S: Final = 1.0
TRUST_S: Final = 300.0
MAX_STATUS: Final = 200

_log = structlog.get_logger("watchdog")


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop that must go on. `step` gives None while nothing is due, else something that changes with every step."""

    name: str
    limit_s: float
    step: Callable[[], object]


class ServiceManager:
    """Whoever started the process, told over $NOTIFY_SOCKET; nobody when that is not set. Nothing here waits or raises."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)
        """How long a sign of life may stay away; None where nobody waits for one."""
        self._socket: socket.socket | None = None
        self._owed: dict[str, str] = {}
        self._status = ""
        if self._address is not None:
            with suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def ready(self) -> None:
        """Started: what depends on the gateway may go on."""
        self._tell(READY="1")

    def status(self, words: str) -> None:
        """Say in one line how it is; said only when it has changed."""
        line = " ".join(words.split())[:MAX_STATUS]
        if line != self._status:
            self._status = line
            self._tell(STATUS=line)

    def alive(self) -> None:
        """Give the sign of life, and what could not be said before with it."""
        if self.watchdog_s is not None:
            self._send({**self._owed, "WATCHDOG": "1"})
        elif self._owed:
            self._send(self._owed)

    def stopping(self) -> None:
        """Ending in order."""
        self._tell(STOPPING="1")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, **said: str) -> None:
        self._owed |= said
        self._send(self._owed)

    def _send(self, said: Mapping[str, str]) -> None:
        """Say it or keep owing it: a service manager that is busy, or being replaced, is told with the next sign of life."""
        if self._socket is None or self._address is None:
            return
        text = "\n".join(f"{name}={value}" for name, value in said.items())
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return
        self._owed = {}


class Watchdog:
    """Looks whether the loops go on, and gives the sign of life while they do.

    `on_stall` is told a loop's name and for how many seconds it has not moved, `on_move` when it moves again; `words`
    gives the status line.
    """

    def __init__(
        self, service: ServiceManager, loops: Sequence[Loop], *, clock: Clock, on_stall: Callable[[str, float], None],
        on_move: Callable[[str], None], words: Callable[[], str],
    ) -> None:  # fmt: skip
        self._service = service
        self._watched = [_Watched(one) for one in loops]
        self._clock = clock
        self._on_stall = on_stall
        self._on_move = on_move
        self._words = words
        self._began = self._looked = clock.monotonic()
        self._ending = False
        self._withholds = False
        self._is_wordless = False
        self.every_s = LOOK_S if service.watchdog_s is None else min(LOOK_S, service.watchdog_s / 4)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(self.every_s)

    def end(self) -> None:
        """The gateway ends: its loops stop one by one, and only the process has to go on."""
        self._ending = True

    def look(self) -> None:
        """Look once, and give the sign of life or withhold it."""
        now = self._clock.monotonic()
        passed, self._looked = min(now - self._looked, 2 * self.every_s), now
        stalled = [one.loop.name for one in self._watched if not self._ending and self._look_at(one, passed)]
        if not self._ending:
            self._say_how_it_is()
        withholds = bool(stalled) and now - self._began >= TRUST_S
        if withholds and not self._withholds:
            _log.error("the sign of life is withheld: a restart may mend it", loops=stalled)
        self._withholds = withholds
        if not withholds:
            self._service.alive()

    def _say_how_it_is(self) -> None:
        try:
            self._service.status(self._words())
        except Exception as bug:  # noqa: BLE001 - as below
            if not self._is_wordless:
                _log.error("how it is cannot be said", exc_info=bug)
            self._is_wordless = True

    def _look_at(self, one: _Watched, passed: float) -> bool:
        """Tell turns; return whether the loop has stalled."""
        try:
            step = one.loop.step()
        except Exception as bug:  # noqa: BLE001 - the one who looks must not be what stops the gateway
            if not one.is_blind:
                _log.error("a loop cannot be looked at", loop=one.loop.name, exc_info=bug)
            one.is_blind = True
            return False
        if step is None or step != one.last:
            one.last, one.still_s = step, 0.0
        else:
            one.still_s += passed
        has_stalled = one.still_s > one.loop.limit_s
        if has_stalled:
            self._on_stall(one.loop.name, one.still_s)
        elif one.has_stalled:
            self._on_move(one.loop.name)
        one.has_stalled = has_stalled
        return has_stalled


@dataclass(slots=True)
class _Watched:
    loop: Loop
    last: object = None
    still_s: float = 0.0
    has_stalled: bool = False
    is_blind: bool = False


def _address(named: str) -> str | None:
    """Return a socket's address: a path, or a name of the abstract name space; None for anything else."""
    if named.startswith("@"):
        return "\0" + named[1:]
    if named and not named.startswith("/"):
        _log.warning("this kind of $NOTIFY_SOCKET is not known; the service manager is told nothing", address=named)
    return named if named.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return how long the service manager waits for a sign of life of this process (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with suppress(ValueError):
        usec = int(environ.get("WATCHDOG_USEC", ""))
        return usec / 1_000_000 if usec > 0 else None
    return None
