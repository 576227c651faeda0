"""The clock: is it set by the network, can it be right at all, and does a chip keep it over a power cut?

adjtimex(2) is asked where no file tells: it needs no privilege here, but fails in a unit with ProtectClock=yes. Limits:
`BUILT_MS` is the time floor of this version; a clock before it is wrong whatever else says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Final

from gateway.clock import BUILT_MS, iso
from gateway.diagnose.report import Line, bad, ok, unknown
from gateway.diagnose.site import Probe, Site
from gateway.outbox.alive import AliveFile

TOLERANCE_MS: Final = 60_000
_SYNCHRONISED: Final = "run/systemd/timesync/synchronized"
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES: Final = 256  # struct timex has 208 on 64 bit


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("clock", "clock-set", "GW-CLK-01", _synchronised)
    yield Probe("clock", "clock-floor", "GW-CLK-02", _floor)


def _synchronised(site: Site) -> Iterable[Line]:
    state = is_synchronised(site)
    if state is None:
        return [unknown("GW-CLK-01", "clock-set", "@diagnose.why-no-clock-state")]
    by = state[1]
    chips = [one.name for one in site.machine.entries("sys/class/rtc")]
    if state[0]:
        return [
            ok("GW-CLK-01", "clock-set", by),
            ok("GW-CLK-03", "clock-chip", ", ".join(chips) or "@diagnose.chip-none"),
        ]
    lines = [bad("GW-CLK-01", "clock-set", by)]
    if not chips:
        lines.append(bad("GW-CLK-03", "clock-chip", "@diagnose.chip-none"))
    return lines


def is_synchronised(site: Site) -> tuple[bool, str] | None:
    """Return whether it is, and who says so; None where nobody can tell."""
    machine = site.machine
    if machine.path(_SYNCHRONISED).exists():
        return True, f"/{_SYNCHRONISED}"
    said = machine.run("timedatectl", "show", "--property=NTPSynchronized", "--value", limit_s=2.0)
    if said is not None and said.status == 0 and said.out in ("yes", "no"):
        return said.out == "yes", f"NTPSynchronized={said.out}"
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else (state != _TIME_ERROR, f"adjtimex={state}")


def _floor(site: Site) -> Iterable[Line]:
    known = [BUILT_MS]
    alive = AliveFile(site.data_dir / "alive").read()
    if alive is not None:
        known.append(alive.wall_ms)
    if site.inspection is not None and site.inspection.recorded_ms is not None:
        known.append(site.inspection.recorded_ms)
    floor, now = max(known), site.now_ms
    make = ok if now >= floor - TOLERANCE_MS else bad
    threshold = f">= {iso(floor - TOLERANCE_MS)}"
    return [make("GW-CLK-02", "clock-floor", iso(now), threshold=threshold, now=iso(now), floor=iso(floor))]
