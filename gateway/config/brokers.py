"""The brokers that are listened to: which of them can be used, and whether the way in fits each.

As with platforms, one with nowhere to go is set aside and the rest carries on. A broker in the house often speaks plain text;
that needs a word in its table, since whoever is in the same network can then read along and call for help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drivers.kit import BadOption
from drivers.protocols.published import topic_option
from drivers.protocols.published_adverts import filter_option
from gateway.config import findings as found
from gateway.config.findings import Findings
from gateway.config.paths import check_certificates, check_login, check_secrets, good_url
from gateway.config.settings import Mqtt
from gateway.config.tables import Entry, read_entry, tables


def settle_brokers(raw: Mapping[str, object], notes: Findings) -> list[Entry[Mqtt]]:
    """Return the [[mqtt]] that can be used, in the order of the file."""
    usable: list[Entry[Mqtt]] = []
    for at, table in tables(raw, "mqtt", (), notes):
        vital = frozenset({"url", "id", "bridge", "adverts", "advert_form", "advert_fields"})
        entry = read_entry(Mqtt, table, at, notes, vital=vital, effect=found.SET_ASIDE)
        runs = entry.runs & (entry.fits("url") and _url(entry, notes)) & _bridge(entry, notes) & _adverts(entry, notes)
        check_secrets(entry, notes)
        check_certificates(entry, notes)
        if runs:
            check_login(entry, notes)
            usable.append(entry)
    return usable


def _url(entry: Entry[Mqtt], notes: Findings) -> bool:
    broker = entry.value
    if not good_url(entry, notes, plain=broker.allow_plain):
        return False
    if broker.transport != "mqtt":
        notes.add(
            found.BAD_URL, (*entry.at, "url"), effect=found.SET_ASIDE, value=broker.url, reason="@hint.broker-scheme"
        )
        return False
    return True


def _bridge(entry: Entry[Mqtt], notes: Findings) -> bool:
    if not entry.value.bridge or not entry.fits("bridge"):
        return True
    try:
        topic_option(entry.value.bridge, "bridge")
    except BadOption as refusal:
        at = (*entry.at, "bridge")
        notes.add(found.BAD_VALUE, at, effect=found.SET_ASIDE, value=refusal.value, expected="@expect.topic")
        return False
    return True


def _adverts(entry: Entry[Mqtt], notes: Findings) -> bool:
    """Does it fit how a receiver publishes adverts, if one does?"""
    broker, at = entry.value, entry.at
    asked: dict[str, Callable[[], object]] = {
        "adverts": lambda: filter_option(broker.adverts, "adverts"),
        "advert_fields": lambda: broker.form,
    }
    refused = False
    for key, ask in asked.items():
        if not entry.fits(key) or not getattr(broker, key):
            continue
        try:
            ask()
        except BadOption as refusal:
            expected = {"zh": refusal.zh, "en": refusal.expected}
            notes.add(
                found.BAD_VALUE, (*at, *refusal.key.split(".")), effect=found.SET_ASIDE, value=refusal.value,
                expected=expected,
            )  # fmt: skip
            refused = True
    if broker.advert_fields and not broker.adverts and entry.fits("adverts"):
        notes.add(found.NO_EFFECT, (*at, "advert_fields"), effect=found.KEPT, reason="@hint.no-adverts")
    return not refused
