"""The bad-input table, the way to a platform: no network, a wrong name server, a certificate of another, a refused login.

Each time another platform stands, and gets the call meanwhile; what the far one has missed it gets when its way is mended.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from simulator.platform import district

if TYPE_CHECKING:
    from tests.end_to_end.bad_input.apart.conftest import Apart, Authority, Forward
    from tests.end_to_end.bad_input.conftest import Centre
else:
    Apart = Authority = Centre = Forward = Any

pytestmark = pytest.mark.slow

FAR = """
[[destination]]
id = "far"
reconnect_spread_s = 0
  [[destination.path]]
  url = "{url}"
"""
SECURED = FAR + '  ca_file = "{ca}"\n'


async def caught_up(centre: Centre, *codes: str) -> None:
    """The far platform has what it missed, each trouble was told once when it came and once when it went."""
    await centre.well()
    await centre.alarms_arrived(centre.presses, platform="far")
    centre.logged(*((code, "far", turn) for code in codes for turn in ("on", "off")))


async def test_no_network(
    centre: Centre, apart: Callable[..., Apart], authority: Authority, forward: Callable[..., Awaitable[Forward]]
) -> None:
    """The cable is out: our end has its address, and no link. What is on this machine goes on."""
    carrier = apart()
    village = apart(
        f"ip link set lo up; ip link add eth0 type veth peer name far netns {carrier.pid}\n"
        "ip address add 192.0.2.7/24 dev eth0; ip link set eth0 up; mount -t sysfs sysfs /sys"
    )
    carrier.run("ip address add 192.0.2.1/24 dev far")
    folder = centre.folder / "tls"
    ca = authority.certify(folder, ["192.0.2.1"])
    await centre.reach(village, forward)
    async with district(centre.folder, destination="far", speaks="mqtts", tls_dir=folder) as far:
        await forward(far.port, carrier.listening("0.0.0.0", 8883))  # noqa: S104 - a network of its own
        centre.configure(SECURED, url="mqtts://192.0.2.1:8883", ca=ca)
        await centre.gateway.start()
        await centre.problem("GW-NET-02", "far")
        await centre.call_is_heard()

        told = await centre.diagnose()
        told.says_first(
            "GW-NET-10", "far", status=2,
            zh=("没有一块网卡接通（eth0）", "检查网线、交换机或 4G 路由器的电源，看网口的灯；ip link 看状态"),
            en=(
                "no network interface is connected (eth0)",
                "check the cable, the power of the switch or 4G router, and the lights of the port; ip link shows the state",
            ),
        )  # fmt: skip
        assert told.bad == [("GW-NET-10", "far")]
        assert "测得：网卡 不通；归场所" in told.paper

        carrier.run("ip link set far up")  # the cable goes in
        await caught_up(centre, "GW-NET-02")


async def test_a_name_server_that_is_wrong(
    centre: Centre, apart: Callable[..., Apart], authority: Authority, forward: Callable[..., Awaitable[Forward]]
) -> None:
    """The network stands, and nobody answers where resolv.conf points."""
    resolv, hosts = centre.folder / "resolv.conf", centre.folder / "hosts"
    resolv.write_text("nameserver 127.0.0.1\n")
    hosts.write_text("127.0.0.1 localhost\n")
    carrier = apart()
    village = apart(
        f"ip link set lo up; ip link add eth0 type veth peer name far netns {carrier.pid}\n"
        "ip address add 192.0.2.7/24 dev eth0; ip link set eth0 up; mount -t sysfs sysfs /sys\n"
        f"mount --bind {resolv} /etc/resolv.conf; mount --bind {hosts} /etc/hosts"
    )
    carrier.run("ip link set far up")
    folder = centre.folder / "tls"
    ca = authority.certify(folder, ["platform.example.org"])
    await centre.reach(village, forward)
    async with district(centre.folder, destination="far", speaks="mqtts", tls_dir=folder) as far:
        await forward(far.port, village.listening("127.0.0.1", 8883))
        centre.configure(SECURED, url="mqtts://platform.example.org:8883", ca=ca)
        await centre.gateway.start()
        await centre.problem("GW-NET-01", "far")
        await centre.call_is_heard()

        told = await centre.diagnose()
        told.says_first(
            "GW-NET-01", "far", status=2,
            zh=(
                "平台 far 的名字解析不了：platform.example.org",
                "检查网线和 DNS：cat /etc/resolv.conf；getent hosts platform.example.org",
            ),
            en=(
                "the name of platform far cannot be resolved: platform.example.org",
                "check cable and DNS: cat /etc/resolv.conf; getent hosts platform.example.org",
            ),
        )  # fmt: skip
        assert told.bad == [("GW-NET-01", "far")]
        assert "测得：网卡 正常 > 地址 正常 > DNS 不通；归运营商或防火墙" in told.paper

        hosts.write_text("127.0.0.1 localhost platform.example.org\n")
        await caught_up(centre, "GW-NET-01")


async def test_a_certificate_of_another_name(
    centre: Centre, authority: Authority, forward: Callable[..., Awaitable[Forward]]
) -> None:
    folder, right = centre.folder / "tls", centre.folder / "tls-right"
    ca = authority.certify(folder, ["other.example.org"])
    authority.certify(right, ["127.0.0.1"])
    async with (
        district(centre.folder, destination="other", speaks="mqtts", tls_dir=folder) as other,
        district(centre.folder, destination="far", speaks="mqtts", tls_dir=right) as far,
    ):
        way = await forward(other.port)
        centre.configure(SECURED, url=f"mqtts://127.0.0.1:{way.port}", ca=ca)
        await centre.gateway.start()
        await centre.problem("GW-NET-03", "far")
        await centre.call_is_heard()

        told = await centre.diagnose()
        why = "IP address mismatch, certificate is not valid for '127.0.0.1'."
        told.says_first(
            "GW-NET-03", "far", status=2,
            zh=(
                f"平台 far 的加密连接失败：127.0.0.1（{why}）",
                "核对 url 里的主机名、ca_file 和系统时间（timedatectl）；证书写的是别的名字或已过期，要找平台方",
            ),
            en=(
                f"no encrypted connection to platform far: 127.0.0.1 ({why})",
                ("check the host name in url, ca_file and the system time (timedatectl); a certificate that names another or has "
                "expired is the platform's to renew"),
            ),
        )  # fmt: skip
        assert told.bad == [("GW-NET-03", "far")]
        assert "TLS 不通；归平台方" in told.paper

        way.to = far.port
        await caught_up(centre, "GW-NET-03")


LOGIN = (
    "核对 username 和 password（或 token）指向的文件，请平台方确认账号有效",
    "check username and the file that password (or token) names; ask the platform's operator whether the account is valid",
)


async def test_a_login_that_a_broker_refuses(centre: Centre, free_port: Callable[[], int]) -> None:
    """A real mosquitto; it takes no login until it has been told the password. Nobody behind it accepts anything."""
    broker = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if broker is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto): no refused login over MQTT is proven")
    passwords, config, port = centre.folder / "passwords", centre.folder / "mosquitto.conf", free_port()

    def let_in(password: str) -> None:
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "gw", password], check=True, capture_output=True)

    let_in("quite another")
    head = "user root\n" if os.geteuid() == 0 else ""
    config.write_text(f"{head}listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n")
    secret = centre.secret("password", "ours")
    login = f'  username = "gw"\n  password = "file:{secret}"\n'
    centre.configure(FAR + login, url=f"mqtt://127.0.0.1:{port}")
    with (centre.folder / "mosquitto.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(broker, "-c", config, stdout=log, stderr=log)
    try:
        await until_open(port)
        await centre.gateway.start()
        await centre.problem("GW-NET-04", "far")
        await centre.call_is_heard()

        told = await centre.diagnose()
        told.says_first(
            "GW-NET-04", "far", status=2,
            zh=("平台 far 拒绝登录（CONNACK reason 0x87）", LOGIN[0]),
            en=("platform far refuses the login (CONNACK reason 0x87)", LOGIN[1]),
        )  # fmt: skip
        assert told.bad == [("GW-NET-04", "far")]

        let_in("ours")
        process.send_signal(signal.SIGHUP)
        await centre.well()
        centre.logged(("GW-NET-04", "far", "on"), ("GW-NET-04", "far", "off"))
    finally:
        process.kill()
        await process.wait()


async def until_open(port: int) -> None:
    async with asyncio.timeout(45):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def test_a_login_that_a_web_server_refuses(centre: Centre, forward: Callable[..., Awaitable[Forward]]) -> None:
    secret = centre.secret("token", "ours")
    async with (
        district(centre.folder, destination="other", speaks="http", authorization="Bearer quite-another") as other,
        district(centre.folder, destination="far", speaks="http", authorization="Bearer ours") as far,
    ):
        way = await forward(other.port)
        centre.configure(FAR + f'  token = "file:{secret}"\n', url=f"http://127.0.0.1:{way.port}")
        await centre.gateway.start()
        await centre.problem("GW-NET-04", "far")
        await centre.call_is_heard()

        told = await centre.diagnose()
        answer = 'HTTP 401 {"error":{"code":"unauthorized"}}'
        told.says_first(
            "GW-NET-04", "far", status=2,
            zh=(f"平台 far 拒绝登录（{answer}）", LOGIN[0]), en=(f"platform far refuses the login ({answer})", LOGIN[1]),
        )  # fmt: skip
        assert told.bad == [("GW-NET-04", "far")]

        way.to = far.port
        await caught_up(centre, "GW-NET-04")
