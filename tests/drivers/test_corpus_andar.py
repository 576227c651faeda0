"""Frames of Andar radars, published by others: every line is read, read past or refused by name.

Lines of `tests/data/captures/andar-radar/`; `source` in each says where it is from. Most are commands to the radar: they
have the frame of its reports, so they test the framer, and that nothing of ours takes a command for a report.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.andar_radar import DRIVER
from drivers.kit import Decoded, Reading, Reason, Rejected, Signal, SignalKind

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "andar-radar"
LINES: list[dict[str, Any]] = [
    json.loads(line) for line in (CAPTURES / "andar_radar.jsonl").read_text(encoding="utf-8").splitlines()
]

FALL = Decoded((Signal(SignalKind.FALL, "fall", level=True),))
PARAMETERS = Decoded(
    (
        Reading("install_height", Decimal("2.60")),
        Reading("fall_threshold", Decimal("0.30")),
        Signal(SignalKind.PROBLEM, "install-height", "install-height", level=False),
        Signal(SignalKind.PROBLEM, "fall-threshold", "fall-threshold", level=False),
        Reading("sensitivity", Decimal(15)),
    )
)
# What each line's last frame means. A command that has an answer's type and no data is a question, not an answer.
MEANING: dict[str, Decoded | Reason] = {
    "0100000004010ef501000000fe": Decoded(),
    "0100000004010ef500000000ff": Decoded(),
    "01000000010e02f300ff": Decoded((Signal(SignalKind.FALL, "fall", level=False),)),
    "01000000000e06f6": Reason.NOT_MINE,
    "01000000002110cf": Reason.UNSUPPORTED,
    "01800000000e0e7e": Reason.NOT_MINE,
    "01000000040e04f09a991940a5": Decoded(),
    "01000000040e0afe03000000fc": Decoded(),
    "01000000040e0afe0f000000f0": Decoded(),
    "01000000040e08fc9a99993e5b": Decoded(),
    "01000000040e0efacdcc2c4092": Decoded((Reading("target_height", Decimal("2.70")),)),
    "010000000c0e06fa666626409a99993e0f00000032": PARAMETERS,
    "01000000010e04f501fe": Decoded(),
    "01000000010e02f3010101000000010e02f301fe": FALL,
}


def test_the_corpus_is_whole() -> None:
    assert [line["bytes"] for line in LINES] == list(MEANING)
    assert len(LINES) == 14


@pytest.mark.parametrize("line", LINES, ids=lambda line: str(line["bytes"]))
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_published_frame_means_what_its_publisher_says(line: dict[str, Any], step: int) -> None:
    data, framer = bytes.fromhex(line["bytes"]), DRIVER.framer()
    (frame,) = [frame for at in range(0, len(data), step) for frame in framer.feed(data[at : at + step])]
    meaning = MEANING[line["bytes"]]
    if isinstance(meaning, Decoded):
        assert DRIVER.decode(frame, None) == meaning
    else:
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(frame, None)
        assert caught.value.reason is meaning


def test_the_frame_with_a_wrong_data_check_is_counted_as_refused() -> None:
    framer = DRIVER.framer()
    framer.feed(bytes.fromhex("01000000010e02f3010101000000010e02f301fe"))
    assert framer.rejects == {Reason.BAD_CHECK: 1}
    assert framer.skipped == 10
