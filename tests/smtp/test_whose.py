"""Whose a connection of a load balancer is, and what follows: rights, limits, guesses; nobody is let in by the
balancer's own address, and from nobody else is such a word taken."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.proxyprotocol import LOCAL
from tests.fakes import until
from tests.smtp.kit import CLIENTS, PASSWORD, rig
from tests.smtp.test_introduced import LISTED, OFFICE, PROXY, SECOND, UNKNOWN, authority, of
from tests.smtp.test_refused import plain
from tests.smtp.test_tls import LOGIN, Authority
from tests.test_proxyprotocol import second

__all__ = ["authority"]


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
