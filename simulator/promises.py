"""What a gateway could get away with when only the outcome is counted: judged by when things happened, not by luck.

- What the platform took while its answers were lost must come again: a gateway that takes PUBACK for acceptance sends once.
- A numbered line may be acknowledged only after its event was recorded.
- Every kill leaves a gap on every link, covering the dead time; and a gap excuses no more than that.
- What staff did with an alarm reaches the platform as well as the alarm itself.

Limits: an answer may have left 50 ms before the mute took hold; a gap may begin 3 s before a kill (the sign of life is
written once a second, later on a loaded machine) and end 10 s after the new start, or later where nothing was heard on its
link until then (a start on a loaded machine takes its time); it goes on over the next kill that comes within 1 s of that; a
run that ends within 5 s of a start, or whose devices are gone within 5 s of the first link's return, is not asked for its
gap: what is not there any more cannot be heard again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulator.corruption import LINK, Announced, corruptions, count_corruptions
from simulator.findings import ALARM, GAP, RAISED, TELEMETRY, Book, Taken, moment
from simulator.ledgers import Decision, Ledgers
from simulator.true_time import JUMP
from simulator.ways import MUTED, healed

MUTE_SLACK_S: Final = 0.05
OFFSET_STEP_S: Final = 0.001  # an offset is told in whole milliseconds
GAP_SLACK_S: Final = 0.05
BEGIN_SLACK_S: Final = 0.5  # on a busy machine a line may be open a moment after the devices' clock has begun
EARLY_GAP_S: Final = 3.0
DESTROYED_GAP_S: Final = 10.0
LATE_GAP_S: Final = 10.0
SETTLE_S: Final = 5.0
# Faults under which nothing can be written; after each the sign of life may need a moment to be kept again.
DISK_FAULTS: Final = ("begin disk-full", "begin disk-hangs", "begin disk-read-only", "begin start-read-only")
DISK_BACK_S: Final = 2.0
TOLD_S: Final = 1.0
ACKED: Final = "ACKED"

Window = tuple[float, float]


def judge_promises(
    ledgers: Ledgers,
    taken: Taken,
    gaps: Sequence[Mapping[str, Any]],
    windows: Mapping[str, Sequence[Window]],
    book: Book,
    *,
    destroyed: Announced,
) -> None:
    """Enter what is against the promises in the book. `gaps` as accepted; `windows` are their times merged, by link.

    `destroyed` is what this destination was told of events that went with a database.
    """
    if not count_corruptions(ledgers):  # what was lost with a database does not come again
        _unconfirmed(ledgers, taken, book)
    _acked_early(ledgers, taken, book)
    if taken.wants(GAP):
        _silent_gaps(ledgers, taken, windows, book)
        _wide_gaps(ledgers, taken, gaps, book)
    if taken.wants(RAISED):
        _untold(ledgers, taken, destroyed, book)


def spans(ledgers: Ledgers, begin: str, end: str) -> list[Window]:
    """From each `begin` fault of the gateway to the next `end`; one never ended is left out."""
    concerned = [fault for fault in ledgers.faults if not fault.platform]
    ends = [fault.t for fault in concerned if fault.fault == end]
    begun = [fault.t for fault in concerned if fault.fault == begin]
    return [(t, ends[at]) for t in begun if (at := bisect_right(ends, t)) < len(ends)]


def _unconfirmed(ledgers: Ledgers, taken: Taken, book: Book) -> None:
    arrivals = Counter(one.id for one in ledgers.decisions.get(taken.destination, ()))
    faults = [fault for fault in ledgers.faults if fault.platform in ("", taken.destination)]
    for muted in (fault for fault in faults if fault.fault == "mute"):
        end = healed(faults, muted)
        holds = [one.t for one in faults if (one.fault, one.way) == (MUTED, muted.way) and muted.t <= one.t < end]
        begin = min(holds, default=muted.t) + MUTE_SLACK_S
        for one in taken.first.values():
            # What no disk had taken goes with its process: it was never accepted from its source.
            over_it = bool(one.sequence) and muted.way in (0, one.way) and begin < one.t < end
            if over_it and arrivals[one.id] < 2 and end != float("inf"):
                book.offence("unconfirmed", one.device, {"id": one.id, "type": one.type, "t": one.t})


def _acked_early(ledgers: Ledgers, taken: Taken, book: Book) -> None:
    begun = min(taken.first.values(), key=lambda one: one.t).streamid if taken.first else ""
    for one in taken.first.values():
        if count_corruptions(ledgers) and one.streamid != begun:  # recorded a second time, perhaps: it was brought back
            continue
        n = one.data.get("n")
        acked = ledgers.acked_at.get((one.device, n)) if isinstance(n, int) else None
        recorded = _recorded(one, ledgers)
        # recordedtime is taken before the commit and cut to milliseconds: an honest acknowledgement is always later.
        if acked is not None and recorded is not None and acked < recorded:
            book.offence("acked_early", one.device, {"id": one.id, "n": n, "acked": acked, "recorded": recorded})


def _recorded(one: Decision, ledgers: Ledgers) -> float | None:
    """When an event was recorded, by the machine's clock: the gateway may go by another, some milliseconds off."""
    recorded, clock, boot = moment(one.event.get("recordedtime")), one.data.get("clock"), ledgers.scenario.get("boot")
    jumped = any(fault.fault == JUMP for fault in ledgers.faults)  # then it has been put right already
    if recorded is None or jumped or not isinstance(clock, Mapping) or not isinstance(boot, Mapping):
        return recorded
    offset_ms = clock.get("offset_ms")
    if clock.get("boot") != boot["id"] or not isinstance(offset_ms, int):
        return recorded
    return recorded - (offset_ms / 1000 - float(boot["zero"])) - OFFSET_STEP_S


def _silent_gaps(ledgers: Ledgers, taken: Taken, windows: Mapping[str, Sequence[Window]], book: Book) -> None:
    links = sorted({str(device["link"]) for device in ledgers.scenario.get("devices", ()) if device.get("link")})
    last = max((one.t for one in taken.first.values()), default=0.0)
    lost = windows.get(LINK, ()) if count_corruptions(ledgers) else ()  # the gap itself may have gone with a database
    gone = min((fault.t for fault in ledgers.faults if fault.fault == "stop"), default=float("inf"))
    for killed, started in spans(ledgers, "kill", "start"):
        if last < started + SETTLE_S:
            continue
        ends = {link: _told_until((*windows.get(link, ()), *lost), killed, started) for link in links}
        back = min((end for end in ends.values() if end is not None), default=started)
        if gone < back + SETTLE_S:
            continue
        for link in links:
            if ends[link] is None:
                book.offence("silent_gaps", "", {"link": link, "killed": killed, "started": started})


def dead_times(ledgers: Ledgers, taken: Taken) -> dict[str, list[Window]]:
    """Return, by link, from each kill to what was heard first after the new start: nothing could be heard in between."""
    kills, heard = spans(ledgers, "kill", "start"), _heard(ledgers, taken)
    links = {str(device.get("link")) for device in ledgers.scenario.get("devices", ())}
    return {link: [(killed, _heard_again(started, heard.get(link, ()))) for killed, started in kills] for link in links}


def _heard_again(started: float, heard: Sequence[float]) -> float:
    later = bisect_right(heard, started)
    return heard[later] if later < len(heard) else started + LATE_GAP_S


def _told_until(told: Sequence[Window], killed: float, started: float) -> float | None:
    """Until when a dead time was told; None where it was not."""
    return min((b for a, b in told if a - GAP_SLACK_S <= killed and started <= b + GAP_SLACK_S), default=None)


def _wide_gaps(ledgers: Ledgers, taken: Taken, gaps: Sequence[Mapping[str, Any]], book: Book) -> None:
    zero = ledgers.scenario.get("start")
    if not isinstance(zero, int | float):
        return
    kills, heard = spans(ledgers, "kill", "start"), _heard(ledgers, taken)
    for gap in gaps:
        first, last = gap["from"], gap["to"]
        if gap["reason"] != "restart" or first is None or last is None or first <= zero >= last - BEGIN_SLACK_S:
            continue
        times = heard[str(gap["link"])]
        dead = ((killed, _deaf_until(started, times)) for killed, started in _with_disk(ledgers, kills, times))
        if not any(_earliest(ledgers, killed, until) <= first and last <= until for killed, until in dead):
            book.offence("wide_gaps", "", {"link": gap["link"], "from": first, "to": last})


def _earliest(ledgers: Ledgers, killed: float, until: float) -> float:
    """Since when a gateway may say that it was deaf: what told when it last heard may have been destroyed with its pages."""
    is_destroyed = any(killed <= t <= until for t in corruptions(ledgers))
    return killed - (DESTROYED_GAP_S if is_destroyed else EARLY_GAP_S)


def _heard(ledgers: Ledgers, taken: Taken) -> Mapping[str, Sequence[float]]:
    """When something was heard on each link, as far as it was accepted. An alarm that is told anew was not heard then."""
    links = {str(device["id"]): str(device.get("link")) for device in ledgers.scenario.get("devices", ())}
    heard: dict[str, list[float]] = defaultdict(list)
    for one in taken.first.values():
        at = moment(one.event.get("time"))
        is_heard = one.type.startswith(TELEMETRY) or (one.type == RAISED and one.data.get("retold") is not True)
        if at is not None and is_heard:
            heard[links.get(one.device, "")].append(at)
    for times in heard.values():
        times.sort()
    return heard


def _deaf_until(started: float, heard: Sequence[float]) -> float:
    """Until when a gateway may say that it was deaf: for a while after it was started, or until it heard something."""
    later = bisect_right(heard, started)
    return max(started + LATE_GAP_S, heard[later] if later < len(heard) else float("inf"))


def _with_disk(ledgers: Ledgers, dead: Sequence[Window], heard: Sequence[float]) -> list[Window]:
    """Let a dead time begin when the disk before it gave up, and with the one before it when that was just over.

    From then on nothing that was heard could be kept; and a life so short may have ended before it could tell of the former.
    """
    begun = [fault.t for fault in ledgers.faults if fault.fault in DISK_FAULTS]
    over = [fault.t for fault in ledgers.faults if fault.fault in {f"end {name[6:]}" for name in DISK_FAULTS}]
    found: list[Window] = []
    for killed, started in dead:
        before = [t for t in begun if t <= killed and not any(t < end < killed - DISK_BACK_S for end in over)]
        first = min([killed, *before])
        if found and first <= _deaf_until(found[-1][1], heard) + TOLD_S:  # killed again before it could tell of it
            first = found[-1][0]
        found.append((first, started))
    return found


def _untold(ledgers: Ledgers, taken: Taken, destroyed: Announced, book: Book) -> None:
    told: dict[str, set[str]] = {}
    for one in taken.first.values():
        if one.type.startswith(ALARM):
            told.setdefault(_alarm(one), set()).add(one.type.removeprefix(ALARM).partition(".")[0])
            if one.data.get("retold") is True and one.data.get("state") == ACKED and count_corruptions(ledgers):
                told[_alarm(one)].add(
                    "acknowledged"
                )  # told anew as it stands: the event of its own went with a database
    for alarm in ledgers.alarms or ():
        wanted = {"acknowledged"} if alarm.get("acked_by") else set()
        wanted |= {"closed"} if alarm.get("state") == "CLOSED" else set()
        missing = wanted - told.get(str(alarm["id"]), set())
        gone = {what for what in missing if _is_announced(ledgers, str(alarm["id"]), what, destroyed)}
        book.counts["corrupted"] += len(gone)
        missing -= gone
        if missing:
            book.offence("untold", str(alarm.get("device", "")), {"alarm": alarm["id"], "missing": sorted(missing)})


def _is_announced(ledgers: Ledgers, alarm: str, what: str, destroyed: Announced) -> bool:
    """Was this destination told that the event went with a database? Its number is known when another destination got it."""
    numbers = [
        (one.streamid, one.sequence)
        for decisions in ledgers.decisions.values()
        for one in decisions
        if _alarm(one) == alarm and one.type.startswith(f"{ALARM}{what}.")
    ]
    return any(destroyed.names(*one) for one in numbers) if numbers else bool(destroyed.numbers)


def _alarm(decision: Decision) -> str:
    return str(decision.event.get("correlationid", ""))
