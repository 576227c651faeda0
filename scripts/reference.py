"""`make reference`: writes docs/reference/ and config/gateway.schema.json from the program itself.

    reference.py            write all of them
    reference.py --check    name those that are stale, and end with 1 if there are any

Commands come from the parser, keys from the settings classes, problems from their declarations and texts, devices from the
drivers: what stands there cannot differ from what runs. Chinese first, then English.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from drivers.kit import QUANTITIES, Advertises, Answers, Decoded, Driver, Reading, Signal, Streams, catalogue
from gateway.cli.arguments import parser
from gateway.config.options import settle_options
from gateway.config.schema import TABLES, schema_text, settings_of
from gateway.problems import PROBLEMS, SEVERITIES
from gateway.texts import LANGUAGES, table, text

ROOT: Final = Path(__file__).parents[1]
MADE: Final = "<!-- make reference 生成，不要手改。 Made by `make reference`; do not edit. -->"

FAMILIES: Final = {
    "CFG": ("配置", "Configuration"),
    "SER": ("串口", "Serial lines"),
    "BLE": ("蓝牙", "Bluetooth"),
    "MQS": ("MQTT 来源", "MQTT sources"),
    "RCV": ("ESPHome 蓝牙代理", "Bluetooth proxies of ESPHome"),
    "DEV": ("设备", "Devices"),
    "NET": ("网络与连接", "Network and connections"),
    "PLT": ("平台", "Platforms"),
    "STO": ("存储", "Storage"),
    "CLK": ("时钟", "Clock"),
    "PWR": ("供电", "Power"),
    "HW": ("硬件", "Hardware"),
    "ANN": ("现场提示", "Light and sound on site"),
    "SEC": ("安全", "Security"),
    "CTL": ("命令行与控制套接字", "Command line and control socket"),
    "RUN": ("程序本身", "The program itself"),
    "VER": ("版本", "Versions"),
}
TYPES: Final = {
    "string": ("文字", "text"),
    "integer": ("整数", "whole number"),
    "number": ("数", "number"),
    "boolean": ("true / false", "true / false"),
    "array": ("列表", "list"),
    "object": ("表", "table"),
}

Row = Sequence[str]


def both(key: str, **values: object) -> str:
    """A text in both languages, a line each."""
    return "<br>".join(text(key, lang, **values) for lang in LANGUAGES)


def grid(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Yield a Markdown table, and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""


def code(shown: object) -> str:
    """As code, "" for nothing."""
    return f"`{shown}`" if shown not in (None, "") else ""


# -- commands ----------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Yield the lines of commands.md."""
    trees = [parser(lang) for lang in LANGUAGES]
    yield from ("# 命令 · Commands", "", MADE, "")
    yield from (f"{said}  " for said in (*(tree.description for tree in trees), *(tree.epilog for tree in trees)))
    yield from ("", "`--config`、`--lang` 等写在命令前后都可以。  ")
    yield from ("`--config`, `--lang` and the like may stand before or after the command.", "")
    yield from ("## 每个命令都有的选项 · Options of every command", "")
    common = {action.dest for action in _options(trees[0])} - {"version"}
    yield from grid(OPTION_HEAD, [_option(zh, en) for zh, en in _pairs(trees) if zh.dest in common])
    yield from _commands(trees, "gateway", common)


OPTION_HEAD: Final = ("选项 option", "说明 meaning")


def _commands(trees: Sequence[argparse.ArgumentParser], name: str, common: set[str]) -> Iterator[str]:
    zh, en = (_below(tree) for tree in trees)
    helps = [_helps(tree) if zh else {} for tree in trees]
    for word in zh:
        full = f"{name} {word}"
        below = (zh[word], en[word])
        yield from (f"## {full}", "", f"{helps[0][word]}  ", helps[1][word], "")
        if not _must_go_on(below[0]):
            yield from ("```", _usage(below[0], full, common), "```", "")
            rows = [_option(one, other) for one, other in _pairs(below) if one.dest not in common]
            if rows:
                yield from grid(OPTION_HEAD, rows)
        yield from _commands(below, full, common)


def _options(tree: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in _actions(tree) if not isinstance(action.choices, Mapping)]


def _pairs(trees: Sequence[argparse.ArgumentParser]) -> list[tuple[argparse.Action, argparse.Action]]:
    zh, en = (_options(tree) for tree in trees)
    return list(zip(zh, en, strict=True))


def _below(tree: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    return next((action.choices for action in _actions(tree) if isinstance(action.choices, Mapping)), {})


def _must_go_on(tree: argparse.ArgumentParser) -> bool:
    """Is a command nothing without one of those below it?"""
    return any(isinstance(action.choices, Mapping) and action.required for action in _actions(tree))


def _helps(tree: argparse.ArgumentParser) -> dict[str, str]:
    listed: Any = next(action for action in _actions(tree) if isinstance(action.choices, Mapping))
    return {item.dest: item.help or "" for item in listed._choices_actions}  # noqa: SLF001 - argparse shows it nowhere else


def _actions(tree: argparse.ArgumentParser) -> list[argparse.Action]:
    return tree._actions  # noqa: SLF001 - argparse shows them nowhere else


def _written(action: argparse.Action) -> str:
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(value)
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def _option(zh: argparse.Action, en: argparse.Action) -> Row:
    return code(_written(zh)), f"{zh.help}<br>{en.help}"


def _usage(tree: argparse.ArgumentParser, name: str, common: set[str]) -> str:
    words = [name]
    for action in _options(tree):
        if action.dest not in common:
            shown = _written(action).split(", ")[-1]
            words.append(shown if action.required else f"[{shown}]")
    return " ".join(words)


# -- configuration -----------------------------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    """Yield the lines of configuration.md."""
    yield from ("# 配置 · Configuration", "", MADE, "")
    yield (
        "一个 TOML 文件，`/etc/daycare-gateway/gateway.toml`；带注释的全文见 [gateway.toml](../../config/gateway.toml)，样例见 "
        "[examples](../../config/examples/)。`gateway config check` 一次列出全部错误。写错的条目停用，其余照常运行；"
        "[gateway] 写错，或一个平台也没有写，网关不启动。"
    )
    yield ""
    yield (
        "One TOML file, `/etc/daycare-gateway/gateway.toml`; with comments: [gateway.toml](../../config/gateway.toml), "
        "examples: [examples](../../config/examples/). `gateway config check` lists all mistakes at once. An entry with a "
        "mistake does not run, everything else does; a mistake in [gateway], or no platform at all, keeps the gateway from "
        "starting."
    )
    yield ""
    head = ("键 key", "类型 type", "默认 default", "可写 allowed", "含义 meaning")
    for name, (_, is_array) in TABLES.items():
        header = "destination.path" if name == "path" else name
        yield from (f"## `[[{header}]]`" if is_array else f"## `[{header}]`", "")
        yield from (f"{text(f'setting.{name}.about', 'zh')}  ", text(f"setting.{name}.about", "en"), "")
        required = {key for key, value in _required(name)}
        rows = []
        for key, value, hint in settings_of(name):
            kind = TYPES["array" if key == "path" else value.get("type", "object")]
            default = "必填 required" if key in required else code(_toml(value.get("default")))
            rows.append(
                (
                    code(key),
                    " ".join(dict.fromkeys(kind)),
                    default,
                    both(f"expect.{hint}"),
                    both(f"setting.{name}.{key}"),
                )
            )
        yield from grid(head, rows)


def _required(name: str) -> Iterator[tuple[str, Any]]:
    kind, _ = TABLES[name]
    signature = inspect.signature(kind)
    for key, parameter in signature.parameters.items():
        if parameter.default is inspect.Parameter.empty or (name, key) == ("destination", "path"):
            yield key, parameter


def _toml(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if value else '""'
    if isinstance(value, list):
        return f"[{', '.join(map(str, map(_toml, value)))}]"
    return None if value is None else str(value)


# -- problems ----------------------------------------------------------------------------------------------------


def problems() -> Iterator[str]:
    """Yield the lines of problems.md."""
    yield from ("# 问题代码 · Problem codes", "", MADE, "")
    yield from (
        "电话里念代码就够了：代码的意思不会改变。‹尖括号› 里是现场的数值。  ",
        "The code is enough on the phone: it never changes its meaning. ‹Angle brackets› stand for values found on site.",
        "",
        "，".join(
            f"**{text(f'severity.{one}', 'zh')}** {meaning}"
            for one, meaning in zip(SEVERITIES, SEVERITY_ZH, strict=True)
        )
        + "  ",
        ", ".join(
            f"**{text(f'severity.{one}', 'en')}**: {meaning}"
            for one, meaning in zip(SEVERITIES, SEVERITY_EN, strict=True)
        ),
        "",
    )
    families = dict.fromkeys(name.split("-")[1] for name in PROBLEMS)
    for family in sorted(families, key=list(FAMILIES).index):
        zh, en = FAMILIES[family]
        yield from (f"## {family} · {zh} · {en}", "")
        for name, declared in sorted(PROBLEMS.items()):
            if name.split("-")[1] == family:
                yield from (f"### {name}", "")
                for lang in LANGUAGES:
                    title, meaning, remedy = (
                        _plain(f"problem.{name}.{part}", lang) for part in ("title", "meaning", "remedy")
                    )
                    yield f"**{text(f'severity.{declared.severity}', lang)}** {title}  "
                    yield f"{text('cli.meaning', lang)}{meaning}  "
                    yield f"{text('cli.remedy', lang)}{remedy}"
                    yield ""
                if declared.depends_on:
                    yield f"由这些引起时不单独显示 · hidden behind: {', '.join(declared.depends_on)}"
                    yield ""


SEVERITY_ZH: Final = ("老人可能得不到帮助", "请尽快处理", "知道就好")
SEVERITY_EN: Final = ("people may go without help", "see to it soon", "know it")


def _plain(key: str, lang: str) -> str:
    """A text as it stands, with its placeholders marked, safe in Markdown."""
    shown = re.sub(r"<<|>>", "", table(lang)[key])
    shown = re.sub(r"\{(\w+)\}", r"‹\1›", shown).replace("{{", "{").replace("}}", "}")
    return re.sub(r"([*_\[\]<>])", r"\\\1", shown)


# -- devices -----------------------------------------------------------------------------------------------------


def devices() -> Iterator[str]:
    """Yield the lines of devices.md."""
    drivers = [(model, catalogue.driver(model)) for model in catalogue.models()]
    yield from ("# 设备 · Devices", "", MADE, "")
    yield from (
        "`model` 写下面的型号。新增一种设备：[add-a-device.md](../add-a-device.md)（英文）。  ",
        "`model` is one of these. To add one: [add-a-device.md](../add-a-device.md).",
        "",
    )
    head = ("型号 model", "设备 device", "接法 link")
    yield from grid(head, [(f"[{m}](#{m})", f"{d.title.zh}<br>{d.title.en}", _shape(d)) for m, d in drivers])
    for model, driver in drivers:
        yield from (f"## {model}", "", f"{driver.title.zh}  ", driver.title.en, "")
        yield from grid(("项目 item", "值 value"), list(_facts(driver)))
        options = list(_driver_options(driver))
        if options:
            rows = [(code(name), zh, en) for name, zh, en in options]
            yield from grid(("选项 option（`[device.map]`）", "可写", "allowed"), rows)
        doc = sys.modules[f"drivers.devices.{model.replace('-', '_')}"].__doc__ or ""
        yield from ("```text", inspect.cleandoc(doc), "```", "")


def registers() -> Iterator[str]:
    """Yield the lines of registers.md: those of each model that has a table of them."""
    yield from ("# 寄存器 · Registers", "", MADE, "")
    yield "`map.registers` 里可写的名字；怎么选、要注意什么：[meters.md](../meters.md)。  "
    yield from ("The names that `map.registers` takes; what to mind: [meters.md](../meters.md).", "")
    for model in catalogue.models():
        described = getattr(import_module(f"{catalogue.DEVICES}.{model.replace('-', '_')}"), "described", None)
        if described is not None:
            title = catalogue.driver(model).title
            yield from (f"## {model}", "", f"{title.zh}  ", title.en, "")
            rows = [(code(name), code(at), *_quantity(quantity)) for name, at, quantity in described()]
            yield from grid(("名字 name", "标识 identifier", "单位 unit", "量 quantity"), rows)


def _quantity(name: str) -> Row:
    quantity = QUANTITIES[name]
    return quantity.unit, f"{quantity.zh} · {quantity.en}"


def _shape(driver: Driver) -> str:
    if isinstance(driver, Advertises):
        return "蓝牙 `[[ble]]`，自己发<br>heard on the air"
    if _published(driver):
        return "MQTT `[[mqtt]]`，自己说<br>published by another gateway"
    if isinstance(driver, Streams):
        return "串口 `[[serial]]`，自己说<br>speaks by itself"
    return "串口 `[[serial]]`，一问一答<br>answers when asked"


def _published(driver: Driver) -> bool:
    """Is it heard on a broker and not over a line?"""
    return isinstance(driver, Streams) and driver.topics is not None


def _facts(driver: Driver) -> Iterator[Row]:
    yield "接法 link", _shape(driver)
    yield "地址 `address`", _address(driver)
    if isinstance(driver, Advertises):
        yield "密钥 `key`", _key(driver.key_bytes)
        plain = "可以，要写 `allow_plain = true`<br>yes, with `allow_plain = true`" if driver.plain else "不可以<br>no"
        yield "不加密 plain text", plain
        yield "能呼叫 calls for help", "能<br>yes" if driver.may_call else "不能<br>no"
    elif not _published(driver):
        line = driver.line
        yield "线路参数 line settings", f"{line.baud} {line.bits}{line.parity}{line.stop}"
    if isinstance(driver, Streams | Answers) and driver.keyed is not None:
        yield "密钥 `key`", _key(driver.key_bytes)
    if isinstance(driver, Streams):
        yield "能呼叫 calls for help", "能<br>yes" if driver.may_call else "不能<br>no"
    if isinstance(driver, Streams) and driver.note:
        yield "注意 mind", f"{driver.note.zh}<br>{driver.note.en}"
    if isinstance(driver, Streams) and not _published(driver):
        shared = "可以，按地址区分<br>yes, told apart by address" if driver.address_of else "不可以<br>no"
        yield "同线多台 several on one line", shared
    if isinstance(driver, Streams) and driver.poll:
        yield "轮询 `every_s`", f"{driver.poll.every_s:g} s"
    if isinstance(driver, Answers):
        yield "轮询 `every_s`", f"{driver.every_s:g} s"
    yield "例如能说 says, for example", "<br>".join(_observations(driver)) or "-"


def _key(length: int | None) -> str:
    if length is None:
        return "不用<br>none"
    return f"{length} 字节，{2 * length} 个十六进制字符<br>{length} bytes, {2 * length} hexadecimal digits"


def _address(driver: Driver) -> str:
    if isinstance(driver, Advertises):
        if driver.identify:
            return "蓝牙地址；不写就按选项认<br>Bluetooth address; without one it is known by its options"
        return "蓝牙地址<br>Bluetooth address, `A4:C1:38:56:53:84`"
    if isinstance(driver, Answers):
        _, refusals = settle_options(driver, "?", {})
        return next((f"{one.zh}<br>{one.expected}" for at, one in refusals if at == ("address",)), "-")
    if _published(driver):
        return "它的 MQTT 主题<br>its MQTT topic"
    return "报文里的名字<br>the name in its messages" if driver.address_of else "不写<br>none"


def _observations(driver: Driver) -> Iterator[str]:
    """What the vectors of a driver hold: enough to see what it is for."""
    found: dict[str, None] = {}
    for vector in driver.vectors:
        expected: Any = vector.expect
        observed = expected.observations if isinstance(expected, Decoded) else expected
        for one in observed if isinstance(observed, tuple) else ():
            if isinstance(one, Signal):
                found[f"`{one.kind.value}`"] = None
            elif isinstance(one, Reading):
                quantity = QUANTITIES[one.quantity]
                found[f"`{one.quantity}` ({quantity.unit})：{quantity.zh} · {quantity.en}"] = None
    return iter(found)


def _driver_options(driver: Driver) -> Iterator[tuple[str, str, str]]:
    """Ask a driver what it takes: with an option that nobody has, then with a value that nothing fits."""
    if isinstance(driver, Advertises) and driver.options is None:
        return
    for name in _known(driver, {"?": 0}, ("map", "?")):
        refusal = _refusal(driver, {name: object()}, ("map", name))
        yield name, refusal.zh, refusal.expected
        for inner in _known(driver, {name: [{"?": 0}]}, ("map", name, 0, "?")):
            refusal = _refusal(driver, {name: [{inner: object()}]}, ("map", name, 0, inner))
            yield f"{name}[].{inner}", refusal.zh, refusal.expected


def _known(driver: Driver, raw: Mapping[str, object], at: tuple[str | int, ...]) -> list[str]:
    _, refusals = settle_options(driver, _good_address(driver), raw)
    said = next((one.expected for place, one in refusals if place == at), "")
    names = said.partition("known here: ")[2]
    return names.split(", ") if names and names != "none" else []


def _refusal(driver: Driver, raw: Mapping[str, object], at: tuple[str | int, ...]) -> Any:
    _, refusals = settle_options(driver, _good_address(driver), raw)
    return next(one for place, one in refusals if place == at)


def _good_address(driver: Driver) -> str:
    return driver.vectors[0].address if isinstance(driver, Answers) else ""


# -- all of them -------------------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """Return every generated file with its content."""
    made = {"commands": commands, "configuration": configuration, "problems": problems, "devices": devices}
    made["registers"] = registers
    folder = ROOT / "docs" / "reference"
    files = {folder / f"{name}.md": "\n".join(lines()).rstrip() + "\n" for name, lines in made.items()}
    return {**files, ROOT / "config" / "gateway.schema.json": schema_text(catalogue)}


def main() -> int:
    """Write what differs, or name it."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--check", action="store_true")
    check = asked.parse_args().check
    stale = 0
    for file, content in pages().items():
        if file.exists() and file.read_text(encoding="utf-8") == content:
            continue
        stale += 1
        print(f"{'stale' if check else 'written'}: {file.relative_to(ROOT)}")
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
