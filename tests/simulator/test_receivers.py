"""What the pretended receivers put on the wire, against frames that others published; and that they hold a conversation."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from simulator import receivers
from simulator.receivers import ESP3_ANSWER, ESP3_QUESTION, Receiver
from simulator.tap_system import TapSystem, message

DEADLINE_S = 20.0


@pytest.mark.parametrize(
    ("made", "published"),
    [
        # kipe/enocean enocean/protocol/tests/test_eep.py: a rocker is pressed, a contact opens (received at -55, -54 dBm).
        (receivers.rocker("00298979", pressed=True), "55000707017af650002989793001ffffffff37009d"),
        # Its header is published; the release of that rocker is ours.
        (receivers.rocker("00298979", pressed=False)[:6], "55000707017a"),
        # The layout of esphome components/rf_bridge.
        (receivers.sonoff("d0fc38"), "aaa42828015403fcd0fc3855"),
        # The vendor's serial protocol: its example of a target, x -782 mm, y 1713 mm.
        (receivers.ld2450((-782, 1713)), "aaff03000e03b186100040010000000000000000000000000000000055cc"),
        # bl_hilink_format test: somebody is still, 4.77 m; energies and the moving target left out here.
        (receivers.ld2410(2, still_cm=477)[:9], "f4f3f2f10d0002aa02"),
        # limengdu/Seeed-Studio-MR24FDB1-Sensor README: its example of a check.
        (receivers.mr24(5, b"\x01\x04", b"\x03"), "550800050104030c80"),
        (receivers.board("cd46be"), "fdcd46be5adf"),
        # TAP specification 1.8: its example of a sum.
        (message("123", "ABC"), "023132330d4142430d0331373b0d"),
    ],
)
def test_what_is_made_is_what_others_published(made: bytes, published: str) -> None:
    assert made.hex() == published


def test_a_raw_code_is_written_as_the_documentation_writes_one() -> None:
    raw = receivers.sonoff_raw("d0fc38")
    assert raw[:9].hex() == "aab103015403fc2828"
    assert raw[9:14].hex() == "0210100110"  # the pause, then 1 1 0 1
    assert len(raw) == 3 + 6 + 1 + 24 + 1


def test_an_advert_in_a_line_is_the_published_one() -> None:
    # ingics/ingics-message-parser-py tests/test_ibs01.py:107 test_ibs01g
    made = receivers.ingics_line("E856715A54F5", 0x0059, bytes.fromhex("80bc3a0108ffff0000000006030000"))
    assert made == b"$GPRP,E856715A54F5,CAEE00112233,-60,02010612FF590080BC3A0108FFFF0000000006030000\r\n"


async def until(condition: object) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # type: ignore[operator] # a callable without arguments
            await asyncio.sleep(0.01)


async def test_an_esp3_stick_answers_the_question_for_its_version(tmp_path: Path) -> None:
    stick = Receiver(path=tmp_path / "stick", baud=57600)
    running = asyncio.create_task(stick.run())
    await until(stick.port.path.is_symlink)
    held = os.open(stick.port.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        await until(lambda: stick.port.held)
        os.write(held, b"\x00" + ESP3_QUESTION)
        await until(lambda: stick.answered == 1)
        got = b""
        async with asyncio.timeout(DEADLINE_S):
            while len(got) < len(ESP3_ANSWER):
                await asyncio.sleep(0.01)
                try:
                    got += os.read(held, 100)
                except BlockingIOError:
                    continue
        assert got == ESP3_ANSWER
    finally:
        os.close(held)
        running.cancel()
        await asyncio.wait({running})


async def test_a_tap_system_keeps_its_call_until_it_is_taken(tmp_path: Path) -> None:
    rows: list[object] = []
    system = TapSystem(path=tmp_path / "tap", record=rows.append)
    running = asyncio.create_task(system.run())
    await until(system.port.path.is_symlink)
    held = os.open(system.port.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    got = b""

    async def answer(when: bytes, what: bytes) -> None:
        nonlocal got
        async with asyncio.timeout(DEADLINE_S):
            while when not in got:
                await asyncio.sleep(0.01)
                try:
                    got += os.read(held, 100)
                except BlockingIOError:
                    continue
        got = b""
        os.write(held, what)

    try:
        await until(lambda: system.port.held)
        system.call("bed-1", "301")
        await answer(b"\r", b"ID=")
        await answer(b"\x1bPG1\r", b"\r\x06\r\x1b[p\r")
        await answer(message("301", "CALL 301"), b"\r\x06\r")
        await until(lambda: system.unacknowledged == 0)
        assert [row["device"] for row in rows if isinstance(row, dict)] == ["bed-1"]
    finally:
        os.close(held)
        running.cancel()
        await asyncio.wait({running})
