"""`gateway diagnose` as a process: exit statuses, JSON, sections, languages, colour, the bundle and its consent."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import tarfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Centre
else:
    Centre = Any

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


async def run(centre: Centre, *words: str, **env: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "diagnose", "--config", str(centre.config), *words, cwd=centre.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **env},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def test_a_dead_daemon_ends_with_2_and_json_is_what_the_schema_says(centre: Centre) -> None:
    centre.configure()
    ran = await run(centre, "--json", "--lang", "zh")
    document = json.loads(ran.out)
    schema = json.loads(resources.files("gateway.diagnose").joinpath("report.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    assert (ran.status, document["exit_status"], document["daemon"]) == (2, 2, "dead")
    assert document["first"] == {"code": "GW-CTL-01", "subject": ""}


async def test_the_schema_can_be_shown_without_a_configuration(centre: Centre) -> None:
    ran = await run(centre, "--schema")
    assert ran.status == 0
    assert json.loads(ran.out)["$id"] == "urn:daycare-gateway:diagnose-report:1"


async def test_never_installed_at_all_is_told_without_a_traceback(centre: Centre) -> None:
    ran = await run(centre, "--lang", "en", "--control", str(centre.control))
    assert ran.status == 2
    assert f"Do this first: GW-CFG-01  no configuration file: {centre.config}" in ran.out
    assert "follows from GW-CFG-01" in ran.out


@pytest.mark.parametrize(("words", "text"), [(("--lang", "zh"), "[正常] 版本"), (("--lang", "en"), "[ok] versions")])
async def test_one_section_alone_in_either_language(centre: Centre, words: tuple[str, ...], text: str) -> None:
    centre.configure()
    ran = await run(centre, "--section", "version", *words)
    assert ran.status == 0
    assert text in ran.out
    assert ran.out.count("\n[") == 1


async def test_an_unknown_section_is_bad_usage(centre: Centre) -> None:
    centre.configure()
    assert (await run(centre, "--section", "weather")).status == 3


async def test_a_pipe_gets_no_colour(centre: Centre) -> None:
    centre.configure()
    assert "\x1b" not in (await run(centre)).out


async def on_terminal(centre: Centre, answer: bytes, *words: str, **env: str) -> tuple[int, str]:
    """Run at a terminal and type an answer."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "diagnose", "--config", str(centre.config), *words, cwd=centre.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm", **env},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    said = bytearray()

    def read() -> None:
        while True:
            try:
                said.extend(os.read(ours, 65536))
            except OSError:  # Linux says EIO when the other end has been closed
                return

    async with asyncio.timeout(60):
        await asyncio.gather(asyncio.to_thread(read), process.wait())
    os.close(ours)
    return process.returncode or 0, said.decode()


async def test_a_terminal_gets_colour_unless_no_color_is_set(centre: Centre) -> None:
    centre.configure()
    assert "\x1b[31m问题\x1b[0m" in (await on_terminal(centre, b""))[1]
    assert "\x1b" not in (await on_terminal(centre, b"", NO_COLOR="1"))[1]


@pytest.mark.parametrize(("answer", "status", "packed"), [(b"y\n", 2, True), (b"\n", 3, False), (b"n\n", 3, False)])
async def test_a_bundle_needs_consent_at_a_terminal(centre: Centre, answer: bytes, status: int, packed: bool) -> None:
    centre.configure()
    target = centre.folder / "b.tar.gz"
    ended, said = await on_terminal(centre, answer, "--bundle", str(target))
    assert (ended, target.exists()) == (status, packed)
    if packed:
        assert said.rstrip().endswith(str(target))  # the answer was typed ahead: no line end of it before the path


async def test_a_bundle_without_a_terminal_needs_yes_and_its_path_is_the_last_line(centre: Centre) -> None:
    centre.configure()
    assert (await run(centre, "--bundle")).status == 3
    assert not list(centre.folder.glob("*.tar.gz"))
    ran = await run(centre, "--bundle", "--yes")
    path = Path(ran.out.rstrip().splitlines()[-1])
    assert ran.status == 2
    assert path.parent == centre.folder
    assert path.name.startswith("diagnose-gw-01-")
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 7


async def test_a_bundle_that_cannot_be_written_is_told_with_its_code(centre: Centre) -> None:
    centre.configure()
    ran = await run(centre, "--bundle", "/proc/none.tar.gz", "--yes")
    assert ran.status == 3
    assert "GW-STO-16" in ran.err


async def test_watching_repeats_until_it_is_interrupted(centre: Centre) -> None:
    centre.configure()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "diagnose", "--config", str(centre.config), "--watch", "--json",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
        assert json.loads(line)["exit_status"] == 2
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (2, b"")
