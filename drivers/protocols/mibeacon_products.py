"""The products that speak MiBeacon, and what their objects mean: a table, for an id from 4800 on is another thing in another.

`may_call`: a press, smoke, water or gas may come of it, so that a frame of it that no key opens may be a call for help.
A product that is not here is read by the ids that all products share, and may call: it is better heard than sorted. Its own
events 0C, 0D and 0E are taken for a press, a double and a long one, as they are in every button that is known.

The keys of sensors (the test key of a smoke detector, the button inside a door sensor) are for whoever installs them and
call nobody. Locks tell what their door does; who unlocked it, and how, is read past.

Ids and meanings are facts from the maker's list of objects, the parsers of xiaomi-ble (Apache-2.0) and ble_monitor, and
the frames that their tests publish. Limit: what only one of them knows, and no published frame shows, is marked "unseen".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import SignalKind
from drivers.protocols import mibeacon_meaning as is_
from drivers.protocols.mibeacon_meaning import Reader

FIRST_OWN: Final = 0x4800

Objects = Mapping[int, Reader]


@dataclass(frozen=True, slots=True)
class Product:
    """A product: what people call it, what its objects mean, whether it may call."""

    model: str
    objects: Objects
    may_call: bool = False


_SHARED: Final[Objects] = {
    **dict.fromkeys(
        (
            0x0006, 0x0008, 0x000A, 0x000B, 0x0010, 0x1001, 0x1005, 0x1009, 0x100E, 0x100F, 0x1010, 0x1012, 0x1013, 0x1018,
            0x2000, 0x3003,
        ),
        is_.nothing,
    ),
    0x0003: is_.moved_once,
    0x0007: is_.lock_door,
    0x000F: is_.moved,
    0x1004: is_.whole("temperature", 2, tenths=True, signed=True),
    0x1006: is_.whole("humidity", 2, tenths=True),
    0x1007: is_.whole("illuminance", 3),
    0x1008: is_.whole("moisture", 1),
    0x100A: is_.whole("battery", 1),
    0x100D: is_.climate,
    0x1014: is_.state(SignalKind.WATER_LEAK),
    0x1015: is_.state(SignalKind.SMOKE),
    0x1017: is_.still_for(4),
    0x1019: is_.opening(opened=0, closed=1, left_open=2),
    0x101B: is_.still,
}  # fmt: skip

# Own ids that many products of one hand have alike.
_BATTERY: Final[Objects] = {
    **dict.fromkeys((0x4803, 0x4C03, 0x5003, 0x5403), is_.whole("battery", 1)),
    **dict.fromkeys((0x4A01, 0x4E01, 0x5601), is_.state(SignalKind.LOW_BATTERY)),
    **dict.fromkeys((0x4C14, 0x4E1C, 0x5414, 0x4A1C, 0x5422), is_.nothing),
}
_CLIMATE: Final[Objects] = {
    **dict.fromkeys((0x4801, 0x4C01), is_.real("temperature")),
    **dict.fromkeys((0x4808, 0x4C08), is_.real("humidity")),
    **dict.fromkeys((0x4802, 0x4C02), is_.whole("humidity", 1)),
}
_MOTION: Final[Objects] = {
    0x4805: is_.real("illuminance"),
    0x4818: is_.still_for(2),
    0x4A08: is_.moved_in_light(is_.real("illuminance")),
}
_PRESENCE: Final[Objects] = {**_MOTION, **dict.fromkeys((0x4851, 0x4852), is_.nothing)}
_DOOR: Final[Objects] = {
    0x4804: is_.opening(opened=1, closed=2),
    0x4A0F: is_.forced,
    0x4A12: is_.opening(opened=1, closed=2),
    0x4A13: is_.nothing,
    0x4A1A: is_.opening(opened=-1, closed=-1, left_open=1),
}
_PAD: Final[Objects] = {
    0x483C: is_.state(SignalKind.BED_EXIT, on=(0,), off=range(1, 256)),
    **dict.fromkeys((0x483D, 0x483E, 0x483F, 0x4840), is_.nothing),
}
_PILLOW: Final[Objects] = {
    **dict.fromkeys((0x4810, 0x5010), is_.pillow_sleep),
    **dict.fromkeys((0x4811, 0x5011), is_.nothing),
    0x4E16: is_.once(1, is_.empty_bed(empty=2, taken=1)),
    0x4E17: is_.once(2, is_.empty_bed(empty=2, taken=1)),
    0x5A16: is_.pillow,
}
_SPLASH: Final[Objects] = {
    0x4806: is_.state(SignalKind.WATER_LEAK, channel="bottom"),
    0x487B: is_.state(SignalKind.WATER_LEAK, channel="splash"),
    0x4A68: is_.water_event,
}

# Buttons. Old ones say in 1001 which was pressed and how, later ones have an id for each way of pressing.
_LEFT_RIGHT_OLD: Final = {0: ("left",), 1: ("right",), 2: ("left", "right")}
_THREE_OLD: Final = {
    0: ("left",),
    1: ("middle",),
    2: ("right",),
    3: ("left", "middle"),
    4: ("middle", "right"),
    5: ("left", "right"),
    6: ("left", "middle", "right"),
}
_LEFT_RIGHT: Final = {1: ("left",), 2: ("right",), 3: ("left", "right")}
_FOUR: Final = {number: (str(number),) for number in range(1, 5)}


def _remote(*names: str) -> Objects:
    return {0x1001: is_.old_button({number: (name,) for number, name in enumerate(names)})}


def _k9b(channels: Mapping[int, tuple[str, ...]] | None = None) -> Objects:
    """Linptech K9B: 1 is long and 2 double, the other way round than everybody else."""
    return {0x1001: is_.old_button(channels, codes=("press", "long", "double"))}


def _presses(first: int, channels: Mapping[int, tuple[str, ...]] | None = None) -> Objects:
    """Three ids in a row: press, double, long."""
    return {first + n: is_.press(code, channels) for n, code in enumerate(("press", "double", "long"))}


def _calls(model: str, *objects: Objects) -> Product:
    return Product(model, _merged(_BATTERY, *objects), may_call=True)


def _tells(model: str, *objects: Objects) -> Product:
    return Product(model, _merged(_BATTERY, *objects))


def _merged(*objects: Objects) -> Objects:
    return {id_: reader for one in (_SHARED, *objects) for id_, reader in one.items()}


PRODUCTS: Final[Mapping[int, Product]] = {
    # Buttons and remotes.
    0x07BF: _calls("YLAI003", {0x1001: is_.old_button()}),
    0x0153: _calls("YLYK01YL", _remote("on", "off", "brightness", "plus", "m", "minus")),
    0x068E: _calls("YLYK01YL-FANCL", _remote("fan", "light", "speed", "color", "mode", "brightness")),
    0x04E6: _calls("YLYK01YL-VENFAN", _remote("swing", "power", "timer-60", "faster", "timer-30", "slower")),
    0x03BF: _calls(
        "YLYB01YL-BHFRC", _remote("stop", "air", "fan", "faster", "slower", "dry", "light", "swing", "heat")
    ),
    0x03B6: _calls("YLKG07YL/YLKG08YL", {0x1001: is_.dimmer}),
    0x1568: _calls("K9B-1BTN", _k9b()),
    0x1569: _calls("K9B-2BTN", _k9b(_LEFT_RIGHT_OLD)),
    0x0DFD: _calls("K9B-3BTN", _k9b(_THREE_OLD)),
    0x1C10: _calls("K9BB-1BTN", {0x4E0C: is_.coded_press({1: "press", 8: "long", 15: "double"})}),
    0x1949: _calls("XMWXKG01YL", _presses(0x4E0C, _LEFT_RIGHT)),
    0x2387: _calls("XMWXKG01LM", _presses(0x4E0C)),
    0x38BB: _calls("PTX_YK1_QMIMB", _presses(0x4A0C)),
    0x5968: _calls("XMWS01XS", _presses(0x4A0C, {0: ("left",), 1: ("right",)})),
    0x3A61: _calls("KS1", _presses(0x560C, _FOUR)),
    0x3E17: _calls("KS1BP", _presses(0x560C, _FOUR)),
    0x520B: _calls("KS2BB", _CLIMATE, _presses(0x560C)),
    0x78A3: _calls("AFWXKG220000", _presses(0x560C)),  # unseen
    # Detectors.
    0x0997: _calls("JTYJGD03MI"),
    0x0863: _calls("SJWS01LM"),
    0x6375: _calls("SJWS02LM", _SPLASH),
    0x7712: _calls("zhiee.flood.sj01", {0x4806: is_.state(SignalKind.WATER_LEAK, channel="bottom")}),  # unseen
    0x3F0F: _calls("RS1BB(MI)", {0x4806: is_.state(SignalKind.WATER_LEAK)}),
    # Beds and seats.
    0x20DB: _calls("MJZNZ018H", _PILLOW),
    0x3F4C: _tells("PS1BB", _PAD),
    # Doors and windows.
    0x1889: _tells("MS1BB(MI)", _DOOR),
    0x098B: _tells("MCCGQ02HL", {0x1007: is_.nothing}),
    0x03D6: _tells("CGH1"),
    0x78D1: _tells("MC-COMM", {0x480C: is_.opening(opened=0, closed=1)}),  # unseen
    # Motion and presence. MJYD02YL says 100 in 1007 where it is light, and no lx.
    0x0A8D: _tells("RTCGQ02LM"),
    0x0A83: _tells("CGPR1", {0x000F: is_.moved_in_light(is_.whole("illuminance", 3))}),
    0x07F6: _tells("MJYD02YL", {0x1007: is_.nothing}),
    0x03DD: _tells("MUE4094RT"),
    0x2AEB: _tells("HS1BB(MI)", _MOTION),
    0x3531: _tells("XMPIRO2SXS", _MOTION),
    0x4C60: _tells("XMPIRO2GSXS", _MOTION),
    0x50FB: _tells("ES3", _PRESENCE, {0x484E: is_.state(SignalKind.OCCUPANCY)}),
    0x6A0F: _tells(
        "ES5BB",
        _PRESENCE,
        {0x484E: is_.state(SignalKind.OCCUPANCY), 0x5413: is_.state(SignalKind.OCCUPANCY, channel="close")},
    ),
    0x4683: _tells("XMOSB01XS", _PRESENCE, {0x484E: is_.state(SignalKind.OCCUPANCY, on=(1,), off=(0, 2))}),
    # Climate, plants.
    **{
        id_: _tells(model, _CLIMATE)
        for id_, model in {
            0x0C3C: "CGC1", 0x0576: "CGD1", 0x066F: "CGDK2", 0x4F59: "CGDK3", 0x0347: "CGG1", 0x0B48: "CGG1-ENCRYPTED",
            0x01AA: "LYWSDCGQ", 0x045B: "LYWSD02", 0x16E4: "LYWSD02MMC", 0x2542: "LYWSD02MMC", 0x055B: "LYWSD03MMC",
            0x2832: "MJWSD05MMC", 0x4C47: "MJWSD05MMC", 0x55B5: "MJWSD06MMC", 0x5BEA: "MJWSD06MMC", 0x5DB1: "MBS17",
            0x78DB: "ESM787", 0x06D3: "MHO-C303", 0x0387: "MHO-C401", 0x1203: "XMWSDJ04MMC", 0x02DF: "JQJCY01YM",
            0x03BC: "GCLS002", 0x0098: "HHCCJCY01", 0x015D: "HHCCPOT002",
        }.items()
    },
    # Locks: what their door does.
    0x09B0: _tells("loock.safe.v1", {0x100F: is_.opening(opened=1, closed=0)}),
    **{
        id_: _tells(model)
        for id_, model in {
            0x04E9: "MJZNMSQ01YD", 0x098C: "XMZNMST02YD", 0x0599: "MJZNMS03LM",
            0x0784: "XMZNMS04LM", 0x0E39: "XMZNMS08LM", 0x069E: "ZNMS16LM", 0x069F: "ZNMS17LM", 0x0380: "DSL-C08",
            0x11C2: "Lockin-SV40", 0x18E3: "ZX1",
        }.items()
    },
    # Known by name, and nothing of theirs is read but what all share.
    **{
        id_: Product(model, _SHARED)
        for id_, model in {
            0x00DB: "MMC-T201-1", 0x0391: "MMC-W505", 0x0489: "M1S-T500", 0x0806: "T700", 0x1790: "T700i", 0x045C: "V-SK152",
            0x040A: "WX08ZM", 0x04E1: "XMMF01JQD", 0x0083: "YM-K1501", 0x0113: "YM-K1501EU", 0x0DE7: "SU001-T",
            0x30D9: "MJTZC01YM", 0x3BD5: "MJTZC01YM", 0x48CF: "MJTZC01YM", 0x4FC2: "MJTZC01YM", 0x45C9: "MJTZC02YM",
            0x4C04: "MJTZC02YM", 0x4DCB: "MJTZC02YM", 0x4B05: "MJTZC03YM", 0x59FA: "M2457B1", 0x59FB: "M2456B1",
            0x59FC: "M2456B1", 0x6188: "M2456B1",
        }.items()
    },
}  # fmt: skip


# An id of an event (not a property) has 2 in the lower bits of its high byte: 4A, 4E ... 7E.
_UNKNOWN: Final = _merged(
    {0x1001: is_.old_button()}, *(_presses(high << 8 | 0x0C) for high in range(0x4A, 0x80, 4))
)  # fmt: skip


def product(id_: int) -> Product:
    """Return a product; one that is not in the table is named by its number, and read by what all share."""
    found = PRODUCTS.get(id_)
    return found or Product(f"product {id_:04x}", _UNKNOWN, may_call=True)
