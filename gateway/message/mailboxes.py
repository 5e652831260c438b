"""The mailboxes of an address field, from bytes: linear, never raises, and rather one address too many than one hidden.

Understands groups, comments, quoted strings, routes and obsolete blanks (RFC 5322 3.4, 4.4); encoded words stay what
they are until an entry turns out to have nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from gateway.address import parse_address
from gateway.message.text import decode, decode_words
from gateway.model import BadAddress

# Quoted string, domain literal, commas, one special, or a run of anything else.
_TOKEN = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|\[[^\[\]<>,;\\]*+\]|[,;][,;\s]*+|<++|:++|[(>"\[]|[^"(<>,;:\[]++', re.DOTALL
)
_IN_COMMENT = re.compile(rb"\\.?|[()]", re.DOTALL)
_HIDE = bytes.maketrans(b" \t,", b"\0\1\2")  # blanks and commas inside quotes do not separate
_NO_HIDDEN = bytes.maketrans(b"\0\1\2", b"???")
_SHOW = str.maketrans("\0\1\2", " \t,")
_SPECIALS = str.maketrans('<>(),;:"', " " * 8)
_LONGEST = 1000
_SHORT = 320  # octets of a field that is remembered
# What most fields hold, for speed: one address, or plain words and one address in angle brackets.
_ONE = rb"(?:\s*+(?:(\w[\w .'-]*+)?<([\w.+=-]{1,64}@[\w.-]{1,255})>|([\w.+=-]{1,64}@[\w.-]{1,255}))\s*+"
_SIMPLE = re.compile(_ONE + rb")", re.ASCII)
# The same in a list, and words without any address. A list may be long: these are read at once, one after the other.
_SIMPLE_ENTRY = re.compile(_ONE + rb"|([\w\s.'-]*+))([,;][,;\s]*+|\Z)", re.ASCII)
# The strict reading. Comments may nest once; unquoted text holds no "@" but in the address.
_QUOTED = rb'"(?:[^"\\\0-\x08\n-\x1f]|\\[ -~])*+"'
# An open quote goes on to the end, or looking for the next one would take quadratic time.
_COMMENT = re.compile(rb"(%s?+)|\((?:[^()\\@]|\([^()\\@]*+\))*+\)" % _QUOTED)
_PHRASE = rb'(?:[^"(),:;<>@\\\0-\x08\n-\x1f\x7f]++|%s)*+' % _QUOTED
_ADDRESS = rb'(?:[^][\s"(),:;<>@\\]++|%s)@(?:\[[\w:.]++\]|[^][\s"(),:;<>@\\]++)' % _QUOTED
_ENTRY = re.compile(  # a possessive optional group, (...)?+, is broken in Python 3.11.2 (Debian 12)
    rb"[ \t]*+(?:%b:[ \t]*+)?(?:%b<[ \t]*(%b)[ \t]*>|(%b)(?:[ \t]*<(%b)>)?)?[ \t]*(?:[,;]|\Z)"
    % (_PHRASE, _PHRASE, _ADDRESS, _ADDRESS, _ADDRESS)
)
# One address behind a name that should have been quoted, or behind words without anything that parts entries.
_SOLE = re.compile(rb'[^@<>]*+<(%b)>[\s,;]*+|(?:[^@<>,;:]*[\s"])?([\w.+=-]++@[\w.-]++)[\s,;]*+' % _ADDRESS)

# A local name where an address should stand: alone, or in angle brackets. Comments are blanks by then.
_LOCAL_NAME = re.compile(rb"(?:[^<>]*+<)?\s*+([\w.+=$~\x80-\xff-]++)\s*+>?\s*+")


class Mailbox(NamedTuple):
    """One entry: its span in the value, the bytes of its display name, its addresses (more than one if malformed)."""

    start: int
    end: int
    phrase: bytes
    addresses: tuple[str, ...]


def _tokens(value: bytes, position: int = 0) -> Iterator[tuple[int, bytes]]:
    """Tokens outside comments. What opens a comment or quote that never ends is blanked: it must not hide the rest."""
    while match := _TOKEN.match(value, position):
        token, position = match[0], match.end()
        end = _comment_end(value, position) if token == b"(" else 0
        if not end and token in (b"(", b'"'):
            value = value[:position] + value[position:].replace(token, b" ")
        elif token != b"(":
            yield match.start(), token
        position = end or position


def _comment_end(value: bytes, position: int) -> int:
    depth = 1
    for match in _IN_COMMENT.finditer(value, position):
        depth += {b"(": 1, b")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return 0


def mailboxes(value: bytes) -> list[Mailbox]:
    """All entries of a field's value; one without any address has an empty tuple."""
    if simple := _SIMPLE.fullmatch(value):
        return [Mailbox(0, len(value), (simple[1] or b"").strip(), ((simple[2] or simple[3]).decode(),))]
    found, start = _simple(value)
    return found if start == len(value) else found + _others(value, start)


def shown(value: bytes) -> tuple[str, ...]:
    """The addresses of a field's value, in order; printable but not checked any further."""
    return _short(value) if len(value) <= _SHORT else _shown(value)


def _shown(value: bytes) -> tuple[str, ...]:
    return tuple(address for box in mailboxes(value) for address in box.addresses)


_short = lru_cache(maxsize=1024)(_shown)  # the same people write again and again


def _simple(value: bytes) -> tuple[list[Mailbox], int]:
    """The entries with which it begins as long as nothing in them needs a closer look, and where the rest begins."""
    found, start = list[Mailbox](), 0
    while start < len(value) and (match := _SIMPLE_ENTRY.match(value, start)):
        name, angle, bare, words = match.group(1, 2, 3, 4)
        if address := angle or bare:
            found.append(Mailbox(start, match.start(5), (name or b"").strip(), (address.decode(),)))
        elif words.strip():
            found.append(Mailbox(start, match.start(5), b"", ()))
        start = match.end()
    return found, start


def _others(value: bytes, start: int) -> list[Mailbox]:
    """The entries from ``start`` on, where one begins."""
    found: list[Mailbox] = []
    words: list[bytes] = []
    angles: list[bytes] = []
    inside: list[bytes] | None = None
    name_end: int | None = None

    def close(end: int) -> None:
        nonlocal words, angles, inside
        phrase = value[start : end if name_end is None else name_end].strip() if angles or inside is not None else b""
        if inside is not None:
            angles.append(b"".join(inside))
        texts = angles or [b"".join(words)]
        if angles or texts[0].strip():
            addresses = tuple(address for text in texts for address in _addresses(text, bare=not angles))
            found.append(Mailbox(start, end, phrase, addresses))
        words, angles, inside = [], [], None

    for at, token in _tokens(value.translate(_NO_HIDDEN), start):
        special = token[:1]
        text = token.translate(_HIDE, b"\r\n") if special == b'"' else token
        if inside is not None:
            if special in b"<>":
                angles.append(b"".join(inside))
                inside = [] if special == b"<" else None
            elif special == b":":
                inside.clear()  # a route (RFC 5322 4.4)
            else:
                inside.append(text)
        elif special == b"<":
            name_end = name_end if angles else at
            inside = []
        elif special in b",;":
            close(at)
            start, name_end = at + len(token), None
        elif special == b":":
            words.append(b" ")  # that was a group's name
            start = at + len(token)
        else:
            words.append(text)
    close(len(value))
    return found


def qualify(value: bytes, domain: str) -> bytes:
    """``@domain`` behind each local name that stands where an address should: root, or Root <root>. All else stays."""
    text, pieces, done = _uncommented(value), [], 0
    for box in mailboxes(value):
        if not box.addresses and (match := _LOCAL_NAME.fullmatch(text, box.start, box.end)):
            pieces += [value[done : match.end(1)], f"@{domain}".encode()]
            done = match.end(1)
    return b"".join((*pieces, value[done:]))


def every_address(value: bytes) -> tuple[str, ...]:
    """All whom a field names, for mail to go there: nobody is left out, nothing is guessed or corrected.

    Raises BadAddress for an entry that is not one address.
    """
    text, found = _uncommented(value), []
    for box in mailboxes(value):
        entry = "".join(text[box.start : box.end].decode("utf-8", "backslashreplace").split())
        said = "".join(box.addresses[0].split()) if len(box.addresses) == 1 else ""
        if not entry and not said:
            continue  # a group without members
        if not said or (entry != said and not entry.endswith(f"<{said}>")):
            if b"<" in value and (sole := sole_address(value)):
                return (sole,)
            raise BadAddress(f"not an address: {entry!r}", "syntax")
        found.append(parse_address(box.addresses[0]))
    return tuple(found)


def _uncommented(value: bytes) -> bytes:
    """Blanks where comments are, so that every place stays the same."""
    text = bytearray(b" " * len(value))
    for at, token in _tokens(value):
        text[at : at + len(token)] = token
    return bytes(text)


def plain_addresses(value: bytes) -> tuple[str, ...]:
    """The field's addresses where no reader can find any other: valid, alone in its entry, not encoded; else ()."""
    text = _COMMENT.sub(lambda match: match[1] or b" ", value.replace(b"\r\n", b"")).strip()
    found: list[str] = []
    position = 0
    while position < len(text):
        entry = _ENTRY.match(text, position)
        if entry is None or (entry[3] and entry[3].lower() != entry[2].lower()):
            return ()
        position = entry.end()
        if address := entry[1] or entry[3] or entry[2]:
            try:
                found.append(parse_address(address.decode()))
            except (BadAddress, UnicodeDecodeError):
                return ()
    read = shown(value)
    return read if read == tuple(found) and not any("=?" in address for address in found) else ()


def sole_address(value: bytes) -> str:
    """The one address of a field whose name is not quoted as RFC 5322 wants, "Co., Ltd. <a@example.com>"; else "".

    Readers may disagree about the name, but nothing in it can be taken for another address.
    """
    value = value.replace(b"\r\n", b"")
    if (match := _SOLE.fullmatch(value)) is None:
        return ""
    group = match.lastindex or 1
    try:
        address = parse_address(match[group].decode())
    except (BadAddress, UnicodeDecodeError):
        return ""
    hidden = "=?" in address or may_show_address(value[: match.start(group)])
    alone = [box.addresses for box in mailboxes(value) if box.addresses] == [(address,)]
    return address if alone and not hidden else ""


def may_show_address(value: bytes) -> bool:
    """Whether there is an @ for somebody: also in an encoded word that is not decoded here, for others decode more."""
    text = decode(value)
    return "@" in text or "=?" in text


def _addresses(raw: bytes, *, bare: bool) -> Iterator[str]:
    text = raw.strip().decode("utf-8", "replace")
    if bare and "=?" in text:
        text = decode_words(text).translate(_SPECIALS)
    if len(text) > _LONGEST:
        if "@" in text:
            yield text[:_LONGEST]  # equals nobody's address, so nothing is granted to it
        return
    pieces: list[str] = []
    for piece in text.replace(",", " ").split():
        if pieces and (piece[0] in "@." or pieces[-1][-1] in "@."):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    for piece in pieces:
        if "@" in piece[1:-1] and piece[-1] != '"':
            shown = piece.translate(_SHOW)
            yield shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)
