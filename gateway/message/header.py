"""The header as bytes: found in one pass, never re-serialised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.message.mailboxes import Mailbox, mailboxes, shown
from gateway.message.parameters import first_word, readable, structured
from gateway.message.text import decode
from gateway.model import BadMessage

FIELD_LIMIT = 102_400  # octets of one field: Postfix's header_size_limit
HEADER_LIMIT = 500_000  # octets of all together: what Gmail takes
_MOST_FIELDS = 10_000  # Gmail takes 5,000; looking at them costs time
# A bare LF ends a line here too, so that nothing hides behind one. Possessive: linear whatever comes.
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?+")
_LINE_END = re.compile(rb"(?<!\r)\r++\n")
_LINE_START = re.compile(rb"(?:(?<=\n)|\A)\r++")
_PIECE = 500_000  # octets: no other thread runs while an expression goes through them
_PLAIN_IDENTIFIER = re.compile(rb"\s*+(<[!-;=?-~]++>)\s*+")
_IDENTIFIER = re.compile(r"<[^<>]++>")
_MBOX_LINE = re.compile(rb">*From (?![ \t]*:)[^\n]*\n")


class Field(NamedTuple):
    """One field: name in lower case, all its bytes with folding and line end, and where they stand."""

    name: str
    raw: bytes
    start: int
    end: int

    @property
    def value(self) -> bytes:
        return self.raw.partition(b":")[2]

    @property
    def spelled(self) -> str:
        """The name as it stands there."""
        return self.raw.partition(b":")[0].strip().decode()


@dataclass(frozen=True, slots=True)
class Header:
    """Fields in order, and by name in lower case. ``start`` is where they begin (after mbox lines), ``end`` where the
    body begins."""

    fields: tuple[Field, ...]
    start: int
    end: int
    named: Mapping[str, Sequence[Field]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named: dict[str, list[Field]] = {}
        for one in self.fields:
            if one.name in named:
                named[one.name].append(one)
            else:
                named[one.name] = [one]
        object.__setattr__(self, "named", named)

    def value(self, name: str) -> bytes:
        """The first such field's value as it stands there, b"" if there is none. ``name`` in lower case."""
        return self.named[name][0].value if name in self.named else b""

    def first(self, name: str) -> str:
        """The same as readable text."""
        return decode(self.value(name))

    def structured(self, name: str) -> str:
        """The same for a reader of words and parameters: on one line, without comments."""
        return structured(self.value(name))

    def word(self, name: str) -> str:
        """The word with which the first such field begins, in lower case; "" if there is none."""
        return first_word(self.structured(name))

    def identifier(self, name: str) -> str:
        """The msg-id of the first such field that is not blank (RFC 5322 3.6.4), or what stands in its place."""
        values = [field.value for field in self.named.get(name, ())]
        if values and (plain := _PLAIN_IDENTIFIER.fullmatch(values[0])):
            return plain[1].decode()
        text = next(filter(None, map(structured, values)), "")
        match = _IDENTIFIER.search(text)
        return readable(match[0] if match else text)

    def mailboxes(self, name: str) -> list[Mailbox]:
        return [box for field in self.named.get(name, ()) for box in mailboxes(field.value)]

    def addresses(self, name: str) -> tuple[str, ...]:
        """Addresses of all such fields, groups expanded, in order; printable but not checked any further."""
        found: tuple[str, ...] = ()
        for one in self.named.get(name, ()):
            found += shown(one.value)
        return found

    def names(self) -> dict[str, str]:
        """Each name once, in order: in lower case, and as it is spelled the first time."""
        return {name: fields[0].spelled for name, fields in self.named.items()}

    def count(self, name: str) -> int:
        return len(self.named.get(name, ()))


def scan(raw: bytes) -> Header:
    """Find the header's fields. Lines should end in CRLF (``repaired``).

    Leading mbox lines ("From " and ">From ") belong to no field. The body begins after the first empty line, or at the
    first line that is no field. Raises BadMessage for a field over 100 KiB, a header over 500 kB or of 10,000 fields.
    """
    header = scan_part(raw, most=_MOST_FIELDS + 1)
    position = header.fields[-1].end if header.fields else header.start
    if position > HEADER_LIMIT:
        raise BadMessage(f"message header is larger than {HEADER_LIMIT} bytes")
    if len(header.fields) > _MOST_FIELDS:
        raise BadMessage(f"message header has more than {_MOST_FIELDS} fields")
    for one in header.fields if position > FIELD_LIMIT else ():
        if len(one.raw) > FIELD_LIMIT:
            raise BadMessage(f"header field {one.spelled[:100]} is larger than {FIELD_LIMIT} bytes")
    return header


def scan_part(raw: bytes, *, most: int = HEADER_LIMIT) -> Header:
    """As ``scan``, also for the header of a part: what is beyond the limits is not seen, and nothing is raised."""
    start, mbox = 0, raw.startswith((b"F", b">"))
    while mbox and (match := _MBOX_LINE.match(raw, start, HEADER_LIMIT)):
        start = match.end()
    position, fields = start, list[Field]()
    while len(fields) < most and (match := _FIELD.match(raw, position, HEADER_LIMIT + 1)):
        fields.append(Field(match[1].lower().decode(), match[0], position, position := match.end()))
    blank = 2 if raw.startswith(b"\r\n", position) else int(raw.startswith(b"\n", position))
    return Header(tuple(fields), start, position + blank)


def has_bare_newlines(raw: bytes) -> bool:
    """Whether a CR or LF stands in it that belongs to no CRLF."""
    others = raw.replace(b"\r\n", b"\0\0")  # of all ways the quickest, as long as nothing moves
    return b"\n" in others or b"\r" in others


def normalise_newlines(raw: bytes) -> bytes:
    """Every bare CR and bare LF becomes CRLF; canonical bytes come back as they are."""
    if not has_bare_newlines(raw):
        return raw
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def repaired(raw: bytes) -> bytes:
    """A message with CRLF at the end of each line, also of the last; canonical bytes come back as they are.

    LF, CR LF, CR CR LF and so on end a line, and so does LF CR. Any other CR is text: blanks take its place in the
    header, as Postfix has it (cleanup_replace_stray_cr_lf), or what somebody typed into a subject could be a field; in
    the body, where it was meant to be seen, it begins a line. Where no LF is, but at the very end, CR ends all lines.
    """
    if not has_bare_newlines(raw):
        return raw if raw.endswith(b"\n") or not raw else raw + b"\r\n"
    text = raw.replace(b"\r\n", b"\n")
    text = _replace(_LINE_END, b"\n", text) if b"\r\n" in text else text
    if text.find(b"\n") in (-1, len(text) - 1):
        text = text.replace(b"\r", b"\n")
    if b"\r" in text:
        text = _replace(_LINE_START, b"", text)
        end = scan_part(text).end
        text = text[:end].replace(b"\r", b" ") + text[end:].replace(b"\r", b"\n")
    return (text if text.endswith(b"\n") else text + b"\n").replace(b"\n", b"\r\n")


def _replace(what: re.Pattern[bytes], new: bytes, text: bytes) -> bytes:
    """Of what goes over no LF."""
    pieces, start = [], 0
    while start < len(text):
        end = text.find(b"\n", start + _PIECE) + 1 or len(text)
        pieces.append(what.sub(new, text[start:end]))
        start = end
    return b"".join(pieces)


def replace_fields(raw: bytes, header: Header, new: bytes, changes: dict[int, bytes]) -> bytes:
    """``new`` before the header, and the fields at the indexes in ``changes`` replaced (b"" removes one).

    Everything else keeps its bytes, but for mbox lines; where the empty line before a body is missing it is put in.
    """
    view = memoryview(raw)
    pieces: list[bytes | memoryview] = [new]
    position = header.start
    for index in sorted(changes):
        field = header.fields[index]
        pieces += [view[position : field.start], changes[index]]
        position = field.end
    fields_end = header.fields[-1].end if header.fields else header.start
    if fields_end == header.end:
        line_end = b"" if fields_end == header.start or raw.endswith(b"\n", 0, fields_end) else b"\r\n"
        pieces += [view[position:fields_end], line_end, b"\r\n" if fields_end < len(raw) else b""]
        position = fields_end
    pieces.append(view[position:] if position else raw)
    return b"".join(pieces)
