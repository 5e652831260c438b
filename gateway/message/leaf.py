"""One leaf part of a message, and what is in it: transfer encoding and charset undone.

Works in pieces, so that a thread that decodes 35 MB lets the others run.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass
from io import IncrementalNewlineDecoder

from gateway.message.charset import Undecodable, exactly, roughly

_STEP = 1 << 19
_NAME_LIMIT = 60
_SHOWN = 20
# RFC 2045 6.1, and what is written where no encoding is meant. Any other word hides what the bytes stand for.
_ENCODINGS = frozenset((
    "base64", "quoted-printable", "", "7bit", "8bit", "binary",
    "7-bit", "8-bit", "7bits", "8bits", "none", "plain", "text", "ascii", "us-ascii", "utf-8", "utf8",
))  # fmt: skip
_META = re.compile(rb"<meta\s[^>]{0,300}?charset\s*=\s*[\"']?([\w.:+-]{1,40})", re.IGNORECASE)
_META_LIMIT = 1024  # bytes
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f]")
_NO_CONTROLS = dict.fromkeys((*range(9), *range(11, 32)))  # the same, for ASCII five times as quick


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part that holds no parts; an attached message is one leaf.

    Absent text is "". ``disposition`` is attachment, inline or "". The part's header begins at ``header_start`` and
    its body, still encoded, is ``raw[start:end]``: without the line end that belongs to the boundary (RFC 2046 5.1.1).
    """

    number: int
    content_type: str
    charset: str
    encoding: str
    disposition: str
    filename: str
    content_id: str
    header_start: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"part {self.number}: {self.content_type} {self.filename}"[:_NAME_LIMIT].rstrip()


def leaf_bytes(raw: bytes, leaf: Leaf) -> bytes:
    """The part's content, as far as it can be decoded; what has an unknown encoding stays as it is."""
    return b"".join(leaf_pieces(raw, leaf))


def leaf_pieces(raw: bytes, leaf: Leaf) -> Iterator[bytes]:
    """The same in pieces, for what is too large to be held twice."""
    if leaf.encoding == "base64":
        return _base64(raw, leaf.start, leaf.end)
    if leaf.encoding == "quoted-printable":
        return _quoted_printable(raw, leaf.start, leaf.end)
    return (raw[start : min(start + _STEP, leaf.end)] for start in range(leaf.start, leaf.end, _STEP))


def _base64(raw: bytes, position: int, end: int) -> Iterator[bytes]:
    """Other bytes are skipped, and the first "=" ends it (RFC 2045 6.8): lists put their footers behind that."""
    rest, padded = b"", b""
    while position < end and not padded:
        piece = rest + raw[position : min(end, position + _STEP)].translate(None, _NOT_BASE64)
        piece, padded, _ = piece.partition(b"=")
        whole = len(piece) & ~3
        yield a2b_base64(piece[:whole])
        rest, position = piece[whole:], position + _STEP
    if len(rest) > 1:  # a single letter stands for less than a byte
        yield a2b_base64(rest + b"==")


def _quoted_printable(raw: bytes, position: int, end: int) -> Iterator[bytes]:
    while position < end:
        stop = min(end, position + _STEP)
        if stop < end:
            # Between lines, or else where no "=" can belong to what comes after.
            line_end = raw.rfind(b"\n", position, stop) + 1
            escape = raw.find(b"=", stop - 2, stop)
            stop = line_end or (escape if escape >= 0 else stop)
        yield a2b_qp(_unpadded(raw[position:stop], last=stop == end))
        position = stop


def _unpadded(piece: bytes, *, last: bool) -> bytes:
    """Without the blanks at the ends of lines: they were added on the way (RFC 2045 6.7 (3))."""
    piece = piece.rstrip(b" \t") if last else piece
    if b" \r\n" in piece or b"\t\r\n" in piece:
        return b"\r\n".join([line.rstrip(b" \t") for line in piece.split(b"\r\n")])
    return piece


def leaf_text(raw: bytes, leaf: Leaf, default: str = "") -> str:
    """The part's content as text with lines that end in LF, without control characters.

    In the character set that the part names, or HTML in itself; where none is, in UTF-8 or else in ``default``.
    Raises Undecodable: nothing is guessed.
    """
    return _clean(plain_text(raw, leaf, default))


def plain_text(raw: bytes, leaf: Leaf, default: str = "") -> str:
    """The same as it was written, for those who only ask whether it can be read."""
    if leaf.encoding not in _ENCODINGS:
        raise Undecodable(f"is in an unknown transfer encoding, {leaf.encoding[:_SHOWN]}")
    data = leaf_bytes(raw, leaf)
    return exactly(data, leaf.charset, _said_inside(leaf, data) or default)


def rough_text(raw: bytes, leaf: Leaf) -> str:
    """The same where it is only looked through: never raises."""
    data = leaf_bytes(raw, leaf)
    return _clean(roughly(data, leaf.charset or _said_inside(leaf, data)))


def _said_inside(leaf: Leaf, data: bytes) -> str:
    """The character set that HTML names where its field does not (WHATWG HTML, 13.2.3.2)."""
    match = _META.search(data, 0, _META_LIMIT) if leaf.content_type == "text/html" else None
    return match[1].decode() if match else ""


def _clean(text: str) -> str:
    line_ends, pieces = IncrementalNewlineDecoder(None, translate=True), []
    for start in range(0, len(text) or 1, _STEP):
        piece = line_ends.decode(text[start : start + _STEP], final=start + _STEP >= len(text))
        pieces.append(piece.translate(_NO_CONTROLS) if piece.isascii() else _CONTROLS.sub("", piece))
    return "".join(pieces)
