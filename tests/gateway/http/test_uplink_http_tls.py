"""TLS: name, authority and time are checked on every connection; whoever fails hears no byte of a request."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.events import Lane
from gateway.tls import Moment, Tls


async def test_a_platform_with_the_right_certificate_is_spoken_to(
    serving: Any, site: Any, make: Any, authority: Any
) -> None:
    care = authority("care")
    platform = await serving(care.server("127.0.0.1"))
    up = site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(care.file))
    await site.open(up)
    up.send(Lane.A, make.texts(Lane.A, 1))
    up.send(Lane.D, make.texts(Lane.D, 100))
    await make.until(lambda: len(site.told.acks) == 101)
    await up.close()
    assert platform.lines == 2


async def test_a_name_and_an_ipv6_address_are_checked_against_the_certificate(
    serving: Any, site: Any, authority: Any
) -> None:
    care = authority("care")
    named = await serving(care.server("localhost"))
    await site.open(site.uplink(f"https://localhost:{named.port}", tls=Tls(care.file)))
    six = await serving(care.server("::1"), host="::1")
    await site.open(site.uplink(f"https://[::1]:{six.port}", tls=Tls(care.file)))
    assert (len(named.asked), len(six.asked)) == (1, 1)


@pytest.mark.parametrize(
    ("names", "days", "ours", "why"),
    [
        (("platform.example",), (-1, 1), True, "IP address mismatch"),
        (("127.0.0.1",), (-3, -1), True, "certificate has expired"),
        (("127.0.0.1",), (1, 3), True, "certificate is not yet valid"),
        (("127.0.0.1",), (-1, 1), False, "unable to get local issuer certificate"),
    ],
    ids=["wrong name", "expired", "too early", "unknown authority"],
)
async def test_a_proxy_with_a_wrong_certificate_gets_no_byte_of_a_request(
    serving: Any,
    site: Any,
    make: Any,
    authority: Any,
    names: tuple[str, ...],
    days: tuple[int, int],
    ours: bool,
    why: str,
) -> None:
    care, other = authority("care"), authority("other")
    proxy = await serving((care if ours else other).server(*names, days=days))
    before = make.sockets()
    up = site.uplink(f"https://127.0.0.1:{proxy.port}", tls=Tls(care.file), authorization=lambda: "Bearer canary")
    error = await site.refused(up)
    assert (error.code, error.subject, error.facts["port"]) == ("GW-NET-03", "127.0.0.1", proxy.port)
    assert why in error.facts["error"]
    assert (proxy.heard, proxy.asked) == (0, [])
    await make.until(lambda: make.sockets() == before)


async def test_the_certificate_is_checked_on_later_connections_too(
    serving: Any, site: Any, make: Any, authority: Any
) -> None:
    """The platform is replaced behind its address while the session stands."""
    care, other = authority("care"), authority("other")
    platform = await serving(care.server("127.0.0.1"))
    up = site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(care.file))
    await site.open(up)
    await platform.stop()
    impostor = await serving(other.server("127.0.0.1"), port=platform.port)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.losses)
    assert site.told.losses[0].code == "GW-NET-03"
    assert (impostor.heard, site.told.order) == (0, ["lost"])


async def test_a_server_that_speaks_plain_http_is_not_answered_in_kind(
    platform: Any, site: Any, authority: Any
) -> None:
    platform.conduct = lambda _asked: b""
    up = site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(authority("care").file), open=1.0)
    error = await site.refused(up)
    assert error.code in ("GW-NET-02", "GW-NET-03")
    assert platform.asked == []


async def test_a_peer_that_answers_a_handshake_with_http_is_no_tls(site: Any, authority: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await site.refused(site.uplink(f"https://127.0.0.1:{port}", tls=Tls(authority("care").file)))
    server.close()
    assert error.code == "GW-NET-03"


@pytest.mark.parametrize("hang", [True, False], ids=["silent", "hangs up"])
async def test_a_handshake_that_does_not_end_is_told_and_leaves_no_connection_behind(
    site: Any, make: Any, authority: Any, hang: bool
) -> None:
    writers = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(1)
        if not hang:
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    before = make.sockets()
    error = await site.refused(site.uplink(f"https://127.0.0.1:{port}", tls=Tls(authority("care").file), open=0.3))
    assert error.code == "GW-NET-02"
    assert error.facts["error"].startswith("TLS handshake: ")
    for writer in writers:
        writer.transport.abort()
    await make.until(lambda: make.sockets() == before)
    server.close()


async def test_silence_after_the_handshake_is_no_matter_of_tls(serving: Any, site: Any, authority: Any) -> None:
    care = authority("care")
    platform = await serving(care.server("127.0.0.1"))
    platform.conduct = lambda _asked: None
    error = await site.refused(site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(care.file), open=0.3))
    assert (error.code, error.facts["error"]) == ("GW-NET-05", "no answer within 0.3 s")


async def test_given_up_amid_a_handshake_it_leaves_no_connection_behind(site: Any, make: Any, authority: Any) -> None:
    hellos = []
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(1))
        while await reader.read(4096):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    up = site.uplink(f"https://127.0.0.1:{port}", tls=Tls(authority("care").file))
    opening = asyncio.create_task(site.open(up))
    await make.until(lambda: hellos)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(30):
        await ended.wait()  # the peer sees the end at once, not when the collector comes
    server.close()


async def test_the_gateway_shows_its_own_certificate_where_one_is_asked(
    serving: Any, site: Any, make: Any, authority: Any
) -> None:
    care = authority("care")
    strict = care.server("127.0.0.1")
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(care.file)
    platform = await serving(strict)
    without = await site.refused(site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(care.file)))
    assert without.code == "GW-NET-05"  # asyncio's server keeps its alert to itself
    assert platform.asked == []
    await site.open(site.uplink(f"https://127.0.0.1:{platform.port}", tls=Tls(care.file, *care.signed("gw-01"))))
    assert len(platform.asked) == 1


@pytest.mark.parametrize("ending", ["closes", "resets"])
async def test_a_certificate_that_is_refused_after_the_handshake_is_told_whatever_our_writing_finds(
    site: Any, make: Any, authority: Any, ending: str
) -> None:
    care = authority("care")
    strict = care.server("127.0.0.1")
    strict.minimum_version = ssl.TLSVersion.TLSv1_3
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(care.file)
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        with suppress(OSError):  # the end of the test
            while True:
                line, _ = listening.accept()
                with line.dup() as rest:
                    with pytest.raises(ssl.SSLError):
                        strict.wrap_socket(line, server_side=True)
                    if ending == "resets":
                        rest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    refusing = threading.Thread(target=refuse)
    refusing.start()
    before = make.sockets()
    try:
        for _ in range(10):
            up = site.uplink(f"https://127.0.0.1:{listening.getsockname()[1]}", tls=Tls(care.file))
            error = await site.refused(up)
            assert error.code == "GW-NET-03", error
        await make.until(lambda: make.sockets() == before)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        refusing.join(10)


async def test_a_certificate_file_that_is_missing_is_said_to_be(site: Any, tmp_path: Path) -> None:
    error = await site.refused(site.uplink("https://127.0.0.1:1", tls=Tls(tmp_path / "absent.pem")))
    assert (error.code, error.facts["error"].startswith("certificates: ")) == ("GW-NET-03", True)


async def test_no_credential_gets_into_the_log(
    serving: Any, site: Any, make: Any, authority: Any, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    care = authority("care")
    platform = await serving(care.server("127.0.0.1"))
    with caplog.at_level(logging.DEBUG):
        up = site.uplink(
            f"https://127.0.0.1:{platform.port}", tls=Tls(care.file), authorization=lambda: "Bearer canary-1234"
        )
        await site.open(up)
        for status in (200, 400, 413, 503, 401):
            platform.conduct = lambda asked, status=status: make.reply(status, f"{asked.headers['authorization']}")
            up.send(Lane.B, make.texts(Lane.B, 1))
            await make.until(lambda: len(platform.posts()) == 1 and (site.told.sent or site.told.losses))
            platform.asked.clear()
            site.told.sent.clear()
        await make.until(lambda: site.told.losses)
        await up.close()
    out, err = capsys.readouterr()
    told = f"{out}{err}{site.told.acks}{[(str(one), repr(one)) for one in site.told.losses]}"
    assert "canary" not in told
    assert not [
        record for record in caplog.records if "canary" in record.getMessage() and record.name.startswith("gateway")
    ]


@pytest.mark.parametrize("days", [(-1, 1), (-3, -1)], ids=["valid", "expired"])
async def test_what_was_judged_by_a_clock_that_nobody_set_is_judged_again_when_the_clock_is_right(
    serving: Any, site: Any, make: Any, authority: Any, days: tuple[int, int]
) -> None:
    """After a power cut: the clock stands years back, and every certificate is young."""
    care = authority("care")
    platform = await serving(care.server("127.0.0.1", days=days))
    known: Moment | None = Moment(0.0, is_sure=False)
    tls = Tls(care.file, moment=lambda: known)
    up = site.uplink(f"https://127.0.0.1:{platform.port}", tls=tls, sign_of_life=0.1, jitter=0.0)
    await site.open(up)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    before = platform.lines
    known = None
    if days == (-1, 1):
        await make.until(lambda: platform.lines > before and len(platform.puts("state")) > 3)
        up.send(Lane.A, make.texts(Lane.A, 1))
        await make.until(lambda: len(site.told.acks) == 2)
        assert site.told.losses == []
    else:
        await make.until(lambda: site.told.losses)
        assert site.told.losses[0].code == "GW-NET-03"
        assert "expired" in site.told.losses[0].facts["error"]


async def test_a_clock_that_is_not_believed_any_more_does_not_judge_new_connections(
    serving: Any, site: Any, make: Any, authority: Any
) -> None:
    """Somebody set the clock by years: OpenSSL alone would refuse each new connection of the session."""
    care = authority("care")
    platform = await serving(care.server("127.0.0.1"))
    known: list[Moment] = []
    tls = Tls(care.file, moment=lambda: known[0] if known else None)
    up = site.uplink(f"https://127.0.0.1:{platform.port}", tls=tls, sign_of_life=0.1, jitter=0.0)
    await site.open(up)
    assert not up._context.verify_flags & 0x200000
    known.append(Moment(0.0, is_sure=False))
    await make.until(lambda: up._context.verify_flags & 0x200000)
    up.send(Lane.A, make.texts(Lane.A, 1))
    await make.until(lambda: site.told.acks)
    assert site.told.losses == []
