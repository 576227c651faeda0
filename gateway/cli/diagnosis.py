"""How a diagnosis lies on paper: sections with the mark of their worst line, and under what is wrong what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.cli.layout import Paper, clean, width
from gateway.diagnose.report import Line, Report, Section, Verdict, read_more
from gateway.texts import text
from gateway.texts.amounts import Age

_STYLES: Final = {
    Verdict.OK: "good", Verdict.SKIPPED: "dim", Verdict.UNKNOWN: "notice", Verdict.WARNING: "warning",
    Verdict.PROBLEM: "problem",
}  # fmt: skip
_SHORT: Final = 100  # columns; a longer value of a line that is well is folded


def show(paper: Paper, report: Report) -> None:
    """Print a diagnosis: every section, then what to do first and what to read out on the telephone."""
    mode = text("diagnose.full" if report.is_full else "diagnose.quick", paper.lang)
    at = f"{report.at:%Y-%m-%d %H:%M:%S}"
    gateway = clean(report.gateway) or _say(paper, "nameless")
    head = _say(paper, "head", gateway=gateway, at=at, mode=mode, took=f"{report.took_s:.1f}")
    paper.print(paper.style(head, "head"))
    for section in report.sections:
        _section(paper, section)
    _summary(paper, report)


def _say(paper: Paper, key: str, /, **values: object) -> str:
    return text(f"diagnose.{key}", paper.lang, **values)


def _mark(paper: Paper, verdict: Verdict) -> str:
    word = text(f"verdict.{verdict}", paper.lang)
    longest = max(width(text(f"verdict.{one}", paper.lang)) for one in Verdict)
    return paper.style(word, _STYLES[verdict]) + " " * (longest - width(word))


def _section(paper: Paper, section: Section) -> None:
    paper.print()
    title = paper.style(text(f"section.{section.name}", paper.lang), "head")
    paper.print(f"[{_mark(paper, section.verdict).rstrip()}] {title}")
    for line in section.lines:
        _line(paper, line)


def _line(paper: Paper, line: Line) -> None:
    head = f"  {_mark(paper, line.verdict)}  {line.code}  "
    subject = clean(line.subject)
    if line.verdict.is_bad:
        title = clean(line.description(paper.lang).title)
        place = "" if subject in title else f"{subject}  "
        paper.print(f"{head}{place}{title}")
        _details(paper, line)
        return
    what = _say(paper, line.what)
    shown = clean(line.words(line.value or line.why, paper.lang))
    who = f"{what} {subject}".strip()
    said = f"{who}{'：' if paper.lang == 'zh' else ': '}{shown}" if shown else who
    _folded(said, paper.print, first=head)


def _details(paper: Paper, line: Line) -> None:
    lang = paper.lang
    if line.hidden_by:
        paper.print(f"      {paper.style(_say(paper, 'follows', cause=clean(line.hidden_by)), 'dim')}")
        return
    described = line.description(lang)
    rows = [
        ("measured", line.words(line.value, lang)),
        ("wanted", line.words(line.threshold, lang)),
        ("since", "" if line.since_s is None else Age(line.since_s).say(lang)),
    ]
    for key, value in rows:
        if value:
            paper.print(f"      {_say(paper, key)}{clean(value)}")
    for label, sentence in ((paper.say("meaning"), described.meaning), (paper.say("remedy"), described.remedy)):
        if sentence:
            paper.print(f"      {label}{clean(sentence)}")
    paper.print(f"      {paper.style(_say(paper, 'read-more') + read_more(line.code), 'dim')}")


def _folded(said: str, put: Callable[[str], None], *, first: str) -> None:
    """Print a line, folded where a terminal would: at spaces, and under its own beginning."""
    rows = [""]
    for word in said.split(" "):
        longer = f"{rows[-1]} {word}" if rows[-1] else word
        if rows[-1] and width(longer) > _SHORT:
            rows.append(word)
        else:
            rows[-1] = longer
    put(first + rows[0])
    for row in rows[1:]:
        put(f"      {row}")


def _summary(paper: Paper, report: Report) -> None:
    paper.print()
    first = report.first
    if first is None:
        unknown = sum(line.verdict is Verdict.UNKNOWN for line in report.lines)
        said = _say(paper, "well-but", count=unknown) if unknown else _say(paper, "all-well")
        paper.print(paper.style(said, "notice" if unknown else "good"))
    else:
        described = first.description(paper.lang)
        line = f"{_say(paper, 'first')}{first.code}  {clean(described.title)}"
        paper.print(paper.style(line, _STYLES[first.verdict]))
        paper.print(f"  {paper.say('remedy')}{clean(described.remedy)}")
        if len(report.causes) > 1:
            paper.print(_say(paper, "more-to-do", count=len(report.causes) - 1))
    paper.print(_say(paper, "phone", code=report.phone_code))
