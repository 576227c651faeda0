"""Scenarios: a centre as TOML, expanded with a seed into DIR/scenario.json, the score that every process plays from.

The expanded form (times in seconds after `start`, a wall-clock instant common to the processes of one run):

    {"name", "seed", "seconds": float | null (endless), "emission_until_s", "start",
     "gateway": {"id", "org", "site", "org_path"}, "rooms": [{"id", "name", "beds"}],
     "platforms": [{"id", "port", "speaks": "mqtt" | "mqtt-3.1.1" | "mqtts" | "http" | "https", "types": [...],
                    "also": [{"port", "speaks"}]}],
     "links": {"air": {"id"}, "bus": {"id", "path", "baud"}},
     "devices": [{"id", "role": "button" | "pendant" | "radar" | "meter" | "controller" | "bed", "model", "link": id of its link,
                  "address", "name", "key": hex | null, "room", "bed", "every_s": poll interval of a meter | null,
                  "port": TCP port of a controller | null, "map": {...}}],
     "emissions": [{"at_s", "device", "kind": "press", "code", "for_s"} | {..., "kind": "fall", "for_s"}
                   | {..., "kind": "line", "value": {...}}],
     "faults": [{"at_s", "fault": "mute" | "hang" | "cut" | "heal", "platform": its id, "way": number | 0: all of it}
                | {"at_s", "fault": "kill"}]}

A mute platform takes events, but its answers are lost; one that hangs neither decides nor answers until it is healed;
healing ends everything. A platform's ways in are numbered from 1, as its paths are at the gateway; `also` are those after
the first. `for_s` is how long a device repeats itself; the next emission of the same device comes after it. A meter has no
emissions: it answers whenever it is asked.
Limits: 10 s to 24 h a run (an endless run is planned for 24 h and then ends like any other), at most 200 devices and 8
platforms of 4 ways each.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any, Final

MIN_SECONDS: Final = 10.0
MAX_SECONDS: Final = 24 * 3600.0
EMISSION_SHARE: Final = 0.6
SHORT_RUN_S: Final = 120.0
MAX_DEVICES: Final = 200
MAX_PLATFORMS: Final = 8
MAX_WAYS: Final = 4
SPEAKS: Final = {"mqtt": "mqtt", "mqtt-3.1.1": "mqtt", "mqtts": "mqtts", "http": "http", "https": "https"}
_WITH_TLS: Final = ("mqtts", "https")
# Between two emissions of one device, beyond the repeats: the gateway must see the level fallen, the press ended.
# A bed that calls again within 5 s repeats itself.
REST_S: Final = {"press": 1.0, "fall": 3.0, "line": 0.2, "bed": 8.0}
_KIND_OF_ROLE: Final = {"button": "press", "pendant": "fall", "radar": "fall", "controller": "line", "bed": "bed"}
_OURS: Final = (12_000, 32_768)
_PORT_ATTEMPTS: Final = 100
# A pty cannot be opened a second time with parity.
_EIGHT_N_ONE: Final = {"bits": 8, "parity": "N", "stop": 1}
_ROLES: Final = (*_KIND_OF_ROLE, "meter")


class ScenarioError(Exception):
    """A scenario that cannot be played: the message names the file, the key and what was expected."""


@dataclass(frozen=True, slots=True)
class SimDevice:
    """One device of the centre, as the scenario describes it. `every_s` is a meter's poll interval in seconds."""

    id: str
    role: str
    model: str
    link: str
    address: str = ""
    name: str = ""
    key: str | None = None
    room: str = ""
    bed: str = ""
    allow_plain: bool = False
    every_s: float | None = None
    port: int | None = None
    map: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The expanded score. `document` is what stands in scenario.json, apart from `start`."""

    name: str
    title: str
    seed: int
    seconds: float | None
    emission_until_s: float
    gateway: Mapping[str, Any]
    rooms: Sequence[Mapping[str, Any]]
    platforms: Sequence[Mapping[str, Any]]
    links: Mapping[str, Mapping[str, Any]]
    devices: tuple[SimDevice, ...]
    emissions: tuple[Mapping[str, Any], ...]
    faults: tuple[Mapping[str, Any], ...]

    def write(self, run: Path, *, start: float, boot: Mapping[str, Any] | None = None) -> None:
        """Write DIR/scenario.json. `start` is the wall-clock instant (seconds since 1970) of second 0, `boot` see true_time."""
        document = {part.name: getattr(self, part.name) for part in fields(self)}
        document |= {"devices": [asdict(device) for device in self.devices], "start": start, "boot": boot}
        path = run / "scenario.json"
        path.with_suffix(".tmp").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        path.with_suffix(".tmp").replace(path)


def find(name: str) -> tuple[str, str]:
    """Return (name, text) of a scenario: one of ours by name, or a file by path. ScenarioError when there is none."""
    own = resources.files("simulator") / "scenarios"
    if "/" not in name and not name.endswith(".toml"):
        candidate = own / f"{name}.toml"
        if candidate.is_file():
            return name, candidate.read_text(encoding="utf-8")
        known = sorted(item.name.removesuffix(".toml") for item in own.iterdir() if item.name.endswith(".toml"))
        raise ScenarioError(f"no scenario is called {name!r}; there are: {', '.join(known)}")
    try:
        return Path(name).stem, Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{name}: cannot be read ({error}); give the path of a TOML file") from error


def expand(name: str, *, seed: int, seconds: float | None, ports: Mapping[str, int]) -> Scenario:
    """Plan a run: the same name, seed and seconds give the same score.

    `ports`: one for each name that `ports_needed` gives. ScenarioError names what does not fit.
    """
    if seconds is not None and not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ScenarioError(f"--seconds {seconds:g}: from {MIN_SECONDS:g} to {MAX_SECONDS:g}")
    name, text = find(name)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"scenario {name}: not TOML: {error}") from error
    rng = random.Random(seed)  # noqa: S311 - a rehearsal that can be repeated, nothing secret hangs on it
    try:
        return _plan(name, raw, rng=rng, seed=seed, seconds=seconds, ports=ports)
    except KeyError as error:
        raise ScenarioError(f"scenario {name}: {error.args[0]} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ScenarioError(f"scenario {name}: {error}") from error


def ports_needed(name: str) -> tuple[str, ...]:
    """Names of what needs a TCP port of its own: the platforms' ways in ("ID", "ID+2" and on) and the controllers."""
    name, text = find(name)
    try:
        raw = tomllib.loads(text)
        platforms = [name for one in raw.get("platform", []) for name in _way_names(one)]
        controllers = [str(device["id"]) for device in raw.get("device", []) if device.get("role") == "controller"]
        return (*platforms, *controllers)
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ScenarioError(f"scenario {name}: {error}") from error


def load(run: Path) -> dict[str, Any]:
    """Read DIR/scenario.json back."""
    document: dict[str, Any] = json.loads((run / "scenario.json").read_text(encoding="utf-8"))
    return document


def _plan(
    name: str, raw: dict[str, Any], *, rng: random.Random, seed: int, seconds: float | None, ports: Mapping[str, int]
) -> Scenario:
    tables = raw["device"]
    if not 0 < len(tables) <= MAX_DEVICES:
        raise ScenarioError(f"scenario {name}: {len(tables)} devices, expected 1 to {MAX_DEVICES}")
    length = MAX_SECONDS if seconds is None else seconds
    until = round(length * (1.0 if seconds is None else EMISSION_SHARE), 3)
    devices = tuple(_device(table, rng=rng, seconds=seconds, ports=ports) for table in tables)
    if len({device.id for device in devices}) != len(devices):
        raise ScenarioError(f"scenario {name}: two devices have the same id")
    calm = float(raw.get("endless_factor", 2.0)) if seconds is None else 1.0
    emissions = [
        emission
        for device, table in zip(devices, tables, strict=True)
        if device.role in _KIND_OF_ROLE
        for emission in _emissions(device, table, rng=rng, until=until, calm=calm)
    ]
    emissions.sort(key=lambda emission: emission["at_s"])
    return Scenario(
        name=name,
        title=str(raw.get("title", name)),
        seed=seed,
        seconds=seconds,
        emission_until_s=until,
        gateway=raw["gateway"],
        rooms=tuple(raw.get("room", ())),
        platforms=_platforms(name, raw["platform"], ports=ports),
        links=raw["links"],
        devices=devices,
        emissions=tuple(emissions),
        faults=_faults(raw, rng=rng, seconds=seconds, emissions=emissions),
    )


def _way_names(platform: Mapping[str, Any]) -> list[str]:
    """Names of a platform's ways in, as their ports are named."""
    first = str(platform["id"])
    return [first, *(f"{first}+{way}" for way, _ in enumerate(platform.get("also", []), start=2))]


def _platforms(
    name: str, tables: Sequence[Mapping[str, Any]], *, ports: Mapping[str, int]
) -> tuple[dict[str, Any], ...]:
    if not 0 < len(tables) <= MAX_PLATFORMS:
        raise ScenarioError(f"scenario {name}: {len(tables)} platforms, expected 1 to {MAX_PLATFORMS}")
    found = []
    for table in tables:
        platform, names = str(table["id"]), _way_names(table)
        ways = [{"port": ports[way]} for way in names]
        if len(ways) > MAX_WAYS:
            raise ScenarioError(f"platform {platform}: {len(ways)} ways in, expected at most {MAX_WAYS}")
        for way, speaks in zip(ways, [table.get("speaks", "mqtt"), *table.get("also", [])], strict=True):
            if speaks not in SPEAKS:
                raise ScenarioError(f"platform {platform}: speaks = {speaks!r}: expected one of {', '.join(SPEAKS)}")
            way["speaks"] = speaks
        types = [str(pattern) for pattern in table.get("types", ["*"])]
        found.append({"id": platform, **ways[0], "also": ways[1:], "types": types})
    if len({one["id"] for one in found}) != len(found):
        raise ScenarioError(f"scenario {name}: two platforms have the same id")
    return tuple(found)


def _device(
    table: Mapping[str, Any], *, rng: random.Random, seconds: float | None, ports: Mapping[str, int]
) -> SimDevice:
    role, device = str(table["role"]), str(table["id"])
    if role not in _ROLES:
        raise ScenarioError(f"device {device}: role = {role!r}: expected one of {', '.join(_ROLES)}")
    every = table.get("poll_s")
    if every is not None and seconds is not None and seconds < SHORT_RUN_S:
        every = table.get("short_poll_s", every)
    return SimDevice(
        id=device,
        role=role,
        model=str(table["model"]),
        link=str(table["link"]),
        address=str(table.get("address", "")),
        name=str(table.get("name", "")),
        # Drawn anew for each seed, so that no key stands in the repository.
        key=rng.randbytes(int(table["key_bytes"])).hex() if "key_bytes" in table else None,
        room=str(table.get("room", "")),
        bed=str(table.get("bed", "")),
        allow_plain=bool(table.get("allow_plain", False)),
        every_s=None if every is None else float(every),
        port=ports[device] if role == "controller" else None,
        map=table.get("map", {}),
    )


def _emissions(
    device: SimDevice, table: Mapping[str, Any], *, rng: random.Random, until: float, calm: float
) -> list[dict[str, Any]]:
    """Draw one device's emissions: each waits until the former has ended, rested, and a jittered pause is over."""
    kind = _KIND_OF_ROLE[device.role]
    low, high = (float(bound) * calm for bound in table["pause_s"])
    for_s = float(table.get("for_s", 0.0))
    if not 0 <= low <= high:
        raise ScenarioError(f"device {device.id}: pause_s = [{low:g}, {high:g}]: expected [low, high] in seconds")
    planned: list[dict[str, Any]] = []
    at = rng.uniform(0.2, max(0.2, min(high, until / 3)))
    while at + for_s <= until:
        entry: dict[str, Any] = {"at_s": round(at, 3), "device": device.id, "kind": kind}
        if kind == "line":
            entry["value"] = _line(rng.choice(table["lines"]), rng=rng)
        else:
            entry["for_s"] = for_s
        if kind == "press":
            entry["code"] = rng.choice(table.get("codes", ["press"]))
        planned.append(entry)
        at += for_s + REST_S[kind] + rng.uniform(low, high)
    return planned


def _line(template: Mapping[str, Any], *, rng: random.Random) -> dict[str, Any]:
    """Fill one JSON line: for a list [low, high] draw a value between them, one decimal; the rest stands as it is."""
    return {key: round(rng.uniform(*value), 1) if isinstance(value, list) else value for key, value in template.items()}


def _faults(
    raw: Mapping[str, Any], *, rng: random.Random, seconds: float | None, emissions: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Draw the faults: once each in a run that ends, again and again in one that does not."""
    planned: list[dict[str, Any]] = []
    for platform in raw["platform"]:
        planned += _troubles(platform, platform, way=0, rng=rng, seconds=seconds)
        for table in platform.get("way_fault", []):
            if table["way"] not in range(1, len(_way_names(platform)) + 1):
                raise ScenarioError(f"platform {platform['id']}: way = {table['way']!r}: there is no such way in")
            if not table.keys() & {"cut", "hang"}:
                raise ScenarioError(f"platform {platform['id']}: way_fault: expected cut or hang")
            planned += _troubles(platform, table, way=table["way"], rng=rng, seconds=seconds)
    table = raw.get("faults", {})
    if seconds is None and "kill_every_s" in table:
        every = float(table["kill_every_s"])
        planned += [{"at_s": at, "fault": "kill"} for at in _again_and_again(every, rng=rng)]
    elif seconds is not None and "kill" in table:
        window = [seconds * share for share in table["kill"]]
        planned.append({"at_s": _busy_moment(emissions, rng=rng, window=window), "fault": "kill"})
    return tuple({**fault, "at_s": round(fault["at_s"], 3)} for fault in sorted(planned, key=lambda one: one["at_s"]))


def _troubles(
    platform: Mapping[str, Any], table: Mapping[str, Any], *, way: int, rng: random.Random, seconds: float | None
) -> Iterator[dict[str, Any]]:
    """Draw when a platform, or one way into it, is cut or hangs, mute before if that is asked, and when it is healed."""
    for fault in ("cut", "hang"):
        for begin, end in _spells(fault, table, rng=rng, seconds=seconds):
            moments = {"mute": begin - float(table["mute_s"])} if "mute_s" in table else {}
            for name, at in (moments | {fault: begin, "heal": end}).items():
                yield {"at_s": at, "fault": name, "platform": str(platform["id"]), "way": way}


def _spells(
    fault: str, table: Mapping[str, Any], *, rng: random.Random, seconds: float | None
) -> Iterator[tuple[float, float]]:
    if seconds is None and f"{fault}_every_s" in table:
        for at in _again_and_again(float(table[f"{fault}_every_s"]), rng=rng):
            yield at, at + rng.uniform(5, 12)
    elif seconds is not None and fault in table:
        yield seconds * rng.uniform(*table[fault]), seconds * rng.uniform(*table["heal"])


def _again_and_again(every: float, *, rng: random.Random) -> Iterator[float]:
    at = -0.6 * every  # the first comes early: who looks for a minute or two should see it
    while (at := at + every * rng.uniform(0.8, 1.2)) < MAX_SECONDS - every:
        yield at


def _busy_moment(emissions: Sequence[Mapping[str, Any]], *, rng: random.Random, window: Sequence[float]) -> float:
    """Draw a moment just after something was emitted, so that the kill finds work half done."""
    low, high = window
    busy = [float(emission["at_s"]) for emission in emissions if low <= emission["at_s"] <= high]
    return rng.choice(busy) + rng.uniform(0.0, 0.3) if busy else rng.uniform(low, high)


def gateway_toml(scenario: Scenario, run: Path) -> str:
    """Return the gateway's configuration for a run; its data, socket and keys lie in `run`."""
    gateway = scenario.gateway
    lines = _table("[gateway]", **gateway, data_dir=str(run / "data"), control_socket=str(control_socket(run)))
    lines += _table("[outbox]", linger_s=1)  # its meters are asked every few seconds
    for room in scenario.rooms:
        lines += _table("[[room]]", **room)
    lines += _table("[[ble]]", adapter="hci0", **scenario.links["air"])
    bus = scenario.links.get("bus")
    if bus:
        lines += _table("[[serial]]", id=bus["id"], port=str(run / bus["path"]), **_EIGHT_N_ONE, baud=bus["baud"])
    for device in scenario.devices:
        if device.port is not None:
            lines += _table("[[serial]]", id=device.link, port=f"socket://127.0.0.1:{device.port}")
        if device.role == "radar":
            lines += _table("[[serial]]", id=device.link, port=str(run / f"tty-{device.id}"), **_EIGHT_N_ONE)
    for link in dict.fromkeys(device.link for device in scenario.devices if device.role == "bed"):
        lines += _table("[[serial]]", id=link, port=str(run / f"tty-{link}"), **_EIGHT_N_ONE)
    for device in scenario.devices:
        key = {"key": f"file:{run / 'keys' / device.id}"} if device.key else {}
        options = {name: getattr(device, name) for name in ("address", "room", "bed", "every_s", "map")}
        options = {name: value for name, value in options.items() if value}
        plain = {"allow_plain": True} if device.allow_plain else {}
        lines += _table("[[device]]", id=device.id, model=device.model, link=device.link, **options, **key, **plain)
    for platform in scenario.platforms:
        lines += _table("[[destination]]", id=platform["id"], types=platform["types"], reconnect_spread_s=2)
        for way in (platform, *platform["also"]):
            scheme = SPEAKS[way["speaks"]]
            authority = {"ca_file": str(tls_directory(run) / "ca.pem")} if scheme in _WITH_TLS else {}
            lines += _table("[[destination.path]]", url=f"{scheme}://127.0.0.1:{way['port']}", **authority)
    return "\n".join(lines)


def write_gateway_files(scenario: Scenario, run: Path) -> Path:
    """Write gateway.toml and the key files (mode 0600) into `run`; return the path of the configuration."""
    (run / "data").mkdir(mode=0o700)
    (run / "keys").mkdir(mode=0o700)
    for device in scenario.devices:
        if device.key:
            path = run / "keys" / device.id
            path.touch(mode=0o600)
            path.write_text(device.key + "\n", encoding="ascii")
    path = run / "gateway.toml"
    path.write_text(gateway_toml(scenario, run), encoding="utf-8")
    return path


def control_socket(run: Path) -> Path:
    """Where the gateway of a run listens for control: a Unix socket, whose path may have 107 bytes at most."""
    return run / "gw.sock"


def tls_directory(run: Path) -> Path:
    """Where the certificates of the platforms of a run lie."""
    return run / "tls"


def _table(title: str, **values: object) -> list[str]:
    return [title, *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]


def _toml(value: object) -> str:
    """Write one TOML value; a JSON string is a TOML basic string."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Find a free TCP port of 127.0.0.1 for each name, all different. OSError where none is to be found.

    The kernel gives out ports by itself from 32768 on (ip(7), ip_local_port_range): one that it found could be somebody
    else's by the time it is used. Those below it leaves alone.
    """
    import socket
    from contextlib import ExitStack

    chance = random.SystemRandom()
    found: dict[str, int] = {}
    with ExitStack() as held:
        for name in names:
            for attempt in count(1):
                probe = held.enter_context(socket.socket())
                try:
                    probe.bind(("127.0.0.1", chance.randrange(*_OURS)))
                except OSError:
                    if attempt == _PORT_ATTEMPTS:
                        raise
                else:
                    found[name] = int(probe.getsockname()[1])
                    break
    return found
