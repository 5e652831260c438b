"""A message of 8-bit text for a server that takes 7 bits: leaf by leaf into an encoding, as RFC 6152 3 has it.

What a reader who knows MIME gets out is what it was before, to the byte. Where that cannot be, nothing is converted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.message.header import replace_fields, scan_part
from gateway.message.leaf import Leaf, leaf_bytes
from gateway.message.parts import Multipart, Placed, Tree, ancestors
from gateway.message.recode import encoded, patched, quoted, with_encoding, with_field
from gateway.message.words import ascii_field
from gateway.model import CannotCarry

_SIGNED = frozenset(("multipart/signed", "multipart/encrypted"))
_PLAIN = frozenset(("", "7bit", "8bit", "binary", "8-bit", "7-bit", "none", "utf-8", "utf8"))
_EIGHT = bytes(range(128, 256))
_ONE = re.compile(rb"[\x80-\xff]")
_LINE_LIMIT = 998  # RFC 5321 4.5.3.1.6
_DEPTH_LIMIT = 20  # messages within messages
_VERSION = b"MIME-Version: 1.0\r\n"

Change = tuple[int, int, bytes]


def sevenbit(raw: bytes) -> bytes:
    """The message, whose lines end in CRLF, in ASCII. Raises CannotCarry where it cannot be converted exactly.

    Signed and encrypted parts are not touched (RFC 1847 2.1): mail with 8 bits inside one cannot go.
    """
    return raw if raw.isascii() else _converted(raw, 0)


def _converted(raw: bytes, depth: int) -> bytes:
    tree = Tree(raw)
    if tree.trouble or depth > _DEPTH_LIMIT:
        raise _refusal(tree.trouble or "messages within messages")
    new = patched(raw, _changes(raw, tree, depth))
    if not new.isascii() or not _same(raw, tree, new):
        raise _refusal("its parts could be taken for others")
    return new


def _changes(raw: bytes, tree: Tree, depth: int) -> Iterator[Change]:
    position = 0
    nodes: list[Multipart | Placed] = [*tree.multiparts, *tree.leaves]
    for node in sorted(nodes, key=_begin):
        begin, start = _begin(node), node.leaf.start if isinstance(node, Placed) else node.start
        yield from _between(raw, position, begin)
        position = node.leaf.end if isinstance(node, Placed) else start
        head, body = raw[begin:start], raw[start:position]
        if any(around.kind in _SIGNED for around in ancestors(node)):
            if not (head.isascii() and body.isascii()):
                raise _refusal(f"{_named(node)} is signed")
            continue
        encoding = ""
        if isinstance(node, Placed):
            body, encoding = _body(raw, node.leaf, body, depth)
        yield begin, position, _head(head, node, encoding, whole=begin == 0) + body
    yield from _between(raw, position, len(raw))


def _begin(node: Multipart | Placed) -> int:
    return node.leaf.header_start if isinstance(node, Placed) else node.begin


def _body(raw: bytes, leaf: Leaf, body: bytes, depth: int) -> tuple[bytes, str]:
    """What a leaf holds in ASCII, and the encoding it is in then; "" for the one it was in."""
    if leaf.content_type == "message/rfc822" and leaf.encoding in _PLAIN:  # which may have no encoding (RFC 2046 5.2.1)
        return (body if body.isascii() else _converted(body, depth + 1)), ""
    if body.isascii():
        return body, ""
    if leaf.encoding == "base64":
        return body.translate(None, _EIGHT), ""  # no reader minds what is no base64 (RFC 2045 6.8)
    if leaf.encoding == "quoted-printable":
        escaped = _ONE.sub(lambda match: b"=%02X" % match[0][0], body)
        return (escaped if _short(escaped) else quoted(leaf_bytes(raw, leaf))), ""
    message = leaf.content_type.startswith("message/") and not leaf.content_type.startswith("message/global")
    if leaf.encoding not in _PLAIN or message or leaf.content_type.startswith("multipart/"):
        raise _refusal(f"{leaf} {leaf.encoding}".rstrip())
    foreign = len(body) - len(body.translate(None, _EIGHT))
    encoding = "quoted-printable" if leaf.content_type.startswith("text/") and 6 * foreign < len(body) else "base64"
    return encoded(raw, leaf, encoding), encoding


def _head(head: bytes, node: Multipart | Placed, encoding: str, *, whole: bool) -> bytes:
    """A header in ASCII, with its transfer encoding. ``whole``: of a message, which has a MIME-Version then."""
    header = scan_part(head)
    changes = {}
    for index, field in enumerate(header.fields):
        if (plain := ascii_field(field)) is None:
            raise _refusal(f"the field {field.spelled[:40]}")
        if plain is not field.raw:
            changes[index] = plain
    head = replace_fields(head, header, b"", changes) if changes else head
    if whole and not header.count("mime-version"):
        head = with_field(head, _VERSION)
    if not encoding and header.word("content-transfer-encoding") in ("8bit", "binary", "8-bit"):
        encoding = "7bit"
    new = with_encoding(head, encoding) if encoding else head
    if new is None:
        raise _refusal(f"{_named(node)} names two transfer encodings")
    return new


def _between(raw: bytes, start: int, end: int) -> Iterator[Change]:
    """Boundary lines, and lines around the parts, which nobody is shown (RFC 2046 5.1.1)."""
    if raw[start:end].isascii():
        return
    lines = raw[start:end].split(b"\r\n")
    if any(line.startswith(b"--") and not line.isascii() for line in lines):
        raise _refusal("a boundary")
    yield start, end, b"\r\n".join(line if line.isascii() else quoted(line) for line in lines)


def _same(raw: bytes, tree: Tree, new: bytes) -> bool:
    """Whether readers find the same parts with the same content."""
    after = Tree(new)
    if after.trouble or [one.kind for one in tree.multiparts] != [one.kind for one in after.multiparts]:
        return False
    if len(tree.leaves) != len(after.leaves):
        return False
    pairs = ((one.leaf, other.leaf) for one, other in zip(tree.leaves, after.leaves, strict=True))
    return all(_alike(raw, one, new, other) for one, other in pairs)


def _alike(raw: bytes, one: Leaf, new: bytes, other: Leaf) -> bool:
    if (one.content_type, one.charset, one.disposition) != (other.content_type, other.charset, other.disposition):
        return False
    if one.content_type.startswith("message/") and one.encoding in _PLAIN and other.encoding in _PLAIN:
        return True  # a message was looked at when it was converted
    return leaf_bytes(raw, one) == leaf_bytes(new, other)


def _named(node: Multipart | Placed) -> str:
    return str(node.leaf) if isinstance(node, Placed) else node.kind


def _short(body: bytes) -> bool:
    return all(len(line) <= _LINE_LIMIT for line in body.split(b"\r\n"))


def _refusal(where: str) -> CannotCarry:
    return CannotCarry("feature", "5.6.3", f"this 8-bit mail cannot be converted to 7 bits ({where})")
