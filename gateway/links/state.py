"""What a link says of itself, and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from drivers.kit import Advert
from gateway.clock import Stamp


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link began or ceased to hear. `at` is when: for a link gone deaf, the last moment that it surely heard.

    `problem` is a code of `gateway.problems` when something is wrong, with `facts` for its text.
    """

    link: str
    kind: str
    hearing: bool
    at: Stamp
    problem: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeardAdvert:
    """One advert, stamped on arrival."""

    link: str
    advert: Advert
    at: Stamp


StateCallback = Callable[[LinkState], None]
