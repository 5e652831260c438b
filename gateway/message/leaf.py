"""One leaf part of a message, and what is in it: transfer encoding and charset undone, never raising.

Works in pieces, so that a thread that decodes 35 MB lets the others run.
"""

from __future__ import annotations

import codecs
import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import IncrementalNewlineDecoder

from gateway.message.text import text_codec

_STEP = 1 << 19
_NAME_LIMIT = 60
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f]")


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
        yield a2b_qp(raw[position:stop])
        position = stop


def leaf_text(raw: bytes, leaf: Leaf) -> str:
    """The part's content as text with lines that end in LF, without control characters.

    In the charset it names, if that is known to be harmless, or else in UTF-8, or else in windows-1252.
    """
    data = leaf_bytes(raw, leaf)
    codec = text_codec(leaf.charset)
    if codec and codec != "us-ascii":  # which is what is said where nobody looked
        with suppress(UnicodeError):  # UTF-16 without its mark, ISO 2022 with endless escapes
            return _decode(data, codec, "replace")
    with suppress(UnicodeError):
        return _decode(data, "utf-8", "strict")
    return _decode(data, "windows-1252", "replace")


def _decode(data: bytes, codec: str, errors: str) -> str:
    decoder = IncrementalNewlineDecoder(codecs.getincrementaldecoder(codec)(errors), translate=True)
    pieces = []
    for position in range(0, len(data) or 1, _STEP):
        text = decoder.decode(data[position : position + _STEP], final=position + _STEP >= len(data))
        pieces.append(_CONTROLS.sub("", text))
    return "".join(pieces)
