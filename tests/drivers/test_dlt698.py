"""DL/T 698.45: requests that read and no others, frames, typed data, and polls against meters that refuse."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.devices.dlt698_45 import DRIVER, REGISTERS
from drivers.kit import BadOption, Decoded, NoReply, Polled, Reading, Reason, Rejected
from drivers.kit.checks import crc16_x25
from drivers.protocols import dlt698, dlt698_data, dlt698_objects
from drivers.protocols.dlt698 import Get

ADDRESS = "202407030001"
WIRE = "010003072420"


def check(data: bytes) -> bytes:
    """CRC-16/X-25, bit by bit: another way than the codec's."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8408 if crc & 1 else crc >> 1
    return (crc ^ 0xFFFF).to_bytes(2, "little")


def frame(apdu: str, *, control: int = 0xC3, flag: int = 0x05, address: str = WIRE, client: int = 0x10) -> bytes:
    """A frame made here by hand; `address` in wire order."""
    server, data = bytes.fromhex(address), bytes.fromhex(apdu)
    head = (9 + len(server) + len(data)).to_bytes(2, "little") + bytes([control, flag]) + server + bytes([client])
    body = head + check(head) + data
    return b"\x68" + body + check(body) + b"\x16"


def decode(oad: int, data: str) -> list[tuple[str, str, str, str]]:
    element = dlt698_data.Cursor(bytes.fromhex(data)).element()
    found = dlt698_objects.decode(oad, element)
    assert not found.refused
    return [(one.quantity, str(one.value), one.channel, one.unit) for one in found.readings]


def test_the_check_is_that_of_x25() -> None:
    # The check value that catalogues of CRCs give for "123456789".
    assert crc16_x25(b"123456789") == 0x906E
    assert crc16_x25(b"") == 0


def test_requests_are_the_published_ones() -> None:
    # The question for the address that many tools print; blog.csdn.net 143100464 asks the second with the client 00.
    assert (
        dlt698.request(Get.NORMAL, "AAAAAAAAAAAA", [0x40010200], piid=0).hex()
        == "fefefefe6817004345aaaaaaaaaaaa10da5f0501004001020000ed0316"
    )
    assert (
        dlt698.request(Get.NORMAL, "28417891", [0x00100400], piid=0).hex()
        == "fefefefe681500430391784128106a7405010000100400000ccb16"
    )


def test_no_request_can_be_built_but_one_that_reads() -> None:
    # Services: 02 connects, 03 releases, 05 GET, 06 SET, 07 ACTION, 10 security. GET has the kinds 1 to 5 and 6.
    built = set()
    for kind in range(256):
        with suppress(ValueError):
            built.add(dlt698.request(cast("Get", kind), ADDRESS, [0x40000200], piid=0)[18:20].hex())
    assert built == {"0501", "0502"}
    assert dlt698.record_request(ADDRESS, 0x50040200, 1, [0x20210200], piid=0)[18:20].hex() == "0503"
    asked = set()
    for name in (*REGISTERS, "clock"):
        ask = next(DRIVER.talk(DRIVER.options(ADDRESS, {"registers": [name, "voltage"]})))
        asked.add((ask.request[7], ask.request[18]))
    assert asked == {(0x43, 0x05)}


def test_a_request_for_a_record_is_the_published_one() -> None:
    # C++ 698 library, example of its documentation (find_string id 55739052642): the last midnight of the meter 201507210143.
    asked = dlt698.record_request("201507210143", 0x50040200, 1, [0x20210200, 0x00100200, 0x00200200], piid=2)
    assert asked[18:].hex() == "0503025004020009010300202102000000100200000020020000" + "5c8116"


@pytest.mark.parametrize(("back", "columns"), [(0, [1]), (256, [1]), (1, []), (1, [1] * 17)])
def test_a_record_that_cannot_be_asked_for_is_not(back: int, columns: list[int]) -> None:
    with pytest.raises(ValueError, match="columns"):
        dlt698.record_request(ADDRESS, 0x50040200, back, columns, piid=0)


@pytest.mark.parametrize("oads", [[], [1, 2], [1] * 17])
def test_a_request_for_nothing_or_too_much_is_not_built(oads: list[int]) -> None:
    with pytest.raises(ValueError, match="attributes"):
        dlt698.request(Get.NORMAL if len(oads) < 17 else Get.LIST, ADDRESS, oads, piid=0)


def test_a_frame_is_taken_apart() -> None:
    parsed = dlt698.parse(frame("850100200002000006" + "0000", flag=0x15))
    assert (parsed.address, parsed.kind, parsed.logical, parsed.client) == (ADDRESS, 0, 1, 0x10)
    assert (parsed.from_meter, parsed.carries_data) == (True, True)
    assert parsed.apdu.hex() == "8501002000020000060000"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.TOO_SHORT),
        (frame("8501")[:-1], Reason.TOO_SHORT),
        (frame("8501") + b"\0", Reason.TOO_LONG),
        (frame("8501")[:-1] + b"\x17", Reason.BAD_CHECK),
        (frame("8501")[:-3] + b"\0\0\x16", Reason.BAD_CHECK),
        (b"\x69" + frame("8501")[1:], Reason.NOT_MINE),
        (frame("8501")[:5] + b"\x55" + frame("8501")[6:], Reason.NOT_MINE),
        (b"\x68\xff\x7f" + frame("8501")[3:], Reason.NOT_MINE),
        (frame("8501", control=0xE3), Reason.UNSUPPORTED),
        (frame("8501", control=0xCB), Reason.UNSUPPORTED),
    ],
)
def test_what_is_no_frame_is_refused_by_name(data: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        dlt698.parse(data)
    assert caught.value.reason is reason


def test_a_start_byte_in_noise_does_not_hold_up_a_frame() -> None:
    good = frame("8501002000020000060000")
    assert dlt698.framer().feed(b"\x68\x00\x04\xc3\x05\x68" + good) == [good]


@pytest.mark.parametrize(
    ("asked", "replied", "same"),
    [
        ("AAAAAAAAAAAA", ADDRESS, True),
        ("AAAAAAAAAAAA", "28417891", True),
        ("AAAAAAAA0001", ADDRESS, True),
        ("AAAAAAAA0002", ADDRESS, False),
        ("28417891", ADDRESS, False),
        (ADDRESS, ADDRESS, True),
    ],
)
def test_an_address_is_compared_digit_by_digit(asked: str, replied: str, same: bool) -> None:
    assert dlt698.same_address(asked, replied) is same


@pytest.mark.parametrize(
    ("oad", "data", "expected"),
    [
        (0x00100201, "060001e240", [("energy_active_import", "1234.56", "", "kWh")]),
        (0x00100203, "060001e240", [("energy_active_import", "1234.56", "T2", "kWh")]),
        (0x00000201, "05ffffffff", [("energy_active_combined", "-0.01", "", "kWh")]),
        (
            0x00200200,
            "010206000000010600000002",
            [("energy_active_export", f, c, "kWh") for f, c in (("0.01", ""), ("0.02", "T1"))],
        ),
        (0x00100400, "0101150000000000bc614e", [("energy_active_import", "1234.5678", "", "kWh")]),
        (0x00110200, "0101060001e240", [("energy_active_import", "1234.56", "A", "kWh")]),
        (0x00530200, "0101060001e240", [("energy_reactive_q1", "1234.56", "C", "kvarh")]),
        (0x00A00200, "0101060001e240", [("energy_apparent_export", "1234.56", "", "kVAh")]),
        (0x03000200, "060001e240", [("energy_copper_loss", "1234.56", "", "kWh")]),
        (0x20000200, "010112096d", [("voltage", "241.3", "A", "V")]),
        (
            0x20010200,
            "01020500001388" + "05fffffffe",
            [("current", f, c, "A") for f, c in (("5.000", "A"), ("-0.002", "B"))],
        ),
        (0x20040200, "01010500" + "00ea60", [("power_active", "6.0000", "", "kW")]),
        (0x20050202, "05fffffff6", [("power_reactive", "-0.0010", "A", "kvar")]),
        (0x200A0200, "0101" + "10fc7c", [("power_factor", "-0.900", "", "1")]),
        (0x200F0200, "121387", [("frequency", "49.99", "", "Hz")]),
        (0x20100200, "10ff9c", [("meter_temperature", "-10.0", "", "Cel")]),
        (0x20110200, "120168", [("meter_battery_voltage", "3.60", "clock", "V")]),
        # What a meter does not have: a phase of no type, an unsigned number of nothing but ones.
        (0x20000200, "0103" + "12096d" + "00" + "12ffff", [("voltage", "241.3", "A", "V")]),
        (0x00100200, "0101" + "06ffffffff", []),
    ],
)
def test_attributes_give_quantity_value_channel_and_unit(
    oad: int, data: str, expected: list[tuple[str, str, str, str]]
) -> None:
    assert decode(oad, data) == expected


@pytest.mark.parametrize(
    ("oad", "data", "reason"),
    [
        (0x40000200, "060001e240", Reason.UNSUPPORTED),
        (0x20140200, "0101" + "04100000", Reason.UNSUPPORTED),
        (0x20000204, "12096d", Reason.UNSUPPORTED),
        (0x20000200, "0104" + "12096d" * 4, Reason.MALFORMED),
        (0x20000201, "0102" + "12096d" * 2, Reason.MALFORMED),
        (0x20000200, "0101060000096d", Reason.MALFORMED),
        (0x00100200, "0101150000000000bc614e", Reason.MALFORMED),
        (0x00100400, "0101060001e240", Reason.MALFORMED),
        (0x10100201, "0203" + "060001e240" * 3, Reason.MALFORMED),
        (0x00100200, "0a03313233", Reason.MALFORMED),
    ],
)
def test_data_of_another_kind_is_refused_by_name(oad: int, data: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        decode(oad, data)
    assert caught.value.reason is reason


def test_a_value_that_cannot_be_is_named() -> None:
    element = dlt698_data.Cursor(bytes.fromhex("0102" + "121389" + "12096d")).element()
    found = dlt698_objects.decode(0x20000200, element)
    assert [str(one.value) for one in found.readings] == ["500.1", "241.3"][1:]
    assert found.refused == ("voltage A = 500.1 cannot be",)


def test_a_demand_comes_with_its_time_and_one_of_no_time_without() -> None:
    data = "0102" + "0202" + "0600003039" + "1c07ea0a050c1e00" + "0202" + "0600003039" + "1c07e211280000" + "00"
    found = dlt698_objects.decode(0x10100200, dlt698_data.Cursor(bytes.fromhex(data)).element())
    assert [(str(one.value), one.channel, one.unit) for one in found.readings] == [
        ("1.2345", "", "kW"),
        ("1.2345", "T1", "kW"),
    ]
    first, second = (one.device_time for one in found.readings)
    assert first is not None
    assert first.isoformat() == "2026-10-05T12:30:00+08:00"
    assert second is None
    assert found.refused == ("demand_active_import T1 time = 07e21128000000 is no time",)


@pytest.mark.parametrize(
    ("apdu", "reason", "detail"),
    [
        ("860100200002000006", Reason.UNSUPPORTED, "service 86 01"),
        ("8505000000", Reason.UNSUPPORTED, "a reply in blocks"),
        ("9001101234", Reason.NO_KEY, "the reply is encrypted"),
        ("85010020000200", Reason.TOO_SHORT, "1 results in 4 bytes"),
        ("8501002000020007" + "00", Reason.MALFORMED, "a result that begins with 07"),
        ("850100200002000199", Reason.UNSUPPORTED, "data of the type 99"),
        ("8501002000020001010212096d", Reason.TOO_SHORT, "0 bytes where 1 are due"),
        ("850100200002000101" + "7f" + "00", Reason.TOO_SHORT, "127 elements in 1 bytes"),
        ("8501002000020001" + "0101" * 9 + "00", Reason.MALFORMED, "more than 8 levels or 1024 elements"),
        ("8501002000020001098300", Reason.MALFORMED, "a length that begins with 83"),
    ],
)
def test_a_reply_that_cannot_be_read_is_refused_by_name(apdu: str, reason: Reason, detail: str) -> None:
    with pytest.raises(Rejected) as caught:
        dlt698_data.response(bytes.fromhex(apdu))
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


def poll(replies: dict[str, str | None], *registers: str) -> tuple[Polled, list[str]]:
    """Run one poll; `replies` by the descriptors asked: what follows the question's number, None for silence."""
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": list(registers)}))
    asked: list[str] = []
    try:
        ask = next(talk)
        while True:
            (request,) = DRIVER.framer().feed(ask.request)
            apdu = dlt698.parse(request).apdu
            asked.append(apdu[3:-1].hex())
            reply = replies[asked[-1]]
            if reply is None:
                ask = talk.throw(NoReply())
                continue
            found = frame(f"85{apdu[1]:02x}{apdu[2]:02x}{reply}0000")
            assert ask.answers(found)
            ask = talk.send(found)
    except StopIteration as end:
        return cast("Polled", end.value), asked


VOLTAGE, CURRENT = "20000200", "20010200"
COLUMNS = "50040200" + "0901" + "02" + "00" + "20210200" + "00" + "00100200"


def midnights(replies: list[str | None]) -> Polled:
    """Poll the voltage and as many midnights as there are replies."""
    talk = DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage"], "daily_freezes": len(replies)}))
    next(talk)
    try:
        ask = talk.send(frame("850100" + VOLTAGE + "01010112096d" + "0000"))
        for back, reply in enumerate(replies, 1):
            (request,) = DRIVER.framer().feed(ask.request)
            apdu = dlt698.parse(request).apdu
            assert apdu[3:-1].hex() == COLUMNS.replace("0901", f"09{back:02x}")
            if reply is None:
                ask = talk.throw(NoReply())
            else:
                ask = talk.send(
                    frame(f"8503{apdu[2]:02x}" + "50040200" + "02" + "00" + "20210200" + "00" + "00100200" + reply)
                )
    except StopIteration as end:
        return cast("Polled", end.value)
    raise AssertionError("the poll goes on")


def test_daily_freezes_come_with_their_times() -> None:
    found = midnights(
        [
            "0101" + "1c07ea0b1d000000" + "0102" + "060001e240" + "060001e240" + "00",
            "0101" + "1c07ea0b1c000000" + "0101" + "060001e23f" + "00",
            "0101" + "1c07ea0d1c000000" + "0101" + "060001e23f" + "00",
            "0101" + "00" + "0101" + "060001e23f" + "00",
            "0006" + "00",
            "0100" + "00",
            None,
        ]
    )
    assert isinstance(found, Decoded)
    shown = [
        (one.channel, str(one.value), str(one.device_time))
        for one in found.observations[1:]
        if isinstance(one, Reading)
    ]
    assert shown == [
        ("D1", "1234.56", "2026-11-29 00:00:00+08:00"),
        ("T1/D1", "1234.56", "2026-11-29 00:00:00+08:00"),
        ("D2", "1234.55", "2026-11-28 00:00:00+08:00"),
    ]
    assert found.refused == (
        "daily_freeze_3 = 07ea0d1c000000 is no time",
        "daily_freeze_4 = a record without a time",
        "daily_freeze_5 = no such object (DAR 6)",
        "daily_freeze_6 = the meter has none",
        "daily_freeze_7 = no reply",
    )


@pytest.mark.parametrize(
    ("apdu", "reason"),
    [
        ("850100" + VOLTAGE + "0006", Reason.UNSUPPORTED),
        ("850300" + "50040200" + "0101" + "20210200", Reason.UNSUPPORTED),
        ("850300" + "50040200" + "0200" + "20210200", Reason.TOO_SHORT),
        ("850300" + "50040200" + "0100" + "20210200" + "01" + "7f" + "00", Reason.TOO_SHORT),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(apdu: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        dlt698_data.records(bytes.fromhex(apdu))
    assert caught.value.reason is reason


def test_a_meter_that_knows_no_lists_is_asked_one_by_one() -> None:
    found, asked = poll(
        {"02" + VOLTAGE + CURRENT: None, VOLTAGE: VOLTAGE + "01010112096d", CURRENT: CURRENT + "0006"},
        "voltage",
        "current",
    )
    assert asked == ["02" + VOLTAGE + CURRENT, VOLTAGE, CURRENT]
    assert found == Decoded((Reading("voltage", Decimal("241.3"), "A"),), refused=("current = no such object (DAR 6)",))


def test_what_a_list_leaves_out_is_asked_for() -> None:
    found, asked = poll(
        {"02" + VOLTAGE + CURRENT: "01" + VOLTAGE + "01010112096d", CURRENT: CURRENT + "010101" + "0500001388"},
        "voltage",
        "current",
    )
    assert asked == ["02" + VOLTAGE + CURRENT, CURRENT]
    assert found == (Reading("voltage", Decimal("241.3"), "A"), Reading("current", Decimal("5.000"), "A"))


def test_silence_after_a_reply_does_not_cost_what_was_read() -> None:
    found, _ = poll({"02" + VOLTAGE + CURRENT: "01" + VOLTAGE + "01010112096d", CURRENT: None}, "voltage", "current")
    assert found == Decoded((Reading("voltage", Decimal("241.3"), "A"),), refused=("current = no reply",))


def test_a_meter_that_says_nothing_is_silence() -> None:
    with pytest.raises(NoReply):
        poll({"02" + VOLTAGE + CURRENT: None, VOLTAGE: None}, "voltage", "current")


def test_a_reply_to_another_question_or_of_another_meter_answers_nothing() -> None:
    ask = next(DRIVER.talk(DRIVER.options(ADDRESS, {"registers": ["voltage"]})))
    good = "85010020000200" + "01010112096d" + "0000"
    assert ask.answers(frame(good))
    assert not ask.answers(frame("850101" + good[6:])), "the number of another question"
    assert not ask.answers(frame(good, address="020003072420"))
    assert not ask.answers(frame(good, client=0x11)), "to another client"
    assert not ask.answers(frame(good, control=0x43)), "an echo"
    assert not ask.answers(frame(good, control=0x81)), "link management"
    assert not ask.answers(ask.request[4:])


def test_a_wildcard_learns_who_answers() -> None:
    talk = DRIVER.talk(DRIVER.options("AAAAAAAAAAAA", {"registers": ["voltage", "current"]}))
    ask = next(talk)
    assert ask.request[8:15].hex() == "45" + "aa" * 6
    ask = talk.send(frame("850200" + "01" + VOLTAGE + "01010112096d" + "0000"))
    assert ask.request[8:15].hex() == "05" + WIRE


def test_a_meter_whose_number_has_other_than_decimal_digits_is_asked_on() -> None:
    talk = DRIVER.talk(DRIVER.options("AAAAAAAAAAAA", {"registers": ["voltage", "current"]}))
    next(talk)
    ask = talk.send(frame("8502000120000200" + "0101031208eb00000000", address="1f9078563412"))
    assert "1f9078563412" in ask.request.hex()
    assert dlt698.address_bytes("12345678901F").hex() == "1f9078563412"


def test_the_number_of_a_logical_device_is_no_part_of_the_address() -> None:
    parsed = dlt698.parse(frame("850100", flag=0x26, address="03111111111111"))
    assert (parsed.address, parsed.logical) == ("111111111111", 3)
    with pytest.raises(Rejected) as caught:
        dlt698.parse(frame("850100", flag=0x20, address="03"))
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("address", ["", "1", "1234567", "12345678901g", "G1", " 1", "1" * 34, "１２"])
def test_an_address_that_is_no_meter_is_refused(address: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(address, {})
    assert caught.value.key == "address"


@pytest.mark.parametrize(
    ("registers", "key"),
    [
        ([], "map.registers"),
        ("voltage", "map.registers"),
        (["voltage"] * 17, "map.registers"),
        (["voltage", "volt"], "map.registers[1]"),
        (["20140200"], "map.registers[0]"),
        (["2000020"], "map.registers[0]"),
        ([1], "map.registers[0]"),
    ],
)
def test_a_register_that_is_not_there_is_refused(registers: object, key: str) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options(ADDRESS, {"registers": registers})
    assert caught.value.key == key
    assert "docs/reference/registers.md" in caught.value.expected


def test_a_clock_alone_stamps_the_default_registers() -> None:
    target = DRIVER.options(ADDRESS, {"registers": ["clock"]})
    assert [name for name, _ in target.registers] == [
        "energy_active_import",
        "voltage",
        "current",
        "power_active",
        "clock",
    ]


@settings(deadline=None, max_examples=500, derandomize=True, database=None)
@given(st.binary(max_size=80))
def test_any_apdu_is_read_or_refused(tail: bytes) -> None:
    for head in (b"\x85\x03\x00", b"\x85\x03\x00\x50\x04\x02\x00\x01\x00\x20\x21\x02\x00", b""):
        with suppress(Rejected):
            dlt698_data.records(head + tail)
    for head in (b"\x85\x01\x00", b"\x85\x02\x00", b""):
        with suppress(Rejected):
            for result in dlt698_data.response(head + tail).results:
                if result.data is not None:
                    with suppress(Rejected):
                        dlt698_objects.decode(0x00100200, result.data)


def test_a_meter_names_itself_and_is_asked_for_as_many_midnights_as_are_missing() -> None:
    assert DRIVER.sender is not None
    assert DRIVER.sender(frame("8501002000020000060000")) == ADDRESS
    assert DRIVER.sender(frame("0501002000020000", control=0x43)) == ""
    assert DRIVER.sender(b"\x68") == ""
    assert DRIVER.history is not None
    target = DRIVER.options(ADDRESS, {"daily_freezes": 2})
    assert [DRIVER.history(target, days).daily_freezes for days in (1, 5, 62)] == [2, 5, 20]
