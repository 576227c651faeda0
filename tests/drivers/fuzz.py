"""Throws bytes at every decoder: `PYTHONPATH=. python tests/drivers/fuzz.py --cases 1000000 [--seed N] [MODEL ...]`.

Half of the cases are random bytes; the others are the vectors, cut, flipped, glued and spliced, and, where a check would
keep them out, sealed with a right one. A decoder may answer or raise Rejected, a poll NoReply too; anything else is a
crash: it is printed with its input, and the exit status is 1. Not collected by pytest: a million cases take minutes.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from drivers.kit import Advert, Advertises, Answers, NoReply, Rejected, Streams
from drivers.kit.catalogue import load, models, templates
from drivers.kit.checks import crc8, crc16_modbus, xor8
from drivers.protocols import bthome, enocean_ble, mibeacon
from drivers.protocols.mibeacon_products import PRODUCTS, product
from drivers.protocols.modbus_maps import MAPS
from tests.drivers.fuzz_line_meters import MBUS_KEY, sealed_cjt188, sealed_mbus, sealed_modbus, sealed_p1, sealed_sml
from tests.drivers.fuzz_meters import CODECS, Case, codec_case, sealed_dlt645, sealed_dlt698

MOST_ASKS = 64
MOST_CRASHES = 10


def mutate(rng: random.Random, samples: list[bytes], *, longest: int = 80) -> bytes:
    """Random bytes, or a sample that is not what it was."""
    if not samples or rng.random() < 0.5:
        return rng.randbytes(rng.randrange(longest))
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at:at] = rng.randbytes(rng.randrange(1, 6))
            case 2:
                del data[at : at + rng.randrange(1, 8)]
            case 3:
                data[at:] = rng.choice(samples)[rng.randrange(8) :]
            case 4 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case _:
                data += rng.choice(samples)
    return bytes(data)


def sealed_bthome(rng: random.Random, samples: list[bytes]) -> tuple[Advert, bytes]:
    """Any objects, encrypted as they should be."""
    info, counter, key = b"\x41", rng.randbytes(4), bytes(16)
    plain = mutate(rng, [sample[1:] for sample in samples], longest=30)
    sealed = AESCCM(key, tag_length=4).encrypt(bytes(6) + b"\xd2\xfc" + info + counter, plain, None)
    data = info + sealed[:-4] + counter + sealed[-4:]
    return Advert("00:00:00:00:00:00", service_data={bthome.SERVICE: data}), key


def sealed_enocean(rng: random.Random) -> tuple[Advert, bytes]:
    """Any status and optional data, signed as they should be; now and then a key in clear."""
    address, key = bytes.fromhex("e215000019b8"), bytes(16)
    body = rng.randbytes(4) + bytes([rng.randrange(32)]) + rng.randbytes(rng.choice((0, 1, 2, 3, 4, 11, 17)))
    data = body + enocean_ble.signature(body, address=address, key=key)
    return Advert("E2:15:00:00:19:B8", manufacturer_data={enocean_ble.COMPANY: data}), key


def sealed_mibeacon(rng: random.Random) -> tuple[Advert, bytes | None]:
    """Any objects of any product, plain or encrypted as they should be, most with ids that the product has."""
    number, key, counter = rng.choice((*PRODUCTS, rng.randrange(0x10000))), bytes(16), rng.randbytes(4)
    plain = b""
    for _ in range(rng.randrange(4)):
        id_ = rng.choice((*product(number).objects, rng.randrange(0x10000)))
        data = rng.choice((rng.randbytes(rng.choice((0, 1, 1, 2, 3, 4, 5, 9))), bytes([rng.randrange(5)])))
        plain += id_.to_bytes(2, "little") + bytes([len(data)]) + data
    head = rng.choice((0x5048, 0x5040, 0x3048)).to_bytes(2, "little") + number.to_bytes(2, "little") + counter[:1]
    if head[0] == 0x48 and head[1] == 0x50:
        sealed = AESCCM(key, tag_length=4).encrypt(bytes(6) + head[2:] + counter[1:], plain, b"\x11")
        plain = sealed[:-4] + counter[1:] + sealed[-4:]
    advert = Advert("00:00:00:00:00:00", service_data={mibeacon.SERVICE: head + plain})
    return advert, rng.choice((key, key, key, None))


def sealed_tinyframe(rng: random.Random) -> bytes:
    """Any content of a type that is read, with right checks, most of it of a length that fits."""
    kind = rng.choice(
        (0x0E02, 0x0F09, 0x0E06, 0x0E0C, 0x0E0E, 0x0A08, rng.randrange(0x0A0A, 0x0A18), rng.randrange(0x10000))
    )
    data = rng.choice((rng.randbytes(rng.choice((0, 1, 4, 12, 16, 40))), bytes([rng.randrange(3)])))
    head = b"\x01" + rng.randbytes(2) + len(data).to_bytes(2, "big") + kind.to_bytes(2, "big")
    return head + bytes([xor8(head) ^ 0xFF]) + (data + bytes([xor8(data) ^ 0xFF]) if data else b"")


def sealed_espa(rng: random.Random) -> bytes:
    """Any records with a right check, sometimes with the parity bits of seven-bit characters."""
    parts = [
        rng.choice((b"1", b"2", b"4", b"6", b" 1", b"", rng.randbytes(2))) + b"\x1f" for _ in range(rng.randrange(6))
    ]
    values = [rng.choice((b"1", b"3", b"301", b"", rng.randbytes(rng.randrange(20)))) for _ in parts]
    body = b"\x1e".join(part + value for part, value in zip(parts, values, strict=True))
    content = rng.choice((b"1", b"1", b"2", b"5", b"", rng.randbytes(1))) + rng.choice((b"\x02", b"")) + body + b"\x03"
    block = b"\x01" + content + bytes([xor8(content)])
    if rng.random() < 0.2:
        block = bytes((byte & 0x7F) | (0x80 if (byte & 0x7F).bit_count() % 2 else 0) for byte in block)
    return rng.choice((b"", b"\x04", b"1\x052\x05", b"\x01")) + block


def sealed_micradar(rng: random.Random) -> bytes:
    """Any content under a control word that is read, with a right sum, most of it of a length that fits."""
    control, command = rng.choice((0x83, 0x80, 0x81, 0x84, 0x85, 2, rng.randrange(256))), rng.randrange(9)
    data = rng.choice((rng.randbytes(rng.choice((0, 1, 2, 6, 40))), bytes([rng.randrange(17)])))
    frame = b"\x53\x59" + bytes([control, command | rng.choice((0, 0x80))]) + len(data).to_bytes(2, "big") + data
    return frame + bytes([sum(frame) & 0xFF]) + b"\x54\x43"


def sealed_mr24(rng: random.Random) -> bytes:
    """Any content with a right check."""
    start = rng.choice((b"\x06\x01\x01", b"\x06\x01\x02", b"\x04\x03\x05", b"\x04", rng.randbytes(3)))
    body = start + rng.randbytes(rng.randrange(1, 6))
    frame = b"\x55" + (len(body) + 4).to_bytes(2, "little") + body
    return frame + crc16_modbus(frame).to_bytes(2, "little")


def sealed_esp3(rng: random.Random) -> bytes:
    """A telegram of any choice with right checks, most of it of a length that fits."""
    choice, size = rng.choice(((0xF6, 1), (0xD5, 1), (0xA5, 4), (0xD2, 2), (rng.randrange(256), rng.randrange(20))))
    data, extra = bytes([choice]) + rng.randbytes(size + 5), rng.randbytes(rng.choice((0, 7)))
    head = len(data).to_bytes(2, "big") + bytes([len(extra), rng.choice((1, 1, 1, 2, 9))])
    return b"\x55" + head + bytes([crc8(head)]) + data + extra + bytes([crc8(data + extra)])


def sealed_tap(rng: random.Random) -> bytes:
    """A block of any content with a right sum."""
    content = rng.choice((b"301\rHELP\r", bytes(rng.randrange(0x20, 0x80) for _ in range(rng.randrange(40)))))
    data = b"\x02" + content + rng.choice((b"\x03", b"\x17", b"\x1f"))
    total = sum(data)
    return data + bytes(0x30 + (total >> shift & 15) for shift in (8, 4, 0)) + b"\r"


def sealed_ev1527(rng: random.Random) -> bytes:
    """Any code in the frame of a board."""
    return b"\xfd" + rng.randbytes(4) + b"\xdf"


def sealed_bridge(rng: random.Random) -> bytes:
    """Any code, or any raw reception, in the frame of the bridge."""
    if rng.random() < 0.5:
        return b"\xaa\xa4" + rng.randbytes(9) + b"\x55"
    count = rng.randrange(1, 9)
    symbols = bytes(rng.randrange(count) << 4 | rng.randrange(count) for _ in range(rng.randrange(40)))
    return b"\xaa\xb1" + bytes([count]) + rng.randbytes(2 * count) + symbols + b"\x55"


SEALED: dict[str, Callable[[random.Random], bytes]] = {
    "espa444": sealed_espa,
    "micradar": sealed_micradar,
    "mr24fdb1": sealed_mr24,
    "enocean-esp3": sealed_esp3,
    "tap": sealed_tap,
    "ev1527-board": sealed_ev1527,
    "sonoff-rf-bridge": sealed_bridge,
    "andar-radar": sealed_tinyframe,
    "p1-port": sealed_p1,
    "sml-meter": sealed_sml,
}

SEALED_REPLIES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "cjt188": sealed_cjt188,
    "mbus": sealed_mbus,
    "modbus-meter": sealed_modbus,
}

JSON_VALUES = (
    *("1", "-1", "0", "1.5", "1e400", "-0.0", "1E-9", "9223372036854775807", "9223372036854775808", "1" * 300),
    *(
        '"X"',
        "null",
        "true",
        "false",
        "NaN",
        '""',
        '"press"',
        '"b1"',
        '"\\ud800"',
        '"\\u0000"',
        "[]",
        "[1]",
        "{}",
        '{"a":{"a":1}}',
    ),
)


def sealed_json(rng: random.Random) -> bytes:
    """An object with the fields that the vectors map, and any value in them."""
    names = rng.choices(("dev", "n", "s", "ev", "kwh", "x", "model", "id", "code", "battery_ok"), k=rng.randrange(7))
    values = {name: rng.choice(JSON_VALUES) for name in names} | ({"dev": '"b1"'} if rng.random() < 0.7 else {})
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}\n").encode()


SEALED |= {"json-lines": sealed_json, "rtl433": sealed_json}


def advert_case(driver: Advertises, rng: random.Random) -> Case:
    """One advert into decode()."""
    adverts = [vector.advert for vector in driver.vectors]
    services = sorted({key for advert in adverts for key in advert.service_data} | {0xFE95, 0x181C})
    makers = sorted({key for advert in adverts for key in advert.manufacturer_data} | {0x004C, 0x0059})
    samples = [
        data for advert in adverts for part in (advert.service_data, advert.manufacturer_data) for data in part.values()
    ]
    keys = [vector.key for vector in driver.vectors] + [bytes(5)]
    configured = [driver.configured(vector.options) for vector in driver.vectors]

    def case() -> str:
        advert, key = (
            Advert(
                rng.choice(("54:48:E6:8F:80:A5", "no address")),
                service_data={rng.choice(services): mutate(rng, samples)},
                manufacturer_data={rng.choice(makers): mutate(rng, samples)},
            ),
            rng.choice(keys),
        )
        if driver.model.startswith("bthome-") and rng.random() < 0.2:
            advert, key = sealed_bthome(rng, samples)
        if driver.model == "enocean-ptm" and rng.random() < 0.4:
            advert, key = sealed_enocean(rng)
        if driver.model == "xiaomi-mibeacon" and rng.random() < 0.5:
            advert, key = sealed_mibeacon(rng)
        case.last = (advert, key)  # type: ignore[attr-defined]  # shown when it crashes
        chosen = rng.choice(configured)
        if chosen.identify:
            chosen.identify(advert)
        chosen.decode(advert, key)
        return "decoded"

    return case


def stream_case(driver: Streams, rng: random.Random) -> Case:
    """One frame into decode() and address_of(), and the same bytes into a framer that lives on."""
    samples = [vector.frame for vector in driver.vectors]
    options = [driver.options(vector.options) for vector in driver.vectors]
    if driver.keyed is not None:
        options.append(driver.keyed(options[0], bytes(16)))
    framer = driver.framer()
    fed = given_back = 0

    def case() -> str:
        nonlocal fed, given_back
        data, chosen = mutate(rng, samples), rng.choice(options)
        if rng.random() < 0.5 and driver.model in SEALED:
            data = SEALED[driver.model](rng)
        case.last = data  # type: ignore[attr-defined]  # as above
        found = framer.feed(data)
        fed += len(data)
        given_back += sum(map(len, found))
        assert 0 <= fed - given_back - framer.skipped <= framer.limit
        for frame in (*found, data):
            if driver.address_of:
                driver.address_of(frame, chosen)
        driver.decode(rng.choice((*found, data)), chosen)
        return "decoded"

    return case


def targets_of(driver: Answers) -> list[Any]:
    """What may be polled: the targets of the vectors, and such as read more."""
    targets = [driver.options(vector.address, vector.options) for vector in driver.vectors]
    if driver.model.startswith("dlt645-"):
        targets.append(driver.options("000000193600", {}))
    if driver.model == "dlt645-2007":
        everything = ["energy_active_import", "clock", "status", "demand_active_import", "power_factor_phases"]
        targets.append(driver.options("AAAAAAAAAAAA", {"registers": everything, "daily_freezes": 2}))
    if driver.model == "dlt698-45":
        targets.append(
            driver.options(
                "AAAAAAAAAAAA", {"registers": ["energy_active_import", "voltage", "clock"], "daily_freezes": 2}
            )
        )
    if driver.model == "modbus-meter":
        targets += [driver.options("1", {"meter": name}) for name in MAPS]
    if driver.keyed is not None:
        targets += [driver.keyed(target, MBUS_KEY) for target in targets]
    return targets


def answer_case(driver: Answers, rng: random.Random) -> Case:
    """One poll with nothing but such replies, and the same bytes into a framer that lives on."""
    samples = [reply for vector in driver.vectors for _, reply in vector.exchange if reply is not None]
    targets = targets_of(driver)
    framer = driver.framer()
    fed = given_back = 0

    def reply_to(request: bytes) -> bytes:
        if driver.model.startswith("dlt645-") and rng.random() < 0.6:
            return sealed_dlt645(rng, request)
        if driver.model in SEALED_REPLIES and rng.random() < 0.6:
            return SEALED_REPLIES[driver.model](rng, request)
        if driver.model == "dlt698-45" and rng.random() < 0.7:
            return sealed_dlt698(rng, request)
        return mutate(rng, samples)

    def case() -> str:
        nonlocal fed, given_back
        replies: list[bytes] = []
        case.last = replies  # type: ignore[attr-defined]  # as above
        talk = driver.talk(rng.choice(targets))
        ask = next(talk)
        try:
            for _ in range(MOST_ASKS):
                data = reply_to(ask.request)
                replies.append(data)
                found = framer.feed(data)
                fed += len(data)
                given_back += sum(map(len, found))
                assert 0 <= fed - given_back - framer.skipped <= framer.limit
                for frame in (*found, data):
                    if driver.sender is not None:
                        driver.sender(frame)
                ask.answers(data)
                ask = talk.throw(NoReply()) if rng.random() < 0.05 else talk.send(data)
        except StopIteration:
            return "polled"
        raise AssertionError("the poll does not end")

    return case


def run(name: str, *, cases: int, seed: int) -> int:
    """Fuzz one driver; give the number of crashes."""
    rng, crashes = random.Random(seed), 0  # noqa: S311 - a seed that can be repeated is the point
    driver = None if name in CODECS else load(name)
    if driver is None:
        case = codec_case(name, rng)
    elif isinstance(driver, Advertises):
        case = advert_case(driver, rng)
    elif isinstance(driver, Streams):
        case = stream_case(driver, rng)
    else:
        case = answer_case(driver, rng)
    outcomes: Counter[str] = Counter()
    began = time.perf_counter()
    for _ in range(cases):
        try:
            outcomes[case()] += 1
        except Rejected as rejection:
            outcomes[rejection.reason.value] += 1
        except NoReply:
            outcomes["no-reply"] += 1
        except Exception:  # noqa: BLE001 - finding these is what the script is for
            crashes += 1
            print(f"CRASH in {name} by {case.last!r}")  # type: ignore[attr-defined]  # as above
            traceback.print_exc()
            if crashes >= MOST_CRASHES:
                break
    took = time.perf_counter() - began
    counts = " ".join(f"{reason}={count}" for reason, count in outcomes.most_common())
    print(f"{name}: {cases} cases, {crashes} crashes, {cases / took:.0f} cases/s: {counts}", flush=True)
    return crashes


def main() -> int:
    """Fuzz the named models, or all of them and the templates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("model", nargs="*")
    chosen = parser.parse_args()
    names = [
        model if model in CODECS else model.replace("-", "_") for model in chosen.model or (*models(), *CODECS)
    ] + ([] if chosen.model else list(templates()))
    return 1 if sum(run(name, cases=chosen.cases, seed=chosen.seed) for name in names) else 0


if __name__ == "__main__":
    sys.exit(main())
