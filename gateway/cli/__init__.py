"""`gateway`: parses what was typed, prints what it means, decides nothing. Never a traceback for whoever stands at the site.

Modules are loaded when a command needs them: asking for the state loads neither drivers nor the validation library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.cli.layout import Paper

_NOT_DONE = 3
_REFUSED = 2
_INTERRUPTED = 130
_INTERNAL = "GW-RUN-03"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 well, 1 warnings, 2 problems or refused, 3 could not be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A locale without Chinese must cost a character, never the message.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    try:
        status = _guarded(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has gone; Python would complain once more at its own flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOT_DONE
    return status


def _guarded(words: list[str]) -> int:
    from gateway.cli import commands, reports
    from gateway.cli.arguments import BadUsage, glance, parser
    from gateway.cli.layout import Paper
    from gateway.errors import GatewayError
    from gateway.texts import language

    configured = commands.glance(commands.config_path(glance(words, "--config"))).get("lang")
    lang = language(glance(words, "--lang"), configured if isinstance(configured, str) else None)
    errors = Paper(lang, sys.stderr)
    debug = "--debug" in words
    try:
        arguments = parser(lang).parse_args(words)
        return commands.execute(arguments, Paper(lang))
    except BadUsage as error:
        errors.print(errors.say("bad-usage", detail=error.detail))
        errors.print(error.usage.rstrip())
        return _NOT_DONE
    except SystemExit as done:  # --help and --version
        return done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        errors.print(errors.say("interrupted"))
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except GatewayError as error:
        reports.problem(errors, error.code, error.subject, error.facts)
        _trace(errors, wanted=debug)
        return _REFUSED if error.facts.get("refused") else _NOT_DONE
    except Exception as error:  # noqa: BLE001 - the last fence: a technician gets a code, not a traceback
        reports.problem(errors, _INTERNAL, "", {"detail": f"{type(error).__name__}: {error}"})
        # What a daemon dies of belongs into the journal; there is nobody at a terminal then.
        _trace(errors, wanted=debug or ("run" in words and not errors.is_terminal))
        return _NOT_DONE


def _trace(errors: Paper, *, wanted: bool) -> None:
    if wanted:
        import traceback

        errors.print(traceback.format_exc().rstrip())
