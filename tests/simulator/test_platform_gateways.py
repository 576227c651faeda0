"""What the platform knows of a gateway: online by epoch, gaps by number."""

from __future__ import annotations

from simulator.platform.contract import Address
from simulator.platform.gateways import Numbers, Roster
from simulator.platform.ledger import Decision, Status

GW = Address("demo", "hanfeng", "gw-01", "state")


def decision(seq: int, delivery: int, *, status: Status = Status.ACCEPTED, device: str = "m1") -> Decision:
    return Decision(
        t=0.0,
        id="0190a5c0-0000-7000-8000-000000000001",
        type="cn.eldercare.telemetry.meter.v1",
        device=device,
        sequence=f"{seq:020d}",
        deliveryseq=f"{delivery:020d}",
        streamid="s1",
        status=status,
        lane="telemetry",
        event={},
    )


def test_a_will_older_than_the_last_birth_is_ignored() -> None:
    roster = Roster()
    roster.birth(GW, {"epoch": 5})
    roster.state(GW, {"online": False, "epoch": 4})
    assert (roster[GW].online, roster[GW].epoch, roster[GW].stale_states) == (True, 5, 1)
    roster.state(GW, {"online": False, "epoch": 5})
    assert roster[GW].online is False


def test_a_will_older_than_the_last_state_is_ignored() -> None:
    roster = Roster()
    roster.state(GW, {"online": True, "epoch": 2})
    roster.state(GW, {"online": False, "epoch": 1})
    assert roster[GW].online is True


def test_a_state_that_says_nothing_is_counted_and_changes_nothing() -> None:
    roster = Roster()
    roster.state(GW, {"online": True, "epoch": 2})
    messages: list[object] = [None, [], {"online": "yes", "epoch": 3}, {"online": False}, {"online": 0, "epoch": True}]
    for message in messages:
        roster.state(GW, message)
    assert (roster[GW].online, roster[GW].bad_states) == (True, 5)


def test_missing_numbers_are_named() -> None:
    numbers = Numbers()
    for number in (2, 3, 7, 9, 8):
        numbers.add(number)
    assert (numbers.highest, numbers.missing, numbers.holes(10)) == (9, 4, [(1, 1), (4, 6)])
    for number in (5, 4, 6, 1, 1):
        numbers.add(number)
    assert (numbers.highest, numbers.missing, numbers.holes(10)) == (9, 0, [])


def test_only_what_was_decided_for_good_counts_as_delivered() -> None:
    gateway = Roster()[GW]
    for delivery, status in enumerate((Status.ACCEPTED, Status.RETRY, Status.REJECTED, Status.FORGOTTEN), start=1):
        gateway.note(decision(delivery, delivery, status=status), delivery)
    assert (gateway.deliveries["s1"].highest, gateway.deliveries["s1"].holes(10)) == (3, [(2, 2)])


def test_a_lower_sequence_of_the_same_device_and_lane_is_reordered() -> None:
    gateway = Roster()[GW]
    for seq, device in ((1, "m1"), (4, "m2"), (3, "m1"), (2, "m1"), (5, "m1")):
        gateway.note(decision(seq, seq, device=device), seq)
    assert gateway.reordered == 1


def test_the_platform_is_online_only_when_every_gateway_is() -> None:
    roster = Roster()
    assert roster.stats()["online"] is False
    roster.state(GW, {"online": True, "epoch": 1})
    assert roster.stats()["online"] is True
    roster.state(Address("demo", "hanfeng", "gw-02", "state"), {"online": False, "epoch": 1})
    assert roster.stats()["online"] is False


def test_a_gateway_without_a_will_is_offline_when_it_was_silent_for_too_long() -> None:
    now = 1000.0
    roster = Roster(clock=lambda: now)
    roster.heard(GW)
    roster.birth(GW, {"epoch": 1})
    now += 149
    assert roster.stats()["online"] is True
    roster.heard(GW)
    now += 151
    assert (roster.stats()["online"], roster[GW].lapses) == (False, 1)
    roster.heard(GW)
    assert roster.stats()["online"] is False  # an event alone does not say that it is there
    roster.state(GW, {"online": True, "epoch": 1})
    assert (roster.stats()["online"], roster[GW].lapses) == (True, 1)


def test_a_gateway_with_a_will_may_be_silent() -> None:
    now = 1000.0
    roster = Roster(clock=lambda: now)
    roster.birth(GW, {"epoch": 1})
    now += 100_000
    assert roster.stats()["online"] is True
