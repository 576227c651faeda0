"""The shipped profiles: each is valid, keeps to the published schema, and says golden events to the letter."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.events import Origin
from gateway.profiles import NATIVE, SHIPPED, load_profile
from gateway.profiles.profile import Place

DATA = Path(__file__).parents[2] / "data"
DOCS = Path(__file__).parents[3] / "docs" / "profiles.md"
FILES = {one.name[:-5]: one for one in resources.files("gateway.profiles").iterdir() if one.name.endswith(".toml")}
PLACE = Place(
    Origin("demo", "hanfeng", "gw-01"),
    {"product_key": "a1b2", "device_name": "gw01", "client_id": "a1b2.gw01|securemode=2|"},
)


def native(name: str) -> Any:
    return json.loads((DATA / "native" / f"{name}.json").read_text())


def golden(profile: str, name: str) -> Any:
    return json.loads((DATA / "profiles" / profile / f"{name}.json").read_text())


def test_every_file_is_shipped_by_its_name() -> None:
    assert {NATIVE, *FILES} == set(SHIPPED)
    assert [load_profile(name).name for name in SHIPPED] == list(SHIPPED)


@pytest.mark.parametrize("name", FILES)
def test_it_keeps_to_the_schema(name: str) -> None:
    schema = json.loads(resources.files("gateway.profiles").joinpath("profile.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(tomllib.loads(FILES[name].read_text()))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_document_tells_what_it_is(name: str) -> None:
    profile = load_profile(name)
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    transport, level, lacks = (cell.strip() for cell in row.split("|")[2:5])
    said = {"any": "MQTT, HTTPS", "http": "HTTPS", "mqtt": "MQTT"}
    assert (transport, level) == (said[profile.transport], profile.level)
    assert tuple(re.findall(r"`(\w+)`", lacks)) == profile.lacks


@pytest.mark.parametrize("name", FILES)
def test_it_can_say_every_golden_event(name: str) -> None:
    profile = load_profile(name)
    for event in (native("alarm"), native("gap"), native("counts"), *native("telemetry")):
        assert json.loads(profile.said(json.dumps(event), PLACE, message="7").text)


def test_http_json_says_an_alarm() -> None:
    said = load_profile("http-json").said(json.dumps(native("alarm")), PLACE)
    assert (said.name, said.to) == ("0190a5c0-0000-7000-8000-000000000001", "/events")
    assert json.loads(said.text) == golden("http-json", "alarm")


def test_http_json_says_telemetry_together() -> None:
    profile = load_profile("http-json")
    to, text = profile.together([profile.said(json.dumps(one), PLACE) for one in native("telemetry")], PLACE)
    assert (to, json.loads(text)) == ("/events/batch", golden("http-json", "telemetry"))


@pytest.mark.parametrize(
    ("profile", "name", "to"),
    [
        ("alink", "alarm", "/sys/a1b2/gw01/thing/event/alarm_raised/post"),
        ("alink", "telemetry", "/sys/a1b2/gw01/thing/event/telemetry_meter/post"),
        ("thingsboard", "alarm", "v1/gateway/telemetry"),
        ("thingsboard", "telemetry", "v1/gateway/telemetry"),
    ],
)
def test_over_mqtt_an_event_goes_alone(profile: str, name: str, to: str) -> None:
    event = native(name)
    event = event[0] if isinstance(event, list) else event
    said = load_profile(profile).said(json.dumps(event), PLACE, message="7")
    assert (said.to, json.loads(said.text)) == (to, golden(profile, name))


def test_alink_demands_the_client_id_that_the_platform_has_given() -> None:
    assert load_profile("alink").client_id(PLACE) == "a1b2.gw01|securemode=2|"
    assert load_profile("thingsboard").client_id(PLACE) == ""


def test_an_alarm_in_minimal_form_can_be_said_too() -> None:
    event = native("alarm")
    event["data"] = {name: event["data"][name] for name in ("kind", "state", "room", "clock", "delivery")}
    del event["sequence"], event["deliveryseq"], event["recordedtime"]
    for name in FILES:
        assert load_profile(name).said(json.dumps(event), PLACE, message="7").text
