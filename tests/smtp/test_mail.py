"""Who may send what to whom: decided at MAIL, at RCPT and at the end of DATA, before anything is promised."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.model import Capabilities, Recipient
from tests.smtp.kit import CLIENTS, MESSAGE, Peer, rig

SCANNER = "scanner@example.com"
RESTRICTED = {
    "localhost": {"networks": ["127.0.0.1/32"], "senders": ["*@example.com"], "recipients": ["*@example.org"]}
}


async def test_accepted_message() -> None:
    """Envelope, trace, deliveries and the words of the reply; the body's bytes are untouched."""
    body = b"dots:\r\n..\r\n...a\r\n\xff\xfe \r\n"
    async with rig() as made:
        peer = await made.connect()
        await peer.talk(
            ("EHLO c.example", "250"),
            ("MAIL FROM:<A@Example.com> BODY=8BITMIME RET=HDRS ENVID=Xy+2B", "250"),
            ("RCPT TO:<b@example.org> NOTIFY=NEVER ORCPT=rfc822;B@x", "250"),
            ("DATA", "354"),
        )
        reply = await peer.say(b"From: A@Example.com\r\n\r\n" + body + b".\r\n")
        message = made.messages[0]
        assert reply == f"250 2.0.0 Ok: queued as {message.id}"
        assert message.envelope.sender == "A@Example.com"
        assert message.envelope.recipients == (Recipient("b@example.org", "NEVER", "rfc822;B@x"),)
        assert (message.envelope.ret, message.envelope.envid, message.envelope.eightbit) == ("HDRS", "Xy+2B", True)
        assert message.deliveries == {"box": ("b@example.org",)}
        assert (message.client, message.listener, message.peer) == ("localhost", "local", "127.0.0.1")
        assert message.message_id == f"<{message.id}@relay.example.com>"
        assert message.header_from == "A@Example.com"
        assert message.raw.endswith(b"\r\n\r\n" + body.replace(b"\r\n..", b"\r\n."))
        received = message.raw[: message.raw.index(b"\r\nDate:")].replace(b"\r\n\t", b" ")
        assert received.startswith(b"Received: from c.example ([127.0.0.1])")
        assert f"by relay.example.com with ESMTP id {message.id} for <b@example.org>;".encode() in received
        accepted = [line for line in made.logged() if line["event"] == "accepted"]
        assert [line["id"] for line in accepted] == [message.id]
        assert made.metric("messages_received_total", client="localhost") == 1


async def test_null_sender_is_empty() -> None:
    async with rig() as made:
        peer = await made.connect()
        assert (await peer.deliver(sender="<>")).startswith("250")
        assert made.messages[0].envelope.sender == ""


@pytest.mark.parametrize(
    ("sender", "header", "code"),
    [
        ("<a@example.com>", b"From: a@example.com", "250"),
        ("<a@evil.example>", b"", "553 5.7.1"),
        ("<a@example.com>", b"From: boss@evil.example", "553 5.7.1"),
        ("<a@example.com>", b"From: a@example.com\r\nFrom: boss@evil.example", "553 5.7.1"),
        ("<a@example.com>", b"From: a@example.com\r\nSender: boss@evil.example", "553 5.7.1"),
        ("<a@example.com>", b"From: a@example.com, boss@evil.example", "553 5.7.1"),
        ("<a@example.com>", b"Subject: no From", "250"),
        ("<>", b"From: a@example.com", "250"),
        ("<>", b"From: boss@evil.example", "553 5.7.1"),
        ("<>", b"From: MAILER-DAEMON <>", "250"),
        ("<>", b"From: =?utf-8?q?boss=40evil.example?= <>", "553 5.7.1"),
        ("<>", b"From: =?utf-8?q?boss=40evil.example or so?= <>", "553 5.7.1"),
        ("<a@example.com>", b"From: The Boss <>", "553 5.7.1"),
    ],
)
async def test_sender_ownership(sender: str, header: bytes, code: str) -> None:
    """Envelope and header are within what the client was granted; the reply names the setting."""
    async with rig(clients=RESTRICTED) as made:
        peer = await made.connect()
        await peer.ehlo()
        reply = await peer.say(f"MAIL FROM:{sender}")
        if reply.startswith("250"):
            await peer.talk(("RCPT TO:<b@example.org>", "250"), ("DATA", "354"))
            reply = await peer.say((header or b"X: y") + b"\r\n\r\nx\r\n.\r\n")
        assert reply.startswith(code)
        if code != "250":
            assert "clients.localhost.senders" in reply
        assert len(made.messages) == (code == "250")


@pytest.mark.parametrize(
    ("when", "sender", "shown", "envelope", "header", "was"),
    [
        ("not_allowed", "<a@example.com>", b"a@example.com", "a@example.com", "a@example.com", ""),
        ("not_allowed", "<a@printer.local>", b"x@printer.local", SCANNER, SCANNER, "a@printer.local"),
        ("not_allowed", "<a@example.com>", b"x@printer.local", "a@example.com", SCANNER, "x@printer.local"),
        ("always", "<a@example.com>", b"a@example.com", SCANNER, SCANNER, "a@example.com"),
        ("always", "<scanner@example.com>", b"scanner@example.com", SCANNER, SCANNER, ""),
        ("always", "<>", b"a@example.com", "", SCANNER, "a@example.com"),
        ("not_allowed", "<root> BODY=8BITMIME", b"root", SCANNER, SCANNER, "root"),
        ("always", "HP Scanner SIZE=100", b"root", SCANNER, SCANNER, "HP Scanner"),
        ("always", "<EXAMPLE\\copier>", b"a@example.com", SCANNER, SCANNER, "EXAMPLE\\copier"),
        ("always", "<büro@example.com>", b"a@example.com", SCANNER, SCANNER, "büro@example.com"),
    ],
)
async def test_sender_rewriting(when: str, sender: str, shown: bytes, envelope: str, header: str, was: str) -> None:
    """And what was changed is kept beside what it was."""
    known = {**RESTRICTED["localhost"], "rewrite_sender": {"to": "scanner@example.com", "when": when}}
    async with rig(clients={"localhost": known}) as made:
        peer = await made.connect()
        reply = await peer.deliver(b"From: " + shown + b"\r\n\r\nx\r\n", sender)
        assert reply.startswith("250")
        message = made.messages[0]
        assert (message.envelope.sender, message.header_from, message.envelope.original) == (envelope, header, was)
        assert message.raw.count(b"From: ") == 1
        assert f"From: {header}".encode() in message.raw


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("root SIZE=1000 ENVID=a RET=hdrs", "250"),
        ("<root> SIZE=1000 ENVID=a RET=hdrs", "250"),
        ("HP Scanner  SIZE=1000 ENVID=a RET=hdrs", "250"),
        ("<HP Scanner>SIZE=1000 ENVID=a RET=hdrs", "250"),
        ("root SIZE=99999999999", "552 5.3.4"),
        ("root SIZE=many", "501 5.5.4"),
        ("root SIZE=1 FOO=1", "555 5.5.4"),
        ("<root> FOO=1", "555 5.5.4"),
    ],
)
async def test_parameters_behind_a_sender_that_is_no_address(path: str, reply: str) -> None:
    """They count as behind any other, with brackets and without."""
    known = {**RESTRICTED["localhost"], "rewrite_sender": {"to": "scanner@example.com"}}
    async with rig(clients={"localhost": known}) as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), (f"MAIL FROM:{path}", reply))
        if reply == "250":
            await peer.talk(("RCPT TO:<b@example.org>", "250"), ("DATA", "354"))
            await peer.talk((b"From: a@example.com\r\n\r\nx\r\n.\r\n", "250"))
            assert (made.messages[0].envelope.envid, made.messages[0].envelope.ret) == ("a", "HDRS")


async def test_postmaster_needs_no_domain() -> None:
    """RFC 5321 4.5.1: he is this host's, in any case; nobody else is taken without one."""
    async with rig() as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"))
        await peer.talk(("RCPT TO:<Postmaster> NOTIFY=NEVER", "250"), ("RCPT TO:<root>", "501 5.1.3"), ("DATA", "354"))
        assert (await peer.say(MESSAGE + b".\r\n")).startswith("250")
        assert made.messages[0].envelope.recipients == (Recipient("postmaster@relay.example.com", "NEVER"),)


@pytest.mark.parametrize(
    ("more", "sender", "shown"),
    [
        ({}, "root@example.com", "root@example.com"),
        ({"senders": ["*@example.com"]}, "root@example.com", "root@example.com"),
        ({"senders": ["a@example.com"]}, "", ""),
        ({"senders": ["a@example.com"], "rewrite_sender": {"to": "s@example.com"}}, "s@example.com", "s@example.com"),
        ({"rewrite_sender": {"to": "s@example.com", "when": "always"}}, "s@example.com", "s@example.com"),
    ],
)
async def test_default_domain(more: dict[str, Any], sender: str, shown: str) -> None:
    """It completes envelope and header as Postfix's append_at_myorigin does, and what comes out is judged."""
    clients = {"localhost": {"networks": ["127.0.0.1/32"], "default_domain": "example.com", **more}}
    async with rig(clients=clients) as made:
        peer = await made.connect()
        await peer.ehlo()
        reply = await peer.say("MAIL FROM:<root>")
        if not sender:
            assert reply.startswith("553 5.7.1 <root@example.com>: sender not allowed")
            return
        steps = [(f"RCPT TO:<{one}>", "250") for one in ("admin", "b@example.org", "postmaster")]
        await peer.talk(*steps, ("DATA", "354"))
        text = b"From: Cron <root>\r\nTo: admin,\r\n b@example.org\r\nSubject: to root\r\n\r\nTo: root\r\n.\r\n"
        await peer.talk((b"From cron Fri\r\n" + text, "250"))
        message = made.messages[0]
        assert (message.envelope.sender, message.header_from) == (sender, shown)
        addresses = [recipient.address for recipient in message.envelope.recipients]
        assert addresses == ["admin@example.com", "b@example.org", "postmaster@example.com"]
        assert b"\r\nTo: admin@example.com,\r\n b@example.org\r\nSubject: to root\r\n\r\nTo: root\r\n" in message.raw
        assert b"\r\nX-Mailbox-Line: From cron Fri\r\n" in message.raw
        await peer.talk(("MAIL FROM:<EXAMPLE\\copier>", "250" if "rewrite_sender" in more else "501 5.1.7"))


async def test_a_default_domain_counts_from_the_reload_on() -> None:
    """Also in a session that was open before."""
    clients = {"localhost": {"networks": ["127.0.0.1/32"]}}
    more = {"localhost": {**clients["localhost"], "default_domain": "example.com"}}
    async with rig(clients=clients) as made, rig(clients=more) as other:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<root>", "501 5.1.7"))
        made.reload(other)
        await peer.talk(("MAIL FROM:<root>", "250"))


async def test_recipients_within_the_grant() -> None:
    async with rig(clients=RESTRICTED) as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"))
        reply = await peer.say("RCPT TO:<x@elsewhere.example>")
        assert reply.startswith("550 5.7.1")
        assert "clients.localhost.recipients" in reply
        await peer.talk(("RCPT TO:<x@example.org>", "250"), ("DATA", "354"), (MESSAGE + b".\r\n", "250"))
        refused = next(line for line in made.logged() if line["event"] == "rejected")
        assert (refused["stage"], refused["recipients"]) == ("rcpt", ["x@elsewhere.example"])
        assert (refused["reason"], refused["sender"]) == ("recipient_denied", "a@example.com")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("MAIL FROM:<scanner@@exämple>", "501 5.1.7"),
        ("RCPT TO:<it@example.com,ops@example.com>", "501 5.1.3"),
        ("RCPT TO:<it@example..com> NOTIFY=NEVER", "501 5.1.3"),
    ],
)
async def test_a_refused_address_can_be_found(line: str, code: str) -> None:
    """In the reply and in the log, as it was sent."""
    async with rig() as made:
        peer = await made.connect()
        await peer.ehlo()
        if line.startswith("RCPT"):
            await peer.talk(("MAIL FROM:<a@example.com>", "250"))
        sent = line.partition(":")[2]
        reply = await peer.say(line)
        assert reply.startswith(code)
        assert reply.endswith(": " + sent.replace("ä", "?"))
        (refused,) = (entry for entry in made.logged() if entry["event"] == "rejected")
        assert refused["text"].endswith(": " + sent)


async def test_duplicates_are_one_recipient() -> None:
    """A recipient given twice is answered 250 and stored once; the local part's case is for its host to judge
    (RFC 5321 2.4), so whoever differs there was acknowledged and gets mail."""
    async with rig() as made:
        peer = await made.connect()
        await peer.deliver(MESSAGE, "<a@example.com>", "<b@example.org>", "<b@EXAMPLE.org>", "<B@example.org>")
        stored = [recipient.address for recipient in made.messages[0].envelope.recipients]
        assert stored == ["b@example.org", "B@example.org"]


@pytest.mark.parametrize(
    ("own", "common", "most", "surplus"),
    [(None, 100, 100, 150), (20, 100, 20, 150), (200, 100, 100, 150), (None, 1000, 1000, 1000)],
)
async def test_too_many_recipients(own: int | None, common: int, most: int, surplus: int) -> None:
    """452 4.5.3 above the limit, as often as that takes; the first ones get their mail (RFC 5321 4.5.3.1.10)."""
    clients: dict[str, Any] = {"localhost": {"networks": ["127.0.0.1/32"], "max_recipients": own}}
    async with rig(clients=clients, limits={"max_recipients": common}) as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c>", "250"))
        peer.send(b"".join(b"RCPT TO:<u%d@x.y>\r\n" % number for number in range(most + surplus)))
        replies = [(await peer.reply())[:9] for _ in range(most + surplus)]
        assert replies == ["250 2.1.5"] * most + ["452 4.5.3"] * surplus
        await peer.talk(("DATA", "354"), (MESSAGE + b".\r\n", "250"))
        assert len(made.messages[0].envelope.recipients) == most


async def test_lanes_follow_the_routes() -> None:
    """Each recipient by the first usable backend of its route; none by a route that does not exist."""
    limits = {"one": Capabilities(max_bytes=1000), "two": Capabilities(max_bytes=1_000_000, null_sender=False)}
    routes = [
        {"recipients": ["*@a.example"], "backend": ["one", "two"]},
        {"recipients": ["*@b.example"], "backend": ["two"]},
    ]
    async with rig(capabilities=limits, routes=routes) as made:
        peer = await made.connect()
        reply = await peer.deliver(MESSAGE, "<x@y.z>", "<1@a.example>", "<2@b.example>", "<3@a.example>")
        assert reply.startswith("250")
        assert made.messages[0].deliveries == {"one": ("1@a.example", "3@a.example"), "two": ("2@b.example",)}
        big = MESSAGE + b"x\r\n" * 1000
        await peer.deliver(big, "<x@y.z>", "<1@a.example>")
        assert made.messages[1].deliveries == {"two": ("1@a.example",)}
        await peer.talk(("MAIL FROM:<x@y.z>", "250"))
        reply = await peer.say("RCPT TO:<4@c.example>")
        assert reply.startswith("550 5.7.1")
        assert "routes" in reply
        await peer.talk(("RSET", "250"), ("MAIL FROM:<>", "250"), ("RCPT TO:<1@b.example>", "550 5.7.1"))


async def test_real_size_decides_at_the_end() -> None:
    """Undeclared and over what the route carries: refused before 250, and the session goes on."""
    limits = {"small": Capabilities(max_bytes=2000), "large": Capabilities(max_bytes=100_000)}
    routes = [{"recipients": ["*@a.example"], "backend": ["small"]}, {"backend": ["large"]}]
    async with rig(capabilities=limits, routes=routes) as made:
        peer = await made.connect()
        assert "SIZE 100000" in await peer.ehlo()
        await peer.envelope("<x@y.z>", "<1@a.example>")
        reply = await peer.say(MESSAGE + b"x\r\n" * 1000 + b".\r\n")
        assert reply.startswith("552 5.3.4")
        assert "small" in reply
        await peer.envelope("<x@y.z>", "<1@b.example>")
        assert (await peer.say(MESSAGE + b"x\r\n" * 50_000 + b".\r\n")).startswith("552 5.3.4")
        assert made.messages == []
        await peer.talk(("NOOP", "250"))


@pytest.mark.parametrize(
    ("message", "tolerate", "code"),
    [
        (b"just text, no header\r\n", [], "554 5.6.0"),
        (b"just text, no header\r\n", ["missing_headers"], "250"),
        (b"", [], "554 5.6.0"),
        (b"", ["missing_headers"], "250"),
        (b"\r\nbody only\r\n", [], "554 5.6.0"),
        (b"Subject: x\r\n", [], "250"),
        (b"Subject: x\nbare\r\n", ["long_lines"], "550 5.5.2"),
        (b"Subject: x\nTo: b@c\n\nbare\r\n", ["bare_newlines"], "250"),
        (b"Subject: " + b"x" * 2000 + b"\r\n", ["long_lines"], "250"),
        (b"Subject: " + b"x" * 2000 + b"\r\n", [], "554 5.6.0"),
        (b"Subject: " + b"x" * 70_000 + b"\r\n", ["long_lines"], "554 5.6.0"),
        (b"Subject: x\r\n\r\nNUL \0 is data\r\n", [], "250"),
        (b"".join(b"X-%d: %s\r\n" % (number, b"y" * 900) for number in range(120)), [], "250"),
        (b"".join(b"X-%d: %s\r\n" % (number, b"y" * 900) for number in range(600)), [], "554 5.6.0"),
        (b"Received: by a\r\n" * 99 + b"\r\n", [], "250"),
        (b"Received: by a\r\n" * 100 + b"\r\n", [], "554 5.4.6"),
        (b"Received: from x by Relay.example.com with SMTP\r\n" * 5 + b"\r\n", [], "554 5.4.6"),
        (b"Received: from x by Relay.example.com with SMTP\r\n" * 4 + b"\r\n", [], "250"),
    ],
)
async def test_what_a_message_may_be(message: bytes, tolerate: list[str], code: str) -> None:
    """Faults of the message are 5xx, name the setting that tolerates them, and leave the session in step."""
    async with rig(listener={"tolerate": tolerate}) as made:
        peer = await made.connect()
        reply = await peer.deliver(message)
        assert reply.startswith(code)
        assert len(made.messages) == (code == "250")
        if made.messages:
            stored = made.messages[0].raw
            assert stored.count(b"\n") == stored.count(b"\r\n") == stored.count(b"\r")
        await peer.talk(("NOOP", "250"))


@pytest.mark.parametrize("greeting", [(), (("HELO ", "501"),), (("EHLO", "501"),)])
async def test_a_device_that_does_not_say_who_it_is(greeting: tuple[tuple[str, str], ...]) -> None:
    """An empty HELO is refused and yet enough; without any it must be tolerated. The trace shows the address."""
    for tolerate in ([], ["missing_helo"]):
        async with rig(listener={"tolerate": tolerate}) as made:
            peer = await made.connect()
            taken = bool(tolerate or greeting)
            await peer.talk(*greeting, ("MAIL FROM:<a@example.com>", "250" if taken else "503 5.5.1"))
            if taken:
                await peer.talk(("RCPT TO:<b@example.net>", "250"), ("DATA", "354"), ("Subject: x\r\n\r\n.", "250"))
                assert b"Received: from unknown ([127.0.0.1]) " in made.messages[0].raw


async def test_cr_cr_lf_is_one_line_end() -> None:
    """PHP behind busybox writes it: an empty line after every field would show the blind recipients as text."""
    lines = b"Subject: x", b"From: a@example.com", b"Bcc: hidden@example.com", b"Content-Type: text/html", b"", b"<b>hi"
    async with rig(listener={"tolerate": ["bare_newlines"]}) as made:
        peer = await made.connect()
        assert (await peer.deliver(b"".join(line + b"\r\r\n" for line in lines))).startswith("250")
        assert made.messages[0].raw.endswith(b"Content-Type: text/html\r\n\r\n<b>hi\r\n")
        assert b"hidden" not in made.messages[0].raw


LF_SESSION = b"HELO plc\nMAIL FROM:<a@b.c>\nRCPT TO:<b@c.d>\nDATA\n"
LF_BODY = b"Subject: level high\n\nTank 3\n..hidden\n"


async def lf_session(peer: Peer, session: bytes = LF_SESSION) -> None:
    """Up to and including 354."""
    peer.send(session)
    for code in ("250", "250", "250", "354"):
        assert (await peer.reply(plain=True)).startswith(code)


@pytest.mark.parametrize("body", [LF_BODY, b""])
@pytest.mark.parametrize("behind", [b"", b"NOOP\n"])
async def test_who_ends_every_line_with_lf_ends_the_message_so(body: bytes, behind: bytes) -> None:
    """Where it is tolerated; a dot before a line is taken off, and what follows is the next command."""
    async with rig(listener={"tolerate": ["bare_newlines", "missing_headers"]}) as made:
        peer = await made.connect()
        await lf_session(peer)
        assert (await peer.say(body + b".\n" + behind)).startswith("250 2.0.0 Ok: queued")
        if behind:
            assert (await peer.reply()).startswith("250")
        assert made.messages[0].raw.endswith(b"\r\n\r\nTank 3\r\n.hidden\r\n" if body else b"\r\n")
        await peer.talk((b"QUIT\n", "221"))


@pytest.mark.parametrize(
    ("session", "body", "clients"),
    [
        (LF_SESSION.replace(b"plc\n", b"plc\r\n"), LF_BODY, CLIENTS),
        (LF_SESSION, b"Subject: x\r\n" + LF_BODY, CLIENTS),
        (LF_SESSION, LF_BODY + b"\r", CLIENTS),
        (LF_SESSION, LF_BODY, {"all": {"networks": ["0.0.0.0/0"], "open_relay": True}}),
    ],
)
async def test_lf_ends_no_message_where_it_could_be_smuggled(
    session: bytes, body: bytes, clients: dict[str, Any]
) -> None:
    """After any CR of this connection, and from just anybody: the next commands are text of the one message."""
    async with rig(listener={"tolerate": ["bare_newlines"]}, clients=clients) as made:
        peer = await made.connect()
        await lf_session(peer, session)
        peer.send(body + b".\nMAIL FROM:<evil@x>\nRCPT TO:<b@y>\nDATA\nforged\r\n.\r\n")
        assert (await peer.reply()).startswith("250")
        assert len(made.messages) == 1
        assert made.messages[0].raw.endswith(b"\r\nDATA\r\nforged\r\n")


async def test_smuggled_dialogue_is_one_message_or_none() -> None:
    """A complete second transaction behind a false end: one reply, nothing of it obeyed."""
    inside = b"MAIL FROM:<e@x.y>\r\nRCPT TO:<v@x.y>\r\nDATA\r\nforged\r\n"
    for tolerate in ([], ["bare_newlines"]):
        async with rig(listener={"tolerate": tolerate}) as made:
            peer = await made.connect()
            await peer.envelope()
            reply = await peer.say(MESSAGE + b"\n.\r\n" + inside + b".\r\n")
            assert reply.startswith("250" if tolerate else "550 5.5.2")
            await peer.talk(("NOOP", "250"))
            assert len(made.messages) == len(tolerate)


async def test_rate() -> None:
    """450 4.7.1 names client and setting; other clients go on."""
    clients: dict[str, Any] = {
        "slow": {"networks": ["127.0.0.1/32"], "rate": "2/minute"},
        "free": {"networks": ["127.0.0.2/32"]},
    }
    async with rig(clients=clients) as made:
        peer, other = await made.connect(), await made.connect(address="127.0.0.2")
        for _ in range(2):
            assert (await peer.deliver()).startswith("250")
        reply = await peer.say("MAIL FROM:<a@b.c>")
        assert reply.startswith("450 4.7.1")
        assert "clients.slow.rate" in reply
        for _ in range(3):
            assert (await other.deliver()).startswith("250")
        made.clock.advance(62)
        assert (await peer.deliver()).startswith("250")


async def test_bug_before_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a command that never waits."""
    async with rig() as made:
        peer = await made.connect()
        await peer.ehlo()
        monkeypatch.setattr(made.auth, "still_valid", {}.__getitem__)  # KeyError
        assert await peer.say("MAIL FROM:<a@b.c>") == "451 4.3.0 Temporary failure on our side, try again later"
        await peer.talk(("NOOP", "250"))
        assert "KeyError" in "".join(line.get("exception", "") for line in made.logged())


@pytest.mark.parametrize(
    ("address", "auth", "code"),
    [
        ("127.0.0.1", "optional", "250"),
        ("127.0.0.1", "off", "250"),
        ("127.0.0.1", "required", "530 5.7.0"),
        ("127.0.0.9", "optional", "530 5.7.0"),
        ("127.0.0.9", "off", "550 5.7.1"),
    ],
)
async def test_no_open_relay(address: str, auth: str, code: str) -> None:
    """Who is no client is told what would help."""
    async with rig(listener={"auth": auth}) as made:
        peer = await made.connect(address=address)
        await peer.ehlo()
        assert (await peer.say("MAIL FROM:<a@example.com>")).startswith(code)
        if code != "250":
            await peer.talk(("RCPT TO:<b@example.org>", "503 5.5.1"), ("DATA", "503 5.5.1"), ("MAIL FROM:<>", code))


async def test_no_login_is_offered_where_nobody_has_one() -> None:
    """A stranger among clients known by network alone: 550, because a login could not help."""
    async with rig(clients=RESTRICTED) as made:
        peer = await made.connect(address="127.0.0.9")
        assert "AUTH" not in await peer.ehlo()
        await peer.talk(("MAIL FROM:<a@example.com>", "550 5.7.1"), ("AUTH PLAIN", "502 5.5.1"))


@pytest.mark.parametrize(
    "form",
    [
        "<a%b.c@example.org>", "<a!b@example.org>", '<"a@b.c"@example.org>', "<@example.org:a@b.c>",
        "<a@b.c@example.org>", '<"a@b.c">', "<b.c!a>", "<a@[127.0.0.1]>", "<a%b.c>", "<a@b.c>",
    ],
)  # fmt: skip
async def test_relay_forms(form: str) -> None:
    """No form leads out of the grant: neither a route that we would obey, nor one that the next host may."""
    async with rig(clients=RESTRICTED) as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"))
        reply = await peer.say(f"RCPT TO:{form}")
        assert reply.startswith(("550 5.7.1", "501 5.1"))
        await peer.talk(("RCPT TO:<a.b=c@example.org>", "250"), ("DATA", "354"), (MESSAGE + b".\r\n", "250"))
        assert [one.address for one in made.messages[0].envelope.recipients] == ["a.b=c@example.org"]


async def test_offers_and_words_for_peers_elsewhere() -> None:
    """Addresses that a loopback test cannot have: a login in the clear only for loopback and named networks."""
    clients = {**CLIENTS, "lan": {**CLIENTS["copier"], "networks": ["192.0.2.0/24", "2001:db8::/32"]}}
    async with rig(clients=clients) as made:
        for peer in ("192.0.2.9", "2001:db8::9", "::1"):
            assert made.listener.site.offers_login(peer, tls=False)
        assert not made.listener.site.offers_login("198.51.100.1", tls=False)
        assert made.listener.site.offers_login("198.51.100.1", tls=True)
        assert made.listener.site.stranger("192.0.2.9", tls=False).code == 530
        refusal = made.listener.site.stranger("198.51.100.1", tls=False)
        assert (refusal.code, refusal.enhanced) == (550, "5.7.1")
        assert "198.51.100.1" in refusal.text


async def test_reload_in_an_open_session() -> None:
    """New rules and clients hold from the next MAIL on."""
    async with rig() as made, rig(clients=RESTRICTED, limits={"max_recipients": 1}) as other:
        peer = await made.connect()
        assert (await peer.deliver()).startswith("250")
        made.reload(other)
        await peer.talk(("MAIL FROM:<x@evil.example>", "553 5.7.1"), ("MAIL FROM:<a@example.com>", "250"))
        await peer.talk(("RCPT TO:<b@example.org>", "250"), ("RCPT TO:<c@example.org>", "452 4.5.3"))


async def test_smtputf8_only_where_needed() -> None:
    """Declared but not needed, it does not close the way through a backend without it; needed, it does."""
    async with rig(capabilities={"box": Capabilities(max_bytes=100_000, smtputf8=False)}) as made:
        peer = await made.connect()
        assert "SMTPUTF8" not in await peer.ehlo()
        assert (await peer.deliver(MESSAGE, "<a@example.com> SMTPUTF8", "<b@example.org>")).startswith("250")
        assert made.messages[0].envelope.smtputf8 is False
        await peer.talk(("MAIL FROM:<a@example.com> SMTPUTF8", "250"), ("RCPT TO:<ü@example.org>", "553 5.6.7"))
    async with rig() as made:
        peer = await made.connect()
        assert "SMTPUTF8" in await peer.ehlo()
        assert (await peer.deliver(MESSAGE, "<ü@example.com> SMTPUTF8", "<b@bücher.example>")).startswith("250")
        assert made.messages[0].envelope.smtputf8 is True
        assert b"with UTF8SMTP id" in made.messages[0].raw.replace(b"\r\n\t", b" ")


WITH_PDF = (
    b"From: a@example.com\r\nSubject: s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n"
    b" filename*=UTF-8''M%C3%BCll.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n--b--\r\n"
)
NARROW = Capabilities(max_bytes=1_000_000, lacks=frozenset(("attachments", "malformed")))


@pytest.mark.parametrize("filler", [b"", b"x" * 70 + b"\r\n"], ids=["small", "large"])
async def test_what_no_backend_can_carry_is_refused_before_250(filler: bytes) -> None:
    """554 5.6.3 says what and where; a route with another way takes that; looking never holds up the others."""
    raw = WITH_PDF.replace(b"hello\r\n", b"hello\r\n" + filler * 3000)
    routes: list[dict[str, Any]] = [
        {"recipients": ["*@api.example"], "backend": ["api"]},
        {"backend": ["api", "smart"]},
    ]
    limits = {"api": NARROW, "smart": Capabilities(max_bytes=1_000_000)}
    async with rig(capabilities=limits, routes=routes) as made:
        peer = await made.connect()
        reply = await peer.deliver(raw, "<a@example.com>", "<b@api.example>")
        assert reply == (
            '554 5.6.3 attachments cannot be sent through backend "api" (part 2: application/pdf M?ll.pdf); '
            "route this client to another backend"
        )
        assert made.metric("smtp_rejected_total", stage="data", reason="cannot_carry") == 1
        assert (await peer.deliver(raw, "<a@example.com>", "<b@other.example>")).startswith("250")
        assert (await peer.deliver(MESSAGE, "<a@example.com>", "<b@other.example>")).startswith("250")
        assert [list(message.deliveries) for message in made.messages] == [["smart"], ["api"]]
        assert [set(message.features or ()) for message in made.messages] == [{"attachments"}, set()]


async def test_from_addresses_that_the_backend_cannot_send_as() -> None:
    """Gmail would replace such a From in silence; a rewritten one is judged as rewritten."""
    limits = {"google": Capabilities(max_bytes=1_000_000, senders=("noreply@example.com",))}
    clients: dict[str, Any] = {
        "plain": {"networks": ["127.0.0.1/32"]},
        "device": {"networks": ["127.0.0.2/32"], "rewrite_sender": {"to": "noreply@example.com", "when": "always"}},
    }
    async with rig(capabilities=limits, routes=[{"backend": ["google"]}], clients=clients) as made:
        peer, device = await made.connect(), await made.connect(address="127.0.0.2")
        reply = await peer.deliver(MESSAGE, "<noreply@example.com>")
        assert reply.startswith('553 5.7.1 <a@example.com>: backend "google" sends only as noreply@example.com')
        assert (await peer.deliver(MESSAGE.replace(b"a@", b"NoReply@"), "<any@example.org>")).startswith("250")
        assert (await device.deliver(MESSAGE)).startswith("250")
        assert [message.header_from.lower() for message in made.messages] == ["noreply@example.com"] * 2


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (b"From: Scanner\r\n", ""),
        (b"From: noreply@example.com\r\nSender: Fax <fax@example.com>\r\n", "fax@example.com"),
    ],
)
async def test_what_such_a_backend_reads_as_a_foreign_sender(fields: bytes, shown: str) -> None:
    """A From in which nobody stands, and a Sender: the provider refuses both after 250, so we do before."""
    limits = {"office": Capabilities(max_bytes=1_000_000, senders=("noreply@example.com",))}
    async with rig(capabilities=limits, routes=[{"backend": ["office"]}]) as made:
        peer = await made.connect()
        reply = await peer.deliver(fields + b"Subject: x\r\n\r\nhello\r\n", "<noreply@example.com>")
        assert reply.startswith(f'553 5.7.1 <{shown}>: backend "office" sends only as noreply@example.com')


async def test_a_backend_s_size_limit_names_the_setting() -> None:
    """At MAIL and at the end of DATA: whose limit it is, and what would allow more."""
    limits = {"office": Capabilities(max_bytes=3000, size_hint="set large_messages: draft on backends.{name}")}
    async with rig(capabilities=limits, routes=[{"backend": ["office"]}]) as made:
        peer = await made.connect()
        assert "SIZE 3000" in await peer.ehlo()
        hint = 'allowed here, the limit of backend "office"; set large_messages: draft on backends.office'
        reply = await peer.say("MAIL FROM:<a@example.com> SIZE=3001")
        assert reply.startswith("552 5.3.4")
        assert reply.endswith(hint)
        assert (await peer.deliver(MESSAGE + b"x\r\n" * 2000)).endswith(hint)
