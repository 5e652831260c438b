"""Header bytes as text and text as header bytes: decoding that never raises, dates, folding."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from gateway.message.charset import Undecodable, codec_for, exactly, is_named, roughly

# RFC 2047 2 has no dots and colons in a charset's name, but "ISO_8859-1:1987" is one.
_WORD = re.compile(r"=\?([\w.:+-]{1,40})(?:\*[\w-]*)?\?([bBqQ])\?([^?\s]{0,1000})\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s++(?==\?)")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EPOCH, _SECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=1)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def decode_words(text: str, *, sure: bool = False) -> str:
    """Encoded words decoded (RFC 2047), as far as they can be; linear in the length.

    With ``sure`` raises Undecodable where one cannot be.
    """
    if "=?" not in text:
        return text
    text, pieces, done = _BETWEEN_WORDS.sub("", text), [], 0
    for start, end, charset, held in _words(text):
        data = b"".join(held)
        try:
            shown = exactly(data, charset)
        except Undecodable:
            if sure:
                raise
            shown = roughly(data, charset) if codec_for(charset) or not is_named(charset) else text[start:end]
        pieces += [text[done:start], shown]
        done = end
    return "".join((*pieces, text[done:]))


def _words(text: str) -> list[tuple[int, int, str, list[bytes]]]:
    """Where encoded words stand, their charset, and what they hold.

    Side by side and of one charset they are one: mailers cut them within characters, against RFC 2047 5.
    """
    found: list[tuple[int, int, str, list[bytes]]] = []
    for match in _WORD.finditer(text):
        data, charset = _held(match), match[1].lower()
        if data is not None and found and found[-1][1:3] == (match.start(), charset):
            start, _, _, held = found.pop()
            held.append(data)
            found.append((start, match.end(), charset, held))
        elif data is not None:
            found.append((match.start(), match.end(), charset, [data]))
    return found


def _held(match: re.Match[str]) -> bytes | None:
    """None for a word that is broken."""
    text = match[3]
    try:
        if match[2] in "bB":
            return b64decode(text + "=" * (-len(text) % 4))
        quoted = re.sub("=([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text.replace("_", " "))
        return quoted.encode("latin-1")
    except ValueError:  # binascii.Error and UnicodeError among them
        return None


def decode(value: bytes, default: str = "") -> str:
    """A field's value as text: unfolded, UTF-8 or else ``default``, encoded words decoded, only printable characters.

    What cannot be decoded is shown as far as it can be.
    """
    value = _unfolded(value)
    if value.isascii() and b"\x1b" not in value:
        return _printable(decode_words(value.decode()))
    try:
        text = exactly(value, "", default)
    except Undecodable:
        text = roughly(value, "")
    return _printable(decode_words(text))


def surely(value: bytes, default: str = "") -> str:
    """As ``decode``, where there is no doubt: raises Undecodable."""
    return _printable(decode_words(exactly(_unfolded(value), "", default), sure=True))


def _unfolded(value: bytes) -> bytes:
    return value.replace(b"\r\n", b"").strip()


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text).strip()


def date(when: datetime) -> str:
    """An RFC 5322 date-time in UTC."""
    return _dated((when - _EPOCH) // _SECOND)


@lru_cache(maxsize=16)
def _dated(second: int) -> str:
    when = _EPOCH + timedelta(seconds=second)
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    return f"{day}, {when.day} {month} {when.year:04} {when.hour:02}:{when.minute:02}:{when.second:02} +0000"


def fold(name: str, words: Iterable[str]) -> bytes:
    """A field of ours with its words on lines of at most 78 characters where they allow it (RFC 5322 2.1.1)."""
    text, length, first = f"{name}:", len(name) + 1, True
    for word in words:
        if length + len(word) > 77 and not first:
            text += "\r\n\t" + word
            length = 1 + len(word)
        else:
            text += " " + word
            length += 1 + len(word)
        first = False
    return (text + "\r\n").encode()


def harmless(text: str, *, utf8: bool = False, limit: int = 255) -> str:
    """Text for a generated field: what is not printable ASCII (or Unicode, with ``utf8``) becomes "?"."""
    text = text[:limit]
    if text.isprintable() and (utf8 or text.isascii()):
        return text
    return "".join(c if c.isprintable() and (utf8 or c < "\x7f") else "?" for c in text)
