"""The far end of a serial cable: a pty with a fixed name, paced like a UART, deaf and dumb while nobody holds it.

A bare pty flatters whoever reads it: it takes 960 bytes "at 9600 baud" in 0.1 ms, and keeps up to 20 KB for a reader
that has died. Here bytes take their time in both directions, what is sent while nobody holds the slave is discarded,
and what a dead holder left behind is flushed, so that nothing reaches the next one that a wire would not have kept.

Limits: 64 KiB wait to be sent, more is refused; a holder is noticed within 5 ms, its going within 10 ms (one that comes
back sooner is not told from the same holder); bytes move in portions of about 10 ms. A full reader (20 KB unread) loses
bytes, as behind a UART. A pty knows no parity: its user must set none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final

from simulator.uart import noise

PENDING_BYTES: Final = 64 * 1024
LOOK_S: Final = 0.005
PORTION_S: Final = 0.010
_BAUDS: Final = {
    getattr(termios, f"B{baud}"): baud
    for baud in (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
}


class PtyPort:
    """One pty. `run` moves the bytes; `plug` and `unplug` make and take away the port, as a hand at the USB plug would.

    Counters, in bytes: `discarded` sent while nobody held the port; `overrun` lost because the holder did not read or
    too much was waiting; `garbled` passed while the holder had set another speed than the bus has.
    """

    def __init__(
        self,
        *,
        path: Path,
        baud: int,
        on_data: Callable[[bytes], None],
        on_held: Callable[[], None] | None = None,
        bits_per_byte: int = 10,
        follows: bool = False,
    ) -> None:
        """Prepare a port named `path`. `on_data` gets what arrives; `on_held` is called when `held` has changed.

        `follows`: the far end has several speeds, and who listens compares them with `speed`: bytes arrive as they are,
        at the pace that the holder has set.
        """
        self.path = path
        self.frozen = False
        """While set, nothing that the holder writes is taken: the far end has stopped it by flow control."""
        self.held = False
        self.holders = 0
        self.discarded = self.overrun = self.garbled = 0
        self._on_data = on_data
        self._on_held = on_held
        self.baud = baud
        self._bits = bits_per_byte
        self._follows = follows
        self._speed: int | None = getattr(termios, f"B{baud}", None)
        self._master: int | None = None
        self._slave_name = ""
        # How often it was plugged in: a descriptor's number alone does not tell one pty from the next.
        self._plugs = 0
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._queued = 0
        self._free_at = 0.0

    @property
    def speed(self) -> int:
        """The speed in baud that the holder has set; the far end's own while there is no port."""
        if self._master is None:
            return self.baud
        return _BAUDS.get(termios.tcgetattr(self._master)[5], self.baud)

    def plug(self) -> None:
        """Make the port appear at its path. Does nothing when it is there."""
        if self._master is not None:
            return
        master, slave = os.openpty()
        tty.setraw(slave)
        if self._speed is not None:
            attributes = termios.tcgetattr(slave)
            attributes[4] = attributes[5] = self._speed
            termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self._slave_name = os.ttyname(slave)
        # Opened and closed once, the slave shows a hang-up at the master until somebody holds it.
        os.close(slave)
        os.set_blocking(master, False)
        self._master = master
        self._plugs += 1
        link = self.path.with_name(f".{self.path.name}.new")
        link.unlink(missing_ok=True)
        link.symlink_to(self._slave_name)
        link.replace(self.path)
        self._wake.set()

    def unplug(self) -> None:
        """Take the port away: whoever holds it is hung up, the name disappears."""
        if self._master is None:
            return
        self.path.unlink(missing_ok=True)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        self._master = None
        self._set_held(now=False)
        self._wake.set()

    async def run(self) -> None:
        """Move bytes until cancelled; then unplug."""
        self.plug()
        try:
            while True:
                if self._master is None:
                    self._wake.clear()
                    await self._wake.wait()
                elif self._hung_up(self._master):
                    self._lose_holder(self._master)
                    await asyncio.sleep(LOOK_S)
                else:
                    self._set_held(now=True)
                    await self._read(self._master)
        finally:
            self.unplug()

    async def send(self, data: bytes, *, baud: int | None = None) -> bool:
        """Send at the line's pace, or at `baud`. True when every byte went to one and the same holder, who could read it."""
        if self._queued + len(data) > PENDING_BYTES:
            self.overrun += len(data)
            return False
        self._queued += len(data)
        try:
            async with self._sending:
                return await self._transmit(data, baud or self.baud)
        finally:
            self._queued -= len(data)

    async def _transmit(self, data: bytes, baud: int) -> bool:
        loop = asyncio.get_running_loop()
        start = max(loop.time(), self._free_at)
        byte_s, size = self._bits / baud, self._portion(baud)
        self._free_at = start + len(data) * byte_s
        holder, whole = self.holders, self.held
        for first in range(0, len(data), size):
            portion = data[first : first + size]
            # A portion is there when its last bit has passed; by an absolute schedule, lateness does not add up.
            await _until(start + (first + len(portion)) * byte_s)
            whole = self._put(portion, baud) and whole
        return whole and self.holders == holder

    def _portion(self, baud: int) -> int:
        return max(1, int(PORTION_S * baud / self._bits))

    def _put(self, portion: bytes, baud: int) -> bool:
        master = self._master
        if master is None or not self.held or self._hung_up(master):
            self.discarded += len(portion)
            return False
        clear = self._is_at(master, baud)
        if not clear:
            self.garbled += len(portion)
        try:
            written = os.write(master, portion if clear else noise(portion))
        except OSError:
            written = 0
        self.overrun += len(portion) - written
        return clear and written == len(portion)

    async def _read(self, master: int) -> None:
        """Take one portion from the holder and hand it on when its last bit has passed; return early at a hang-up."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        waited = False
        plug = self._plugs
        while self._plugged(plug) and not self._hung_up(master):
            if self.frozen:
                await asyncio.sleep(LOOK_S)
                continue
            baud = self.speed if self._follows else self.baud
            try:
                portion = os.read(master, self._portion(baud))
            except BlockingIOError:
                await self._readable(master)
                waited = True
                continue
            except OSError:
                return
            if waited:
                due, waited = loop.time(), False
            due += len(portion) * self._bits / baud
            await _until(due)
            if not self._plugged(plug):
                return
            if self._follows or self._is_at(master, self.baud):
                self._on_data(portion)
            else:
                self.garbled += len(portion)
                self._on_data(noise(portion))

    async def _readable(self, master: int) -> None:
        """Wait for bytes or a hang-up of the holder, or for `unplug`."""
        loop = asyncio.get_running_loop()
        plug = self._plugs
        self._wake.clear()
        loop.add_reader(master, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if self._plugged(plug):
                loop.remove_reader(master)

    def _plugged(self, plug: int) -> bool:
        """Whether the pty that was plugged in as the `plug`th is still the one."""
        return self._master is not None and self._plugs == plug

    def _hung_up(self, master: int) -> bool:
        poll = select.poll()
        poll.register(master, 0)
        return bool(poll.poll(0))

    def _lose_holder(self, master: int) -> None:
        """Forget what the last holder left unread, and what it wrote that no UART has sent yet."""
        if not self.held:
            return
        self._set_held(now=False)
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(master, termios.TCIFLUSH)
            slave = os.open(self._slave_name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                termios.tcflush(slave, termios.TCIFLUSH)
            finally:
                os.close(slave)

    def _set_held(self, *, now: bool) -> None:
        if self.held == now:
            return
        self.held = now
        if now:
            self.holders += 1
        if self._on_held is not None:
            self._on_held()

    def _is_at(self, master: int, baud: int) -> bool:
        """Whether the holder has set this speed. One without a constant cannot be compared: it passes."""
        constant = getattr(termios, f"B{baud}", None)
        return constant is None or bool(termios.tcgetattr(master)[5] == constant)


async def _until(moment: float) -> None:
    delay = moment - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)
