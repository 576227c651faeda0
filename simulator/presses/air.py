"""The air of a run: every device pressed again and again, each advert lost or heard by chance, some said again by an attacker.

A press is 3 to 7 adverts of one payload, 20 to 120 ms apart; each is lost with the device's own probability. Which of them
bluetoothd said on the bus, and which met nobody who scanned, stands in the press. After one press in `REPLAY_SHARE` somebody
sends what was recorded once more: of this press, or of an earlier one. Strangers talk all the while, at `foreign_per_s`.
Limits: the last `RECORDED` presses of a device are on the attacker's tape; strangers come in bursts of 10 ms.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from simulator.ble_devices import IngicsPendant, Payload
from simulator.ble_tags import EnoceanSwitch
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.presses.house import Member
from simulator.presses.judge import Said

REPLAY_SHARE: Final = 0.06
RECORDED: Final = 300
SIGN_EVERY_S: Final = 3.0
MOVE_IN_SIGNS: Final = 100
STRANGERS: Final = 400
_BURST_S: Final = 0.01
_STEP_S: Final = (0.02, 0.12)
_ADVERTS: Final = (3, 7)
_FALL_SHARE: Final = 0.3


class PressAir:
    """Plays a house. `said` is the ledger; `bluez` may be replaced at any time, as bluetoothd is by another one."""

    def __init__(
        self, house: Sequence[Member], bluez: FakeBluez, *, presses: int, seed: int, is_busy: Callable[[], bool]
    ) -> None:
        """`presses`: how many to begin. While `is_busy` says so no new one begins: people are behind."""
        self.bluez = bluez
        self.said: list[Said] = []
        self.left = presses
        self.foreign_per_s = 20.0
        self.told = 0
        """Adverts of strangers that were put on the bus."""
        self._house = house
        self._seed = seed
        self._is_busy = is_busy
        self._ended = asyncio.Event()

    async def play(self) -> None:
        """Play until every press has been made and each device has rested; strangers talk until then."""
        strangers = asyncio.create_task(self._chatter(), name="strangers")
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._house:
                    group.create_task(self._live(one), name=f"press {one.id}")
        finally:
            strangers.cancel()
            await asyncio.wait({strangers})

    async def _live(self, member: Member) -> None:
        rng = random.Random(f"{self._seed}/{member.id}")  # noqa: S311 - a rehearsal that can be repeated
        tape: deque[tuple[Said, Payload]] = deque(maxlen=RECORDED)
        rest = member.protocol.rest_s
        await asyncio.sleep(rng.uniform(0.0, rest[1]))
        await self._move_in(member, rng)
        while await self._may_press():
            said, payload = self._say(member, rng)
            tape.append((said, payload))
            await self._send(member, payload, said, adverts=rng.randint(*_ADVERTS), rng=rng)
            await self._end(member, rng)
            if rng.random() < REPLAY_SHARE:
                await self._attack(member, tape, rng)
                await self._end(member, rng)
            await self._rest(member, said, rng.uniform(*rest), rng)

    async def _move_in(self, member: Member, rng: random.Random) -> None:
        """Give signs of life; who tells its presses by their count must be heard once before what it counts can be known."""
        sign = member.device.heartbeat()
        for _ in range(MOVE_IN_SIGNS if sign is not None else 0):
            is_heard = await self._send(member, sign, None, adverts=1, rng=rng) if sign is not None else True
            if is_heard or not member.protocol.retells:
                return
            await asyncio.sleep(SIGN_EVERY_S / 10)

    async def _may_press(self) -> bool:
        while self._is_busy():
            await asyncio.sleep(0.1)
        self.left -= 1
        return self.left >= 0

    def _say(self, member: Member, rng: random.Random) -> tuple[Said, Payload]:
        kind, device = "call", member.device
        if isinstance(device, IngicsPendant) and rng.random() < _FALL_SHARE:
            kind, payload = "fall", device.fall()
        else:
            payload = device.press(rng.choice(member.protocol.codes))
        said = Said(member.id, member.protocol.name, kind, payload.counter, member.protocol.proves, time.time())
        self.said.append(said)
        return said, payload

    async def _send(
        self, member: Member, payload: Payload, said: Said | None, *, adverts: int, rng: random.Random
    ) -> bool:
        """Send some adverts of one payload; tell whether the last of them was put on the bus."""
        is_told = False
        for turn in range(adverts):
            # Two reports of one device at one instant would be one signal on the bus, the latter.
            await asyncio.sleep(rng.uniform(*_STEP_S) if turn else 0)
            if rng.random() < member.loss:
                is_told = False
                if said is not None:
                    said.lost += 1
                continue
            rssi = min(-20, max(-100, round(rng.gauss(member.rssi, 3.0))))
            now = time.time()
            report = Report(member.device.address, rssi, payload.name, payload.service_data, payload.manufacturer_data)
            is_deaf = not self.bluez.listens()
            is_told = self.bluez.hear(report)
            if said is not None:
                _note(said, now, is_told=is_told, is_deaf=is_deaf)
        return is_told

    async def _end(self, member: Member, rng: random.Random) -> None:
        """Say that it is over, where the protocol does: a switch is let go, a tag shows that its button is up."""
        await asyncio.sleep(rng.uniform(*_STEP_S))
        if isinstance(member.device, EnoceanSwitch):
            await self._send(member, member.device.release(), None, adverts=3, rng=rng)
        elif member.protocol.ends and (sign := member.device.heartbeat()) is not None:
            await self._send(member, sign, None, adverts=member.protocol.ends, rng=rng)

    async def _attack(self, member: Member, tape: Sequence[tuple[Said, Payload]], rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(1.5, 3.0))
        original, payload = tape[-1] if rng.random() < 0.5 else rng.choice(tape)
        again = Said(
            original.device, original.protocol, original.kind, original.counter, original.proves, time.time(),
            of=original.began,
        )  # fmt: skip
        self.said.append(again)
        await self._send(member, payload, again, adverts=rng.randint(1, 4), rng=rng)

    async def _rest(self, member: Member, said: Said, for_s: float, rng: random.Random) -> None:
        """Rest, with a sign of life now and then where the device gives one that says nothing of a state to come."""
        end = asyncio.get_running_loop().time() + for_s
        while (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, SIGN_EVERY_S))
            if member.protocol.retells and left > SIGN_EVERY_S:
                sign = member.device.heartbeat()
                if sign is not None:
                    await self._send(member, sign, said, adverts=1, rng=rng)

    async def _chatter(self) -> None:
        rng = random.Random(f"{self._seed}/strangers")  # noqa: S311 - as above
        loop = asyncio.get_running_loop()
        addresses = [_stranger(rng) for _ in range(STRANGERS)]
        due, seat = 0.0, 0
        last = loop.time()
        while True:
            await asyncio.sleep(_BURST_S)
            now = loop.time()
            due, last = min(due + (now - last) * self.foreign_per_s, float(STRANGERS)), now
            while due >= 1:
                due -= 1
                seat = (seat + 1) % STRANGERS
                if rng.random() < 0.01:  # telephones change their address every few minutes
                    addresses[seat] = _stranger(rng)
                data = bytes((0x10, 0x05)) + rng.randbytes(6)
                report = Report(addresses[seat], rng.randint(-98, -45), manufacturer_data={0x004C: data})
                self.told += self.bluez.hear(report)


def _note(said: Said, now: float, *, is_told: bool, is_deaf: bool) -> None:
    """Enter what became of an advert that the radio did not lose; what a controller takes for a duplicate is nothing."""
    if is_told:
        (said.aside if is_deaf else said.told).append(now)
    if is_deaf:
        said.deaf.append(now)


def _stranger(rng: random.Random) -> str:
    return ":".join(f"{byte:02X}" for byte in (0x40 | rng.randrange(64), *rng.randbytes(5)))
