"""The platform as a process of its own: remote control, a clean end, and no orphan after an unclean one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulator.platform import ControlError, control_socket, district, main
from simulator.platform.ledger import LedgerError, read_ledger
from simulator.platform.link import Link

GOLDEN = Path(__file__).parent.parent / "data" / "native"
UP = "eldercare/v1/demo/hanfeng/gw-01/up/alarm"
CODE = (
    "import asyncio, sys; from pathlib import Path; from simulator.platform import main; "
    "asyncio.run(main(Path(sys.argv[1]), destination='district', port=int(sys.argv[2]), control=Path(sys.argv[3])))"
)


class Remote:
    """A platform process, and a client of its control socket."""

    def __init__(self, process: asyncio.subprocess.Process, control: Path, port: int) -> None:
        self.process, self.control, self.port = process, control, port

    async def request(self, line: bytes) -> dict[str, Any]:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_unix_connection(self.control)
            writer.write(line + b"\n")
            answer = json.loads(await reader.readline())
            writer.close()
            await writer.wait_closed()
        return dict(answer)

    async def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        answer = await self.request(json.dumps({"op": op, **arguments}).encode())
        assert answer["ok"], answer
        return dict(answer["result"])

    async def error(self, line: bytes) -> str:
        answer = await self.request(line)
        assert not answer["ok"]
        return str(answer["error"]["code"])


@contextlib.asynccontextmanager
async def platform_process(run: Path) -> AsyncIterator[Remote]:
    async with Link(1) as probe:
        port = probe.port
    control = run / "platform.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", CODE, str(run), str(port), str(control), stderr=asyncio.subprocess.PIPE
    )
    try:
        await until(lambda: control.exists() or process.returncode is not None)
        assert process.returncode is None, (await process.communicate())[1].decode()
        yield Remote(process, control, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def publish_once(port: int, payload: str) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="gw-01", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(UP, payload, qos=1).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"


async def test_every_fault_can_be_switched_from_outside(tmp_path: Path) -> None:
    async with platform_process(tmp_path) as remote:
        before = time.time()
        cut = await remote.ask("cut")
        assert before <= cut["t"] <= time.time()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", remote.port)
        assert (await remote.ask("stats"))["link"]["cut"] is True
        await remote.ask("heal")
        await remote.ask("stall")
        await remote.ask("delay", ms=5)
        link = (await remote.ask("stats"))["link"]
        assert (link["cut"], link["stalled"], link["delay_ms"]) == (False, True, 5)
        await remote.ask("unstall")
        await remote.ask("heal")
        assert (await remote.ask("stats"))["link"]["stalled"] is False
        switched_on: list[tuple[str, dict[str, Any]]] = [
            ("stall", {"where": "application"}),
            ("refuse", {"retry_after_ms": 250}),
            ("refuse_some", {"p": 0.25, "seed": 3}),
            ("reject", {"types": ["telemetry.*"], "ids": ["x"]}),
            ("forget", {"p": 0.5, "seconds": 60}),
            ("mute", {"p": 0.125}),
            ("slow", {"ms": 20}),
            ("double_acks", {}),
        ]
        for op, arguments in switched_on:
            await remote.ask(op, **arguments)
        assert (await remote.ask("stats"))["conduct"] == {
            "refusing": True,
            "refuse_p": 0.25,
            "reject_types": ["telemetry.*"],
            "reject_ids": 1,
            "stalled": True,
            "forget_p": 0.5,
            "mute_p": 0.125,
            "slow_ms": 20.0,
            "double_acks": True,
            "poisoned": 0,
        }
        switched_off: list[tuple[str, dict[str, Any]]] = [
            ("unstall", {"where": "application"}),
            ("accept", {}),
            ("remember", {}),
            ("mute", {"p": 0}),
            ("slow", {"ms": 0}),
            ("double_acks", {"on": False}),
        ]
        for op, arguments in switched_off:
            await remote.ask(op, **arguments)
        assert not any((await remote.ask("stats"))["conduct"].values())


async def test_stats_tell_what_the_demo_shows(tmp_path: Path) -> None:
    async with platform_process(tmp_path) as remote:
        await asyncio.to_thread(publish_once, remote.port, (GOLDEN / "alarm.json").read_text())
        async with asyncio.timeout(30):
            while (stats := await remote.ask("stats"))["accepted"] != 1:
                await asyncio.sleep(0.01)
        assert {name: stats[name] for name in ("destination", "online", "epoch", "duplicates", "retried")} == {
            "destination": "district",
            "online": False,
            "epoch": 0,
            "duplicates": 0,
            "retried": 0,
        }
        assert {"rejected", "forgotten", "last_event_age_s", "connections", "connections_total"} <= stats.keys()
        assert stats["by_type"] == {"alarm.raised": {"accepted": 1}}
        assert stats["gaps"] == {"events": 0, "deliveryseq_missing": 0, "sequence_missing": 0}


async def test_a_broker_restart_from_outside_is_over_when_answered(tmp_path: Path) -> None:
    async with platform_process(tmp_path) as remote:
        await remote.ask("restart-broker")
        stats = await remote.ask("stats")
        assert (stats["connected"], stats["broker"]["restarts"]) == (True, 1)
        await asyncio.to_thread(publish_once, remote.port, (GOLDEN / "alarm.json").read_text())
        await until(lambda: [d.status.value for d in read_ledger(tmp_path / "platform-district.jsonl")] == ["accepted"])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "not-json"),
        (b"[]", "no-op"),
        (b'{"op": 5}', "no-op"),
        (b'{"op": "explode"}', "unknown-op"),
        (b'{"op": "delay"}', "bad-argument"),
        (b'{"op": "delay", "ms": -1}', "bad-argument"),
        (b'{"op": "delay", "ms": "5"}', "bad-argument"),
        (b'{"op": "forget", "p": 1.5}', "bad-argument"),
        (b'{"op": "forget", "p": NaN}', "bad-argument"),
        (b'{"op": "reject", "types": "alarm.*"}', "bad-argument"),
        (b'{"op": "stall", "where": "moon"}', "bad-argument"),
        (b'{"op": "cut", "self": 1}', "bad-argument"),
        (b'{"op": "' + b"x" * 70_000 + b'"}', "too-long"),
    ],
)
async def test_a_request_that_cannot_be_done_is_answered_with_a_code(tmp_path: Path, line: bytes, code: str) -> None:
    async with district(tmp_path) as platform, control_socket(platform, tmp_path / "c.sock"):
        remote = Remote(None, tmp_path / "c.sock", platform.port)  # type: ignore[arg-type]  # no process in this test
        assert await remote.error(line) == code


async def test_the_control_socket_is_not_taken_from_a_living_platform_but_from_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    async with district(tmp_path) as platform:
        async with control_socket(platform, path):
            with pytest.raises(ControlError, match="another platform answers"):
                async with control_socket(platform, path):
                    pass
            assert path.stat().st_mode & 0o777 == 0o600
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as leftover:
            leftover.bind(str(path))
        async with control_socket(platform, path):
            assert (await Remote(None, path, 0).ask("stats"))["destination"] == "district"  # type: ignore[arg-type]
        path.write_text("not a socket")
        with pytest.raises(ControlError, match="is no socket"):
            async with control_socket(platform, path):
                pass


async def test_sigterm_ends_it_cleanly_with_its_broker_and_a_whole_ledger(tmp_path: Path) -> None:
    async with platform_process(tmp_path) as remote:
        await asyncio.to_thread(publish_once, remote.port, (GOLDEN / "alarm.json").read_text())
        await until(lambda: (tmp_path / "platform-district.jsonl").stat().st_size > 0)
        broker = (await remote.ask("stats"))["broker"]["pid"]
        remote.process.send_signal(signal.SIGTERM)
        _, stderr = await asyncio.wait_for(remote.process.communicate(), 10)
        assert (remote.process.returncode, stderr.decode()) == (0, "")
        assert not alive(broker)
        assert not remote.control.exists()
    assert [decision.status.value for decision in read_ledger(tmp_path / "platform-district.jsonl")] == ["accepted"]


async def test_no_broker_outlives_a_killed_platform(tmp_path: Path) -> None:
    async with platform_process(tmp_path) as remote:
        broker = (await remote.ask("stats"))["broker"]["pid"]
        assert alive(broker)
        remote.process.kill()
        await until(lambda: not alive(broker))


async def test_a_platform_that_cannot_start_names_the_reason(tmp_path: Path) -> None:
    async def run() -> None:
        await main(tmp_path, port=0, control=tmp_path / ("x" * 120))

    with pytest.raises(ControlError, match="a socket's path may have 106 bytes"):
        await run()
    (tmp_path / "platform-district.jsonl").write_text("{}\n")
    with pytest.raises(LedgerError, match=r"platform-district\.jsonl:1"):
        await run()
