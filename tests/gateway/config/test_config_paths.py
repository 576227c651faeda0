"""Paths of a destination: where they may go, that each is judged alone, and whether what is written for a login fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import DestinationPath, Settings
from gateway.errors import Finding
from gateway.problems import describe

Check = Callable[[str], tuple[Settings | None, tuple[Finding, ...]]]
Seen = tuple[Settings, list[tuple[str, str, int | None, str]]]
Load = Callable[[str], Seen]

# 6 lines: the path that a test adds begins in line 7, its url stands in line 8.
HEAD = '[gateway]\nid = "g"\norg = "o"\nsite = "s"\n[[destination]]\nid = "d"\n'
ONE = "destination[1] (d).path[1]"
TWO = "destination[1] (d).path[2]"
# No devices; nobody takes the alarms; no login, which has a test of its own.
NOT_LOOKED_AT = ("GW-CFG-38", "GW-CFG-41", "GW-CFG-48")


@pytest.fixture
def load(check: Check) -> Load:
    """Load one destination with these paths; what most tests here do not look at is left out."""

    def load_paths(text: str) -> Seen:
        settings, findings = check(HEAD + text)
        assert settings is not None, findings
        seen = [(one.code, one.where, one.line, one.effect) for one in findings if one.code not in NOT_LOOKED_AT]
        return settings, seen

    return load_paths


def path(url: str, *more: str) -> str:
    return "\n".join(("[[destination.path]]", f'url = "{url}"', *more, ""))


def hosts(settings: Settings) -> list[str]:
    return [one.host for destination in settings.destinations for one in destination.path]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("canary")
    file.chmod(0o600)
    return file


# -- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "transport", "host", "port", "base", "tls"),
    [
        ("mqtts://platform.example.org", "mqtt", "platform.example.org", 8883, "", True),
        ("MQTTS://Platform.example.org", "mqtt", "platform.example.org", 8883, "", True),
        ("mqtts://10.0.0.7:443/", "mqtt", "10.0.0.7", 443, "", True),
        ("mqtts://[2001:db8::7]:8883", "mqtt", "2001:db8::7", 8883, "", True),
        ("mqtt://127.0.0.1", "mqtt", "127.0.0.1", 1883, "", False),
        ("mqtt://127.9.9.9:1884", "mqtt", "127.9.9.9", 1884, "", False),
        ("mqtt://localhost:1884", "mqtt", "localhost", 1884, "", False),
        ("mqtt://[::1]:1884", "mqtt", "::1", 1884, "", False),
        ("https://platform.example.org", "http", "platform.example.org", 443, "", True),
        ("https://platform.example.org/", "http", "platform.example.org", 443, "", True),
        ("https://platform.example.org:8443/care/v2/", "http", "platform.example.org", 8443, "/care/v2", True),
        ("http://127.0.0.1:8080/care", "http", "127.0.0.1", 8080, "/care", False),
        ("http://localhost", "http", "localhost", 80, "", False),
    ],
)
def test_addresses_that_pass(load: Load, url: str, transport: str, host: str, port: int, base: str, tls: bool) -> None:
    settings, findings = load(path(url))
    assert findings == []
    (one,) = settings.destinations[0].path
    assert (one.transport, one.host, one.port, one.base, one.tls) == (transport, host, port, base, tls)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("platform.example.org:8883", "@hint.url-scheme"),
        ("ws://host", "@hint.url-scheme"),
        ("https:/host", "@hint.url-scheme"),
        ("https:host", "@hint.url-scheme"),
        ("mqtts://", "@hint.url-host"),
        ("mqtts://:8883", "@hint.url-host"),
        ("mqtts://[::1", "@hint.url-host"),
        ("https://-host", "@hint.url-host"),
        ("mqtts://host:99999", "@hint.url-port"),
        ("mqtts://host:0", "@hint.url-port"),
        ("https://host:", "@hint.url-port"),
        ("https://host:port", "@hint.url-port"),
        ("mqtts://host/topic", "@hint.url-no-path"),
        ("mqtts://host?x=1", "@hint.url-query"),
        ("https://host/a?token=canary", "@hint.url-query"),
        ("https://host/a#b", "@hint.url-query"),
        ("https://host/a/../b", "@hint.url-characters"),
        ("mqtts://ho st", "@hint.url-characters"),
        ("mqtts://ho\\u0000st", "@hint.url-characters"),
        ("mqtts://host：8883", "@hint.url-characters"),
        ("https://平台.example.org", "@hint.url-characters"),
    ],
)
def test_what_is_no_address_of_a_platform_is_set_aside_and_told_why(load: Load, url: str, reason: str) -> None:
    settings, findings = load(path(url))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-24", f"{ONE}.url", 8, "set-aside")]
    assert [one.facts["reason"] for one in settings.findings if one.code == "GW-CFG-24"] == [reason]
    assert "canary" not in repr(settings.findings)


@pytest.mark.parametrize("scheme", ["mqtt", "http"])
@pytest.mark.parametrize(
    "host", ["platform.example.org", "10.0.0.7", "128.0.0.1", "[2001:db8::1]", "localhost.example.org", "8.8.8.8"]
)
def test_plain_text_to_another_machine_is_refused(load: Load, scheme: str, host: str) -> None:
    settings, findings = load(path(f"{scheme}://{host}:1883"))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-25", f"{ONE}.url", 8, "set-aside")]


def test_the_encrypted_address_is_told_with_the_refusal(load: Load) -> None:
    settings, _ = load(path("http://10.0.0.7") + path("mqtt://[2001:db8::1]:1883"))
    remedies = [describe(one.code, "en", "", one.facts).remedy for one in settings.findings if one.code == "GW-CFG-25"]
    assert [remedy.split(" with ")[0] for remedy in remedies] == [
        "use https://10.0.0.7", "use mqtts://[2001:db8::1]:8883"
    ]  # fmt: skip


@pytest.mark.parametrize("switch", ["insecure = true", "tls = false", "verify = false", "allow_plain = true"])
def test_there_is_no_switch_that_lets_plain_text_pass(load: Load, switch: str) -> None:
    settings, findings = load(path("mqtt://10.0.0.7", switch))
    assert settings.destinations == ()
    assert [finding[0] for finding in findings] == ["GW-CFG-25", "GW-CFG-06"]


@pytest.mark.parametrize("url", ["mqtts://gw:canary@platform.example.org", "https://canary@platform.example.org/a"])
def test_a_password_in_the_address_is_refused_and_not_shown(load: Load, url: str) -> None:
    settings, findings = load(path(url))
    assert settings.destinations == ()
    assert findings == [("GW-CFG-34", f"{ONE}.url", 8, "set-aside")]
    assert "canary" not in repr(settings.findings)


# -- several -----------------------------------------------------------------------------------------------------


def test_four_paths_of_both_transports_are_used_in_the_order_of_the_file(load: Load) -> None:
    urls = ("mqtts://a", "https://b/care", "mqtts://c:8884", "https://d")
    settings, findings = load("".join(map(path, urls)))
    assert findings == []
    assert settings.destinations[0].path == tuple(DestinationPath(url) for url in urls)


def test_of_more_than_four_paths_the_rest_is_refused(load: Load) -> None:
    settings, findings = load("".join(path(f"mqtts://h{number}") for number in range(6)))
    assert hosts(settings) == ["h0", "h1", "h2", "h3"]
    assert findings == [
        ("GW-CFG-27", "destination[1] (d).path[5]", 15, "set-aside"),
        ("GW-CFG-27", "destination[1] (d).path[6]", 17, "set-aside"),
    ]


def test_a_broken_path_is_set_aside_alone_and_loudly(load: Load) -> None:
    settings, findings = load(path("mqtts://a") + path("https//b", "colour = 1"))
    assert hosts(settings) == ["a"]
    assert findings == [
        ("GW-CFG-24", f"{TWO}.url", 10, "set-aside"),
        ("GW-CFG-06", f"{TWO}.colour", 11, "set-aside"),
    ]
    told = [one for one in settings.findings if one.where.startswith(TWO)]
    assert [one.severity for one in told] == ["problem", "problem"]
    assert [one.facts["entry"] for one in told] == [TWO, TWO]
    assert settings.set_aside_destinations == ()


def test_a_broken_first_path_leaves_the_second_to_carry_everything(load: Load) -> None:
    settings, findings = load(path("mqtt://10.0.0.7") + path("https://b"))
    assert hosts(settings) == ["b"]
    assert findings == [("GW-CFG-25", f"{ONE}.url", 8, "set-aside")]
    assert "GW-CFG-41" not in {one.code for one in settings.findings}


def test_only_where_no_path_can_be_used_is_the_destination_set_aside(load: Load) -> None:
    settings, findings = load(path("mqtt://10.0.0.7") + path("https://") + path("ftp://c"))
    assert settings.destinations == ()
    assert [one.id for one in settings.set_aside_destinations] == ["d"]
    assert [(code, effect) for code, _, _, effect in findings] == [
        ("GW-CFG-40", "set-aside"), ("GW-CFG-25", "set-aside"), ("GW-CFG-24", "set-aside"), ("GW-CFG-24", "set-aside"),
    ]  # fmt: skip
    facts = {one.code: one.facts for one in settings.findings}
    assert facts["GW-CFG-40"]["count"] == 3
    assert facts["GW-CFG-25"]["entry"] == "destination[1] (d)"
    assert "GW-CFG-41" in facts


def test_what_is_kept_on_a_good_path_stays_so_beside_a_broken_one(load: Load) -> None:
    _, findings = load(path("mqtts://a", "colour = 1") + path("ftp://b"))
    assert findings == [
        ("GW-CFG-06", f"{ONE}.colour", 9, "kept"),
        ("GW-CFG-24", f"{TWO}.url", 11, "set-aside"),
    ]


def test_something_wrong_with_the_destination_takes_its_paths_along(load: Load) -> None:
    settings, findings = load('profile = "none"\n' + path("mqtts://a", "colour = 1"))
    assert settings.destinations == ()
    assert [(code, effect) for code, _, _, effect in findings] == [
        ("GW-CFG-28", "set-aside"), ("GW-CFG-06", "set-aside")
    ]  # fmt: skip
    assert [one.facts.get("follows") for one in settings.findings if one.code == "GW-CFG-06"] == [True]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("mqtts://platform.example.org", "mqtts://PLATFORM.example.org:8883/"),
        ("https://b/care", "https://b:443/care/"),
        ("mqtts://a", "mqtts://a"),
    ],
)
def test_two_paths_to_one_address_are_one(load: Load, one: str, two: str) -> None:
    settings, findings = load(path(one) + path(two))
    assert len(settings.destinations[0].path) == 1
    assert findings == [("GW-CFG-45", f"{TWO}.url", 10, "set-aside")]
    assert [each.facts["other_line"] for each in settings.findings if each.code == "GW-CFG-45"] == [8]


def test_one_host_by_two_transports_or_two_bases_is_two_paths(load: Load) -> None:
    settings, findings = load(path("mqtts://a") + path("https://a") + path("https://a/care") + path("mqtts://a:8884"))
    assert findings == []
    assert len(settings.destinations[0].path) == 4


# -- logins ------------------------------------------------------------------------------------------------------


def test_what_fits_each_transport_passes(load: Load, secret: Path) -> None:
    login = ('username = "gw"', f'password = "file:{secret}"')
    settings, findings = load(
        path("mqtts://a", *login, 'mqtt_version = "3.1.1"')
        + path("https://b", f'token = "file:{secret}"')
        + path("https://c", *login)
    )
    assert findings == []
    mqtt, bearer, basic = settings.destinations[0].path
    assert (mqtt.mqtt_version, bearer.mqtt_version) == ("3.1.1", "auto")
    assert mqtt.password is not None
    assert basic.password is not None
    assert bearer.token is not None
    assert (mqtt.token, bearer.password) == (None, None)
    assert (mqtt.password.text(), bearer.token.text(), basic.username) == ("canary", "canary", "gw")
    assert "canary" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "more", "code", "key", "reason"),
    [
        ("mqtts://a", ['token = "file:{}"'], "GW-CFG-43", "token", "@hint.token-mqtt"),
        ("https://a", ['username = "u"', 'token = "file:{}"'], "GW-CFG-43", "token", "@hint.token-and-login"),
        ("https://a", ['password = "file:{}"'], "GW-CFG-43", "password", "@hint.password-alone"),
        ("mqtts://a", ['password = "file:{}"'], "GW-CFG-43", "password", "@hint.password-alone"),
        ("https://a", ['username = "a:b"', 'password = "file:{}"'], "GW-CFG-43", "username", "@hint.colon"),
        ("mqtts://a", ['username = "u"'], "GW-CFG-44", "username", None),
        ("https://a", ['mqtt_version = "5"'], "GW-CFG-35", "mqtt_version", "@hint.not-mqtt"),
        ("mqtt://127.0.0.1", ['ca_file = "{}"'], "GW-CFG-35", "ca_file", "@hint.not-encrypted"),
        ("mqtts://a", ['mqtt_version = "3.1"'], "GW-CFG-07", "mqtt_version", None),
        ("mqtts://a", ["mqtt_version = 5"], "GW-CFG-07", "mqtt_version", None),
    ],
)
def test_what_does_not_fit_is_told_and_the_path_still_tried(
    load: Load, secret: Path, url: str, more: list[str], code: str, key: str, reason: str | None
) -> None:
    settings, findings = load(path(url, *(line.format(secret) for line in more)))
    assert len(settings.destinations[0].path) == 1
    assert [(found, where, effect) for found, where, _, effect in findings] == [(code, f"{ONE}.{key}", "kept")]
    assert [one.facts.get("reason") for one in settings.findings if one.code == code] == [reason]


def test_a_password_that_cannot_be_had_leaves_the_path_running(load: Load, tmp_path: Path) -> None:
    settings, findings = load(path("mqtts://a", 'username = "gw"', f'password = "file:{tmp_path}/none"'))
    assert hosts(settings) == ["a"]
    assert findings == [("GW-CFG-21", f"{ONE}.password", 10, "kept")]


@pytest.mark.parametrize(
    ("key", "login"), [("password", ['username = "gw"', 'password = "canary"']), ("token", ['token = "canary"'])]
)
def test_a_secret_in_the_file_is_refused_and_not_shown(load: Load, key: str, login: list[str]) -> None:
    settings, findings = load(path("https://a", *login))
    assert [(code, where, effect) for code, where, _, effect in findings] == [("GW-CFG-20", f"{ONE}.{key}", "kept")]
    assert "canary" not in repr(settings)


@pytest.mark.parametrize("key", ["password", "token"])
def test_a_secret_of_another_type_is_not_shown_either(load: Load, key: str) -> None:
    settings, _ = load(path("https://a", f'{key} = ["canary"]'))
    assert "canary" not in repr(settings.findings)


def test_a_secret_that_others_can_read_is_told_and_used(load: Load, secret: Path) -> None:
    secret.chmod(0o604)
    settings, findings = load(
        path("mqtts://a", 'username = "gw"', f'password = "file:{secret}"')
        + path("https://b", f'token = "file:{secret}"')
    )
    assert findings == [("GW-CFG-22", f"{ONE}.password", 10, "kept"), ("GW-CFG-22", f"{TWO}.token", 13, "kept")]
    password = settings.destinations[0].path[0].password
    assert password is not None
    assert password.text() == "canary"


@pytest.mark.parametrize(
    ("login", "content", "reason"),
    [
        (["token"], "two words", "@hint.token-characters"),
        (["token"], "密钥", "@hint.token-characters"),
        (["token"], "one\ntwo\n", "@hint.token-characters"),
        (["username", "password"], "one\ntwo\n", "@hint.password-characters"),
        (["username", "password"], "two words 密码\n", None),
    ],
)
def test_a_secret_that_no_header_can_carry_is_told_without_showing_it(
    load: Load, secret: Path, login: list[str], content: str, reason: str | None
) -> None:
    secret.write_text(content, encoding="utf-8")
    lines = [f'{key} = "gw"' if key == "username" else f'{key} = "file:{secret}"' for key in login]
    settings, findings = load(path("https://a", *lines))
    found = [one for one in settings.findings if one.code == "GW-CFG-46"]
    assert [one.facts["reason"] for one in found] == ([reason] if reason else [])
    assert [code for code, *_ in findings] == (["GW-CFG-46"] if reason else [])
    assert content.strip() not in repr(settings.findings)


def test_certificates_must_be_there_and_go_in_pairs(load: Load, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "cert.pem").write_text("x")
    settings, findings = load(
        path("mqtts://a", f'ca_file = "{tmp_path}/empty.pem"', f'cert_file = "{tmp_path}/cert.pem"')
        + path("https://b", 'ca_file = "relative.pem"', f'key_file = "{tmp_path}/none.pem"')
    )
    assert hosts(settings) == ["a", "b"]
    assert findings == [
        ("GW-CFG-05", f"{ONE}.key_file", 7, "kept"),
        ("GW-CFG-36", f"{ONE}.ca_file", 9, "kept"),
        ("GW-CFG-05", f"{TWO}.cert_file", 11, "kept"),
        ("GW-CFG-07", f"{TWO}.ca_file", 13, "kept"),
        ("GW-CFG-36", f"{TWO}.key_file", 14, "kept"),
    ]
    reasons = [one.facts["reason"] for one in settings.findings if one.code == "GW-CFG-36"]
    assert reasons == ["@hint.empty", "@hint.missing"]


def test_a_private_key_that_others_can_read_is_told(load: Load, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)
    _, findings = load(path("https://a", f'cert_file = "{tmp_path}/cert.pem"', f'key_file = "{tmp_path}/key.pem"'))
    assert findings == [("GW-CFG-22", f"{ONE}.key_file", 10, "kept")]


# -- no login, and two at one broker -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "more", "told"),
    [
        ("https://a", [], [("GW-CFG-48", f"{ONE}.url", 8, "kept")]),
        ("https://a", ['username = "u"'], []),
        ("https://a", ['cert_file = "/c.pem"', 'key_file = "/k.pem"'], []),
        ("https://127.0.0.1", [], []),
        ("mqtts://a", [], []),
    ],
)
def test_a_way_over_https_without_any_login_is_told_and_tried(
    check: Check, url: str, more: list[str], told: list[tuple[str, str, int, str]]
) -> None:
    settings, findings = check(HEAD + path(url, *more))
    assert settings is not None
    assert len(hosts(settings)) == 1
    assert [(one.code, one.where, one.line, one.effect) for one in findings if one.code == "GW-CFG-48"] == told
    assert {one.severity for one in findings if one.code == "GW-CFG-48"} <= {"warning"}


def two(first: str, second: str) -> str:
    return f'{HEAD}{first}[[destination]]\nid = "e"\n{second}'


def test_two_destinations_at_one_broker_would_throw_each_other_out_and_the_second_is_set_aside(check: Check) -> None:
    settings, findings = check(two(path("mqtts://a"), path("mqtts://a:8883/")))
    assert settings is not None
    assert [one.id for one in settings.destinations] == ["d"]
    assert [one.id for one in settings.set_aside_destinations] == ["e"]
    [told] = [one for one in findings if one.code == "GW-CFG-47"]
    assert (told.severity, told.effect, told.where, told.facts["other"]) == (
        "problem", "set-aside", "destination[2] (e).path", "destination[1] (d)",
    )  # fmt: skip
    assert "通向同一个 MQTT 服务器" in describe(told.code, "zh", told.where, told.facts).title


def test_a_destination_that_has_another_way_keeps_that(check: Check) -> None:
    settings, findings = check(two(path("mqtts://a"), path("mqtts://a") + path("https://a")))
    assert settings is not None
    assert [[one.transport for one in each.path] for each in settings.destinations] == [["mqtt"], ["http"]]
    assert [one.effect for one in findings if one.code == "GW-CFG-47"] == ["set-aside"]


def test_with_another_login_at_the_same_broker_it_is_told_and_tried(check: Check) -> None:
    settings, findings = check(two(path("mqtts://a", 'username = "x"'), path("mqtts://a", 'username = "y"')))
    assert settings is not None
    assert [one.id for one in settings.destinations] == ["d", "e"]
    assert [(one.severity, one.effect) for one in findings if one.code == "GW-CFG-47"] == [("problem", "kept")]


def test_a_third_destination_at_one_broker_with_the_login_of_the_second_is_set_aside(check: Check) -> None:
    third = '[[destination]]\nid = "f"\n' + path("mqtts://a", 'username = "y"')
    first_two = two(path("mqtts://a", 'username = "x"'), path("mqtts://a", 'username = "y"'))
    settings, findings = check(first_two + third)
    assert settings is not None
    assert [one.id for one in settings.destinations] == ["d", "e"]
    assert [(one.where, one.effect, one.facts["other"]) for one in findings if one.code == "GW-CFG-47"] == [
        ("destination[2] (e).path", "kept", "destination[1] (d)"),
        ("destination[3] (f).path", "set-aside", "destination[2] (e)"),
    ]


@pytest.mark.parametrize(
    ("one", "other"), [("mqtts://a", "mqtts://b"), ("https://a", "https://a"), ("mqtts://a", "mqtts://a:1883")]
)
def test_two_destinations_that_do_not_meet_pass(check: Check, one: str, other: str) -> None:
    settings, findings = check(two(path(one), path(other)))
    assert settings is not None
    assert len(settings.destinations) == 2
    assert [each for each in findings if each.code == "GW-CFG-47"] == []
