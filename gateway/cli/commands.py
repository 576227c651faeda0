"""What each command does: ask or load, print, return an exit status. Nothing is decided here.

0 well, 1 warnings only, 2 problems or a refused request, 3 could not be done.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import getpass
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import control_client as client
from gateway.cli import reports
from gateway.cli.arguments import DEFAULT_CONFIG
from gateway.cli.layout import Paper
from gateway.errors import ConfigError, ControlError, LinkDown

if TYPE_CHECKING:
    from gateway.cli.listening import Recording

CONFIG_VARIABLE: Final = "DAYCARE_GATEWAY_CONFIG"
# Where the daemon listens unless its configuration says otherwise; the same as `gateway.config.CONTROL_SOCKET`, which
# is not imported so that asking for the state loads no validation library.
DEFAULT_CONTROL: Final = "/run/daycare-gateway/control.sock"
# Likewise, the same as `gateway.config.DATA_DIR`.
DEFAULT_DATA_DIR: Final = "/var/lib/daycare-gateway"
WATCH_EVERY_S: Final = 2.0

WELL: Final = 0
WARNINGS: Final = 1
PROBLEMS: Final = 2
NOT_DONE: Final = 3

_MAX_CONFIG_BYTES: Final = 1024 * 1024
_CLEAR: Final = "\x1b[H\x1b[2J"


def config_path(written: str | None) -> Path:
    """Return the configuration file: as written, else from the environment, else the usual place."""
    return Path(written or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def glance(path: Path) -> Mapping[str, Any]:
    """Return the [gateway] table as it stands, {} where it cannot be read: enough for a language and a socket.

    A technician may ask for the state without the right to read the configuration or its secrets.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            table = tomllib.loads(file.read(_MAX_CONFIG_BYTES).decode("utf-8-sig")).get("gateway")
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def execute(arguments: argparse.Namespace, paper: Paper) -> int:
    """Do what the command line says. Raises GatewayError."""
    return _COMMANDS[arguments.command](arguments, paper)


def _run(arguments: argparse.Namespace, paper: Paper) -> int:
    gc.disable()  # until the gateway runs: nothing that its start makes is garbage, and it is deaf meanwhile
    try:
        return _load_and_run(arguments, paper)
    finally:
        gc.enable()


def _load_and_run(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.config import load

    path = _config_path(arguments)
    errors = Paper(paper.lang, sys.stderr)
    try:
        settings = load(path)
    except ConfigError as error:
        reports.findings(errors, error.findings, str(path))
        return PROBLEMS
    if settings.findings:
        reports.findings(errors, settings.findings, str(path), settings)
        sys.stderr.flush()
    from gateway.app import run

    return run(settings)


def _config(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.config import inspect

    if arguments.action == "schema":
        from drivers.kit import catalogue
        from gateway.config.schema import schema_text

        paper.out.write(schema_text(catalogue))
        return WELL
    path = _config_path(arguments)
    settings, found = inspect(path)
    if arguments.json:
        reports.findings_json(paper, found)
    else:
        reports.findings(paper, found, str(path), settings)
        if settings is not None:
            reports.profiles(paper, settings)
    return reports.worst({"severity": finding.severity} for finding in found)


def _status(arguments: argparse.Namespace, paper: Paper) -> int:
    socket = _control_path(arguments)
    if not arguments.watch:
        return _show_status(socket, arguments, paper)
    result = NOT_DONE
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if paper.is_terminal:
                paper.out.write(_CLEAR)
            try:
                result = _show_status(socket, arguments, paper)
            except ControlError as error:  # it may come back: keep watching
                reports.problem(paper, error.code, error.subject, error.facts)
                result = NOT_DONE
            paper.out.flush()
            time.sleep(WATCH_EVERY_S)
    return result


def _show_status(socket: Path, arguments: argparse.Namespace, paper: Paper) -> int:
    answer = client.ask(socket, "status")
    with _readable():
        if arguments.json:
            reports.as_json(paper, answer, compact=arguments.watch)
        else:
            reports.status(paper, answer)
        return reports.worst(answer["problems"])


def _listen(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.cli import listening

    errors = Paper(paper.lang, sys.stderr)
    recording = None
    if arguments.record:
        recording = listening.Recording(Path(arguments.record), with_strangers=arguments.strangers)
        try:
            recording.open()
        except OSError as error:
            errors.print(errors.say("record-refused", file=arguments.record, reason=error.strerror or error))
            return NOT_DONE
    if paper.is_terminal and not arguments.port:
        errors.print(errors.say("listening"))
    form = "json" if arguments.json else "vectors" if arguments.raw else "words"
    try:
        if arguments.port:
            return _find(arguments, paper, form=form, recording=recording)
        items = client.listen(_control_path(arguments), raw=arguments.raw, seconds=arguments.seconds)
        listening.show(paper, items, form=form, known=arguments.known, recording=recording)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # head, or less that was left: it has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if recording is not None:
            recording.close()
            errors.print(errors.say("recorded", count=recording.count, file=arguments.record))
    return WELL


def _say_more(errors: Paper, code: str, *, held: str) -> None:
    """Say what a remedy, written for the daemon, does not tell whoever uses a port by a command of their own."""
    from gateway.links import ports

    if code == ports.HELD:
        errors.print(errors.say(held))
    elif code == "GW-SER-02":
        errors.print(errors.say("port-yours"))


def _find(arguments: argparse.Namespace, paper: Paper, *, form: str, recording: Recording | None) -> int:
    from gateway.cli import line_finding
    from gateway.links import line_ear, ports

    errors = Paper(paper.lang, sys.stderr)
    errors.print(errors.say("find-begin", port=arguments.port))
    hearing = line_ear.listen(arguments.port, seconds=arguments.seconds)
    try:
        done = line_finding.find(
            paper, hearing, port=ports.lasting_name(arguments.port), config=_config_path(arguments), form=form,
            recording=recording,
        )  # fmt: skip
    except LinkDown as down:
        reports.problem(errors, down.code, down.subject, down.facts)
        _say_more(errors, down.code, held="find-held")
        return NOT_DONE
    except ValueError as error:
        errors.print(errors.style(str(error), "problem"))
        return NOT_DONE
    return WELL if done else NOT_DONE


def _pair(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.cli import pairing

    client.ask(_control_path(arguments), "status")  # nobody is sent to press a button that nothing hears
    ids = pairing.ids_of(pairing.callers())
    items = client.listen(_control_path(arguments), raw=False, seconds=arguments.seconds, pairing=ids)
    try:
        done = pairing.pair(
            paper, items, config=_config_path(arguments), room=arguments.room, name=arguments.id, ask=input,
            ask_key=getpass.getpass,
        )  # fmt: skip
    except (KeyboardInterrupt, EOFError):
        paper.print()
        return NOT_DONE
    except OSError as error:
        paper.print(paper.style(str(error.strerror or error), "problem"))
        return NOT_DONE
    return WELL if done else NOT_DONE


def _devices(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.cli import devices

    config = _config_path(arguments)
    tables = devices.written(config)
    trouble: ControlError | None = None
    try:
        running = client.ask(_control_path(arguments), "status")["devices"]
    except ControlError as error:
        trouble, running = error, None
    with _readable():
        rows = devices.joined(tables, running)
        if arguments.json:
            reports.as_json(paper, {"running": trouble is None, "devices": rows})
        elif trouble is None or tables is not None:
            devices.show(paper, rows)
    if trouble is None:
        return PROBLEMS if any(row["runs"] is False for row in rows) else WELL
    sys.stdout.flush()
    errors = Paper(paper.lang, sys.stderr)
    reports.problem(errors, trouble.code, trouble.subject, trouble.facts)
    errors.print(errors.say("devices-from-file" if tables is not None else "devices-no-file", file=config))
    return NOT_DONE


def _outbox(arguments: argparse.Namespace, paper: Paper) -> int:
    if arguments.action is not None:
        from gateway.cli import letters

        with _readable():
            return letters.run(arguments, paper, control=_control_path(arguments))
    answer = client.ask(_control_path(arguments), "outbox", dead=arguments.dead)
    with _readable():
        if arguments.json:
            reports.as_json(paper, answer)
        else:
            reports.outbox(paper, answer, dead=arguments.dead)
    return WELL


def _alarm(arguments: argparse.Namespace, paper: Paper) -> int:
    socket = _control_path(arguments)
    if arguments.action == "list":
        answer = client.ask(socket, "alarms.list", all=arguments.all)
        with _readable():
            if arguments.json:
                reports.as_json(paper, answer)
            else:
                reports.alarms(paper, answer)
        return WELL
    by = arguments.by or _login()
    if arguments.action == "ack":
        answer = client.ask(socket, "alarms.ack", id=arguments.id, by=by)
    else:
        answer = client.ask(socket, "alarms.close", id=arguments.id, by=by, why=arguments.why)
    with _readable():
        reports.attended(paper, answer)
    return WELL


def _scan(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.cli import bus_scanning
    from gateway.links import ports

    errors = Paper(paper.lang, sys.stderr)
    unknown = [one for one in arguments.model if one not in bus_scanning.searched()]
    if unknown:
        errors.print(errors.say("scan-no-model", model=unknown[0], known=", ".join(bus_scanning.searched())))
        return NOT_DONE
    try:
        held = ports.check(arguments.port) if ports.socket_address(arguments.port) is None else None
        if held is not None:
            raise LinkDown(held.code, arguments.port, **held.facts)
        done = bus_scanning.run(arguments, paper, config=_config_path(arguments))
    except LinkDown as down:
        reports.problem(errors, down.code, down.subject, down.facts)
        _say_more(errors, down.code, held="scan-held")
        return NOT_DONE
    except ValueError as error:
        errors.print(errors.style(str(error), "problem"))
        return NOT_DONE
    return WELL if done else WARNINGS


def _meters(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.cli import metering

    errors, control = Paper(paper.lang, sys.stderr), _control_path(arguments)
    try:
        with _readable():
            if arguments.action == "report":
                today = metering.today()
                return WELL if metering.report(arguments, paper, control=control, today=today) else WARNINGS
            metering.compare(arguments, paper, control=control, by=arguments.by or _login(), ask=input)
            return WELL
    except metering.NotThere as error:
        errors.print(str(error))
    except OSError as error:
        errors.print(errors.say("record-refused", file=error.filename or "", reason=error.strerror or error))
    except EOFError:
        errors.print()
    return NOT_DONE


def _diagnose(arguments: argparse.Namespace, paper: Paper) -> int:
    from gateway.cli import diagnosing

    config = _config_path(arguments)
    written = glance(config).get("data_dir")
    data_dir = Path(written if isinstance(written, str) and written.startswith("/") else DEFAULT_DATA_DIR)
    return diagnosing.run(arguments, paper, config=config, control=_control_path(arguments), data_dir=data_dir)


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace, Paper], int]]] = {
    "run": _run,
    "config": _config,
    "status": _status,
    "listen": _listen,
    "pair": _pair,
    "devices": _devices,
    "outbox": _outbox,
    "alarm": _alarm,
    "diagnose": _diagnose,
    "meters": _meters,
    "scan": _scan,
}


@contextlib.contextmanager
def _readable() -> Any:
    """Turn an answer of another shape than agreed into a ControlError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ControlError(client.NO_ANSWER, detail=f"{type(error).__name__}: {error}") from error


def _config_path(arguments: argparse.Namespace) -> Path:
    return config_path(getattr(arguments, "config", None))


def _control_path(arguments: argparse.Namespace) -> Path:
    written = getattr(arguments, "control", None)
    if written:
        return Path(written)
    configured = glance(_config_path(arguments)).get("control_socket")
    return Path(configured if isinstance(configured, str) and configured else DEFAULT_CONTROL)


def _login() -> str:
    """Who asks, where nobody said so."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
