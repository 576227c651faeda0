"""EnOcean transmitters (868 MHz) heard by a receiver on a serial port, 57600 8N1: USB 300, TCM 310, TCM 515 (ESP3).

Each transmitter is a [[device]] whose `address` is its id, eight digits ("00298979"); a [[device]] without an address is the
receiver itself, which is asked for its version every 20 s, so that one that has died is told.

    [device.map]
    profile = "F6-02"        # what the transmitter is, see below; left out: F6-02 for F6, D5-00-01 for D5
    keys = { B0 = "none" }   # F6-02 and D2-03-0A: what a rocker or press means; what is not named here is a call

    F6-01, F6-02   push button, rockers AI A0 BI B0: a press is a call, code the rocker (both, as "AI+B0"); a release is past
    F6-04-01       key card: 70 put in, 00 taken out (occupancy)
    F6-05-01       water: 11 wet, 00 dry            F6-05-02  smoke: 10 alarm, 00 over, 30 battery low
    F6-10          window handle: F0 closed, E0 C0 open, D0 tilted (opening)
    D5-00-01       contact: bit 0 closed (opening), bit 3 clear: a teach-in, which is past
    A5-02-01 to -0B, -10 to -1B   temperature        A5-04-01, -02  humidity and temperature
    A5-07-01       somebody is there (DB1 from 128)  A5-14-01  contact (DB0 bit 0) and its supply
    A5-30-03       digital input, DB1 bit 4 is low: wet (water)
    D2-03-0A       push button: 1 press, 2 double, 3 long, 4 released; battery %

Other choices (A5 and D2 without a profile, D2 actuators, D4 teach-ins, secured telegrams 30 to 35) are refused as
unsupported. Nothing is signed: whoever hears a telegram can send it again, so nothing here is verified, and a rocker that is
pressed has neither battery nor heartbeat: press it once a week. An equal telegram within 1 s came over a repeater.
Not tried on a real receiver. Sources: EnOcean Equipment Profiles 2.6.7; kipe/enocean tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Observation,
    Poll,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Strangers,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import choice, known_keys, words
from drivers.protocols import esp3
from drivers.protocols.esp3 import Telegram

ASK_S: Final = 20.0
REPEAT_S: Final = 1.0
NOTHING: Final = "none"
_ROCKERS: Final = ("AI", "A0", "BI", "B0")
_PRESSES: Final[Mapping[int, str]] = {1: "press", 2: "double", 3: "long"}
_PRESSED, _SECOND = 0x10, 0x01
_NOT_MESSAGE_U: Final = 0x10  # status bit: a rocker that is named is pressed, not a count of buttons
_LEARN: Final = 0x08
# Lowest and highest temperature of A5-02-xx, from 255 down to 0.
_TEMPERATURES: Final[Mapping[str, tuple[int, int]]] = {
    **{f"A5-02-{n:02X}": (-40 + 10 * (n - 1), 10 * (n - 1)) for n in range(0x01, 0x0C)},
    **{f"A5-02-{n:02X}": (-60 + 10 * (n - 0x10), 20 + 10 * (n - 0x10)) for n in range(0x10, 0x1C)},
}
_Found = tuple[tuple[Observation, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Options:
    """`profile` "": by the choice of a telegram. `keys`: what each rocker or press means, None: nothing."""

    profile: str
    keys: Mapping[str, SignalKind | None]


def options(raw: Mapping[str, object]) -> Options:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("profile", "keys"))
    profile = choice(raw, "profile", name="map", among=_PROFILES) if "profile" in raw else ""
    kinds = [*(kind.value for kind in SignalKind), NOTHING]
    chosen = words(raw, "keys", name="map", allowed=(*_ROCKERS, *_PRESSES.values()), among=kinds)
    return Options(profile, {key: None if kind == NOTHING else SignalKind(kind) for key, kind in chosen.items()})


def address_of(frame: bytes, options: Options) -> str:  # noqa: ARG001 - an id is an id under any options
    """Say who sent a radio telegram; "" for what the receiver says itself."""
    try:
        packet = esp3.parse(frame)
        return esp3.telegram(packet).sender if packet.type == esp3.RADIO else ""
    except Rejected:
        return ""


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one packet. Raises Rejected."""
    packet = esp3.parse(frame)
    if packet.type in (esp3.RESPONSE, esp3.EVENT):
        return Decoded()
    if packet.type != esp3.RADIO:
        reason = Reason.NOT_MINE if frame == esp3.VERSION else Reason.UNSUPPORTED
        raise Rejected(reason, f"packet type {packet.type}")
    found = esp3.telegram(packet)
    profile = options.profile or {0xF6: "F6-02", 0xD5: "D5-00-01"}.get(found.choice, "")
    choice_of, size, read = _PROFILES.get(profile, (None, 0, None))
    if read is None or choice_of != found.choice:
        detail = f"choice {found.choice:02X} as {profile or 'no profile'}"
        raise Rejected(Reason.UNSUPPORTED, detail, address=found.sender)
    if len(found.data) != size:
        raise Rejected(Reason.MALFORMED, f"{len(found.data)} bytes of {profile}", address=found.sender)
    observations, refused = read(found, options, profile)
    return Decoded(observations, address=found.sender, refused=refused)


def _key(options: Options, *keys: str) -> _Found:
    """Return what the pressed keys mean. Raising fails open: what nobody named is a call."""
    kinds = [options.keys.get(key, SignalKind.CALL) for key in keys]
    kind = SignalKind.CALL if SignalKind.CALL in kinds else next((one for one in kinds if one), None)
    return ((Signal(kind, "+".join(keys)),) if kind else ()), ()


def _rocker(telegram: Telegram, options: Options, _profile: str) -> _Found:
    byte = telegram.data[0]
    if not byte & _PRESSED:
        return (), ()
    if not telegram.status & _NOT_MESSAGE_U:
        # Three or more rockers at once: which ones is not said.
        return (Signal(SignalKind.CALL, "several"),), ()
    first, second = _rocker_name(byte >> 5), _rocker_name(byte >> 1 & 7)
    return _key(options, first, second) if byte & _SECOND else _key(options, first)


def _rocker_name(n: int) -> str:
    return _ROCKERS[n] if n < len(_ROCKERS) else f"rocker-{n}"


def _state(code: str, kind: SignalKind, states: Mapping[int, bool]) -> Callable[[Telegram, Options, str], _Found]:
    def read(telegram: Telegram, _options: Options, _profile: str) -> _Found:
        level = states.get(telegram.data[0])
        return ((), (f"{code} = {telegram.data.hex()}",)) if level is None else ((Signal(kind, code, level=level),), ())

    return read


def _smoke(telegram: Telegram, _options: Options, _profile: str) -> _Found:
    byte = telegram.data[0]
    if byte == 0x30:
        return (Signal(SignalKind.LOW_BATTERY, "low", level=True),), ()
    return _state("smoke", SignalKind.SMOKE, {0x10: True, 0x00: False})(telegram, _options, _profile)


def _contact(telegram: Telegram, _options: Options, _profile: str) -> _Found:
    byte = telegram.data[0]
    return ((Signal(SignalKind.OPENING, "contact", level=not byte & 1),) if byte & _LEARN else ()), ()


def _temperature(telegram: Telegram, _options: Options, profile: str) -> _Found:
    low, high = _TEMPERATURES[profile]
    return (_degrees(Decimal(255 - telegram.data[2]) / 255, low, high),), ()


def _degrees(share: Decimal, low: int, high: int) -> Reading:
    return Reading("temperature", (low + share * (high - low)).quantize(Decimal("0.1")))


def _climate(telegram: Telegram, _options: Options, profile: str) -> _Found:
    humidity, raw, flags = telegram.data[1], telegram.data[2], telegram.data[3]
    if humidity > 250 or raw > 250:
        return (), (f"climate = {telegram.data.hex()}",)
    found = [Reading("humidity", (Decimal(humidity) / Decimal("2.5")).quantize(Decimal("0.1")))]
    if flags & 2 or profile == "A5-04-02":
        low, high = (-20, 60) if profile == "A5-04-02" else (0, 40)
        found.append(_degrees(Decimal(raw) / 250, low, high))
    return tuple(found), ()


def _occupancy(telegram: Telegram, _options: Options, _profile: str) -> _Found:
    return (Signal(SignalKind.OCCUPANCY, "presence", level=telegram.data[2] >= 128),), ()


def _powered_contact(telegram: Telegram, _options: Options, _profile: str) -> _Found:
    opening = Signal(SignalKind.OPENING, "contact", level=bool(telegram.data[3] & 1))
    volts = telegram.data[0]
    if volts > 250:
        return (opening,), (f"battery_voltage = {volts}",)
    return (opening, Reading("battery_voltage", (Decimal(volts) / 50).quantize(Decimal("0.01")))), ()


def _water_input(telegram: Telegram, _options: Options, _profile: str) -> _Found:
    return (Signal(SignalKind.WATER_LEAK, "water", level=not telegram.data[2] & 0x10),), ()


def _push_button(telegram: Telegram, options: Options, _profile: str) -> _Found:
    battery, action = telegram.data
    readings, refused = (
        ((Reading("battery", Decimal(battery)),), ()) if battery <= 100 else ((), (f"battery = {battery}",))
    )
    if action == 4:
        return readings, refused
    signals, _ = _key(options, _PRESSES.get(action, "unknown"))
    return (*signals, *readings), refused


def _taught(read: Callable[[Telegram, Options, str], _Found]) -> Callable[[Telegram, Options, str], _Found]:
    """Read past the telegram by which a sensor of four bytes introduces itself."""

    def checked(telegram: Telegram, options: Options, profile: str) -> _Found:
        return read(telegram, options, profile) if telegram.data[3] & _LEARN else ((), ())

    return checked


_PROFILES: Final[Mapping[str, tuple[int, int, Callable[[Telegram, Options, str], _Found]]]] = {
    "F6-01": (0xF6, 1, _rocker),
    "F6-02": (0xF6, 1, _rocker),
    "F6-04-01": (0xF6, 1, _state("card", SignalKind.OCCUPANCY, {0x70: True, 0x00: False})),
    "F6-05-01": (0xF6, 1, _state("water", SignalKind.WATER_LEAK, {0x11: True, 0x00: False})),
    "F6-05-02": (0xF6, 1, _smoke),
    "F6-10": (0xF6, 1, _state("handle", SignalKind.OPENING, {0xF0: False, 0xE0: True, 0xC0: True, 0xD0: True})),
    "D5-00-01": (0xD5, 1, _contact),
    **{profile: (0xA5, 4, _taught(_temperature)) for profile in _TEMPERATURES},
    "A5-04-01": (0xA5, 4, _taught(_climate)),
    "A5-04-02": (0xA5, 4, _taught(_climate)),
    "A5-07-01": (0xA5, 4, _taught(_occupancy)),
    "A5-14-01": (0xA5, 4, _taught(_powered_contact)),
    "A5-30-03": (0xA5, 4, _taught(_water_input)),
    "D2-03-0A": (0xD2, 2, _push_button),
}


DRIVER = Streams(
    model="enocean-esp3",
    title=Title(zh="EnOcean 接收器（USB 300）", en="EnOcean receiver (USB 300)"),
    framer=esp3.framer,
    options=options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=57600),
    poll=Poll(esp3.VERSION, every_s=ASK_S),
    readings_every_s=900.0,
    repeat_s=REPEAT_S,
    strangers=Strangers.IGNORED,
    radio=True,
    note=Title(
        zh="无电池按钮无法监测是否完好，也能被仿冒：每周按一次试一试",
        en="a battery-free button cannot be supervised and can be imitated: press it once a week",
    ),
    may_call=True,
    vectors=(
        StreamVector(
            source="kipe/enocean enocean/protocol/tests/test_eep.py: a rocker is pressed",
            frame=bytes.fromhex("55000707017af650002989793001ffffffff37009d"),
            expect=Decoded((Signal(SignalKind.CALL, "BI"),), address="00298979"),
        ),
        StreamVector(
            source="kipe/enocean enocean/protocol/tests/test_eep.py: a contact opens",
            frame=bytes.fromhex("55000707017ad50801825dab0001ffffffff360053"),
            expect=Decoded((Signal(SignalKind.OPENING, "contact", level=True),), address="01825DAB"),
        ),
        StreamVector(
            source="kipe/enocean enocean/protocol/tests/test_eep.py: a temperature",
            frame=bytes.fromhex("55000a0701eba5000055080181b7440001ffffffff2d0075"),
            options={"profile": "A5-02-05", "keys": {"B0": "none"}},
            expect=Decoded((Reading("temperature", Decimal("26.7")),), address="0181B744"),
        ),
        StreamVector(
            source="kipe/enocean enocean/protocol/tests/test_packet.py: the receiver answers",
            frame=bytes.fromhex("5500050002ce00ff800000da"),
            expect=Decoded(),
        ),
        StreamVector(
            source="kipe/enocean enocean/protocol/tests/test_packet.py: a command to the receiver",
            frame=bytes.fromhex("5500010005700838"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)
