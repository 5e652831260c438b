"""Every command in and out of order: one reply each, with the right codes (RFC 5321 4.1, 4.3)."""

from __future__ import annotations

import pytest

from tests.smtp.kit import MESSAGE, rig

HELLO = ("EHLO c.example", "250")
SENDER = ("MAIL FROM:<a@example.com>", "250 2.1.0")
RECIPIENT = ("RCPT TO:<b@example.org>", "250 2.1.5")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([("HELO c", "250 relay.example.com"), SENDER, RECIPIENT], id="helo"),
        pytest.param([("ehlo c", "250"), ("mail from:<a@b.c>", "250"), ("rcpt to:<b@c.d>", "250")], id="lower case"),
        pytest.param([("EHLO", "501 5.5.4"), ("HELO", "501 5.5.4")], id="helo without name"),
        pytest.param([(*SENDER[:1], "503 5.5.1")], id="mail before helo"),
        pytest.param([HELLO, (*RECIPIENT[:1], "503 5.5.1"), ("DATA", "503 5.5.1")], id="wrong order"),
        pytest.param([HELLO, SENDER, (*SENDER[:1], "503 5.5.1")], id="nested mail"),
        pytest.param([HELLO, SENDER, ("DATA", "554 5.5.1")], id="data without recipients"),
        pytest.param([HELLO, SENDER, RECIPIENT, ("DATA now", "501 5.5.4")], id="data with argument"),
        pytest.param([HELLO, SENDER, ("RSET", "250 2.0.0"), SENDER], id="rset"),
        pytest.param([("RSET now", "501 5.5.4")], id="rset with argument"),
        pytest.param([HELLO, SENDER, HELLO, SENDER], id="ehlo resets"),
        pytest.param([("NOOP", "250 2.0.0"), ("NOOP what ever", "250 2.0.0")], id="noop"),
        pytest.param([("VRFY root", "252 2.1.5"), ("VRFY", "501 5.5.4")], id="vrfy"),
        pytest.param([("EXPN list", "502 5.5.1")], id="expn"),
        pytest.param([("HELP", "214 2.0.0"), ("HELP MAIL", "214 2.0.0")], id="help"),
        pytest.param([("XYZZY", "500 5.5.2"), ("", "500 5.5.2"), ("NOOP", "250")], id="unknown"),
        pytest.param([("STARTTLS", "502 5.5.1")], id="no tls here"),
        pytest.param([HELLO, ("MAIL TO:<a@b.c>", "501 5.5.4"), ("MAIL", "501 5.5.4")], id="mail syntax"),
        pytest.param(
            [HELLO, SENDER, ("RCPT FROM:<a@b.c>", "501 5.5.4"), ("RCPT TO:<>", "501 5.1.3")], id="rcpt syntax"
        ),
        pytest.param(
            [HELLO, ("MAIL FROM:<a b@c.d>", "501 5.1.7"), SENDER, ("RCPT TO:<@r:a@b.c>", "501 5.1.3")], id="path"
        ),
        pytest.param([HELLO, ("MAIL FROM: <a@b.c>", "250"), ("RCPT TO: b@c.d", "250")], id="what devices send"),
        pytest.param(
            [HELLO, ("MAIL FROM:<a@b.c> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x AUTH=<>", "250")], id="params"
        ),
        pytest.param([HELLO, ("MAIL FROM:<a@b.c> HOLDFOR=9", "555 5.5.4")], id="unknown parameter"),
        pytest.param([HELLO, ("MAIL FROM:<a@b.c> SIZE=1 SIZE=2", "501 5.5.4")], id="parameter twice"),
        pytest.param([HELLO, SENDER, ("RCPT TO:<a@b.c> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A@b.c", "250")], id="dsn"),
        pytest.param([HELLO, ("MAIL FROM:<ü@b.c>", "553 5.6.7"), ("MAIL FROM:<ü@b.c> SMTPUTF8", "250")], id="utf8"),
        pytest.param([HELLO, SENDER, ("RCPT TO:<ü@b.c>", "553 5.6.7")], id="utf8 recipient, ascii transaction"),
        pytest.param([HELLO, (b"MAIL FROM:<\xff@b.c> SMTPUTF8\r\n", "501 5.1.7")], id="not utf8"),
        pytest.param([HELLO, ("MAIL FROM:<a@b.c> SIZE=99999999999", "552 5.3.4")], id="declared too big"),
        pytest.param([HELLO, ("MAIL FROM:<>", "250"), ("RCPT TO:<b@c.d>", "250")], id="null sender"),
        pytest.param([("NOOP " + "x" * 3000, "500 5.5.2"), ("NOOP", "250")], id="long line"),
        pytest.param([("NOOP " + "x" * 300_000, "500 5.5.2"), ("NOOP", "250")], id="longer than any buffer"),
        pytest.param([("AUTH " + "x" * 300_000, "500 5.5.6"), ("NOOP", "250")], id="long auth line"),
    ],
)
async def test_dialogues(steps: list[tuple[str | bytes, str]]) -> None:
    async with rig() as made:
        peer = await made.connect()
        await peer.talk(*steps)
        assert (await peer.say("QUIT")).startswith("221 2.0.0")
        assert await peer.rest() == b""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"GET / HTTP/1.1\r\n", "502 5.7.0"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO x\r\nMAIL FROM:<a@b.c>\r\n", "502 5.7.0"),
        (b"CONNECT x:25 HTTP/1.1\r\n", "502 5.7.0"),
        (b"Host: example.com\r\n", "502 5.7.0"),
        (b"\x16\x03\x01\x02\x00\x01", "502 5.7.0 This is SMTP without TLS"),
        (b"\x16\x03\x01\x02\n\x01", "502 5.7.0 This is SMTP without TLS"),
        (b"\x16\x03\x01\x02\r\n\x01", "502 5.7.0 This is SMTP without TLS"),
        (b"{}\r\n", "502 5.7.0"),
        (b"BDAT 5 LAST\r\nRSET\r\n", "502 5.5.1"),
        (b"NOOP a\0b\r\nNOOP\r\n", "501 5.5.2"),
        (b"MAIL FROM:<a@x>\nRCPT TO:<b@y>\r\n", "500 5.5.2"),
    ],
)
async def test_hang_ups(line: bytes, code: str) -> None:
    """Another protocol, or what could be a smuggled command: one reply, then the connection is closed."""
    async with rig() as made:
        peer = await made.connect()
        await peer.ehlo()
        assert (await peer.say(line)).startswith(code)
        assert await peer.rest() == b""
        assert made.metric("smtp_connections_open") == 0


@pytest.mark.parametrize("verb", ["EHLO x{}y", "MAIL FROM:<a{}@b.c>", "RCPT TO:<a{}@b.c>", "VRFY a{}", "NOOP {}"])
async def test_control_characters(verb: str) -> None:
    """No octet of 00-1F or 7F is taken in a command; none is echoed or logged."""
    async with rig() as made:
        for octet in (*range(1, 10), *range(11, 32), 127):
            peer = await made.connect()
            if verb.startswith("RCPT"):
                await peer.talk(HELLO, SENDER)
            elif verb.startswith("MAIL"):
                await peer.talk(HELLO)
            reply = await peer.say(verb.format(chr(octet)).encode() + b"\r\n")
            # A CR at the very end of a line is part of its end.
            assert reply.startswith("501 5.5.2"), octet
            await peer.close()
        made.logged()
        assert not any(chr(octet) in made.log.getvalue() for octet in (*range(10), *range(11, 32), 127))


@pytest.mark.parametrize(
    ("line", "replies"),
    [("XYZZY", 9), ("VRFY", 19), ("NOOP", 99), ("RSET", 99), ("EHLO x", 99), ("HELP", 99), ("VRFY x", 99)],
)
async def test_patience_ends(line: str, replies: int) -> None:
    """Unknown commands, errors and idle commands without end: 421 4.7.0 instead of the next reply, and closed."""
    async with rig() as made:
        peer = await made.connect()
        for _ in range(replies):
            assert not (await peer.say(line)).startswith("421")
        assert (await peer.say(line)).startswith("421 4.7.0")
        assert await peer.rest() == b""


async def test_mail_restores_patience() -> None:
    """A client that keeps sending may also keep saying NOOP."""
    async with rig() as made:
        peer = await made.connect()
        for _ in range(3):
            for _ in range(80):
                assert (await peer.say("NOOP")).startswith("250")
            assert (await peer.deliver()).startswith("250")


async def test_pipelining_gives_the_same_replies_for_any_segmentation() -> None:
    """One reply per command, in order (RFC 2920), however the input is cut."""
    one = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\nRCPT TO:<bad>\r\nDATA\r\n" + MESSAGE + b".\r\nRSET\r\nXX\r\n"
    script = b"EHLO c\r\n" + one * 5 + b"QUIT\r\n"
    async with rig() as made:
        got = []
        for size in (len(script), 1, 7, 64, 1000):
            peer = await made.connect()
            for at in range(0, len(script), size):
                peer.send(script[at : at + size])
                if size < 64:
                    await peer.writer.drain()
            text = (await peer.rest()).decode()
            got.append([line[:9] for line in text.splitlines()])
        assert len({tuple(lines) for lines in got}) == 1
        assert len(made.messages) == 25
        assert got[0][-1] == "221 2.0.0"


async def test_replies_of_pipelined_commands_leave_together() -> None:
    """Many commands in one segment cost one write, but nothing waits for input with a reply unsent."""
    async with rig() as made:
        peer = await made.connect()
        peer.send(b"NOOP\r\n" * 50)
        assert (await peer.reader.readexactly(50 * 14)).count(b"\r\n") == 50
        await peer.talk(("NOOP", "250"))


@pytest.mark.parametrize("argument", [b"x\xff\xfe", b"a b", b"(comment)", b"x" * 1000])
async def test_hello_is_stored_sanitised(argument: bytes) -> None:
    """What a client calls itself cannot write into the header."""
    async with rig() as made:
        peer = await made.connect()
        await peer.talk((b"EHLO " + argument + b"\r\n", "250"), SENDER, RECIPIENT, ("DATA", "354"))
        await peer.talk((MESSAGE + b".\r\n", "250"))
        received = made.messages[0].raw.split(b"\r\nby ")[0].split(b"\r\nDate")[0]
        assert received.startswith(b"Received: from ")
        assert received.isascii()
        assert len(received) < 1000
