"""What `gateway listen` prints, writes down and turns into vectors, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Advert, Decoded, catalogue
from gateway.cli.layout import Paper
from gateway.cli.listening import vector, words
from gateway.clock import Stamp
from gateway.collect.desk import Desk
from gateway.collect.listening import Heard, Listeners
from gateway.links.state import HeardAdvert

AT = Stamp(1_772_352_000_250, 1_000, "boot", "synced")  # 2026-03-01 16:00:00.250 in China
DEADLINE_S = 60.0
TARIFFS = "正向有功电能[T2] 0.19 kWh  正向有功电能[T3] 0.38 kWh  正向有功电能[T4] 33.17 kWh  问 1 次，答 1 次"
ASKED = "fefefefe68003619000000681104333234330016 → -"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")


def desk(name: str, model: str, address: str, options: dict[str, Any] | None = None, **more: Any) -> Desk:
    driver = catalogue.driver(model)
    return Desk(name, model, "link-1", address, "201", "1", driver, None, map=options or {}, **more)


def heard() -> list[dict[str, Any]]:
    """One of everything, as the daemon's own room tells it."""
    seen: list[Heard] = []
    listeners = Listeners()
    listeners.add(seen.append)
    button = desk("call-1", "bthome-button", "A4:C1:38:56:53:84", key=KEY)
    meter = desk("meter-1", "dlt645-2007", "000000193600", {"registers": ["energy_active_import"]})
    mapping = {"signal": [{"field": "ev", "equals": "press", "is": "call"}]}
    board = desk("board-1", "json-lines", "b1", mapping)
    radar = desk("radar-1", "andar-radar", "")

    def advert(of: Desk | None, address: str, said: Any = None, **data: Any) -> None:
        listeners.tell_advert(HeardAdvert("radio", Advert(address, rssi=-61, **data), AT), of, said)

    def frame(of: Desk, data: bytes) -> None:
        driver: Any = of.driver
        try:
            said = driver.decode(data, driver.options(of.map))
        except Exception as refused:  # noqa: BLE001 - what a driver raises is what is shown
            said = refused
        listeners.tell_frame("wire", AT, data, desk=of, said=said)

    plain: Any = catalogue.driver("bthome-button")
    press = Advert("A4:C1:38:56:53:84", service_data={0xFCD2: bytes.fromhex("4400070164" + "3a01")})
    advert(button, press.address, plain.decode(press, None), service_data=press.service_data)
    advert(None, "11:22:33:44:55:66", manufacturer_data={0x004C: b"\x02\x15\x01"})
    frame(board, b'{"dev":"b1","n":1,"ev":"press"}\n')
    frame(board, b'{"dev":"b1","rssi":-60}\n')
    frame(board, b"nonsense\n")
    listeners.tell_frame("wire", AT, b'{"dev":"b9"}\n', desk=None, said="b9")
    frame(radar, bytes.fromhex("01000000010e02f301fe"))
    frame(radar, bytes.fromhex("01000000010e02f307f8"))
    listeners.tell_noise("wire", AT, b"\x00\xff" * 40, skipped=80)
    answers: Any = catalogue.driver("dlt645-2007")
    (exchange,) = answers.vectors[0].exchange
    listeners.tell_poll("bus", AT, [exchange], desk=meter, said=Decoded(answers.vectors[0].expect))
    listeners.tell_poll("bus", AT, [(exchange[0], None)], desk=meter, said=TimeoutError("asked 3 times"))
    return [one.item() for one in seen]


def lines(lang: str) -> list[str]:
    paper = Paper(lang, StringIO())
    return [words(paper, item) for item in heard()]


@pytest.fixture(autouse=True)
def china() -> Iterator[None]:
    """Times are shown as at the site."""
    import time

    with pytest.MonkeyPatch.context() as place:
        place.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


def test_everything_is_said_in_chinese() -> None:
    assert lines("zh") == [
        "16:00:00.250  radio  call-1 A4:C1:38:56:53:84  呼叫 (press)  电池电量 100 %  service fcd2=44000701643a01  -61 dBm",
        "16:00:00.250  radio  11:22:33:··:··:··  陌生设备，未配置  maker 004c=3 字节  -61 dBm",
        '16:00:00.250  wire  board-1 b1  呼叫 (press)  {"dev":"b1","n":1,"ev":"press"}',
        '16:00:00.250  wire  board-1 b1  里面没有映射过的内容  {"dev":"b1","rssi":-60}',
        "16:00:00.250  wire  board-1 b1  格式不对: Expecting value at character 0  nonsense",
        '16:00:00.250  wire  b9  陌生设备，未配置  {"dev":"b9"}',
        "16:00:00.250  wire  radar-1  跌倒=是  01000000010e02f301fe",
        "16:00:00.250  wire  radar-1  其中有值没读成: fall = 07  01000000010e02f307f8",
        f"16:00:00.250  wire  ?  里面没有完整的消息（波特率或校验位不对？）：80 字节  {'00ff' * 32}",
        "16:00:00.250  bus  meter-1 000000193600  正向有功电能 36.30 kWh  正向有功电能[T1] 2.56 kWh  " + TARIFFS,
        "16:00:00.250  bus  meter-1 000000193600  没有应答  问 1 次，答 0 次  " + ASKED,
    ]


def test_everything_is_said_in_english() -> None:
    said = lines("en")
    assert said[0].startswith("16:00:00.250  radio  call-1 A4:C1:38:56:53:84  call (press)  battery 100 %  ")
    assert said[1] == "16:00:00.250  radio  11:22:33:··:··:··  a stranger, not configured  maker 004c=3 bytes  -61 dBm"
    assert "  nothing in it that is mapped  " in said[3]
    assert "  a value in it could not be read: fall = 07  " in said[7]
    assert "  active energy, import 36.30 kWh  " in said[9]
    assert "  no reply  asked 1 times, 0 replies" in said[10]


def test_a_stranger_s_address_is_masked_whatever_daemon_answers() -> None:
    item = {"t": "x", "link": "radio", "kind": "advert", "device": "", "address": "11:22:33:44:55:66"}
    assert "44:55" not in words(Paper("en", StringIO()), item)


def test_what_was_lost_is_said() -> None:
    assert words(Paper("zh", StringIO()), {"lost": 7}) == "丢了 7 条：来得太快，显示不过来"


def test_what_plays_with_a_terminal_is_shown_harmless() -> None:
    item = {"t": "x", "link": "\x1b[2J", "kind": "frame", "device": "d", "capture": {"bytes": b"\x1b[31mred\n".hex()}}
    assert "\x1b" not in words(Paper("en", StringIO()), item)


def test_vectors_are_ready_to_be_pasted() -> None:
    paper = Paper("en", StringIO())
    made = [vector(paper, item) for item in heard()]
    assert made[6] == (
        "StreamVector(source='captured 2026-03-01: ...', frame=bytes.fromhex(\"01000000010e02f301fe\"), "
        "expect=Decoded(observations=(Signal(kind=SignalKind.FALL, code='fall', level=True),))),"
    )
    assert made[2].startswith("StreamVector(source='captured 2026-03-01: ...', frame=bytes.fromhex(")
    assert "options={'signal': [{'field': 'ev', 'equals': 'press', 'is': 'call'}]}" in made[2]
    assert made[0].startswith(
        "AdvertVector(source='captured 2026-03-01: ...', advert=Advert(address='A4:C1:38:56:53:84'"
    )
    assert made[9].startswith(
        "AnswerVector(source='captured 2026-03-01: ...', address='000000193600', exchange=((bytes."
    )
    assert made[1] == "# Advert(address='11:22:33:00:00:00', manufacturer_data={0x004C: bytes.fromhex(\"021501\")})"
    assert all(one.startswith("# ") for one in (made[5], made[8], made[10]))
    assert KEY.hex() not in "".join(made)
    driver = made[4]
    assert "expect=Reason.MALFORMED" in driver


def test_what_cannot_be_a_vector_is_a_comment_and_no_end() -> None:
    paper = Paper("en", StringIO())
    odd = [
        {"lost": 7}, {"capture": {}, "kind": "advert"}, {"capture": {"bytes": "zz"}, "kind": "frame", "model": "json-lines"},
        {"capture": {"bytes": "00"}, "kind": "frame", "model": "of-tomorrow"}, {"capture": None}, {},
    ]  # fmt: skip
    assert all(vector(paper, item).startswith("#") for item in odd)


# The command.


@asynccontextmanager
async def daemon(folder: Path, items: list[dict[str, Any]], *, ends: bool = False) -> AsyncIterator[Path]:
    """One that sends these; and then waits for the client to go, or `ends`, which shows that nothing came after them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert json.loads(await reader.readline())["op"] == "listen"
        for item in [{"ok": True, "result": "listening"}, *items]:
            writer.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
        await writer.drain()
        if not ends:
            await reader.read()  # until the client goes
        writer.close()

    path = folder / "control.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield path


def command(control: Path, *words_: object) -> list[str]:
    return [sys.executable, "-m", "gateway", "listen", "--control", str(control), *map(str, words_)]


def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "TZ": "Asia/Shanghai", "DAYCARE_GATEWAY_CONFIG": "/nonexistent/gateway.toml"}


async def run(control: Path, *words_: object) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command(control, *words_), env=environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert b"Traceback" not in out + err
    return process.returncode, out.decode(), err.decode()


async def listened(control: Path, lines_: int, *words_: object) -> tuple[int | None, list[str], str]:
    """Listen until so many lines were said, however long a busy machine takes for them; then end it as a person does."""
    process = await asyncio.create_subprocess_exec(
        *command(control, *words_), env=environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        said = [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(lines_)]
        process.send_signal(signal.SIGINT)
        rest, err = await process.communicate()
    assert b"Traceback" not in err
    return process.returncode, said + rest.decode().splitlines(), err.decode()


async def test_listening_ends_after_its_time(tmp_path: Path) -> None:
    async with daemon(tmp_path, []) as control:
        assert await run(control, "--seconds", "1") == (0, "", "")


async def test_what_was_lost_is_said_behind_what_was_heard(tmp_path: Path) -> None:
    async with daemon(tmp_path, [*heard()[:2], {"lost": 7}]) as control:
        status, out, err = await listened(control, 3)
    assert (status, err) == (0, "")
    assert out[-1] == "丢了 7 条：来得太快，显示不过来"
    assert len(out) == 3


async def test_strangers_can_be_hidden(tmp_path: Path) -> None:
    async with daemon(tmp_path, heard(), ends=True) as control:
        _, out, _ = await run(control, "--known")
    assert len(out.splitlines()) == 8
    assert "11:22:33" not in out


async def test_json_is_what_the_daemon_sent(tmp_path: Path) -> None:
    items = [*heard(), {"lost": 7}]
    async with daemon(tmp_path, items, ends=True) as control:
        _, out, _ = await run(control, "--json")
    assert [json.loads(line) for line in out.splitlines()] == json.loads(json.dumps(items))


async def test_two_forms_at_once_are_refused(tmp_path: Path) -> None:
    status, _, err = await run(tmp_path / "none", "--json", "--raw")
    assert status == 3
    assert "不能同时用" in err


async def test_a_recording_keeps_configured_devices_without_keys_or_names(tmp_path: Path) -> None:
    file = tmp_path / "capture.jsonl"
    async with daemon(tmp_path, heard()) as control:
        status, _, err = await listened(control, len(heard()), "--record", file)
        again = await run(control, "--record", file, "--seconds", "2")
    assert (status, err) == (0, f"已存 9 条到 {file}\n")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["kind"] for row in rows] == [*["advert"], *["frame"] * 5, "noise", "poll", "poll"]
    text = file.read_text(encoding="utf-8")
    for absent in (KEY.hex(), "11:22:33", "b9", "call-1", "board-1"):
        assert absent not in text
    assert file.stat().st_mode & 0o777 == 0o600
    assert again[0] == 3
    assert again[2] == f"存不到 {file}：File exists\n"


async def test_strangers_are_kept_when_asked_for_with_half_an_address(tmp_path: Path) -> None:
    file = tmp_path / "capture.jsonl"
    async with daemon(tmp_path, heard()) as control:
        await listened(control, len(heard()), "--record", file, "--strangers")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 11
    assert rows[1]["mac"] == "11:22:33:··:··:··"


async def test_ctrl_c_ends_it_well(tmp_path: Path) -> None:
    file = tmp_path / "capture.jsonl"
    async with daemon(tmp_path, heard()) as control:
        process = await asyncio.create_subprocess_exec(
            *command(control, "--record", file), env=environment(),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            for _ in heard():
                assert await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, f"已存 9 条到 {file}\n")


async def test_a_closed_pipe_ends_it_well(tmp_path: Path) -> None:
    async with daemon(tmp_path, heard() * 200) as control:
        shell = " ".join([*command(control, "--json"), "| head -n 2"])
        process = await asyncio.create_subprocess_exec(
            "bash", "-o", "pipefail", "-c", shell, env=environment(),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
    assert (process.returncode, err, len(out.splitlines())) == (0, b"", 2)


async def test_a_stream_that_ends_is_told(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async with await asyncio.start_unix_server(hang_up, tmp_path / "control.sock"):
        status, _, err = await run(tmp_path / "control.sock")
    assert status == 3
    assert "GW-CTL-05" in err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("40001d01643a01", "looks like bthome-button (BTHome call button)"),
        ("41a6bf55cb00112233e9e7c705", "bthome-button (BTHome call button), encrypted"),
    ],
)
def test_a_stranger_that_is_a_device_of_a_known_kind_is_named(data: str, said: str) -> None:
    capture = {"mac": "A4:C1:38:··:··:··", "name": "", "service_data": {"fcd2": data}, "manufacturer_data": {}}
    item = {"kind": "advert", "link": "radio", "address": "A4:C1:38:··:··:··", "reason": "stranger", "capture": capture}
    assert said in words(Paper("en", StringIO()), item)
    assert "bthome-button" not in words(Paper("en", StringIO()), {**item, "capture": {**capture, "service_data": {}}})
