"""The wall clock as the gateway's process sees it, which can jump while the machine's own stands.

A small library of ours (wall_clock.c), loaded before the C library, adds an offset to CLOCK_REALTIME; CLOCK_BOOTTIME,
CLOCK_MONOTONIC and every wait are the machine's. (libfaketime 0.9.10 was tried: it bends timed waits too, and the gateway
stood still for seconds.) Measured: a jump is seen by the next call, a call takes 0.6 us. Loaded only into the gateway, and
only in runs whose schedule has a jump. Limits: Linux with a C compiler, `cc`; 20 s to compile.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

COMPILER: Final = "cc"
COMPILE_LIMIT_S: Final = 20.0


class WallClockError(Exception):
    """The library could not be compiled: says what the compiler said."""


def missing() -> str:
    """Say why no clock can jump here; "" when nothing is in the way."""
    return "" if shutil.which(COMPILER) else f"{COMPILER} missing: apt-get install gcc libc6-dev"


class WallClock:
    """The clock of one process. `offset_s` is how far it is off. Raises WallClockError."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "wall-clock"
        self._library = folder / "wall-clock.so"
        self.offset_s = 0
        self._file.write_bytes(bytes(8))
        _compile(self._library)

    def jump(self, offset_s: int) -> None:
        """Be off by so much from the next call on."""
        self.offset_s = offset_s
        with self._file.open("r+b", buffering=0) as file:  # in place: it is mapped
            file.write(struct.pack("=q", offset_s))

    def environment(self) -> Mapping[str, str]:
        """Return what a process must be started with."""
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK_FILE": str(self._file)}


def _compile(library: Path) -> None:
    source = resources.files("simulator.chaos").joinpath("wall_clock.c").read_text(encoding="utf-8")
    command = [COMPILER, "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    try:
        done = subprocess.run(  # noqa: S603 - a compiler by its name, and a source of ours
            command, input=source, capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WallClockError(f"{COMPILER}: {error}") from error
    if done.returncode:
        raise WallClockError(f"{COMPILER}: {done.stderr.strip()}")
