"""Quotas and connections of a client, as the client hears of them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from gateway.model import SpoolFull
from tests.smtp.kit import MESSAGE, Peer, Rig, rig

WHY = '127.0.0.5 of client "pcs" has sent its 2 messages a minute (clients.pcs.quota)'
LOCAL = {"networks": ["127.0.0.0/8"]}
PCS = {"pcs": {**LOCAL, "quota": {"messages": "2/minute", "recipients": "5/hour", "per": "address"}}}


def pcs(**quota: Any) -> dict[str, Any]:
    return {"pcs": {**LOCAL, "quota": {"messages": "2/minute", "per": "address", **quota}}}


async def deliver(peer: Peer) -> str:
    """The reply to MAIL where it is refused, else to the message."""
    await peer.ehlo()
    reply = await peer.say("MAIL FROM:<a@example.com>")
    if not reply.startswith("250"):
        return reply
    await peer.talk(("RCPT TO:<b@example.org>", "250"), ("DATA", "354"))
    return await peer.say(MESSAGE + b".\r\n")


@pytest.mark.parametrize(
    ("over", "reply"),
    [
        ("defer", f"450 4.7.1 {WHY}; room again in 61 seconds"),
        ("refuse", f"550 5.7.1 {WHY}; room again in 61 seconds"),
        ("hold", "250 2.0.0 Ok: queued as "),
    ],
)  # fmt: skip
async def test_one_infected_machine(over: str, reply: str) -> None:
    """It is stopped before it uploads anything, or held; the others go on, and so does it when the time is over."""
    async with rig(clients=pcs(over=over)) as made:
        bad, good = await made.connect(address="127.0.0.5"), await made.connect(address="127.0.0.6")
        assert [(await deliver(bad))[:3] for _ in range(2)] == ["250", "250"]
        assert (await deliver(bad)).startswith(reply)
        assert (await deliver(good)).startswith("250")
        held = [message.held for message in made.messages]
        assert held == ["", "", WHY, ""] if over == "hold" else held == ["", "", ""]
        assert made.metric("smtp_rejected_total", stage="mail", reason="rate_limited") == (over != "hold")
        made.clock.advance(61.1)
        assert (await deliver(bad)).startswith("250")
        assert made.messages[-1].held == ""


async def test_recipients_beyond_the_quota_come_later() -> None:
    """Those before are taken, as of too many (RFC 5321 4.5.3.1.10): the client sends the rest in another message."""
    async with rig(clients=PCS) as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"))
        for number in range(5):
            await peer.talk((f"RCPT TO:<{number}@example.org>", "250"))
        await peer.talk(("RCPT TO:<6@example.org>", "450 4.7.1"), ("DATA", "354"))
        assert (await peer.say(MESSAGE + b".\r\n")).startswith("250")
        assert len(made.messages[0].envelope.recipients) == 5
        reply = await peer.say("MAIL FROM:<a@example.com>")
        assert "has sent its 5 recipients an hour (clients.pcs.quota); room again in 61 minutes" in reply
        assert made.metric("smtp_rejected_total", stage="rcpt", reason="rate_limited") == 1


async def test_connections_side_by_side_have_no_quota_each() -> None:
    """What was let pass at MAIL is counted when it is stored: never more than the quota."""
    async with rig(clients=pcs(messages="3/hour")) as made:
        peers = [await made.connect(address="127.0.0.5") for _ in range(8)]
        for peer in peers:
            await peer.envelope()
        replies = await asyncio.gather(*(peer.say(MESSAGE + b".\r\n") for peer in peers))
        assert sorted(reply[:9] for reply in replies) == ["250 2.0.0"] * 3 + ["450 4.7.1"] * 5
        assert len(made.messages) == 3
        assert made.metric("smtp_rejected_total", stage="data", reason="rate_limited") == 5


async def test_a_full_disk_costs_no_quota() -> None:
    """The client comes again with the same message."""
    async with rig(clients=PCS) as made:
        put, peer = made.put, await made.connect()
        made.fail(SpoolFull("no room"))
        for _ in range(4):
            assert (await deliver(peer)).startswith("452 4.3.1")
        made.put = put
        assert [(await deliver(peer))[:3] for _ in range(3)] == ["250", "250", "450"]


async def test_who_logs_in_has_his_own_quota() -> None:
    """One login from many addresses is one, two logins of a client are two."""
    clients = {"staff": {"token": "*", "quota": {"messages": "1/hour", "per": "login"}}}
    async with rig(clients=clients) as made:

        async def send(subject: str, address: str) -> str:
            peer = await made.connect(address=address)
            await peer.ehlo()
            await log_in(made, peer, subject)
            return await deliver(peer)

        assert (await send("ann", "127.0.0.5")).startswith("250")
        assert 'ann of client "staff" has sent its 1 message an hour' in await send("ann", "127.0.0.6")
        assert (await send("bob", "127.0.0.5")).startswith("250")


async def log_in(made: Rig, peer: Peer, subject: str) -> None:
    secret = b64encode(f"\0jwt\0{made.token(subject)}".encode()).decode()
    await peer.talk((f"AUTH PLAIN {secret}", "235"))


async def test_connections_of_a_client() -> None:
    """One too many hears 421 with its first mail and may come again; those of others go on."""
    clients = {"pcs": {**LOCAL, "connections": 2}, "other": {"networks": ["127.0.0.9"]}}
    async with rig(clients=clients) as made:
        one, two, three = [await made.connect(address=f"127.0.0.{n}") for n in (5, 6, 7)]
        for peer in (one, two):
            assert [(await deliver(peer))[:3] for _ in range(2)] == ["250", "250"]
        text = '421 4.7.0 Client "pcs" has its 2 connections (clients.pcs.connections) open, try again later'
        await three.ehlo()
        assert await three.say("MAIL FROM:<a@b.c>") == text
        assert await three.rest() == b""
        assert made.metric("smtp_rejected_total", stage="mail", reason="too_many_connections") == 1
        assert (await deliver(await made.connect(address="127.0.0.9"))).startswith("250")
        assert made.shared.quotas.connections.of("pcs") == 2
        await one.talk(("QUIT", "221"))
        assert await one.rest() == b""
        assert (await deliver(await made.connect(address="127.0.0.7"))).startswith("250")


@pytest.mark.parametrize(
    ("patterns", "address", "reply"),
    [
        (["*", "!*@bad.example"], "b@bad.example", '550 5.7.1 <b@bad.example>: recipient not allowed for client "pcs"'),
        (["*", "!*@bad.example"], "b@example.org", "250"),
        (["!b@example.org", "*@example.org"], "b@example.org", "550 5.7.1"),
    ],
)
async def test_whom_a_client_may_not_write_to(patterns: list[str], address: str, reply: str) -> None:
    async with rig(clients={"pcs": {**LOCAL, "recipients": patterns}}) as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c>", "250"), (f"RCPT TO:<{address}>", reply))
