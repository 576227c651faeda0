"""The locks: every package pinned with its hashes, no address of an index, and what is licensed otherwise in one lock only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-gateway.lock", "requirements-esphome.lock")


def pinned(lock: str) -> dict[str, frozenset[str]]:
    """Return what a lock pins: "name==version" and its hashes."""
    blocks = re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").strip())
    return {one.split(" ", 1)[0]: frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", one)) for one in blocks}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_everything_with_hashes_and_names_no_index(lock: str) -> None:
    for name, hashes in pinned(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.+!]*", name), name
        assert hashes, name
    assert "://" not in (ROOT / lock).read_text(encoding="utf-8")


def test_the_lock_for_proxies_of_esphome_takes_the_place_of_the_gateways_own() -> None:
    gateway, esphome, dev = (pinned(f"requirements-{one}.lock") for one in ("gateway", "esphome", "dev"))
    assert gateway.items() <= esphome.items()
    assert esphome.items() <= dev.items()
    assert "aioesphomeapi" in {name.partition("==")[0] for name in esphome.keys() - gateway.keys()}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gateway.lock"])
def test_what_we_ship_brings_no_zeroconf(lock: str) -> None:
    assert "zeroconf" not in {name.partition("==")[0] for name in pinned(lock)}
