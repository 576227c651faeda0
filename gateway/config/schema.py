"""The configuration as a JSON Schema (2020-12), so that an editor finds mistakes while they are typed.

It is made of the settings classes and the driver catalogue, and tells less than `gateway config check`: a schema cannot
see that a link exists or that a secret can be read. What it refuses, the check refuses or remarks on too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from drivers.kit import Advertises, Driver
from gateway.config.destinations import WRITABLE_TYPES
from gateway.config.devices import Catalogue
from gateway.config.settings import (
    MAX_PATHS,
    Ble,
    Destination,
    DestinationPath,
    DeviceTable,
    Gateway,
    Mqtt,
    Outbox,
    Receiver,
    Room,
    Serial,
)
from gateway.profiles import SHIPPED
from gateway.texts import LANGUAGES, text

# Every table in the order of config/gateway.toml, with whether it is an array; [[destination.path]] is "path".
TABLES: Final[Mapping[str, tuple[Any, bool]]] = {
    "gateway": (Gateway, False),
    "outbox": (Outbox, False),
    "room": (Room, True),
    "ble": (Ble, True),
    "receiver": (Receiver, True),
    "serial": (Serial, True),
    "mqtt": (Mqtt, True),
    "device": (DeviceTable, True),
    "destination": (Destination, True),
    "path": (DestinationPath, True),
}

_HOST: Final = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
_HERE: Final = r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]{1,5})?"
_BASE: Final = r"(/[^?#@\s]*)?"
_URL: Final = rf"^(mqtts://{_HOST}/?|https://{_HOST}{_BASE}|mqtt://{_HERE}/?|http://{_HERE}{_BASE})$"
_BLE_ADDRESS: Final = "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema of the whole file."""
    properties = {name: _table(name, catalogue) for name in TABLES if name != "path"}
    properties["destination"]["minItems"] = 1
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "daycare-gateway: gateway.toml",
        "type": "object",
        "properties": properties,
        "required": ["gateway", "destination"],
        "additionalProperties": False,
    }


def schema_text(catalogue: Catalogue) -> str:
    """Return the schema as it stands in its file."""
    return json.dumps(schema(catalogue), ensure_ascii=False, indent=2) + "\n"


def settings_of(table: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield each key of a table with its bare schema, and the name of the text that tells what fits ("expect.NAME")."""
    kind, _ = TABLES[table]
    raw = TypeAdapter(kind).json_schema()
    hints = {item.name: kind.__pydantic_fields__[item.name].description for item in dataclasses.fields(kind)}
    for key, value in raw["properties"].items():
        yield key, _bare(value), hints[key]


def _table(name: str, catalogue: Catalogue) -> dict[str, Any]:
    kind, is_array = TABLES[name]
    properties: dict[str, Any] = {}
    for key, value, hint in settings_of(name):
        description = _described(f"setting.{name}.{key}", f"expect.{hint}")
        properties[key] = {"description": description, **value, **_more(name, key, catalogue)}
    required = [item.name for item in dataclasses.fields(kind) if _is_required(item)]
    table = {
        "description": _described(f"setting.{name}.about"),
        "type": "object",
        "properties": properties,
        "required": [*required, "path"] if name == "destination" else required,
        "additionalProperties": False,
        **_rules(name, catalogue),
    }
    return {"type": "array", "items": table} if is_array else table


def _more(table: str, key: str, catalogue: Catalogue) -> dict[str, Any]:
    """What is known of a value beyond its type."""
    if (table, key) == ("device", "model"):
        return {"enum": list(catalogue.models())}
    if (table, key) == ("destination", "path"):
        return {**_table("path", catalogue), "minItems": 1, "maxItems": MAX_PATHS}
    known: dict[tuple[str, str], dict[str, Any]] = {
        ("serial", "port"): {"pattern": "^(/|(socket|rfc2217)://)"},
        ("destination", "profile"): {"anyOf": [{"enum": list(SHIPPED)}, {"pattern": "^/"}]},
        ("destination", "types"): {"items": {"enum": list(WRITABLE_TYPES)}},
        ("path", "url"): {"pattern": _URL},
        ("mqtt", "url"): {"pattern": rf"^mqtts?://{_HOST}/?$"},
    }
    return known.get((table, key), {})


def _rules(table: str, catalogue: Catalogue) -> dict[str, Any]:
    """What one key demands of another."""
    if table == "device":
        on_air = [model for model in catalogue.models() if _needs_address(catalogue.driver(model))]
        needs = {"properties": {"address": {"pattern": _BLE_ADDRESS}}, "required": ["address"]}
        return {"if": {"properties": {"model": {"enum": on_air}}, "required": ["model"]}, "then": needs}
    if table == "mqtt":
        return {"dependentRequired": {"password": ["username"], "cert_file": ["key_file"], "key_file": ["cert_file"]}}
    if table == "path":
        return {
            "dependentRequired": {"password": ["username"], "cert_file": ["key_file"], "key_file": ["cert_file"]},
            "if": {"properties": {"url": {"pattern": "^mqtt"}}},
            "then": {"not": {"required": ["token"]}},
            "else": {"not": {"required": ["token", "username"]}},
        }
    return {}


def _needs_address(driver: Driver) -> bool:
    return isinstance(driver, Advertises) and driver.identify is None


def _bare(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what pydantic says of a value without titles, and without the null that TOML does not have."""
    branches = [branch for branch in value.get("anyOf", ()) if branch.get("type") != "null"]
    found = {key: part for key, part in value.items() if key not in ("anyOf", "title", "description")}
    if len(branches) == 1:
        found |= _bare(branches[0])
    elif branches:  # a whole number or another
        found["type"] = "number"
    for bound, word in (("ge", "minimum"), ("le", "maximum")):
        if bound in found:
            found[word] = found.pop(bound)
    if isinstance(found.get("items"), Mapping):
        found["items"] = _bare(found["items"])
    if found.get("default") in (None, []):  # absent and empty need no telling
        found.pop("default", None)
    return found


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _described(*keys: str) -> str:
    """Both languages, Chinese first."""
    stops = {"zh": "；", "en": "; "}
    return "\n".join(stops[lang].join(text(key, lang) for key in keys) for lang in LANGUAGES)
