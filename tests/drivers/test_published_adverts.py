"""What receivers publish: each form as its maker prints it, other names, and whatever else stands between."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.kit import Advert, BadOption, Reason, Rejected
from drivers.protocols import published_adverts as published
from drivers.protocols.published_adverts import FORMS, Form

THEENGS, MINEW = FORMS["theengs"], FORMS["minew"]


def read(payload: object, form: Form = THEENGS) -> list[Advert]:
    return published.adverts(json.dumps(payload).encode(), form)


def test_service_data_as_openmqttgateway_publishes_it() -> None:
    said = {
        "id": "11:22:33:44:55:66", "mac_type": 0, "adv_type": 0, "name": "Qingping Motion & Light", "rssi": -93,
        "servicedata": "88121122334455660201520f0126090403000000", "servicedatauuid": "0xfdcd", "brand": "Qingping",
        "model_id": "CGPR1", "lux": 3, "batt": 82,
    }  # fmt: skip
    data = bytes.fromhex("88121122334455660201520f0126090403000000")
    assert read(said) == [Advert("11:22:33:44:55:66", "Qingping Motion & Light", -93, {0xFDCD: data}, {})]


def test_manufacturer_data_and_a_bare_id_as_theengs_gateway_publishes_them() -> None:
    said = {
        "servicedatauuid": "181b", "servicedata": "0224b2070113100c08fdff4a0b", "manufacturerdata": "5701381ec781c63c",
        "name": "MIBFS", "id": "c8:0f:10:00:11:22", "rssi": -67,
    }  # fmt: skip
    assert read(said) == [
        Advert(
            "C8:0F:10:00:11:22", "MIBFS", -67, {0x181B: bytes.fromhex("0224b2070113100c08fdff4a0b")},
            {0x0157: bytes.fromhex("381ec781c63c")},
        )
    ]  # fmt: skip


def test_a_list_of_raw_adverts_as_minew_publishes_it() -> None:
    said = [
        {"timestamp": "2019-08-01T05:54:25Z", "type": "Gateway", "mac": "AC233FC001EA", "gatewayFree": 98},
        {"type": "Unknown", "mac": "AC233FA03208", "bleName": "", "rssi": -79,
         "rawData": "0201060303E1FF0D16E1FFA10264000832A03F23AC"},
        {"type": "S1", "mac": "AC233FA018E3", "bleName": "S1", "rssi": -54, "temperature": 26.69},
        {"mac": "c300007b573c", "rssi": -70, "rawData": "0201061AFF4C000215FDA50693A4E24FB1AFCFC6EB0764782500000000C5"},
        {"type": "Unknown", "mac": "C9F028FD8948", "bleName": "", "rssi": -53, "rawData": "0201060C096D625F53496E394B50444A"},
    ]  # fmt: skip
    assert read(said, MINEW) == [
        Advert("AC:23:3F:C0:01:EA"),
        Advert("AC:23:3F:A0:32:08", "", -79, {0xFFE1: bytes.fromhex("A10264000832A03F23AC")}, {}),
        Advert("AC:23:3F:A0:18:E3", "S1", -54),
        Advert(
            "C3:00:00:7B:57:3C", "", -70, {}, {0x004C: bytes.fromhex("0215FDA50693A4E24FB1AFCFC6EB0764782500000000C5")}
        ),
        Advert("C9:F0:28:FD:89:48", "mb_SIn9KPDJ", -53),
    ]


def test_other_names_are_told_field_by_field() -> None:
    form = published.form_option("minew", {"adverts": "devices", "address": "addr", "raw": "data"}, name="f")
    said = {"v": 1, "devices": [{"addr": "AC-23-3F-A0-32-08", "rssi": "-79", "data": "0316d2fc"}]}
    assert read(said, form) == [Advert("AC:23:3F:A0:32:08", "", None, {0xFCD2: b""}, {})]
    assert read({"v": 1}, form) == []


@pytest.mark.parametrize(
    ("changes", "key"), [({"adress": "mac"}, "f.adress"), ({"address": 3}, "f.address")], ids=["no field", "no name"]
)
def test_a_name_that_does_not_fit_is_refused_by_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(BadOption) as refusal:
        published.form_option("theengs", changes, name="f")
    assert refusal.value.key == key


@pytest.mark.parametrize(
    "said",
    [
        {"id": "1de4b189115e45f6b44e509352269977", "rssi": -78},
        {"id": 7},
        {"rssi": -60, "servicedata": "00"},
        [],
        {"presence": True},
    ],
)
def test_an_entry_without_an_address_is_nobodys(said: object) -> None:
    assert read(said) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"servicedata": "4", "servicedatauuid": "0xfcd2"},
        {"servicedata": "zz", "servicedatauuid": "0xfcd2"},
        {"servicedata": 4400, "servicedatauuid": "0xfcd2"},
        {"servicedata": "00" * 1_651, "servicedatauuid": "0xfcd2"},
    ],
)
def test_data_that_is_none_is_none(broken: dict[str, object]) -> None:
    (advert,) = read({"id": "A4:C1:38:56:53:84", **broken})
    assert advert.service_data == {0xFCD2: b""}


@pytest.mark.parametrize("uuid", ["cba20d00-224d-11e6-9fb8-0002a5d5c51b", "", None, 64722])
def test_data_under_an_id_of_its_own_is_not_carried(uuid: object) -> None:
    (advert,) = read({"id": "A4:C1:38:56:53:84", "servicedata": "00", "servicedatauuid": uuid})
    assert advert == Advert("A4:C1:38:56:53:84")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"online", Reason.MALFORMED),
        (b'"text"', Reason.MALFORMED),
        (b"[1, 2]", Reason.MALFORMED),
        (b"\xff\xfe", Reason.MALFORMED),
        (b"[" * 3_000, Reason.MALFORMED),
        (b"9" * 5_000, Reason.MALFORMED),
        (b" " * (256 * 1024 + 1), Reason.TOO_LONG),
    ],
)
def test_what_is_no_advert_is_refused(payload: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        published.adverts(payload, THEENGS)
    assert refusal.value.reason is reason


def test_a_message_of_more_adverts_than_anybody_hears_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        read([{"mac": f"{at:012X}"} for at in range(2_001)], MINEW)
    assert refusal.value.reason is Reason.TOO_LONG


@given(st.binary(max_size=300))
def test_whatever_is_published_is_read_or_refused(payload: bytes) -> None:
    for form in FORMS.values():
        try:
            published.adverts(payload, form)
        except Rejected:
            continue


@given(st.binary(max_size=80))
def test_raw_data_of_any_kind_are_read_as_far_as_they_go(data: bytes) -> None:
    (advert,) = read({"mac": "A4C138565384", "rawData": data.hex()}, MINEW)
    carried = sum(map(len, (*advert.service_data.values(), *advert.manufacturer_data.values())))
    assert carried <= len(data)


@pytest.mark.parametrize(
    ("pattern", "topic", "does"),
    [
        ("home/+/BTtoMQTT/+", "home/OMG/BTtoMQTT/A4C138565384", True),
        ("home/+/BTtoMQTT/+", "home/OMG/BTtoMQTT", False),
        ("home/+/BTtoMQTT/+", "home/OMG/BTtoMQTT/A4/state", False),
        ("home/#", "home/OMG/BTtoMQTT/A4", True),
        ("home/#", "home", True),
        ("home/#", "homes/x", False),
        ("gw/ac233fc0/status", "gw/ac233fc0/status", True),
        ("gw/ac233fc0/status", "gw/ac233fc1/status", False),
        ("#", "anything", True),
    ],
)
def test_a_filter_fits_as_mqtt_has_it(pattern: str, topic: str, *, does: bool) -> None:
    assert published.filter_option(pattern, "adverts") == pattern
    assert published.fits(topic, pattern) is does


@pytest.mark.parametrize("pattern", ["", "home/#/x", "home/a+", "home/a#", "$SYS/#", "a\x00b", "x" * 257, 7])
def test_a_filter_that_mqtt_does_not_have_is_refused(pattern: object) -> None:
    with pytest.raises(BadOption) as refusal:
        published.filter_option(pattern, "adverts")
    assert refusal.value.key == "adverts"
