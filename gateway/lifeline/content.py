"""What is in a message, listed and never shown: names, types and sizes of its parts, and its header as text."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.message import scan, walk
from gateway.model import BadMessage
from gateway.visible import visible

_PARTS = 100  # of a message that are listed
_FIELDS = 500  # of a header
_LONGEST = 2000  # characters of one field


@dataclass(frozen=True, slots=True)
class Part:
    """``size`` in octets as it lies there, encoded."""

    type: str
    size: int
    name: str


@dataclass(frozen=True, slots=True)
class Content:
    """``header`` are the fields in order as name and value, unfolded; ``more`` counts parts that are not listed."""

    parts: tuple[Part, ...]
    header: tuple[tuple[str, str], ...]
    more: int = 0


def content(raw: bytes) -> Content:
    """Slow for large ones: not on the loop. What cannot be read has neither fields nor parts."""
    try:
        fields = scan(raw).fields[:_FIELDS]
    except BadMessage:
        return Content((), ())
    header = tuple((field.spelled, visible(field.value.decode("utf-8", "replace"), _LONGEST)) for field in fields)
    leaves = walk(raw).leaves
    parts = tuple(Part(leaf.content_type, leaf.end - leaf.start, visible(leaf.filename)) for leaf in leaves[:_PARTS])
    return Content(parts, header, max(0, len(leaves) - _PARTS))
