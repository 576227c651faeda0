"""docs/delivery-rules.md says which tests hold which of the twenty delivery rules: each names modules and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "delivery-rules.md"


def rows(lang: str) -> list[list[str]]:
    zh, _, en = PAGE.read_text(encoding="utf-8").partition("\n## English\n")
    lines = (zh if lang == "zh" else en).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def names_of_tests() -> set[str]:
    found: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE))
    return found


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_rule_has_its_row_with_modules_and_tests_that_exist(lang: str) -> None:
    known = names_of_tests()
    assert [row[0] for row in rows(lang)] == [str(n) for n in range(1, 21)]
    for number, rule, modules, held_by, missing in rows(lang):
        assert rule, number
        assert missing, number
        assert quoted(modules), number
        assert [one for one in quoted(modules) if not (ROOT / "gateway" / one).is_file()] == [], number
        assert quoted(held_by), number
        assert [one for one in quoted(held_by) if one not in known] == [], number


def test_both_languages_say_the_same() -> None:
    seen = {lang: [(row[0], row[2], row[3], row[4] == "—") for row in rows(lang)] for lang in ("zh", "en")}
    assert seen["zh"] == seen["en"]
