"""Dead letters at the command line: listed with their reasons, shown whole, sent again; and what was delivered, again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway import control_client as client
from gateway.cli import reports
from gateway.cli.layout import Paper, clean

WELL: Final = 0
WARNED: Final = 1
NOT_DONE: Final = 3
TRIES: Final = 3
PAUSE_S: Final = 1.0
SHOWN_RANGES: Final = 20


def run(arguments: argparse.Namespace, paper: Paper, *, control: Path) -> int:
    """Do one of the four. Raises ControlError."""
    destination = arguments.destination
    if arguments.action == "dead":
        answer = client.ask(control, "outbox.dead", destination=destination)
        if arguments.json:
            reports.as_json(paper, answer)
        else:
            _list(paper, answer)
    elif arguments.action == "show":
        answer = client.ask(control, "outbox.show", id=arguments.id, destination=destination)
        if arguments.json:
            reports.as_json(paper, answer)
        else:
            _show(paper, answer)
    elif arguments.action == "requeue":
        return _requeue(arguments, paper, control)
    else:
        return _replay(arguments, paper, control)
    return WELL


def _list(paper: Paper, answer: Mapping[str, Any]) -> None:
    letters = answer["dead"]
    if not letters:
        paper.print(paper.style(paper.say("no-dead"), "good"))
        return
    reports.dead_letters(paper, letters)
    for destination, count in answer["counts"].items():
        paper.print(paper.say("dead-counts", destination=clean(destination), count=count))
    if sum(answer["counts"].values()) > len(letters):
        paper.print(paper.say("dead-more", count=len(letters)))


def _show(paper: Paper, answer: list[Mapping[str, Any]]) -> None:
    for letter in answer:
        told = {name: clean(letter[name]) for name in ("destination", "sequence", "code", "reason")}
        paper.print(paper.say("letter-refused", at=reports.local_time(letter["at"]), **told))
    # What a device wrote must not play with the terminal: JSON escapes it.
    for line in json.dumps(answer[0]["event"], ensure_ascii=False, indent=2).splitlines():
        paper.print(clean(line))


def _requeue(arguments: argparse.Namespace, paper: Paper, control: Path) -> int:
    """Everything of a platform goes in as many requests as it takes; what is refused again meanwhile is left alone."""
    if bool(arguments.id) == arguments.all or (arguments.all and not arguments.destination):
        errors = Paper(paper.lang, sys.stderr)
        errors.print(errors.say("requeue-what"))
        return NOT_DONE
    count, left, upto, tries = 0, 0, None, TRIES
    while True:
        answer = client.ask(
            control, "outbox.requeue", id=arguments.id, all=arguments.all, destination=arguments.destination, upto=upto
        )
        count, left, upto = count + answer["requeued"], answer["left"], answer["upto"]
        tries = TRIES if answer["requeued"] else tries - 1
        if not left or not tries:
            break
        if not answer["requeued"]:  # what went before is still on its way
            time.sleep(PAUSE_S)
    paper.print(paper.say("requeued", count=count) if count else paper.say("requeued-none"))
    if left:
        paper.print(paper.say("requeue-late", left=left))
        return NOT_DONE
    return WELL


def _replay(arguments: argparse.Namespace, paper: Paper, control: Path) -> int:
    """What is no longer there is said: the platform must not wait for it."""
    seqs = {"from": arguments.seq_from, "to": arguments.seq_to}
    answer = client.ask(control, "outbox.replay", destination=arguments.destination, **seqs)
    paper.print(paper.say("replayed", count=answer["replayed"], destination=clean(answer["destination"])))
    missing = answer["missing"]
    if not missing:
        return WELL
    ranges = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in missing[:SHOWN_RANGES])
    more = "" if len(missing) <= SHOWN_RANGES else " ..."
    paper.print(paper.style(paper.say("replay-missing", ranges=f"{ranges}{more}"), "warning"))
    return WARNED
