"""What a destination's profile demands of it: a file that can be read, paths that it is spoken over, values that it needs.

A destination whose profile nobody can use is set aside, and its events wait. A level that the platform cannot tell is not
waited for: then delivered is done, and that is said. Limit: one path where the platform gives the client id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gateway.config import findings as found
from gateway.config.findings import Findings, close_to
from gateway.config.positions import KeyPath
from gateway.config.settings import Destination, DestinationPath
from gateway.config.tables import Entry
from gateway.errors import ProfileError
from gateway.profiles import SHIPPED, Profile, load_profile


def profile_of(entry: Entry[Destination], notes: Findings) -> Profile | None:
    """Return the profile of a destination; None when nobody knows it or its file is wrong: each fault is a finding."""
    name = entry.value.profile
    at = (*entry.at, "profile")
    if name not in SHIPPED and not name.startswith("/"):
        notes.add(
            found.UNKNOWN_PROFILE, at, effect=found.SET_ASIDE, value=name, known=SHIPPED, **close_to(name, SHIPPED)
        )
        return None
    try:
        return load_profile(name)
    except ProfileError as error:
        for fault in error.faults:
            facts: dict[str, Any] = {"path": name, "place": fault.at, "reason": fault.reason, "detail": fault.detail}
            notes.add(found.BAD_PROFILE, at, effect=found.SET_ASIDE, value=name, **facts)
        return None


def paths_fit_for(
    profile: Profile,
    entry: Entry[Destination],
    paths: tuple[DestinationPath, ...],
    notes: Findings,
    table: Mapping[str, object],
) -> tuple[DestinationPath, ...]:
    """Return the paths over which a profile is spoken, if the destination gives it what it needs."""
    given, at = entry.value.parameters, (*entry.at, "parameters")
    missing = tuple(name for name in profile.parameters if not given.get(name))
    if missing:
        notes.add(found.PROFILE_PARAMETERS, at, effect=found.SET_ASIDE, profile=profile.name, missing=missing)
        return ()
    for name in given:
        if name not in profile.parameters:
            facts: dict[str, Any] = {"reason": "@hint.profile-no-parameter"}
            notes.add(found.NO_EFFECT, (*at, name), effect=found.KEPT, **facts)
    if profile.transport == "any":
        return paths
    wrong = [one for one in paths if one.transport != profile.transport]
    _left_out(found.PROFILE_TRANSPORT, wrong, profile, at=entry.at, notes=notes, table=table)
    usable = tuple(one for one in paths if one not in wrong)
    if paths and not usable:
        notes.set_aside(entry.at)
    return usable


def _left_out(
    code: str, paths: Sequence[DestinationPath], profile: Profile, *, at: KeyPath, notes: Findings,
    table: Mapping[str, object],
) -> None:  # fmt: skip
    urls = [path.url for path in paths]
    written = table.get("path")
    for number, one in enumerate(written if isinstance(written, list) else ()):
        url = one.get("url") if isinstance(one, dict) else None
        if url in urls:
            facts = {"profile": profile.name, "transport": profile.transport, "url": url}
            notes.add(code, (*at, "path", number, "url"), effect=found.SET_ASIDE, **facts)


def finish_of(
    profile: Profile, entry: Entry[Destination], notes: Findings, table: Mapping[str, object]
) -> Literal["L1", "L2"]:
    """Return the level at which an event is done: a profile cannot give more than its platform tells."""
    if profile.level == "L1" and entry.value.finish == "L2":
        if "finish" in table:
            notes.add(found.NO_EFFECT, (*entry.at, "finish"), effect=found.KEPT, reason="@hint.profile-l1")
        return "L1"
    return entry.value.finish
