"""The whole road: real processes, a real broker, a real D-Bus, a pty, faults, and a ledger without a stain."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon"
    ),
]

DEMO = [sys.executable, "-m", "simulator", "demo"]
ROOT = Path(__file__).parents[2]


def demo(
    *arguments: str, timeout: float = 120.0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def processes_of(run: str) -> dict[int, str]:
    """Command lines, by id, of the processes that have the run directory among their arguments."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if run in line:
            found[int(path.parent.name)] = line
    return found


def run_of(output: str) -> str:
    match = re.search(r"run directory (\S+)", output)
    assert match, output
    return match[1]


def marks(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "faults.jsonl").read_text().splitlines()]


def audit(run: Path) -> tuple[int, bool]:
    """Exit status of a second audit, and whether it calls the run clean."""
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "audit", str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, "Clean: nothing lost" in done.stdout


def test_a_cut_and_a_kill_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = demo("--seconds", "20", "--seed", "7", "--report", str(file), "--keep")
    output = done.stdout + done.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    assert done.returncode == 0, f"{output}\n{json.dumps(report['offences'], indent=1)}"
    assert report["reasons"] == []
    offences = ("lost", "duplicated", "reordered", "pending", "phantom", "wrong_values", "sequence_gaps")
    assert {name: report[name] for name in offences} == dict.fromkeys(offences, 0)
    assert (report["seed"], report["seconds"]) == (7, 20.0)
    # What the score of this seed holds, less what was unheard; the kill is felt on every link.
    assert report["emitted"] >= 10
    assert report["stored"] == report["accepted"] > report["emitted"]
    assert report["alarms"]["accepted"] == report["alarms"]["raised"]
    assert report["alarms"]["accepted"] + report["unheard"] == report["alarms"]["pressed"]
    assert 0 < report["alarms"]["latency_ms"]["p50"] <= report["alarms"]["latency_ms"]["max"]
    faults = [fault["fault"] for fault in report["faults"]]
    assert (faults.count("cut"), faults.count("heal"), faults.count("kill"), faults.count("start")) == (2, 2, 1, 1)
    # Each platform has taken what it asked for: the district everything, the families' one no meter and no bed.
    district, family = report["destinations"]["district"], report["destinations"]["family"]
    assert district["accepted"] == report["stored"]
    meters = [row for row in report["devices"].values() if row["role"] == "meter"]
    assert len(meters) == 2
    taken = [
        json.loads(line) for line in (Path(run_of(done.stdout)) / "platform-district.jsonl").read_text().splitlines()
    ]
    nouns = Counter(row["type"].removeprefix("cn.eldercare.") for row in taken if row["status"] == "accepted")
    assert nouns["telemetry.meter.v1"] == sum(row["readings"] for row in meters)
    assert family["accepted"] == district["accepted"] - nouns["telemetry.meter.v1"] - nouns["bed.occupancy.v1"]
    assert district["alarms"] == family["alarms"] == report["alarms"]["accepted"]
    assert district["resent"] > 0
    assert family["resent"] > 0
    # The answers of the last second before each cut were lost: what they answered came again and was not taken twice.
    assert report["resent"] == district["resent"] + family["resent"]
    assert {gap["link"] for gap in report["gaps"] if gap["reason"] == "restart"} == {
        "air",
        "bus-1",
        "radar-1",
        "wire-1",
    }
    assert report["devices"]["meter-main"]["readings"] >= 3
    assert all(
        row["emitted"]
        for row in report["devices"].values()
        if row["role"] in ("button", "pendant", "radar", "controller")
    )
    # One line each 2 s, no colour, and the verdict; no process is left behind.
    assert "\x1b" not in output
    assert "Clean: nothing lost" in done.stdout
    run = Path(run_of(done.stdout))
    assert processes_of(str(run)) == {}
    # From when the devices stop, 2 s before the end, the rest is through and asked for in time.
    (stopped,) = [fault["t"] for fault in marks(run) if fault["fault"] == "stop"]
    assert (run / "gateway.json").stat().st_mtime - stopped < 22
    # The same audit finds what is wrong when one acceptance is taken away, or one stands twice.
    ledger = run / "platform-district.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    alarm = next(line for line in lines if '"alarm.raised' in line.replace("cn.eldercare.", "") and "accepted" in line)
    assert audit(run) == (0, True)
    ledger.write_text("".join(line for line in lines if line != alarm))
    assert audit(run) == (1, False)
    ledger.write_text("".join([*lines, alarm]))
    assert audit(run) == (1, False)
    shutil.rmtree(run)


def test_ctrl_c_ends_an_endless_run_with_its_ledger(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with subprocess.Popen(
        [*DEMO, "--seed", "4", "--report", str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as ours:
        assert ours.stdout is not None
        lines = []
        for line in ours.stdout:
            lines.append(line)
            match = re.match(r" +([0-9.]+) s  gateway up", line)
            if match and float(match[1]) > 8:
                break
        ours.send_signal(signal.SIGINT)
        lines.append(ours.stdout.read())
        status = ours.wait(timeout=60)
    output = "".join(lines)
    assert status == 0, output
    report = json.loads(file.read_text())
    assert (report["seconds"], report["reasons"]) == (None, [])
    assert [fault["fault"] for fault in report["faults"]][-2:] == ["interrupt", "stop"]
    assert processes_of(run_of(output)) == {}
    assert not Path(run_of(output)).exists()


def test_killing_the_demo_leaves_no_process_of_the_run_behind() -> None:
    with subprocess.Popen(
        [*DEMO, "--seed", "4"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as ours:
        assert ours.stdout is not None
        run = run_of(ours.stdout.readline())
        assert "gateway up" in next(line for line in ours.stdout if " s  gateway" in line)
        assert processes_of(run)
        ours.kill()
        ours.wait()
    deadline = time.monotonic() + 30
    while processes_of(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = processes_of(run)
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    shutil.rmtree(run, ignore_errors=True)
    assert left == {}


def test_on_a_terminal_the_view_is_drawn_in_place_and_in_colour() -> None:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*DEMO, "--seed", "4"],
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, "TERM": "xterm"},
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as ours:
        os.close(slave)
        seen = b""
        deadline = time.monotonic() + 30
        while b"pid " not in seen and time.monotonic() < deadline:
            seen += os.read(master, 65536)
        # Twice: at once, without waiting for anything to drain.
        ours.send_signal(signal.SIGINT)
        time.sleep(0.2)
        ours.send_signal(signal.SIGINT)
        while True:
            try:
                seen += os.read(master, 65536)
            except OSError:  # the last holder of the terminal is gone
                break
        ours.wait(timeout=30)
    os.close(master)
    run = run_of(seen.decode(errors="replace"))
    shutil.rmtree(run, ignore_errors=True)
    assert b"\x1b[H" in seen
    assert b"\x1b[32m" in seen
    assert processes_of(run) == {}


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = demo("--seconds", "20", "--report", str(file), env={"PATH": str(tmp_path)}, timeout=30)
    assert done.returncode == 3
    assert not file.exists()
    assert "apt-get install dbus-daemon" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--seconds", "5"), 3, "from 10 to 86400"),
        (("--scenario", "nowhere"), 3, "small_centre"),
        (("--seconds", "soon"), 2, "invalid float value"),
        (("--seconds", "20", "--report", "/nowhere/at/all/report.json"), 3, "/nowhere/at/all/report.json"),
    ],
)
def test_bad_arguments_are_answered_in_one_message(arguments: tuple[str, ...], status: int, words: str) -> None:
    done = demo(*arguments, timeout=30)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
