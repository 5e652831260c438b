"""What the tests of MIME content share: messages made of parts, and what must hold of any bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from gateway.message import FEATURES, Content, Undecodable, leaf_bytes, leaf_text, walk

SCRAPS = [
    b"\r\n", b"\n", b"\r", b"--", b"--b", b"\r\n--b\r\n", b"\r\n--a--\r\n", b";", b'"', b"\\", b"=", b"\0", b":",
    b" ", b"%", b"\x80",
]  # fmt: skip


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


def _shown(value: object) -> str:
    return str(value or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def python_reading(raw: bytes, *, modern: bool = False) -> list[tuple[object, ...]]:
    """What the email package finds in each part: type, charset, names, content, and the fields people see."""
    found: list[tuple[object, ...]] = []
    message: Message = message_from_bytes(raw, policy=policy.default if modern else policy.compat32)
    for part in message.walk():
        content = None if part.is_multipart() else part.get_payload(decode=True)
        name = _shown(part.get_filename()) if part.get_filename() else ""
        kind = part.get_content_type(), part.get_content_charset(), part.get_content_disposition()
        found.append((*kind, name, content))
    return found


POSTAL = Path(os.environ.get("GATEWAY_NPM", "/nonexistent")) / "node_modules" / "postal-mime"
NODE = shutil.which("node")
needs_postal = pytest.mark.skipif(
    not NODE or not POSTAL.is_dir(), reason="no node, or GATEWAY_NPM names no folder with the npm package postal-mime"
)
_SCRIPT = """
    const {default: PostalMime} = require(process.argv[1]);
    const raws = JSON.parse(require("fs").readFileSync(0));
    (async () => {
        const all = [];
        for (const raw of raws) {
            const found = await new PostalMime({attachmentEncoding: "base64"}).parse(Buffer.from(raw, "base64"));
            delete found.headers; delete found.headerLines;
            for (const kind of ["text", "html"])
                found[kind] = (found[kind] ?? "").replaceAll("\\r\\n", "\\n").trimEnd();
            all.push(found);
        }
        console.log(JSON.stringify(all));
    })();
"""


def postal_reading(raws: Sequence[bytes]) -> list[dict[str, Any]]:
    """What postal-mime finds: addresses, subject, texts, files."""
    given = json.dumps([b64encode(raw).decode() for raw in raws])
    command = [str(NODE), "-e", _SCRIPT, str(POSTAL)]
    done = subprocess.run(command, input=given.encode(), capture_output=True, check=True, timeout=60)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
