"""When nothing could be heard, or taken: the gaps that a platform was told, and the times without a road to it.

Pure functions over ledgers. Limit: a gap window is widened by `GAP_TOLERANCE_S` at both ends, for two clocks read by two
processes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulator.findings import GAP, Taken, moment
from simulator.ledgers import Emission, Ledgers
from simulator.ways import Window

GAP_TOLERANCE_S: Final = 0.05


def is_inside(emission: Emission, window: Window) -> bool:
    """Did all of it, repeats included, come within a window?"""
    return window[0] - GAP_TOLERANCE_S <= emission.t and emission.t_last <= window[1] + GAP_TOLERANCE_S


def gaps_of(taken: Taken) -> list[dict[str, Any]]:
    """Return the gap windows that one destination accepted. One without both ends excuses nothing."""
    return [
        {
            "destination": taken.destination,
            "link": decision.data.get("link"),
            "reason": decision.data.get("reason"),
            "from": moment(decision.data.get("from")),
            "to": moment(decision.data.get("to")),
            "dropped": decision.data.get("dropped", 0),
            "sequences": decision.data.get("sequences") or (),
            "stream": decision.data.get("stream", ""),
            "highest": decision.data.get("highest", 0),
            "highest_is_sure": decision.data.get("highest_is_sure"),
        }
        for decision in taken.first.values()
        if decision.type == GAP
    ]


def merged(gaps: Sequence[Mapping[str, Any]]) -> dict[str, list[Window]]:
    """Merge the windows of each link where they touch: two gaps in a row are one silence."""
    by_link: dict[str, list[Window]] = defaultdict(list)
    whole = [gap for gap in gaps if gap["from"] is not None and gap["to"] is not None and gap["from"] <= gap["to"]]
    for gap in sorted(whole, key=lambda gap: (gap["from"], gap["to"])):
        windows = by_link[str(gap["link"])]
        if windows and gap["from"] <= windows[-1][1] + GAP_TOLERANCE_S:
            windows[-1] = (windows[-1][0], max(gap["to"], windows[-1][1]))
        else:
            windows.append((gap["from"], gap["to"]))
    return by_link


def downtime(ledgers: Ledgers, taken: Taken) -> list[Window]:
    """Return when there was no road: from each kill, or cut of all of a platform, to the first acceptance after it was mended."""
    accepted = sorted(decision.t for decision in taken.first.values())
    found = []
    for broken, mended in (("cut", "heal"), ("kill", "start")):
        concerned = [fault for fault in ledgers.faults if fault.platform in ("", taken.destination) and not fault.way]
        backs = [fault.t for fault in concerned if fault.fault == mended]
        for fault in concerned:
            if fault.fault != broken:
                continue
            back = bisect_right(backs, fault.t)
            after = bisect_right(accepted, backs[back]) if back < len(backs) else len(accepted)
            found.append((fault.t, accepted[after] if after < len(accepted) else float("inf")))
    return found
