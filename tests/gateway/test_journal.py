"""The log: JSON by the line, and never a reason for anything else to fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys

from gateway.journal import PatientStream


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
