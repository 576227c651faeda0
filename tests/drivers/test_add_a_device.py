"""The steps of docs/add-a-device.md are run as they stand there, in a copy of the drivers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "add-a-device.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of the guide, without the indentation of their list item."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return ["\n".join(line.strip() for line in block.splitlines()) for block in found]


def test_the_steps_of_the_guide_give_a_device_that_passes(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "drivers", tmp_path / "drivers", ignore=ignored)
    (tmp_path / "tests" / "drivers").mkdir(parents=True)
    for one in ((ROOT / "tests" / "drivers" / "test_every_driver.py"), *(ROOT / "tests" / "drivers").glob("fuzz*.py")):
        shutil.copy(one, tmp_path / "tests" / "drivers" / one.name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    # In front of the installed packages: the copy is what the steps must use.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    said = ""
    for step in (line for block in blocks("sh") for line in block.splitlines()):
        command = shlex.split(step.replace("--cases 1000000", "--cases 100"))
        while "=" in command[0]:  # PYTHONPATH=. stands before a command, as for a shell
            name, _, value = command.pop(0).partition("=")
            assert (name, value) == ("PYTHONPATH", ".")  # which is what `environment` has
        if command[0] == "python":
            command[0] = sys.executable
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    assert (tmp_path / "drivers" / "devices" / "acme_radar.py").exists()
    assert re.search(r"\b9 passed", said), said
    assert "acme_radar: 100 cases, 0 crashes" in said


def test_the_device_of_the_guide_is_the_one_that_was_copied() -> None:
    (example,) = blocks("toml")
    (device,) = tomllib.loads(example)["device"]
    assert device["model"] == "acme-radar"
