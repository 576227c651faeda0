"""What a platform refuses, the whole road: told, listed with its reason, read whole, and sent again when it was mended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
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
  url = "mqtt://127.0.0.1:{port}"
"""


async def cli(config: Path, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *words, "--config", str(config), env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def taken(run: Path) -> list[tuple[int, str]]:
    """Of each arrival of a press: the number of its line, and what was decided."""
    rows = [json.loads(line) for line in (run / "platform-district.jsonl").read_text().splitlines()]
    return [(one["event"]["data"]["n"], one["status"]) for one in rows if one["type"] == "cn.eldercare.alarm.raised.v1"]


async def test_refused_alarms_are_found_and_sent_again(
    gateway: Any, board: Any, tmp_path: Path, problems_of: Callable[..., set[tuple[str, str]]]
) -> None:
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, line=board.port, port=platform.port)
        await gateway.start()
        await gateway.until("connected", lambda status: status["destinations"][0]["connected"])
        platform.conduct.reject(types=["alarm.*"], code="no such room")
        for n in (1, 2):
            await board.press(n)
        status = await gateway.until("refused", lambda status: status["destinations"][0]["dead_letters"] == 2)
        assert {("GW-PLT-02", "district"), ("GW-PLT-06", "district")} <= problems_of(status)

        done, out = await cli(gateway.config, "outbox", "dead", "--json")
        letters = json.loads(out)["dead"]
        assert done == 0
        assert [(one["type"], one["device"], one["code"]) for one in letters] == [
            ("alarm.raised", "board-1", "no such room")
        ] * 2
        _, out = await cli(gateway.config, "outbox", "show", letters[1]["id"], "--json")
        assert json.loads(out)[0]["event"]["data"]["n"] == 1

        platform.conduct.accept()
        await board.press(3)
        done, out = await cli(gateway.config, "outbox", "requeue", "--all", "--destination", "district")
        assert (done, out) == (0, "2 events go again\n")
        status = await gateway.until("delivered", lambda status: not any(status["destinations"][0]["pending"].values()))
        assert status["outbox"]["requeued"] == 2
        assert problems_of(status) & {("GW-PLT-02", "district"), ("GW-PLT-06", "district")} == set()
        assert [one for one in taken(tmp_path) if one[1] == "accepted"] == [
            (3, "accepted"),
            (1, "accepted"),
            (2, "accepted"),
        ]
        figures = platform.application.stats()
        assert (figures["reordered"], figures["gaps"]["deliveryseq_missing"]) == (0, 0)
        assert (await cli(gateway.config, "outbox", "dead"))[1] == "no dead letters\n"


async def test_what_was_delivered_goes_again_by_its_sequence_with_the_same_ids_and_numbers(
    gateway: Any, board: Any, tmp_path: Path, eventually: Any
) -> None:
    async with district(tmp_path) as platform:
        gateway.configure(CONFIG, line=board.port, port=platform.port)
        await gateway.start()
        for n in range(1, 6):
            await board.press(n)
        # Five presses, and the gap that the start leaves.
        await gateway.until("delivered", lambda status: status["outbox"]["kept"] == status["outbox"]["sequence"] == 6)
        last = 6
        words = ("outbox", "replay", "--destination", "district", "--from", "2", "--to", str(last))
        done, out = await cli(gateway.config, *words)
        assert (done, out) == (0, f"{last - 1} events go to district again, with their ids and numbers\n")
        await gateway.until("delivered", lambda status: not any(status["destinations"][0]["pending"].values()))
        await eventually(lambda: platform.application.counts["duplicate"] == last - 1, "not everything came again")
        rows = [json.loads(line) for line in (tmp_path / "platform-district.jsonl").read_text().splitlines()]
        first = {one["id"]: (one["sequence"], one["deliveryseq"]) for one in rows if one["status"] == "accepted"}
        again = {one["id"]: (one["sequence"], one["deliveryseq"]) for one in rows if one["status"] == "duplicate"}
        assert len(first) == last
        assert again == {name: numbers for name, numbers in first.items() if int(numbers[0]) >= 2}
        # A new press is not held up, and comes once.
        await board.press(6)
        await gateway.until("delivered", lambda status: not any(status["destinations"][0]["pending"].values()))
        assert taken(tmp_path)[-1] == (6, "accepted")
        done, out = await cli(gateway.config, *words[:-1], str(last + 99))
        assert done == 2
        assert f"the last sequence is {last + 1}" in out
