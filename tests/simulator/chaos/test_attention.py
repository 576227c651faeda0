"""A gateway that waits between two tries cannot show what it has not met: when it last knocked is in what a platform counts."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from simulator.chaos.stage import _latest
from simulator.platform import district


def test_the_latest_knock_is_found_however_deep_it_stands() -> None:
    assert _latest({"ways": [{"link": {"last_at": 5.0}}, {"link": {"last_at": 7}}], "last_at": None}) == 7.0
    assert _latest({"accepted": 3, "ways": []}) == 0.0
    assert _latest([None, "x"]) == 0.0


async def test_a_connection_is_a_knock(tmp_path: Path) -> None:
    async with district(tmp_path) as platform:
        began = time.time()
        assert _latest(platform.stats()) < began
        with socket.create_connection(("127.0.0.1", platform.port)):
            while _latest(platform.stats()) < began:
                await asyncio.sleep(0.01)
