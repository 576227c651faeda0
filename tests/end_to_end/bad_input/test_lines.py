"""The bad-input table, serial lines: a port that is missing, held, or not ours to use, and a flood of garbage.

Each time the button on the other line is heard, stored and delivered meanwhile, and the line comes back by itself.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.bad_input.conftest import Cable, Centre
else:
    Cable = Centre = Any

pytestmark = pytest.mark.slow

RADAR = """
[[serial]]
id = "radar-line"
port = "{port}"

[[device]]
id = "radar-201"
model = "json-lines"
link = "radar-line"
address = "r1"
map = {{ signal = [ {{ field = "ev", equals = "fall", is = "fall" }} ] }}
"""
# What a terminal program does: opens the port, locks it (as minicom, agetty and the gateway do), and stays.
TERMINAL = """
import fcntl, sys, time
port = open(sys.argv[1], "rb")
fcntl.flock(port, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def fall(n: int) -> bytes:
    return b'{"dev":"r1","n":%d,"ev":"fall"}\n' % n


async def comes_back(centre: Centre, cable: Cable, code: str) -> None:
    """The line is well again, a fall on it arrives, and the trouble was told once when it came and once when it went."""
    await centre.well()
    await cable.say(fall(1))
    await centre.alarms_arrived(1, "radar-201")
    centre.logged((code, "radar-line", "on"), (code, "radar-line", "off"))


async def test_a_missing_port(centre: Centre, new_cable: Callable[[], Cable]) -> None:
    cable = new_cable()
    port = centre.folder / "usb-1a86-port0"
    centre.configure(RADAR, port=port)
    await centre.gateway.start()
    await centre.problem("GW-SER-01", "radar-line")
    await centre.call_is_heard()

    told = await centre.diagnose()
    told.says_first(
        "GW-SER-01", "radar-line", status=2,
        zh=(f"串口 radar-line 不见了：{port}", "检查 USB 转接头是否插好；ls -l /dev/serial/by-id/，与配置里的 port 对照"),
        en=(
            f"serial port radar-line is not there: {port}",
            "check that the USB adapter is plugged in; compare ls -l /dev/serial/by-id/ with port in the configuration",
        ),
    )  # fmt: skip
    assert told.bad == [("GW-SER-01", "radar-line")]

    cable.free()
    port.symlink_to(cable.port)  # plugged in
    await comes_back(centre, cable, "GW-SER-01")


async def test_a_port_that_another_program_holds(centre: Centre, new_cable: Callable[[], Cable]) -> None:
    cable = new_cable()
    cable.free()
    program = centre.folder / "terminal"
    program.write_text(TERMINAL)
    holder = await asyncio.create_subprocess_exec(sys.executable, program, cable.port, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    who = f"{sys.executable} {program} {cable.port}"[:80]
    try:
        centre.configure(RADAR, port=cable.port)
        await centre.gateway.start()
        await centre.problem("GW-SER-03", "radar-line")
        await centre.call_is_heard()

        told = await centre.diagnose()
        told.says_first(
            "GW-SER-03", "radar-line", status=2,
            zh=(
                f"串口 radar-line 被别的程序占用：{cable.port}（{who}，进程 {holder.pid}）",
                (f"systemctl status {holder.pid} 看它属于哪个服务，停掉它：sudo systemctl disable --now 服务名；看不出是谁，"
                f"装 psmisc 后 sudo fuser -v {cable.port}"),
            ),
            en=(
                f"another program holds serial port radar-line: {cable.port} ({who}, process {holder.pid})",
                (f"systemctl status {holder.pid} tells which service it is; stop it: sudo systemctl disable --now SERVICE; if "
                f"nobody is named, install psmisc and look: sudo fuser -v {cable.port}"),
            ),
        )  # fmt: skip
        assert told.bad == [("GW-SER-03", "radar-line")]
    finally:
        holder.kill()
        await holder.wait()
    await comes_back(centre, cable, "GW-SER-03")


@pytest.mark.usefixtures("unprivileged")
async def test_a_port_that_we_may_not_use(centre: Centre, new_cable: Callable[[], Cable]) -> None:
    cable = new_cable()
    cable.port.chmod(0o000)
    centre.configure(RADAR, port=cable.port)
    await centre.gateway.start()
    await centre.problem("GW-SER-02", "radar-line")
    await centre.call_is_heard()

    told = await centre.diagnose()
    group = cable.port.group()
    told.says_first(
        "GW-SER-02", "radar-line", status=2,
        zh=(
            f"没有权限使用串口 radar-line：{cable.port}（属组 {group}）",
            ("把 daycare-gateway 用户加入端口的属组（一般是 dialout）：sudo usermod -aG dialout daycare-gateway && "
            "sudo systemctl restart daycare-gateway"),
        ),
        en=(
            f"not permitted to use serial port radar-line: {cable.port} (group {group})",
            ("add user daycare-gateway to the group of the port, dialout as a rule: sudo usermod -aG dialout daycare-gateway && "
            "sudo systemctl restart daycare-gateway"),
        ),
    )  # fmt: skip
    assert told.bad == [("GW-SER-02", "radar-line")]

    cable.free()
    cable.port.chmod(0o600)
    await comes_back(centre, cable, "GW-SER-02")


async def test_a_flood_of_garbage(centre: Centre, new_cable: Callable[[], Cable]) -> None:
    """400 kB at once, as from a wrong baud rate, with good lines in it: every one of them is heard, and so is the button."""
    cable = new_cable()
    cable.free()
    centre.configure(RADAR, port=cable.port)
    await centre.gateway.start()
    await centre.well()
    noise = random.Random(5)  # noqa: S311 - noise that can be repeated
    for n in range(1, 101):
        await cable.say(noise.randbytes(4000) + b"\n" + fall(n))
        if n == 50:
            await centre.problem("GW-DEV-02", "radar-line")
            await centre.call_is_heard()
    await centre.gateway.until("all of it read", lambda status: _falls(status) == 100)

    told = await centre.diagnose()
    (garbage,) = (one["facts"]["bytes"] for one in (await centre.gateway.ask("status"))["problems"])
    assert 1_024 < garbage <= 4_001  # since the last good line
    told.says_first(
        "GW-DEV-02", "radar-line", status=1,
        zh=(
            f"线路 radar-line 上有乱码：连续 {garbage} 字节没有完整的消息",
            "检查线路参数（baud、parity）、屏蔽和终端电阻；gateway listen --raw 看原始字节",
        ),
        en=(
            f"garbage on line radar-line: {garbage} bytes without a whole message",
            "check the line settings (baud, parity), shield and termination; gateway listen --raw shows the bytes",
        ),
    )  # fmt: skip
    assert told.bad == [("GW-DEV-02", "radar-line")]

    # Ten seconds of nothing but good lines, and it is well.
    end = time.monotonic() + 30
    while (await centre.gateway.ask("status"))["problems"]:
        assert time.monotonic() < end, centre.gateway.said()
        n += 1
        await cable.say(fall(n))
        await asyncio.sleep(0.5)
    await centre.alarms_arrived(n, "radar-201")
    centre.logged(("GW-DEV-02", "radar-line", "on"), ("GW-DEV-02", "radar-line", "off"))


def _falls(status: dict[str, Any]) -> int:
    return next(int(one["heard"]) for one in status["devices"] if one["id"] == "radar-201")
