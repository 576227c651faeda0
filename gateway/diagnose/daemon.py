"""The daemon as it answers, or does not: running, hung, dead, or running where we may not ask.

A daemon that holds the lock of its data directory and does not answer at its socket is not dead. Limits: `ASK_S` for an
answer, which is less than what `gateway status` waits, because the whole diagnosis must be quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from gateway import control_client
from gateway.diagnose.machine import Machine
from gateway.errors import ControlError

ASK_S: Final = 2.5
_NOT_RUNNING: Final = control_client.NOT_RUNNING
_NO_ANSWER: Final = control_client.NO_ANSWER
SOCKET_GONE: Final = "GW-CTL-04"


class DaemonState(StrEnum):
    """What is known of the daemon."""

    RUNNING = "running"
    HUNG = "hung"
    DEAD = "dead"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon. `status` and `alarms` are what it answered, empty unless it runs; `code` and `detail` why not."""

    state: DaemonState
    status: Mapping[str, Any] = field(default_factory=dict)
    alarms: Sequence[Mapping[str, Any]] = ()
    pid: int | None = None
    code: str = _NOT_RUNNING
    detail: str = ""

    @property
    def runs(self) -> bool:
        """Did it answer?"""
        return self.state is DaemonState.RUNNING

    def of(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Return a list of its status: "devices", "links", "destinations" or "problems"."""
        found = self.status.get(name)
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def one_of(self, name: str, what: str) -> Mapping[str, Any]:
        """Return the entry with an id of such a list, {} where it has none."""
        return next((one for one in self.of(name) if one.get("id") == what), {})


def look_at_daemon(control: Path, data_dir: Path, machine: Machine) -> Daemon:
    """Ask it how it is. Never raises."""
    pid = machine.holder_of_lock(data_dir / "lock") or machine.holder_of_lock(data_dir)
    try:
        status = control_client.ask(control, "status", limit_s=ASK_S)
        alarms = control_client.ask(control, "alarms.list", limit_s=ASK_S / 2)
    except ControlError as error:
        return _silent(error, pid, machine)
    if not isinstance(status, dict):
        return Daemon(DaemonState.HUNG, pid=pid, code=_NO_ANSWER, detail="status?")
    number = status.get("pid")
    known = [one for one in alarms if isinstance(one, dict)] if isinstance(alarms, list) else []
    return Daemon(DaemonState.RUNNING, status, known, number if isinstance(number, int) else pid)


def _silent(error: ControlError, pid: int | None, machine: Machine) -> Daemon:
    detail = str(error.facts.get("detail") or "")
    if error.code == control_client.NOT_PERMITTED:
        return Daemon(DaemonState.DENIED, pid=pid, code=error.code)
    if error.code == _NOT_RUNNING:
        if pid is None:
            return Daemon(DaemonState.DEAD)
        return Daemon(DaemonState.HUNG, pid=pid, code=SOCKET_GONE, detail=f"pid {pid}")
    stopped = _stopped(pid, machine)
    return Daemon(DaemonState.HUNG, pid=pid, code=_NO_ANSWER, detail=f"{detail}, {stopped}" if stopped else detail)


def _stopped(pid: int | None, machine: Machine) -> str:
    """Return the kernel's word for a process that cannot answer (proc(5): "T (stopped)", "D (disk sleep)")."""
    for line in (machine.read(f"proc/{pid}/status") or "").splitlines() if pid else ():
        name, _, value = line.partition(":")
        if name == "State" and value.strip()[:1] in ("T", "t", "D", "Z"):
            return f"pid {pid} {value.strip()}"
    return ""
