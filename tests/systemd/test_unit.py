"""The unit as a file: systemd reads it without a word, and its hardening has not been loosened."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.app.daemon import END_LIMIT_S
from gateway.config.secret import PREFIX, STORE

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "daycare-gateway.service"
DOCUMENT = ROOT / "docs" / "install.md"


class Settings(configparser.RawConfigParser):
    """A unit: keys as they are written, each once but for those that are lists."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def service() -> configparser.SectionProxy:
    settings = Settings(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    settings.read(UNIT, encoding="utf-8")
    return settings["Service"]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_systemd_reads_the_unit_without_a_word(tmp_path: Path) -> None:
    # The program is not installed here; everything else is checked as it stands.
    text = UNIT.read_text(encoding="utf-8").replace("/opt/daycare-gateway/bin/python", "/bin/true")
    assert text.count("/bin/true") == 1
    (tmp_path / UNIT.name).write_text(text, encoding="utf-8")
    done = analyze("verify", str(tmp_path / UNIT.name))
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


def test_the_exposure_is_at_most_1_8() -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for daycare-gateway.service: (\d+\.\d)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.8


def test_the_times_of_the_unit_leave_room_for_those_of_the_program() -> None:
    unit = service()
    assert float(unit["TimeoutStopSec"]) > END_LIMIT_S + 2
    assert float(unit["WatchdogSec"]) >= 4  # a sign of life each second
    assert float(unit["RestartSec"]) <= 1


def test_the_secrets_have_the_names_that_the_configuration_looks_for() -> None:
    unit = service()
    assert unit["LoadCredential"].split(":")[0] == PREFIX.removesuffix("_")
    assert unit["SetCredential"].split(":")[0] == PREFIX.removesuffix("_")
    assert f"cd {STORE} " in unit["ExecCondition"]


def test_each_file_of_the_service_is_installed_by_the_document_and_removed_by_it() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    files = sorted((ROOT / "systemd").iterdir())
    assert len(files) == 4
    for file in files:
        found = re.search(rf"^sudo install -D -m 644 systemd/{file.name} (/etc/\S+)$", text, re.MULTILINE)
        assert found, file.name
        removal = text.partition("```sh removal")[2]
        assert found[1] in removal


def test_the_rules_use_only_what_udev_knows() -> None:
    """Where no udev can be asked: the keys of udev(7) that match or assign, and one value each."""
    known = re.compile(r'(ACTION|SUBSYSTEMS?|DRIVERS?|ATTRS?\{[\w/.]+\}|ENV\{\w+\}|SYMLINK)(==|!=|=|\+=)"[^"]+"')
    rules = [
        line.removeprefix("#")
        for line in (ROOT / "systemd" / "60-daycare-gateway.rules").read_text(encoding="utf-8").splitlines()
        if line.startswith(("ACTION", "SUBSYSTEM", "#SUBSYSTEM"))
    ]
    assert len(rules) == 5
    assert [part for rule in rules for part in rule.split(", ") if not known.fullmatch(part)] == []
