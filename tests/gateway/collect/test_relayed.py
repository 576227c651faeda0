"""Adverts that a receiver publishes on a broker: heard as a radio's own, acknowledged after the commit, and bounded."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from drivers.protocols.published_adverts import FORMS
from gateway.clock import Stamp
from gateway.collect import Desk, MessageReader, Relay
from gateway.mqtt_session import Delivery

BUTTON = "A4:C1:38:8D:18:B2"
STRANGER = "11:22:33:44:55:66"
PENDANT = "E8:56:71:5A:54:F5"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
TOPIC = "home/OMG/BTtoMQTT/A4C1388D18B2"

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
Radio = Callable[..., Desk]


def sealed(counter: int) -> bytes:
    """One press, encrypted as BTHome says."""
    number = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(BUTTON.replace(":", "")) + b"\xd2\xfc\x41" + number
    text = AESCCM(KEY, tag_length=4).encrypt(nonce, bytes.fromhex("3a01"), None)
    return b"\x41" + text[:-4] + number + text[-4:]


def press(counter: int, rssi: int = -70) -> dict[str, object]:
    return {"id": BUTTON, "rssi": rssi, "servicedatauuid": "0xfcd2", "servicedata": sealed(counter).hex()}


@dataclass
class Receiver:
    """A receiver behind a broker, and what was acknowledged of what it published."""

    centre: Any
    form: str = "theengs"
    acknowledged: list[int] = field(default_factory=list)
    dropped: list[Stamp] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        self.reader = MessageReader(
            "omg", [], collector=self.centre.collector, judge=self.centre.judge, clock=self.centre.clock,
            health=self.centre.health, outbox=self.centre.outbox, on_dropped=self.dropped.append,
            relay=Relay("home/+/BTtoMQTT/+", FORMS[self.form]),
        )  # fmt: skip
        self.centre.outbox.on_stored = self.reader.retry

    def say(
        self, payload: object, *, topic: str = TOPIC, qos: int = 1, again: bool = False, retained: bool = False
    ) -> int:
        self.number += 1
        number = self.number
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.reader.on_message(
            Delivery(topic, data, number, qos, again, retained), self.centre.clock.stamp(),
            lambda: self.acknowledged.append(number),
        )  # fmt: skip
        return number


async def test_a_press_that_only_a_receiver_hears_is_verified_by_its_key(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    assert receiver.reader.topics == ("home/+/BTtoMQTT/+",)
    receiver.say(press(1000))
    assert len(centre.announced) == 1
    assert receiver.acknowledged == []  # nothing is accepted before it is stored
    assert await centre.told("presses", "verified", "counter") == [("alarm.raised", 1, True, 1000)]
    assert receiver.acknowledged == [1]
    assert (centre.desks["call-1"].rssi, centre.desks["call-1"].best_first) == (-70, ["omg"])
    assert centre.problems == []


@pytest.mark.parametrize("first", ["radio", "receiver"])
@pytest.mark.parametrize("lag_s", [0.0, 5.0, 600.0])
async def test_a_press_that_a_radio_and_a_receiver_hear_is_one(
    opened: Opener, radio: Radio, first: str, lag_s: float
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    turns = [lambda: centre.hear(BUTTON, service={0xFCD2: sealed(1000).hex()}), lambda: receiver.say(press(1000))]
    for turn in turns if first == "radio" else reversed(turns):
        turn()
        centre.clock.go_on(lag_s)
    assert await centre.told("presses", "verified") == [("alarm.raised", 1, True)]
    assert receiver.acknowledged == [1]
    assert centre.desks["call-1"].repeats == 1


async def test_what_the_broker_sends_again_after_a_crash_is_a_repeat(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    Receiver(centre).say(press(1000))
    await centre.restart()
    centre.clock.go_on(600)
    receiver = Receiver(centre)
    receiver.say(press(1000), again=True)
    assert await centre.told("presses") == [("alarm.raised", 1)]
    assert receiver.acknowledged == [1]


async def test_a_list_is_acknowledged_once_when_all_of_it_is_stored(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY), radio("fall-1", "ingics-ibs", PENDANT)])
    receiver = Receiver(centre, form="minew")
    raw = "1416d2fc" + sealed(1000).hex()
    raw = f"{len(raw) // 2 - 1:02x}{raw[2:]}"
    receiver.say(
        [
            {"type": "Gateway", "mac": "AC233FC001EA"},
            {"mac": STRANGER.replace(":", ""), "rssi": -60, "rawData": "020106"},
            {"mac": BUTTON.replace(":", ""), "rssi": -60, "rawData": f"020106{raw}"},
            {"mac": PENDANT.replace(":", ""), "rssi": -61, "rawData": "12ff590080bc3a0108ffff0000000006030000"},
        ]
    )
    raised = [one for one in await centre.told("kind", "device") if one[0] == "alarm.raised"]
    assert [one[1] for one in raised] == ["call", "fall"]
    assert receiver.acknowledged == [1]


async def test_strangers_and_what_has_no_address_are_acknowledged_at_once(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    receiver.say({"id": STRANGER, "rssi": -60, "servicedatauuid": "0xfcd2", "servicedata": "4000"})
    receiver.say({"presence": True})
    receiver.say("online", topic="home/OMG/LWT")
    assert receiver.acknowledged == [1, 2, 3]
    assert centre.problems == []
    assert centre.desks["call-1"].heard == 0


async def test_what_needs_no_acknowledgement_asks_nothing_of_the_disk(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    for _ in range(3):
        receiver.say(press(1000), qos=0)
    assert centre.outbox.waiting == 1


async def test_a_retained_press_raises_nothing_and_is_told(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    receiver.say(press(1000), retained=True)
    assert await centre.events() == []
    assert receiver.acknowledged == [1]
    assert centre.problems == [("GW-MQS-06", "call-1")]


async def test_a_receiver_that_tells_only_what_it_made_of_an_advert_is_told(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    for _ in range(100):
        receiver.say({"id": BUTTON, "rssi": -60, "brand": "Shelly", "model_id": "SBBT-002C"})
    assert centre.problems == [("GW-MQS-09", "call-1")]
    assert (centre.desks["call-1"].heard, centre.desks["call-1"].rejects) == (100, {})
    assert len(receiver.acknowledged) == 100


async def test_what_cannot_be_read_is_counted_told_and_hides_nothing(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    receiver.say(b"{")
    receiver.say(b" " * (256 * 1024 + 1))
    receiver.say(press(1000))
    assert await centre.told("presses") == [("alarm.raised", 1)]
    assert receiver.acknowledged == [1, 2, 3]
    assert centre.problems == [("GW-MQS-08", "omg")]
    assert len(receiver.dropped) == 1  # the one that was too long may have been a press: it is a gap


async def test_a_press_that_no_key_opens_raises_and_is_acknowledged_when_it_is_stored(
    opened: Opener, radio: Radio
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=bytes(16))])
    receiver = Receiver(centre)
    receiver.say(press(1000))
    receiver.say(press(1000))
    assert (len(centre.announced), receiver.acknowledged) == (1, [])  # what it repeats is not stored yet
    assert (await centre.told("verified", "code"))[0] == ("alarm.raised", False, "undecipherable")
    assert receiver.acknowledged == [1, 2]


async def test_a_bug_in_one_advert_costs_itself_only(
    opened: Opener, radio: Radio, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY), radio("fall-1", "ingics-ibs", PENDANT)])
    receiver = Receiver(centre, form="minew")
    hear = centre.desks["fall-1"].hear_by

    def broken(self: Desk, *args: Any) -> None:
        if self.id == "fall-1":
            raise RuntimeError("a bug")
        hear.__func__(self, *args)

    monkeypatch.setattr(Desk, "hear_by", broken)
    raw = "1416d2fc" + sealed(1000).hex()
    receiver.say(
        [
            {"mac": PENDANT.replace(":", ""), "rawData": "12ff590080bc3a0108ffff0000000006030000"},
            {"mac": BUTTON.replace(":", ""), "rawData": f"{len(raw) // 2 - 1:02x}{raw[2:]}"},
        ]
    )
    assert await centre.told("kind") == [("alarm.raised", "call")]
    assert receiver.acknowledged == [1]
    assert centre.problems == [("GW-RUN-03", "omg")]


async def test_a_message_that_meets_a_bug_is_a_gap_and_the_next_one_is_heard(
    opened: Opener, radio: Radio, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)

    def broken(_: str) -> bool:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(centre.collector, "wants", broken)
        receiver.say(press(1000))
    receiver.say(press(1001))
    assert await centre.told("presses") == [("alarm.raised", 1)]
    assert (len(receiver.dropped), receiver.acknowledged) == (1, [1, 2])
    assert centre.problems == [("GW-RUN-03", "omg")]


async def test_a_disk_that_does_not_answer_holds_up_the_broker_for_a_while_only(opened: Opener, radio: Radio) -> None:
    centre = await opened([radio("call-1", "bthome-button", BUTTON, key=KEY)])
    receiver = Receiver(centre)
    centre.committing.cancel()
    receiver.say(press(1000))
    receiver.say(press(1000))  # a repeat of what is not stored yet
    for seconds, acknowledged in ((1.9, []), (0.1, [2]), (7.9, [2]), (0.1, [2, 1])):
        centre.clock.go_on(seconds)
        receiver.reader.retry()
        assert receiver.acknowledged == acknowledged
