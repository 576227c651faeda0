"""MQTT 5 first, 3.1.1 where the broker knows nothing newer: told byte by byte, for no broker at hand refuses a version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.events import Lane, Origin
from gateway.mqtt_session import Endpoint
from gateway.uplinks import UplinkEvents
from gateway.uplinks import mqtt as mqtt_module
from gateway.uplinks.mqtt import MqttUplink, client_id

ORIGIN = Origin("org", "site", "gw")
Wait = Callable[..., Any]


class Heard:
    """What an uplink told."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bool]] = []
        self.losses: list[SessionError] = []
        self.events = UplinkEvents(
            acks=lambda _acks: None, sent=lambda token, ok: self.sent.append((token, ok)), lost=self.losses.append
        )


def uplink(port: int, version: Any = "auto", **more: Any) -> MqttUplink:
    return MqttUplink(Endpoint("127.0.0.1", port, "gw", version=version, **more), ORIGIN, destination="district")


async def opened(up: MqttUplink) -> Heard:
    heard = Heard()
    await up.open(heard.events, epoch=1, birth={})
    return heard


async def refused(up: MqttUplink) -> SessionError:
    with pytest.raises(SessionError) as caught:
        await up.open(Heard().events, epoch=1, birth={})
    return caught.value


def hang_up_on_5(told: Any) -> None:
    told.connack = b""
    told.then = lambda kind, writer: writer.close() if kind >> 4 == 1 and told.level == 5 else None


async def test_5_where_the_broker_speaks_it(told: Any) -> None:
    up = uplink(told.port)
    await opened(up)
    assert told.levels == [5]
    await up.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"\x20\x03\x00\x84\x00",  # MQTT 5.0 section 3.2.2.2: unsupported protocol version
        b"\x20\x02\x00\x01",  # MQTT 3.1.1 section 3.2.2.3, as a broker says it that knows nothing newer
        b"\x20\x02\x00\x00",  # accepted, in the words of 3.1.1: what follows would be nonsense to both
        b"\xff\xff\xff\xff\xff\xff",
        b"hangs up",
    ],
)
async def test_3_1_1_at_once_where_the_broker_does_not(told: Any, wait_until: Wait, answer: bytes) -> None:
    if answer == b"hangs up":
        hang_up_on_5(told)
    else:
        told.connack = answer
    up = uplink(told.port)
    heard = await opened(up)
    assert told.levels == [5, 4]
    await wait_until(lambda: len(heard.sent) == 2)
    token = up.send(Lane.A, ["{}"])
    await wait_until(lambda: heard.sent[-1] == (token, True))
    assert (up.window, up.max_bytes < 256 * 1024) == (40, True)
    connect = [body for kind, body in told.packets if kind >> 4 == 1][1]
    assert connect[:7] == b"\x00\x04MQTT\x04"
    assert connect[7] == 0b0010_1110  # will retained with QoS 1, will, clean session (3.1.1 section 3.1.2.3)
    await up.close()
    await wait_until(lambda: told.kinds()[-1] == 14)


async def test_what_worked_is_remembered_for_an_hour_and_then_5_is_tried_again(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang_up_on_5(told)
    up = uplink(told.port)
    for _ in range(3):
        await opened(up)
        await up.close()
    assert told.levels == [5, 4, 4, 4]
    up._speaks_old_until = asyncio.get_running_loop().time() - 1
    await opened(up)
    await up.close()
    assert told.levels[4:] == [5, 4]
    monkeypatch.setattr(mqtt_module, "REMEMBER_S", 0.0)
    up._speaks_old_until = 0.0
    for _ in range(2):
        await opened(up)
        await up.close()
    assert told.levels[6:] == [5, 4, 5, 4]


async def test_a_broker_that_has_learned_5_and_forgotten_3_1_1_is_found(told: Any) -> None:
    hang_up_on_5(told)
    up = uplink(told.port)
    await opened(up)
    await up.close()
    told.connack, told.connack_3_1_1 = b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x01"
    told.then = lambda _kind, _writer: None
    for _ in range(2):
        await opened(up)
        await up.close()
    assert told.levels == [5, 4, 4, 5, 5]


@pytest.mark.parametrize("reason", [0x85, 0x86, 0x87, 0x8C, 0x88, 0x97])
async def test_a_refusal_in_5_is_never_tried_again_in_3_1_1(told: Any, packets: Any, reason: int) -> None:
    told.connack = packets.connack(reason)
    assert (await refused(uplink(told.port))).code in {"GW-NET-04", "GW-NET-05"}
    assert told.levels == [5]


async def test_silence_is_not_tried_again_either(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.mqtt_session.session.CONNECT_LIMIT_S", 0.2)
    told.connack = b""
    assert (await refused(uplink(told.port))).code == "GW-NET-02"
    assert told.levels == [5]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, "GW-NET-05"),  # unacceptable protocol version
        (2, "GW-NET-04"),  # identifier rejected
        (3, "GW-NET-05"),  # server unavailable
        (4, "GW-NET-04"),  # bad user name or password
        (5, "GW-NET-04"),  # not authorized
    ],
)
@pytest.mark.parametrize("version", ["auto", "3.1.1"])
async def test_the_return_codes_of_3_1_1_are_told_by_their_layer(
    told: Any, version: str, code: int, expected: str
) -> None:
    told.connack, told.connack_3_1_1 = b"\x20\x02\x00\x01", bytes((0x20, 2, 0, code))
    error = await refused(uplink(told.port, version))
    assert error.code == expected
    assert told.levels == ([4] if version == "3.1.1" else [5, 4])


async def test_a_login_that_is_refused_in_3_1_1_is_what_is_told(told: Any) -> None:
    hang_up_on_5(told)
    told.connack_3_1_1 = b"\x20\x02\x00\x04"
    error = await refused(uplink(told.port, username="gw-01", password="wrong"))
    assert (error.code, error.facts["error"]) == ("GW-NET-04", "CONNACK reason 0x86")
    up = uplink(told.port)
    await refused(up)
    assert up._speaks_old_until == 0.0  # it has not worked: nothing to remember


async def test_a_server_that_speaks_neither_is_told_as_it_answered_first(told: Any) -> None:
    told.connack = b"\x20\x03\x00\x84\x00"
    told.connack_3_1_1 = b"\x20\x02\x00\x01"
    error = await refused(uplink(told.port))
    assert (error.code, error.facts["error"]) == ("GW-NET-05", "the broker refuses MQTT 5")
    assert told.levels == [5, 4]


@pytest.mark.parametrize(("version", "level"), [("5", 5), ("3.1.1", 4)])
async def test_a_version_that_is_configured_is_the_only_one(told: Any, version: str, level: int) -> None:
    told.connack, told.connack_3_1_1 = b"\x20\x03\x00\x84\x00", b"\x20\x02\x00\x01"
    assert (await refused(uplink(told.port, version))).code == "GW-NET-05"
    assert told.levels == [level]


@pytest.mark.parametrize(("level", "reason", "code"), [(5, 0x80, "GW-NET-05"), (4, 0x80, "GW-NET-04")])
async def test_a_refused_subscription_has_one_word_in_3_1_1(told: Any, level: int, reason: int, code: str) -> None:
    told.subscribe_reason = reason
    assert (await refused(uplink(told.port, "5" if level == 5 else "3.1.1"))).code == code


async def test_no_socket_is_left_behind(told: Any, wait_until: Wait, count_sockets: Callable[[], int]) -> None:
    hang_up_on_5(told)
    told.connack_3_1_1 = b"\x20\x02\x00\x04"
    before = count_sockets()
    for _ in range(5):
        await refused(uplink(told.port))
    await wait_until(lambda: count_sockets() <= before)


def test_each_path_has_a_client_id_of_its_own() -> None:
    assert [client_id(ORIGIN, path) for path in (1, 2, 3)] == ["org-site-gw", "org-site-gw-2", "org-site-gw-3"]
    assert client_id(ORIGIN) == "org-site-gw"
