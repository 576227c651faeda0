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

# The only destination does not run: nobody takes the alarms.
NOBODY = ("GW-CFG-41", "destination", 5, "kept")
# A profile of one's own that tells nothing of what its application did, and needs a value.
OWN = """\
name = "own"
transport = "http"
level = "L1"
parameters = ["key"]
[[message]]
types = ["*"]
to = "/{parameter.key}/in"
body = { id = "{id}" }
"""
GATEWAY = '[gateway]\nid = "g"\norg = "o"\nsite = "s"\n'


@pytest.fixture
def with_destination(check: Check) -> Callable[[str], Seen]:
    """Load a gateway with these destinations; that it has no devices and no login is left out."""

    def load(text: str) -> Seen:
        settings, findings = check(GATEWAY + text)
        assert settings is not None, findings
        seen = [
            (one.code, one.where, one.line, one.effect)
            for one in findings
            if one.code not in ("GW-CFG-38", "GW-CFG-48")
        ]
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


def test_a_destination_set_aside_is_known_so_that_its_events_wait(with_destination: Load) -> None:
    settings, _ = with_destination(
        destination("ftp://x", 'types = ["alarm.*"]\n', name="a") + destination("mqtts://y", name="b")
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
    assert findings == [("GW-CFG-05", "destination[1] (d).path", 5, "set-aside"), NOBODY]


def test_an_unknown_profile_is_told_with_those_there_are(with_destination: Load) -> None:
    settings, findings = with_destination(destination("mqtts://a", 'profile = "natve"\n'))
    assert settings.destinations == ()
    assert findings == [NOBODY, ("GW-CFG-28", "destination[1] (d).profile", 7, "set-aside")]
    facts = next(one.facts for one in settings.findings if one.code == "GW-CFG-28")
    assert (
        describe("GW-CFG-28", "en", "", facts).remedy
        == "did you mean native? Profiles: native, http-json, alink, thingsboard"
    )


def test_a_profile_of_ones_own_is_a_file(with_destination: Load, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN)
    text = destination("https://a", f'profile = "{own}"\nparameters = {{ key = "k" }}\n')
    settings, findings = with_destination(text)
    assert findings == []
    [one] = settings.destinations
    assert (one.profile, one.finish, one.parameters) == (str(own), "L1", {"key": "k"})


def test_every_fault_of_a_profile_is_told_and_its_events_wait(with_destination: Load, tmp_path: Path) -> None:
    own = tmp_path / "faulty.toml"
    own.write_text(OWN.replace('"*"', '"alarm.*"').replace("{parameter.key}", "{parameter.kay}"))
    settings, findings = with_destination(destination("https://a", f'profile = "{own}"\n'))
    at = ("GW-CFG-49", "destination[1] (d).profile", 7, "set-aside")
    assert findings == [NOBODY, at, at]
    assert [one.id for one in settings.set_aside_destinations] == ["d"]
    told = [describe("GW-CFG-49", "en", "", one.facts).title for one in settings.findings if one.code == "GW-CFG-49"]
    last = 'the last message must have "*" among its types, so that every event can be said'
    assert told == [
        f"profile {own} cannot be used: message[1].to: parameters does not name parameter.kay",
        f"profile {own} cannot be used: message[1].types: {last}",
    ]


def test_a_profile_that_lacks_a_value_is_set_aside(with_destination: Load, tmp_path: Path) -> None:
    own = tmp_path / "needy.toml"
    own.write_text(OWN)
    text = destination("https://a", f'profile = "{own}"\nparameters = {{ other = "x" }}\n')
    settings, findings = with_destination(text)
    assert settings.destinations == ()
    assert findings == [NOBODY, ("GW-CFG-51", "destination[1] (d).parameters", 8, "set-aside")]
    facts = next(one.facts for one in settings.findings if one.code == "GW-CFG-51")
    assert describe("GW-CFG-51", "en", "", facts).title == "profile own needs values: key"


def test_a_value_that_no_profile_uses_is_remarked_on(with_destination: Load) -> None:
    _, findings = with_destination(destination("https://a", "parameters = { key = 'x' }\n"))
    assert findings == [("GW-CFG-35", "destination[1] (d).parameters.key", 7, "kept")]


def test_a_path_over_which_a_profile_is_not_spoken_is_left_out(with_destination: Load) -> None:
    both = destination("https://a", 'profile = "http-json"\n') + '[[destination.path]]\nurl = "mqtts://b"\n'
    settings, findings = with_destination(both)
    assert findings == [("GW-CFG-50", "destination[1] (d).path[2].url", 11, "set-aside")]
    assert [one.url for one in settings.destinations[0].path] == ["https://a"]
    settings, findings = with_destination(destination("mqtts://b", 'profile = "http-json"\n'))
    assert findings == [NOBODY, ("GW-CFG-50", "destination[1] (d).path[1].url", 9, "set-aside")]
    assert settings.destinations == ()


@pytest.mark.parametrize("profile", ["alink", "thingsboard"])
def test_a_second_path_is_kept_also_where_a_platform_gives_one_client_id(with_destination: Load, profile: str) -> None:
    values = 'parameters = { product_key = "p", device_name = "n", client_id = "c" }\n'
    more = '[[destination.path]]\nurl = "mqtts://b"\n'
    wanted = values if profile == "alink" else ""
    settings, findings = with_destination(destination("mqtts://a", f'profile = "{profile}"\n{wanted}') + more)
    assert [one.url for one in settings.destinations[0].path] == ["mqtts://a", "mqtts://b"]
    assert [one for one in findings if one[0].startswith("GW-CFG-5")] == []


def test_a_level_that_a_platform_cannot_tell_is_not_waited_for(with_destination: Load, tmp_path: Path) -> None:
    own = tmp_path / "l1.toml"
    own.write_text(OWN)
    more = f'profile = "{own}"\nparameters = {{ key = "k" }}\nfinish = "L2"\n'
    settings, findings = with_destination(destination("https://a", more))
    assert findings == [("GW-CFG-35", "destination[1] (d).finish", 9, "kept")]
    assert settings.destinations[0].finish == "L1"


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


def test_alarms_that_only_a_destination_that_does_not_run_would_take_reach_nobody(with_destination: Load) -> None:
    settings, findings = with_destination(
        destination("mqtt://10.0.0.7", 'types = ["alarm.*"]\n', name="district")
        + destination("mqtts://b", 'types = ["telemetry.*"]\n', name="family")
    )
    assert [one.id for one in settings.destinations] == ["family"]
    assert findings == [NOBODY, ("GW-CFG-25", "destination[1] (district).path[1].url", 9, "set-aside")]
    nobody = next(one for one in settings.findings if one.code == "GW-CFG-41")
    assert nobody.severity == "problem"
    assert describe("GW-CFG-41", "zh", "", nobody.facts).title == (
        "这些报警现在没有平台接收：alarm.*，要接收它们的平台已停用：destination[1] (district)"
    )


def test_what_nobody_wants_and_what_only_a_broken_destination_wants_are_told_apart(with_destination: Load) -> None:
    settings, findings = with_destination(
        destination("ftp://a", 'types = ["alarm.raised"]\n', name="a")
        + destination("mqtts://b", 'types = ["telemetry.*"]\n', name="b")
    )
    assert [code for code, *_ in findings] == ["GW-CFG-26", "GW-CFG-41", "GW-CFG-24"]
    untaken, waiting = (one.facts["types"] for one in settings.findings if one.code in ("GW-CFG-26", "GW-CFG-41"))
    assert "alarm.raised" not in untaken
    assert "alarm.closed" in untaken
    assert waiting == ("alarm.raised",)


def test_alarms_that_another_destination_takes_too_do_reach_somebody(with_destination: Load) -> None:
    _, findings = with_destination(destination("ftp://a", name="a") + destination("mqtts://b", name="b"))
    assert [code for code, *_ in findings] == ["GW-CFG-24"]


def test_types_that_gave_way_to_everything_take_the_alarms(with_destination: Load) -> None:
    _, findings = with_destination(
        destination("mqtts://a", 'types = ["telemetry.*"]\n', name="a")
        + destination("mqtts://b", "types = 7\n", name="b")
    )
    assert [code for code, *_ in findings] == ["GW-CFG-07"]


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
