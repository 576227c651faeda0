"""Pairing as a technician does it: presses are counted, the key is tried, and what is printed loads."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from gateway.cli import pairing
from gateway.cli.layout import Paper
from gateway.config import inspect

BUTTON = "A4:C1:38:56:53:84"
SENSOR = "A4:C1:38:00:00:01"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
CONFIG = """
[gateway]
id = "g"
org = "o"
site = "s"
[[room]]
id = "201"
[[ble]]
id = "radio"
[[device]]
id = "call-201-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:00:00:02"
room = "201"
allow_plain = true
[[destination]]
id = "d"
[[destination.path]]
url = "mqtt://127.0.0.1"
"""


def heard(
    data: str, address: str = BUTTON, *, device: str = "", service: str = "fcd2", maker: str = ""
) -> dict[str, Any]:
    """What the control socket sends of one advert."""
    services, makers = ({}, {maker: data}) if maker else ({service: data}, {})
    capture = {"mac": address, "name": "", "service_data": services, "manufacturer_data": makers}
    return {"kind": "advert", "link": "radio", "device": device, "rssi": -60, "capture": capture}


def plain(packet: int, event: int = 1) -> str:
    return f"4000{packet:02x}3a{event:02x}"


def sealed(counter: int, *, key: bytes = KEY, address: str = BUTTON) -> str:
    """A press, encrypted as BTHome has it."""
    tail = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(address.replace(":", "")) + b"\xd2\xfc\x41" + tail
    cipher = AESCCM(key, tag_length=4).encrypt(nonce, b"\x3a\x01", None)
    return (b"\x41" + cipher[:-4] + tail + cipher[-4:]).hex()


class Technician:
    """Whoever answers the questions, in their order, and what was shown."""

    def __init__(self, tmp_path: Path, *answers: str, keys: tuple[str, ...] = ()) -> None:
        self.config = tmp_path / "gateway.toml"
        self.config.write_text(CONFIG, encoding="utf-8")
        self.answers, self.keys = list(answers), list(keys)
        self.asked: list[str] = []
        self.out = io.StringIO()

    def pair(self, items: Iterator[Mapping[str, Any]], *, lang: str = "en", room: str = "", name: str = "") -> bool:
        return pairing.pair(
            Paper(lang, self.out), items, config=self.config, room=room, name=name,
            ask=lambda question: self.asked.append(question) or self.answers.pop(0),  # type: ignore[func-returns-value]
            ask_key=lambda question: self.asked.append(question) or self.keys.pop(0),  # type: ignore[func-returns-value]
        )  # fmt: skip

    @property
    def said(self) -> str:
        return self.out.getvalue()

    @property
    def block(self) -> str:
        """The [[device]] that was printed."""
        return self.said[self.said.index("[[device]]") :].partition("\n\n")[0] + "\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds pass from one advert to the next."""
    ticks = itertools.count(100.0, 2.0)
    monkeypatch.setattr(pairing.time, "monotonic", lambda: next(ticks))


@pytest.mark.usefixtures("clock")
def test_a_plain_button_is_found_by_its_three_presses_and_what_is_printed_loads(tmp_path: Path) -> None:
    technician = Technician(tmp_path, "y", "201")
    items = [
        heard("40020a00", SENSOR), heard(plain(1)), heard(plain(1)), heard("40020b00", SENSOR), heard(plain(2)),
        heard(plain(9), "A4:C1:38:00:00:02", device="call-201-1"), heard(plain(3, 4)),
    ]  # fmt: skip
    assert technician.pair(iter(items))
    assert [line.split()[1] for line in technician.said.splitlines() if BUTTON in line and "dBm" in line] == [
        "1/3", "2/3", "3/3",
    ]  # fmt: skip
    assert technician.block == (
        '[[device]]\nid = "call-201-2"\nmodel = "bthome-button"\nlink = "radio"\naddress = "A4:C1:38:56:53:84"\n'
        'room = "201"\nallow_plain = true\n'
    )
    path = tmp_path / "with.toml"
    path.write_text(CONFIG + technician.block, encoding="utf-8")
    settings, _findings = inspect(path)
    assert settings is not None
    assert [one.id for one in settings.devices] == ["call-201-1", "call-201-2"]
    assert "has something against" not in technician.said


@pytest.mark.usefixtures("clock")
def test_a_key_is_tried_on_what_the_button_has_sent(tmp_path: Path) -> None:
    technician = Technician(tmp_path, "y", "201", keys=("nonsense", "00" * 16, KEY.hex()))
    assert technician.pair(heard(sealed(counter)) for counter in (7, 7, 8, 9))
    assert technician.said.count("no key") == 1
    assert technician.said.count("does not open") == 1
    assert "The key fits" in technician.said
    assert 'key = "credential:call-201-2"' in technician.block
    assert "credentials/call-201-2" in technician.said
    assert KEY.hex() not in technician.said
    assert len(technician.asked) == 5


@pytest.mark.usefixtures("clock")
def test_without_its_key_an_encrypted_button_is_paired_with_a_warning(tmp_path: Path) -> None:
    technician = Technician(tmp_path, "y", keys=("",))
    assert technician.pair((heard(sealed(counter)) for counter in (1, 2, 3)), room="201", name="sos-3")
    assert "unverified alarms" in technician.said
    assert 'id = "sos-3"' in technician.block
    assert 'key = "credential:sos-3"' in technician.block


@pytest.mark.usefixtures("clock")
def test_a_button_without_a_counter_is_counted_by_the_silence_between(tmp_path: Path) -> None:
    technician = Technician(tmp_path, "y", "201")
    press = "80bc3a0101ffff0000000006030000"
    assert technician.pair(heard(press, maker="0059") for _ in range(3))
    assert 'model = "ingics-ibs"' in technician.block


def test_adverts_of_one_press_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(100.0, 0.1)
    monkeypatch.setattr(pairing.time, "monotonic", lambda: next(ticks))
    technician = Technician(tmp_path)
    assert not technician.pair(heard("80bc3a0101ffff0000000006030000", maker="0059") for _ in range(30))
    assert technician.said.count("dBm") == 1
    assert "No new button was heard" in technician.said


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_no_to_the_address_ends_it(tmp_path: Path, lang: str) -> None:
    technician = Technician(tmp_path, "n")
    assert not technician.pair((heard(plain(packet)) for packet in (1, 2, 3)), lang=lang)
    assert "[[device]]" not in technician.said


@pytest.mark.usefixtures("clock")
def test_what_would_be_wrong_with_it_is_told(tmp_path: Path) -> None:
    technician = Technician(tmp_path, "y")
    assert technician.pair((heard(plain(packet)) for packet in (1, 2, 3)), room="999", name="call-201-1")
    assert "GW-CFG-08" in technician.said  # the id is taken
    assert "GW-CFG-14" in technician.said  # there is no such room


@pytest.mark.usefixtures("clock")
def test_a_configuration_that_cannot_be_read_is_told_and_the_table_printed_all_the_same(tmp_path: Path) -> None:
    technician = Technician(tmp_path, "y", "201")
    technician.config.unlink()
    assert technician.pair(heard(plain(packet)) for packet in (1, 2, 3))
    assert 'id = "call-201-1"' in technician.block
    assert "nothing was checked" in technician.said


def test_nonsense_from_the_socket_is_no_advert() -> None:
    for item in ({}, {"kind": "advert"}, {"kind": "advert", "capture": {}}, {"kind": "advert", "capture": {"mac": "x"}},
                 heard("zz"), {"lost": 3}):  # fmt: skip
        assert pairing.advert_of(item) is None
    presses = pairing.Presses(pairing.callers())
    assert presses.take({"kind": "frame", "capture": {"bytes": "00"}}, 0.0) is None
    assert presses.take(heard("zz"), 0.0) is None


def test_the_ids_cover_what_the_drivers_read() -> None:
    ids = pairing.ids_of(pairing.callers())
    assert {0xFCD2, 0xFE95, 0x0059, 0x03DA} <= {*ids}
    assert len(ids) <= 256


def test_a_crowd_of_strangers_does_not_end_the_counting_of_those_who_came_before() -> None:
    presses = pairing.Presses(pairing.callers())
    assert presses.take(heard(plain(1)), 0.0) is not None
    for number in range(pairing.MAX_SENDERS + 1):
        presses.take(heard(plain(1), address=f"A4:C1:39:00:{number >> 8:02X}:{number & 255:02X}"), 0.0)
    assert len(presses.senders) == 256
    assert presses.take(heard(plain(2)), 5.0) is not None
