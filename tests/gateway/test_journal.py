"""The log: JSON by the line, and never a reason for anything else to fail."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys

from gateway.journal import JournalStream, PatientStream


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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["event"], first["level"], first["room"]) == ("alarm", "warning", "二楼东一")
    assert first["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in second["exception"]
    assert done.stdout == ""


def journal_pair() -> tuple[JournalStream, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    stream = JournalStream(ours.fileno())
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
        while line != b"again\n":  # it takes lines again: whole ones, after what may have been cut short
            line = journal.readline()
            assert line.strip() in (b"x" * 1000, b"", b"again") or stream.lost_lines == 1
            stream.write("again\n")
    stream._socket.close()


def test_a_journal_that_has_gone_costs_lines_and_no_more() -> None:
    stream, theirs = journal_pair()
    theirs.close()
    assert stream.write("to nobody\n") == 10
    assert stream.lost_lines == 1
    stream._socket.close()
