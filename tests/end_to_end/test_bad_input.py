"""Everything that can be wrong on site at once: one clear line with a code each, a remedy, and what works goes on.

One thing at a time, with what `diagnose` says of it: bad_input/.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.problems import describe
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.dbus_daemon import DbusDaemon
from simulator.platform import district

pytestmark = pytest.mark.slow

BUTTON = "A4:C1:38:56:53:84"
HEAD = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "{lang}"

[[serial]]
id = "wire"
port = "socket://127.0.0.1:{line}"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}
"""
DESTINATION = """
[[destination]]
id = "{id}"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{port}"
"""
EVERYTHING = (
    HEAD
    + """
[[ble]]
id = "air"

[[device]]
id = "call-1"
model = "bthome-button"
link = "air"
address = "A4:C1:38:56:53:84"
allow_plain = true

[[device]]
id = "odd"
model = "bthome-buton"
link = "air"
address = "A4:C1:38:56:53:85"

[[device]]
id = "broken"
model = "bthome-button"
link = "air"
address = "not an address"
allow_plain = true

[[serial]]
id = "absent"
port = "{folder}/ttyABSENT"
bits = 8
parity = "N"

[[device]]
id = "meter-1"
model = "dlt645-2007"
link = "absent"
address = "000000193600"
map = {{ registers = ["energy_active_import"] }}

[[serial]]
id = "taken"
port = "{taken}"
bits = 8
parity = "N"

[[device]]
id = "meter-2"
model = "dlt645-2007"
link = "taken"
address = "000000193601"
map = {{ registers = ["energy_active_import"] }}
"""
)


@pytest.fixture
def terminals() -> Iterator[Callable[[], tuple[int, str]]]:
    """Make ptys; each call gives an open slave and its path."""
    opened: list[int] = []

    def make() -> tuple[int, str]:
        master, slave = pty.openpty()
        opened.extend((master, slave))
        return slave, os.ttyname(slave)

    yield make
    for descriptor in opened:
        try:
            os.close(descriptor)
        except OSError:
            continue


def once_each(gateway: Any, *expected: tuple[str, str]) -> None:
    """Each of these came once and went once; no retry says it again."""
    turns = gateway.turns()
    for code, subject in expected:
        assert [turn for one, about, turn in turns if (one, about) == (code, subject)] == ["on", "off"], (code, turns)


@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon")
async def test_everything_is_wrong_and_what_works_goes_on_and_what_is_mended_is_well(
    gateway: Any, board: Any, tmp_path: Path, terminals: Any, problems_of: Any, free_port: Callable[[], int]
) -> None:
    bus = DbusDaemon(tmp_path)  # not started: DBUS_SYSTEM_BUS_ADDRESS leads to no socket
    gateway.env["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
    taken, taken_path = terminals()
    fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
    dead_port = free_port()
    async with district(tmp_path, destination="mute") as mute:
        mute.conduct.stall()  # it takes everything and accepts nothing
        gateway.configure(
            EVERYTHING + DESTINATION.format(id="mute", port=mute.port) + DESTINATION.format(id="dead", port=dead_port),
            line=board.port, taken=taken_path, lang="zh",
        )  # fmt: skip
        await gateway.start()
        expected = {
            ("GW-BLE-01", "air"), ("GW-SER-01", "absent"), ("GW-SER-03", "taken"), ("GW-NET-02", "dead"),
            ("GW-CFG-10", "device[3] (odd).model"), ("GW-CFG-16", "device[4] (broken).address"),
        }  # fmt: skip
        status = await gateway.until("all told", lambda status: problems_of(status) == expected)

        # Each has a title and a remedy, in both languages.
        for one in status["problems"]:
            assert re.search("[\u4e00-\u9fff]", one["title"]), one
            assert re.search("[\u4e00-\u9fff]", one["remedy"]), one
            english = describe(one["code"], "en", one["subject"], {})
            assert english.title
            assert english.remedy
            assert not re.search("[\u4e00-\u9fff]", english.title + english.remedy)

        # What works goes on: a press is stored, acknowledged, and an alarm.
        status = await gateway.until(
            "the board is heard, and that it was not before is stored",
            lambda status: _hears(status, "wire") and status["outbox"]["sequence"] == 1,
        )
        pressed_at = time.monotonic()
        before = status["outbox"]["sequence"]
        await board.press(1)
        assert (await gateway.ask("status"))["outbox"]["sequence"] == before + 1
        assert [one["device"] for one in await gateway.ask("alarms.list")] == ["board-1"]

        # A megabyte of garbage between good lines: every good line comes through.
        noise = random.Random(5)  # noqa: S311 - noise that can be repeated
        for n in range(2, 102):
            await board.say(noise.randbytes(10_486) + b'\n{"dev":"b1","n":%d,"ev":"press"}\n' % n)
        await board.acknowledged(101)
        assert set(range(1, 102)) <= set(board.acks)
        status = await gateway.until("garbage told", lambda status: ("GW-DEV-02", "wire") in problems_of(status))
        assert status["outbox"]["sequence"] == before + 101
        assert (await gateway.ask("alarms.list"))[0]["presses"] == 101
        garbage_at = time.monotonic()

        # Mended one by one. The bus comes, then bluetoothd, then an adapter.
        await bus.start()
        await gateway.until("no bluetoothd", lambda status: ("GW-BLE-02", "air") in problems_of(status))
        bluez = FakeBluez(bus.address)
        await bluez.start()
        await gateway.until("no adapter", lambda status: ("GW-BLE-03", "air") in problems_of(status))
        bluez.add_adapter()
        await gateway.until("hearing", lambda status: _hears(status, "air"))
        bluez.hear(Report(BUTTON, -60, service_data={0xFCD2: bytes.fromhex("40000701643a01")}))
        await gateway.until("pressed", lambda status: _device(status, "call-1")["alarm"] is not None)
        # The port appears; the other one is let go.
        absent, path = terminals()
        os.close(absent)
        (tmp_path / "ttyABSENT").symlink_to(path)
        os.close(taken)
        await gateway.until("ports open", lambda status: _hears(status, "absent") and _hears(status, "taken"))

        # A platform that never accepts is told ten seconds after the alarm; then it wakes up.
        await gateway.until("no acceptance", lambda status: ("GW-PLT-01", "mute") in problems_of(status))
        assert 9 < time.monotonic() - pressed_at < 20
        mute.conduct.unstall()
        await gateway.until("accepted", lambda status: _accepted(status, "mute") > 100)
        # The other platform comes to life.
        async with district(tmp_path, destination="dead", port=dead_port):
            await gateway.until("connected", lambda status: _accepted(status, "dead") > 100)
            # The line has been clean for a while.
            await asyncio.sleep(max(0.0, 10.1 - (time.monotonic() - garbage_at)))
            await board.press(102)
            wrong = {("GW-CFG-10", "device[3] (odd).model"), ("GW-CFG-16", "device[4] (broken).address")}
            await gateway.until("well", lambda status: problems_of(status) == wrong)
            status, took_s = await gateway.end()
        assert status == 0
        assert took_s < 8
        await bluez.stop()
        await bus.stop()

    once_each(
        gateway, ("GW-BLE-01", "air"), ("GW-BLE-02", "air"), ("GW-BLE-03", "air"), ("GW-SER-01", "absent"),
        ("GW-SER-03", "taken"), ("GW-NET-02", "dead"), ("GW-PLT-01", "mute"), ("GW-DEV-02", "wire"),
    )  # fmt: skip
    assert [code for code, _, turn in gateway.turns() if code.startswith("GW-CFG")] == ["GW-CFG-10", "GW-CFG-16"]
    assert "Traceback" not in gateway.said()


def _hears(status: dict[str, Any], link: str) -> bool:
    return any(one["id"] == link and one["hearing"] for one in status["links"])


def _device(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in status["devices"] if one["id"] == name)


def _accepted(status: dict[str, Any], destination: str) -> int:
    return next(int(one["accepted"]) for one in status["destinations"] if one["id"] == destination)


# The data directory.


async def test_a_file_where_the_data_directory_should_be_is_told_and_stops_no_call(
    gateway: Any, board: Any, tmp_path: Path, problems_of: Any, free_port: Callable[[], int]
) -> None:
    (tmp_path / "data").write_text("a file, where a directory should be", encoding="utf-8")
    gateway.configure(HEAD + DESTINATION.format(id="d", port=free_port()), line=board.port, lang="en")
    await gateway.start()
    await gateway.until("told", lambda status: ("GW-STO-01", "") in problems_of(status))
    await board.say(b'{"dev":"b1","n":1,"ev":"press"}\n')
    await gateway.until("called", lambda status: status["alarms"]["open"] == 1)
    assert board.acks == []  # nothing is acknowledged that no disk has taken

    (tmp_path / "data").unlink()  # and the directory is made by the gateway itself
    await gateway.until("stored", lambda status: ("GW-STO-01", "") not in problems_of(status))
    await board.acknowledged(1)
    assert (await gateway.ask("status"))["alarms"]["open"] == 1
    assert "Traceback" not in gateway.said()


async def test_a_second_daemon_on_the_same_data_goes_away_and_the_first_goes_on(
    gateway: Any, board: Any, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    text = HEAD + DESTINATION.format(id="d", port=free_port())
    gateway.configure(text, line=board.port, lang="zh")
    await gateway.start()
    await board.press(1)

    elsewhere = tmp_path / "second"
    elsewhere.mkdir()
    second = type(gateway)(elsewhere)
    second.config.write_text(gateway.config.read_text(encoding="utf-8"), encoding="utf-8")
    await second.start()
    assert await second.ended() == 2
    assert second.said().count("GW-RUN-01") == 1
    assert re.search("[\u4e00-\u9fff]", second.said())
    assert "Traceback" not in second.said()

    await board.press(2)
    assert (await gateway.ask("alarms.list"))[0]["presses"] == 2


async def test_a_second_daemon_does_not_take_the_control_socket_of_another(
    gateway: Any, board: Any, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    text = HEAD + DESTINATION.format(id="d", port=free_port())
    gateway.configure(text, line=board.port, lang="en")
    await gateway.start()
    await board.press(1)
    elsewhere = tmp_path / "second"
    elsewhere.mkdir()
    second = type(gateway)(elsewhere)
    other_data = gateway.config.read_text(encoding="utf-8").replace(f"{tmp_path}/data", f"{elsewhere}/data")
    second.config.write_text(other_data, encoding="utf-8")
    await second.start()
    async with asyncio.timeout(45):
        while not any(code == "GW-CTL-04" for code, _, _ in second.turns()):
            await asyncio.sleep(0.02)
    assert (await second.end())[0] == 0
    assert (await gateway.ask("status"))["pid"] == gateway.process.pid


async def test_a_control_socket_that_cannot_be_opened_stops_no_call(
    gateway: Any, board: Any, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    text = (HEAD + DESTINATION.format(id="d", port=free_port())).replace("{folder}/control.sock", "{folder}/no/c.sock")
    gateway.configure(text, line=board.port, lang="en")
    await gateway.start()
    await board.press(1)
    assert (await gateway.end())[0] == 0
    assert [turn for turn in gateway.turns() if turn[0] == "GW-CTL-04"] == [
        ("GW-CTL-04", f"{tmp_path}/no/c.sock", "on")
    ]
    assert "Traceback" not in gateway.said()


# The end, whatever state it is in.


@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing: apt-get install dbus-daemon")
async def test_it_ends_in_time_whatever_hangs(gateway: Any, board: Any, tmp_path: Path) -> None:
    """A platform that takes the connection and says nothing, staff who look on, a radio whose bus is frozen."""
    black_hole = socket.socket()
    black_hole.bind(("127.0.0.1", 0))
    black_hole.listen()
    bus = DbusDaemon(tmp_path)
    await bus.start()
    bluez = FakeBluez(bus.address)
    bluez.add_adapter()
    await bluez.start()
    gateway.env["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
    lookers = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    text = HEAD + '[[ble]]\nid = "air"\n' + DESTINATION.format(id="hole", port=black_hole.getsockname()[1])
    gateway.configure(text, line=board.port, lang="en")
    await gateway.start()
    await gateway.until("scanning", lambda status: _hears(status, "air"))
    await board.press(1)
    for looker in lookers:
        looker.connect(str(gateway.control))
    lookers[0].sendall(b'{"op":"listen"}\n')
    frozen = bus._process
    assert frozen is not None
    frozen.send_signal(signal.SIGSTOP)
    try:
        status, took_s = await gateway.end(within_s=17)
    finally:
        frozen.send_signal(signal.SIGCONT)
        for one in (*lookers, black_hole):
            one.close()
    await bluez.stop()
    await bus.stop()
    assert took_s < 15
    assert status in (0, 1)
    assert "Traceback" not in gateway.said()


async def test_a_log_that_nobody_reads_stops_no_call(gateway: Any, board: Any, free_port: Callable[[], int]) -> None:
    """`gateway run 2>&1 | head -1`, or a journal that went away: writing the log fails from then on."""
    gateway.configure(HEAD + DESTINATION.format(id="d", port=free_port()), line=board.port, lang="en")
    reading, writing = os.pipe()
    gateway.process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "run", "--config", str(gateway.config), stdout=writing, stderr=writing,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(writing)
    await board.press(1)
    os.close(reading)
    for n in range(2, 12):
        await board.press(n)
    assert (await gateway.ask("alarms.list"))[0]["presses"] == 11
    assert (await gateway.end())[0] == 0
