"""One serial line, here or behind a TCP connection: open for as long as it can be, and honest about when it was not.

A line serves in one of two modes. Streams: bytes go to `on_data` as they come. Asking: `ask` runs one turn at a time on
a half-duplex bus. A lost line is opened again; when, stands in `reopening`.

Limits: 64 KiB of unsent bytes, then `write` refuses; one request on the wire; an opening takes at most 5 s, a closing 2
s; a silent TCP peer is given up after 15 s; what happens when a port takes nothing stands in `stall`. Of a TCP peer the
kernel is known to live, not what is behind it: whether a device there is well, only its own signs of life tell. That
kernel takes a connection before its program does, and what comes from the wire until then goes nowhere: so it counts as
heard after 0.5 s, or with its first byte.
While reading is paused the kernel keeps about 4 KiB of a tty (20 KiB of a pty); what comes beyond is lost unseen.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import serialx

from drivers.kit import Ask, Framer, LineSettings, NoReply
from gateway.clock import Clock, Stamp
from gateway.errors import LinkDown
from gateway.links import ports
from gateway.links.reopening import signature, wait_to_retry
from gateway.links.stall import Stall
from gateway.links.state import LinkState, StateCallback
from gateway.links.turn import Turn
from gateway.links.wire import CLOSE_TIMEOUT_S, Wire, connect, connect_and_set, open_port, set_port

PENDING_BYTES = 64 * 1024
OPEN_TIMEOUT_S = 5.0
# A line that stayed open for so long was worth opening: the back-off starts anew.
WORTH_S = 1.0
# One that stayed open for so long was well.
STEADY_S = 5.0
# Some serial servers take a connection and close it at once. So many short lives, and the next one must prove itself.
SHORT_LIVES = 2
TICK_S = 0.5
# After a change of speed or parity: so long nothing is sent, for the meters of another speed have heard noise so far.
SWITCH_QUIET_S = 0.1


class CannotBeSet(NoReply):
    """The port refuses the settings of a device: it was not asked at all, and no other request to it would go out."""


class SerialLine:
    """The owner of one port. `run` holds it open; everything else is called beside `run`, in the same event loop.

    Counters: `asks` requests sent, `replies` to them, `timeouts` requests without one; `foreign` whole frames that were
    not the reply; `trimmed` bytes that belonged to no frame; `unasked` bytes that came outside of a turn; `rx_bytes`
    all; `write_refused` calls of `write` that took nothing; `switches` changes of speed or parity between two requests.
    `echo_seen`: the own request came back at least once. `restless`: how many requests in a row found no quiet moment.
    `taken` bytes came in turns, the echo left out. `first_s`: how long after the last bit of the last request the first
    byte came; None where none came.
    """

    def __init__(
        self,
        *,
        link_id: str,
        port: str,
        line: LineSettings,
        quiet_ms: int,
        echo: bool,
        on_state: StateCallback,
        clock: Clock,
        on_data: Callable[[bytes, Stamp], None] | None = None,
    ) -> None:
        """Prepare a line; nothing is opened. ValueError for what is no port, see `ports.socket_address`."""
        self.link_id = link_id
        self.port = port
        self.asks = self.replies = self.timeouts = 0
        self.foreign = self.trimmed = self.unasked = self.rx_bytes = self.write_refused = 0
        self.switches = self.restless = self.taken = 0
        self.echo_seen = False
        self.first_s: float | None = None
        self.echo_expected = echo
        # Called with what comes outside of a turn, while the line asks.
        self.on_unasked: Callable[[bytes], None] = lambda _data: None
        self.last_rx: Stamp | None = None
        self._address = ports.socket_address(port)
        # A kernel takes a connection before its program does; a serial server that has set its port has a program.
        self._is_unproven = self._address is not None and not ports.is_settable(port)
        self._settings = line
        # What the port is set to now; None when nobody knows.
        self._set: LineSettings | None = line
        self._quiet_s = quiet_ms / 1000
        self._on_state = on_state
        self._clock = clock
        self._on_data = on_data
        self._byte_s = _byte_s(line)
        self._busy_until = 0.0
        self._paused = False
        self._wire: Wire | None = None
        self._opening: asyncio.Task[None] | None = None
        self._turns = asyncio.Lock()
        self._turn: Turn | None = None
        self._told: tuple[bool, str | None] | None = None
        self._short_lives = 0
        # How long a connection must live, or be heard, before it counts as open; 0 when it does.
        self._trial_s = 0.0
        self._stall = Stall()
        self._written = 0
        # Moments at which the line was surely heard: the second last look, the last look.
        self._sure = self._looked = clock.stamp()

    @property
    def is_open(self) -> bool:
        """Whether bytes can pass now."""
        return self._wire is not None and self._wire.live() is not None

    async def run(self) -> None:
        """Hold the port open until cancelled. Raises only the error of a callback, which is a bug."""
        self._sure = self._looked = self._clock.stamp()
        failures = 0
        try:
            while True:
                before = self._signature()
                wire = await self._connect()
                if wire is not None and await self._live(wire) >= WORTH_S:
                    failures = 0
                await wait_to_retry(failures, before, self._signature)
                failures += 1
        finally:
            await self._close()

    def write(self, data: bytes) -> bool:
        """Take bytes to be sent, at once or not at all. False when the port is not open or 64 KiB wait already."""
        transport = self._wire.live() if self._wire else None
        if transport is None or transport.get_write_buffer_size() + len(data) > PENDING_BYTES:
            self.write_refused += 1
            return False
        try:
            transport.write(data)
        except OSError:
            self.write_refused += 1
            return False
        self._written += len(data)
        self._busy_until = max(self._busy_until, asyncio.get_running_loop().time()) + len(data) * self._byte_s
        return True

    def pause(self) -> None:
        """Stop reading; the pause outlives a reopening."""
        self._paused = True
        if self._wire is not None:
            self._wire.pause()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self._wire is not None:
            self._wire.resume()

    async def ask(
        self, ask: Ask, framer: Framer, settings: LineSettings | None = None, *, silent_s: float | None = None
    ) -> bytes:
        """Send a request and return the frame that answers it, after waiting for the line's turn and its silence.

        `settings`: how the line must be set for it; None: as the port was opened. A try ends `ask.timeout_s` after the
        request's last bit has left; the reply's own time on the line counts in it. `silent_s`: it ends so soon already where
        not a single byte has come.
        Raises NoReply after `ask.retries` further tries, CannotBeSet where the port refuses `settings`, LinkDown when it is not
        open or is lost meanwhile.
        """
        if self._on_data is not None:
            raise RuntimeError(f"{self.link_id}: a streaming line is not asked")
        async with self._turns:
            for _ in range(1 + ask.retries):
                await self.be_set(settings or self._settings)
                reply = await self._try(ask, framer, silent_s)
                if reply is not None:
                    return reply
        raise NoReply(f"{self.link_id}: no reply, asked {1 + ask.retries} times")

    async def hear_out(self, *, at_most_s: float) -> None:
        """Wait until something came and was over, or for `at_most_s`: the late reply of a former request passes unheeded."""
        loop = asyncio.get_running_loop()
        async with self._turns:
            until, before = loop.time() + at_most_s, self.unasked
            while (left := until - loop.time()) > 0 and self.unasked == before:  # noqa: ASYNC110 - bytes, see `_silence`
                await asyncio.sleep(min(left, 0.02))
            await self._silence(at_most_s=at_most_s)

    async def be_set(self, settings: LineSettings) -> None:
        """Set the port anew, in the silence between two requests. CannotBeSet where it refuses."""
        if settings == self._set:
            return
        self._transport()
        await self._silence(at_most_s=SWITCH_QUIET_S)
        wire = self._wire
        if wire is None or wire.live() is None:
            raise self._down()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await set_port(wire, settings)
        except (OSError, serialx.SerialException, ValueError) as error:  # TimeoutError is an OSError
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
            self._set = None
            said = f"{settings.baud} {settings.bits}{settings.parity}{settings.stop}"
            raise CannotBeSet(f"{self.link_id}: the port cannot be set to {said}: {reason}") from error
        self._set, self._byte_s = settings, _byte_s(settings)
        self.switches += 1
        await asyncio.sleep(max(SWITCH_QUIET_S, self._quiet_s))

    async def _try(self, ask: Ask, framer: Framer, silent_s: float | None) -> bytes | None:
        self._transport()
        await self._silence(at_most_s=ask.timeout_s)
        transport = self._transport()
        turn = self._turn = Turn(ask=ask, framer=framer, echo_expected=self.echo_expected)
        self.asks += 1
        # A request that still waits in the buffer means a stalled port: a second one would only make a later burst.
        if transport.get_write_buffer_size() == 0:
            self.write(ask.request)
        loop = asyncio.get_running_loop()
        sent_at = max(self._busy_until, loop.time())
        self.first_s = None
        try:
            async with asyncio.timeout_at(sent_at + min(ask.timeout_s, silent_s or ask.timeout_s)):
                await turn.heard.wait()
            self.first_s = max(0.0, loop.time() - sent_at)
            async with asyncio.timeout_at(sent_at + ask.timeout_s):
                reply = await turn.reply
        except TimeoutError:
            self.timeouts += 1
            return None
        finally:
            self._turn = None
            # A reply that did not come may be on its way still: the next request waits a quiet time, counted from now.
            self._busy_until = max(self._busy_until, asyncio.get_running_loop().time())
            self.foreign += turn.foreign
            self.trimmed += turn.trimmed
            self.taken += turn.taken
            self.echo_seen = self.echo_seen or turn.echo_seen
        self.replies += 1
        return reply

    async def _silence(self, *, at_most_s: float) -> None:
        """Wait until nothing was on the line for the quiet time; a babbling line is asked all the same after a while.

        What comes meanwhile is the late reply of a former turn: it is dropped, and counted as `unasked`.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + at_most_s + self._quiet_s
        # Twice: the first pass lets the event loop see what lies in the kernel, the second lets the reader take it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # ASYNC110: bytes push the end of the wait away, they do not bring it; no event says "nothing came".
        while (gap := min(self._busy_until + self._quiet_s, give_up) - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(gap)
        self.restless = 0 if self._busy_until + self._quiet_s <= loop.time() else self.restless + 1

    def _transport(self) -> asyncio.Transport:
        transport = self._wire.live() if self._wire else None
        if transport is None:
            raise self._down()
        return transport

    def _down(self) -> LinkDown:
        code = self._told[1] if self._told else None
        return LinkDown(code or ports.LOST, self.link_id, port=self.port)

    # Opening and losing.

    async def _connect(self) -> Wire | None:
        """Try to open the port once. None when that failed and was told."""
        if self._opening is not None and not self._opening.done():
            # A driver that hangs in open() holds a thread for good: a second try would take another one.
            await asyncio.wait({self._opening}, timeout=OPEN_TIMEOUT_S)
            if not self._opening.done():
                return None
        wire = Wire(opened=self._opened, received=self._received)
        opening = self._opening = asyncio.create_task(self._open(wire), name=f"open {self.link_id}")
        opening.add_done_callback(_retrieve)
        await asyncio.wait({opening}, timeout=OPEN_TIMEOUT_S)
        if not opening.done():
            opening.cancel()
            code = ports.UNREACHABLE if self._address else ports.OTHER
            facts = {"port": self.port, "detail": f"no answer within {OPEN_TIMEOUT_S:g} s"}
            self._tell_down(ports.PortProblem(code, facts))
            return None
        try:
            opening.result()
        except (OSError, serialx.SerialException, ValueError) as error:
            if self._wire is wire:  # opened, and gone in the same moment
                self._wire = None
                self._short_lives += 1
            self._tell_down(await asyncio.to_thread(ports.explain, self.port, error))
            return None
        return wire

    async def _open(self, wire: Wire) -> None:
        if self._address is not None and ports.is_settable(self.port):
            await connect_and_set(wire, self._address, self._settings)
        elif self._address is not None:
            await connect(wire, self._address)
        else:
            await open_port(wire, self.port, self._settings)

    def _opened(self, wire: Wire) -> None:
        self._wire = wire
        self._set, self._byte_s = self._settings, _byte_s(self._settings)
        self._sure = self._looked = self._clock.stamp()
        self._busy_until = asyncio.get_running_loop().time()
        # Not at once: the transports of Python 3.11 begin to read after this call, paused or not.
        asyncio.get_running_loop().call_soon(self._stay_paused)
        self._trial_s = STEADY_S if self._short_lives >= SHORT_LIVES else TICK_S if self._is_unproven else 0.0
        if not self._trial_s:
            self._tell_open(wire)

    def _stay_paused(self) -> None:
        if self._paused:
            self.pause()

    def _received(self, data: bytes) -> None:
        stamp = self.last_rx = self._clock.stamp()
        self._busy_until = max(self._busy_until, asyncio.get_running_loop().time())
        self.rx_bytes += len(data)
        if self._wire is not None:
            self._end_trial(self._wire)
        if self._on_data is not None:
            self._on_data(data, stamp)
        elif self._turn is not None:
            self._turn.take(data)
        else:
            self.unasked += len(data)
            self.on_unasked(data)

    async def _live(self, wire: Wire) -> float:
        """Wait for the end of a connection, tell it, and return how many seconds it lived. Raises a callback's error."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        while not wire.ended.done():
            await asyncio.wait({wire.ended}, timeout=TICK_S)
            if not wire.ended.done():
                self._look(wire)
                self._look_at_writing(wire)
                if loop.time() - opened_at >= self._trial_s:
                    self._end_trial(wire)
        detail = wire.ended.result()
        lived_s = loop.time() - opened_at
        self._short_lives = 0 if lived_s >= STEADY_S else self._short_lives + 1
        if self.last_rx is not None and self.last_rx.mono_ms >= self._sure.mono_ms:
            self._sure = self.last_rx
        code = ports.STALLED if self._stall.lasts else ports.LOST
        self._tell_down(ports.PortProblem(code, {"port": self.port, "detail": detail}))
        self._wire = None
        if self._turn is not None:
            self._turn.fail(self._down())
        return lived_s

    def _end_trial(self, wire: Wire) -> None:
        """It has lived for long enough, or it was heard: it counts as open."""
        if self._trial_s:
            self._short_lives = 0 if self._trial_s >= STEADY_S else self._short_lives
            self._trial_s = 0.0
            self._tell_open(wire)

    def _look(self, wire: Wire) -> None:
        """Note until when the line was surely heard, and find a hang-up that a paused reader would not see."""
        now = self._clock.stamp()
        silent_ms = wire.peer_silent_ms()
        if silent_ms is not None:
            # An open socket proves nothing: the peer's last acknowledgement does, and keep-alive provokes one.
            heard = _earlier(now, ms=silent_ms)
            self._sure = max(self._sure, heard, key=lambda stamp: stamp.mono_ms)
            return
        # One look back: what arrived just before a look may still be unread when the port is pulled.
        self._sure, self._looked = self._looked, now
        if self._paused and wire.hung_up():
            wire.abort()

    def _look_at_writing(self, wire: Wire) -> None:
        """Notice a port that takes nothing; now and then, open it anew for that."""
        transport = wire.live()
        if transport is None:
            return
        now = self._clock.monotonic()
        before = self._stall.lasts
        self._stall.look(written=self._written, unsent=transport.get_write_buffer_size(), now=now)
        if self._stall.lasts is not before:
            self._tell_open(wire)
        if self._stall.wants_reopening(now):
            detail = f"no bytes taken for {self._stall.waited_s(now):.0f} s"
            self._stall.reopened(written=self._written, now=now)
            wire.abort(detail)

    def _tell_open(self, wire: Wire) -> None:
        """It is open; and what people should know of it nevertheless."""
        transport = wire.live()
        problem, facts = None, {}
        if self._stall.lasts and transport is not None:
            waited_s = round(self._stall.waited_s(self._clock.monotonic()))
            problem = ports.STALLED
            facts = {"port": self.port, "unsent": transport.get_write_buffer_size() or None, "waited_s": waited_s}
        self._tell(
            LinkState(self.link_id, "serial", hearing=True, at=self._clock.stamp(), problem=problem, facts=facts)
        )

    def _tell_down(self, problem: ports.PortProblem) -> None:
        self._tell(
            LinkState(self.link_id, "serial", hearing=False, at=self._sure, problem=problem.code, facts=problem.facts)
        )

    def _tell(self, state: LinkState) -> None:
        """Say a change once. A new problem of a line that is deaf already is a change, with the same `at`."""
        if self._told != (state.hearing, state.problem):
            self._told = (state.hearing, state.problem)
            self._on_state(state)

    def _signature(self) -> object:
        """Return what tells one state of the device path from another; None for a missing one, and for sockets."""
        if self._address is not None:
            return None
        return signature(self.port, is_held=self._told is not None and self._told[1] == ports.HELD)

    async def _close(self) -> None:
        """Let the port go within 2 s: what is pending gets most of that time, then it is cut off."""
        wire, self._wire = self._wire, None
        if self._turn is not None:
            self._turn.fail(self._down())
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening}, timeout=CLOSE_TIMEOUT_S)
        if wire is not None:
            await wire.close()


def _byte_s(line: LineSettings) -> float:
    """How long one byte takes: start bit, data bits, parity, stop bits."""
    return (1 + line.bits + (line.parity != "N") + line.stop) / line.baud


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the error of an opening that nobody waits for any more, so that the event loop does not report it."""
    if not task.cancelled():
        task.exception()


def _earlier(stamp: Stamp, *, ms: int) -> Stamp:
    return dataclasses.replace(stamp, wall_ms=stamp.wall_ms - ms, mono_ms=stamp.mono_ms - ms)
