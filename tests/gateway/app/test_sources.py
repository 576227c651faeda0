"""From a configured broker to its link: under which name the broker knows us."""

from __future__ import annotations

import pytest

from gateway.app.sources import client_id_of
from gateway.config import Mqtt
from gateway.events import Origin
from gateway.uplinks.mqtt import client_id


@pytest.mark.parametrize("name", ["2", "zigbee"])
def test_a_broker_knows_the_listening_by_a_name_that_no_path_to_a_platform_has(name: str) -> None:
    """At one broker the two would throw each other out for ever, the delivery of alarms among them."""
    ours = client_id_of(Mqtt("mqtt://127.0.0.1", id=name), Origin("org", "site", "gw"))
    assert ours == f"org-site-gw.{name}"
    others = [client_id(Origin("org", "site", gateway), path) for gateway in ("gw", f"gw-{name}") for path in (1, 2)]
    assert ours not in others
