"""The paths of one destination: which of them can be used, and whether the way in fits each.

A path is judged alone: one with nowhere to go, or that would be plain text, is set aside, and the others carry on. One
whose credentials or certificates cannot be had still runs: the login fails, loudly, and the events wait. Limit: 4 paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from gateway.config import findings as found
from gateway.config.findings import Findings
from gateway.config.positions import KeyPath
from gateway.config.secret import Secret
from gateway.config.settings import MAX_PATHS, DestinationPath, Mqtt, Receiver
from gateway.config.tables import Entry, read_entry, tables
from gateway.errors import SecretError

_SCHEMES: Final = ("mqtts", "mqtt", "https", "http")
_FILES: Final = ("ca_file", "cert_file", "key_file")
# What RFC 3986 lets stand in a URL without escapes, apart from "@", which is dealt with before. Chinese punctuation
# looks so alike that a message must name it.
_URL: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]!$&'()*+,;=%]+")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?|[0-9a-f:.]+")
_DOTS: Final = re.compile(r"(^|/)\.{1,2}(/|$)")
# RFC 6750, 2.1, and a little more: what a header can carry without a doubt.
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


def settle_paths(table: Mapping[str, object], at: KeyPath, notes: Findings) -> tuple[DestinationPath, ...]:
    """Return the paths of the destination `table` at `at` that can be used, in the order of the file."""
    entries = list(tables(table, "path", at, notes))
    if not entries:
        if "path" not in table:
            notes.add(found.MISSING_KEY, (*at, "path"), effect=found.SET_ASIDE, expected="@expect.destination-path")
        return ()
    usable: list[DestinationPath] = []
    ends: dict[object, KeyPath] = {}
    for number, (place, raw) in enumerate(entries):
        if number >= MAX_PATHS:
            notes.add(found.TOO_MANY_PATHS, place, effect=found.SET_ASIDE, most=MAX_PATHS)
            continue
        entry = read_entry(DestinationPath, raw, place, notes, vital=frozenset({"url"}), effect=found.SET_ASIDE)
        sound = entry.fits("url") and good_url(entry, notes)
        check_secrets(entry, notes)
        check_certificates(entry, notes)
        if sound:
            check_login(entry, notes)
            if _differs(entry, ends, notes):
                usable.append(entry.value)
    if not usable:
        notes.set_aside(at)
        if len(entries) > 1:  # of a single one it is plain
            notes.add(found.NO_PATH, (*at, "path"), effect=found.SET_ASIDE, count=len(entries))
    return tuple(usable)


def good_url(entry: Entry[DestinationPath] | Entry[Mqtt], notes: Findings, *, plain: bool = False) -> bool:
    """Can anybody go there, and not in plain text, unless `plain` says that it may be?"""
    path = entry.value
    at = (*entry.at, "url")
    if "@" in path.url:
        notes.add(found.SECRET_IN_URL, at, effect=found.SET_ASIDE)
        return False
    reason = _fault(path.url)
    if reason == "@hint.url-query":  # it may hold a secret, so it is not shown
        notes.add(found.BAD_URL, at, effect=found.SET_ASIDE, reason=reason)
        return False
    if reason:
        notes.add(found.BAD_URL, at, effect=found.SET_ASIDE, value=path.url, reason=reason)
        return False
    if not path.tls and not path.loopback and not plain:
        scheme = urlsplit(path.url).scheme
        shown = f"[{path.host}]" if ":" in path.host else path.host
        secure = f"mqtts://{shown}:8883" if path.transport == "mqtt" else f"https://{shown}"
        facts: dict[str, Any] = {"host": path.host, "scheme": scheme, "secure": secure}
        notes.add(found.PLAIN_TEXT_REFUSED, at, effect=found.SET_ASIDE, value=path.url, **facts)
        return False
    return True


def _fault(url: str) -> str:
    """Return why a URL is not the address of a platform, as the key of a text; "" where it is one."""
    if not _URL.fullmatch(url):
        return "@hint.url-characters"
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket too few
        return "@hint.url-host"
    if parts.scheme not in _SCHEMES or not url.lower().startswith(f"{parts.scheme}://"):
        return "@hint.url-scheme"
    if not _HOST.fullmatch(parts.hostname or ""):
        return "@hint.url-host"
    if not _has_good_port(parts):
        return "@hint.url-port"
    if parts.query or parts.fragment:
        return "@hint.url-query"
    if parts.scheme.startswith("mqtt") and parts.path.strip("/"):
        return "@hint.url-no-path"
    return "@hint.url-characters" if _DOTS.search(parts.path) else ""


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return False


def _differs(entry: Entry[DestinationPath], ends: dict[object, KeyPath], notes: Findings) -> bool:
    """Two paths to one end are one path: they fail together."""
    path = entry.value
    first = ends.setdefault((path.transport, path.host, path.port, path.base), entry.at)
    if first == entry.at:
        return True
    line = notes.line((*first, "url"))
    notes.add(found.SAME_PATH, (*entry.at, "url"), effect=found.SET_ASIDE, value=path.url, other_line=line)
    return False


def check_login(entry: Entry[DestinationPath] | Entry[Mqtt], notes: Findings) -> None:
    """Point out what cannot work, or does nothing, of what stands there for the login."""
    path = entry.value
    written = {key for key in ("username", "password", "token") if getattr(path, key, None) or not entry.fits(key)}

    def misfit(key: str, reason: str) -> None:
        notes.add(found.LOGIN, (*entry.at, key), effect=found.KEPT, reason=reason)

    if "token" in written and path.transport == "mqtt":
        misfit("token", "@hint.token-mqtt")
    elif "token" in written and len(written) > 1:
        misfit("token", "@hint.token-and-login")
    if "password" in written and "username" not in written:
        misfit("password", "@hint.password-alone")
    if "username" in written and not written & {"password", "token"}:
        notes.add(found.NO_PASSWORD, (*entry.at, "username"), effect=found.KEPT)
    if path.transport == "http" and path.tls and not path.loopback and not written and path.cert_file is None:
        notes.add(found.NO_LOGIN, (*entry.at, "url"), effect=found.KEPT)
    if ":" in path.username and path.transport == "http":  # RFC 7617, 2
        misfit("username", "@hint.colon")
    if path.mqtt_version != "auto" and path.transport == "http":
        _no_effect(entry, "mqtt_version", "@hint.not-mqtt", notes)
    for key in _FILES:
        if getattr(path, key) is not None and not path.tls:
            _no_effect(entry, key, "@hint.not-encrypted", notes)


def _no_effect(entry: Entry[DestinationPath] | Entry[Mqtt], key: str, reason: str, notes: Findings) -> None:
    notes.add(found.NO_EFFECT, (*entry.at, key), effect=found.KEPT, reason=reason)


def check_secrets(entry: Entry[DestinationPath] | Entry[Mqtt] | Entry[Receiver], notes: Findings) -> None:
    """Tell of each secret that cannot be had, or used."""
    for key in ("password", "token") if not isinstance(entry.value, Receiver) else ("key",):
        secret: Secret | None = getattr(entry.value, key, None)
        if secret is None:
            continue
        at = (*entry.at, key)
        try:
            content = secret.text()
        except SecretError as refusal:
            notes.add(refusal.code, at, effect=found.KEPT, **refusal.facts)
            continue
        _closed(secret.home, at, notes, too_open=secret.too_open)
        if key == "token" and not _TOKEN.fullmatch(content):
            reason = "@hint.token-characters"
        elif not content.isprintable():
            reason = "@hint.password-characters"
        else:
            continue
        facts: dict[str, Any] = {"reference": secret.reference, "path": str(secret.home), "reason": reason}
        notes.add(found.SECRET_UNUSABLE, at, effect=found.KEPT, **facts)


def check_certificates(entry: Entry[DestinationPath] | Entry[Mqtt], notes: Findings) -> None:
    """Tell of each file that cannot be used."""
    path = entry.value
    for key in _FILES:
        file = getattr(path, key)
        if file is not None:
            reason = _unusable(file)
            if reason:
                at = (*entry.at, key)
                notes.add(found.CERTIFICATE_UNUSABLE, at, effect=found.KEPT, path=str(file), reason=reason)
    if path.key_file is not None:
        _closed(path.key_file, (*entry.at, "key_file"), notes, too_open=_open_to_others(path.key_file))
    for one, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(path, one) is not None and getattr(path, other) is None and entry.fits(other):
            notes.add(found.MISSING_KEY, (*entry.at, other), effect=found.KEPT, expected="@expect.path")


def _closed(file: Path, at: KeyPath, notes: Findings, *, too_open: bool) -> None:
    if too_open:
        notes.add(found.SECRET_TOO_OPEN, at, effect=found.KEPT, path=str(file))


def _open_to_others(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o066)
    except OSError:
        return False


def _unusable(file: Path) -> str:
    try:
        if not file.is_file():
            return "@hint.not-a-file" if file.exists() else "@hint.missing"
        with file.open("rb") as opened:
            return "" if opened.read(1) else "@hint.empty"
    except PermissionError:
        return "@hint.no-permission"
    except OSError as error:
        return error.strerror or type(error).__name__
