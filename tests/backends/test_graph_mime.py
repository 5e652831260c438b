"""The copy that is made for Graph: what is repaired, what stays as it is, what is told."""

from __future__ import annotations

import base64
import re
from email import message_from_bytes, policy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.backends.microsoft.mime import prepare
from gateway.backends.shared.base import base64_of
from tests.mime_kit import multi, needs_postal, postal_reading, python_reading

HEAD = b"From: a@x.org\r\nTo: b@x.org\r\n"
QP = (
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Gr=C3=BC=C3=9Fe =\r\nDir\r\n"
)
SIGNED = (
    b"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n" + QP + b"\r\n--s\r\n"
    b"Content-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
)


def prepared(raw: bytes, *, to_base64: bool = False) -> bytes:
    return prepare(raw, base64_up_to=100_000 if to_base64 else 0)[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"From: scan@x.org <scan@x.org>\r\n", b"From: <scan@x.org>\r\n"),
        (b'Sender: "scan@x.org" <scan@x.org>\r\n', b"Sender: <scan@x.org>\r\n"),
        (b"From: =?utf-8?q?scan=40x.org?= <scan@x.org>\r\n", b"From: <scan@x.org>\r\n"),
        (b'To: "z@y.org" <a@x.org>, "Doe, J" <c@x.org>\r\n', b'To: <a@x.org>,\r\n\t"Doe, J" <c@x.org>\r\n'),
        (b'reply-to : "a@b" <a@x.org>\r\n', b"reply-to: <a@x.org>\r\n"),
    ],
)
def test_a_display_name_with_an_at_sign_goes(given: bytes, expected: bytes) -> None:
    rest = b"Subject: a@b <c@d>\r\n\r\nbody\r\n"
    assert prepared(given + rest) == expected + rest


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"\r\nbody\r\n",
        b'From: "Doe, J" <a@x.org>\r\nTo: Team: b@x.org, c@x.org;\r\nSubject: x@y\r\n\r\nbody',
        HEAD + b"Auto-Submitted: no\r\n\r\nbody\r\n",
        HEAD + b"Auto-Submitted: auto-replied\r\nX-Auto-Response-Suppress: OOF\r\n\r\nbody\r\n",
        HEAD + QP,
    ],
)
def test_what_needs_no_repair_keeps_its_bytes(raw: bytes) -> None:
    assert prepared(raw) == raw


@pytest.mark.parametrize("value", [b"auto-generated", b"auto-replied; x=y", b"Auto-Notified"])
def test_automatic_mail_stays_recognisable(value: bytes) -> None:
    raw = HEAD + b"Auto-Submitted: " + value + b"\r\n\r\nbody\r\n"
    assert prepared(raw) == b"X-Auto-Response-Suppress: All\r\n" + raw


@pytest.mark.parametrize("raw", [HEAD + b"\r\n", HEAD, HEAD.removesuffix(b"\r\n"), b"From: a@x.org\nTo: b@x.org\n"])
def test_an_empty_body_becomes_an_empty_line(raw: bytes) -> None:
    assert prepared(raw) == HEAD + b"\r\n\r\n"


def test_no_bare_line_end_is_left() -> None:
    assert prepared(b"From: a@x.org\n\nb\rc\n") == b"From: a@x.org\r\n\r\nb\r\nc\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + QP,
        HEAD
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        + QP
        + b"\r\n--b\r\n"
        + QP
        + b"--b--\r\nend\r\n",
        HEAD
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        + QP.replace(b"Gr", b"Gr" * 100)
        + b"\r\n--b--\r\n",
    ],
    ids=["single", "multipart", "long"],
)
def test_quoted_printable_becomes_base64_with_the_same_content(raw: bytes) -> None:
    """SMTP-OAuth-relay PR 94: Graph re-encodes such parts and spoils soft line breaks."""
    new = prepared(raw, to_base64=True)
    assert b"quoted-printable" not in new
    before, after = (
        [part.get_payload(decode=True) for part in message_from_bytes(one, policy=policy.SMTP).walk()]
        for one in (raw, new)
    )
    assert after == before
    assert max(map(len, new.split(b"\r\n"))) <= 78


def textual(encoding: str, body: bytes = b"Gr=C3=BC=C3=9Fe =\r\nDir\r\n") -> bytes:
    return b"Content-Type: text/plain; charset=utf-8\r\n" + encoding.encode() + b"\r\n\r\n" + body


PLAIN = "Content-Transfer-Encoding: quoted-printable"
SPELLED = [
    "Content-Transfer-Encoding: quoted-printable (comment)",
    "CONTENT-TRANSFER-ENCODING: Quoted-Printable",
    "Content-Transfer-Encoding:\r\n quoted-printable",
    "Content-Transfer-Encoding: (as\r\n\tever (nested)) quoted-printable",
    "Content-Transfer-Encoding:quoted-printable;",
    "Content-Transfer-Encoding: quoted-printable\r\nContent-Transfer-Encoding: quoted-printable",
    "Content-Transfer-Encoding:\t quoted-printable \t",
]


@pytest.mark.parametrize("field", [*SPELLED, "Content-Transfer-Encoding : quoted-printable"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_field_is_read_and_written_by_one_reader(field: str, inside: bool) -> None:
    """However it is spelled (RFC 5322, 2045): the field and the body change together, or neither."""
    raw = multi("mixed", textual(field), textual("X: y", b"x")) if inside else textual(field)
    new = prepared(HEAD + raw, to_base64=True)
    assert b"R3LDvMOfZSBEaXIN" in new
    assert b"quoted" not in new.lower()
    assert new.lower().count(b"content-transfer-encoding") == 1
    plain = raw.replace(field.encode(), PLAIN.encode())  # the email package decodes nothing behind a comment
    assert python_reading(new) == python_reading(HEAD + plain)


@needs_postal
def test_an_independent_reader_agrees() -> None:
    raws = [HEAD + textual(field) for field in SPELLED]
    assert postal_reading([prepared(raw, to_base64=True) for raw in raws]) == postal_reading(raws)


@pytest.mark.parametrize(
    "raw",
    [
        textual("Content-Transfer-Encoding: quoted-printable\r\nContent-Transfer-Encoding: 7bit"),
        textual("Content-Transfer-Encoding: (quoted-printable"),
        textual("X-Content-Transfer-Encoding: quoted-printable"),
        textual("Content-Transfer-Encoding: =?us-ascii?q?quoted-printable?="),
        textual("Content-Type-X: y\r\n\r\nContent-Transfer-Encoding: quoted-printable"),
    ],
)
def test_what_is_not_surely_quoted_printable_stays(raw: bytes) -> None:
    assert prepared(HEAD + raw, to_base64=True) == HEAD + raw


BITS = [
    b"=",
    b"=\r\n",
    b" \r\n",
    b"x",
    b"=C3=BC",
    b"=3D",
    b"\r\n",
    b".",
    b"--b",
    b"\xc3\xbc",
    b"y" * 80,
    b"=0D=0A",
    b"\t",
]


def unblanked(body: bytes, inside: bool) -> bytes:
    """Without the blanks at the ends of lines, up to where the part ends: what follows is another, and not encoded."""
    own, *rest = re.split(rb"(?=\r\n--b(?:--)?[ \t]*\r\n)", body, maxsplit=1) if inside else [body]
    return b"".join([re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", own), *rest])


@given(st.lists(st.sampled_from(BITS), max_size=30).map(b"".join), st.sampled_from(SPELLED), st.booleans())
@example(b"=\r\n--b \r\n=\t", SPELLED[0], True)
def test_any_quoted_printable_keeps_its_content(body: bytes, field: str, inside: bool) -> None:
    """But for blanks at the ends of lines, which came in on the way (RFC 2045 6.7), and the email package leaves in."""
    raw, bare = textual(field, b"x" + body), textual(PLAIN, unblanked(b"x" + body, inside))
    if inside:
        raw, bare = multi("mixed", raw), multi("mixed", bare)
    assert python_reading(prepared(HEAD + raw, to_base64=True)) == python_reading(HEAD + bare)


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + SIGNED,
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + SIGNED + b"\r\n--b--\r\n",
        HEAD + b"Content-Type: message/rfc822\r\n\r\n" + HEAD + QP,
    ],
    ids=["signed", "signed inside", "attached"],
)
def test_what_is_signed_or_attached_stays_as_it_is(raw: bytes) -> None:
    assert prepared(raw, to_base64=True) == raw


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        (b"", ""),
        (b"X-Mailer: m\r\nReceived: by x\r\nReferences: <a>\r\n", ""),
        (b"DKIM-Signature: v=1\r\nList-Id: x\r\nlist-id: y\r\n", "; Graph drops DKIM-Signature, List-Id"),
        (b"".join(b"Own-%d: 1\r\n" % n for n in range(42)), "Own-39 and 2 more"),
    ],
)
def test_what_graph_will_drop_is_named(fields: bytes, note: str) -> None:
    assert prepare(HEAD + fields + b"\r\nbody\r\n")[1].endswith(note)


def test_base64_in_pieces_is_base64() -> None:
    raw = bytes(range(256)) * 3000
    assert base64_of(raw) == base64.b64encode(raw)
