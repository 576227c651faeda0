"""What a stage does to a platform, one way or all of it, and what it writes down: real platforms, no gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simulator import scenario as score
from simulator.platform import District, control_socket, district
from simulator.processes import Children
from simulator.stage import Stage, place


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[tuple[Stage, District]]:
    ports = {"district": 1, "district+2": 2, "board-office": 3}
    plan = score.expand("two_paths", seed=1, seconds=40.0, ports=ports)
    async with (
        Children(tmp_path) as children,
        district(tmp_path, also=[("http", 0)]) as platform,
        control_socket(platform, tmp_path / "pf0.sock"),
    ):
        yield Stage(plan, tmp_path, children=children, bus_address=""), platform


def faults(run: Path) -> list[tuple[str, str, int]]:
    rows = [json.loads(line) for line in (run / "faults.jsonl").read_text().splitlines()]
    return [(row["fault"], row["platform"], row["way"]) for row in rows]


def broken(platform: District) -> list[tuple[bool, bool, float]]:
    """Of each way: is it cut, does its application hang, and how likely is an answer lost."""
    ways: list[dict[str, Any]] = platform.stats()["ways"]
    return [(one["link"]["cut"], one["conduct"]["stalled"], one["conduct"]["mute_p"]) for one in ways]


WELL = (False, False, 0.0)


@pytest.mark.parametrize(
    ("fault", "state"), [("cut", (True, False, 0.0)), ("hang", (False, True, 0.0)), ("mute", (False, False, 1.0))]
)
async def test_a_fault_of_one_way_leaves_the_other_well_and_healing_ends_it(
    stage: tuple[Stage, District], tmp_path: Path, fault: str, state: tuple[bool, bool, float]
) -> None:
    here, platform = stage
    await here.do(fault, "district", 2)
    assert broken(platform) == [WELL, state]
    assert here.broken == {"district": {2: fault}}
    await here.do("heal", "district", 1)
    assert broken(platform) == [WELL, state]
    await here.do("heal", "district", 2)
    assert broken(platform) == [WELL, WELL]
    assert here.broken == {"district": {}}
    holds = [("muted", "district", 2)] if fault == "mute" else []  # when it does as it was told
    healed = [("heal", "district", 1), ("heal", "district", 2)]
    assert faults(tmp_path) == [(fault, "district", 2), *holds, *healed]
    assert [where for _, _, where in here.faults] == [
        "district/2",
        *("district/2" for _ in holds),
        "district/1",
        "district/2",
    ]


async def test_a_fault_of_the_platform_is_one_of_all_its_ways(stage: tuple[Stage, District], tmp_path: Path) -> None:
    here, platform = stage
    await here.do("cut", "district")
    await here.do("hang", "district")
    assert broken(platform) == [(True, True, 0.0)] * 2
    assert here.broken == {"district": {1: "hang", 2: "hang"}}
    await here.do("heal", "district")
    assert broken(platform) == [WELL, WELL]
    assert faults(tmp_path) == [("cut", "district", 0), ("hang", "district", 0), ("heal", "district", 0)]


async def test_at_an_interrupt_everything_is_healed_and_lost_answers_are_asked_for_anew(
    stage: tuple[Stage, District], tmp_path: Path
) -> None:
    here, platform = stage
    await here.heal_all()
    assert here.faults == []
    await here.do("mute", "district", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.ways[0].port)
    await here.heal_all()
    assert broken(platform) == [WELL, WELL]
    assert [one for one in faults(tmp_path) if one[0] != "muted"] == [
        ("mute", "district", 1), ("cut", "district", 0), ("heal", "district", 0)
    ]  # fmt: skip
    with pytest.raises(ConnectionResetError):  # who waited for an answer learns that none comes
        await asyncio.wait_for(reader.read(1), 10)
    writer.close()


def test_places_are_named_as_the_gateway_names_its_paths() -> None:
    assert (place("district", 0), place("district", 2), place("", 0)) == ("district", "district/2", "")
