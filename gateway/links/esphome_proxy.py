"""Listens to the adverts of one ESPHome Bluetooth proxy, for ever: connects, subscribes, notices when nothing comes, again.

aioesphomeapi speaks the native API (plain or encrypted with Noise) and answers for the connection: a ping every `PING_S`, and
one that is not answered within 4.5 times that ends it, so that a cut without a word is noticed within 20 s. Its own reconnecting
is not used: it backs off to a minute and looks names up by multicast; here names are the system's business, so that zeroconf is
never loaded.
A proxy serves one listener of adverts. Where a connection of before still holds that place (up to 150 s after a cut) the
subscription is refused without a word: a proxy that tells the state of its scanner tells it at once to whom it serves, so until
it does it is asked again every `ASK_AGAIN_S` and the link does not hear. Older ones tell nothing and are believed.
A proxy may live and be deaf. After `silence_s` without an advert from anybody the connection is made anew; where that brings
nothing within `silence_s` either it counts as deaf, since the last advert, until one comes. A connection that is made for that
within 1 s is not told. What is read may have lain unread, here or on its way: it was heard after the look before (`looks`).
Limits: connecting `CONNECT_S`, each question `ANSWER_S`; back-off with full jitter, 0.5 s to 5 s, 30 s after a wrong key; of
adverts 2,000 wait (`AdvertQueue`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from aioesphomeapi.client import APIClient
from aioesphomeapi.core import (
    APIConnectionError,
    EncryptionPlaintextAPIError,
    InvalidAuthAPIError,
    InvalidEncryptionKeyAPIError,
    RequiresEncryptionAPIError,
)
from aioesphomeapi.model import BluetoothProxyFeature, BluetoothScannerState, BluetoothScannerStateResponse

from drivers.protocols import advertising_data
from gateway.credentials import in_thread
from gateway.errors import SecretError
from gateway.links.advert_queue import AdvertQueue, OverflowCallback
from gateway.links.looks import Looks
from gateway.links.state import HeardAdvert, LinkState, StateCallback

if TYPE_CHECKING:
    from gateway.clock import Clock, Stamp

PING_S: Final = 3.0
CONNECT_S: Final = 15.0
ANSWER_S: Final = 10.0
ASK_AGAIN_S: Final = 10.0
CLOSE_S: Final = 2.0
RETRY_MIN_S: Final = 0.5
RETRY_CAP_S: Final = 5.0
REFUSED_CAP_S: Final = 30.0
# A connection that lived for so long was worth making: the back-off starts anew.
WORTH_S: Final = 10.0
UNTOLD_MS: Final = 1_000
UNREACHABLE: Final = "GW-RCV-01"
WRONG_KEY: Final = "GW-RCV-02"
NO_PROXY: Final = "GW-RCV-03"
NOT_SERVED: Final = "GW-RCV-04"
SILENT: Final = "GW-RCV-06"
_KEY_ERRORS: Final = (
    EncryptionPlaintextAPIError, InvalidAuthAPIError, InvalidEncryptionKeyAPIError, RequiresEncryptionAPIError, SecretError,
)  # fmt: skip

_log = structlog.get_logger(__name__)
_random = random.Random()  # noqa: S311 - jitter, not a secret


class _Ended(Exception):
    """The connection is over, or not worth keeping: a problem (None: only silence), and a detail."""

    def __init__(self, code: str | None, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class EsphomeProxy:
    """The adverts that one proxy hears of the devices that we care for.

    `key` gives the encryption key (base64, as ESPHome has it), "" for a proxy without one; may raise SecretError.
    `wanted(address)` says whether we care; `deliver`, `on_state` and `on_overflow` are as for a radio of our own.
    """

    def __init__(
        self, *, link_id: str, host: str, port: int, key: Callable[[], str], wanted: Callable[[str], bool],
        deliver: Callable[[HeardAdvert], None], on_state: StateCallback, on_overflow: OverflowCallback, clock: Clock,
        silence_s: float = 60.0, limit: int = 2_000,
    ) -> None:  # fmt: skip
        self.heard = 0
        """Adverts from anybody."""
        self._link = link_id
        self._host = host
        self._port = port
        self._key = key
        self._wanted = wanted
        self._on_state = on_state
        self._clock = clock
        self._silence_s = silence_s
        self._queue = AdvertQueue(link_id, deliver, on_overflow, limit=limit)
        self._lost = asyncio.Event()
        self._served = asyncio.Event()
        self._looks = Looks(clock)
        # When it began to hear; when an advert last came at the earliest; when a connection that heard nobody was given up.
        self._began_at = self._heard_at = clock.stamp()
        self._mending_since: Stamp | None = None
        self._quiet_since = clock.monotonic()
        self._silences = 0
        self._said: tuple[bool, str | None] | None = None
        self._bug = ""

    @property
    def dropped(self) -> int:
        """Wanted adverts that a full queue cost."""
        return self._queue.dropped

    async def run(self) -> None:
        """Listen until cancelled. What was heard is delivered before it returns."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._looks.run(), name=f"{self._link}-looks")
                tasks.create_task(self._queue.run(), name=f"{self._link}-deliver")
                await self._keep()
        finally:
            self._queue.flush()
            self._tell(hearing=False, problem=None, at=self._clock.stamp())

    async def _keep(self) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            code, detail = UNREACHABLE, ""
            try:
                await self._live()
            except _Ended as end:
                if (
                    end.code is None
                ):  # silence: the next connection is made at once, and told only if it changes nothing
                    continue
                code, detail = end.code, end.detail
            except _KEY_ERRORS as refusal:
                code, detail = WRONG_KEY, _text(refusal)
            except (APIConnectionError, OSError, TimeoutError, UnicodeError) as error:
                detail = _text(error)
            except Exception as bug:  # noqa: BLE001 - a bug of the library must not deafen us for good
                detail = _text(bug)
                if detail != self._bug:
                    _log.error("the connection to a receiver met a bug", link=self._link, exc_info=bug)
                self._bug = detail
            self._tell(hearing=False, problem=code, at=self._heard_at, detail=detail)
            failures = 0 if self._clock.monotonic() - began >= WORTH_S else failures + 1
            cap = REFUSED_CAP_S if code in (WRONG_KEY, NO_PROXY) else RETRY_CAP_S
            await asyncio.sleep(_random.uniform(RETRY_MIN_S / 2, min(cap, RETRY_MIN_S * 2.0 ** min(failures, 10))))

    async def _live(self) -> None:
        """Connect, subscribe and listen until it ends. Raises _Ended, or what the library or the system raises."""
        lost = self._lost = asyncio.Event()
        self._served = asyncio.Event()

        async def on_stop(expected_disconnect: bool) -> None:  # noqa: ARG001, FBT001 - the library's signature
            lost.set()  # of this connection: it may be told when the next one has begun

        async with asyncio.timeout(ANSWER_S):
            key = await in_thread(self._key)
        client = APIClient(
            "", self._port, None, addresses=await self._addresses(), noise_psk=key or None, keepalive=PING_S,
            client_info="daycare-gateway", timezone="UTC", provide_time=False,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CONNECT_S):
                await client.connect(on_stop=on_stop, log_errors=False)
            async with asyncio.timeout(ANSWER_S):
                about = await client.device_info()
            version = client.api_version
            features = about.bluetooth_proxy_feature_flags_compat(version) if version else 0
            if not features & BluetoothProxyFeature.RAW_ADVERTISEMENTS:
                raise _Ended(NO_PROXY, about.name)
            client.subscribe_bluetooth_scanner_state(self._on_scanner)
            await self._subscribe(client, tells_state=bool(features & BluetoothProxyFeature.FEATURE_STATE_AND_MODE))
            await self._listen()
        finally:
            await _close(client, force=lost.is_set())

    async def _addresses(self) -> list[str]:
        """Look the name up as the system does. Raises OSError, TimeoutError, UnicodeError.

        Not on the threads of the event loop: serial ports are opened there, and a name server that hangs would hold them all.
        """
        async with asyncio.timeout(ANSWER_S):
            found = await in_thread(lambda: socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
        return list(dict.fromkeys(str(one[4][0]) for one in found))

    async def _subscribe(self, client: APIClient, *, tells_state: bool) -> None:
        client.subscribe_bluetooth_le_raw_advertisements(self._on_adverts)
        while tells_state and not await self._one_of(self._served, within_s=ASK_AGAIN_S):
            self._tell(hearing=False, problem=NOT_SERVED, at=self._heard_at)
            client.subscribe_bluetooth_le_raw_advertisements(self._on_adverts)
        self._quiet_since = self._clock.monotonic()
        now = self._clock.stamp()
        mending, self._mending_since = self._mending_since, None
        if mending is not None and self._says_hearing() and now.mono_ms - mending.mono_ms > UNTOLD_MS:
            self._tell(hearing=False, problem=None, at=mending)
        if not self._silences:
            self._heard_at = self._began_at = now
        if self._silences <= 1:  # the first silence is mended without a word, the second is deafness
            self._tell(hearing=True, problem=None, at=now)

    async def _listen(self) -> None:
        """Wait until the connection is lost, or nobody is heard for too long. Raises _Ended."""
        while not self._lost.is_set():
            left_s = self._quiet_since + self._silence_s - self._clock.monotonic()
            if left_s <= 0:
                self._silences += 1
                if self._silences > 1:
                    self._tell(hearing=False, problem=SILENT, at=self._heard_at, silent_s=round(self._silence_s))
                self._mending_since = self._clock.stamp()
                raise _Ended(None, "silence")
            await self._one_of(self._lost, within_s=left_s)
        raise _Ended(UNREACHABLE, "the connection has ended")

    async def _one_of(self, event: asyncio.Event, *, within_s: float) -> bool:
        """Wait for an event, or for the end of the connection; tell whether the event came. Raises _Ended for the end."""
        waits = [asyncio.ensure_future(one.wait()) for one in {event, self._lost}]
        try:
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if self._lost.is_set() and event is not self._lost:
            raise _Ended(UNREACHABLE, "the connection has ended")
        return event.is_set()

    # What the library calls.

    def _on_scanner(self, state: BluetoothScannerStateResponse) -> None:
        if state.state in (BluetoothScannerState.RUNNING, BluetoothScannerState.STARTING):
            self._served.set()

    def _on_adverts(self, response: Any) -> None:
        """Take a message of type BluetoothLERawAdvertisementsResponse, which has no type that mypy could see."""
        now = self._clock.stamp()
        for one in response.advertisements:
            try:
                self._take(one, now)
            except Exception as error:  # noqa: BLE001 - what one advert does must not reach the connection
                self._queue.count_failure("advert", error)

    def _take(self, one: Any, now: Stamp) -> None:
        self.heard += 1
        self._quiet_since = self._clock.monotonic()
        self._served.set()
        if self._silences:
            self._silences = 0
            self._began_at = now
            self._tell(hearing=True, problem=None, at=now)
        self._heard_at = max(self._looks.sure, self._began_at, key=lambda at: at.mono_ms)
        digits = f"{one.address:012X}"
        address = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
        if self._wanted(address):
            self._queue.put(HeardAdvert(self._link, advertising_data.advert(address, one.data, rssi=one.rssi), now))

    # What is said of it.

    def _says_hearing(self) -> bool:
        return self._said is not None and self._said[0]

    def _tell(self, *, hearing: bool, problem: str | None, at: Stamp, **facts: object) -> None:
        """Report a change once; while deaf the beginning stays what was said first, for the hearing keeps it."""
        if self._said == (hearing, problem):
            return
        self._said = (hearing, problem)
        told: Mapping[str, object] = {"host": self._host, "port": self._port, **facts}
        try:
            self._on_state(LinkState(self._link, "receiver", hearing, at, problem, told))
        except Exception as error:  # noqa: BLE001 - as for deliver
            self._queue.count_failure("state", error)


async def _close(client: APIClient, *, force: bool) -> None:
    """End a connection. How it ends does not matter, but that it does: one that lives on would keep the proxy's place."""
    try:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await client.disconnect(force=force)
    finally:
        with contextlib.suppress(Exception):
            client.force_disconnect()  # nothing where it has ended


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
