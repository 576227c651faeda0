"""One path at a time, the earliest of those that wait."""

from __future__ import annotations

import asyncio

from gateway.uplinks.turn import Turn


class Queue:
    """Who had a turn, in order; each keeps it until `next`."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.had: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def come(self, *numbers: int) -> None:
        for number in numbers:
            self.ends[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._have(number))
            await asyncio.sleep(0)

    async def _have(self, number: int) -> None:
        async with self.turn.of(number):
            self.had.append(number)
            await self.ends[number].wait()

    async def end(self, number: int) -> None:
        self.ends[number].set()
        await self.tasks[number]
        for _ in range(3):
            await asyncio.sleep(0)

    async def cancel(self, number: int) -> None:
        self.tasks[number].cancel()
        await asyncio.wait({self.tasks[number]})
        for _ in range(3):
            await asyncio.sleep(0)


async def test_of_those_that_wait_the_earliest_is_next_whoever_came_first() -> None:
    queue = Queue()
    await queue.come(0, 3, 2, 1)
    assert queue.had == [0]
    for number in (0, 1, 2, 3):
        await queue.end(number)
    assert queue.had == [0, 1, 2, 3]


async def test_two_dead_ones_that_come_again_and_again_do_not_keep_the_third_from_its_turn() -> None:
    queue = Queue()
    await queue.come(0, 1, 2)
    await queue.end(0)
    await queue.come(0)
    await queue.end(1)
    await queue.come(1)
    assert queue.had == [0, 1, 2]
    await queue.end(2)
    await queue.end(0)
    assert queue.had == [0, 1, 2, 0, 1]
    await queue.end(1)


async def test_when_one_has_stood_the_earliest_is_next_again() -> None:
    queue = Queue()
    await queue.come(0)
    await queue.end(0)
    await queue.come(1, 3, 2, 0)
    queue.turn.begin_anew()
    await queue.end(1)
    assert queue.had == [0, 1, 0]
    for number in (0, 2, 3):
        await queue.end(number)
    assert queue.had == [0, 1, 0, 2, 3]


async def test_who_goes_away_while_waiting_or_while_having_it_holds_up_nobody() -> None:
    queue = Queue()
    await queue.come(0, 1, 2)
    await queue.cancel(1)
    await queue.cancel(0)
    assert queue.had == [0, 2]
    await queue.come(1)
    queue.ends[2].set()
    await queue.tasks[2]  # the turn is given to 1, which is cancelled before it can take it
    queue.tasks[1].cancel()
    await asyncio.wait({queue.tasks[1]})
    await queue.come(3)
    assert queue.had[-1] == 3
    await queue.end(3)
