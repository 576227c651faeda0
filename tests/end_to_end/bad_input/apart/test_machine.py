"""The bad-input table, the machine: a data directory that is not ours, a disk that fills up, a clock that nobody set."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.bad_input.apart.conftest import Apart, Forward
    from tests.end_to_end.bad_input.conftest import Centre
else:
    Apart = Centre = Forward = Any

pytestmark = pytest.mark.slow

SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
UNSYNCHRONISED = 5  # adjtimex(2), TIME_ERROR


async def cannot_store(centre: Centre, data: Path, found: str) -> None:
    """What cannot be stored is not acknowledged; but a call is raised and sent all the same, and said once why."""
    before = len(centre.accepted())
    await centre.gateway.start()
    await centre.problem("GW-STO-01", "")
    centre.presses += 1
    await centre.board.say(b'{"dev":"b1","n":%d,"ev":"press"}\n' % centre.presses)
    await centre.alarms_arrived(before + 1)
    assert centre.accepted()[-1]["data"]["stored"] is False

    told = await centre.diagnose()
    told.says_first(
        "GW-RUN-02", str(data), status=2,
        zh=(
            f"数据目录不可写：{data}（{found}）",
            (f"执行 sudo install -d -m 750 -o daycare-gateway -g daycare-gateway {data} && sudo chown -R "
            f"daycare-gateway:daycare-gateway {data}；以后用 sudo systemctl start daycare-gateway 启动，不要 sudo gateway run"),
        ),
        en=(
            f"the data directory cannot be written: {data} ({found})",
            (f"sudo install -d -m 750 -o daycare-gateway -g daycare-gateway {data} && sudo chown -R "
            f"daycare-gateway:daycare-gateway {data}; from then on sudo systemctl start daycare-gateway, never sudo gateway run"),
        ),
    )  # fmt: skip
    # That nothing is stored follows from it.
    assert told.bad == [("GW-RUN-02", str(data))]
    assert told.line("GW-STO-01", "")["hidden_by"] == f"GW-RUN-02 {data}"
    assert centre.presses not in centre.board.acks


async def stored_at_last(centre: Centre, *, new_stream: bool) -> None:
    """Mended without a restart: the call is stored and acknowledged, and not sent twice."""
    arrived = len(centre.accepted())
    await centre.board.acknowledged(centre.presses)
    await centre.well()
    assert len(centre.accepted()) == arrived
    await centre.seen_to()
    await centre.call_is_heard()
    turns = [("GW-STO-01", "", "on"), ("GW-STO-01", "", "off")]
    if new_stream:  # the platform is told of it at once, with a new birth
        turns += [("GW-NET-05", "district", "on"), ("GW-NET-05", "district", "off")]
    centre.logged(*turns)


@pytest.mark.usefixtures("unprivileged")
async def test_a_data_directory_that_cannot_be_written(centre: Centre) -> None:
    data = centre.folder / "data"
    data.mkdir()
    data.chmod(0o555)
    centre.configure()
    await cannot_store(centre, data, f"dr-xr-xr-x {data.owner()}:{data.group()}")

    data.chmod(0o755)
    centre.own(data)
    await stored_at_last(centre, new_stream=True)


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files behind that are not ours")
async def test_a_data_directory_in_which_root_has_run_the_gateway_once(centre: Centre) -> None:
    """`sudo gateway run`, to try it: the directory is the service's, and what lies in it is root's from then on."""
    data = centre.folder / "data"
    data.mkdir()
    centre.own(data)
    centre.configure()
    centre.gateway.prefix = ()
    await centre.gateway.start()
    await centre.well()
    await centre.call_is_heard()
    assert (await centre.gateway.end())[0] == 0
    centre.gateway.log.unlink()
    centre.gateway.prefix = centre.user
    await cannot_store(centre, data, "lock: -rw------- root:root")

    centre.own(*data.iterdir())
    await stored_at_last(centre, new_stream=False)


async def test_a_disk_that_is_nearly_full_and_then_full(
    centre: Centre, apart: Callable[..., Apart], forward: Callable[..., Awaitable[Forward]]
) -> None:
    """A warning while it can store. When it cannot, a call is raised and sent all the same, and stored when there is room.

    The device that called is told only then that it was taken.
    """
    disk, data = centre.folder / "disk", centre.folder / "data"
    for one in (disk, data):
        one.mkdir()
    # An overlay: memory itself would be told as what it is, and that first.
    village = apart(
        f"ip link set lo up; mount -t tmpfs -o size=64m tmpfs {disk}; cd {disk}; mkdir low up work; chmod 777 up\n"
        f"mount -t overlay overlay -o lowerdir={disk}/low,upperdir={disk}/up,workdir={disk}/work {data}"
    )
    await centre.reach(village, forward)
    centre.configure()
    await centre.gateway.start()
    await centre.call_is_heard()

    told = await centre.diagnose()
    assert told.bad == [("GW-STO-06", "")]
    free = told.line("GW-STO-06", "")["measured"]["free"]
    assert 60 < free / 2**20 < 64
    left = f"{free / 2**20:.1f} MiB"
    told.says_first(
        "GW-STO-06", "", status=1,
        zh=(
            f"磁盘空间快用完了：还剩 {left}",
            "看谁占的：sudo du -xhd1 / | sort -h | tail；sudo journalctl --vacuum-size=100M",
        ),
        en=(
            f"the disk is nearly full: {left} left",
            "see what takes it: sudo du -xhd1 / | sort -h | tail; sudo journalctl --vacuum-size=100M",
        ),
    )  # fmt: skip

    village.run(f"dd if=/dev/zero of={disk}/filling bs=1M 2>/dev/null || true")
    await centre.board.say(b'{"dev":"b1","n":2,"ev":"press"}\n')
    await centre.problem("GW-STO-03", "")
    await centre.alarms_arrived(2)
    assert 2 not in centre.board.acks

    told = await centre.diagnose()
    told.says_first(
        "GW-STO-03", "", status=2,
        zh=(f"磁盘满了：{data}", "执行 df -h；sudo journalctl --vacuum-size=100M"),
        en=(f"the disk is full: {data}", "df -h; sudo journalctl --vacuum-size=100M"),
    )  # fmt: skip
    assert told.bad == [("GW-STO-03", "")]
    assert 2 not in centre.board.acks

    village.run(f"rm {disk}/filling")
    await centre.board.acknowledged(2)
    await centre.well()
    assert len(centre.accepted()) == 2  # not once more when it was stored
    centre.logged(("GW-STO-03", "", "on"), ("GW-STO-03", "", "off"))


async def test_a_clock_that_nobody_set(centre: Centre, apart: Callable[..., Apart]) -> None:
    """Nothing waits for a clock: each event says that its time is not to be relied on, and diagnose says it to people."""
    centre.command("timedatectl", "no")
    if SYNCHRONISED.exists():
        centre.moves(apart(f"mount -t tmpfs tmpfs {SYNCHRONISED.parent}", "--mount"))
    centre.configure()
    await centre.gateway.start()
    await centre.call_is_heard()
    assert centre.accepted()[0]["data"]["clock"]["state"] == "unsynced"
    assert (await centre.gateway.ask("status"))["clock"]["state"] == "unsynced"

    told = await centre.diagnose()
    told.says_first(
        "GW-CLK-01", "", status=1,
        zh=(
            "时钟没有校准",
            ("看网络和 NTP：timedatectl；没有外网就在 /etc/systemd/timesyncd.conf 写本地 NTP 服务器，然后 sudo systemctl restart "
            "systemd-timesyncd"),
        ),
        en=(
            "the clock is not synchronised",
            ("check network and NTP: timedatectl; without the internet name a local NTP server in /etc/systemd/timesyncd.conf, "
            "then sudo systemctl restart systemd-timesyncd"),
        ),
    )  # fmt: skip
    assert told.bad == [("GW-CLK-01", "")]
    assert told.line("GW-CLK-01", "")["value"] == "NTPSynchronized=no"

    # Where no service tells, the kernel does: what it says of this machine is what is told.
    centre.command("timedatectl", "", status=1)
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256))
    line = (await centre.diagnose()).line("GW-CLK-01", "")
    assert line["value"] == f"adjtimex={state}"
    assert line["verdict"] == ("warning" if state == UNSYNCHRONISED else "ok")
    centre.logged()
