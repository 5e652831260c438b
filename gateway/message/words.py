"""Header fields of raw 8-bit text in ASCII: encoded words (RFC 2047), parameters (RFC 2231). Exact, or not at all."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

from gateway.message.charset import Undecodable
from gateway.message.header import Field
from gateway.message.mailboxes import Mailbox, mailboxes
from gateway.message.text import surely

_ADDRESSES = re.compile(
    r"(resent-)?(from|sender|to|cc|bcc|reply-to)|(disposition-notification|return-receipt|mail-followup|errors)-to"
)
_PARAMETERS = frozenset(("content-type", "content-disposition"))
# What stands in these is for programs, which find no encoded words there.
_FIXED = frozenset((
    "content-transfer-encoding", "content-id", "message-id", "in-reply-to", "references", "date", "mime-version",
    "return-path", "resent-message-id", "resent-date", "dkim-signature",
))  # fmt: skip
_TOKEN = re.compile(rb"\s+|\S+")
_COMMENT = re.compile(rb"\(([^()]++)\)")
_PARAMETER = re.compile(r';(\s*+)([^\s=;*"]++)\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^\s;"]++))')
_PERCENT = re.compile("%..|.")
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # RFC 2047 5 (3)
_WORD_LIMIT = 75  # characters (RFC 2047 2)
_LINE_LIMIT = 60


def ascii_field(field: Field) -> bytes | None:
    """The field in ASCII, for readers who know MIME the same as before; None where that cannot be."""
    if field.raw.isascii():
        return field.raw
    name, value = field.raw[: -len(field.value)], field.value
    if field.name in _FIXED:
        return None
    if _ADDRESSES.fullmatch(field.name):
        new = _in_addresses(value)
    else:
        new = _in_parameters(value) if field.name in _PARAMETERS else _in_text(value)
    return name + new if new is not None and new.isascii() else None


def encoded_words(data: bytes) -> bytes:
    """UTF-8, or bytes of which nobody knows what they are (RFC 1428), as encoded words on lines of their own."""
    try:
        charset, units = "utf-8", [char.encode() for char in data.decode()]
    except UnicodeDecodeError:
        charset, units = "unknown-8bit", [bytes((byte,)) for byte in data]
    room, words, word = _WORD_LIMIT - len(f"=?{charset}?q??="), list[str](), ""
    for unit in units:
        piece = "".join("_" if byte == 0x20 else chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in unit)
        if len(word) + len(piece) > room:
            words.append(word)
            word = ""
        word += piece
    return "\r\n ".join(f"=?{charset}?q?{word}?=" for word in (*words, word)).encode()


def _in_text(value: bytes) -> bytes | None:
    """Words side by side become one: the blank between two encoded words does not count (RFC 2047 6.2)."""
    if b"=?" in value:
        try:
            return b" " + encoded_words(surely(value).encode()) + b"\r\n"
        except Undecodable:
            return None
    tokens, pieces, at = _TOKEN.findall(value), list[bytes](), 0
    while at < len(tokens):
        end = at + 1
        if tokens[at].isascii():
            pieces.append(tokens[at])
        else:
            while end + 1 < len(tokens) and tokens[end].isspace() and not tokens[end + 1].isascii():
                end += 2
            pieces.append(encoded_words(b"".join(tokens[at:end]).replace(b"\r\n", b"")))
        at = end
    return b"".join(pieces)


def _in_addresses(value: bytes) -> bytes | None:
    pieces, position = list[bytes](), 0
    for box in mailboxes(value):
        own = value[box.start : box.end]
        if not own.isascii():
            if (name := _name(box, own)) is None:
                return None
            end = b"\r\n" if own.endswith(b"\n") else b""
            entry = b" %b <%b>%b" % (encoded_words(name), box.addresses[0].encode(), end)
            pieces += [value[position : box.start], entry]
            position = box.end
    return b"".join((*pieces, value[position:]))


def _name(box: Mailbox, own: bytes) -> bytes | None:
    """The display name, or the comment that stands for it; None where that is not all that has 8 bits."""
    if len(box.addresses) != 1 or not box.addresses[0].isascii():
        return None
    phrase = box.phrase
    if phrase.isascii():
        comment = _COMMENT.search(own)
        phrase = comment[1] if comment and not phrase else b""
    if phrase.isascii():
        return None
    if phrase.startswith(b'"') and phrase.endswith(b'"'):
        phrase = re.sub(rb"\\(.)", rb"\1", phrase[1:-1])
    try:
        return surely(phrase).encode()
    except Undecodable:
        return None if b"=?" in phrase else phrase.replace(b"\r\n", b"")


def _in_parameters(value: bytes) -> bytes:
    return _PARAMETER.sub(_parameter, value.decode("latin-1")).encode("latin-1")


def _parameter(match: re.Match[str]) -> str:
    if match[0].isascii() or match[2].lower() == "boundary":
        return match[0]
    data = (re.sub(r"\\(.)", r"\1", match[3] or "") or match[4]).replace("\r\n", "").encode("latin-1")
    try:
        data.decode()
        charset = "utf-8"
    except UnicodeDecodeError:
        charset = ""  # which may be left out (RFC 2231 4)
    units, lines = _PERCENT.findall(quote_from_bytes(data, safe="")), [f"{charset}''"]
    for unit in units:
        if len(lines[-1]) + len(unit) > _LINE_LIMIT:
            lines.append("")
        lines[-1] += unit
    if len(lines) == 1:
        return f";{match[1]}{match[2]}*={lines[0]}"
    return "".join(f";\r\n\t{match[2]}*{number}*={line}" for number, line in enumerate(lines))
