"""Finding the line of a key, also where TOML is written in its odder ways; and that no text makes loading fail badly."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import Settings
from gateway.config.positions import line_of, positions
from gateway.errors import Finding
from gateway.problems import describe

Check = Callable[[str], tuple[Settings | None, tuple[Finding, ...]]]

ODD = '''\
# [not.a.table]
[gateway]
id = "a"   # x = 1
org_path = [
  "a", # ]
  "b = 3",
]
text = """
x = 1
[no]
"""
literal = \'\'\'
[[no]]\'\'\'

  [[room]]
id="1"\r
[[ room ]]
  id = "2"
[[destination]]
  [[destination.path]]
  url = "a"
[[destination]]
[[destination.path]]
url = "b"
[[destination.path]]
url = { a = 1, b = [1,
2] }
"q.x".y = 1
last.of.all = 1
'''


def test_each_key_has_its_line() -> None:
    assert tomllib.loads(ODD)["destination"][1]["path"][1]["last"] == {"of": {"all": 1}}
    assert dict(positions(ODD)) == {
        ("gateway",): 2,
        ("gateway", "id"): 3,
        ("gateway", "org_path"): 4,
        ("gateway", "text"): 8,
        ("gateway", "literal"): 12,
        ("room",): 15,
        ("room", 0): 15,
        ("room", 0, "id"): 16,
        ("room", 1): 17,
        ("room", 1, "id"): 18,
        ("destination",): 19,
        ("destination", 0): 19,
        ("destination", 0, "path"): 20,
        ("destination", 0, "path", 0): 20,
        ("destination", 0, "path", 0, "url"): 21,
        ("destination", 1): 22,
        ("destination", 1, "path"): 23,
        ("destination", 1, "path", 0): 23,
        ("destination", 1, "path", 0, "url"): 24,
        ("destination", 1, "path", 1): 25,
        ("destination", 1, "path", 1, "url"): 26,
        ("destination", 1, "path", 1, "q.x"): 28,
        ("destination", 1, "path", 1, "q.x", "y"): 28,
        ("destination", 1, "path", 1, "last"): 29,
        ("destination", 1, "path", 1, "last", "of"): 29,
        ("destination", 1, "path", 1, "last", "of", "all"): 29,
    }


def test_a_key_without_a_line_has_that_of_what_is_around_it() -> None:
    lines = positions("[a]\nb = { c = [1, 2] }\n")
    assert line_of(lines, ("a", "b", "c", 1)) == 2
    assert line_of(lines, ("a", "missing")) == 1
    assert line_of(lines, ("missing",)) is None


_WORDS = st.sampled_from(
    ["id", "gateway", "room", "device", "destination", "path", "serial", "ble", "outbox", "map", "link", "model", "url",
     "beacon", "radar", "meter", "mqtts://x", "a", "", "key", "password", "types", "alarm.*", "self", "kind", "\u0000", "é"]
)  # fmt: skip
_VALUES = st.recursive(
    st.one_of(_WORDS, st.integers(), st.booleans(), st.floats(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=5)),
    max_leaves=25,
)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() or c in ":/.*-" else f"\\u{ord(c):04x}" for c in value) + '"'
    return "1979-05-27" if value is None else str(value)


@pytest.mark.parametrize("wrap", ["{}", "[[device]]\nid = 'x'\nmodel = 'meter'\nlink = 'b'\nmap = {}"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(_WORDS, _VALUES, max_size=8))
def test_no_toml_makes_loading_raise_and_each_finding_can_be_said(
    check: Check, wrap: str, value: dict[str, Any]
) -> None:
    if wrap == "{}":
        text = "\n".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items())
    else:
        text = wrap.format(_toml(value))
    _, findings = check(text)
    assert findings
    for finding in findings:
        for lang in ("zh", "en"):
            described = describe(finding.code, lang, finding.where, finding.facts)
            assert "?" not in described.title.replace("JSON?", "")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="[]=\"'#{}.,\n\\ ab1\u4e00", max_size=60))
def test_no_text_makes_loading_raise(check: Check, text: str) -> None:
    _, findings = check(text)
    assert findings


def test_the_index_of_lines_is_quick_for_a_large_file(tmp_path: Path) -> None:
    text = "".join(f'[[room]]\nid = "r{n}"\nbeds = ["1", "2"]  # comment\n' for n in range(20_000))
    assert positions(text)["room", 19_999, "beds"] == 60_000
