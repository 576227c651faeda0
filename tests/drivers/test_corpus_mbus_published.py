"""M-Bus replies of real meters, published by others: every line is right, refused by name, or listed here.

Lines of `tests/data/captures/mbus/published.jsonl`; `source` in each says where it is from.
"""

from __future__ import annotations

from typing import cast

import pytest

from drivers.devices.mbus import DRIVER
from drivers.kit import Decoded, NoReply, Reading, Reason, Rejected
from drivers.protocols import mbus
from tests.drivers.captures import Line, lines

ALL = lines("mbus", "published.jsonl")
SOUND = [line for line in ALL if "garbled" not in line]
SAYING = [line for line in SOUND if "says" in line]

# Where we say something else than the publisher, or nothing, and why.
DIFFERENT = {
    "jmbus-schneider": "its floats are in kilowatt hours and marked as watt hours: the whole number beside them is right",
    "wm-minomess": "past months of all bits set, at a date of all bits set, are no values; the publisher shows -0.001 m3",
    "emu2": "a second total of minus 45,447 kWh, of which nothing says that it is what was fed in",
    "mbus4j-alg": "the first of several telegrams; each record carries codes of the maker's own",
    "ime-66": "the first of several telegrams; each record carries codes of the maker's own",
    "hydrus": "its volume is marked as one in a unit that is not metric; the publisher shows 17.318 m3 and says so, too",
    "sontex-b7": "an answer in a maker's own form",
    "container": "a gateway's container with the telegram of a radio meter, encrypted under that one's key",
    "pymeterbus-siemens": "a reply of three bytes that only its maker knows",
    "em-admin": "the answer to a maker's own question",
    "sku-03": "the answer to a maker's own question: which unit it shows",
}
# Replies that are the first of several, whose others were not published.
BEGINNINGS = {
    "jmbus-svm",
    "jmbus-tst-heat",
    "mbus4j-spx",
    "wm-enercal",
    "wm-minomess",
    "mbp-tst",
    "gombus-tst",
    "axis",
    "lib-zri",
    "sontex-531",
}
SILENCE = "further telegram = no answer"


def by_device(line: Line) -> str:
    return str(line["device"])


def frames(line: Line) -> list[bytes]:
    framer = mbus.framer()
    return [frame for telegram in line["telegrams"] for frame in framer.feed(bytes.fromhex(telegram))]


def polled(line: Line) -> Decoded:
    """Poll the meter: its acknowledgement, its telegrams, and then silence."""
    talk = DRIVER.talk(DRIVER.options("254", {}))
    next(talk)
    try:
        talk.send(b"\xe5")
        for frame in frames(line):
            talk.send(frame)
        talk.throw(NoReply())
    except StopIteration as end:
        return cast("Decoded", end.value)
    raise AssertionError("the poll does not end")


def readings(decoded: Decoded) -> dict[str, Reading]:
    return {f"{one.quantity} {one.channel}".strip(): one for one in decoded.observations if isinstance(one, Reading)}


def test_the_corpus_is_whole() -> None:
    assert (len(ALL), len(SOUND), len(SAYING)) == (72, 70, 63)
    assert sum(len(line["telegrams"]) for line in ALL) == 80
    assert sum(len(line["says"]) for line in SAYING) == 554


@pytest.mark.parametrize("line", [line for line in ALL if "garbled" in line], ids=by_device)
def test_a_garbled_frame_is_never_found(line: Line) -> None:
    assert not any(mbus.answers(frame, address=mbus.ANYBODY) for frame in frames(line))


@pytest.mark.parametrize("line", SOUND, ids=by_device)
def test_a_published_frame_names_its_meter(line: Line) -> None:
    assert {DRIVER.sender(frame) if DRIVER.sender else "" for frame in frames(line)} == {line["secondary"]}


@pytest.mark.parametrize("line", SAYING, ids=by_device)
def test_a_published_reply_reads_as_it_should(line: Line) -> None:
    decoded = polled(line)
    told = readings(decoded)
    status, unread = told.pop("status_word"), told.pop("records_unread", None)
    assert {name: format(one.value, "f") for name, one in told.items()} == line["says"]
    assert (int(status.value), 0 if unread is None else int(unread.value)) == (line["status"], line["unread"])
    assert list(decoded.refused) == line["refused"]
    assert set(decoded.refused) <= {SILENCE} or line["device"] in DIFFERENT
    assert (SILENCE in decoded.refused) == (line["device"] in BEGINNINGS)
    if "clock" in line:
        assert line["clock"] in {one.device_time.strftime("%F %T") for one in told.values() if one.device_time}


@pytest.mark.parametrize("line", [line for line in SOUND if "says" not in line], ids=by_device)
def test_what_is_no_reading_is_refused_by_name(line: Line) -> None:
    assert line["device"] in DIFFERENT
    with pytest.raises(Rejected) as caught:
        polled(line)
    assert (caught.value.reason, caught.value.detail) == (Reason(line["reason"]), line["detail"])
