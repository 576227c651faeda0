"""A scenario and a seed give one score: what it promises about times, order, keys and the gateway's files."""

from __future__ import annotations

import json
import socket
import stat
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.scenario import (
    ScenarioError,
    control_socket,
    expand,
    free_ports,
    gateway_toml,
    load,
    ports_needed,
    write_gateway_files,
)

PORTS = {
    "district": 18830,
    "district+2": 18834,
    "family": 18832,
    "p": 18833,
    "p+2": 18835,
    "p+3": 18836,
    "p+4": 18837,
    "p+5": 18838,
    "board-office": 18831,
}


def plan(*, seed: int = 1, seconds: float | None = 40.0, name: str = "small_centre") -> Any:
    return expand(name, seed=seed, seconds=seconds, ports=PORTS)


def test_the_same_seed_gives_the_same_score_and_another_seed_another() -> None:
    assert plan(seed=5) == plan(seed=5)
    assert plan(seed=5).emissions != plan(seed=6).emissions
    assert plan(seed=5).faults != plan(seed=6).faults


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(10, 300))
def test_emission_and_faults_end_at_60_percent(seed: int, seconds: float) -> None:
    score = plan(seed=seed, seconds=seconds)
    until = 0.6 * seconds + 0.002
    assert all(one["at_s"] > 0 and one["at_s"] + one.get("for_s", 0) <= until for one in score.emissions)
    assert all(fault["at_s"] <= until for fault in score.faults)
    assert score.emission_until_s == pytest.approx(0.6 * seconds, abs=0.001)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(20, 300))
def test_each_platform_is_cut_once_and_the_gateway_killed_once_while_devices_are_busy(
    seed: int, seconds: float
) -> None:
    score = plan(seed=seed, seconds=seconds)
    times = [one["at_s"] for one in score.emissions]
    at = {(fault.get("platform"), fault["fault"]): fault["at_s"] for fault in score.faults}
    assert len(at) == len(score.faults) == 7
    for name in ("district", "family"):
        assert at[name, "cut"] < at[name, "heal"]
        assert at[name, "cut"] - at[name, "mute"] == pytest.approx(1.0, abs=0.002)
        assert min(times) < at[name, "cut"] < max(times)
    # For a while nobody can be told: the second is cut before the first is healed.
    assert at["district", "cut"] < at["family", "cut"] < at["district", "heal"] < at["family", "heal"]
    # The kill strikes within 0.3 s after something was emitted.
    assert any(0 <= at[None, "kill"] - time <= 0.301 for time in times)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_a_device_is_silent_between_two_of_its_emissions(seed: int) -> None:
    score = plan(seed=seed, seconds=120.0)
    rest = {"press": 1.0, "fall": 3.0, "line": 0.2}
    for device in score.devices:
        own = [one for one in score.emissions if one["device"] == device.id]
        for before, after in pairwise(own):
            assert after["at_s"] - before["at_s"] - before.get("for_s", 0) >= rest[before["kind"]] - 0.002


def test_every_kind_of_device_does_something_even_in_a_short_run() -> None:
    for seed in range(20):
        score = plan(seed=seed, seconds=20.0)
        busy = {one["device"] for one in score.emissions}
        assert busy == {device.id for device in score.devices if device.role != "meter"}


def test_what_a_small_centre_has() -> None:
    devices = plan().devices
    roles = [device.role for device in devices]
    counts = {role: roles.count(role) for role in roles}
    assert counts == {"button": 3, "pendant": 1, "meter": 2, "radar": 1, "controller": 1}
    assert {device.model for device in devices if device.role == "meter"} == {"dlt645-2007", "dlt645-1997"}
    keys = {device.id: device.key for device in devices if device.role == "button"}
    assert sorted(key is None for key in keys.values()) == [False, False, True]
    assert all(len(bytes.fromhex(key)) == 16 for key in keys.values() if key)


def test_keys_differ_with_the_seed() -> None:
    assert plan(seed=1).devices[0].key != plan(seed=2).devices[0].key


@pytest.mark.parametrize(("seconds", "every_s"), [(40.0, [2.0, 3.0]), (600.0, [5.0, 7.0]), (None, [5.0, 7.0])])
def test_a_short_run_polls_the_meters_more_often(seconds: float | None, every_s: list[float]) -> None:
    assert [device.every_s for device in plan(seconds=seconds).devices if device.role == "meter"] == every_s


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(20, 300))
def test_with_two_paths_one_way_is_broken_at_a_time_and_the_kill_lies_between(seed: int, seconds: float) -> None:
    score = plan(name="two_paths", seed=seed, seconds=seconds)
    did = [(one["fault"], one.get("platform"), one.get("way")) for one in score.faults]
    first, second = ("district", 1), ("district", 2)
    assert did == [
        ("mute", *first),
        ("cut", *first),
        ("heal", *first),
        ("kill", None, None),
        ("hang", *first),
        ("heal", *first),
        ("cut", *second),
        ("heal", *second),
    ]
    at = [one["at_s"] for one in score.faults]
    assert at[1] - at[0] == pytest.approx(0.5, abs=0.002)
    assert at[0] > 0
    assert at[-1] <= 0.6 * seconds + 0.002
    # Long enough for an alarm of its first moments to go over the second path.
    assert at[5] - at[4] > 0.18 * seconds


def test_an_endless_run_with_two_paths_breaks_each_way_again_and_again() -> None:
    score = plan(name="two_paths", seconds=None)
    first = [fault for fault in score.faults if fault["at_s"] < 600]
    did = [(fault["fault"], fault.get("way")) for fault in first]
    assert 8 <= did.count(("cut", 1)) <= 15
    assert 6 <= did.count(("hang", 1)) <= 11
    assert 7 <= did.count(("cut", 2)) <= 13
    assert did.count(("mute", 1)) >= did.count(("cut", 1))
    assert ("kill", None) in did


def test_a_platform_with_two_ways_is_one_destination_with_two_paths() -> None:
    score = plan(name="two_paths")
    assert ports_needed("two_paths") == ("district", "district+2", "board-office")
    (platform,) = score.platforms
    assert (platform["port"], platform["speaks"]) == (18830, "mqtt")
    assert platform["also"] == [{"port": 18834, "speaks": "https"}]
    (destination,) = tomllib.loads(gateway_toml(score, Path("/run/demo")))["destination"]
    assert destination["path"] == [
        {"url": "mqtt://127.0.0.1:18830"},
        {"url": "https://127.0.0.1:18834", "ca_file": "/run/demo/tls/ca.pem"},
    ]


def test_an_endless_run_goes_on_with_cuts_and_kills() -> None:
    score = plan(seconds=None)
    first = [fault for fault in score.faults if fault["at_s"] < 600]
    cuts = {name: sum(one.get("platform") == name and one["fault"] == "cut" for one in first) for name in PORTS}
    assert 6 <= cuts["district"] <= 12
    assert 4 <= cuts["family"] <= 9
    assert 3 <= sum(fault["fault"] == "kill" for fault in first) <= 7
    begin = {name: min(fault["at_s"] for fault in first if fault["fault"] == name) for name in ("cut", "kill")}
    assert 10 < begin["cut"] < 40
    assert 20 < begin["kill"] < 75
    assert score.emissions[-1]["at_s"] > 23 * 3600
    for platform in ("district", "family"):
        names = [fault["fault"] for fault in score.faults if fault.get("platform") == platform]
        assert names == ["mute", "cut", "heal"] * (len(names) // 3)


def test_the_score_is_written_with_its_start_and_read_back(tmp_path: Path) -> None:
    plan(seed=9).write(tmp_path, start=1234.5)
    document = load(tmp_path)
    assert (document["start"], document["seed"], document["seconds"]) == (1234.5, 9, 40.0)
    assert document["devices"][0]["id"] == "call-r101-1"
    assert document["platforms"] == [
        {"id": "district", "port": 18830, "speaks": "mqtt", "also": [], "types": ["*"]},
        {
            "id": "family",
            "port": 18832,
            "speaks": "https",
            "also": [],
            "types": ["alarm.*", "device.*", "gateway.*", "telemetry.environment"],
        },
    ]
    assert document["links"]["bus"]["path"] == "ttyMETER"
    board = document["devices"][-1]
    assert (board["role"], board["port"], board["map"]["reading"][0]["quantity"]) == (
        "controller",
        18831,
        "temperature",
    )


def test_the_gateways_configuration_is_whole() -> None:
    document = tomllib.loads(gateway_toml(plan(), Path("/run/demo")))
    assert document["gateway"] == {
        "id": "gw-01",
        "org": "demo",
        "site": "hanfeng",
        "org_path": ["cq", "kaizhou", "hanfeng"],
        "data_dir": "/run/demo/data",
        "control_socket": "/run/demo/gw.sock",
    }
    assert document["ble"] == [{"id": "air", "adapter": "hci0"}]
    assert document["serial"] == [
        {"id": "bus-1", "port": "/run/demo/ttyMETER", "bits": 8, "parity": "N", "stop": 1, "baud": 9600},
        {"id": "radar-1", "port": "/run/demo/tty-radar-bath-1", "bits": 8, "parity": "N", "stop": 1},
        {"id": "wire-1", "port": "socket://127.0.0.1:18831"},
    ]
    assert document["room"][0] == {"id": "r101", "name": "日间休息室", "beds": ["1", "2"]}
    devices = {device["id"]: device for device in document["device"]}
    assert devices["call-r101-1"]["key"] == "file:/run/demo/keys/call-r101-1"
    assert "allow_plain" not in devices["call-r101-1"]
    assert devices["call-bath-1"]["allow_plain"] is True
    assert "key" not in devices["call-bath-1"]
    assert devices["meter-main"]["every_s"] == 2.0
    assert devices["board-office"]["map"]["signal"] == [{"field": "call", "equals": 1, "is": "call", "code": "wired"}]
    district, family = document["destination"]
    assert (district["reconnect_spread_s"], district["types"]) == (2, ["*"])
    assert district["path"] == [{"url": "mqtt://127.0.0.1:18830"}]
    assert family["types"] == ["alarm.*", "device.*", "gateway.*", "telemetry.environment"]
    assert family["path"] == [{"url": "https://127.0.0.1:18832", "ca_file": "/run/demo/tls/ca.pem"}]


def test_key_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    score = plan()
    assert write_gateway_files(score, tmp_path) == tmp_path / "gateway.toml"
    keys = sorted((tmp_path / "keys").iterdir())
    assert [key.name for key in keys] == ["call-r101-1", "call-r101-2"]
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
    assert keys[0].read_text() == f"{score.devices[0].key}\n"
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_socket_paths_stay_short() -> None:
    assert control_socket(Path("/tmp/daycare-abcdefgh")) == Path("/tmp/daycare-abcdefgh/gw.sock")


def test_platforms_and_controllers_are_named_for_their_ports() -> None:
    assert ports_needed("small_centre") == ("district", "family", "board-office")


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(["platform", "a", "b"])
    assert len(set(ports.values())) == 3
    for port in ports.values():
        with socket.create_server(("127.0.0.1", port)):
            pass


# --- what does not fit is named --------------------------------------------------------------------------------------

WHOLE = """
[gateway]
id = "gw"
org = "o"
site = "s"
[[platform]]
id = "p"
[links.air]
id = "air"
[[device]]
id = "b"
role = "button"
model = "bthome-button"
link = "air"
pause_s = [1, 2]
"""


def with_ways(lines: str) -> str:
    return WHOLE.replace('id = "p"', f'id = "p"\n{lines}')


def test_a_scenario_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(WHOLE)
    score = plan(name=str(path))
    assert (score.name, score.title, score.faults) == ("mine", "mine", ())
    assert json.loads(json.dumps(score.emissions[0]))["code"] == "press"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[[device", "not TOML", id="broken"),
        pytest.param(WHOLE.replace('id = "b"\n', ""), "id is missing", id="device without an id"),
        pytest.param(WHOLE.replace('role = "button"', 'role = "toaster"'), "toaster", id="unknown role"),
        pytest.param(WHOLE.replace("pause_s = [1, 2]", ""), "pause_s is missing", id="no pause"),
        pytest.param(WHOLE.replace("[1, 2]", "[2, 1]"), r"\[2, 1\]", id="pause upside down"),
        pytest.param(WHOLE.replace("[1, 2]", '"long"'), "scenario bad", id="pause no list"),
        pytest.param(WHOLE + WHOLE[WHOLE.index("[[device]]") :], "same id", id="one id twice"),
        pytest.param(WHOLE[: WHOLE.index("[[device]]")], "device is missing", id="no device"),
        pytest.param("device = []", "0 devices", id="none at all"),
        pytest.param(WHOLE.replace('id = "p"', 'id = "p"\nspeaks = "fax"'), "fax", id="unknown transport"),
        pytest.param(
            WHOLE.replace("[links", '[[platform]]\nid = "p"\n[links'), "two platforms", id="one platform twice"
        ),
        pytest.param(WHOLE.replace("[[platform]]", "[[other]]"), "platform is missing", id="no platform"),
        pytest.param(with_ways('also = ["https", "fax"]'), "speaks = 'fax'", id="unknown second way"),
        pytest.param(with_ways('also = ["http", "http", "http", "http"]'), "5 ways in", id="too many ways"),
        pytest.param(
            with_ways("way_fault = [{ way = 2, cut = [0.1, 0.2], heal = [0.3, 0.4] }]"), "way = 2", id="no way"
        ),
        pytest.param(with_ways("way_fault = [{ way = 1 }]"), "expected cut or hang", id="no fault of a way"),
        pytest.param(with_ways("way_fault = [{ cut = [0.1, 0.2] }]"), "way is missing", id="a fault of no way"),
        pytest.param(with_ways("way_fault = [{ way = 1, cut = [0.1, 0.2] }]"), "heal is missing", id="never healed"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        plan(name=str(path))


@pytest.mark.parametrize("seconds", [9.9, 86_401.0, -1.0])
def test_a_length_out_of_its_limits_is_refused(seconds: float) -> None:
    with pytest.raises(ScenarioError, match="from 10 to 86400"):
        plan(seconds=seconds)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="small_centre"):
        plan(name="big_centre")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"/nowhere/at/all\.toml"):
        plan(name="/nowhere/at/all.toml")
