"""The rules for a platform's certificate are the same on every Python, and never off."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gateway.errors import SessionError
from gateway.tls import Tls, tls_context


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
