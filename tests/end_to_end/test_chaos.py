"""A few seeds of chaos over the real gateway: three short ones here; two hundred of thirty seconds are run by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulator.chaos import disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon"
    ),
]

ROOT = Path(__file__).parents[2]


def chaos(file: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run it; return its exit status, what it said, and its report."""
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "chaos", "--report", str(file), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, json.loads(file.read_text()) if file.exists() else {}


@pytest.mark.parametrize("seed", [4, 15, 21])
def test_a_seed_of_chaos_leaves_a_clean_ledger(tmp_path: Path, seed: int) -> None:
    status, said, report = chaos(tmp_path / "report.json", "--seconds", "15", "--seed", str(seed))
    assert (status, report.get("reasons")) == (0, []), said
    assert (report["lost"], report["duplicated"], report["reordered"], report["pending"]) == (0, 0, 0, 0)
    begun = [fault["fault"] for fault in report["faults"] if fault["fault"].startswith("begin ")]
    assert sorted(begun) == sorted(f"begin {one['fault']}" for one in report["schedule"])
    assert len(begun) >= 3


@pytest.mark.skipif(bool(disk.missing()), reason=f"no disk to be had: {disk.missing()}")
def test_a_disk_that_gives_up_soon_after_another_trouble_of_it_is_shown_and_costs_nothing(tmp_path: Path) -> None:
    """The problem of the first is still on when the second begins; between them nobody writes anything."""
    schedule = [
        {"number": 1, "at_s": 4.0, "for_s": 2.0, "fault": "start-read-only", "on": "", "facts": {}},
        {"number": 2, "at_s": 6.7, "for_s": 3.5, "fault": "disk-read-only", "on": "", "facts": {}},
    ]
    (tmp_path / "schedule.json").write_text(json.dumps(schedule))
    arguments = ("--seconds", "15", "--seed", "524", "--schedule", str(tmp_path / "schedule.json"))
    status, said, report = chaos(tmp_path / "report.json", *arguments)
    assert (status, report.get("reasons")) == (0, []), said


def test_a_gateway_that_loses_its_database_behind_our_back_is_not_clean_and_its_run_can_be_played_again(
    tmp_path: Path,
) -> None:
    """The harness bites: a database is thrown away while the gateway is dead, and nobody announces it."""
    schedule = [{"number": 3, "at_s": 5.0, "for_s": 0.0, "fault": "lose-database", "on": "", "facts": {}}]
    (tmp_path / "schedule.json").write_text(json.dumps(schedule))
    file = tmp_path / "report.json"
    arguments = ("--seconds", "15", "--seed", "4", "--schedule", str(tmp_path / "schedule.json"))
    status, said, report = chaos(file, *arguments)
    assert status == 1, said
    assert "2 streams: the database was replaced during the run" in report["reasons"]
    assert f"Again: python -m simulator chaos --seconds 15 --seed 4 --schedule {file}" in said
    assert f"--schedule {file} --only 3" in said


def test_what_cannot_be_played_is_said_and_stands_in_the_report(tmp_path: Path) -> None:
    status, said, _ = chaos(tmp_path / "report.json", "--seconds", "15", "--seed", "4", "--only", "77")
    assert status == 3
    assert "there is no 77" in said
