"""What the service manager is told, over real sockets; and what withholds the sign of life, second by second."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.clock import Stamp
from gateway.watchdog import TRUST_S, Loop, ServiceManager, Watchdog


class HandClock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def stamp(self) -> Stamp:
        return Stamp(0, int(self.seconds * 1000), "boot-1")

    def monotonic(self) -> float:
        return self.seconds


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        return messages


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def systemd(path: str) -> Iterator[Systemd]:
    here = Systemd(path)
    yield here
    here.socket.close()


@pytest.fixture
def service(systemd: Systemd, path: str) -> Iterator[ServiceManager]:
    here = ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())})
    yield here
    here.close()


@dataclass
class Watched:
    """A watchdog over the loops that a test names, and what it was told of them."""

    watchdog: Watchdog
    clock: HandClock
    systemd: Systemd
    told: list[tuple[str, str, float]]
    steps: dict[str, object]

    def look(self, *, after_s: float = 1.0, times: int = 1) -> list[str]:
        """Look every so many seconds; return what the service manager heard."""
        heard = []
        for _ in range(times):
            self.clock.seconds += after_s
            self.watchdog.look()
            heard += self.systemd.heard()  # each time: such a socket holds few messages
        return heard


@dataclass
class Make:
    """Makes a watchdog over loops named with their limits; `steps` is what each gives."""

    service: ServiceManager
    systemd: Systemd
    words: str = "well"
    steps: dict[str, object] = field(default_factory=dict)

    def __call__(self, **limits: float) -> Watched:
        clock = HandClock()
        told: list[tuple[str, str, float]] = []
        self.steps.update(dict.fromkeys(limits, 0))

        def step(name: str) -> object:
            value = self.steps[name]
            if isinstance(value, Exception):
                raise value
            return value

        loops = [Loop(name, limit, lambda name=name: step(name)) for name, limit in limits.items()]  # type: ignore[misc]
        watchdog = Watchdog(
            self.service, loops, clock=clock, words=lambda: self.words,
            on_stall=lambda name, seconds: told.append(("on", name, seconds)),
            on_move=lambda name: told.append(("off", name, 0.0)),
        )  # fmt: skip
        return Watched(watchdog, clock, self.systemd, told, self.steps)


@pytest.fixture
def make(service: ServiceManager, systemd: Systemd) -> Make:
    return Make(service, systemd)


# -- the socket ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_is_told_over_both_kinds_of_socket(kind: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"daycare-test-{os.getpid()}-\u65e5"
    systemd = Systemd(name if kind == "path" else f"\0{name}")
    service = ServiceManager({"NOTIFY_SOCKET": name if kind == "path" else f"@{name}"})
    service.ready()
    service.status("a\nb  c")
    service.stopping()
    assert systemd.heard() == ["READY=1", "STATUS=a b c", "STOPPING=1"]
    service.close()
    systemd.socket.close()


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}, {"NOTIFY_SOCKET": "/" + 200 * "x"}]
)
def test_where_nobody_is_to_be_told_nothing_happens(environ: dict[str, str]) -> None:
    service = ServiceManager(environ)
    service.ready()
    service.status("well")
    service.alive()
    service.stopping()
    service.close()
    service.ready()


def test_an_unknown_kind_of_address_is_logged_and_left_alone() -> None:
    with capture_logs() as log:
        ServiceManager({"NOTIFY_SOCKET": "vsock:2:1234"}).ready()
    assert [(one["log_level"], one["address"]) for one in log] == [("warning", "vsock:2:1234")]


def test_the_status_is_said_when_it_changes_and_is_short(systemd: Systemd, service: ServiceManager) -> None:
    for words in ("一", "一", "x" * 500, "x" * 400):
        service.status(words)
    assert systemd.heard() == ["STATUS=一", f"STATUS={'x' * 200}"]


def test_what_could_not_be_said_is_said_with_the_next_sign_of_life(path: str) -> None:
    """systemd is being replaced, or reads too slowly: READY=1 that got lost would end the start by its time limit."""
    service = ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "10000000"})
    service.ready()
    service.status("old")
    service.status("new")
    systemd = Systemd(path)
    service.alive()
    service.alive()
    assert systemd.heard() == ["READY=1\nSTATUS=new\nWATCHDOG=1", "WATCHDOG=1"]
    service.close()
    systemd.socket.close()


def test_a_service_manager_that_does_not_read_is_not_waited_for(systemd: Systemd, service: ServiceManager) -> None:
    for _ in range(20_000):  # far beyond what a socket takes
        service.alive()
    service.ready()
    assert len(systemd.heard()) < 20_000
    service.alive()
    assert systemd.heard() == ["READY=1\nWATCHDOG=1"]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "999999999"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_a_sign_of_life_is_given_to_whoever_waits_for_ours(environ: dict[str, str], seconds: float | None) -> None:
    assert ServiceManager(environ).watchdog_s == seconds


def test_without_a_watchdog_no_sign_of_life_is_sent(systemd: Systemd, path: str) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": path})
    service.alive()
    assert systemd.heard() == []
    service.close()


@pytest.mark.parametrize(("usec", "every_s"), [("10000000", 1.0), ("2000000", 0.5), ("", 1.0)])
def test_signs_of_life_come_in_a_quarter_of_the_time_or_faster(path: str, usec: str, every_s: float) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": usec})
    watchdog = Watchdog(
        service, [], clock=HandClock(), words=lambda: "", on_stall=lambda _name, _s: None, on_move=lambda _name: None
    )
    assert watchdog.every_s == every_s
    service.close()


# -- the loops ----------------------------------------------------------------------------------------------------


def test_while_loops_step_or_have_nothing_to_do_each_look_is_a_sign_of_life(make: Make) -> None:
    watched = make(steps=3, rests=3)
    watched.steps["rests"] = None
    watched.clock.seconds += TRUST_S
    heard = []
    for n in range(60):
        watched.steps["steps"] = n
        heard += watched.look()
    assert heard == ["STATUS=well", *60 * ["WATCHDOG=1"]]
    assert watched.told == []


def test_a_loop_that_stands_still_beyond_its_limit_withholds_it_and_is_told(make: Make) -> None:
    watched = make(moves=100, stands=3)
    watched.look(after_s=TRUST_S)
    with capture_logs() as log:
        assert watched.look(times=3) == 3 * ["WATCHDOG=1"]
        assert watched.look(times=2) == []
    assert watched.told == [("on", "stands", 4.0), ("on", "stands", 5.0)]
    assert [one["loops"] for one in log if one["log_level"] == "error"] == [["stands"]]
    watched.steps["stands"] = 1
    assert watched.look() == ["WATCHDOG=1"]
    assert watched.told[-1] == ("off", "stands", 0.0)


def test_work_that_went_away_is_no_stall(make: Make) -> None:
    watched = make(stands=3)
    watched.look(after_s=TRUST_S)
    watched.look(times=3)
    watched.steps["stands"] = None
    watched.look()
    watched.steps["stands"] = 0
    assert watched.look(times=4) == 4 * ["WATCHDOG=1"]


def test_early_in_a_run_a_stall_is_told_and_not_acted_upon(make: Make) -> None:
    """What the last restart has not mended must not become one restart after the other."""
    watched = make(stands=3)
    assert len(watched.look(times=20)) == 1 + 20
    assert watched.told[0] == ("on", "stands", 4.0)
    assert watched.look(times=round(TRUST_S) - 21)[-1] == "WATCHDOG=1"
    assert watched.look(times=5) == []


def test_time_in_which_the_whole_process_stood_is_not_counted_against_a_loop(make: Make) -> None:
    watched = make(stands=30)
    watched.look(after_s=TRUST_S)
    assert watched.look(after_s=600) == ["WATCHDOG=1"]
    assert watched.told == []


def test_a_loop_that_cannot_be_looked_at_does_not_stop_the_gateway(make: Make) -> None:
    watched = make(odd=3)
    watched.steps["odd"] = KeyError("epoch")
    watched.clock.seconds += TRUST_S
    with capture_logs() as log:
        assert watched.look(times=10)[-1] == "WATCHDOG=1"
    assert [one["loop"] for one in log if one["log_level"] == "error"] == ["odd"]


def test_a_status_line_that_cannot_be_made_does_not_stop_the_gateway(make: Make) -> None:
    watched = make(steps=3)
    watched.watchdog._words = lambda: str(1 // 0)
    with capture_logs() as log:
        assert watched.look(times=2) == 2 * ["WATCHDOG=1"]
    assert len(log) == 1


def test_at_the_end_only_the_process_has_to_go_on(make: Make) -> None:
    watched = make(stands=3)
    watched.look(after_s=TRUST_S, times=2)
    watched.watchdog.end()
    assert watched.look(times=20) == 20 * ["WATCHDOG=1"]
    assert watched.told == []
