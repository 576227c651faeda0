"""`simulator COMMAND`: the demo, its audit, and the parts of it that run as processes of their own. Parses and prints.

Exit status: 0 done (the demo: clean), 1 not clean, 2 wrong arguments, 3 could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

COULD_NOT_RUN: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulator", description="The world outside of the gateway, pretended: devices, air, bus and platform."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands.add_parser("demo", help="a small centre at work, with faults, and a ledger at the end"))
    audit = commands.add_parser("audit", help="audit a kept run again")
    audit.add_argument("run", type=Path, metavar="DIR", help="directory of the run")
    audit.set_defaults(command=_audit)
    air = commands.add_parser("air", help="BLE devices over a pretended bluetoothd (part of a run)")
    _add_run(air)
    air.set_defaults(command=_air)
    bus = commands.add_parser("bus", help="meters on an RS-485 bus and controllers on TCP (part of a run)")
    _add_run(bus)
    bus.set_defaults(command=_bus)
    platform = commands.add_parser("platform", help="a district platform behind a real broker (part of a run)")
    _add_run(platform)
    platform.add_argument("--destination", default="district", metavar="ID", help="its id at the gateway")
    platform.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1 for the gateway")
    platform.add_argument("--control", type=Path, required=True, metavar="SOCKET", help="Unix socket for its control")
    platform.add_argument(
        "--speaks", default="mqtt", choices=("mqtt", "mqtt-3.1.1", "mqtts", "http", "https"), help="its transport"
    )
    platform.add_argument(
        "--also", type=_way_in, action="append", default=[], metavar="SPEAKS:PORT", help="one more way in, up to 3"
    )
    platform.add_argument("--tls-dir", type=Path, metavar="DIR", help="ca.pem, server.pem, server.key; made if absent")
    platform.add_argument("--authorization", default="", metavar="VALUE", help="the only one that HTTP takes")
    platform.set_defaults(command=_platform)
    _add_replay(commands.add_parser("replay", help="a capture of gateway listen --record, played again"))
    _add_load(commands.add_parser("load", help="JSON lines as fast as they are acknowledged, measured"))
    _add_faults(commands.add_parser("faults", help="the fault table: each fault of radio and lines, measured"))
    _add_chaos(commands.add_parser("chaos", help="a seeded schedule of faults, and a ledger that must be clean"))
    _add_kills(commands.add_parser("kills", help="SIGKILL again and again under load, and what that cost"))
    _add_presses(
        commands.add_parser("presses", help="presses over a radio that loses and breaks, and what became of each")
    )
    _add_every(commands.add_parser("every-device", help="a device of every kind, each used once, and what is told"))
    bench = commands.add_parser("bench", help="figures, each beside its limit measured in the same run")
    bench.add_argument("--report", type=Path, metavar="FILE", help="write the figures to FILE, as JSON")
    bench.add_argument(
        "part",
        nargs="?",
        choices=("drain", "wear", "outage", "bus"),
        help="only the drains of a backlog, what an event costs the card (root), a long outage, or a bus of meters",
    )
    bench.add_argument("--backlog", type=int, default=80_000, metavar="N", help="events to drain (1000 to 1000000)")
    bench.add_argument("--days", type=float, default=7.0, help="of the outage")
    bench.add_argument("--per-s", type=float, default=1.0, metavar="EVENTS", help="a second, during the outage")
    bench.set_defaults(command=_bench)
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help="length of the run (10 to 86400); without it, until Ctrl-C")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the ledger to FILE, as JSON")
    parser.add_argument("--seed", type=int, help="a run that can be repeated; without it, one is drawn and shown")
    parser.add_argument(
        "--scenario", default="small_centre", metavar="NAME|FILE", help="a scenario of ours, or a TOML file"
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory of the run, and say where it is")
    parser.set_defaults(command=_demo)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="directory of the run (scenario.json)")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    from simulator.replay import add_arguments

    add_arguments(parser)
    parser.set_defaults(command=_replay)


def _way_in(text: str) -> tuple[str, int]:
    """Read "https:8443". What it may speak and which ports there are is said by who opens it."""
    speaks, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected SPEAKS:PORT, as https:8443")
    return speaks, int(port)


def _add_load(parser: argparse.ArgumentParser) -> None:
    from simulator.line_load import add_arguments

    add_arguments(parser)
    parser.set_defaults(command=_load)


def _add_faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE too")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows with TEXT in their name")
    parser.add_argument("--quick", action="store_true", help="a short selection")
    parser.add_argument("--lines", action="store_true", help="call systems, receivers and a radar instead of the radio")
    parser.set_defaults(command=_faults)


def _add_chaos(parser: argparse.ArgumentParser) -> None:
    from simulator.chaos.run import add_arguments

    add_arguments(parser)
    parser.set_defaults(command=_chaos)


def _add_kills(parser: argparse.ArgumentParser) -> None:
    from simulator.chaos.kills import add_arguments

    add_arguments(parser)
    parser.set_defaults(command=_kills)


def _add_presses(parser: argparse.ArgumentParser) -> None:
    from simulator.presses.run import add_arguments

    add_arguments(parser)
    parser.set_defaults(command=_presses)


def _add_every(parser: argparse.ArgumentParser) -> None:
    from simulator.every_run import add_arguments

    add_arguments(parser)
    parser.set_defaults(command=_every)


def _demo(options: argparse.Namespace) -> int:
    from simulator.demo import Options, run_demo

    return run_demo(
        Options(
            seconds=options.seconds,
            report=options.report,
            seed=options.seed,
            scenario=options.scenario,
            keep=options.keep,
        )
    )


def _audit(options: argparse.Namespace) -> int:
    from simulator.demo import audit_directory

    return audit_directory(options.run)


def _air(options: argparse.Namespace) -> int:
    from simulator.air import AirError, main
    from simulator.bluez_wire import BluezError

    return _part("air", lambda: asyncio.run(main(options.run)), AirError, BluezError)


def _bus(options: argparse.Namespace) -> int:
    from simulator.bus import BusError, main

    return _part("bus", lambda: asyncio.run(main(options.run)), BusError)


def _platform(options: argparse.Namespace) -> int:
    from simulator.platform import ControlError, main
    from simulator.platform.broker import BrokerError
    from simulator.platform.certificates import CertificateError
    from simulator.platform.ledger import LedgerError

    def play() -> None:
        asyncio.run(
            main(
                options.run,
                destination=options.destination,
                port=options.port,
                control=options.control,
                speaks=options.speaks,
                also=options.also,
                tls_dir=options.tls_dir,
                authorization=options.authorization,
            )
        )

    return _part("platform", play, BrokerError, CertificateError, LedgerError, ControlError)


def _replay(options: argparse.Namespace) -> int:
    from simulator.bluez_wire import BluezError
    from simulator.replay import ReplayError, main

    if options.speed <= 0:
        print("simulator replay: --speed must be more than 0", file=sys.stderr)
        return COULD_NOT_RUN
    play = main(options.capture, run=options.run, speed=options.speed, linger_s=options.linger)
    return _part("replay", lambda: asyncio.run(play), ReplayError, BluezError)


def _load(options: argparse.Namespace) -> int:
    from simulator.line_load import main

    status = 0

    def play() -> None:
        nonlocal status
        status = asyncio.run(main(options))

    return _part("load", play) or status


def _faults(options: argparse.Namespace) -> int:
    from simulator.dbus_daemon import DbusDaemonError
    from simulator.faults import main
    from simulator.platform.broker import BrokerError

    status = 0

    def measure() -> None:
        nonlocal status
        status = main(options)

    return _part("faults", measure, DbusDaemonError, BrokerError) or status


def _chaos(options: argparse.Namespace) -> int:
    from simulator.chaos.run import main

    return _judged("chaos", lambda: main(options))


def _kills(options: argparse.Namespace) -> int:
    from simulator.chaos.kills import main

    return _judged("kills", lambda: main(options))


def _presses(options: argparse.Namespace) -> int:
    from simulator.presses.run import main

    return _judged("presses", lambda: main(options))


def _every(options: argparse.Namespace) -> int:
    from simulator.every_run import main

    return _judged("every-device", lambda: main(options))


def _judged(name: str, run: Callable[[], int]) -> int:
    """Run what ends with a verdict. Returns that, or that it could not run."""
    from simulator.chaos.disk import DiskError
    from simulator.chaos.schedule import ScheduleError
    from simulator.chaos.wall_clock import WallClockError
    from simulator.control_client import NoAnswer, Refused
    from simulator.dbus_daemon import DbusDaemonError
    from simulator.ledgers import LedgerError
    from simulator.platform.certificates import CertificateError
    from simulator.processes import ProcessDied
    from simulator.scenario import ScenarioError
    from simulator.stage import CannotRun

    status = 0

    def play() -> None:
        nonlocal status
        status = run()

    asked = (NoAnswer, Refused, CannotRun, ProcessDied, ScenarioError, ScheduleError)
    return (
        _part(name, play, *asked, DiskError, WallClockError, DbusDaemonError, LedgerError, CertificateError) or status
    )


def _bench(options: argparse.Namespace) -> int:
    from simulator.bench import main, main_bus, main_drain, main_outage, main_wear
    from simulator.bench.card import NoCard

    status = 0

    def measure() -> None:
        nonlocal status
        if options.part == "outage":
            status = main_outage(options.report, days=options.days, per_s=options.per_s)
        elif options.part == "drain":
            status = main_drain(options.report, events=options.backlog)
        elif options.part == "bus":
            status = main_bus(options.report)
        elif options.part == "wear":
            status = main_wear(options.report)
        else:
            status = main(options.report, events=options.backlog)

    return _part("bench", measure, NoCard) or status


def _part(name: str, play: Callable[[], None], *errors: type[Exception]) -> int:
    """Run one part. What can go wrong is said in one line; a group of errors by the first that says why."""
    expected: tuple[type[Exception], ...] = (*errors, OSError, ValueError, KeyError)
    try:
        play()
    except KeyboardInterrupt:
        return 0
    except expected as error:
        return _refuse(name, error)
    except ExceptionGroup as group:
        reasons = group.subgroup(expected)
        if reasons is None:
            raise
        return _refuse(name, _first(reasons))
    return 0


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _refuse(name: str, error: BaseException) -> int:
    print(f"simulator {name}: {str(error) or type(error).__name__}", file=sys.stderr)
    return COULD_NOT_RUN


if __name__ == "__main__":
    sys.exit(main())
