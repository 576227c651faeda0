"""The way to a platform on real sockets: each rung broken in turn, the right code and the right people to call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.diagnose import ladder as ladders
from gateway.diagnose.daemon import Daemon, DaemonState
from gateway.diagnose.ladder import Goal, climb
from gateway.diagnose.report import Line
from gateway.tls import Tls

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Authority, Centre
else:
    Authority = Centre = Any

Look = Callable[[Any, str], list[Line]]
SITE, CARRIER, PLATFORM = "@diagnose.whose-site", "@diagnose.whose-carrier", "@diagnose.whose-platform"


@contextlib.contextmanager
def server(context: ssl.SSLContext | None = None, *, answer: bytes = b"", mute: bool = False) -> Iterator[int]:
    """A server on localhost that shakes hands, reads a little and answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    threading.Thread(target=talk, args=(line,), daemon=True).start()

        def talk(line: socket.socket) -> None:
            with line, contextlib.suppress(OSError):
                line.settimeout(10)
                if mute:
                    line.recv(1)
                    threading.Event().wait(10)
                with line if context is None else context.wrap_socket(line, server_side=True) as secured:
                    if secured.recv(4096) and answer:
                        secured.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def states(found: ladders.Ladder) -> list[tuple[str, str]]:
    return [(one.name.removeprefix("rung-"), one.state) for one in found.rungs]


# -- TLS ---------------------------------------------------------------------------------------------------------


def test_a_platform_with_a_good_certificate_is_reached(authority: Authority) -> None:
    with server(authority.server("localhost", days=20)) as port:
        found = climb(Goal("localhost", port, Tls(authority.file)))
    assert states(found) == [("dns", "ok"), ("tcp", "ok"), ("tls", "ok")]
    assert found.code == ""
    assert found.certificate_ends is not None
    assert timedelta(days=19) < found.certificate_ends - datetime.now(UTC) < timedelta(days=21)


@pytest.mark.parametrize(
    ("host", "more", "own_authority", "clock_set", "whose", "says"),
    [
        ("other.example.org", {}, True, True, PLATFORM, "Hostname mismatch"),
        ("localhost", {"days": -1.0}, True, True, PLATFORM, "certificate has expired"),
        ("localhost", {"days": -1.0}, True, False, SITE, "certificate has expired"),
        ("localhost", {"begins_days": 2.0}, True, True, PLATFORM, "certificate is not yet valid"),
        ("localhost", {}, False, True, SITE, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_does_not_hold_breaks_the_way_and_names_who_can_mend_it(
    authority: Authority, host: str, more: dict[str, float], own_authority: bool, clock_set: bool, whose: str, says: str
) -> None:
    with server(authority.server(host, **more)) as port:
        tls = Tls(authority.file if own_authority else None)
        found = climb(Goal("localhost", port, tls, clock_set=clock_set))
    assert (found.code, found.whose) == ("GW-NET-03", whose)
    assert says in found.detail
    assert states(found)[-1] == ("tls", "broken")


def test_a_server_that_speaks_no_tls_breaks_the_way(authority: Authority) -> None:
    with server(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        found = climb(Goal("localhost", port, Tls(authority.file)))
    assert (found.code, found.whose) == ("GW-NET-03", PLATFORM)


def test_a_server_that_says_nothing_is_left_in_time(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladders, "TLS_S", 0.2)
    with server(mute=True) as port:
        found = climb(Goal("localhost", port, Tls(authority.file)))
    assert (found.code, found.whose, states(found)[-1]) == ("GW-NET-03", PLATFORM, ("tls", "broken"))


def test_an_authority_file_that_is_missing_is_the_sites_fault(tmp_path: Path, authority: Authority) -> None:
    with server(authority.server("localhost")) as port:
        found = climb(Goal("localhost", port, Tls(tmp_path / "none.pem")))
    assert (found.code, found.whose) == ("GW-NET-03", SITE)
    assert "certificates:" in found.detail


# -- below -------------------------------------------------------------------------------------------------------


def test_a_port_where_nobody_listens_is_the_platforms(centre: Centre) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = climb(Goal("127.0.0.1", port, None, machine=centre.machine))
    assert (found.code, found.whose, states(found)) == ("GW-NET-02", PLATFORM, [("tcp", "broken")])
    assert found.detail == f"{port}: Connection refused"


def test_a_host_that_swallows_us_is_the_carriers(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue of connections: Linux drops further ones silently, as a firewall does."""
    monkeypatch.setattr(ladders, "TCP_S", 0.3)
    with socket.socket() as full, contextlib.ExitStack() as crowd:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):
            one = crowd.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(full.getsockname())
        found = climb(Goal("127.0.0.1", full.getsockname()[1], None, machine=centre.machine))
    assert (found.code, found.whose) == ("GW-NET-02", CARRIER)
    assert "timed out" in found.detail


def test_a_name_that_nobody_knows(centre: Centre) -> None:
    centre.put("sys/class/net/eth0/operstate", "up")
    found = climb(Goal("no-such-host.invalid", 8883, None, machine=centre.machine))
    assert found.code == "GW-NET-01"
    assert states(found) == [("link", "ok"), ("ip", "ok"), ("dns", "broken")]


def test_a_name_server_that_never_answers_is_left_in_time(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(ladders, "DNS_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: gate.wait(20))
    found = climb(Goal("platform.example.org", 8883, None, machine=centre.machine))
    gate.set()
    assert (found.code, found.whose, found.detail) == ("GW-NET-01", CARRIER, "no answer within 0.2 s")


def test_a_cable_that_is_pulled_is_the_sites(centre: Centre) -> None:
    centre.put("sys/class/net/eth0/operstate", "down")
    found = climb(Goal("platform.example.org", 8883, None, machine=centre.machine))
    assert (found.code, found.whose, states(found)) == ("GW-NET-10", SITE, [("link", "broken")])


def test_no_route_is_the_sites(centre: Centre) -> None:
    (centre.root / "proc/net").unlink()
    centre.put("proc/net/route", "Iface\tDestination\tGateway\n")
    centre.put("proc/net/ipv6_route", "00000000000000000000000000000001 80 " + "0" * 32 + " 00 lo\n")
    found = climb(Goal("platform.example.org", 8883, None, machine=centre.machine))
    assert (found.code, found.whose, states(found)) == ("GW-NET-11", SITE, [("link", "ok"), ("ip", "broken")])


# -- what a destination makes of it ------------------------------------------------------------------------------


def test_two_paths_of_which_one_stands_are_a_warning_not_a_problem(
    centre: Centre, look: Look, told: Callable[[list[Line]], list[tuple[str, str, str]]]
) -> None:
    with server() as port, socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
        closed.close()
        second = f'[[destination.path]]\nurl = "http://127.0.0.1:{dead}"\n'
        assert told(look(centre.site(second, port=port), "network")) == [
            ("GW-NET-10", "district/1", "unknown"), ("GW-NET-02", "district/2", "warning"),
        ]  # fmt: skip
        assert told(look(centre.site(second, port=dead), "network")) == [
            ("GW-NET-02", "district/1", "problem"), ("GW-NET-02", "district/2", "problem"),
        ]  # fmt: skip


def test_a_login_that_is_refused_is_put_on_top_of_a_way_that_holds(centre: Centre, look: Look) -> None:
    status = {
        "destinations": [{"id": "district", "connected": False}],
        "problems": [{"code": "GW-NET-04", "subject": "district", "facts": {"detail": "CONNACK reason 0x86"}}],
    }
    with server() as port:
        (line,) = look(centre.site(port=port, daemon=Daemon(DaemonState.RUNNING, status)), "network")
    assert (line.code, line.verdict, line.facts["detail"]) == ("GW-NET-04", "problem", "CONNACK reason 0x86")
    assert line.words(line.value, "zh").endswith("> 登录 不通；归平台方")


def test_a_session_of_the_daemon_is_the_top_of_the_ladder(centre: Centre, look: Look) -> None:
    status = {"destinations": [{"id": "district", "connected": True, "last_accepted_s": 2.0}]}
    with server() as port:
        (line,) = look(centre.site(port=port, daemon=Daemon(DaemonState.RUNNING, status)), "network")
    assert line.verdict == "ok"
    assert line.words(line.value, "en").endswith("> login ok > publish ok > accepted ok")


def test_each_of_two_paths_stands_as_the_daemon_says(centre: Centre, look: Look) -> None:
    def found(second: dict[str, Any]) -> list[tuple[str, str, str]]:
        paths = [{"state": "in use", "code": None}, second]
        status = {"destinations": [{"id": "district", "connected": True, "last_accepted_s": 2.0, "paths": paths}]}
        with server() as port, server() as other:
            text = f'[[destination.path]]\nurl = "http://127.0.0.1:{other}"\n'
            lines = look(centre.site(text, port=port, daemon=Daemon(DaemonState.RUNNING, status)), "network")
        return [(line.code, line.subject, line.verdict.value) for line in lines]

    ours = ("GW-NET-10", "district/1", "ok")
    assert found({"state": "standby", "code": None}) == [ours, ("GW-NET-10", "district/2", "ok")]
    assert found({"state": "down", "code": "GW-NET-04"}) == [ours, ("GW-NET-04", "district/2", "warning")]


@pytest.mark.parametrize(("minutes", "verdict"), [(0.0, "ok"), (2.0, "warning"), (-2.0, "warning")])
def test_the_platforms_clock_is_compared(centre: Centre, minutes: float, verdict: str) -> None:
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    answer = f"HTTP/1.1 404 Not Found\r\nDate: {format_datetime(at, usegmt=True)}\r\nConnection: close\r\n\r\n"
    with server(answer=answer.encode()) as port:
        centre.configure()
        text = centre.config.read_text(encoding="utf-8").replace("mqtt://127.0.0.1:1", f"http://127.0.0.1:{port}")
        centre.config.write_text(text, encoding="utf-8")
        report = centre.diagnose()
    (line,) = [one for one in report.lines if one.what == "skew"]
    assert (line.code, line.subject, line.verdict, line.section) == ("GW-CLK-04", "district", verdict, "platform")


@pytest.mark.parametrize(("days", "verdict"), [(31.5, "ok"), (29.5, "warning"), (6.5, "problem")])
async def test_the_end_of_the_platforms_certificate_is_told_in_time(
    centre: Centre, authority: Authority, days: float, verdict: str
) -> None:
    with server(authority.server("localhost", days=days)) as port:
        centre.configure()
        text = centre.config.read_text(encoding="utf-8").replace("mqtt://127.0.0.1:1", f"mqtts://localhost:{port}")
        centre.config.write_text(f'{text}ca_file = "{authority.file}"\n', encoding="utf-8")
        report = await asyncio.to_thread(centre.diagnose)
    (line,) = [one for one in report.lines if one.what == "certificate-platform"]
    assert (line.code, line.section, line.verdict) == ("GW-SEC-10", "security", verdict)
