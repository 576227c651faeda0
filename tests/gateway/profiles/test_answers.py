"""Business codes: what an answer in the body means (northbound rules 10 and 11), as a table."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.profiles import Decision, Meaning, Rule, load_profile

RULE = load_profile("http-json").rule
OK, DUPLICATE, RETRY, AUTH, POISON = Meaning
ASKED = ("a", "b")


def decide(answer: Any) -> Decision:
    assert RULE is not None
    return RULE.decide(answer, ASKED)


@pytest.mark.parametrize(
    ("answer", "meaning", "code"),
    [
        ({"code": 0}, OK, "code-0"),
        ({"code": 200, "message": "success", "data": {}}, OK, "code-200: success"),
        ({"code": "200"}, OK, "code-200"),
        ({"code": 200.0}, OK, "code-200"),
        ({"code": 409, "message": "已存在"}, DUPLICATE, "code-409: 已存在"),
        ({"code": 429, "message": "限流"}, RETRY, "code-429: 限流"),
        ({"code": 500}, RETRY, "code-500"),
        ({"code": 401, "message": "token expired"}, AUTH, "code-401: token expired"),
        ({"code": 403}, AUTH, "code-403"),
        ({"code": 400, "message": "bad field\nkind"}, POISON, "code-400: bad field kind"),
        ({"code": 422}, POISON, "code-422"),
        ({"code": 77123}, RETRY, "code-77123"),  # nobody knows it: it condemns nothing
        ({"code": "E-9", "message": 5}, RETRY, "code-E-9: 5"),
        ({"code": True}, RETRY, "code-true"),
        ({"code": 500, "message": {"deep": 1}}, RETRY, "code-500"),
        ({}, None, ""),
        ({"code": None}, None, ""),
        ({"code": [0]}, None, ""),
        ([{"code": 0}], None, ""),
        ("ok", None, ""),
        (None, None, ""),
    ],
)
def test_a_code_means(answer: object, meaning: Meaning | None, code: str) -> None:
    decision = decide(answer)
    assert (decision.meaning, decision.code) == (meaning, code)
    assert (decision.results, decision.unread) == ({}, 1 if meaning is None else 0)


def test_a_code_that_nobody_knows_can_be_poison_where_the_profile_says_so() -> None:
    rule = Rule("result", {"0": OK}, other=POISON)
    assert rule.decide({"result": 5}, ()).meaning is POISON


def test_a_code_may_stand_deep_and_be_a_truth() -> None:
    rule = Rule("head.success", {"true": OK, "false": POISON})
    assert [rule.decide({"head": {"success": one}}, ()).meaning for one in (True, False)] == [OK, POISON]


def test_results_are_those_of_single_events() -> None:
    decision = decide({"code": 0, "data": {"results": [{"id": "a", "code": 0}, {"id": "b", "code": 422}]}})
    assert decision.results == {"a": (OK, "code-0"), "b": (POISON, "code-422")}


@pytest.mark.parametrize(
    ("results", "unread"),
    [
        ([{"id": "c", "code": 0}], 1),  # not asked
        ([{"id": "a", "code": 0}, {"id": "a", "code": 400}], 1),  # said twice
        ([{"id": "a"}, {"code": 0}, 5, None], 4),
        ({"a": 0}, 1),
        ("none", 1),
        (True, 1),
        (0, 1),
        (None, 0),
        ("", 0),
        ({}, 0),
        ([], 0),
    ],
)
def test_results_that_cannot_be_believed_are_counted(results: object, unread: int) -> None:
    decision = decide({"code": 0, "data": {"results": results}})
    assert decision.unread == unread
    assert decision.results in ({}, {"a": (OK, "code-0")})


@pytest.mark.parametrize(("count", "failed"), [(3, 3), (0, 0), (-1, 0), (True, 0), ("3", 0), (None, 0)])
def test_a_count_of_failures_is_read(count: object, failed: int) -> None:
    assert decide({"code": 0, "data": {"failed": count}}).failed == failed


def test_words_are_kept_short_and_clean() -> None:
    decision = decide({"code": 400, "message": "x\x1b[31m" + "y" * 1000})
    assert decision.code == "code-400: x [31m" + "y" * 154
