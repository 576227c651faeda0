"""Three levels, two ways of speaking: the district natively, the street in JSON with business codes, the city only numbers."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from simulator.platform import district

pytestmark = pytest.mark.slow
HOUR_MS = 3_600_000
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
room = "201"
  [[device.map.signal]]
  field = "ev"
  equals = "press"
  is = "call"

[[room]]
id = "201"

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{district}"

[[destination]]
id = "street"
profile = "http-json"
types = ["alarm.*"]
reconnect_spread_s = 0
  [[destination.path]]
  url = "http://127.0.0.1:{street}/care"

[[destination]]
id = "city"
profile = "http-json"
types = ["gateway.counts"]
reconnect_spread_s = 0
  [[destination.path]]
  url = "http://127.0.0.1:{city}"
"""


class Json:
    """A platform that answers every POST with 200 and a business code."""

    def __init__(self) -> None:
        self.port = 0
        self.code = 0
        self.taken: list[dict[str, Any]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(one[15:]) for one in head.split("\r\n") if one.startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                if head.startswith("post") and self.code == 0:
                    self.taken.append(json.loads(body))
                said = json.dumps({"code": self.code, "message": "said"}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
                await writer.drain()
        writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@pytest.fixture
async def levels(gateway: Any, board: Any, tmp_path: Path) -> AsyncIterator[tuple[Json, Json]]:
    """The street's and the city's platform; a daemon that is connected to them and to the district's."""
    street, city = Json(), Json()
    servers = []
    for one in (street, city):
        server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
        one.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    async with district(tmp_path, destination="district", speaks="mqtt") as native:
        gateway.configure(CONFIG, line=board.port, district=native.port, street=street.port, city=city.port)
        await gateway.start()
        await gateway.until("connected", lambda status: all(one["connected"] for one in status["destinations"]))
        yield street, city
        await gateway.end()
    for server in servers:
        server.close()
    for one in (street, city):
        one.hang_up()


def of(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in status["destinations"] if one["id"] == name)


def an_hour_ago(folder: Path) -> None:
    """Let the period that is being counted have begun an hour earlier."""
    with closing(sqlite3.connect(folder / "data" / "outbox.db")) as database:
        [[text]] = database.execute("SELECT value FROM fact WHERE key = 'counts:hour'").fetchall()
        base = json.loads(text)
        base["at"]["mono_ms"] -= HOUR_MS
        database.execute("UPDATE fact SET value = ? WHERE key = 'counts:hour'", [json.dumps(base)])
        database.commit()


async def test_each_level_gets_its_share_in_its_own_words_and_a_kill_doubles_no_count(
    gateway: Any, board: Any, levels: tuple[Json, Json], tmp_path: Path
) -> None:
    street, city = levels
    await board.press(1)
    await gateway.until("delivered", lambda status: of(status, "street")["accepted"] == 1)
    [alarm] = street.taken
    assert (alarm["type"], alarm["device"], alarm["alarm"]["room"]) == ("alarm.raised", "board-1", "201")

    await gateway.end(signal.SIGKILL)
    an_hour_ago(tmp_path)
    await gateway.start()
    await gateway.until("told", lambda _status: city.taken)
    assert {one["type"] for one in city.taken} == {"gateway.counts"}
    hours = [one["data"]["alarms"]["raised"] for one in city.taken if one["data"]["period"] == "hour"]
    # A real hour may have ended meanwhile; together they tell of one call.
    assert sum(one.get("call", {"verified": 0})["verified"] for one in hours) == 1
    assert [name for name in ("board-1", '"201"') if name in json.dumps(city.taken)] == []


async def test_a_login_that_a_code_refuses_is_told_and_its_alarms_wait_while_the_others_go(
    gateway: Any, board: Any, levels: tuple[Json, Json], problems_of: Any
) -> None:
    street, _city = levels
    street.code = 401
    await board.press(1)
    await gateway.until("delivered", lambda status: of(status, "district")["pending"]["A"] == 0)
    status = await gateway.until("told", lambda status: ("GW-NET-04", "street") in problems_of(status))
    assert of(status, "street")["pending"]["A"] == 1
    assert of(status, "street")["dead_letters"] == 0
    street.code = 0
    status = await gateway.until("mended", lambda status: of(status, "street")["accepted"] == 1)
    assert [one["type"] for one in street.taken] == ["alarm.raised"]
