"""The test frames of libmbus, compared with what libmbus says of them, record by record; and frames that must be refused.

`tests/data/captures/mbus/`: `good/*.hex` with the expected records in `*.xml`, `error/*.hex`. From rscada/libmbus, copyright
Raditex Control AB, BSD-3-Clause.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.mbus import DRIVER
from drivers.kit import Decoded, Reading, Reason, Rejected
from drivers.protocols import mbus, mbus_records
from drivers.protocols.mbus_meaning import MEDIA
from drivers.protocols.mbus_records import Record, Telegram

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "mbus"
GOOD = sorted((CAPTURES / "good").glob("*.hex"))
ERRORS = sorted((CAPTURES / "error").glob("*.hex"))

# Records of which libmbus says something else: file, index -> why.
DIFFERENT = {
    ("ELS_Elster-F96-Plus", 4): "ddddebbd is no number; libmbus makes 13131113 W of it",
    ("ELS_Elster-F96-Plus", 5): "ddebbd is no number; libmbus makes 131.113 m3/h of it",
    ("abb_f95", 2): "ddebb4dd is no number; libmbus makes 1311041.3 W of it",
    ("abb_f95", 3): "ebb4dd is no number; libmbus makes 11.0413 m3/h of it",
    ("REL-Relay-Padpuls2", 1): "the meter marks its time as invalid; libmbus shows 1900-01-00",
    ("itron_bm_+m", 2): "a date of zeros is none; libmbus shows 2000-00-00",
}
# Libmbus strips leading zeros of a number that it takes for hexadecimal.
UNITS = {
    "Wh": "Wh", "W": "W", "m^3": "m3", "m^3/h": "m3/h", "\u00b0C": "Cel", "\u00c2\u00b0C": "Cel", "K": "K", "s": "s",
    "V": "V", "A": "A",
}  # fmt: skip
# The fixed structure is told with its own units.
FIXED_UNITS = {
    "l": ("m3", Decimal("0.001")),
    "kWh": ("Wh", Decimal(1000)),
    "reserved but historic": ("m3", Decimal("0.001")),
}
FUNCTIONS = {
    "Instantaneous value": "", "Actual value": "", "Maximum value": "max", "Minimum value": "min",
    "Value during error state": "error",
}  # fmt: skip
QUANTITIES = {
    "Energy": "energy", "Power": "power", "Volume": "volume", "Volume flow": "volume flow",
    "Flow temperature": "flow temperature", "Return temperature": "return temperature",
    "External temperature": "external temperature", "Temperature difference": "temperature difference",
    "Time point (date)": "date", "Time point (date & time)": "date and time", "On time": "on time",
    "Operating time": "operating time", "Voltage": "voltage", "Current": "current", "Error flags": "error flags",
    "Fabrication No": "fabrication number", "Averaging Duration": "averaging duration",
    "Actuality Duration": "actuality duration", "Digital Input": "digital input", "Dimensionless": "count",
    "Customer location": "customer location", "Software version": "software version",
    "Firmware version": "firmware version", "H.C.A.": "heat cost units", "%RH": '"%RH"',
    "cust. ID": '"cust. ID"', "bat. time": '"bat. time"',
}  # fmt: skip


def telegram(path: Path) -> Telegram:
    (found,) = mbus.framer().feed(bytes.fromhex(path.read_text()))
    frame = mbus.parse(found)
    assert frame.is_answer
    return mbus_records.read(frame.information, frame.data)


def expected(path: Path) -> tuple[dict[str, str], list[dict[str, str]], bool]:
    """What libmbus says: who, the records without those that are a maker's own block, and whether more follows."""
    root = ET.fromstring(path.with_suffix(".xml").read_bytes())  # noqa: S314 - our own copy
    information = root.find("SlaveInformation")
    assert information is not None
    records = [{one.tag: one.text or "" for one in record} for record in root.findall("DataRecord")]
    more = any(record.get("Function") == "More records follow" for record in records)
    blocks = ("Manufacturer specific", "More records follow")
    return (
        {one.tag: one.text or "" for one in information},
        [record for record in records if record.get("Function") not in blocks],
        more,
    )


def by_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", GOOD, ids=by_name)
def test_who_answers_is_who_libmbus_says(path: Path) -> None:
    header, (who, _, more) = telegram(path).header, expected(path)
    assert header.number.lstrip("0").upper() == who["Id"]
    assert header.maker == who.get("Manufacturer", "")
    assert header.access == int(who["AccessNumber"])
    assert header.status == int(who["Status"], 16)
    assert MEDIA[header.medium].split()[0] in who["Medium"].lower()
    assert telegram(path).more is more


def same(record: Record, said: str) -> bool:
    value = record.value
    if isinstance(value, Decimal):
        try:
            wanted = Decimal(said)
        except ArithmeticError:
            return False
        # Libmbus writes doubles with six decimals.
        return abs(value - wanted) <= max(Decimal("0.0000005"), abs(wanted) * Decimal("1E-6"))
    if isinstance(value, datetime | date):
        return said.rstrip("Z") == value.isoformat()
    return str(value or "") == said.strip()


@pytest.mark.parametrize("path", GOOD, ids=by_name)
def test_every_record_is_what_libmbus_says_or_listed(path: Path) -> None:
    records, said = telegram(path).records, expected(path)[1]
    assert len(records) == len(said)
    for index, (record, wanted) in enumerate(zip(records, said, strict=True)):
        if not wanted:  # libmbus has no words for it
            assert (path.stem, index, record.meaning) == ("sen_pollutherm", 2, None)
            continue
        places = tuple(int(wanted.get(name, 0)) for name in ("StorageNumber", "Tariff", "Device"))
        is_historic = wanted["Unit"] == "reserved but historic"
        assert (record.storage, record.tariff, record.unit) == ((1, 0, 0) if is_historic else places)
        assert record.function == FUNCTIONS[wanted["Function"]]
        if (path.stem, index) in DIFFERENT:
            assert record.value is None
            assert record.invalid
            continue
        if wanted["Unit"] in FIXED_UNITS and "Quantity" not in wanted:
            unit, factor = FIXED_UNITS[wanted["Unit"]]
            assert record.meaning is not None
            assert (record.meaning.unit, record.value) == (unit, factor * int(wanted["Value"]))
            continue
        assert same(record, wanted["Value"]), (index, record, wanted)
        if wanted["Quantity"] in ("", "Manufacturer specific"):
            assert record.meaning is None or record.foreign
        elif wanted["Quantity"] != "%RH":
            assert record.meaning is not None
            assert record.meaning.quantity == QUANTITIES[wanted["Quantity"]]
        if wanted["Unit"] in UNITS:
            assert record.meaning is not None
            assert record.meaning.unit == UNITS[wanted["Unit"]]


def test_the_comparison_is_whole() -> None:
    counts = [len(telegram(path).records) for path in GOOD]
    assert (len(GOOD), sum(counts), len(DIFFERENT), len(ERRORS)) == (43, 517, 6, 13)


REFUSED: dict[str, tuple[Reason, str]] = {
    "application_busy": (Reason.UNSUPPORTED, "application too busy"),
    "buffer_too_long": (Reason.UNSUPPORTED, "buffer too long"),
    "error": (Reason.UNSUPPORTED, "unspecified error"),
    "premature_end_of_dif1": (Reason.MALFORMED, "record 2 is cut"),
    "premature_end_of_data1": (Reason.MALFORMED, "record 2 is cut"),
    "premature_end_of_data2": (Reason.MALFORMED, "record 2 is cut"),
    "premature_end_of_dif2": (Reason.MALFORMED, "record 2 is cut"),
    "premature_end_of_var_vif1": (Reason.MALFORMED, "record 3 is cut"),
    "too_long_var_vif": (Reason.MALFORMED, "record 3 is cut"),
    "too_many_dife": (Reason.MALFORMED, "more than 10 extensions"),
    "too_many_records": (Reason.UNSUPPORTED, "too many records"),
    "too_many_vifes": (Reason.UNSUPPORTED, "more than 10 VIFE"),
    "too_short_header": (Reason.TOO_SHORT, "a header of 5 bytes"),
}


@pytest.mark.parametrize("path", ERRORS, ids=by_name)
def test_what_is_cut_or_an_error_is_refused_by_name(path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        telegram(path)
    assert (caught.value.reason, REFUSED[path.stem][1] in caught.value.detail) == (REFUSED[path.stem][0], True)


@pytest.mark.parametrize("path", GOOD, ids=by_name)
def test_no_cut_of_a_reply_reads_as_a_whole_one(path: Path) -> None:
    """A reply that is cut inside a record is refused; cut between two, it lacks the rest and its frame does not fit."""
    raw = bytes.fromhex(path.read_text())
    for size in range(len(raw)):
        assert mbus.framer().feed(raw[:size]) == [], size


def poll(path: Path) -> Any:
    """Poll a meter that gives this reply, and nothing where it says that more follows."""
    talk = DRIVER.talk(DRIVER.options("254", {}))
    next(talk)
    talk.send(b"\xe5")
    (reply,) = mbus.framer().feed(bytes.fromhex(path.read_text()))
    try:
        talk.send(reply)
        with suppress(Rejected):
            talk.send(reply)
    except StopIteration as end:
        return end.value
    raise AssertionError("the poll does not end")


def test_a_reply_with_nothing_but_a_number_is_no_reading() -> None:
    with pytest.raises(Rejected) as caught:
        poll(CAPTURES / "good" / "frame1.hex")
    assert (caught.value.reason, caught.value.detail) == (Reason.UNSUPPORTED, "no readings")


@pytest.mark.parametrize("path", [path for path in GOOD if path.stem != "frame1"], ids=by_name)
def test_every_reply_is_published_with_what_could_not_be_taken(path: Path) -> None:
    decoded = poll(path)
    assert isinstance(decoded, Decoded)
    whole = telegram(path)
    refused = [one for one in decoded.refused if not one.startswith("further telegram")]
    assert len(refused) <= sum(bool(record.invalid) for record in whole.records)
    assert (len(decoded.refused) > len(refused)) is whole.more


# What each further reply says, as published: quantity, channel, value. What else it says is a number or a date.
MORE: dict[str, list[tuple[str, str, str]]] = {
    "EDC": [
        ("energy_heat", "positive", "35"),
        ("energy_heat", "negative", "465"),
        ("energy_other", "U1/positive", "0"),
        ("energy_other", "U1/negative", "0"),
        ("temperature", "supply", "21.536703"),
        ("temperature", "return", "21.605042"),
        ("temperature", "supply/U1", "92"),
        ("temperature", "return/U1", "92"),
        ("flow", "", "0.000707"),
        ("flow", "U1", "0"),
        ("flow", "max", "0.357622"),
        ("flow", "U1/max", "0"),
        ("power_heat", "", "0"),
        ("power_other", "U1", "0"),
        ("power_heat", "max", "18.511912"),
        ("power_other", "U1/max", "0"),
    ],
    # Its unit 2 is reactive energy, sent in watt hours: no reading of active energy must come of it.
    "EMU_EMU-Professional-375-M-Bus": [
        ("energy_active_import", "T1", "1.364"),
        ("energy_active_import", "T2", "0"),
        ("power_active", "", "-0.002"),
        ("current", "", "-0.066"),
        ("error_flags", "", "0"),
    ],
    "THI_cma10": [
        ("temperature", "external", "22.62"),
        ("temperature", "external/min", "22.50"),
        ("temperature", "external/max", "23.26"),
        ("temperature", "external/S1/error", "0"),
        ("temperature", "external/S2/error", "0"),
    ],
    "amt_calec_mb": [
        ("on_time", "", "554400"),
        ("power_heat", "", "13426.156"),
        ("flow", "", "107.944733"),
        ("temperature", "supply", "135.826416"),
        ("temperature", "return", "28.958035"),
        ("temperature_difference", "", "106.868378"),
    ],
    "berg_blmi": [
        ("on_time", "", "9554400"),
        ("energy_active_import", "", "128.300"),
        ("power_active", "", "28.753"),
        ("error_flags", "", "0"),
    ],
    "berg_dcmi": [("energy_active_import", "T1", "0.001"), ("power_active", "S1", "3.4526"), ("error_flags", "", "0")],
    "berg_bmb_10S0": [("heat_cost_units", "", "9592"), ("heat_cost_units", "#2", "1128")]
    + [("heat_cost_units", f"#{count}", "0") for count in range(3, 21)],
    "els_tmpa_telegramm1": [("volume_water", "", "1234.567"), ("volume_water", "S1", "456.951")],
    # A last record says litres a pulse, which libmbus takes for a volume.
    "EFE_Engelmann-WaterStar": [
        ("volume_hot_water", "", "0.332"),
        ("volume_hot_water", "S1", "0.331"),
        ("volume_hot_water", "S2", "0.332"),
        ("flow", "", "0"),
        ("flow", "max", "2.070"),
        ("on_time", "", "102902400"),
        ("error_flags", "", "0"),
    ],
    "LGB_G350": [("volume_gas", "S1", "10834.092"), ("error_flags", "", "0")],
}


@pytest.mark.parametrize("name", MORE)
def test_a_further_reply_is_published_as_its_publisher_says(name: str) -> None:
    decoded = poll(CAPTURES / "more" / f"{name}.hex")
    found = [
        (one.quantity, one.channel, one.value)
        for one in decoded.observations
        if isinstance(one, Reading) and one.quantity not in ("status_word", "records_unread")
    ]
    assert [one[:2] for one in found] == [one[:2] for one in MORE[name]]
    for (_, _, value), (_, _, said) in zip(found, MORE[name], strict=True):
        assert abs(value - Decimal(said)) <= Decimal("0.000001") * max(1, abs(value))


def test_every_further_reply_is_listed() -> None:
    assert {path.stem for path in (CAPTURES / "more").glob("*.hex")} == set(MORE)
