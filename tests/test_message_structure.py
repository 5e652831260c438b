"""The parts of a message, for people to look at: never wrong about simple mail, never stuck on hostile mail."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Part, structure
from tests.message_kit import canonical, cpython_messages, python_calls


def multipart(boundary: str, *parts: bytes, end: bool = True, kind: str = "mixed") -> bytes:
    lines = [f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\npreamble'.encode()]
    lines += [f"--{boundary}\r\n".encode() + part for part in parts]
    return b"\r\n".join([*lines, f"--{boundary}--\r\n".encode()] if end else lines)


TEXT = b"Content-Type: text/plain\r\n\r\nhello"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Subject: s\r\n\r\nhello", [("text/plain", "", 5)]),
        (b"", [("text/plain", "", 0)]),
        (b"Content-Type: TEXT/Html; charset=x\r\n\r\nhello", [("text/html", "", 5)]),
        (multipart("b", TEXT, TEXT), [("text/plain", "", 5)] * 2),
        (multipart("b", b"\r\nhello", b"hello"), [("text/plain", "", 5)] * 2),
        (multipart("b", TEXT, end=False), [("text/plain", "", 5)]),
        (multipart("b", TEXT, multipart("c", TEXT, TEXT), TEXT), [("text/plain", "", 5)] * 4),
        (multipart("b", multipart("c", TEXT, end=False), TEXT), [("text/plain", "", 5)] * 2),
        (
            multipart("b", multipart("b", TEXT), TEXT),
            [("text/plain", "", 5)],
        ),  # one boundary twice: the first end counts
        (multipart("b", b"Content-Type: message/rfc822\r\n\r\n" + TEXT), [("message/rfc822", "", len(TEXT))]),
        (multipart("b", TEXT) + b"--b\r\n" + TEXT, [("text/plain", "", 5)]),
        (b"Content-Type: multipart/mixed\r\n\r\nhello", [("multipart/mixed", "", 5)]),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nhello", []),
        (b"Content-Type:\r\n\r\nhello", [("text/plain", "", 5)]),
    ],
)
def test_parts(raw: bytes, expected: list[tuple[str, str, int]]) -> None:
    """Leaves in order with the size they have in the message; an attached message is one leaf."""
    assert list(structure(raw)) == [Part(*part) for part in expected]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (b"Content-Disposition: attachment; filename=scan.pdf", "scan.pdf"),
        (b'Content-Disposition: attachment; size=3; FileName="my \\"scan\\".pdf"', 'my "scan".pdf'),
        (b'Content-Type: application/pdf; name="scan.pdf"', "scan.pdf"),
        (b'Content-Type: a/b; name="x"\r\nContent-Disposition: inline; filename="y"', "y"),
        (b"Content-Disposition: attachment;\r\n filename*=UTF-8''gr%C3%BC%C3%9Fe.txt", "grüße.txt"),
        (b"Content-Disposition: attachment; filename=\"g.txt\"; filename*=UTF-8''gr%C3%BC.txt", "grü.txt"),
        (b"Content-Disposition: attachment; filename*0*=UTF-8''gr%C3%BC;\r\n filename*1=\"n.txt\"", "grün.txt"),
        (b'Content-Disposition: attachment; filename="=?utf-8?q?gr=C3=BC.txt?="', "grü.txt"),
        (b'Content-Disposition: attachment; filename="../../etc/\x1bpasswd"', "../../etc/ passwd"),
        (b'Content-Disposition: attachment; filename="open', ""),
        (b"Content-Disposition: attachment", ""),
    ],
)
def test_file_names(fields: bytes, name: str) -> None:
    """For people to read: decoded, printable, from either field (RFC 2183, 2231, 2047)."""
    (part,) = structure(fields + b"\r\n\r\nx")
    assert part.filename == name


def leaves(message: Message) -> list[str]:
    if message.get_content_maintype() == "multipart":
        return [leaf for part in message.get_payload() for leaf in leaves(part)] if message.is_multipart() else []
    return [message.get_content_type()]


ONE_BOUNDARY_ON_TWO_LEVELS = ("msg_15", "msg_39")  # forbidden (RFC 2046 5.1.2), and readers differ


@pytest.mark.parametrize(
    "path", [p for p in cpython_messages() if p.stem not in ONE_BOUNDARY_ON_TWO_LEVELS], ids=lambda path: path.stem
)
def test_real_messages(path: Path) -> None:
    """On CPython's test messages the email package finds the same leaves."""
    raw = canonical(path)
    theirs = leaves(message_from_bytes(raw, policy=policy.compat32))
    ours = [part.content_type for part in structure(raw)]
    assert [kind for kind in ours if not kind.startswith("multipart/")] == theirs


def test_generated_message() -> None:
    """What scripts send: text and HTML with an attachment."""
    message = EmailMessage(policy=policy.SMTP)
    message.set_content("hello")
    message.add_alternative("<p>hello", subtype="html")
    message.add_attachment(b"x" * 300, maintype="application", subtype="pdf", filename="scan.pdf")
    plain, html, pdf = structure(message.as_bytes())
    assert (plain.content_type, html.content_type) == ("text/plain", "text/html")
    assert (pdf.content_type, pdf.filename, pdf.size) == ("application/pdf", "scan.pdf", 300 // 3 * 4 + 6 * 2)


def nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(depth)) + TEXT


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (nested(50), 1),
        (nested(500), 1),
        (multipart("b", *[TEXT] * 10_000), 1000),
        (multipart("b", b"a:\r\n" * 300_000), 1),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--\r\n" * 1_000_000, 0),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--x\r\n" * 1_000_000, 0),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"-" * 5_000_000, 0),
        (b"Content-Type: multipart/mixed" + b"; boundary=b" * 8000 + b"\r\n\r\n", None),
        (b"Content-Type: x/y" + b'; name="' * 8000 + b"\r\n\r\n", None),
        (b"Content-Type: x/y" + b"; name=a" * 8000 + b"\r\n\r\n", None),
        (b"Content-Type: x/y;" + b" " * 90_000 + b"\r\n\r\n", None),
        (b"a:" + b"b" * 5_000_000, 1),
    ],
)
def test_bombs(raw: bytes, count: int | None) -> None:
    """Nesting, crowds, endless headers, lines that look like boundaries: an answer, bounded (door.md row 27)."""
    parts = structure(raw)
    assert count is None or len(parts) == count


@given(
    st.binary(max_size=200)
    | st.text(alphabet='-b\r\n:;="', max_size=120).map("Content-Type: multipart/x; boundary=b{}".format).map(str.encode)
)
def test_never_raises(raw: bytes) -> None:
    """Any bytes; sizes add up to no more than the message."""
    assert sum(part.size for part in structure(raw)) <= len(raw)


def test_work_is_linear() -> None:
    """Twice the parts is at most about twice the work."""
    once = python_calls(lambda: structure(multipart("b", *[TEXT] * 400)))
    twice = python_calls(lambda: structure(multipart("b", *[TEXT] * 800)))
    assert twice < 2.2 * once
