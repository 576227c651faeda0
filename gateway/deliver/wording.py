"""How a stored row is put into words for one destination: its age, its try, and what is left of an alarm in minimal form.

The minimal form is for an alarm that a platform refuses as it is: what it is, whose, where and when, each text at most
`SHORT` characters, and nothing that a device or a person could have put in at length. It is still a valid event.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.clock import SYNCED, Boots, Clock, Stamp, Told, iso
from gateway.events import Lane, Sending, Stored, sending_text

BUFFERED_AFTER_MS: Final = 5_000
HISTORIC_AFTER_MS: Final = 600_000
SHORT: Final = 64
_ATTRIBUTES: Final = (
    "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partitionkey", "correlationid",
)  # fmt: skip
_ESSENTIALS: Final = ("kind", "state", "priority", "room", "bed", "presses", "verified", "test", "org_path", "clock")


class Wording:
    """The tries of each row that is on its way, and its text. `resent` counts second and later tries."""

    def __init__(self, destination: str, clock: Clock, boots: Boots) -> None:
        self._destination = destination
        self._clock = clock
        self._boots = boots
        self._attempts: dict[str, int] = {}
        self._began_ms = 0
        self.streamid = ""
        self.resent = 0

    def begin_session(self) -> None:
        """What was stored before now has waited for a connection."""
        self._began_ms = self._clock.stamp().mono_ms

    def begin_stream(self, streamid: str) -> None:
        """The rows are of a new stream."""
        self.streamid = streamid
        self._attempts.clear()

    def tried(self, event_id: str) -> int:
        """How often a row went out."""
        return self._attempts.get(event_id, 0)

    def has_waited(self, row: Stored, *, now: Stamp) -> bool:
        """Did it happen before this connection was there?"""
        return row.at.boot != now.boot or row.at.mono_ms < self._began_ms

    def finished(self, event_id: str) -> None:
        """A row does not go again."""
        self._attempts.pop(event_id, None)

    def text(self, row: Stored, *, now: Stamp | None = None) -> str:
        """Return a row as it goes out now. Whatever a row that cannot be put into words raises passes."""
        now = now or self._clock.stamp()
        age_ms = self._boots.age_ms(row.at, now)
        # What happened before this boot is no younger than the boot, even if nobody can tell how old it is.
        least_ms = now.mono_ms if age_ms is None else age_ms
        attempt = self._attempts[row.id] = self._attempts.get(row.id, 0) + 1
        if attempt > 1:
            self.resent += 1
        buffered = least_ms > BUFFERED_AFTER_MS or self.has_waited(row, now=now)
        historic = row.lane is Lane.A and least_ms > HISTORIC_AFTER_MS
        told = self._told(row.at, now)
        if told is not None and row.noun == "gateway.gap":
            row = row._replace(body=self._gap_retold(row))
        how = Sending(
            self._destination, self.streamid, age_ms, attempt, buffered=buffered, historic=historic, least_age_ms=least_ms,
            told=told,
        )  # fmt: skip
        return sending_text(row, how)

    def _told(self, at: Stamp, now: Stamp) -> Told | None:
        """Return a time that is known better than it was stored; None where it is not, which is cheap to send."""
        if at.clock == SYNCED:
            return None
        told = self._boots.told(at)
        return told if told.is_trusted or at.boot != now.boot else None

    def _gap_retold(self, row: Stored) -> str:
        """Put the limits of a silence right, each by the offset of its boot, as far as that is known."""
        whole: dict[str, Any] = json.loads(row.body)
        data = whole["data"]
        limits = {"from": data.get("from_boot", row.at.boot), "to": data.get("to_boot", row.at.boot)}
        for name, boot in limits.items():
            mono_ms = data.get(f"{name}_mono_ms")
            moment_ms = self._boots.moment_ms(str(boot), mono_ms) if isinstance(mono_ms, int) else None
            if moment_ms is not None:
                data[name] = iso(moment_ms)
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def fits(text: str, most: int) -> bool:
    """Is a text, in a batch's brackets, within so many bytes?"""
    return len(text) * 4 <= most or len(text.encode()) <= most - 2


def minimal(row: Stored) -> Stored:
    """Return an alarm in minimal form. Raises ValueError, KeyError or TypeError for a body that is no event."""
    whole: dict[str, Any] = json.loads(row.body)
    kept: dict[str, Any] = {name: whole[name] for name in _ATTRIBUTES if name in whole}
    data = {name: _short(whole["data"][name]) for name in _ESSENTIALS if name in whole["data"]}
    kept["data"] = {**data, "minimal": True}  # last: the sending splices into it
    return row._replace(body=json.dumps(kept, separators=(",", ":")))


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value[:SHORT]
    if isinstance(value, list):
        return [_short(one) for one in value[:5]]
    if isinstance(value, dict):
        return {name[:SHORT]: _short(one) for name, one in list(value.items())[:5]}
    return value
