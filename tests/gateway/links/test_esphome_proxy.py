"""A Bluetooth proxy of ESPHome over its real protocol: what it hears comes through, and whatever it does, it is heard again."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivers.kit import Advert
from gateway.clock import SystemClock
from gateway.links import esphome_proxy
from gateway.links.esphome_proxy import EsphomeProxy
from gateway.links.state import HeardAdvert, LinkState
from simulator.bluez_objects import Report
from simulator.esphome_proxy import FakeProxy
from tests.gateway.links.conftest import until

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(32)).decode()
OURS, STRANGER = "AA:BB:CC:DD:EE:01", "11:22:33:44:55:66"
PRESS = b"\x44\x00\x1d\x01\x64\x3a\x01"


@dataclass
class House:
    """A gateway's link to a proxy, what it said and what it delivered."""

    proxy: FakeProxy
    heard: list[HeardAdvert] = field(default_factory=list)
    states: list[LinkState] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    key: str = ""

    def link(self, **options: Any) -> EsphomeProxy:
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.proxy.port,
            "deliver": self.heard.append,
            **options,
        }
        link = EsphomeProxy(
            link_id="stairs", key=lambda: self.key, wanted=lambda address: address.startswith("AA:"),
            on_state=self.states.append, on_overflow=lambda *_what: None, clock=SystemClock(), **settings,
        )  # fmt: skip
        self.tasks.append(asyncio.create_task(link.run()))
        return link

    @property
    def said(self) -> list[str]:
        return [state.problem or ("hearing" if state.hearing else "deaf") for state in self.states]

    async def until_said(self, *expected: str) -> None:
        await until(lambda: self.said == list(expected), lambda: f"said {self.said}, expected {expected}")

    async def until_heard(self) -> None:
        """Let our device speak until it is heard."""
        before = len(self.heard)

        def spoke() -> bool:
            self.proxy.hear(Report(OURS, -60, service_data={0xFCD2: PRESS}))
            return len(self.heard) > before and self.states[-1].hearing

        await until(spoke, lambda: f"never heard; said {self.said}")


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A proxy that runs. What is waited for in the field takes a fraction of that here."""
    for name, value in {
        "RETRY_MIN_S": 0.02,
        "RETRY_CAP_S": 0.1,
        "REFUSED_CAP_S": 0.1,
        "ASK_AGAIN_S": 0.05,
        "PING_S": 0.1,
    }.items():
        monkeypatch.setattr(esphome_proxy, name, value)
    here = House(FakeProxy())
    await here.proxy.start()
    yield here
    for task in here.tasks:
        task.cancel()
    if here.tasks:
        await asyncio.wait(here.tasks)
    await here.proxy.stop()


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_what_a_proxy_hears_comes_through_whole(house: House, key: str) -> None:
    house.key = house.proxy.key = key
    link = house.link()
    await house.until_said("hearing")
    house.proxy.hear(Report(STRANGER, -80, manufacturer_data={0x004C: b"\x10"}))
    house.proxy.hear(Report(OURS, -61, "SBBT", {0xFCD2: PRESS}, {0x0059: b"\x80\xbc"}))
    await until(lambda: bool(house.heard), lambda: "nothing heard")
    assert [one.advert for one in house.heard] == [Advert(OURS, "SBBT", -61, {0xFCD2: PRESS}, {0x0059: b"\x80\xbc"})]
    assert [one.link for one in house.heard] == ["stairs"]
    assert (link.heard, link.dropped) == (2, 0)


async def test_names_are_the_systems_business(house: House) -> None:
    """zeroconf is LGPL, asks the network by multicast and takes memory: it is never loaded."""
    house.link(host="localhost")
    await house.until_heard()
    assert "zeroconf" not in sys.modules


async def test_a_name_server_that_hangs_holds_up_nothing_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serial ports are opened on the threads of the event loop."""
    asked, go_on = threading.Event(), threading.Event()

    def hang(*_what: object, **_more: object) -> None:
        asked.set()
        go_on.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    monkeypatch.setattr("socket.getaddrinfo", hang)
    house.link(host="proxy.example")
    await until(asked.is_set, lambda: "the name was not looked up")
    try:
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "opened") == "opened"
    finally:
        go_on.set()


async def test_a_name_that_is_none_is_told_as_unreachable(house: House) -> None:
    house.link(host="a..b")
    await house.until_said("GW-RCV-01")


def test_the_library_is_loaded_where_there_is_a_receiver_only() -> None:
    script = "import sys, gateway.app.daemon, gateway.cli; sys.exit('aioesphomeapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


async def test_another_key_is_told_and_the_right_one_is_taken_without_a_restart(house: House) -> None:
    house.key, house.proxy.key = OTHER_KEY, KEY
    house.link()
    await house.until_said("GW-RCV-02")
    house.key = KEY
    await house.until_heard()
    assert house.said == ["GW-RCV-02", "hearing"]


@pytest.mark.parametrize(("ours", "theirs"), [(KEY, ""), ("", KEY), ("no key", KEY)])
async def test_a_key_on_one_side_only_is_told(house: House, ours: str, theirs: str) -> None:
    house.key, house.proxy.key = ours, theirs
    house.link()
    await house.until_said("GW-RCV-02")


async def test_a_reset_is_a_gap_from_the_last_advert_to_the_next_hearing(house: House) -> None:
    house.link()
    await house.until_said("hearing")
    await house.until_heard()
    house.proxy.reset()
    await house.until_said("hearing", "GW-RCV-01", "hearing")
    last = house.heard[-1].at
    assert house.states[0].at.mono_ms <= house.states[1].at.mono_ms <= last.mono_ms
    assert house.states[2].at.mono_ms >= last.mono_ms


async def test_a_reboot_of_the_proxy_is_survived(house: House) -> None:
    house.link()
    await house.until_said("hearing")
    await house.proxy.stop()
    await house.until_said("hearing", "GW-RCV-01")
    await house.proxy.start()
    await house.until_heard()
    assert house.said == ["hearing", "GW-RCV-01", "hearing"]


async def test_a_connection_that_died_without_a_word_is_noticed_by_its_pings(house: House) -> None:
    house.link()
    await house.until_said("hearing")
    house.proxy.silent = True
    await house.until_said("hearing", "GW-RCV-01")
    house.proxy.silent = False
    await house.until_heard()


async def test_a_proxy_that_accepts_and_says_nothing_is_left_after_a_while(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esphome_proxy, "CONNECT_S", 0.2)
    house.proxy.hangs = True
    house.link()
    await house.until_said("GW-RCV-01")
    house.proxy.hangs = False
    await house.until_heard()


async def test_a_proxy_that_serves_somebody_else_is_deaf_for_us_until_it_serves_us(house: House) -> None:
    """It refuses without a word: a connection of before may hold its place for minutes."""
    house.proxy.is_taken = True
    house.link()
    await house.until_said("GW-RCV-04")
    await until(lambda: house.proxy.asked > 3, lambda: "not asked again")
    assert house.proxy.connections == 1
    house.proxy.is_taken = False
    await house.until_heard()
    assert house.said == ["GW-RCV-04", "hearing"]


async def test_an_old_proxy_that_tells_nothing_of_its_scanner_is_believed(house: House) -> None:
    house.proxy.features = 1 << 5
    house.link()
    await house.until_heard()
    assert house.said == ["hearing"]


async def test_a_device_that_passes_on_no_raw_adverts_is_told(house: House) -> None:
    house.proxy.features = 1
    house.link()
    await house.until_said("GW-RCV-03")
    assert house.states[0].facts["detail"] == "proxy"


async def test_a_proxy_that_hears_nobody_is_connected_anew_and_then_counts_as_deaf(house: House) -> None:
    house.link(silence_s=1.0)
    await house.until_said("hearing")
    await house.until_heard()
    house.proxy.is_deaf = True
    await house.until_said("hearing", "GW-RCV-06")
    assert house.proxy.connections >= 2
    last = house.heard[-1].at
    assert last.mono_ms - 1_000 <= house.states[1].at.mono_ms <= last.mono_ms
    house.proxy.is_deaf = False
    await house.until_heard()
    assert house.said == ["hearing", "GW-RCV-06", "hearing"]


async def test_what_was_read_late_does_not_prove_that_it_was_heard_just_now(house: House) -> None:
    """A process that stood still reads after it what came before; whatever the proxy heard later is lost with the connection."""
    link = house.link()
    await house.until_said("hearing")
    await house.until_heard()
    link._looks.look()
    link._looks.look()
    before = SystemClock().stamp()
    house.proxy.hear(Report(OURS, -60, service_data={0xFCD2: PRESS}))
    time.sleep(0.3)  # noqa: ASYNC251 - it is what is tried: the event loop stands still
    count = len(house.heard)
    await until(lambda: len(house.heard) > count, lambda: "not heard")
    assert house.heard[-1].at.mono_ms >= before.mono_ms + 300
    house.proxy.reset()
    await house.until_said("hearing", "GW-RCV-01", "hearing")
    assert house.states[1].at.mono_ms <= before.mono_ms


async def test_the_time_without_a_connection_is_told_when_one_that_heard_nobody_was_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esphome_proxy, "PING_S", 60.0)
    monkeypatch.setattr(esphome_proxy, "CLOSE_S", 0.1)
    monkeypatch.setattr(esphome_proxy, "UNTOLD_MS", 100)
    house.link(silence_s=0.5)
    await house.until_said("hearing")
    house.proxy.silent = True
    await until(lambda: house.proxy.connections == 2, lambda: "the connection was not made anew")
    since = SystemClock().stamp()
    await asyncio.sleep(0.1)
    house.proxy.silent = False
    await house.until_heard()
    told = house.states[1]  # without a problem, or the old connection still holds the place for a moment
    assert (told.hearing, told.problem) in ((False, None), (False, "GW-RCV-04"))
    assert told.at.mono_ms <= since.mono_ms < house.states[-1].at.mono_ms


async def test_a_connection_that_does_not_answer_the_good_bye_is_cut_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would answer pings for ever, and hold the only place that the proxy has."""
    monkeypatch.setattr(esphome_proxy, "CLOSE_S", 0.1)
    house.link(silence_s=0.5)
    await house.until_said("hearing")
    house.proxy.keeps = True
    await until(lambda: house.proxy.connections == 2, lambda: "the connection was not made anew")
    await house.until_heard()
    assert len(house.proxy._wires) == 1


async def test_what_waits_when_cancelled_is_delivered_and_the_end_is_told(house: House) -> None:
    house.link()
    await house.until_heard()
    house.tasks[0].cancel()
    await asyncio.wait(house.tasks)
    assert house.said == ["hearing", "deaf"]


async def test_one_who_takes_an_advert_and_fails_ends_nothing(house: House) -> None:
    def deliver(_: HeardAdvert) -> None:
        raise RuntimeError("a bug")

    link = house.link(deliver=deliver)
    await house.until_said("hearing")

    def spoke() -> bool:
        house.proxy.hear(Report(OURS, -60, service_data={0xFCD2: PRESS}))
        return link._queue.failed > 3

    await until(spoke, lambda: "no failure was counted")
    assert house.said == ["hearing"]


async def test_a_full_queue_drops_and_announces(house: House) -> None:
    overflows: list[tuple[int, Any, Any]] = []
    link = house.link(limit=1)
    link._queue._on_overflow = lambda *what: overflows.append(what)
    await house.until_said("hearing")
    for _ in range(50):
        house.proxy.hear(Report(OURS, -60, service_data={0xFCD2: PRESS}))
    await until(lambda: len(house.heard) + link.dropped >= 50, lambda: f"{len(house.heard)} + {link.dropped}")
    await until(lambda: sum(one[0] for one in overflows) == link.dropped, lambda: f"announced {overflows}")
