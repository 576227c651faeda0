"""What a status, a Retry-After and a list of results mean, however badly they are written."""

from __future__ import annotations

import json

import pytest

from gateway.uplinks import Ack, AckStatus
from gateway.uplinks.http_answers import Verdict, quote, read_results, retry_after, verdict

NOW = "Fri, 15 Jan 2027 08:00:00 GMT"


@pytest.mark.parametrize(
    ("statuses", "meaning"),
    [
        ((200, 201, 202, 204, 206, 299), Verdict.TAKEN),
        ((408, 421, 423, 424, 425, 429, 500, 501, 502, 503, 504, 511, 599), Verdict.LATER),
        ((413,), Verdict.TOO_BIG),
        ((400, 409, 422), Verdict.REFUSED),
        ((401, 403), Verdict.NO_ENTRY),
        ((101, 300, 301, 302, 303, 304, 307, 308, 402, 404, 405, 406, 407, 410, 411, 412, 414, 415, 416, 417, 426, 428,
          431, 451, 600, 999), Verdict.MISPLACED),
    ],
)  # fmt: skip
def test_a_status_says_whose_trouble_it_is(statuses: tuple[int, ...], meaning: Verdict) -> None:
    assert {status: verdict(status) for status in statuses} == dict.fromkeys(statuses, meaning)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("3600", 3600.0),
        ("86400", 3600.0),
        ("9" * 5000, 3600.0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 10:00:00 GMT", 3600.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Fri, 99 Jan 2027 08:00:30 GMT", None),
        ("Fri, 15 Jan 99999 08:00:30 GMT", None),
    ],
)
def test_a_retry_after_is_read_in_seconds_or_as_a_date_and_bounded(value: str, seconds: float | None) -> None:
    assert retry_after(value, date=NOW) == seconds


def test_a_date_is_measured_by_the_platforms_clock_and_never_by_ours_which_may_not_be_set() -> None:
    later = "Fri, 15 Jan 2027 08:02:00 GMT"
    assert retry_after(later, date="Fri, 15 Jan 2027 08:00:30 GMT") == 90.0
    assert [retry_after(later, date=date) for date in ("", "rubbish")] == [None, None]
    assert retry_after("120", date="") == 120.0


@pytest.mark.parametrize(
    ("entry", "ack"),
    [
        ({"id": "a", "status": "accepted"}, Ack("a", AckStatus.ACCEPTED)),
        ({"id": "a", "status": "duplicate", "code": None}, Ack("a", AckStatus.DUPLICATE)),
        ({"id": "a", "status": "rejected", "code": "schema"}, Ack("a", AckStatus.REJECTED, "schema")),
        ({"id": "a", "status": "rejected", "code": "x\x1b[31m\ny"}, Ack("a", AckStatus.REJECTED, "x [31m y")),
        ({"id": "a", "status": "rejected", "code": "x" * 500}, Ack("a", AckStatus.REJECTED, "x" * 200)),
        ({"id": "a", "status": "retry", "retry_after_ms": 250}, Ack("a", AckStatus.RETRY, "", 0.25)),
        ({"id": "a", "status": "retry", "retry_after_ms": -5}, Ack("a", AckStatus.RETRY, "", 0.0)),
        ({"id": "a", "status": "retry", "retry_after_ms": 10**12}, Ack("a", AckStatus.RETRY, "", 3600.0)),
        ({"id": "a", "status": "retry", "retry_after_ms": "100"}, Ack("a", AckStatus.RETRY, "", 0.1)),
    ],
)
def test_a_result_is_read(entry: dict[str, object], ack: Ack) -> None:
    assert read_results(json.dumps({"results": [entry]}).encode(), {"a"}) == ([ack], 0)


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}", b'{"status":"ok"}', b"[]", b"7", b"null", b'"accepted"'])
def test_an_answer_without_results_acknowledges_nothing_and_is_not_wrong(body: bytes) -> None:
    assert read_results(body, {"a"}) == ([], 0)


@pytest.mark.parametrize(
    "body", [b"<html>", b"\xff\xfe\xff", b"{", b"[" * 100_000, b'{"results":7}', b'{"results":null}', b'{"results":{}}']
)
def test_an_answer_that_cannot_be_read_is_counted(body: bytes) -> None:
    assert read_results(body, {"a"}) == ([], 1)


@pytest.mark.parametrize(
    "entry",
    [{}, None, 7, "accepted", [], {"id": "b"}, {"status": "accepted"}, {"id": "b", "status": "perhaps"},
     {"id": "b", "status": []}, {"id": "b", "status": "retry", "retry_after_ms": {}},
     {"id": "b", "status": "retry", "retry_after_ms": 10**400}],
)  # fmt: skip
def test_a_result_that_cannot_be_read_is_counted_and_the_others_are_read(entry: object) -> None:
    body = json.dumps({"results": [entry, {"id": "a", "status": "accepted"}]}).encode()
    assert read_results(body, {"a", "b"}) == ([Ack("a", AckStatus.ACCEPTED)], 1)


def test_a_result_for_an_event_that_was_not_asked_or_a_second_one_is_not_believed() -> None:
    entries = [
        {"id": "stranger", "status": "accepted"},
        {"id": "a", "status": "retry"},
        {"id": "a", "status": "accepted"},
    ]
    body = json.dumps({"results": entries}).encode()
    assert read_results(body, {"a"}) == ([Ack("a", AckStatus.RETRY)], 2)


def test_what_a_platform_said_is_quoted_short_clean_and_without_our_credential() -> None:
    said = b"bad\r\n\ttoken: s3cret\x00 \xff" + "原因".encode() + b"x" * 5000
    quoted = quote(said, secret="s3cret")
    assert quoted.startswith("bad token: *** �原因xxx")
    assert len(quoted) == 160
