"""A part's content: transfer encoding and charset undone."""

from __future__ import annotations

from base64 import b64encode
from itertools import pairwise
from quopri import decodestring, encodestring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Leaf, Undecodable, leaf_bytes, leaf_text
from tests.message_kit import python_calls


def leaf(raw: bytes, encoding: str = "", charset: str = "") -> Leaf:
    return Leaf(1, "text/plain", charset, encoding, "", "", "", 0, 0, len(raw))


def content(raw: bytes, encoding: str) -> bytes:
    return leaf_bytes(raw, leaf(raw, encoding))


def text(raw: bytes, charset: str = "") -> str:
    return leaf_text(raw, leaf(raw, "8bit", charset))


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"aGVsbG8=", b"hello"),
        (b"aGVs\r\nbG8=\r\n", b"hello"),
        (b"aGVsbG8", b"hello"),  # padding left out
        (b"aGVsbG", b"hell"),
        (b"aGVsb", b"hel"),  # a letter that stands for nothing
        (b" a\tG-V.s!b\0G\xff8 =", b"hello"),
        (b"aGVsbG8=\r\n-- \r\nlist footer", b"hello"),
        (b"aGVsbG8==", b"hello"),
        (b"aGVsbG8=aGVsbG8=", b"hello"),
        (b"", b""),
        (b"=", b""),
        (b"a", b""),
        (b"!?", b""),
    ],
)
def test_base64(encoded: bytes, decoded: bytes) -> None:
    """What is no base64 is skipped, missing padding does no harm, padding ends it (RFC 2045 6.8)."""
    assert content(encoded, "base64") == decoded


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"gr=C3=BC=c3=9fe", "grüße".encode()),
        (b"a=\r\nb", b"ab"),
        (b"a=\nb", b"ab"),
        (b"a=", b"a"),
        (b"a=4", b"a=4"),
        (b"a=XY", b"a=XY"),
        (b"a_b\r\n", b"a_b\r\n"),
        (b"a\xe9", b"a\xe9"),
    ],
)
def test_quoted_printable(encoded: bytes, decoded: bytes) -> None:
    """What is no escape stays as it is."""
    assert content(encoded, "quoted-printable") == decoded


@pytest.mark.parametrize("encoding", ["", "7bit", "8bit", "binary", "x-uuencode"])
def test_other_encodings(encoding: str) -> None:
    """They, and unknown ones, change nothing; the part's span is kept to."""
    raw = b"x=3D\r\n\0\xff"
    assert content(raw, encoding) == raw
    assert leaf_bytes(raw, Leaf(1, "a/b", "", encoding, "", "", "", 0, 1, 4)) == b"=3D"


SIZES = [(1 << 19) + extra for extra in range(-5, 6)]


@pytest.mark.parametrize("size", SIZES)
def test_pieces_do_not_show(size: int) -> None:
    """Decoding in pieces gives what decoding at once gives, wherever the cut falls."""
    data = bytes(range(256)) * 3000
    base64 = b"-" * (size % 4) + b64encode(data)
    assert content(base64, "base64") == data
    for line_end in (b"\r\n", b"=\r\n"):
        quoted = b"x" * size + b"=C3=BC" + line_end + b"=41" * 1000
        assert content(quoted, "quoted-printable") == decodestring(quoted)
    characters = "a" * size + "€\r\n\r" + "ü" * 1000
    assert text(characters.encode(), "utf-8") == text(characters.encode()) == "a" * size + "€\n\n" + "ü" * 1000
    japanese = ("a" * size + "日本語" * 1000).encode("iso-2022-jp")
    assert text(japanese, "iso-2022-jp") == "a" * size + "日本語" * 1000


@given(st.binary(max_size=300), st.integers(0, 80))
def test_round_trips(data: bytes, width: int) -> None:
    """What is encoded well is decoded to the byte, at any line length."""
    letters = b64encode(data)
    lines = [letters[start : start + width + 1] for start in range(0, len(letters), width + 1)]
    assert content(b"\r\n".join(lines), "base64") == data
    text = data.replace(b"\r", b"")  # encodestring loses some of them
    assert content(encodestring(text), "quoted-printable") == text


@pytest.mark.parametrize(
    ("raw", "charset", "expected"),
    [
        ("grüße".encode(), "utf-8", "grüße"),
        ("grüße".encode("latin-1"), "iso-8859-1", "grüße"),
        ("café".encode(), "us-ascii", "café"),  # a lie told often
        (b"a\0b\x1bc\x0c\x0bd\te\x08", "", "abcd\te"),
        (b"a\r\nb\rc\nd\r\n\r\n", "", "a\nb\nc\nd\n\n"),
        (b"", "utf-8", ""),
    ],
)
def test_text(raw: bytes, charset: str, expected: str) -> None:
    """In the character set it names, or else in UTF-8; LF ends lines, no controls."""
    assert text(raw, charset) == expected


@pytest.mark.parametrize(
    ("html", "default", "expected"),
    [
        (b'<html><meta charset="windows-1251"><p>\xcf', "", "П"),
        (b"<META http-equiv='Content-Type'\ncontent='text/html; charset=koi8-r'>\xf0", "", "П"),
        ("<meta charset=windows-1251><p>П".encode(), "", "П"),  # converted on the way, and the tag forgotten
        (b"<p>\xcf", "windows-1251", "П"),
        (b'<meta charset="x-nobody"><p>\xcf', "", None),
        (b" " * 1024 + b'<meta charset="windows-1251"><p>\xcf', "", None),
    ],
)
def test_html_names_its_character_set_itself(html: bytes, default: str, expected: str | None) -> None:
    """Where its field does not, as browsers read it; other text does not."""
    found = Leaf(1, "text/html", "", "8bit", "", "", "", 0, 0, len(html))
    if expected is None:
        with pytest.raises(Undecodable):
            leaf_text(html, found, default)
    else:
        assert leaf_text(html, found, default)[-1] == expected
    if expected and not default and not html[-1:].isascii() and html[-2:-1] != b"\xd0":
        with pytest.raises(Undecodable):
            leaf_text(html, leaf(html))


@pytest.mark.parametrize("encoding", ["x-uuencode", "uuencode", "x-yenc", "mac-binhex40", "quoted", "base46"])
def test_a_text_in_an_unknown_encoding_is_no_text(encoding: str) -> None:
    """RFC 2045 6.4."""
    with pytest.raises(Undecodable, match=encoding):
        leaf_text(b"begin 644 a", leaf(b"begin 644 a", encoding))


@pytest.mark.parametrize("encoding", ["8-bit", "7-bit", "utf-8", "none"])
def test_words_that_stand_for_no_encoding_do_no_harm(encoding: str) -> None:
    assert leaf_text(b"a=20", leaf(b"a=20", encoding)) == "a=20"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_decoding_is_done_in_steps(encoding: str) -> None:
    """Some calls for every half megabyte: linear, and other threads run in between."""
    leaf_text(b"abcd", leaf(b"abcd", encoding, "l1"))  # what is only done once
    calls = [
        python_calls(lambda raw=b"abcd" * size: leaf_text(raw, leaf(raw, encoding, "l1")))
        for size in (0, 1 << 20, 2 << 20)
    ]
    grown = [later - earlier for earlier, later in pairwise(calls)]
    assert grown[0] < 30 * 8
    assert grown[1] < 2.2 * grown[0]
