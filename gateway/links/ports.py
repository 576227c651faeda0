"""Which serial ports there are, and what keeps one from being used.

A technician can act on "held by agetty (pid 412)" or "group dialout"; on "errno 16" he cannot. The line and `diagnose`
therefore share these sentences' facts.

Limits: nothing here opens a port, for opening raises DTR and resets many microcontrollers. A holder is found through
/proc/locks (any user may read it) and then through /proc/PID/fd (only root sees those of others); at most 4096
processes are looked at. All functions block for some milliseconds: call them in a thread.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import serialx
from serial.tools import list_ports

MISSING = "GW-SER-01"
DENIED = "GW-SER-02"
HELD = "GW-SER-03"
LOST = "GW-SER-04"
REFUSED_SETTINGS = "GW-SER-05"
UNREACHABLE = "GW-SER-06"
OTHER = "GW-SER-07"
# It hears, but takes nothing.
STALLED = "GW-SER-08"
# A serial server that does not let its port be set, though the configuration has it so.
NO_CONTROL = "GW-SER-11"

_SETTABLE = "rfc2217"
_PROC = Path("/proc")
_BY_ID = Path("/dev/serial/by-id")
_BY_PATH = Path("/dev/serial/by-path")
_PROCESSES_MAX = 4096
# Linux, Documentation/admin-guide/devices.txt: the major numbers of /dev/pts/*.
_PSEUDO_TERMINALS = range(136, 144)
_CODES = {
    errno.ENOENT: MISSING,
    errno.ENODEV: MISSING,
    errno.ENXIO: MISSING,
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EBUSY: HELD,
    errno.EAGAIN: HELD,
    errno.EINVAL: REFUSED_SETTINGS,
}
# See `serial_server`.
_SERVER_CODES = {errno.EPROTO: NO_CONTROL, errno.EINVAL: REFUSED_SETTINGS}


@dataclass(frozen=True, slots=True)
class PortProblem:
    """Why a port cannot be used: a code of `gateway.problems`, and the facts for its text."""

    code: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PortName:
    """A port that is there now. `by_id` and `by_path` are names that survive a reboot ("" where udev gives none)."""

    device: str
    by_id: str
    by_path: str
    description: str
    serial_number: str


def present() -> list[PortName]:
    """Return the serial ports of this machine, in the order of their device names."""
    by_id, by_path = _links(_BY_ID), _links(_BY_PATH)
    try:
        found = sorted(list_ports.comports())
    except (OSError, TypeError, ValueError):
        # pyserial reads sysfs file by file and trips over a device pulled meanwhile; the next look succeeds.
        found = []
    return [
        PortName(
            device=port.device,
            by_id=by_id.get(os.path.realpath(port.device), ""),
            by_path=by_path.get(os.path.realpath(port.device), ""),
            description=port.description or "",
            serial_number=port.serial_number or "",
        )
        for port in found
    ]


def lasting_name(port: str) -> str:
    """Return the name of a port that outlives a reboot and another socket, its own where udev gives none."""
    real = os.path.realpath(port)
    found = next((one for one in present() if os.path.realpath(one.device) == real), None)
    return port if found is None or not port.startswith("/dev/tty") else found.by_id or found.by_path or port


def socket_address(port: str) -> tuple[str, int] | None:
    """Return host and port of `socket://host:port` or `rfc2217://host:port`, None for a device path. ValueError otherwise."""
    if port.startswith("/"):
        return None
    refusal = ValueError(f"{port!r}: expected an absolute device path, socket://host:port or rfc2217://host:port")
    try:
        parts = urlsplit(port)
        host, number = parts.hostname, parts.port
    except ValueError:
        raise refusal from None
    is_known = parts.scheme in ("socket", _SETTABLE)
    if not is_known or not host or not number or parts.path not in ("", "/") or parts.query:
        raise refusal
    return host, number


def is_settable(port: str) -> bool:
    """Whether speed and parity of a port can be set from here: of those on a network, only over RFC 2217."""
    return port.startswith(("/", f"{_SETTABLE}://"))


def check(port: str) -> PortProblem | None:
    """Say what keeps this process from using the port at a device path, or None. Does not open it.

    A port that another process has open counts as held even when that process did not lock it (a console's getty):
    two readers steal each other's bytes.
    """
    try:
        status = Path(port).stat()
    except OSError as error:
        return explain(port, error)
    if not stat.S_ISCHR(status.st_mode):
        return PortProblem(OTHER, {"port": port, "detail": "not a serial port"})
    if not os.access(port, os.R_OK | os.W_OK, effective_ids=True):
        return explain(port, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    other = holder(port)
    return PortProblem(HELD, {"port": port, **other}) if other else None


def explain(port: str, error: BaseException) -> PortProblem:
    """Turn the error of an opening into a problem. Blocks while it looks for the holder of a busy port."""
    detail = _one_line(error)
    if not port.startswith("/"):
        told = _SERVER_CODES.get(error.errno or 0) if isinstance(error, OSError) and is_settable(port) else None
        return PortProblem(told or UNREACHABLE, {"port": port, "detail": detail})
    if isinstance(error, (serialx.SerialException, ValueError)):
        return PortProblem(REFUSED_SETTINGS, {"port": port, "detail": detail})
    code = _CODES.get(error.errno or 0, OTHER) if isinstance(error, OSError) else OTHER
    facts: dict[str, object] = {"port": port, "detail": detail}
    if code == DENIED:
        facts |= _rights(port)
    elif code == HELD:
        facts |= holder(port) or _ourselves(port) or {"pid": None, "command": ""}
    return PortProblem(code, facts)


def holder(port: str) -> dict[str, object] | None:
    """Return `pid` and `command` of another process that has the port locked or open, None if none is to be seen."""
    try:
        status = Path(port).stat()
    except OSError:
        return None
    for pid in _lockers(status):
        if pid != os.getpid():
            return {"pid": pid, "command": _command(pid)}
    for pid in _openers(status):
        return {"pid": pid, "command": _command(pid)}
    return None


def is_locked(status: os.stat_result) -> bool:
    """Whether any process has a lock on this file."""
    return any(True for _ in _lockers(status))


def _ourselves(port: str) -> dict[str, object] | None:
    """Return this process when it is the holder: two lines of one configuration that share a port."""
    try:
        own = os.getpid() in _lockers(Path(port).stat())
    except OSError:
        return None
    return {"pid": os.getpid(), "command": _command(os.getpid())} if own else None


def _one_line(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def _links(folder: Path) -> dict[str, str]:
    try:
        return {os.path.realpath(link): str(link) for link in sorted(folder.iterdir())}
    except OSError:
        return {}


def _rights(port: str) -> dict[str, object]:
    """Return who we are, whose the port is, and the group that would open it ("" when no group does)."""
    facts: dict[str, object] = {"user": _user_name(os.geteuid()), "group": "", "mode": ""}
    try:
        status = Path(port).stat()
    except OSError:
        return facts
    facts["mode"] = stat.filemode(status.st_mode)
    if status.st_mode & 0o060 == 0o060:
        try:
            facts["group"] = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            facts["group"] = str(status.st_gid)
    return facts


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _lockers(status: os.stat_result) -> Iterator[int]:
    """Yield the processes with a lock on this inode. A line: `1: FLOCK  ADVISORY  WRITE 11568 00:1a:3 0 EOF`."""
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = (_PROC / "locks").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[5] == inode and fields[4].isdigit() and int(fields[4]) > 0:
            yield int(fields[4])


def _openers(port: os.stat_result) -> Iterator[int]:
    """Yield the other processes that have this character device open, as far as we may see them."""
    own = os.getpid()
    try:
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()][:_PROCESSES_MAX]
    except OSError:
        return
    for pid in pids:
        if pid != own and _has_open(_PROC / str(pid) / "fd", port):
            yield pid


def _has_open(descriptors: Path, port: os.stat_result) -> bool:
    try:
        entries = list(descriptors.iterdir())
    except OSError:
        return False
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and _is_same(status, port):
            return True
    return False


def _is_same(one: os.stat_result, port: os.stat_result) -> bool:
    """Each container counts its pseudo-terminals anew: the numbers name one only together with the file system it is in."""
    pseudo = os.major(port.st_rdev) in _PSEUDO_TERMINALS
    return one.st_rdev == port.st_rdev and (not pseudo or one.st_dev == port.st_dev)


def _command(pid: int) -> str:
    """Return the command line of a process (80 characters), its short name when that is empty, "" when it is gone."""
    for name in ("cmdline", "comm"):
        try:
            text = (_PROC / str(pid) / name).read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:
            continue
        if text:
            return text[:80]
    return ""
