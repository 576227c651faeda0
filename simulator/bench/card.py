"""A card to wear out: ext4 with 4 KiB blocks on a loop device, whose counters say what really was written.

What a process writes is not what a card gets: the file system's journal comes on top, and a page that is written twice
before it is flushed counts once. So the counters of the block device are read, after everything that is dirty was flushed
(syncfs of this file system alone). What the card itself writes once more inside is not seen.

Limits: Linux, root, `losetup` and `mke2fs`; elsewhere `NoCard` says what is missing. `CARD_MB` of disk, sparse.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CARD_MB: Final = 512
BLOCK_BYTES: Final = 4096
COMMAND_S: Final = 30.0
_SECTOR_BYTES: Final = 512  # of /sys/block/*/stat, whatever the device has
_COMMANDS: Final = ("losetup", "mke2fs", "mount", "umount")


class NoCard(Exception):
    """There can be no such device here; the message says why."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a device has been given: bytes, write requests, flushes (`/sys/block/*/stat`, fields 7, 5 and 16)."""

    bytes: int
    requests: int
    flushes: int

    def since(self, before: Written) -> Written:
        """Return what came after `before`."""
        return Written(self.bytes - before.bytes, self.requests - before.requests, self.flushes - before.flushes)


def parse_stat(text: str) -> Written:
    """Read `/sys/block/*/stat`. Raises NoCard where the kernel counts no flushes (before 5.5)."""
    fields = text.split()
    if len(fields) < 16:
        raise NoCard("this kernel does not count flushes (Linux 5.5 or later does)")
    return Written(int(fields[6]) * _SECTOR_BYTES, int(fields[4]), int(fields[15]))


class Card:
    """One card, mounted at `root` while it is used as a context manager. Raises NoCard on the way in."""

    def __init__(self, folder: Path, *, megabytes: int = CARD_MB) -> None:
        self.root = folder / "card"
        self._image = folder / "card.img"
        self._megabytes = megabytes
        self._device = ""

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise NoCard("only root may set up a loop device")
        missing = [command for command in _COMMANDS if shutil.which(command) is None]
        if missing:
            raise NoCard(f"not installed: {', '.join(missing)}")
        self.root.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._megabytes * 1024 * 1024)
        whole = "lazy_itable_init=0,lazy_journal_init=0"  # else the kernel writes the rest while we measure
        _run("mke2fs", "-q", "-t", "ext4", "-b", str(BLOCK_BYTES), "-E", whole, str(self._image))
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        try:
            _run("mount", "-o", "noatime", self._device, str(self.root))
        except NoCard:
            _run("losetup", "--detach", self._device)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run("umount", str(self.root))
        _run("losetup", "--detach", self._device)
        self._image.unlink()

    def written(self, *, flush: bool = True) -> Written:
        """Return what the device has been given so far; with `flush`, what waits in memory is written first."""
        if flush:
            _sync(self.root)
        return parse_stat(Path("/sys/block", Path(self._device).name, "stat").read_text(encoding="ascii"))


def _sync(folder: Path) -> None:
    """Flush one file system; os.sync() would flush those of everybody else, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(descriptor)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_S)  # noqa: S603 - ours
    if done.returncode:
        raise NoCard(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout
