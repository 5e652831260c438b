"""The tree of a message's parts: one walk over its boundary lines, bounded, linear and never raising (RFC 2046 5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from gateway.message.header import HEADER_LIMIT, Header, scan_part
from gateway.message.leaf import Leaf
from gateway.message.parameters import first_word, parameters, readable

_DEPTH_LIMIT = 100
_PARTS_LIMIT = 1000
_LINES_LIMIT = 100_000
_HEADERS_LIMIT = 2_048_000  # of all parts together: fields are what costs most
_BOUNDARY_LIMIT = 200  # RFC 2046 allows 70
_PADDING_LIMIT = 100
_FIRST_WINDOW = 1024
_STEP = 1 << 20
_TYPE = re.compile(r"[\w!#$&'*+.^`|~-]++/[\w!#$&'*+.^`|~-]++", re.ASCII)


@dataclass(eq=False, slots=True)
class Multipart:
    """A part that holds parts; ``closed`` when its closing boundary was seen. Its header is ``raw[begin:start]``."""

    kind: str
    parent: Multipart | None
    begin: int
    start: int
    children: list[Multipart | Placed] = field(default_factory=list)
    closed: bool = False


@dataclass(eq=False, slots=True)
class Placed:
    """A leaf in its place, with the parameters of its Content-Type."""

    leaf: Leaf
    parent: Multipart | None
    parameters: Mapping[str, str]


def ancestors(node: Multipart | Placed) -> Iterator[Multipart]:
    """The multiparts around it, the innermost first."""
    around = node.parent
    while around:
        yield around
        around = around.parent


class Tree:
    """The parts in any bytes: at most 1000 and 100 levels deep; an attached message is one leaf.

    ``leaves`` and ``multiparts`` in order. ``trouble``: why it may not be understood as it was meant, or "".
    """

    def __init__(self, raw: bytes) -> None:
        self.leaves: list[Placed] = []
        self.multiparts: list[Multipart] = []
        self.trouble = ""
        self._raw = raw
        self._open: dict[bytes, Multipart] = {}  # those around the present position by boundary, the outermost first
        self.header, start = self._header(0)
        self.root = self._enter(self.header, None, 0, start)
        self._walk(start)

    def _walk(self, start: int) -> None:
        part = self.root
        position = start - 1  # a body may begin with a boundary line
        parts = lines = headers = 0
        while self._open and (at := _find(self._raw, b"\n--", position) + 1):
            position, lines = at, lines + 1
            if lines > _LINES_LIMIT:
                self.complain(f"more than {_LINES_LIMIT} lines that look like boundaries")
                break
            multipart, closing = self._boundary(at)
            if multipart is None:
                continue
            self._leave(part, at)
            self._close(multipart, closing=closing)
            begin = self._raw.find(b"\n", at) + 1 or len(self._raw)
            position, part = begin - 1, multipart
            if closing:
                continue
            parts += 1
            if parts > _PARTS_LIMIT:
                self.complain(f"more than {_PARTS_LIMIT} parts")
                break
            header, start = self._header(begin)
            headers += start - begin
            if headers > _HEADERS_LIMIT:
                self.complain(f"more than {_HEADERS_LIMIT} bytes of headers")
                break
            part = self._enter(header, multipart, begin, start)
            position = start - 1
        self._leave(part, None)
        for node in self.multiparts:
            if not node.children and not node.closed:
                self.complain(f"{node.kind} without parts")

    def complain(self, trouble: str) -> None:
        """The first trouble is kept."""
        self.trouble = self.trouble or trouble

    def _boundary(self, at: int) -> tuple[Multipart | None, bool]:
        """The multipart whose boundary stands on the line at ``at``, and whether it closes it."""
        limit = at + _BOUNDARY_LIMIT + len(b"----") + _PADDING_LIMIT
        line, line_end, _ = self._raw[at:limit].partition(b"\n")
        if not line_end and limit < len(self._raw):
            return None, False
        name = line[2:].partition(b"\r")[0].rstrip()
        if name in self._open:
            return self._open[name], False
        return (self._open.get(name[:-2]), True) if name.endswith(b"--") else (None, False)

    def _close(self, multipart: Multipart, *, closing: bool) -> None:
        """Close the multiparts inside, and itself too if ``closing``."""
        for name in [*reversed(self._open)]:
            node = self._open[name]
            if node is multipart and not closing:
                break
            del self._open[name]
            if node is multipart:
                node.closed = True
                break

    def _header(self, begin: int) -> tuple[Header, int]:
        """The header of the part at ``begin`` and where its body begins: at a boundary line at the latest."""
        window = _FIRST_WINDOW
        while True:
            piece = self._raw[begin : begin + window]
            header = scan_part(piece)
            for index, found in enumerate(header.fields):  # a boundary with a colon in it looks like a field
                if found.raw.startswith(b"--") and self._boundary(begin + found.start)[0]:
                    return Header(header.fields[:index], header.start, found.start), begin + found.start
            fields_end = header.fields[-1].end if header.fields else header.start
            if piece.find(b"\n", fields_end) >= 0 or begin + window >= len(self._raw):  # not cut inside its last line
                return header, begin + header.end
            if window == HEADER_LIMIT:
                self.complain(f"header of more than {HEADER_LIMIT} bytes")
                return header, begin + header.end
            window = min(8 * window, HEADER_LIMIT)

    def _enter(self, header: Header, parent: Multipart | None, begin: int, start: int) -> Multipart | Placed:
        value = header.structured("content-type")
        found = parameters(value)
        kind = first_word(value)
        if not value:  # RFC 2045 5.2, RFC 2046 5.1.5
            kind = "message/rfc822" if parent and parent.kind == "multipart/digest" else "text/plain"
        elif not _TYPE.fullmatch(kind):
            kind = "multipart/mixed" if kind.startswith("multipart/") else ""  # RFC 2046 5.1.3
        boundary = found.get("boundary", "").encode("utf-8", "surrogateescape").rstrip()
        if kind.startswith("multipart/") and self._may_open(kind, boundary):
            multipart = Multipart(kind, parent, begin, start)
            self._open.setdefault(boundary, multipart)
            self.multiparts.append(multipart)
            if parent:
                parent.children.append(multipart)
            return multipart
        return Placed(_leaf(header, kind, found, begin, start), parent, found)

    def _may_open(self, kind: str, boundary: bytes) -> bool:
        if not 0 < len(boundary) <= _BOUNDARY_LIMIT:
            self.complain(f"{kind} without a usable boundary")
            return False
        if len(self._open) == _DEPTH_LIMIT:
            self.complain(f"more than {_DEPTH_LIMIT} levels of parts")
            return False
        if boundary in self._open:
            self.complain("two multiparts with one boundary")  # against RFC 2046 5.1.2: it stays the outer one's
        return True

    def _leave(self, part: Multipart | Placed, at: int | None) -> None:
        """The part ends before the boundary line at ``at``. Boundary lines in a row have no part between them."""
        if isinstance(part, Multipart) or at == part.leaf.header_start:
            return
        end = len(self._raw)
        if at is not None:
            end = at - (2 if self._raw.endswith(b"\r\n", 0, at) else 1)
        part.leaf = replace(part.leaf, number=len(self.leaves) + 1, end=max(part.leaf.start, end))
        self.leaves.append(part)
        if part.parent:
            part.parent.children.append(part)


def _leaf(header: Header, kind: str, found: Mapping[str, str], begin: int, start: int) -> Leaf:
    """The leaf as far as it is known where it begins; ``kind`` is "" for a type that is none."""
    value = header.structured("content-disposition")
    disposition = "inline" if first_word(value) == "inline" else "attachment" if value else ""  # RFC 2183 2.8
    filename = readable(parameters(value).get("filename") or found.get("name", ""))
    return Leaf(
        number=0,
        content_type=kind or ("application/octet-stream" if filename else "text/plain"),
        charset=readable(found.get("charset", "")).lower(),
        encoding=header.word("content-transfer-encoding"),
        disposition=disposition,
        filename=filename,
        content_id=header.identifier("content-id").strip("<> "),
        header_start=begin,
        start=start,
        end=start,
    )


def _find(raw: bytes, what: bytes, position: int) -> int:
    """``bytes.find`` in steps: between them other threads run."""
    while position < len(raw):
        found = raw.find(what, position, position + _STEP + len(what) - 1)
        if found >= 0:
            return found
        position += _STEP
    return -1
