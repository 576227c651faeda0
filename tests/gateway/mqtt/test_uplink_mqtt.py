"""The native profile: topics, state, birth and acknowledgements, against the simulator's platform and told bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app import transports
from gateway.clock import SystemClock
from gateway.config import Destination
from gateway.config.secret import Secret
from gateway.config.settings import DestinationPath
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.errors import SecretError, SessionError
from gateway.events import Lane, Origin, Sending, Stored, new_event, sending_text
from gateway.health import Health
from gateway.mqtt_session import Endpoint
from gateway.outbox import Outbox, Route, Write
from gateway.uplinks import Ack, AckStatus, UplinkEvents
from gateway.uplinks.mqtt import MqttUplink, parse_acks
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths
from simulator.platform.contract import Address
from simulator.platform.district import District, district

ORIGIN = Origin("org", "site", "gw")
CLOCK = SystemClock()
BIRTH = {
    "gateway": "gw", "version": "0.1.0", "profile": "native", "streamid": "stream-1", "devices": [], "rooms": [],
}  # fmt: skip
Wait = Callable[..., Any]


class Told:
    """What a transport has told its deliverer."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.sent: list[tuple[int, bool]] = []
        self.losses: list[SessionError] = []
        self.events = UplinkEvents(
            acks=self.acks.extend, sent=lambda token, ok: self.sent.append((token, ok)), lost=self.losses.append
        )


def uplink(port: int) -> MqttUplink:
    return MqttUplink(Endpoint("127.0.0.1", port, "org-site-gw"), ORIGIN, destination="district")


def paths(*uplinks: MqttUplink) -> Paths:
    ways = [PlatformPath(one, f"host-{n}", "mqtt") for n, one in enumerate(uplinks, 1)]
    return Paths("district", ways, reconnect_spread_s=0.05, clock=CLOCK, health=Health(CLOCK))


def text(noun: str, seq: int, device: str = "d1", **data: object) -> str:
    common: dict[str, object] = {"room": "201", "bed": "1", "verified": True}
    event = new_event(noun, ORIGIN, device=device, at=CLOCK.stamp(), data={**common, **data}, correlation="alarm-1")
    row = Stored(
        seq, event.lane, event.id, noun, device, CLOCK.stamp().wall_ms, event.at, {"district": seq}, event.body
    )
    return sending_text(row, Sending("district", "stream-1", 0, 1, buffered=False))


def alarm(seq: int) -> str:
    return text(
        "alarm.raised",
        seq,
        kind="call",
        state="ACTIVE",
        priority="emergency",
        code="",
        channel="",
        presses=1,
        test=False,
    )


def meter(seq: int, device: str = "m1") -> str:
    register = {"quantity": "energy_import_total", "channel": "", "value": "1.5", "unit": "kWh"}
    return text("telemetry.meter", seq, device, registers=[register])


def state(platform: District) -> Any:
    return platform.application.roster[Address("org", "site", "gw", "state")]


# Against the platform.


async def test_a_session_is_announced_and_its_end_too(tmp_path: Path, wait_until: Wait) -> None:
    async with district(tmp_path) as platform:
        up, told = uplink(platform.port), Told()
        await up.open(told.events, epoch=5, birth=BIRTH)
        await wait_until(lambda: state(platform).births == 1)
        assert (state(platform).online, state(platform).epoch) == (True, 5)
        assert state(platform).birth == {"epoch": 5, **BIRTH}
        await up.close()
        await wait_until(lambda: not state(platform).online)
        assert (state(platform).bad_states, state(platform).stale_states, told.losses) == (0, 0, [])


async def test_a_gateway_that_vanishes_is_told_by_its_will(tmp_path: Path, wait_until: Wait) -> None:
    async with district(tmp_path) as platform:
        up, told = uplink(platform.port), Told()
        await up.open(told.events, epoch=6, birth=BIRTH)
        await wait_until(lambda: state(platform).online)
        await platform.link.cut()
        await wait_until(lambda: told.losses)
        await wait_until(lambda: not state(platform).online)
        assert state(platform).epoch == 6
        with pytest.raises(SessionError):
            up.send(Lane.A, [alarm(1)])
        await up.close()


async def test_events_arrive_by_lane_and_each_is_acknowledged(tmp_path: Path, wait_until: Wait) -> None:
    async with district(tmp_path) as platform:
        up, told = uplink(platform.port), Told()
        await up.open(told.events, epoch=1, birth=BIRTH)
        tokens = [
            up.send(Lane.A, [alarm(1)]),
            up.send(Lane.B, [text("device.fault", 2, kind="fault", code="x", channel="")]),
            up.send(Lane.C, [meter(3)]),
            up.send(Lane.D, [meter(n, f"m{n}") for n in range(4, 84)]),
        ]
        await wait_until(lambda: len(told.acks) == 83)
        assert {ack.status for ack in told.acks} == {AckStatus.ACCEPTED}
        await wait_until(lambda: {token for token, _ok in told.sent} >= set(tokens))
        assert all(ok for _token, ok in told.sent)
        counts = platform.application.stats()
        assert (counts["accepted"], counts["rejected"], counts["strange_topics"]) == (83, 0, 0)
        lanes = [json.loads(line)["lane"] for line in (tmp_path / "platform-district.jsonl").read_text().splitlines()]
        assert lanes == ["alarm", "event", *["telemetry"] * 81]
        await up.close()


async def test_a_retry_comes_with_its_delay(tmp_path: Path, wait_until: Wait) -> None:
    async with district(tmp_path) as platform:
        platform.conduct.refuse(retry_after_ms=1500)
        up, told = uplink(platform.port), Told()
        await up.open(told.events, epoch=1, birth=BIRTH)
        up.send(Lane.A, [alarm(1)])
        await wait_until(lambda: told.acks)
        assert (told.acks[0].status, told.acks[0].retry_after_s, told.acks[0].code) == (
            AckStatus.RETRY,
            1.5,
            "refusing",
        )
        await up.close()


async def test_the_same_uplink_opens_again_with_a_new_connection(tmp_path: Path, wait_until: Wait) -> None:
    async with district(tmp_path) as platform:
        up = uplink(platform.port)
        for epoch in (1, 2, 3):
            told = Told()
            await up.open(told.events, epoch=epoch, birth=BIRTH)
            up.send(Lane.A, [alarm(epoch)])
            await wait_until(lambda: len(told.acks) == 1)  # noqa: B023 - awaited within the turn
            await up.close()
        await wait_until(lambda: state(platform).births == 3)
        assert state(platform).epoch == 3


async def test_a_whole_delivery_over_cuts_is_complete_in_order_and_once(tmp_path: Path, wait_until: Wait) -> None:
    """The real road out: outbox, deliverer, uplink, session, broker, application; the line breaks four times."""
    async with district(tmp_path) as platform:
        outbox = Outbox(tmp_path / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
        await outbox.open()
        deliverer = Deliverer(
            "district", paths(uplink(platform.port)), outbox, finish="L2", reconnect_spread_s=0.05, clock=CLOCK,
            health=Health(CLOCK), callbacks=DeliveryCallbacks(delivered=lambda _i, _l: None, birth=lambda: BIRTH),
        )  # fmt: skip
        outbox.on_stored = deliverer.wake
        outbox.live = lambda: deliverer.is_live
        running = [asyncio.create_task(outbox.run()), asyncio.create_task(deliverer.run())]
        register = {"quantity": "energy_import_total", "channel": "", "value": "1.5", "unit": "kWh"}
        common = {"room": "201", "bed": "1", "verified": True}
        for n in range(2000):
            call = {"kind": "call", "state": "ACTIVE", "priority": "emergency", "code": "", "channel": ""}
            noun, data = (
                ("alarm.raised", {**common, **call, "presses": 1, "test": False})
                if n % 20 == 0
                else ("telemetry.meter", {**common, "registers": [register]})
            )
            event = new_event(noun, ORIGIN, device=f"d{n % 7}", at=CLOCK.stamp(), data=data, correlation="a")
            outbox.submit(Write((event,)))
            if n % 400 == 399:
                await platform.link.cut()
                platform.link.heal()
            if n % 10 == 0:
                await asyncio.sleep(0.001)
        accepted = platform.application.counts
        await wait_until(lambda: accepted["accepted"] == 2000, 30)
        await wait_until(lambda: not any(outbox.pending("district").values()), 30)
        figures = platform.application.stats()
        assert (figures["rejected"], figures["reordered"], figures["gaps"]["deliveryseq_missing"]) == (0, 0, 0)
        assert figures["sessions"] == 1
        for task in reversed(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await outbox.close()


# Against told bytes.


async def test_what_the_broker_allows_bounds_the_window_and_the_message(
    told: Any, packets: Any, wait_until: Wait
) -> None:
    told.connack = packets.connack(0, bytes.fromhex("21000a2700010000"))  # Receive Maximum 10, packets of 65,536
    told.publish_reason = None
    up, deliverer = uplink(told.port), Told()
    assert up.window == 40
    await up.open(deliverer.events, epoch=1, birth=BIRTH)
    assert up.window == 8  # state and birth are on their way, too
    assert up.max_bytes <= 65_536 - 2 - len("eldercare/v1/org/site/gw/up/telemetry") - 2
    await wait_until(lambda: told.kinds().count(3) == 2)
    for kind, body in list(told.packets):
        if kind >> 4 == 3:
            told.publish_reason = 0
            told.answer(kind, body, told.writers[0])
    await wait_until(lambda: up.window == 10)
    assert [ok for _token, ok in deliverer.sent] == [True, True]
    await up.close()


async def test_a_generous_broker_does_not_widen_the_window(told: Any, packets: Any, wait_until: Wait) -> None:
    told.connack = packets.connack(0, bytes.fromhex("2103e8"))
    up, deliverer = uplink(told.port), Told()
    await up.open(deliverer.events, epoch=1, birth=BIRTH)
    await wait_until(lambda: len(deliverer.sent) == 2)
    assert up.window == 40
    await up.close()


async def test_a_message_that_the_broker_refuses_is_told_as_refused(told: Any, wait_until: Wait) -> None:
    up, deliverer = uplink(told.port), Told()
    await up.open(deliverer.events, epoch=1, birth=BIRTH)
    await wait_until(lambda: len(deliverer.sent) == 2)
    told.publish_reason = 0x97
    token = up.send(Lane.A, [alarm(1)])
    await wait_until(lambda: len(deliverer.sent) == 3)
    assert deliverer.sent[2] == (token, False)
    await up.close()


async def test_without_the_right_to_hear_acknowledgements_there_is_no_session(
    told: Any, wait_until: Wait, count_sockets: Callable[[], int]
) -> None:
    told.subscribe_reason = 0x87
    before = count_sockets()
    up, deliverer = uplink(told.port), Told()
    with pytest.raises(SessionError) as caught:
        await up.open(deliverer.events, epoch=1, birth=BIRTH)
    assert caught.value.code == "GW-NET-04"
    await wait_until(lambda: count_sockets() == before)
    with pytest.raises(SessionError):
        up.send(Lane.A, [alarm(1)])


async def test_given_up_while_subscribing_it_leaves_nothing_behind(
    told: Any, wait_until: Wait, count_sockets: Callable[[], int]
) -> None:
    told.subscribe_reason = None
    before = count_sockets()
    up, deliverer = uplink(told.port), Told()
    opening = asyncio.create_task(up.open(deliverer.events, epoch=1, birth=BIRTH))
    await wait_until(lambda: 8 in told.kinds())
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await wait_until(lambda: count_sockets() == before)
    await wait_until(lambda: told.kinds()[-1] == 14)  # it has said goodbye
    assert deliverer.losses == []


# Acknowledgements.


@pytest.mark.parametrize(
    ("entry", "ack"),
    [
        ({"id": "a", "status": "accepted"}, Ack("a", AckStatus.ACCEPTED)),
        ({"id": "a", "status": "duplicate", "code": None}, Ack("a", AckStatus.DUPLICATE)),
        ({"id": "a", "status": "rejected", "code": "schema"}, Ack("a", AckStatus.REJECTED, "schema")),
        ({"id": "a", "status": "retry", "retry_after_ms": 250}, Ack("a", AckStatus.RETRY, "", 0.25)),
        ({"id": "a", "status": "retry", "retry_after_ms": 0}, Ack("a", AckStatus.RETRY, "", 0.0)),
        ({"id": "a", "status": "retry", "retry_after_ms": -5}, Ack("a", AckStatus.RETRY, "", 0.0)),
        ({"id": "a", "status": "retry", "retry_after_ms": 10**12}, Ack("a", AckStatus.RETRY, "", 3600.0)),
        ({"id": "a", "status": "retry", "retry_after_ms": "100"}, Ack("a", AckStatus.RETRY, "", 0.1)),
        ({"id": 7, "status": "accepted"}, Ack("7", AckStatus.ACCEPTED)),
        ({"id": "a", "status": "rejected", "code": "x" * 500}, Ack("a", AckStatus.REJECTED, "x" * 200)),
    ],
)
def test_an_acknowledgement_is_read(entry: dict[str, object], ack: Ack) -> None:
    assert parse_acks(json.dumps({"acks": [entry]}).encode()) == ([ack], 0)


@pytest.mark.parametrize("delay", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_delay_that_is_no_delay_is_bounded_or_not_read(delay: str) -> None:
    acks, bad = parse_acks(f'{{"acks":[{{"id":"a","status":"retry","retry_after_ms":{delay}}}]}}'.encode())
    assert len(acks) + bad == 1
    assert all(ack.retry_after_s is not None and 0 <= ack.retry_after_s <= 3600 for ack in acks)


@pytest.mark.parametrize(
    "entry",
    [{}, None, 7, "accepted", [], {"id": "a"}, {"status": "accepted"}, {"id": "a", "status": "perhaps"},
     {"id": "a", "status": None}, {"id": "a", "status": []}, {"id": "a", "status": "retry", "retry_after_ms": {}}],
)  # fmt: skip
def test_an_entry_that_cannot_be_read_is_counted_and_the_others_are_read(entry: object) -> None:
    payload = json.dumps({"acks": [entry, {"id": "b", "status": "accepted"}]}).encode()
    assert parse_acks(payload) == ([Ack("b", AckStatus.ACCEPTED)], 1)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"null", b"[]", b"7", b'{"acks":7}', b'{"acks":null}', b'{"ack":[]}', b"[" * 100_000, b"{" * 99],
)
def test_a_message_that_cannot_be_read_is_counted(payload: bytes) -> None:
    assert parse_acks(payload) == ([], 1)


def test_an_empty_list_of_acknowledgements_is_nothing() -> None:
    assert parse_acks(b'{"acks":[]}') == ([], 0)


async def test_acknowledgements_that_cannot_be_read_do_no_harm(tmp_path: Path, ear: Any, wait_until: Wait) -> None:
    async with district(tmp_path) as platform:
        up, deliverer = uplink(platform.port), Told()
        await up.open(deliverer.events, epoch=1, birth=BIRTH)
        other = ear.session(platform.port, client_id="someone-else")
        await other.open()
        for payload in (b"", b"{}", b'{"acks":[{"id":"x"},{"id":"y","status":"accepted"}]}'):
            other.publish("eldercare/v1/org/site/gw/down/ack", payload)
        await wait_until(lambda: up.malformed_acks == 3)
        await wait_until(lambda: deliverer.acks == [Ack("y", AckStatus.ACCEPTED)])
        up.send(Lane.A, [alarm(1)])
        await wait_until(lambda: len(deliverer.acks) == 2)
        await other.close()
        await up.close()


async def test_a_password_is_read_anew_for_each_session(told: Any, packets: Any, wait_until: Wait) -> None:
    words = ["old", "new"]
    end = Endpoint("127.0.0.1", told.port, "gw", username="gw-01")
    up = MqttUplink(end, ORIGIN, destination="district", password=lambda: words.pop(0))
    told.connack = packets.connack(0x86)
    with pytest.raises(SessionError) as refused:
        await up.open(Told().events, epoch=1, birth=BIRTH)
    assert refused.value.code == "GW-NET-04"
    told.connack = packets.connack(0)
    await up.open(Told().events, epoch=2, birth=BIRTH)
    assert [body[-5:] for kind, body in told.packets if kind >> 4 == 1] == [b"\x00\x03old", b"\x00\x03new"]
    await up.close()


async def test_a_password_that_cannot_be_had_is_a_login_that_fails(told: Any) -> None:
    def refuse() -> str:
        raise SecretError("GW-CFG-21", "file:/pw", path="/pw", reason="@hint.missing")

    end = Endpoint("127.0.0.1", told.port, "gw", username="gw-01")
    up = MqttUplink(end, ORIGIN, destination="district", password=refuse)
    with pytest.raises(SessionError) as refused:
        await up.open(Told().events, epoch=1, birth=BIRTH)
    assert (refused.value.code, refused.value.facts["error"]) == ("GW-NET-04", "GW-CFG-21 /pw")
    assert told.packets == []


async def test_a_password_file_that_can_no_longer_be_read_takes_no_login_away_that_worked(
    told: Any, packets: Any, tmp_path: Path
) -> None:
    file = tmp_path / "pw"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    path = DestinationPath(
        url=f"mqtt://127.0.0.1:{told.port}", username="gw-01", password=Secret(f"file:{file}"),
    )  # fmt: skip
    destination = Destination(id="district", path=(path,))
    up = transports._mqtt(path, ORIGIN, destination, number=1, clock=CLOCK)
    with capture_logs() as logs:
        await up.open(Told().events, epoch=1, birth=BIRTH)
        await up.close()
        file.write_text("")
        for epoch in (2, 3):
            await up.open(Told().events, epoch=epoch, birth=BIRTH)
            await up.close()
    assert [body[-8:] for kind, body in told.packets if kind >> 4 == 1] == [b"\x00\x06s3cret"] * 3
    assert [(one["log_level"], one["error"]) for one in logs] == [("error", f"GW-CFG-21 {file}")]
    told.connack = packets.connack(0x86)
    with pytest.raises(SessionError) as refused:
        await up.open(Told().events, epoch=4, birth=BIRTH)
    assert (refused.value.code, refused.value.facts["error"]) == (
        "GW-NET-04", f"CONNACK reason 0x86; logged in with what was read earlier: GW-CFG-21 {file}",
    )  # fmt: skip
    file.write_text("renewed")
    with pytest.raises(SessionError) as refused:
        await up.open(Told().events, epoch=5, birth=BIRTH)
    assert refused.value.facts["error"] == "CONNACK reason 0x86"


async def test_no_login_goes_out_with_an_empty_password_where_none_was_ever_read(told: Any, tmp_path: Path) -> None:
    path = DestinationPath(
        url=f"mqtt://127.0.0.1:{told.port}", username="gw-01", password=Secret(f"file:{tmp_path}/none"),
    )  # fmt: skip
    up = transports._mqtt(path, ORIGIN, Destination(id="district", path=(path,)), number=1, clock=CLOCK)
    with pytest.raises(SessionError) as refused:
        await up.open(Told().events, epoch=1, birth=BIRTH)
    assert (refused.value.code, refused.value.facts["error"]) == ("GW-NET-04", f"GW-CFG-21 {tmp_path}/none")
    assert told.packets == []
