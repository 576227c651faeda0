"""The archive for support: canaries are planted everywhere, and none may be found in anything that was packed."""

from __future__ import annotations

import base64
import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.clock import SystemClock
from gateway.diagnose.bundle import write_bundle
from gateway.diagnose.daemon import Daemon, DaemonState
from gateway.diagnose.redaction import Redactor
from gateway.diagnose.report import Report
from gateway.diagnose.run import diagnose
from gateway.errors import GatewayError
from gateway.events import Lane, Origin, new_event
from gateway.outbox import AlarmRow, DeadLetter, Mark, Outbox, Route, Write

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Centre
else:
    Centre = Any

OnPaper = Callable[[Report, str], str]

# Each stands at one place where a secret or a name may stand, and nowhere in the bundle.
CANARIES = {
    "password": "canary-PassW0rd",
    "token": "canary-t0ken-abcdef",
    "key": "00112233445566778899aabbccddeeff",
    "user": "canary-login",
    "broker": "canary-of-a-broker",
    "broker-user": "canary-broker-login",
    "receiver": "canary-of-a-receiver",
    "url": "canary-in-url",
    "operator": "金丝雀运营商",
    "room": "金丝雀二楼",
    "bed": "王秀英奶奶",
    "link": "李大爷的呼叫器",
    "unknown": "canary-of-a-typo",
    "map": "金丝雀字段",
    "misplaced": "canary-secret-in-place-of-reference",
    "database": "canary-in-an-event",
    "alarm": "张建国在二楼",
    "refusal": "canary-in-a-refusal",
    "journal": "陈桂芳跌倒了",
    "journal-field": "canary-in-a-field",
    "traceback": "canary-in-a-traceback",
    "environment": "canary-in-the-environment",
    "phone": "13812345678",
    "identity": "51022819440101002X",
    "basic": "canary-login:canary-PassW0rd",
    "broker-basic": "canary-broker-login:canary-of-a-broker",
    "headless": "canary-without-a-head",
}

TEXT = """
[[destination]]
id = "province"
profile = "native"
[[destination.path]]
url = "http://canary-in-url:canary-in-url@127.0.0.1:9/?token=canary-in-url"
token = "canary-secret-in-place-of-reference"

[[destination]]
id = "county"
[[destination.path]]
url = "http://127.0.0.1:9"
token = "file:{folder}/secrets/token"

[[ble]]
id = "radio"

[[mqtt]]
id = "zigbee"
url = "mqtt://127.0.0.1:9"
username = "canary-broker-login"
password = "file:{folder}/secrets/broker"

[[receiver]]
id = "stairs"
host = "192.168.8.31"
key = "file:{folder}/secrets/receiver"

[[room]]
id = "201"
name = "金丝雀二楼"
beds = ["王秀英奶奶", "1"]

[[device]]
id = "call-201-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
room = "201"
bed = "王秀英奶奶"
key = "file:{folder}/secrets/key"
pasword = "canary-of-a-typo"

[[device]]
id = "call-201-2"
model = "bthome-button"
link = "李大爷的呼叫器"
address = "A4:C1:38:56:53:85"

[[serial]]
id = "board"
port = "/dev/serial/by-id/board"

[[device]]
id = "gas-1"
model = "json-lines"
link = "board"
  [device.map]
  address = ""
  [[device.map.reading]]
  field = "金丝雀字段"
  quantity = "temperature"
"""

JOURNAL = [
    '2026-03-01T08:00:00+0800 wangxiuying-pi gateway[812]: {"event": "started", "level": "info", "version": "0.1.0"}',
    '2026-03-01T08:00:01+0800 pi gateway[812]: {"event": "陈桂芳跌倒了", "level": "info", "name": "canary-in-a-field"}',
    '2026-03-01T08:00:02+0800 pi gateway[812]: {"event": "alarm", "code": "GW-SER-01", "facts": {"x": "canary-in-a-field"}}',
    (
        '2026-03-01T08:00:03+0800 pi gateway[812]: {"event": "x", "exception": "Traceback (most recent call last):\\n'
        '  File \\"/opt/x.py\\", line 3, in run\\n    boom(\\"canary-in-a-traceback\\")\\nValueError: canary-in-a-traceback"}'
    ),
    "2026-03-01T08:00:04+0800 pi gateway[812]: 陈桂芳跌倒了",
    "2026-03-01T08:00:05+0800 pi systemd[1]: Started daycare-gateway.service - the gateway.",
    "2026-03-01T08:00:06+0800 pi systemd[1]: daycare-gateway.service: password=canary-PassW0rd 13812345678",
    '2026-03-01T08:00:07+0800 pi gateway[812]: {"event": "login mqtts://canary-login:canary-PassW0rd@h 51022819440101002X"}',
    '2026-03-01T08:00:08+0800 pi gateway[812]: {"event": "Authorization: Bearer canary-t0ken-abcdef", "level": "info"}',
    '2026-03-01T08:00:09+0800 pi gateway[812]: {"event": "key 00112233445566778899AABBCCDDEEFF", "level": "info"}',
    '2026-03-01T08:00:10+0800 pi gateway[812]: {"event": "he said canary-PassW0rd to canary-t0ken-abcdef"}',
    '2026-03-01T08:00:11+0800 pi gateway[812]: {"event": "canary-of-a-broker and canary-of-a-receiver", "level": "info"}',
    "2026-03-01T08:00:12+0800 pi systemd[1]: daycare-gateway.service: canary-of-a-broker and canary-of-a-receiver",
    "canary-without-a-head",
]


async def fill(path: Path) -> None:
    """A database with a person's words in every column that takes them."""
    clock = SystemClock()
    outbox = Outbox(path, [Route("district", ("*",))], clock=clock)
    await outbox.open()
    import asyncio

    running = asyncio.create_task(outbox.run())
    event = new_event(
        "alarm.raised",
        Origin("kz", "s", "gw-01"),
        device="call-201-1",
        at=clock.stamp(),
        data={"room": CANARIES["database"]},
    )
    alarm = {
        "id": "a", "kind": "call", "device": "call-201-1", "room": "201", "bed": CANARIES["bed"], "state": "ACTIVE",
        "acked_by": CANARIES["alarm"], "why": CANARIES["alarm"],
        "raised": {"wall_ms": clock.stamp().wall_ms - 600_000, "mono_ms": 1, "boot": "b", "clock": "synced"},
    }  # fmt: skip
    row = AlarmRow("a", is_open=True, raised_ms=1, doc=json.dumps(alarm, ensure_ascii=False))
    outbox.submit(Write((event,), (Mark("call-201-1", "counter:proven:32", CANARIES["database"]),), alarms=(row,)))
    await outbox.flush(10)
    stored = (await outbox.fetch(Lane.A, 0, 1))[0]
    outbox.dead_letter(DeadLetter("district", stored, "bad-room", CANARIES["refusal"], 1))
    await outbox.flush(10)
    running.cancel()
    await asyncio.wait({running})
    await outbox.close()


@pytest.fixture
async def packed(centre: Centre, on_paper: OnPaper, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Everything that is in the bundle of a centre full of canaries, by name."""
    secrets = centre.folder / "secrets"
    secrets.mkdir()
    for name in ("password", "token", "key", "broker", "receiver"):
        (secrets / name).write_text(CANARIES[name], encoding="utf-8")
        (secrets / name).chmod(0o600)
    centre.configure()
    head = centre.config.read_text(encoding="utf-8").replace(
        'site = "hanfeng-01"', 'site = "hanfeng-01"\noperator = "金丝雀运营商"'
    )
    login = f'username = "canary-login"\npassword = "file:{secrets}/password"\n'
    centre.config.write_text(head + login + TEXT.format(folder=centre.folder), encoding="utf-8")
    centre.command("journalctl", "\n".join(JOURNAL))
    await fill(centre.data / "outbox.db")
    monkeypatch.setenv("CANARY", CANARIES["environment"])
    site, report = diagnose(centre.request())
    told = {
        "version": "0.1.0", "devices": [{"id": "call-201-1", "room": CANARIES["room"], "heard": 1}],
        "problems": [{"code": "GW-PLT-02", "facts": {"reason": CANARIES["refusal"]}}],
    }  # fmt: skip
    site = type(site)(
        **{**{name: getattr(site, name) for name in type(site).__slots__}, "daemon": Daemon(DaemonState.RUNNING, told)}
    )
    target = centre.folder / "bundle.tar.gz"
    write_bundle(target, site, report, on_paper)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target) as archive:
        contents = {}
        for entry in archive.getmembers():
            file = archive.extractfile(entry)
            assert file is not None
            contents[entry.name] = file.read().decode("utf-8")
    return contents


def test_no_canary_sings_in_the_bundle(packed: dict[str, str]) -> None:
    for name, canary in CANARIES.items():
        for form in (canary, canary.upper(), canary.encode().hex(), base64.b64encode(canary.encode()).decode()):
            singing = [file for file, text in packed.items() if form in text]
            assert not singing, (name, form, singing)
    assert not [file for file, text in packed.items() if "wangxiuying-pi" in text], "the name of the machine"


def test_what_support_needs_is_in_it(packed: dict[str, str]) -> None:
    names = {name.partition("/")[2] for name in packed}
    assert names == {
        "report.zh.txt", "report.en.txt", "report.json", "configuration.json", "database.json", "status.json", "journal.txt",
    }  # fmt: skip
    by_name = {name.partition("/")[2]: text for name, text in packed.items()}
    assert "GW-CTL-01" in by_name["report.zh.txt"]
    assert "GW-ANN-02" in by_name["report.en.txt"]
    assert json.loads(by_name["report.json"])["exit_status"] == 2
    assert json.loads(by_name["database.json"])["rows"] == {"A": 1, "B": 0, "C": 0, "D": 0}
    assert json.loads(by_name["database.json"])["open_alarms"] == 1
    assert json.loads(by_name["status.json"])["devices"][0]["heard"] == 1


def test_the_configuration_tells_what_is_known_to_be_harmless_and_that_the_rest_is_there(
    packed: dict[str, str],
) -> None:
    told = json.loads(next(text for name, text in packed.items() if name.endswith("configuration.json")))
    assert told["gateway"]["id"] == "gw-01"
    assert told["gateway"]["operator"] == "(removed)"
    assert told["room"] == [{"id": "201", "name": "(removed)", "beds": "(removed)"}]
    device = told["device"][0]
    assert device["address"] == "A4:C1:38:56:53:84"
    assert (device["key"], device["bed"], device["pasword"]) == ("(removed)", "(removed)", "(removed)")
    assert told["device"][1]["link"] == "(removed)"
    assert told["destination"][0]["path"][0]["url"] == "mqtt://127.0.0.1:1"
    assert told["destination"][0]["path"][0]["username"] == "(removed)"
    assert told["destination"][1]["path"][0]["url"] == "http://127.0.0.1:9"
    assert told["receiver"] == [{"id": "stairs", "host": "192.168.8.31", "key": "(removed)"}]
    assert told["mqtt"] == [
        {"id": "zigbee", "url": "mqtt://127.0.0.1:9", "username": "(removed)", "password": "(removed)"}
    ]


def test_of_the_journal_only_what_is_known_to_be_harmless_is_kept(packed: dict[str, str]) -> None:
    lines = next(text for name, text in packed.items() if name.endswith("journal.txt")).splitlines()
    assert lines[0] == '2026-03-01T08:00:00+0800 gateway: {"level": "info", "event": "started", "version": "0.1.0"}'
    assert lines[1] == '2026-03-01T08:00:01+0800 gateway: {"level": "info"}'
    assert lines[2] == '2026-03-01T08:00:02+0800 gateway: {"event": "alarm", "code": "GW-SER-01"}'
    assert '"ValueError: (removed)"' in lines[3]
    assert '  File \\"/opt/x.py\\", line 3, in run' in lines[3]
    assert lines[4] == "2026-03-01T08:00:04+0800 gateway: (6 characters removed)"
    assert lines[5] == "2026-03-01T08:00:05+0800 systemd: Started daycare-gateway.service - the gateway."


def test_a_configuration_that_is_no_toml_is_left_out_and_its_words_are_removed(centre: Centre) -> None:
    centre.configure()
    centre.config.write_text(
        '[gateway]\nid = "gw-01"\npassword = "hunter2-and-more\noperator = \'金丝雀\'\nx = "abcd"', encoding="utf-8"
    )
    redactor = Redactor(centre.config, None)
    assert redactor.configuration() is None
    assert redactor.text("gw-01 金丝雀 abcd") == "(removed) (removed) (removed)"


def test_a_file_that_is_there_is_not_touched(centre: Centre, on_paper: OnPaper) -> None:
    centre.configure()
    target = centre.folder / "bundle.tar.gz"
    target.write_bytes(b"mine")
    site, report = diagnose(centre.request())
    with pytest.raises(GatewayError) as refused:
        write_bundle(target, site, report, on_paper)
    assert refused.value.code == "GW-STO-16"
    assert target.read_bytes() == b"mine"
    with pytest.raises(GatewayError):
        write_bundle(centre.folder / "none" / "bundle.tar.gz", site, report, on_paper)


def test_a_bundle_that_breaks_off_leaves_nothing_behind(
    centre: Centre, on_paper: OnPaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre.configure()
    site, report = diagnose(centre.request())

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(GatewayError):
        write_bundle(centre.folder / "bundle.tar.gz", site, report, on_paper)
    assert not (centre.folder / "bundle.tar.gz").exists()
