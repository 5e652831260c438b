"""Names of character sets, and bytes as text: exactly or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.charset import Undecodable, codec_for, exactly, is_named, roughly
from tests.message_kit import python_calls

# All labels of https://encoding.spec.whatwg.org/#names-and-labels but those of ASCII, and one character of each set.
LABELS = [
    ("unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8", "e282ac", "€"),
    ("866 cp866 csibm866 ibm866", "8f", "П"),
    ("csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2", "b1", "ą"),
    ("csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3", "b1", "ħ"),
    ("csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4", "b1", "ą"),
    ("csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988", "bf", "П"),
    (
        "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e "
        "iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987",
        "c7", "ا",
    ),
    (
        "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 "
        "iso_8859-7 iso_8859-7:1987 sun_eu_greek",
        "e1", "α",
    ),
    (
        "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 "
        "iso_8859-8 iso_8859-8:1988 visual",
        "e0", "א",
    ),
    ("csiso88598i iso-8859-8-i logical", "e0", "א"),
    ("csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6", "b1", "ą"),
    ("iso-8859-13 iso8859-13 iso885913", "e0", "ą"),
    ("iso-8859-14 iso8859-14 iso885914", "d0", "Ŵ"),
    ("csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9", "a4", "€"),
    ("iso-8859-16", "a4", "€"),
    ("cskoi8r koi koi8 koi8-r koi8_r", "f0", "П"),
    ("koi8-ru koi8-u", "a4", "є"),
    ("csmacintosh mac macintosh x-mac-roman", "8a", "ä"),
    ("dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874", "a1", "ก"),
    ("cp1250 windows-1250 x-cp1250", "b9", "ą"),
    ("cp1251 windows-1251 x-cp1251", "cf", "П"),
    (
        "cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1 "
        "iso_8859-1:1987 l1 latin1 windows-1252 x-cp1252",
        "80", "€",
    ),
    ("cp1253 windows-1253 x-cp1253", "e1", "α"),
    (
        "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 "
        "windows-1254 x-cp1254",
        "f0", "ğ",
    ),
    ("cp1255 windows-1255 x-cp1255", "e0", "א"),
    ("cp1256 windows-1256 x-cp1256", "c7", "ا"),
    ("cp1257 windows-1257 x-cp1257", "e0", "ą"),
    ("cp1258 windows-1258 x-cp1258", "d0", "Đ"),
    ("x-mac-cyrillic x-mac-ukrainian", "8f", "П"),
    ("chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk", "c4e3", "你"),
    ("gb18030", "81308130", "\x80"),
    ("big5 big5-hkscs cn-big5 csbig5 x-x-big5", "a741", "你"),
    ("cseucpkdfmtjapanese euc-jp x-euc-jp", "ada1", "①"),
    ("csiso2022jp iso-2022-jp", "1b24422d211b2842", "①"),
    ("csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis", "8740", "①"),
    (
        "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 "
        "windows-949",
        "8141", "갂",
    ),
    ("unicodefffe utf-16be", "20ac", "€"),
    ("csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le", "fffeac20", "€"),
]  # fmt: skip
# What mail programs write besides, IANA's aliases and Microsoft's numbers among it.
OTHERS = [
    ("cp-850 IBM850 cp00850 850 csPC850Multilingual", "84", "ä"),
    ("IBM00858 CCSID00858 cp858 PC-Multilingual-850+euro", "d5", "€"),
    ("cp437 IBM437 437 csPC8CodePage437", "84", "ä"),
    ("windows1252 win-1252 cswindows1252 latin-1 iso-latin-1 ISO8859_1 8859-1 28591 ANSI", "e4", "ä"),
    ("csISO885913 iso8859_13 latin7", "e0", "ą"),
    ("ISO_8859-16:2001 latin10 l10 iso-ir-226", "a4", "€"),
    ("cp936 MS936 windows-936 csGBK EUC-CN euc_cn GBK; x-cp20936", "c4e3", "你"),
    ("GB18030", "80", "€"),
    ("cp949 ms949 x-windows-949 uhc cp51949", "b0a1", "가"),
    ("cp932 x-cp932 csWindows31J", "fa40", "ⅰ"),
    ("cp51932 eucJP ujis x-eucjp eucjp-ms", "b0a1", "亜"),
    ("cp50220 iso-2022-jp-1 csISO2022JP JIS", "1b244230211b2842", "亜"),
    ("iso-2022-jp", "1b2849311b2842", "ｱ"),
    ("iso-2022-kr csISO2022KR", "1b2429430e30210f", "가"),
    ("hz-gb-2312 HZ", "7e7b3021", "啊"),
    ("unicode-1-1-utf-7 utf-7 UTF7 csUTF7 cp65000", "2b414d512d", "Ä"),
    ("utf-8-sig UTF_8 x-utf-8 cp65001 utf8mb4", "efbbbfc3a4", "ä"),
    ("utf-16", "feff00e4", "ä"),
    ("utf-32 UTF32", "fffe0000e4000000", "ä"),
    ("x-mac-ce macce cp10029", "88", "ą"),
    ("hp-roman8 r8 csHPRoman8", "cc", "ä"),
    ("koi8-t", "f0", "П"),
    ("kz-1048 STRK1048-2002 RK1048", "cf", "П"),
    ("\"windows-1251\" 'windows-1251' windows-1251; x-cp1251", "cf", "П"),
    ("x-macroman x_mac_roman", "8a", "ä"),
]


@pytest.mark.parametrize(("labels", "data", "text"), [*LABELS, *OTHERS], ids=lambda value: value.split()[0])
def test_names_that_are_in_use(labels: str, data: str, text: str) -> None:
    """Every spelling leads to the set, by upper and lower case."""
    for label in labels.split():
        for spelled in (label, label.upper()):
            assert exactly(bytes.fromhex(data), spelled) == text, spelled


@pytest.mark.skipif(not shutil.which("node"), reason="no node, whose TextDecoder knows the same labels")
def test_an_independent_reader_agrees() -> None:
    """Every byte of the one-byte sets, and ideographs of the others, as node's TextDecoder reads them."""
    labels = [row[0].split()[0] for row in LABELS if "utf-16" not in row[0]]  # without a mark it may be either
    script = f"""
        const all = {{}};
        for (const label of {json.dumps(labels)}) {{
            let decoder;
            try {{ decoder = new TextDecoder(label, {{fatal: true}}); }} catch {{ continue; }}
            const found = all[label] = [];
            const one = (...bytes) => {{
                try {{ found.push([bytes, decoder.decode(Uint8Array.from(bytes))]); }} catch {{}}
            }};
            for (let a = 0x20; a < 0x100; a++) if (a != 0x7f) one(a);
            for (let a = 0xb0; a < 0xf0; a += 3) for (let b = 0xa1; b < 0xff; b += 5) one(a, b);
        }}
        console.log(JSON.stringify(all));
    """
    read = json.loads(subprocess.run(["node", "-e", script], capture_output=True, check=True, timeout=60).stdout)
    assert len(read) > 30
    lacking = []
    for label, found in read.items():
        for data, text in found:
            # Of its own: C1 controls for "€" and others of windows-1252, and bytes that no set assigns.
            own = any("\x7f" <= char <= "\x9f" or "\ue000" <= char <= "\uf8ff" for char in text)
            if not (own or (label == "cp1252" and data[0] < 0xA0) or data in ([0x80], [0xFF])):
                try:
                    assert exactly(bytes(data), label) == text, (label, data)
                except Undecodable:
                    lacking.append((label, *data))
    assert lacking == [("cp1253", 0xAA)]  # nor has it the WHATWG


@pytest.mark.parametrize(
    "label",
    [
        "", "us-ascii", '"us-ascii"', "ASCII", "iso-ir-6", "ANSI_X3.4-1968", "x-unknown", "unknown-8bit", "default",
        "X-UNKNOWN", "8bit", "x-user-defined", "none", "  ", "\0",
    ],
)  # fmt: skip
def test_names_that_say_nothing(label: str) -> None:
    """They are written where nobody looked: UTF-8 is told by its bytes, and nothing else is."""
    assert not is_named(label)
    assert exactly("grüße".encode(), label) == "grüße"
    assert exactly(b"gr\xfc\xdfe", label, "windows-1252") == "grüße"
    assert exactly("grüße".encode(), label, "windows-1252") == "grüße"
    assert exactly(b"\x1b$B0!\x1b(B", label, "iso-2022-jp") == "亜"
    for data in (b"gr\xfc\xdfe", b"\x1b$B0!\x1b(B"):  # seven bits, and yet no ASCII
        with pytest.raises(Undecodable) as caught:
            exactly(data, label)
        assert caught.value.unnamed
    for colours in ("\x1b[31mred", "\x1b[31mred\x1b(B\x1b[m"):
        assert exactly(colours.encode(), label) == colours


@pytest.mark.parametrize(
    "label",
    [
        "x-nobody", "ansi_x3.110-1983", "iso-2022-cn", "viscii", "iso-8859-12", "cp037", "ebcdic-cp-us", "rot13",
        "punycode", "idna", "zlib", "unicode_escape", "cp99999", "gbx", "../../etc/passwd", "a" * 10_000, "ſhift_jis",
    ],
)  # fmt: skip
def test_names_that_nobody_knows(label: str) -> None:
    """No codec is asked for: Python has others than for text, and remembers for good what it looked up in vain."""
    assert codec_for(label) == ""
    assert exactly("grüße".encode(), label) == "grüße"
    with pytest.raises(Undecodable) as caught:
        exactly(b"gr\xfc\xdfe", label, "windows-1252")  # a default is for what names nothing
    assert caught.value.unnamed == (not is_named(label))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("label", "data"),
    [
        ("utf-8", b"caf\xe9"),
        ("utf-8", b"caf\xc3"),  # cut off
        ("utf-8", b"\xed\xa0\x80"),
        ("utf-16", b"\0a\0b"),  # either way round
        ("utf-16be", b"\xd8\x00\x00a"),
        ("utf-7", b"+2AA-"),
        ("iso-8859-7", b"\xff"),
        ("windows-1253", b"\xd2"),
        ("shift_jis", b"\x82"),
        ("euc-jp", b"\xff"),
        ("iso-2022-jp", b"\x1b$B\x7f\x7f"),
        ("gb2312", b"\xff\xff"),
        ("big5", b"\xa1"),
        ("ks_c_5601-1987", b"\xc9\xa1\xff"),
    ],
)
def test_what_is_not_in_the_set_that_it_names_is_not_read(label: str, data: bytes) -> None:
    with pytest.raises(Undecodable) as caught:
        exactly(data, label, "windows-1252")
    assert not caught.value.unnamed
    roughly(data, label).encode()


SETS = sorted({row[0].split()[0] for row in (*LABELS, *OTHERS)})


@given(st.sampled_from(SETS), st.binary(max_size=60))
def test_any_bytes_are_read_or_not(label: str, data: bytes) -> None:
    """What comes out can be sent on: no half characters."""
    roughly(data, label).encode()
    try:
        text = exactly(data, label)
    except Undecodable:
        return
    text.encode()
    assert text == roughly(data, label)


@pytest.mark.parametrize(
    "label", ["utf-8", "utf-16", "gbk", "big5", "euc-jp", "sjis", "iso-2022-jp", "euc-kr", "utf-7"]
)
def test_pieces_do_not_show(label: str) -> None:
    """A character may lie across two steps of the decoder."""
    codec = codec_for(label)
    for pad in range(2):
        text = "a" * ((1 << 19) - 2 - pad) + "".join("b" if n % 3 else "你 ä"[n % 2] for n in range(20))
        data = text.encode(codec, "replace")
        assert exactly(data, label) == data.decode(codec).removeprefix("\ufeff")


def test_decoding_is_linear() -> None:
    """Also where every character is one that Python's codec lacks."""
    data = b"\x1b$B" + b"-!" * 5_000
    once, twice = (python_calls(lambda data=data: exactly(data, "iso-2022-jp")) for data in (data, data + data[3:]))
    assert twice < 2.2 * once
