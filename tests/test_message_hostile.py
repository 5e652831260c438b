"""Content of messages that other software wrote, and of messages that were written to do harm."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from pathlib import Path
from quopri import encodestring
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import leaf_bytes, leaf_text, plain_addresses, walk
from gateway.message.mailboxes import mailboxes
from tests.message_kit import canonical, cpython_messages, python_calls
from tests.mime_kit import SCRAPS, check_sane, multi, part


def stdlib_leaves(message: Message) -> list[tuple[str, str, bytes]]:
    if message.get_content_maintype() == "multipart":
        parts = message.get_payload() if message.is_multipart() else []
        return [leaf for inner in parts for leaf in stdlib_leaves(inner)]
    return [(message.get_content_type(), message.get_filename() or "", message.get_payload(decode=True))]


def our_leaves(raw: bytes) -> list[tuple[str, str, bytes]]:
    return [(leaf.content_type, leaf.filename, leaf_bytes(raw, leaf)) for leaf in walk(raw).leaves]


NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=30).filter(
    # The email package takes what stands in <> or in quotes for quoted once more.
    lambda name: name == name.strip() and name.isprintable() and (name[:1] + name[-1:]) not in ("<>", '""')
)
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": lambda data: encodebytes(data).replace(b"\n", b"\r\n"),
    "quoted-printable": lambda data: encodestring(data).replace(b"\r", b"=0D").replace(b"\n", b"\r\n"),
    "8bit": lambda data: data.replace(b"-", b"+").replace(b"\r", b"").replace(b"\n", b"\r\n"),
}


@st.composite
def leaf_parts(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["text/plain", "text/html", "application/pdf", "image/png", "x-a/b+c.d"]))
    encoding = draw(st.sampled_from([*ENCODINGS]))
    name = draw(NAMES)
    shown = '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))
    named = f"filename={shown}" if name.isascii() else "filename*=utf-8''" + quote(name, safe="")
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\nContent-Disposition: inline; {named}"
    data = draw(st.binary(max_size=120) | st.text(max_size=80).map(str.encode))
    return head.encode() + b"\r\n\r\n" + ENCODINGS[encoding](data)


@st.composite
def multiparts(draw: st.DrawFn, children: st.SearchStrategy[bytes]) -> bytes:
    inner = draw(st.lists(children, min_size=1, max_size=4))
    kind = draw(st.sampled_from(["mixed", "alternative", "related", "signed", "x-other"]))
    boundary = draw(st.sampled_from(["b", "=_b'()+,./:?", "----=_Part_1", "b b"]))
    used = b"".join(inner)
    while boundary.encode() in used:
        boundary += "x"
    before, behind = draw(st.sampled_from([(b"", b""), (b"preamble\r\n", b"epilogue\r\n"), (b"--\r\n", b"--b\r\n")]))
    head, found, rest = multi(kind, *inner, boundary=boundary).partition(b"\r\n\r\n")
    return head + found + before + rest + behind


@given(st.recursive(leaf_parts(), multiparts, max_leaves=12))
def test_agrees_with_the_email_package(raw: bytes) -> None:
    """On well-formed messages: the same leaves with the same type, file name and content."""
    ours = our_leaves(raw)
    assert ours == stdlib_leaves(message_from_bytes(raw, policy=policy.compat32))
    assert ours == stdlib_leaves(message_from_bytes(raw, policy=policy.default))
    assert "malformed" not in walk(raw).features


@given(st.text(max_size=200), st.text(max_size=200), st.lists(st.binary(max_size=200), max_size=3))
def test_reads_what_the_email_package_writes(text: str, html: str, files: list[bytes]) -> None:
    """A message as scripts build it: bodies and files come back."""
    message = EmailMessage(policy=policy.SMTP)
    text, html = (" ".join(body.split()).replace("\0", "").encode("utf-8", "replace").decode() for body in (text, html))
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    for number, data in enumerate(files):
        message.add_attachment(data, maintype="application", subtype="pdf", filename=f"é{number}.pdf")
    raw = message.as_bytes()
    content = walk(raw)
    assert content.text
    assert content.html
    clean = str.maketrans(dict.fromkeys(map(chr, (*range(9), 11, 12, *range(14, 32)))))
    assert leaf_text(raw, content.text).rstrip("\n") == text.translate(clean)
    assert leaf_text(raw, content.html).rstrip("\n") == html.translate(clean)
    assert [(leaf.filename, leaf_bytes(raw, leaf)) for leaf in content.attachments] == [
        (f"é{number}.pdf", data) for number, data in enumerate(files)
    ]


ONE_BOUNDARY_ON_TWO_LEVELS = ("msg_15", "msg_39")  # forbidden (RFC 2046 5.1.2), and readers differ


@pytest.mark.parametrize("path", cpython_messages(), ids=lambda path: path.stem)
def test_real_messages(path: Path) -> None:
    """On CPython's test messages, broken ones among them: every leaf is accounted for, and the email package agrees."""
    raw = canonical(path)
    ours = [leaf.content_type for leaf in check_sane(raw).leaves if not leaf.content_type.startswith("multipart/")]
    if path.stem not in ONE_BOUNDARY_ON_TWO_LEVELS:
        assert ours == [kind for kind, _, _ in stdlib_leaves(message_from_bytes(raw, policy=policy.compat32))]


MULTIPART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
HELLO = part()
QUOTED = "Content-Transfer-Encoding: quoted-printable"


def nested(depth: int) -> bytes:
    return (
        b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(depth)) + HELLO
    )


HOSTILE = {
    # name: (message, how many leaves, whether it is to be trusted)
    "100 levels": (nested(100), 1, True),
    "500 levels": (nested(500), 1, False),
    "1000 parts": (multi("mixed", *[HELLO] * 1000), 1000, True),
    "10,000 parts": (multi("mixed", *[HELLO] * 10_000), 1000, False),
    "10,000 empty parts": (multi("mixed", *[b""] * 10_000), 1000, False),
    "10,000 boundary lines in a row": (MULTIPART + b"--b\r\n" * 10_000, 0, False),
    "10,000 multiparts": (multi("mixed", *[multi("mixed", HELLO, boundary="c")] * 10_000), 500, False),
    "a million lines of dashes": (MULTIPART + b"--\r\n" * 1_000_000, 0, False),
    "a million lines of dashes in text": (HELLO + b"\r\n--x" * 1_000_000, 1, True),
    "one line of dashes": (MULTIPART + b"-" * 1_000_000, 0, False),
    "a field that never ends": (b"a:" + b"b" * 1_000_000, 1, False),
    "a header that never ends": (b"a: b\r\n" * 100_000, 1, False),
    "a folded field that never ends": (b"a: b\r\n" + b" c\r\n" * 200_000, 1, False),
    "a part's header that never ends": (multi("mixed", b"a: b\r\n" * 100_000), 1, False),
    "long headers in every part": (multi("mixed", *[b"a: b\r\n" * 15_000 + b"\r\n"] * 50), None, False),
    "no body": (b"Subject: x", 1, True),
    "nothing": (b"", 1, True),
    "only an empty line": (b"\r\n", 1, True),
    "no header": (b"hello\r\nworld\r\n", 1, True),
    "NULs in the body": (part("text/plain", "a\0b\0"), 1, True),
    "NULs in the header": (b"Content-\0Type: text/html\r\nSubject: \0x\0\r\n\r\nx", 1, True),
    "only NULs": (b"\0" * 10_000, 1, True),
    "a boundary that begins another": (
        multi("mixed", multi("mixed", HELLO, HELLO, boundary="bb"), HELLO, multi("mixed", HELLO, boundary="b-")),
        4, True,
    ),
    "a boundary that looks like the end of another": (
        multi("mixed", multi("mixed", HELLO, boundary="b--"), HELLO), 2, True
    ),
    "a boundary that looks like a field": (
        multi("mixed", b"Content-Type: text/html", b"X: y", boundary="a: b"), 2, True
    ),
    "one boundary on two levels": (multi("mixed", multi("mixed", HELLO), HELLO), 1, False),
    "two multiparts with one boundary, one after the other": (
        multi("mixed", *[multi("mixed", HELLO, boundary="c")] * 2), 2, True
    ),
    "no closing boundary": (multi("mixed", HELLO, HELLO, end=False), 2, True),
    "no closing boundary inside": (multi("mixed", multi("mixed", HELLO, boundary="c", end=False), HELLO), 2, True),
    "closing boundaries in the wrong order": (
        multi("mixed", multi("mixed", HELLO, boundary="c", end=False)) + b"--c--\r\n", 1, True
    ),
    "a part behind the closing boundary": (multi("mixed", HELLO) + b"--b\r\n" + HELLO, 1, True),
    "no boundary parameter": (part("multipart/mixed"), 1, False),
    "an empty boundary": (multi("mixed", HELLO, boundary=""), 1, False),
    "a boundary of blanks": (multi("mixed", HELLO, boundary="   "), 1, False),
    "a boundary that is not closed": (part('multipart/mixed; boundary="b', "--b\r\n\r\nhello\r\n--b--"), 1, False),
    "a boundary of 10 kB": (multi("mixed", HELLO, boundary="b" * 10_000), 1, False),
    "a boundary of 200 bytes": (multi("mixed", HELLO, boundary="b" * 200), 1, True),
    "a boundary in latin-1": (multi("mixed", HELLO, boundary="é").replace("é".encode(), b"\xe9"), 1, True),
    "a boundary that is an encoded word": (multi("mixed", HELLO, boundary="=?us-ascii?q?b?="), 1, True),
    "a boundary that does not occur": (multi("mixed", boundary="b", end=False) + b"hello", 0, False),
    "a boundary that occurs in another parameter": (
        b'Content-Type: multipart/mixed; x="; boundary=c"; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b--', 1, True
    ),
    "only a closing boundary": (MULTIPART + b"--b--", 0, True),
    "two Content-Type fields": (b"Content-Type: text/html\r\n" + HELLO, 1, True),
    "two boundaries": (multi("mixed", HELLO, more="; boundary=c"), 1, True),
    "CR ends lines": (multi("mixed", HELLO, HELLO).replace(b"\r\n", b"\r"), 0, False),
    "LF ends lines": (multi("mixed", HELLO, HELLO).replace(b"\r\n", b"\n"), 2, True),
    "a bare LF in front of a boundary": (MULTIPART + b"--b\r\n\r\nhello\n--b--\r\n", 1, True),
    "blanks behind boundaries": (multi("mixed", HELLO).replace(b"--b", b"--b \t").replace(b"\t--", b"--"), 1, True),
    "mbox lines in a part": (multi("mixed", b"From x\r\n>From y\r\n" + HELLO), 1, True),
    "broken base64": (part("text/plain", "=a===b=c\r\n!", "Content-Transfer-Encoding: base64"), 1, True),
    "quoted-printable that ends in =": (part("text/plain", "a=", QUOTED), 1, True),
    "broken quoted-printable": (part("text/plain", "=\r=XY==3=", QUOTED), 1, True),
    "an unknown encoding": (part("text/plain", "a", "Content-Transfer-Encoding: x-\x1buuencode\x9b"), 1, True),
    "an unknown charset": (part("text/plain; charset=x-nobody"), 1, True),
    "a charset that is code": (part("text/plain; charset=rot13"), 1, True),
    "a charset that is slow": (part("text/plain; charset=punycode", "a" * 100_000), 1, True),
    "a charset that is a path": (part("text/plain; charset=../../etc/passwd"), 1, True),
    "a charset that lies": (part("text/plain; charset=utf-16", "é" * 1001 + "a"), 1, True),
    "a file name in 50 pieces": (part("a/b; " + "; ".join(f"name*{n}=x" for n in range(50))), 1, True),
    "6000 pieces, backwards": (part("a/b; " + "; ".join(f"name*{n}=x" for n in range(6000, 0, -1))), 1, True),
    "a piece with a number of 90 kB": (part(f"a/b; name*{'9' * 90_000}=x"), 1, True),
    "broken percent encoding": (part("a/b; name*=utf-8'%''%g%%1%ff%c3"), 1, True),
    "quotes that do not close": (part("a/b" + '; name="' * 8000), 1, True),
    "8000 names": (part("a/b" + "; name=a" * 8000), 1, True),
    "8000 boundaries": (part("multipart/mixed" + "; boundary=b" * 8000), 0, False),
    "blanks behind a type": (part("a/b;" + " " * 90_000), 1, True),
    "backslashes": (part('a/b; name="' + "\\" * 90_000), 1, True),
    "8000 encoded words": (part("a/b", "", "Subject: " + "=?utf-8?q?a?= " * 7000), 1, True),
    "8000 encoded words in a file name": (part("a/b; name=" + "=?utf-8?q?a?= " * 7000), 1, True),
    "90 kB of open comments": (part("a/b " + "(" * 90_000), 1, True),
    "90 kB of nested comments": (part("a/b " + "(" * 45_000 + ")" * 45_000), 1, True),
    "45,000 comments": (part("a/b " + "()" * 45_000), 1, True),
    "90 kB of quotes in a comment": (part("a/b (" + '\\"' * 45_000), 1, True),
    "an open quote of quotes": (part('a/b; x="' + '\\"' * 45_000), 1, True),
    "quotes and an open comment": (part("a/b " + '"" (' * 22_000), 1, True),
    "20,000 reply addresses": (part("a/b", "", "Reply-To: " + "a@x," * 20_000), 1, False),
    "references by the million": (
        multi("related", part("text/html", "cid:%0a&#x0;" * 100_000), part("a/b", "", "Content-ID: <x>")), 2, True
    ),
    "every part asks for every other": (
        multi("related", part("text/html", "".join(f"cid:{n} " for n in range(500))),
              *[part("a/b", "", f"Content-ID: <{n}>") for n in range(500)]), 501, True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    """No message is too strange for a bounded answer, and the answer says when it may be wrong (door.md row 27)."""
    raw, leaves, trusted = HOSTILE[name]
    content = check_sane(raw)
    assert leaves is None or len(content.leaves) == leaves
    assert ("malformed" not in content.features) == trusted


@pytest.mark.parametrize(
    ("raw", "trouble"),
    [
        (nested(101), "more than 100 levels of parts"),
        (multi("mixed", *[HELLO] * 1001), "more than 1000 parts"),
        (MULTIPART + b"--\r\n" * 100_001, "more than 100000 lines that look like boundaries"),
        (multi("alternative", boundary=""), "multipart/alternative without a usable boundary"),
        (MULTIPART + b"hello", "multipart/mixed without parts"),
        (multi("mixed", multi("mixed", HELLO)), "two multiparts with one boundary"),
        (b"a:" * 300_000, "header of more than 500000 bytes"),
        (multi("mixed", *[b"a: %b\r\n\r\n" % (b"b" * 90_000)] * 50), "more than 2048000 bytes of headers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed(raw: bytes, trouble: str) -> None:
    """Where somebody else may read another message, that is the first feature, with the reason."""
    assert next(iter(walk(raw).features.items())) == ("malformed", trouble)


GOOD = multi(
    "mixed",
    multi("alternative", part("text/plain; charset=iso-8859-1", "gr=FC=DFe", QUOTED),
          multi("related", part("text/html", "<img src=cid:a@b>"), part("image/png", "eHg=", "Content-ID: <a@b>"),
                boundary="r"), boundary="a"),
    part("application/pdf", "aGVsbG8=", "Content-Transfer-Encoding: base64",
         "Content-Disposition: attachment;\r\n filename*0*=utf-8''gr%C3;\r\n filename*1*=%BC.pdf"),
    part("message/rfc822", "Subject: x\r\n\r\nhello"),
)  # fmt: skip


@given(st.data())
def test_never_raises_on_damaged_mail(data: st.DataObject) -> None:
    """A good message with bytes cut out, put in and changed."""
    raw = GOOD
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(raw)))
        end = start + data.draw(st.integers(0, 30))
        raw = raw[:start] + data.draw(st.sampled_from([b"", *SCRAPS]) | st.binary(max_size=5)) + raw[end:]
    check_sane(raw)


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([*SCRAPS, MULTIPART, HELLO, b"Content-Type: ", b"name*0*=", b"x"]), max_size=30).map(
        b"".join
    )
    | st.binary(max_size=100).map(MULTIPART.__add__)
)
def test_never_raises_on_anything(raw: bytes) -> None:
    """Any bytes."""
    check_sane(raw)


@given(
    st.sampled_from(["base64", "quoted-printable", "8bit"]),
    st.sampled_from(["utf-8", "utf-16", "gb2312", "iso-2022-jp", "big5", "shift_jis", "macintosh", "cp437", "x"]),
    st.binary(max_size=200),
)
def test_never_raises_on_any_body(encoding: str, charset: str, body: bytes) -> None:
    """Any bytes in any encoding and charset become text that can be sent on."""
    head = part(f"text/plain; charset={charset}", "", f"Content-Transfer-Encoding: {encoding}")
    check_sane(head + body)


LINEAR: dict[str, Callable[[int], bytes]] = {
    "parts": lambda n: multi("mixed", *[HELLO] * (100 * n)),
    "multiparts": lambda n: multi("mixed", *[multi("mixed", HELLO, boundary="c")] * (50 * n)),
    "boundary lines": lambda n: MULTIPART + b"--x\r\n" * (5000 * n),
    "lines": lambda n: MULTIPART + b"--b\r\n\r\n" + b"hello\r\n" * (500_000 * n),
    "fields": lambda n: b"X: y\r\n" * (2000 * n) + b"\r\n",
    "header pieces": lambda n: part("a/b; " + "; ".join(f"name*{i}=x" for i in range(1000 * n))),
    "parts that look like fields": lambda n: multi("mixed", *[b"X: y"] * (400 * n), boundary="a: b"),
    "references": lambda n: multi(
        "related",
        part("text/html", "cid:%61 " * (5000 * n)),
        *[part("a/b", "", f"Content-ID: <{i}>") for i in range(100)],
    ),
    "addresses": lambda n: part("a/b", "", "Reply-To: " + "a@x," * (2000 * n)),
}


UNITS = [
    b",",
    b"a,",
    b"a@x,",
    b"<a@x>,",
    b":a,",
    b"(c)a@x,",
    b'"a"<a@x>,',
    b"@,",
    b":",
    b"< ",
    b"[",
    b"(",
    b"=?a?q?b?=,",
    b'\\"',
    b"()",
]


@pytest.mark.parametrize("unit", UNITS)
def test_addresses_of_a_whole_header_are_read_in_bounds(unit: bytes) -> None:
    """91,600 commas in a Reply-To cost a second; now this many are not looked at, and what wants them hears why."""
    fields = b"Reply-To: " + unit * (100_000 // len(unit)) + b"\r\n"
    raw = b"From: a@x\r\nSubject: s\r\n" + fields * 4 + b"\r\nhello"
    assert python_calls(lambda: walk(raw)) < 2_000
    content = walk(raw)
    assert content.features == {"malformed": "Reply-To of more than 16384 bytes"}
    once, twice = (python_calls(lambda n=n: mailboxes(unit * n)) for n in (500, 1000))
    assert twice < 2.2 * once + 10
    assert python_calls(lambda: plain_addresses(unit * 1000)) < 150_000


def test_a_long_list_of_plain_addresses_is_read_at_once() -> None:
    """A list of 1,000 people is real mail."""
    people = ", ".join(f"Jane Doe {n} <jane.doe.{n}@corp.example>" for n in range(1000)).encode()
    assert python_calls(lambda: mailboxes(people)) < 25_000
    assert len(plain_addresses(people)) == 1000


@pytest.mark.parametrize("name", LINEAR)
def test_work_is_linear(name: str) -> None:
    """Twice as much of anything is at most about twice the work."""
    once, twice = (python_calls(lambda raw=raw: walk(raw)) for raw in map(LINEAR[name], (1, 2)))
    assert twice < 2.2 * once


def test_boundaries_are_sought_in_steps() -> None:
    """A long body takes some calls for every megabyte, none for every line: other threads run in between."""
    calls = [
        python_calls(lambda size=size: walk(MULTIPART + b"--b\r\n\r\n" + b"hello\r\n" * size))
        for size in (0, 1_000_000)
    ]
    assert 5 < calls[1] - calls[0] < 300
