"""The command line: what can be written, and its help, in Chinese or English.

Options that every command knows may stand before or after the command. A command line that is not right ends with exit
status 3, not 2: 2 says that the gateway or its configuration has a problem.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gateway import __version__
from gateway.diagnose.report import SECTIONS
from gateway.texts import LANGUAGES, text

if TYPE_CHECKING:
    from drivers.kit import LineSettings

DEFAULT_CONFIG: Final = "/etc/daycare-gateway/gateway.toml"
MAX_SECONDS: Final = 86_400.0


class BadUsage(Exception):
    """The command line is not right. `usage` is how it should look."""

    def __init__(self, detail: str, usage: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.usage = usage


def parser(lang: str) -> argparse.ArgumentParser:
    """Return the parser with its help in `lang`. It raises BadUsage."""
    root = _Parser(lang, prog="gateway", description=text("cli.description", lang), epilog=text("cli.exit-codes", lang))
    root.own.add_argument("--version", action="version", version=__version__, help=text("cli.option-version", lang))
    commands = root.add_subparsers(
        dest="command", metavar=text("cli.command", lang), required=True, title=text("cli.positionals", lang)
    )

    def command(place: Any, name: str, key: str) -> _Parser:
        made: _Parser = place.add_parser(name, help=text(f"cli.{key}", lang), lang=lang)
        return made

    command(commands, "run", "help-run")

    status = command(commands, "status", "help-status")
    _flag(status, "--json", "option-json")
    _flag(status, "--watch", "option-watch")

    config = command(commands, "config", "help-config")
    below = config.add_subparsers(
        dest="action", metavar=text("cli.command", lang), required=True, title=text("cli.positionals", lang)
    )
    _flag(command(below, "check", "help-config-check"), "--json", "option-json")
    command(below, "schema", "help-config-schema")

    listen = command(commands, "listen", "help-listen")
    listen.own.add_argument("port", metavar="PORT", nargs="?", default="", help=text("cli.option-find-port", lang))
    form = listen.own.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help=text("cli.option-raw", lang))
    form.add_argument("--json", action="store_true", help=text("cli.option-json-lines", lang))
    _flag(listen, "--known", "option-known")
    listen.own.add_argument("--record", metavar="FILE", help=text("cli.option-record", lang))
    _flag(listen, "--strangers", "option-strangers")
    listen.own.add_argument("--seconds", type=_seconds, metavar="N", help=text("cli.option-seconds", lang))

    pair = command(commands, "pair", "help-pair")
    pair.own.add_argument("--room", metavar="ROOM", default="", help=text("cli.option-pair-room", lang))
    pair.own.add_argument("--id", metavar="ID", default="", help=text("cli.option-pair-id", lang))
    pair.own.add_argument(
        "--seconds", type=_seconds, metavar="N", default=60.0, help=text("cli.option-pair-seconds", lang)
    )

    _flag(command(commands, "devices", "help-devices"), "--json", "option-json")

    outbox = command(commands, "outbox", "help-outbox")
    _flag(outbox, "--json", "option-json")
    _flag(outbox, "--dead", "option-dead")
    _outbox(outbox, command)

    _scan(command(commands, "scan", "help-scan"))
    _meters(command(commands, "meters", "help-meters"), command)

    _diagnose(command(commands, "diagnose", "help-diagnose"))

    alarm = command(commands, "alarm", "help-alarm")
    below = alarm.add_subparsers(
        dest="action", metavar=text("cli.command", lang), required=True, title=text("cli.positionals", lang)
    )
    listed = command(below, "list", "help-alarm-list")
    _flag(listed, "--json", "option-json")
    _flag(listed, "--all", "option-all")
    for action in ("ack", "close"):
        one = command(below, action, f"help-alarm-{action}")
        one.own.add_argument("id", metavar="ID", help=text("cli.option-id", lang))
        one.own.add_argument("--by", required=action == "close", help=text("cli.option-by", lang))
        if action == "close":
            one.own.add_argument("--why", required=True, help=text("cli.option-why", lang))
    return root


def _outbox(outbox: _Parser, command: Callable[[Any, str, str], _Parser]) -> None:
    lang = outbox.lang
    below = outbox.add_subparsers(dest="action", metavar=text("cli.command", lang), title=text("cli.positionals", lang))

    def destination(parser: _Parser) -> None:
        parser.own.add_argument("--destination", metavar="NAME", default="", help=text("cli.option-destination", lang))

    dead = command(below, "dead", "help-outbox-dead")
    _flag(dead, "--json", "option-json")
    destination(dead)
    show = command(below, "show", "help-outbox-show")
    show.own.add_argument("id", metavar="ID", help=text("cli.option-letter", lang))
    _flag(show, "--json", "option-json")
    destination(show)
    requeue = command(below, "requeue", "help-outbox-requeue")
    requeue.own.add_argument("id", metavar="ID", nargs="?", default="", help=text("cli.option-letter", lang))
    _flag(requeue, "--all", "option-all-letters")
    destination(requeue)
    replay = command(below, "replay", "help-outbox-replay")
    replay.own.add_argument("--destination", metavar="NAME", required=True, help=text("cli.option-destination", lang))
    for name, key in (("from", "option-from"), ("to", "option-to")):
        replay.own.add_argument(
            f"--{name}", dest=f"seq_{name}", type=int, metavar="SEQ", required=True, help=text(f"cli.{key}", lang)
        )


def _scan(scan: _Parser) -> None:
    lang = scan.lang
    scan.own.add_argument("port", metavar="PORT", help=text("cli.option-scan-port", lang))
    scan.own.add_argument(
        "--model", metavar="MODEL", action="append", default=[], help=text("cli.option-scan-model", lang)
    )
    scan.own.add_argument(
        "--baud", type=int, metavar="N", action="append", default=[], help=text("cli.option-scan-baud", lang)
    )
    scan.own.add_argument(
        "--line", type=_line, metavar='"9600 8O1"', action="append", default=[], help=text("cli.option-scan-line", lang)
    )
    scan.own.add_argument("--quiet", type=int, metavar="MS", default=50, help=text("cli.option-scan-quiet", lang))
    _flag(scan, "--json", "option-json")


def _meters(meters: _Parser, command: Callable[[Any, str, str], _Parser]) -> None:
    lang = meters.lang
    below = meters.add_subparsers(
        dest="action", metavar=text("cli.command", lang), required=True, title=text("cli.positionals", lang)
    )
    report = command(below, "report", "help-meters-report")
    report.own.add_argument("--month", metavar="YYYY-MM", default="", help=text("cli.option-month", lang))
    report.own.add_argument("--device", metavar="ID", default="", help=text("cli.option-meter", lang))
    report.own.add_argument("--csv", metavar="FILE", default="", help=text("cli.option-csv", lang))
    report.own.add_argument("--svg", metavar="FILE", default="", help=text("cli.option-svg", lang))
    compare = command(below, "compare", "help-meters-compare")
    compare.own.add_argument("device", metavar="ID", help=text("cli.option-meter", lang))
    compare.own.add_argument(
        "--dial", metavar="REGISTER=VALUE", action="append", default=[], help=text("cli.option-dial", lang)
    )
    compare.own.add_argument("--by", help=text("cli.option-by", lang))


def _diagnose(diagnose: _Parser) -> None:
    lang = diagnose.lang
    _flag(diagnose, "--json", "option-json")
    _flag(diagnose, "--schema", "option-schema")
    _flag(diagnose, "--full", "option-full")
    sections = text("cli.option-diagnose-section", lang, names=", ".join(SECTIONS))
    diagnose.own.add_argument(
        "--section", action="append", default=[], choices=SECTIONS, metavar="SECTION", help=sections
    )
    watch = text("cli.option-diagnose-watch", lang, seconds=10)
    diagnose.own.add_argument("--watch", action="store_true", help=watch)
    diagnose.own.add_argument("--bundle", nargs="?", const="", metavar="FILE", help=text("cli.option-bundle", lang))
    _flag(diagnose, "--yes", "option-yes")


def glance(argv: list[str], option: str) -> str | None:
    """Return the value of an option before the line is parsed: the language of the parser itself depends on it."""
    for position, word in enumerate(argv):
        if word == option and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


class _Parser(argparse.ArgumentParser):
    """A parser whose own headings follow the language. `own` is the group that its options belong to."""

    def __init__(self, lang: str, **settings: Any) -> None:
        super().__init__(
            add_help=False, allow_abbrev=False, formatter_class=lambda prog: _Formatter(lang, prog), **settings
        )
        self.lang = lang
        self.own = self.add_argument_group(text("cli.options", lang))
        common = self.own.add_argument
        common("-h", "--help", action="help", help=text("cli.help-help", lang))
        unset = argparse.SUPPRESS  # a default here would overwrite what stands before the command
        config_help = text("cli.option-config", lang, default=DEFAULT_CONFIG)
        common("--config", metavar="FILE", default=unset, help=config_help)
        common("--control", metavar="SOCKET", default=unset, help=text("cli.option-control", lang))
        common("--lang", choices=LANGUAGES, default=unset, help=text("cli.option-lang", lang))
        common("--debug", action="store_true", default=unset, help=text("cli.option-debug", lang))

    def error(self, message: str) -> NoReturn:
        raise BadUsage(_said(message, self.lang), self.format_usage())


# What argparse says, by its own words in English, and the text that says it; what is not here is shown as it is.
_SAYINGS: Final = (
    (re.compile(r"the following arguments are required: (?P<names>.+)"), "usage-required"),
    (re.compile(r"unrecognized arguments: (?P<names>.+)"), "usage-unrecognized"),
    (
        re.compile(r"argument (?P<name>.+?): invalid choice: (?P<value>.+) \(choose from (?P<names>.+)\)"),
        "usage-choice",
    ),
    (re.compile(r"argument (?P<name>.+?): expected one argument"), "usage-one"),
    (re.compile(r"argument (?P<name>.+?): invalid .+ value: (?P<value>.+)"), "usage-value"),
    (re.compile(r"argument (?P<name>.+?): not allowed with argument (?P<other>.+)"), "usage-together"),
    (re.compile(r"argument (?P<name>.+?): ignored explicit argument (?P<value>.+)"), "usage-no-value"),
)


def _said(message: str, lang: str) -> str:
    """Return what argparse says in the language of whoever reads."""
    for pattern, key in _SAYINGS:
        match = pattern.fullmatch(message)
        if match:
            return text(f"cli.{key}", lang, **match.groupdict())
    return message


class _Formatter(argparse.HelpFormatter):
    def __init__(self, lang: str, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)
        self._lang = lang

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, text("cli.usage", self._lang) if prefix is None else prefix)


def _flag(parser: _Parser, name: str, key: str) -> None:
    parser.own.add_argument(name, action="store_true", help=text(f"cli.{key}", parser.lang))


def _line(written: str) -> LineSettings:
    from drivers.kit.searching import lines

    if not re.fullmatch(r"[1-9][0-9]{2,6} [5-8][NEO][12]", written):
        raise ValueError(written)
    return lines(written)[0]


def _seconds(written: str) -> float:
    seconds = float(written)
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"0 < N <= {MAX_SECONDS:g}")
    return seconds
