"""One owner of the data directory, and an end that nothing can hold up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import GatewayError, StoreError
from gateway.lifetime import sole_owner


def test_the_data_directory_has_one_owner(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    with sole_owner(data), pytest.raises(GatewayError) as refusal, sole_owner(data):
        pass
    assert refusal.value.code == "GW-RUN-01"
    with sole_owner(data):
        pass


def test_the_owner_s_death_gives_the_directory_back(tmp_path: Path) -> None:
    hold = "import sys; from pathlib import Path; from gateway.lifetime import sole_owner\n"
    hold += "with sole_owner(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(GatewayError), sole_owner(tmp_path):
            pass
        owner.kill()
        owner.wait(timeout=30)
        with sole_owner(tmp_path):
            pass


def test_a_data_directory_that_is_not_there_keeps_nobody_from_running_and_is_held_when_it_comes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    data = tmp_path / "file" / "data"
    with sole_owner(data) as owner:
        with pytest.raises(StoreError) as refusal:
            owner.hold()
        assert (refusal.value.code, refusal.value.facts["detail"]) == ("GW-STO-01", "Not a directory")
        (tmp_path / "file").unlink()
        owner.hold()
        with pytest.raises(StoreError) as held, sole_owner(data):
            pass
        assert held.value.code == "GW-RUN-01"


def test_whoever_was_quicker_to_find_it_again_keeps_it(tmp_path: Path) -> None:
    """Two that began while nothing could be held must not both open the database."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    data = tmp_path / "file" / "data"
    with sole_owner(data) as one, sole_owner(data) as other:
        (tmp_path / "file").unlink()
        other.hold()
        with pytest.raises(StoreError) as held:
            one.hold()
    assert held.value.code == "GW-RUN-01"


def test_where_no_file_can_be_made_the_directory_itself_has_one_owner(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # nobody, not even root, can open it as a lock
    (tmp_path / "lock").chmod(0)
    with sole_owner(tmp_path), pytest.raises(GatewayError) as refusal, sole_owner(tmp_path):
        pass
    assert refusal.value.code == "GW-RUN-01"


def test_a_process_that_cannot_end_is_ended() -> None:
    """Here a thread that nobody can cancel, as one that hangs in a disk's write."""
    hang = "import threading; from gateway.lifetime import end_after\n"
    hang += "end_after(0.05).start(); threading.Event().wait()"
    done = subprocess.run([sys.executable, "-c", hang], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "took too long" in done.stdout + done.stderr
