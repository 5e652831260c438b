"""Load balancers: whose connection each is comes first, by the PROXY protocol, and counts for everything; from nobody
else is it taken, and nobody is let in by the balancer's own address."""

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
from tests.smtp.kit import CLIENTS, PASSWORD, Peer, Rig, reset, rig
from tests.smtp.test_refused import plain
from tests.smtp.test_tls import LOGIN, Authority
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


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (of("198.51.100.9"), "198.51.100.9"),
        (SECOND, "198.51.100.9"),
        (of("2001:db8::9"), "2001:db8::9"),
        (of("::ffff:198.51.100.9"), "198.51.100.9"),
        (of("127.0.0.5"), "127.0.0.5"),
    ],
)
async def test_the_client_counts(header: bytes, client: str) -> None:
    """What it may send, where its mail is said to come from, what is logged; mapped addresses are IPv4."""
    clients = {"here": {"networks": [client]}, "proxy": {"networks": [PROXY], "senders": ["nobody@example.com"]}}
    async with rig(listener=LISTED, clients=clients) as made:
        peer = await made.connect(address=PROXY, header=header)
        assert (await peer.deliver()).startswith("250")
        (message,) = made.messages
        assert (message.peer, message.client) == (client, "here")
        received = message.raw.split(b"\r\n\r\n")[0]
        assert client.encode() in received
        assert PROXY.encode() not in received
        assert [line["peer"] for line in made.logged() if line["event"] == "accepted"] == [client]


@pytest.mark.parametrize("header", [UNKNOWN, LOCAL, of("0.0.0.0"), second(b"", kind=0)])
async def test_the_balancers_own_address_lets_nobody_in(authority: Authority, header: bytes) -> None:
    """Not as a client, nor with a password in the clear, nor where a password is good from there only; with TLS and a
    good login he sends. What is refused stands in the log under the balancer's address."""
    clients = {**OFFICE, "copier": CLIENTS["copier"], "balancer": {"networks": [PROXY, "127.0.0.0/8"]},
               "near": {**CLIENTS["copier"], "networks": ["127.0.0.0/8"]}}  # fmt: skip
    async with rig(listener={**authority.listener(), **LISTED}, clients=clients) as made:
        peer = await made.connect(address=PROXY, header=header)
        assert "AUTH" not in await peer.ehlo()
        await peer.talk(("MAIL FROM:<a@b.c>", "530 5.7.0 Must issue STARTTLS"), (LOGIN, "538"))
        await peer.start_tls(authority.context)
        await peer.ehlo()
        await peer.talk((plain("near", PASSWORD), "535"), (LOGIN, "235"))
        assert (await peer.deliver()).startswith("250")
        assert {line["peer"] for line in made.logged() if line["event"] == "rejected"} == {PROXY}


async def test_who_is_nobodys() -> None:
    """What a stranger hears whom the balancer does not name."""
    async with rig(listener={**LISTED, "auth": "off"}, clients=OFFICE) as made:
        peer = await made.connect(address=PROXY, header=UNKNOWN)
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c>", "550 5.7.1 Relay access denied: the load balancer"))


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


@pytest.mark.parametrize(
    ("header", "replies"),
    [(of("198.51.100.9"), [b"502 5.7.0"]), (SECOND, [b"500 5.5.2", b"500 5.5.2", b"502 5.7.0"])],
)
async def test_from_others_it_is_a_bad_command(header: bytes, replies: list[bytes]) -> None:
    """Who is not listed is served as ever, and who then speaks of somebody else is told why that does not do."""
    async with rig(listener=LISTED, clients={**OFFICE, **CLIENTS}) as made:
        peer = await made.connect()
        assert (await peer.deliver()).startswith("250")
        assert made.messages[0].peer == "127.0.0.1"
        peer = await made.connect(address="127.0.0.8", header=header)
        said = (await peer.rest()).splitlines()
        assert [line[:9] for line in said] == replies
        assert b"proxy_protocol_from" in said[-1]
        assert made.metric("smtp_rejected_total", stage="command", reason="proxy_header") == 1
    async with rig() as made:
        peer = await made.connect(address=PROXY, header=header)
        assert b"502 5.7.0 The PROXY protocol" in await peer.rest()


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


async def test_limits_are_the_clients() -> None:
    """Connections by address are those of the real one, and it is told so; those of the balancer are not counted."""
    limits = {"connections": 4, "connections_per_ip": 1}
    async with rig(listener=LISTED, limits=limits) as made:
        kept: list[Any] = []
        made.events.on_refusal = kept.append
        first = await made.connect(address=PROXY, header=of("198.51.100.1"))
        for other in ("198.51.100.2", "2001:db8::1", "2001:db8:0:1::1"):
            assert (await made.connect(address=PROXY, header=of(other))).greeting.startswith("220")
        assert (await made.connect(address=PROXY, header=of("198.51.100.5"))).greeting.startswith("421 4.3.2")
        await first.talk(("QUIT", "221"))
        await until(lambda: made.shared.connections.total == 3)
        assert (await made.connect(address=PROXY, header=of("198.51.100.2"))).greeting.startswith("421 4.7.0")
        assert [one.peer for one in kept] == ["198.51.100.5", "198.51.100.2"]


async def test_a_flood_of_silent_ones_is_bounded() -> None:
    """They count as connections, and are gone after five seconds; others hear 421 meanwhile, and nobody longer."""
    async with rig(listener=LISTED, limits={"connections": 30}) as made:
        silent = [await made.connect(address=PROXY, greet=False) for _ in range(30)]
        await until(lambda: made.shared.unknown == 30)
        assert (await made.connect()).greeting.startswith("421 4.3.2")
        too_many = await made.connect(address=PROXY, greet=False)
        assert (await too_many.reply()).startswith("421 4.3.2")
        made.clock.advance(5)
        made.listener.sweep()
        for peer in silent:
            assert await peer.reader.read() == b""
        await until(lambda: made.shared.unknown == 0)
        assert (await made.connect()).greeting.startswith("220")


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


class Arrived(asyncio.Transport):
    """What a loop gives for a connection of ``proxy`` to ``local``."""

    def __init__(self, line: socket.socket, proxy: str, local: str) -> None:
        super().__init__({"peername": (proxy, 40000), "sockname": (local, 25), "socket": line})
        self.line = line

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def abort(self) -> None:
        self.line.close()


@pytest.mark.parametrize(
    ("proxy", "client", "reply"),
    [
        ("192.0.2.7", "127.0.0.1", "550"),
        ("192.0.2.7", "::1", "550"),
        ("192.0.2.7", "::ffff:127.0.0.1", "550"),
        ("192.0.2.7", "198.51.100.9", "550"),
        ("127.0.0.1", "127.0.0.1", "250"),
        ("::ffff:127.0.0.1", "127.0.0.1", "250"),
        ("192.0.2.1", "127.0.0.1", "250"),
    ],
)
async def test_loopback_is_this_machine_only(proxy: str, client: str, reply: str) -> None:
    """A program beside a balancer elsewhere is no program of this machine."""
    clients = {"localhost": {"networks": ["127.0.0.0/8", "::1"]}, "balancers": {"networks": ["192.0.2.7"]}}
    listener = {"proxy_protocol_from": ["192.0.2.0/24", "127.0.0.1"], "auth": "off"}
    async with rig(listener=listener, clients=clients) as made:
        ours, theirs = socket.socketpair()
        made.listener.new_connection().connection_made(Arrived(ours, proxy, "192.0.2.1"))
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(of(client) + b"EHLO c\r\nMAIL FROM:<a@b.c>\r\nQUIT\r\n")
        said = (await reader.read()).decode().splitlines()
        assert said[-2].startswith(reply)
        writer.close()


async def test_a_failed_login_is_the_clients(authority: Authority) -> None:
    """Ten wrong passwords of one client slow down nobody else behind the same balancer."""
    async with rig(
        listener={**authority.listener("implicit"), **LISTED}, clients={"copier": CLIENTS["copier"]}
    ) as made:
        for attempt in range(11):
            peer = await made.connect(tls=authority.context, address=PROXY, header=of("198.51.100.1"))
            await peer.ehlo()
            reply = await peer.say(plain("copier", f"wrong {attempt}"))
        assert reply.startswith("454")
        peer = await made.connect(tls=authority.context, address=PROXY, header=of("198.51.100.2"))
        await peer.ehlo()
        await peer.talk((plain("copier", PASSWORD), "235"))


def made_for(made: Rig) -> str:
    return type(made.listener.new_connection()).__name__


async def test_it_costs_nothing_where_it_is_not_set() -> None:
    """The session's own wire is there from the first octet, as ever."""
    async with rig() as without, rig(listener=LISTED) as with_it:
        assert (made_for(without), made_for(with_it)) == ("Wire", "Entrance")
