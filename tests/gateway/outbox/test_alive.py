"""The last sign of life: read back whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import Stamp
from gateway.outbox.alive import AliveFile

NOON = Stamp(1_800_000_000_000, 123_456, "1f0c4b55-7d2a-4d7e-9d0a-7a3c8c1d2e3f", "synced")


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    file = AliveFile(tmp_path / "alive")
    file.write(Stamp(1_799_999_999_000, 122_456, NOON.boot, "unsynced"))
    file.write(NOON)
    file.close()
    assert AliveFile(tmp_path / "alive").read() == NOON


def test_a_shorter_stamp_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    file = AliveFile(tmp_path / "alive")
    file.write(Stamp(1_800_000_000_000, 10**12, "a-long-boot-id", "unsynced"))
    file.write(Stamp(1, 2, "b", "synced"))
    file.close()
    assert AliveFile(tmp_path / "alive").read() == Stamp(1, 2, "b", "synced")


def test_no_file_is_no_sign(tmp_path: Path) -> None:
    assert AliveFile(tmp_path / "alive").read() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 256,
        b'{"wall_ms": 1',
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"wall_ms": "noon", "mono_ms": 1, "boot": "b", "clock": "synced"}',
        b'{"wall_ms": 1.5, "mono_ms": 1, "boot": "b", "clock": "synced"}',
        b'{"wall_ms": 1, "boot": "b", "clock": "synced"}',
        b'{"wall_ms": -1, "mono_ms": 1, "boot": "b", "clock": "synced"}',
        b'{"wall_ms": 999999999999999999, "mono_ms": 1, "boot": "b", "clock": "synced"}',
        b"[" * 250,
    ],
)
def test_what_a_power_cut_left_half_written_is_no_sign(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "alive").write_bytes(content)
    assert AliveFile(tmp_path / "alive").read() is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        AliveFile(tmp_path / "missing" / "alive").write(NOON)


def test_closing_lets_go_of_the_file(tmp_path: Path) -> None:
    file = AliveFile(tmp_path / "alive")
    file.write(NOON)
    file.close()
    file.close()
    held = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert tmp_path / "alive" not in held


def test_it_writes_again_after_it_was_closed(tmp_path: Path) -> None:
    file = AliveFile(tmp_path / "alive")
    file.write(NOON)
    file.close()
    file.write(Stamp(5, 6, "b"))
    file.close()
    assert file.read() == Stamp(5, 6, "b", "unsynced")
