"""Certificates for a platform that speaks TLS: a small authority, made once for a directory, and a server's pair signed by it.

DIR/ca.pem is what a gateway is to trust; server.pem and server.key are the platform's, for 127.0.0.1 and localhost. What
is there is used as it is, so a test may put a wrong or an old certificate there. The authority's own key is not kept;
`make_three` makes what a rehearsal of new certificates needs in one go.
Limits: valid from yesterday for 397 days; platforms that share a directory wait for the one that makes them.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import ipaddress
import os
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

FILES: Final = ("ca.pem", "server.pem", "server.key")
_VALID: Final = dt.timedelta(days=397)


class CertificateError(Exception):
    """A directory has only some of the three files, or one that cannot be read: names it."""


def server_context(folder: Path) -> ssl.SSLContext:
    """Return what a server needs, with certificates made first where there are none. Raises CertificateError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            missing = [name for name in FILES if not (folder / name).exists()]
            if missing and len(missing) < len(FILES):
                raise CertificateError(f"{folder}: {', '.join(missing)} missing beside the others")
            if missing:
                _make(folder)
        finally:
            os.close(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(f"{folder}: {error}") from error
    return context


def make_three(folder: Path, *, same: Path, other: Path) -> None:
    """Make an authority with its first server's pair, a second pair of the same authority, and one of another authority.

    Raises CertificateError.
    """
    try:
        for one in (folder, same, other):
            one.mkdir(parents=True)
        key, ca = _authority()
        for one in (folder, same):
            _make_server(one, key, ca)
        _make_server(other, *_authority())
    except OSError as error:
        raise CertificateError(f"{folder}: {error}") from error


def _make(folder: Path) -> None:
    _make_server(folder, *_authority())


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _name("simulated district authority")
    ca = (
        _builder(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    return authority_key, ca


def _make_server(folder: Path, authority_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate) -> None:
    server_key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    server = (
        _builder(_name("simulated district platform"), ca.subject, server_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key_file = folder / "server.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday)
        .not_valid_after(yesterday + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
