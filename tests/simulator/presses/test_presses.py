"""Some hundred presses through the real daemon and its bleak, while the radio breaks: each is one alarm, or inside a gap."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.presses.house import MAX_DEVICES, PROTOCOLS, furnish

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon")
def test_some_hundred_presses_are_one_alarm_each_while_the_radio_breaks(tmp_path: Path) -> None:
    report = tmp_path / "presses.json"
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "presses", "--count", "500", "--devices", "200", "--seed", "5", "--pause", "2",
         "--report", str(report)], cwd=ROOT, timeout=300, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["presses"] == 500
    assert found["once"] + found["in_a_gap"] + found["by_echo"] + found["unheard"] >= 500
    assert found["once"] > 200
    assert found["reasons"] == []
    assert set(found["protocols"]) == {one.name for one in PROTOCOLS}
    assert any(name.startswith("dbus-daemon dies") for name in found["troubles"])
    assert "doubled 0" in done.stdout


def test_a_count_that_cannot_be_played_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "presses", "--count", "0"], cwd=ROOT, timeout=60, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == "simulator presses: --count: 1 to 1000000; --pause: 0 or more\n"
    assert list(tmp_path.iterdir()) == []


def test_a_house_has_every_protocol_and_addresses_of_its_own() -> None:
    house = furnish(5, seed=1)
    assert {one.protocol.name for one in house} == {one.name for one in PROTOCOLS}
    assert len({one.device.address for one in furnish(400, seed=1)}) == 400
    with pytest.raises(ValueError, match=f"from 1 to {MAX_DEVICES}"):
        furnish(0, seed=1)
