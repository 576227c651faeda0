"""A short storm of kills over the real gateway and a real platform; a thousand of them are run by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon"
    ),
]

ROOT = Path(__file__).parents[2]


def test_ten_kills_under_load_lose_nothing_double_nothing_and_leave_no_silent_gap(tmp_path: Path) -> None:
    file = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "kills", "--count", "10", "--seed", "3", "--report", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert (report["kills"], report["seed"], report["clean"], report["reasons"]) == (10, 3, True, [])
    assert (report["lost"], report["duplicated"], report["reordered"], report["pending"]) == (0, 0, 0, 0)
    assert (report["silent_gaps"], report["wide_gaps"], report["acked_early"]) == (0, 0, 0)
    assert report["acknowledged_inputs"] > 500
    assert report["unheard"] > 0  # presses in dead times: each inside a gap that the platform was told
    assert report["resent_after_a_kill"]["max"] <= report["resent_after_a_kill"]["limit"] == 290
