"""The gateway's line and the simulated bus on one cable: the real driver asks, the simulated meter answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.dlt645_2007 import DRIVER
from drivers.kit import LineSettings, NoReply, Observation, Reading
from gateway.clock import SystemClock
from gateway.links.serial_line import SerialLine
from gateway.links.state import LinkState
from simulator.bus import Ledger, MeterBus
from simulator.com_port_server import ComPortServer
from simulator.line_devices import LineSource, TcpPort
from simulator.meters import Meter, Quirks


class Cable:
    """A bus with meters at one end and a line at the other."""

    def __init__(
        self, run: Path, meters: Sequence[Meter], *, echo: bool = False, expect_echo: bool = False, quiet_ms: int = 20,
        server: ComPortServer | None = None,
    ) -> None:  # fmt: skip
        self.run = run
        self.states: list[LinkState] = []
        self.ledger = Ledger(run / "bus.jsonl")
        self.bus = MeterBus(path=server or run / "ttyMETER", baud=9600, meters=meters, ledger=self.ledger, echo=echo)
        self.line = SerialLine(
            link_id="bus-1",
            port=f"rfc2217://127.0.0.1:{server.port}" if server else str(run / "ttyMETER"),
            line=LineSettings(baud=9600),
            quiet_ms=quiet_ms,
            echo=expect_echo,
            on_state=self.states.append,
            clock=SystemClock(),
        )

    async def poll(
        self, address: str, *registers: str, timeout_s: float | None = None, settings: LineSettings | None = None,
        silent_s: float | None = None,
    ) -> tuple[Observation, ...]:  # fmt: skip
        """One poll as the gateway makes it: the driver asks through the line."""
        framer = DRIVER.framer()
        talk = DRIVER.talk(DRIVER.options(address, {"registers": list(registers)}))
        try:
            ask = next(talk)
            while True:
                if timeout_s is not None:
                    ask = type(ask)(ask.request, ask.answers, timeout_s, retries=0)
                ask = talk.send(await self.line.ask(ask, framer, settings, silent_s=silent_s))
        except StopIteration as result:
            found: tuple[Observation, ...] = result.value
            return found

    def told(self) -> set[tuple[str, str, Decimal]]:
        """What the meters' ledger says that they gave."""
        rows = [json.loads(line)["value"] for line in (self.run / "bus.jsonl").read_text().splitlines()]
        return {(row["quantity"], row["channel"], Decimal(row["value"])) for row in rows}


def meter(device: str = "m1", address: str = "000000193600", phases: int = 3, **quirks: object) -> Meter:
    return Meter(
        device=device,
        address=address,
        seed=5,
        start=time.time(),
        phases=phases,
        quirks=Quirks(**quirks),  # type: ignore[arg-type]  # what the test names
    )


@contextlib.asynccontextmanager
async def plugged(cable: Cable) -> AsyncIterator[Cable]:
    tasks = [asyncio.create_task(cable.bus.run()), asyncio.create_task(cable.line.run())]
    try:
        async with asyncio.timeout(30):
            while not (cable.line.is_open and cable.bus.port.held):
                await asyncio.sleep(0.002)
        yield cable
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cable.ledger.close()


ALL = ("energy_active_import", "voltage", "current", "power_active_phases", "frequency")


@pytest.mark.parametrize("phases", [1, 3])
async def test_every_register_that_the_driver_reads_is_what_the_meter_gave(tmp_path: Path, phases: int) -> None:
    async with plugged(Cable(tmp_path, [meter(phases=phases)])) as cable:
        found = await cable.poll("000000193600", *ALL)
        readings = {(one.quantity, one.channel, one.value) for one in found if isinstance(one, Reading)}
        assert readings == cable.told()
        # 5 of energy, 1 or 3 of voltage and current, total and phases of power, frequency.
        assert len(readings) == {1: 10, 3: 16}[phases]
        assert cable.line.timeouts == 0


@pytest.mark.parametrize("expect_echo", [True, False])
async def test_an_echoing_adapter_changes_nothing(tmp_path: Path, *, expect_echo: bool) -> None:
    async with plugged(Cable(tmp_path, [meter()], echo=True, expect_echo=expect_echo)) as cable:
        assert len(await cable.poll("000000193600", "energy_active_import")) == 5
        assert cable.line.echo_seen
        assert cable.line.foreign == 0


@pytest.mark.parametrize("quirk", ["stray", "foreign"])
async def test_noise_and_other_meters_replies_change_nothing(tmp_path: Path, quirk: str) -> None:
    async with plugged(Cable(tmp_path, [meter(stray=quirk == "stray", foreign=quirk == "foreign")])) as cable:
        assert len(await cable.poll("000000193600", "energy_active_import")) == 5
        assert cable.line.foreign == (1 if quirk == "foreign" else 0)


async def test_a_late_reply_is_not_taken_for_that_of_the_next_meter(tmp_path: Path) -> None:
    meters = [meter("m1", late_s=0.25), meter("m2", "111111111111")]
    async with plugged(Cable(tmp_path, meters)) as cable:
        with pytest.raises(NoReply):
            await cable.poll("000000193600", "energy_active_import", timeout_s=0.2)
        found = await cable.poll("111111111111", "energy_active_import")
        rows = [json.loads(line) for line in (tmp_path / "bus.jsonl").read_text().splitlines()]
        second = {Decimal(row["value"]["value"]) for row in rows if row["device"] == "m2"}
        assert {one.value for one in found if isinstance(one, Reading)} == second


async def test_a_silent_meter_does_not_keep_the_others_from_answering(tmp_path: Path) -> None:
    meters = [meter("m1", silent=True), meter("m2", "111111111111")]
    async with plugged(Cable(tmp_path, meters)) as cable:
        silent = asyncio.create_task(cable.poll("000000193600", "energy_active_import", timeout_s=0.2))
        assert len(await cable.poll("111111111111", "energy_active_import")) == 5
        with pytest.raises(NoReply):
            await silent


@pytest.mark.parametrize("echo", [False, True])
async def test_who_says_not_a_byte_is_given_up_early_and_who_has_begun_is_heard_to_the_end(
    tmp_path: Path, *, echo: bool
) -> None:
    meters = [
        meter("m1", silent=True),
        Meter(device="m2", address="111111111111", seed=5, start=time.time(), baud=300),
    ]
    async with plugged(Cable(tmp_path, meters, echo=echo)) as cable:
        began = time.monotonic()
        with pytest.raises(NoReply):
            await cable.poll("000000193600", "energy_active_import", timeout_s=20.0, silent_s=0.2)
        assert time.monotonic() - began < 10
        assert cable.line.first_s is None
        # 40 bytes take 1.33 s at 300 baud; the first one is there after a tenth of that.
        slow = LineSettings(baud=300)
        found = await cable.poll("111111111111", "energy_active_import", timeout_s=20.0, silent_s=1.0, settings=slow)
        assert len(found) == 5
        assert cable.line.first_s is not None


async def test_the_cable_is_pulled_in_the_middle_and_polling_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async with plugged(Cable(tmp_path, [meter()])) as cable:
        assert await cable.poll("000000193600", "frequency")
        cable.bus.port.unplug()
        await asyncio.sleep(0.3)
        cable.bus.port.plug()
        async with asyncio.timeout(30):
            while not (cable.line.is_open and cable.bus.port.held):
                await asyncio.sleep(0.01)
        assert await cable.poll("000000193600", "frequency")
        assert [state.problem for state in cable.states] == [None, "GW-SER-04", "GW-SER-01", None]


async def test_numbered_lines_reach_a_streaming_line_and_its_acknowledgements_reach_the_source() -> None:
    rows: list[object] = []
    source = LineSource(device="b", address="b1", session="aa", record=rows.append)
    port = TcpPort(port=0, source=source)
    await port.listen()
    held = bytearray()

    def acknowledge(data: bytes, _stamp: object) -> None:
        held.extend(data)
        *lines, rest = bytes(held).split(b"\n")
        held[:] = rest
        for line in lines:
            fields = json.loads(line)
            assert streaming.write(b'{"ack":%d,"s":"%s"}\n' % (fields["n"], fields["s"].encode()))

    streaming = SerialLine(
        link_id="wire-1", port=f"socket://127.0.0.1:{port.port}", line=LineSettings(), quiet_ms=0, echo=False,
        on_state=lambda _: None, clock=SystemClock(), on_data=acknowledge,
    )  # fmt: skip
    tasks = [asyncio.create_task(work) for work in (port.run(), source.run(), streaming.run())]
    for _ in range(1000):
        source.emit({"temp": 20.5})
    async with asyncio.timeout(30):
        while source.unacknowledged:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert source.resent == 0
    assert len(rows) == 2000


async def test_meters_of_two_speeds_on_one_port_are_read_in_turn(tmp_path: Path) -> None:
    meters = [meter("m1"), Meter(device="m2", address="111111111111", seed=5, start=time.time(), baud=2400)]
    async with plugged(Cable(tmp_path, meters)) as cable:
        for _ in range(2):
            assert len(await cable.poll("000000193600", "energy_active_import")) == 5
            slow = await cable.poll("111111111111", "energy_active_import", settings=LineSettings(baud=2400))
            assert len(slow) == 5
        assert (cable.line.switches, cable.line.timeouts) == (3, 0)
        with pytest.raises(NoReply):
            await cable.poll("111111111111", "energy_active_import", timeout_s=0.3)  # at the speed of the other one


async def test_meters_of_two_parities_behind_a_serial_server_are_read_in_turn(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = ComPortServer(port=free.getsockname()[1])
    even, odd = LineSettings(2400, 8, "E", 1), LineSettings(2400, 8, "O", 1)
    options: dict[str, Any] = {"seed": 5, "start": time.time(), "baud": 2400}
    meters = [
        Meter(device="m1", address="000000193600", parity="E", **options),
        Meter(device="m2", address="111111111111", parity="O", **options),
    ]
    async with plugged(Cable(tmp_path, meters, server=server)) as cable:
        for _ in range(2):
            assert len(await cable.poll("000000193600", "energy_active_import", settings=even)) == 5
            assert len(await cable.poll("111111111111", "energy_active_import", settings=odd)) == 5
        assert (cable.line.switches, cable.line.timeouts) == (4, 0)
        with pytest.raises(NoReply):
            await cable.poll("111111111111", "energy_active_import", timeout_s=0.3, settings=even)
        server.cut()
        async with asyncio.timeout(30):
            while server.holders < 2 or not cable.line.is_open:
                await asyncio.sleep(0.01)
        assert len(await cable.poll("111111111111", "energy_active_import", settings=odd)) == 5


async def test_what_a_late_meter_says_after_its_second_try_is_heard_out(tmp_path: Path) -> None:
    async with plugged(Cable(tmp_path, [meter(late_s=0.3)])) as cable:
        ask = next(DRIVER.talk(DRIVER.options("000000193600", {"registers": ["energy_active_import"]})))
        ask = type(ask)(ask.request, ask.answers, 0.25, retries=2)
        await cable.line.ask(ask, DRIVER.framer())  # the first reply comes within the second try
        before = cable.line.unasked
        await cable.line.hear_out(at_most_s=1.5)
        assert cable.line.unasked - before >= 12  # the second reply


async def test_a_speed_that_a_socket_cannot_take_is_no_reply_with_its_reason(tmp_path: Path) -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = SerialLine(
        link_id="bus-1", port=f"socket://127.0.0.1:{port}", line=LineSettings(baud=9600), quiet_ms=5, echo=False,
        on_state=lambda _state: None, clock=SystemClock(),
    )  # fmt: skip
    running = asyncio.create_task(line.run())
    try:
        async with asyncio.timeout(30):
            while not line.is_open:
                await asyncio.sleep(0.002)
        ask = next(DRIVER.talk(DRIVER.options("000000193600", {})))
        with pytest.raises(NoReply, match="cannot be set to 2400 8E1: a socket has no speed of its own"):
            await line.ask(ask, DRIVER.framer(), LineSettings(2400, 8, "E", 1))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.close()


async def test_a_meter_that_speaks_without_end_keeps_the_line_restless_and_its_frames_name_it(tmp_path: Path) -> None:
    meters = [meter("m1", jabbers=True), meter("m2", "111111111111")]
    async with plugged(Cable(tmp_path, meters, quiet_ms=200)) as cable:
        said = bytearray()
        cable.line.on_unasked = said.extend
        assert len(await cable.poll("000000193600", "energy_active_import")) == 5
        for _ in range(3):
            with contextlib.suppress(NoReply):
                await cable.poll("111111111111", "energy_active_import", timeout_s=0.2)
        assert cable.line.restless >= 3
        assert DRIVER.sender is not None
        assert {DRIVER.sender(frame) for frame in DRIVER.framer().feed(bytes(said))} == {"000000193600"}


async def test_replies_with_a_wrong_byte_are_asked_for_again_and_no_wrong_value_comes_of_them(tmp_path: Path) -> None:
    async with plugged(Cable(tmp_path, [meter(garbled=0.4)])) as cable:
        for _ in range(12):
            ask = next(DRIVER.talk(DRIVER.options("000000193600", {"registers": ["energy_active_import"]})))
            framer = DRIVER.framer()
            with contextlib.suppress(NoReply):
                await cable.line.ask(type(ask)(ask.request, ask.answers, 0.4, retries=3), framer)
        assert cable.line.timeouts >= 1
        assert cable.line.replies >= 6
        assert cable.line.trimmed + cable.line.unasked >= 12


async def test_two_meters_with_one_number_garble_each_other_and_give_no_value(tmp_path: Path) -> None:
    async with plugged(Cable(tmp_path, [meter("m1"), meter("m2")])) as cable:
        with pytest.raises(NoReply):
            await cable.poll("000000193600", "energy_active_import", timeout_s=0.3)
        assert cable.line.rx_bytes > 0
