"""A centre to diagnose: a machine of files and little commands, a configuration, and the real parts that a test adds."""

from __future__ import annotations

import datetime as dt
import io
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.cli.diagnosis import show
from gateway.cli.layout import Paper
from gateway.config import inspect
from gateway.diagnose.checks import probes
from gateway.diagnose.daemon import Daemon, DaemonState
from gateway.diagnose.machine import Machine
from gateway.diagnose.merge import merged
from gateway.diagnose.report import Line, Report, Section
from gateway.diagnose.run import Request, diagnose
from gateway.diagnose.site import Site

CONFIG = """\
[gateway]
id = "gw-01"
org = "kz"
site = "hanfeng-01"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"

[outbox]
linger_s = 0

[[destination]]
id = "district"
[[destination.path]]
url = "mqtt://127.0.0.1:{port}"
"""

SYSTEMCTL = """\
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NRestarts=0"""


@dataclass
class Centre:
    """One centre. `root` is its machine, `bin` the commands that are found before the machine's own."""

    folder: Path
    config: Path = field(init=False)
    root: Path = field(init=False)
    bin: Path = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.folder / "gateway.toml"
        self.root = self.folder / "root"
        self.bin = self.folder / "bin"
        for one in (self.root, self.bin, self.data):
            one.mkdir()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def control(self) -> Path:
        return self.folder / "control.sock"

    @property
    def machine(self) -> Machine:
        return Machine(self.root)

    def put(self, name: str, content: str = "") -> Path:
        """Write a file of the machine."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return file

    def command(self, name: str, says: str, status: int = 0, *, sleeps_s: float = 0) -> None:
        """Put a command there that says something."""
        said = self.bin / f"{name}.says"
        said.write_text(says, encoding="utf-8")
        script = self.bin / name
        script.write_text(f'#!/bin/sh\nsleep {sleeps_s}\ncat "{said}"\nexit {status}\n', encoding="utf-8")
        script.chmod(0o755)

    def configure(self, text: str = "", *, port: int = 1) -> None:
        """Write the configuration: a gateway and a platform, and what is added."""
        self.config.write_text(CONFIG.format(folder=self.folder, port=port) + text, encoding="utf-8")
        self.config.chmod(0o640)

    def site(self, text: str = "", *, port: int = 1, **more: Any) -> Site:
        """Return what probes look at, with a dead daemon and no database unless `more` says otherwise."""
        self.configure(text, port=port)
        settings, findings = inspect(self.config)
        site = Site(
            self.config, self.control, self.data, settings, findings, Daemon(DaemonState.DEAD), None,
            time.time_ns() // 1_000_000, self.machine,
        )  # fmt: skip
        return replace(site, **more)

    def request(self, **more: Any) -> Request:
        return Request(self.config, self.control, self.data, machine=self.machine, **more)

    def diagnose(self, **more: Any) -> Report:
        return diagnose(self.request(**more))[1]


def lines(site: Site, section: str) -> list[Line]:
    """Return what the probes of one section find; what a probe throws, the test meets."""
    found = [line for probe in probes(site) if probe.section == section for line in probe.look(site)]
    return [line for line in found if line.section in ("", section)]


def verdicts(found: Iterable[Line]) -> list[tuple[str, str, str]]:
    """Return code, subject and verdict of each line."""
    return [(line.code, line.subject, line.verdict.value) for line in found]


def section_of(report: Report, name: str) -> Section:
    return next(one for one in report.sections if one.name == name)


def printed(report: Report, lang: str) -> str:
    page = io.StringIO()
    show(Paper(lang, page), report)
    return page.getvalue()


def together(found: Iterable[tuple[str, Line]], problems: list[dict[str, Any]] | None = None) -> tuple[Section, ...]:
    return merged(found, problems or [])


@pytest.fixture
def centre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Centre:
    """A Pi in good health, with nothing plugged in."""
    here = Centre(tmp_path)
    (here.root / "proc").mkdir()
    for name, real in (("self", "/proc/self"), ("locks", "/proc/locks"), ("net", "/proc/self/net")):
        (here.root / "proc" / name).symlink_to(real)
    here.put("run/systemd/timesync/synchronized")
    (here.root / "run/systemd/system").mkdir()
    here.put("sys/class/hwmon/hwmon0/name", "rpi_volt\n")
    here.put("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "0\n")
    here.put("sys/class/thermal/thermal_zone0/temp", "48250\n")
    here.put("sys/class/rtc/rtc0/name", "rtc-ds1307\n")
    here.put("sys/class/net/eth0/operstate", "up\n")
    here.put("sys/class/net/lo/operstate", "unknown\n")
    here.put("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    here.command("systemctl", SYSTEMCTL)
    here.command("systemd-analyze", "→ Overall exposure level for daycare-gateway.service: 1.5 OK :-)")
    here.command("journalctl", "")
    here.command("bluetoothctl", "bluetoothctl: 5.66")
    monkeypatch.setenv("PATH", f"{here.bin}:/usr/bin:/bin")
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    return here


@pytest.fixture(autouse=True)
def _own_time_zone() -> Iterator[None]:
    yield
    time.tzset()


_SIGNS = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
    key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


# -- certificates ------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority of the test's own, and what it has signed."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, host: str, *, days: float = 365, begins_days: float = -1) -> tuple[Path, Path]:
        """Return certificate and key for a host, valid until so many days from now."""
        now = dt.datetime.now(dt.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=min(begins_days, days - 1)))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            # Python 3.13 checks strictly: without it a certificate is refused.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pair = self.folder / f"{host}-{days}-{begins_days}.pem", self.folder / f"{host}-{days}-{begins_days}.key"
        pair[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        pair[1].chmod(0o600)
        return pair

    def server(self, host: str, **more: float) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.sign(host, **more))
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=3650))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_SIGNS, critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path / "tls"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(folder, key, name)


@pytest.fixture
def look() -> Callable[[Site, str], list[Line]]:
    return lines


@pytest.fixture
def told() -> Callable[[Iterable[Line]], list[tuple[str, str, str]]]:
    return verdicts


@pytest.fixture
def on_paper() -> Callable[[Report, str], str]:
    return printed
