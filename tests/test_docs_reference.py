"""The reference is what the program says of itself: fresh, whole, in both languages, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from drivers.kit import catalogue
from gateway.problems import PROBLEMS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
PAGES = ("commands.md", "configuration.md", "devices.md", "problems.md")


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator, writing into a folder of its own."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "config").mkdir()
    return module


def page(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_the_reference_in_the_repository_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "run: make reference"


def test_a_stale_page_is_named_and_written_again(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reference.py"])
    assert reference.main() == 0
    capsys.readouterr()
    stale = tmp_path / "docs" / "reference" / "problems.md"
    stale.write_text("old")
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    assert reference.main() == 1
    assert capsys.readouterr().out == "stale: docs/reference/problems.md\n"
    assert stale.read_text() == "old"
    monkeypatch.setattr(sys, "argv", ["reference.py"])
    assert reference.main() == 0
    assert capsys.readouterr().out == "written: docs/reference/problems.md\n"
    assert stale.read_text(encoding="utf-8") == page("problems.md")


def test_every_problem_has_its_section_in_both_languages() -> None:
    text = page("problems.md")
    assert sorted(re.findall(r"^### (GW-\S+)$", text, re.MULTILINE)) == sorted(PROBLEMS)
    for code in PROBLEMS:
        section = text.partition(f"### {code}\n")[2].partition("\n#")[0]
        parts = re.findall(r"^(影响：|办法：|means: |remedy: )", section, re.MULTILINE)
        assert parts == ["影响：", "办法：", "means: ", "remedy: "], code


def test_every_device_has_its_section_with_its_docstring_and_options() -> None:
    text = page("devices.md")
    for model in catalogue.models():
        section = text.partition(f"## {model}\n")[2].partition("\n## ")[0]
        assert catalogue.driver(model).title.zh in section
        assert "```text" in section
    assert "| `signal[].is` | call, fall, cancel" in text
    assert "| `registers` |" in text


def test_what_comes_over_mqtt_is_not_described_as_a_line() -> None:
    for model in ("mqtt-topic", "zigbee2mqtt"):
        section = page("devices.md").partition(f"\n## {model}\n")[2].partition("\n## ")[0]
        assert "| 接法 link | MQTT `[[mqtt]]`" in section
        assert "| 地址 `address` | 它的 MQTT 主题<br>its MQTT topic |" in section
        assert "8N1" not in section
        assert "on one line" not in section


def test_every_family_of_problems_has_a_name_in_both_languages() -> None:
    headings = re.findall(r"^## (\w+) · (.*) · (.*)$", page("problems.md"), re.MULTILINE)
    assert {code for code, _, _ in headings} == {name.split("-")[1] for name in PROBLEMS}
    assert [code for code, zh, en in headings if code in (zh, en)] == []


def test_every_command_has_its_section() -> None:
    headings = re.findall(r"^## (gateway .*)$", page("commands.md"), re.MULTILINE)
    assert {"gateway run", "gateway status", "gateway config check", "gateway config schema", "gateway alarm ack"} <= {
        *headings
    }
    assert "gateway alarm close ID --by BY --why WHY" in page("commands.md")


def test_every_table_of_the_configuration_has_its_section() -> None:
    headings = re.findall(r"^## `(.*)`$", page("configuration.md"), re.MULTILINE)
    assert headings == [
        "[gateway]", "[outbox]", "[[room]]", "[[ble]]", "[[receiver]]", "[[serial]]", "[[mqtt]]", "[[device]]", "[[destination]]",
        "[[destination.path]]",
    ]  # fmt: skip
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", page("configuration.md"), re.MULTILINE))
    assert rows["mqtt_version"].startswith('文字 text | `"auto"` | "auto"、"5" 或 "3.1.1"')
    assert rows["url"].startswith("文字 text | 必填 required | mqtts://")


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_whole_and_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```", "", page(name), flags=re.DOTALL)
    width = 0
    for line in text.splitlines():
        width = 0 if not line.startswith("|") else width or line.count("|")
        assert line.count("|") == width or not line.startswith("|"), line
    anchors = {heading.lower() for heading in re.findall(r"^## (\S+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target[1:] in anchors if target.startswith("#") else (FOLDER / target).exists(), target
    assert not re.search(r"<<|>>|\{[a-z_]+\}|@[a-z]+\.", text.replace("{zh,en}", ""))
