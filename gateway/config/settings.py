"""The settings, typed and frozen, as every other room knows them. One TOML table is one class.

Ids are 1 to 64 of [a-z0-9-]: they become topic levels, URN parts and column values. Addresses, names and words are
bounded at 128 characters, lists at 64 entries. Nothing here reads a file; `loading` does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    ConfigDict,
    Field,
    InstanceOf,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from drivers.kit import RAISABLE, Advertises, Answers, LineSettings, Streams
from drivers.protocols.published_adverts import Form, form_option
from gateway.config.secret import Secret
from gateway.errors import Finding, SecretError
from gateway.events import wants

CONTROL_SOCKET: Final = Path("/run/daycare-gateway/control.sock")
DATA_DIR: Final = Path("/var/lib/daycare-gateway")
MAX_PATHS: Final = 4

# The port that a URL means when it names none.
_PORTS: Final = {"mqtts": 8883, "mqtt": 1883, "https": 443, "http": 80}

_FORBID_EXTRA: Final = ConfigDict(extra="forbid")


def _secret(value: object) -> Secret | None:
    if value is None or isinstance(value, Secret):
        return value
    if isinstance(value, str):
        try:
            return Secret(value)
        except SecretError:
            pass
    raise PydanticCustomError("secret_reference", "not a reference to a secret")


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and value.startswith("/") and "\x00" not in value:
        return Path(value)
    raise PydanticCustomError("absolute_path", "not an absolute path")


def _optional_path(value: object) -> Path | None:
    return None if value is None else _path(value)


# What editors are told of a value that a function checks (`schema`).
_SCHEMA_OF_PATH: Final = WithJsonSchema({"type": "string", "pattern": "^/"})
_SCHEMA_OF_SECRET: Final = WithJsonSchema({"type": "string", "pattern": "^(credential:[A-Za-z0-9_]|file:/)"})

# `description` names the text that tells what fits ("expect.id").
Id = Annotated[StrictStr, Field(pattern=r"^[a-z0-9-]{1,64}$", description="id")]
Name = Annotated[StrictStr, Field(max_length=128, description="name")]
# An event code of a driver ("press", "hold"); "none" raises nothing whatever is configured.
CallWord = Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
# What raises an alarm only where somebody wants it; a word that is none is told, and the others count.
AlarmWord = Annotated[
    StrictStr,
    Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$"),
    WithJsonSchema({"type": "string", "enum": sorted(kind.value for kind in RAISABLE)}),
]
ParameterName = Annotated[StrictStr, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
TypePattern = Annotated[StrictStr, Field(pattern=r"^(\*|[a-z]+\.(\*|[a-z]+))$")]
FilePath = Annotated[Path, PlainValidator(_path), _SCHEMA_OF_PATH, Field(description="path")]
OptionalFilePath = Annotated[Path | None, PlainValidator(_optional_path), _SCHEMA_OF_PATH, Field(description="path")]
OptionalSecret = Annotated[Secret | None, PlainValidator(_secret), _SCHEMA_OF_SECRET, Field(description="secret")]
Seconds = Annotated[StrictFloat | StrictInt, Field(ge=0, le=3600, description="spread")]
Interval = Annotated[StrictFloat | StrictInt | None, Field(ge=1, le=31 * 86_400, description="every")]


Ratio = Annotated[StrictFloat | StrictInt, Field(ge=1, le=100_000, description="ratio")]


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Gateway:
    """[gateway]: who this gateway is, and where it keeps its things."""

    id: Id
    org: Id
    site: Id
    org_path: Annotated[tuple[Id, ...], Field(max_length=8, description="org-path")] = ()
    operator: Name = ""
    data_dir: FilePath = DATA_DIR
    control_socket: FilePath = CONTROL_SOCKET
    lang: Annotated[Literal["zh", "en"], Field(description="lang")] = "zh"


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Room:
    """[[room]]: the name stays on site; only the id leaves it."""

    id: Id
    name: Name = ""
    beds: Annotated[tuple[Name, ...], Field(max_length=64, description="beds")] = ()


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Serial:
    """[[serial]]: one port or socket. A line setting left out is the one that the driver of its devices wants."""

    id: Id
    port: Annotated[StrictStr, Field(min_length=1, max_length=256, description="port")]
    baud: Annotated[StrictInt | None, Field(ge=300, le=4_000_000, description="baud")] = None
    bits: Annotated[Literal[5, 6, 7, 8] | None, Field(description="bits")] = None
    parity: Annotated[Literal["N", "E", "O"] | None, Field(description="parity")] = None
    stop: Annotated[Literal[1, 2] | None, Field(description="stop")] = None
    quiet_ms: Annotated[StrictInt, Field(ge=0, le=10_000, description="quiet")] = 50
    echo: Annotated[StrictBool, Field(description="switch")] = False

    def line(self, default: LineSettings) -> LineSettings:
        """Return how the line is set for a device whose driver wants `default`."""
        return LineSettings(
            baud=default.baud if self.baud is None else self.baud,
            bits=default.bits if self.bits is None else self.bits,
            parity=self.parity or default.parity,
            stop=default.stop if self.stop is None else self.stop,
        )


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Ble:
    """[[ble]]: one Bluetooth adapter."""

    id: Id
    adapter: Annotated[StrictStr, Field(pattern=r"^hci[0-9]{1,2}$", description="adapter")] = "hci0"
    silence_s: Annotated[StrictFloat | StrictInt, Field(ge=10, le=3600, description="silence")] = 60


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Receiver:
    """[[receiver]]: a Bluetooth proxy of ESPHome in the network. Without a key whoever is in that network can imitate it."""

    id: Id
    host: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$", description="host")]
    port: Annotated[StrictInt, Field(ge=1, le=65_535, description="tcp-port")] = 6053
    key: OptionalSecret = None
    silence_s: Annotated[StrictFloat | StrictInt, Field(ge=10, le=3600, description="silence")] = 60


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class DeviceTable:
    """[[device]] as it is written. `address` is empty only for a device that has its line to itself.

    `baud`, `bits`, `parity` and `stop`: how the line is set while this device is asked, where it differs from its line.
    """

    id: Id
    model: Annotated[StrictStr, Field(min_length=1, max_length=64, description="model")]
    link: Id
    address: Name = ""
    room: Annotated[StrictStr, Field(pattern=r"^[a-z0-9-]{0,64}$", description="id")] = ""
    bed: Name = ""
    key: OptionalSecret = None
    allow_plain: Annotated[StrictBool, Field(description="switch")] = False
    calls_on: Annotated[tuple[CallWord, ...] | None, Field(max_length=32, description="calls-on")] = None
    alarms_on: Annotated[tuple[AlarmWord, ...], Field(max_length=32, description="alarms-on")] = ()
    every_s: Interval = None
    baud: Annotated[StrictInt | None, Field(ge=300, le=4_000_000, description="baud")] = None
    bits: Annotated[Literal[5, 6, 7, 8] | None, Field(description="bits")] = None
    parity: Annotated[Literal["N", "E", "O"] | None, Field(description="parity")] = None
    stop: Annotated[Literal[1, 2] | None, Field(description="stop")] = None
    ct: Ratio = 1
    pt: Ratio = 1
    map: Annotated[Mapping[str, object], Field(description="map")] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Device(DeviceTable):
    """One device with its driver found, its options checked by that driver, and its key read.

    `key_bytes` is None where the device has no key, and also where its key cannot be had (then a finding says so).
    A BLE address is upper case.
    """

    driver: InstanceOf[Advertises] | InstanceOf[Streams] | InstanceOf[Answers] = field(kw_only=True, repr=False)
    options: object = field(default=None, kw_only=True, repr=False)
    key_bytes: bytes | None = field(default=None, kw_only=True, repr=False)

    def line(self, serial: Serial) -> LineSettings | None:
        """Return how the line is set while this device is asked: its own word, its line's, its driver's; None on the air."""
        if isinstance(self.driver, Advertises):
            return None
        shared = serial.line(self.driver.line)
        return LineSettings(
            baud=self.baud or shared.baud, bits=self.bits or shared.bits, parity=self.parity or shared.parity,
            stop=self.stop or shared.stop,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class WayIn:
    """Where a server is, and what is needed to get in."""

    url: Annotated[StrictStr, Field(min_length=1, max_length=512, description="url")]
    username: Name = ""
    password: OptionalSecret = None
    ca_file: OptionalFilePath = None
    cert_file: OptionalFilePath = None
    key_file: OptionalFilePath = None
    mqtt_version: Annotated[Literal["auto", "5", "3.1.1"], Field(description="mqtt-version")] = "auto"

    @property
    def transport(self) -> Literal["mqtt", "http"]:
        """What is spoken on the path."""
        return "http" if self._scheme in ("http", "https") else "mqtt"

    @property
    def tls(self) -> bool:
        """Is the path encrypted?"""
        return self._scheme in ("mqtts", "https")

    @property
    def host(self) -> str:
        """The host name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port: 8883 for mqtts, 1883 for mqtt, 443 for https, 80 for http, unless the URL says another."""
        return urlsplit(self.url).port or _PORTS.get(self._scheme, 0)

    @property
    def base(self) -> str:
        """What the URL of an HTTP path has behind the host, without the last slash: "" or "/platform"."""
        return urlsplit(self.url).path.rstrip("/") if self.transport == "http" else ""

    @property
    def loopback(self) -> bool:
        """Does the path stay within this machine?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def _scheme(self) -> str:
        return urlsplit(self.url).scheme


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class DestinationPath(WayIn):
    """[[destination.path]]: one way to a platform. mqtt:// and http:// are plain text and go to this machine only.

    MQTT logs in with `username` and `password`; HTTP sends them as Basic, or `token` as Bearer.
    """

    token: OptionalSecret = None


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Mqtt(WayIn):
    """[[mqtt]]: a broker on which other gateways say what their devices say. Plain text beyond this machine needs a word.

    `bridge`: the topic on which the gateway behind it says whether it is online; while it is not, nothing is heard.
    `adverts`: the topics on which a receiver publishes the adverts that it hears, in the form `advert_form`, of which
    `advert_fields` changes names; it is one radio among the others then. `form` is both, read.
    """

    id: Id = field(kw_only=True)
    bridge: Annotated[StrictStr, Field(max_length=256, description="topic")] = ""
    adverts: Annotated[StrictStr, Field(max_length=256, description="topic-filter")] = ""
    advert_form: Annotated[Literal["theengs", "minew"], Field(description="advert-form")] = "theengs"
    advert_fields: Annotated[Mapping[ParameterName, Name], Field(max_length=16, description="advert-fields")] = field(
        default_factory=dict
    )
    allow_plain: Annotated[StrictBool, Field(description="switch")] = False

    @property
    def form(self) -> Form:
        """How the receiver publishes adverts. Raises BadOption for fields that no form has."""
        return form_option(self.advert_form, self.advert_fields, name="advert_fields")

    @property
    def is_proven(self) -> bool:
        """Does a login keep strangers from saying something on the broker?"""
        return bool(self.username) or self.cert_file is not None


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Destination:
    """[[destination]]: one platform. `types` are short event types ("alarm.*", "telemetry.meter", "*").

    `path` holds those that can be used, in the order of the file: the first is preferred.
    """

    id: Id
    profile: Annotated[StrictStr, Field(max_length=256, description="profile")] = "native"
    types: Annotated[tuple[TypePattern, ...], Field(min_length=1, max_length=64, description="types")] = ("*",)
    finish: Annotated[Literal["L1", "L2"], Field(description="finish")] = "L2"
    reconnect_spread_s: Seconds = 60
    path: Annotated[tuple[DestinationPath, ...], Field(max_length=MAX_PATHS, description="destination-path")] = ()
    parameters: Annotated[Mapping[ParameterName, Name], Field(max_length=16, description="parameters")] = field(
        default_factory=dict
    )

    def takes(self, noun: str) -> bool:
        """Does the destination want events of this short type ("alarm.raised")?"""
        return wants(self.types, noun)


@dataclass(frozen=True, slots=True, config=_FORBID_EXTRA)
class Outbox:
    """[outbox]: how much of the disk undelivered events may take, and for how long telemetry may wait for company."""

    max_mb: Annotated[StrictInt, Field(ge=16, le=1_000_000, description="max-mb")] = 512
    linger_s: Annotated[StrictFloat | StrictInt, Field(ge=0, le=10, description="linger")] = 5


Link = Serial | Ble | Receiver | Mqtt


@plain_dataclass(frozen=True, slots=True)
class Settings:
    """Everything that runs. What was wrong and set aside or repaired stands in `findings`.

    `set_aside_destinations` cannot be connected to (their `path` is empty), but their events must wait for them.
    """

    gateway: Gateway
    rooms: tuple[Room, ...]
    serial: tuple[Serial, ...]
    ble: tuple[Ble, ...]
    mqtt: tuple[Mqtt, ...]
    devices: tuple[Device, ...]
    destinations: tuple[Destination, ...]
    outbox: Outbox
    path: Path
    findings: tuple[Finding, ...] = ()
    set_aside_destinations: tuple[Destination, ...] = ()
    receivers: tuple[Receiver, ...] = ()

    @property
    def radios(self) -> tuple[str, ...]:
        """The links that hear what is on the air: adapters, proxies, and brokers on which a receiver publishes adverts."""
        relays = [one.id for one in self.mqtt if one.adverts]
        return (*(one.id for one in self.ble), *(one.id for one in self.receivers), *relays)

    @property
    def ways_in(self) -> tuple[WayIn, ...]:
        """Every server that is logged in to: the paths of the platforms, and the brokers of other gateways."""
        return (*(path for one in self.destinations for path in one.path), *self.mqtt)

    @property
    def secrets(self) -> frozenset[Secret]:
        """Every secret that the configuration refers to, wherever it does."""
        keys = (*(one.key for one in self.devices), *(one.key for one in self.receivers))
        tokens = (path.token for one in self.destinations for path in one.path)
        named = (*keys, *tokens, *(one.password for one in self.ways_in))
        return frozenset(one for one in named if one is not None)
