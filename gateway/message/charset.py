"""Names of character sets as mail programs write them, and their bytes as text: exactly, or not at all.

The names are the labels of the WHATWG (https://encoding.spec.whatwg.org/#names-and-labels), the aliases of IANA
(https://www.iana.org/assignments/character-sets) and Microsoft's code page numbers, compared by Unicode TS 22, 1.4.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from functools import lru_cache

_NOT_IN_KEYS = re.compile(r"[^a-z0-9]")
_ZEROS = re.compile(r"(?<![0-9])0+")
_ISO = re.compile(r"(?:x-)*(?:cs)?(?:iso?)?[-_ ]*8859[-_ ]*(\d{1,2})(?:[:_-]?(?:19\d\d|20\d\d|[ei]))?")
_PAGE = re.compile(r"(?:x-)*(?:cs)?(?:windows|win|cp|ibm|ccsid|dos|ms|oem)?[-_ ]*0*([1-9]\d{2,4})")
# Codecs by the names that lead to them. Where mailers send more characters than the standard of that name has, it is
# the wider set, as in browsers.
_KNOWN = {
    "utf-8": "utf8 utf8sig utf8bom utf8mb4 unicode11utf8 unicode20utf8 csutf8",
    "utf-16": "utf16 ucs2 iso10646ucs2 unicode csunicode csutf16",
    "utf-16-be": "utf16be unicodefffe unicodebigunmarked csutf16be",
    "utf-16-le": "utf16le unicodefeff unicodelittleunmarked csutf16le",
    "utf-32": "utf32 ucs4 iso10646ucs4 csucs4 csutf32",
    "utf-32-be": "utf32be csutf32be",
    "utf-32-le": "utf32le csutf32le",
    "utf-7": "utf7 unicode11utf7 unicode20utf7 csunicode11utf7 csutf7",
    "cp1252": "latin1 l1 isolatin1 csisolatin1 isoir100 ansi westerneuropean iso88591windows31latin1",
    "iso8859-2": "latin2 l2 csisolatin2 isoir101",
    "iso8859-3": "latin3 l3 csisolatin3 isoir109",
    "iso8859-4": "latin4 l4 csisolatin4 isoir110",
    "iso8859-5": "cyrillic csisolatincyrillic isoir144",
    "iso8859-6": "arabic asmo708 ecma114 csisolatinarabic isoir127",
    "iso8859-7": "greek greek8 elot928 ecma118 suneugreek csisolatingreek isoir126",
    "iso8859-8": "hebrew visual logical csisolatinhebrew isoir138",
    "cp1254": "latin5 l5 csisolatin5 isoir148",
    "iso8859-10": "latin6 l6 csisolatin6 isoir157",
    "cp874": "tis620 cstis620",
    "iso8859-13": "latin7 l7",
    "iso8859-14": "latin8 l8 isoceltic isoir199",
    "iso8859-15": "latin9 l9 latin0 csisolatin9",
    "iso8859-16": "latin10 l10 isoir226",
    "koi8-r": "koi8r koi koi8 cskoi8r",
    "koi8-u": "koi8u koi8ru cskoi8u",
    "koi8-t": "koi8t",
    "kz1048": "kz1048 strk10482002 rk1048 cskz1048",
    "ptcp154": "ptcp154 csptcp154 pt154 cyrillicasian",
    "hp-roman8": "hproman8 roman8 r8 cshproman8",
    "mac-roman": "mac macintosh macroman csmacintosh",
    "mac-cyrillic": "maccyrillic macukrainian",
    "mac-latin2": "macce maccentraleurope maccentraleurroman maclatin2",
    "mac-greek": "macgreek",
    "mac-turkish": "macturkish",
    "mac-iceland": "maciceland macicelandic",
    "mac-croatian": "maccroatian",
    "mac-romanian": "macromanian",
    "cp437": "cspc8codepage437",
    "cp775": "cspc775baltic",
    "cp850": "cspc850multilingual",
    "cp858": "pcmultilingual850euro",
    "cp862": "cspc862latinhebrew",
    "gb18030": "gb18030 gbk gb2312 gb231280 chinese cngb csgb2312 csgbk csgb18030 csiso58gb231280 isoir58 euccn",
    "hz": "hz hzgb2312",
    "big5hkscs": "big5 cnbig5 csbig5 big5eten big5hkscs csbig5hkscs",
    "euc_jp": "eucjp eucjpms ujis extendedunixcodepackedformatforjapanese cseucpkdfmtjapanese",
    "cp932": "shiftjis sjis mskanji windows31j csshiftjis cswindows31j",
    "iso2022_jp_ext": "iso2022jp csiso2022jp iso2022jpms iso2022jp1 jis",
    "iso2022_jp_2": "iso2022jp2 csiso2022jp2",
    "iso2022_jp_2004": "iso2022jp2004",
    "iso2022_jp_3": "iso2022jp3",
    "cp949": "euckr cseuckr korean ksc5601 ksc56011987 ksc56011989 csksc56011987 isoir149 uhc",
    "iso2022_kr": "iso2022kr csiso2022kr",
    "johab": "johab",
}
_BY_NAME = {name: codec for codec, names in _KNOWN.items() for name in names.split()}


def _numbered(text: str) -> dict[str, str]:
    pairs = (pair.partition(":") for pair in text.split())
    return {number: _BY_NAME[name] for number, _, name in pairs}


_JIS = str.maketrans("〜‖−¢£¬", "～∥－￠￡￢")
# What these codecs make of some signs, and what Windows and browsers do.
_AS_WINDOWS = {
    "euc_jp": _JIS,
    "iso2022_jp_ext": _JIS,
    "big5hkscs": str.maketrans("•､‾∼♁☉¥¢£", "‧﹑¯～⊕⊙￥￠￡"),
}
_PAGES = """437 720 737 775 850 852 855 856 857 858 860 861 862 863 864 865 866 869 874 932 949 1125
    1250 1251 1252 1253 1254 1255 1256 1257 1258"""  # numbers that Python's codecs have too
_NUMBERS = """819:l1 28591:l1 28592:l2 28593:l3 28594:l4 28595:cyrillic 28596:arabic 28597:greek 28598:hebrew
    38598:hebrew 28599:l5 28603:l7 28605:l9 20866:koi8r 21866:koi8u 10000:mac 10007:maccyrillic 10029:macce
    936:gbk 20936:gbk 51936:gbk 54936:gb18030 52936:hz 950:big5 943:sjis 51932:eucjp 50220:jis 50221:jis 50222:jis
    20949:euckr 51949:euckr 50225:iso2022kr 1361:johab 1200:utf16le 1201:utf16be 65000:utf7 65001:utf8"""
_PARTS = "1:l1 2:l2 3:l3 4:l4 5:cyrillic 6:arabic 7:greek 8:hebrew 9:l5 10:l6 11:tis620 13:l7 14:l8 15:l9 16:l10"
_BY_PAGE = {number: f"cp{number}" for number in _PAGES.split()} | _numbered(_NUMBERS)
_BY_ISO = _numbered(_PARTS)
# What is said where nobody looked; some by our own kind (RFC 1428).
_UNSAID = frozenset((
    "", "usascii", "ascii", "ansix341968", "ansix341986", "iso646us", "isoir6", "us", "csascii", "cp367", "ibm367",
    "iso646irv1991", "unknown8bit", "csunknown8bit", "unknown", "default", "none", "8bit", "7bit", "binary",
    "userdefined", "auto", "autodetect",
))  # fmt: skip
# An escape to another set (ISO 2022), in text that is not said to have any. Colours of terminals are none, nor is the
# return to ASCII with which these end (tput sgr0).
_SWITCH = re.compile(rb"\x1b(?!\(B)[\x20-\x2f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEC_AND_IBM = frozenset((0x2D, 0x79, 0x7A, 0x7B, 0x7C))
_ERRORS = "gateway.in_use"
_STEP = 1 << 19
_LONGEST = 100
_SHOWN = 40


class Undecodable(ValueError):
    """Text that its bytes do not tell for sure; the words say why. ``unnamed``: no character set is named."""

    def __init__(self, words: str, *, unnamed: bool = False) -> None:
        super().__init__(words)
        self.unnamed = unnamed


def _key(label: str) -> str:
    return _ZEROS.sub("", _NOT_IN_KEYS.sub("", label.lower()))


def codec_for(label: str) -> str:
    """The codec for a name, "" for one that nobody knows.

    Only codecs that decode text: Python has others, slow or worse, and remembers for good what it looked up in vain.
    """
    return _codec_for(label) if len(label) < _LONGEST else ""


@lru_cache(maxsize=256)
def _codec_for(label: str) -> str:
    name = label.strip(" \t\"';").lower()
    if (match := _ISO.fullmatch(name)) and match[1] in _BY_ISO:
        return _BY_ISO[match[1]]
    if match := _PAGE.fullmatch(name):
        return _BY_PAGE.get(match[1], "")
    key = _key(label)
    while key not in _BY_NAME and key.startswith("x"):  # x-gbk, x-x-big5
        key = key[1:]
    return _BY_NAME.get(key, "")


def is_named(label: str) -> bool:
    """Whether the name says anything about the text."""
    return len(label) >= _LONGEST or _key(label.lower().removeprefix("x-")) not in _UNSAID


def exactly(data: bytes, label: str, default: str = "") -> str:
    """The text in the character set named. Where none is, or one that nobody knows: in UTF-8, or else in ``default``.

    Raises Undecodable: nothing is guessed, and nothing replaced.
    """
    if named := is_named(label):
        known = [codec] if (codec := codec_for(label)) else []
        reason = f"is not in {_shown(label)} as it says" if known else f"{_shown(label)} is no known character set"
    else:
        known = [codec] if (codec := codec_for(default)) else []
        reason = f"names no character set and is not in UTF-8{f' or {_shown(default)}' if default else ''}"
    if not (named and known) and not _SWITCH.search(data):
        known = ["utf-8", *known]
    for codec in known:
        with suppress(UnicodeError):
            return _decode(data, codec, _ERRORS)
    raise Undecodable(reason, unnamed=not named)


def roughly(data: bytes, label: str) -> str:
    """The text for people, and to see what may stand there: what cannot be decoded becomes U+FFFD."""
    with suppress(Undecodable):
        return exactly(data, label)
    with suppress(UnicodeError):  # UTF-16 without its mark
        return _decode(data, codec_for(label) or "utf-8", "replace")
    return _decode(data, "utf-8", "replace")


def _decode(data: bytes, codec: str, errors: str) -> str:
    """In steps: a thread that decodes 35 MB lets the others run."""
    if codec == "utf-8" and len(data) <= _STEP:
        return data.decode(codec, errors).removeprefix("\ufeff")
    decoder = codecs.getincrementaldecoder(codec)(errors)
    steps = range(0, len(data) or 1, _STEP)
    text = "".join([decoder.decode(data[start : start + _STEP], final=start + _STEP >= len(data)) for start in steps])
    if codec == "utf-7" and (found := _SURROGATE.search(text)):
        if errors == "replace":
            return _SURROGATE.sub("\ufffd", text)
        raise UnicodeError(f"half a character at {found.start()}")  # Python's codec lets it pass
    table = _AS_WINDOWS.get(codec)
    return (text.translate(table) if table else text).removeprefix("\ufeff")


def _as_in_use(error: UnicodeError) -> tuple[str, int]:
    """What Python's codecs lack of the sets as mailers and browsers have them (WHATWG's indexes)."""
    if isinstance(error, UnicodeDecodeError):
        start, pair = error.start, error.object[error.start : error.start + 2]
        if error.encoding == "charmap" and pair[0] < 0xA0:  # unassigned in windows-125x
            return chr(pair[0]), start + 1
        if error.encoding == "gb18030" and pair[0] == 0x80:
            return "€", start + 1
        # NEC's and IBM's characters, in rows that JIS X 0208 leaves free: "1" in a circle, and names of people.
        if error.encoding in ("euc_jp", "iso2022_jp_ext") and len(pair) == 2 and (char := _beyond_jis(pair)):
            return char, start + 2
    raise error


def _beyond_jis(pair: bytes) -> str:
    """Two bytes of JIS as Windows has them; "" where it has none."""
    row, cell = pair[0] & 0x7F, pair[1] & 0x7F
    if row not in _NEC_AND_IBM or not 0x21 <= cell <= 0x7E:
        return ""
    lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
    trail = cell + (0x7E if row % 2 == 0 else 0x20 if cell >= 0x60 else 0x1F)
    return bytes((lead, trail)).decode("cp932", "ignore")


def _shown(label: str) -> str:
    """A name for a reply: short, printable ASCII."""
    return '"' + "".join(char if " " <= char <= "~" else "?" for char in label[:_SHOWN]) + '"'


codecs.register_error(_ERRORS, _as_in_use)
