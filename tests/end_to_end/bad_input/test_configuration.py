"""The bad-input table, the configuration: ten kinds of mistakes, and a model that nobody knows.

What leaves nothing to run keeps the gateway from starting, with one page that says why. What is wrong in one entry costs
that entry. Every sentence stands in tests/gateway/config; here daemon, log and `diagnose` are to agree, and calls to be heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from simulator.platform import district

if TYPE_CHECKING:
    from tests.end_to_end.bad_input.conftest import Cable, Centre
else:
    Cable = Centre = Any

pytestmark = pytest.mark.slow

MORE = """
[[room]]
id = "201"
beds = ["1"]

[[serial]]
id = "radar-line"
port = "{port}"

[[device]]
id = "radar-201"
model = "json-lines"
link = "radar-line"
room = "201"
map = {{ signal = [ {{ field = "ev", equals = "fall", is = "fall" }} ] }}

[[destination]]
id = "far"
  [[destination.path]]
  url = "http://127.0.0.1:{far}"
"""
RADAR = 'link = "radar-line"\nroom = "201"\n'


def put(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return change


@dataclass(frozen=True)
class Fatal:
    """`zh` and `en` are title and remedy; {file} is the configuration."""

    change: Callable[[str], str | bytes | None]
    code: str
    zh: tuple[str, str]
    en: tuple[str, str]
    subject: str = ""


FATAL = {
    "no file": Fatal(
        lambda _: None, "GW-CFG-01",
        (
            "配置文件不存在：{file}",
            ("从样例开始：sudo cp /usr/share/doc/daycare-gateway/examples/village-point.toml {file}，改好后 "
            "gateway config check --config {file}"),
        ),
        (
            "no configuration file: {file}",
            ("start from the example: sudo cp /usr/share/doc/daycare-gateway/examples/village-point.toml {file}, edit it, then "
            "gateway config check --config {file}"),
        ),
    ),
    "Chinese quotation marks": Fatal(
        put('org = "org"', "org = “org”"), "GW-CFG-04",
        (
            "TOML 语法错误，第 4 行第 7 列：有中文标点 “，应当用英文的",
            "改这一行（常见：缺引号、缺 ]、用了中文引号），再运行 gateway config check",
        ),
        (
            "TOML syntax error, line 4, column 7: Chinese punctuation “: write the ASCII one",
            "mend that line (often a missing quote, a missing ] or Chinese quotation marks), then run gateway config check again",
        ),
    ),
    "saved as GB18030": Fatal(
        lambda text: text.replace('"org"', '"机构"').encode("gb18030"), "GW-CFG-03",
        (
            "配置文件不是 UTF-8 编码（第 4 行）",
            "转换编码：iconv -f GB18030 -t UTF-8 {file} > /tmp/gateway.toml，看过内容后放回原处",
        ),
        (
            "the configuration file is not UTF-8 (line 4)",
            "convert it: iconv -f GB18030 -t UTF-8 {file} > /tmp/gateway.toml, look at the result, put it back",
        ),
    ),
    "a key of the gateway is missing": Fatal(
        put('site = "site"\n', ""), "GW-CFG-05",
        ("缺少 site", "补上 site = ...：1 到 64 个小写字母、数字或连字符（a-z 0-9 -）"),
        ("site is missing", "add site = ...: 1 to 64 of lower-case letters, digits and hyphens (a-z 0-9 -)"),
        "gateway.site",
    ),
    "no platform": Fatal(
        lambda text: text[: text.index("[[destination]]")], "GW-CFG-31",
        (
            "没有写任何 [[destination]]",
            "写一个 [[destination]] 和它的 [[destination.path]]，样例见 /usr/share/doc/daycare-gateway/examples/",
        ),
        (
            "there is no [[destination]]",
            "write a [[destination]] with its [[destination.path]]; see /usr/share/doc/daycare-gateway/examples/",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FATAL)
async def test_a_configuration_that_leaves_nothing_to_run(centre: Centre, name: str) -> None:
    case = FATAL[name]
    centre.configure()
    good = centre.gateway.config.read_text(encoding="utf-8")
    changed = case.change(good)
    if changed is None:
        centre.gateway.config.unlink()
    else:
        centre.write(changed)
    said = await centre.refuses_to_start()
    assert said.count("GW-CFG-") == said.count(case.code) == 1
    assert "网关不会启动" in said

    told = await centre.diagnose()
    zh, en = ([part.format(file=centre.gateway.config) for part in texts] for texts in (case.zh, case.en))
    told.says_first(case.code, case.subject, status=2, zh=(zh[0], zh[1]), en=(en[0], en[1]))
    assert told.document["daemon"] == "dead"
    # That it does not run follows from it, and is not a second thing to do.
    assert told.bad == [(case.code, case.subject)]

    centre.write(good)
    await centre.gateway.start()
    await centre.well()
    await centre.call_is_heard()


@dataclass(frozen=True)
class Aside:
    """`costs`: which entries do not run for it; `also`: what follows from it, told after it, at the platform too."""

    change: Callable[[str], str]
    code: str
    subject: str
    zh: tuple[str, str]
    en: tuple[str, str]
    costs: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()


# A driver is a file there; templates begin with "_".
DEVICES = Path(__file__).parents[3] / "drivers" / "devices"
MODELS = ", ".join(sorted(one.stem.replace("_", "-") for one in DEVICES.glob("[a-z]*.py")))
ASIDE = {
    "an unknown key": Aside(
        put('room = "201"', 'rooom = "201"'), "GW-CFG-06", "device[2] (radar-201).rooom",
        ("不认识 rooom", "是不是想写 room？不需要就删掉这一行"),
        ("unknown key rooom", "did you mean room? If it is not needed, delete the line"),
    ),
    "a number in quotes": Aside(
        lambda text: text + '[outbox]\nmax_mb = "512"\n', "GW-CFG-07", "outbox.max_mb",
        ("max_mb 的值不对", "应当是：16 到 1000000 之间的整数（MiB）"),
        ("the value of max_mb does not fit", "Write a whole number from 16 to 1000000 (MiB)"),
    ),
    "one id twice": Aside(
        put('id = "radar-201"', 'id = "board-1"'), "GW-CFG-08", "device[2] (board-1).id",
        ('id = "board-1" 重复了，第 15 行已经用过', "给其中一个换一个不同的 id"),
        ('id = "board-1" stands twice, first in line 15', "give one of the two another id"),
        costs=("radar-201",),
    ),
    "a secret that is not there": Aside(
        lambda text: text + '  token = "file:/nowhere/token"\n', "GW-CFG-21", "destination[2] (far).path[1].token",
        (
            "取不到密钥 file:/nowhere/token：文件不存在（/nowhere/token）",
            "放好文件：sudo install -m 600 -o daycare-gateway 来源 /nowhere/token，再 sudo systemctl restart daycare-gateway",
        ),
        (
            "secret file:/nowhere/token cannot be had: no such file (/nowhere/token)",
            ("put the file in place: sudo install -m 600 -o daycare-gateway SOURCE /nowhere/token, then "
            "sudo systemctl restart daycare-gateway"),
        ),
        also=(("GW-NET-04", "far"),),
    ),
    "a plain-text address": Aside(
        put("http://127.0.0.1", "http://platform.example.org"), "GW-CFG-25", "destination[2] (far).path[1].url",
        (
            "拒绝明文连接 platform.example.org：http:// 只许连本机",
            "改用 https://platform.example.org，并写好 ca_file；没有关闭这项检查的开关",
        ),
        (
            "plain text to platform.example.org is refused: http:// may go to this machine only",
            "use https://platform.example.org with a ca_file; there is no switch that turns this check off",
        ),
        costs=("far",),
    ),
    "an unknown model": Aside(
        put(f'model = "json-lines"\n{RADAR}', f'model = "json-line"\n{RADAR}'), "GW-CFG-10",
        "device[2] (radar-201).model",
        ('没有名为 "json-line" 的设备型号', f"是不是想写 json-lines？可用的型号：{MODELS}"),
        ('no device model is named "json-line"', f"did you mean json-lines? Models: {MODELS}"),
        costs=("radar-201",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASIDE)
async def test_a_mistake_in_one_entry_costs_that_entry(
    centre: Centre, new_cable: Callable[[], Cable], name: str
) -> None:
    case = ASIDE[name]
    cable = new_cable()
    cable.free()
    async with district(centre.folder, destination="far", speaks="http") as far:
        centre.configure(MORE, port=cable.port, far=far.port)
        centre.write(case.change(centre.gateway.config.read_text(encoding="utf-8")))
        await centre.gateway.start()
        await centre.problem(case.code, case.subject)
        await centre.call_is_heard()
        if "radar-201" not in case.costs:
            await centre.gateway.until("hearing", lambda status: all(one["hearing"] for one in status["links"]))
            await cable.say(b'{"dev":"r1","n":1,"ev":"fall"}\n')
            await centre.alarms_arrived(1, "radar-201")

        told = await centre.diagnose()
        told.says_first(case.code, case.subject, status=2, zh=case.zh, en=case.en)
        assert told.bad == [(case.code, case.subject), *case.also]
        # Looked at while the far platform is there: its end would be told, too.
        told_in_log = [(case.code, case.subject, "on"), *((code, subject, "on") for code, subject in case.also)]
        assert centre.gateway.turns() == told_in_log
        status = await centre.gateway.ask("status")
        if "far" not in case.costs and not case.also:
            await centre.alarms_arrived(1, platform="far")
    # The page for people, and below it the log for machines: the trouble stands once in each.
    page, _, log = centre.gateway.said().partition('{"code": "')
    assert page.count(case.code) == 1
    assert "Traceback" not in page + log
    known = {one["id"] for one in (*status["devices"], *status["destinations"])}
    assert known == {"board-1", "district", "radar-201", "far"} - set(case.costs)
