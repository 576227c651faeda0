"""What a platform's answer means for an event: a table of business codes (northbound, delivery rules 10 and 11).

Pure: no IO. A code that stands nowhere condemns no event, unless the profile says so. Limits: of a platform's words 160
characters are kept, of an answer's list 1,000 results are read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

MAX_RESULTS: Final = 1_000
_SAID: Final = 160
_ABSENT: Final = object()


class Meaning(Enum):
    """What a code says."""

    OK = "ok"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    AUTH = "auth"
    POISON = "poison"


@dataclass(frozen=True, slots=True)
class Decision:
    """What an answer says: of the whole message, and of single events by the id that they went under.

    `meaning` is None where no code could be read: that is no acceptance. `failed`: so many events of the message failed, and
    nobody says which. `unread`: results that could not be read, or were of events that had not been asked.
    """

    meaning: Meaning | None
    code: str = ""
    results: Mapping[str, tuple[Meaning, str]] = field(default_factory=dict)
    failed: int = 0
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the code stands in an answer, and what each means. Paths are like "data.code"."""

    code: str
    codes: Mapping[str, Meaning]
    other: Meaning = Meaning.RETRY
    message: str = ""
    results: str = ""
    result_id: str = ""
    result_code: str = ""
    failed: str = ""

    def decide(self, answer: Any, asked: Collection[str]) -> Decision:
        """Judge an answer to the events that were `asked`. Raises nothing, whatever it holds."""
        word = _word(found(answer, self.code))
        if word is None:
            return Decision(None, unread=1)
        said = found(answer, self.message) if self.message else _ABSENT
        words = clean(str(said)) if isinstance(said, str | int | float) else ""
        meaning = self.codes.get(word, self.other)
        results, unread = self._results(answer, asked)
        count = found(answer, self.failed) if self.failed else 0
        failed = count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0
        return Decision(meaning, _code(word, words), results, failed, unread)

    def _results(self, answer: Any, asked: Collection[str]) -> tuple[dict[str, tuple[Meaning, str]], int]:
        listed = found(answer, self.results) if self.results else _ABSENT
        if listed in (_ABSENT, None, "", {}):
            return {}, 0
        if not isinstance(listed, list):
            return {}, 1
        results: dict[str, tuple[Meaning, str]] = {}
        unread = max(0, len(listed) - MAX_RESULTS)
        for one in listed[:MAX_RESULTS]:
            name, word = _word(found(one, self.result_id)), _word(found(one, self.result_code))
            if name is None or word is None or name not in asked or name in results:
                unread += 1
            else:
                results[name] = (self.codes.get(word, self.other), _code(word, ""))
        return results, unread


def found(content: Any, path: str) -> Any:
    """Return what stands at a path like "data.code" in an answer, or something that is nothing else."""
    for name in path.split("."):
        content = content.get(name, _ABSENT) if isinstance(content, dict) else _ABSENT
    return content


def word_of(value: object) -> str:
    """Return a code as it is compared: 0, "0" and 0.0 are one code."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _word(value: Any) -> str | None:
    return word_of(value)[:_SAID] if isinstance(value, str | int | float) else None


def _code(word: str, words: str) -> str:
    return f"code-{clean(word)}{': ' if words else ''}{words}"


def clean(text: str) -> str:
    """Leave one line of printable characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:_SAID]
