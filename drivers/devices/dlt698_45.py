"""Electricity meters that answer DL/T 698.45 on RS-485: what the State Grid has installed since about 2018.

One poll asks for all configured registers at once; a letter a byte (all of it: `drivers.protocols.dlt698`):

    FE FE FE FE 68 LL 43 FAAAAAA 10 HH 05 02 P N OOOO OOOO... 00 SS 16      asked, O the descriptors of N attributes
    68 LL C3 FAAAAAA 10 HH 85 02 P N OOOO 01 D... OOOO 00 E... 00 00 SS 16  answered, D data, E why there is none

A meter that does not answer the list is asked for one register after the other. A register that cannot be read is told by its
name and why. The meter is never written to: the protocol module cannot build anything but GET requests, and needs no key.

Options: `registers`, the names of REGISTERS to read (or descriptors of the tables, 8 hexadecimal digits); among them "clock" puts
the meter's own time to each reading. "..._fine" are energies with four decimals. `daily_freezes`: how many days back the meter's
own midnight readings are read, each with its time. The address is the number on the meter;
AAAAAAAAAAAA asks the only meter on a line.

Limits: 1.5 s a request, 16 registers, 20 days; 37 requests a poll at worst.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from drivers.kit import (
    Answers,
    AnswerVector,
    Ask,
    BadOption,
    Decoded,
    LineSettings,
    NoReply,
    Polled,
    Reading,
    Reason,
    Rejected,
    Title,
)  # fmt: skip
from drivers.kit.fields import meter_time
from drivers.kit.options import known_keys, number
from drivers.kit.searching import Searching, lines
from drivers.protocols import dlt698, dlt698_objects, meter_search
from drivers.protocols.dlt698 import Get
from drivers.protocols.dlt698_data import Records, Response, Result, records, response

CLOCK: Final = "clock"
TIMEOUT_S: Final = 1.5
RETRIES: Final = 1
MAX_DAILY_FREEZES: Final = 20


def _registers() -> dict[str, int]:
    """Name the attributes: by quantity and phase, "..._fine" with four decimals, "..._phases" where a total has its own name."""
    found = {}
    for key, known in dlt698_objects.ATTRIBUTES.items():
        first = known.channels[0]
        phase = f"_{first.lower()}" if first and known.quantity.startswith(("energy_", "demand_")) else ""
        battery = f"_{first}" if first in ("clock", "readout") else "_neutral" if first == "N" else ""
        name = known.quantity.removeprefix("meter_") + phase + battery
        found[f"{name}_fine" if key & 0xFF == 0x04 and name.startswith("energy_") else name] = key << 8
    return found


REGISTERS: Final[Mapping[str, int]] = _registers()
DEFAULT_REGISTERS: Final = ("energy_active_import", "voltage", "current", "power_active")
ADDRESS: Final = Title(
    zh="表上的表号（偶数位数字）；线上只有这一块表时可写 AAAAAAAAAAAA",
    en="the number on the meter (an even count of digits), or AAAAAAAAAAAA for the only one",
)


def described() -> Iterator[tuple[str, str, str]]:
    """Name each register with its descriptor and what it holds, for the reference."""
    for name, oad in REGISTERS.items():
        yield name, f"{oad:08X}", dlt698_objects.attribute(oad).quantity


@dataclass(frozen=True, slots=True)
class Target:
    """A meter and what to read of it: names and descriptors, the clock among them."""

    address: str
    registers: tuple[tuple[str, int], ...]
    daily_freezes: int = 0


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    try:
        dlt698.address_bytes(address)
    except ValueError:
        raise BadOption("address", address, ADDRESS.en, zh=ADDRESS.zh) from None
    known_keys(raw, name="map", allowed=("registers", "daily_freezes"))
    names = raw.get("registers", DEFAULT_REGISTERS)
    if not isinstance(names, Sequence) or isinstance(names, str) or not 1 <= len(names) <= dlt698.MAX_LIST:
        some = ", ".join(DEFAULT_REGISTERS)
        expected = (
            f"a list of 1 to {dlt698.MAX_LIST} registers such as {some}; all of them: docs/reference/registers.md"
        )
        zh = f"1 到 {dlt698.MAX_LIST} 个寄存器名字组成的列表，例如 {some}；全部名字见 docs/reference/registers.md"
        raise BadOption("map.registers", names, expected, zh=zh)
    chosen = {str(name): _oad(name, f"map.registers[{index}]") for index, name in enumerate(names)}
    if set(chosen) == {CLOCK}:
        chosen = {**{name: REGISTERS[name] for name in DEFAULT_REGISTERS}, **chosen}
    days = number(raw, "daily_freezes", name="map", least=0, most=MAX_DAILY_FREEZES, default=0)
    return Target(address.upper(), tuple(chosen.items()), int(days))


def _oad(name: object, key: str) -> int:
    if name == CLOCK:
        return dlt698_objects.CLOCK
    if isinstance(name, str) and name in REGISTERS:
        return REGISTERS[name]
    try:
        if isinstance(name, str) and len(name) == 8 and name.isalnum():
            oad = int(name, 16)
            dlt698_objects.attribute(oad)
            return oad
    except (ValueError, Rejected):
        pass
    close = ", ".join(get_close_matches(str(name), REGISTERS, n=3) or DEFAULT_REGISTERS)
    expected = (
        f"a register such as {close}, or a descriptor of 8 hexadecimal digits; all of them: docs/reference/registers.md"
    )
    zh = f"寄存器名字，例如 {close}，或 8 位十六进制对象属性描述符；全部名字见 docs/reference/registers.md"
    raise BadOption(key, name, expected, zh=zh)


@dataclass(slots=True)
class _Found:
    address: str
    piid: int = 0
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    reason: Reason | None = None

    def ask(self, oads: Sequence[int], retries: int) -> Generator[Ask, bytes, Response]:
        """Ask for attributes. Raises Rejected where the meter's reply is not to be understood; NoReply passes."""
        address, piid = self.address, self.piid % dlt698.PIIDS
        self.piid += 1
        kind = Get.NORMAL if len(oads) == 1 else Get.LIST
        apdu = yield from self._exchange(dlt698.request(kind, address, oads, piid=piid), piid, retries)
        return response(apdu)

    def record(self, back: int, columns: Sequence[int]) -> Generator[Ask, bytes, Records]:
        """Ask for what was frozen so many midnights back. Raises and passes as `ask`."""
        piid = self.piid % dlt698.PIIDS
        self.piid += 1
        asked = dlt698.record_request(self.address, dlt698_objects.DAILY, back, columns, piid=piid)
        return records((yield from self._exchange(asked, piid, RETRIES)))

    def _exchange(self, request: bytes, piid: int, retries: int) -> Generator[Ask, bytes, bytes]:
        """Ask, and return the APDU of the reply to this very question."""
        address = self.address

        def answers(frame: bytes) -> bool:
            reply = dlt698.reply_to(frame, address=address)
            # An error of another service has no number that could be compared.
            return reply is not None and (_piid(reply.apdu) in (piid, None))

        reply = yield Ask(request, answers, TIMEOUT_S, retries)
        frame = dlt698.reply_to(reply, address=address)
        if frame is None or not answers(reply):
            raise Rejected(Reason.NOT_MINE, "no reply to this request")
        self.address = frame.address
        return frame.apdu

    def take(self, name: str, oad: int, result: Result) -> None:
        """Read what the meter says of one attribute."""
        if result.data is None:
            self.refused.append(f"{name} = {result.refusal()}")
            return
        try:
            data = dlt698_objects.decode(oad, result.data)
        except Rejected as rejected:
            self.refuse(name, rejected)
            return
        if data.refused:
            self.reason = self.reason or Reason.IMPLAUSIBLE
            self.refused += data.refused
        elif not data.readings:
            self.refused.append(f"{name} = the meter has no value")
        self.readings |= {(one.quantity, one.channel): one for one in data.readings}

    def refuse(self, name: str, rejected: Rejected) -> None:
        """Note why a register could not be read."""
        self.reason = self.reason or rejected.reason
        self.refused.append(f"{name} = {rejected.detail}")

    def stamp(self, result: Result) -> None:
        """Put the meter's own time to each reading of now."""
        try:
            now = None if result.data is None else dlt698_objects.clock(result.data)
        except Rejected as rejected:
            self.refuse(CLOCK, rejected)
            return
        if now is None:
            self.refused.append(f"{CLOCK} = {result.refusal() if result.data is None else 'the meter has none'}")
            return
        for key, one in self.readings.items():
            if one.device_time is None:
                self.readings[key] = Reading(one.quantity, one.value, one.channel, now)

    def freeze(self, name: str, back: int, record: Records) -> None:
        """Read one record of a midnight. Raises Rejected where it has no time, or holds what is no energy."""
        if not record.rows:
            why = Result(record.oad, dar=record.dar).refusal() if record.dar else "the meter has none"
            self.refused.append(f"{name} = {why}")
            return
        row = dict(zip(record.columns, record.rows[0], strict=True))
        time = row.pop(dlt698_objects.FREEZE_TIME, None)
        at = None if time is None else dlt698_objects.clock(time)
        if at is None:
            self.refused.append(f"{name} = a record without a time")
            return
        for oad, element in row.items():
            data = dlt698_objects.decode(oad, element)
            self.refused += data.refused
            for one in data.readings:
                channel = f"{one.channel}/D{back}" if one.channel else f"D{back}"
                self.readings[one.quantity, channel] = Reading(one.quantity, one.value, channel, at)


def _piid(apdu: bytes) -> int | None:
    """Return the number of the question that a reply to GET names; None where it is another service."""
    if apdu[:2] == b"\x90\x00":
        apdu = apdu[4:] if apdu[2:3] == b"\x81" else apdu[5:] if apdu[2:3] == b"\x82" else apdu[3:]
    return apdu[2] & 0x3F if len(apdu) > 2 and apdu[0] == 0x85 else None


def talk(target: Target) -> Generator[Ask, bytes, Polled]:
    """Poll once. Raises Rejected where nothing could be read, or a reply is not the meter's; NoReply passes."""
    found = _Found(target.address)
    results = yield from _results(found, target)
    for name, oad in target.registers:
        if name != CLOCK and oad in results:
            found.take(name, oad, results[oad])
    if dlt698_objects.CLOCK in results:
        found.stamp(results[dlt698_objects.CLOCK])
    if results:
        yield from _freezes(found, target)
    observations = tuple(found.readings.values())
    if not observations:
        detail = "; ".join(dict.fromkeys(found.refused))
        raise Rejected(found.reason or Reason.UNSUPPORTED, detail)
    return Decoded(observations, refused=tuple(found.refused)) if found.refused else observations


def _freezes(found: _Found, target: Target) -> Generator[Ask, bytes, None]:
    """Read the energies that the meter froze at midnight. Each record says its own time: a midnight in between moves none."""
    energies = [REGISTERS[name] for name in ("energy_active_import", "energy_active_export")]
    energies = energies[: 1 + any(oad == energies[1] for _, oad in target.registers)]
    for back in range(1, target.daily_freezes + 1):
        name = f"daily_freeze_{back}"
        try:
            record = yield from found.record(back, [dlt698_objects.FREEZE_TIME, *energies])
            found.freeze(name, back, record)
        except NoReply:
            found.refused.append(f"{name} = no reply")
            break
        except Rejected as rejected:
            if rejected.reason is Reason.NOT_MINE:
                raise
            found.refuse(name, rejected)


def _results(found: _Found, target: Target) -> Generator[Ask, bytes, dict[int, Result]]:
    """Ask for all attributes at once; what that does not bring, one by one."""
    results: dict[int, Result] = {}
    if len(target.registers) > 1:
        try:
            answer = yield from found.ask([oad for _, oad in target.registers], 0)
            results = {result.oad: result for result in answer.results}
        except (NoReply, Rejected) as error:
            if isinstance(error, Rejected) and error.reason is Reason.NOT_MINE:
                raise
    heard = bool(results)
    for name, oad in target.registers:
        if oad in results:
            continue
        try:
            answer = yield from found.ask([oad], RETRIES)
        except NoReply:
            if not heard:
                raise
            found.refused.append(f"{name} = no reply")
            break
        except Rejected as rejected:
            if rejected.reason is Reason.NOT_MINE:
                raise
            found.refuse(name, rejected)
            continue
        finally:
            heard = True
        for result in answer.results:
            if result.oad == oad:
                results[oad] = result
    return results


def history(target: Target, days: int) -> Target:
    """Return the target that is also read at the last `days` midnights, as far as one poll can ask."""
    return replace(target, daily_freezes=max(target.daily_freezes, min(days, MAX_DAILY_FREEZES)))


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


DRIVER = Answers(
    model="dlt698-45",
    title=Title(zh="DL/T 698.45 电能表", en="DL/T 698.45 electricity meter"),
    framer=dlt698.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=9600, bits=8, parity="E", stop=1),
    sender=dlt698.sender,
    history=history,
    search=Searching(
        meter_search.dlt698_meters,
        lines("9600 8E1", "2400 8E1"),
        questions=1,
        timeout_s=meter_search.TIMEOUT_S,
    ),
    vectors=(
        AnswerVector(
            source="Python debugging script of a 698.45 tool (FrameParser example): a meter with one phase in use",
            address="202407030001",
            options={"registers": ["voltage"]},
            exchange=(
                (
                    _hex("fefefefe681700430501000307242010a2ff0501002000020000e5be16"),
                    _hex("682400c305010003072420100956850100200002000101031208eb1200001200000000fbff16"),
                ),
            ),
            expect=(
                Reading("voltage", Decimal("228.3"), "A"),
                Reading("voltage", Decimal("0.0"), "B"),
                Reading("voltage", Decimal("0.0"), "C"),
            ),
        ),
        AnswerVector(
            source="synthetic: a list of three, of which one is not there, and the meter's clock",
            address="202407030001",
            options={"registers": ["energy_active_import", "power_active", "clock"]},
            exchange=(
                (
                    _hex("fefefefe6820004305010003072420108bcc050200030010020020040200400002000032a216"),
                    _hex(
                        "683e00c30501000307242010c4308502000300100200010103060001e240060000271006000186a0"
                        "20040200000440000200011c07ea0b1d161e3b0000d47d16"
                    ),
                ),
            ),
            expect=Decoded(
                tuple(
                    Reading("energy_active_import", Decimal(value), channel, meter_time(2026, 11, 29, 22, 30, 59))
                    for channel, value in (("", "1234.56"), ("T1", "100.00"), ("T2", "1000.00"))
                ),
                refused=("power_active = object undefined (DAR 4)",),
            ),
        ),
        AnswerVector(
            source="synthetic: no such object",
            address="28417891",
            options={"registers": ["voltage"]},
            exchange=(
                (
                    _hex("fefefefe681500430391784128106a740501002000020000e5be16"),
                    _hex("681800c3039178412810a5ff85010020000200000600006c1216"),
                ),
            ),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)
