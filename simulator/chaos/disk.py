"""A disk of its own for a gateway's data, so that it can be full, hang, turn read-only under open files, and be replaced.

An ext4 in a file of the run, on a loop device. `fail` is what the kernel does when a card gives up: from then on every
write is an error, and only unmounting and a check make it well. Limits: root on Linux with mount, mkfs.ext4, e2fsck, fsfreeze
and a free loop device, else DiskError; `SIZE_MB`; 20 s for each command.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

SIZE_MB: Final = 64
LIMIT_S: Final = 20.0
_PROGRAMS: Final = ("mount", "umount", "mkfs.ext4", "e2fsck", "fsfreeze")
_SBIN: Final = "/usr/sbin:/sbin"
_BLOCK: Final = bytes(64 * 1024)


class DiskError(Exception):
    """There is no disk to be had: says what is missing."""


def missing() -> str:
    """Say why there can be no disk here; "" when nothing is in the way."""
    if os.geteuid() != 0:
        return "not root"
    without = [name for name in _PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}") is None]
    return f"{', '.join(without)} missing" if without else ""


class Disk:
    """The disk at `at`, in the file `image`. What fails raises DiskError."""

    def __init__(self, at: Path, image: Path) -> None:
        self.at = at
        self._image = image
        self._filler = at / "filler"
        self._is_mounted = False
        self._copies = 0

    async def make(self) -> None:
        """Make it, and mount it over the folder."""
        with self._image.open("wb") as file:
            file.truncate(SIZE_MB * 1024 * 1024)
        await _run("mkfs.ext4", "-q", "-m", "0", "-F", str(self._image))
        await self.mount()
        self.at.chmod(0o700)

    async def mount(self) -> None:
        """Mount it."""
        await _run("mount", "-o", "loop", str(self._image), str(self.at))
        self._is_mounted = True

    async def remove(self) -> None:
        """Unmount it, whatever state it is in. Nobody may hold a file of it."""
        if self._is_mounted:
            await _run("fsfreeze", "-u", str(self.at), fails=True)
            await _run("umount", str(self.at), fails=True)
            self._is_mounted = False

    async def replace(self) -> None:
        """Unmount, check and mount it again, as a machine that starts anew. Nobody may hold a file of it.

        It is a copy that is mounted: a mount namespace that somebody made meanwhile keeps what is unmounted here, and the
        kernel would give the failed file system back for the same image.
        """
        await _run("umount", str(self.at))
        self._is_mounted = False
        former, self._copies = self._image, self._copies + 1
        self._image = former.with_name(f"{former.name.partition('.')[0]}.{self._copies}.img")
        await _run("cp", "--sparse=always", str(former), str(self._image))
        former.unlink()
        await _run("e2fsck", "-fy", str(self._image), fails=True)  # 1: it has mended something
        await self.mount()

    def fill(self) -> None:
        """Take what room there is. Again and again: a gateway lets room go to be able to go on."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_BLOCK)
            except OSError:
                return

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    async def freeze(self) -> None:
        """Let every write wait."""
        await _run("fsfreeze", "-f", str(self.at))

    async def thaw(self) -> None:
        """Let writes go on."""
        await _run("fsfreeze", "-u", str(self.at))

    async def fail(self) -> None:
        """Let every write be an error from here on; `replace` ends it."""
        await _run("mount", "-o", "remount,abort", str(self.at))

    async def read_only(self, *, on: bool) -> None:
        """Mount it read-only, or writable again. For the former nobody may hold a file of it for writing."""
        await _run("mount", "-o", "remount,ro" if on else "remount,rw", str(self.at))


async def _run(*command: str, fails: bool = False) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}", "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise DiskError(f"{' '.join(command)}: not done within {LIMIT_S:g} s") from None
    if process.returncode and not fails:
        raise DiskError(f"{' '.join(command)}: {said.decode(errors='replace').strip()}")
