"""What must not leave the site is taken out twice: only what is known to be harmless goes in, and of that, known secrets go.

First, lists of what may be told: keys of the configuration, fields of a log line, shapes of a line that is no JSON.
Second, over every text: each string of the configuration that is not on the list (names of rooms, beds, operators, login
names, whatever stands at a key that nobody knows), the content of every secret that can be read, in the forms that it is
sent in; and what looks like a credential, a telephone or an identity number. Limits: strings of ASCII shorter than
`MIN_ASCII` are only taken out where they stand, for "1" is a bed and a digit of everything.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from drivers.kit import QUANTITIES, SignalKind
from gateway.config import Secret, Settings
from gateway.errors import SecretError

REMOVED: Final = "(removed)"
MIN_ASCII: Final = 4
MIN_OTHER: Final = 2
_MAX_CONFIG_BYTES: Final = 1024 * 1024

# Keys of the configuration whose values may be told, by table; whatever is not here is told as "(removed)".
_TELLABLE: Final[Mapping[str, frozenset[str]]] = {
    "gateway": frozenset({"id", "org", "site", "org_path", "data_dir", "control_socket", "lang"}),
    "room": frozenset({"id"}),
    "serial": frozenset({"id", "port", "baud", "bits", "parity", "stop", "quiet_ms", "echo"}),
    "ble": frozenset({"id", "adapter", "silence_s"}),
    "receiver": frozenset({"id", "host", "port", "silence_s"}),
    "mqtt": frozenset({"id", "mqtt_version", "allow_plain", "advert_form"}),
    "device": frozenset(
        {"id", "model", "link", "address", "room", "allow_plain", "calls_on", "alarms_on", "every_s"}
        | {"baud", "bits", "parity", "stop", "ct", "pt"}
    ),
    "destination": frozenset({"id", "profile", "types", "finish", "reconnect_spread_s", "parameters", "path"}),
    "path": frozenset({"mqtt_version"}),
    "outbox": frozenset({"max_mb", "linger_s"}),
}
_WAYS_IN: Final = ("path", "mqtt")  # whose url is told as scheme, host and port
_KEY: Final = re.compile(r"[a-z_]{1,32}")
# What a mapping may say in words of ours; taken out, they would take ids and sentences with them ("call").
_OUR_WORDS: Final = frozenset({*QUANTITIES, *(kind.value for kind in SignalKind)})
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/*-]{1,256}")
_LOG_FIELDS: Final = (
    "timestamp", "level", "event", "code", "subject", "turn", "lasted_s", "device", "link", "destination", "epoch",
    "version", "sequence", "reason", "where", "limit", "limit_s", "path", "state", "kind", "room", "presses", "verified",
)  # fmt: skip
_ASCII: Final = re.compile(r"[\x20-\x7e]*")
_JOURNAL: Final = re.compile(r"(?P<at>\S+) \S+ (?P<who>[^:\[]+)(?:\[\d+\])?: (?P<said>.*)", re.DOTALL)
_HARMLESS: Final = (
    re.compile(r"Traceback \(most recent call last\):"),
    re.compile(r'  File "[\x20-\x7e]+", line \d+, in [\w<>.]+'),
    re.compile(
        r"(Starting|Started|Stopping|Stopped|Failed to start|Deactivated) [\x20-\x7e]*daycare-gateway[\x20-\x7e]*"
    ),
    re.compile(r"daycare-gateway\.service: [\x20-\x7e]+"),
)
_EXCEPTION: Final = re.compile(r"(?P<kind>[\w.]+(?:Error|Exception|Interrupt|Exit))\b.*")
_PATTERNS: Final = (
    (re.compile(r"(?<=://)[^/\s@]*@"), f"{REMOVED}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}"), rf"\1 {REMOVED}"),
    (
        re.compile(r"(?i)\b(pass(?:word|wd)?|token|secret|api[_-]?key)(\"?\s*[=:]\s*)(?!\(removed\))\S+"),
        rf"\1\2{REMOVED}",
    ),
    (re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{32,}(?![0-9A-Za-z])"), REMOVED),
    (re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)"), REMOVED),  # GB 11643: a citizen's identity number
    (re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)"), REMOVED),  # a mobile telephone in China
)


class Redactor:
    """Takes out of texts what one site must keep to itself."""

    def __init__(self, config: Path, settings: Settings | None) -> None:
        self._raw = _parsed(config)
        found = set(_quoted(config))
        if self._raw is not None:
            # A login name that is also the gateway's id is told as that id.
            found = set(_private(self._raw)) - set(_tellable(self._raw)) - _OUR_WORDS
        found |= set(_secrets(settings))
        # The longest first: a name within a name must not leave the rest of it.
        self._known = sorted((one for one in found if _is_long_enough(one)), key=len, reverse=True)

    def text(self, shown: str) -> str:
        """Return a text without what is known and without what looks like a credential or a person's number."""
        for one in self._known:
            shown = shown.replace(one, REMOVED)
        for pattern, by in _PATTERNS:
            shown = pattern.sub(by, shown)
        return shown

    def value(self, item: Any) -> Any:
        """Return a JSON value with every text of it redacted, names of fields included."""
        if isinstance(item, str):
            return self.text(item)
        if isinstance(item, Mapping):
            return {self.text(str(name)): self.value(one) for name, one in item.items()}
        if isinstance(item, (list, tuple, set, frozenset)):
            return [self.value(one) for one in item]
        return item

    def configuration(self) -> Any:
        """Return the configuration with everything removed that is not known to be harmless; None: it is no TOML."""
        return None if self._raw is None else self.value(_told(self._raw))

    def log_line(self, line: str) -> str:
        """Return a line of the journal: time, program, and of what it said only what is known to be harmless."""
        found = _JOURNAL.fullmatch(line)
        if found is None:
            return self.text(_plain(line))
        return self.text(f"{found['at']} {found['who']}: {_said(found['said'])}")


# -- the configuration -------------------------------------------------------------------------------------------


def _parsed(config: Path) -> Mapping[str, Any] | None:
    import tomllib

    try:
        with config.open("rb") as file:
            return tomllib.loads(file.read(_MAX_CONFIG_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def _quoted(config: Path) -> Iterator[str]:
    """Yield what stands between quotes in a file that is no TOML: any of it may be a secret."""
    try:
        with config.open("rb") as file:
            source = file.read(_MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except OSError:
        return
    for quoted in re.findall(r"\"([^\"\n]+)\"|'([^'\n]+)'", source):
        yield from (one for one in quoted if one)


def _tables(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Yield (table, key, value) of everything that stands in the file."""
    for name, content in raw.items():
        entries = content if isinstance(content, list) else [content]
        for entry in entries:
            if not isinstance(entry, Mapping):
                yield "", name, entry
                continue
            for key, value in entry.items():
                if name == "destination" and key == "path":
                    paths = value if isinstance(value, list) else [value]
                    yield from (("path", k, v) for one in paths if isinstance(one, Mapping) for k, v in one.items())
                    yield from (("", key, one) for one in paths if not isinstance(one, Mapping))
                else:
                    yield name, key, value


def _tellable(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield every string that may be told."""
    for table, key, value in _tables(raw):
        if key in _TELLABLE.get(table, ()):
            yield from (one for one in _strings(value) if _WORD.fullmatch(one))


def _private(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield every string that may not be told, in the forms in which it may turn up."""
    for table, key, value in _tables(raw):
        if table in _WAYS_IN and key == "url":
            yield from _of_url(str(value))
            continue
        tellable = key in _TELLABLE.get(table, ())
        for one in _strings(value):
            # What a reference names is no secret; what stands in the place of one may be.
            if re.fullmatch(r"(credential|file):[\x21-\x7e]+", one) and key in ("key", "password", "token"):
                continue
            if not (tellable and _WORD.fullmatch(one)) and key not in ("ca_file", "cert_file", "key_file"):
                yield from _forms(one)


def _of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        given = (parts.username, parts.password, parts.query, parts.fragment)
    except ValueError:
        given = (url, None, "", "")
    yield from (one for one in given if one)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if not _KEY.fullmatch(str(name)):
                yield str(name)
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _told(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables with what may be told; of the rest, that it is there."""
    told: dict[str, Any] = {}
    for name, content in raw.items():
        if name not in _TELLABLE:
            continue
        if isinstance(content, list):
            told[name] = [_entry(name, one) for one in content if isinstance(one, Mapping)]
        elif isinstance(content, Mapping):
            told[name] = _entry(name, content)
    return told


def _entry(table: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    known = _TELLABLE[table]
    for key, value in entry.items():
        if table == "destination" and key == "path" and isinstance(value, list):
            told[key] = [_entry("path", one) for one in value if isinstance(one, Mapping)]
        elif table in _WAYS_IN and key == "url":
            told[key] = _place(str(value))
        elif key in known and _is_harmless(value):
            told[key] = value
        elif _WORD.fullmatch(key):
            told[key] = REMOVED
    return told


def _place(url: str) -> str:
    """Return scheme, host and port of an URL, nothing else."""
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.hostname}:{parts.port or ''}"
    except ValueError:
        return REMOVED
    return shown if _WORD.fullmatch(shown) else REMOVED


def _is_harmless(value: object) -> bool:
    if isinstance(value, (bool, int, float)):
        return True
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return isinstance(value, list) and all(_is_harmless(one) for one in value)


# -- secrets -----------------------------------------------------------------------------------------------------


def _secrets(settings: Settings | None) -> Iterator[str]:
    """Yield the content of every secret that can be read here."""
    if settings is None:
        return
    for way in settings.ways_in:
        if way.username and way.password:
            pair = f"{way.username}:{_text(way.password)}"
            yield base64.b64encode(pair.encode()).decode("ascii")
    for one in settings.secrets:
        yield from _forms(_text(one))


def _text(secret: Secret) -> str:
    try:
        return secret.text()
    except SecretError:
        return ""


def _forms(secret: str) -> Iterator[str]:
    """Yield a string in the forms that it is written, sent and logged in."""
    for one in {secret, secret.strip(), quote(secret, safe=""), secret.lower(), secret.upper()}:
        yield one
        yield json.dumps(one)[1:-1]
        if one:
            yield base64.b64encode(one.encode()).decode("ascii")
            yield one.encode().hex()


def _is_long_enough(one: str) -> bool:
    return len(one) >= (MIN_ASCII if one.isascii() else MIN_OTHER)


# -- the journal -------------------------------------------------------------------------------------------------


def _said(said: str) -> str:
    try:
        entry = json.loads(said)
    except (ValueError, RecursionError):
        return _plain(said)
    if not isinstance(entry, dict):
        return _plain(said)
    told = {name: entry[name] for name in _LOG_FIELDS if name in entry and _may_log(entry[name])}
    exception = entry.get("exception")
    if isinstance(exception, str):
        told["exception"] = [_plain(one) for one in exception.splitlines()]
    return json.dumps(told, ensure_ascii=False)


def _may_log(value: object) -> bool:
    if isinstance(value, str):
        return _ASCII.fullmatch(value) is not None
    return value is None or isinstance(value, (bool, int, float))


def _plain(line: str) -> str:
    """Return a line of a known shape as it is, an exception as its kind; of everything else how long it was."""
    if any(shape.fullmatch(line) for shape in _HARMLESS):
        return line
    exception = _EXCEPTION.fullmatch(line.strip())
    return f"{exception['kind']}: {REMOVED}" if exception else f"({len(line)} characters removed)"


def redacted_lines(redactor: Redactor, lines: Iterable[str]) -> str:
    """Return lines of the journal as one text."""
    return "\n".join(redactor.log_line(one) for one in lines) + "\n"
