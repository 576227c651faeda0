"""The machine that is diagnosed: its files under /proc, /sys, /run and /etc, and its commands.

Limits: a file is read up to 64 KiB; a command gets the time that is given and is killed after it. What is not there is
None, never an error: most machines lack most of what is looked for.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Final, Generic, TypeVar

UNIT: Final = "daycare-gateway.service"
USER: Final = "daycare-gateway"
MAX_FILE_BYTES: Final = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said."""

    status: int
    out: str


@dataclass(frozen=True, slots=True)
class Machine:
    """`root` is where the machine's files are found: "/" but for tests."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Return where a file of the machine lies; `name` without the leading slash."""
        return self.root / name

    def read(self, name: str | Path) -> str | None:
        """Return a small file, stripped; None where there is none or it may not be read."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES).decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            return None

    def number(self, name: str | Path) -> int | None:
        """Return a file that holds one number."""
        content = self.read(name)
        try:
            return None if content is None else int(content, 0)
        except ValueError:
            return None

    def entries(self, folder: str) -> Iterator[Path]:
        """Yield what lies in a folder, in order."""
        try:
            yield from sorted((self.root / folder).iterdir())
        except OSError:
            return

    def run(self, *words: str, limit_s: float = 3.0) -> Ran | None:
        """Run a command that only looks; None where there is no such command or it did not end in time."""
        program = shutil.which(words[0])
        if program is None:
            return None
        process = subprocess.Popen(  # noqa: S603 - words of ours, no shell
            [program, *words[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}, start_new_session=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None
        return Ran(process.returncode, out.decode("utf-8", "replace").strip())

    def service_user(self) -> pwd.struct_passwd | None:
        """Return the user that the service runs as; None where it was never installed."""
        try:
            return pwd.getpwnam(USER)
        except KeyError:
            return None

    def service_may(self, path: Path, *, rights: int) -> bool:
        """May the service use a file (4 read, 2 write, 1 enter)? Who asks is another user; root may anything.

        Where there is no service user the gateway is tried by hand: then it is us. Raises OSError.
        """
        user = self.service_user()
        if user is None or user.pw_uid == os.geteuid():
            return os.access(path, rights, effective_ids=True)
        status = path.stat()
        if status.st_uid == user.pw_uid:
            have = status.st_mode >> 6
        elif status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
            have = status.st_mode >> 3
        else:
            have = status.st_mode
        return have & rights == rights

    def holder_of_lock(self, path: Path) -> int | None:
        """Return the process that has a file locked, without locking it: a starting gateway must not find it taken.

        A line of /proc/locks: `1: FLOCK  ADVISORY  WRITE 11568 00:1a:3 0 EOF`.
        """
        try:
            status = path.stat()
        except OSError:
            return None
        inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in (self.read("proc/locks") or "").splitlines():
            fields = line.split()
            if len(fields) >= 6 and fields[5] == inode and fields[4].isdigit():
                return int(fields[4])
        return None


class Timely(Generic[T]):
    """Work in a thread of its own, which is waited for only so long: a dead disk or name server holds it for ever.

    The thread is a daemon: it does not hold up the end of the program.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._done: list[T] = []
        self._failed: list[Exception] = []
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._done.append(self._work())
        except Exception as error:  # noqa: BLE001 - handed over whole
            self._failed.append(error)

    def result(self, limit_s: float) -> T:
        """Return what it found. Raises TimeoutError, or whatever the work raised."""
        self._thread.join(max(0.0, limit_s))
        if self._failed:
            raise self._failed[0]
        if not self._done:
            raise TimeoutError
        return self._done[0]
