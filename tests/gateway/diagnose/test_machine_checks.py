"""Power, clock, storage, service, security and version: each probe on a machine that is well and on ones that are not."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import __version__
from gateway.diagnose.daemon import Daemon, DaemonState, look_at_daemon
from gateway.diagnose.report import Line
from gateway.outbox.inspect import Inspection
from gateway.texts.amounts import Size

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Authority, Centre
else:
    Authority = Centre = Any

Look = Callable[[Any, str], list[Line]]
Told = Callable[[list[Line]], list[tuple[str, str, str]]]

WELL = Inspection(
    schema=1, wal=True, check="ok", file_bytes=4096, used_bytes=4096, rows={"A": 0, "B": 0, "C": 0, "D": 0}, pending={},
    oldest_ms=None, recorded_ms=None, dead={}, last_ms={}, counters=frozenset(), open_alarms=(),
)  # fmt: skip


def running(**status: Any) -> Daemon:
    return Daemon(DaemonState.RUNNING, {"version": __version__, "uptime_s": 3600.0, **status}, pid=os.getpid())


# -- power -------------------------------------------------------------------------------------------------------


def test_a_pi_with_enough_power_is_well(centre: Centre, look: Look, told: Told) -> None:
    assert told(look(centre.site(), "power")) == [
        ("GW-PWR-01", "", "ok"), ("GW-PWR-03", "", "ok"), ("GW-PWR-04", "", "skipped"),
    ]  # fmt: skip
    assert look(centre.site(), "power")[1].value == "48 °C"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1", ("GW-PWR-01", "", "problem")),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005", ("GW-PWR-01", "", "problem")),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50000", ("GW-PWR-02", "", "warning")),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "0x2", ("GW-PWR-02", "", "warning")),
        ("sys/class/thermal/thermal_zone0/temp", "80000", ("GW-PWR-03", "", "warning")),
    ],
)
def test_too_little_voltage_and_too_much_heat_are_told(
    centre: Centre, look: Look, told: Told, name: str, content: str, expected: tuple[str, str, str]
) -> None:
    centre.put(name, content)
    assert expected in told(look(centre.site(), "power"))


def test_a_throttling_word_in_hexadecimal_without_its_prefix_is_not_read_as_decimal(
    centre: Centre, look: Look, told: Told
) -> None:
    """0x20000 says that the frequency was capped since boot; 20000 in decimal would be 0x4e20."""
    centre.put("sys/devices/platform/soc/soc:firmware/get_throttled", "20000")
    assert told(look(centre.site(), "power"))[0] == ("GW-PWR-02", "", "warning")
    assert look(centre.site(), "power")[0].value == "0x20000"


def test_a_battery_that_feeds_us_and_runs_low_is_told(centre: Centre, look: Look, told: Told) -> None:
    centre.put("sys/class/power_supply/ups/type", "Battery")
    centre.put("sys/class/power_supply/ups/capacity", "29")
    centre.put("sys/class/power_supply/ups/status", "Discharging")
    centre.put("sys/class/power_supply/ac/type", "Mains")
    centre.put("sys/class/power_supply/ac/online", "1")
    assert told(look(centre.site(), "power"))[2:] == [
        ("GW-PWR-04", "ac", "ok"), ("GW-PWR-05", "ups", "problem"), ("GW-PWR-04", "ups", "problem"),
    ]  # fmt: skip


def test_a_machine_that_tells_nothing_of_its_power_is_skipped_with_the_reason(
    centre: Centre, look: Look, told: Told
) -> None:
    (centre.root / "sys/class/hwmon/hwmon0/in0_lcrit_alarm").unlink()
    (centre.root / "sys/class/thermal/thermal_zone0/temp").unlink()
    found = look(centre.site(), "power")
    assert [line.verdict for line in found] == ["skipped", "skipped", "skipped"]
    assert [line.words(line.why, "zh") for line in found] == [
        "这台机器不报告电压", "这台机器不报告温度", "没有发现 UPS 或电池",
    ]  # fmt: skip


# -- clock -------------------------------------------------------------------------------------------------------


def test_a_synchronised_clock_with_a_chip_is_well(centre: Centre, look: Look, told: Told) -> None:
    assert told(look(centre.site(), "clock")) == [
        ("GW-CLK-01", "", "ok"), ("GW-CLK-03", "", "ok"), ("GW-CLK-02", "", "ok"),
    ]  # fmt: skip


def test_without_the_mark_of_timesyncd_the_system_is_asked(centre: Centre, look: Look, told: Told) -> None:
    """chrony leaves no such file."""
    (centre.root / "run/systemd/timesync/synchronized").unlink()
    centre.command("timedatectl", "yes")
    assert told(look(centre.site(), "clock"))[0] == ("GW-CLK-01", "", "ok")
    centre.command("timedatectl", "no")
    assert told(look(centre.site(), "clock"))[0] == ("GW-CLK-01", "", "warning")


def test_no_chip_matters_only_while_the_clock_is_not_set(centre: Centre, look: Look, told: Told) -> None:
    (centre.root / "sys/class/rtc/rtc0/name").unlink()
    (centre.root / "sys/class/rtc/rtc0").rmdir()
    assert told(look(centre.site(), "clock"))[1] == ("GW-CLK-03", "", "ok")
    (centre.root / "run/systemd/timesync/synchronized").unlink()
    centre.command("timedatectl", "no")
    assert told(look(centre.site(), "clock"))[:2] == [("GW-CLK-01", "", "warning"), ("GW-CLK-03", "", "warning")]


@pytest.mark.parametrize(
    ("alive", "recorded", "now", "verdict"),
    [
        (None, None, 1_767_225_600_000, "ok"),  # 2026-01-01T00:00:00Z
        (None, None, 1_700_000_000_000, "problem"),
        (None, 1_795_000_000_000, 1_794_999_950_000, "ok"),  # less than a minute of difference is nobody's fault
        (None, 1_795_000_000_000, 1_794_999_000_000, "problem"),
        (1_796_000_000_000, None, 1_795_000_000_000, "problem"),
    ],
)
def test_a_clock_before_a_time_that_has_been_is_wrong(
    centre: Centre, look: Look, alive: int | None, recorded: int | None, now: int, verdict: str
) -> None:
    if alive is not None:
        stamp = f'{{"wall_ms": {alive}, "mono_ms": 1, "boot": "b", "clock": "synced"}}'
        (centre.data / "alive").write_text(stamp, encoding="ascii")
    database = None if recorded is None else Inspection(**{**_as_dict(WELL), "recorded_ms": recorded})
    (line,) = [one for one in look(centre.site(now_ms=now, database=database), "clock") if one.code == "GW-CLK-02"]
    assert line.verdict == verdict


def _as_dict(inspection: Inspection) -> dict[str, Any]:
    return {name: getattr(inspection, name) for name in Inspection.__slots__}


# -- storage -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(centre: Centre) -> Iterator[Path]:
    """A file system of 24 MiB under the data directory."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", centre.data], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount")
    yield centre.data
    subprocess.run(["umount", "--lazy", centre.data], check=True)


def test_a_disk_that_fills_up_is_told_before_it_is_full(
    centre: Centre, look: Look, told: Told, small_disk: Path
) -> None:
    assert told(look(centre.site(), "storage"))[0] == ("GW-STO-06", "", "warning")
    with (small_disk / "ballast").open("wb") as file:
        file.write(bytes(16 * 1024 * 1024))
    found = look(centre.site(), "storage")[0]
    assert (found.code, found.verdict) == ("GW-STO-03", "problem")
    assert found.words(found.value, "zh") == "还剩 8.0 MiB（共 24.0 MiB）"
    assert found.facts["free"] == Size(8 * 1024 * 1024)


def test_a_database_in_memory_is_no_database(centre: Centre, look: Look, told: Told, small_disk: Path) -> None:
    assert ("GW-STO-10", "", "problem") in told(look(centre.site(), "storage"))


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ("rw,relatime - ext4 /dev/root rw", ["GW-STO-08 ok"]),
        ("ro,relatime - ext4 /dev/root rw", ["GW-STO-08 problem"]),
        ("rw,relatime - ext4 /dev/root rw,nobarrier", ["GW-STO-09 problem"]),
        ("rw - ext4 /dev/root ro,data=writeback", ["GW-STO-08 problem", "GW-STO-09 problem"]),
        ("rw - ext4 /dev/root rw,commit=60,data=ordered", ["GW-STO-08 ok"]),
    ],
)
def test_how_the_disk_is_mounted_is_judged(centre: Centre, look: Look, options: str, codes: list[str]) -> None:
    device = centre.data.stat().st_dev
    (centre.root / "proc/self").unlink()
    point = f"36 35 {os.major(device)}:{os.minor(device)} / {centre.folder} {options}\n"
    centre.put("proc/self/mountinfo", f"20 1 {os.major(device)}:{os.minor(device)} / / rw - ext4 /dev/root rw\n{point}")
    found = [line for line in look(centre.site(), "storage") if line.what == "mount"]
    assert [f"{line.code} {line.verdict}" for line in found] == codes


@pytest.mark.parametrize(
    ("life", "end", "verdict"), [("0x01 0x02", "0x01", "ok"), ("0x03 0x09", "0x01", "warning"), ("0x01 0x01", "0x02", "warning")]
)  # fmt: skip
def test_a_card_that_is_worn_out_is_told(centre: Centre, look: Look, life: str, end: str, verdict: str) -> None:
    device = centre.data.stat().st_dev
    centre.put(f"sys/dev/block/{os.major(device)}:{os.minor(device)}/device/life_time", life)
    centre.put(f"sys/dev/block/{os.major(device)}:{os.minor(device)}/device/pre_eol_info", end)
    (line,) = [one for one in look(centre.site(), "storage") if one.what == "wear"]
    assert (line.code, line.verdict) == ("GW-STO-11", verdict)


def test_figures_of_the_database_are_judged(centre: Centre, look: Look, told: Told) -> None:
    bad = {
        "wal": False, "check": "row 7 missing from index", "used_bytes": 430 * 1024 * 1024, "oldest_ms": 1_795_000_000_000,
        "rows": {"A": 1, "B": 2, "C": 3, "D": 4}, "dead": {"district": (3, 0), "province": (2, 1)},
    }  # fmt: skip
    site = centre.site(database=Inspection(**{**_as_dict(WELL), **bad}), now_ms=1_795_003_600_000)
    found = [
        line for line in look(site, "storage") if line.what not in ("space", "inodes", "mount", "wear", "set-aside")
    ]
    assert told(found) == [
        ("GW-STO-12", "", "problem"), ("GW-STO-13", "", "warning"), ("GW-STO-04", "", "problem"),
        ("GW-STO-14", "district", "warning"), ("GW-STO-14", "province", "problem"),
    ]  # fmt: skip
    depth = found[2]
    assert depth.words(depth.value, "zh") == (
        "A/B/C/D 共存 1/2/3/4，占 430.0 MiB / 512.0 MiB（84%），最早的等了 1 小时 0 分"
    )


def test_a_check_that_was_not_finished_is_skipped_not_well(centre: Centre, look: Look) -> None:
    site = centre.site(database=Inspection(**{**_as_dict(WELL), "check": ""}))
    (line,) = [one for one in look(site, "storage") if one.what == "database"]
    assert line.verdict == "skipped"


def test_databases_that_were_set_aside_are_told(centre: Centre, look: Look) -> None:
    (centre.data / "outbox.db.corrupt-1795000000000").write_bytes(bytes(2048))
    (centre.data / "outbox.db.corrupt-1795000000000-wal").write_bytes(b"x")
    (line,) = [one for one in look(centre.site(), "storage") if one.what == "set-aside"]
    assert (line.code, line.verdict, line.facts["count"]) == ("GW-STO-15", "warning", 1)


# -- service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, ["GW-VER-02 ok"]),
        ({"LoadState": "not-found"}, ["GW-VER-02 problem"]),
        ({"UnitFileState": "disabled"}, ["GW-VER-03 problem"]),
        ({"ActiveState": "failed", "SubState": "failed"}, ["GW-VER-04 warning"]),
        ({"NRestarts": "3"}, ["GW-VER-04 warning"]),
    ],
)
def test_the_unit_is_judged(centre: Centre, look: Look, change: dict[str, str], codes: list[str]) -> None:
    said = {
        "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled", "NRestarts": "0",
    }  # fmt: skip
    centre.command("systemctl", "\n".join(f"{name}={value}" for name, value in {**said, **change}.items()))
    found = [line for line in look(centre.site(), "service") if line.code.startswith("GW-VER")]
    assert [f"{line.code} {line.verdict}" for line in found] == codes


def test_a_machine_without_systemd_is_skipped(centre: Centre, look: Look) -> None:
    (centre.root / "run/systemd/system").rmdir()
    (line,) = [one for one in look(centre.site(), "service") if one.what == "unit"]
    assert (line.code, line.verdict) == ("GW-VER-02", "skipped")


def test_a_configuration_that_leaves_nothing_to_run_is_why_the_daemon_is_dead(centre: Centre) -> None:
    centre.configure()
    centre.config.write_text('[gateway]\nid = "gw-01\n', encoding="utf-8")
    report = centre.diagnose()
    first = report.first
    assert first is not None
    assert (first.code, first.value) == ("GW-CFG-04", f"{centre.config}:2")
    dead = next(line for line in report.lines if line.code == "GW-CTL-01")
    assert dead.hidden_by == "GW-CFG-04"


def test_a_configuration_changed_after_the_start_is_not_in_use(centre: Centre, look: Look) -> None:
    site = centre.site(daemon=running(started_at="2026-03-01T00:00:00.000Z"))
    os.utime(centre.config, (1_772_323_201, 1_772_323_201))  # 2026-03-01T00:00:01Z
    assert "GW-VER-06" not in {line.code for line in look(site, "service")}
    os.utime(centre.config, (1_772_323_260, 1_772_323_260))
    assert "GW-VER-06" in {line.code for line in look(site, "service")}


def test_a_data_directory_that_the_service_cannot_write_is_told(centre: Centre, look: Look) -> None:
    (line,) = [one for one in look(centre.site(), "service") if one.what == "data-dir"]
    assert (line.code, line.verdict) == ("GW-RUN-02", "ok")
    centre.data.rmdir()
    centre.data.write_bytes(b"")
    (line,) = [one for one in look(centre.site(), "service") if one.what == "data-dir"]
    assert (line.code, line.verdict) == ("GW-RUN-02", "problem")


def test_a_process_that_holds_the_data_directory_without_a_socket_is_not_dead(centre: Centre, look: Look) -> None:
    lock = centre.data / "lock"
    holder = (
        "import fcntl, os, sys; lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        daemon = look_at_daemon(centre.control, centre.data, centre.machine)
        process.communicate()
    assert (daemon.state, daemon.code, daemon.pid) == ("hung", "GW-CTL-04", process.pid)
    assert look_at_daemon(centre.control, centre.data, centre.machine).state == "dead"


# -- security ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "verdict"), [(365, "ok"), (31.5, "ok"), (30.5, "warning"), (8.5, "warning"), (7.5, "problem"), (-1.0, "problem")]
)  # fmt: skip
def test_our_own_certificate_is_told_at_30_and_at_7_days(
    centre: Centre, authority: Authority, look: Look, days: float, verdict: str
) -> None:
    certificate, key = authority.sign("gw-01", days=days)
    text = f'ca_file = "{authority.file}"\ncert_file = "{certificate}"\nkey_file = "{key}"\n'
    (line,) = [one for one in look(centre.site(text), "security") if one.what == "certificate-own"]
    assert (line.code, line.subject, line.verdict) == ("GW-SEC-10", "district", verdict)


def test_a_configuration_that_all_can_read_is_told(centre: Centre, look: Look) -> None:
    site = centre.site()
    centre.config.chmod(0o644)
    (line,) = [one for one in look(site, "security") if one.what == "config-file"]
    assert (line.code, line.verdict, line.value) == ("GW-SEC-11", "warning", "-rw-r--r--")


def test_devices_without_encryption_are_named(centre: Centre, look: Look) -> None:
    text = """
[[ble]]
id = "radio"
[[device]]
id = "call-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
allow_plain = true
"""
    (line,) = [one for one in look(centre.site(text), "security") if one.what == "plain-devices"]
    assert (line.code, line.verdict) == ("GW-SEC-12", "ok")
    assert line.words(line.value, "zh") == "1 台，都写明了 allow_plain：call-1"


def test_secrets_that_others_can_read_are_told_once(centre: Centre, look: Look) -> None:
    secret = centre.folder / "password"
    secret.write_text("s3cret", encoding="ascii")
    secret.chmod(0o600)
    text = f'username = "gw"\npassword = "file:{secret}"\n'
    (line,) = [one for one in look(centre.site(text), "security") if one.what == "secrets"]
    assert (line.verdict, line.facts["count"]) == ("ok", 1)
    secret.chmod(0o644)
    site = centre.site(text)
    found = [one for one in (*look(site, "security"), *look(site, "service")) if one.code == "GW-CFG-22"]
    assert sorted(one.verdict for one in found) == ["problem", "skipped"]


def test_the_secrets_of_brokers_and_receivers_are_looked_at_as_well(centre: Centre, look: Look) -> None:
    secret = centre.folder / "password"
    key = centre.folder / "receiver"
    for one, content in ((secret, "s3cret"), (key, base64.b64encode(bytes(range(32))).decode())):
        one.write_text(content, encoding="ascii")
        one.chmod(0o600)
    broker = f'url = "mqtt://127.0.0.1:9"\nusername = "gw"\npassword = "file:{secret}"\n'
    text = f'[[mqtt]]\nid = "zigbee"\n{broker}[[receiver]]\nid = "stairs"\nhost = "192.168.8.31"\nkey = "file:{key}"\n'
    (line,) = [one for one in look(centre.site(text), "security") if one.what == "secrets"]
    assert (line.verdict, line.facts["count"]) == ("ok", 2)
    key.chmod(0o644)
    (line,) = [one for one in look(centre.site(text), "security") if one.what == "secrets"]
    assert (line.verdict, line.facts["count"]) == ("skipped", 1)


def test_a_daemon_that_runs_as_root_is_told(centre: Centre, look: Look) -> None:
    centre.put(f"proc/{os.getpid()}/status", "Name:\tpython\nUid:\t990\t0\t0\t0\n")
    (line,) = [one for one in look(centre.site(daemon=running()), "security") if one.what == "user"]
    assert (line.code, line.verdict) == ("GW-SEC-13", "warning")
    centre.put(f"proc/{os.getpid()}/status", "Name:\tpython\nUid:\t990\t990\t990\t990\n")
    (line,) = [one for one in look(centre.site(daemon=running()), "security") if one.what == "user"]
    assert (line.code, line.verdict) == ("GW-SEC-13", "ok")


@pytest.mark.parametrize(("score", "verdict"), [("1.8", "ok"), ("1.9", "warning"), ("9.6", "warning")])
def test_the_confinement_of_the_unit_has_a_limit(centre: Centre, look: Look, score: str, verdict: str) -> None:
    centre.command("systemd-analyze", f"→ Overall exposure level for daycare-gateway.service: {score} OK :-)")
    (line,) = [one for one in look(centre.site(), "security") if one.what == "hardening"]
    assert (line.code, line.verdict, line.value) == ("GW-SEC-14", verdict, score)


# -- version -----------------------------------------------------------------------------------------------------


def test_an_upgrade_that_is_not_in_effect_is_told(centre: Centre, look: Look) -> None:
    assert look(centre.site(daemon=running()), "version")[0].verdict == "ok"
    line = look(centre.site(daemon=running(version="0.0.9")), "version")[0]
    assert (line.code, line.verdict, line.value, line.threshold) == ("GW-VER-01", "warning", "0.0.9", __version__)


def test_what_everything_is_made_of_is_listed(centre: Centre, look: Look) -> None:
    found = look(centre.site(), "version")
    assert "pydantic 2." in found[1].value
    assert found[2].value.startswith("Debian GNU/Linux 12 (bookworm); Linux ")
    assert found[2].value.endswith("BlueZ 5.66")


# -- commands ----------------------------------------------------------------------------------------------------


def test_a_command_that_hangs_is_killed_in_time(centre: Centre) -> None:
    centre.command("systemctl", "LoadState=loaded", sleeps_s=60)
    began = time.monotonic()
    assert centre.machine.run("systemctl", "show", limit_s=0.2) is None
    assert time.monotonic() - began < 30
