"""`gateway devices`: every configured device, whether it runs, and the file alone when the daemon does not answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.devices import joined
from gateway.cli.layout import width

DEADLINE_S = 60.0
ALARM = "0197c1de-4a2b-7c3d-8e4f-5a6b7c8d9e0f"
CONFIG = """
[[device]]
id = "call-201-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
room = "201"
bed = "1"
key = "credential:secret-name"

[[device]]
id = "meter-main"
model = "dlt645-2007"
link = "bus"
address = "000012345678"

[[device]]
id = "radar-3"
model = "andar-rader"
link = "tty"
room = "大厅"
"""
KNOWN = {"repeats": 0, "rejects": {}, "polls": 0, "polls_failed": 0, "alarm": None, "bed": "", "room": ""}
RUNNING = [
    {
        **KNOWN, "id": "call-201-1", "model": "bthome-button", "link": "radio", "room": "201", "bed": "1",
        "address": "A4:C1:38:56:53:84", "last_heard_s": 3.2, "heard": 120, "events": 4, "repeats": 31,
        "rejects": {"bad-check": 2, "no-key": 1}, "rssi": -61, "battery_percent": 87.0, "counter": 1234, "alarm": ALARM,
    },
    {
        **KNOWN, "id": "meter-main", "model": "dlt645-2007", "link": "bus", "address": "000012345678",
        "last_heard_s": None, "heard": 0, "events": 0, "polls": 12, "polls_failed": 12, "rssi": None,
        "battery_percent": None, "counter": None,
    },
]  # fmt: skip


@asynccontextmanager
async def daemon(folder: Path, devices: list[dict[str, Any]]) -> AsyncIterator[Path]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert json.loads(await reader.readline()) == {"op": "status"}
        answer = {"ok": True, "result": {"devices": devices}}
        writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
        await writer.drain()
        writer.close()

    path = folder / "control.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a device that does not run: its model is misspelt."""
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


async def devices(control: Path, config: Path, *words: str) -> tuple[int | None, str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "devices", "--control", str(control), "--config", str(config), *words,
        env=kept, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert b"Traceback" not in out + err
    return process.returncode, out.decode(), err.decode()


async def test_every_device_is_shown_and_those_that_do_not_run_are_a_problem(tmp_path: Path, config: Path) -> None:
    async with daemon(tmp_path, RUNNING) as control:
        status, out, err = await devices(control, config)
    assert (status, err) == (2, "")
    assert out == (
        "call-201-1  bthome-button  201/1  最近听到：3 秒前  报警：0197c1de-4a2b-7c3d\n"
        "    radio A4:C1:38:56:53:84 · 电量 87 % · -61 dBm · 计数器 1234\n"
        "    听到 120，事件 4，重复 31 · 校验不对 2 · 已加密，没有密钥 1\n"
        "    上次测试：从未\n"
        "meter-main  dlt645-2007  -  最近听到：从未\n"
        "    bus 000012345678 · 听到 0，事件 0，重复 0 · 问过 12 次，失败 12 次\n"
        "    上次测试：从未\n"
        "radar-3  andar-rader  大厅  没有运行\n"
        "    tty\n"
        "有 1 台已配置的设备没有运行：gateway config check 看原因\n"
    )
    assert max(width(line) for line in out.splitlines()) <= 80


async def test_english_fits_on_eighty_columns_too(tmp_path: Path, config: Path) -> None:
    async with daemon(tmp_path, RUNNING) as control:
        _, out, _ = await devices(control, config, "--lang", "en")
    assert out.startswith("call-201-1  bthome-button  201/1  heard: 3 s ago  alarm: 0197c1de-4a2b-7c3d\n")
    assert "tested: never" in out
    assert max(width(line) for line in out.splitlines()) <= 80


async def test_without_a_daemon_the_file_is_shown_and_it_is_said(tmp_path: Path, config: Path) -> None:
    status, out, err = await devices(tmp_path / "none.sock", config)
    assert status == 3
    assert out == (
        "call-201-1  bthome-button  201/1\n    radio A4:C1:38:56:53:84\n"
        "meter-main  dlt645-2007  -\n    bus 000012345678\n"
        "radar-3  andar-rader  大厅\n    tty\n"
    )  # fmt: skip
    assert "GW-CTL-01" in err
    assert f"以上是 {config} 里写的" in err
    assert "secret-name" not in out + err


async def test_without_a_daemon_and_a_file_that_is_said(tmp_path: Path) -> None:
    status, out, err = await devices(tmp_path / "none.sock", tmp_path / "none.toml")
    assert (status, out) == (3, "")
    assert "也读不了" in err


async def test_who_may_not_read_the_file_sees_what_runs(tmp_path: Path) -> None:
    async with daemon(tmp_path, RUNNING) as control:
        status, out, _ = await devices(control, tmp_path / "none.toml")
    assert status == 0
    assert out.count("最近听到") == 2


async def test_json_says_whether_it_runs(tmp_path: Path, config: Path) -> None:
    async with daemon(tmp_path, RUNNING) as control:
        _, out, _ = await devices(control, config, "--json")
    told = json.loads(out)
    assert told["running"] is True
    assert [(one["id"], one["runs"], one["tested_s"]) for one in told["devices"]] == [
        ("call-201-1", True, None), ("meter-main", True, None), ("radar-3", False, None),
    ]  # fmt: skip
    assert told["devices"][0]["counter"] == 1234
    status, out, _ = await devices(tmp_path / "none.sock", config, "--json")
    assert status == 3
    assert json.loads(out)["running"] is False
    assert "secret-name" not in out


def test_a_device_that_left_the_file_while_the_daemon_runs_is_shown_as_well() -> None:
    rows = joined([{"id": "meter-main", "model": "dlt645-2007"}], RUNNING)
    assert [(one["id"], one["runs"]) for one in rows] == [("meter-main", True), ("call-201-1", True)]


async def test_no_device_at_all_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "gateway.toml"
    empty.write_text("[gateway]\n", encoding="utf-8")
    async with daemon(tmp_path, []) as control:
        assert await devices(control, empty) == (0, "没有配置任何设备\n", "")


# The command line itself.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["devices", "--jsn"], "不认识：--jsn"),
        (["alarm", "close", "0197c1de"], "缺少：--by, --why"),
        (["listen", "--seconds"], "--seconds 后面要写一个值"),
        (["listen", "--seconds", "long"], "--seconds：'long' 不合适"),
        (["status", "--lang", "fr"], "--lang：'fr' 不在"),
        (["status", "--json=1"], "--json 后面不带值（'1'）"),
    ],
)
async def test_a_command_line_that_is_not_right_is_told_in_chinese(words: list[str], said: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *words, env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        _, err = await process.communicate()
    assert process.returncode == 3
    assert err.decode().startswith(f"命令写得不对：{said}")
