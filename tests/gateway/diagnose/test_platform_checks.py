"""What is told of a platform that is not spoken to natively."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from gateway.diagnose.daemon import Daemon, DaemonState
from gateway.diagnose.report import Line
from gateway.texts import text

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Centre
else:
    Centre = Any

STATUS = {
    "id": "city", "connected": True, "pending": {"A": 0, "B": 0, "C": 0, "D": 0}, "last_accepted_s": 3.0, "accepted": 7,
    "rejected": 0,
}  # fmt: skip
CITY = """
[[destination]]
id = "city"
profile = "{profile}"
[[destination.path]]
url = "{url}"
"""


@pytest.mark.parametrize(
    ("profile", "url", "told"),
    [
        ("native", "http://127.0.0.1:1", "profile native, level L2, last accepted"),
        ("http-json", "http://127.0.0.1:1",
            "profile http-json, level L2, not with it: an inventory, an online state, last accepted"),
        ("thingsboard", "mqtt://127.0.0.1:2",
            "profile thingsboard, level L1 (delivered, acceptance not confirmed), not with it: batches, a word of acceptance"),
    ],
)  # fmt: skip
def test_its_profile_is_told_with_its_level_and_what_it_lacks(
    centre: Centre, look: Callable[[Any, str], list[Line]], profile: str, url: str, told: str
) -> None:
    daemon = Daemon(DaemonState.RUNNING, status={"destinations": [STATUS]})
    site = centre.site(CITY.format(profile=profile, url=url), daemon=daemon)
    [line] = [one for one in look(site, "platform") if one.subject == "city"]
    assert text("diagnose.platform-now", "en", **line.facts).startswith(told)


def test_a_full_diagnosis_sends_no_native_event_to_a_platform_that_does_not_speak_so(
    centre: Centre, look: Callable[[Any, str], list[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.diagnose.checks import network

    rehearsed: list[str] = []
    monkeypatch.setattr(network, "climb", lambda _goal: network.Ladder())
    monkeypatch.setattr(
        network, "rehearse", lambda _settings, _path, name, *, finish: rehearsed.append(name) or network.Rehearsal(3)
    )
    site = centre.site(CITY.format(profile="http-json", url="http://127.0.0.1:1"), is_full=True)
    look(site, "network")
    assert rehearsed == ["district"]
