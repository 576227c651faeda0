"""A technician with a line that nobody has configured: what is shown, what is printed to be pasted, and that it loads."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import tomllib
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Decoded, LineSettings, StreamVector
from gateway.cli import line_finding
from gateway.cli.layout import Paper
from gateway.cli.listening import Recording
from gateway.config import inspect
from gateway.links.line_ear import SETTINGS, Hearing, Listened

CONFIG = """
[gateway]
id = "g"
org = "o"
site = "s"
[[ble]]
id = "line-1"
[[destination]]
id = "d"
[[destination.path]]
url = "mqtt://127.0.0.1"
"""
PORT = "/dev/serial/by-id/usb-FTDI_FT232R_A1"
AT_9600, AT_115200 = LineSettings(), LineSettings(baud=115200)
POLL = b"\x042\x05"
DRIVERS = {driver.model: driver for driver in line_finding.on_lines()}
DEADLINE_S = 60


def heard(*items: tuple[LineSettings | None, bytes]) -> tuple[Hearing, list[bool | None]]:
    """What the port hears, and what it is sent back: whether to stay."""
    stays: list[bool | None] = []

    def play() -> Hearing:
        for settings, data in items:
            stays.append((yield Listened(settings, data)))

    return play(), stays


class Technician:
    """Whoever searches, and what was shown."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "gateway.toml"
        self.config.write_text(CONFIG, encoding="utf-8")
        self.out = io.StringIO()
        self.stays: list[bool | None] = []

    def find(self, *items: tuple[LineSettings | None, bytes], lang: str = "en", **how: Any) -> bool:
        hearing, self.stays = heard(*items)
        return line_finding.find(Paper(lang, self.out), hearing, port=PORT, config=self.config, **how)

    @property
    def said(self) -> str:
        return self.out.getvalue()

    @property
    def block(self) -> str:
        begin = self.said.index("[[serial]]")
        return self.said[begin : self.said.index("\n\n", self.said.rindex("[[device]]"))]


@pytest.fixture
def technician(tmp_path: Path) -> Technician:
    return Technician(tmp_path)


def frames(model: str) -> bytes:
    vectors: tuple[StreamVector, ...] = DRIVERS[model].vectors
    return b"".join(one.frame for one in vectors if isinstance(one.expect, Decoded))


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("model", DRIVERS)
def test_what_is_printed_for_any_known_protocol_loads(technician: Technician, model: str, lang: str) -> None:
    assert technician.find((DRIVERS[model].line, frames(model) * 2), lang=lang)
    technician.config.write_text(f"{CONFIG}\n{technician.block}\n", encoding="utf-8")
    settings, findings = inspect(technician.config)
    assert findings == ()
    assert settings is not None
    assert {one.model for one in settings.devices} == {model}
    assert [(one.id, one.port) for one in settings.serial] == [("line-2", PORT)]
    assert settings.serial[0].line(DRIVERS[model].line) == DRIVERS[model].line


def test_a_line_that_is_set_otherwise_than_usual_is_printed_as_it_was_heard(technician: Technician) -> None:
    def even(data: bytes) -> bytes:
        return bytes(byte | (0x80 if byte.bit_count() % 2 else 0) for byte in data)

    assert technician.find((LineSettings(baud=4800), even(POLL * 3)))
    assert "4800 7E1: espa444 (ESPA 4.4.4 nurse-call system), 3 frames, 100 % of all bytes." in technician.said
    line = tomllib.loads(technician.block)["serial"][0]
    assert (line["baud"], line["bits"], line["parity"]) == (4800, 7, "E")


def test_what_a_serial_server_is_set_to_is_not_known_and_not_printed(technician: Technician) -> None:
    assert technician.find((None, frames("ld2410")))
    assert set(tomllib.loads(technician.block)["serial"][0]) == {"id", "port"}


def test_the_settings_are_gone_through_until_two_frames_were_read(technician: Technician) -> None:
    assert technician.find(
        (AT_115200, b"\x91\x03"), (AT_9600, b""), (AT_9600, POLL), (AT_9600, POLL), (AT_9600, b"never")
    )
    assert technician.stays == [False, False, True]
    assert "115200 8N1  2 bytes  nobody that the gateway knows:  91 03" in technician.said
    assert "9600 8N1: espa444 (ESPA 4.4.4 nurse-call system), 2 frames" in technician.said


def test_one_frame_may_be_noise_that_looks_like_one(technician: Technician) -> None:
    assert technician.find((AT_9600, bytes.fromhex("fd4a5b68a0df")))
    assert "probably ev1527-board" in technician.said
    assert 'address = "4A5B6"' in technician.block
    assert "hears the neighbours" in technician.said


def test_noise_of_before_hides_nothing_that_is_clear_now(technician: Technician) -> None:
    assert technician.find((AT_9600, b"\x00" * 500), (AT_9600, POLL), (AT_9600, POLL * 2))
    assert "espa444" in technician.block


def test_the_beds_that_a_system_calls_are_devices_and_so_is_the_system(technician: Technician) -> None:
    call = bytes.fromhex("01310231") + b"\x1f3011\x1e2\x1fWC\x03"
    check = 0
    for byte in call[1:]:
        check ^= byte
    assert technician.find((AT_9600, POLL + call + bytes([check])))
    devices = tomllib.loads(technician.block)["device"]
    assert [(one.get("address"), one.get("room")) for one in devices] == [(None, None), ("3011", "")]


def test_what_the_fields_of_a_json_line_mean_is_left_to_whoever_pastes_it(technician: Technician) -> None:
    assert technician.find((AT_115200, b'{"dev":"b1","n":7,"t":21.5,"ev":"press"}\n' * 2))
    (device,) = tomllib.loads(technician.block)["device"]
    assert (device["model"], device["address"]) == ("json-lines", "b1")
    assert device["map"]["signal"] == [{"field": "ev", "equals": "press", "is": "call"}]
    assert "what calls: put in what your device says then" in technician.block


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_silence_and_strangers_are_told_apart(tmp_path: Path, lang: str) -> None:
    silent, strange = Technician(tmp_path), Technician(tmp_path)
    assert not silent.find((AT_9600, b""), (AT_115200, b""), lang=lang)
    assert not strange.find((AT_9600, b"\x11\x02\x13" * 40), lang=lang)
    assert ("什么都没听到" if lang == "zh" else "Nothing was heard") in silent.said
    assert "11 02 13" in strange.said
    assert ("有字节来" if lang == "zh" else "Bytes came") in strange.said


def test_what_would_be_wrong_with_it_and_that_nothing_could_be_checked_are_told(technician: Technician) -> None:
    technician.config.write_text(f'{CONFIG}\n[[serial]]\nid = "x"\nport = "{PORT}"\n', encoding="utf-8")
    assert technician.find((AT_9600, POLL * 2))
    assert "would have something against it" in technician.said
    technician.config.unlink()
    assert technician.find((AT_9600, POLL * 2))
    assert "nothing was checked" in technician.said


def test_as_json_each_hearing_and_the_result_are_an_object(technician: Technician) -> None:
    assert technician.find((AT_115200, b"\x91"), (AT_9600, POLL * 2), form="json")
    noise, hearing, result = map(json.loads, technician.said.splitlines())
    assert (noise["settings"], noise["models"], noise["capture"]) == ("115200 8N1", [], {"bytes": "91"})
    assert (hearing["settings"], hearing["models"]) == ("9600 8N1", ["espa444"])
    assert (result["model"], result["sure"], result["settings"]) == ("espa444", True, "9600 8N1")
    assert tomllib.loads(result["config"])["device"][0]["model"] == "espa444"


def test_as_vectors_what_was_read_can_be_pasted_into_a_driver(technician: Technician) -> None:
    assert technician.find((LineSettings(baud=256000), frames("ld2410")), form="vectors")
    assert technician.said.count("StreamVector(") == 2
    assert 'frame=bytes.fromhex("f4f3f2f1' in technician.said


def test_what_came_is_recorded_whatever_it_is(technician: Technician, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "heard.jsonl", with_strangers=False)
    recording.open()
    technician.find((AT_9600, b"\x01\x02"), recording=recording)
    recording.close()
    (row,) = map(json.loads, (tmp_path / "heard.jsonl").read_text("utf-8").splitlines())
    assert (row["kind"], row["link"], row["bytes"]) == ("noise", PORT, "0102")


def test_the_usual_settings_of_every_driver_are_tried() -> None:
    tried = {(one.baud, one.parity) for one in SETTINGS}
    assert {(one.line.baud, one.line.parity if one.line.bits == 8 else "N") for one in DRIVERS.values()} <= tried


# The command.


def command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DAYCARE_GATEWAY_CONFIG": "/nonexistent/gateway.toml"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "listen", *words], env=environment, capture_output=True, text=True,
        timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def speaking() -> Iterator[tuple[str, int]]:
    """A pty on which a system polls for as long as somebody listens."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    tty.setraw(slave)  # else the line itself sends back what it hears
    os.close(slave)
    ends = threading.Event()

    def speak() -> None:
        while not ends.wait(0.5):
            os.write(master, POLL)

    thread = threading.Thread(target=speak)
    thread.start()
    yield name, master
    ends.set()
    thread.join()
    os.close(master)


def test_on_a_real_port_nothing_is_sent(speaking: tuple[str, int]) -> None:
    port, master = speaking
    done = command(port, "--seconds", "40", "--lang", "en")
    assert (done.returncode, 'model = "espa444"' in done.stdout) == (0, True), done.stdout + done.stderr
    os.set_blocking(master, False)
    with pytest.raises(OSError, match=r"Input/output error|temporarily unavailable"):
        os.read(master, 100)


def test_on_a_serial_server_nothing_is_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        got: list[bytes] = []

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.sendall(frames("mr24fdb1") * 3)
                got.append(line.recv(100))  # until the other side closes

        thread = threading.Thread(target=serve)
        thread.start()
        done = command(f"socket://127.0.0.1:{server.getsockname()[1]}", "--seconds", "40", "--lang", "zh")
        thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'model = "mr24fdb1"' in done.stdout
    assert got == [b""]


@pytest.mark.parametrize(
    ("port", "told"),
    [("/dev/nonexistent", "GW-SER-01"), ("COM3", "expected an absolute device path"), ("/etc/passwd", "GW-SER-07"),
     ("socket://127.0.0.1:1", "GW-SER-06")],
)  # fmt: skip
def test_a_port_that_cannot_be_opened_is_told_as_what_it_is(port: str, told: str) -> None:
    done = command(port, "--lang", "en", "--seconds", "5")
    assert (done.returncode, told in done.stderr) == (3, True), done.stderr


def test_a_port_that_somebody_holds_is_not_taken_from_him() -> None:
    master, slave = os.openpty()
    try:
        done = command(os.ttyname(slave), "--lang", "en", "--seconds", "5")
    finally:
        os.close(slave)
        os.close(master)
    assert (done.returncode, "GW-SER-03" in done.stderr) == (3, True), done.stderr
    assert "stop daycare-gateway" in done.stderr
