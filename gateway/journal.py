"""The daemon's log: one JSON object a line on stderr, which systemd's journal takes; words and colours on a terminal.

Writing it never fails: a log that nobody takes any more must not keep an alarm from being stored. What cannot be written
is lost, and counted in `lost_lines`.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO

import structlog


class PatientStream:
    """A text stream whose errors do not reach whoever logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost_lines = 0

    def write(self, text: str) -> int:
        """Write, or lose it."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError):  # ValueError: closed
            self.lost_lines += 1
            return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self.lost_lines += 1


def configure_log() -> None:
    """Let everything of this process be logged to stderr from now on."""
    stream: Any = PatientStream(sys.stderr)
    terminal = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
