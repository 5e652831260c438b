"""The stamp adds what is missing, takes away what discloses, and leaves every other byte alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Arrival, scan, stamp
from gateway.message.text import fold
from tests.message_kit import canonical, cpython_messages

NOW = datetime(2026, 11, 20, 11, 23, 51, tzinfo=UTC)
ARRIVAL = {
    "id": "01KQ2M8V3N7XJ",
    "received_at": NOW,
    "listener": "local",
    "peer": "192.0.2.17",
    "helo": "printer.example.net",
    "protocol": "ESMTPSA",
    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
}
RECEIVED = (
    b"Received: from printer.example.net ([192.0.2.17])\r\n"
    b"\t(TLSv1.3 TLS_AES_256_GCM_SHA384) by relay.example.com with ESMTPSA\r\n"
    b"\tid 01KQ2M8V3N7XJ for <bob@example.org>; Fri, 20 Nov 2026 11:23:51 +0000\r\n"
)
DATE = b"Date: Fri, 20 Nov 2026 11:23:51 +0000\r\n"
MESSAGE_ID = b"Message-ID: <01KQ2M8V3N7XJ@relay.example.com>\r\n"
FROM = b"From: scan@example.com\r\n"


def stamped(
    raw: bytes,
    *,
    rewrite_from: str = "",
    sender: str = "scan@example.com",
    recipients: tuple[str, ...] = ("bob@example.org",),
    **how: object,
) -> bytes:
    return stamp(
        raw,
        scan(raw),
        Arrival(**{**ARRIVAL, **how}),
        hostname="relay.example.com",
        sender=sender,
        recipients=recipients,
        message_id="<01KQ2M8V3N7XJ@relay.example.com>",
        rewrite_from=rewrite_from,
    )


@pytest.mark.parametrize(
    ("raw", "added", "kept"),
    [
        (b"From: a@x\r\nDate: d\r\nMessage-ID: <i>\r\n\r\nbody", b"", None),
        (b"from: a@x\r\nDATE:d\r\nmessage-Id : <i>\r\n\r\nbody", b"", None),
        (b"From: a@x\r\nMessage-ID: <i>\r\n\r\nbody", DATE, None),
        (b"From: a@x\r\nDate: d\r\n\r\nbody", MESSAGE_ID, None),
        (b"From: a@x\r\nDate: d\r\nMessage-ID: (none) \r\n\r\nbody", MESSAGE_ID, b"From: a@x\r\nDate: d\r\n\r\nbody"),
        (b"From: a@x\r\nDate: d\r\nMessage-ID:\r\nMessage-ID: <i>\r\n\r\nbody", b"", None),
        (b"Subject: s\r\n\r\nbody", DATE + MESSAGE_ID + FROM, None),
        (b"\r\nbody", DATE + MESSAGE_ID + FROM, None),
        (b"", DATE + MESSAGE_ID + FROM, None),
        (b"just text\r\n", DATE + MESSAGE_ID + FROM, b"\r\njust text\r\n"),
        (b"From: a@x\r\n", DATE + MESSAGE_ID, None),  # RFC 5322 3.5: the body is optional
        (b"From: a@x", DATE + MESSAGE_ID, b"From: a@x\r\n"),
        (b"From: a@x\r\nno field\r\n", DATE + MESSAGE_ID, b"From: a@x\r\n\r\nno field\r\n"),
        (
            b"From MAILER Fri\r\n>From b\r\nFrom: a@x\r\n\r\nFrom c",
            DATE + MESSAGE_ID + b"X-Mailbox-Line: From MAILER Fri\r\nX-Mailbox-Line: >From b\r\n",
            b"From: a@x\r\n\r\nFrom c",
        ),
        (
            b">From MAILER Fri\r\njust text",
            DATE + MESSAGE_ID + FROM + b"X-Mailbox-Line: >From MAILER Fri\r\n",
            b"\r\njust text",
        ),
    ],
)
def test_what_is_added(raw: bytes, added: bytes, kept: bytes | None) -> None:
    """Received always, Date, Message-ID and From where missing, an empty line where there is none."""
    assert stamped(raw) == RECEIVED + added + (raw if kept is None else kept)


@pytest.mark.parametrize(
    ("field", "stays"),
    [
        (b"Bcc: secret@x\r\n", False),
        (b"bcc : secret@x,\r\n\tother@x\r\n", False),
        (b"Resent-Bcc: secret@x\r\n", False),
        (b"Return-Path: <a@x>\r\n", False),
        (b"Resent-To: a@x\r\n", True),
        (b"X-Bcc: a@x\r\n", True),
        (b"Cc: a@x\r\n", True),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_what_is_removed(field: bytes, stays: bool, place: int) -> None:
    """Blind recipients are never disclosed, wherever and however often their field stands; nothing else goes."""
    fields = [b"From: a@x\r\n", b"Date: d\r\n", b"Message-ID: <i>\r\n"]
    with_field = [*fields[:place], field, *fields[place:], field]
    expected = b"".join(with_field if stays else fields) + b"\r\nBcc: body\r\n"
    assert stamped(b"".join(with_field) + b"\r\nBcc: body\r\n") == RECEIVED + expected


def test_bcc_after_a_bare_newline_is_removed_too() -> None:
    """Whoever reads LF as a line end would have seen it."""
    out = stamped(b"From: a@x\nBcc: secret@x\r\n\r\nbody")
    assert b"secret" not in out


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ({"tls": ""}, b"([192.0.2.17]) by\r\n"),
        ({"recipients": ("a@x", "b@x")}, None),
        ({"recipients": ("j\xf6rg@x",)}, None),
        ({"recipients": ("j\xf6rg@x",), "protocol": "UTF8SMTPSA"}, "for <j\xf6rg@x>;".encode()),
        ({"recipients": ("a@b\xfccher.x",), "protocol": "UTF8SMTPSA"}, b"for <a@xn--bcher-kva.x>;"),
        ({"peer": "2001:db8::1"}, b"([IPv6:2001:db8::1])"),
        ({"peer": "fe80::1%eth0"}, b"([IPv6:fe80::1])"),
        ({"peer": "", "protocol": "HTTP"}, b"with HTTP id"),
        ({"helo": ""}, b"from unknown ("),
        ({"helo": "[192.0.2.17]"}, b"from [192.0.2.17] ("),
        ({"helo": "x\r\nBcc: e@y"}, b"from x??Bcc:?e?y ("),
        ({"helo": "a b(c\x00\u202e\xe4"}, b"from a?b?c??? ("),
        ({"helo": "h" * 5000}, b"from " + b"h" * 255),
        ({"tls": "TLS (x\\)\r\ny"}, b"(TLS ?x????y)"),
    ],
)
def test_received(trace: dict[str, object], expected: bytes | None) -> None:
    """Only printable ASCII from the outside, folded, nobody disclosed, and it ends in the date (door.md row 16)."""
    raw = b"From: a@x\r\nDate: d\r\nMessage-ID: <i>\r\n\r\n"
    field = stamped(raw, **trace).removesuffix(raw)
    text = re.sub(rb"\r\n\t", b" ", field)
    assert text.startswith(b"Received: ")
    assert text.count(b"\r\n") == 1
    assert text.decode().rstrip("\r\n").isprintable()
    assert text.isascii() or trace.get("protocol") == "UTF8SMTPSA"
    assert text.endswith(b"; Fri, 20 Nov 2026 11:23:51 +0000\r\n")
    assert (b"for <" not in text) if expected is None else (expected.replace(b"\r\n", b"") in text)


def test_received_is_read_by_others() -> None:
    """The standard library finds its date, and every line is short."""
    received = message_from_bytes(stamped(b"\r\n"), policy=policy.default)["Received"]
    assert parsedate_to_datetime(received.rpartition(";")[2]) == NOW
    assert max(map(len, RECEIVED.split(b"\r\n"))) <= 78


@given(st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_folding(lengths: list[int]) -> None:
    """Lines of ours break between words, at 78 characters, and no sooner than they must (RFC 5322 2.1.1)."""
    words = ["w" * length for length in lengths]
    lines = fold("Name", words).decode().removesuffix("\r\n").split("\r\n")
    assert " ".join(line.strip() for line in lines) == " ".join(["Name:", *words])
    for line, following in pairwise(lines):
        assert following.startswith("\t")
        assert len(line) + 1 + len(following.split()[0]) > 78
    assert all(len(line) <= 78 or len(line.split()) == 1 + line.startswith("Name:") for line in lines)


def test_null_sender_without_from() -> None:
    """A bounce without From gets this host's name, never an empty field."""
    assert b"\r\nFrom: MAILER-DAEMON@relay.example.com\r\n" in stamped(b"\r\n", sender="")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"From: a@x\r\n", b"From: new@y\r\nReply-To: a@x\r\n"),
        (b"From: A Name <a@x>\r\n", b"From: A Name <new@y>\r\nReply-To: a@x\r\n"),
        (b'From: "Doe, \\"J\\""\r\n <a@x>\r\n', b'From: "Doe, \\"J\\"" <new@y>\r\nReply-To: a@x\r\n'),
        (b"From: =?utf-8?q?J=C3=B6rg?= <a@x>\r\n", b"From: =?utf-8?q?J=C3=B6rg?= <new@y>\r\nReply-To: a@x\r\n"),
        (b"From: =?utf-8?q?a=40x?= <a@x>\r\n", b"From: new@y\r\nReply-To: a@x\r\n"),
        (b'From: "a@x" <a@x>\r\n', b"From: new@y\r\nReply-To: a@x\r\n"),
        (b"From: (c) A <a@x>\r\n", b"From: new@y\r\nReply-To: a@x\r\n"),
        (b'From: "open <a@x>\r\n', b"From: new@y\r\nReply-To: a@x\r\n"),
        (b"From: J\xc3\xb6rg <a@x>\r\n", b"From: new@y\r\nReply-To: a@x\r\n"),
        (b"From: A <a@x>\r\nFrom: B <b@x>\r\nSender: s@x\r\n", b"From: A <new@y>\r\nReply-To: a@x\r\n"),
        (b"From: a@x, b@x\r\n", b"From: new@y\r\nReply-To: a@x\r\n"),
        (b"From: root\r\n", b"From: new@y\r\n"),
        (b"From: a,b@x\r\n", b"From: new@y\r\nReply-To: b@x\r\n"),
        (b"From: a@b@x\r\n", b"From: new@y\r\n"),
        (b"", b"From: new@y\r\n"),
    ],
)
def test_rewritten_from(fields: bytes, expected: bytes) -> None:
    """One From with the new address and the old name; the old address stays reachable; no name swallows an address."""
    rest = b"Date: d\r\nMessage-ID: <i>\r\n\r\nbody"
    out = stamped(fields + rest, rewrite_from="new@y")
    assert out == RECEIVED + expected + rest
    assert scan(out).addresses("from") == ("new@y",)


def test_rewritten_from_respects_reply_to() -> None:
    """Who said where answers go is obeyed."""
    rest = b"Reply-To: r@x\r\nDate: d\r\nMessage-ID: <i>\r\n\r\n"
    assert stamped(b"From: a@x\r\n" + rest, rewrite_from="new@y") == RECEIVED + b"From: new@y\r\n" + rest


@given(st.binary(max_size=200) | st.text(alphabet="abB:c \r\n\t", max_size=80).map(str.encode))
def test_body_bytes_are_never_touched(raw: bytes) -> None:
    """Whatever comes in, its body comes out last and identical, behind a header that ends where it should."""
    header = scan(raw)
    body = raw[header.end :]
    out = stamped(raw)
    assert out.startswith(b"Received: ")
    assert out.endswith(body)
    again = scan(out)
    assert out[again.end :] == body
    assert again.count("bcc") == 0
    names = {field.name for field in again.fields}
    assert {"date", "message-id", "from"} <= names


@pytest.mark.parametrize("path", cpython_messages(), ids=lambda path: path.stem)
def test_real_messages_keep_their_bytes(path: Path) -> None:
    """CPython's test messages: everything is there, in order, but for what the stamp is to take away."""
    raw = canonical(path)
    header = scan(raw)
    out = stamped(raw)
    expected = b"".join(f.raw for f in header.fields if f.name not in ("bcc", "resent-bcc", "return-path"))
    after = raw[header.fields[-1].end if header.fields else header.start :]
    separator = b"" if header.fields and header.fields[-1].end < header.end else b"\r\n"
    added = out.removesuffix(expected + separator + after)
    assert added != out
    assert re.fullmatch(
        rb"Received: (?:[^\n]|\n\t)+\n(?:Date: [^\n]+\n)?(?:Message-ID: [^\n]+\n)?(?:From: [^\n]+\n)?"
        rb"(?:X-Mailbox-Line: >*From [^\n]+\n)*",
        added,
    )


def test_there_are_real_messages() -> None:
    """The test above must not pass for want of files."""
    if not cpython_messages():
        pytest.skip("this Python was installed without its test package")
    assert len(cpython_messages()) > 40
