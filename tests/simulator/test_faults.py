"""The fault table: a short selection of it against the real daemon, and that it says so when something falls short."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import faults
from simulator.fault_bench import Bench
from simulator.fault_rows import ROWS, Row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon"
    ),
]
ROOT = Path(__file__).parents[2]


def test_the_short_selection_recovers_and_tells_its_gaps(tmp_path: Path) -> None:
    report = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "faults", "--quick", "--json", str(report)], cwd=ROOT, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["name"]: one for one in json.loads(report.read_text(encoding="utf-8"))}
    assert set(found) == {
        "adapter switched off, on again", "adapter pulled, back", "bluetoothd killed, back",
        "port unplugged in mid-line, back", "port held by another program, let go",
    }  # fmt: skip
    for one in found.values():
        assert one["why"] == ""
        assert one["gap"] == "covers"
        assert one["lost"] >= 2
        assert one["shown_s"] is not None
        assert one["code"] in done.stdout


async def _pull(world: Bench) -> None:
    world.bluez.remove_adapter()


async def _leave_it(_world: Bench) -> None:
    return


async def _a_deafness_that_nobody_can_know_of(world: Bench) -> None:
    world.bluez.wedge()
    await asyncio.sleep(1.0)
    world.bluez.wedge(deaf=False)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            Row("never mended, named wrongly", "air", "GW-BLE-04", _pull, _leave_it, limit_s=1.0),
            "GW-BLE-04 was not shown; not heard again within 1 s; a lost press that no gap covers; not well again",
        ),
        (
            Row("not told", "air", "", _leave_it, _a_deafness_that_nobody_can_know_of),
            "a lost press that no gap covers",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Row) else "",
)
async def test_what_falls_short_is_said(row: Row, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_WELL_AGAIN_S", 1.0)
    monkeypatch.setattr(faults, "_SETTLE_S", 1.0)
    monkeypatch.setattr(faults, "SILENCE_S", 1)
    (found,) = await faults.measure([row])
    assert why in found.why
    assert found.name in faults.table([found])
    assert why in faults.table([found])


def test_every_row_has_a_name_of_its_own_and_each_link_has_rows() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.link for row in ROWS} == {"air", "wire", "net"}
    assert {row.code for row in ROWS} >= {f"GW-BLE-0{n}" for n in range(1, 9)} | {
        f"GW-SER-0{n}" for n in (1, 3, 4, 6, 8)
    }
