"""One request on a half-duplex line and the wait for its reply: echo off, frames out, everything else counted.

Limits: it holds no more of the input than one request's length (an echo that is still coming in); the rest is the
framer's, which is bounded by itself.
"""

from __future__ import annotations

import asyncio

from drivers.kit import Ask, Framer


class Turn:
    """One try of one `Ask`. `reply` becomes the first frame that `ask.answers` accepts, or the error that ended it all.

    `foreign` counts other whole frames, `trimmed` the bytes that belonged to no frame; neither counts the own echo.
    `taken` counts all bytes but the echo; `heard` is set by the first byte that is not the own echo, and by the end of it all.
    """

    def __init__(self, *, ask: Ask, framer: Framer, echo_expected: bool) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()
        self.foreign = self.taken = 0
        self.echo_seen = False
        self._ask = ask
        self._framer = framer
        self._echo_expected = echo_expected
        # How many bytes of the request have come back so far; None once that question is settled.
        self._echoed: int | None = 0 if ask.request else None
        framer.reset()
        self._skipped_before = framer.skipped

    @property
    def trimmed(self) -> int:
        """Bytes of this turn that the framer skipped."""
        return self._framer.skipped - self._skipped_before

    def take(self, data: bytes) -> None:
        """Take bytes from the line. An error of the framer or of `answers` goes to whoever asked."""
        try:
            rest = data if self._echoed is None else self._without_echo(data, self._echoed)
            if rest or self.reply.done():
                self.taken += len(rest)
                self.heard.set()
            self._feed(rest)
        except Exception as bug:  # noqa: BLE001 - it is raised again where `reply` is awaited
            self.fail(bug)

    def fail(self, error: Exception) -> None:
        """End the turn with an error, unless it has its reply."""
        if not self.reply.done():
            self.reply.set_exception(error)
        self.heard.set()

    def _without_echo(self, data: bytes, echoed: int) -> bytes:
        """Return what is to be read: nothing while the request comes back, then what follows it.

        Where no echo is expected the bytes are read at once as well, for a device may answer with the request itself
        (Modbus writes do): only when no reply has come out of it was it an echo.
        """
        request = self._ask.request
        missing = len(request) - echoed
        if data[:missing] != request[echoed : echoed + len(data)]:
            self._echoed = None
            return request[:echoed] + data if self._echo_expected else data
        if not self._echo_expected:
            self._feed(data[:missing])
        if len(data) < missing:
            self._echoed = echoed + len(data)
            return b""
        self._echoed = None
        if not self.reply.done():
            self.echo_seen = True
            self.foreign = 0
            self._framer.reset()
            self._skipped_before = self._framer.skipped
        return data[missing:]

    def _feed(self, data: bytes) -> None:
        if not data or self.reply.done():
            return
        for frame in self._framer.feed(data):
            if self.reply.done():
                break
            if self._ask.answers(frame):
                self.reply.set_result(frame)
            else:
                self.foreign += 1
