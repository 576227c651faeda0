"""The rules for a platform's certificate are the same on every Python, and never off."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import SessionError
from gateway.tls import Moment, Tls, tls_context


def test_name_and_authority_are_checked_with_tls_1_2_or_later() -> None:
    context = tls_context(Tls(), host="platform.example.org", port=8883)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_what_a_certificate_must_have_does_not_depend_on_the_version_of_python() -> None:
    flags = tls_context(Tls(), host="platform.example.org", port=8883).verify_flags
    assert not flags & ssl.VerifyFlags.VERIFY_X509_STRICT
    assert flags & ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    with pytest.raises(SessionError) as raised:
        tls_context(Tls(ca_file=missing), host="platform.example.org", port=8883)
    assert (raised.value.code, raised.value.subject) == ("GW-NET-03", "platform.example.org")
    assert str(raised.value.facts["error"]).startswith("certificates: ")


# -- dates ---------------------------------------------------------------------------------------------------------------

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def pair(folder: Path, begin: dt.timedelta, end: dt.timedelta) -> Path:
    """A certificate for localhost that is its own authority, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "platform")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW + begin)
        .not_valid_after(NOW + end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "platform.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def shake_hands(tls: Tls, server: Path, *, over: str = "socket", name: str = "localhost") -> str:
    """Shake hands with a server over a socket as MQTT does, or over memory as HTTP does; return what was refused, or ""."""
    ours, theirs = socket.socketpair()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(server)

    def serve() -> None:
        with contextlib.suppress(OSError), theirs, served.wrap_socket(theirs, server_side=True) as line:
            line.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    context = tls_context(tls, host="localhost", port=8883)
    ours.settimeout(10)
    try:
        if over == "socket":
            with context.wrap_socket(ours, server_hostname=name, do_handshake_on_connect=False) as line:
                line.do_handshake()
        else:
            _over_memory(ours, context, name)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        ours.close()
        thread.join(10)
    return ""


def _over_memory(line: socket.socket, context: ssl.SSLContext, name: str) -> None:
    """What asyncio and anyio do, without their loops."""
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes, server_hostname=name)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            line.sendall(goes.read())
            came.write(line.recv(65_536))
        else:
            line.sendall(goes.read())
            return


def tls_at(server: Path, days: float, *, sure: bool) -> Tls:
    at = Moment((NOW + days * DAY).timestamp(), is_sure=sure)
    return Tls(ca_file=server, moment=lambda: at)


@pytest.mark.parametrize("over", ["socket", "memory"])
@pytest.mark.parametrize(
    ("begin", "end", "at", "sure", "refused"),
    [
        pytest.param(5, 300, 10, True, "", id="valid by the gateway's own time although not by the machine's"),
        pytest.param(5, 300, -4000, False, "", id="not yet valid by a clock at 1970 or at the build"),
        pytest.param(-300, -5, -10, True, "", id="the machine's clock is ahead, the gateway's is right"),
        pytest.param(5, 300, 1, True, "certificate is not valid before", id="not yet valid, and the time is sure"),
        pytest.param(-300, -5, -1, False, "certificate has expired on", id="expired before a time that has passed"),
        pytest.param(-300, -5, -1, True, "certificate has expired on", id="expired, and the time is sure"),
    ],
)
def test_dates_are_judged_by_the_gateway_s_time_where_the_machine_s_is_not_trusted(
    tmp_path: Path, over: str, begin: int, end: int, at: int, sure: bool, refused: str
) -> None:
    server = pair(tmp_path, begin * DAY, end * DAY)
    said = shake_hands(tls_at(server, at, sure=sure), server, over=over)
    assert said.startswith(refused) if refused else said == ""


def test_an_expired_certificate_and_a_clock_that_nobody_has_set_are_told_together(tmp_path: Path) -> None:
    server = pair(tmp_path, -300 * DAY, -5 * DAY)
    assert "by a clock that nobody has synchronised" in shake_hands(tls_at(server, -1, sure=False), server)


@pytest.mark.parametrize("over", ["socket", "memory"])
def test_name_and_authority_are_checked_whatever_the_clock(tmp_path: Path, over: str) -> None:
    server = pair(tmp_path, -DAY, DAY)
    (tmp_path / "other").mkdir()
    stranger = pair(tmp_path / "other", -DAY, DAY)
    assert "ostname mismatch" in shake_hands(tls_at(server, 0, sure=False), server, over=over, name="other.example")
    assert "self-signed certificate" in shake_hands(tls_at(stranger, 0, sure=False), server, over=over)


@pytest.mark.parametrize(("begin", "end"), [(-300, -5), (5, 300)])
def test_with_a_trusted_clock_openssl_judges_the_dates_of_the_whole_chain(tmp_path: Path, begin: int, end: int) -> None:
    server = pair(tmp_path, begin * DAY, end * DAY)
    assert shake_hands(Tls(ca_file=server), server) in ("certificate has expired", "certificate is not yet valid")
    assert not tls_context(Tls(), host="h", port=1).verify_flags & 0x200000


def test_a_clock_that_was_set_since_the_context_was_made_judges_what_openssl_leaves_out(tmp_path: Path) -> None:
    server = pair(tmp_path, -300 * DAY, -5 * DAY)
    moments = [Moment(0.0, is_sure=False)]
    tls = Tls(ca_file=server, moment=lambda: moments.pop() if moments else None)
    assert shake_hands(tls, server).startswith("certificate has expired on")
