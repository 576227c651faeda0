"""What is wrong with a session over HTTP, by the answer that it got: which problem it is, and what was said."""

from __future__ import annotations

from typing import Final

from gateway.errors import SessionError
from gateway.uplinks.http_answers import Verdict, quote
from gateway.uplinks.http_lines import Answer

OUT_OF_SERVICE: Final = "GW-PLT-04"


def objection(found: Verdict, answer: Answer, *, url: str, host: str, secret: str) -> SessionError:
    """Say what is wrong with a session that gets such an answer."""
    codes = {Verdict.NO_ENTRY: "GW-NET-04", Verdict.LATER: OUT_OF_SERVICE}
    said = quote(answer.body, secret=secret)
    if answer.location:
        said = f"-> {quote(answer.location.partition('?')[0].encode(), secret=secret)}"
    status = answer.status
    error = f"HTTP {status}{' ' if said else ''}{said}"
    return SessionError(codes.get(found, "GW-NET-06"), host, url=url, status=status, error=error)
