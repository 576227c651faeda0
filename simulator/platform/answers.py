"""How the platform answers over HTTP when it does not answer as it should. Switched at run time, for each kind of request.

A `how` is a status (200 to 599) or one of the words below. Some come instead of the decision, as from a proxy that never
reached the application, some after it, as from one that lost the answer; `decided` chooses the other.

  401, 503, ...  that status, undecided; a 2xx one without results, decided
  bare           200 and nothing else, decided          silent   no answer ever, decided
  business       200 and {"code": 50013, ...}, undecided
  garbage        200, JSON that is torn, decided        close    the connection ends before the first byte, decided
  page           200, a page to log in, undecided       half     the connection ends in mid-answer, decided
  partial        results for the first half, decided    foreign  results for ids that nobody has sent, decided
  redirect       307 to `location`, undecided

Limits: 1,000,000 requests answered so (or all, until `well`); a body limit from 0 (none of ours) to 1 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulator.platform.conduct import within

KINDS: Final = ("alarm", "event", "batch", "birth", "state", "time")
WORDS: Final = ("bare", "garbage", "page", "partial", "foreign", "redirect", "close", "half", "silent",
                "business")  # fmt: skip
MAX_TIMES: Final = 1_000_000
MAX_LIMIT: Final = 1024 * 1024
_UNDECIDED: Final = ("page", "redirect", "business")


@dataclass(slots=True)
class Fault:
    """One way to answer badly. `left` is how often (None: always)."""

    how: int | str
    decided: bool
    left: int | None = None
    retry_after: str = ""
    location: str = ""


class Answers:
    """The faults that are switched on. Methods raise ValueError, naming it, for what they do not know."""

    def __init__(self) -> None:
        self.limit_bytes = 0
        self._faults: dict[str, Fault] = {}

    def answer(
        self,
        how: object,
        *,
        n: object = None,
        on: object = KINDS,
        decided: object = None,
        retry_after: object = "",
        location: object = "/v1/elsewhere",
    ) -> None:
        """Answer the next `n` requests of the kinds `on` so, together; without `n`, all of them."""
        way = _way(how)
        if decided is not None and not isinstance(decided, bool):
            raise ValueError(f"decided = {decided!r}: true or false")
        usual = way < 300 if isinstance(way, int) else way not in _UNDECIDED
        left = None if n is None else int(within("n", n, MAX_TIMES))
        fault = Fault(
            how=way,
            decided=usual if decided is None else decided,
            left=left,
            retry_after=str(retry_after),
            location=str(location),
        )
        for kind in _kinds(on):
            self._faults[kind] = fault

    def well(self) -> None:
        """Answer as one should again, and end `limit`."""
        self._faults.clear()
        self.limit_bytes = 0

    def limit(self, bytes: object) -> None:  # noqa: A002 - called by the name that the request gives
        """Answer 413 to a longer body; 0 ends it."""
        self.limit_bytes = int(within("bytes", bytes, MAX_LIMIT))

    def take(self, kind: str) -> Fault | None:
        """Return the fault for one request of this kind, and count it."""
        fault = self._faults.get(kind)
        if fault is None or fault.left == 0:
            return None
        if fault.left is not None:
            fault.left -= 1
        return fault

    def stats(self) -> dict[str, Any]:
        """Return what is switched on."""
        return {
            "limit_bytes": self.limit_bytes,
            "faults": {
                kind: {"how": fault.how, "decided": fault.decided, "left": fault.left}
                for kind, fault in self._faults.items()
                if fault.left != 0
            },
        }


def _way(how: object) -> int | str:
    if isinstance(how, str) and how in WORDS:
        return how
    if isinstance(how, int) and not isinstance(how, bool) and 200 <= how <= 599:
        return how
    raise ValueError(f"how = {how!r}: a status from 200 to 599, or one of {', '.join(WORDS)}")


def _kinds(on: object) -> Sequence[str]:
    if not isinstance(on, list | tuple) or not on or not set(on) <= set(KINDS):
        raise ValueError(f"on = {on!r}: a list of {', '.join(KINDS)}")
    return on
