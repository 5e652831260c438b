"""The header is found as bytes, in one pass, whatever is in it."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Header, normalise_newlines, scan
from gateway.message.header import FIELD_LIMIT, HEADER_LIMIT
from gateway.message.text import decode_words
from gateway.model import BadMessage
from tests.message_kit import python_calls


def names(header: Header) -> list[str]:
    return [field.name for field in header.fields]


@pytest.mark.parametrize(
    ("raw", "expected", "body"),
    [
        (b"A: 1\r\nB: 2\r\n\r\nbody\r\n", ["a", "b"], b"body\r\n"),
        (b"A: 1\r\n 2\r\n\t3\r\nB:\r\n\r\n", ["a", "b"], b""),
        (b"A: 1\r\n", ["a"], b""),
        (b"A: 1", ["a"], b""),
        (b"A : 1\r\n\r\nx", ["a"], b"x"),  # obsolete, RFC 5322 4.5.8
        (b"A:\r\n \r\nB: 2\r\n\r\nx", ["a", "b"], b"x"),  # a line of blanks is folding
        (b"", [], b""),
        (b"\r\nbody", [], b"body"),
        (b"no header at all\r\n\r\nbody", [], b"no header at all\r\n\r\nbody"),
        (b" A: 1\r\n\r\nbody", [], b" A: 1\r\n\r\nbody"),
        (b"A: 1\r\nnot a field\r\nB: 2\r\n\r\nx", ["a"], b"not a field\r\nB: 2\r\n\r\nx"),
        (b"A: 1\r\n: no name\r\n\r\nx", ["a"], b": no name\r\n\r\nx"),
        (b"A: 1\r\n\xc3\xa4: 2\r\n\r\nx", ["a"], b"\xc3\xa4: 2\r\n\r\nx"),
        (b"From a@example.com Fri Nov 20\r\nA: 1\r\n\r\nx", ["a"], b"x"),
        (b">From a@example.com Fri\r\n>>From b\r\nA: 1\r\n\r\nx", ["a"], b"x"),
        (b"From : a@example.com\r\n\r\nx", ["from"], b"x"),
        (b"A: 1\nBcc: 2\r\n\r\nx", ["a", "bcc"], b"x"),  # nothing hides behind a bare LF
        (b"A: 1\n\nx", ["a"], b"x"),
        (b"A: 1\rBcc: 2\r\n\r\nx", ["a"], b"x"),  # a bare CR ends no line
    ],
)
def test_where_the_header_ends(raw: bytes, expected: list[str], body: bytes) -> None:
    """Fields end at the empty line or at the first line that is none; mbox lines in front are not part of it."""
    header = scan(raw)
    assert names(header) == expected
    assert raw[header.end :] == body


def test_fields_keep_their_bytes() -> None:
    """A field is its name in lower case, its bytes with folding, and where they stand."""
    raw = b"From x\r\nSubject: a\r\n  b\r\nTO:c\r\n\r\n"
    subject, to = scan(raw).fields
    assert (subject.name, subject.raw, subject.value) == ("subject", b"Subject: a\r\n  b\r\n", b" a\r\n  b\r\n")
    assert raw[to.start : to.end] == to.raw == b"TO:c\r\n"
    assert scan(raw).start == 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b" plain \r\n", "plain"),
        (b" two\r\n lines\r\n", "two lines"),
        (b" =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?IGRh?=\r\n", "Grüße da"),
        (b" =?iso-8859-1*de?Q?Gr=FC=DFe?=,\r\n", "Grüße,"),
        (b" caf\xc3\xa9\r\n", "café"),
        (b" caf\xe9\r\n", "caf\ufffd"),
        (b" =?unicode_escape?q?x?= =?x-nobody?b?eA==?=\r\n", "xx"),
        (b" =?x-nobody?q?caf=E9?= =?utf-8?q?=E9?=\r\n", "=?x-nobody?q?caf=E9?=\ufffd"),
        (b" =?ISO_8859-1:1987?q?caf=E9?=\r\n", "café"),
        (b" =?x-gbk?b?xOM=?=\r\n", "你"),
        (b" =?utf-8?b?4oI=?=\r\n =?UTF-8?b?rA==?=\r\n", "€"),  # cut within a character
        (b" =?iso-2022-jp*ja?b?GyRCMCEbKEI=?=\r\n", "亜"),
        (b" =?utf-8?b?!!!?= =?utf-8?q?=E2=82=AC?=\r\n", "€"),
        (b" a\x00b\x1bc\r\n", "a b c"),
        (b"", ""),
    ],
)
def test_first_reads_for_people(value: bytes, text: str) -> None:
    """Unfolded, decoded where possible, printable; what is in an unknown charset, and not in UTF-8, stays."""
    header = scan(b"X: 0\r\nSubject:" + value + b"\r\n")
    assert header.first("subject") == text
    assert header.first("to") == ""


def test_count_sees_every_instance() -> None:
    """Several fields of one name count, in any case."""
    header = scan(b"Received: a\r\nRECEIVED: b\r\nX: received\r\n\r\nReceived: body")
    assert (header.count("received"), header.count("x"), header.count("y")) == (2, 1, 0)


@pytest.mark.parametrize("unit", [b"a: b\r\n " + b"c" * 50 + b"\r\n", b"a" * 70 + b": b\r\n"])
def test_header_limit(unit: bytes) -> None:
    """Up to 500 kB of header pass (what Gmail takes), one byte more is refused, however it is made."""
    fitting = unit * ((HEADER_LIMIT - 100) // len(unit))
    fitting += b"x: " + b"y" * (HEADER_LIMIT - len(fitting) - 5) + b"\r\n"
    assert len(fitting) == HEADER_LIMIT
    assert scan(fitting + b"\r\n" + b"body\r\n" * 50_000).end == HEADER_LIMIT + 2
    with pytest.raises(BadMessage) as refused:
        scan(b"z" + fitting + b"\r\nbody")
    assert str(HEADER_LIMIT) in refused.value.text


def test_a_field_has_a_limit_of_its_own() -> None:
    """As with Postfix (header_size_limit, 102400) it is of one field, and what is too long is named."""
    longest = b"To: " + b"x" * (FIELD_LIMIT - 6) + b"\r\n"
    assert [len(field.raw) for field in scan(longest * 4 + b"\r\n").fields] == [FIELD_LIMIT] * 4
    with pytest.raises(BadMessage, match=f"header field To is larger than {FIELD_LIMIT} bytes"):
        scan(b"Subject: x\r\nTo: x" + longest[4:] + b"\r\n")


def test_fields_are_counted() -> None:
    """Each costs time to look at: 10,000 are twice what Gmail takes."""
    assert len(scan(b"a:\r\n" * 10_000 + b"\r\n").fields) == 10_000
    with pytest.raises(BadMessage, match="10000 fields"):
        scan(b"a:\r\n" * 10_001 + b"\r\n")


def test_an_endless_field_is_refused_without_reading_on() -> None:
    """One field of 20 MB costs no more than the limit."""
    with pytest.raises(BadMessage):
        scan(b"a:" + b"b" * 20_000_000)


def test_a_long_first_line_is_a_body() -> None:
    """No field at the start means no header, also if the first line is 20 MB long."""
    assert scan(b"b" * 20_000_000).end == 0


@given(st.binary(max_size=300) | st.text(alphabet="aB:\r\n \tFrom>", max_size=100).map(str.encode))
def test_scan_never_raises_and_covers_every_byte(raw: bytes) -> None:
    """mbox lines, fields, at most one empty line, body: nothing is lost between them."""
    header = scan(raw)
    fields = b"".join(field.raw for field in header.fields)
    between = raw[header.start + len(fields) : header.end]
    assert between in (b"", b"\n", b"\r\n")
    assert raw == raw[: header.start] + fields + between + raw[header.end :]
    assert all(raw[field.start : field.end] == field.raw for field in header.fields)
    for field in header.fields:
        header.first(field.name)
        header.addresses(field.name)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[!-9;-~]{1,20}", fullmatch=True),
            st.from_regex(r"[ -~]{0,40}(\r\n [!-~]{1,20})?", fullmatch=True),
        ),
        min_size=1,
        max_size=10,
    )
)
def test_scan_agrees_with_the_email_package(pairs: list[tuple[str, str]]) -> None:
    """On well-formed headers the standard library finds the same fields and the same body."""
    raw = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode() + b"\r\nbody\r\n"
    theirs = message_from_bytes(raw, policy=policy.compat32)
    header = scan(raw)
    assert names(header) == [name.lower() for name in theirs]
    assert raw[header.end :].decode() == theirs.get_payload().replace("\n", "\r\n").replace("\r\r", "\r")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\rb\r", b"a\r\nb\r\n"),
        (b"a\n\rb", b"a\r\n\r\nb"),
        (b"a\r\r\nb", b"a\r\n\r\nb"),
        (b"a\r\n\nb\r", b"a\r\n\r\nb\r\n"),
        (b"\n.\r\n.\r", b"\r\n.\r\n.\r\n"),
        (b"", b""),
    ],
)
def test_normalise_newlines(raw: bytes, expected: bytes) -> None:
    """Bare CR and bare LF are line ends (Postfix smtpd_forbid_bare_newline = normalize)."""
    assert normalise_newlines(raw) == expected


@given(st.text(alphabet="a\r\n", max_size=40).map(str.encode))
def test_normalised_newlines_are_canonical(raw: bytes) -> None:
    """Afterwards no CR and no LF stands alone, and a second pass returns the very same object."""
    once = normalise_newlines(raw)
    assert once.replace(b"\r\n", b"").isalpha() or not once.replace(b"\r\n", b"")
    assert once.replace(b"\r\n", b"") == raw.replace(b"\r", b"").replace(b"\n", b"")
    assert normalise_newlines(once) is once


@pytest.mark.parametrize("unit", [b"a:\r\n", b"To: =?utf-8?q?=61?=\r\n", b"a: b\r\n  c\r\n"])
def test_scan_is_linear(unit: bytes) -> None:
    """Twice the header is at most about twice the work."""
    size = 20_000 // len(unit)
    once = python_calls(lambda: scan(unit * size).first("to"))
    twice = python_calls(lambda: scan(unit * size * 2).first("to"))
    assert twice < 2.2 * once


@pytest.mark.parametrize(
    "text", ["=?" * 300_000, "=?utf-8?q?" * 60_000, "?= " * 200_000, "?=" + " " * 600_000, "=?utf-8?q?=61?= " * 40_000]
)
def test_decoding_is_linear(text: str) -> None:
    """600 kB of half encoded words: quadratic work would not come back within the test's time limit."""
    assert len(decode_words(text)) <= len(text)
