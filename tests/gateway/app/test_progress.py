"""What counts as a step and what as nothing to do, for each loop that the watchdog looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import catalogue
from gateway.app.progress import buses, delivering, radios, storing
from gateway.clock import Stamp, SystemClock
from gateway.collect import Desk, Hearing
from gateway.config import Ble, Gateway, Serial, Settings
from gateway.config import Outbox as OutboxSettings
from gateway.events import Origin, new_event
from gateway.health import Health
from gateway.links.state import LinkState
from gateway.outbox import Outbox, Route, Write

ORIGIN = Origin("org", "site", "gw")


def settings(*, ble: tuple[Ble, ...] = (), serial: tuple[Serial, ...] = ()) -> Settings:
    return Settings(
        Gateway("gw", "org", "site"), rooms=(), serial=serial, ble=ble, mqtt=(), devices=(), destinations=(),
        outbox=OutboxSettings(), path=Path("/gateway.toml"),
    )  # fmt: skip


def hearing_of(clock: SystemClock, *links: tuple[str, str]) -> Hearing:
    return Hearing(
        links,
        [],
        deaf_since=clock.stamp(),
        clock=clock,
        health=Health(clock),
        store=lambda _data, _at, _mark, _durable: True,
    )


@dataclass
class Deliverer:
    """A deliverer's name and figures."""

    name: str = "district"
    figures: dict[str, Any] = field(
        default_factory=lambda: {
            "epoch": 1, "connected": True, "inflight": 0, "accepted": 0, "rejected": 0, "resent": 0, "pending": {},
        }
    )  # fmt: skip

    def status(self) -> dict[str, Any]:
        return self.figures


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest.fixture
async def outbox(tmp_path: Path, clock: SystemClock) -> Any:
    """An outbox that is open, whose writer is not running."""
    here = Outbox(tmp_path / "outbox.db", [Route("district", ("*",))], clock=clock)
    await here.open()
    yield here
    await here.close()


def write(noun: str, at: Stamp) -> Write:
    return Write((new_event(noun, ORIGIN, device="call-1", at=at, data={}),))


async def test_storing_is_due_while_an_event_waits_and_a_step_is_another_one_at_the_head(
    outbox: Outbox, clock: SystemClock
) -> None:
    loop = storing(outbox)
    assert loop.step() is None
    first = clock.stamp()
    outbox.submit(write("telemetry.meter", first))
    assert loop.step() == first
    outbox.submit(write("telemetry.meter", Stamp(first.wall_ms, first.mono_ms + 5, first.boot)))
    assert loop.step() == first  # more work is no step
    await outbox._commit_once()
    assert loop.step() is None


async def test_a_failing_disk_is_no_stall_of_storing(outbox: Outbox, clock: SystemClock) -> None:
    outbox.submit(write("telemetry.meter", clock.stamp()))
    outbox._fails()
    assert outbox.is_failing
    assert storing(outbox).step() is None


async def test_a_delivery_is_due_while_an_alarm_waits_for_it(outbox: Outbox, clock: SystemClock) -> None:
    health, deliverer = Health(clock), Deliverer()
    loop = delivering("district", lambda: [Deliverer("street"), deliverer], outbox, health)  # type: ignore[list-item]
    outbox.submit(write("telemetry.meter", clock.stamp()))
    await outbox._commit_once()
    assert loop.step() is None
    outbox.submit(write("alarm.raised", clock.stamp()))
    await outbox._commit_once()
    before = loop.step()
    assert before is not None
    assert loop.step() == before
    seen = {before}
    for word in ("epoch", "accepted", "rejected", "resent", "inflight"):
        deliverer.figures[word] += 1
        seen.add(loop.step())
    deliverer.figures["connected"] = False
    seen.add(loop.step())
    assert len(seen) == 7


async def test_a_platform_that_asks_to_wait_is_no_stall_of_its_delivery(outbox: Outbox, clock: SystemClock) -> None:
    health = Health(clock)
    loop = delivering("district", lambda: [Deliverer()], outbox, health)  # type: ignore[list-item]
    outbox.submit(write("alarm.raised", clock.stamp()))
    await outbox._commit_once()
    health.on("GW-PLT-03", "street")
    assert loop.step() is not None
    health.on("GW-PLT-03", "district")
    assert loop.step() is None
    health.off("GW-PLT-03", "district")
    outbox._fails()
    assert loop.step() is None


def test_a_radio_is_due_while_it_says_that_it_hears(clock: SystemClock) -> None:
    hearing = hearing_of(clock, ("radio", "ble"), ("other", "ble"))
    heard = {"radio": 5, "other": 6}
    loop, _other = radios(settings(ble=(Ble("radio", silence_s=60), Ble("other"))), hearing, lambda: heard)
    assert (loop.name, loop.limit_s) == ("radio radio", 180)
    assert loop.step() is None
    hearing.on_state(LinkState("radio", "ble", hearing=True, at=clock.stamp(), problem=None, facts={}))
    assert loop.step() == 5
    heard["radio"] = 7
    assert loop.step() == 7
    hearing.on_state(LinkState("radio", "ble", hearing=False, at=clock.stamp(), problem="GW-BLE-04", facts={}))
    assert loop.step() is None


def desk(name: str, model: str, link: str, every_s: float | None = None) -> Desk:
    return Desk(name, model, link, name, "201", "", catalogue.driver(model), None, every_s=every_s)


def test_a_bus_is_due_while_its_line_is_open_and_a_step_is_any_device_s_turn(clock: SystemClock) -> None:
    hearing = hearing_of(clock, ("rs485", "serial"), ("wire", "serial"))
    desks = {
        one.id: one
        for one in (
            desk("m1", "dlt645-2007", "rs485", 900), desk("m2", "dlt645-2007", "rs485", 60),
            desk("b1", "json-lines", "wire"),
        )
    }  # fmt: skip
    lines = (Serial("rs485", port="/dev/a"), Serial("wire", port="/dev/b"))
    (loop,) = buses(settings(serial=lines), hearing, desks)
    # Twice the 300 s that a device which does not answer is asked in at least, and every other's full minute.
    assert (loop.name, loop.limit_s) == ("bus rs485", 2 * 300 + 60 * 3)
    assert loop.step() is None
    hearing.on_state(LinkState("rs485", "serial", hearing=True, at=clock.stamp(), problem=None, facts={}))
    assert loop.step() == 0
    desks["m1"].polls += 1
    assert loop.step() == 1
    desks["m2"].polls += 1
    assert loop.step() == 2
