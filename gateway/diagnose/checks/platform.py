"""What each platform has taken: when last, what waits for it, what it refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.config import Destination
from gateway.diagnose.checks.storage import LANES
from gateway.diagnose.report import Line, bad, ok, skipped, unknown
from gateway.diagnose.site import Probe, Site
from gateway.profiles import load_profile
from gateway.texts import LANGUAGES, text
from gateway.texts.amounts import Age

# northbound.md: an application's answer is waited for 10 s; an alarm that nobody took for 30 s is undelivered.
ACCEPTED_S: Final = 30.0


def probes(site: Site) -> Iterator[Probe]:
    """Yield the probes of this section: one for each destination."""
    destinations = site.settings.destinations if site.settings else ()
    for one in destinations:
        yield Probe("platform", "platform", "GW-PLT-01", lambda there, one=one: _platform(there, one), one.id)  # type: ignore[misc]  # a default keeps the loop's value
    if not destinations:
        yield Probe("platform", "platform", "GW-PLT-01", _none)


def _none(_site: Site) -> Iterable[Line]:
    return [skipped("GW-PLT-01", "platform", "@diagnose.why-no-destination")]


def _platform(site: Site, destination: Destination) -> Iterable[Line]:
    status = site.daemon.one_of("destinations", destination.id)
    if not status:
        return [_stored(site, destination)]
    pending = status["pending"]
    last_s = status.get("last_accepted_s")
    facts = {
        "profile": destination.profile, "last": None if last_s is None else Age(float(last_s)),
        "pending": sum(int(pending.get(lane, 0)) for lane in LANES), "lanes": _lanes(pending),
        "accepted": status.get("accepted"), "rejected": status.get("rejected") or None, "finish": destination.finish,
        "level": "@diagnose.level-l1" if destination.finish == "L1" else None,
        "lacks": _lacks(destination),
    }  # fmt: skip
    value = "@diagnose.platform-now"
    # What waits is no trouble of the platform's while the way there is broken, which another line tells.
    waits = status.get("connected") is True and int(pending.get("A", 0)) > 0
    silent_s = float(last_s) if last_s is not None else float(site.daemon.status.get("uptime_s") or 0)
    make = bad if waits and silent_s > ACCEPTED_S else ok
    threshold = f"<= {ACCEPTED_S:.0f} s"
    return [make("GW-PLT-01", "platform", value, threshold=threshold, subject=destination.id, **facts)]


def _lacks(destination: Destination) -> dict[str, str] | None:
    """What the platform cannot be told or cannot tell, in both languages; None where nothing is missing."""
    lacks = load_profile(destination.profile).lacks
    if not lacks:
        return None
    return {lang: ", ".join(text(f"profile-lacks.{name}", lang) for name in lacks) for lang in LANGUAGES}


def _stored(site: Site, destination: Destination) -> Line:
    pending = site.inspection.pending.get(destination.id) if site.inspection else None
    why = "@diagnose.why-no-daemon" if pending is None else "@diagnose.why-waiting"
    lanes = None if pending is None else _lanes(pending)
    return unknown("GW-PLT-01", "platform", why, subject=destination.id, lanes=lanes, profile=destination.profile)


def _lanes(pending: object) -> str:
    known = pending if isinstance(pending, dict) else {}
    return "/".join(str(known.get(lane, 0)) for lane in LANES)
