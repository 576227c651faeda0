"""The platform with TLS, and as an old one: real sockets, real certificates, a paho client in place of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from simulator import control_client
from simulator.platform import District, control_socket, district, main
from simulator.platform.certificates import CertificateError, make_three, server_context
from simulator.platform.ledger import read_ledger
from simulator.platform.mqtt_link import MqttLink

ask = partial(control_client.ask, timeout_s=30)

GOLDEN = Path(__file__).parent.parent / "data" / "native"
ROOT = "eldercare/v1/demo/hanfeng/gw-01"
HOST = "127.0.0.1"
ALARM = (GOLDEN / "alarm.json").read_bytes()
ALARM_ID = "0190a5c0-0000-7000-8000-000000000001"
CONNECT_5 = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x05gw-01"
V3, V5 = MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5


class PlayedGateway:
    """A gateway's end, in paho's own thread. `heard` holds every message: topic, content, retained."""

    def __init__(self, version: MQTTProtocolVersion, *, ca: Path | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.heard: asyncio.Queue[tuple[str, Any, bool]] = asyncio.Queue()
        self.answered: asyncio.Future[bool] = loop.create_future()
        self.lost, self.subscribed = asyncio.Event(), asyncio.Event()

        def message(_c: Any, _u: Any, one: paho.MQTTMessage) -> None:
            content = one.topic.rsplit("/", 1)[1], json.loads(one.payload), one.retain
            loop.call_soon_threadsafe(self.heard.put_nowait, content)

        def answer(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            loop.call_soon_threadsafe(lambda: self.answered.done() or self.answered.set_result(not reason.is_failure))

        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="gw-01", protocol=version, reconnect_on_failure=False
        )
        if ca is not None:
            self.client.tls_set(str(ca))
        self.client.will_set(f"{ROOT}/state", json.dumps({"online": False, "epoch": 1}), qos=1, retain=True)
        self.client.on_connect, self.client.on_message = answer, message
        self.client.on_subscribe = lambda *_a: loop.call_soon_threadsafe(self.subscribed.set)
        self.client.on_disconnect = lambda *_a: loop.call_soon_threadsafe(self.lost.set)

    async def connect(self, port: int, *filters: str) -> bool:
        await asyncio.to_thread(self.client.connect, HOST, port, keepalive=30)  # its TLS handshake blocks
        self.client.loop_start()
        async with asyncio.timeout(30):
            if await self.answered and filters:
                self.client.subscribe([(one, 1) for one in filters])
                await self.subscribed.wait()
        return self.answered.result()

    async def hear(self) -> tuple[str, Any, bool]:
        async with asyncio.timeout(30):
            return await self.heard.get()

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)
        self.client._reset_sockets()


@contextlib.asynccontextmanager
async def played(version: MQTTProtocolVersion, *, ca: Path | None = None) -> AsyncIterator[PlayedGateway]:
    gateway = PlayedGateway(version, ca=ca)
    try:
        yield gateway
    finally:
        await gateway.close()


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


def strict(ca: Path) -> ssl.SSLContext:
    """What Python 3.13 demands of certificates by itself."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def post_alarm(url: str, verify: ssl.SSLContext) -> httpx.Response:
    async with httpx.AsyncClient(verify=verify, timeout=30, trust_env=False) as client:
        headers = {"content-type": "application/cloudevents+json"}
        return await client.post(f"{url}/v1/events", content=ALARM, headers=headers)


# -- MQTT 3.1.1 -----------------------------------------------------------------------------------------------------


async def test_an_old_platform_takes_birth_state_and_events_and_answers(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="mqtt-3.1.1") as platform, played(V3) as gateway:
        assert await gateway.connect(platform.port, f"{ROOT}/down/ack")
        gateway.client.publish(f"{ROOT}/state", b'{"online": true, "epoch": 1}', qos=1, retain=True)
        gateway.client.publish(f"{ROOT}/up/birth", b'{"epoch": 1}', qos=1)
        gateway.client.publish(f"{ROOT}/up/alarm", ALARM, qos=1)
        assert await gateway.hear() == ("ack", {"acks": [{"id": ALARM_ID, "status": "accepted"}]}, False)
        gateway.client.publish(f"{ROOT}/up/telemetry", (GOLDEN / "telemetry.json").read_bytes(), qos=1)
        assert [one["status"] for one in (await gateway.hear())[1]["acks"]] == ["accepted", "accepted"]
        stats = platform.stats()
        assert (stats["transport"], stats["online"], stats["epoch"]) == ("mqtt-3.1.1", True, 1)
        assert stats["gateways"]["demo/hanfeng/gw-01"]["births"] == 1


async def test_an_old_platform_keeps_the_last_state_and_publishes_the_will(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="mqtt-3.1.1") as platform, played(V3) as gateway, played(V3) as late:
        assert await gateway.connect(platform.port)
        gateway.client.publish(f"{ROOT}/state", b'{"online": true, "epoch": 1}', qos=1, retain=True)
        await until(lambda: platform.stats()["online"])
        await platform.link.cut()
        async with asyncio.timeout(30):
            await gateway.lost.wait()
        await until(lambda: not platform.stats()["online"])
        platform.link.heal()
        late.client._client_id = b"late"
        assert await late.connect(platform.port, f"{ROOT}/state")
        assert await late.hear() == ("state", {"online": False, "epoch": 1}, True)


async def test_an_old_platform_sends_a_newer_client_away_as_its_specification_says(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="mqtt-3.1.1") as platform:
        for pieces in ([CONNECT_5], [CONNECT_5[n : n + 1] for n in range(len(CONNECT_5))]):
            reader, writer = await asyncio.open_connection(HOST, platform.port)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            async with asyncio.timeout(30):
                assert await reader.read() == b"\x20\x02\x00\x01"
            writer.close()
        async with played(V5) as newer:
            assert await newer.connect(platform.port) is False
        async with played(V3) as gateway:
            assert await gateway.connect(platform.port, f"{ROOT}/down/ack")
            gateway.client.publish(f"{ROOT}/up/alarm", ALARM, qos=1)
            assert (await gateway.hear())[1] == {"acks": [{"id": ALARM_ID, "status": "accepted"}]}
        assert (platform.stats()["link"]["wrong_level"], platform.stats()["broker"]["crashes"]) == (3, 0)


@pytest.mark.parametrize(
    "head",
    [
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00",  # level 4: as it should be
        b"\x10\x8c\x00\x00\x04MQTT\x04\x02\x00\x05\x00\x00",  # its length in two bytes
        b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x05\x00\x00",  # MQTT 3.1
        b"\xc0\x00",  # PINGREQ
        b"\x10\xff\xff\xff\xff\x01",  # no length at all
        b"GET / HTTP/1.1\r\n",
    ],
)
async def test_only_a_connect_of_another_level_is_sent_away_by_the_line(head: bytes) -> None:
    received = asyncio.Event()

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(head)) == head
        received.set()
        writer.close()

    server = await asyncio.start_server(far, HOST, 0)
    try:
        async with asyncio.timeout(30), MqttLink(server.sockets[0].getsockname()[1], only=4) as link:
            _, writer = await asyncio.open_connection(HOST, link.port)
            writer.write(head)
            await received.wait()
            assert link.wrong_level == 0
            writer.close()
    finally:
        server.close()


async def test_a_stalled_line_holds_even_the_refusal_back(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="mqtt-3.1.1") as platform:
        reader, writer = await asyncio.open_connection(HOST, platform.port)
        writer.write(CONNECT_5[:1])
        await until(lambda: platform.link.total == 1)
        await asyncio.sleep(0.05)  # now the line waits for the rest
        platform.link.stall()
        writer.write(CONNECT_5[1:])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.15)
        platform.link.unstall()
        async with asyncio.timeout(30):
            assert await reader.read() == b"\x20\x02\x00\x01"
        writer.close()


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_https_is_trusted_by_its_own_authority_under_both_names(tmp_path: Path, name: str) -> None:
    async with district(tmp_path, speaks="https", tls_dir=tmp_path / "certs") as platform:
        answer = await post_alarm(f"https://{name}:{platform.port}", strict(tmp_path / "certs" / "ca.pem"))
        assert answer.json() == {"results": [{"id": ALARM_ID, "status": "accepted"}]}
        assert platform.stats()["transport"] == "https"
    assert [one.lane for one in read_ledger(tmp_path / "platform-district.jsonl")] == ["alarm"]


async def test_https_is_not_trusted_by_another_authority_and_serves_nobody_in_the_clear(tmp_path: Path) -> None:
    await asyncio.to_thread(server_context, tmp_path / "other")
    async with district(tmp_path, speaks="https") as platform:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await post_alarm(f"https://127.0.0.1:{platform.port}", strict(tmp_path / "other" / "ca.pem"))
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await post_alarm(f"http://127.0.0.1:{platform.port}", strict(tmp_path / "tls" / "ca.pem"))
        assert platform.stats()["http"]["requests"] == {}


async def test_https_meets_the_same_line_and_the_same_conduct(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="https") as platform:
        url, trust = f"https://127.0.0.1:{platform.port}", strict(tmp_path / "tls" / "ca.pem")
        platform.front.operations()["answer"](how="half", n=1)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await post_alarm(url, trust)
        platform.front.operations()["answer"](how="close", n=1)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await post_alarm(url, trust)
        await platform.link.cut()
        with pytest.raises(httpx.ConnectError):
            await post_alarm(url, trust)
        platform.link.heal()
        assert (await post_alarm(url, trust)).json() == {"results": [{"id": ALARM_ID, "status": "duplicate"}]}


async def test_mqtts_ends_the_tls_before_the_broker(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="mqtts") as platform, played(V5, ca=tmp_path / "tls" / "ca.pem") as gateway:
        assert await gateway.connect(platform.port, f"{ROOT}/down/ack")
        gateway.client.publish(f"{ROOT}/state", b'{"online": true, "epoch": 1}', qos=1, retain=True)
        gateway.client.publish(f"{ROOT}/up/alarm", ALARM, qos=1)
        assert (await gateway.hear())[1] == {"acks": [{"id": ALARM_ID, "status": "accepted"}]}
        await until(lambda: platform.stats()["online"])
        await platform.link.cut()
        async with asyncio.timeout(30):
            await gateway.lost.wait()
        await until(lambda: not platform.stats()["online"])
        assert platform.stats()["broker"]["crashes"] == 0


async def test_certificates_are_made_once_and_used_again(tmp_path: Path) -> None:
    async with district(tmp_path, speaks="https", destination="one") as one:
        made = (tmp_path / "tls" / "ca.pem").read_bytes()
        async with district(tmp_path, speaks="https", destination="two") as two:
            assert (tmp_path / "tls" / "ca.pem").read_bytes() == made
            for platform in (one, two):
                assert (
                    await post_alarm(f"https://localhost:{platform.port}", strict(tmp_path / "tls" / "ca.pem"))
                ).is_success
    assert (tmp_path / "tls" / "server.key").stat().st_mode & 0o777 == 0o600


async def test_platforms_that_start_together_share_their_certificates(tmp_path: Path) -> None:
    """Each in a process of its own, as in a run: the second one must wait until the first has made them all."""
    code = "import sys; from pathlib import Path; from simulator.platform.certificates import server_context as make; "
    code += "print('ready', flush=True); sys.stdin.readline(); make(Path(sys.argv[1]))"
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    makers = [await asyncio.create_subprocess_exec(sys.executable, "-c", code, tmp_path, **pipes) for _ in range(4)]
    async with asyncio.timeout(30):
        for maker in makers:
            assert maker.stdout is not None
            await maker.stdout.readline()
        await asyncio.gather(*(maker.communicate(b"\n") for maker in makers))
    assert [maker.returncode for maker in makers] == [0] * 4
    server_context(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ca.pem", "server.key", "server.pem"]


@pytest.mark.parametrize("name", ["ca.pem", "server.pem", "server.key"])
def test_a_missing_certificate_beside_others_is_named(tmp_path: Path, name: str) -> None:
    server_context(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CertificateError, match=f"{name} missing"):
        server_context(tmp_path)


def test_a_certificate_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    server_context(tmp_path)
    (tmp_path / "server.pem").write_text("nonsense")
    with pytest.raises(CertificateError, match="PEM"):
        server_context(tmp_path)


# -- the process --------------------------------------------------------------------------------------------------------


async def request(control: Path, op: str, **arguments: object) -> dict[str, Any]:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_unix_connection(control)
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
    return dict(answer)


@contextlib.asynccontextmanager
async def platform_process(run: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = ["-W", "error", "-m", "simulator", "platform", "--run", str(run), "--control", str(run / "c.sock")]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, *options, stderr=asyncio.subprocess.PIPE)
    try:
        await until(lambda: (run / "c.sock").exists() or process.returncode is not None, 20)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("speaks", ["", "http", "https", "mqtts", "mqtt-3.1.1"])
async def test_a_process_speaks_what_it_was_told_and_ends_cleanly(tmp_path: Path, speaks: str) -> None:
    told = ("--speaks", speaks, "--tls-dir", str(tmp_path / "x")) if speaks else ()
    async with platform_process(tmp_path, "--port", "0", *told) as process:
        stats = (await request(tmp_path / "c.sock", "stats"))["result"]
        assert (stats["transport"], stats["connected"]) == (speaks or "mqtt", True)
        process.terminate()
        _, said = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, said.decode()) == (0, "")
    assert (tmp_path / "x" / "ca.pem").exists() == (speaks in {"https", "mqtts"})


async def test_a_process_that_owes_answers_ends_at_once(tmp_path: Path) -> None:
    async with platform_process(tmp_path, "--port", "0", "--speaks", "http") as process:
        control = tmp_path / "c.sock"
        assert (await request(control, "mute"))["ok"]
        port = (await request(control, "stats"))["result"]["port"]
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /v1/time HTTP/1.1\r\nhost: x\r\n\r\n")
        while not (await request(control, "stats"))["result"]["unanswered"]:
            await asyncio.sleep(0.01)
        process.terminate()
        _, said = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, said.decode()) == (0, "")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_the_control_socket_has_what_the_transport_has(tmp_path: Path) -> None:
    control = tmp_path / "c.sock"

    async def code(op: str, **arguments: object) -> str:
        answer = await request(control, op, **arguments)
        return "" if answer["ok"] else str(answer["error"]["code"])

    async with district(tmp_path, speaks="http") as platform, control_socket(platform, control):
        assert await code("answer", how=503, n=1, on=["event"], retry_after="Wed, 21 Oct 2026 07:28:00 GMT") == ""
        assert await code("limit", bytes=1000) == ""
        stats = (await request(control, "stats"))["result"]
        assert stats["http"]["answers"] == {
            "limit_bytes": 1000,
            "faults": {"event": {"how": 503, "decided": False, "left": 1}},
        }
        assert await code("answer_well") == ""
        wrong: list[dict[str, Any]] = [{}, {"how": "x"}, {"how": 503, "on": [[]]}, {"how": 503, "why": 1}]
        assert [await code("answer", **one) for one in wrong] == ["bad-argument"] * 4
        assert await code("restart-broker") == "unknown-op"
    async with district(tmp_path) as platform, control_socket(platform, control):
        assert await code("answer", how=503) == "unknown-op"
        assert await code("restart-broker") == ""


async def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    async def start(**more: Any) -> District:
        async with district(tmp_path, **more) as platform:
            return platform

    with pytest.raises(ValueError, match=r"speaks = 'coap': one of mqtt, mqtt-3.1.1, mqtts, http, https"):
        await start(speaks="coap")
    with pytest.raises(ValueError, match="a platform that speaks mqtt asks for none"):
        await start(authorization="Bearer x")
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").touch()
    with pytest.raises(CertificateError, match=r"server.pem, server.key missing"):
        await main(tmp_path, port=0, control=tmp_path / "c.sock", speaks="https")


async def test_a_certificate_is_replaced_while_the_platform_runs(tmp_path: Path) -> None:
    tls, same, other = tmp_path / "tls", tmp_path / "same", tmp_path / "other"
    await asyncio.to_thread(make_three, tls, same=same, other=other)
    control = tmp_path / "p.sock"
    async with district(tmp_path, speaks="https", tls_dir=tls) as platform, control_socket(platform, control):
        url, trust = f"https://127.0.0.1:{platform.port}", strict(tls / "ca.pem")
        for folder in (tls, same):
            await ask(control, "certificate", folder=str(folder))
            shown = await asyncio.to_thread(ssl.get_server_certificate, (HOST, platform.port))
            assert shown.strip() == (folder / "server.pem").read_text().strip()
            assert (await post_alarm(url, trust)).status_code == 200
        await ask(control, "certificate", folder=str(other))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await post_alarm(url, trust)
        await ask(control, "certificate", folder=str(tls))
        assert (await post_alarm(url, trust)).status_code == 200
