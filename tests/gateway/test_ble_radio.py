"""The BLE link against a real bleak, a real dbus-daemon and a pretended bluetoothd: what it hears, how it recovers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakBluetoothNotAvailableError, BleakBluetoothNotAvailableReason, BleakDBusError, BleakError

from drivers.kit import Advert
from gateway.clock import Stamp, SystemClock
from gateway.links import ble_problems, bleak_bus
from gateway.links.ble_radio import BleRadio
from gateway.links.state import HeardAdvert, LinkState
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.dbus_daemon import DbusDaemon

OURS = "AA:BB:CC:DD:EE:01"
STRANGER = "11:22:33:44:55:66"
PRESS = b"\x44\x00\x1d\x01\x64\x3a\x01"
# Recovery takes 5 to 150 ms on an idle machine; the limits below leave room for a busy one.
SOON_S = 5.0


@dataclass
class World:
    """One radio and the pretended world around it."""

    daemon: DbusDaemon
    bluez: FakeBluez
    heard: list[HeardAdvert] = field(default_factory=list)
    states: list[LinkState] = field(default_factory=list)
    overflows: list[tuple[int, Stamp, Stamp]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def radio(self, *, start: bool = True, **options: Any) -> BleRadio:
        settings: dict[str, Any] = {"adapter": "hci0", "retry_cap_s": 0.2, **options}
        radio = BleRadio(
            link_id="air",
            wanted=lambda address: address.startswith("AA:"),
            deliver=self.heard.append,
            on_state=self.states.append,
            on_overflow=lambda *what: self.overflows.append(what),
            clock=SystemClock(),
            **settings,
        )
        if start:
            self.tasks.append(asyncio.create_task(radio.run()))
        return radio

    @property
    def said(self) -> list[str | None]:
        """What was said of the link, in order: "hearing", or the problem."""
        return ["hearing" if state.hearing else state.problem for state in self.states]

    async def until_said(self, *expected: str) -> None:
        await until(lambda: self.said == list(expected), lambda: f"said {self.said}, expected {expected}")

    async def until_delivered(self) -> None:
        """Let our device speak until it is heard, as one who presses again and again."""
        before = len(self.heard)

        def spoke() -> bool:
            self.bluez.hear(Report(OURS, -60, service_data={0xFCD2: PRESS}))
            return len(self.heard) > before

        await until(spoke, lambda: f"never heard; said {self.said}")


async def until(condition: Callable[[], bool], why: Callable[[], str], *, within_s: float = SOON_S) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, why()
        await asyncio.sleep(0.003)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A private bus with a bluetoothd and one adapter. An error of dbus-daemon being missing says how to install it."""
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    bluez = FakeBluez(daemon.address)
    bluez.add_adapter()
    await bluez.start()
    here = World(daemon, bluez)
    yield here
    for task in here.tasks:
        task.cancel()
    if here.tasks:
        _, late = await asyncio.wait(here.tasks, timeout=SOON_S)
        assert not late, "a cancelled radio did not end"
    await bleak_bus.drop(bleak_bus.current())
    await bluez.stop()
    await daemon.stop()


# What it hears.


async def test_every_repeat_of_a_press_is_delivered_with_its_own_rssi(world: World) -> None:
    world.radio()
    await world.until_said("hearing")

    for rssi in (-61, -58, -66, -60, -71, -63):
        world.bluez.hear(Report(OURS, rssi, "SBBT-002C", {0xFCD2: PRESS}))
        await asyncio.sleep(0.01)
    await until(lambda: len(world.heard) == 6, lambda: f"heard {len(world.heard)} of 6")

    assert [one.advert.rssi for one in world.heard] == [-61, -58, -66, -60, -71, -63]
    assert {one.link for one in world.heard} == {"air"}
    first = world.heard[0].advert
    assert first == Advert(OURS, "SBBT-002C", -61, {0xFCD2: PRESS}, {})
    stamps = [one.at.mono_ms for one in world.heard]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] >= 40


async def test_strangers_are_not_delivered_but_prove_that_the_radio_hears(world: World) -> None:
    radio = world.radio()
    await world.until_said("hearing")

    for _ in range(5):
        world.bluez.hear(Report(STRANGER, -70, manufacturer_data={0x004C: b"\x10\x05"}))
        await asyncio.sleep(0.01)
    await world.until_delivered()

    assert radio.heard >= 6
    assert {one.advert.address for one in world.heard} == {OURS}


async def test_a_callback_that_no_advert_caused_is_ignored(world: World) -> None:
    radio = world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    await until(lambda: radio.heard == len(world.heard), lambda: "still coming")
    await asyncio.sleep(0.05)
    before = (radio.heard, len(world.heard))

    world.bluez.invalidate_rssi()
    await asyncio.sleep(0.1)

    assert (radio.heard, len(world.heard)) == before


def _data(
    services: dict[str, bytes], manufacturer: dict[int, bytes] | None = None, rssi: int = -60
) -> AdvertisementData:
    return AdvertisementData(None, manufacturer or {}, services, [], None, rssi, ())


def _quiet_radio(heard: list[HeardAdvert], **options: Any) -> BleRadio:
    settings: dict[str, Any] = {
        "deliver": heard.append,
        "on_state": lambda _: None,
        "wanted": lambda _: True,
        **options,
    }
    return BleRadio(link_id="air", adapter="hci0", clock=SystemClock(), **settings)


def test_service_data_is_keyed_by_16_bit_ids_and_data_under_other_ids_is_not_carried() -> None:
    heard: list[HeardAdvert] = []
    radio = _quiet_radio(heard)
    services = {
        "0000fcd2-0000-1000-8000-00805f9b34fb": b"\x40",
        "0001fcd2-0000-1000-8000-00805f9b34fb": b"\x41",
        "6e400001-b5a3-f393-e0a9-e50e24dcca9e": b"\x42",
    }

    radio._on_advert(BLEDevice("aa:bb:cc:dd:ee:01", None, {}), _data(services, {0x0059: b"\x80\xbc"}))
    radio._deliver_one()

    assert heard[0].advert == Advert("AA:BB:CC:DD:EE:01", "", -60, {0xFCD2: b"\x40"}, {0x0059: b"\x80\xbc"})


def test_a_full_queue_drops_the_newest_and_announces_how_many_and_when() -> None:
    heard: list[HeardAdvert] = []
    overflows: list[tuple[int, Stamp, Stamp]] = []
    radio = _quiet_radio(heard, limit=3, on_overflow=lambda *what: overflows.append(what))

    for n in range(5):
        radio._on_advert(BLEDevice(OURS, None, {}), _data({"0000fcd2-0000-1000-8000-00805f9b34fb": bytes([n])}))
    while radio._waiting:
        radio._deliver_one()
    radio._announce_overflow()
    radio._announce_overflow()

    assert [one.advert.service_data[0xFCD2] for one in heard] == [b"\x00", b"\x01", b"\x02"]
    assert radio.dropped == 2
    assert len(overflows) == 1
    count, first, last = overflows[0]
    assert count == 2
    assert heard[-1].at.mono_ms <= first.mono_ms <= last.mono_ms


async def test_a_callback_that_raises_is_counted_and_the_scan_goes_on(world: World) -> None:
    calls = 0

    def deliver(_: HeardAdvert) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("a bug of a driver")

    def wanted(address: str) -> bool:
        if address == STRANGER:
            raise KeyError(address)
        return True

    radio = BleRadio(
        link_id="air",
        adapter="hci0",
        wanted=wanted,
        deliver=deliver,
        on_state=world.states.append,
        clock=SystemClock(),
    )
    world.tasks.append(asyncio.create_task(radio.run()))
    await world.until_said("hearing")

    for address in (OURS, STRANGER, OURS):
        world.bluez.hear(Report(address, -60, service_data={0xFCD2: PRESS}))
        await asyncio.sleep(0.02)
    await until(lambda: calls == 2, lambda: f"delivered {calls} of 2")

    assert radio.failed == 3
    assert not world.tasks[0].done()
    assert world.said == ["hearing"]


# What is wrong, and how it ends.


async def test_no_bus_is_told_once_and_ends_when_the_bus_comes(world: World) -> None:
    await world.bluez.crash()
    await world.daemon.stop()
    world.radio()
    await world.until_said("GW-BLE-01")
    await asyncio.sleep(0.5)
    assert world.said == ["GW-BLE-01"]

    await world.daemon.start()
    await until(lambda: world.said[-1] == "GW-BLE-02", lambda: f"said {world.said}")
    await world.bluez.start()
    await world.until_delivered()

    assert world.said == ["GW-BLE-01", "GW-BLE-02", "hearing"]
    assert world.states[0].facts["adapter"] == "hci0"


async def test_a_stale_bus_socket_is_no_bus(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(path))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")

    world.radio()

    await world.until_said("GW-BLE-01")


async def test_no_bluetoothd_is_told_once_and_ends_when_it_comes(world: World) -> None:
    await world.bluez.crash()
    world.radio()
    await world.until_said("GW-BLE-02")
    await asyncio.sleep(0.5)

    await world.bluez.start()
    await world.until_delivered()

    assert world.said == ["GW-BLE-02", "hearing"]


async def test_a_missing_adapter_is_told_once_and_ends_when_it_is_plugged_in(world: World) -> None:
    world.bluez.remove_adapter()
    world.radio()
    await world.until_said("GW-BLE-03")
    await asyncio.sleep(0.5)

    world.bluez.add_adapter()
    await world.until_delivered()

    assert world.said == ["GW-BLE-03", "hearing"]


async def test_an_adapter_that_is_off_is_told_once_and_ends_when_it_is_switched_on(world: World) -> None:
    world.bluez.power(on=False)
    world.radio()
    await world.until_said("GW-BLE-04")
    await asyncio.sleep(0.5)

    world.bluez.power(on=True)
    await world.until_delivered()

    assert world.said == ["GW-BLE-04", "hearing"]


async def test_a_bus_policy_that_forbids_bluetooth_is_told_once_and_ends_when_it_allows_it(world: World) -> None:
    world.daemon.deny_bluez()
    await asyncio.sleep(0.1)
    world.radio()
    await world.until_said("GW-BLE-05")
    await asyncio.sleep(0.5)

    world.daemon.allow_bluez()
    await world.until_delivered()

    assert world.said == ["GW-BLE-05", "hearing"]


async def _off_and_on(world: World) -> None:
    world.bluez.power(on=False)
    await until(lambda: not world.states[-1].hearing, lambda: "not noticed")
    world.bluez.power(on=True)


async def _off_and_on_at_once(world: World) -> None:
    world.bluez.power(on=False)
    world.bluez.power(on=True)


async def _pulled_and_plugged(world: World) -> None:
    world.bluez.remove_adapter()
    await until(lambda: not world.states[-1].hearing, lambda: "not noticed")
    world.bluez.add_adapter()


async def _crashed_and_back(world: World) -> None:
    await world.bluez.crash()
    await until(lambda: not world.states[-1].hearing, lambda: "not noticed")
    await world.bluez.start()


async def _crashed_and_back_at_once(world: World) -> None:
    await world.bluez.crash()
    await world.bluez.start()


async def _restarted_in_good_order(world: World) -> None:
    await world.bluez.stop()
    await until(lambda: world.said[-1] == "GW-BLE-02", lambda: f"said {world.said}")
    await world.bluez.start()


async def _bus_restarted(world: World) -> None:
    await world.daemon.stop()
    await world.bluez.crash()
    await until(lambda: world.said[-1] == "GW-BLE-01", lambda: f"said {world.said}")
    await world.daemon.start()
    await world.bluez.start()


@pytest.mark.parametrize(
    ("breaks", "problem"),
    [
        (_off_and_on, "GW-BLE-04"),
        (_off_and_on_at_once, "GW-BLE-04"),
        (_pulled_and_plugged, "GW-BLE-03"),
        (_crashed_and_back, "GW-BLE-02"),
        (_crashed_and_back_at_once, "GW-BLE-02"),
        (_restarted_in_good_order, "GW-BLE-02"),
        (_bus_restarted, "GW-BLE-01"),
    ],
)
async def test_a_radio_that_breaks_and_returns_hears_again(
    world: World, breaks: Callable[[World], Awaitable[None]], problem: str
) -> None:
    # A back-off of minutes: what brings the radio back in time must be the watch.
    world.radio(retry_cap_s=600.0)
    await world.until_said("hearing")
    await world.until_delivered()
    await asyncio.sleep(0.03)
    last = world.heard[-1].at

    await breaks(world)
    await world.until_delivered()

    lost, back = world.states[1], world.states[-1]
    assert problem in world.said
    assert world.said.count("hearing") == 2
    assert (lost.hearing, back.hearing) == (False, True)
    assert lost.kind == "ble"
    # Deaf since the last advert that surely came, hearing again no earlier than that and no later than the next one.
    assert lost.at == last
    assert last.mono_ms <= back.at.mono_ms <= world.heard[-1].at.mono_ms


@pytest.mark.parametrize(
    "fault", [("InProgress", "Operation already in progress"), ("Failed", "Input/output error"), ("NotReady", "wait")]
)
async def test_a_scan_that_is_refused_is_tried_again(world: World, fault: tuple[str, str]) -> None:
    world.bluez.faults["Adapter1.StartDiscovery"] = [fault, fault, fault]
    world.radio()

    await world.until_delivered()

    code = "GW-BLE-04" if fault[0] == "NotReady" else "GW-BLE-07"
    assert world.said == [code, "hearing"]
    assert fault[1] in str(world.states[0].facts["detail"])


async def test_a_scan_start_that_is_never_answered_is_given_up_and_tried_again(world: World) -> None:
    world.bluez.faults["Adapter1.StartDiscovery"] = ["hang"]
    world.radio(call_timeout_s=0.3)

    await world.until_delivered()

    assert world.said == ["GW-BLE-07", "hearing"]
    assert world.states[0].facts["detail"] == "bluetoothd did not answer within 0.3 s"


async def test_a_bluetoothd_that_answers_nothing_at_all_is_given_up_and_tried_again(world: World) -> None:
    world.bluez.sticky = {"ObjectManager.GetManagedObjects": "hang", "Properties.Get": "hang"}
    world.radio(call_timeout_s=0.3)
    await world.until_said("GW-BLE-07")

    world.bluez.sticky = {}
    await world.until_delivered()

    assert world.said == ["GW-BLE-07", "hearing"]


async def test_a_controller_that_goes_deaf_is_noticed_by_its_silence_and_started_anew(world: World) -> None:
    world.radio(silence_s=0.3)
    await world.until_said("hearing")
    await world.until_delivered()
    await asyncio.sleep(0.03)
    last = world.heard[-1].at

    world.bluez.wedge()
    await world.until_said("hearing", "GW-BLE-06")
    await world.until_delivered()

    await world.until_said("hearing", "GW-BLE-06", "hearing")
    deaf, back = world.states[1], world.states[2]
    assert deaf.at == last
    assert deaf.facts == {"adapter": "hci0", "silent_s": 0.3}
    # A scan that says that it runs is no proof after deafness: the first advert is.
    assert back.at == next(one.at for one in world.heard if one.at.mono_ms > last.mono_ms)


async def test_lasting_deafness_is_told_once_however_often_the_scan_is_started_anew(world: World) -> None:
    world.radio(silence_s=0.15)
    await world.until_said("hearing")
    world.bluez.wedge(heals_on_start=False)

    await world.until_said("hearing", "GW-BLE-06")
    await asyncio.sleep(0.6)

    assert world.said == ["hearing", "GW-BLE-06"]
    # Nobody was ever heard: deaf since it began to listen.
    assert world.states[1].at == world.states[0].at


async def test_a_problem_that_changes_while_deaf_keeps_the_moment_when_hearing_ended(world: World) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    world.bluez.power(on=False)
    await world.until_said("hearing", "GW-BLE-04")
    world.bluez.remove_adapter()
    await world.until_said("hearing", "GW-BLE-04", "GW-BLE-03")

    assert world.states[2].at == world.states[1].at


# How it ends.


async def test_cancelling_stops_the_scan_and_says_that_it_no_longer_hears(world: World) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    assert world.bluez.scanning()
    before = SystemClock().stamp()

    world.tasks[0].cancel()
    await asyncio.wait(world.tasks, timeout=SOON_S)

    assert world.tasks[0].cancelled()
    assert not world.bluez.scanning()
    end = world.states[-1]
    assert (end.hearing, end.problem) == (False, None)
    assert end.at.mono_ms >= before.mono_ms


async def test_cancelling_does_not_hang_when_bluetoothd_does(world: World) -> None:
    world.radio(call_timeout_s=0.3)
    await world.until_said("hearing")
    world.bluez.sticky = {"Adapter1.StopDiscovery": "hang"}

    world.tasks[0].cancel()
    done, _ = await asyncio.wait(world.tasks, timeout=2.0)

    assert done


async def test_what_waits_when_cancelled_is_delivered_first(world: World) -> None:
    radio = world.radio()
    await world.until_said("hearing")

    radio._on_advert(BLEDevice(OURS, None, {}), _data({"0000fcd2-0000-1000-8000-00805f9b34fb": PRESS}))
    world.tasks[0].cancel()
    await asyncio.wait(world.tasks, timeout=SOON_S)

    assert [one.advert.service_data for one in world.heard] == [{0xFCD2: PRESS}]


async def test_a_radio_that_fails_does_not_deafen_another_for_long(world: World) -> None:
    world.bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
    world.radio()
    await world.until_said("hearing")
    # The second radio's start is never answered: it drops the connection that both share.
    world.bluez.faults["Adapter1.StartDiscovery"] = ["hang"]
    world.radio(adapter="hci1", call_timeout_s=0.2)
    await until(lambda: world.said.count("hearing") == 3, lambda: f"said {world.said}")

    world.bluez.remove_adapter("hci1")
    await world.until_delivered()

    assert world.bluez.scanning("hci0")


# The table of errors.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(2, "No such file or directory"), "GW-BLE-01"),
        (ConnectionRefusedError(111, "Connection refused"), "GW-BLE-01"),
        (EOFError(), "GW-BLE-01"),
        (BrokenPipeError(32, "Broken pipe"), "GW-BLE-05"),
        (PermissionError(13, "Permission denied"), "GW-BLE-05"),
        (TimeoutError(), "GW-BLE-07"),
        (BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", ["gone"]), "GW-BLE-02"),
        (BleakDBusError("org.freedesktop.DBus.Error.Spawn.ChildExited", ["exited"]), "GW-BLE-02"),
        (BleakDBusError("org.freedesktop.DBus.Error.UnknownObject", ["hci0"]), "GW-BLE-03"),
        (BleakDBusError("org.bluez.Error.NotReady", ["Resource Not Ready"]), "GW-BLE-04"),
        (BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", ["no"]), "GW-BLE-05"),
        (BleakDBusError("org.bluez.Error.Failed", ["?"]), "GW-BLE-07"),
        (BleakError("adapter 'hci7' not found"), "GW-BLE-03"),
        (BleakError("something else"), "GW-BLE-07"),
        (BleakBluetoothNotAvailableError("no", BleakBluetoothNotAvailableReason.NO_BLUETOOTH), "GW-BLE-03"),
        (BleakBluetoothNotAvailableError("off", BleakBluetoothNotAvailableReason.POWERED_OFF), "GW-BLE-04"),
        (BleakBluetoothNotAvailableError("no", BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM), "GW-BLE-05"),
        (AttributeError("'NoneType' object has no attribute 'message_type'"), "GW-BLE-07"),
    ],
)
def test_errors_of_the_bluetooth_stack_are_problems_with_a_code(error: Exception, code: str) -> None:
    assert ble_problems.code_of(error) == code


def test_an_error_is_told_in_one_short_line() -> None:
    assert ble_problems.text_of(ValueError("two\nlines  here")) == "ValueError: two lines here"
    assert ble_problems.text_of(EOFError()) == "EOFError"
    assert len(ble_problems.text_of(ValueError("x" * 5000))) == 200
