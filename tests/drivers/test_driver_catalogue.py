"""Drivers are found by file name, and only the one that is asked for is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drivers.kit.catalogue import UnknownModel, driver, models, templates


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> str:
    name = f"devices_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    for file, content in {"__init__": "", **files}.items():
        (folder / f"{file}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_models_are_the_files_that_are_no_templates() -> None:
    assert {"bthome-button", "dlt645-2007", "ingics-ibs", "json-lines"} <= set(models())
    assert list(models()) == sorted(models())
    assert templates() == ("_advertises", "_answers", "_streams")


def test_a_model_gives_its_driver() -> None:
    assert driver("dlt645-2007").title.zh == "DL/T 645-2007 电能表"


def test_an_unknown_model_is_named_with_those_spelled_nearly_so() -> None:
    with pytest.raises(UnknownModel) as caught:
        driver("bthome-buton")
    assert caught.value.close[0] == "bthome-button"
    assert (
        str(caught.value)
        == "no driver for model 'bthome-buton', did you mean bthome-button or bthome-detector or bthome-sensor?"
    )
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("model", ["", "xyzzy", "_streams", "../etc", "bthome_button", "bthome-button.x"])
def test_a_model_that_is_no_file_name_is_unknown(model: str) -> None:
    with pytest.raises(UnknownModel):
        driver(model)


def test_one_model_does_not_load_the_others() -> None:
    script = (
        "import sys; from drivers.kit.catalogue import driver, models; models(); driver('json-lines');"
        "print(*sorted(name for name in sys.modules if name.startswith(('drivers.devices.', 'cryptography'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["drivers.devices.json_lines"]


def test_a_file_without_a_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(tmp_path, monkeypatch, empty_file="")
    with pytest.raises(TypeError, match=r"empty_file: DRIVER must be one of"):
        driver("empty-file", name)


def test_a_driver_that_calls_itself_otherwise_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(tmp_path, monkeypatch, other_name="from drivers.devices._streams import DRIVER")
    with pytest.raises(TypeError, match=r"DRIVER.model is 'my-radar', the file says 'other-name'"):
        driver("other-name", name)
