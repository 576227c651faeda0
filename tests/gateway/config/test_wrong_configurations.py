"""Every kind of wrong configuration, as a technician makes it: where it is told, in which words, and what still runs.

And mutations of the shipped configuration, byte by byte and key by key: whatever stands in the file, the answer is a list
of findings, never a traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cli import reports
from gateway.cli.layout import Paper
from gateway.config import inspect, load
from gateway.errors import ConfigError, Finding
from gateway.problems import describe

CONFIG = Path(__file__).parents[3] / "config"

# A good one. Tests change a line or add some; what is added begins in line 34.
GOOD = """\
[gateway]
id = "gw-1"
org = "org"
site = "site"
[[room]]
id = "201"
beds = ["1", "2"]
[[ble]]
id = "radio"
[[serial]]
id = "bus"
port = "/dev/serial/by-id/usb-x"
[[device]]
id = "call-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
room = "201"
bed = "1"
key = "file:KEYS/call-1"
[[device]]
id = "meter"
model = "dlt645-2007"
link = "bus"
address = "000012345678"
[[destination]]
id = "district"
[[destination.path]]
url = "mqtts://platform.example.org"
username = "gw-1"
password = "file:KEYS/password"
[outbox]
max_mb = 512
"""
ALL = ("call-1", "meter")

Told = tuple[str, int | None, str, str]


@dataclass(frozen=True)
class Wrong:
    """`change` makes GOOD wrong. `told`: code, line, key and effect of each finding. `runs`: the devices that run, or
    None where the gateway does not start. `title` and `remedy` are what is read, in Chinese and English: a part each."""

    change: Callable[[str], str | bytes]
    told: list[Told]
    runs: tuple[str, ...] | None
    zh: str
    en: str


def put(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return change


def add(more: str) -> Callable[[str], str]:
    return lambda text: text + more


def fatal(code: str, line: int | None, where: str = "") -> list[Told]:
    return [(code, line, where, "fatal")]


CASES: dict[str, Wrong] = {
    # -- the file as text ----------------------------------------------------------------------------------------
    "an empty file": Wrong(
        lambda _: "",
        [
            ("GW-CFG-05", None, "gateway.id", "fatal"), ("GW-CFG-05", None, "gateway.org", "fatal"),
            ("GW-CFG-05", None, "gateway.site", "fatal"), ("GW-CFG-38", None, "", "kept"),
            ("GW-CFG-31", None, "", "fatal"),
        ],
        None, "缺少 id", "id is missing",
    ),
    "a quotation mark is missing": Wrong(
        put('org = "org"', 'org = "org'), fatal("GW-CFG-04", 3), None, "第 3 行第 11 列：文字后面缺引号", "line 3, column 11"
    ),
    "Chinese quotation marks": Wrong(
        put('org = "org"', "org = “org”"), fatal("GW-CFG-04", 3), None, "有中文标点 “，应当用英文的", "Chinese punctuation “"
    ),
    "a Chinese quotation mark at the end": Wrong(
        put('org = "org"', 'org = "org”'), fatal("GW-CFG-04", 3), None, "有中文标点 ”，应当用英文的", "Chinese punctuation ”"
    ),
    "a Chinese comma in a list": Wrong(
        put('["1", "2"]', '["1"，"2"]'), fatal("GW-CFG-04", 7), None, "有中文标点 ，，应当用英文的", "Chinese punctuation ，"
    ),
    "a full-width equals sign": Wrong(
        put('org = "org"', 'org ＝ "org"'), fatal("GW-CFG-04", 3), None, "有中文标点 ＝", "Chinese punctuation ＝"
    ),
    "a value without quotes": Wrong(
        put('org = "org"', "org = org"), fatal("GW-CFG-04", 3), None, "文字要加英文双引号", "text needs double quotes"
    ),
    "words instead of a setting": Wrong(
        put('org = "org"', "org is org"), fatal("GW-CFG-04", 3), None, "键的后面缺等号", "= is missing"
    ),
    "two settings in a line": Wrong(
        put('org = "org"', 'org = "org" x = 1'), fatal("GW-CFG-04", 3), None, "一行只写一项", "one setting a line"
    ),
    "the same key twice": Wrong(
        put('org = "org"', 'org = "org"\norg = "org"'), fatal("GW-CFG-04", 4), None, "写了两次", "stands twice"
    ),
    "the same table twice": Wrong(
        add('[gateway]\nid = "x"\n'), fatal("GW-CFG-04", 34), None, "写了两次", "stands twice"
    ),
    "a bracket is missing in a header": Wrong(
        put("[[ble]]", "[[ble]"), fatal("GW-CFG-04", 8), None, "表名后面缺 ]", "] is missing"
    ),
    "a list that does not end": Wrong(
        put('["1", "2"]', '["1", "2"'), fatal("GW-CFG-04", 8), None, "列表或表没有写完", "does not end"
    ),
    "a list that does not end at the end": Wrong(
        lambda text: text + "x = [1,\n", fatal("GW-CFG-04", 34), None, "等号后面的值写得不对", "no value"
    ),
    "a backslash": Wrong(
        put('"org"', '"o\\rg\\x"'), fatal("GW-CFG-04", 3), None, "反斜杠要写两个", "must be written twice"
    ),
    "a NUL byte": Wrong(
        put("org = ", "org\x00 = "), fatal("GW-CFG-04", 3), None, "键的后面缺等号", "= is missing"
    ),
    "a NUL byte in a text": Wrong(
        put('"org"', '"o\x00rg"'), fatal("GW-CFG-04", 3), None, "不能用的控制字符", "a control character"
    ),
    "nested without end": Wrong(
        lambda text: text + "x = " + "[" * 100_000, fatal("GW-CFG-04", None), None, "嵌套太深", "nested too deeply"
    ),
    "a number of thousands of digits": Wrong(
        lambda text: text + "x = " + "9" * 5000 + "\n", fatal("GW-CFG-04", None), None, "数字太长", "too many digits"
    ),
    "saved as GB18030": Wrong(
        lambda text: text.replace('"org"', '"机构"').encode("gb18030"), fatal("GW-CFG-03", 3), None,
        "不是 UTF-8 编码（第 3 行）", "is not UTF-8 (line 3)",
    ),
    "saved as UTF-16": Wrong(
        lambda text: text.encode("utf-16"), fatal("GW-CFG-03", 1), None, "不是 UTF-8 编码", "is not UTF-8"
    ),
    "of more than a mebibyte": Wrong(
        lambda text: text + "#" * 1024 * 1024, fatal("GW-CFG-02", None), None, "文件太大", "the file is too large"
    ),
    # -- tables, keys, values ------------------------------------------------------------------------------------
    "one table where several belong": Wrong(
        put("[[ble]]", "[ble]"),
        [("GW-CFG-07", 8, "ble", "set-aside"), ("GW-CFG-11", 16, "device[1] (call-1).link", "set-aside")],
        ("meter",), "每个写成 [[ble]]", "each written [[ble]]",
    ),
    "a table instead of the gateway's": Wrong(
        lambda text: text.replace("[gateway]", "[[gateway]]"), fatal("GW-CFG-07", 1, "gateway"), None,
        "一张表，写成 [gateway]", "one table, written [gateway]",
    ),
    "a key of the gateway is missing": Wrong(
        put('site = "site"\n', ""), fatal("GW-CFG-05", 1, "gateway.site"), None, "缺少 site", "site is missing"
    ),
    "an id with a space": Wrong(
        put('"gw-1"\norg', '"gw 1"\norg'), fatal("GW-CFG-07", 2, "gateway.id"), None, "小写字母、数字或连字符", "lower-case"
    ),
    "an unknown key": Wrong(
        put('room = "201"', 'rooom = "201"'), [("GW-CFG-06", 18, "device[1] (call-1).rooom", "kept")], ALL,
        "不认识 rooom 是不是想写 room？", "unknown key rooom did you mean room?",
    ),
    "an unknown table": Wrong(
        put("[outbox]", "[outbx]"), [("GW-CFG-06", 32, "outbx", "kept")], ALL, "是不是想写 outbox？", "did you mean outbox?"
    ),
    "a number in quotes": Wrong(
        put("max_mb = 512", 'max_mb = "512"'), [("GW-CFG-07", 33, "outbox.max_mb", "kept")], ALL,
        "16 到 1000000 之间的整数", "a whole number from 16",
    ),
    "a text where a list belongs": Wrong(
        put('beds = ["1", "2"]', 'beds = "1"'), [("GW-CFG-07", 7, "room[1] (201).beds", "kept")], ALL,
        "床位名称的列表", "a list of at most 64 bed names",
    ),
    "a list where a text belongs": Wrong(
        put('room = "201"', 'room = ["201"]'), [("GW-CFG-07", 18, "device[1] (call-1).room", "kept")], ALL,
        "room 的值不对", "the value of room does not fit",
    ),
    # -- devices -------------------------------------------------------------------------------------------------
    "a device without a model": Wrong(
        put('model = "dlt645-2007"\n', ""), [("GW-CFG-05", 21, "device[2] (meter).model", "set-aside")], ("call-1",),
        "缺少 model", "model is missing",
    ),
    "two devices of one id": Wrong(
        put('id = "meter"', 'id = "call-1"'), [("GW-CFG-08", 22, "device[2] (call-1).id", "set-aside")], ("call-1",),
        '"call-1" 重复了，第 14 行已经用过', '"call-1" stands twice, first in line 14',
    ),
    "an unknown model": Wrong(
        put("bthome-button", "bthome-buton"), [("GW-CFG-10", 15, "device[1] (call-1).model", "set-aside")], ("meter",),
        "是不是想写 bthome-button？", "did you mean bthome-button?",
    ),
    "an unknown link": Wrong(
        put('link = "bus"', 'link = "buss"'), [("GW-CFG-11", 24, "device[2] (meter).link", "set-aside")], ("call-1",),
        "是不是想写 bus？已配置的连接：bus, radio", "did you mean bus? Configured links: bus, radio",
    ),
    "an unknown radio": Wrong(
        put('link = "radio"', 'link = "radoi"'), [("GW-CFG-53", 16, "device[1] (call-1).link", "kept")], ALL,
        "是不是想写 radio？", "did you mean radio?",
    ),
    "a link of the wrong kind": Wrong(
        put('link = "bus"', 'link = "radio"'), [("GW-CFG-12", 24, "device[2] (meter).link", "set-aside")], ("call-1",),
        "型号 dlt645-2007 需要 [[serial]]", "model dlt645-2007 needs [[serial]]",
    ),
    "no Bluetooth address": Wrong(
        put("A4:C1:38:56:53:84", "A4C138565384"), [("GW-CFG-16", 17, "device[1] (call-1).address", "set-aside")],
        ("meter",), "不是蓝牙地址", "not a Bluetooth address",
    ),
    "no meter number": Wrong(
        put("000012345678", "12345678"), [("GW-CFG-15", 25, "device[2] (meter).address", "set-aside")], ("call-1",),
        "表上的 12 位表号", "the 12 digits on the meter",
    ),
    "one address twice": Wrong(
        add('[[device]]\nid = "two"\nmodel = "dlt645-2007"\nlink = "bus"\naddress = "000012345678"\n'),
        [("GW-CFG-09", 38, "device[3] (two).address", "set-aside")], ALL,
        'bus 上的地址 "000012345678" 已经属于 meter', 'address "000012345678" on bus belongs to meter already',
    ),
    "several options that a driver refuses": Wrong(
        put('address = "000012345678"', 'address = "12"\nmap = { registers = ["volts", "voltage", 7], rate = 1 }'),
        [
            ("GW-CFG-15", 25, "device[2] (meter).address", "set-aside"),
            ("GW-CFG-15", 26, "device[2] (meter).map.rate", "set-aside"),
            ("GW-CFG-15", 26, "device[2] (meter).map.registers[1]", "set-aside"),
            ("GW-CFG-15", 26, "device[2] (meter).map.registers[3]", "set-aside"),
        ],
        ("call-1",), "没有这个选项，只有 daily_freezes, registers", "no such option; known here: daily_freezes, registers",
    ),
    "several rules that a driver refuses": Wrong(
        add(
            '[[serial]]\nid = "line"\nport = "/dev/serial/by-id/usb-y"\n'
            '[[device]]\nid = "fall"\nmodel = "json-lines"\nlink = "line"\n[device.map]\nadress = "x"\n'
            '[[device.map.signal]]\nfield = "ev"\nis = "fell"\n'
            '[[device.map.signal]]\nequals = [1]\nis = "fall"\nkode = "x"\n'
            '[[device.map.reading]]\nfield = "t"\nquantity = "heat"\n'
        ),
        [
            ("GW-CFG-15", 42, "device[3] (fall).map.adress", "set-aside"),
            ("GW-CFG-15", 45, "device[3] (fall).map.signal[1].is", "set-aside"),
            ("GW-CFG-15", 46, "device[3] (fall).map.signal[2].field", "set-aside"),
            ("GW-CFG-15", 47, "device[3] (fall).map.signal[2].equals", "set-aside"),
            ("GW-CFG-15", 49, "device[3] (fall).map.signal[2].kode", "set-aside"),
            ("GW-CFG-15", 52, "device[3] (fall).map.reading[1].quantity", "set-aside"),
        ],
        ALL, "call, fall, cancel", "one of call, fall, cancel",
    ),
    "an unknown room": Wrong(
        put('room = "201"', 'room = "210"'), [("GW-CFG-14", 18, "device[1] (call-1).room", "kept")], ALL,
        "没有名为 \"210\" 的房间 是不是想写 201？", 'no room is named "210" did you mean 201?',
    ),
    "a port name that changes": Wrong(
        put("/dev/serial/by-id/usb-x", "/dev/ttyUSB0"), [("GW-CFG-30", 12, "serial[1] (bus).port", "kept")], ALL,
        "这个名字会变", "does not last",
    ),
    "a port of Windows": Wrong(
        put("/dev/serial/by-id/usb-x", "COM3"),
        [
            ("GW-CFG-29", 12, "serial[1] (bus).port", "set-aside"),
            ("GW-CFG-32", 24, "device[2] (meter).link", "set-aside"),
        ],
        ("call-1",), "不是串口", "not a serial port",
    ),
    # -- secrets -------------------------------------------------------------------------------------------------
    "a secret that is not there": Wrong(
        put("KEYS/call-1", "KEYS/none"), [("GW-CFG-21", 20, "device[1] (call-1).key", "kept")], ALL,
        "文件不存在", "no such file",
    ),
    "a secret that everybody can read": Wrong(
        put("KEYS/password", "KEYS/open"), [("GW-CFG-22", 31, "destination[1] (district).path[1].password", "kept")],
        ALL, "别人也能读写", "others can read or write",
    ),
    "a key that is none": Wrong(
        put("KEYS/call-1", "KEYS/password"), [("GW-CFG-19", 20, "device[1] (call-1).key", "kept")], ALL,
        "内容不是十六进制", "it is not hexadecimal",
    ),
    "the secret itself": Wrong(
        put("file:KEYS/call-1", "231d39c1d7cc1ab1aee224cd096db932"),
        [("GW-CFG-20", 20, "device[1] (call-1).key", "kept")], ALL, "不能是密钥本身", "never the secret itself",
    ),
    # -- platforms -----------------------------------------------------------------------------------------------
    "no platform": Wrong(
        lambda text: text[: text.index("[[destination]]")], fatal("GW-CFG-31", None), None, "没有写任何", "there is no [["
    ),
    "a plain-text address": Wrong(
        put("mqtts://", "mqtt://"),
        [
            ("GW-CFG-41", 26, "destination", "kept"),
            ("GW-CFG-25", 29, "destination[1] (district).path[1].url", "set-aside"),
        ],
        ALL, "拒绝明文连接", "is refused",
    ),
    "alarms that nobody takes": Wrong(
        put('id = "district"', 'id = "district"\ntypes = ["telemetry.*"]'),
        [("GW-CFG-26", 26, "destination", "kept")], ALL, "没有任何平台接收这些报警", "no platform takes these alarms",
    ),
    "a broken second path": Wrong(
        put("[outbox]", '[[destination.path]]\nurl = "https：//b"\n[outbox]'),
        [("GW-CFG-24", 33, "destination[1] (district).path[2].url", "set-aside")], ALL,
        "有网址里不能用的字符", "it has characters that no URL has",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, content in (("call-1", "231d39c1d7cc1ab1aee224cd096db932"), ("password", "canary"), ("open", "canary")):
        (folder / name).write_text(content)
        (folder / name).chmod(0o644 if name == "open" else 0o600)
    return folder


def written(folder: Path, content: str | bytes, keys: Path) -> Path:
    file = folder / "gateway.toml"
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(data.replace(b"KEYS", os.fsencode(keys)))
    return file


def read_aloud(findings: tuple[Finding, ...], lang: str) -> str:
    out = io.StringIO()
    reports.findings(Paper(lang, out), findings, "gateway.toml")
    return out.getvalue()


def test_the_good_one_is_good(tmp_path: Path, keys: Path) -> None:
    running, findings = inspect(written(tmp_path, GOOD, keys))
    assert findings == ()
    assert running is not None
    assert tuple(device.id for device in running.devices) == ALL
    assert GOOD.count("\n") == 33


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told_where_it_stands_and_the_rest_runs(tmp_path: Path, keys: Path, name: str) -> None:
    case = CASES[name]
    file = written(tmp_path, case.change(GOOD), keys)
    running, findings = inspect(file)
    assert [(one.code, one.line, one.where, one.effect) for one in findings] == case.told
    assert {one.file for one in findings} == {str(file)}
    assert (None if running is None else tuple(device.id for device in running.devices)) == case.runs
    for lang, part in (("zh", case.zh), ("en", case.en)):
        told = " ".join(
            f"{one.title} {one.remedy}" for one in (describe(f.code, lang, f.where, f.facts) for f in findings)
        )
        assert part in told
        page = read_aloud(findings, lang)
        assert not re.search(r"@[a-z]+\.|<<|>>|\{[a-z_]+\}| \? |\x00|canary|231d39c1", page), page
    # The daemon comes to the same: it runs on what the check says, or not at all.
    if case.runs is None:
        with pytest.raises(ConfigError):
            load(file)
    else:
        assert tuple(device.id for device in load(file).devices) == case.runs


@pytest.mark.parametrize("name", CASES)
def test_what_is_told_in_chinese_is_chinese(tmp_path: Path, keys: Path, name: str) -> None:
    _, findings = inspect(written(tmp_path, CASES[name].change(GOOD), keys))
    for one in findings:
        said = describe(one.code, "zh", one.where, one.facts)
        assert not re.search(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", f"{said.title} {said.meaning}")
        words = re.sub(r"sudo [^；，]*|gateway config check[^；，]*|iconv [^；，]*|ls -l [^；，]*", "", said.remedy)
        assert not re.search(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", words), said.remedy


def test_a_finding_in_an_entry_that_does_not_run_says_nothing_of_what_would_be(tmp_path: Path, keys: Path) -> None:
    text = GOOD.replace("bthome-button", "bthome-buton").replace('room = "201"', 'room = "202"')
    running, findings = inspect(written(tmp_path, text, keys))
    page = read_aloud(findings, "zh")
    assert '没有名为 "202" 的房间' in page
    assert "照常报警" not in page
    assert "该条目已因别处的错误停用，其余照常运行" in page
    assert running is not None


def test_where_no_device_is_left_it_says_whether_there_was_one(tmp_path: Path, keys: Path) -> None:
    none = re.sub(r"\[\[device\]\].*?(?=\[\[dest)", "", GOOD, flags=re.DOTALL)
    aside = GOOD.replace("bthome-button", "x").replace("dlt645-2007", "y")
    for text, title in ((none, "一台设备也没有写"), (aside, "写了 2 台设备，全部停用")):
        _, findings = inspect(written(tmp_path, text, keys))
        (one,) = (finding for finding in findings if finding.code == "GW-CFG-38")
        assert one.severity == "problem"
        assert describe("GW-CFG-38", "zh", "", one.facts).title == f"没有一台设备可用：{title}"
        assert "网关照常运行" in read_aloud((one,), "zh")


# -- what does no harm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(" = ", "\t=\t").replace("[[ble]]", "\t[[ble]]\t# 制表符"),
        lambda text: text + "\n\n   \n# 注释，“中文引号”\n",
        lambda text: text.rstrip("\n"),
    ],
    ids=["byte-order mark", "CRLF", "tabs", "comments", "no line end at the end"],
)
def test_what_editors_leave_does_no_harm(tmp_path: Path, keys: Path, change: Callable[[str], str]) -> None:
    running, findings = inspect(written(tmp_path, change(GOOD), keys))
    assert findings == ()
    assert running is not None


def test_lines_are_counted_right_in_a_file_of_windows(tmp_path: Path, keys: Path) -> None:
    text = GOOD.replace("bthome-button", "x").replace("\n", "\r\n")
    assert [one.line for one in inspect(written(tmp_path, text, keys))[1]] == [15]
    broken = GOOD.replace('org = "org"', "org = “org”").replace("\n", "\r\n")
    (finding,) = inspect(written(tmp_path, broken, keys))[1]
    assert (finding.line, finding.facts["column"], finding.facts["character"]) == (3, 7, "“")


# -- what is no file ---------------------------------------------------------------------------------------------


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    told = {}
    for name in ("none", "fifo", "socket", "dangling", ".", "loop", "x" * 300, "none/below"):
        running, (finding, *_) = inspect(tmp_path / name)
        assert running is None
        told[name[:10]] = (finding.code, finding.effect)
    missing, unreadable = ("GW-CFG-01", "fatal"), ("GW-CFG-02", "fatal")
    assert told == {
        "none": missing, "fifo": unreadable, "socket": unreadable, "dangling": missing, ".": unreadable,
        "loop": missing, "x" * 10: unreadable, "none/below": missing,
    }  # fmt: skip
    assert inspect(Path("/dev/null"))[1][0].facts["reason"] == "@hint.not-a-file"
    assert inspect(Path("a\x00b"))[1][0].code in ("GW-CFG-01", "GW-CFG-02")


@pytest.mark.parametrize(
    "text",
    [
        "[[device]]\n" * 30_000,
        "[[serial]]\nid='a'\nport='/a'\n" * 8_000 + "[[device]]\nid='a'\nmodel='m'\nlink='x'\n" * 4_000,
        "a." * 2_000 + "a = 1\n",
        "x = " + "{a = " * 90 + "1" + "}" * 90 + "\n",
        "types = [" + "'x'," * 200_000 + "]\n",
        GOOD + "[[destination]]\n" * 15_000,
    ],
    ids=["devices", "links", "dotted key", "inline tables", "long list", "destinations"],
)
def test_a_file_that_is_huge_within_its_limit_is_told_in_no_more_than_501_findings(
    tmp_path: Path, keys: Path, text: str
) -> None:
    _, findings = inspect(written(tmp_path, text, keys))
    assert 0 < len(findings) <= 501 + 1


# -- mutations ---------------------------------------------------------------------------------------------------

SHIPPED = (CONFIG / "gateway.toml").read_bytes()
TREE: Mapping[str, Any] = tomllib.loads(SHIPPED.decode())
quick = settings(
    deadline=None, max_examples=150, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def checked(file: Path) -> None:
    """Load, and say all that is wrong in both languages: any exception but ConfigError fails the test."""
    _, findings = inspect(file)
    for lang in ("zh", "en"):
        read_aloud(findings, lang)
    with contextlib.suppress(ConfigError):
        load(file)


@quick
@given(st.data())
def test_no_mutation_of_bytes_ends_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(SHIPPED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 12))
        piece = data.draw(st.one_of(
            st.binary(max_size=6), st.sampled_from([b'"', b"[", b"]", b"[[", b"\n", b"=", b"#", b"\x00", b"{", b"'''"]),
            st.builds(lambda begin, size: SHIPPED[begin : begin + size], st.integers(0, len(SHIPPED)), st.integers(0, 200)),
        ))  # fmt: skip
        content[at : at + length] = piece
    file = tmp_path / "mutated.toml"
    file.write_bytes(bytes(content))
    checked(file)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12), st.just("credential:x"),
        st.sampled_from(["", "/", "x" * 2000, "file:/etc/passwd", "mqtts://h", "https://h/a?b", "\u202e", "A4:C1:38:56:53:84"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for key, value in below for place in places(value, (*at, key)))]


PLACES = places(TREE)[1:]


def changed(node: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    copy = dict(node) if isinstance(node, Mapping) else list(node) if isinstance(node, list) else None
    if copy is None or (isinstance(copy, list) and not (isinstance(at[0], int) and at[0] < len(copy))):
        return node
    if isinstance(copy, dict) and at[0] not in copy:
        return node
    copy[at[0]] = changed(copy[at[0]], at[1:], value)
    return copy


@quick
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4), st.text(max_size=10), VALUES)
def test_no_mutation_of_keys_ends_in_a_traceback(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]], key: str, more: Any
) -> None:
    tree: Any = TREE
    for at, value in changes:
        tree = changed(tree, at, value)
    if isinstance(tree, dict):
        tree = {**tree, key: more}
    file = tmp_path / "mutated.toml"
    file.write_text(dumped(tree), encoding="utf-8", errors="replace")
    checked(file)


def dumped(tree: Any) -> str:
    """TOML with inline tables only: it need not be pretty, and what TOML cannot say is left out."""
    return "".join(f"{text(key)} = {inline(value)}\n" for key, value in tree.items() if value is not None)


def inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{text(key)} = {inline(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value if item is not None) + "]"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def text(value: str) -> str:
    escaped = "".join(c if c.isalnum() or c in " -_./:" else f"\\U{ord(c):08x}" for c in value)
    return f'"{escaped}"'
