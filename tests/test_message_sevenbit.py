"""8-bit mail for 7-bit servers: two independent readers find in it what they found before, or it is not converted."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes, policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import walk
from gateway.message.sevenbit import sevenbit
from gateway.model import CannotCarry
from tests.message_kit import python_calls
from tests.mime_kit import SCRAPS, multi, needs_postal, part, postal_reading, python_reading

TEXT = part("text/plain; charset=utf-8", "Grüße \r\n\t\r\n.\r\n..\r\nFrom x\r\n=3D", "Content-Transfer-Encoding: 8bit")
FILE = part("application/pdf; name=x.pdf", "%PDF ü\0", "Content-Transfer-Encoding: binary")
UTF8 = "text/plain; charset=utf-8"
SIGNED = multi("signed", part("text/plain", "x"), part("application/pgp-signature"), boundary="s")
SEALED = multi("encrypted", part("application/pgp-encrypted"), part("application/octet-stream"), boundary="s")
INNER = part("message/rfc822", "Subject: s\r\n\r\nü", "Content-Transfer-Encoding: 8bit")
ALIKE = {
    "no MIME fields": "Subject: s\r\n\r\nGrüße\r\n".encode(),
    "no header": "Grüße\r\n".encode(),
    "no line end": b"Subject: s\r\n\r\n\xff",
    "latin-1": b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdfe\r\n",
    "comment": part(f"{UTF8} (de)", "ü", "content-transfer-encoding: (as it is) 8BIT (c)"),
    "folded": part("\r\n\ttext/plain;\r\n charset=utf-8", "ü\r\n", "Content-Transfer-Encoding:\r\n 8bit"),
    "long lines": part(UTF8, "ü" + "x" * 3000 + "\r\n" + "ü " * 2000),
    "one character": part(UTF8, "a" * 100_000 + "ü" + "b" * 700_000 + " \r\n" * 40_000 + " "),
    "parts": multi("mixed", TEXT, FILE, multi("alternative", TEXT, part("text/html", "<p>ü"), boundary="a")),
    "a part without a header": multi("mixed", "\r\nü".encode()),
    "8bit outside": b"Content-Transfer-Encoding: 8bit\r\n" + multi("mixed", TEXT),
    "around the parts": multi("mixed", TEXT).replace(b"\n--b\r", b"\nPr\xe4amb=l\r\n--b\r", 1) + b"epi\xfc\r\n",
    "quoted-printable with 8 bits": part(UTF8, "=C3=BC ü=\r\nx", "Content-Transfer-Encoding: quoted-printable"),
    "base64 with 8 bits": part(UTF8, "R3LDvMOfZQ==ü", "Content-Transfer-Encoding: base64"),
    "a message inside": multi("mixed", TEXT, INNER),
    "messages inside messages": part("message/rfc822", INNER.decode()),
    "a signed part beside": multi("mixed", TEXT, SIGNED),
    "an encrypted part beside": multi("mixed", TEXT, SEALED),
    "a line like a boundary": part(UTF8, "--b\r\nü\r\n--b--"),
    "UTF-16": part("text/plain; charset=utf-16le", "ü\0\n\0"),
    "equal fields twice": part(UTF8, "ü", *["Content-Transfer-Encoding: 8bit"] * 2),
}


def converted(raw: bytes) -> bytes:
    new = sevenbit(raw)
    assert new.isascii()
    assert max(map(len, new.split(b"\r\n"))) <= 998 or max(map(len, raw.split(b"\r\n"))) > 998
    return new


@pytest.mark.parametrize("raw", ALIKE.values(), ids=ALIKE.keys())
def test_the_email_package_reads_the_same(raw: bytes) -> None:
    new = converted(raw)
    assert python_reading(new) == python_reading(raw)
    assert python_reading(new, modern=True) == python_reading(raw, modern=True)
    assert message_from_bytes(new)["MIME-Version"]
    assert "8bit" not in str(message_from_bytes(new)["Content-Transfer-Encoding"])
    assert sevenbit(new) is new


@needs_postal
def test_postal_mime_reads_the_same() -> None:
    own = ("no header", "UTF-16", "parts", "one character")  # which it reads in its own way in 8 bits, or slowly
    raws = [raw for name, raw in ALIKE.items() if name not in own]
    raws += [head + b"\r\n\r\nx" for head in HEADERS]
    for raw, before, after in zip(raws, postal_reading(raws), postal_reading([*map(sevenbit, raws)]), strict=True):
        assert after == before, raw[:200]


HEADERS = [
    "Subject: Grüße".encode(),
    "Subject: Grüße aus Köln Ödeld heute\r\n für ä".encode(),
    "Subject: =?utf-8?q?=C3=A4?= ü x".encode(),
    ("X-Long: " + "ü" * 300 + " x").encode(),
    "From: Jörg Müller <a@x.org>".encode(),
    'To: "Ärger, B. \\"x\\"" <b@x.org>, c@x.org, D <d@x.org>'.encode(),
    "Cc: Team: ä <a@x.org>, b@x.org;".encode(),
    "Reply-To: a@x.org (Österreich)".encode(),
    "Content-Description: für\r\nSubject: x".encode(),
]


@pytest.mark.parametrize("head", HEADERS)
def test_header_fields_are_read_the_same(head: bytes) -> None:
    """RFC 2047: as encoded words, the blanks between them counted."""
    before, after = (message_from_bytes(one + b"\r\n\r\nx") for one in (head, sevenbit(head + b"\r\n\r\nx")))
    for name in before:
        shown = str(make_header(decode_header(after[name]))).replace("\n", "")
        raw = head.split(b":", 1)[1] if len(before.keys()) == 1 else b""
        plain = raw.replace(b"\r\n", b"").decode()
        if "=?" not in plain and '"' not in plain and "(" not in plain and raw:
            assert shown.split() == plain.split()
    modern = message_from_bytes(sevenbit(head + b"\r\n\r\nx"), policy=policy.default)
    assert not any(field.defects for field in modern.values())


def test_bytes_of_no_known_set_are_not_guessed() -> None:
    """RFC 1428."""
    assert sevenbit(b"Subject: Gr\xfc\xdfe x\r\n\r\n").startswith(b"Subject: =?unknown-8bit?q?Gr=FC=DFe?= x\r\n")


TWO = ("Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: base64")


def signed(kind: str, inner: bytes, signature: str) -> bytes:
    return multi(kind, inner, part(signature))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (signed("signed", TEXT, "application/pgp-signature"), "part 1: text/plain is signed"),
        (signed("signed", multi("mixed", TEXT, boundary="m"), "application/pgp-signature"), "is signed"),
        (part("message/rfc822", signed("signed", TEXT, "application/pgp-signature").decode()), "is signed"),
        ("References: ü\r\n\r\nx".encode(), "the field References"),
        ("To: ü@x.org\r\n\r\nx".encode(), "the field To"),
        (multi("mixed", TEXT, boundary="ü"), "the field Content-Type"),
        (multi("mixed", *[TEXT] * 1001), "more than 1000 parts"),
        (part(UTF8, "ü", *TWO), "two transfer encodings"),
        (part("text/plain", "ü", "Content-Transfer-Encoding: x-uuencode"), "x-uuencode"),
        (part("message/external-body", "ü"), "message/external-body"),
        (b"Content-Type: message/rfc822\r\n\r\n" * 22 + "ü".encode(), "messages within messages"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_exactly_is_not(raw: bytes, words: str) -> None:
    """RFC 6152 3 leaves returning it. Postfix converts signed parts too, and what they are worth is gone."""
    with pytest.raises(CannotCarry) as caught:
        sevenbit(raw)
    assert caught.value.enhanced == "5.6.3"
    assert words in caught.value.text


def test_a_line_that_becomes_a_boundary_is_noticed() -> None:
    """The soft line break of quoted-printable may put a boundary's letters where a line begins."""
    text = "ü" + "x" * 69 + "--b\r\n" + "x" * 500
    with pytest.raises(CannotCarry, match="taken for others"):
        sevenbit(multi("mixed", part(UTF8, text)))


@pytest.mark.parametrize(
    "field",
    [
        'Content-Disposition: attachment; filename="größe.pdf"; size=1',
        "Content-Disposition: attachment; filename=größe.pdf",
        'Content-Disposition: attachment;\r\n filename="größe.pdf"',
        'Content-Type: application/pdf; name="größe.pdf"',
        f"Content-Disposition: attachment; filename={'ü' * 80}.pdf",
    ],
)
def test_names_of_files_are_read_the_same(field: str) -> None:
    """RFC 2231, continued where a line would be too long."""
    new = converted(f"{field}\r\n\r\nx".encode())
    name = f"{'ü' * 80}.pdf" if "üü" in field else "größe.pdf"
    for rule in (policy.compat32, policy.default):
        assert message_from_bytes(new, policy=rule).get_filename() == name
    assert walk(new).leaves[0].filename == name


PIECES = ["ü", "x", " ", "\t", "\r\n", ".", "=", "--b", "From ", "\0", "ä" * 40, "x" * 80]


@given(
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.sampled_from(["8bit", "8BIT (x)", "binary", ""]),
    st.sampled_from([UTF8, "text/html", "application/pdf", 'TEXT/Plain; CHARSET="utf-8" (c)']),
    st.booleans(),
)
def test_any_text_comes_back_to_the_byte(text: str, encoding: str, kind: str, inside: bool) -> None:
    fields = [f"Content-Transfer-Encoding: {encoding}"] if encoding else []
    raw = part(kind, text, *fields)
    raw = multi("mixed", raw, part("text/plain", "ü"), boundary="=_x") if inside else raw
    assert python_reading(sevenbit(raw)) == python_reading(raw)


@given(st.binary(max_size=200) | st.lists(st.sampled_from(SCRAPS), max_size=25).map(b"".join))
def test_anything_is_converted_or_refused(raw: bytes) -> None:
    with suppress(CannotCarry):
        assert sevenbit(raw).isascii()


@pytest.mark.parametrize("unit", [TEXT, "ü\r\n".encode(), FILE])
def test_work_is_linear(unit: bytes) -> None:
    once, twice = (python_calls(lambda size=size: sevenbit(multi("mixed", *[unit] * size))) for size in (50, 100))
    assert twice < 2.2 * once
