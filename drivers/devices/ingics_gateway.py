"""Ingics iBS beacons heard through Ingics' own BLE gateways (iGS01S, iGS02, iGS03): their lines over TCP or a serial line.

For a building in which one Bluetooth adapter does not reach everywhere. The line (all of it:
`drivers.protocols.ingics_lines`):

    $GPRP,E856715A54F5,CAEE00112233,-60,02010612FF590080BC3A0108FFFF0000000006030000
          sender       gateway      dBm the advert

What the advert says is read as for the model `ingics-ibs`: fall and button are states without counter or key, so nothing is
verified. `address` is the beacon's, 12 hexadecimal digits in capitals, without colons. Beacons that nobody configured are
counted only: a gateway hears the neighbours, too. Of the gateway itself nothing is known but its lines: that it is silent
shows as a link that hears nothing. Not tried on a real gateway; the adverts in the lines are the maker's published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from drivers.kit import (
    Decoded,
    LineSettings,
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
from drivers.kit.framing import LineFramer
from drivers.kit.options import known_keys
from drivers.protocols import ingics, ingics_lines


def framer() -> LineFramer:
    """Return a framer for the gateway's lines."""
    return LineFramer(limit=ingics_lines.LIMIT)


def options(raw: Mapping[str, object]) -> None:
    """Take no options. Raises BadOption."""
    known_keys(raw, name="map", allowed=())


def address_of(frame: bytes, options: None) -> str:  # noqa: ARG001 - there are no options; the shape has them
    """Say whose line it is, "" where it names nobody: `decode` then says why."""
    try:
        return ingics_lines.parse(frame).address
    except Rejected as refusal:
        return refusal.address


def decode(frame: bytes, options: None) -> Decoded:  # noqa: ARG001 - there are no options; the shape has them
    """Read one line. Raises Rejected."""
    line = ingics_lines.parse(frame)
    try:
        beacon = ingics.parse(line.manufacturer_data)
    except Rejected as refusal:
        raise Rejected(refusal.reason, refusal.detail, address=line.address) from None
    return Decoded(ingics.observations(beacon), address=line.address)


DRIVER = Streams(
    model="ingics-gateway",
    title=Title(zh="Ingics iBS 信标，经 Ingics 蓝牙网关", en="Ingics iBS beacon through an Ingics BLE gateway"),
    framer=framer,
    options=options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=115200),
    readings_every_s=900.0,
    strangers=Strangers.IGNORED,
    radio=True,
    beats=True,
    may_call=True,
    vectors=(
        StreamVector(
            source="the advert of ingics/ingics-message-parser-py tests/test_ibs01.py:107 test_ibs01g, in a line made here",
            frame=b"$GPRP,E856715A54F5,CAEE00112233,-60,02010612FF590080BC3A0108FFFF0000000006030000\r\n",
            expect=Decoded(
                (
                    Signal(SignalKind.FALL, "fall", level=True),
                    Signal(SignalKind.CALL, "press", level=False),
                    Reading("battery_voltage", Decimal("3.14")),
                ),
                address="E856715A54F5",
            ),
        ),
        StreamVector(
            source="the advert of tests/test_ibs05.py:19 test_ibs05h, in a line made here with a time",
            frame=b"$LRAD,FDB69134E063,CAEE00112233,-75,02010612FF2C0883BC2D0101AAAA04000000310A1000,1574927085.12\r\n",
            expect=Decoded(
                (Signal(SignalKind.CALL, "press", level=True), Reading("battery_voltage", Decimal("3.01"))),
                address="FDB69134E063",
            ),
        ),
        StreamVector(
            source="synthetic: a telephone that the gateway hears",
            frame=b"$GPRP,4A0011223344,CAEE00112233,-80,020106074C0010050A1C\r\n",
            expect=Reason.NOT_MINE,
        ),
        StreamVector(
            source="synthetic: a line whose advert is no hexadecimal number",
            frame=b"$GPRP,E856715A54F5,CAEE00112233,-60,0201061\r\n",
            expect=Reason.MALFORMED,
        ),
    ),
)
