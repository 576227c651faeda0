"""A machine that wakes in 1970 without a network time: it reaches its platform over TLS, learns the time there, and keeps it.

A real gateway, a real platform behind TLS, and a wall clock of the gateway's process that jumps (simulator/chaos).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from simulator.chaos.wall_clock import WallClock
from simulator.platform import district

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="cc is missing: apt-get install gcc libc6-dev"),
]

YEARS_10_S = 10 * 365 * 86_400
CONFIG = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "en"

[[serial]]
id = "wire"
port = "socket://127.0.0.1:{line}"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "https://127.0.0.1:{platform}"
  ca_file = "{folder}/tls/ca.pem"
"""


def accepted(run: Path, noun: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "platform-district.jsonl").read_text().splitlines()]
    return [row["event"] for row in rows if noun in row["type"] and row["status"] == "accepted"]


def off_s(written: str) -> float:
    """How far a time is from the true one."""
    return datetime.fromisoformat(written).timestamp() - time.time()


async def test_from_1970_to_the_platform_s_time_and_over_a_jump_of_ten_years(
    gateway: Any, board: Any, tmp_path: Path, eventually: Callable[..., Any], problems_of: Callable[..., Any]
) -> None:
    wall = WallClock(tmp_path)
    wall.jump(3_600 - int(time.time()))
    gateway.env.update(wall.environment())
    async with district(tmp_path, speaks="https") as platform:
        gateway.configure(CONFIG, line=board.port, platform=platform.port)
        await gateway.start()
        await board.press(1)
        # Its certificate is valid from yesterday on: by a clock in 1970 it would be refused.
        status = await gateway.until("synchronised", lambda status: status["clock"]["state"] == "synced")
        assert status["clock"]["by"] == "platform"
        assert status["clock"]["doubt"] == "before"
        assert abs(off_s(status["clock"]["time"])) < 5
        await eventually(lambda: accepted(tmp_path, "gateway.health"), "the offset was never told")
        (told,) = accepted(tmp_path, "gateway.health")
        assert (told["data"]["kind"], told["data"]["by"]) == ("clock", "platform")
        assert abs(off_s(told["time"])) < 15
        await gateway.until("told", lambda status: ("GW-CLK-02", "") in problems_of(status))
        (shown,) = await gateway.ask("alarms.list")
        assert abs(off_s(shown["raised_at"])) < 30

        wall.jump(YEARS_10_S)
        await gateway.until("told", lambda status: ("GW-CLK-05", "") in problems_of(status))
        await board.press(2)
        await eventually(lambda: len(accepted(tmp_path, "alarm.raised")) == 2, "an alarm did not come")
        first, second = accepted(tmp_path, "alarm.raised")
        assert abs(off_s(second["time"])) < 15
        assert second["data"]["clock"]["state"] == "synced"
        assert second["data"]["clock"]["offset_ms"] == told["data"]["clock"]["offset_ms"]
        # Whatever the first was sent with, this puts it right.
        clock = first["data"]["clock"]
        assert clock["boot"] == second["data"]["clock"]["boot"]
        assert clock["mono_ms"] <= told["data"]["clock"]["mono_ms"]

        wall.jump(0)
        await gateway.until("gone", lambda status: ("GW-CLK-05", "") not in problems_of(status))
        steps = [one for one in gateway.entries() if one["event"] == "the clock was set"]
        assert len(steps) == 2
        status, _ = await gateway.end()
        assert status == 0
        assert "Traceback" not in gateway.said()
