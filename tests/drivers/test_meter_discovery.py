"""The questions for a meter of unknown address: published ones, answered by the replies that real meters gave."""

from __future__ import annotations

import pytest

from drivers.kit.catalogue import driver
from drivers.kit.shapes import Answers
from drivers.protocols.meter_discovery import QUESTIONS
from tests.drivers.test_dlt698 import frame as frame_698


def test_the_questions_are_the_published_ones_and_only_read() -> None:
    assert [(one.model, one.request.hex()) for one in QUESTIONS] == [
        ("dlt645-2007", "fefefefe68aaaaaaaaaaaa681300df16"),
        ("dlt645-2007", "fefefefe68aaaaaaaaaaaa681104333334" + "33ae16"),
        ("dlt698-45", "fefefefe6817004345aaaaaaaaaaaa10da5f0501004001020000ed0316"),
        ("dlt645-1997", "fefefefe68aaaaaaaaaaaa68010243c3d516"),
        ("dlt645-1997", "fefefefe6899999999999968010243c36f16"),
    ]


@pytest.mark.parametrize(
    ("index", "reply", "address"),
    [
        (0, "fefefefe682064313203006893065397646536336f16", "000332316420"),
        (1, "fefefefe681111111111116891083333" + "34339c353333d316", "111111111111"),
        (1, "fefefefe6811111111111168d101353d16", "111111111111"),
        (1, "68aaaaaaaaaaaa6891063334343533339916", "AAAAAAAAAAAA"),
        (3, "68aaaaaaaaaaaa68810643c394a53533fa16", "AAAAAAAAAAAA"),
        (4, "6895320600000068810643c3483333330b16", "000000063295"),
        (0, "6895320600000068810643c3483333330b16", None),
        (1, "6895320600000068810643c3483333330b16", None),
        (3, "fefefefe6811111111111168d101353d16", None),
    ],
)
def test_an_answer_says_who_is_there(index: int, reply: str, address: str | None) -> None:
    question = QUESTIONS[index]
    chosen = driver(question.model)
    assert isinstance(chosen, Answers)
    (frame,) = chosen.framer().feed(bytes.fromhex(reply))
    assert question.address_in(frame) == address


def test_a_meter_of_698_says_who_it_is() -> None:
    # wenyl/DLT698-API: the meter 012503200001 asked by the client 00; here the same asked by ours.
    reply = frame_698("8501004001020001" + "0906012503200001" + "0000", address="010020032501")
    assert QUESTIONS[2].address_in(reply) == "012503200001"


def test_no_question_is_its_own_answer() -> None:
    for question in QUESTIONS:
        chosen = driver(question.model)
        assert isinstance(chosen, Answers)
        (echo,) = chosen.framer().feed(question.request)
        assert question.address_in(echo) is None
        assert question.address_in(b"") is None
