"""The simulated meter speaks as real ones do: its frames are compared with frames that others published."""

from __future__ import annotations

import pytest

from simulator.meters import Meter, Quirks, Request, RequestReader, Value, frame

# 2026-01-01 02:00:00 in China: the valley tariff, 4.
NIGHT = 1_767_204_000.0


def meter(**changes: object) -> Meter:
    arguments: dict[str, object] = {"device": "m1", "address": "000000193600", "seed": 1, "start": NIGHT} | changes
    return Meter(**arguments)  # type: ignore[arg-type]  # the test's own defaults


def ask(of: Meter, wire: str, *, after_s: float = 0.0) -> bytes | None:
    (request,) = RequestReader().feed(bytes.fromhex(wire))
    answer = of.answer(request, now=NIGHT + after_s)
    return answer.frame if answer else None


def numbers(of: Meter, identifier: int, *, after_s: float = 0.0) -> list[tuple[str, str]]:
    values = of.values(identifier, now=NIGHT + after_s)
    assert values is not None
    return [(value.channel, value.text()) for value in values]


# From shared/vectors/meters.jsonl; each line: source, address on the wire, control, data without the offset, the frame.
PUBLISHED = [
    (
        "C source of a PLC collector, serial log of 2014-11-28: 0001FF00 = 36.30, 2.56, 0.19, 0.38, 33.17 kWh",
        "003619000000",
        0x91,
        "00ff01003036000056020000190000003800000017330000",
        "680036190000006891183332343363693333893533334c3333336b3333334a663333e916",
    ),
    (
        "hwhale.com/article/138066, bench capture: 02020100 = 4.999 A; the check sum is 16",
        "610100000000",
        0x91,
        "00010202994900",
        "6861010000000068910733343535cc7c331616",
    ),
    (
        "sandxin/dlt645 README.md: 0201FF00 = 231.4, 0.0, 0.0 V",
        "606402092204",
        0x91,
        "00ff0102142300000000",
        "6860640209220468910a333234354756333333339716",
    ),
    (
        "Python HPLC minute-collection test: 0201FF00 = 237.1 V, no phase B and C",
        "340100141223",
        0x91,
        "00ff01027123ffffffff",
        "6834010014122368910a33323435a456323232327916",
    ),
    (
        "Java AmmeterUtils of an NB-IoT platform: no such data",
        "111111111111",
        0xD1,
        "02",
        "6811111111111168d101353d16",
    ),
    (
        "bugcodesite/lwt.dl.protocol.dlt645: the answer to 13H",
        "206431320300",
        0x93,
        "206431320300",
        "682064313203006893065397646536336f16",
    ),
    (
        "johngai19/dlt645Driver test/dltparser_test.js: a request for 02010100",
        "431000113400",
        0x11,
        "00010102",
        "68431000113400681104333434354d16",
    ),
    (
        "gams/python-dlt645, fdxxw/go-dlt645, icprog/dlt698.45: read address, wildcard",
        "aaaaaaaaaaaa",
        0x13,
        "",
        "68aaaaaaaaaaaa681300df16",
    ),
]


@pytest.mark.parametrize(("source", "address", "control", "data", "wire"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_frames_are_built_as_published(source: str, address: str, control: int, data: str, wire: str) -> None:
    assert frame(bytes.fromhex(address), control, bytes.fromhex(data)).hex() == wire


@pytest.mark.parametrize(
    ("value", "wire", "text"),
    [
        (Value("energy_active_import", "", 3630, 4, 2), "30360000", "36.30"),
        (Value("energy_active_import", "T2", 19, 4, 2), "19000000", "0.19"),
        (Value("energy_active_import", "", 12345678, 4, 2), "78563412", "123456.78"),
        (Value("voltage", "A", 2314, 2, 1), "1423", "231.4"),
        (Value("current", "A", 4999, 3, 3), "994900", "4.999"),
        (Value("power_active", "", 5006, 3, 4), "065000", "0.5006"),
        (Value("frequency", "", 5003, 2, 2), "0350", "50.03"),
        (Value("voltage", "B", None, 2, 1), "ffff", "0.0"),
    ],
)
def test_values_are_packed_low_digits_first(value: Value, wire: str, text: str) -> None:
    assert value.encoded().hex() == wire
    assert value.text() == text


def test_the_published_request_of_a_collector_is_understood_with_its_wake_byte() -> None:
    (request,) = RequestReader().feed(bytes.fromhex("fe68003619000000681104333234330016"))
    assert request == Request(bytes.fromhex("003619000000"), 0x11, bytes.fromhex("00ff0100"))


def test_requests_are_found_in_any_cut_and_behind_garbage_replies_of_others_are_not_requests() -> None:
    reader = RequestReader()
    wire = bytes.fromhex("00ff68" + "6811111111111168d101353d16" + "fefefefe68003619000000681104333234330016")
    found = [request for byte in wire for request in reader.feed(bytes([byte]))]
    assert [request.control for request in found] == [0x11]


def test_a_broken_request_is_not_answered_and_half_of_one_can_be_forgotten() -> None:
    reader = RequestReader()
    assert reader.feed(bytes.fromhex("68003619000000681104333234330116")) == []
    assert reader.feed(bytes.fromhex("680036190000006811")) == []
    reader.forget()
    assert reader.feed(bytes.fromhex("04333234330016")) == []
    assert len(reader.feed(bytes.fromhex("68003619000000681104333234330016"))) == 1


def test_garbage_without_end_is_not_kept() -> None:
    reader = RequestReader()
    for _ in range(100):
        reader.feed(b"\x68" * 1000)
    assert len(reader._held) <= 512


def test_a_constant_load_of_36_kw_counts_a_hundredth_of_a_kilowatt_hour_each_second_give_or_take_a_tenth() -> None:
    one = meter(kw=36)
    before = dict(numbers(one, 0x0001FF00))
    after = dict(numbers(one, 0x0001FF00, after_s=1000))
    grown = float(after[""]) - float(before[""])
    assert 9.0 < grown < 11.0
    assert float(after["T4"]) - float(before["T4"]) == pytest.approx(grown)
    assert [after[tariff] for tariff in ("T1", "T2", "T3")] == [before[tariff] for tariff in ("T1", "T2", "T3")]


def test_the_tariff_follows_the_hour_in_china() -> None:
    one = meter(kw=36)
    start = dict(numbers(one, 0x0001FF00))
    # From 02:00 to 20:00: valley, flat from 7, peak from 8, flat from 11, peak from 18, sharp from 19.
    end = dict(numbers(one, 0x0001FF00, after_s=18 * 3600))
    hours = {tariff: (float(end[tariff]) - float(start[tariff])) / 36 for tariff in ("T1", "T2", "T3", "T4")}
    assert hours == pytest.approx({"T1": 1, "T2": 4, "T3": 8, "T4": 5}, rel=0.01)


def test_the_total_is_the_sum_of_the_tariffs_at_every_moment() -> None:
    one = meter()
    for second in range(0, 100_000, 7777):
        block = numbers(one, 0x0001FF00, after_s=second)
        cents = [int(text.replace(".", "")) for _, text in block]
        assert cents[0] == sum(cents[1:])


def test_two_meters_with_one_seed_say_the_same_however_often_they_are_asked() -> None:
    often, seldom = meter(), meter()
    for second in range(50):
        often.values(0x0001FF00, now=NIGHT + second)
    for identifier in (0x0001FF00, 0x0201FF00, 0x0202FF00, 0x0203FF00, 0x02800002):
        assert numbers(often, identifier, after_s=50) == numbers(seldom, identifier, after_s=50)
    assert numbers(meter(seed=2), 0x0001FF00) != numbers(meter(seed=1), 0x0001FF00)


def test_blocks_and_single_values_agree_and_voltage_has_no_total() -> None:
    one = meter()
    assert [channel for channel, _ in numbers(one, 0x0001FF00)] == ["", "T1", "T2", "T3", "T4"]
    assert [channel for channel, _ in numbers(one, 0x0201FF00)] == ["A", "B", "C"]
    assert [channel for channel, _ in numbers(one, 0x0203FF00)] == ["", "A", "B", "C"]
    assert numbers(one, 0x00010000) == numbers(one, 0x0001FF00)[:1]
    assert numbers(one, 0x00010200) == numbers(one, 0x0001FF00)[2:3]
    assert numbers(one, 0x02010300) == numbers(one, 0x0201FF00)[2:3]
    assert numbers(one, 0x02030000) == numbers(one, 0x0203FF00)[:1]
    assert one.values(0x02010000, now=NIGHT) is None


def test_voltage_times_current_is_the_power() -> None:
    one = meter(kw=24)
    volts = [float(text) for _, text in numbers(one, 0x0201FF00)]
    amperes = [float(text) for _, text in numbers(one, 0x0202FF00)]
    kilowatts = [float(text) for _, text in numbers(one, 0x0203FF00)]
    assert sum(u * i for u, i in zip(volts, amperes, strict=True)) / 1000 == pytest.approx(kilowatts[0], rel=0.001)
    assert sum(kilowatts[1:]) == pytest.approx(kilowatts[0])
    assert all(224 <= u <= 236 for u in volts)


def test_a_single_phase_meter_sends_ff_for_the_phases_that_it_has_not() -> None:
    one = meter(phases=1)
    reply = ask(one, "68003619000000681104333234350216")
    assert reply is not None
    assert reply[10:14].hex() == "33323435"
    assert reply[16:20].hex() == "32323232"
    assert one.values(0x02010200, now=NIGHT) is None


@pytest.mark.parametrize("data", ["01000004", "00000102", "", "00ff01"])
def test_an_unknown_identifier_is_refused_as_published(data: str) -> None:
    one = meter(address="111111111111")
    answer = one.answer(Request(one.address, 0x11, bytes.fromhex(data)), now=NIGHT)
    assert answer is not None
    # Java AmmeterUtils of an NB-IoT platform: no such data.
    assert answer.frame.hex() == "6811111111111168d101353d16"
    assert answer.values == ()


def test_nothing_but_reading_is_answered() -> None:
    for control in (0x08, 0x14, 0x15, 0x16, 0x17, 0x1A, 0x1C):
        assert meter().answer(Request(meter().address, control, bytes(12)), now=NIGHT) is None


def test_the_address_is_told_to_the_wildcard_and_a_part_of_it_selects() -> None:
    assert ask(meter(address="000332316420"), "68aaaaaaaaaaaa681300df16") == bytes.fromhex(
        "682064313203006893065397646536336f16"
    )
    own = meter().address
    assert meter().answer(Request(own[:2] + b"\xaa" * 4, 0x13, b""), now=NIGHT) is not None
    assert meter().answer(Request(b"\x01" + own[1:], 0x13, b""), now=NIGHT) is None


def test_replies_come_after_20_to_60_ms_and_later_if_told_so() -> None:
    one, late = meter(), meter(quirks=Quirks(late_s=1.5))
    assert all(0.020 <= one.delay_s() <= 0.060 for _ in range(200))
    assert all(1.520 <= late.delay_s() <= 1.560 for _ in range(200))


@pytest.mark.parametrize("address", ["", "12345678901", "12345678901A", "AAAAAAAAAAAA"])
def test_an_address_that_is_not_twelve_digits_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="12 digits"):
        meter(address=address)
