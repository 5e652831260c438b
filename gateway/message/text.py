"""Header bytes as text and text as header bytes: decoding that never raises, dates, folding."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime

_WORD = re.compile(r"=\?([\w-]{1,40})(?:\*[\w-]*)?\?([bBqQ])\?([^?\s]{0,1000})\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s++(?==\?)")
_CHARSET = re.compile(  # codecs that only decode text: Python has others, slow or worse
    r"us-ascii|utf-?8|iso-8859-\d+|windows-\d+|cp\d+|koi8-[ru]|gb\w+|big5\w*|euc-\w+|shift_jis|iso-2022-\w+", re.ASCII
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _word(match: re.Match[str]) -> str:
    charset, encoding, text = match[1].lower(), match[2].lower(), match[3]
    try:
        if encoding == "b":
            data = b64decode(text + "=" * (-len(text) % 4))
        else:
            quoted = re.sub("=([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text.replace("_", " "))
            data = quoted.encode("latin-1")
        return data.decode(charset, "replace") if _CHARSET.fullmatch(charset) else match[0]
    except (ValueError, LookupError):  # binascii.Error and UnicodeError are ValueErrors
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
