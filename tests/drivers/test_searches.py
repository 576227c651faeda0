"""What is on a bus is found by questions that only read: one meter, several at once, and those that nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from drivers.kit import Answers, AnswerVector, Ask, catalogue
from drivers.kit.checks import sum8
from drivers.kit.searching import Found, Heard, Noisy
from drivers.protocols import cjt188, dlt645, dlt645_2007, mbus

World = Callable[[bytes], Sequence[bytes]]
TOTAL = 0x00010000


def driver(model: str) -> Answers:
    found = catalogue.driver(model)
    assert isinstance(found, Answers)
    return found


def searched(model: str, world: World) -> tuple[list[Found], int]:
    """Run a search in a world that says who answers a question; return what it found, and how many questions it took."""
    one = driver(model)
    assert one.search is not None
    search, found, asked = one.search.run(), [], 0
    try:
        wanted = next(search)
        while True:
            if isinstance(wanted, Found):
                found.append(wanted)
                wanted = search.send(Heard())
                continue
            asked += 1
            wanted = search.send(heard(one, wanted, world(wanted.request)))
    except StopIteration:
        return found, asked


def heard(one: Answers, ask: Ask, replies: Sequence[bytes]) -> Heard:
    """Two that answer at once garble each other: what comes is no frame."""
    if len(replies) > 1:
        return Heard(None, 20)
    frames = [frame for reply in replies for frame in one.framer().feed(reply)]
    return Heard(next((frame for frame in frames if ask.answers(frame)), None), 0)


def nobody(_request: bytes) -> Sequence[bytes]:
    return ()


@pytest.mark.parametrize("model", ["dlt645-2007", "dlt645-1997", "dlt698-45", "cjt188", "modbus-meter", "mbus"])
def test_an_empty_line_takes_as_many_questions_as_the_search_says(model: str) -> None:
    found, asked = searched(model, nobody)
    search = driver(model).search
    assert search is not None
    assert found == []
    assert asked == search.questions
    assert all(one.baud >= 300 for one in search.lines)


def meters_2007(*addresses: str, knows_13: bool = True) -> World:
    def answer(request: bytes) -> Sequence[bytes]:
        asked = dlt645.parse(request.lstrip(b"\xfe"))
        replies = []
        for address in addresses:
            if not dlt645.same_address(asked.address, address):
                continue
            if asked.function == 0x13 and knows_13:
                replies.append(reply(address, 0x93, dlt645.address_bytes(address)))
            elif asked.function == 0x11:
                replies.append(reply(address, 0x91, asked.data + bytes(4)))
        return replies

    return answer


def reply(address: str, control: int, data: bytes) -> bytes:
    body = b"\x68" + dlt645.address_bytes(address) + b"\x68" + bytes([control, len(data)]) + dlt645.add_offset(data)
    return body + bytes([sum8(body), 0x16])


@pytest.mark.parametrize("knows_13", [True, False])
def test_the_only_meter_is_found_by_its_address(*, knows_13: bool) -> None:
    found, asked = searched("dlt645-2007", meters_2007("000000193600", knows_13=knows_13))
    assert found == [Found("000000193600")]
    assert asked <= 2


def test_a_crowd_is_taken_apart_by_the_last_digits_of_the_addresses() -> None:
    crowd = ("000000193600", "000000193601", "000000193701", "123456789012", "123456789112")
    found, asked = searched("dlt645-2007", meters_2007(*crowd))
    assert sorted(one.address for one in found) == sorted(crowd)
    # 13H, the wildcard, 100 last pairs, and 100 more for each of 01 and 12, which two meters share.
    assert asked == 2 + 100 + 2 * 100


def test_two_meters_with_one_and_the_same_number_end_the_search() -> None:
    found, _ = searched("dlt645-2007", meters_2007("000000193600", "000000193600"))
    assert found == []


def test_every_question_of_a_crowded_search_only_reads() -> None:
    asked: set[int] = set()

    def crowd(request: bytes) -> Sequence[bytes]:
        frame = dlt645.parse(request.lstrip(b"\xfe"))
        asked.add(frame.function)
        return (b"", b"") if frame.address == "A" * 12 else ()

    found, count = searched("dlt645-2007", crowd)
    assert (found, count) == ([], 102)
    assert asked == {0x11, 0x13}  # read data, read the address


@pytest.mark.parametrize("model", ["dlt645-2007", "dlt645-1997"])
def test_noise_after_every_question_ends_the_search_soon(model: str) -> None:
    count = 0

    def noise(_request: bytes) -> Sequence[bytes]:
        nonlocal count
        count += 1
        return (b"", b"")

    with pytest.raises(Noisy):
        searched(model, noise)
    assert count <= 12


def test_a_water_meter_is_found_with_what_it_meters() -> None:
    address = "78331505104145"

    def answer(request: bytes) -> Sequence[bytes]:
        asked = cjt188.parse(request.lstrip(b"\xfe"))
        if asked.function != 0x01 or asked.kind != 0x10:
            return ()
        body = b"\x68\x10" + cjt188.address_bytes(address) + b"\x81\x16" + asked.data[:3] + bytes(19)
        return (body + bytes([sum8(body), 0x16]),)

    found, asked = searched("cjt188", answer)
    assert [(one.address, dict(one.options)) for one in found] == [(address, {"meter": "cold-water"})]
    assert asked == 2


def exchange(model: str, index: int) -> AnswerVector:
    vector = driver(model).vectors[index]
    assert isinstance(vector, AnswerVector)
    return vector


def test_a_modbus_meter_is_found_with_the_map_whose_probe_passes() -> None:
    vector = exchange("modbus-meter", 0)  # a Chint DDSU666 at unit 1
    replies = {request: reply for request, reply in vector.exchange if reply is not None}
    replies[bytes.fromhex("010300000001840a")] = bytes.fromhex(
        "018302c0f1"
    )  # no register 0: an exception, so it is there
    found, _ = searched("modbus-meter", lambda request: [replies[request]] if request in replies else ())
    assert [(one.address, dict(one.options), one.complete) for one in found] == [
        ("1", {"meter": "chint-ddsu666"}, True)
    ]


def test_a_modbus_device_that_no_map_fits_is_told_and_not_configured() -> None:
    there = {bytes.fromhex("010300000001840a"): bytes.fromhex("018302c0f1")}
    found, _ = searched("modbus-meter", lambda request: [there[request]] if request in there else ())
    assert [(one.address, one.complete) for one in found] == [("1", False)]


class MBusMeters:
    """Meters by primary address and number; who is selected answers at 253."""

    def __init__(self, *meters: tuple[int, str]) -> None:
        self.meters = meters
        self.selected: list[tuple[int, str]] = []

    def __call__(self, request: bytes) -> Sequence[bytes]:
        if request[0] == 0x10:
            control, address = request[1], request[2]
            if control == 0x40:
                if address == mbus.SELECTED:
                    self.selected = []
                    return ()
                return [b"\xe5"] * sum(one[0] == address for one in self.meters)
            here = self.selected if address == mbus.SELECTED else [one for one in self.meters if one[0] == address]
            return [self.data(*one) for one in here]
        digits = bytes(reversed(request[7:11])).hex()
        fits = [one for one in self.meters if all(a in ("f", b) for a, b in zip(digits, one[1].lower(), strict=True))]
        self.selected = fits
        return [b"\xe5"] if fits else ()  # one and the same byte from all of them: it stays whole

    @staticmethod
    def data(address: int, number: str) -> bytes:
        body = (
            bytes([0x08, address, 0x72])
            + bytes.fromhex(number)[::-1]
            + bytes.fromhex("2440010755000000")
            + b"\x0c\x13"
            + bytes(4)
        )
        return bytes([0x68, len(body), len(body), 0x68]) + body + bytes([sum8(body), 0x16])


def test_m_bus_meters_are_found_by_primary_address_and_those_that_share_one_by_their_numbers() -> None:
    found, asked = searched("mbus", MBusMeters((5, "12345678"), (0, "12345679"), (0, "99000001")))
    assert found[0].address == "5"
    assert sorted(one.address[:8] for one in found[1:]) == ["12345679", "99000001"]
    assert asked < 252 + 250


def test_m_bus_meters_with_one_number_end_the_search() -> None:
    found, _ = searched("mbus", MBusMeters((0, "12345678"), (0, "12345678")))
    assert found == []


def test_the_words_for_lines_are_read_as_written() -> None:
    from drivers.kit import LineSettings
    from drivers.kit.searching import lines

    assert lines("2400 8E1", "9600 7N2") == (LineSettings(2400, 8, "E", 1), LineSettings(9600, 7, "N", 2))
    assert dlt645_2007.read_request("AAAAAAAAAA12", TOTAL).hex() == "fefefefe6812aaaaaaaaaa681104333334331616"
