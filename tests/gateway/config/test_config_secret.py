"""References to secrets: what is one, which file it means, and that a secret is read anew and never shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import Secret, Settings
from gateway.config import secret as secret_module
from gateway.errors import Finding, SecretError

HEAD = """\
[gateway]
id = "gw-1"
org = "org"
site = "site"
[[destination]]
id = "district"
[[destination.path]]
url = "mqtts://platform.example.org"
"""
Check = Callable[[str], tuple[Settings | None, tuple[Finding, ...]]]


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


def test_systemd_names_the_credentials_of_a_directory_by_an_id_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "daycare_password").write_text("listed")
    assert Secret("credential:password").text() == "listed"
    (tmp_path / "password").write_text("own")
    assert Secret("credential:password").text() == "own"


# -- outside systemd ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place that the unit loads credentials from; nothing has handed them over."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    folder = tmp_path / "store"
    monkeypatch.setattr(secret_module, "STORE", folder)
    return folder


def test_a_credential_is_read_where_systemd_would_load_it_by_those_who_may(store: Path) -> None:
    store.mkdir()
    (store / "password").write_text("hunter2\n")
    (store / "password").chmod(0o600)
    secret = Secret("credential:password")
    assert (secret.path, secret.text(), secret.too_open) == (store / "password", "hunter2", False)
    (store / "password").chmod(0o644)
    assert secret.too_open


def test_one_that_is_missing_there_is_told_as_missing(store: Path) -> None:
    store.mkdir()
    with pytest.raises(SecretError) as caught:
        Secret("credential:password").read()
    assert (caught.value.code, caught.value.facts["reason"]) == ("GW-CFG-21", "@hint.missing")


def test_where_there_is_no_such_place_nothing_can_be_said(store: Path) -> None:
    with pytest.raises(SecretError) as caught:
        Secret("credential:password").read()
    assert (caught.value.code, caught.value.facts["path"]) == ("GW-CFG-23", str(store / "password"))


def test_who_may_not_read_there_cannot_say_either(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", closed)  # root, who may run this, may read everything
    with pytest.raises(SecretError) as caught:
        Secret("credential:password").read()
    assert caught.value.code == "GW-CFG-23"
    with pytest.raises(SecretError) as caught:
        Secret(f"file:{store}/password").read()
    assert (caught.value.code, caught.value.facts["reason"]) == ("GW-CFG-21", "@hint.no-permission")


def test_a_check_by_hand_tells_once_what_it_could_not_see_and_the_service_each_as_a_problem(
    store: Path, check: Check, as_service: Callable[[], Settings]
) -> None:
    devices = "".join(
        f'[[device]]\nid = "b{number}"\nmodel = "button"\nlink = "radio"\naddress = "A4:C1:38:56:53:{number}"\n'
        f'key = "credential:b{number}"\n'
        for number in range(10, 20)
    )
    settings, findings = check(f'{HEAD}[[ble]]\nid = "radio"\n{devices}')
    assert settings is not None
    assert [(one.code, one.severity, one.facts["count"]) for one in findings] == [("GW-CFG-42", "warning", 10)]
    assert findings[0].facts["references"] == (*(f"credential:b{number}" for number in range(10, 18)), "…")
    running = as_service()
    assert [(one.code, one.severity) for one in running.findings] == [("GW-CFG-23", "problem")] * 10
    assert {one.key_bytes for one in running.devices} == {None}


def test_what_lies_in_the_store_is_checked_by_hand_too(store: Path, check: Check) -> None:
    store.mkdir()
    (store / "b1").write_text("not hexadecimal")
    (store / "b1").chmod(0o600)
    button = '[[device]]\nid = "b1"\nmodel = "button"\nlink = "radio"\naddress = "A4:C1:38:56:53:84"\n'
    _, findings = check(f'{HEAD}[[ble]]\nid = "radio"\n{button}key = "credential:b1"\n')
    assert [(one.code, one.line) for one in findings] == [("GW-CFG-19", 16)]


# -- in general --------------------------------------------------------------------------------------------------


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
