"""The file as a whole: what stops everything, who the gateway is, rooms and links, and that the examples load."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import LineSettings
from gateway.cli import commands
from gateway.config import (
    CONTROL_SOCKET,
    Ble,
    Destination,
    DestinationPath,
    Gateway,
    Mqtt,
    Outbox,
    Room,
    Serial,
    Settings,
    inspect,
    load,
    loading,
    secret,
)
from gateway.config.settings import DeviceTable
from gateway.errors import ConfigError, Finding
from gateway.problems import PROBLEMS, describe

Check = Callable[[str], tuple[Settings | None, tuple[Finding, ...]]]
Added = Callable[[str], tuple[Settings, list[tuple[str, str, int | None, str]]]]

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.toml"))
NO_DEVICES = ("GW-CFG-38", "", None, "kept")
DESTINATION = '[[destination]]\nid = "d"\n[[destination.path]]\nurl = "mqtts://example.org"\n'


def only(findings: tuple[Finding, ...]) -> Finding:
    listed = [one for one in findings if one.code != "GW-CFG-38"]
    assert len(listed) == 1, listed
    return listed[0]


# -- what stops everything ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_stops_everything(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml")
    assert caught.value.code == "GW-CFG-01"
    assert [one.effect for one in caught.value.findings] == ["fatal"]


def test_a_directory_instead_of_a_file_is_named(tmp_path: Path) -> None:
    settings, findings = inspect(tmp_path)
    assert settings is None
    assert (only(findings).code, only(findings).facts["reason"]) == ("GW-CFG-02", "@hint.not-a-file")


def test_a_file_of_more_than_one_mebibyte_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "big.toml"
    file.write_bytes(b"#" * (1024 * 1024 + 1))
    assert only(inspect(file)[1]).facts["reason"] == "@hint.too-large"


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "closed.toml"
    file.write_text("")

    def closed(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", closed)  # root, who may run this, may read everything
    finding = only(inspect(file)[1])
    assert (finding.code, finding.facts["reason"]) == ("GW-CFG-02", "@hint.no-permission")


def test_text_in_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "gbk.toml"
    file.write_bytes('# 1\n# 2\noperator = "二楼"\n'.encode("gb18030"))
    finding = only(inspect(file)[1])
    assert (finding.code, finding.line) == ("GW-CFG-03", 3)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "bom.toml"
    file.write_text('﻿[gateway]\nid="g"\norg="o"\nsite="s"\n' + DESTINATION, encoding="utf-8")
    assert load(file).gateway.id == "g"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('[gateway]\nid = "gw\n', 2, 9),
        ("[gateway\n", 1, 9),
        ("[gateway]\nid = “gw”\n", 2, 6),
        ("a = 1\na = 2\n", 2, 6),
        ("x = " + "[" * 5000, None, None),
        ("x = " + "9" * 5000, None, None),
    ],
)
def test_a_syntax_error_is_told_with_line_and_column(
    check: Check, text: str, line: int | None, column: int | None
) -> None:
    settings, findings = check(text)
    assert settings is None
    finding = only(findings)
    assert (finding.code, finding.effect, finding.line) == ("GW-CFG-04", "fatal", line)
    assert finding.facts["column"] == column


def test_a_gateway_that_does_not_say_who_it_is_stops_everything(check: Check) -> None:
    settings, findings = check('[gateway]\norg = "Big Org"\n' + DESTINATION)
    assert settings is None
    assert {(one.code, one.where, one.line) for one in findings if one.effect == "fatal"} == {
        ("GW-CFG-05", "gateway.id", 1),
        ("GW-CFG-05", "gateway.site", 1),
        ("GW-CFG-07", "gateway.org", 2),
    }


def test_no_destination_at_all_stops_everything(check: Check) -> None:
    settings, findings = check('[gateway]\nid="g"\norg="o"\nsite="s"\n')
    assert settings is None
    assert ("GW-CFG-31", "fatal") in [(one.code, one.effect) for one in findings]


def test_everything_wrong_is_told_at_once_even_beside_what_is_fatal(check: Check) -> None:
    settings, findings = check('[gateway]\n[[room]]\nid = "A"\n[[device]]\nmodel = "buton"\n')
    assert settings is None
    assert {(one.code, one.where) for one in findings} == {
        ("GW-CFG-05", "gateway.id"),
        ("GW-CFG-05", "gateway.org"),
        ("GW-CFG-05", "gateway.site"),
        ("GW-CFG-07", "room[1] (A).id"),
        ("GW-CFG-05", "device[1].id"),
        ("GW-CFG-05", "device[1].link"),
        ("GW-CFG-10", "device[1].model"),
        ("GW-CFG-31", ""),
        ("GW-CFG-38", ""),
    }


# -- keys and values ---------------------------------------------------------------------------------------------


def test_an_unknown_key_is_told_with_what_may_have_been_meant_and_never_its_value(added: Added, check: Check) -> None:
    _, findings = check('[gateway]\nid="g"\norg="o"\nsite="s"\noperater = "canary"\n' + DESTINATION)
    finding = only(findings)
    assert (finding.code, finding.where, finding.line) == ("GW-CFG-06", "gateway.operater", 5)
    assert (finding.facts["close"], finding.value) == ("operator", "")
    assert "canary" not in repr(findings)


def test_an_unknown_table_is_told(check: Check) -> None:
    settings, findings = check('[gateway]\nid="g"\norg="o"\nsite="s"\n[[devices]]\nid = "x"\n' + DESTINATION)
    assert settings is not None
    finding = only(findings)
    assert (finding.code, finding.where, finding.line, finding.facts["close"]) == ("GW-CFG-06", "devices", 5, "device")


def test_one_table_where_several_belong_is_told_with_how_to_write_it(added: Added) -> None:
    settings, findings = added('[room]\nid = "201"\n')
    assert settings.rooms == ()
    assert findings == [NO_DEVICES, ("GW-CFG-07", "room", 9, "set-aside")]
    assert describe("GW-CFG-07", "en", "room", settings.findings[1].facts).remedy == (
        "Write one entry or more, each written [[room]]"
    )


@pytest.mark.parametrize(
    "bad", ['"hall-"', '"UPPER"', '""', "3", "true", '"a b"', '"a/b"', '"a+"', '"' + "x" * 65 + '"']
)
def test_ids_hold_nothing_but_small_letters_digits_and_hyphens(added: Added, bad: str) -> None:
    settings, findings = added(f"[[room]]\nid = {bad}\n")
    if bad == '"hall-"':
        assert settings.rooms == (Room("hall-"),)
    else:
        assert settings.rooms == ()
        assert findings[1][0] == "GW-CFG-07"


def test_a_bad_value_that_has_a_default_gives_way_to_it(added: Added) -> None:
    settings, findings = added('[outbox]\nmax_mb = "many"\n')
    assert settings.outbox == Outbox(512)
    assert findings == [NO_DEVICES, ("GW-CFG-07", "outbox.max_mb", 10, "kept")]
    assert settings.findings[1].value == '"many"'


def test_control_characters_of_a_value_are_shown_escaped_and_long_ones_cut(added: Added) -> None:
    settings, _ = added('[outbox]\nmax_mb = "\\u001b[31m' + "x" * 200 + '"\n')
    shown = settings.findings[1].value
    assert shown.startswith('"\\u001b[31mxxx')
    assert len(shown) == 80
    assert shown.isprintable()


def test_more_than_500_findings_are_counted(added: Added) -> None:
    settings, _ = added("[outbox]\n" + "\n".join(f"k{n} = 1" for n in range(600)))
    assert len(settings.findings) == 501
    assert settings.findings[-1].code == "GW-CFG-39"
    assert settings.findings[-1].facts["count"] == 101


# -- rooms and links ---------------------------------------------------------------------------------------------


def test_of_two_entries_with_one_id_the_second_is_set_aside(added: Added) -> None:
    settings, findings = added(
        '[[room]]\nid = "201"\nname = "a"\n[[room]]\nid = "201"\nname = "b"\n'
        '[[ble]]\nid = "r"\n[[serial]]\nid = "r"\nport = "/dev/ttyS0"\n'
    )
    assert settings.rooms == (Room("201", "a"),)
    assert (settings.serial, settings.ble) == ((Serial("r", "/dev/ttyS0"),), ())
    assert findings == [
        NO_DEVICES,
        ("GW-CFG-08", "room[2] (201).id", 13, "set-aside"),
        ("GW-CFG-08", "ble[1] (r).id", 16, "set-aside"),
    ]
    assert settings.findings[1].facts["other_line"] == 10
    assert settings.findings[2].facts["other_line"] == 18


def test_a_port_or_adapter_belongs_to_one_link(added: Added) -> None:
    settings, findings = added(
        '[[serial]]\nid = "a"\nport = "/dev/ttyS0"\n[[serial]]\nid = "b"\nport = "/dev/ttyS0"\n'
        '[[ble]]\nid = "c"\n[[ble]]\nid = "d"\n'
    )
    assert ([one.id for one in settings.serial], [one.id for one in settings.ble]) == (["a"], ["c"])
    assert findings[1:] == [
        ("GW-CFG-08", "serial[2] (b).port", 14, "set-aside"),
        ("GW-CFG-08", "ble[2] (d).adapter", 17, "set-aside"),
    ]


@pytest.mark.parametrize(
    "port",
    [
        "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0",
        "/dev/ttyAMA0",
        "/dev/pts/3",
        "/run/gateway-demo/radar",
        "socket://192.168.8.7:4001",
        "socket://[fe80::1]:4001",
        "socket://gateway-1.local:65535",
        "rfc2217://192.168.8.7:4001",
    ],
)
def test_ports_that_last_pass(added: Added, port: str) -> None:
    settings, findings = added(f'[[serial]]\nid = "a"\nport = "{port}"\n')
    assert settings.serial == (Serial("a", port),)
    assert findings == [NO_DEVICES]


@pytest.mark.parametrize(
    "port",
    [
        "COM3",
        "ttyUSB0",
        "/dev/../etc/x",
        "socket://host",
        "socket://host:0",
        "socket://h:65536",
        "rfc2217://h",
        "tcp://h:1",
    ],
)
def test_what_is_no_port_is_set_aside(added: Added, port: str) -> None:
    settings, findings = added(f'[[serial]]\nid = "a"\nport = "{port}"\n')
    assert settings.serial == ()
    assert findings[1] == ("GW-CFG-29", "serial[1] (a).port", 11, "set-aside")


@pytest.mark.parametrize("port", ["/dev/ttyUSB0", "/dev/ttyACM12"])
def test_a_port_name_that_changes_is_a_warning(added: Added, port: str) -> None:
    settings, findings = added(f'[[serial]]\nid = "a"\nport = "{port}"\n')
    assert [link.port for link in settings.serial] == [port]
    assert findings[1] == ("GW-CFG-30", "serial[1] (a).port", 11, "kept")
    assert settings.findings[1].severity == "warning"


def test_the_lasting_name_of_a_port_is_told_where_the_system_knows_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ttyUSB7").touch()
    names = tmp_path / "by-id"
    names.mkdir()
    (names / "usb-FTDI_X").symlink_to("../ttyUSB7")
    (names / "usb-gone").symlink_to("../ttyUSB8")
    monkeypatch.setattr(loading, "_LASTING_NAMES", (tmp_path / "none", names))
    assert loading._lasting_name(tmp_path / "ttyUSB7") == f"{names}/usb-FTDI_X"
    assert loading._lasting_name(tmp_path / "ttyUSB9") == ""


def test_a_line_setting_left_out_is_the_drivers() -> None:
    wants = LineSettings(2400, 8, "E", 1)
    assert Serial("a", "/dev/ttyS0").line(wants) == wants
    assert Serial("a", "/dev/ttyS0", baud=9600, parity="N").line(wants) == LineSettings(9600, 8, "N", 1)


@pytest.mark.parametrize(
    "line", ["baud = 299", 'baud = "9600"', "bits = 9", 'parity = "X"', "stop = 3", "quiet_ms = -1", "echo = 1"]
)
def test_line_settings_that_no_port_has_give_way_to_the_defaults(added: Added, line: str) -> None:
    settings, findings = added(f'[[serial]]\nid = "a"\nport = "/dev/ttyS0"\n{line}\n')
    assert settings.serial == (Serial("a", "/dev/ttyS0"),)
    assert findings[1] == ("GW-CFG-07", f"serial[1] (a).{line.split(maxsplit=1)[0]}", 12, "kept")


# -- the examples ------------------------------------------------------------------------------------------------


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every credential that the shipped files name, as systemd hands them over: keys of buttons, and the rest as words."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    for file in (CONFIG / "gateway.toml", *EXAMPLES):
        for name in re.findall(r'"credential:([a-z0-9-]+)"', file.read_text(encoding="utf-8")):
            key = name.startswith("call-")
            (folder / f"daycare_{name}").write_text("231d39c1d7cc1ab1aee224cd096db932\n" if key else "canary\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.mark.usefixtures("credentials")
def test_the_shipped_configuration_loads_without_a_finding() -> None:
    settings = load(CONFIG / "gateway.toml")
    assert settings.findings == ()
    assert [(one.id, one.model, one.link) for one in settings.devices] == [
        ("call-201-1", "bthome-button", "radio"),
        ("pendant-201-2", "ingics-ibs", "radio"),
        ("beacon-201-1", "beacon-button", "radio"),
        ("pull-cord-toilet", "zigbee2mqtt", "zigbee"),
        ("fall-bathroom-2", "json-lines", "radar"),
        ("meter-main", "dlt645-2007", "rs485"),
    ]
    assert settings.devices[0].key_bytes == bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
    assert settings.devices[5].every_s == 900
    assert settings.destinations[0].path[0].password is not None
    assert settings.destinations[0].path[0].password.text() == "canary"
    assert [one.url for one in settings.destinations[0].path] == [
        "mqtts://platform.example.org:8883", "https://platform.example.org/care"
    ]  # fmt: skip
    assert "canary" not in repr(settings)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_load_without_a_finding(file: Path) -> None:
    settings = load(file)
    assert settings.findings == ()
    assert settings.set_aside_destinations == ()
    assert all(one.key_bytes or one.model != "bthome-button" for one in settings.devices)
    named = {one.room for one in settings.devices if one.room}
    assert named <= {room.id for room in settings.rooms if room.name}


@pytest.mark.usefixtures("credentials")
def test_the_examples_are_the_sites_that_they_say() -> None:
    village, station, street = (load(CONFIG / "examples" / f"{name}.toml") for name in (
        "village-point", "station", "street-centre"
    ))  # fmt: skip

    def count(settings: Settings, model: str) -> int:
        return sum(one.model.startswith(model) for one in settings.devices)

    assert [count(village, model) for model in ("bthome", "json-lines", "dlt645")] == [2, 1, 1]
    assert [count(station, model) for model in ("bthome", "andar", "dlt645")] == [8, 1, 2]
    assert [path.transport for path in station.destinations[0].path] == ["mqtt", "http"]
    assert [count(street, model) for model in ("bthome", "ingics", "andar", "dlt645")] == [30, 6, 4, 4]
    assert sum(len(room.beds) for room in street.rooms) == 20
    beds = {(room.id, bed) for room in street.rooms for bed in room.beds}
    assert {(one.room, one.bed) for one in street.devices if one.model == "bthome-button" and one.bed} == beds
    district, office, city, family = street.destinations
    assert (office.types, city.types) == (("alarm.*", "gateway.gap"), ("gateway.counts",))
    assert (district.types, [path.transport for path in district.path]) == (("*",), ["mqtt", "http"])
    assert family.types == ("alarm.*", "bed.occupancy", "gateway.gap")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_technician_who_checks_an_example_by_hand_reads_of_its_secrets_only(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(secret, "STORE", tmp_path / "none")
    _, findings = inspect(file)
    assert [(one.code, one.severity) for one in findings] == [("GW-CFG-42", "warning")]


def _uncommented(credentials: Path) -> str:
    text = (CONFIG / "gateway.toml").read_text(encoding="utf-8")
    for name in ("platform-ca.pem", "gateway.pem", "gateway.key"):
        (credentials / name).write_text("x")
        (credentials / name).chmod(0o600)
        text = text.replace(f"/etc/daycare-gateway/{name}", str(credentials / name))
    return re.sub(r"^( *)#([a-z_]+ = )", r"\1\2", text, flags=re.MULTILINE)


def test_every_commented_option_of_the_shipped_configuration_is_right_too(tmp_path: Path, credentials: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(_uncommented(credentials), encoding="utf-8")
    settings = load(file)
    assert settings.findings == ()
    plain = load(CONFIG / "gateway.toml")
    # What is commented out is the default: with it in place nothing changes but what has no default.
    assert settings.gateway == plain.gateway
    assert settings.outbox == plain.outbox
    assert settings.rooms == plain.rooms
    assert settings.ble == plain.ble
    assert [(one.url, one.mqtt_version) for one in settings.destinations[0].path] == [
        (one.url, one.mqtt_version) for one in plain.destinations[0].path
    ]
    assert settings.serial[0].line(LineSettings(115200)) == plain.serial[0].line(LineSettings(115200))


def test_the_shipped_configuration_names_every_option() -> None:
    text = (CONFIG / "gateway.toml").read_text(encoding="utf-8")
    kinds: tuple[Any, ...] = (Gateway, Room, Serial, Ble, Mqtt, DeviceTable, DestinationPath, Destination, Outbox)
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)} - {"path", "map"}
    assert {name for name in names if not re.search(rf"^ *#?{name} = ", text, re.MULTILINE)} == set()
    assert "[[destination.path]]" in text
    assert "[device.map]" in text


# -- what others rely on -----------------------------------------------------------------------------------------


def test_the_command_line_and_the_configuration_agree_on_the_control_socket() -> None:
    assert commands.DEFAULT_CONTROL == str(CONTROL_SOCKET) == "/run/daycare-gateway/control.sock"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Room("201").name = "x"  # type: ignore[misc]  # that it is refused is what is tested


def test_each_code_of_the_configuration_that_is_declared_is_used() -> None:
    source = "\n".join(file.read_text() for file in (CONFIG.parent / "gateway" / "config").glob("*.py"))
    declared = {code for code in PROBLEMS if code.startswith("GW-CFG-")}
    assert {code for code in declared if f'"{code}"' not in source} == set()
