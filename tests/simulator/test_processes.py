"""Real processes: they end when told, when they must, and when we die; one that dies by itself is named."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.processes import Children, ProcessDied, tail

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def alive(pid: int) -> bool:
    """Does the process run? One that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("not within 10 s")


async def until_up(log: Path) -> None:
    await until(lambda: "up" in tail(log))


async def test_a_child_ends_at_sigterm_and_its_words_stand_in_its_log(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("sleeper", SLEEPER)
        await until_up(tmp_path / "sleeper.log")
        assert await children.stop("sleeper") == -signal.SIGTERM
        assert not alive(child.pid)
        children.check()
    assert (tmp_path / "sleeper.log").read_text() == "up\n"


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("deaf", DEAF)
        await until_up(tmp_path / "deaf.log")
        assert await children.stop("deaf", grace_s=0.1) == -signal.SIGKILL
        assert not alive(child.pid)


async def test_leaving_ends_them_all(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        pids = [(await children.start(name, SLEEPER)).pid for name in ("one", "two")]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


async def test_a_killed_child_takes_its_own_children_along(tmp_path: Path) -> None:
    parent = f"import subprocess; p = subprocess.Popen({SLEEPER!r}); print('up', p.pid, flush=True); p.wait()"
    async with Children(tmp_path) as children:
        await children.start("parent", [sys.executable, "-c", parent])
        await until_up(tmp_path / "parent.log")
        grandchild = int((tmp_path / "parent.log").read_text().split("up ")[1].split()[0])
        await children.kill("parent")
        await until(lambda: not alive(grandchild))


async def test_a_killed_child_can_be_started_again_under_its_name(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        first = await children.start("gateway", SLEEPER)
        await children.kill("gateway")
        second = await children.start("gateway", SLEEPER)
        assert not alive(first.pid)
        assert alive(second.pid)
        children.check()


async def test_a_child_that_dies_by_itself_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        await children.start("air", [sys.executable, "-c", "print('no adapter'); raise SystemExit(3)"])
        async with asyncio.timeout(30):
            died = await children.wait_for_death()
        assert (died.name, died.code) == ("air", 3)
        assert str(died) == f"air ended with exit code 3; its log {tmp_path / 'air.log'} ends:\n  no adapter"


async def test_check_raises_for_a_child_that_was_killed_by_others(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("bus", SLEEPER)
        os.kill(child.pid, signal.SIGKILL)
        await child.watch
        with pytest.raises(ProcessDied, match="bus was killed by signal 9"):
            children.check()


async def test_a_command_that_does_not_exist_is_an_error_of_the_system(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        with pytest.raises(FileNotFoundError):
            await children.start("nobody", ["/nowhere/at/all"])


def test_children_die_when_we_are_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from simulator.processes import Children

async def main():
    async with Children(Path({str(tmp_path)!r})) as children:
        child = await children.start("sleeper", {SLEEPER!r})
        print(child.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        pid = int(ours.stdout.readline())
        assert alive(pid)
        ours.kill()
        ours.wait()
        deadline = time.monotonic() + 30
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not alive(pid)


def test_the_tail_of_a_long_log_is_its_last_twelve_lines(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("".join(f"line {n}\n" for n in range(5000)))
    assert tail(tmp_path / "x.log").split("\n") == [f"  line {n}" for n in range(4988, 5000)]


def test_a_log_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "No such file" in tail(tmp_path / "none.log")
