"""What keeps a port from being used, found without opening it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import serialx

from gateway.links import ports


@pytest.fixture
def pty() -> Iterator[str]:
    """The path of a fresh pty."""
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(slave)
    os.close(master)


@pytest.fixture
def unheld() -> Iterator[str]:
    """The path of a fresh pty that nobody has open."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    yield name
    os.close(master)


@contextlib.contextmanager
def other_process(code: str, port: str, *, prefix: Sequence[str] = ()) -> Iterator[int]:
    """Another process that does something with the port, says so, and stays."""
    command = [*prefix, sys.executable, "-u", "-c", f"import fcntl,os,sys\n{code}\nprint(1); sys.stdin.read()", port]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        yield other.pid
        other.stdin.close()


def test_a_free_port_has_no_problem(unheld: str) -> None:
    assert ports.check(unheld) is None


def test_a_port_that_only_this_process_has_open_has_no_problem(pty: str) -> None:
    assert ports.check(pty) is None


def test_a_missing_port_is_a_problem(tmp_path: Path) -> None:
    problem = ports.check(str(tmp_path / "ttyUSB7"))
    assert problem is not None
    assert problem.code == "GW-SER-01"
    assert problem.facts == {"port": str(tmp_path / "ttyUSB7"), "detail": "No such file or directory"}


def test_a_dangling_by_id_link_is_a_missing_port(tmp_path: Path) -> None:
    (tmp_path / "usb-FTDI").symlink_to("/dev/ttyUSB77")
    problem = ports.check(str(tmp_path / "usb-FTDI"))
    assert problem is not None
    assert problem.code == "GW-SER-01"


def test_a_file_is_not_a_serial_port(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = ports.check(str(tmp_path / "file"))
    assert problem is not None
    assert problem.code == "GW-SER-07"
    assert problem.facts["detail"] == "not a serial port"


def test_a_lock_of_another_process_names_it_even_through_a_link(unheld: str, tmp_path: Path) -> None:
    link = tmp_path / "ttyBUS"
    link.symlink_to(unheld)
    with other_process("fd=os.open(sys.argv[1],os.O_RDWR|os.O_NOCTTY); fcntl.flock(fd,fcntl.LOCK_EX)", unheld) as pid:
        problem = ports.check(str(link))
        assert problem is not None
        assert problem.code == "GW-SER-03"
        assert problem.facts["pid"] == pid
        assert "import fcntl,os,sys" in str(problem.facts["command"])
    assert ports.check(str(link)) is None


def test_a_process_that_has_the_port_open_without_a_lock_holds_it_too(unheld: str) -> None:
    with other_process("fd=os.open(sys.argv[1],os.O_RDWR|os.O_NOCTTY)", unheld) as pid:
        problem = ports.check(unheld)
        assert problem is not None
        assert (problem.code, problem.facts["pid"]) == ("GW-SER-03", pid)


def test_a_pseudo_terminal_of_the_same_number_in_a_container_is_another_one(unheld: str) -> None:
    """A container has /dev/pts of its own, with the numbers from 0 on; its processes are to be seen in /proc."""
    apart = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace can be had here (unshare --mount)")
    code = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", "/dev/pts"], check=True)
held = []
while not os.path.exists(sys.argv[1]):
    held.append(os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY))
    fcntl.ioctl(held[-1], 0x40045431, b"\\0\\0\\0\\0")  # TIOCSPTLCK: unlock it
held.append(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY))
"""
    with other_process(code, unheld, prefix=apart) as pid:
        theirs = [one.stat() for one in Path(f"/proc/{pid}/fd").iterdir()]
        assert Path(unheld).stat().st_rdev in [one.st_rdev for one in theirs]
        assert ports.check(unheld) is None


def test_a_port_without_rights_names_us_and_the_group_that_would_do(unheld: str) -> None:
    # Root may open everything: it becomes nobody meanwhile, which is to the port what the daemon's user is.
    root = os.geteuid() == 0
    if root:
        os.chown(unheld, 0, grp.getgrnam("tty").gr_gid)
        Path(unheld).chmod(0o660)
        os.seteuid(65534)
    else:
        Path(unheld).chmod(0o060)
    try:
        problem = ports.check(unheld)
    finally:
        if root:
            os.seteuid(0)
    assert problem is not None
    assert problem.code == "GW-SER-02"
    assert problem.facts["group"] == "tty"
    assert problem.facts["detail"] == "Permission denied"
    if root:
        assert problem.facts["user"] == "nobody"


def test_a_lock_of_our_own_is_named_when_an_opening_finds_the_port_busy(pty: str) -> None:
    descriptor = os.open(pty, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    problem = ports.explain(pty, OSError(errno.EBUSY, "already locked"))
    os.close(descriptor)
    assert problem.code == "GW-SER-03"
    assert problem.facts["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "GW-SER-01"),
        (OSError(errno.ENODEV, "No such device"), "GW-SER-01"),
        (OSError(errno.ENXIO, "No such device or address"), "GW-SER-01"),
        (PermissionError(errno.EACCES, "Permission denied"), "GW-SER-02"),
        (OSError(errno.EBUSY, "Device or resource busy"), "GW-SER-03"),
        (OSError(errno.EINVAL, "Invalid argument"), "GW-SER-05"),
        (serialx.UnsupportedSetting("1.5 stop bits not supported on POSIX"), "GW-SER-05"),
        (ValueError("'X' is not a valid Parity"), "GW-SER-05"),
        (OSError(errno.EIO, "Input/output\nerror"), "GW-SER-07"),
    ],
)
def test_each_way_in_which_an_opening_fails_has_its_code_and_one_line(error: Exception, code: str) -> None:
    problem = ports.explain("/dev/ttyUSB99", error)
    assert problem.code == code
    assert "\n" not in str(problem.facts["detail"])


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        TimeoutError(),
    ],
)
def test_every_failure_of_a_socket_is_unreachable(error: Exception) -> None:
    problem = ports.explain("socket://10.0.0.9:4001", error)
    assert problem.code == "GW-SER-06"
    assert problem.facts["port"] == "socket://10.0.0.9:4001"
    assert problem.facts["detail"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "GW-SER-06"),
        (TimeoutError(errno.ETIMEDOUT, "the serial server does not confirm the settings of its port"), "GW-SER-06"),
        (OSError(errno.EPROTO, "it does not let its port be set (RFC 2217)"), "GW-SER-11"),
        (OSError(errno.EINVAL, "the serial server has set 9600 8N1 instead"), "GW-SER-05"),
    ],
)
def test_what_a_server_whose_port_is_set_from_here_will_not_do_has_a_name(error: Exception, code: str) -> None:
    problem = ports.explain("rfc2217://10.0.0.9:4001", error)
    assert problem.code == code
    assert problem.facts["detail"]


@pytest.mark.parametrize(
    ("port", "address"),
    [
        ("/dev/ttyUSB0", None),
        ("/dev/serial/by-path/platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.3:1.0-port0", None),
        ("socket://127.0.0.1:4001", ("127.0.0.1", 4001)),
        ("socket://moxa.local:4001/", ("moxa.local", 4001)),
        ("socket://[::1]:7", ("::1", 7)),
        ("rfc2217://192.168.8.7:4001", ("192.168.8.7", 4001)),
    ],
)
def test_a_port_is_a_path_or_a_socket(port: str, address: tuple[str, int] | None) -> None:
    assert ports.socket_address(port) == address


def test_ports_are_listed_with_the_names_that_survive_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unheld: str
) -> None:
    (tmp_path / "by-id").mkdir()
    (tmp_path / "by-path").mkdir()
    (tmp_path / "by-id" / "usb-FTDI_FT232R_A50285BI-if00-port0").symlink_to(unheld)
    (tmp_path / "by-path" / "platform-usb-0:1.3:1.0-port0").symlink_to(unheld)
    monkeypatch.setattr(ports, "_BY_ID", tmp_path / "by-id")
    monkeypatch.setattr(ports, "_BY_PATH", tmp_path / "by-path")
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [_listed(unheld)])
    (found,) = ports.present()
    assert found.device == unheld
    assert found.by_id == str(tmp_path / "by-id" / "usb-FTDI_FT232R_A50285BI-if00-port0")
    assert found.by_path == str(tmp_path / "by-path" / "platform-usb-0:1.3:1.0-port0")
    assert found.serial_number == ""


def test_listing_the_ports_of_this_machine_works_without_udev_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_BY_ID", tmp_path / "nowhere")
    assert all(name.device.startswith("/dev/") for name in ports.present())


def _listed(device: str) -> object:
    from serial.tools.list_ports_common import ListPortInfo

    return ListPortInfo(device)
