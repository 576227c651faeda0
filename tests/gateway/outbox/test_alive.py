"""The last sign of life: read back whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import Stamp
from gateway.outbox.alive import AliveFile, AliveNotes

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


# Two places: one is written each time, the card once a minute.


def seconds(n: float, *, boot: str = NOON.boot, wall_ms: int = NOON.wall_ms) -> Stamp:
    return Stamp(wall_ms, int(n * 1000), boot, "synced")


def test_the_card_is_written_first_and_then_once_a_minute(tmp_path: Path) -> None:
    notes, card = AliveNotes(tmp_path / "alive", tmp_path / "near"), AliveFile(tmp_path / "alive")
    seen = []
    for n in (10, 11, 69, 70, 71, 130):
        notes.write(seconds(n))
        assert notes.read() == seconds(n)
        seen.append(card.read())
    assert seen == [seconds(10), seconds(10), seconds(10), seconds(70), seconds(70), seconds(130)]


def test_the_last_note_is_on_the_card_too(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "near")
    notes.write(seconds(10))
    notes.write_last(seconds(12))
    notes.close()
    assert AliveFile(tmp_path / "alive").read() == seconds(12)
    assert AliveFile(tmp_path / "near").read() == seconds(12)


def test_without_the_near_place_each_note_is_on_the_card(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "missing" / "near")
    for n in (10, 11, 12):
        notes.write(seconds(n))
    assert AliveFile(tmp_path / "alive").read() == notes.read() == seconds(12)


def test_a_card_that_cannot_be_written_is_told_and_tried_again_each_time(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "card" / "alive", tmp_path / "near")
    for n in (10, 11):
        with pytest.raises(OSError, match="No such file"):
            notes.write(seconds(n))
        assert notes.read() == seconds(n)
    (tmp_path / "card").mkdir()
    notes.write(seconds(12))
    assert AliveFile(tmp_path / "card" / "alive").read() == seconds(12)


def test_a_card_that_can_no_longer_be_written_is_told_each_second_although_nothing_is_due(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "near")
    notes.write(seconds(10))
    (tmp_path / "alive").rename(tmp_path / "kept")
    (tmp_path / "alive").mkdir()  # refuses to be opened for writing, to root as well
    for n in (11, 12):
        with pytest.raises(OSError, match="Is a directory"):
            notes.write(seconds(n))
        assert AliveFile(tmp_path / "near").read() == seconds(n)
    (tmp_path / "alive").rmdir()
    (tmp_path / "kept").rename(tmp_path / "alive")
    notes.write(seconds(13))
    assert AliveFile(tmp_path / "alive").read() == seconds(10)


def test_a_look_at_the_card_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    notes, card = AliveNotes(tmp_path / "alive", tmp_path / "near"), tmp_path / "alive"
    notes.write(seconds(10))
    before = card.stat()
    notes.write(seconds(11))
    after = card.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert AliveFile(tmp_path / "near").read() == seconds(11)


def test_a_note_that_was_removed_from_the_card_is_written_anew(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "near")
    notes.write(seconds(10))
    (tmp_path / "alive").unlink()
    notes.write(seconds(11))
    assert AliveFile(tmp_path / "alive").read() == seconds(11)


def test_after_a_power_cut_the_card_alone_is_read(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "near")
    notes.write(seconds(10))
    notes.write(seconds(30))
    (tmp_path / "near").unlink()
    assert AliveNotes(tmp_path / "alive", tmp_path / "near").read() == seconds(10)


def test_a_stamp_that_steps_back_counts_although_the_card_has_a_later_one(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "near")
    notes.write(seconds(10))
    notes.write(seconds(9))  # something was found that is not yet durable
    assert notes.read() == seconds(9)


def test_of_one_boot_the_near_stamp_counts_and_of_two_the_later_hour(tmp_path: Path) -> None:
    notes = AliveNotes(tmp_path / "alive", tmp_path / "near")
    near, card = AliveFile(tmp_path / "near"), AliveFile(tmp_path / "alive")
    near.write(seconds(20, wall_ms=NOON.wall_ms - 3_600_000))  # the clock was put back by an hour
    card.write(seconds(10))
    assert notes.read() == seconds(20, wall_ms=NOON.wall_ms - 3_600_000)
    card.write(seconds(900, boot="the one before", wall_ms=NOON.wall_ms - 7_200_000))
    assert notes.read() == seconds(20, wall_ms=NOON.wall_ms - 3_600_000)
    card.write(seconds(1, boot="a later one"))
    assert notes.read() == seconds(1, boot="a later one")


def test_a_moment_before_the_last_one_is_noted_on_the_card_at_once(tmp_path: Path) -> None:
    """It turned out that it had been deaf since: after a power cut the gap must begin there."""
    notes = AliveNotes(card=tmp_path / "card", near=tmp_path / "near")
    notes.write(seconds(100))
    notes.write(seconds(110))
    notes.write(seconds(90))
    notes.close()
    assert AliveFile(tmp_path / "card").read() == seconds(90)
