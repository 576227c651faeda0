"""The way to each platform, each of its paths rung by rung, up to what its application has accepted.

Up to TLS this process climbs by itself; what is above is the daemon's to tell, whose session stands, or that of
`--full`. Of a certificate that is near its end, and of a platform whose clock is not ours, the climb learns on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from gateway.config import Destination, DestinationPath
from gateway.diagnose.checks import clock
from gateway.diagnose.ladder import PLATFORM, RUNGS, SITE, Goal, Ladder, climb
from gateway.diagnose.machine import Timely
from gateway.diagnose.rehearsal import LIMIT_S, Rehearsal, rehearse
from gateway.diagnose.report import Line, Verdict, bad, ok, skipped, unknown, verdict_of
from gateway.diagnose.site import Probe, Site
from gateway.problems import problem
from gateway.profiles import load_profile
from gateway.texts.amounts import Age
from gateway.tls import Tls

CLIMB_S: Final = 5.8
SKEW_S: Final = 30.0
CERTIFICATE_WARNING_DAYS: Final = 30
CERTIFICATE_PROBLEM_DAYS: Final = 7
_WELL: Final = "GW-NET-10"
_ABOVE: Final = RUNGS[5:]
# What the daemon says of a destination that a ladder tells better.
_SESSION: Final = (*(f"GW-NET-{n:02d}" for n in range(1, 8)), "GW-PLT-04")
_ABOVE_TLS: Final = ("GW-NET-04", "GW-NET-05", "GW-NET-06", "GW-PLT-04")


def probes(site: Site) -> Iterator[Probe]:
    """Yield the probes of this section: one for each destination."""
    destinations = site.settings.destinations if site.settings else ()
    limit_s = CLIMB_S + (LIMIT_S if site.is_full else 0)
    for one in destinations:
        yield Probe("network", "way", _WELL, lambda there, one=one: _destination(there, one), one.id, limit_s)  # type: ignore[misc]  # a default keeps the loop's value
    if not destinations:
        yield Probe("network", "way", _WELL, _none)


def _none(_site: Site) -> Iterable[Line]:
    return [skipped(_WELL, "way", "@diagnose.why-no-destination")]


def _destination(site: Site, destination: Destination) -> Iterable[Line]:
    climbs = [
        Timely(lambda at=at, path=path: _way(site, destination, path, at), "diagnose-path")  # type: ignore[misc]  # as above
        for at, path in enumerate(destination.path)
    ]
    limit_s = CLIMB_S + (LIMIT_S if site.is_full else 0) - 0.5
    ladders: list[Ladder | None] = []
    for one in climbs:
        try:
            ladders.append(one.result(limit_s))
        except TimeoutError:
            ladders.append(None)
    stands = any(one is not None and not one.code for one in ladders)
    for at, (path, ladder) in enumerate(zip(destination.path, ladders, strict=True)):
        subject = destination.id if len(destination.path) == 1 else f"{destination.id}/{at + 1}"
        if ladder is None:
            yield unknown(_WELL, "way", "@diagnose.why-late", subject=subject, limit=Age(limit_s))
            continue
        yield _line(destination, path, ladder, subject, stands=stands)
        yield from _learned(site, path, ladder, subject)


def _line(destination: Destination, path: DestinationPath, ladder: Ladder, subject: str, *, stands: bool) -> Line:
    facts: dict[str, Any] = {
        "host": path.host, "port": path.port, "ladder": ladder, "whose": ladder.whose, "detail": ladder.detail,
        "destination": destination.id, "transport": path.transport,
    }  # fmt: skip
    if not ladder.code and ladder.is_standby:
        return ok(_WELL, "way", "@diagnose.way-standby", subject=subject, **facts)
    if not ladder.code and ladder.ends_early:
        return unknown(_WELL, "way", "@diagnose.why-no-session", subject=subject, **facts)
    if not ladder.code:
        return ok(_WELL, "way", "@diagnose.way-now", subject=subject, **facts)
    line = bad(ladder.code, "way", "@diagnose.way-now", subject=subject, **facts)
    covers = frozenset((code, whose) for code in (*_SESSION, ladder.code) for whose in (destination.id, subject))
    # Where another path stands nobody goes without help; it must be mended all the same.
    verdict = Verdict.WARNING if stands else verdict_of(problem(ladder.code).severity)
    return replace(line, covers=covers, verdict=verdict)


# -- the way -----------------------------------------------------------------------------------------------------


def _way(site: Site, destination: Destination, path: DestinationPath, at: int) -> Ladder:
    tls = Tls(path.ca_file, path.cert_file, path.key_file) if path.tls else None
    synchronised = clock.is_synchronised(site)
    goal = Goal(
        path.host, path.port, tls, http=path.transport == "http", clock_set=synchronised is None or synchronised[0],
        machine=site.machine,
    )  # fmt: skip
    ladder = climb(goal)
    if ladder.code:
        return ladder
    # A rehearsal speaks natively: to a platform that does not it would prove nothing.
    if site.is_full and site.settings is not None and load_profile(destination.profile).is_native:
        return _with_rehearsal(ladder, rehearse(site.settings, path, destination.id, finish=destination.finish))
    return _with_session(ladder, site, destination, at)


def _with_rehearsal(ladder: Ladder, done: Rehearsal) -> Ladder:
    for name in _ABOVE[: done.reached]:
        ladder = ladder.step(name, done.ms if name == _ABOVE[-1] else None)
    if not done.code:
        return ladder
    whose = SITE if done.code.startswith("GW-CFG") else PLATFORM
    return ladder.broken(_ABOVE[done.reached], done.code, whose, done.detail)


def _with_session(ladder: Ladder, site: Site, destination: Destination, at: int) -> Ladder:
    """Put on top what the daemon knows of its own session, if it is over this path."""
    status = site.daemon.one_of("destinations", destination.id)
    told = _told(site, destination.id)
    paths = status.get("paths") or []
    state = paths[at].get("state") if at < len(paths) else ("in use" if at == 0 else "standby")
    if status.get("connected") is True and state == "in use":
        ladder = ladder.step(_ABOVE[0])
        if status.get("last_accepted_s") is None:
            return ladder.skipped(_ABOVE[1]).skipped(_ABOVE[2])
        return ladder.step(_ABOVE[1]).step(_ABOVE[2])
    down = str(paths[at].get("code") or "") if state == "down" else ""
    if down in _ABOVE_TLS:
        return ladder.broken(_ABOVE[0], down, PLATFORM, _detail(told) if told and told["code"] == down else "")
    if status.get("connected") is True:
        return replace(ladder, is_standby=True)
    if told is not None and state != "standby":
        return ladder.broken(_ABOVE[0], str(told["code"]), PLATFORM, _detail(told))
    return ladder.skipped(_ABOVE[0]).skipped(_ABOVE[1]).skipped(_ABOVE[2])


def _detail(told: Mapping[str, Any]) -> str:
    facts = told.get("facts")
    return str(facts.get("detail") or "") if isinstance(facts, dict) else ""


def _told(site: Site, destination: str) -> Mapping[str, Any] | None:
    """Return what the daemon says of its session with a destination beyond TLS."""
    return next(
        (one for one in site.daemon.of("problems") if one.get("subject") == destination and one["code"] in _ABOVE_TLS),
        None,
    )


# -- what was learned on the way ---------------------------------------------------------------------------------


def _learned(site: Site, path: DestinationPath, ladder: Ladder, subject: str) -> Iterator[Line]:
    now = datetime.fromtimestamp(site.now_ms / 1000, UTC)
    if ladder.certificate_ends is not None:
        yield certificate("certificate-platform", ladder.certificate_ends, now, subject, path.host)
    if ladder.platform_time is not None:
        skew = (now - ladder.platform_time.astimezone(UTC)).total_seconds()
        make = ok if abs(skew) <= SKEW_S else bad
        value, threshold = f"{skew:+.0f} s", f"<= {SKEW_S:.0f} s"
        yield replace(
            make("GW-CLK-04", "skew", value, threshold=threshold, subject=subject, skew=f"{skew:+.0f}"),
            section="platform",
        )


def certificate(what: str, ends: datetime, now: datetime, subject: str, name: str) -> Line:
    """Return the line about a certificate's end; `now` and `ends` in UTC."""
    days = (ends - now).days
    facts = {"days": days, "ends": f"{ends:%Y-%m-%d}", "name": name}
    value, threshold = "@diagnose.certificate-days", f"> {CERTIFICATE_WARNING_DAYS}"
    if days > CERTIFICATE_WARNING_DAYS:
        return replace(ok("GW-SEC-10", what, value, threshold=threshold, subject=subject, **facts), section="security")
    line = bad("GW-SEC-10", what, value, threshold=threshold, subject=subject, **facts)
    verdict = Verdict.PROBLEM if days <= CERTIFICATE_PROBLEM_DAYS else Verdict.WARNING
    return replace(line, section="security", verdict=verdict)
