"""Devices: what is wrong with one, what still runs, and who keeps a line that cannot serve everybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.kit import Advertises, LineSettings
from gateway.config import Device, Receiver, Room, Secret, Settings
from gateway.problems import describe

Added = Callable[[str], tuple[Settings, list[tuple[str, str, int | None, str]]]]

# START has 8 lines, these 8 more: what a test adds begins in line 17.
LINKS = """\
[[ble]]
id = "radio"
[[serial]]
id = "bus"
port = "/dev/ttyS0"
[[room]]
id = "201"
beds = ["1", "2"]
"""
KEY = "231d39c1d7cc1ab1aee224cd096db932"


def device(model: str, link: str, address: str, more: str = "", name: str = "one") -> str:
    head = f'[[device]]\nid = "{name}"\nmodel = "{model}"\nlink = "{link}"\naddress = "{address}"\n'
    return head + more + ("\n" if more else "")


def beacon(more: str = "", name: str = "one", address: str = "A4:C1:38:56:53:84", link: str = "radio") -> str:
    return device("beacon", link, address, f"allow_plain = true\n{more}", name)


def ids(settings: Settings) -> list[str]:
    return [one.id for one in settings.devices]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


# -- what a good one becomes -------------------------------------------------------------------------------------


def test_a_button_with_a_key_runs_with_it_and_its_address_in_capitals(added: Added, key_file: Path) -> None:
    settings, findings = added(
        LINKS + device("button", "radio", "a4:c1:38:56:53:84", f'room = "201"\nbed = "2"\nkey = "file:{key_file}"')
    )
    assert findings == []
    (one,) = settings.devices
    assert one == Device(
        "one", "button", "radio", "A4:C1:38:56:53:84", "201", "2", Secret(f"file:{key_file}"),
        driver=one.driver, options=None, key_bytes=bytes.fromhex(KEY),
    )  # fmt: skip
    assert KEY not in repr(settings)
    assert repr(bytes.fromhex(KEY)) not in repr(settings)


@pytest.mark.parametrize("model", ["sealed-port", "sealed-meter"])
def test_what_may_be_encrypted_on_a_line_gets_the_key_into_its_options(
    added: Added, key_file: Path, model: str
) -> None:
    for more, key in ((f'key = "file:{key_file}"', bytes.fromhex(KEY)), ("", None)):
        settings, findings = added(LINKS + device(model, "bus", "000012345678", more))
        assert findings == []
        (one,) = settings.devices
        assert isinstance(one.options, tuple)
        assert one.options[1] == key


@pytest.mark.parametrize("model", ["sealed-port", "sealed-meter"])
def test_a_key_of_another_length_is_told_and_the_device_runs_without(added: Added, key_file: Path, model: str) -> None:
    key_file.write_text("231d")
    settings, findings = added(LINKS + device(model, "bus", "000012345678", f'key = "file:{key_file}"'))
    assert findings == [("GW-CFG-19", "device[1] (one).key", 22, "kept")]
    assert settings.devices[0].key_bytes is None


def test_options_are_what_the_driver_makes_of_map_and_address(added: Added) -> None:
    settings, findings = added(
        LINKS
        + '[[serial]]\nid = "line"\nport = "/dev/ttyS1"\n'
        + device("meter", "bus", " 000012345678 ", "every_s = 5", "m")
        + device("radar", "line", "b1", 'map = { kind = "fall" }', "r")
    )
    assert findings == []
    assert [one.options for one in settings.devices] == [("answer", "000012345678"), ("stream", {"kind": "fall"})]
    assert [one.every_s for one in settings.devices] == [5, None]


def tag(slot: str, name: str = "one", address: str = "") -> str:
    where = f'address = "{address}"\n' if address else ""
    head = f'[[device]]\nid = "{name}"\nmodel = "tag"\nlink = "radio"\n{where}allow_plain = true\n'
    return f'{head}[device.map]\nslot = "{slot}"\n'


def test_a_driver_on_the_air_is_the_one_that_its_options_make(added: Added) -> None:
    settings, findings = added(LINKS + tag("a", address="A4:C1:38:56:53:84") + tag("b", name="two"))
    assert findings == []
    drivers = [one.driver for one in settings.devices]
    assert [one.identities for one in drivers if isinstance(one, Advertises)] == [{"a"}, {"b"}]
    assert [(one.address, one.options) for one in settings.devices] == [("A4:C1:38:56:53:84", None), ("", None)]


def test_an_option_of_a_radio_device_is_refused_in_its_own_line(added: Added) -> None:
    settings, findings = added(LINKS + tag("a").replace('slot = "a"', "slot = 7") + tag("b", name="two"))
    assert ids(settings) == ["two"]
    assert findings == [("GW-CFG-15", "device[1] (one).map.slot", 23, "set-aside")]


def test_of_two_devices_that_say_the_same_the_second_is_set_aside(added: Added) -> None:
    settings, findings = added(LINKS + tag("a") + tag("a", name="two"))
    assert ids(settings) == ["one"]
    assert findings == [("GW-CFG-09", "device[2] (two).map", 29, "set-aside")]


def test_a_key_may_be_read_as_its_maker_prints_it(added: Added, key_file: Path) -> None:
    key_file.write_text(f"Z{KEY}\n")
    settings, findings = added(
        LINKS + device("labelled-button", "radio", "A4:C1:38:56:53:84", f'key = "file:{key_file}"')
    )
    assert findings == []
    assert settings.devices[0].key_bytes == bytes.fromhex(KEY)


def test_calls_on_is_kept_as_words(added: Added) -> None:
    settings, findings = added(LINKS + beacon('calls_on = ["press", "long-double", "hold_2"]'))
    assert findings == []
    assert settings.devices[0].calls_on == ("press", "long-double", "hold_2")


def test_alarms_on_names_what_raises_an_alarm_here(added: Added) -> None:
    settings, findings = added(LINKS + beacon('alarms_on = ["opening", "bed_exit"]'))
    assert findings == []
    assert settings.devices[0].alarms_on == ("opening", "bed_exit")


def test_a_word_of_alarms_on_that_is_none_is_told_and_the_others_count(added: Added) -> None:
    settings, findings = added(LINKS + beacon('alarms_on = ["openning", "motion"]'))
    assert ids(settings) == ["one"]
    assert "motion" in settings.devices[0].alarms_on
    assert findings == [("GW-CFG-07", "device[1] (one).alarms_on", 23, "kept")]
    description = describe("GW-CFG-07", "en", "", settings.findings[0].facts)
    assert description.remedy == (
        "did you mean opening? Write a list of opening, motion, vibration, bed_exit, tamper: what raises an alarm here "
        "and is only told elsewhere"
    )


# -- what cannot run ---------------------------------------------------------------------------------------------


def test_an_unknown_model_is_told_with_the_nearest_and_all_models(added: Added) -> None:
    settings, findings = added(LINKS + device("buton", "radio", "A4:C1:38:56:53:84") + beacon(name="two"))
    assert ids(settings) == ["two"]
    assert findings == [("GW-CFG-10", "device[1] (one).model", 19, "set-aside")]
    description = describe("GW-CFG-10", "zh", "", settings.findings[0].facts)
    assert description.title == '没有名为 "buton" 的设备型号'
    assert description.remedy.startswith("是不是想写 button？可用的型号：button, locked-button, beacon")


def test_an_unknown_link_is_told_with_those_there_are(added: Added) -> None:
    settings, findings = added(LINKS + device("meter", "buss", "000012345678"))
    assert ids(settings) == []
    assert findings[1] == ("GW-CFG-11", "device[1] (one).link", 20, "set-aside")
    assert describe("GW-CFG-11", "en", "", settings.findings[1].facts).remedy == (
        "did you mean bus? Configured links: bus, radio"
    )


TWO_RADIOS = LINKS + '[[ble]]\nid = "radio-2"\nadapter = "hci1"\n'


@pytest.mark.parametrize(
    ("links", "remedy"),
    [
        (LINKS, "did you mean radio? mend the link or write the id of one that runs, then press the device once"),
        (LINKS + '[[ble]]\nid = "radioo"\nadapter = "hci777"\n', "mend the link or write the id of one that runs"),
    ],
    ids=["mistyped", "set aside"],
)
def test_a_device_whose_radio_does_not_run_is_heard_by_those_that_do(added: Added, links: str, remedy: str) -> None:
    settings, findings = added(links + device("beacon", "radioo", "A4:C1:38:56:53:84", "allow_plain = true"))
    assert ids(settings) == ["one"]
    (at,) = [at for at, one in enumerate(findings) if one[0] == "GW-CFG-53"]
    assert findings[at][1:] == ("device[1] (one).link", findings[at][2], "kept")
    told = describe("GW-CFG-53", "en", "", settings.findings[at].facts)
    assert told.title == 'no radio is named "radioo": the others that run hear for this device: radio'
    assert told.remedy.startswith(remedy)


def test_one_address_on_two_radios_is_one_device(added: Added) -> None:
    """Each radio hears for every device: a press of two would be two alarms."""
    settings, findings = added(TWO_RADIOS + beacon() + beacon(name="two", link="radio-2"))
    assert ids(settings) == ["one"]
    assert [(one[0], one[1], one[3]) for one in findings] == [("GW-CFG-09", "device[2] (two).address", "set-aside")]


@pytest.mark.parametrize(
    ("model", "link", "needed"),
    [("beacon", "bus", "[[ble]]"), ("radar", "radio", "[[serial]]"), ("meter", "radio", "[[serial]]")],
)
def test_a_link_of_the_wrong_kind_is_told_with_the_right_one(added: Added, model: str, link: str, needed: str) -> None:
    address = {"beacon": "A4:C1:38:56:53:84", "radar": "b1", "meter": "000012345678"}[model]
    plain = "allow_plain = true" if model == "beacon" else ""
    settings, findings = added(LINKS + device(model, link, address, plain))
    assert ids(settings) == []
    assert findings[1] == ("GW-CFG-12", "device[1] (one).link", 20, "set-aside")
    assert settings.findings[1].facts["needed"] == needed


def test_devices_of_a_link_that_is_set_aside_are_told_why_they_are_too(added: Added) -> None:
    settings, findings = added('[[serial]]\nid = "bus"\nport = "COM3"\n' + device("meter", "bus", "000012345678"))
    assert ids(settings) == []
    assert findings[1:] == [
        ("GW-CFG-29", "serial[1] (bus).port", 11, "set-aside"),
        ("GW-CFG-32", "device[1] (one).link", 15, "set-aside"),
    ]


@pytest.mark.parametrize("address", ["A4:C1:38:56:53", "A4-C1-38-56-53-84", "A4C138565384", "G4:C1:38:56:53:84", "b1"])
def test_what_is_no_bluetooth_address_is_set_aside(added: Added, address: str) -> None:
    settings, findings = added(LINKS + device("beacon", "radio", address, "allow_plain = true"))
    assert ids(settings) == []
    assert findings[1] == ("GW-CFG-16", "device[1] (one).address", 21, "set-aside")


def test_a_radio_device_needs_an_address(added: Added) -> None:
    _, findings = added(LINKS + '[[device]]\nid = "one"\nmodel = "beacon"\nlink = "radio"\nallow_plain = true\n')
    assert findings[1] == ("GW-CFG-05", "device[1] (one).address", 17, "set-aside")


def test_an_option_that_the_driver_refuses_is_found_in_its_own_line(added: Added) -> None:
    settings, findings = added(
        LINKS + device("meter", "bus", "000012345678", '[[device.map.rows]]\nis = "kwh"\n[[device.map.rows]]\nis = "V"')
    )
    assert ids(settings) == []
    assert findings[1] == ("GW-CFG-15", "device[1] (one).map.rows[2].is", 25, "set-aside")
    assert settings.findings[1].value == '"V"'
    assert settings.findings[1].facts["expected"] == {"zh": "电能", "en": "kwh"}
    assert describe("GW-CFG-15", "zh", "", settings.findings[1].facts).remedy == "可用的写法：电能"


def test_a_driver_that_fails_over_its_options_silences_nothing_but_its_device(added: Added) -> None:
    lines = '[[serial]]\nid = "line"\nport = "/dev/ttyS1"\n'
    settings, findings = added(LINKS + lines + device("broken", "line", "b1") + beacon(name="two"))
    assert ids(settings) == ["two"]
    assert findings == [("GW-CFG-15", "device[1] (one).map", 20, "set-aside")]
    assert describe("GW-CFG-15", "zh", "", settings.findings[0].facts).remedy == (
        "可用的写法：驱动程序出错（ZeroDivisionError: 0）"
    )


def test_an_address_that_the_driver_refuses_is_told(added: Added) -> None:
    _, findings = added(LINKS + device("meter", "bus", "12"))
    assert findings[1] == ("GW-CFG-15", "device[1] (one).address", 21, "set-aside")


def test_everything_wrong_with_one_device_is_told_at_once(added: Added) -> None:
    settings, findings = added(
        LINKS + device("button", "bus", "nonsense", 'room = "202"\nkey = "canary"\nevery_s = 0.5\ncolour = 1')
    )
    assert ids(settings) == []
    assert [finding[:3] for finding in findings[1:]] == [
        ("GW-CFG-12", "device[1] (one).link", 20),
        ("GW-CFG-16", "device[1] (one).address", 21),
        ("GW-CFG-14", "device[1] (one).room", 22),
        ("GW-CFG-20", "device[1] (one).key", 23),
        ("GW-CFG-07", "device[1] (one).every_s", 24),
        ("GW-CFG-06", "device[1] (one).colour", 25),
    ]
    assert {finding[3] for finding in findings[1:]} == {"set-aside"}
    assert "canary" not in repr(settings.findings)


# -- what runs all the same --------------------------------------------------------------------------------------


def test_an_alarm_from_a_room_that_nobody_listed_is_still_an_alarm(added: Added) -> None:
    settings, findings = added(LINKS + beacon('room = "202"'))
    assert ids(settings) == ["one"]
    assert settings.devices[0].room == "202"
    assert settings.rooms == (Room("201", "", ("1", "2")), Room("202"))
    assert findings == [("GW-CFG-14", "device[1] (one).room", 23, "kept")]


def test_a_bed_that_the_room_does_not_have_is_a_warning(added: Added) -> None:
    settings, findings = added(LINKS + beacon('room = "201"\nbed = "3"'))
    assert ids(settings) == ["one"]
    assert findings == [("GW-CFG-33", "device[1] (one).bed", 24, "kept")]
    assert settings.findings[0].severity == "warning"


def test_an_unknown_key_does_not_silence_a_button(added: Added) -> None:
    settings, findings = added(LINKS + beacon("batery = 1"))
    assert ids(settings) == ["one"]
    assert findings == [("GW-CFG-06", "device[1] (one).batery", 23, "kept")]


@pytest.mark.parametrize("value", ['"press"', '["Press me"]', "[1]", '["none"]'])
def test_call_words_that_cannot_be_are_told_and_do_not_silence(added: Added, value: str) -> None:
    settings, findings = added(LINKS + beacon(f"calls_on = {value}"))
    assert ids(settings) == ["one"]
    assert [(code, effect) for code, _, _, effect in findings] == [("GW-CFG-07", "kept")]


def test_a_device_that_never_calls_is_a_warning(added: Added) -> None:
    settings, findings = added(LINKS + beacon("calls_on = []"))
    assert settings.devices[0].calls_on == ()
    assert findings == [("GW-CFG-37", "device[1] (one).calls_on", 23, "kept")]


@pytest.mark.parametrize("value", ["0.5", "0", "-1", '"5"', "true", "nan", "inf", "1e9"])
def test_an_interval_below_a_second_gives_way_to_the_drivers(added: Added, value: str) -> None:
    settings, findings = added(LINKS + device("meter", "bus", "000012345678", f"every_s = {value}"))
    assert settings.devices[0].every_s is None
    assert findings == [("GW-CFG-07", "device[1] (one).every_s", 22, "kept")]


@pytest.mark.parametrize(
    ("model", "link", "more"),
    [
        ("radar", "bus", "every_s = 5"),
        ("radar", "bus", "allow_plain = true"),
        ("radar", "bus", 'key = "credential:x"'),
    ],
)
def test_what_has_no_effect_is_a_warning(added: Added, model: str, link: str, more: str) -> None:
    settings, findings = added(LINKS + device(model, link, "b1", more))
    assert ids(settings) == ["one"]
    assert findings == [("GW-CFG-35", f"device[1] (one).{more.split(maxsplit=1)[0]}", 22, "kept")]


def test_a_stream_that_polls_may_say_how_often(added: Added) -> None:
    assert added(LINKS + device("card-reader", "bus", "", "every_s = 5"))[1] == []


# -- keys --------------------------------------------------------------------------------------------------------


def test_plain_text_needs_a_word_and_does_not_silence_what_may_call(added: Added) -> None:
    settings, findings = added(
        LINKS
        + device("beacon", "radio", "A4:C1:38:56:53:01", "", "a")
        + device("button", "radio", "A4:C1:38:56:53:02", "allow_plain = false", "b")
        + device("thermometer", "radio", "A4:C1:38:56:53:03", "", "c")
    )
    assert ids(settings) == ["a", "b"]
    assert findings == [
        ("GW-CFG-18", "device[1] (a).allow_plain", 17, "kept"),
        ("GW-CFG-18", "device[2] (b).allow_plain", 27, "kept"),
        ("GW-CFG-18", "device[3] (c).allow_plain", 28, "set-aside"),
    ]


def test_a_model_that_always_encrypts_needs_a_key(added: Added) -> None:
    settings, findings = added(LINKS + device("locked-button", "radio", "A4:C1:38:56:53:84", "allow_plain = true"))
    assert [(one.id, one.key_bytes) for one in settings.devices] == [("one", None)]
    assert findings == [("GW-CFG-17", "device[1] (one).key", 17, "kept")]


@pytest.mark.parametrize(
    ("content", "reason", "length"),
    [
        (KEY[:-2], "@hint.key-length", 15),
        (KEY + "00", "@hint.key-length", 17),
        ("not hexadecimal", "@hint.key-not-hex", None),
        ("密钥", "@hint.key-not-hex", None),
    ],
)
def test_a_key_that_does_not_fit_is_told_without_showing_it(
    added: Added, key_file: Path, content: str, reason: str, length: int | None
) -> None:
    key_file.write_text(content, encoding="utf-8")
    settings, findings = added(LINKS + device("button", "radio", "A4:C1:38:56:53:84", f'key = "file:{key_file}"'))
    assert [(one.id, one.key_bytes) for one in settings.devices] == [("one", None)]
    assert findings == [("GW-CFG-19", "device[1] (one).key", 22, "kept")]
    facts = settings.findings[0].facts
    assert (facts["reason"], facts.get("length"), facts["length_needed"], facts["digits"]) == (reason, length, 16, 32)
    assert content not in repr(settings.findings)


def test_a_key_written_into_the_configuration_is_refused_and_not_shown(added: Added) -> None:
    settings, findings = added(LINKS + device("button", "radio", "A4:C1:38:56:53:84", f'key = "{KEY}"'))
    assert [(one.id, one.key, one.key_bytes) for one in settings.devices] == [("one", None, None)]
    assert findings == [("GW-CFG-20", "device[1] (one).key", 22, "kept")]
    assert KEY not in repr(settings)


def test_a_key_that_others_can_read_is_told_and_used(added: Added, key_file: Path) -> None:
    key_file.chmod(0o640)
    settings, findings = added(LINKS + device("button", "radio", "A4:C1:38:56:53:84", f'key = "file:{key_file}"'))
    assert settings.devices[0].key_bytes == bytes.fromhex(KEY)
    assert findings == [("GW-CFG-22", "device[1] (one).key", 22, "kept")]
    assert settings.findings[0].severity == "problem"


def test_a_key_file_that_is_not_there_is_told(added: Added, tmp_path: Path) -> None:
    settings, findings = added(LINKS + device("button", "radio", "A4:C1:38:56:53:84", f'key = "file:{tmp_path}/none"'))
    assert ids(settings) == ["one"]
    assert findings == [("GW-CFG-21", "device[1] (one).key", 22, "kept")]
    assert describe("GW-CFG-21", "en", "", settings.findings[0].facts).title == (
        f"secret file:{tmp_path}/none cannot be had: no such file ({tmp_path}/none)"
    )


# -- twins and shared lines --------------------------------------------------------------------------------------


def test_of_two_devices_with_one_id_the_second_is_set_aside(added: Added) -> None:
    settings, findings = added(LINKS + beacon() + beacon(address="A4:C1:38:56:53:85"))
    assert [(one.id, one.address) for one in settings.devices] == [("one", "A4:C1:38:56:53:84")]
    assert findings == [("GW-CFG-08", "device[2] (one).id", 25, "set-aside")]


def test_of_two_devices_with_one_address_the_second_is_set_aside(added: Added) -> None:
    settings, findings = added(LINKS + beacon() + beacon(name="two", address="a4:c1:38:56:53:84"))
    assert ids(settings) == ["one"]
    assert findings == [("GW-CFG-09", "device[2] (two).address", 28, "set-aside")]
    assert settings.findings[0].facts["other"] == "one"


def test_names_on_a_stream_keep_their_case(added: Added) -> None:
    settings, findings = added(LINKS + device("radar", "bus", "b1", "", "a") + device("radar", "bus", "B1", "", "b"))
    assert ids(settings) == ["a", "b"]
    assert findings == []


def test_what_speaks_by_itself_has_the_line_before_meters_wherever_it_stands(added: Added) -> None:
    settings, findings = added(
        LINKS + device("meter", "bus", "000012345678", "", "m") + device("radar", "bus", "b1", "", "r")
    )
    assert ids(settings) == ["r"]
    assert findings == [("GW-CFG-13", "device[1] (m).link", 20, "set-aside")]
    assert settings.findings[0].facts["reason"] == "@hint.mixed-line"
    assert settings.findings[0].facts["other"] == "r"


def test_meters_of_several_speeds_share_a_port_that_is_set_anew_for_each(added: Added) -> None:
    meters = device("meter", "bus", "000012345678", "", "a") + device("fast-meter", "bus", "000012345679", "", "b")
    meters += device("meter", "bus", "000012345680", "baud = 4800", "c")
    settings, findings = added(LINKS + meters)
    assert ids(settings) == ["a", "b", "c"]
    assert findings == []
    (bus,) = (one for one in settings.serial if one.id == "bus")
    assert [one.line(bus) for one in settings.devices] == [
        LineSettings(2400, 8, "E", 1), LineSettings(9600, 8, "N", 1), LineSettings(4800, 8, "E", 1),
    ]  # fmt: skip


def test_how_a_line_is_set_for_a_device_that_speaks_by_itself_stands_at_the_line(added: Added) -> None:
    settings, findings = added(LINKS + device("radar", "bus", "b1", "baud = 4800", "a"))
    assert ids(settings) == ["a"]
    assert findings == [("GW-CFG-35", "device[1] (a).baud", 22, "kept")]
    assert settings.findings[0].facts["reason"] == "@hint.not-asked"


def test_meters_behind_one_socket_agree_on_its_settings(added: Added) -> None:
    meters = device("meter", "bus", "000012345678", "", "a") + device("fast-meter", "bus", "000012345679", "", "b")
    settings, findings = added(LINKS.replace("/dev/ttyS0", "socket://10.0.0.9:4001") + meters)
    assert ids(settings) == ["a"]
    assert findings == [("GW-CFG-13", "device[2] (b).link", 25, "set-aside")]
    assert describe("GW-CFG-13", "en", "", settings.findings[0].facts).title == (
        "it cannot share link bus with a: it wants 9600 8N1, and a uses 2400 8E1"
    )


def test_meters_behind_a_server_whose_port_is_set_from_here_need_not_agree(added: Added) -> None:
    meters = device("meter", "bus", "000012345678", "", "a") + device("fast-meter", "bus", "000012345679", "", "b")
    settings, findings = added(LINKS.replace("/dev/ttyS0", "rfc2217://10.0.0.9:4001") + meters)
    assert ids(settings) == ["a", "b"]
    assert findings == []


def test_a_line_whose_settings_are_all_configured_takes_any_meters(added: Added) -> None:
    links = LINKS.replace(
        'port = "/dev/ttyS0"\n', 'port = "/dev/ttyS0"\nbaud = 9600\nbits = 8\nparity = "N"\nstop = 1\n'
    )
    meters = device("meter", "bus", "000012345678", "", "a") + device("fast-meter", "bus", "000012345679", "", "b")
    settings, findings = added(links + meters)
    assert ids(settings) == ["a", "b"]
    assert findings == []


def test_streams_of_different_framing_or_without_names_do_not_share(added: Added) -> None:
    lines = "".join(f'[[serial]]\nid = "l{n}"\nport = "/dev/ttyS{n}"\n' for n in (1, 2))
    settings, _ = added(
        LINKS
        + lines
        + device("radar", "l1", "b1", "", "a")
        + device("bridge", "l1", "b2", "", "b")
        + device("radar", "l2", "b1", "", "c")
        + device("loner", "l2", "", "", "d")
    )
    assert ids(settings) == ["a", "c"]
    assert [(one.where, one.facts["reason"]) for one in settings.findings] == [
        ("device[2] (b).link", "@hint.other-framing"),
        ("device[4] (d).link", "@hint.cannot-share"),
    ]


# -- receivers of radio on a line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "address", "more", "runs"),
    [
        ("receiver", "D0FC3", "", True),
        ("receiver", "", "", False),
        ("asked-receiver", "", "", True),  # the receiver itself
        ("asked-receiver", "", 'map = { kind = "fall" }', False),
    ],
)
def test_what_is_heard_by_radio_on_a_line_needs_its_address(
    added: Added, model: str, address: str, more: str, runs: bool
) -> None:
    settings, findings = added(LINKS + device(model, "bus", address, more))
    assert ids(settings) == (["one"] if runs else [])
    # A line without a device that runs is told as well.
    assert [(code, where) for code, where, *_ in findings if code != "GW-CFG-38"] == (
        [] if runs else [("GW-CFG-05", "device[1] (one).address")]
    )


# -- receivers -----------------------------------------------------------------------------------------------------

RECEIVER = '[[receiver]]\nid = "stairs"\nhost = "192.168.8.31"\n'


def test_a_receiver_is_a_radio(added: Added) -> None:
    settings, findings = added(RECEIVER + beacon(link="stairs"))
    assert findings == []
    assert settings.receivers == (Receiver("stairs", "192.168.8.31"),)
    assert (settings.receivers[0].port, settings.receivers[0].key, settings.receivers[0].silence_s) == (6053, None, 60)
    assert (ids(settings), settings.radios) == (["one"], ("stairs",))


def test_a_receiver_whose_key_cannot_be_had_is_tried_all_the_same_and_told(added: Added, tmp_path: Path) -> None:
    settings, findings = added(f'{RECEIVER}key = "file:{tmp_path}/none"\n' + beacon(link="stairs"))
    assert [(one[0], one[1], one[3]) for one in findings] == [("GW-CFG-21", "receiver[1] (stairs).key", "kept")]
    assert [one.id for one in settings.receivers] == ["stairs"]


@pytest.mark.parametrize("line", ['host = "http://192.168.8.31"', 'host = ""', 'host = "a"\nport = 0', "port = 6053"])
def test_a_receiver_that_is_nowhere_is_set_aside(added: Added, line: str) -> None:
    settings, findings = added(f'[[receiver]]\nid = "stairs"\n{line}\n' + beacon(link="stairs"))
    assert (settings.receivers, settings.devices) == ((), ())
    assert {one[3] for one in findings if one[1].startswith("receiver")} == {"set-aside"}
    assert "GW-CFG-32" in {one[0] for one in findings}
