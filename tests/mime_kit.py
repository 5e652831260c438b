"""What the tests of MIME content share: messages made of parts, and what must hold of any bytes."""

from __future__ import annotations

from contextlib import suppress

from gateway.message import FEATURES, Content, Undecodable, leaf_bytes, leaf_text, walk


def part(kind: str = "text/plain", body: str = "hello", *fields: str) -> bytes:
    """A part, or a whole message if ``fields`` has what that takes."""
    return "\r\n".join([f"Content-Type: {kind}", *fields, "", body]).encode()


def multi(kind: str, *parts: bytes, boundary: str = "b", end: bool = True, more: str = "") -> bytes:
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"{more}\r\n\r\n'.encode()
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), inner) for inner in parts)
    return head + body + (f"--{boundary}--\r\n".encode() if end else b"")


def check_sane(raw: bytes) -> Content:
    """Never raises; spans in order inside the message; no leaf is two things at once; features from the closed set."""
    content = walk(raw)
    position = 0
    for number, leaf in enumerate(content.leaves, 1):
        assert leaf.number == number
        assert position <= leaf.header_start <= leaf.start <= leaf.end <= len(raw)
        position = leaf.end
        assert len(leaf_bytes(raw, leaf)) <= leaf.end - leaf.start
        with suppress(Undecodable):
            text = leaf_text(raw, leaf)
            text.encode()  # no surrogates
            assert not {"\0", "\r", "\x1b"} & set(text)
        assert str(leaf).isprintable()
        assert len(str(leaf)) <= 60
    used = [*filter(None, (content.text, content.html)), *content.inline, *content.attachments]
    assert len(set(used)) == len(used)
    assert set(used) <= set(content.leaves)
    assert set(content.features) <= FEATURES
    assert all(where and where.isprintable() for where in content.features.values())
    assert content.subject.isprintable()
    return content
