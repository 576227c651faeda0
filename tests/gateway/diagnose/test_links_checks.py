"""Serial lines, Bluetooth, devices, open alarms: what is found against what is configured, on real ptys and a real bus."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.diagnose.checks import serial as serial_checks
from gateway.diagnose.daemon import Daemon, DaemonState
from gateway.diagnose.report import Line
from gateway.links import ports
from gateway.links.bluez_look import look_at_adapter
from gateway.outbox.inspect import Inspection
from simulator.bluez import FakeBluez
from simulator.dbus_daemon import DbusDaemon

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Centre
else:
    Centre = Any

Look = Callable[[Any, str], list[Line]]
LINE = '[[serial]]\nid = "rs485"\nport = "{port}"\n'
RADIO = '[[ble]]\nid = "radio"\n'


@pytest.fixture
def port() -> Iterator[str]:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    os.close(theirs)
    yield name
    os.close(ours)


def the_line(look: Look, site: Any) -> Line:
    (line,) = [one for one in look(site, "serial") if one.what == "line"]
    return line


# -- serial ------------------------------------------------------------------------------------------------------


def test_a_port_that_is_there_and_free_is_well(centre: Centre, look: Look, port: str) -> None:
    line = the_line(look, centre.site(LINE.format(port=port)))
    assert (line.code, line.subject, line.verdict, line.facts["device"]) == ("GW-SER-01", "rs485", "ok", port)


def test_a_port_that_is_missing_is_told_beside_those_that_are_there(
    centre: Centre, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ports.PortName("/dev/ttyUSB1", "/dev/serial/by-id/usb-FTDI-1", "/dev/serial/by-path/pci-1", "FT232R", "A50")
    monkeypatch.setattr(ports, "present", lambda: [here])
    found = look(centre.site(LINE.format(port="/dev/serial/by-id/usb-FTDI-2")), "serial")
    assert [(line.code, line.subject, line.verdict.value) for line in found] == [
        ("GW-SER-01", "rs485", "problem"), ("GW-SER-01", "/dev/ttyUSB1", "ok"),
    ]  # fmt: skip
    assert found[1].words(found[1].value, "zh") == "/dev/serial/by-id/usb-FTDI-1；/dev/serial/by-path/pci-1；FT232R"


HOLDER = "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"  # noqa: E501


def test_a_port_that_another_program_holds_names_it_unless_it_is_the_gateway(
    centre: Centre, look: Look, port: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        other = the_line(look, centre.site(LINE.format(port=port)))
        ours = the_line(
            look, centre.site(LINE.format(port=port), daemon=Daemon(DaemonState.RUNNING, {"links": []}, pid=holder.pid))
        )
        holder.communicate()
    assert (other.code, other.verdict, other.facts["pid"]) == ("GW-SER-03", "problem", holder.pid)
    assert (ours.code, ours.verdict) == ("GW-SER-01", "ok")


def test_the_rights_of_the_service_count_not_those_of_who_asks(
    centre: Centre, look: Look, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We are root or own the pty; the service is user nobody, who is in no group of it."""
    import pwd

    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(type(centre.machine), "service_user", lambda _self: nobody)
    Path(port).chmod(0o620)
    line = the_line(look, centre.site(LINE.format(port=port)))
    assert (line.code, line.verdict, line.facts["group"]) == ("GW-SER-02", "problem", Path(port).group())
    Path(port).chmod(0o666)
    assert the_line(look, centre.site(LINE.format(port=port))).verdict == "ok"


def test_a_file_that_is_no_port_is_told(centre: Centre, look: Look) -> None:
    line = the_line(look, centre.site(LINE.format(port=centre.config)))
    assert (line.code, line.verdict) == ("GW-SER-07", "problem")


def test_a_serial_server_is_tried_only_while_no_gateway_runs(centre: Centre, look: Look) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = LINE.format(port=f"socket://127.0.0.1:{server.getsockname()[1]}")
        assert the_line(look, centre.site(text)).verdict == "ok"
        server.accept()[0].close()
        server.setblocking(False)
        for daemon in (
            Daemon(DaemonState.RUNNING, {"links": [{"id": "rs485", "hearing": True}]}),
            Daemon(DaemonState.RUNNING, {"links": [{"id": "rs485", "hearing": False}]}),
            Daemon(DaemonState.HUNG, pid=1),
        ):
            assert not the_line(look, centre.site(text, daemon=daemon)).verdict.is_bad
        with pytest.raises(BlockingIOError):
            server.accept()
    line = the_line(look, centre.site(text))
    assert (line.code, line.verdict) == ("GW-SER-06", "problem")


def test_no_port_and_no_line_is_skipped(centre: Centre, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_checks.ports, "present", list)
    (line,) = look(centre.site(), "serial")
    assert line.verdict == "skipped"


# -- Bluetooth ---------------------------------------------------------------------------------------------------

needs_bus = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing")


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DbusDaemon]:
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    yield daemon
    await daemon.stop()


@pytest.fixture
async def bluez(bus: DbusDaemon) -> AsyncIterator[FakeBluez]:
    here = FakeBluez(bus.address)
    await here.start()
    yield here
    await here.stop()


async def looked(adapter: str = "hci0", limit_s: float = 5.0) -> tuple[str, bool]:
    found = await asyncio.to_thread(look_at_adapter, adapter, limit_s=limit_s)
    return found.problem, found.discovering


@needs_bus
async def test_an_adapter_that_is_there_and_on_has_no_problem(bluez: FakeBluez) -> None:
    bluez.add_adapter()
    assert await looked() == ("", False)


@needs_bus
async def test_an_adapter_that_is_off_or_missing_is_told(bluez: FakeBluez) -> None:
    assert (await looked())[0] == "GW-BLE-03"
    bluez.add_adapter(powered=False)
    assert (await looked())[0] == "GW-BLE-04"
    assert (await looked("hci1"))[0] == "GW-BLE-03"


@needs_bus
async def test_a_bluetoothd_that_is_not_there_is_told_and_not_started(bus: DbusDaemon) -> None:
    assert (await looked())[0] == "GW-BLE-02"


@needs_bus
async def test_a_bus_that_refuses_us_or_is_not_there_is_told(bus: DbusDaemon, bluez: FakeBluez) -> None:
    bluez.add_adapter()
    bus.deny_bluez()
    async with asyncio.timeout(30):
        while (await looked())[0] != "GW-BLE-05":
            await asyncio.sleep(0.05)
    await bus.stop()
    assert (await looked())[0] == "GW-BLE-01"


async def test_a_bus_that_says_nothing_is_left_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'mute'}")
        assert (await looked(limit_s=0.3))[0] == "GW-BLE-07"


@needs_bus
async def test_a_radio_that_is_blocked_is_told_as_blocked_not_as_off(
    centre: Centre, look: Look, bluez: FakeBluez
) -> None:
    bluez.add_adapter(powered=False)
    centre.put("sys/class/rfkill/rfkill0/type", "bluetooth")
    centre.put("sys/class/rfkill/rfkill0/name", "hci0")
    centre.put("sys/class/rfkill/rfkill0/soft", "1")
    centre.put("sys/class/rfkill/rfkill0/hard", "0")
    (line,) = await asyncio.to_thread(look, centre.site(RADIO), "bluetooth")
    assert (line.code, line.verdict, line.value) == ("GW-BLE-08", "problem", "rfkill: soft")
    assert ("GW-BLE-04", "radio") in line.covers, "the daemon sees it only as off"


@needs_bus
async def test_somebody_else_who_scans_is_told_while_no_gateway_runs(
    centre: Centre, look: Look, bluez: FakeBluez
) -> None:
    from bleak import BleakScanner
    from bleak.backends.bluezdbus import manager as bleak_manager

    bluez.add_adapter()
    async with BleakScanner(bluez={"adapter": "hci0"}):
        found = await asyncio.to_thread(look, centre.site(RADIO), "bluetooth")
        assert [(line.code, line.verdict.value) for line in found] == [("GW-BLE-04", "ok"), ("GW-BLE-20", "warning")]
        ours = centre.site(RADIO, daemon=Daemon(DaemonState.RUNNING, {"uptime_s": 60.0}))
        found = await asyncio.to_thread(look, ours, "bluetooth")
        assert [(line.code, line.verdict.value) for line in found] == [("GW-BLE-04", "ok"), ("GW-BLE-06", "ok")]
    manager = bleak_manager._global_instances.pop(asyncio.get_running_loop(), None)
    if manager is not None and manager._bus is not None and manager._bus_watcher_task is not None:
        manager._bus.disconnect()
        await asyncio.wait({manager._bus_watcher_task}, timeout=30)


# -- devices -----------------------------------------------------------------------------------------------------

DEVICES = """
[[ble]]
id = "radio"
[[serial]]
id = "rs485"
port = "/dev/serial/by-id/x"
[[device]]
id = "call-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
allow_plain = true
[[device]]
id = "meter-1"
model = "dlt645-2007"
link = "rs485"
address = "000012345678"
every_s = 60
"""


def device(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "last_heard_s": 5.0, "heard": 9, "rejects": {}, "polls": 0, "polls_failed": 0, "rssi": None,
        "battery_percent": None, "counter": None, **more,
    }  # fmt: skip


def seen(centre: Centre, look: Look, call: dict[str, Any], *, uptime_s: float = 90_000.0) -> list[tuple[str, str, str]]:
    status = {"uptime_s": uptime_s, "devices": [device("call-1", **call), device("meter-1", **call)]}
    found = look(centre.site(DEVICES, daemon=Daemon(DaemonState.RUNNING, status)), "devices")
    return [(line.code, line.subject, line.verdict.value) for line in found]


@pytest.mark.parametrize(
    ("call", "uptime_s", "expected"),
    [
        ({}, 90_000.0, [("GW-DEV-20", "call-1", "ok"), ("GW-DEV-01", "meter-1", "ok")]),
        ({"last_heard_s": 181.0}, 90_000.0, [("GW-DEV-20", "call-1", "ok"), ("GW-DEV-01", "meter-1", "problem")]),
        ({"last_heard_s": 14_401.0}, 90_000.0, [("GW-DEV-20", "call-1", "warning"), ("GW-DEV-01", "meter-1", "problem")]),
        ({"last_heard_s": None}, 100.0, [("GW-DEV-20", "call-1", "unknown"), ("GW-DEV-01", "meter-1", "unknown")]),
        ({"last_heard_s": None}, 90_000.0, [("GW-DEV-20", "call-1", "warning"), ("GW-DEV-01", "meter-1", "problem")]),
    ],
)  # fmt: skip
def test_a_device_that_is_silent_is_told_by_what_is_normal_for_it(
    centre: Centre, look: Look, call: dict[str, Any], uptime_s: float, expected: list[tuple[str, str, str]]
) -> None:
    assert seen(centre, look, call, uptime_s=uptime_s) == expected


def test_a_low_battery_and_a_weak_signal_are_told(centre: Centre, look: Look) -> None:
    assert seen(centre, look, {"battery_percent": 20.0, "rssi": -90}) == [
        ("GW-DEV-20", "call-1", "ok"), ("GW-DEV-01", "meter-1", "ok"),
    ]  # fmt: skip
    assert seen(centre, look, {"battery_percent": 19.0, "rssi": -91})[:3] == [
        ("GW-DEV-20", "call-1", "ok"), ("GW-DEV-21", "call-1", "warning"), ("GW-DEV-22", "call-1", "warning"),
    ]  # fmt: skip


def test_everything_that_is_known_of_a_device_stands_in_its_line(centre: Centre, look: Look) -> None:
    call = device(
        "call-1", rssi=-61, battery_percent=95.0, counter=231, rejects={"bad-check": 2}, polls=9, polls_failed=1
    )
    status = {"uptime_s": 90_000.0, "devices": [call]}
    line = look(centre.site(DEVICES, daemon=Daemon(DaemonState.RUNNING, status)), "devices")[0]
    assert line.words(line.value, "zh") == (
        "5 秒前听到；电量 95%；信号 -61 dBm；拒收 bad-check:2；计数 231；轮询 9，失败 1；上次测试：从未"
    )


TAGS = """
[[ble]]
id = "air"
[[serial]]
id = "igs"
port = "socket://192.0.2.7:8080"
[[device]]
id = "switch-1"
model = "enocean-ptm"
link = "air"
address = "E2:15:00:00:19:B8"
allow_plain = true
[[device]]
id = "fall-1"
model = "ingics-gateway"
link = "igs"
address = "E856715A54F5"
"""

RADARS = """
[[serial]]
id = "radar"
port = "/dev/serial/by-id/x"
[[serial]]
id = "433"
port = "/dev/serial/by-id/y"
[[device]]
id = "radar-1"
model = "andar-radar"
link = "radar"
[[device]]
id = "button-1"
model = "ev1527-board"
link = "433"
address = "CD46B"
"""


@pytest.mark.parametrize(
    ("silent_s", "radar", "button"),
    [(59.0, "ok", "ok"), (61.0, "problem", "ok"), (8 * 86_400.0 + 1, "problem", "warning")],
)
def test_a_radar_that_is_asked_answers_within_a_minute_and_a_button_is_pressed_once_a_week(
    centre: Centre, look: Look, silent_s: float, radar: str, button: str
) -> None:
    told = [device("radar-1", last_heard_s=silent_s), device("button-1", last_heard_s=silent_s)]
    found = look(centre.site(RADARS, daemon=Daemon(DaemonState.RUNNING, {"uptime_s": 1e7, "devices": told})), "devices")
    assert [(line.code, line.verdict.value) for line in found] == [("GW-DEV-01", radar), ("GW-DEV-20", button)]


@pytest.mark.parametrize(
    ("silent_s", "switch", "through_gateway"),
    [(4 * 3600.0 - 1, "ok", "ok"), (4 * 3600.0 + 1, "ok", "warning"), (8 * 86_400.0 + 1, "warning", "warning")],
)
def test_only_what_gives_no_sign_of_life_may_be_silent_for_a_week(
    centre: Centre, look: Look, silent_s: float, switch: str, through_gateway: str
) -> None:
    told = [device("switch-1", last_heard_s=silent_s), device("fall-1", last_heard_s=silent_s)]
    found = look(centre.site(TAGS, daemon=Daemon(DaemonState.RUNNING, {"uptime_s": 1e7, "devices": told})), "devices")
    assert [line.verdict.value for line in found] == [switch, through_gateway]


def test_how_a_radar_must_hang_stands_in_its_line(centre: Centre, look: Look) -> None:
    status = {"uptime_s": 90_000.0, "devices": [device("radar-1"), device("button-1")]}
    radar, button = look(centre.site(RADARS, daemon=Daemon(DaemonState.RUNNING, status)), "devices")
    assert radar.words(radar.value, "zh") == (
        "5 秒前听到；上次测试：从未；要装在天花板上才测跌倒：倾斜不超过 5°，高 2～3 m，半径 2 m 以内；量好的安装高度要设进去"
    )
    assert "cannot be supervised and can be copied" in button.words(button.value, "en")


def test_a_device_that_the_running_gateway_does_not_know_yet_is_told(centre: Centre, look: Look) -> None:
    status = {"uptime_s": 90_000.0, "devices": [device("call-1")]}
    found = look(centre.site(DEVICES, daemon=Daemon(DaemonState.RUNNING, status)), "devices")
    assert [(line.subject, line.verdict.value) for line in found] == [("call-1", "ok"), ("meter-1", "skipped")]


# -- open alarms -------------------------------------------------------------------------------------------------


def inspection(*open_alarms: str) -> Inspection:
    return Inspection(
        schema=1, wal=True, check="ok", file_bytes=1, used_bytes=1, rows={}, pending={}, oldest_ms=None, recorded_ms=None,
        dead={}, last_ms={}, counters=frozenset(), open_alarms=open_alarms,
    )  # fmt: skip


def stored(state: str, raised_ms: int) -> str:
    return json.dumps(
        {"id": "0197c1de-4a2b-7c3d-8e4f-5a6b7c8d9e0f", "kind": "call", "device": "call-1", "room": "201", "state": state,
         "raised": {"wall_ms": raised_ms, "mono_ms": 1, "boot": "b", "clock": "synced"}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "age_s", "verdict"), [("ACTIVE", 60, "ok"), ("ACTIVE", 61, "problem"), ("ACKED", 7200, "ok")]
)
def test_a_call_that_nobody_has_acknowledged_is_told_even_with_the_daemon_dead(
    centre: Centre, look: Look, state: str, age_s: int, verdict: str
) -> None:
    now = 1_795_000_000_000
    site = centre.site(now_ms=now, database=inspection(stored(state, now - 1000 * age_s)))
    (line,) = [one for one in look(site, "alarm") if one.what == "open-alarms"]
    assert (line.code, line.subject, line.verdict) == ("GW-ANN-02", "call-1", verdict)


def test_a_call_reads_well_in_both_languages(centre: Centre, look: Look) -> None:
    now = 1_795_000_000_000
    site = centre.site(now_ms=now, database=inspection(stored("ACTIVE", now - 720_000), "not json"))
    (line,) = [one for one in look(site, "alarm") if one.what == "open-alarms"]
    assert line.description("zh").title == "有人呼救还没有人确认：call-1（呼叫，房间 201），已经 12 分钟"
    assert (
        line.description("en").title
        == "a call for help that nobody has acknowledged: call-1 (call, room 201), for 12 min"
    )
    assert line.words(line.value, "zh") == "呼叫，房间 201，待处理，已经 12 分钟"
    assert "0197c1de-4a2b-7c3d" in line.description("zh").remedy


def test_locks_are_only_looked_at(centre: Centre) -> None:
    """A gateway that starts at this very moment must not find its directory taken."""
    lock = centre.data / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert centre.machine.holder_of_lock(lock) == os.getpid()
        fcntl.flock(held, fcntl.LOCK_UN)
        assert centre.machine.holder_of_lock(lock) is None


# -- receivers elsewhere -----------------------------------------------------------------------------------------

ELSEWHERE = """
[[receiver]]
id = "stairs"
host = "192.168.8.31"
[[mqtt]]
id = "attic"
url = "mqtt://127.0.0.1"
adverts = "home/OMG/BTtoMQTT/+"
"""


def test_what_is_heard_through_each_receiver_is_told_and_one_that_is_deaf_has_only_its_problem(
    centre: Centre, look: Look
) -> None:
    heard = [{"link": "stairs", "rssi": -60, "last_heard_s": 4.0, "heard": 30}, {"link": "radio", "heard": 9}]
    status = {
        "uptime_s": 600.0, "devices": [device("call-1", receivers=heard), device("meter-1")],
        "links": [{"id": "stairs", "hearing": True, "dropped": 2}, {"id": "attic", "hearing": False}],
    }  # fmt: skip
    found = look(centre.site(ELSEWHERE, daemon=Daemon(DaemonState.RUNNING, status)), "bluetooth")
    assert [(one.code, one.what, one.subject, one.verdict) for one in found] == [
        ("GW-RCV-06", "adverts", "stairs", "ok")
    ]
    assert (found[0].facts["rate"], found[0].facts["dropped"], str(found[0].facts["last"].say("en"))) == (
        "3.0",
        2,
        "4 s",
    )


def test_without_a_daemon_nobody_knows_what_receivers_hear(centre: Centre, look: Look) -> None:
    assert look(centre.site(ELSEWHERE), "bluetooth") == []
