"""The parts of a message for people to look at: one walk over the boundary lines, bounded and never raising."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from gateway.message.header import HEADER_LIMIT, scan

_DEPTH_LIMIT = 100
_PARTS_LIMIT = 1000
_LINES_LIMIT = 100_000
_BOUNDARY_LINE = re.compile(rb"^--([^\r\n]{1,200}+)", re.MULTILINE)
# (...)? and not (...)?+: the latter forgets its group in Python 3.11.2, which Debian 12 has.
_PARAMETER = re.compile(
    r';\s*+(boundary|(?:file)?name)(\*\d+)?(\*)?\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^\s;"]++))', re.IGNORECASE
)


class Part(NamedTuple):
    """A leaf: its type, its file name or "", and its size in bytes as it stands in the message (encoded)."""

    content_type: str
    filename: str
    size: int


def structure(raw: bytes) -> tuple[Part, ...]:
    """The leaf parts in order, at most 1000 and 100 levels deep; an attached message is one leaf."""
    parts: list[Part] = []
    levels: dict[bytes, tuple[int, str]] = {}  # boundary -> depth, type of parts that name none
    kind, filename, start = _enter(raw, 0, levels, "text/plain")
    opened = position = lines = 0
    while (match := _BOUNDARY_LINE.search(raw, position)) and len(parts) < _PARTS_LIMIT and lines < _LINES_LIMIT:
        position, lines = match.end(), lines + 1
        line = match[1].rstrip()
        closing = line not in levels and line.endswith(b"--")
        depth, default = levels.get(line[:-2] if closing else line, (0, ""))
        if not depth or match.start() < start:
            continue
        if kind and match.start() > opened:
            parts.append(Part(kind, filename, max(0, match.start() - len(b"\r\n") - start)))
        for inner in [name for name, (level, _) in levels.items() if level > depth - closing]:
            del levels[inner]
        opened = raw.find(b"\n", position) + 1 or len(raw)
        kind, filename, start = ("", "", opened) if closing else _enter(raw, opened, levels, default)
    if kind and len(parts) < _PARTS_LIMIT:
        parts.append(Part(kind, filename, len(raw) - start))
    return tuple(parts)


def _enter(raw: bytes, position: int, levels: dict[bytes, tuple[int, str]], default: str) -> tuple[str, str, int]:
    """Read the header at ``position``: type ("" for a multipart, whose boundary is added), file name, body offset."""
    header = scan(raw[position : position + HEADER_LIMIT])
    field = header.first("content-type")
    kind = field.partition(";")[0].strip().lower()
    found = _parameters(field)
    if kind.startswith("multipart/") and found.get("boundary") and len(levels) < _DEPTH_LIMIT:
        inner = "message/rfc822" if kind == "multipart/digest" else "text/plain"  # RFC 2046 5.1.5
        levels.setdefault(found["boundary"].encode(), (len(levels) + 1, inner))
        return "", "", position + header.end
    filename = _parameters(header.first("content-disposition")).get("filename") or found.get("name", "")
    return kind if "/" in kind else "text/plain" if kind else default, filename, position + header.end


def _parameters(field: str) -> dict[str, str]:
    """boundary, name and filename of a field; percent-encoded and continued values put together (RFC 2231)."""
    found: dict[str, str] = {}
    for name, number, encoded, quoted, plain in _PARAMETER.findall(field):
        key = name.lower()
        value = re.sub(r"\\(.)", r"\1", quoted) or plain
        if encoded:
            value = unquote(value.rpartition("'")[2])
        if number:
            found[key] = found.get(key, "") + value
        elif encoded or key not in found:
            found[key] = value
    return found
