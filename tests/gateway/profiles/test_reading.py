"""A profile from its file: every fault told with its key, all at once, never a traceback."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.errors import ProfileError
from gateway.profiles.reading import MAX_BYTES, parse_profile, read_profile, schema
from gateway.texts import table

KNOWN = (
    "name, transport, level, parameters, id, utc_offset_hours, limits, client_id, probe, enum, message, batch, answer"
)
GOOD = """\
name = "own"
transport = "http"
level = "L2"
[[message]]
types = ["*"]
to = "/in/{gateway.id}"
body = { id = "{id}", kind = "{data.kind?|enum:kinds}" }
[enum.kinds]
call = 1
default = 0
[answer]
code = "code"
ok = [0]
"""


def faults(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text)
    return [(one.at, one.reason.removeprefix("@hint."), one.detail) for one in caught.value.faults]


def test_a_good_one_is_read() -> None:
    profile = parse_profile(GOOD)
    assert (profile.name, profile.level, profile.max_events, profile.lacks) == (
        "own", "L2", 1, ("batch", "birth", "state"),
    )  # fmt: skip


def test_one_without_answers_proves_that_it_was_delivered_and_no_more() -> None:
    text = GOOD.partition("[answer]")[0].replace('"L2"', '"L1"')
    assert parse_profile(text).lacks == ("batch", "ack", "birth", "state")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('name = "own"\n', "", ("name", "profile-missing", "")),
        ('name = "own"', 'name = "Own"', ("name", "profile-pattern", "^[a-z0-9-]{1,64}$")),
        ('name = "own"', "name = 5", ("name", "profile-type", "string")),
        ('"http"', '"coap"', ("transport", "profile-one-of", "http | mqtt")),
        ("level", "color = 1\nlevel", ("color", "profile-unknown",
            KNOWN)),
        ("level", "limits.events = 0\nlevel", ("limits.events", "profile-range", "1-100")),
        ("level", "limits.events = true\nlevel", ("limits.events", "profile-type", "integer")),
        ('types = ["*"]', "types = []", ("message[1].types", "profile-range", "1-None")),
        ('types = ["*"]', 'types = ["alarm.*"]', ("message[1].types", "profile-last", "")),
        ('types = ["*"]', 'types = ["*", "Alarm"]',
            ("message[1].types[2]", "profile-pattern", r"^(\*|[a-z]+\.(\*|[a-z]+))$")),
        ('"/in/{gateway.id}"', '"in"', ("message[1].to", "profile-pattern", "^/")),
        ("{id}", "{ident}", ("message[1].body", "profile-placeholder", "{ident}")),
        ("{id}", "{id", ("message[1].body", "profile-placeholder", "{id")),
        ("{id}", "{events}", ("message[1].body", "profile-placeholder", "{events}")),
        ("{id}", "{id|shout}", ("message[1].body", "profile-placeholder", "|shout")),
        ("{id}", "{id|ms:x}", ("message[1].body", "profile-placeholder", "|ms:x")),
        ("{id}", "{parameter.key}", ("message[1].body", "profile-parameter", "parameter.key")),
        ("enum:kinds", "enum:kind", ("message[1].body", "profile-no-table", "kind")),
        ("ok = [0]", "ok = [0]\nretry = [0.5]", ("answer.retry[1]", "profile-type", "string | integer | boolean")),
        ("ok = [0]", 'ok = [0]\nretry = ["0"]', ("answer.retry", "profile-twice", "0")),
        ("ok = [0]", 'ok = [0]\nresults = "data"', ("answer.result_id", "profile-missing", "")),
        ("ok = [0]", 'ok = [0]\ntopic = "x"', ("answer.topic", "profile-transport", "http")),
        ('"L2"', '"L1"', ("level", "profile-level", "")),
        ("[answer]", '[batch]\nto = "/all"\nbody = { all = "x{events}" }\n[answer]', ("batch.body", "profile-events", "")),
        ("[answer]", '[batch]\nto = "/{id}"\nbody = { all = "{events}" }\n[answer]',
            ("batch.to", "profile-placeholder", "{id}")),
        ("body = {", "body = { d = {a={a={a={a={a={a={a={a=1}}}}}}}}, ", ("message[1].body", "profile-depth", "8")),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_key(old: str, new: str, fault: tuple[str, str, str]) -> None:
    assert old in GOOD
    assert fault in faults(GOOD.replace(old, new, 1))


def test_all_faults_are_told_at_once() -> None:
    text = GOOD.replace('"own"', "1").replace('"http"', '"x"').replace("ok = [0]", "ok = 0")
    assert [at for at, _, _ in faults(text)] == ["name", "transport", "answer.ok"]


def test_what_has_its_words_has_them_in_both_languages() -> None:
    used = {reason for reason in resources.files("gateway.profiles").joinpath("reading.py").read_text().split('"')
            if reason.startswith("@hint.")}  # fmt: skip
    assert len(used) > 15
    for lang in ("zh", "en"):
        assert {f"@{key}" for key in table(lang)} >= used


def test_a_file_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    for content, reason in (
        (None, "profile-unreadable"), (b"\xff", "not-utf-8"), (b"name = ", "profile-syntax"),
        (b"#" * (MAX_BYTES + 1), "too-large"), (b"a = " + b"[" * 20_000, "profile-syntax"),
    ):  # fmt: skip
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ProfileError) as caught:
            read_profile(file)
        assert caught.value.faults[0].reason == f"@hint.{reason}"


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GOOD)
    assert read_profile(tmp_path / "own.toml").name == "own"


JSON = st.recursive(
    st.booleans() | st.integers(-5, 500) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_reader_refuses_what_the_published_schema_refuses(data: Any) -> None:
    """One value of a good file is replaced: both agree, for the reader reads that very schema with a checker of its own."""
    from gateway.profiles.reading import _misfits

    content = tomllib.loads(GOOD)
    places: list[tuple[Any, Any]] = []

    def collect(part: Any) -> None:
        for key in range(len(part)) if isinstance(part, list) else part:
            places.append((part, key))
            if isinstance(part[key], dict | list):
                collect(part[key])

    collect(content)
    part, key = data.draw(st.sampled_from(places))
    part[key] = data.draw(JSON)
    published = Draft202012Validator(json.loads(json.dumps(schema())))
    assert published.is_valid(content) is (not list(_misfits(content, schema(), "")))
