"""Every problem can be said in both languages, with a remedy, and every code that the program knows is declared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.problems import PROBLEMS, Description, Problem, describe, problem
from gateway.texts import placeholders, table

SOURCE = Path(__file__).parents[2] / "gateway"
CODE = re.compile(r"GW-[A-Z]{3}-\d\d")
PARTS = ("title", "meaning", "remedy")


def constants() -> Iterator[str]:
    for file in SOURCE.rglob("*.py"):
        if file.name == "problems.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_codes_that_were_promised_are_declared() -> None:
    """A code that was read out on the phone once is never taken away. From 10 on each room counts by itself."""
    promised = {
        "CFG": 46, "SER": 8, "DEV": 3, "BLE": 10, "NET": 6, "PLT": 3, "STO": 16, "SEC": 4, "CTL": 5, "RUN": 5, "PWR": 5,
        "CLK": 4, "ANN": 2, "VER": 6,
    }  # fmt: skip
    codes = {f"GW-{family}-{n:02d}" for family, last in promised.items() for n in range(1, last + 1)}
    codes |= {f"GW-NET-{n}" for n in range(10, 14)} | {f"GW-SEC-{n}" for n in range(10, 15)}
    codes |= {f"GW-DEV-{n}" for n in range(20, 23)} | {"GW-BLE-20"}
    assert codes - PROBLEMS.keys() == set()


def test_every_code_that_the_program_uses_is_declared() -> None:
    used = {code for text in constants() for code in CODE.findall(text) if text == code}
    assert used - PROBLEMS.keys() == set()
    assert len(used) > 60


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_problem_has_title_meaning_and_remedy(code: str, lang: str) -> None:
    for part in PARTS:
        assert table(lang)[f"problem.{code}.{part}"].strip()


@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_both_languages_of_a_problem_fill_in_the_same_values(code: str) -> None:
    for part in PARTS:
        key = f"problem.{code}.{part}"
        assert placeholders(table("zh")[key]) == placeholders(table("en")[key])


def test_no_text_stands_there_for_a_problem_that_is_not_declared() -> None:
    assert {key.split(".")[1] for key in table("zh") if key.startswith("problem.")} == set(PROBLEMS)


def test_a_problem_hides_behind_declared_problems_only_and_never_in_a_circle() -> None:
    def ancestors(code: str, seen: tuple[str, ...] = ()) -> set[str]:
        assert code not in seen, f"circle through {code}"
        parents = PROBLEMS[code].depends_on
        return set(parents).union(*(ancestors(parent, (*seen, code)) for parent in parents))

    for code in PROBLEMS:
        assert ancestors(code) <= PROBLEMS.keys()


def test_severities_are_the_three_that_people_know() -> None:
    assert {one.severity for one in PROBLEMS.values()} <= {"problem", "warning", "notice"}
    assert PROBLEMS["GW-BLE-06"].severity == "problem"
    assert PROBLEMS["GW-CFG-30"].severity == "warning"


def test_a_description_is_filled_with_what_is_known() -> None:
    facts = {"port": "/dev/ttyUSB0", "command": "minicom", "pid": 812}
    assert describe("GW-SER-03", "en", "radar", facts) == Description(
        "another program holds serial port radar: /dev/ttyUSB0 (minicom, process 812)",
        "Fall detectors and meters on this line are not heard; falls raise no alarm.",
        "systemctl status 812 tells which service it is; stop it: sudo systemctl disable --now SERVICE; if nobody is named, "
        "install psmisc and look: sudo fuser -v /dev/ttyUSB0",
    )
    assert describe("GW-SER-03", "zh", "radar", {"port": "/dev/ttyUSB0", "pid": None, "command": ""}) == Description(
        "串口 radar 被别的程序占用：/dev/ttyUSB0",
        "接在这条线上的跌倒探测器和表计都听不到，跌倒不会报警。",
        "停掉它：sudo systemctl disable --now 服务名；看不出是谁，装 psmisc 后 sudo fuser -v /dev/ttyUSB0",
    )


def test_what_a_library_said_is_shown_under_either_of_its_names() -> None:
    facts = {"host": "platform.example.org", "port": 8883, "error": "timed out"}
    title = "platform district cannot be reached: platform.example.org (timed out)"
    assert describe("GW-NET-02", "en", "district", facts).title == title
    assert describe("GW-NET-02", "en", "district", {**facts, "error": "", "detail": "timed out"}).title == title


def test_a_code_that_nobody_declared_counts_as_a_problem_and_is_shown_itself() -> None:
    assert problem("GW-XXX-99") == Problem("GW-XXX-99", "problem")
    assert describe("GW-XXX-99", "zh", "radar") == Description("GW-XXX-99 radar", "", "")


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("code", sorted(code for code in PROBLEMS if "-CFG-" not in code))
def test_a_problem_that_is_found_with_no_facts_still_reads_well(code: str, lang: str) -> None:
    described = describe(code, lang, "thing")
    assert "?" not in described.title
    assert "<<" not in "".join((described.title, described.meaning, described.remedy))
