"""What a sudden death leaves behind: open alarms sound again, and the time of deafness is told with its true limits."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from simulator.platform import district

pytestmark = pytest.mark.slow

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

[[serial]]
id = "absent"
port = "socket://127.0.0.1:{absent}"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}

[[device]]
id = "board-2"
model = "json-lines"
link = "absent"
address = "b2"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
"""


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def gaps(run: Path, link: str) -> list[dict[str, Any]]:
    """The gap events of a link that the platform's application has accepted."""
    rows = [json.loads(line) for line in (run / "platform-district.jsonl").read_text().splitlines()]
    found = [row["event"]["data"] for row in rows if "gateway.gap" in row["type"] and row["status"] == "accepted"]
    return [gap for gap in found if gap["link"] == link]


async def test_open_alarms_and_the_dead_time_are_told_after_a_kill(
    gateway: Any, board: Any, tmp_path: Path, free_port: Callable[[], int], eventually: Any
) -> None:
    absent = free_port()
    began = time.time()
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, line=board.port, absent=absent, platform=platform.port)
        await gateway.start()
        await board.press(1)
        await board.press(2)
        (before,) = await gateway.ask("alarms.list")
        await gateway.until("delivered", lambda status: status["destinations"][0]["accepted"] >= 3)

        killed = time.time()
        await gateway.end(signal.SIGKILL)
        gateway.log.unlink()
        await board.say_to_nobody(b'{"dev":"b1","ev":"press"}\n')
        started = time.monotonic(), time.time()
        await gateway.start()
        await eventually(lambda: any(one["event"] == "alarm" for one in gateway.entries()), "never announced again")
        announced_after_s = time.monotonic() - started[0]
        await gateway.until("hearing", lambda status: status["links"][0]["hearing"])
        (after,) = await gateway.ask("alarms.list")

        (announced,) = [one for one in gateway.entries() if one["event"] == "alarm"]
        assert announced_after_s < 10
        assert (announced["id"], announced["presses"], announced["state"]) == (before["id"], 2, "ACTIVE")
        assert {key: after[key] for key in ("id", "presses", "raised_at", "state")} == {
            key: before[key] for key in ("id", "presses", "raised_at", "state")
        }
        await eventually(lambda: len(gaps(tmp_path, "wire")) == 2, "the gap was never told")
        first, dead = gaps(tmp_path, "wire")
        assert first["reason"] == dead["reason"] == "restart"
        assert began - 0.1 <= seconds(first["from"]) <= seconds(first["to"]) <= killed
        # The last sign of life is a second old at most, and one of the input before the kill at the latest.
        assert killed - 2.0 <= seconds(dead["from"]) <= killed
        assert started[1] <= seconds(dead["to"]) <= time.time()
        assert dead["dropped"] == 0

        # A resent line is known, a new one counts up on the same alarm.
        await board.press(2)
        await board.press(3)
        (alarm,) = await gateway.ask("alarms.list")
        assert (alarm["id"], alarm["presses"]) == (before["id"], 3)

        # The other line never came up in the first life: its deafness began before that.
        assert gaps(tmp_path, "absent") == []
        status, _ = await gateway.end()
        assert status == 0
        assert "Traceback" not in gateway.said()


async def test_a_line_that_was_deaf_over_two_lives_is_told_as_one_deaf_time(
    gateway: Any, board: Any, tmp_path: Path, free_port: Callable[[], int], eventually: Any
) -> None:
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, line=board.port, absent=free_port(), platform=platform.port)
        began = time.time()
        await gateway.start()
        await board.press(1)
        killed = time.time()
        await gateway.end(signal.SIGKILL)
        # The absent server now stands where the board is, and the board's line is gone.
        gateway.configure(CONFIG, line=free_port(), absent=board.port, platform=platform.port)
        restarted = time.time()
        await gateway.start()
        await eventually(lambda: len(gaps(tmp_path, "absent")) == 1, "the gap was never told")
        (gap,) = gaps(tmp_path, "absent")
        assert began - 0.1 <= seconds(gap["from"]) < killed
        assert restarted <= seconds(gap["to"]) <= time.time()


async def test_an_orderly_end_leaves_a_gap_from_its_beginning(
    gateway: Any, board: Any, tmp_path: Path, eventually: Any, free_port: Callable[[], int]
) -> None:
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, line=board.port, absent=free_port(), platform=platform.port)
        await gateway.start()
        await board.press(1)
        told = time.time()
        status, took_s = await gateway.end()
        assert status == 0
        assert took_s < 8
        await gateway.start()
        await eventually(lambda: len(gaps(tmp_path, "wire")) == 2, "the gap was never told")
        gap = gaps(tmp_path, "wire")[1]
        assert told - 0.2 <= seconds(gap["from"]) <= told + 0.5
        await board.press(2)
