"""The alarm on site: who waits for help now, and what staff can hear and see of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from drivers.kit import RAISABLE, RAISING
from gateway.diagnose.report import Line, bad, ok, skipped, unknown
from gateway.diagnose.site import Probe, Site
from gateway.texts.amounts import Age

# alarms.md: after 60 s without a person's acknowledgement the first escalation is due.
UNACKNOWLEDGED_S: Final = 60.0
_KINDS: Final = frozenset(kind.value for kind in RAISING | RAISABLE)


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("alarm", "open-alarms", "GW-ANN-02", _open)
    yield Probe("alarm", "annunciator", "GW-ANN-01", _annunciator)


def _annunciator(_site: Site) -> Iterable[Line]:
    return [skipped("GW-ANN-01", "annunciator", "@diagnose.why-no-annunciator")]


def _open(site: Site) -> Iterable[Line]:
    if site.daemon.runs:
        alarms = [_of_daemon(one) for one in site.daemon.alarms]
    elif site.inspection is not None:
        alarms = [found for text in site.inspection.open_alarms if (found := _of_database(text)) is not None]
    elif site.database is None:
        return [skipped("GW-ANN-02", "open-alarms", "@diagnose.why-not-begun")]
    else:
        return [unknown("GW-ANN-02", "open-alarms", "@diagnose.why-no-figure")]
    if not alarms:
        return [ok("GW-ANN-02", "open-alarms", "0")]
    return [_alarm(site, alarm) for alarm in alarms]


def _alarm(site: Site, alarm: Mapping[str, Any]) -> Line:
    raised_ms = alarm["raised_ms"]
    age = Age(max(0.0, (site.now_ms - raised_ms) / 1000))
    facts = {
        "kind": f"@alarm.{alarm['kind']}" if alarm["kind"] in _KINDS else alarm["kind"],
        "room": alarm["room"], "age": age, "id": str(alarm["id"])[:18], "state": f"@alarm.{alarm['state']}",
    }  # fmt: skip
    waits = alarm["state"] == "ACTIVE" and age.seconds > UNACKNOWLEDGED_S
    make = bad if waits else ok
    threshold = f"<= {UNACKNOWLEDGED_S:.0f} s" if alarm["state"] == "ACTIVE" else ""
    return make(
        "GW-ANN-02", "open-alarms", "@diagnose.alarm-now", threshold=threshold, subject=alarm["device"], **facts
    )


def _of_daemon(one: Mapping[str, Any]) -> Mapping[str, Any]:
    raised = datetime.fromisoformat(str(one["raised_at"])).timestamp() * 1000
    return {**one, "raised_ms": raised}


def _of_database(text: str) -> Mapping[str, Any] | None:
    """Read what the alarm book stored; None where that cannot be read."""
    try:
        alarm = json.loads(text)
        return {**alarm, "raised_ms": int(alarm["raised"]["wall_ms"]), "room": alarm["room"], "kind": alarm["kind"]}
    except (ValueError, KeyError, TypeError):
        return None
