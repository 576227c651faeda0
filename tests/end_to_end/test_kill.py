"""SIGKILL at any instant: what was acknowledged is there, each once, in a sequence without a gap, and resends are known.

A real process with a real outbox takes numbered inputs from a pipe and acknowledges each after its commit, as a line does.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KILLS = 20
WINDOW = 64
LIMIT_S = 20.0

CHILD = """
import asyncio, os, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.events import Origin, new_event
from gateway.outbox import Mark, Number, NumberState, Outbox, Route, Write

NOUNS = ("alarm.raised", "gateway.gap", "telemetry.meter")


async def main(path: Path) -> None:
    clock, origin = SystemClock(), Origin("org", "site", "gw")
    outbox = Outbox(path, [Route("district", ("*",))], clock=clock)
    await outbox.open()
    running = asyncio.create_task(outbox.run())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    on_the_way = set()

    def ack(word, n):
        on_the_way.discard(n)
        os.write(1, f"{word} {n}\\n".encode())

    os.write(1, b"ready 0\\n")
    while line := await reader.readline():
        n = int(line)
        if n in on_the_way:
            continue
        if outbox.number_state("line-1", "s", n) is NumberState.DURABLE:
            ack("known", n)
            continue
        on_the_way.add(n)
        event = new_event(NOUNS[n % 3], origin, device="line-1", at=clock.stamp(), data={"n": n})
        outbox.submit(Write(
            (event,), (Mark("line-1", "counter", str(n), n),), (Number("line-1", "s", n),),
            on_commit=lambda _rows, n=n: ack("stored", n),
        ))
    running.cancel()


asyncio.run(main(Path(sys.argv[1])))
"""


class Source:
    """Keeps what was not acknowledged, and brings it again to the next process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next_n = 1
        self.unacked: dict[int, None] = {}
        self.acked: set[int] = set()
        self.known = 0

    def live(self, *, acks: int, then_s: float) -> None:
        """One life of the process: until it has acknowledged `acks` more inputs, and a moment longer. Then SIGKILL."""
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            os.set_blocking(child.stdin.fileno(), False)
            want = len(self.acked) + acks
            answers = self.answers(child.stdout.fileno())
            assert next(answers) == ("ready", 0)
            self.send(child.stdin.fileno(), list(self.unacked))
            while len(self.acked) < want:
                self.fill(child.stdin.fileno())
                word, n = next(answers)
                self.note(word, n)
            time.sleep(then_s)
        finally:
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
            child.stdin.close()
            child.stdout.close()
            assert child.wait(timeout=30) == -signal.SIGKILL
        # What it had said before it died was said: the pipe has kept it.
        for line in rest.decode().splitlines():
            word, text = line.split()
            self.note(word, int(text))

    def note(self, word: str, n: int) -> None:
        self.known += word == "known"
        self.unacked.pop(n, None)
        self.acked.add(n)

    def fill(self, pipe: int) -> None:
        new = list(range(self.next_n, self.next_n + WINDOW - len(self.unacked)))
        self.next_n += len(new)
        self.unacked.update(dict.fromkeys(new))
        self.send(pipe, new)

    @staticmethod
    def send(pipe: int, numbers: list[int]) -> None:
        if numbers:
            text = "".join(f"{n}\n" for n in numbers).encode()
            assert os.write(pipe, text) == len(text)  # a window of lines always fits into a pipe

    @staticmethod
    def answers(pipe: int) -> Iterator[tuple[str, int]]:
        held = b""
        while True:
            readable, _, _ = select.select([pipe], [], [], LIMIT_S)
            assert readable, "the process says nothing any more"
            data = os.read(pipe, 65_536)
            assert data, "the process ended by itself"
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                word, n = line.split()
                yield word.decode(), int(n)


def stored(path: Path) -> tuple[list[int], list[int], int]:
    """Sequences, numbers and the mark that the database holds."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = []
        for lane in "abcd":
            rows += connection.execute(f"SELECT seq, body FROM event_{lane}").fetchall()  # noqa: S608 - one of four letters
        mark = connection.execute("SELECT value FROM mark").fetchone()
        ranges = connection.execute("SELECT ranges FROM number").fetchone()
    finally:
        connection.close()
    numbers = sorted(json.loads(body)["data"]["n"] for _seq, body in rows)
    kept = [n for first, last in json.loads(ranges[0]) for n in range(first, last + 1)] if ranges else []
    assert kept == numbers[-len(kept) :], "an event without its number, or a number without its event"
    return sorted(seq for seq, _body in rows), numbers, int(mark[0]) if mark else 0


def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261121)  # noqa: S311 - kills that can be repeated
    source = Source(tmp_path / "outbox.db")
    for life in range(KILLS):
        source.live(acks=chance.choice((1, 20, 200, 600)), then_s=chance.uniform(0, 0.004))
        sequences, numbers, mark = stored(source.path)
        assert sequences == list(range(1, len(sequences) + 1)), f"a gap in the sequence after kill {life + 1}"
        assert len(numbers) == len(set(numbers)), f"an input was stored twice by kill {life + 1}"
        assert source.acked <= set(numbers), f"an acknowledged input is gone after kill {life + 1}"
        assert mark == numbers[-1], "the mark and its event part"
    # Committed and not acknowledged before the kill: recognised when it came again.
    assert source.known > 0
    assert len(source.acked) > 2_000
