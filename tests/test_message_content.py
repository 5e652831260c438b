"""What a message says for ways out that take fields: bodies, files, and what a way out must carry."""

from __future__ import annotations

from base64 import encodebytes

import pytest

from gateway.message import Content, Leaf, walk
from tests.mime_kit import multi, part

TEXT, HTML = part(), part("text/html", "<p>hello")
PDF = part("application/pdf", "x", "Content-Disposition: attachment; filename=report.pdf")
NAMED_TEXT = part("text/plain; name=log.txt")
ATTACHED_TEXT = part("text/plain", "hello", "Content-Disposition: attachment")
CALENDAR = part("text/calendar; method=REQUEST", "BEGIN:VCALENDAR")
ALTERNATIVES = multi("alternative", TEXT, HTML, boundary="a")
IMAGE = part("image/png", "x", "Content-ID: <logo@x>")
SHOWING = part("text/html", '<img src="cid:logo@x">')

BLANKS = {"no_subject", "no_text"}


def shape(content: Content) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Numbers of the text, the HTML (0: none), the inline parts and the attachments."""
    text, html = content.text, content.html
    return (
        text.number if text else 0,
        html.number if html else 0,
        tuple(leaf.number for leaf in content.inline),
        tuple(leaf.number for leaf in content.attachments),
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", (1, 0, (), ()), id="nothing"),
        pytest.param(TEXT, (1, 0, (), ()), id="text"),
        pytest.param(HTML, (0, 1, (), ()), id="html"),
        pytest.param(PDF, (0, 0, (), (1,)), id="a file"),
        pytest.param(part("application/pdf"), (0, 0, (), (1,)), id="a file without a name"),
        pytest.param(NAMED_TEXT, (1, 0, (), ()), id="text with a name, and nothing else"),
        pytest.param(multi("mixed", NAMED_TEXT), (1, 0, (), ()), id="text with a name, alone in a multipart"),
        pytest.param(ATTACHED_TEXT, (0, 0, (), (1,)), id="text that is said to be attached"),
        pytest.param(part("text/csv"), (0, 0, (), (1,)), id="another kind of text"),
        pytest.param(multi("mixed", TEXT, PDF), (1, 0, (), (2,)), id="text, file"),
        pytest.param(multi("mixed", PDF, TEXT), (2, 0, (), (1,)), id="file, text"),
        pytest.param(multi("mixed", TEXT, NAMED_TEXT), (1, 0, (), (2,)), id="text, text with a name"),
        pytest.param(multi("mixed", NAMED_TEXT, TEXT), (2, 0, (), (1,)), id="text with a name, text"),
        pytest.param(multi("mixed", ATTACHED_TEXT, PDF), (0, 0, (), (1, 2)), id="attached text, file"),
        pytest.param(multi("mixed", TEXT, PDF, TEXT), (1, 0, (), (2, 3)), id="Apple Mail: text around a file"),
        pytest.param(multi("mixed", TEXT, TEXT), (1, 0, (), (2,)), id="list: text, footer"),
        pytest.param(multi("mixed", HTML, TEXT), (0, 1, (), (2,)), id="list: html, footer"),
        pytest.param(multi("mixed", ALTERNATIVES, TEXT), (1, 2, (), (3,)), id="list: alternatives, footer"),
        pytest.param(multi("mixed", TEXT, HTML), (1, 2, (), ()), id="script that knows no alternatives"),
        pytest.param(multi("mixed", TEXT, HTML, PDF), (1, 2, (), (3,)), id="the same, with a file"),
        pytest.param(multi("mixed", TEXT, PDF, HTML), (1, 0, (), (2, 3)), id="html behind a file"),
        pytest.param(multi("mixed", TEXT, HTML, HTML), (1, 2, (), (3,)), id="two html"),
        pytest.param(multi("mixed", TEXT, ALTERNATIVES), (1, 0, (), (2, 3)), id="text, then alternatives"),
        pytest.param(multi("mixed", ALTERNATIVES, ALTERNATIVES), (1, 2, (), (3, 4)), id="alternatives twice"),
        pytest.param(multi("unheard-of", TEXT, PDF), (1, 0, (), (2,)), id="unknown multipart is mixed"),
        pytest.param(part("text/plain", ""), (1, 0, (), ()), id="empty text"),
        pytest.param(multi("mixed", part("text/plain", "\r\n"), PDF), (1, 0, (), (2,)), id="blank text, file"),
    ],
)
def test_bodies(raw: bytes, expected: tuple[int, int, tuple[int, ...], tuple[int, ...]]) -> None:
    """The first body is the body; files and what comes after it are attachments, so that nothing is dropped."""
    assert shape(walk(raw)) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([TEXT, HTML], (1, 2, (), ()), id="text, html"),
        pytest.param([HTML, TEXT], (2, 1, (), ()), id="html, text"),
        pytest.param([TEXT, TEXT, HTML, HTML], (2, 4, (), ()), id="the last of each kind"),
        pytest.param([TEXT, part("text/enriched"), part("text/x-amp-html"), HTML], (1, 4, (), ()), id="other forms"),
        pytest.param([part("text/enriched")], (0, 0, (), (1,)), id="only another form"),
        pytest.param([TEXT, HTML, CALENDAR], (1, 2, (), (3,)), id="an invitation is no other form"),
        pytest.param([TEXT, part("image/png")], (1, 0, (), (2,)), id="nor is an image"),
        pytest.param([TEXT, part("text/csv; name=a.csv")], (1, 0, (), (2,)), id="nor is a file"),
        pytest.param([TEXT, ATTACHED_TEXT], (1, 0, (), (2,)), id="nor what is attached"),
        pytest.param([TEXT, multi("mixed", HTML, PDF, HTML, boundary="m")], (1, 2, (), (3, 4)), id="Apple Mail"),
        pytest.param([TEXT, multi("mixed", HTML, TEXT, boundary="m")], (1, 2, (), (3,)), id="a footer inside"),
        pytest.param([TEXT, multi("related", SHOWING, IMAGE, boundary="r")], (1, 2, (3,), ()), id="an image inside"),
        pytest.param([multi("alternative", TEXT, boundary="i"), HTML], (1, 2, (), ()), id="alternatives inside"),
        pytest.param([], (0, 0, (), ()), id="nothing"),
    ],
)
def test_alternatives(parts: list[bytes], expected: tuple[int, int, tuple[int, ...], tuple[int, ...]]) -> None:
    """The last of each kind is the best, other forms of the same text may be left out (RFC 2046 5.1.4)."""
    content = walk(multi("alternative", *parts))
    assert shape(content) == expected
    assert [leaf.number for leaf in content.leaves] == list(range(1, len(content.leaves) + 1))


def showing(html: str, *parts: bytes, fields: tuple[str, ...] = ()) -> Content:
    return walk(multi("mixed", multi("related", part("text/html", html, *fields), boundary="r"), *parts))


@pytest.mark.parametrize(
    ("html", "id_", "shown"),
    [
        ('<img src="cid:logo@x">', "<logo@x>", True),
        ("<img src=CID:Logo@x>", "<logo@x>", True),
        ("<td style='background: url(cid:logo)'>", " logo ", True),
        ('<img src="cid:a%2Bb">', "<a+b>", True),  # RFC 2392: escaped as any URL
        ('<img src="cid:a%2Bb">', "<a%2Bb>", True),
        ('<img src="cid:a&amp;b">', "<a&b>", True),
        ("x" * (1 << 18) + '<img src="cid:logo">', "<logo>", True),
        ("x" * ((1 << 18) - 10) + '<img src="cid:logo">', "<logo>", True),  # across two pieces
        ('<img src="cid:logo@x.y">', "<logo@x>", False),
        ('<img src="logo">', "<logo>", False),
        ('<img src="cid:">', "<>", False),
        ('<img src="cid:&#x110000;&#' + "9" * 900 + ';">', "<logo>", False),
    ],
)
def test_parts_that_the_html_shows(html: str, id_: str, shown: bool) -> None:
    """A part is inline when the HTML refers to it by cid:, wherever it stands and whatever its disposition says."""
    image = part("image/png", "x", f"Content-ID: {id_}", "Content-Disposition: attachment; filename=a.png")
    assert shape(showing(html, image)) == (0, 1, (2,) if shown else (), () if shown else (2,))


def test_html_is_searched_decoded() -> None:
    """The reference may be hidden in base64."""
    html = encodebytes(b'<img src="cid:logo@x">').decode()
    assert shape(showing(html, IMAGE, fields=("Content-Transfer-Encoding: base64",)))[2] == (2,)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([HTML, part("image/png")], (0, 1, (2,), ())),
        ([ALTERNATIVES, part("image/png")], (1, 2, (3,), ())),
        ([HTML, part("image/png", "x", "Content-Disposition: inline; filename=a.png")], (0, 1, (2,), ())),
        ([HTML, part("image/png", "x", "Content-Disposition: attachment")], (0, 1, (), (2,))),
        ([HTML, part("application/pdf")], (0, 1, (), (2,))),
        ([TEXT, part("image/png")], (1, 0, (), (2,))),
        ([SHOWING, part("text/css", "x", "Content-ID: <logo@x>")], (0, 1, (2,), ())),
    ],
)
def test_images_beside_the_html(
    parts: list[bytes], expected: tuple[int, int, tuple[int, ...], tuple[int, ...]]
) -> None:
    """In a multipart/related an image belongs to the HTML though nothing names it, unless it is said to be attached."""
    assert shape(walk(multi("related", *parts))) == expected
    assert shape(walk(multi("mixed", *parts)))[2] == (expected[2] if parts[0] == SHOWING else ())


SIGNATURE = part("application/pkcs7-signature; name=smime.p7s")
STATUS = part("message/delivery-status", "Reporting-MTA: dns; x")
ATTACHED = part("message/rfc822", "Subject: x\r\n\r\nhello")


@pytest.mark.parametrize(
    ("raw", "features"),
    [
        (TEXT, {}),
        (ALTERNATIVES, {"both_bodies": "part 1: text/plain and part 2: text/html"}),
        (multi("mixed", TEXT, PDF), {"attachments": "part 2: application/pdf report.pdf"}),
        (multi("mixed", TEXT, PDF, PDF, PDF), {"attachments": "part 2: application/pdf report.pdf and 2 more"}),
        (multi("related", SHOWING, IMAGE), {"inline_images": "part 2: image/png"}),
        (
            multi("signed", TEXT, SIGNATURE),
            {
                "signed": "part 2: application/pkcs7-signature smime.p7s",
                "attachments": "part 2: application/pkcs7-signature smime.p7s",
            },
        ),
        (multi("signed", TEXT), {"signed": "multipart/signed"}),
        (
            part("application/pkcs7-mime; smime-type=Signed-Data"),
            dict.fromkeys(("signed", "attachments"), "part 1: application/pkcs7-mime"),
        ),
        (
            part("application/x-pkcs7-mime; smime-type=enveloped-data"),
            dict.fromkeys(("encrypted", "attachments"), "part 1: application/x-pkcs7-mime"),
        ),
        (
            part("application/pkcs7-mime; name=smime.p7m"),
            dict.fromkeys(("encrypted", "attachments"), "part 1: application/pkcs7-mime smime.p7m"),
        ),
        (multi("encrypted", TEXT), {"encrypted": "multipart/encrypted"}),
        (
            multi("mixed", TEXT, CALENDAR),
            dict.fromkeys(("calendar", "attachments"), "part 2: text/calendar"),
        ),
        (
            multi("mixed", TEXT, part("text/calendar", "x", "Content-Disposition: attachment; filename=a.ics")),
            {"attachments": "part 2: text/calendar a.ics"},
        ),
        (multi("mixed", TEXT, ATTACHED), dict.fromkeys(("attached_message", "attachments"), "part 2: message/rfc822")),
        (
            multi("mixed", TEXT, STATUS)[:-7],
            dict.fromkeys(("attached_message", "attachments"), "part 2: message/delivery-status"),
        ),
        (
            multi("report", TEXT, STATUS, ATTACHED),
            {
                "report": "part 2: message/delivery-status",
                "attached_message": "part 3: message/rfc822",
                "attachments": "part 2: message/delivery-status and 1 more",
            },
        ),
        (multi("report", TEXT), {"report": "multipart/report"}),
        (multi("mixed", multi("signed", TEXT, boundary="s")), {"signed": "multipart/signed"}),
    ],
)
def test_features_of_parts(raw: bytes, features: dict[str, str]) -> None:
    """What a way out must carry, with the part that says so; what explains most comes first."""
    assert [item for item in walk(raw).features.items() if item[0] not in BLANKS] == list(features.items())


@pytest.mark.parametrize(
    ("header", "features"),
    [
        ("From: a@x\r\nSender: b@x\r\nTo: c@x\r\nCc: d@x\r\nBcc: e@x\r\nSubject: s\r\nDate: d\r\nMessage-ID: m", {}),
        ("Received: x\r\nReturn-Path: x\r\nDKIM-Signature: x\r\nDomainKey-Signature: x\r\nARC-Seal: x", {}),
        ("X-Mailer: x\r\nUser-Agent: x\r\nAuthentication-Results: x\r\nX-Received: x\r\nThread-Index: x", {}),
        ("MIME-Version: 1.0\r\nContent-Language: de\r\nThread-Topic: x\r\nX-Originating-IP: x", {}),
        ("list-Unsubscribe: x\r\nX-My-Tag: x\r\nX-my-tag: y", {"headers": "list-Unsubscribe, X-My-Tag"}),
        ("X-Priority: 1\r\nImportance: high", {"headers": "X-Priority, Importance"}),
        ("".join(f"X-{n}: x\r\n" for n in range(7)), {"headers": "X-0, X-1, X-2, X-3, X-4 and 2 more"}),
        (f"X-{'x' * 100}: x", {"headers": f"X-{'x' * 58}"}),
        ("In-Reply-To: <x>\r\nREFERENCES: <x>", {"threading": "In-Reply-To, REFERENCES"}),
        ("From: a@x\r\nReply-To: b@x", {"reply_to": "b@x"}),
        ("From: a@x\r\nReply-To: A <A@X>", {}),
        ("From: a@x, b@x\r\nReply-To: b@x", {"reply_to": "b@x"}),
        ("From: a@x\r\nReply-To: a@x, b@x, c@x", {"reply_to": "b@x and 1 more"}),
        ("Reply-To: b@x", {"reply_to": "b@x"}),
        ("From: a@x\r\nReply-To: nobody", {}),
    ],
)
def test_features_of_the_header(header: str, features: dict[str, str]) -> None:
    """Fields that are no trace and not carried by every API are features, in the sender's spelling."""
    found = walk(f"{header.rstrip()}\r\n\r\nhello".encode()).features
    assert {feature: where for feature, where in found.items() if feature not in BLANKS} == features


@pytest.mark.parametrize(
    ("raw", "blanks"),
    [
        (b"Subject: s\r\n\r\nhello", set()),
        (b"Subject: \r\n\r\n \t\r\n\r\n", {"no_subject", "no_text"}),
        (b"\r\nhello", {"no_subject"}),
        (b"Subject: s\r\nContent-Type: application/pdf\r\n\r\nx", {"no_text"}),
        (b"", {"no_subject", "no_text"}),
    ],
)
def test_what_some_ways_out_want_and_is_not_there(raw: bytes, blanks: set[str]) -> None:
    """Printers leave the subject out, and the text of a scan; some APIs refuse that."""
    assert walk(raw).features.keys() & BLANKS == blanks


def test_subject_and_reply_to() -> None:
    """Decoded and on one line; reply addresses with groups expanded."""
    content = walk(b"Subject: =?utf-8?q?gr=C3=BC?=\r\n =?utf-8?q?=C3=9Fe?=\r\nReply-To: A <a@x>, g: b@x;\r\n\r\n")
    assert (content.subject, content.reply_to) == ("grüße", ("a@x", "b@x"))


def test_leaf() -> None:
    """Everything that a backend needs to know about a part, and spans that give its bytes back."""
    fields = (
        "Content-Type: Application/PDF; name=x; charset=UTF-8",
        "Content-Transfer-Encoding: BASE64",
        "Content-Disposition: Inline; filename*=utf-8''gr%C3%BC%C3%9Fe.pdf",
        "Content-ID: <a@b>",
    )
    inner = "\r\n".join([*fields, "", "aGVsbG8="]).encode()
    raw = multi("mixed", TEXT, inner)
    (leaf,) = walk(raw).attachments
    start = raw.index(b"Application") - len("Content-Type: ")
    assert leaf == Leaf(
        2, "application/pdf", "utf-8", "base64", "inline", "grüße.pdf", "a@b", start, *leaf_span(raw, b"aGVsbG8=")
    )
    assert str(leaf) == "part 2: application/pdf grüße.pdf"
    assert raw[leaf.header_start : leaf.end] == inner


def leaf_span(raw: bytes, body: bytes) -> tuple[int, int]:
    return raw.index(body), raw.index(body) + len(body)


@pytest.mark.parametrize(
    ("field", "disposition"),
    [
        ("attachment", "attachment"),
        ("INLINE; x=y", "inline"),
        ("form-data", "attachment"),
        ("", ""),
        (" ;x", "attachment"),
    ],
)
def test_disposition(field: str, disposition: str) -> None:
    """An unknown word counts as attachment (RFC 2183 2.8)."""
    assert walk(part("a/b", "x", f"Content-Disposition:{field}")).leaves[0].disposition == disposition


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("text/html; charset=x", "text/html"),
        ("text/html (the second one)", "text/html"),
        ("(as (it (is))) text/html", "text/html"),
        ("\r\n (\\) a \\() text/html", "text/html"),
        ("(open text/html", "text/plain"),
        ("text/html charset=x", "text/html"),
        ("text", "text/plain"),
        ("", "text/plain"),
        ("application/x/y", "text/plain"),
        ("=?utf-8?q?text/html?=", "text/plain"),
        ("PDF; name=a.pdf", "application/octet-stream"),  # a file is not to be read as text
        ("a/b\r\nContent-Type: c/d", "a/b"),
    ],
)
def test_content_type(field: str, kind: str) -> None:
    """Text where it is absent or broken (RFC 2045 5.2); of two fields the first counts."""
    assert walk(part(field)).leaves[0].content_type == kind


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
        (b"Content-Disposition: attachment; filename=report(1).pdf", "report(1).pdf"),  # no comment: it is inside
        (b'Content-Disposition: attachment; filename="report (1).pdf" (c)', "report (1).pdf"),
        (b'Content-Disposition: (c) attachment (c); (filename=no;) filename (c) = (c) "yes" (c)', "yes"),
        (b"Content-Disposition: attachment; filename*0=a (c); filename*1=b", "ab"),
        (b"Content-Disposition : attachment; filename=a\r\nContent-Type: a/b; name=b", "a"),
    ],
)
def test_file_names(fields: bytes, name: str) -> None:
    """For people to read: decoded, printable, from either field (RFC 2183, 2231, 2047)."""
    (leaf,) = walk(fields + b"\r\n\r\nx").leaves
    assert leaf.filename == name


def test_str_is_short() -> None:
    """It goes into replies: at most 60 characters."""
    (leaf,) = walk(part(f"a/b; name={'x' * 500}")).leaves
    assert str(leaf) == f"part 1: a/b {'x' * 48}"
