"""The separate processes of a run: started with a log each, watched, and gone for certain when we end or die.

Each child leads a process group of its own, so that a Ctrl-C at the terminal is ours to answer, and asks the kernel
(PR_SET_PDEATHSIG) to be killed when we die, however we die. Limits: a child gets 10 s to end after SIGTERM, then its
whole group is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

GRACE_S: Final = 10.0
TAIL_LINES: Final = 12
_TAIL_BYTES: Final = 8192
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class ProcessDied(Exception):
    """A process of the run ended by itself. `name`, `code` (negative: the signal) and the end of its log."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{name} {how}; its log {log} ends:\n{tail(log)}")
        self.name = name
        self.code = code
        self.log = log


@dataclass(slots=True)
class Child:
    """One running process. `expected` is set before we end it ourselves; `guarded`: somebody waits for its own end."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    expected: bool = False
    guarded: bool = False
    watch: asyncio.Task[None] = field(init=False)

    @property
    def pid(self) -> int:
        """Process id, which is the id of its group too."""
        return self.process.pid


class Children:
    """All processes of a run. Use as an async context manager: leaving it ends every one, the last started first."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._running: dict[str, Child] = {}
        self._died: asyncio.Queue[ProcessDied] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._running)):
            await self.stop(name)

    async def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Child:
        """Start a process. Its words go to DIR/NAME.log, behind what an earlier one of that name wrote."""
        log = self._run / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        child = Child(name, process, log)
        child.watch = asyncio.create_task(self._watch(child), name=f"watch {name}")
        self._running[name] = child
        return child

    async def stop(self, name: str, *, grace_s: float = GRACE_S) -> int | None:
        """End a process: SIGTERM, then SIGKILL to its group. Returns its exit code; None when it does not run."""
        child = self._running.pop(name, None)
        if child is None:
            return None
        child.expected = True
        _signal(child.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.shield(child.watch)
        _signal(child.pid, signal.SIGKILL, group=True)
        await child.watch
        return child.process.returncode

    async def kill(self, name: str) -> None:
        """SIGKILL a process, as a power cut or the kernel would, and wait until it is gone. KeyError when there is none."""
        child = self._running.pop(name)
        child.expected = True
        _signal(child.pid, signal.SIGKILL, group=True)
        await child.watch

    async def wait_for_death(self) -> ProcessDied:
        """Return when a process has ended by itself, and say which. Never returns otherwise."""
        return await self._died.get()

    def pid(self, name: str) -> int:
        """Return the process id of one that runs. KeyError when there is none."""
        return self._running[name].pid

    def check(self) -> None:
        """Raise ProcessDied if a process has ended by itself."""
        if not self._died.empty():
            raise self._died.get_nowait()

    async def _watch(self, child: Child) -> None:
        code = await child.process.wait()
        if not child.expected and not child.guarded:
            self._died.put_nowait(ProcessDied(child.name, code, child.log))


def die_with_parent() -> Callable[[], None]:
    """Return what a child calls between fork and exec, so that the kernel kills it when we die."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # we died before the call: nobody would tell the child any more
            os._exit(1)

    return ask_kernel


def tail(log: Path) -> str:
    """The last lines of a log, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"  ({error})"
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (nothing)"


def _signal(pid: int, what: signal.Signals, *, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, what)
