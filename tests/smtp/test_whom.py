"""Who gets mail in the place of those who were asked for: aliases, one address for all of a client's, and copies."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.model import Capabilities, NewMessage, Recipient
from gateway.rewritten import Rewritten
from tests.smtp.kit import Rig, rig

ALIASES = {
    "root": "admin@example.com",
    "team": ["a@example.org", "b@example.org"],
    "sales@example.com": ["s@example.org"],
}
LOCAL = {"networks": ["127.0.0.1/32"]}
HERE = {"localhost": LOCAL}


async def sent(made: Rig, *recipients: str, raw: bytes = b"From: a@example.com\r\n\r\nx\r\n") -> NewMessage:
    peer = await made.connect()
    assert (await peer.deliver(raw, "<a@example.com>", *recipients)).startswith("250")
    return made.messages[-1]


async def refused(made: Rig, recipient: str) -> str:
    peer = await made.connect()
    await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"))
    return await peer.say(f"RCPT TO:{recipient}")


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        (["<root>"], [Recipient("admin@example.com", "", "rfc822;root@relay.example.com")]),
        (["<Root@localhost>"], [Recipient("admin@example.com", "", "rfc822;Root@localhost")]),
        (["<root@relay.example.com>"], [Recipient("admin@example.com", "", "rfc822;root@relay.example.com")]),
        (["<postmaster>", "<root@example.com>"],
         [Recipient("postmaster@relay.example.com"), Recipient("root@example.com")]),
        (["<root> NOTIFY=NEVER ORCPT=rfc822;x@y"], [Recipient("admin@example.com", "NEVER", "rfc822;x@y")]),
        (["<root>", "<ROOT@localhost>"], [Recipient("admin@example.com")]),  # one address cannot speak for both
        (["<admin@example.com>", "<root>"], [Recipient("admin@example.com")]),
        (["<root> NOTIFY=SUCCESS", "<admin@example.com> NOTIFY=NEVER"], [Recipient("admin@example.com", "SUCCESS")]),
        (["<root> NOTIFY=SUCCESS", "<admin@EXAMPLE.com>"], [Recipient("admin@EXAMPLE.com", "SUCCESS,FAILURE,DELAY")]),
        (["<root+a=b@localhost>"], [Recipient("admin+a=b@example.com", "", "rfc822;root+2Ba+3Db@localhost")]),
        (["<c@example.org>", "<team>"], [Recipient("c@example.org"), *(
            Recipient(f"{one}@example.org", "", "rfc822;team@relay.example.com") for one in "ab")]),
        (["<Sales@example.com>"], [Recipient("s@example.org", "", "rfc822;Sales@example.com")]),
    ],
)  # fmt: skip
async def test_aliases(recipients: list[str], expected: list[Recipient]) -> None:
    """Each gets it once, with what the sender wants to hear (RFC 3461), and the address that was asked for."""
    async with rig(clients=HERE, aliases=ALIASES, recipient_delimiter="+") as made:
        message = await sent(made, *recipients)
        assert list(message.envelope.recipients) == expected
        assert [address for addresses in message.deliveries.values() for address in addresses] == [
            one.address for one in expected
        ]


async def test_what_it_was_is_kept() -> None:
    """Beside what it became, and by what; a message of which nothing was changed has nothing."""
    async with rig(clients=HERE, aliases=ALIASES, default_domain="example.com") as made:
        message = await sent(made, "<team>", "<bob>", "<c@example.org>")
        assert message.rewritten == [
            Rewritten("team@example.com", ("a@example.org", "b@example.org"), "alias", "aliases")
        ]
        assert [one.address for one in message.envelope.recipients][2] == "bob@example.com"
        assert not (await sent(made, "<c@example.org>")).rewritten


async def test_without_a_domain_or_an_alias() -> None:
    """Nobody guesses whose it is: as ever, and the refusal says what is missing."""
    async with rig(clients=HERE, aliases=ALIASES) as made:
        assert await refused(made, "<bob>") == "501 5.1.3 The address needs a domain, write user@example.com: <bob>"
        assert await refused(made, '<"a@b">') == '501 5.1.3 The address needs a domain, write user@example.com: <"a@b">'
        assert (await refused(made, "<@b>")).startswith("501 5.1.3")
    async with rig(clients=HERE, aliases={"*": "all@example.com"}) as made:
        message = await sent(made, "<bob>", '<"a@b">', "<x@example.org>")
        assert [one.address for one in message.envelope.recipients] == ["all@example.com", "x@example.org"]


@pytest.mark.parametrize(
    ("more", "recipient", "reply"),
    [
        ({"recipients": ["*@example.com"]}, "<root>", "250"),  # whom it leads to is allowed
        ({"recipients": ["root@relay.example.com"]}, "<root>", "250"),  # what was asked for is
        ({"recipients": ["*@example.net"]}, "<root>", "550 5.7.1 <root@relay.example.com>"),
        ({"recipients": ["a@example.org"]}, "<team>", "550 5.7.1"),  # not all of them
        ({"recipients": ["*@example.com"], "redirect_to": "test@elsewhere.example"}, "<x@example.com>", "250"),
        ({"recipients": ["*@example.com"], "redirect_to": "test@example.com"}, "<x@example.net>", "550 5.7.1"),
        ({"max_recipients": 1}, "<team>", "250"),  # of those that were asked for
    ],
)
async def test_what_was_asked_for_decides(more: dict[str, Any], recipient: str, reply: str) -> None:
    """What a client may, and how many, is about what it asks for; but an alias leads only where the operator wants."""
    async with rig(clients={"localhost": {**LOCAL, **more}}, aliases=ALIASES) as made:
        assert (await refused(made, recipient)).startswith(reply)


async def test_routes_see_what_it_became() -> None:
    """And what no route takes then is refused at once."""
    two = {name: Capabilities(max_bytes=1000_000) for name in ("box", "other")}
    routes = [{"recipients": ["*@example.com"], "backend": ["other"]}, {"recipients": ["a@*"], "backend": ["box"]}]
    async with rig(clients=HERE, aliases=ALIASES, capabilities=two, routes=routes) as made:
        assert (await sent(made, "<root>")).deliveries == {"other": ("admin@example.com",)}
        assert (await refused(made, "<team>")).startswith("550 5.7.1 <b@example.org>: no line of the setting routes")


async def test_one_address_gets_it_all() -> None:
    """Nobody who was asked for: not by the envelope, nor by a header that somebody answers, or an API reads."""
    clients = {"localhost": {**LOCAL, "redirect_to": "test@example.com"}}
    raw = b"From mbox\r\nFrom: a@example.com\r\nTo: C <c@example.org>,\r\n d@example.org\r\n"
    raw += b"Cc: e@example.org\r\n\r\nTo: x\r\n"
    routes = [{"backend": ["box"], "copy_to": ["log@example.net"]}]
    async with rig(clients=clients, routes=routes, aliases=ALIASES) as made:
        message = await sent(made, "<c@example.org>", "<d@example.org>", "<blind@example.org>", "<root>", raw=raw)
        assert message.envelope.recipients == (Recipient("test@example.com"),)
        assert message.deliveries == {"box": ("test@example.com",)}
        head, body = message.raw.split(b"\r\n\r\n", 1)
        assert body == b"To: x\r\n"
        text = head.replace(b"\r\n\t", b" ").decode()
        assert "\r\nTo: test@example.com\r\n" in text
        assert "\r\nX-Envelope-To: c@example.org, d@example.org, blind@example.org, root@relay.example.com\r\n" in text
        assert "\r\nX-Original-To: C <c@example.org>,\r\n d@example.org\r\nX-Original-Cc: e@example.org" in text
        assert "\r\nX-Mailbox-Line: From mbox\r\n" in text
        assert [(one.asked, one.became, one.why, one.by) for one in message.rewritten][2:] == [
            (f"{name}", ("test@example.com",), "redirect", "clients.localhost.redirect_to")
            for name in ("blind@example.org", "root@relay.example.com")
        ]
        alone = await sent(made, "<c@example.org>")
        assert alone.envelope.recipients == (Recipient("test@example.com", "", "rfc822;c@example.org"),)
        same = await sent(made, "<Test@example.com>", raw=raw)
        assert (same.rewritten, b"\r\nTo: C <c@example.org>" in same.raw) == ([], True)


async def test_many_who_do_not_get_it() -> None:
    """The header keeps within its bounds; the spool has all of them."""
    clients = {"localhost": {**LOCAL, "redirect_to": "test@example.com"}}
    many = [f"<{n:04}{'x' * 240}@{'y' * 60}.example>" for n in range(300)]
    async with rig(clients=clients) as made:
        message = await sent(made, *many)
        assert b" (and 109 more)\r\n" in message.raw
        assert (len(message.rewritten), len(message.envelope.recipients)) == (300, 1)


COPY = Recipient("log@example.net", "NEVER")


@pytest.mark.parametrize(
    ("client", "route", "recipients", "copies"),
    [
        ("log@example.net", (), ["<c@example.org>"], {"log@example.net": "clients.localhost.copy_to"}),
        ((), "log@example.net", ["<c@example.org>"], {"log@example.net": "line 2 of routes"}),
        ((), "log@example.net", ["<c@example.com>"], {}),  # by another line
        ((), "log@example.net", ["<c@example.com>", "<d@example.org>"], {"log@example.net": "line 2 of routes"}),
        ("log@example.net", "LOG@example.net", ["<c@example.org>"], {"log@example.net": "clients.localhost.copy_to"}),
        ("log@example.net", (), ["<Log@example.net>"], {}),  # he gets it anyway
        ("log@example.net", "x@example.com", ["<root>"], {"log@example.net": "clients.localhost.copy_to"}),
        ({}, {}, ["<c@example.org>"], {}),
    ],
)
async def test_copies(client: Any, route: Any, recipients: list[str], copies: dict[str, str]) -> None:
    """One more recipient, of whom no header and no bounce tells, by the way that is his."""
    routes = [{"recipients": ["*@example.com"], "backend": "other"}, {"backend": "box", "copy_to": route or []}]
    two = {name: Capabilities(max_bytes=1000_000) for name in ("box", "other")}
    clients = {"localhost": {**LOCAL, "copy_to": client or []}}
    async with rig(clients=clients, routes=routes, capabilities=two, aliases=ALIASES) as made:
        message = await sent(made, *recipients)
        assert {to: one.by for one in message.rewritten for to in one.became if one.why == "copy"} == copies
        assert [one for one in message.envelope.recipients if one.notify] == [COPY] * bool(copies)
        assert "log@example.net" not in message.raw.decode() or not copies
        if copies:
            assert "log@example.net" in message.deliveries["box"]
        if len(recipients) == 1 and not recipients[0].startswith("<root"):
            assert b" for <" in message.raw  # the trace says no more than it would without a copy


async def test_a_copy_that_nobody_can_carry() -> None:
    """It costs nobody his mail: the others get it, and the life of the message has the reason."""
    clients = {"localhost": {**LOCAL, "copy_to": "log@example.net"}}
    async with rig(clients=clients, routes=[{"recipients": ["*@example.org"], "backend": "box"}]) as made:
        message = await sent(made, "<c@example.org>")
        assert message.deliveries == {"box": ("c@example.org",)}
        assert [one.address for one in message.envelope.recipients] == ["c@example.org", "log@example.net"]
        assert message.refused["log@example.net"].detail == "<log@example.net>: no line of the setting routes matches"


async def test_a_null_sender_is_copied_and_makes_no_loop() -> None:
    """Bounces of other hosts are a client's mail as any; nobody is told of a copy that fails."""
    clients = {"localhost": {**LOCAL, "copy_to": "log@example.net"}}
    async with rig(clients=clients) as made:
        peer = await made.connect()
        assert (await peer.deliver(b"From: <>\r\n\r\nx\r\n", "<>", "<a@example.com>")).startswith("250")
        assert made.messages[0].envelope.sender == ""
        assert made.messages[0].envelope.recipients[1] == COPY


@pytest.mark.parametrize(
    ("more", "client", "head", "expected"),
    [
        ({"default_domain": "example.com"}, {}, b"From: Cron <root>\r\nTo: bob (it's me), c@x.org\r\n",
         b"From: Cron <root@example.com>\r\nTo: bob@example.com (it's me), c@x.org\r\n"),
        ({"default_domain": "example.com"}, {"default_domain": "example.net"}, b"From: root\r\n",
         b"From: root@example.net\r\n"),
        ({"default_domain": "example.com"}, {}, b"DKIM-Signature: v=1\r\nFrom: root\r\n",
         b"DKIM-Signature: v=1\r\nFrom: root\r\n"),
        ({}, {}, b"From: root\r\n", b"From: root\r\n"),
        ({"default_domain": "example.com"}, {"open_relay": True}, b"From: root\r\n", b"From: root\r\n"),
    ],
)  # fmt: skip
async def test_one_default_domain_for_all(
    more: dict[str, Any], client: dict[str, Any], head: bytes, expected: bytes
) -> None:
    """As local_header_rewrite_clients of Postfix has it: of clients that are ours, and never of what is signed."""
    async with rig(clients={"localhost": {**LOCAL, **client}}, **more) as made:
        peer = await made.connect()
        completes = bool(more) and not client.get("open_relay")
        assert ("XLOCALNAMES" in await peer.ehlo()) is completes
        reply = await peer.say("MAIL FROM:<root>")
        assert reply.startswith("250" if completes else "501 5.1.7")
        message = await sent(made, raw=head + b"\r\nFrom: root\r\n")
        assert message.raw.endswith(expected + b"\r\nFrom: root\r\n")
