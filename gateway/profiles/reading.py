"""A profile from its TOML file, checked whole: every fault with its key and what would fit, all of them at once.

The shape stands in `profile.schema.json`, the one description of the format; what a schema cannot see (placeholders, tables,
which keys go together) is checked here. Limit: a file of 64 KiB, 20 faults.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta, timezone
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from gateway.errors import ProfileError, ProfileFault
from gateway.profiles.answers import Meaning, Rule, word_of
from gateway.profiles.mapping import (
    DEEPEST,
    FILTERS,
    ROOTS,
    Body,
    Placeholder,
    Words,
    compiled,
    depth,
    placeholders,
)
from gateway.profiles.profile import NATIVE, Message, Profile

MAX_BYTES: Final = 64 * 1024
MAX_FAULTS: Final = 20
SHIPPED: Final = (NATIVE, "http-json", "alink", "thingsboard")
_NATIVE: Final = Profile(NATIVE, "any", "L2")
_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
}  # fmt: skip
# What makes no sense for one of the two transports.
_ONLY_HTTP: Final = (("probe",), ("batch",), ("answer", "results"), ("answer", "failed"))
# The filters that cannot fail, whatever a configuration gives.
_SAFE: Final = ("text", "snake")
_GATEWAY: Final = (("id",), ("org",), ("site",))
_ONLY_MQTT: Final = (("client_id",), ("answer", "topic"), ("answer", "message_id"))


@cache
def load_profile(name: str) -> Profile:
    """Return a shipped profile by its name, or one of a file by its absolute path. Raises ProfileError.

    The file is read once: whoever changes it starts the gateway anew.
    """
    if name == NATIVE:
        return _NATIVE
    if name.startswith("/"):
        return read_profile(Path(name))
    return parse_profile(resources.files("gateway.profiles").joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def read_profile(path: Path) -> Profile:
    """Read a file. Raises ProfileError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError([ProfileFault("", "@hint.profile-unreadable", error.strerror or str(error))]) from error
    if len(content) > MAX_BYTES:
        raise ProfileError([ProfileFault("", "@hint.too-large")])
    try:
        return parse_profile(content.decode())
    except UnicodeDecodeError as error:
        raise ProfileError([ProfileFault("", "@hint.not-utf-8")]) from error


def parse_profile(text: str) -> Profile:
    """Read the text of a profile. Raises ProfileError with every fault."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProfileError([ProfileFault("", "@hint.profile-syntax", str(error)[:200])]) from error
    faults = list(_misfits(raw, schema(), ""))
    if not faults:
        faults = list(_faults(raw))
    if faults:
        raise ProfileError(faults[:MAX_FAULTS])
    return _profile(raw)


@cache
def schema() -> Any:
    """Return the JSON Schema of a profile."""
    return json.loads(resources.files("gateway.profiles").joinpath("profile.schema.json").read_text(encoding="utf-8"))


# -- the shape ---------------------------------------------------------------------------------------------------


def _misfits(value: Any, demands: Mapping[str, Any], at: str) -> Iterator[ProfileFault]:
    """Yield what does not fit the part of the schema that the format uses."""
    if "$ref" in demands:
        demands = schema()["$defs"][str(demands["$ref"]).rpartition("/")[2]]
    if not _is_of(value, demands.get("type")):
        yield ProfileFault(at, "@hint.profile-type", _wanted(demands["type"]))
    elif "enum" in demands and value not in demands["enum"]:
        yield ProfileFault(at, "@hint.profile-one-of", " | ".join(demands["enum"]))
    elif isinstance(value, str) and not re.search(demands.get("pattern", ""), value):
        yield ProfileFault(at, "@hint.profile-pattern", demands["pattern"])
    elif isinstance(value, dict):
        yield from _misfits_of_table(value, demands, at)
    elif isinstance(value, list):
        if not demands.get("minItems", 0) <= len(value) <= demands.get("maxItems", 1000):
            yield ProfileFault(at, "@hint.profile-range", f"{demands.get('minItems', 0)}-{demands.get('maxItems')}")
        for number, one in enumerate(value, start=1):
            yield from _misfits(one, demands.get("items", {}), f"{at}[{number}]")
    elif isinstance(value, int | float) and "minimum" in demands:
        low, high = demands["minimum"], demands["maximum"]
        if not low <= value <= high:
            yield ProfileFault(at, "@hint.profile-range", f"{low}-{high}")


def _misfits_of_table(table: Mapping[str, Any], demands: Mapping[str, Any], at: str) -> Iterator[ProfileFault]:
    known = demands.get("properties", {})
    rest = demands.get("additionalProperties", {})
    for name in demands.get("required", ()):
        if name not in table:
            yield ProfileFault(_under(at, name), "@hint.profile-missing")
    for name, value in table.items():
        if name in known:
            yield from _misfits(value, known[name], _under(at, name))
        elif rest is False:
            yield ProfileFault(_under(at, name), "@hint.profile-unknown", ", ".join(known))
        else:
            yield from _misfits(value, rest, _under(at, name))


def _is_of(value: Any, kind: Any) -> bool:
    if kind is None:
        return True
    kinds = kind if isinstance(kind, list) else [kind]
    if isinstance(value, bool):  # which Python holds for a number
        return "boolean" in kinds
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:  # to JSON Schema 1.0 is a whole number
        return True
    return any(isinstance(value, _KINDS[one]) for one in kinds)


def _wanted(kind: Any) -> str:
    return " | ".join(kind) if isinstance(kind, list) else str(kind)


def _under(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


# -- what a schema cannot see ------------------------------------------------------------------------------------


def _faults(raw: Mapping[str, Any]) -> Iterator[ProfileFault]:
    for number, one in enumerate(raw["message"], start=1):
        for key in ("to", "body"):
            yield from _template_faults(one[key], f"message[{number}].{key}", raw, of_event=True)
        if raw["transport"] == "http" and not one["to"].startswith("/"):
            yield ProfileFault(f"message[{number}].to", "@hint.profile-pattern", "^/")
    if "*" not in raw["message"][-1]["types"]:
        yield ProfileFault(f"message[{len(raw['message'])}].types", "@hint.profile-last")
    if "batch" in raw:
        yield from _template_faults(raw["batch"]["to"], "batch.to", raw, of_event=False)
        yield from _template_faults(raw["batch"]["body"], "batch.body", raw, of_event=False)
        if _counted_events(raw["batch"]["body"]) != 1:
            yield ProfileFault("batch.body", "@hint.profile-events")
    if "client_id" in raw:
        yield from _template_faults(raw["client_id"], "client_id", raw, of_event=False)
    if "topic" in raw.get("answer", {}):
        yield from _template_faults(raw["answer"]["topic"], "answer.topic", raw, of_event=False)
    yield from _answer_faults(raw)


def _answer_faults(raw: Mapping[str, Any]) -> Iterator[ProfileFault]:
    answer = raw.get("answer")
    for path in _ONLY_MQTT if raw["transport"] == "http" else _ONLY_HTTP:
        part: Any = raw
        for name in path:
            part = part.get(name) if isinstance(part, dict) else None
        if part is not None:
            yield ProfileFault(".".join(path), "@hint.profile-transport", raw["transport"])
    if (answer is not None) != (raw["level"] == "L2"):
        yield ProfileFault("level", "@hint.profile-level")
    if answer is None:
        return
    needed = ["topic", "message_id"] if raw["transport"] == "mqtt" else []
    if "results" in answer:
        needed += ["result_id", "result_code"]
    for name in needed:
        if name not in answer:
            yield ProfileFault(f"answer.{name}", "@hint.profile-missing")
    seen: dict[str, str] = {}
    for meaning in Meaning:
        for code in answer.get(meaning.value, ()):
            first = seen.setdefault(word_of(code), meaning.value)
            if first != meaning.value:
                yield ProfileFault(f"answer.{meaning.value}", "@hint.profile-twice", word_of(code))


def _template_faults(template: object, at: str, raw: Mapping[str, Any], *, of_event: bool) -> Iterator[ProfileFault]:
    try:
        body = compiled(template)
    except ValueError as error:
        yield ProfileFault(at, "@hint.profile-placeholder", str(error)[:80])
        return
    if depth(body) > DEEPEST:
        yield ProfileFault(at, "@hint.profile-depth", str(DEEPEST))
    places = list(placeholders(body))
    for place in places:
        yield from _place_faults(place, at, raw, of_event=of_event)


def _place_faults(place: Placeholder, at: str, raw: Mapping[str, Any], *, of_event: bool) -> Iterator[ProfileFault]:
    root = place.path[0]
    allowed = (
        ROOTS - {"events"} if of_event else {"gateway", "parameter"} | ({"events"} if at == "batch.body" else set())
    )
    if (
        root not in allowed
        or (root == "gateway" and place.path[1:] not in _GATEWAY)
        or (root == "events" and place.filters)
    ):
        yield ProfileFault(at, "@hint.profile-placeholder", f"{{{place.written}}}")
    if root == "parameter" and (len(place.path) != 2 or place.path[1] not in raw.get("parameters", ())):
        yield ProfileFault(at, "@hint.profile-parameter", place.written)
    for name, argument in place.filters:
        if name not in FILTERS or (name == "enum") != bool(argument):
            yield ProfileFault(at, "@hint.profile-placeholder", f"|{name}{':' if argument else ''}{argument}")
        elif not of_event and name not in _SAFE:  # what fails there would fail for every event
            yield ProfileFault(at, "@hint.profile-placeholder", f"|{name}")
        elif name == "enum" and argument not in raw.get("enum", {}):
            yield ProfileFault(at, "@hint.profile-no-table", argument)


def _counted_events(template: object) -> int:
    try:
        return [place.path for place in _whole(compiled(template))].count(("events",))
    except ValueError:
        return 1  # told already


def _whole(body: Body) -> Iterator[Placeholder]:
    """Yield the placeholders that have a string of their own, which are replaced by what is no text."""
    if isinstance(body, tuple) and len(body) == 1 and isinstance(body[0], Placeholder):
        yield body[0]
    elif isinstance(body, Mapping):
        for part in body.values():
            yield from _whole(part)
    elif isinstance(body, list):
        for part in body:
            yield from _whole(part)


# -- building ----------------------------------------------------------------------------------------------------


def _profile(raw: Mapping[str, Any]) -> Profile:
    answer, limits = raw.get("answer"), raw.get("limits", {})
    batch = raw.get("batch")
    return Profile(
        raw["name"], raw["transport"], raw["level"],
        tuple(Message(tuple(one["types"]), compiled(one["to"]), compiled(one["body"])) for one in raw["message"]),
        Words(raw.get("enum", {}), timezone(timedelta(hours=raw.get("utc_offset_hours", 8)))),
        parameters=tuple(raw.get("parameters", ())), id_form=raw.get("id", "uuid"),
        max_events=int(limits.get("events", 100)) if batch else 1, max_bytes=int(limits.get("bytes", 64 * 1024)),
        probe=raw.get("probe", "/"),
        batch=Message(("*",), compiled(batch["to"]), compiled(batch["body"])) if batch else None,
        rule=_rule(answer) if answer else None,
        reply_topic=compiled(answer["topic"]) if answer and "topic" in answer else (),
        reply_id=answer.get("message_id", "") if answer else "", client=compiled(raw.get("client_id", "")),
    )  # fmt: skip


def _rule(answer: Mapping[str, Any]) -> Rule:
    codes = {word_of(code): meaning for meaning in Meaning for code in answer.get(meaning.value, ())}
    places = {
        name: answer[name] for name in ("message", "results", "result_id", "result_code", "failed") if name in answer
    }
    return Rule(answer["code"], codes, Meaning(answer.get("other", "retry")), **places)
