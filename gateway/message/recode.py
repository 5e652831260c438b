"""Parts in another transfer encoding: the field and the body together, or neither."""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from collections.abc import Iterable, Iterator

from gateway.message.header import normalise_newlines, replace_fields, scan_part
from gateway.message.leaf import Leaf, leaf_bytes
from gateway.message.parameters import first_word, structured

_FIELD = "content-transfer-encoding"
_LINE = 57  # bytes on a line of base64: 76 letters (RFC 2045 6.8)
_STEP = _LINE * 8192


def patched(raw: bytes, changes: Iterable[tuple[int, int, bytes]]) -> bytes:
    """``raw`` with other bytes for some spans, which come in order and do not overlap."""
    view, position = memoryview(raw), 0
    pieces: list[bytes | memoryview] = []
    for start, end, new in changes:
        pieces += [view[position:start], new]
        position = end
    return b"".join((*pieces, view[position:]))


def recoded(raw: bytes, leaf: Leaf, encoding: str) -> bytes | None:
    """The whole part in base64 or quoted-printable. None where readers may disagree about what it is in now."""
    head = with_encoding(raw[leaf.header_start : leaf.start], encoding)
    return None if head is None else head + encoded(raw, leaf, encoding)


def with_encoding(head: bytes, encoding: str) -> bytes | None:
    """A part's header that names this transfer encoding. None where it names two others."""
    header = scan_part(head)
    named = [index for index, field in enumerate(header.fields) if field.name == _FIELD]
    if len({first_word(structured(header.fields[index].value)) for index in named}) > 1:
        return None
    line = f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    if named:
        return replace_fields(head, header, b"", dict.fromkeys(named, b"") | {named[0]: line})
    return with_field(head, line)


def with_field(head: bytes, line: bytes) -> bytes:
    """A header with one more field, behind the others: trace fields stay on top."""
    header = scan_part(head)
    if not header.fields:
        return line + (head or b"\r\n")
    last = header.fields[-1].raw
    last += b"" if last.endswith(b"\n") else b"\r\n"
    return replace_fields(head, header, b"", {len(header.fields) - 1: last + line})


def encoded(raw: bytes, leaf: Leaf, encoding: str) -> bytes:
    """The part's content anew. The line end in front of a boundary belongs to that (RFC 2046 5.1.1)."""
    data = leaf_bytes(raw, leaf)
    if encoding == "quoted-printable":
        return quoted(data)
    text = b"".join(_base64(data))
    return text if leaf.end == len(raw) else text.removesuffix(b"\r\n")


def _base64(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _STEP):
        piece = data[start : start + _STEP]
        lines = (b2a_base64(piece[at : at + _LINE], newline=False) for at in range(0, len(piece), _LINE))
        yield b"\r\n".join(lines) + b"\r\n"


def quoted(data: bytes) -> bytes:
    """Quoted-printable: CRLF stays, and all else is what it was, blanks in front of it too (RFC 2045 6.7)."""
    return b"".join(_quoted(data))


def _quoted(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        stop = position + _STEP
        stop = data.rfind(b"\n", position, stop) + 1 or stop if stop < len(data) else len(data)
        piece = data[position:stop]
        yield normalise_newlines(b2a_qp(piece, istext=True))
        if stop < len(data) and not piece.endswith(b"\n"):
            yield b"=\r\n"
        position = stop
