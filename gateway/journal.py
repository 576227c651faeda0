"""The daemon's log: one JSON object a line on stderr, which systemd's journal takes; words and colours on a terminal.

Writing it never fails and never waits: a log that nobody takes any more must not keep an alarm from being stored, and the
event loop writes it. To the journal's socket (about 200 KiB of room) a line is sent only if there is room for it. What
cannot be written is lost, and counted in `lost_lines`.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
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


class JournalStream:
    """The journal's end of a stream socket, written to without waiting, whatever other holders of it have set."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._broken_line = False
        self.lost_lines = 0

    def write(self, text: str) -> int:
        """Send, or lose it. A line that was cut short is ended before the next one begins."""
        data = (b"\n" if self._broken_line else b"") + text.encode("utf-8", "backslashreplace")
        try:
            sent = self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # BlockingIOError: no room
            self.lost_lines += 1
            return len(text)
        self._broken_line = sent < len(data)
        self.lost_lines += self._broken_line
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def log_stream() -> PatientStream | JournalStream:
    """Return where the log goes: stderr, without waiting where that is a socket as systemd gives it."""
    try:
        descriptor = sys.stderr.fileno()
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return JournalStream(descriptor)
    except (OSError, ValueError, AttributeError):  # closed, or not a file at all
        pass
    return PatientStream(sys.stderr)


def configure_log() -> None:
    """Let everything of this process be logged to stderr from now on."""
    stream: Any = log_stream()
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
