"""The command line as a real process against a control server of the test's own: the wire is the contract."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway import control_client as client
from gateway.cli import main
from gateway.cli.layout import Paper, clean, size, width
from gateway.cli.reports import local_time, short_ids
from gateway.errors import ControlError, LinkDown

DEADLINE_S = 60.0

ALARM = "0197c1de-4a2b-7c3d-8e4f-5a6b7c8d9e0f"
STATUS: dict[str, Any] = {
    "gateway": {"id": "gw-1", "org": "kz", "site": "hanfeng-01"},
    "version": "0.1.0",
    "pid": 812,
    "started_at": "2026-03-01T00:00:00.000Z",
    "uptime_s": 11_520.4,
    "clock": {"state": "unsynced"},
    "devices": [
        {
            "id": "call-201-1", "model": "bthome-button", "link": "radio", "room": "201", "last_heard_s": 12.3, "heard": 40,
            "events": 3, "repeats": 37, "rejects": {"bad-check": 2}, "polls": 0, "polls_failed": 0, "alarm": ALARM,
        },
        {
            "id": "meter", "model": "dlt645-2007", "link": "bus", "room": "", "last_heard_s": None, "heard": 0,
            "events": 0, "repeats": 0, "rejects": {}, "polls": 9, "polls_failed": 9, "alarm": None,
        },
    ],
    "links": [
        {"id": "radio", "kind": "ble", "hearing": True, "since_s": 3600.0, "problem": None, "dropped": 0},
        {"id": "bus", "kind": "serial", "hearing": False, "since_s": 61.0, "problem": "GW-SER-01", "dropped": 4},
    ],
    "outbox": {"stream": "s", "sequence": 1234, "rows": {"A": 1, "B": 0, "C": 7, "D": 0}, "unstored": 0, "bytes": 524_288},
    "destinations": [
        {
            "id": "district", "connected": True, "epoch": 3, "pending": {"A": 1, "B": 0, "C": 7, "D": 0}, "inflight": 2,
            "accepted": 1200, "rejected": 0, "resent": 5, "dead_letters": 1, "last_accepted_s": 2.0,
        }
    ],
    "alarms": {"open": 1},
    "problems": [
        {
            "code": "GW-SER-01", "subject": "bus", "severity": "problem", "since_s": 61.0, "hidden": False,
            "title": "串口 bus 不见了：/dev/ttyS0", "remedy": "检查 USB 转接头是否插好",
        },
        {
            "code": "GW-DEV-01", "subject": "meter", "severity": "problem", "since_s": 30.0, "hidden": True,
            "title": "设备 meter 不应答", "remedy": "检查电源",
        },
    ],
}  # fmt: skip
ALARMS = [
    {
        "id": ALARM, "kind": "call", "device": "call-201-1", "room": "201", "bed": "1", "state": "ACTIVE",
        "raised_at": "2026-03-01T08:00:00.000Z", "presses": 2, "verified": False, "acked_by": "", "closed_by": "",
        "why": "", "delivery": {"district": "L2"},
    },
    {
        "id": "0197c1de-4a2b-7c3d-8e4f-ffffffffffff", "kind": "fall", "device": "fall-1", "room": "大厅", "bed": "",
        "state": "CLOSED", "raised_at": "2026-03-01T08:00:00.000Z", "presses": 1, "verified": True, "acked_by": "li",
        "closed_by": "wang", "why": "误报", "delivery": {},
    },
]  # fmt: skip

Answer = Callable[[dict[str, Any]], list[object]]


@dataclass
class Daemon:
    """What pretends to be the daemon: it notes each request and sends what it is told to."""

    path: Path
    answer: Answer
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        self.requests.append(request)
        for item in self.answer(request):
            line = item if isinstance(item, bytes) else json.dumps(item, ensure_ascii=False).encode() + b"\n"
            writer.write(line)
        await writer.drain()
        if request["op"] == "listen":
            await reader.read()  # until the client goes
        writer.close()


@asynccontextmanager
async def daemon(folder: Path, answer: Answer) -> AsyncIterator[Daemon]:
    pretended = Daemon(folder / "control.sock", answer)
    server = await asyncio.start_unix_server(pretended.serve, pretended.path)
    async with server:
        yield pretended


def result(value: object) -> Answer:
    return lambda _: [{"ok": True, "result": value}]


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """No locale, no colour wish, no configuration of this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "TZ": "Asia/Shanghai", "DAYCARE_GATEWAY_CONFIG": "/nonexistent/gateway.toml", **more}


async def gateway(*words: object, **more: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *map(str, words), env=environment(**more),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in out + err or "--debug" in words
    return Ran(process.returncode, out.decode(), err.decode())


# -- status ------------------------------------------------------------------------------------------------------


async def test_status_tells_first_what_is_wrong_and_then_everything_else(tmp_path: Path) -> None:
    async with daemon(tmp_path, result(STATUS)) as pretended:
        ran = await gateway("status", "--control", pretended.path)
    assert pretended.requests == [{"op": "status"}]
    assert ran.err == ""
    assert ran.status == 2
    assert ran.out == (
        "网关 gw-1  kz/hanfeng-01  版本 0.1.0\n"
        "已运行 3 小时 12 分，进程 812，时钟未校准\n"
        "\n"
        "问题\n"
        "  问题 GW-SER-01  串口 bus 不见了：/dev/ttyS0  (1 分钟)\n"
        "       办法：检查 USB 转接头是否插好\n"
        "  另有 1 个由上面的问题引起\n"
        "\n"
        "未关闭的报警 1 个（gateway alarm list）\n"
        "\n"
        "平台\n"
        "  编号      状态  待送 A/B/C/D  在途  已受理  重送  死信  上次受理\n"
        "  district  在线  1/0/7/0       2     1200    5     1     2 秒前\n"
        "\n"
        "待送\n"
        "  已存 1234 个事件，占 512.0 KiB；待存 0  (A/B/C/D 1/0/7/0)\n"
        "  A 报警，B 故障和状态，C 当前读数，D 断网期间的读数\n"
        "\n"
        "连接\n"
        "  编号   种类    状态    多久         代码       丢弃\n"
        "  radio  ble     正常    1 小时 0 分  -          0\n"
        "  bus    serial  听不到  1 分钟       GW-SER-01  4\n"
        "\n"
        "设备\n"
        "  编号        型号           连接   房间  上次听到  收到  事件  重复  拒收         轮询/失败  报警\n"
        "  call-201-1  bthome-button  radio  201   12 秒前   40    3     37    bad-check:2  -          0197c1de-4a2b-7c3d\n"
        "  meter       dlt645-2007    bus    -     从未      0     0     0     -            9/9        -\n"
    )


async def test_a_problem_says_where_it_is(tmp_path: Path) -> None:
    problems = [
        {"code": "GW-CFG-20", "subject": "device[1] (call-1).key", "severity": "problem", "since_s": 5, "title": "x"}
    ]
    async with daemon(tmp_path, result({**STATUS, "problems": problems})) as pretended:
        ran = await gateway("status", "--control", pretended.path)
    assert "  问题 GW-CFG-20  device[1] (call-1).key  x  (5 秒)\n" in ran.out


async def test_status_in_english(tmp_path: Path) -> None:
    async with daemon(tmp_path, result(STATUS)) as pretended:
        ran = await gateway("--lang", "en", "status", "--control", pretended.path)
    assert "gateway gw-1  kz/hanfeng-01  version 0.1.0\nup 3 h 12 min, process 812, clock not synchronised\n" in ran.out
    assert "  1 more that follow from these\n" in ran.out


async def test_a_title_is_said_in_the_askers_language_where_the_facts_came_along(tmp_path: Path) -> None:
    problems = [{**STATUS["problems"][0], "facts": {"port": "/dev/ttyS0"}}]
    async with daemon(tmp_path, result({**STATUS, "problems": problems})) as pretended:
        ran = await gateway("--lang=en", "status", "--control", pretended.path)
    assert "problem GW-SER-01  serial port bus is not there: /dev/ttyS0  (1 min)" in ran.out


@pytest.mark.parametrize(
    ("severities", "status"), [([], 0), (["notice"], 0), (["warning", "notice"], 1), (["warning", "problem"], 2)]
)
async def test_the_exit_status_is_the_worst_problem(tmp_path: Path, severities: list[str], status: int) -> None:
    problems = [{**STATUS["problems"][0], "severity": one} for one in severities]
    async with daemon(tmp_path, result({**STATUS, "problems": problems})) as pretended:
        assert (await gateway("status", "--control", pretended.path)).status == status


async def test_status_as_json_is_the_answer_itself(tmp_path: Path) -> None:
    async with daemon(tmp_path, result(STATUS)) as pretended:
        ran = await gateway("status", "--json", "--control", pretended.path)
    assert json.loads(ran.out) == STATUS
    assert ran.status == 2


async def test_watch_goes_on_while_the_daemon_is_away_and_ends_quietly(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "status", "--watch", "--json", "--control", str(tmp_path / "control.sock"),
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert "GW-CTL-01" in (await process.stdout.readline()).decode()
        async with daemon(tmp_path, result(STATUS)):
            while not (line := await process.stdout.readline()).startswith(b"{"):
                assert line
        assert json.loads(line) == STATUS
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (2, b"")


# -- what goes wrong ---------------------------------------------------------------------------------------------


async def test_a_daemon_that_does_not_run_is_told_with_the_command_that_starts_it(tmp_path: Path) -> None:
    ran = await gateway("status", "--control", tmp_path / "none.sock")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == (
        f"问题 GW-CTL-01  网关没有在运行（{tmp_path}/none.sock）\n"
        "  影响：呼叫和跌倒都不会报警。\n"
        "  办法：sudo systemctl start daycare-gateway；起不来就看 journalctl -u daycare-gateway -n 50\n"
    )


async def test_nobody_is_asked_to_press_a_button_that_no_gateway_hears(tmp_path: Path) -> None:
    ran = await gateway("pair", "--control", tmp_path / "none.sock")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"问题 GW-CTL-01  网关没有在运行（{tmp_path}/none.sock）\n")


@pytest.mark.parametrize("command", ["scan", "listen"])
def test_who_may_not_use_a_port_is_told_how_they_may_and_not_only_how_the_daemon_may(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise LinkDown("GW-SER-02", "/dev/ttyUSB9", port="/dev/ttyUSB9", group="dialout")

    monkeypatch.setattr("gateway.links.ports.check", refused)
    monkeypatch.setattr("gateway.cli.line_finding.find", refused)
    assert main([command, "/dev/ttyUSB9", "--lang", "zh"]) == 3
    err = capsys.readouterr().err
    assert "GW-SER-02" in err
    assert err.endswith(
        "这个命令用的是您自己的权限：前面加 sudo 再试；长期要用：sudo usermod -aG dialout 您的用户名，重新登录后生效。\n"
    )


async def test_a_socket_file_left_by_a_dead_daemon_is_one_that_does_not_run(tmp_path: Path) -> None:
    async with daemon(tmp_path, result(None)) as pretended:
        pass
    if not pretended.path.exists():  # newer asyncio takes it away with the server
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(pretended.path))
    ran = await gateway("status", "--control", pretended.path, LANG="en_US.UTF-8")
    assert ran.status == 3
    assert ran.err.startswith("problem GW-CTL-01  the gateway is not running")


def test_a_socket_that_may_not_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(address)

    monkeypatch.setattr(socket, "socket", Closed)  # root, who may run this, may use every socket
    assert main(["status", "--control", str(tmp_path / "control.sock"), "--lang", "zh"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"问题 GW-CTL-02  没有权限连接网关（{tmp_path}/control.sock）\n")
    assert "sudo usermod -aG daycare-gateway $USER" in err


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"not json\n"],
        [b"[1]\n"],
        [{"ok": 1}],
        [{"ok": False, "error": "no"}],
        [{"ok": True, "result": None}],
        [{"ok": True, "result": {**STATUS, "devices": [{}]}}],
        [{"ok": True, "result": {**STATUS, "uptime_s": "long"}}],
        [b"x" * (1024 * 1024 + 1000)],
        [b"[" * 100_000 + b"\n"],
    ],
)
async def test_an_answer_that_cannot_be_read_is_told(tmp_path: Path, lines: list[object]) -> None:
    async with daemon(tmp_path, lambda _: lines) as pretended:
        ran = await gateway("status", "--control", pretended.path)
    assert ran.status == 3
    assert "问题 GW-CTL-05  网关没有回答，或答得看不懂：" in ran.err


async def test_a_daemon_that_hangs_is_told_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.05)
    async with daemon(tmp_path, lambda _: [b'{"ok": tr']) as pretended:
        pretended.answer = lambda _: []

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(hang, tmp_path / "hang.sock")
        async with server:
            with pytest.raises(ControlError) as caught:
                await asyncio.to_thread(client.ask, tmp_path / "hang.sock", "status")
    assert (caught.value.code, caught.value.facts) == ("GW-CTL-05", {"detail": "0.05 s"})


async def test_a_refusal_is_shown_in_its_own_words(tmp_path: Path) -> None:
    refusal = {"ok": False, "error": {"code": "GW-CTL-03", "message": "没有编号为 0197 的报警"}}
    async with daemon(tmp_path, lambda _: [refusal]) as pretended:
        ran = await gateway("alarm", "ack", "0197", "--by", "li", "--control", pretended.path)
    assert ran.status == 2
    assert ran.err.startswith("问题 GW-CTL-03  没有编号为 0197 的报警\n")


async def test_nothing_from_outside_can_play_with_the_terminal(tmp_path: Path) -> None:
    evil = {**STATUS["problems"][0], "title": "\x1b[2J\x07title\nline", "remedy": "\u202eremedy"}
    async with daemon(tmp_path, result({**STATUS, "problems": [evil]})) as pretended:
        ran = await gateway("status", "--control", pretended.path)
    assert "�[2J�title�line" in ran.out
    assert "�remedy" in ran.out


async def test_an_internal_error_is_one_line_and_a_trace_only_when_asked_for() -> None:
    broken = (
        "import sys\nimport gateway.control_client as client\nfrom gateway.cli import main\n"
        "def ask(*words, **more): raise ZeroDivisionError('by nought')\n"
        "client.ask = ask\nsys.exit(main())"
    )
    errors = []
    for words in (["status"], ["status", "--debug"]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", broken, *words, env=environment(), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE_S):
            _, err = await process.communicate()
        assert process.returncode == 3
        errors.append(err.decode())
    first = "问题 GW-RUN-03  程序内部错误：ZeroDivisionError: by nought\n"
    assert [error.startswith(first) for error in errors] == [True, True]
    assert ["Traceback" in error for error in errors] == [False, True]


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["alarm"], ["alarm", "ack"], ["alarm", "close", "1", "--by", "li"], ["listen", "--seconds", "0"],
     ["listen", "--seconds", "long"], ["status", "--lang", "fr"], ["status", "more"], ["config"]],
)  # fmt: skip
async def test_a_command_line_that_is_not_right_ends_with_3(words: list[str]) -> None:
    ran = await gateway(*words)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("命令写得不对：")
    assert "用法：gateway" in ran.err


# -- alarms ------------------------------------------------------------------------------------------------------


async def test_alarms_are_listed_with_ids_that_can_be_typed(tmp_path: Path) -> None:
    async with daemon(tmp_path, result(ALARMS)) as pretended:
        ran = await gateway("alarm", "list", "--all", "--control", pretended.path)
    assert pretended.requests == [{"op": "alarms.list", "all": True}]
    assert ran.status == 0
    assert ran.out == (
        "  编号                       状态    种类             房间  床位  设备        发生时间             次数  "
        "处理人            送达\n"
        "  0197c1de-4a2b-7c3d-8e4f-5  待处理  呼叫 (未经核实)  201   1     call-201-1  2026-03-01 16:00:00  2     "
        "-                 district: 平台已受理\n"
        "  0197c1de-4a2b-7c3d-8e4f-f  已关闭  跌倒             大厅  -     fall-1      2026-03-01 16:00:00  1     "
        "li / wang (误报)  -\n"
    )


async def test_no_alarms_is_said(tmp_path: Path) -> None:
    async with daemon(tmp_path, result([])) as pretended:
        ran = await gateway("alarm", "list", "--control", pretended.path)
    assert pretended.requests == [{"op": "alarms.list", "all": False}]
    assert ran == Ran(0, "没有报警\n", "")


async def test_acknowledging_and_closing_pass_the_id_as_it_was_typed(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> list[object]:
        done = {"id": ALARM, "kind": "fall", "room": "201", "bed": "1", "device": "fall-1", "by": request["by"]}
        if request["op"] == "alarms.close":
            return [{"ok": True, "result": {**done, "state": "CLOSED", "acked_by": "李", "changed": True}}]
        by, changed = ("李", True) if request["by"] == "李" else ("李", False)
        return [{"ok": True, "result": {**done, "by": by, "state": "ACKED", "acked_by": by, "changed": changed}}]

    async with daemon(tmp_path, answer) as pretended:
        control = ("--control", pretended.path)
        acked = await gateway("alarm", "ack", "0197c1", "--by", "李", *control)
        alone = await gateway("alarm", "ack", "0197c1", *control, SUDO_USER="wang")
        closed = await gateway("alarm", "close", "0197c1", "--by", "li", "--why", "已扶起", *control)
    assert pretended.requests == [
        {"op": "alarms.ack", "id": "0197c1", "by": "李"},
        {"op": "alarms.ack", "id": "0197c1", "by": "wang"},
        {"op": "alarms.close", "id": "0197c1", "by": "li", "why": "已扶起"},
    ]
    assert acked == Ran(0, f"跌倒 201/1，设备 fall-1：李 已确认（报警 {ALARM}）\n", "")
    assert alone == Ran(0, f"跌倒 201/1，设备 fall-1：李 早已确认，没有改动（报警 {ALARM}）\n", "")
    assert closed == Ran(0, f"跌倒 201/1，设备 fall-1：li 已关闭（报警 {ALARM}）\n此前由 李 确认\n", "")


# -- outbox ------------------------------------------------------------------------------------------------------


async def test_the_outbox_is_shown_with_its_dead_letters(tmp_path: Path) -> None:
    letter = {
        "destination": "district", "sequence": "00000000000000000042", "id": ALARM, "type": "alarm.raised",
        "device": "call-201-1", "code": "E7", "reason": "unknown room", "at": "2026-03-01T08:00:00.000Z",
    }  # fmt: skip
    answer = {**STATUS["outbox"], "destinations": STATUS["destinations"], "dead": [letter]}
    async with daemon(tmp_path, result(answer)) as pretended:
        ran = await gateway("outbox", "--dead", "--control", pretended.path)
        as_json = await gateway("outbox", "--json", "--control", pretended.path)
    assert pretended.requests == [{"op": "outbox", "dead": True}, {"op": "outbox", "dead": False}]
    assert ran.status == 0
    assert ran.out.splitlines()[-2:] == [
        "  平台      序号                  类型          设备        代码  原因          时间                 编号",
        "  district  00000000000000000042  alarm.raised  call-201-1  E7    unknown room  2026-03-01 16:00:00  " + ALARM,
    ]
    assert json.loads(as_json.out) == answer


async def test_no_dead_letters_is_said(tmp_path: Path) -> None:
    answer = {**STATUS["outbox"], "destinations": [], "dead": []}
    async with daemon(tmp_path, result(answer)) as pretended:
        ran = await gateway("outbox", "--dead", "--control", pretended.path)
    assert ran.out.endswith("\n没有死信\n")


# -- configuration -----------------------------------------------------------------------------------------------

GOOD = """\
[gateway]
id = "gw-1"
org = "kz"
site = "hanfeng-01"
{more}
[[ble]]
id = "radio"
[[device]]
id = "call-1"
model = "{model}"
link = "radio"
address = "A4:C1:38:56:53:84"
allow_plain = true
[[destination]]
id = "district"
[[destination.path]]
url = "{url}"
"""


def write(folder: Path, *, more: str = "", model: str = "bthome-button", url: str = "mqtts://example.org") -> Path:
    file = folder / "gateway.toml"
    file.write_text(GOOD.format(more=more, model=model, url=url), encoding="utf-8")
    return file


async def test_a_clean_configuration_is_said_to_be_so(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert await gateway("config", "check", "--config", file) == Ran(0, f"{file}：没有发现问题\n", "")
    assert await gateway("config", "check", DAYCARE_GATEWAY_CONFIG=str(file), LC_ALL="en_GB.UTF-8") == Ran(
        0, f"{file}: nothing wrong\n", ""
    )


async def test_a_finding_is_told_with_place_value_reason_meaning_remedy_and_effect(tmp_path: Path) -> None:
    file = write(tmp_path, model="bthome-buton")
    ran = await gateway("config", "check", "--config", file)
    assert ran.status == 2
    told = ran.out.split("\n\n")[1].splitlines()
    assert told[3].startswith("  办法：是不是想写 bthome-button？可用的型号：")
    del told[3]
    assert told == [
        f'{file} 第 10 行  device[1] (call-1).model = "bthome-buton"',
        '  问题 GW-CFG-10  没有名为 "bthome-buton" 的设备型号',
        "  影响：这台设备听不到：如果它是呼叫器或跌倒探测器，不会报警。",
        "  运行时：该条目停用，其余照常运行",
    ]
    assert ran.out.endswith(f"照这样会运行 0 台设备、1 个平台\n{file}：2 个错误，0 个警告\n")


async def test_warnings_alone_end_with_1_and_the_configured_language_is_used(tmp_path: Path) -> None:
    file = write(tmp_path, more='lang = "en"\n[[serial]]\nid = "bus"\nport = "/dev/ttyUSB0"')
    ran = await gateway("config", "check", "--config", file)
    assert ran.status == 1
    assert ran.out.endswith(f"{file}: 0 errors, 1 warnings\n")


async def test_findings_as_json(tmp_path: Path) -> None:
    file = write(tmp_path, url="mqtt://example.org:1883")
    ran = await gateway("--lang", "en", "config", "check", "--json", "--config", file)
    nobody, finding = json.loads(ran.out)
    assert nobody["code"] == "GW-CFG-41"
    assert finding == {
        "code": "GW-CFG-25", "severity": "problem", "effect": "set-aside", "file": str(file), "line": 17,
        "where": "destination[1] (district).path[1].url", "value": '"mqtt://example.org:1883"',
        "title": "plain text to example.org is refused: mqtt:// may go to this machine only",
        "meaning": "Alarms are never sent in plain text: this path is of no use, and without another one they do not reach "
        "this platform.",
        "remedy": "use mqtts://example.org:8883 with a ca_file; there is no switch that turns this check off",
    }  # fmt: skip


async def test_run_refuses_a_configuration_that_does_not_say_who_it_is(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nid = "gw-1"\n')
    ran = await gateway("run", "--config", file)
    assert (ran.status, ran.out) == (2, "")
    assert "GW-CFG-05  缺少 org" in ran.err
    assert "运行时：网关无法启动" in ran.err
    assert "其余照常运行" not in ran.err


async def test_secrets_in_the_wrong_place_are_never_printed(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[gateway]\nid = "g"\norg = "o"\nsite = "s"\npassword = "canary-1"\n[[ble]]\nid = "r"\n'
        '[[device]]\nid = "d"\nmodel = "bthome-button"\nlink = "r"\naddress = "A4:C1:38:56:53:84"\nkey = "canary-2"\n'
        '[[destination]]\nid = "p"\npasswrod = "canary-3"\n[[destination.path]]\nurl = "mqtts://u:canary-4@h"\n'
        'password = "canary-5"\nkey_file = ["canary-6"]\n'
    )
    for words in (["config", "check"], ["config", "check", "--json"], ["config", "check", "--debug", "--lang", "en"]):
        ran = await gateway(*words, "--config", file)
        assert ran.status == 2
        assert "canary" not in ran.out + ran.err


async def test_the_socket_comes_from_the_configuration_even_if_the_rest_of_it_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'[gateway]\ncontrol_socket = "{tmp_path}/control.sock"\nlang = "en"\n')
    async with daemon(tmp_path, result([])):
        ran = await gateway("alarm", "list", "--config", file)
    assert ran == Ran(0, "no alarms\n", "")


# -- the process itself ------------------------------------------------------------------------------------------


async def test_help_is_in_the_asked_language_and_names_every_command() -> None:
    zh, en = await gateway("--help"), await gateway("--help", "--lang", "en")
    assert (zh.status, en.status) == (0, 0)
    assert zh.out.startswith("用法：gateway ")
    assert en.out.startswith("usage: gateway ")
    for command in ("run", "status", "config", "listen", "outbox", "alarm"):
        assert re.search(rf"^    {command} +\S", zh.out, re.MULTILINE)
    assert "退出码：0 正常" in zh.out
    assert "positional" not in zh.out


async def test_the_version_is_told() -> None:
    assert await gateway("--version") == Ran(0, "0.1.0\n", "")


async def test_asking_for_the_state_loads_no_validation_library_and_no_driver() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import sys\nfrom gateway.cli import main\nmain(['status', '--control', '/nonexistent'])\n"
        "print(sorted({'pydantic', 'structlog', 'asyncio', 'drivers', 'paho', 'bleak', 'sqlite3'} & sys.modules.keys()))",
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        out, _ = await process.communicate()
    assert out.decode() == "[]\n"


async def test_a_locale_without_chinese_costs_characters_and_not_the_message(tmp_path: Path) -> None:
    ran = await gateway("status", "--control", tmp_path / "none", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ran.status == 3
    assert "GW-CTL-01" in ran.err


async def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    read, write_end = os.pipe()
    os.close(read)
    async with daemon(tmp_path, result(STATUS)) as pretended:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "status", "--control", str(pretended.path), env=environment(),
            stdout=write_end, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        os.close(write_end)
        async with asyncio.timeout(DEADLINE_S):
            _, err = await process.communicate()
    assert err == b""


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
async def test_colour_only_on_a_terminal_that_wants_it(tmp_path: Path, more: dict[str, str], coloured: bool) -> None:
    master, slave = pty.openpty()
    async with daemon(tmp_path, result(STATUS)) as pretended:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "status", "--control", str(pretended.path),
            env={**environment(), "TERM": "xterm", **more}, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        seen = await asyncio.to_thread(_read_all, master)
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 2
    assert ("\x1b[31m问题\x1b[0m" in seen) is coloured
    assert ("\x1b" in seen) is coloured
    assert "GW-SER-01" in seen


def _read_all(master: int) -> str:
    seen = b""
    try:
        while chunk := os.read(master, 65_536):
            seen += chunk
    except OSError:  # what a terminal says when its last writer has gone
        pass
    finally:
        os.close(master)
    return seen.decode()


# -- layout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "columns"),
    [("abc", 3), ("网关", 4), ("A：", 3), ("ｱ", 1), ("é", 1), ("e\u0301", 1), ("", 0), ("1 秒前", 6)],
)
def test_a_chinese_character_takes_two_columns(shown: str, columns: int) -> None:
    assert width(shown) == columns


@pytest.mark.parametrize(
    ("seconds", "zh", "en"),
    [
        (None, "从未", "never"), (-3.0, "0 秒", "0 s"), (59.9, "59 秒", "59 s"), (60.0, "1 分钟", "1 min"),
        (3599.0, "59 分钟", "59 min"), (3661.0, "1 小时 1 分", "1 h 1 min"), (90_000.0, "1 天 1 小时", "1 d 1 h"),
    ],
)  # fmt: skip
def test_ages_are_as_exact_as_people_need(seconds: float | None, zh: str, en: str) -> None:
    assert (Paper("zh").age(seconds), Paper("en").age(seconds)) == (zh, en)


def test_sizes() -> None:
    assert [size(count) for count in (0, 1023, 1024, 1_572_864, 5_368_709_120)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB",
    ]  # fmt: skip


def test_ids_are_cut_where_they_still_differ() -> None:
    assert short_ids([]) == []
    assert short_ids(["0197c1de-4a2b-7c3d-8e4f-000000000001"]) == ["0197c1de-4a2b-7c3d"]
    assert short_ids(["a" * 30 + "1", "a" * 30 + "2"]) == ["a" * 30 + "1", "a" * 30 + "2"]
    assert short_ids(["same", "same"]) == ["same", "same"]


def test_a_time_that_is_none_stays_as_it_is() -> None:
    assert local_time("yesterday\x07") == "yesterday�"


def test_text_of_one_line_stays_on_one_line() -> None:
    assert clean("a\nb\x1b") == "a�b�"
    assert clean(None) == ""


async def test_how_a_platform_is_spoken_to_that_is_not_spoken_to_natively_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, url='https://example.org"\ncert_file = "/nowhere.pem"\nkey_file = "/nowhere.key')
    text = file.read_text().replace('id = "district"', 'id = "district"\nprofile = "http-json"')
    file.write_text(
        text + '[[destination]]\nid = "city"\nprofile = "thingsboard"\n[[destination.path]]\nurl = "mqtts://a"\n'
    )
    ran = await gateway("--lang", "en", "config", "check", "--config", file)
    l2 = "profile http-json, acceptance confirmed by the application (L2); not with it: an inventory, an online state"
    lacks = "batches, a word of acceptance, an inventory, an online state"
    l1 = f"profile thingsboard, delivered, acceptance not confirmed (L1); not with it: {lacks}"
    assert ran.out.splitlines()[-2:] == [f"platform district: {l2}", f"platform city: {l1}"]
