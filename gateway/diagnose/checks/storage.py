"""What events are kept on: space, the way it is mounted, the card's wear, and the database.

Limits of what counts as well: `SHORT_BYTES` free, `FULL_BYTES` before SQLite fails; 5 % of the inodes; a card at 80 % of
its life by its own count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from gateway.diagnose.report import Line, Verdict, bad, ok, skipped, unknown
from gateway.diagnose.site import Probe, Site
from gateway.errors import StoreError
from gateway.outbox.inspect import Inspection
from gateway.texts.amounts import Age, Size

SHORT_BYTES: Final = 512 * 1024 * 1024
FULL_BYTES: Final = 16 * 1024 * 1024
INODES_SHORT: Final = 0.05
FULL_SHARE: Final = 0.8
LANES: Final = ("A", "B", "C", "D")
# Each was seen to lose or destroy a database at a power cut; `commit=` and the like do no harm.
UNSAFE_OPTIONS: Final = frozenset({"nobarrier", "barrier=0", "data=writeback"})
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
# JEDEC JESD84-B51, EXT_CSD: DEVICE_LIFE_TIME_EST in tenths (0x09: 80 to 90 % used), PRE_EOL_INFO 2 warning, 3 urgent.
LIFE_USED: Final = 0x09
PRE_EOL_WARNING: Final = 2


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("storage", "space", "GW-STO-06", _space)
    yield Probe("storage", "mount", "GW-STO-08", _mount)
    yield Probe("storage", "wear", "GW-STO-11", _wear)
    yield Probe("storage", "database", "GW-STO-12", _database)
    yield Probe("storage", "set-aside", "GW-STO-15", _set_aside)


def _existing(folder: Path) -> Path:
    """Return the folder, or what of its way there is: its file system is the one that counts."""
    return next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))


def _space(site: Site) -> Iterable[Line]:
    found = os.statvfs(_existing(site.data_dir))
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    facts: dict[str, Any] = {"free": Size(free), "whole": Size(whole), "path": str(site.data_dir)}
    what, value, threshold = "space", "@diagnose.space-free", f">= {Size(SHORT_BYTES).say()}"
    if free < FULL_BYTES:
        lines = [bad("GW-STO-03", what, value, threshold=threshold, **facts)]
    elif free < SHORT_BYTES:
        lines = [bad("GW-STO-06", what, value, threshold=threshold, **facts)]
    else:
        lines = [ok("GW-STO-06", what, value, threshold=threshold, **facts)]
    if found.f_files:
        share = found.f_favail / found.f_files
        make = bad if share < INODES_SHORT else ok
        percent = f"{100 * share:.0f} %"
        threshold = f">= {100 * INODES_SHORT:.0f} %"
        lines.append(
            make("GW-STO-07", "inodes", percent, threshold=threshold, percent=percent, path=str(site.data_dir))
        )
    return lines


# -- the file system ---------------------------------------------------------------------------------------------


def _mount(site: Site) -> Iterable[Line]:
    found = _mounted(site)
    if found is None:
        return [unknown("GW-STO-08", "mount", "@diagnose.why-no-mount")]
    kind, options = found
    value = f"{kind} {','.join(sorted(options))}"[:120]
    unsafe = sorted(options & UNSAFE_OPTIONS)
    lines = []
    if "ro" in options:
        lines.append(bad("GW-STO-08", "mount", value, path=str(site.data_dir)))
    if unsafe:
        lines.append(bad("GW-STO-09", "mount", value, options=", ".join(unsafe), path=str(site.data_dir)))
    if kind in IN_MEMORY:
        lines.append(bad("GW-STO-10", "mount", value, kind=kind, path=str(site.data_dir)))
    return lines or [ok("GW-STO-08", "mount", value)]


def _mounted(site: Site) -> tuple[str, set[str]] | None:
    """Return type and options of the file system of the data directory (proc(5), mountinfo)."""
    device = _existing(site.data_dir).stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    folder = str(_existing(site.data_dir).resolve())
    best: tuple[int, str, set[str]] | None = None
    for line in (site.machine.read("proc/self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        head, tail = fields.split(), rest.split()
        if len(head) < 6 or len(tail) < 3 or head[2] != name:
            continue
        point = head[4].encode().decode("unicode_escape")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= best[0]):
            best = len(point), tail[0], {*head[5].split(","), *tail[2].split(",")}
    return None if best is None else best[1:]


def _wear(site: Site) -> Iterable[Line]:
    device = _existing(site.data_dir).stat().st_dev
    block = site.machine.path(f"sys/dev/block/{os.major(device)}:{os.minor(device)}")
    for folder in (block / "device", block.resolve().parent / "device"):
        life, end = site.machine.read(folder / "life_time"), site.machine.number(folder / "pre_eol_info")
        if life is None and end is None:
            continue
        used = max((int(one, 16) for one in (life or "").split()), default=0)
        value = f"life_time {life or '-'}, pre_eol_info {end if end is not None else '-'}"
        make = bad if used >= LIFE_USED or (end or 0) >= PRE_EOL_WARNING else ok
        percent = min(10 * used, 100)
        return [make("GW-STO-11", "wear", value, threshold=f"life_time < 0x{LIFE_USED:02x}", percent=percent)]
    return [skipped("GW-STO-11", "wear", "@diagnose.why-no-wear")]


# -- the database ------------------------------------------------------------------------------------------------


def _database(site: Site) -> Iterable[Line]:
    database = site.database
    path = str(site.data_dir / "outbox.db")
    if database is None:
        return [skipped("GW-STO-12", "database", "@diagnose.why-no-database", path=path)]
    if isinstance(database, StoreError):
        if database.code == "GW-STO-02":
            return [bad("GW-STO-12", "database", path=path, detail=database.facts.get("detail"))]
        lines = [unknown("GW-STO-12", "database", "@diagnose.why-unread", **{**database.facts, "path": path})]
        return [*lines, *_depth_by_daemon(site)]
    return [_integrity(database, path), _journal(database), _depth(site, database), *_dead(database)]


def _integrity(database: Inspection, path: str) -> Line:
    if not database.check:
        return skipped("GW-STO-12", "database", "@diagnose.why-check-late", size=Size(database.file_bytes))
    make = ok if database.check == "ok" else bad
    return make("GW-STO-12", "database", f"quick_check: {database.check}", path=path, detail=database.check)


def _journal(database: Inspection) -> Line:
    # `synchronous` is no property of the file: the gateway sets FULL at each connection.
    make = ok if database.wal else bad
    return make("GW-STO-13", "journal", "WAL, synchronous=FULL" if database.wal else "DELETE", threshold="WAL")


def _depth(site: Site, database: Inspection) -> Line:
    oldest = None if database.oldest_ms is None else Age((site.now_ms - database.oldest_ms) / 1000)
    return _depth_line(site, rows=dict(database.rows), used=database.used_bytes, oldest=oldest)


def _depth_by_daemon(site: Site) -> Iterator[Line]:
    outbox = site.daemon.status.get("outbox")
    if isinstance(outbox, dict):
        yield _depth_line(site, rows=outbox["rows"], used=float(outbox["bytes"]), oldest=None)


def _depth_line(site: Site, *, rows: dict[str, int], used: float, oldest: Age | None) -> Line:
    most = (site.settings.outbox.max_mb if site.settings else 512) * 1024 * 1024
    share = used / most
    facts: dict[str, Any] = {
        "lanes": "/".join(str(rows.get(lane, 0)) for lane in LANES), "oldest": oldest, "used": Size(used),
        "most": Size(most), "percent": round(100 * share),
    }  # fmt: skip
    make = bad if share > FULL_SHARE else ok
    threshold = f"<= {100 * FULL_SHARE:.0f} %"
    return make("GW-STO-04", "depth", "@diagnose.depth-now", threshold=threshold, **facts)


def _dead(database: Inspection) -> Iterator[Line]:
    if not database.dead:
        yield ok("GW-STO-14", "dead-letters", "0", threshold="0")
    for destination, (count, alarms) in database.dead.items():
        line = bad("GW-STO-14", "dead-letters", "@diagnose.dead-now", subject=destination, count=count, alarms=alarms)
        # An alarm that a platform refused for good is known to nobody but us.
        yield Line(
            line.code, line.what, Verdict.PROBLEM if alarms else Verdict.WARNING, destination, line.value, "0",
            facts=line.facts,
        )  # fmt: skip


def _set_aside(site: Site) -> Iterable[Line]:
    if site.data_dir.exists() and not os.access(site.data_dir, os.R_OK | os.X_OK):
        return [unknown("GW-STO-15", "set-aside", "@diagnose.why-no-figure")]  # an empty listing would say "none"
    found = [one for one in site.data_dir.glob("outbox.db.corrupt-*") if one.name.rpartition("-")[2].isdigit()]
    if not found:
        return [ok("GW-STO-15", "set-aside", "0", threshold="0")]
    size = Size(sum(one.stat().st_size for one in found))
    newest = max(found).name
    facts: dict[str, Any] = {"count": len(found), "size": size, "newest": newest, "path": str(site.data_dir)}
    return [bad("GW-STO-15", "set-aside", "@diagnose.set-aside-now", threshold="0", **facts)]
