"""What is kept of a refusal: whoever hears one, at whatever stage, can be found by all that he said of himself."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from gateway.model import Capabilities, SpoolFull
from gateway.refusals import Refused
from tests.smtp.kit import CLIENTS, PASSWORD, Peer, Rig, rig

OFFICE = {"office": {"networks": ["192.0.2.0/24"]}}
LOGINS = {**OFFICE, **{name: CLIENTS[name] for name in ("tokens", "copier")}}
NARROW = {"here": {"networks": ["127.0.0.1/32"], "senders": ["*@example.com"], "recipients": ["*@example.org"]}}
REWRITES = {"here": {**NARROW["here"], "rewrite_sender": {"to": "scan@example.com"}}}


@asynccontextmanager
async def kept(**options: Any) -> AsyncIterator[tuple[Rig, Peer, list[Refused]]]:
    async with rig(**options) as made:
        found: list[Refused] = []
        made.events.on_refusal = found.append
        yield made, await made.connect(), found


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


MAIL = "MAIL FROM:<a@example.com> SIZE=700"
STAGES = [
    (OFFICE, ["EHLO c", "MAIL FROM:<scan@dev.local> SIZE=700 BODY=8BITMIME"],
     {"stage": "mail", "reason": "relay_denied", "code": 550, "sender": "scan@dev.local", "size": 700, "helo": "c"}),
    (OFFICE, ["EHLO c", "MAIL FROM:<>"], {"reason": "relay_denied", "sender": "<>"}),
    (OFFICE, ["EHLO c", "MAIL FROM: scan@dev.local"], {"reason": "relay_denied", "sender": "scan@dev.local"}),
    (NARROW, ["EHLO c", "MAIL FROM:<x@dev.local>"],
     {"stage": "mail", "reason": "sender_denied", "client": "here", "sender": "x@dev.local", "enhanced": "5.7.1"}),
    (NARROW, ["EHLO c", MAIL, "RCPT TO:<b@x.example>"],
     {"stage": "rcpt", "reason": "recipient_denied", "recipients": ("b@x.example",), "sender": "a@example.com",
      "size": 700}),
    (REWRITES, ["EHLO c", "MAIL FROM:<x@dev.local>", "RCPT TO:<b@x.example>"],
     {"stage": "rcpt", "sender": "x@dev.local"}),
    (NARROW, ["EHLO c", "MAIL FROM:<a@@b>"], {"stage": "mail", "reason": "bad_address", "sender": "a@@b"}),
    (NARROW, ["EHLO c", "NONSENSE"], {"stage": "command", "reason": "unknown_command", "sender": "", "client": "here"}),
    (LOGINS, ["EHLO c", "AUTH PLAIN ***"], {"stage": "auth", "reason": "bad_syntax", "user": ""}),
    (LOGINS, ["EHLO c", plain("copier", "wrong")], {"stage": "auth", "reason": "auth_failed", "user": "copier"}),
    (LOGINS, ["EHLO c", plain("copier", "wrong"), "MAIL FROM:<x@dev.local>"],
     {"stage": "mail", "reason": "auth_required", "user": "copier"}),
]  # fmt: skip


@pytest.mark.parametrize(("clients", "said", "wanted"), STAGES, ids=lambda value: str(value)[-40:])
async def test_each_stage(clients: dict[str, Any], said: list[str], wanted: dict[str, Any]) -> None:
    """The last command is refused, and of that is kept what was said of the mail by then; spelled as it was said."""
    async with kept(clients=clients) as (_, peer, found):
        for line in said:
            reply = await peer.say(line)
        assert reply[0] in "45"
        last = found[-1]
        assert {name: getattr(last, name) for name in wanted} == wanted
        assert (last.listener, last.peer, last.follows) == ("local", "127.0.0.1", False)
        assert str(last.code) == reply[:3]
        assert last.text in reply


async def test_a_message_that_is_refused_says_whose_it_was() -> None:
    """With everybody who was to get it, and the octets that came."""
    async with kept(clients=NARROW) as (made, peer, found):
        made.fail(SpoolFull("no space"))
        body = b"From: a@example.com\r\n\r\n" + b"x" * 500 + b"\r\n"
        await peer.deliver(body, "<a@example.com>", "<b@example.org>", "<c@example.org>")
        (row,) = found
        assert (row.stage, row.reason, row.client) == ("data", "spool_full", "here")
        assert row.recipients == ("b@example.org", "c@example.org")
        assert row.size == len(body) + 3


async def test_too_big_says_how_big_it_was() -> None:
    """Also where nothing was announced: all of it is counted, for whoever has to raise a limit."""
    async with kept(clients=NARROW, capabilities={"box": Capabilities(max_bytes=1000)}) as (_, peer, found):
        await peer.deliver(b"From: a@example.com\r\n\r\n" + b"x\r\n" * 1000, "<a@example.com>", "<b@example.org>")
        assert (found[0].reason, found[0].size) == ("too_big", 3026)


async def test_what_a_client_goes_on_with_is_no_further_mistake() -> None:
    """Pipelined commands behind a refused one, in the order of their replies; after a RSET it is its own again."""
    async with kept(clients=NARROW) as (_, peer, found):
        await peer.ehlo()
        for line in ("MAIL FROM:<x@dev.local>", "RCPT TO:<b@example.org>", "DATA", "RSET", "RCPT TO:<b@example.org>"):
            await peer.say(line)
        for line in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@x.example>", "DATA"):
            await peer.say(line)
        assert [(row.reason, row.follows) for row in found] == [
            ("sender_denied", False), ("bad_sequence", True), ("bad_sequence", True), ("bad_sequence", False),
            ("recipient_denied", False), ("bad_sequence", True),
        ]  # fmt: skip


async def test_a_token_is_told_by_its_id_and_never_shown() -> None:
    """Which one it is that has ended, was cut off or comes from the wrong place."""
    clients = {"app": {"token": "app", "networks": ["127.0.0.2/32"]}, "tokens": {"token": "*"}}
    async with kept(clients=clients, listener={"auth": "required"}) as (made, _, found):
        old = made.token("billing", jti="j7", expires_in=timedelta(seconds=1))
        made.clock.advance(60)
        whole = made.token("app")
        for user, password in (("jwt", old), ("jwt", whole[:90]), (whole, whole[:60]), ("jwt", whole)):
            peer = await made.connect()
            await peer.ehlo()
            assert (await peer.say(plain(user, password))).startswith("535")
        ended, cut, pasted, elsewhere = found
        assert (ended.reason, ended.user) == ("token_expired", "jwt")
        assert ended.detail.startswith("jti j7; sub billing; expired at 2026-11-20")
        assert (cut.reason, cut.detail) == ("token_malformed", "90 characters")
        assert "eyJ" not in repr(pasted)
        assert (elsewhere.reason, elsewhere.client) == ("wrong_network", "app")
        assert "does not hold 127.0.0.1" in elsewhere.detail
        made.events.flush()
        assert "eyJ" not in made.log.getvalue()


async def test_a_password_is_in_nothing_that_is_kept() -> None:
    """Nor what may be one: people type it where the name belongs."""
    async with kept(clients=LOGINS) as (made, peer, found):
        await peer.ehlo()
        for user, password in (("copier", PASSWORD + "x"), (PASSWORD, "copier")):
            await peer.say(plain(user, password))
        assert PASSWORD not in repr(found) + made.log.getvalue()
        assert [row.user for row in found] == ["copier", f"unknown, {len(PASSWORD)} characters"]


PLAIN = base64.b64encode(f"\0copier\0{PASSWORD}".encode()).decode()
ACTING = base64.b64encode(f"a@example.com\0copier\0{PASSWORD}".encode()).decode()
XOAUTH2 = base64.b64encode(f"user=a@example.com\1auth=Bearer {PASSWORD}\1\1".encode()).decode()
BEARER = base64.b64encode(f"n,a=a@example.com,\1port=25\1auth=Bearer {PASSWORD}\1\1".encode()).decode()


@pytest.mark.parametrize("answer", [PLAIN, ACTING, XOAUTH2, BEARER])
@pytest.mark.parametrize(
    "line",
    ["{}", "HELO {}", "EHLO {}", "MAIL FROM:<{}>", "MAIL FROM:{}", "MAIL FROM:<a@example.com> AUTH={}",
     "MAIL FROM:<{}@example.com>", "RCPT TO:<{}>", "RCPT TO:<a@example.com> ORCPT=rfc822;{}", "VRFY {}", "NOOP {}"],
)  # fmt: skip
async def test_an_answer_to_auth_is_kept_nowhere(line: str, answer: str) -> None:
    """A client that is out of step says it in the place of a command; also where any sender is taken and rewritten."""
    clients = {"here": {"networks": ["127.0.0.1/32"], "default_domain": "example.com", **REWRITES["here"]}}
    async with kept(clients=clients) as (made, peer, found):
        await peer.ehlo()
        if line.startswith("RCPT"):
            await peer.say("MAIL FROM:<a@example.com>")
        reply = await peer.say(line.format(answer))
        assert reply.startswith("501" if " " in line else "500")
        made.events.flush()
        everything = repr(found) + made.log.getvalue() + reply
        assert answer[:-2].lower() not in everything.lower()
        assert len(found) == 1


HONEST = [
    "MAIL FROM:<googlegroups@example.com>", "MAIL FROM:<AAAAAAAA@example.com>", "MAIL FROM:<dXNlcm5hbWU=@example.com>",
    "MAIL FROM:<prvs=1234567890=bob@example.com>", "MAIL FROM:<SRS0+abcd=AB=example.org=x@example.com>",
    "MAIL FROM:<a@example.com> ENVID=AHVzZXI", "EHLO YWJjZGVmZ2hpamts", "NOOP AAAAAAAAAAAA",
]  # fmt: skip


@pytest.mark.parametrize("line", HONEST)
async def test_what_only_looks_like_one_is_taken(line: str) -> None:
    """Base64 of a name, of zeros, or of half an answer is none."""
    async with kept(clients=NARROW) as (_, peer, _found):
        await peer.ehlo()
        assert (await peer.say(line)).startswith("250")


async def test_who_is_not_let_in_at_all_is_kept() -> None:
    """Too many connections; a handshake that fails."""
    async with kept(limits={"connections_per_ip": 1}) as (made, _, found):
        await made.connect()
        (row,) = found
        assert (row.stage, row.reason, row.code, row.peer) == ("connect", "too_many_connections", 421, "127.0.0.1")


async def test_who_is_hung_up_on_is_kept() -> None:
    """For his silence in the middle of a message, with the mail it was about."""
    async with kept(clients=NARROW, limits={"idle": "1m"}) as (made, peer, found):
        await peer.envelope("<a@example.com>", "<b@example.org>")
        peer.send(b"Subject: x\r\n")
        made.clock.advance(3600)
        made.listener.sweep()
        assert (await peer.reply()).startswith("421")
        (row,) = found
        assert (row.stage, row.reason, row.sender) == ("data", "idle", "a@example.com")
        assert row.recipients == ("b@example.org",)
