"""`gateway meters` as a person uses it: the month, the files beside it, and the comparison with the dial."""

from __future__ import annotations

import argparse
import io
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import metering
from gateway.cli.arguments import parser
from gateway.cli.layout import Paper
from gateway.cli.metering import NotThere

ENERGY = "energy_active_import"
SOCKET = Path("/nowhere")
TODAY = date(2026, 12, 2)


class Daemon:
    """Answers as the gateway does: one meter with 30 days of 10 kWh, without the 4th."""

    def __init__(self) -> None:
        self.compared: list[dict[str, Any]] = []
        self.more: list[dict[str, Any]] = []
        self.registers = {ENERGY: "1312.00", f"{ENERGY} T1": "300.00"}

    def ask(self, _control: Path, op: str, **arguments: Any) -> Any:
        if op == "meters.list":
            t = datetime(2026, 12, 2, 9).astimezone().timestamp() * 1000
            told = {
                "model": "dlt645-2007",
                "room": "kitchen",
                "address": "1",
                "meter": "000000193600",
                "ratio": "1",
                "gone": False,
            }
            return [{"id": "meter-1", **told, "t": t, "registers": self.registers}, *self.more]
        if op == "meters.days":
            after = arguments.pop("after")
            if arguments["device"] != "meter-1":
                return {"rows": [], "next": None}
            rows = [self.row(date(2026, 11, day), f"{990 + 10 * day}.00") for day in range(1, 31) if day != 4]
            if arguments["first"] == "2026-12-01":
                rows = [self.row(date(2026, 12, 1), "1300.00")]
            behind = 0 if after is None else after[2]
            return {"rows": rows[behind : behind + 7], "next": ["", "", behind + 7] if behind + 7 < len(rows) else None}
        self.compared.append(arguments)
        rows = {
            name: {"dial": value, "read": "1312.00", "difference": "0.5"}
            for name, value in arguments["registers"].items()
        }
        return {"registers": rows}

    @staticmethod
    def row(day: date, value: str) -> dict[str, Any]:
        t = datetime(day.year, day.month, day.day, 0, 5).astimezone().timestamp() * 1000
        return {"day": day.isoformat(), "kind": "read", "t": t, "meter": "000000193600", "r": {ENERGY: value}}


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    daemon = Daemon()
    monkeypatch.setattr(metering.client, "ask", daemon.ask)
    return daemon


def arguments(*words: str) -> argparse.Namespace:
    return parser("en").parse_args(["meters", *words])


def test_the_month_is_printed_and_written_and_says_that_a_day_is_missing(daemon: Daemon, tmp_path: Path) -> None:
    out = io.StringIO()
    table, drawn = tmp_path / "nov.csv", tmp_path / "nov.svg"
    words = ("report", "--month", "2026-11", "--csv", str(table), "--svg", str(drawn))
    whole = metering.report(arguments(*words), Paper("en", out), control=SOCKET, today=TODAY)
    assert whole is False
    shown = out.getvalue()
    assert "300.00" in shown
    assert "meter-1: without a reading 2026-11-04 (1 d)" in shown
    assert table.read_text(encoding="utf-8-sig").count("missing") == 1
    assert drawn.read_text(encoding="utf-8").startswith("<svg ")


@pytest.mark.parametrize("words", [("--month", "november"), ("--month", "2026-11", "--device", "nobody")])
def test_what_is_not_there_is_said_in_one_line(daemon: Daemon, words: tuple[str, ...]) -> None:
    with pytest.raises(NotThere):
        metering.report(arguments("report", *words), Paper("zh", io.StringIO()), control=SOCKET, today=TODAY)


def test_the_dial_is_asked_for_total_by_total_and_the_difference_is_shown(daemon: Daemon) -> None:
    out, questions = io.StringIO(), []

    def answer(question: str) -> str:
        questions.append(question)
        return " 1312.5 "

    metering.compare(arguments("compare", "meter-1"), Paper("en", out), control=SOCKET, by="li", ask=answer)
    assert questions == ["active energy, import (kWh), read 1312.00, the dial: "]
    assert daemon.compared == [{"device": "meter-1", "registers": {ENERGY: "1312.5"}, "by": "li"}]
    assert "difference 0.5" in out.getvalue()


def test_a_dial_may_be_given_at_once(daemon: Daemon) -> None:
    words = ("compare", "meter-1", "--dial", f"{ENERGY} T1=300.2", "--dial", "1312.5")
    metering.compare(arguments(*words), Paper("zh", io.StringIO()), control=SOCKET, by="li", ask=lambda _: "")
    assert daemon.compared[0]["registers"] == {f"{ENERGY} T1": "300.2", ENERGY: "1312.5"}


@pytest.mark.parametrize("typed", ["", "abc", "-3", "nan", "1e99999999", "0e-99999999"])
def test_what_is_no_dial_is_not_stored(daemon: Daemon, typed: str) -> None:
    with pytest.raises(NotThere):
        metering.compare(
            arguments("compare", "meter-1"), Paper("zh", io.StringIO()), control=SOCKET, by="li", ask=lambda _: typed
        )  # fmt: skip
    assert daemon.compared == []


def test_a_meter_never_read_is_in_the_report_and_one_removed_only_where_it_was_read(daemon: Daemon) -> None:
    none = {"model": "", "room": "", "address": "", "meter": "", "ratio": "1", "t": 0, "registers": {}}
    daemon.more = [{"id": "meter-2", **none, "gone": False}, {"id": "meter-3", **none, "gone": True}]
    out = io.StringIO()
    metering.report(arguments("report", "--month", "2026-11"), Paper("en", out), control=SOCKET, today=TODAY)
    assert "meter-2: no reading in this month" in out.getvalue()
    assert "meter-3" not in out.getvalue()
    with pytest.raises(NotThere):
        metering.compare(
            arguments("compare", "meter-2"), Paper("en", out), control=SOCKET, by="li", ask=lambda _: "1"
        )  # fmt: skip


@pytest.mark.parametrize("month", ["2026-13", "9999-12", "0000-01", "0001-01", "x", "2027-01"])
def test_a_month_that_cannot_be_and_one_to_come_are_refused_by_name(daemon: Daemon, month: str) -> None:
    with pytest.raises(NotThere, match=month):
        metering.report(arguments("report", "--month", month), Paper("en", io.StringIO()), control=SOCKET, today=TODAY)


def test_a_meter_that_has_tariffs_only_is_asked_for_them(daemon: Daemon) -> None:
    daemon.registers = {f"{ENERGY} T1": "300.00", f"{ENERGY} T2": "200.00"}
    asked: list[str] = []
    metering.compare(
        arguments("compare", "meter-1"), Paper("en", io.StringIO()), control=SOCKET, by="li",
        ask=lambda question: asked.append(question) or "300.5",  # type: ignore[func-returns-value]  # a list's way
    )  # fmt: skip
    assert len(asked) == 2


def test_the_report_of_one_meter_knows_from_the_others_whether_the_gateway_was_away(daemon: Daemon) -> None:
    none = {"model": "", "room": "", "address": "", "meter": "", "ratio": "1", "t": 0, "registers": {}}
    daemon.more = [{"id": "meter-2", **none, "gone": False}]
    out = io.StringIO()
    words = ("report", "--month", "2026-11", "--device", "meter-1")
    metering.report(arguments(*words), Paper("en", out), control=SOCKET, today=TODAY)
    assert "2026-11-04 (1 d), nor of any other meter: the gateway was away" in out.getvalue()
    assert "meter-2" not in out.getvalue()
