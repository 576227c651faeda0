"""References to secrets: what is one, which file it means, and that a secret is read anew and never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config import Secret
from gateway.errors import SecretError


@pytest.mark.parametrize("reference", ["credential:mqtt_password", "credential:call-201.key", "file:/etc/x y/密钥"])
def test_references_that_pass(reference: str) -> None:
    assert Secret(reference).reference == reference


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "hunter2",
        "credential:",
        "credential:../x",
        "credential:a/b",
        "credential:.hidden",
        "file:relative",
        "file:/a\x00b",
        "env:X",
        "FILE:/x",
    ],
)
def test_anything_else_is_refused_without_being_repeated(reference: str) -> None:
    with pytest.raises(SecretError) as caught:
        Secret(reference)
    assert caught.value.code == "GW-CFG-20"
    assert not reference or reference not in str(caught.value)


def test_a_credential_is_a_file_of_the_credentials_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "password").write_text("hunter2\n")
    # systemd lets the service in with an access list, which shows as a group bit.
    (tmp_path / "password").chmod(0o440)
    secret = Secret("credential:password")
    assert secret.path == tmp_path / "password"
    assert secret.text() == "hunter2"
    assert not secret.too_open


def test_a_renewed_secret_is_picked_up(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    secret = Secret(f"file:{file}")
    assert secret.text() == "old"
    file.write_text("new\r\n")
    assert secret.text() == "new"


@pytest.mark.parametrize(
    ("mode", "too_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_a_file_that_others_can_read_or_write_is_too_open(tmp_path: Path, mode: int, too_open: bool) -> None:
    file = tmp_path / "key"
    file.write_text("x")
    file.chmod(mode)
    assert Secret(f"file:{file}").too_open is too_open


def test_what_is_no_readable_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "big").write_bytes(b"x" * 4097)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "fifo")
    reasons = {}
    for name in ("none", "empty", "big", "fifo", ".", "binary"):
        with pytest.raises(SecretError) as caught:
            Secret(f"file:{tmp_path / name}").text()
        assert caught.value.code == "GW-CFG-21"
        reasons[name] = caught.value.facts["reason"]
    assert reasons == {
        "none": "@hint.missing",
        "empty": "@hint.empty",
        "big": "@hint.too-large",
        "fifo": "@hint.not-a-file",
        ".": "@hint.not-a-file",
        "binary": "@hint.not-utf-8",
    }
