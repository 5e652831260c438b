"""Header bytes as text and text as header bytes: decoding that never raises, dates, folding."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime

_WORD = re.compile(r"=\?([\w-]{1,40})(?:\*[\w-]*)?\?([bBqQ])\?([^?\s]{0,1000})\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s++(?==\?)")
# Charsets by codecs that only decode text: Python has others, slow or worse. A closed set, because Python remembers
# for good every name that it looked up in vain.
_CHARSET = re.compile(
    r"(?:us-)?ascii|utf-?8|utf-?16|utf-16-?[bl]e|iso-?8859-(?:[1-9]|1[013-6])|latin-?1|windows-(?:874|125[0-8])|"
    r"cp(?:437|737|775|85[02578]|86[0-69]|874|932|949|950|125[0-8])|koi8-[ru]|macintosh|gb(?:k|2312|18030)|"
    r"big5(?:-?hkscs)?|euc-(?:jp|kr|cn)|shift[_-]jis|ks_c_5601-1987|tis-620|iso-2022-(?:jp(?:-[123])?|kr)"
)
# Names under which mailers send more characters than the codec of that name knows.
_WIDER = {
    "ascii": "us-ascii", "windows-874": "cp874", "gb2312": "gb18030", "gbk": "gb18030", "euc-cn": "gb18030",
    "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "shift_jis": "cp932", "shift-jis": "cp932",
    "iso-8859-1": "cp1252", "iso8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252",
}  # fmt: skip
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def text_codec(charset: str) -> str:
    """The codec for a charset's name, "" for one that is not known to be harmless."""
    name = charset.lower()
    return _WIDER.get(name, name) if _CHARSET.fullmatch(name) else ""


def _word(match: re.Match[str]) -> str:
    charset, encoding, text = match[1].lower(), match[2].lower(), match[3]
    try:
        if encoding == "b":
            data = b64decode(text + "=" * (-len(text) % 4))
        else:
            quoted = re.sub("=([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text.replace("_", " "))
            data = quoted.encode("latin-1")
        return data.decode(codec, "replace") if (codec := text_codec(charset)) else match[0]
    except ValueError:  # binascii.Error and UnicodeError among them
        return match[0]


def decode_words(text: str) -> str:
    """Encoded words decoded (RFC 2047), as far as they can be; linear in the length."""
    return _WORD.sub(_word, _BETWEEN_WORDS.sub("", text)) if "=?" in text else text


def decode(value: bytes) -> str:
    """A field's value as text: unfolded, UTF-8, encoded words decoded, only printable characters."""
    text = decode_words(value.replace(b"\r\n", b"").strip().decode("utf-8", "replace"))
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text).strip()


def date(when: datetime) -> str:
    """An RFC 5322 date-time in UTC."""
    when = when.astimezone(UTC)
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    return f"{day}, {when.day} {month} {when.year:04} {when.hour:02}:{when.minute:02}:{when.second:02} +0000"


def fold(name: str, words: Iterable[str]) -> bytes:
    """A field of ours with its words on lines of at most 78 characters where they allow it (RFC 5322 2.1.1)."""
    lines = [f"{name}:"]
    for word in words:
        if len(lines[-1]) + len(word) > 77 and lines[-1] != f"{name}:":
            lines.append("\t" + word)
        else:
            lines[-1] += " " + word
    return ("\r\n".join(lines) + "\r\n").encode()


def harmless(text: str, *, utf8: bool = False, limit: int = 255) -> str:
    """Text for a generated field: what is not printable ASCII (or Unicode, with ``utf8``) becomes "?"."""
    return "".join(c if c.isprintable() and (utf8 or c < "\x7f") else "?" for c in text[:limit])
