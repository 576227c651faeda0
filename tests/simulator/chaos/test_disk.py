"""A disk of its own, in the states in which a gateway meets one: full, read-only, failing, and well again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.clock import Stamp
from gateway.outbox.alive import AliveFile, AliveNotes
from simulator.chaos.disk import Disk, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no disk to be had: {missing()}")


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    at = tmp_path / "data"
    at.mkdir()
    here = Disk(at, tmp_path / "disk.img")
    await here.make()
    yield here
    await here.remove()
    assert not at.is_mount()


def why(path: Path) -> int | None:
    """Write a file; return the error's number, None when it could be written."""
    try:
        path.write_bytes(bytes(65_536))
    except OSError as error:
        return error.errno
    return None


async def test_a_full_disk_takes_nothing_until_it_is_emptied(disk: Disk) -> None:
    disk.fill()
    assert why(disk.at / "one") == errno.ENOSPC
    disk.empty()
    assert why(disk.at / "one") is None


async def test_a_disk_that_fails_under_an_open_file_refuses_writes_and_is_well_after_a_check(disk: Disk) -> None:
    kept = disk.at / "kept"
    kept.write_text("before")
    with kept.open("ab", buffering=0):
        await disk.fail()
        assert why(disk.at / "one") == errno.EROFS
        assert kept.read_text() == "before"
    await disk.replace()
    assert why(disk.at / "one") is None


async def test_a_disk_that_failed_is_well_after_a_check_although_another_mount_namespace_keeps_the_old_one(
    disk: Disk,
) -> None:
    keeper = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 60",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert keeper.stdout is not None
    try:
        assert await keeper.stdout.readline() == b"ready\n"
        await disk.fail()
        await disk.replace()
        assert why(disk.at / "one") is None
        await disk.fail()
        assert why(disk.at / "two") == errno.EROFS
        await disk.replace()
        assert why(disk.at / "two") is None
    finally:
        keeper.kill()
        await keeper.wait()


async def test_a_disk_that_fails_is_met_by_the_note_of_the_next_second_although_none_is_due_on_it(
    disk: Disk, tmp_path: Path
) -> None:
    """Some kernels show such a disk as writable in everything but an attempt."""
    notes = AliveNotes(disk.at / "alive", tmp_path / "near")
    notes.write(Stamp(1_800_000_000_000, 10_000, "boot"))
    await asyncio.to_thread(os.sync)
    await disk.fail()
    with pytest.raises(OSError, match="Read-only file system"):
        notes.write(Stamp(1_800_000_001_000, 11_000, "boot"))
    notes.close()
    await disk.replace()
    notes.write(Stamp(1_800_000_002_000, 12_000, "boot"))
    notes.close()
    assert AliveFile(disk.at / "alive").read() == Stamp(1_800_000_000_000, 10_000, "boot")


async def test_a_read_only_disk_refuses_writes_until_it_is_writable_again(disk: Disk) -> None:
    await disk.read_only(on=True)
    assert why(disk.at / "one") == errno.EROFS
    await disk.read_only(on=False)
    assert why(disk.at / "one") is None


async def test_a_frozen_disk_answers_when_it_thaws(disk: Disk) -> None:
    await disk.freeze()
    writing = asyncio.create_task(asyncio.to_thread(why, disk.at / "one"))
    done, _ = await asyncio.wait({writing}, timeout=0.3)
    assert not done
    await disk.thaw()
    async with asyncio.timeout(30):
        assert await writing is None
