"""A clock that jumps for one process: its wall clock only, at once, and nothing else of its time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.chaos.wall_clock import WallClock, missing

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="cc is missing: apt-get install gcc libc6-dev")

CHILD = """
import sys, threading, time
from datetime import datetime
zero = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
for line in sys.stdin:
    began = time.monotonic()
    threading.Event().wait(0.05)
    waited = time.monotonic() - began
    off = [time.time(), time.time_ns() / 1e9, datetime.now().timestamp()]
    print([round(one - time.clock_gettime(time.CLOCK_BOOTTIME) - zero) for one in off], waited < 1.0, flush=True)
"""


@needs_compiler
def test_a_jump_moves_the_wall_clock_of_a_running_process_and_no_wait(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment()},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    said = []
    try:
        for offset in (0, 157_680_000, -90, 0):
            clock.jump(offset)
            child.stdin.write("\n")
            child.stdin.flush()
            said.append(child.stdout.readline().strip())
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait(timeout=30)
    assert said == [
        "[0, 0, 0] True",
        "[157680000, 157680000, 157680000] True",
        "[-90, -90, -90] True",
        "[0, 0, 0] True",
    ]
    assert clock.offset_s == 0


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert missing() == "cc missing: apt-get install gcc libc6-dev"
