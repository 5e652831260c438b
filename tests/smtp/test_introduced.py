"""Load balancers: the PROXY header comes first, alone, in pieces, with TLS behind it, late, wrong or never."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.proxyprotocol import LOCAL
from tests.fakes import until
from tests.smtp.kit import CLIENTS, Peer, Rig, reset, rig
from tests.smtp.test_tls import Authority
from tests.test_proxyprotocol import second

PROXY = "127.0.0.9"
LISTED = {"proxy_protocol_from": [PROXY]}
OFFICE = {"office": {"networks": ["198.51.100.0/24"]}}
UNKNOWN = b"PROXY UNKNOWN\r\n"


def of(address: str) -> bytes:
    kind = 6 if ":" in address else 4
    return f"PROXY TCP{kind} {address} {'::1' if kind == 6 else '192.0.2.1'} 40000 25\r\n".encode()


SECOND = second(bytes([198, 51, 100, 9, 192, 0, 2, 1]) + struct.pack(">HH", 40000, 25))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


BAD = {
    "a client of SMTP": b"EHLO c\r\n",
    "TLS at once": b"\x16\x03\x01\x02\x00",
    "no line": b"PROXY TCP4 198.51.100.9\r\n",
    "a line without end": b"PROXY TCP4 " + b"1" * 200,
    "a wrong version": second(b"", command=0x31),
    "too long": second(b"", length=5000),
    "in pieces that do not fit": second(b"x" * 11),
}


async def unanswered(peer: Peer) -> bytes:
    """All that came; octets that were not read make the end of a connection a reset."""
    try:
        return await peer.reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD)
async def test_a_balancer_without_a_header_gets_no_greeting(octets: bytes) -> None:
    """Nothing is answered; each is counted and kept, the log has one line in an hour, at once and later."""
    async with rig(listener=LISTED, clients={"all": {"networks": ["127.0.0.0/8"]}}) as made:
        kept: list[Any] = []
        made.events.on_refusal = kept.append
        for _ in range(3):
            peer = await made.connect(address=PROXY, header=octets, greet=False)
            assert await unanswered(peer) == b""
        made.clock.advance(3600)
        peer = await made.connect(address=PROXY, header=octets, greet=False)
        assert await unanswered(peer) == b""
        assert [(one.reason, one.stage, one.peer, one.code) for one in kept] == [
            ("proxy_header", "connect", PROXY, 0)
        ] * 4
        assert made.metric("smtp_rejected_total", stage="connect", reason="proxy_header") == 4
        lines = [line for line in made.logged() if line["event"] == "rejected"]
        assert [line["level"] for line in lines] == ["warning", "debug", "debug", "warning"]
        assert all(line["detail"] for line in lines)
        assert made.metric("smtp_connections_total") == 0
        assert made.shared.unknown == 0


@pytest.mark.parametrize("start", [b"", b"PROXY TCP4 198", SECOND[:20]])
async def test_a_header_has_five_seconds(start: bytes) -> None:
    """Then it is hung up on, with nothing said."""
    async with rig(listener=LISTED) as made:
        peer = await made.connect(address=PROXY, header=start, greet=False)
        await until(lambda: made.shared.unknown == 1)
        for seconds, waiting in ((4.9, 1), (0.1, 0)):
            made.clock.advance(seconds)
            made.listener.sweep()
            await (await made.connect()).talk(("NOOP", "250"))
            await until(lambda waiting=waiting: made.shared.unknown == waiting)
        assert await peer.reader.read() == b""
        (line,) = (line for line in made.logged() if line["event"] == "rejected")
        assert "within 5 seconds" in line["detail"]


@pytest.mark.parametrize("tls", ["none", "implicit"])
@pytest.mark.parametrize("how", ["close", "reset", "local"])
async def test_a_look_whether_the_port_is_open_says_nothing(authority: Authority, how: str, tls: str) -> None:
    """As balancers do it every second: no line in the log, no refusal."""
    listener = {**(authority.listener("implicit") if tls == "implicit" else {}), **LISTED}
    async with rig(listener=listener) as made:
        kept: list[Any] = []
        made.events.on_refusal = kept.append
        peer = await made.connect(address=PROXY, header=LOCAL if how == "local" else b"", greet=False)
        if how == "local":
            await until(lambda: made.metric("smtp_connections_open") == 1)
        else:
            await until(lambda: made.shared.unknown == 1)
        if how == "reset":
            reset(peer)
        else:
            peer.writer.close()
        await until(lambda: (made.shared.unknown, made.metric("smtp_connections_open")) == (0, 0))
        await until(lambda: not made.listener.tasks)
        assert kept == []
        assert made.logged() == []


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("header", [of("198.51.100.9"), SECOND, LOCAL])
async def test_tls_begins_behind_the_header(authority: Authority, header: bytes, step: int) -> None:
    """The ClientHello comes in the same segment, or all in single octets."""
    async with rig(listener={**authority.listener("implicit"), **LISTED}, clients={**OFFICE, **CLIENTS}) as made:
        loop, sock = asyncio.get_running_loop(), socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind((PROXY, 0))
        await loop.sock_connect(sock, ("127.0.0.1", made.listener.port))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = authority.context.wrap_bio(incoming, outgoing, server_hostname="relay.example.com")
        told, first, greeting = b"QUIT\r\n", header, b""
        while not greeting.endswith(b"221 2.0.0 Bye\r\n"):
            try:
                if secure.version() is None or not outgoing.pending:
                    secure.do_handshake()
                if told:
                    secure.write(told)
                    told = b""
                greeting += secure.read()
            except ssl.SSLWantReadError:
                pass
            octets, first = first + outgoing.read(), b""
            for at in range(0, len(octets), step):
                await loop.sock_sendall(sock, octets[at : at + step])
            if not greeting.endswith(b"Bye\r\n"):
                incoming.write(await loop.sock_recv(sock, 65536))
        assert greeting.startswith(b"220 relay.example.com")
        sock.close()


async def test_what_follows_in_the_same_segment() -> None:
    """A whole conversation behind the header, sent ahead of the greeting."""
    talk = b"EHLO c\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: a@b.c\r\n\r\nx\r\n.\r\nQUIT\r\n"
    async with rig(listener=LISTED, clients=OFFICE) as made:
        for header in (of("198.51.100.9"), SECOND):
            peer = await made.connect(address=PROXY, header=header + talk)
            assert (await peer.rest()).endswith(b"221 2.0.0 Bye\r\n")
        assert [message.peer for message in made.messages] == ["198.51.100.9"] * 2


async def test_starttls(authority: Authority) -> None:
    """The client is who it was; its own header within TLS is a bad command like any other."""
    async with rig(listener={**authority.listener(), **LISTED}, clients=OFFICE) as made:
        peer = await made.connect(address=PROXY, header=SECOND)
        await peer.ehlo()
        await peer.start_tls(authority.context)
        assert (await peer.deliver()).startswith("250")
        assert made.messages[0].peer == "198.51.100.9"
        await peer.talk((of("198.51.100.1"), "502 5.7.0"))
        assert await peer.rest() == b""


async def test_a_flood_of_silent_ones_is_bounded() -> None:
    """They have a share of the connections; who comes after them takes the place of the oldest."""
    async with rig(listener=LISTED, limits={"connections": 30}) as made:
        kept: list[Any] = []
        made.events.on_refusal = kept.append
        silent = [await made.connect(address=PROXY, greet=False) for _ in range(20)]
        await until(lambda: made.shared.unknown == 20)
        assert (await made.connect()).greeting.startswith("220")
        assert (await (await made.connect(address=PROXY, greet=False)).reply()).startswith("421 4.3.2")
        made.clock.advance(0.2)
        for number in range(3):
            peer = await made.connect(address=PROXY, header=of(f"198.51.100.{number}"))
            assert peer.greeting.startswith("220")
            assert await silent[number].reader.read() == b""
            await until(lambda: made.shared.unknown == 19)
            silent.append(await made.connect(address=PROXY, greet=False))
            await until(lambda: made.shared.unknown == 20)
        assert [one.reason for one in kept] == ["too_many_connections", *["proxy_header"] * 3]
        assert made.shared.connections.total == 4
        made.clock.advance(5)
        made.listener.sweep()
        for peer in silent[3:]:
            assert await peer.reader.read() == b""
        await until(lambda: made.shared.unknown == 0)


async def test_the_end_waits_for_no_header() -> None:
    """Who has not said whose connection it is hears nothing, and keeps nobody up."""
    async with rig(listener=LISTED) as made:
        peers = [await made.connect(address=PROXY, header=start, greet=False) for start in (b"", b"PROXY ")]
        await until(lambda: made.shared.unknown == 2)
        await made.listener.drain(None)
        for peer in peers:
            assert await peer.reader.read() == b""
        await until(lambda: made.shared.unknown == 0)
        assert made.logged() == []


async def test_a_reload_takes_it_over() -> None:
    """For who connects from then on; no new socket is needed."""
    async with rig() as made, rig(listener=LISTED, clients=OFFICE) as other:
        await (await made.connect(address=PROXY)).talk(("NOOP", "250"))
        port = made.listener.port
        made.reload(other)
        peer = await made.connect(address=PROXY, header=SECOND)
        assert (await peer.deliver()).startswith("250")
        assert made.listener.port == port


def made_for(made: Rig) -> str:
    return type(made.listener.new_connection()).__name__


async def test_it_costs_nothing_where_it_is_not_set() -> None:
    """The session's own wire is there from the first octet, as ever."""
    async with rig() as without, rig(listener=LISTED) as with_it:
        assert (made_for(without), made_for(with_it)) == ("Wire", "Entrance")
