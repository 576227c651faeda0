"""The JSON Schema: the committed file is fresh, what we ship fits it, and what is wrong does not."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from drivers.kit import catalogue
from gateway.config.schema import schema, schema_text

CONFIG = Path(__file__).parents[3] / "config"
FILE = CONFIG / "gateway.schema.json"
SHIPPED = [CONFIG / "gateway.toml", *sorted((CONFIG / "examples").glob("*.toml"))]

MINIMAL = """\
[gateway]
id = "gw-1"
org = "o"
site = "s"
[[destination]]
id = "d"
[[destination.path]]
url = "mqtts://platform.example.org"
"""
BUTTON = '[[device]]\nid = "b"\nmodel = "bthome-button"\nlink = "r"\naddress = "A4:C1:38:56:53:84"\n'


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema(catalogue))


def wrong(validator: Draft202012Validator, text: str) -> list[str]:
    """Where the schema finds something wrong in a configuration."""
    document: Any = tomllib.loads(text)
    return sorted(error.json_path for error in validator.iter_errors(document))


def test_the_schema_in_the_repository_is_that_of_the_program() -> None:
    assert FILE.read_text(encoding="utf-8") == schema_text(catalogue), "run: make reference"


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "config", "schema"], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == FILE.read_text(encoding="utf-8")


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(FILE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_what_we_ship_fits_and_names_its_schema_in_the_first_line(validator: Draft202012Validator, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert wrong(validator, text) == []
    directive, _, relative = text.splitlines()[0].partition(" ")
    assert directive == "#:schema"
    assert (file.parent / relative).resolve() == FILE.resolve()


def test_every_key_is_described_in_both_languages(validator: Draft202012Validator) -> None:
    def described(node: Any) -> int:
        if not isinstance(node, dict):
            return 0
        count = 0
        for name, value in node.get("properties", {}).items():
            if "type" in value:
                told = value.get("description") or value["items"]["description"]
                zh, en = told.split("\n")
                assert any("一" <= c <= "鿿" for c in zh), name
                assert en.isascii() or "…" in en, name
                count += 1
            count += described(value) + described(value.get("items"))
        return count

    assert described(validator.schema) == 75 + 9  # keys and tables


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ["$", "$"]),
        (MINIMAL + "[gatway]\n", ["$"]),
        (MINIMAL.replace('id = "gw-1"\n', ""), ["$.gateway"]),
        (MINIMAL.replace('"gw-1"', '"GW 1"'), ["$.gateway.id"]),
        (MINIMAL.replace('org = "o"', "org = 7"), ["$.gateway.org"]),
        (MINIMAL + "[outbox]\nmax_mb = 8\n", ["$.outbox.max_mb"]),
        (MINIMAL + '[[room]]\nid = "r"\nbed = ["1"]\n', ["$.room[0]"]),
        (MINIMAL + '[room]\nid = "r"\n', ["$.room"]),
        (MINIMAL + '[[ble]]\nid = "r"\nadapter = "bluetooth0"\n', ["$.ble[0].adapter"]),
        (MINIMAL + '[[ble]]\nid = "r"\nsilence_s = 9\n', ["$.ble[0].silence_s"]),
        (MINIMAL + '[[serial]]\nid = "r"\nport = "COM3"\n', ["$.serial[0].port"]),
        (MINIMAL + '[[serial]]\nid = "r"\nport = "/dev/x"\nbits = 9\n', ["$.serial[0].bits"]),
        (MINIMAL + '[[serial]]\nid = "r"\nport = "/dev/x"\nparity = "none"\n', ["$.serial[0].parity"]),
        (MINIMAL + BUTTON.replace("bthome-button", "bthome-buton"), ["$.device[0].model"]),
        (MINIMAL + BUTTON.replace("A4:C1:38:56:53:84", "A4C138565384"), ["$.device[0].address"]),
        (MINIMAL + '[[device]]\nid = "b"\nmodel = "bthome-button"\nlink = "r"\n', ["$.device[0]"]),
        (MINIMAL + BUTTON + 'key = "231d39c1d7cc1ab1aee224cd096db932"\n', ["$.device[0].key"]),
        (MINIMAL + BUTTON + "every_s = 0.5\n", ["$.device[0].every_s"]),
        (MINIMAL + BUTTON + 'allow_plain = "yes"\n', ["$.device[0].allow_plain"]),
        (MINIMAL.replace("mqtts:", "mqtt:"), ["$.destination[0].path[0].url"]),
        (MINIMAL.replace("mqtts://", "https://u:p@"), ["$.destination[0].path[0].url"]),
        (MINIMAL.replace("mqtts://", "http://"), ["$.destination[0].path[0].url"]),
        (MINIMAL + 'token = "file:/t"\n', ["$.destination[0].path[0]"]),
        (MINIMAL + 'password = "file:/p"\n', ["$.destination[0].path[0]"]),
        (MINIMAL + 'cert_file = "/c"\n', ["$.destination[0].path[0]"]),
        (MINIMAL + 'mqtt_version = "3.1"\n', ["$.destination[0].path[0].mqtt_version"]),
        (MINIMAL + '[[destination.path]]\nurl = "mqtts://b"\n' * 4, ["$.destination[0].path"]),
        (MINIMAL.replace('id = "d"', 'id = "d"\ntypes = ["alarms.*"]'), ["$.destination[0].types[0]"]),
        (MINIMAL.replace('id = "d"', 'id = "d"\nfinish = "L3"'), ["$.destination[0].finish"]),
    ],
)  # fmt: skip
def test_what_is_wrong_does_not_fit(validator: Draft202012Validator, text: str, where: list[str]) -> None:
    assert wrong(validator, MINIMAL) == []
    assert wrong(validator, text) == where


@pytest.mark.parametrize(
    "more",
    [
        'username = "u"\npassword = "credential:p"\n',
        '[[destination.path]]\nurl = "https://h:8443/care"\ntoken = "credential:t"\n',
        '[[destination.path]]\nurl = "http://127.0.0.1:8080/care"\n',
        '[[destination.path]]\nurl = "mqtt://[::1]:1883"\nmqtt_version = "5"\n',
        BUTTON + 'key = "credential:k"\ncalls_on = ["press"]\nalarms_on = ["opening"]\nevery_s = 5\n',
        '[[device]]\nid = "m"\nmodel = "dlt645-2007"\nlink = "r"\naddress = "000012345678"\nmap = { x = 1 }\n',
    ],
)
def test_what_is_right_fits(validator: Draft202012Validator, more: str) -> None:
    assert wrong(validator, MINIMAL + more) == []
