"""A part's content: transfer encoding and charset undone as far as possible, never raising."""

from __future__ import annotations

from base64 import b64encode
from itertools import pairwise
from quopri import decodestring, encodestring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Leaf, leaf_bytes, leaf_text
from gateway.message.text import text_codec
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
    assert content(encodestring(data), "quoted-printable") == data


@pytest.mark.parametrize(
    ("raw", "charset", "expected"),
    [
        ("grüße".encode(), "utf-8", "grüße"),
        ("grüße".encode(), "UTF8", "grüße"),
        ("grüße".encode("latin-1"), "iso-8859-1", "grüße"),
        ("grüße".encode("utf-16"), "utf-16", "grüße"),
        ("日本".encode("shift_jis"), "shift_jis", "日本"),
        ("日本①".encode("cp932"), "shift_jis", "日本①"),  # what is sent under that name
        ("髙﨑".encode("gb18030"), "gb2312", "髙﨑"),
        ("한국어".encode("cp949"), "ks_c_5601-1987", "한국어"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        (b"a\xff", "utf-8", "a\ufffd"),
        (b"caf\xe9", "", "café"),
        ("café".encode(), "", "café"),
        ("café".encode(), "us-ascii", "café"),  # a lie told often
        (b"caf\xe9", "us-ascii", "café"),
        ("café".encode(), "x-unknown", "café"),
        (b"\x93x\x94 \x81", "x-unknown", "“x” \ufffd"),
        (b"cafr\xc3\xa9", "rot13", "cafré"),
        (b"a\0b\x1bc\x0c\x0bd\te\x08", "", "abcd\te"),
        (b"a\r\nb\rc\nd\r\n\r\n", "", "a\nb\nc\nd\n\n"),
        (b"", "utf-8", ""),
    ],
)
def test_text(raw: bytes, charset: str, expected: str) -> None:
    """In the charset it names if that is harmless, else in UTF-8 or windows-1252; LF ends lines, no controls."""
    assert text(raw, charset) == expected


@pytest.mark.parametrize(
    "charset",
    [
        "", "rot13", "punycode", "idna", "zlib", "unicode_escape", "utf-7", "cp99999", "gbx", "UTF-8\0", "ſhift_jis",
        "a" * 99,
    ],
)  # fmt: skip
def test_other_codecs_are_never_asked_for(charset: str) -> None:
    """Python's codecs do more than decode text, and it remembers every name it looked up in vain: a closed set."""
    assert text_codec(charset) == ""


CHARSETS = """
    us-ascii ASCII utf-8 UTF8 utf-16 utf16 utf-16le utf-16-be iso-8859-1 iso8859-15 iso-8859-16 latin1 latin-1
    windows-1252 windows-1258 windows-874 cp437 cp850 cp852 cp858 cp866 cp874 cp932 cp949 cp950 cp1252 koi8-r koi8-u
    macintosh gbk gb2312 gb18030 big5 big5-hkscs big5hkscs euc-jp euc-kr euc-cn shift_jis shift-jis ks_c_5601-1987
    tis-620 iso-2022-jp iso-2022-jp-1 iso-2022-jp-2 iso-2022-jp-3 iso-2022-kr
"""


@pytest.mark.parametrize("charset", CHARSETS.split())
def test_charsets_have_codecs(charset: str) -> None:
    """Every name in the closed set leads to a codec, and what that makes of any two bytes can be sent on."""
    codec = text_codec(charset)
    for pair in range(1 << 16):
        pair.to_bytes(2, "big").decode(codec, "replace").encode()


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_decoding_is_done_in_steps(encoding: str) -> None:
    """Some calls for every half megabyte: linear, and other threads run in between."""
    calls = [
        python_calls(lambda raw=b"abc=" * size: leaf_text(raw, leaf(raw, encoding))) for size in (0, 1 << 20, 2 << 20)
    ]
    grown = [later - earlier for earlier, later in pairwise(calls)]
    assert grown[0] < 30 * 8
    assert grown[1] < 2.2 * grown[0]
