"""The messages of a broker: what is acknowledged and when, what comes again, what was retained, and a disk that is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from drivers.kit import Decoded, Signal, SignalKind, Streams, catalogue
from gateway.clock import Stamp
from gateway.collect import Desk, MessageReader
from gateway.collect.publishing import HIGH_WATER, MOST_OWED, MOST_WAITING
from gateway.mqtt_session import Delivery
from gateway.outbox.store import Store

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
SOS = "zigbee2mqtt/sos-201"


def desk(
    name: str, address: str, *, model: str = "zigbee2mqtt", raw: dict[str, object] | None = None, **more: Any
) -> Desk:  # fmt: skip
    driver = catalogue.driver(model)
    assert isinstance(driver, Streams)
    return Desk(name, model, "broker", address, "201", "", driver, driver.options(raw or {}), wired=True, **more)


@dataclass
class Broker:
    """A broker as the reader sees it: messages with numbers, and which of them were acknowledged."""

    centre: Any
    acknowledged: list[int] = field(default_factory=list)
    dropped: list[Stamp] = field(default_factory=list)
    number: int = 0

    def connect(self) -> None:
        self.reader = MessageReader(
            "broker", list(self.centre.desks.values()), collector=self.centre.collector, judge=self.centre.judge,
            clock=self.centre.clock, health=self.centre.health, outbox=self.centre.outbox, on_dropped=self.dropped.append,
        )  # fmt: skip
        self.centre.outbox.on_stored = self.reader.retry

    def say(self, payload: str, topic: str = SOS, **how: Any) -> int:
        """Deliver a message; return its number."""
        if "number" not in how:
            self.number += 1
        number = how.pop("number", self.number)
        qos = how.pop("qos", 1)
        delivery = Delivery(
            topic, payload.encode(), number, qos, again=how.pop("again", False), retained=how.pop("retained", False)
        )
        self.reader.on_message(delivery, self.centre.clock.stamp(), lambda: self.acknowledged.append(number))
        return number


@pytest.fixture
async def broker(opened: Opener) -> Broker:
    """A broker with an SOS button and a water sensor behind it."""
    here = Broker(await opened([desk("sos", SOS), desk("toilet", "zigbee2mqtt/toilet")]))
    here.connect()
    return here


async def test_a_press_is_acknowledged_once_it_is_durable(broker: Broker) -> None:
    number = broker.say('{"action":"emergency","battery":90}')
    assert broker.acknowledged == []
    assert [change.alarm.device for change in broker.centre.announced] == ["sos"]
    assert await broker.centre.told("kind", "code", "verified") == [
        ("alarm.raised", "call", "emergency", True), ("telemetry.environment", None, None, True),
    ]  # fmt: skip
    assert broker.acknowledged == [number]


async def test_what_comes_again_and_was_stored_is_a_repeat_and_acknowledged_once_that_is_durable(
    broker: Broker,
) -> None:
    number = broker.say('{"action":"emergency"}')
    broker.say('{"action":"emergency"}', number=number, again=True)
    assert broker.acknowledged == []
    assert len(await broker.centre.told()) == 1
    assert broker.acknowledged == [number, number]


async def test_what_was_stored_is_still_known_after_a_restart(broker: Broker) -> None:
    number = broker.say('{"action":"emergency"}')
    await broker.centre.restart()
    broker.connect()
    broker.say('{"action":"emergency"}', number=number, again=True)
    assert len(await broker.centre.told()) == 1
    assert broker.centre.desks["sos"].repeats == 1


@pytest.mark.parametrize(
    "other",
    [{"number": 9, "again": True}, {"again": False, "number": 1}, {"number": 1, "again": True, "payload": "single"}],
)
async def test_another_press_is_one_whatever_of_it_is_the_same(broker: Broker, other: dict[str, Any]) -> None:
    """Another number; the same number on its next use; the same number with something else to say."""
    broker.say('{"action":"emergency"}', number=1)
    action = other.pop("payload", "emergency")
    broker.say(f'{{"action":"{action}"}}', **other)
    assert [noun for (noun,) in await broker.centre.told()] == ["alarm.raised", "alarm.raised"]


async def test_a_press_that_was_retained_raises_nothing_and_is_told_to_technicians(broker: Broker) -> None:
    number = broker.say('{"action":"emergency","battery_low":true}', retained=True)
    assert await broker.centre.told("kind") == [("device.battery", "low_battery")]
    assert (broker.centre.announced, broker.centre.problems) == ([], [("GW-MQS-06", "sos")])
    assert broker.acknowledged == [number]


async def test_a_state_that_was_retained_counts(broker: Broker) -> None:
    broker.say('{"water_leak":true}', "zigbee2mqtt/toilet", retained=True)
    assert await broker.centre.told("kind") == [("alarm.raised", "water_leak")]


async def test_a_state_that_is_told_again_and_again_is_one_alarm_and_a_new_one_after_its_end(broker: Broker) -> None:
    for _ in range(3):
        broker.say('{"water_leak":true}', "zigbee2mqtt/toilet")
        broker.centre.clock.go_on(3_000)
    assert [one["type"] for one in await broker.centre.events()] == ["cn.eldercare.alarm.raised.v1"]
    broker.say('{"water_leak":false}', "zigbee2mqtt/toilet")
    broker.centre.clock.go_on(60)
    broker.say('{"water_leak":true}', "zigbee2mqtt/toilet")
    raised = [noun for (noun,) in await broker.centre.told() if noun == "alarm.raised"]
    assert len(raised) == 2


async def test_a_device_that_is_said_to_be_offline_is_a_problem_until_it_speaks(broker: Broker) -> None:
    broker.say('{"state":"offline"}', SOS + "/availability", retained=True)
    assert broker.centre.problems == [("GW-MQS-05", "sos")]
    assert broker.centre.desks["sos"].heard == 0
    broker.say('{"linkquality":3}', retained=True)  # how things stood before
    assert broker.centre.problems == [("GW-MQS-05", "sos")]
    broker.say('{"linkquality":3}')
    assert broker.centre.problems == []
    broker.say("offline", SOS + "/availability")
    broker.say("online", SOS + "/availability")
    assert broker.centre.problems == []


async def test_what_cannot_be_read_or_is_nobody_s_is_acknowledged_and_counted(broker: Broker) -> None:
    broker.say("{", SOS)
    broker.say('{"state":"online"}', "zigbee2mqtt/bridge/state")
    broker.say("x" * 100, SOS)
    assert broker.acknowledged == [1, 2, 3]
    assert broker.centre.desks["sos"].rejects == {"malformed": 2}


async def test_two_devices_of_one_topic_are_both_stored_before_it_is_acknowledged(opened: Opener) -> None:
    rules: dict[str, object] = {"signal": [{"field": "a", "is": "call", "topic": "hub"}]}
    other: dict[str, object] = {"signal": [{"field": "b", "is": "call", "topic": "hub"}]}
    centre = await opened([
        desk("one", "x/1", model="mqtt-topic", raw=rules), desk("two", "x/2", model="mqtt-topic", raw=other)
    ])  # fmt: skip
    broker = Broker(centre)
    broker.connect()
    assert sorted(broker.reader.topics) == ["hub", "x/1", "x/2"]
    broker.say('{"a":true,"b":true}', "hub")
    assert sorted(str(one["subject"]) for one in await centre.events()) == ["device/one", "device/two"]
    assert broker.acknowledged == [1]


async def test_behind_a_slow_disk_readings_wait_unacknowledged_and_presses_do_not(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [HIGH_WATER]
    monkeypatch.setattr(type(broker.centre.outbox), "waiting", property(lambda _self: waiting[0]))
    broker.say('{"temperature":21.5}')
    broker.say('{"action":"emergency"}')
    assert len(broker.centre.announced) == 1
    broker.reader.retry()
    assert [noun for (noun,) in await broker.centre.told()] == ["alarm.raised"]
    assert broker.acknowledged == [2]
    waiting[0] = 0
    broker.reader.retry()
    assert [noun for (noun,) in await broker.centre.told()] == ["alarm.raised", "telemetry.environment"]
    assert broker.acknowledged == [2, 1]


async def test_what_nobody_will_send_again_is_bounded_and_its_loss_told(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(broker.centre.outbox), "waiting", property(lambda _self: HIGH_WATER))
    for _ in range(MOST_WAITING + 2):
        broker.say('{"temperature":21.5}', qos=0)
    assert (len(broker.dropped), broker.centre.desks["sos"].rejects) == (2, {"queue-full": 2})


@pytest.fixture
def water(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many writes wait for the disk, as the reader sees it."""
    waiting = [HIGH_WATER]
    monkeypatch.setattr(type(broker.centre.outbox), "waiting", property(lambda _self: waiting[0]))
    return waiting


async def test_what_only_the_configuration_makes_an_alarm_does_not_wait_for_a_slow_disk_either(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Broker(await opened([desk("door", "zigbee2mqtt/door", alarms_on=("opening",))]))
    here.connect()
    monkeypatch.setattr(type(here.centre.outbox), "waiting", property(lambda _self: HIGH_WATER))
    here.say('{"contact":false}', "zigbee2mqtt/door")
    assert [change.alarm.kind for change in here.centre.announced] == ["opening"]


async def test_what_a_device_says_is_judged_in_its_order_although_some_of_it_waited(
    broker: Broker, water: list[int]
) -> None:
    broker.say('{"contact":false}')
    water[0] = 0
    broker.say('{"contact":true}')
    broker.reader.retry()
    assert await broker.centre.told("kind", "state") == [
        ("sensor.changed", "opening", "on"), ("sensor.changed", "opening", "off"),
    ]  # fmt: skip


async def test_the_end_of_one_fire_that_waited_is_not_taken_for_the_end_of_the_next(
    broker: Broker, water: list[int]
) -> None:
    broker.say('{"smoke":true}')
    broker.centre.clock.go_on(60)
    broker.say('{"smoke":false}')
    broker.centre.clock.go_on(60)
    broker.say('{"smoke":true}')
    water[0] = 0
    broker.reader.retry()
    broker.centre.clock.go_on(60)
    broker.say('{"smoke":true}')
    assert sorted(await broker.centre.told("state")) == [
        ("alarm.raised", "ACTIVE"), ("alarm.raised", "ACTIVE"), ("sensor.changed", "off"),
    ]  # fmt: skip


async def test_what_waits_and_is_sent_again_waits_once_and_the_later_one_is_acknowledged(
    broker: Broker, water: list[int]
) -> None:
    for connection in range(MOST_OWED + 2):
        broker.say('{"temperature":21.5}', number=7, again=connection > 0)
    assert broker.dropped == []
    water[0] = 0
    broker.reader.retry()
    assert len(await broker.centre.told()) == 1
    assert broker.acknowledged == [7]


async def test_what_waits_unacknowledged_is_bounded_and_its_loss_told(broker: Broker, water: list[int]) -> None:
    assert water == [HIGH_WATER]
    for _ in range(MOST_OWED + 2):
        broker.say('{"temperature":21.5}')
    assert (len(broker.dropped), broker.acknowledged) == (2, [MOST_OWED + 1, MOST_OWED + 2])


async def test_a_disk_that_does_not_answer_keeps_no_broker_from_sending_the_next_call(broker: Broker) -> None:
    """The broker holds back what comes while so much is unacknowledged."""
    reading, call = broker.say('{"temperature":21.5}'), broker.say('{"action":"emergency"}')
    broker.centre.clock.go_on(1.9)
    broker.reader.retry()
    assert broker.acknowledged == []
    broker.centre.clock.go_on(0.1)
    broker.reader.retry()
    assert broker.acknowledged == [reading]
    broker.centre.clock.go_on(8)
    broker.reader.retry()
    assert broker.acknowledged == [reading, call]
    assert len(await broker.centre.told()) == 2
    assert broker.acknowledged == [reading, call]


async def test_a_bug_in_one_message_that_waited_costs_that_one_only(
    broker: Broker, water: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.say('{"temperature":21.5}')
    broker.say('{"temperature":22.5}', "zigbee2mqtt/toilet")
    take = broker.centre.collector.take

    def fails_once(*args: Any, **more: Any) -> bool:
        monkeypatch.setattr(broker.centre.collector, "take", take)
        raise ArithmeticError

    monkeypatch.setattr(broker.centre.collector, "take", fails_once)
    water[0] = 0
    broker.reader.retry()
    assert len(await broker.centre.told()) == 1
    assert broker.acknowledged == [1, 2]
    assert broker.centre.desks["sos"].rejects == {"fault": 1}


async def test_all_that_a_broker_may_send_again_is_known(broker: Broker) -> None:
    for number in range(1, 65):
        broker.say('{"action":"emergency"}', number=number)
    for number in range(1, 65):
        broker.say('{"action":"emergency"}', number=number, again=True)
    assert len(await broker.centre.told()) == 64


async def test_a_whole_number_that_python_does_not_read_is_refused_like_any_other_nonsense(broker: Broker) -> None:
    broker.say('{"action":' + "1" * 5_000 + "}")
    assert broker.centre.desks["sos"].rejects == {"malformed": 1}


async def test_a_call_whose_end_was_lost_with_the_broker_does_not_hide_the_next(opened: Opener) -> None:
    rules: dict[str, object] = {"signal": [{"equals": "ON", "ends": "OFF", "is": "call", "code": "pull"}]}
    here = Broker(await opened([desk("pull", "pull-202/state", model="mqtt-topic", raw=rules)]))
    here.connect()
    here.say("ON", "pull-202/state")
    (first,) = here.centre.announced
    here.centre.collector.close(first.alarm.id, "Li Na", "helped")
    here.reader.lost()
    here.centre.clock.go_on(60)
    for _ in range(2):
        here.say("ON", "pull-202/state", retained=True)
    assert [change.alarm.state for change in here.centre.announced] == ["ACTIVE", "CLOSED", "ACTIVE"]


def stages(broker: Broker) -> list[tuple[str, int]]:
    return [(change.alarm.state.value, change.alarm.presses) for change in broker.centre.announced]


def close_the_call(broker: Broker) -> None:
    broker.centre.collector.close(broker.centre.alarms.open_of("sos").id, "Li Na", "helped")


PRESSED = '{"sos":true,"battery":90,"linkquality":102}'


async def test_a_press_is_heard_after_its_alarm_was_closed_though_the_button_never_lets_go(broker: Broker) -> None:
    """Some pendants set `sos` and never clear it: each message that says so may be another press."""
    for _ in range(3):
        broker.say(PRESSED)
        broker.say(PRESSED)  # the state once more, while nobody has come: nothing new
        close_the_call(broker)
        broker.centre.clock.go_on(2)
    assert stages(broker) == 3 * [("ACTIVE", 1), ("CLOSED", 1)]
    broker.say(PRESSED)
    assert stages(broker)[-1] == ("ACTIVE", 1)


async def test_a_press_reopens_an_alarm_that_was_acknowledged_though_the_button_never_lets_go(broker: Broker) -> None:
    broker.say(PRESSED)
    broker.centre.collector.acknowledge(broker.centre.alarms.open_of("sos").id, "Li Na")
    broker.centre.clock.go_on(30)
    broker.say(PRESSED)
    assert stages(broker) == [("ACTIVE", 1), ("ACKED", 1), ("ACTIVE", 2)]


async def test_what_the_broker_sends_again_or_has_kept_is_no_press_of_a_button_that_never_lets_go(
    broker: Broker,
) -> None:
    number = broker.say(PRESSED)
    close_the_call(broker)
    broker.say(PRESSED, number=number, again=True)
    broker.say(PRESSED, retained=True)
    broker.say('{"sos":false}')
    assert stages(broker) == [("ACTIVE", 1), ("CLOSED", 1)]


async def test_a_button_that_lets_go_is_heard_at_each_press_as_before(broker: Broker) -> None:
    for _ in range(2):
        broker.say(PRESSED)
        broker.centre.clock.go_on(1)
        broker.say('{"sos":false,"battery":90}')
        close_the_call(broker)
        broker.centre.clock.go_on(11)
    assert stages(broker) == 2 * [("ACTIVE", 1), ("CLOSED", 1)]


async def test_a_fall_that_is_still_shown_after_its_alarm_was_closed_is_the_same(broker: Broker) -> None:
    broker.say('{"fall_down_status":"fall"}')
    close_the_call(broker)
    broker.say('{"fall_down_status":"fall","illuminance":12}')
    assert stages(broker) == [("ACTIVE", 1), ("CLOSED", 1)]


@pytest.fixture
def odd(opened: Opener) -> Callable[[], Awaitable[Broker]]:
    """Open a broker whose device has a driver that cannot stand "crash"."""

    def decode(frame: bytes, _options: object) -> Decoded:
        if b"crash" in frame:
            raise IndexError("a bug in a driver")
        return Decoded((Signal(SignalKind.CALL, "press"),))

    async def open_one() -> Broker:
        driver = replace(catalogue.driver("zigbee2mqtt"), decode=decode)
        broker = Broker(await opened([replace(desk("sos", SOS), driver=driver)]))
        broker.connect()
        return broker

    return open_one


async def test_a_message_that_its_driver_cannot_stand_may_be_a_call(odd: Callable[[], Awaitable[Broker]]) -> None:
    broker = await odd()
    numbers = [broker.say("crash"), broker.say("crash again")]
    assert broker.acknowledged == [2]  # the first one once its alarm is stored
    assert await broker.centre.told("code", "verified", "doubts", "room") == [
        ("alarm.raised", "undecipherable", False, ["fault"], "201"),
    ]  # fmt: skip
    assert sorted(broker.acknowledged) == numbers
    assert broker.centre.problems == [("GW-RUN-03", "sos")]
    assert broker.centre.desks["sos"].rejects == {"fault": 2}
    close_the_call(broker)
    broker.say("crash")
    assert stages(broker) == [("ACTIVE", 1), ("CLOSED", 1), ("ACTIVE", 1)]


async def test_one_that_was_retained_is_heard_once_and_not_with_each_connection(
    odd: Callable[[], Awaitable[Broker]],
) -> None:
    broker = await odd()
    for _ in range(2):
        broker.say("crash", retained=True)
        await broker.centre.events()
        if broker.centre.alarms.open_count:
            close_the_call(broker)
    assert stages(broker) == [("ACTIVE", 1), ("CLOSED", 1)]
    assert broker.acknowledged == [1, 2]


async def test_those_that_two_topics_of_a_device_hold_are_heard_once_each(
    odd: Callable[[], Awaitable[Broker]],
) -> None:
    broker = await odd()
    for _ in range(2):
        for topic in (SOS, f"{SOS}/availability"):
            broker.say(f"crash of {topic}", topic, retained=True)
            await broker.centre.events()
            if broker.centre.alarms.open_count:
                close_the_call(broker)
    assert stages(broker) == [("ACTIVE", 1), ("CLOSED", 1)] * 2


async def test_a_message_that_no_device_would_send_costs_itself_only_and_is_told_as_a_gap(broker: Broker) -> None:
    broker.say("x" * 65_536)
    broker.say('{"action":"emergency"}')
    assert stages(broker) == [("ACTIVE", 1)]
    assert broker.centre.problems == [("GW-MQS-07", "sos")]
    assert (len(broker.dropped), broker.centre.desks["sos"].rejects) == (1, {"too-long": 1})
    broker.say("x" * 65_536, retained=True)
    assert len(broker.dropped) == 1


async def test_what_is_said_to_be_online_since_some_time_was_not_heard_now(broker: Broker) -> None:
    broker.say('{"state":"offline"}', SOS + "/availability", retained=True)
    broker.say('{"state":"online"}', SOS + "/availability", retained=True)
    assert (broker.centre.desks["sos"].heard, broker.centre.desks["sos"].last_heard) == (0, None)
    assert broker.centre.problems == []
    broker.say('{"state":"online"}', SOS + "/availability")
    assert broker.centre.desks["sos"].heard == 1


async def test_a_value_that_cannot_be_costs_no_signal_beside_it(opened: Opener) -> None:
    rules: dict[str, object] = {
        "signal": [{"field": "door", "is": "opening", "equals": "open", "ends": "shut"}],
        "reading": [{"field": "t", "quantity": "temperature"}],
    }
    here = Broker(await opened([desk("door", "x/door", model="mqtt-topic", raw=rules, alarms_on=("opening",))]))
    here.connect()
    here.say('{"door":"open","t":"nan"}', "x/door")
    assert [change.alarm.kind for change in here.centre.announced] == ["opening"]


async def test_that_a_broker_counts_anew_outlives_the_process(broker: Broker) -> None:
    """It ends before the first message of the new count is stored; the broker sends that again."""
    broker.say('{"action":"emergency"}', number=1)
    broker.reader.begin_anew()
    await broker.centre.restart()
    broker.connect()
    broker.say('{"action":"emergency"}', number=1, again=True)
    assert len(await broker.centre.told()) == 2


async def test_what_was_forgotten_does_not_come_back_out_of_an_older_database(broker: Broker) -> None:
    broker.say('{"action":"emergency"}', number=1)
    assert await broker.centre.outbox.flush(5)
    stored = await broker.centre.outbox.marks()
    broker.reader.begin_anew()
    broker.centre.judge.recall(stored)
    broker.say('{"action":"emergency"}', number=1, again=True)
    assert len(await broker.centre.told()) == 2


async def test_a_broker_that_counts_anew_hides_no_press_behind_a_number_of_before(broker: Broker) -> None:
    broker.say('{"action":"emergency"}', number=1)
    broker.reader.begin_anew()
    broker.say('{"action":"emergency"}', number=1, again=True)
    assert len(await broker.centre.told()) == 2


# What says nothing new.


async def test_what_says_nothing_new_is_acknowledged_at_once_and_costs_the_card_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver may publish thousands of such messages a minute."""
    first = broker.say('{"water_leak":false}', topic="zigbee2mqtt/toilet")
    await broker.centre.told()
    commits: list[int] = []
    commit = Store.commit

    def counted(self: Store, *args: Any, **kwargs: Any) -> Any:
        commits.append(1)
        return commit(self, *args, **kwargs)

    monkeypatch.setattr(Store, "commit", counted)
    numbers = [broker.say(f'{{"water_leak":false,"linkquality":{n}}}', topic="zigbee2mqtt/toilet") for n in range(50)]
    assert broker.acknowledged == [first, *numbers]
    await asyncio.sleep(0)
    assert (commits, broker.centre.outbox.waiting) == ([], 0)
    press = broker.say('{"action":"emergency"}')
    assert broker.acknowledged == [first, *numbers]
    await broker.centre.told()
    assert broker.acknowledged == [first, *numbers, press]


async def test_what_says_nothing_new_waits_for_what_it_may_repeat_and_for_no_other_device(broker: Broker) -> None:
    """What it repeats came with QoS 0, perhaps: acknowledged before that is stored, it would be lost with it."""
    quiet = '{"water_leak":false}'
    broker.say(quiet, topic="zigbee2mqtt/toilet")
    await broker.centre.told()
    before = list(broker.acknowledged)
    unasked = broker.say('{"action":"emergency"}', qos=0)
    repeated = broker.say('{"linkquality":80}')
    other = broker.say(quiet, topic="zigbee2mqtt/toilet")
    assert broker.acknowledged == [*before, other]
    await broker.centre.told()
    assert broker.acknowledged == [*before, other, unasked, repeated]


async def test_a_press_that_changed_nothing_is_known_after_a_restart_when_it_comes_again(broker: Broker) -> None:
    """Its alarm was closed meanwhile, and nobody has pressed again."""
    broker.say(PRESSED)
    again = broker.say('{"sos":true}')
    close_the_call(broker)
    await broker.centre.restart()
    broker.connect()
    broker.say('{"sos":true}', number=again, again=True)
    assert [one[0] for one in await broker.centre.told("kind")].count("alarm.raised") == 1
