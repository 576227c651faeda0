"""What people see of the daemon's answers. Nothing is judged here: severities, titles and remedies come with the answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.layout import Cell, Paper, clean, size
from gateway.errors import Finding
from gateway.problems import describe
from gateway.texts import text

if TYPE_CHECKING:  # the validation library is not loaded to ask for the state
    from gateway.config import Settings

_LANES: Final = ("A", "B", "C", "D")
# A UUIDv7 tells its millisecond and twelve random bits in so many characters: short enough to type, unique enough.
_SHORT_ID: Final = 18
_CARE_STYLES: Final = {"ACTIVE": "problem", "ACKED": "warning"}


def findings(paper: Paper, found: Sequence[Finding], file: str, settings: Settings | None = None) -> None:
    """Print everything that is wrong in a configuration, each with its place, meaning and remedy; then what runs."""
    stops = any(finding.effect == "fatal" for finding in found)
    for finding in found:
        description = describe(finding.code, paper.lang, finding.where, finding.facts)
        value = f" = {finding.value}" if finding.value else ""
        line = "" if finding.line is None else f" {paper.say('line', line=finding.line)}"
        paper.print(f"{clean(finding.file)}{line}  {clean(finding.where)}{clean(value)}".rstrip())
        mark = paper.style(text(f"severity.{finding.severity}", paper.lang), finding.severity)
        paper.print(f"  {mark} {finding.code}  {clean(description.title)}")
        if not finding.facts.get("follows"):  # what it would mean if the entry ran is not true of one that does not
            paper.print(f"  {paper.say('meaning')}{clean(description.meaning)}")
        paper.print(f"  {paper.say('remedy')}{clean(description.remedy)}")
        if finding.effect == "fatal" or not stops:  # what would still run is no comfort when nothing does
            paper.print(f"  {paper.say('effect')}{clean(_effect(finding, paper.lang))}")
        paper.print()
    problems = sum(finding.severity == "problem" for finding in found)
    if not found:
        paper.print(paper.style(paper.say("config-clean", file=file), "good"))
        return
    if stops:
        paper.print(paper.say("config-stops"))
    elif settings is not None:
        counts = {"devices": len(settings.devices), "destinations": len(settings.destinations)}
        paper.print(paper.say("config-runs", **counts))
    paper.print(paper.say("config-summary", file=file, problems=problems, warnings=len(found) - problems))


def profiles(paper: Paper, settings: Settings) -> None:
    """Print how each platform is spoken to that is not spoken to natively: what its answers prove, what it cannot do."""
    from gateway.profiles import load_profile

    for one in settings.destinations:
        profile = load_profile(one.profile)
        if not profile.is_native:
            lacks = ", ".join(paper.word("profile-lacks", name) for name in profile.lacks)
            facts = {"destination": one.id, "profile": profile.name, "lacks": lacks}
            key = "config-profile-L2" if one.finish == "L2" else "config-profile-L1"
            paper.print(paper.say(key, **facts))


def _effect(finding: Finding, lang: str) -> str:
    key = f"effect.{finding.effect}"
    if finding.facts.get("follows"):
        key = "effect.follows"
    elif finding.effect == "kept" and not set(finding.where) & set(".["):  # of the file, not of an entry
        key = "effect.runs"
    return text(key, lang, **finding.facts)


def findings_json(paper: Paper, found: Sequence[Finding]) -> None:
    """Print everything that is wrong in a configuration as one JSON array."""
    rows: list[dict[str, object]] = []
    for one in found:
        description = describe(one.code, paper.lang, one.where, one.facts)
        row: dict[str, object] = {"code": one.code, "severity": one.severity, "effect": one.effect}
        row |= {"file": one.file, "line": one.line, "where": one.where, "value": one.value}
        meaning = "" if one.facts.get("follows") else description.meaning
        row |= {"title": description.title, "meaning": meaning, "remedy": description.remedy}
        rows.append(row)
    as_json(paper, rows)


def problem(paper: Paper, code: str, subject: str, facts: Mapping[str, object]) -> None:
    """Print why a command was not done: one line, and what to do. A refusal's own words say it best."""
    description = describe(code, paper.lang, subject, facts)
    mark = paper.style(text("severity.problem", paper.lang), "problem")
    paper.print(f"{mark} {clean(code)}  {clean(facts.get('message') or description.title)}")
    for key, sentence in (("meaning", description.meaning), ("remedy", description.remedy)):
        if sentence:
            paper.print(f"  {paper.say(key)}{clean(sentence)}")


def status(paper: Paper, answer: Mapping[str, Any]) -> None:
    """Print the state of the gateway: what is wrong first, then alarms, platforms, links, devices."""
    gateway = answer["gateway"]
    names = {name: clean(gateway[name]) for name in ("id", "org", "site")}
    clock = paper.say("clock-synced" if answer["clock"]["state"] == "synced" else "clock-unsynced")
    paper.print(paper.style(paper.say("gateway", **names, version=clean(answer["version"])), "head"))
    paper.print(paper.say("running", uptime=paper.age(answer["uptime_s"]), pid=answer["pid"], clock=clock))
    _problems(paper, answer["problems"])
    opened = int(answer["alarms"]["open"])
    paper.print()
    shown = paper.say("alarms-open", count=opened) if opened else paper.say("alarms-none")
    paper.print(paper.style(shown, "problem" if opened else "good"))
    _destinations(paper, answer["destinations"])
    _outbox_line(paper, answer["outbox"])
    _links(paper, answer["links"])
    _buses(paper, answer.get("buses", ()))
    _devices(paper, answer["devices"])


def outbox(paper: Paper, answer: Mapping[str, Any], *, dead: bool) -> None:
    """Print how many events wait for whom, and the dead letters when asked."""
    _outbox_line(paper, answer)
    _destinations(paper, answer["destinations"])
    if not dead:
        return
    letters = answer.get("dead") or []
    if not letters:
        paper.print()
        paper.print(paper.style(paper.say("no-dead"), "good"))
        return
    paper.heading("dead")
    dead_letters(paper, letters)


def dead_letters(paper: Paper, letters: Sequence[Mapping[str, Any]]) -> None:
    """Print what platforms refused, one a line."""
    names = ("destination", "sequence", "type", "device", "code", "reason")
    rows = [
        [*(clean(letter.get(name)) for name in names), local_time(letter.get("at")), clean(letter.get("id"))]
        for letter in letters
    ]
    paper.table((*names, "at", "id"), rows)


def alarms(paper: Paper, answer: Sequence[Mapping[str, Any]]) -> None:
    """Print alarms, with ids as short as they stay unique among those shown."""
    if not answer:
        paper.print(paper.style(paper.say("no-alarms"), "good"))
        return
    shown = short_ids([str(alarm["id"]) for alarm in answer])
    columns = ("id", "state", "kind", "room", "bed", "device", "raised", "presses", "who", "delivery")
    paper.table(columns, [_alarm(paper, alarm, name) for alarm, name in zip(answer, shown, strict=True)])


def attended(paper: Paper, answer: Mapping[str, Any]) -> None:
    """Print what was done to an alarm, so that whoever did it sees that it was the right one."""
    told = {name: clean(answer[name]) for name in ("id", "device", "by")}
    told["kind"] = paper.word("alarm", answer["kind"])
    told["place"] = "/".join(clean(answer[name]) for name in ("room", "bed") if answer[name]) or "-"
    told["before"] = clean(answer["acked_by"])
    if answer["state"] == "CLOSED":
        paper.print(paper.say("closed", **told))
        paper.print(paper.say("closed-acked-by" if told["before"] else "closed-unacked", **told))
    elif answer["changed"]:
        paper.print(paper.say("acked", **told))
    else:
        paper.print(paper.style(paper.say("acked-before", **told), "warning"))


def local_time(written: object, *, clock_only: bool = False) -> str:
    """Return an RFC 3339 time as people at the site read it; what is none, as it is."""
    try:
        moment = datetime.fromisoformat(str(written)).astimezone()
    except (ValueError, OverflowError, OSError):
        return clean(written)
    if clock_only:
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def as_json(paper: Paper, answer: object, *, compact: bool = False) -> None:
    """Print an answer as JSON: readable, or one line."""
    paper.print(json.dumps(answer, ensure_ascii=False, indent=None if compact else 2))


def short_ids(ids: Sequence[str]) -> list[str]:
    """Return each id cut as short as all of them stay different, at least 18 characters."""
    length = _SHORT_ID
    longest = max((len(name) for name in ids), default=0)
    while length < longest and len({name[:length] for name in ids}) < len(set(ids)):
        length += 1
    return [name[:length] for name in ids]


def worst(problems: Iterable[Mapping[str, Any]]) -> int:
    """Return the exit status for a list of problems: 0 none, 1 no worse than a warning, 2 a problem."""
    severities = {str(one.get("severity")) for one in problems}
    if "problem" in severities:
        return 2
    return 1 if "warning" in severities else 0


def _problems(paper: Paper, problems: Sequence[Mapping[str, Any]]) -> None:
    paper.heading("problems")
    if not problems:
        paper.print(f"  {paper.style(paper.say('no-problems'), 'good')}")
    shown = [one for one in problems if not one.get("hidden")]
    for one in shown:
        severity, code = clean(one["severity"]), clean(one["code"])
        title, remedy = one.get("title") or "", one.get("remedy") or ""
        if isinstance(one.get("facts"), dict):  # then it can be said in the language of who asks
            description = describe(code, paper.lang, str(one["subject"]), one["facts"])
            title, remedy = description.title, description.remedy
        mark = paper.style(paper.word("severity", severity), severity)
        subject = clean(one["subject"])
        place = "" if subject in title else f"{subject}  "
        paper.print(f"  {mark} {code}  {place}{clean(title)}  ({paper.age(one['since_s'])})")
        if remedy:
            paper.print(f"       {paper.say('remedy')}{clean(remedy)}")
    if len(shown) < len(problems):
        paper.print(f"  {paper.style(paper.say('hidden', count=len(problems) - len(shown)), 'dim')}")


def _destinations(paper: Paper, destinations: Sequence[Mapping[str, Any]]) -> None:
    paper.heading("destinations")
    columns = ("id", "state", "pending", "inflight", "accepted", "resent", "dead", "last")
    paper.table(columns, [_destination(paper, one) for one in destinations])


def _destination(paper: Paper, one: Mapping[str, Any]) -> list[Cell]:
    up = one["connected"] is True
    dead = int(one["dead_letters"])
    last = one["last_accepted_s"]
    return [
        clean(one["id"]),
        (paper.say("online" if up else "offline"), "good" if up else "problem"),
        _lanes(one["pending"]),
        clean(one["inflight"]),
        clean(one["accepted"]),
        clean(one["resent"]),
        (str(dead), "problem" if dead else "good"),
        paper.say("never") if last is None else paper.say("ago", age=paper.age(last)),
    ]


def _outbox_line(paper: Paper, answer: Mapping[str, Any]) -> None:
    paper.heading("outbox")
    shown = {"sequence": answer["sequence"], "bytes": size(answer["bytes"]), "unstored": answer.get("unstored", 0)}
    paper.print(f"  {paper.say('outbox-line', **shown)}  (A/B/C/D {_lanes(answer['rows'])})")
    paper.print(f"  {paper.style(paper.say('lanes'), 'dim')}")


def _buses(paper: Paper, buses: Sequence[Mapping[str, Any]]) -> None:
    """Print what the lines show on which meters are asked: one that was cut short by noise is found here."""
    if not buses:
        return
    paper.heading("buses")
    names = ("asks", "timeouts", "foreign", "trimmed", "unasked", "switches")
    rows: list[list[Cell]] = [
        [
            clean(one["id"]),
            *(clean(one[name]) for name in names),
            paper.say("listen-yes" if one["echo"] else "listen-no"),
        ]
        for one in buses
    ]
    paper.table(("id", *names, "echo"), rows)


def _links(paper: Paper, links: Sequence[Mapping[str, Any]]) -> None:
    paper.heading("links")
    rows: list[list[Cell]] = []
    for one in links:
        hearing = one["hearing"] is True
        state = paper.say("hearing" if hearing else "deaf")
        rows.append(
            [
                clean(one["id"]),
                clean(one["kind"]),
                (state, "good" if hearing else "problem"),
                paper.age(one["since_s"]),
                clean(one["problem"] or "-"),
                clean(one["dropped"]),
            ]
        )
    paper.table(("id", "kind", "state", "since", "code", "dropped"), rows)


def _devices(paper: Paper, devices: Sequence[Mapping[str, Any]]) -> None:
    paper.heading("devices")
    rows: list[list[Cell]] = []
    for one in devices:
        last = one["last_heard_s"]
        rejects = " ".join(f"{clean(reason)}:{clean(count)}" for reason, count in one["rejects"].items())
        rows.append(
            [
                clean(one["id"]),
                clean(one["model"]),
                _heard_by(one),
                clean(one["room"] or "-"),
                (paper.say("never"), "warning") if last is None else paper.say("ago", age=paper.age(last)),
                clean(one["heard"]),
                clean(one["events"]),
                clean(one["repeats"]),
                (rejects, "warning") if rejects else "-",
                f"{clean(one['polls'])}/{clean(one['polls_failed'])}" if one["polls"] or one["polls_failed"] else "-",
                (clean(one["alarm"])[:_SHORT_ID], "problem") if one["alarm"] else "-",
            ]
        )
    columns = ("id", "model", "link", "room", "heard", "count", "events", "repeats", "rejects", "polls", "alarm")
    paper.table(columns, rows)


def _heard_by(device: Mapping[str, Any]) -> str:
    """Name the radios that hear a device, the best first; its link where nobody does yet, or where it is on a wire."""
    return ", ".join(clean(one["link"]) for one in device.get("receivers") or ()) or clean(device["link"])


def _alarm(paper: Paper, alarm: Mapping[str, Any], shown_id: str) -> list[Cell]:
    state = clean(alarm["state"])
    kind = paper.word("alarm", alarm["kind"])
    if not alarm["verified"]:
        kind = f"{kind} ({paper.say('unverified')})"
    who = " / ".join(clean(alarm[name]) for name in ("acked_by", "closed_by") if alarm.get(name))
    why = f" ({clean(alarm['why'])})" if alarm.get("why") else ""
    delivery = (alarm.get("delivery") or {}).items()
    return [
        shown_id,
        (paper.word("alarm", state), _CARE_STYLES.get(state, "dim")),
        kind,
        clean(alarm["room"] or "-"),
        clean(alarm["bed"] or "-"),
        clean(alarm["device"]),
        local_time(alarm["raised_at"]),
        clean(alarm["presses"]),
        f"{who}{why}" or "-",
        ", ".join(f"{clean(name)}: {paper.word('delivery', level)}" for name, level in delivery) or "-",
    ]


def _lanes(counts: Mapping[str, Any]) -> str:
    return "/".join(clean(counts.get(lane, 0)) for lane in _LANES)
