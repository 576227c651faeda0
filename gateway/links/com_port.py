"""The port of a serial server, set over the network: telnet with the COM port control option (RFC 2217), bytes in, bytes out.

Of the clients that there are, pyserial's blocks a thread for each port and each call, takes 0.1 s for each of the four
settings (0.37 s to open, 0.3 s to close) and gives no way to its socket, hence no keep-alive; that of serialx takes a
refused parity for a set one, holds commands without a bound, and waits for ever for two confirmations that pyserial's own
server does not give. Here a setting is one round trip, and the server's word for what it did is compared with what was asked.

Pure: no IO, no clock. Limits: a command of more than 32 bytes is passed over; the server's notes on its modem lines and its
wish to suspend the flow are not heeded (requests of meters are shorter than any server's buffer).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from drivers.kit import LineSettings

_SE, _SB, _WILL, _WONT, _DO, _DONT, IAC = 240, 250, 251, 252, 253, 254, 255
BINARY, SUPPRESS_GO_AHEAD, COM_PORT = 0, 3, 44
_ACCEPTED: Final = (BINARY, SUPPRESS_GO_AHEAD, COM_PORT)
_MOST: Final = 32
# RFC 2217, 3: what a client sets; the server's answer has a code of 100 more.
_BAUD, _BITS, _PARITY, _STOP, _CONTROL, _MODEM_MASK = 1, 2, 3, 4, 5, 11
_SERVER: Final = 100
_NO_FLOW_CONTROL: Final = b"\x01"
_PARITIES: Final[Mapping[str, int]] = {"N": 1, "O": 2, "E": 3, "M": 4, "S": 5}
_NAMED: Final = {code: name for name, code in _PARITIES.items()}


class _At(Enum):
    """Where in the telnet stream the next byte stands."""

    DATA = auto()
    COMMAND = auto()
    OPTION = auto()
    SUBOPTION = auto()
    SUBCOMMAND = auto()


class ComPort:
    """One connection. `feed` it, send what `replies` hands out, look at what the server has agreed to."""

    def __init__(self) -> None:
        """Nothing is agreed yet."""
        self._at = _At.DATA
        self._verb = 0
        self._sub = bytearray()
        # (whether it is the server's, option) -> True: agreed, False: refused, None: asked and not answered.
        self._agreed: dict[tuple[bool, int], bool | None] = {}
        self._replies = bytearray()
        self._wanted: dict[int, bytes] = {}
        self._said: dict[int, bytes] = {}

    def begin(self) -> None:
        """Ask for what is needed: eight bits in both directions, and the right to set the port."""
        for is_servers, option in ((False, BINARY), (True, BINARY), (False, COM_PORT), (False, SUPPRESS_GO_AHEAD),
                                   (True, SUPPRESS_GO_AHEAD)):  # fmt: skip
            self._agreed[is_servers, option] = None
            self._replies += bytes([IAC, _DO if is_servers else _WILL, option])

    def replies(self) -> bytes:
        """Return what is to be sent, once."""
        data = bytes(self._replies)
        self._replies.clear()
        return data

    @property
    def is_ready(self) -> bool:
        """Whether the port can be set, and bytes pass as they are. Some servers offer the option instead of taking ours."""
        may_set = self._agreed.get((False, COM_PORT)) or self._agreed.get((True, COM_PORT))
        return bool(may_set and self._agreed.get((False, BINARY)))

    @property
    def refusal(self) -> str:
        """What the server will not do that is needed, "" for nothing."""
        if self._agreed.get((False, COM_PORT)) is False and not self._agreed.get((True, COM_PORT)):
            return "it does not let its port be set (RFC 2217)"
        if False in (self._agreed.get((False, BINARY)), self._agreed.get((True, BINARY))):
            return "it passes no eight bits (telnet without BINARY)"
        return ""

    def ask(self, settings: LineSettings) -> None:
        """Ask for settings of the line, without flow control and without notes on modem lines."""
        self._wanted = {
            _BAUD: settings.baud.to_bytes(4, "big"),
            _BITS: bytes([settings.bits]),
            _PARITY: bytes([_PARITIES[settings.parity]]),
            _STOP: bytes([settings.stop]),
        }
        self._said.clear()
        for code, value in (*self._wanted.items(), (_CONTROL, _NO_FLOW_CONTROL), (_MODEM_MASK, b"\0")):
            self._replies += bytes([IAC, _SB, COM_PORT, code]) + escaped(value) + bytes([IAC, _SE])

    @property
    def is_set(self) -> bool:
        """Whether the server has said of each setting what it did."""
        return self._said.keys() >= self._wanted.keys()

    @property
    def is_partly_set(self) -> bool:
        """Whether it has said so of any."""
        return bool(self._said)

    @property
    def kept(self) -> str:
        """What the server has set instead of what was asked, as people write it ("9600 8N1"); "" where it did as asked."""
        if all(self._said.get(code) == value for code, value in self._wanted.items()):
            return ""
        baud, bits, parity, stop = (int.from_bytes(self._said.get(code, b""), "big") for code in (1, 2, 3, 4))
        return f"{baud} {bits}{_NAMED.get(parity, '?')}{stop}"

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the connection in any cut; return those that came from the port."""
        plain, at = bytearray(), 0
        while at < len(data):
            if self._at is _At.DATA:
                end = data.find(IAC, at)
                if end < 0:
                    plain += data[at:]
                    break
                plain += data[at:end]
                self._at, at = _At.COMMAND, end + 1
            elif self._command(data[at]):
                plain.append(IAC)
                at += 1
            else:
                at += 1
        return bytes(plain)

    def _command(self, byte: int) -> bool:
        """Take one byte that is no plain data. True when it was the second half of an escaped FF."""
        if self._at is _At.COMMAND:
            if byte == IAC:
                self._at = _At.DATA
                return True
            if byte == _SB:
                self._sub.clear()
                self._at = _At.SUBOPTION
            else:
                self._verb = byte
                self._at = _At.OPTION if byte in (_WILL, _WONT, _DO, _DONT) else _At.DATA
        elif self._at is _At.OPTION:
            self._negotiate(self._verb, byte)
            self._at = _At.DATA
        elif self._at is _At.SUBOPTION:
            if byte == IAC:
                self._at = _At.SUBCOMMAND
            else:
                self._keep(byte)
        elif byte == IAC:
            self._keep(byte)
            self._at = _At.SUBOPTION
        else:
            # Without its end a command is none; what follows is read as usual.
            if byte == _SE:
                self._told(bytes(self._sub))
            self._at = _At.DATA
        return False

    def _keep(self, byte: int) -> None:
        if len(self._sub) <= _MOST:
            self._sub.append(byte)

    def _negotiate(self, verb: int, option: int) -> None:
        """RFC 855, and RFC 1143 in short: who has what he asked for already is not answered, so that no two can argue on."""
        is_servers, agrees = verb in (_WILL, _WONT), verb in (_WILL, _DO)
        key = (is_servers, option)
        before = self._agreed.get(key, False)
        if agrees:
            if before is False and option not in _ACCEPTED:
                self._replies += bytes([IAC, _DONT if is_servers else _WONT, option])
                return
            if before is False:
                self._replies += bytes([IAC, _DO if is_servers else _WILL, option])
        elif before:
            self._replies += bytes([IAC, _DONT if is_servers else _WONT, option])
        if option in _ACCEPTED:
            self._agreed[key] = agrees

    def _told(self, sub: bytes) -> None:
        if 2 < len(sub) <= _MOST and sub[0] == COM_PORT and sub[1] - _SERVER in self._wanted:
            self._said[sub[1] - _SERVER] = sub[2:]


def escaped(data: bytes) -> bytes:
    """Return data as they are sent: FF stands for itself only twice."""
    return data.replace(b"\xff", b"\xff\xff")
