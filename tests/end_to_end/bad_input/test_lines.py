"""The bad-input table, serial lines: a port that is missing, held, or not ours to use, and a flood of garbage.

Each time the button on the other line is heard, stored and delivered meanwhile, and the line comes back by itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import subprocess
import sys
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


def falls(n: int) -> bytes:
    return b'{"dev":"r1","n":%d,"ev":"fall"}\n' % n


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

    port.symlink_to(cable.port)  # plugged in
    await centre.well()
    os.write(cable.far, falls(1))
    await centre.alarms_arrived(1, "radar-201")
    centre.logged(("GW-SER-01", "radar-line", "on"), ("GW-SER-01", "radar-line", "off"))


async def test_a_port_that_another_program_holds(centre: Centre, new_cable: Callable[[], Cable]) -> None:
    cable = new_cable()
    os.close(cable.near)
    held = "import fcntl, sys, time; port = open(sys.argv[1]); fcntl.flock(port, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", held, str(cable.port), stdout=subprocess.PIPE
    )  # fmt: skip
    assert holder.stdout is not None
    await holder.stdout.readline()
    try:
        centre.configure(RADAR, port=cable.port)
        await centre.gateway.start()
        await centre.problem("GW-SER-03", "radar-line")
        await centre.call_is_heard()

        told = await centre.diagnose()
        print(told.paper)
        assert told.bad == [("GW-SER-03", "radar-line")]
    finally:
        holder.kill()
        await holder.wait()
    await centre.well()
    os.write(cable.far, falls(1))
    await centre.alarms_arrived(1, "radar-201")
    centre.logged(("GW-SER-03", "radar-line", "on"), ("GW-SER-03", "radar-line", "off"))
    assert 0


async def test_a_port_that_we_may_not_use(centre: Centre, new_cable: Callable[[], Cable], user: tuple[str, ...]) -> None:
    cable = new_cable()
    cable.port.chmod(0o000)
    centre.configure(RADAR, port=cable.port)
    await centre.gateway.start()
    await centre.problem("GW-SER-02", "radar-line")
    await centre.call_is_heard()

    told = await centre.diagnose()
    print(told.paper)
    assert told.bad == [("GW-SER-02", "radar-line")]

    cable.port.chmod(0o620)
    os.close(cable.near)
    await centre.well()
    os.write(cable.far, falls(1))
    await centre.alarms_arrived(1, "radar-201")
    centre.logged(("GW-SER-02", "radar-line", "on"), ("GW-SER-02", "radar-line", "off"))
    assert 0


async def test_a_flood_of_garbage(centre: Centre, new_cable: Callable[[], Cable]) -> None:
    cable = new_cable()
    os.close(cable.near)
    centre.configure(RADAR, port=cable.port)
    await centre.gateway.start()
    await centre.well()
    noise = random.Random(5)  # noqa: S311 - noise that can be repeated
    for n in range(1, 101):
        os.write(cable.far, noise.randbytes(4000) + b"\n" + falls(n))
    await centre.problem("GW-DEV-02", "radar-line")
    await centre.call_is_heard()

    told = await centre.diagnose()
    print(told.paper)
    assert 0
