"""docs/bad-input.md says what the tests here have seen: each row names its test, and the test has its codes and its words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gateway.problems import PROBLEMS

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "bad-input.md"
WELL = {"zh": "一切正常", "en": "All is well"}


def rows(lang: str) -> list[list[str]]:
    zh, _, en = PAGE.read_text(encoding="utf-8").partition("\n## English\n")
    lines = (zh if lang == "zh" else en).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]


def sources() -> dict[str, str]:
    """Return for each test what can be read in it: its own text, or that of its module where it has cases or a helper."""
    found: dict[str, str] = {}
    for file in HERE.rglob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body if file != Path(__file__) else ():
            if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
                alone = ast.get_source_segment(text, node) or ""
                found[node.name] = text if node.decorator_list or "cannot_store(" in alone else alone
    return found


def codes(cells: str) -> list[str]:
    return re.findall(r"GW-[A-Z]{3}-\d\d", cells)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_each_row_is_what_its_test_has_seen(lang: str) -> None:
    known = sources()
    for cause, logged, first, status, _goes_on, test in rows(lang):
        source = known[test.strip("`")]
        assert set(codes(logged + first)) <= PROBLEMS.keys(), cause
        assert all(code in source for code in codes(logged + first)), cause
        if first == WELL[lang]:
            assert 'told.document["first"], told.bad) == (0, None, [])' in source
            assert status == "0"
            continue
        # Without the code in front and what is said in brackets behind.
        words = re.sub(r"^`GW-[A-Z]{3}-\d\d` |（[^）]*）$| \([^)]*\)$", "", first)
        assert words in source, cause
        assert f"status={status}" in source, cause


def test_both_languages_have_the_same_rows() -> None:
    seen = {lang: [(codes(row[1] + row[2]), row[3], row[5]) for row in rows(lang)] for lang in ("zh", "en")}
    assert seen["zh"] == seen["en"]
    assert len(seen["zh"]) == 30


def test_every_test_has_a_row() -> None:
    assert {row[5].strip("`") for row in rows("zh")} == set(sources())
