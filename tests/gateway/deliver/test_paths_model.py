"""One to three paths that lose, delay, double, swallow and refuse, against one application: whatever happens, in the end
everything that was stored is accepted, and of each device's lane class first acceptances are in the order of storing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import SessionError

NOUNS = ("alarm.raised", "telemetry.meter", "device.fault")
HOST = SessionError("GW-NET-02", "host", error="made up")


class Application:
    """Behind all paths: accepts an id once, asks to wait when told to, and notes every first acceptance."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.last: dict[tuple[str, str], int] = {}
        self.reordered: list[tuple[str, str, int, int]] = []
        self.refusals = 0

    def decide(self, events: list[dict[str, Any]]) -> list[tuple[str, str]]:
        held: set[str] = set()
        decisions = []
        for event in events:
            decisions.append((event["id"], self.judge(event, held)))
            if decisions[-1][1] == "retry":
                held.add(event["partitionkey"])
        return decisions

    def judge(self, event: dict[str, Any], held: set[str]) -> str:
        if event["id"] in self.accepted:
            return "duplicate"
        if event["partitionkey"] in held:
            return "retry"
        if self.refusals:
            self.refusals -= 1
            return "retry"
        self.accepted.add(event["id"])
        key, sequence = (event["partitionkey"], event["type"].split(".")[2]), int(event["sequence"])
        if sequence < self.last.get(key, 0):
            self.reordered.append((*key, self.last[key], sequence))
        self.last[key] = sequence
        return "accepted"


def way(kind: type, application: Application) -> Any:
    """Make an uplink of a kind, with a wire that takes time and may swallow."""

    class Way(kind):  # type: ignore[misc]  # its class comes from the conftest
        def __init__(self) -> None:
            super().__init__()
            self.obliging = self.confirming = False
            self.delay = 0.01
            self.dead = self.mute = self.doubling = False
            self.swallowed: set[int] = set()
            self.arrives_at = 0.0

        def send(self, lane: Any, texts: list[str]) -> int:
            token = int(super().send(lane, texts))
            message, loop = self.sent[-1], asyncio.get_running_loop()
            self.arrives_at = max(self.arrives_at, loop.time() + self.delay)
            loop.call_at(self.arrives_at, self.arrive, message)
            return token

        def arrive(self, message: Any) -> None:
            if self.dead or message.connection in self.swallowed:
                return
            decisions = application.decide(message.events)
            for _ in range(1 + self.doubling):
                asyncio.get_running_loop().call_later(self.delay, self.back, message, decisions)

        def back(self, message: Any, decisions: list[tuple[str, str]]) -> None:
            if self.dead or message.connection != len(self.opened):
                return
            self.puback(message)
            if not self.mute:
                self.answer(*decisions, after_s=None)

        def cut(self, swallow: bool) -> None:
            if self.events is not None:
                if swallow:
                    self.swallowed.add(len(self.opened))
                self.lose()

    return Way()


Action = tuple[Any, ...]
which = st.integers(0, 2)
actions = st.one_of(
    st.tuples(st.just("store"), st.sampled_from(NOUNS), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("cut"), which, st.booleans()),
    st.tuples(st.just("dead"), which, st.booleans()),
    st.tuples(st.just("mute"), which, st.booleans()),
    st.tuples(st.just("slow"), which, st.sampled_from([0.01, 1.0, 4.0, 12.0, 35.0])),
    st.tuples(st.just("away"), which, st.integers(1, 4)),
    st.tuples(st.just("doubling"), which, st.booleans()),
    st.tuples(st.just("refuse"), st.integers(1, 5)),
    st.tuples(st.just("breaks"), which),
)
scripts = st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.5, 3.5, 11.0, 70.0]), actions), min_size=3, max_size=25)


async def act(bench: Any, application: Application, action: Action) -> list[str]:
    name, *more = action
    if name == "store":
        noun, device, count = more
        return list(await bench.store(*((noun, f"d{device}") for _ in range(count))))
    if name == "refuse":
        application.refusals = more[0]
        return []
    target = bench.uplinks[more[0] % len(bench.uplinks)]
    if name == "cut":
        target.cut(more[1])
    elif name == "slow":
        target.delay = more[1]
    elif name == "away":
        target.failures = [HOST] * more[1]
    elif name == "breaks":
        target.breaks = [HOST]
    else:
        setattr(target, name, more[1])
    return []


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(count=st.integers(1, 3), script=scripts)
def test_everything_is_accepted_in_the_end_and_in_order(play_in: Callable[..., Any], count: int, script: Any) -> None:
    async def scenario(bench: Any) -> None:
        application = Application()
        bench.spread_s = 5.0
        bench.uplinks = [way(type(bench.uplink), application) for _ in range(count)]
        await bench.open()
        stored: list[str] = []
        for wait, action in script:
            await bench.settle(wait)
            stored += await act(bench, application, action)
        for one in bench.uplinks:
            one.dead = one.mute = one.doubling = False
            one.delay, one.failures, one.breaks = 0.01, [], []
        application.refusals = 0
        await bench.settle(2000)
        assert application.accepted >= set(stored)
        assert application.reordered == []
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}
        status = bench.deliverer.status()
        assert (status["accepted"], status["inflight"], status["dead_letters"]) == (len(stored), 0, 0)
        assert bench.problems() == set()
        assert [one["state"] for one in status["paths"]].count("in use") == 1
        await bench.end_delivery()
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("path ")] == []

    with tempfile.TemporaryDirectory() as folder:
        play_in(scenario, Path(folder))
