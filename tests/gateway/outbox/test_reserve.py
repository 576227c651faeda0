"""Room that is kept so that a gateway can start on a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.outbox.reserve import RESERVE_BYTES, Reserve


def test_the_room_is_really_taken_once_and_given_back_once(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve")
    reserve.take()
    before = (tmp_path / "reserve").stat()
    assert before.st_blocks * 512 >= RESERVE_BYTES
    reserve.take()
    assert (tmp_path / "reserve").stat().st_mtime_ns == before.st_mtime_ns
    assert reserve.give_up()
    assert not reserve.give_up()
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_that_was_cut_short_is_taken_anew(tmp_path: Path) -> None:
    (tmp_path / "reserve").write_bytes(b"")
    os.truncate(tmp_path / "reserve", RESERVE_BYTES)  # a hole: no room at all
    Reserve(tmp_path / "reserve").take()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES


def test_where_there_is_no_room_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    reserve = Reserve(tmp_path / "reserve")
    reserve.take()
    assert list(tmp_path.iterdir()) == []
    Reserve(tmp_path / "nowhere" / "reserve").take()
