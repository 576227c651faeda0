"""A device of every kind, each used once with the real daemon; what was recorded of it, heard again by another one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.kit import Answers, Decoded, Signal, Streams, catalogue
from simulator import every_device
from simulator.every_device import uses
from simulator.every_run import Told, table

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon")
def test_each_device_is_told_exactly_once_and_once_more_from_the_recording(tmp_path: Path) -> None:
    report = tmp_path / "every.json"
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "every-device", "--replay", "--report", str(report)], cwd=ROOT, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    for rows in (found["live"], found["replayed"]):
        assert {one["device"]: (one["times"], one["others"]) for one in rows} == {one.device: (1, 0) for one in uses()}
    proven = {one["device"]: one["verified"] for one in found["live"]}
    assert proven["bthome-button"] is proven["bthome-smoke"] is proven["espa-bed"] is True
    assert proven["bthome-button-plain"] is proven["esp3-rocker"] is proven["sonoff-remote"] is False


def test_every_model_of_the_catalogue_is_used_but_meters_and_what_a_broker_brings() -> None:
    left_out = set(catalogue.models()) - {one.model for one in uses()}
    for model in left_out:
        driver = catalogue.driver(model)
        said = [one.expect.observations for one in driver.vectors if isinstance(one.expect, Decoded)]
        is_meter = isinstance(driver, Answers) or not any(isinstance(one, Signal) for each in said for one in each)
        assert is_meter or (isinstance(driver, Streams) and driver.topics), model


def test_a_model_that_nobody_uses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every_device, "_PUBLISHED", every_device._PUBLISHED[:-1])
    with pytest.raises(LookupError, match="nobody uses teltonika-eye"):
        uses()


def test_what_was_told_twice_or_beside_it_stands_in_the_table() -> None:
    twice = Told("a", "m", "alarm.raised", "call", 2, 0, verified=True, took_s=0.5)
    beside = Told("b", "m", "sensor.changed", "opening", 1, 3, verified=None, took_s=None)
    assert not twice.is_right
    assert not beside.is_right
    rows = table([twice, beside], [twice]).splitlines()
    assert rows[1].split() == ["a", "m", "alarm.raised", "call", "2", "yes", "0.50", "2"]
    assert rows[2].split() == ["b", "m", "sensor.changed", "opening", "1!", "-", "-", "-"]
