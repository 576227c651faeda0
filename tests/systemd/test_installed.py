"""Installed by the document on a booted Debian: it runs as it should, hears, delivers, and comes back whatever is done to it.

Debian 12 has systemd 252 and Python 3.11, Debian 13 has systemd 257 and Python 3.13. Every test leaves the service running.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Eventually = Callable[..., None]
CREDENTIALS = "/etc/daycare-gateway/credentials"
BLUEZ_SERVICE = "/usr/share/dbus-1/system-services/org.bluez.service"
WATCHDOG_S = 10


def codes(status: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["code"], one["subject"]) for one in status["problems"]}


def gaps(platform: Any, link: str) -> list[dict[str, Any]]:
    return [
        one["data"] for one in platform.accepted() if one["noun"] == "gateway.gap" and one["data"]["link"] == link
    ]  # fmt: skip


def test_it_is_active_and_runs_as_its_own_user_without_a_privilege(machine: Any) -> None:
    machine.figures["ready_s"] = machine.restart()
    assert machine.show("ActiveState") == "active"
    status = dict(
        line.split(":\t", 1)
        for line in machine.run(f"cat /proc/{machine.main_pid()}/status").splitlines()
        if ":\t" in line
    )
    user, dialout = machine.run("id -u daycare-gateway; getent group dialout | cut -d: -f3").split()
    assert user != "0"
    assert status["Uid"].split() == [user] * 4
    assert dialout in status["Groups"].split()
    assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert status["Seccomp"] == "2"
    machine.figures["rss_mb"] = round(int(status["VmRSS"].split()[0]) / 1024)


def test_the_control_socket_is_for_root_and_the_group_only(machine: Any) -> None:
    shown = machine.run("stat -c '%A %U %G' /run/daycare-gateway /run/daycare-gateway/control.sock").splitlines()
    assert shown == ["drwxr-x--- daycare-gateway daycare-gateway", "srw-rw---- daycare-gateway daycare-gateway"]
    machine.run("id tech || useradd -G daycare-gateway tech; id other || useradd other")
    seen = machine.run("runuser -u tech -- gateway status --json", ok=(0, 1, 2))
    assert json.loads(seen)["gateway"]["id"] == "gw-01"
    refused = machine.run("runuser -u other -- gateway --lang en status 2>&1", ok=(1, 2, 3))
    assert "GW-CTL-02" in refused


def test_the_service_manager_shows_how_it_is_in_one_line(machine: Any, eventually: Eventually) -> None:
    eventually(lambda: "open alarms: 0; deaf: " in machine.show("StatusText"), machine.show("StatusText"))
    assert "no platform: district" in machine.show("StatusText")


def test_a_missing_bluez_and_one_without_an_adapter_do_not_delay_it(machine: Any) -> None:
    """org.bluez without an adapter is started by the first who calls it, and does not answer for 25 s."""
    machine.run(f"test -e {BLUEZ_SERVICE} && test ! -e /sys/class/bluetooth")
    began = machine.now()
    machine.figures["ready_bluez_without_adapter_s"] = ready = machine.restart()
    assert ready < 15
    asked = machine.until_status("asking BlueZ", lambda status: status["links"][0]["hearing"] is False)
    assert asked["uptime_s"] < 20
    assert "Failed with result" not in machine.run(f"journalctl -q --no-pager -u daycare-gateway --since=@{began}")
    machine.run(f"mv {BLUEZ_SERVICE} /root/org.bluez.service; systemctl reload dbus")
    try:
        machine.figures["ready_without_bluez_s"] = ready = machine.restart()
        assert ready < 15
        machine.until_status("telling that there is no BlueZ", lambda status: ("GW-BLE-02", "radio") in codes(status))
    finally:
        machine.run(f"mv /root/org.bluez.service {BLUEZ_SERVICE}; systemctl reload dbus")


def test_systemd_finds_nothing_to_say_about_unit_rules_and_hardening(machine: Any) -> None:
    assert machine.run("systemd-analyze verify daycare-gateway.service 2>&1") == ""
    score = machine.run("systemd-analyze security daycare-gateway --no-pager | tail -1")
    machine.figures["exposure"] = exposure = float(score.split(": ")[1].split()[0])
    assert exposure <= 1.8
    rules = "/etc/udev/rules.d/60-daycare-gateway.rules"
    if machine.suite == "bookworm":  # its udevadm does not verify, but whoever reads rules says what it cannot read
        said = machine.run("udevadm --debug test /sys/devices/virtual/mem/null 2>&1")
        assert f"Reading rules file: {rules}" in said
        assert [line for line in said.splitlines() if line.startswith(f"{rules}:")] == []
    else:
        assert "1 udev rules files have been checked" in machine.run(f"udevadm verify {rules} 2>&1")


def test_a_call_on_a_serial_port_is_stored_and_delivered(machine: Any, platform: Any, board: Any) -> None:
    machine.until_status("connected", lambda status: status["destinations"][0]["connected"])
    board.press_until_acknowledged(1)
    machine.until_status("delivered", lambda status: status["destinations"][0]["pending"]["A"] == 0)
    alarms = [one for one in platform.accepted() if one["noun"] == "alarm.raised"]
    assert [one["subject"] for one in alarms] == ["device/board-1"]


def test_it_knows_whether_the_clock_is_set_although_it_may_not_touch_it(machine: Any) -> None:
    assert machine.status()["clock"]["state"] == "unsynced"
    machine.run("mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized")
    machine.until_status("synced", lambda status: status["clock"]["state"] == "synced")
    machine.run("rm /run/systemd/timesync/synchronized")


def test_its_log_is_json_without_a_traceback(machine: Any) -> None:
    events = [json.loads(line) for line in machine.journal()]
    assert len(events) > 10
    assert [one for one in events if "exception" in one] == []


def missing_secrets(machine: Any) -> list[str]:
    """Start the service anew; return what secrets it says that it does not have."""
    machine.restart()
    problems = machine.status()["problems"]
    return sorted(one["facts"]["reference"] for one in problems if one["code"] == "GW-CFG-21")


def test_each_secret_reaches_it_by_its_file_s_name_and_none_keeps_it_from_starting(machine: Any) -> None:
    both = ["credential:call-201-1", "credential:platform-password"]
    assert missing_secrets(machine) == []
    machine.run(f"cp -a {CREDENTIALS} /root/kept")
    machine.run(f"rm {CREDENTIALS}/call-201-1")
    assert missing_secrets(machine) == both[:1]
    machine.run(f"rm {CREDENTIALS}/*")
    assert missing_secrets(machine) == both
    machine.run(f"rmdir {CREDENTIALS}")
    assert missing_secrets(machine) == both
    # What a start of systemd would fail for: a name that it does not allow, and 1 MiB of secrets.
    machine.run(
        f"cp -a /root/kept {CREDENTIALS}; cd {CREDENTIALS}; echo x >密码.txt; echo x >a:b; mkfifo pipe; mkdir sub"
    )
    machine.run(f"head -c 2000000 /dev/zero >{CREDENTIALS}/photo.jpg; ln -s /nowhere {CREDENTIALS}/nowhere")
    machine.run(f"for n in $(seq 200); do echo {'0' * 32} >{CREDENTIALS}/key-$n; done")
    began = machine.now()
    assert missing_secrets(machine) == []
    told = machine.run(f"journalctl -q --no-pager -o cat -u daycare-gateway --since=@{began}")
    refused = re.findall(r"credential not taken .*: (.*)", told)
    assert {"a:b", "photo.jpg", "pipe", "sub", "nowhere"} < set(refused)
    assert len(refused) == 6  # find shows the Chinese name in a way of its own
    machine.run(f"rm -rf {CREDENTIALS}; mv /root/kept {CREDENTIALS}")
    assert missing_secrets(machine) == []


def test_secrets_are_root_s_and_the_gateway_s_alone(machine: Any) -> None:
    modes = machine.run(
        f"stat -c '%a %U' {CREDENTIALS} {CREDENTIALS}/call-201-1 /run/daycare-gateway-credentials"
    ).split("\n")
    assert modes[:3] == ["700 root", "600 root", "700 root"]
    pid = machine.main_pid()
    secrets = machine.run("cd /etc/daycare-gateway/credentials; cat *").split()
    shown = machine.run(
        f"tr '\\0' '\\n' </proc/{pid}/environ; tr '\\0' ' ' </proc/{pid}/cmdline; journalctl -q --no-pager"
    )
    assert secrets
    assert [one for one in secrets if one in shown] == []
    machine.run("runuser -u other -- cat /run/credentials/daycare-gateway.service/daycare_call-201-1", ok=(1,))


def test_a_stop_is_orderly(machine: Any, board: Any) -> None:
    board.press_until_acknowledged(2)
    began, at = time.monotonic(), machine.now()
    machine.run("systemctl stop daycare-gateway")
    machine.figures["stop_s"] = took = round(time.monotonic() - began, 1)
    assert took < 15
    assert (machine.show("Result"), machine.show("ExecMainStatus")) == ("success", "0")
    assert [json.loads(line)["event"] for line in machine.journal(since=at)][-1] == "ended"
    machine.run("systemctl start daycare-gateway")


def test_a_kill_is_followed_by_a_start_and_by_a_gap_that_is_told(machine: Any, platform: Any, board: Any) -> None:
    board.press_until_acknowledged(3)
    # The gap before this start is told some time after the board is connected.
    machine.until_status("hearing", lambda status: status["links"][1]["hearing"])
    machine.until_status("delivered", lambda status: not any(status["destinations"][0]["pending"].values()))
    known = len(gaps(platform, "wire"))
    pid = machine.main_pid()
    machine.run(f"kill -KILL {pid}")
    machine.figures["active_after_kill_s"] = machine.until_anew(pid)
    machine.until_status("hearing", lambda status: status["links"][1]["hearing"])
    machine.until_status("delivered", lambda status: not any(status["destinations"][0]["pending"].values()))
    new = gaps(platform, "wire")[known:]
    assert [one["reason"] for one in new] == ["restart"]
    board.press_until_acknowledged(4)


def test_a_process_that_stands_still_is_replaced(machine: Any, platform: Any, board: Any) -> None:
    board.press_until_acknowledged(5)
    pid, at = machine.main_pid(), machine.now()
    machine.run(f"kill -STOP {pid}")
    machine.figures["active_after_standstill_s"] = took = machine.until_anew(pid)
    assert took < WATCHDOG_S + 20
    told = machine.run(f"journalctl -q --no-pager -o cat -u daycare-gateway --since=@{at}")
    assert f"Watchdog timeout (limit {WATCHDOG_S}s)!" in told
    assert "Fatal Python error: Aborted" in told  # and where every thread stood
    assert "in run_forever" in told
    board.press_until_acknowledged(6)


def test_a_disk_that_hangs_is_not_mended_by_a_restart_and_alarms_go_out(
    machine: Any, platform: Any, board: Any, eventually: Eventually
) -> None:
    if not (machine.folder / "disk.img").exists():
        pytest.skip("no loop device for a disk that can be frozen")
    board.press_until_acknowledged(7)
    for alarm in json.loads(machine.run("gateway alarm list --json")):
        machine.run(f"gateway alarm close {alarm['id']} --by tech --why test")
    machine.until_status("idle", lambda status: not any(status["destinations"][0]["pending"].values()))
    pid = machine.main_pid()
    machine.run("fsfreeze --freeze /var/lib/daycare-gateway")
    try:
        frozen, raised = time.monotonic(), len(platform.accepted())
        board.press(8)
        eventually(lambda: len(platform.accepted()) > raised, "the alarm did not go out")
        machine.figures["alarm_out_of_frozen_disk_s"] = round(time.monotonic() - frozen, 1)
        assert platform.accepted()[-1]["noun"] == "alarm.raised"
        machine.until_status("telling it", lambda status: ("GW-RUN-05", "") in codes(status))
        eventually(lambda: time.monotonic() - frozen > 2.5 * WATCHDOG_S, "time stands still")
        assert machine.main_pid() == pid
        assert not board.acknowledged(8)
    finally:
        machine.run("fsfreeze --unfreeze /var/lib/daycare-gateway")
    eventually(lambda: board.acknowledged(8), "what was stored late was not acknowledged")
    machine.until_status("well", lambda status: ("GW-RUN-05", "") not in codes(status))
    assert machine.main_pid() == pid


def test_a_configuration_that_cannot_run_is_tried_until_it_can(machine: Any, eventually: Eventually) -> None:
    machine.run("cd /etc/daycare-gateway; cp -a gateway.toml /root/; echo '[gateway' >gateway.toml")
    pid = machine.main_pid()
    before = int(machine.show("NRestarts"))
    machine.run("kill -KILL $(systemctl show -P MainPID daycare-gateway)")
    eventually(lambda: int(machine.show("NRestarts")) >= before + 7, "it was given up")  # systemd's own limit is 5
    assert "GW-CFG-" in "\n".join(machine.journal()[-20:])
    machine.run("cp -a /root/gateway.toml /etc/daycare-gateway/gateway.toml")
    machine.until_anew(pid)
    assert machine.status()["gateway"]["id"] == "gw-01"


def test_after_its_removal_data_and_configuration_are_left(machine: Any) -> None:
    document = (machine.folder / "release" / "docs" / "install.md").read_text(encoding="utf-8")
    removal = re.search(r"^```sh removal\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    assert removal
    machine.run(removal[1])
    left = machine.run(
        "ls -d /opt/daycare-gateway /var/lib/daycare-gateway/outbox.db /etc/daycare-gateway/gateway.toml 2>/dev/null",
        ok=(2,),
    )
    assert left.split() == ["/etc/daycare-gateway/gateway.toml", "/var/lib/daycare-gateway/outbox.db"]
    assert machine.run("systemctl is-active daycare-gateway || true").strip() == "inactive"
