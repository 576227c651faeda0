"""Which models an advert of a stranger may be: every driver is asked, without a key, and none is trusted not to fail.

Of several that read it, the one whose own vectors speak of the same things comes first. What is encrypted is recognised by its
frame alone; what only an identity tells (a beacon) is told as that. Pure.
Limit: one decoding a driver, some tens of microseconds each; for a technician who looks, not for the daemon's hearing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.kit.observations import Counter, Decoded, Observation, Reading, Reason, Rejected
from drivers.kit.shapes import Advert, Advertises

_LOCKED = frozenset({Reason.NO_KEY, Reason.BAD_KEY})


@dataclass(frozen=True, slots=True)
class Recognised:
    """One model that an advert may be of.

    `locked`: it is encrypted, and only its key will tell more; `harmless`: but it is of a kind that never calls. `identity`:
    what names it where its address does not, for its options; "" for what has an address. `counter`: tells one press from the
    next; None where the protocol has none.
    """

    driver: Advertises
    said: tuple[Observation, ...] = ()
    locked: bool = False
    harmless: bool = False
    identity: str = ""
    counter: Counter | None = None


def recognise(advert: Advert, drivers: Iterable[Advertises]) -> tuple[Recognised, ...]:
    """Return the models that an advert may be of, the likeliest first."""
    found = [one for driver in drivers if (one := _asked(advert, driver)) is not None]
    return tuple(sorted(found, key=_rank))


def _asked(advert: Advert, driver: Advertises) -> Recognised | None:
    try:
        decoded = driver.decode(advert, None)
        identities = driver.identify(advert) if driver.identify is not None else ()
    except Rejected as rejected:
        if rejected.reason in _LOCKED:
            return Recognised(driver, locked=True, harmless=rejected.harmless, counter=rejected.counter)
        return _by_identity(advert, driver)
    except Exception:  # noqa: BLE001 - one driver that stumbles must not hide a stranger from the others
        return None
    return Recognised(driver, decoded.observations, identity=next(iter(identities), ""), counter=decoded.counter)


def _by_identity(advert: Advert, driver: Advertises) -> Recognised | None:
    try:
        identities = driver.identify(advert) if driver.identify is not None else ()
    except Exception:  # noqa: BLE001 - as in `_asked`: who cannot say whose it is does not know it
        return None
    return Recognised(driver, identity=identities[0]) if identities else None


def _rank(one: Recognised) -> tuple[int, int, str]:
    """Sort by whether something was read, how much of it the model's own vectors speak of, and the name."""
    told = {_kind(seen) for seen in one.said}
    known = {
        _kind(seen)
        for vector in one.driver.vectors
        if isinstance(vector.expect, Decoded)
        for seen in vector.expect.observations
    }
    return (0 if one.said else 1, -len(told & known), one.driver.model)


def _kind(seen: Observation) -> str:
    return seen.quantity if isinstance(seen, Reading) else seen.kind.value
