"""Brokers that are listened to: where they are, in plain text only with a word, and who may be behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.protocols.published_adverts import Form
from gateway.config import Mqtt, Settings, inspect
from gateway.errors import Finding

HEAD = """\
[gateway]
id = "g"
org = "o"
site = "s"
[[destination]]
id = "d"
[[destination.path]]
url = "mqtt://127.0.0.1"
"""
DEVICE = '[[device]]\nid = "sos"\nmodel = "zigbee2mqtt"\nlink = "z"\naddress = "zigbee2mqtt/sos"\n'
Seen = tuple[Settings, list[tuple[str, str, str]]]


@pytest.fixture
def with_broker(tmp_path: Path) -> Callable[[str], Seen]:
    """Load a gateway with these tables, by the real drivers; what is told of the platform's login is left out."""

    def load(text: str) -> Seen:
        path = tmp_path / "gateway.toml"
        path.write_text(HEAD + text, encoding="utf-8")
        settings, findings = inspect(path)
        assert settings is not None, findings

        def place(one: Finding) -> str:
            return one.where.rsplit(".", 1)[-1]

        return settings, [(one.code, place(one), one.effect) for one in findings if "destination" not in one.where]

    return load


def test_a_broker_with_everything(with_broker: Callable[[str], Seen], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    (tmp_path / "password").chmod(0o600)
    settings, told = with_broker(f"""
[[mqtt]]
id = "z"
url = "mqtts://broker.lan"
username = "gw"
password = "file:{tmp_path}/password"
bridge = "zigbee2mqtt/bridge/state"
mqtt_version = "3.1.1"
{DEVICE}""")
    (broker,) = settings.mqtt
    assert isinstance(broker, Mqtt)
    assert told == []
    assert (broker.host, broker.port, broker.tls, broker.bridge) == (
        "broker.lan",
        8883,
        True,
        "zigbee2mqtt/bridge/state",
    )
    assert (broker.is_proven, broker.mqtt_version) == (True, "3.1.1")
    assert [one.id for one in settings.devices] == ["sos"]


def test_nobody_has_to_log_in_to_a_broker_of_this_machine_but_then_nothing_is_proven(
    with_broker: Callable[[str], Seen],
) -> None:
    settings, told = with_broker(f'[[mqtt]]\nid = "z"\nurl = "mqtt://127.0.0.1"\n{DEVICE}')
    assert told == []
    assert (settings.mqtt[0].port, settings.mqtt[0].is_proven) == (1883, False)


def test_plain_text_beyond_this_machine_needs_a_word(with_broker: Callable[[str], Seen]) -> None:
    table = f'[[mqtt]]\nid = "z"\nurl = "mqtt://192.168.1.9"\n{{more}}\n{DEVICE}'
    settings, told = with_broker(table.format(more=""))
    assert (settings.mqtt, settings.devices) == ((), ())
    assert told == [
        ("GW-CFG-38", "", "kept"), ("GW-CFG-25", "url", "set-aside"), ("GW-CFG-32", "link", "set-aside"),
    ]  # fmt: skip
    settings, told = with_broker(table.format(more="allow_plain = true"))
    assert (len(settings.mqtt), len(settings.devices), told) == (1, 1, [])


@pytest.mark.parametrize(
    ("table", "finding"),
    [
        ('id = "z"\nurl = "https://broker.lan"', ("GW-CFG-24", "url", "set-aside")),
        ('id = "z"\nurl = "mqtts://broker.lan/x"', ("GW-CFG-24", "url", "set-aside")),
        ('id = "z"\nurl = "mqtts://u:p@broker.lan"', ("GW-CFG-34", "url", "set-aside")),
        ('id = "z"', ("GW-CFG-05", "url", "set-aside")),
        ('url = "mqtts://broker.lan"', ("GW-CFG-05", "id", "set-aside")),
        ('id = "z"\nurl = "mqtts://broker.lan"\nbridge = "zigbee2mqtt/#"', ("GW-CFG-07", "bridge", "set-aside")),
        ('id = "z"\nurl = "mqtts://broker.lan"\ntopics = ["a"]', ("GW-CFG-06", "topics", "kept")),
        ('id = "z"\nurl = "mqtts://broker.lan"\nusername = "u"', ("GW-CFG-44", "username", "kept")),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(
    with_broker: Callable[[str], Seen], table: str, finding: tuple[str, str, str]
) -> None:
    _settings, told = with_broker(f"[[mqtt]]\n{table}\n{DEVICE}")
    assert finding in told


def test_two_links_of_one_id_are_one_too_many(with_broker: Callable[[str], Seen]) -> None:
    settings, told = with_broker(f'[[ble]]\nid = "z"\n[[mqtt]]\nid = "z"\nurl = "mqtt://127.0.0.1"\n{DEVICE}')
    assert settings.mqtt == ()
    assert ("GW-CFG-08", "id", "set-aside") in told
    assert ("GW-CFG-12", "link", "set-aside") in told


@pytest.mark.parametrize(
    ("table", "finding"),
    [
        ('id = "x"\nmodel = "bthome-button"\nlink = "z"\naddress = "A4:C1:38:00:00:01"\nallow_plain = true', "link"),
        ('id = "x"\nmodel = "json-lines"\nlink = "z"\nmap = { signal = [ { field = "a", is = "call" } ] }', "link"),
        ('id = "x"\nmodel = "zigbee2mqtt"\nlink = "wire"\naddress = "a"', "link"),
    ],
)
def test_a_device_needs_the_link_that_its_model_is_heard_on(
    with_broker: Callable[[str], Seen], table: str, finding: str
) -> None:
    broker = '[[mqtt]]\nid = "z"\nurl = "mqtt://127.0.0.1"\n[[serial]]\nid = "wire"\nport = "/dev/serial/by-id/x"\n'
    _settings, told = with_broker(f"{broker}[[device]]\n{table}\n")
    assert ("GW-CFG-12", finding, "set-aside") in told


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ('model = "zigbee2mqtt"\naddress = ""', "address"),
        ('model = "zigbee2mqtt"\naddress = "zigbee2mqtt/+"', "address"),
        ('model = "zigbee2mqtt"\naddress = "a"\nmap = { output = "json" }', "output"),
        ('model = "mqtt-topic"\naddress = "#"\nmap = { signal = [ { is = "call" } ] }', "address"),
        (
            'model = "mqtt-topic"\naddress = "a"\nmap = { availability = "#", signal = [ { is = "call" } ] }',
            "availability",
        ),
    ],
)
def test_an_address_that_is_no_topic_is_told_at_its_place(
    with_broker: Callable[[str], Seen], table: str, place: str
) -> None:
    broker = '[[mqtt]]\nid = "z"\nurl = "mqtt://127.0.0.1"\n'
    _settings, told = with_broker(f'{broker}[[device]]\nid = "x"\nlink = "z"\n{table}\n')
    assert ("GW-CFG-15", place, "set-aside") in told


RELAY = '[[mqtt]]\nid = "up"\nurl = "mqtt://127.0.0.1"\n'
BUTTON = (
    '[[device]]\nid = "call"\nmodel = "ingics-ibs"\nlink = "up"\naddress = "E8:56:71:5A:54:F5"\nallow_plain = true\n'
)


def test_a_receiver_that_publishes_adverts_is_a_radio(with_broker: Callable[[str], Seen]) -> None:
    fields = 'advert_form = "minew"\nadvert_fields = { adverts = "devices" }\n'
    settings, told = with_broker(f'{RELAY}adverts = "gw/+/status"\n{fields}{BUTTON}')
    assert told == []
    assert [one.link for one in settings.devices] == ["up"]
    assert settings.mqtt[0].form == Form("mac", name="bleName", adverts="devices", raw="rawData")


@pytest.mark.parametrize(
    ("lines", "finding"),
    [
        ('adverts = "home/a+"', ("GW-CFG-07", "adverts", "set-aside")),
        ('adverts = "a/#"\nadvert_form = "ruuvi"', ("GW-CFG-07", "advert_form", "set-aside")),
        ('adverts = "a/#"\nadvert_fields = { adress = "mac" }', ("GW-CFG-07", "adress", "set-aside")),
    ],
    ids=["no filter", "no form", "no field"],
)
def test_a_receiver_that_could_not_be_read_is_set_aside(
    with_broker: Callable[[str], Seen], lines: str, finding: tuple[str, str, str]
) -> None:
    settings, told = with_broker(f"{RELAY}{lines}\n{BUTTON}")
    assert (settings.mqtt, settings.devices) == ((), ())
    assert finding in told
    assert ("GW-CFG-32", "link", "set-aside") in told


def test_a_device_of_the_air_is_not_heard_on_a_broker_without_adverts(with_broker: Callable[[str], Seen]) -> None:
    settings, told = with_broker(f'{RELAY}advert_fields = {{ address = "mac" }}\n{BUTTON}')
    assert settings.devices == ()
    assert ("GW-CFG-12", "link", "set-aside") in told
    assert ("GW-CFG-35", "advert_fields", "kept") in told
