"""The air of a run: what is played is heard by a real bleak, and the ledger says what was played."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakScanner
from bleak.backends.bluezdbus import manager as bleak_manager
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from simulator.air import AirError, main, play_air
from simulator.bluez import FakeBluez
from simulator.bluez_wire import BluezError
from simulator.dbus_daemon import DbusDaemon

PLAIN = {"id": "btn-1", "model": "bthome-button", "link": "ble", "address": "aa:bb:cc:dd:ee:01"}
SEALED = PLAIN | {"id": "btn-2", "address": "AA:BB:CC:DD:EE:02", "key": "231d39c1d7cc1ab1aee224cd096db932"}
PENDANT = {"id": "fall-1", "model": "ingics-ibs", "link": "ble", "address": "AA:BB:CC:DD:EE:03"}
METER = {"id": "meter-1", "model": "dlt645-2007", "link": "bus", "address": "000000000001"}
FCD2 = "0000fcd2-0000-1000-8000-00805f9b34fb"


def scenario(*emissions: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "seed": 7,
        "seconds": 3,
        "emission_until_s": 2,
        "start": time.time(),
        "devices": [PLAIN, SEALED, PENDANT, METER],
        "emissions": list(emissions),
        "faults": [],
        "foreign_per_s": 0,
        "heartbeat_s": 60,
        **options,
    }


def ledger(run: Path, name: str = "air.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]


class Air:
    """A bus, a bluetoothd, and everything that bleak hears on it."""

    def __init__(self, daemon: DbusDaemon, bluez: FakeBluez) -> None:
        self.daemon = daemon
        self.bluez = bluez
        self.heard: list[tuple[float, str, AdvertisementData]] = []

    def of(self, address: str) -> list[AdvertisementData]:
        return [data for _, sender, data in self.heard if sender == address]

    async def play(self, run: Path, score: dict[str, Any], *, for_s: float) -> None:
        playing = asyncio.create_task(play_air(run, score, bluez=self.bluez))
        done, _ = await asyncio.wait({playing}, timeout=for_s)
        assert not done, playing.exception()
        playing.cancel()
        await asyncio.wait({playing})
        await asyncio.sleep(0.05)


@pytest.fixture
async def air(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Air]:
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    bluez = FakeBluez(daemon.address)
    bluez.add_adapter()
    await bluez.start()
    here = Air(daemon, bluez)

    def ears(device: BLEDevice, data: AdvertisementData) -> None:
        here.heard.append((time.time(), device.address, data))

    scanner = BleakScanner(ears, bluez={"adapter": "hci0", "filters": {"DuplicateData": True}})
    async with asyncio.timeout(30):
        await scanner.start()
    yield here
    manager = bleak_manager._global_instances.pop(asyncio.get_running_loop())
    if manager._bus is not None and manager._bus_watcher_task is not None:
        manager._bus.disconnect()
        await asyncio.wait({manager._bus_watcher_task}, timeout=30)
    await bluez.stop()
    await daemon.stop()


async def test_a_press_is_six_adverts_of_one_payload_and_one_line_in_the_ledger(air: Air, tmp_path: Path) -> None:
    score = scenario({"at_s": 0.1, "device": "btn-1", "kind": "press", "code": "double"})

    await air.play(tmp_path, score, for_s=1.6)

    adverts = air.of("AA:BB:CC:DD:EE:01")
    assert len(adverts) == 6
    assert len({data.rssi for data in adverts}) > 1
    payloads = {data.service_data[FCD2] for data in adverts}
    assert len(payloads) == 1
    payload = payloads.pop()
    assert (payload[:2].hex(), payload[3:].hex()) == ("4400", "01643a02")
    (line,) = ledger(tmp_path)
    assert set(line) == {"t", "t_last", "device", "kind", "counter", "n", "session", "value"}
    assert (line["device"], line["kind"], line["counter"]) == ("btn-1", "press", payload[2])
    assert (line["n"], line["session"], line["value"]) == (None, None, {"code": "double"})
    times = [at for at, sender, _ in air.heard if sender == "AA:BB:CC:DD:EE:01"]
    assert line["t"] <= times[0] <= line["t"] + 0.2
    assert abs(line["t_last"] - times[-1]) < 0.2
    assert 0.9 < line["t_last"] - line["t"] <= 1.2


async def test_two_presses_have_two_counters_and_the_second_waits_for_the_first(air: Air, tmp_path: Path) -> None:
    score = scenario(
        {"at_s": 0.1, "device": "btn-2", "kind": "press", "code": "press", "for_s": 0.5},
        {"at_s": 0.2, "device": "btn-2", "kind": "press", "code": "press", "for_s": 0.5},
    )

    await air.play(tmp_path, score, for_s=1.6)

    first, second = ledger(tmp_path)
    assert second["counter"] == first["counter"] + 1
    assert second["t"] >= first["t_last"]
    sent = [data.service_data[FCD2] for data in air.of("AA:BB:CC:DD:EE:02")]
    # 45, six sealed bytes, the counter in the clear (little endian), a tag of four.
    assert {int.from_bytes(frame[7:11], "little") for frame in sent} == {first["counter"], second["counter"]}
    assert {len(frame) for frame in sent} == {15}


async def test_a_fall_is_a_bit_that_stays_high_and_then_low_adverts(air: Air, tmp_path: Path) -> None:
    score = scenario({"at_s": 0.1, "device": "fall-1", "kind": "fall", "for_s": 1.2})

    await air.play(tmp_path, score, for_s=3.0)

    events = [data.manufacturer_data[0x000D][4] for data in air.of("AA:BB:CC:DD:EE:03")]
    high = [event for event in events if event == 0x08]
    assert len(high) == 4
    assert events[: len(high)] == high
    assert set(events[len(high) :]) == {0x00}
    assert len(events) >= len(high) + 2
    (line,) = ledger(tmp_path)
    assert (line["kind"], line["counter"], line["value"]) == ("fall", None, None)


async def test_signs_of_life_have_packet_ids_of_their_own(air: Air, tmp_path: Path) -> None:
    await air.play(tmp_path, scenario(heartbeat_s=0.3), for_s=1.5)

    frames = [data.service_data[FCD2] for data in air.of("AA:BB:CC:DD:EE:01")]
    assert {frame[3:].hex() for frame in frames} == {"0164"}
    assert len({frame[2] for frame in frames}) >= 3
    assert ledger(tmp_path) == []


async def test_strangers_chatter_at_the_rate_asked_for(air: Air, tmp_path: Path) -> None:
    await air.play(tmp_path, scenario(foreign_per_s=200), for_s=1.5)

    ours = {"AA:BB:CC:DD:EE:01", "AA:BB:CC:DD:EE:02", "AA:BB:CC:DD:EE:03"}
    foreign = [sender for _, sender, _ in air.heard if sender not in ours]
    assert 150 < len(foreign) < 450
    assert len(set(foreign)) > 30


async def test_the_radio_is_broken_on_time_and_it_stands_in_the_ledger_of_faults(air: Air, tmp_path: Path) -> None:
    score = scenario(
        {"at_s": 0.4, "device": "btn-1", "kind": "press", "for_s": 0.4},
        faults=[{"at_s": 0.2, "fault": "ble-off"}, {"at_s": 0.1, "fault": "cut"}],
    )

    await air.play(tmp_path, score, for_s=1.0)

    assert air.of("AA:BB:CC:DD:EE:01") == []
    assert [line["fault"] for line in ledger(tmp_path, "faults.jsonl")] == ["ble-off"]
    assert len(ledger(tmp_path)) == 1, "the button was pressed although nobody heard it"


async def test_the_air_ends_with_a_clear_error_when_the_bus_does(air: Air, tmp_path: Path) -> None:
    playing = asyncio.create_task(play_air(tmp_path, scenario(), bluez=air.bluez))
    await asyncio.sleep(0.1)

    await air.daemon.stop()

    with pytest.raises(BluezError, match="the D-Bus connection of the air has ended"):
        async with asyncio.timeout(30):
            await playing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"emissions": [{"at_s": 1, "device": "btn-1", "kind": "press", "code": "knock"}]},
            "btn-1 cannot do press knock",
        ),
        ({"emissions": [{"at_s": 1, "device": "btn-1", "kind": "fall"}]}, "btn-1 cannot do fall"),
        ({"emissions": [{"device": "btn-1", "kind": "press"}]}, "scenario.json: at_s is missing"),
        ({"devices": [PLAIN | {"key": "xyz"}]}, "device btn-1: non-hexadecimal"),
        ({"devices": [PENDANT | {"map": {"variant": "x"}}]}, "device fall-1: no Ingics tag is called 'x'"),
    ],
)
async def test_a_score_that_cannot_be_played_is_refused_at_once(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirError, match=message):
        await play_air(tmp_path, scenario(**change), bluez=FakeBluez("unix:path=/nowhere"))


async def test_the_process_plays_until_it_is_terminated(tmp_path: Path) -> None:
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    score = scenario({"at_s": 0.0, "device": "btn-1", "kind": "press"}, start=time.time() + 1.0)
    (tmp_path / "scenario.json").write_text(json.dumps(score), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, pathlib, sys; from simulator.air import main; asyncio.run(main(pathlib.Path(sys.argv[1])))",
        str(tmp_path),
        env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": daemon.address},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            while not ((tmp_path / "air.jsonl").exists() and ledger(tmp_path)):
                assert process.returncode is None
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await daemon.stop()

    assert process.returncode == 0
    assert said == b""
    assert [line["device"] for line in ledger(tmp_path)] == ["btn-1"]


async def test_without_a_private_bus_or_a_score_the_process_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    with pytest.raises(AirError, match="DBUS_SYSTEM_BUS_ADDRESS is not set"):
        await main(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
    with pytest.raises(AirError, match=r"scenario\.json: .*No such file"):
        await main(tmp_path)
