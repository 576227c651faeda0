"""The log: JSON by the line, and never a reason for anything else to fail."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import socket
import subprocess
import sys
import termios

from gateway.journal import PatientStream, PromptStream, to_file, to_socket


class _Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_what_cannot_be_written_is_lost_and_counted() -> None:
    stream = PatientStream(_Broken())
    assert stream.write("one line\n") == 9
    stream.flush()
    assert stream.lost_lines == 2


def test_a_stream_that_was_closed_harms_nobody() -> None:
    closed = io.StringIO()
    closed.close()
    stream = PatientStream(closed)
    stream.write("one line\n")
    assert stream.lost_lines == 1


def test_half_a_surrogate_pair_is_written_escaped() -> None:
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    PatientStream(text).write("by \ud800\n")
    assert raw.getvalue() == b"by \\ud800\n"


def test_every_entry_is_one_json_object_with_level_and_time() -> None:
    script = "import structlog; from gateway.journal import configure_log\n"
    script += "configure_log(); log = structlog.get_logger()\n"
    script += "log.warning('alarm', room='二楼东一'); log.debug('unseen')\n"
    script += "try: 1 / 0\nexcept ZeroDivisionError: log.error('a bug', exc_info=True)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["event"], first["level"], first["room"]) == ("alarm", "warning", "二楼东一")
    assert first["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in second["exception"]
    assert done.stdout == ""


def journal_pair() -> tuple[PromptStream, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    stream = to_socket(ours.fileno())
    ours.close()
    return stream, theirs


def test_the_journal_gets_what_is_written_and_nothing_waits_when_it_takes_no_more() -> None:
    stream, theirs = journal_pair()
    with theirs, theirs.makefile("rb") as journal:
        stream.write("first\n")
        assert journal.readline() == b"first\n"
        while not stream.lost_lines:  # a hung journald: a blocking write would end here for ever
            stream.write("x" * 1000 + "\n")
        theirs.settimeout(10)
        line = b""
        lines = []
        while line != b"again\n":  # it takes lines again: whole ones, after what may have been cut short
            line = journal.readline()
            lines.append(line.strip())
            stream.write("again\n")
    odd = [line for line in lines if line not in (b"x" * 1000, b"", b"again")]
    notes = [json.loads(line) for line in odd if line.startswith(b"{")]
    assert len(odd) - len(notes) <= 1, "at most one was cut short"
    assert sum(note["count"] for note in notes) >= 1, "and it is said how many were lost"
    stream.close()


def stuck_pipe() -> tuple[int, PromptStream, int]:
    """A pipe that is full, as a pager makes one that nobody scrolls; its reading end, our stream, its size."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    stream = to_file(writing)
    assert os.get_blocking(writing), "whoever else writes to it still waits"
    os.close(writing)
    return reading, stream, 4096


def test_a_pipe_that_nobody_reads_stops_nobody_and_what_was_lost_is_told_later() -> None:
    reading, stream, size = stuck_pipe()
    while stream.lost_lines < 3:
        stream.write("x" * 99 + "\n")
    os.read(reading, size)
    stream.write("again\n")
    said = os.read(reading, size).decode().splitlines()
    assert json.loads(said[-2]) == {"event": "log lines were lost", "level": "warning", "count": 3}
    assert said[-1] == "again"
    stream.write("and on\n")
    assert os.read(reading, size) == b"and on\n"
    stream.close()
    os.close(reading)


def test_a_daemon_goes_on_although_its_pipe_is_full() -> None:
    """Waiting here would stop the event loop, and every alarm with it."""
    script = "import logging, structlog; from gateway.journal import configure_log\n"
    script += "configure_log(); log = structlog.get_logger()\n"
    script += "for n in range(2000): log.warning('x' * 99); logging.getLogger('bleak').warning('y' * 99)\n"
    script += "print('done', flush=True)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 20)
        process.kill()
    assert ready, "it waits for whoever reads its log"


def test_a_terminal_that_was_stopped_stops_nobody() -> None:
    """Ctrl-S, or a connection that has gone dead."""
    master, slave = os.openpty()
    stream = to_file(slave)
    termios.tcflow(slave, termios.TCOOFF)
    for _ in range(1000):
        stream.write("x" * 99 + "\n")
    assert stream.lost_lines > 0
    stream.close()
    os.close(slave)
    os.close(master)


def test_what_libraries_say_takes_the_same_way_and_names_them() -> None:
    script = "import logging; from gateway.journal import configure_log\n"
    script += (
        "configure_log(); logging.getLogger('bleak.bus').error('lost %s', 'it'); logging.getLogger('x').info('no')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    (entry,) = (json.loads(line) for line in done.stderr.splitlines())
    assert (entry["event"], entry["level"], entry["logger"]) == ("lost it", "error", "bleak.bus")


def test_a_journal_that_has_gone_costs_lines_and_no_more() -> None:
    stream, theirs = journal_pair()
    theirs.close()
    assert stream.write("to nobody\n") == 10
    assert stream.lost_lines == 1
    stream.close()
