"""The pretended Xiaomi button makes the frames that others have published."""

from __future__ import annotations

import pytest

from simulator.ble_mibeacon import MIBEACON, MibeaconButton, mibeacon


@pytest.mark.parametrize(
    ("address", "key", "counter", "code", "frame"),
    [
        (
            "18:C2:3C:24:37:05", "7202a2d4201bbf82ea5bb3705657c32a", 0x235, "press",
            "58598723350537243cc218d67794020000cb2de309",
        ),
        (
            "18:C2:3C:2A:69:0D", "c533a5ab361b0a24de4d21d1d9a3d8a1", 0x901, "double",
            "58598723010d692a3cc218f397dd09000079826b9d",
        ),
        (
            "18:C2:3C:2A:69:0D", "c533a5ab361b0a24de4d21d1d9a3d8a1", 0x903, "long",
            "58598723030d692a3cc218258824090000a360b8a1",
        ),
    ],
)  # fmt: skip
def test_a_press_makes_the_published_frame(address: str, key: str, counter: int, code: str, frame: str) -> None:
    """XMWXKG01LM in xiaomi-ble tests/test_parser.py and ble_monitor test_xiaomi_parser.py."""
    button = MibeaconButton(address, key=bytes.fromhex(key), counter=counter - 1)
    payload = button.press(code)
    assert payload.service_data[MIBEACON].hex() == frame
    assert payload.counter == counter


def test_an_object_with_data_makes_the_published_frame() -> None:
    """JTYJGD03MI, smoke."""
    key = bytes.fromhex("5b51a7c91cde6707c9ef18dfda143a58")
    frame = mibeacon(0x0997, bytes.fromhex("15100101"), address="54:EF:44:E3:9C:BC", key=key, counter=0x66)
    assert frame.hex() == "5859970966bc9ce344ef5401081205000000715ebe90"


def test_the_counter_wraps_and_what_it_cannot_do_is_refused_with_what_it_can() -> None:
    button = MibeaconButton("18:C2:3C:24:37:05", key=bytes(16), counter=0xFFFF_FFFF)
    assert button.press("press").counter == 0
    assert button.heartbeat() is None
    with pytest.raises(ValueError, match="it knows press, double, long"):
        button.press("triple")
