"""The daemon's log: one JSON object a line on stderr, which systemd's journal takes; words and colours on a terminal.

Writing it never fails and never waits: a log that nobody takes any more must not keep an alarm from being stored, and the
event loop writes it. To the journal's socket (about 200 KiB of room), a pipe (64 KiB) or a terminal a line is sent only if
there is room for it. What cannot be written is lost, counted in `lost_lines`, and told when there is room again. What
libraries have to say (WARNING and worse, of the standard library's `logging`) takes the same way.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
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


class PromptStream:
    """Whatever takes bytes and may have no room for them: written to without waiting.

    A line that was cut short is ended before the next one begins; how many were lost is said as soon as there is room.
    """

    def __init__(self, send: Callable[[bytes], int], close: Callable[[], None]) -> None:
        self._send = send
        self.close = close
        self._broken_line = False
        self._untold = 0
        self.lost_lines = 0

    def write(self, text: str) -> int:
        """Send, or lose it."""
        told = self._untold
        note = f'{{"event": "log lines were lost", "level": "warning", "count": {told}}}\n' if told else ""
        data = ("\n" * self._broken_line + note + text).encode("utf-8", "backslashreplace")
        try:
            sent = self._send(data)
        except OSError:  # BlockingIOError: no room
            self._lose()
            return len(text)
        self._untold -= told
        self._broken_line = sent < len(data)
        if self._broken_line:
            self._lose()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _lose(self) -> None:
        self.lost_lines += 1
        self._untold += 1


def to_socket(descriptor: int) -> PromptStream:
    """Return the journal's end of a stream socket, never waited for, whatever other holders of it have set."""
    journal = socket.socket(fileno=os.dup(descriptor))
    return PromptStream(lambda data: journal.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), journal.close)


def to_file(descriptor: int) -> PromptStream:
    """Return a pipe or a terminal, opened anew: not to wait is then our own setting and nobody else's. Raises OSError.

    A pager that nobody scrolls, a terminal whose line has broken: both would stop whoever waits for them.
    """
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return PromptStream(lambda data: os.write(own, data), lambda: os.close(own))


def log_stream() -> PatientStream | PromptStream:
    """Return where the log goes: stderr, without waiting wherever that can be had."""
    try:
        descriptor = sys.stderr.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            return to_socket(descriptor)
        if stat.S_ISFIFO(mode) or sys.stderr.isatty():
            return to_file(descriptor)
    except (OSError, ValueError, AttributeError):  # closed, not a file at all, or somebody else's pipe
        pass
    return PatientStream(sys.stderr)


def configure_log() -> None:
    """Let everything of this process be logged to stderr from now on, what its libraries say included."""
    stream: Any = log_stream()
    terminal = sys.stderr.isatty()
    renderer: Any = (
        # Plain tracebacks: pretty ones show local variables, and those may be keys.
        structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ, exception_formatter=structlog.dev.plain_traceback
        )
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    first: list[Any] = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    last: list[Any] = [*([] if terminal else [structlog.processors.format_exc_info]), renderer]
    handler = logging.StreamHandler(stream)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*first, structlog.stdlib.add_logger_name], processors=[remove, *last]
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
