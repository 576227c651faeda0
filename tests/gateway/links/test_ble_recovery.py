"""Each way in which Bluetooth breaks: named rightly, told once, and mended without anybody's help."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.links import bleak_bus
from gateway.links.bluez_adapters import AdapterState
from simulator.bluez import FakeBluez

# What is wrong, and how it ends.


async def test_no_bus_is_told_once_and_ends_when_the_bus_comes(world: Any) -> None:
    await world.bluez.crash()
    await world.daemon.stop()
    world.radio()
    await world.until_said("GW-BLE-01")
    await asyncio.sleep(0.5)
    assert world.said == ["GW-BLE-01"]

    await world.daemon.start()
    await world.until(lambda: world.said[-1] == "GW-BLE-02", f"said {world.said}")
    await world.bluez.start()
    await world.until_delivered()

    assert world.said == ["GW-BLE-01", "GW-BLE-02", "hearing"]
    assert world.states[0].facts["adapter"] == "hci0"


async def test_a_stale_bus_socket_is_no_bus(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(path))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")

    world.radio()

    await world.until_said("GW-BLE-01")


async def test_no_bluetoothd_is_told_once_and_ends_when_it_comes(world: Any) -> None:
    await world.bluez.crash()
    world.radio()
    await world.until_said("GW-BLE-02")
    await asyncio.sleep(0.5)

    await world.bluez.start()
    await world.until_delivered()

    assert world.said == ["GW-BLE-02", "hearing"]


async def test_a_missing_adapter_is_told_once_and_ends_when_it_is_plugged_in(world: Any) -> None:
    world.bluez.remove_adapter()
    world.radio()
    await world.until_said("GW-BLE-03")
    await asyncio.sleep(0.5)

    world.bluez.add_adapter()
    await world.until_delivered()

    assert world.said == ["GW-BLE-03", "hearing"]


async def test_an_adapter_that_is_off_is_told_once_and_ends_when_it_is_switched_on(world: Any) -> None:
    world.bluez.power(on=False)
    world.radio()
    await world.until_said("GW-BLE-04")
    await asyncio.sleep(0.5)

    world.bluez.power(on=True)
    await world.until_delivered()

    assert world.said == ["GW-BLE-04", "hearing"]


async def test_a_bus_policy_that_forbids_bluetooth_is_told_once_and_ends_when_it_allows_it(world: Any) -> None:
    world.daemon.deny_bluez()
    await asyncio.sleep(0.1)
    world.radio()
    await world.until_said("GW-BLE-05")
    await asyncio.sleep(0.5)

    world.daemon.allow_bluez()
    await world.until_delivered()

    assert world.said == ["GW-BLE-05", "hearing"]


async def replace_bluez(world: Any, **kind: Any) -> None:
    """Have another kind of bluetoothd."""
    await world.bluez.stop()
    world.bluez = FakeBluez(world.daemon.address, **kind)
    world.bluez.add_adapter()
    await world.bluez.start()


async def _off_and_on(world: Any) -> None:
    world.bluez.power(on=False)
    await world.until(lambda: not world.states[-1].hearing, "not noticed")
    world.bluez.power(on=True)


async def _off_and_on_at_once(world: Any) -> None:
    world.bluez.power(on=False)
    world.bluez.power(on=True)


async def _pulled_and_plugged(world: Any) -> None:
    world.bluez.remove_adapter()
    await world.until(lambda: not world.states[-1].hearing, "not noticed")
    world.bluez.add_adapter()


async def _crashed_and_back(world: Any) -> None:
    await world.bluez.crash()
    await world.until(lambda: not world.states[-1].hearing, "not noticed")
    await world.bluez.start()


async def _crashed_and_back_at_once(world: Any) -> None:
    await world.bluez.crash()
    await world.bluez.start()


async def _restarted_in_good_order(world: Any) -> None:
    await world.bluez.stop()
    await world.until(lambda: world.said[-1] == "GW-BLE-02", f"said {world.said}")
    await world.bluez.start()


async def _bus_restarted(world: Any) -> None:
    await world.daemon.stop()
    await world.bluez.crash()
    await world.until(lambda: world.said[-1] == "GW-BLE-01", f"said {world.said}")
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
    world: Any, breaks: Callable[[Any], Awaitable[None]], problem: str
) -> None:
    # A back-off of minutes: what brings the radio back in time must be the watch.
    radio = world.radio(retry_cap_s=600.0)
    await world.until_said("hearing")
    await world.until(lambda: radio._watch.state is AdapterState.READY)  # before, it could not tell what ended the scan
    await world.until_heard_once()
    last = world.heard[-1].at

    await breaks(world)
    await world.until_delivered()
    # What was heard so far may have slipped in while the scan was being started, which vouches for nothing.
    await world.until_heard_once()

    lost, back = world.states[1], world.states[-1]
    assert problem in world.said
    assert world.said.count("hearing") == 2
    assert (lost.hearing, back.hearing) == (False, True)
    assert lost.kind == "ble"
    # Deaf since the last advert that surely came, hearing again no earlier than that and no later than the next one.
    assert world.is_told(lost.at, last)
    assert last.mono_ms <= back.at.mono_ms <= world.heard[-1].at.mono_ms


@pytest.mark.parametrize(
    "fault", [("InProgress", "Operation already in progress"), ("Failed", "Input/output error"), ("NotReady", "wait")]
)
async def test_a_scan_that_is_refused_is_tried_again(world: Any, fault: tuple[str, str]) -> None:
    world.bluez.faults["Adapter1.StartDiscovery"] = [fault, fault, fault]
    world.radio()

    await world.until_delivered()

    code = "GW-BLE-04" if fault[0] == "NotReady" else "GW-BLE-07"
    assert world.said == [code, "hearing"]
    assert fault[1] in str(world.states[0].facts["detail"])


async def test_a_scan_start_that_is_never_answered_is_given_up_and_tried_again(world: Any) -> None:
    world.bluez.faults["Adapter1.StartDiscovery"] = ["hang"]
    world.radio(call_timeout_s=0.3)

    await world.until_delivered()

    assert world.said == ["GW-BLE-07", "hearing"]
    assert world.states[0].facts["detail"] == "bluetoothd did not answer within 0.3 s"


async def test_a_scan_start_that_takes_long_is_told_before_it_is_given_up(world: Any) -> None:
    """Until then it would be shown that bluetoothd is not there, which was so and is so no more."""
    world.radio(call_timeout_s=4.0)
    await world.until_said("hearing")
    world.bluez.faults["Adapter1.StartDiscovery"] = ["hang"]
    await world.bluez.crash()
    await world.bluez.start()
    await world.until_said("hearing", "GW-BLE-02", "GW-BLE-07")
    assert world.states[-1].facts["detail"] == "bluetoothd has not answered for 2 s"
    await world.until_delivered()
    await world.until_said("hearing", "GW-BLE-02", "GW-BLE-07", "hearing")


async def test_a_bluetoothd_that_answers_nothing_at_all_is_given_up_and_tried_again(world: Any) -> None:
    world.bluez.sticky = {"ObjectManager.GetManagedObjects": "hang"}
    world.radio(call_timeout_s=0.3)
    await world.until_said("GW-BLE-07")

    world.bluez.sticky = {}
    await world.until_delivered()

    assert world.said == ["GW-BLE-07", "hearing"]


async def test_a_problem_that_changes_while_deaf_keeps_the_moment_when_hearing_ended(world: Any) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    world.bluez.power(on=False)
    await world.until_said("hearing", "GW-BLE-04")
    world.bluez.remove_adapter()
    await world.until_said("hearing", "GW-BLE-04", "GW-BLE-03")

    assert world.states[2].at == world.states[1].at


async def test_an_adapter_that_appears_while_the_scan_is_being_started_is_not_told_missing_a_second_time(
    world: Any,
) -> None:
    """bleak's start was on its way when the watch told that there is no adapter, and found it when it came."""
    world.bluez.remove_adapter()
    await world.bluez.crash()
    world.radio()
    await world.until_said("GW-BLE-02")
    world.bluez.sticky = {"ObjectManager.GetManagedObjects": 0.3}

    await world.bluez.start()
    await world.until_said("GW-BLE-02", "GW-BLE-03")
    await asyncio.sleep(0.05)
    world.bluez.add_adapter()
    await world.until_delivered()

    await world.until_said("GW-BLE-02", "GW-BLE-03", "hearing")


async def test_bluetoothd_killed_and_back_refuses_for_a_while_and_is_asked_until_it_does_not(world: Any) -> None:
    """Seen with BlueZ 5.66: InProgress for 7 s after a SIGKILL."""
    world.radio(retry_cap_s=5.0)
    await world.until_said("hearing")
    world.bluez.sticky = {"Adapter1.StartDiscovery": ("InProgress", "Operation already in progress")}
    await world.bluez.crash()
    await world.bluez.start()
    await world.until(lambda: world.said[-1] == "GW-BLE-07")
    await asyncio.sleep(1.5)
    world.bluez.sticky = {}

    await world.until_delivered()

    assert world.said == ["hearing", "GW-BLE-02", "GW-BLE-07", "hearing"]


@pytest.mark.parametrize("fault", [("InProgress", "wait"), ("Failed", "No discovery started"), "hang"])
async def test_a_scan_that_cannot_be_stopped_is_left_behind(world: Any, fault: Any) -> None:
    world.radio(call_timeout_s=0.5)
    await world.until_said("hearing")
    world.bluez.faults["Adapter1.StopDiscovery"] = [fault, fault]

    await _off_and_on(world)
    await world.until_delivered()

    # Where bluetoothd keeps the old discovery booked, the new one is refused until the connection is a new one too.
    assert [one for one in world.said if one != "GW-BLE-07"] == ["hearing", "GW-BLE-04", "hearing"]


async def test_a_discovery_that_somebody_else_ended_is_noticed_and_begun_anew(world: Any) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_heard_once()
    last = world.heard[-1].at

    world.bluez.end_discovery()
    await world.until_delivered()

    assert world.said == ["hearing", "GW-BLE-07", "hearing"]
    assert world.is_told(world.states[1].at, last)
    assert world.states[1].facts["detail"] == "bluetoothd ended the scan"


async def test_what_was_sent_while_the_process_stood_still_is_told_as_lost_from_before_it(world: Any) -> None:
    """An advert is stamped when it is read, seconds late: the press that was lost after it is older than its stamp."""
    world.radio()
    await world.until_said("hearing")
    await world.until_heard_once()
    before = len(world.heard)

    world.speak()
    lost = SystemClock().stamp()
    world.bluez.end_discovery()
    time.sleep(1.2)  # noqa: ASYNC251 - nobody comes to read, as on a machine that stands still
    await world.until(lambda: len(world.heard) > before)
    await world.until_delivered()

    assert world.heard[before].at.mono_ms >= lost.mono_ms + 1_000
    assert world.said == ["hearing", "GW-BLE-07", "hearing"]
    assert world.states[1].at.mono_ms <= lost.mono_ms


async def test_our_own_pause_between_two_scans_is_not_taken_for_the_end_of_the_discovery(world: Any) -> None:
    world.radio(silence_s=0.4)
    await world.until_said("hearing")
    await world.until(lambda: "hearing, but GW-BLE-10" in world.said)
    assert "GW-BLE-07" not in world.said


# The bus.


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_bus_that_refuses_our_user_is_denied_and_ends_when_it_does_not(world: Any) -> None:
    await world.bluez.crash()
    await world.daemon.stop()
    await world.daemon.start(refuses_users=True)
    world.radio()
    await world.until_said("GW-BLE-05")

    await world.daemon.stop()
    await world.daemon.start()
    await world.bluez.start()
    await world.until_delivered()

    assert world.said[0] == "GW-BLE-05"
    assert set(world.said[1:]) <= {"GW-BLE-01", "GW-BLE-02", "hearing"}
    assert world.said[-1] == "hearing"


async def test_a_bus_that_refuses_us_is_denied_however_the_refusal_looks(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then bleak meets the closed door as an end of file, which alone could as well be a bus that died."""

    async def start(_scanner: object) -> None:
        raise EOFError

    monkeypatch.setattr("gateway.links.ble_radio.BleakScanner.start", start)
    await world.bluez.crash()
    await world.daemon.stop()
    await world.daemon.start(refuses_users=True)
    world.radio()
    await world.until_said("GW-BLE-05")
    await asyncio.sleep(1.0)
    assert world.said == ["GW-BLE-05"]


async def test_a_bus_socket_that_nobody_but_root_may_use_is_denied(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may use every socket")
    path = tmp_path / "closed.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        path.chmod(0)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
        world.radio()
        await world.until_said("GW-BLE-05")


async def test_a_bus_that_takes_connections_and_says_nothing_is_no_bus_and_costs_no_descriptors(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(100)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
        world.radio(call_timeout_s=0.1)
        await world.until_said("GW-BLE-01")
        await asyncio.sleep(0.5)
        before = descriptors()
        await asyncio.sleep(2.0)
        assert descriptors() <= before + 4

    assert world.said == ["GW-BLE-01"]


async def test_a_blocked_event_loop_costs_time_and_no_advert(world: Any) -> None:
    world.radio(silence_s=0.5)
    await world.until_said("hearing")
    await world.until_delivered()
    before = len(world.heard)

    for _ in range(300):
        world.speak()
        await asyncio.sleep(0)
    time.sleep(1.0)  # noqa: ASYNC251 - that is the fault
    await world.until(lambda: len(world.heard) >= before + 300)

    assert world.said == ["hearing"]


# Switched off.


async def test_an_adapter_that_somebody_switched_off_is_switched_on_after_a_while(world: Any) -> None:
    world.radio(power_grace_s=0.3)
    await world.until_said("hearing")
    world.bluez.power(on=False)
    await world.until_said("hearing", "GW-BLE-04")

    await world.until_delivered()

    assert world.said == ["hearing", "GW-BLE-04", "hearing"]


async def test_an_adapter_that_is_off_at_the_start_is_switched_on_too(world: Any) -> None:
    """A gateway that was killed in the middle of a power cycle must not find it off for ever."""
    world.bluez.power(on=False)
    world.radio(power_grace_s=0.3)
    await world.until_delivered()
    assert world.said == ["GW-BLE-04", "hearing"]


async def test_an_adapter_that_refuses_to_be_switched_on_is_asked_again(world: Any) -> None:
    world.bluez.faults["Properties.Set"] = [("Failed", "Input/output error"), "hang", ("Failed", "again")]
    world.bluez.power(on=False)
    world.radio(power_grace_s=0.05, call_timeout_s=0.2)
    await world.until_delivered()
    assert world.said == ["GW-BLE-04", "hearing"]
    assert world.bluez.faults["Properties.Set"] == []


@pytest.mark.parametrize("version", [(5, 66), (5, 60)], ids=["PowerState", "a release without it"])
async def test_an_adapter_that_rfkill_blocks_is_named_so_and_used_once_it_is_free(
    world: Any, version: tuple[int, int]
) -> None:
    await replace_bluez(world, version=version)
    radio = world.radio(power_grace_s=0.1)
    await world.until_said("hearing")
    await world.until(lambda: radio._watch.state.name == "READY")
    world.bluez.block(on=True)
    await world.until(lambda: world.said[-1] == "GW-BLE-08")
    assert world.states[-1].facts["adapter"] == "hci0"

    world.bluez.block(on=False)
    await world.until_delivered()

    assert world.said == ["hearing", *([] if version == (5, 66) else ["GW-BLE-04"]), "GW-BLE-08", "hearing"]


# Another adapter.


async def test_another_adapter_stands_in_and_the_configured_one_is_taken_back(world: Any) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_delivered()
    world.bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
    world.bluez.remove_adapter("hci0")
    await world.until_said("hearing", "GW-BLE-03")
    await world.until_delivered()
    assert world.said == ["hearing", "GW-BLE-03", "hearing, but GW-BLE-09"]
    assert world.states[-1].facts == {"adapter": "hci0", "other": "hci1"}

    world.bluez.add_adapter("hci0")
    await world.until(lambda: world.bluez.scanning("hci0"))
    await world.until_said("hearing", "GW-BLE-03", "hearing, but GW-BLE-09", "hearing")
    await world.until_delivered()
    assert not world.bluez.scanning("hci1")


async def test_the_configured_adapter_is_switched_on_also_while_another_one_stands_in(world: Any) -> None:
    world.bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
    world.bluez.faults["Properties.Set"] = [("Failed", "not yet")] * 2
    world.bluez.power(on=False)
    world.radio(power_grace_s=1.5)
    await world.until_said("GW-BLE-04", "hearing, but GW-BLE-09")
    await world.until(lambda: world.bluez.scanning("hci0"))
    await world.until_said("GW-BLE-04", "hearing, but GW-BLE-09", "hearing")
    assert world.bluez.faults["Properties.Set"] == []


async def test_a_stand_in_that_goes_too_is_told_as_the_configured_one_missing(world: Any) -> None:
    world.bluez.remove_adapter("hci0")
    world.bluez.add_adapter("hci1", address="00:1A:7D:DA:71:14")
    world.radio()
    await world.until_said("GW-BLE-03", "hearing, but GW-BLE-09")
    world.bluez.remove_adapter("hci1")
    await world.until_said("GW-BLE-03", "hearing, but GW-BLE-09", "GW-BLE-03")
    assert world.states[-1].facts["adapter"] == "hci0"
    world.bluez.add_adapter("hci0")
    await world.until_delivered()


@pytest.mark.parametrize(("taken", "powered"), [(("hci1",), True), ((), False)], ids=["another radio's", "off"])
async def test_an_adapter_of_another_radio_or_one_that_is_off_does_not_stand_in(
    world: Any, taken: tuple[str, ...], *, powered: bool
) -> None:
    world.bluez.remove_adapter("hci0")
    world.bluez.add_adapter("hci1", powered=powered, address="00:1A:7D:DA:71:14")
    world.radio(taken=taken, power_grace_s=0.1)
    await asyncio.sleep(2.6)
    assert world.said == ["GW-BLE-03"]
    assert not world.bluez.scanning("hci1")


async def test_a_device_that_bleak_has_forgotten_is_heard_again_at_once(world: Any) -> None:
    """A device that appears while bleak takes over the list of all objects is not in its memory, and stays dumb.

    What bleak drops until the new scan is lost, and that is told.
    """
    world.radio()
    await world.until_said("hearing")
    await world.until_heard_once()
    manager: Any = bleak_bus.current()
    del manager._properties["/org/bluez/hci0/dev_AA_BB_CC_DD_EE_01"]

    await world.until_delivered()

    assert bleak_bus.current() is not manager
    assert world.said == ["hearing", "deaf", "hearing"]
    assert world.states[0].at.mono_ms <= world.states[1].at.mono_ms <= world.states[2].at.mono_ms


async def test_what_is_told_of_unknown_devices_without_an_advert_costs_no_connection(world: Any) -> None:
    world.radio()
    await world.until_said("hearing")
    await world.until_heard_once()
    manager: Any = bleak_bus.current()
    del manager._properties["/org/bluez/hci0/dev_AA_BB_CC_DD_EE_01"]
    world.bluez.invalidate_rssi()
    await asyncio.sleep(0.2)
    assert bleak_bus.current() is manager


# The monitor beside the scan.


@pytest.mark.parametrize("fault", [("Failed", "no"), ("AlreadyExists", "no"), "hang"])
async def test_a_monitor_that_is_refused_does_not_touch_the_scan(world: Any, fault: Any) -> None:
    await replace_bluez(world, experimental=True)
    world.bluez.sticky = {"AdvertisementMonitorManager1.RegisterMonitor": fault}
    radio = world.radio(call_timeout_s=0.5)
    await world.until_said("hearing")
    await world.chat(30)
    assert len(world.heard) > 20
    assert not radio._monitor.registered
    assert world.said == ["hearing"]


async def test_a_refused_monitor_is_not_asked_for_again_with_every_scan(world: Any) -> None:
    await replace_bluez(world, experimental=True)
    refusals = world.bluez.faults["AdvertisementMonitorManager1.RegisterMonitor"] = [("Failed", "no")] * 5
    world.radio(silence_s=0.2)
    await world.until_said("hearing")
    await asyncio.sleep(1.5)
    assert len(refusals) == 4


async def test_the_monitor_is_registered_anew_with_a_new_bluetoothd_and_a_new_adapter(world: Any) -> None:
    await replace_bluez(world, experimental=True)
    radio = world.radio()
    await world.until(lambda: world.bluez.monitors() == 1)

    await world.bluez.crash()
    await world.bluez.start()
    await world.until(lambda: world.bluez.monitors() == 1)
    world.bluez.remove_adapter()
    world.bluez.add_adapter()
    await world.until(lambda: world.bluez.monitors() == 1)
    await world.until_delivered()
    assert radio._monitor.registered
