"""Destinations: where alarms go, that they never go in plain text, and that none is left without a taker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import Destination, DestinationPath, Settings
from gateway.config.destinations import EVENT_TYPES
from gateway.errors import Finding
from gateway.problems import describe

Check = Callable[[str], tuple[Settings | None, tuple[Finding, ...]]]
Seen = tuple[Settings, list[tuple[str, str, int | None, str]]]

GATEWAY = '[gateway]\nid = "g"\norg = "o"\nsite = "s"\n'


@pytest.fixture
def with_destination(check: Check) -> Callable[[str], Seen]:
    """Load a gateway with these destinations; the finding that it has no devices is left out."""

    def load(text: str) -> Seen:
        settings, findings = check(GATEWAY + text)
        assert settings is not None, findings
        seen = [(one.code, one.where, one.line, one.effect) for one in findings if one.code != "GW-CFG-38"]
        return settings, seen

    return load


Load = Callable[[str], Seen]


def destination(url: str, more: str = "", path_more: str = "", name: str = "d") -> str:
    """Lines: 5 [[destination]], 6 id, then `more`, then the path and its url."""
    return f'[[destination]]\nid = "{name}"\n{more}[[destination.path]]\nurl = "{url}"\n{path_more}'


def test_a_destination_has_its_defaults(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://platform.example.org:8884"))
    assert findings == []
    assert settings.destinations == (
        Destination("d", "native", ("*",), "L2", 60, (DestinationPath("mqtts://platform.example.org:8884"),)),
    )
    assert settings.set_aside_destinations == ()


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtts://platform.example.org", "platform.example.org", 8883, True),
        ("mqtts://10.0.0.7:443/", "10.0.0.7", 443, True),
        ("mqtts://[2001:db8::7]:8883", "2001:db8::7", 8883, True),
        ("mqtt://127.0.0.1", "127.0.0.1", 1883, False),
        ("mqtt://127.9.9.9:1884", "127.9.9.9", 1884, False),
        ("mqtt://localhost:1884", "localhost", 1884, False),
        ("mqtt://[::1]:1884", "::1", 1884, False),
    ],
)
def test_addresses_that_pass(with_destination: Load, url: str, host: str, port: int, tls: bool) -> None:
    settings, findings = with_destination(destination(url))
    assert findings == []
    path = settings.destinations[0].path[0]
    assert (path.host, path.port, path.tls) == (host, port, tls)


@pytest.mark.parametrize(
    "url",
    [
        "https://platform.example.org", "platform.example.org:8883", "mqtts://", "mqtts://host:99999", "mqtts://host:0",
        "mqtts://host/topic", "mqtts://host?x=1", "mqtts://[::1", "mqtts://ho\\u0000st", "ws://host", "mqtts://:8883",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_platform_is_set_aside(with_destination: Load, url: str) -> None:
    settings, findings = with_destination(destination(url))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-24", "destination[1] (d).path[1].url", 8, "set-aside")]


@pytest.mark.parametrize(
    "host", ["platform.example.org", "10.0.0.7", "128.0.0.1", "[2001:db8::1]", "localhost.example.org"]
)
def test_plain_text_to_another_machine_is_refused(with_destination: Load, host: str) -> None:
    settings, findings = with_destination(destination(f"mqtt://{host}:1883"))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-25", "destination[1] (d).path[1].url", 8, "set-aside")]


def test_there_is_no_switch_that_lets_plain_text_pass(with_destination: Load) -> None:
    for switch in ("insecure = true", "tls = false", "verify = false", "allow_plain = true"):
        settings, findings = with_destination(destination("mqtt://10.0.0.7", path_more=f"{switch}\n"))
        assert settings.destinations == ()
        assert [finding[0] for finding in findings] == ["GW-CFG-25", "GW-CFG-06"]


def test_a_password_in_the_address_is_refused_and_not_shown(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://gw:canary@platform.example.org"))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-34", "destination[1] (d).path[1].url", 8, "set-aside")]
    assert "canary" not in repr(settings.findings)


def test_a_destination_set_aside_is_known_so_that_its_events_wait(with_destination: Load) -> None:
    settings, _ = with_destination(
        destination("https://x", 'types = ["alarm.*"]\n', name="a") + destination("mqtts://y", name="b")
    )
    assert [one.id for one in settings.destinations] == ["b"]
    assert [(one.id, one.types, one.path) for one in settings.set_aside_destinations] == [("a", ("alarm.*",), ())]


def test_of_two_destinations_with_one_id_the_second_is_set_aside(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://a") + destination("mqtts://b"))
    assert [one.path[0].host for one in settings.destinations] == ["a"]
    assert settings.set_aside_destinations == ()
    assert findings == [("GW-CFG-08", "destination[2] (d).id", 10, "set-aside")]


def test_a_destination_needs_a_path(with_destination: Load) -> None:
    settings, findings = with_destination('[[destination]]\nid = "d"\n')
    assert settings.destinations == ()
    assert findings == [("GW-CFG-05", "destination[1] (d).path", 5, "set-aside")]


def test_of_several_paths_the_first_is_used_and_the_rest_refused(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://a") + '[[destination.path]]\nurl = "mqtts://b"\n')
    assert [path.host for path in settings.destinations[0].path] == ["a"]
    assert findings == [("GW-CFG-27", "destination[1] (d).path[2]", 9, "kept")]


def test_an_unknown_profile_is_told_with_those_there_are(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://a", 'profile = "natve"\n'))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-28", "destination[1] (d).profile", 7, "set-aside")]
    facts = next(one.facts for one in settings.findings if one.code == "GW-CFG-28")
    assert describe("GW-CFG-28", "en", "", facts).remedy == "did you mean native? Profiles: native"


# -- types -------------------------------------------------------------------------------------------------------


def test_a_destination_takes_what_its_patterns_name() -> None:
    one = Destination("d", types=("alarm.*", "telemetry.meter"))
    assert [noun for noun in EVENT_TYPES if one.takes(noun)] == [
        "alarm.raised", "alarm.prealarm", "alarm.cancelled", "alarm.acknowledged", "alarm.attended", "alarm.escalated",
        "alarm.closed", "telemetry.meter",
    ]  # fmt: skip


def test_alarms_that_no_destination_takes_are_an_error(with_destination: Load) -> None:
    settings, findings = with_destination(
        destination("mqtts://a", 'types = ["telemetry.*"]\n', name="a")
        + destination("mqtts://b", 'types = ["alarm.raised", "device.*"]\n', name="b")
    )
    assert [one.id for one in settings.destinations] == ["a", "b"]
    assert findings == [("GW-CFG-26", "destination", 5, "kept")]
    facts = next(one for one in settings.findings if one.code == "GW-CFG-26")
    assert facts.severity == "problem"
    assert facts.facts["types"] == (
        "alarm.prealarm", "alarm.cancelled", "alarm.acknowledged", "alarm.attended", "alarm.escalated", "alarm.closed",
    )  # fmt: skip


def test_several_destinations_may_share_the_alarms(with_destination: Load) -> None:
    shared = ", ".join(f'"alarm.{verb}"' for verb in ("prealarm", "cancelled", "acknowledged", "attended", "escalated"))
    _, findings = with_destination(
        destination("mqtts://a", 'types = ["alarm.raised", "alarm.closed"]\n', name="a")
        + destination("mqtts://b", f"types = [{shared}]\n", name="b")
    )
    assert findings == []


def test_a_pattern_that_nothing_matches_is_told_with_the_nearest(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://a", 'types = ["*", "telemetry.metre"]\n'))
    assert findings == [("GW-CFG-07", "destination[1] (d).types[2]", 7, "kept")]
    facts = next(one.facts for one in settings.findings if one.code == "GW-CFG-07")
    assert facts["close"] == "telemetry.meter"


@pytest.mark.parametrize(
    "types", ['"alarm.*"', "[]", '["Alarm.*"]', '["alarm.**"]', '["cn.eldercare.alarm.raised.v1"]']
)
def test_types_that_cannot_be_give_way_to_everything_so_that_alarms_pass(with_destination: Load, types: str) -> None:
    settings, findings = with_destination(destination("mqtts://a", f"types = {types}\n"))
    assert settings.destinations[0].types == ("*",)
    assert [(code, effect) for code, _, _, effect in findings] == [("GW-CFG-07", "kept")]


# -- credentials -------------------------------------------------------------------------------------------------


def test_a_password_that_cannot_be_had_leaves_the_destination_running(with_destination: Load, tmp_path: Path) -> None:
    settings, findings = with_destination(
        destination("mqtts://a", path_more=f'username = "gw"\npassword = "file:{tmp_path}/none"\n')
    )
    assert [one.id for one in settings.destinations] == ["d"]
    assert findings == [("GW-CFG-21", "destination[1] (d).path[1].password", 10, "kept")]


def test_a_password_in_the_file_is_refused_and_not_shown(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://a", path_more='password = "canary"\n'))
    assert findings == [("GW-CFG-20", "destination[1] (d).path[1].password", 9, "kept")]
    assert "canary" not in repr(settings)


def test_a_password_that_others_can_read_is_told_and_used(with_destination: Load, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("canary")
    file.chmod(0o604)
    settings, findings = with_destination(destination("mqtts://a", path_more=f'password = "file:{file}"\n'))
    assert findings == [("GW-CFG-22", "destination[1] (d).path[1].password", 9, "kept")]
    password = settings.destinations[0].path[0].password
    assert password is not None
    assert password.text() == "canary"


def test_certificates_must_be_there_and_go_in_pairs(with_destination: Load, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "cert.pem").write_text("x")
    settings, findings = with_destination(
        destination(
            "mqtts://a", path_more=f'ca_file = "{tmp_path}/empty.pem"\ncert_file = "{tmp_path}/cert.pem"\n'
        )
        + destination(
            "mqtts://b", path_more=f'ca_file = "relative.pem"\nkey_file = "{tmp_path}/none.pem"\n', name="e"
        )
    )  # fmt: skip
    assert [one.id for one in settings.destinations] == ["d", "e"]
    assert findings == [
        ("GW-CFG-05", "destination[1] (d).path[1].key_file", 7, "kept"),
        ("GW-CFG-36", "destination[1] (d).path[1].ca_file", 9, "kept"),
        ("GW-CFG-05", "destination[2] (e).path[1].cert_file", 13, "kept"),
        ("GW-CFG-07", "destination[2] (e).path[1].ca_file", 15, "kept"),
        ("GW-CFG-36", "destination[2] (e).path[1].key_file", 16, "kept"),
    ]
    reasons = [one.facts["reason"] for one in settings.findings if one.code == "GW-CFG-36"]
    assert reasons == ["@hint.empty", "@hint.missing"]


def test_a_private_key_that_others_can_read_is_told(with_destination: Load, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)
    pair = f'cert_file = "{tmp_path}/cert.pem"\nkey_file = "{tmp_path}/key.pem"\n'
    _, findings = with_destination(destination("mqtts://a", path_more=pair))
    assert findings == [("GW-CFG-22", "destination[1] (d).path[1].key_file", 10, "kept")]
