"""Listens on a port whose settings nobody knows, one after another, and never sends a byte: what is there may be a bus of meters.

The port is opened once and set anew while it stands open, since an opening raises DTR, which resets many microcontrollers.
Blocking, for a technician's command and not for the daemon.
Limits: a setting that the adapter refuses is left out; a silent one is left after `SILENT_S`, one that speaks after
`QUIET_S` without a byte, `LONGEST_S`, or `MOST_BYTES`. A socket:// has its settings in the serial server: it is heard as it
is; the port of an rfc2217:// is set as one of this machine is, and a server has `SET_S` for each of its answers.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Protocol

import serial

from drivers.kit import LineSettings
from gateway.errors import LinkDown
from gateway.links import ports
from gateway.links.com_port import ComPort

SILENT_S: Final = 2.0
QUIET_S: Final = 0.4
LONGEST_S: Final = 3.0
MOST_BYTES: Final = 8_192
CONNECT_S: Final = 10.0
SET_S: Final = 2.0
_LOOK_S: Final = 0.1

_PLAIN: Final = (9600, 115200, 57600, 19200, 256000, 38400, 4800, 2400, 1200, 1382400, 921600)
# Seven bits with a parity are heard with eight, the parity as the highest. Nine bits are not.
SETTINGS: Final = (
    *(LineSettings(baud=baud) for baud in _PLAIN),
    *(LineSettings(baud=baud, parity="E") for baud in (9600, 19200, 4800, 2400, 1200)),
    LineSettings(baud=9600, parity="O"),
)


@dataclass(frozen=True, slots=True)
class Listened:
    """What came at one setting. `settings` None: those of a serial server, which are not known here."""

    settings: LineSettings | None
    data: bytes


Hearing = Generator[Listened, bool | None, None]


def listen(port: str, *, seconds: float | None) -> Hearing:
    """Yield what comes, setting by setting and round by round, until `seconds` are over (None: for ever); b"" for silence.

    Whoever sends True hears more at the same setting.
    Raises LinkDown when the port cannot be opened or is gone, ValueError for what is no port.
    """
    until = None if seconds is None else time.monotonic() + seconds
    address = ports.socket_address(port)
    try:
        if address is not None:
            with socket.create_connection(address, timeout=CONNECT_S) as line:
                if ports.is_settable(port):
                    yield from _hear_port(_ServerPort(line), until)
                else:
                    yield from _hear_socket(line, until)
        else:
            if problem := ports.check(port):
                raise LinkDown(problem.code, port, **dict(problem.facts))
            with serial.Serial(port, timeout=_LOOK_S, exclusive=True) as line:
                yield from _hear_port(_OwnPort(line), until)
    except (OSError, serial.SerialException) as error:
        found = ports.explain(port, error)
        raise LinkDown(found.code, port, **dict(found.facts)) from error


class _Port(Protocol):
    """A port whose settings can be tried."""

    def set(self, settings: LineSettings) -> bool:
        """Set it, and drop what it heard before. False where it refuses."""

    def read(self) -> bytes:
        """Return what came, within `_LOOK_S`."""


class _OwnPort:
    """A port of this machine."""

    def __init__(self, line: serial.Serial) -> None:
        self._line = line

    def set(self, settings: LineSettings) -> bool:
        """See `_Port`."""
        wanted = {"baudrate": settings.baud, "bytesize": settings.bits, "parity": settings.parity}
        try:
            self._line.apply_settings({**self._line.get_settings(), **wanted})
        except (ValueError, OSError, serial.SerialException):
            return False
        self._line.reset_input_buffer()
        return True

    def read(self) -> bytes:
        """See `_Port`."""
        return self._line.read(max(1, self._line.in_waiting))


class _ServerPort:
    """The port of a serial server. OSError where the server is none of RFC 2217 (EPROTO) or falls silent."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(_LOOK_S)
        self._line = line
        self._com = ComPort()
        self._com.begin()
        self._until(lambda: self._com.is_ready or bool(self._com.refusal), errno.EPROTO, "it does not answer telnet")
        if self._com.refusal:
            raise OSError(errno.EPROTO, self._com.refusal)

    def set(self, settings: LineSettings) -> bool:
        """See `_Port`."""
        self._com.ask(settings)
        try:
            self._until(lambda: self._com.is_set, errno.ETIMEDOUT, "it does not confirm the settings of its port")
        except OSError as error:
            if error.errno != errno.ETIMEDOUT or not self._com.is_partly_set:
                raise
            return False  # it is silent to one of them: some are, to a parity that they do not know
        return not self._com.kept

    def read(self) -> bytes:
        """See `_Port`."""
        self._line.sendall(self._com.replies())
        return self._com.feed(_received(self._line))

    def _until(self, is_done: Callable[[], bool], number: int, otherwise: str) -> None:
        end = time.monotonic() + SET_S
        while not is_done():
            if time.monotonic() > end:
                raise OSError(number, otherwise)
            self.read()


def _received(line: socket.socket) -> bytes:
    """Return what came, b"" for nothing in time. ConnectionError when the other side has closed."""
    try:
        data = line.recv(4096)
    except TimeoutError:
        return b""
    if not data:
        raise ConnectionError("closed by the other side")
    return data


def _hear_port(line: _Port, until: float | None) -> Hearing:
    usable = list(SETTINGS)
    while usable:
        for settings in tuple(usable):
            left = _left(until)
            if left <= 0:
                return
            if not line.set(settings):
                usable.remove(settings)
                continue
            stays: bool | None = True
            while stays and (left := _left(until)) > 0:
                stays = yield Listened(settings, _gather(line.read, min(left, SILENT_S)))


def _hear_socket(line: socket.socket, until: float | None) -> Hearing:
    line.settimeout(_LOOK_S)
    while (left := _left(until)) > 0:
        yield Listened(None, _gather(lambda: _received(line), min(left, SILENT_S)))


def _gather(read: Callable[[], bytes], silent_s: float) -> bytes:
    """Read until it is quiet again."""
    began = first = last = time.monotonic()
    data = b""
    while len(data) < MOST_BYTES:
        now = time.monotonic()
        is_over = now - last >= QUIET_S or now - first >= LONGEST_S if data else now - began >= silent_s
        if is_over:
            break
        more = read()
        if more:
            last = time.monotonic()
            first = first if data else last
            data += more
    return data


def _left(until: float | None) -> float:
    return SILENT_S if until is None else until - time.monotonic()
