"""Odd line end that devices send, in header and body, by each way in, and what Postfix makes of it."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import repaired
from gateway.model import Refusal
from gateway.smtp.data import DataReader
from tests.bench.postfix import Postfix, postfix
from tests.cli.kit import Server

# What was sent, what is kept of it, and what Postfix 3.7.11 makes of it: None where it is the same.
TABLE: dict[str, tuple[bytes, bytes, bytes | None]] = {
    "canonical": (b"A: b\r\n\r\none\r\n", b"A: b\r\n\r\none\r\n", None),
    "lf": (b"A: b\nC: d\n\none\n", b"A: b\r\nC: d\r\n\r\none\r\n", None),
    "lf and crlf": (b"A: b\r\nC: d\n\none\r\ntwo\n", b"A: b\r\nC: d\r\n\r\none\r\ntwo\r\n", None),
    "cr cr lf": (b"A: b\r\r\nC: d\r\r\n\r\r\none\r\r\n", b"A: b\r\nC: d\r\n\r\none\r\n", None),
    "cr cr cr lf": (b"A: b\r\r\r\nC: d\r\n\r\nx\r\r\r\n", b"A: b\r\nC: d\r\n\r\nx\r\n", None),
    "cr in the header": (b"A: b\rC: d\r\n\r\nx\r\n", b"A: b C: d\r\n\r\nx\r\n", None),
    # Progress bars in what cron sends: each state of them was seen on a line of its own.
    "cr in the body": (b"A: b\n\none\rtwo\n", b"A: b\r\n\r\none\r\ntwo\r\n", b"A: b\r\n\r\none two\r\n"),
    "cr, dot, cr": (b"A: b\n\none\r.\rtwo\n", b"A: b\r\n\r\none\r\n.\r\ntwo\r\n", b"A: b\r\n\r\none . two\r\n"),
    "cr only": (b"A: b\rC: d\r\rone\rtwo\r", b"A: b\r\nC: d\r\n\r\none\r\ntwo\r\n", b"A: b C: d  one two \r\n"),
    "cr only, crlf at the end": (b"A: b\rC: d\r\rone\r\n", b"A: b\r\nC: d\r\n\r\none\r\n", b"A: b C: d  one\r\n"),
    # Postfix takes the second field for the first one's second line.
    "lf cr": (b"A: b\n\rC: d\n\r\n\rone\n\r", b"A: b\r\nC: d\r\n\r\none\r\n", b"A: b\r\n C: d\r\n\r\n one\r\n \r\n"),
    "cr first in a line": (b"A: b\r\n\rC: d\n\nx\n", b"A: b\r\nC: d\r\n\r\nx\r\n", b"A: b\r\n C: d\r\n\r\nx\r\n"),
    "nul": (b"A: b\0c\n\nx\0y\n", b"A: b\0c\r\n\r\nx\0y\r\n", b"A: b\r\n\r\nx\0y\r\n"),
    "form feed and vertical tab": (b"A: b\fc\vd\n\nx\fy\vz\n", b"A: b\fc\vd\r\n\r\nx\fy\vz\r\n", None),
    "unicode's line ends": (b"A: b\n\nx\xc2\x85y\xe2\x80\xa8z\n", b"A: b\r\n\r\nx\xc2\x85y\xe2\x80\xa8z\r\n", None),
    "no end": (b"A: b\r\n\r\none", b"A: b\r\n\r\none\r\n", None),
    "no end of a field": (b"A: b", b"A: b\r\n", None),
    "header alone": (b"A: b\r\n", b"A: b\r\n", None),
    "header and empty line": (b"A: b\r\n\r\n", b"A: b\r\n\r\n", None),
    "a blank line in the header": (b"A: b\r\n \r\nC: d\r\n\r\nx\r\n", b"A: b\r\n \r\nC: d\r\n\r\nx\r\n", None),
    "a lone dot": (b"A: b\n\none\n.\ntwo\n", b"A: b\r\n\r\none\r\n.\r\ntwo\r\n", None),
    "dots": (b"A: b\n\n..x\n.y\n", b"A: b\r\n\r\n..x\r\n.y\r\n", None),
}  # fmt: skip
ROWS = pytest.mark.parametrize(("sent", "kept", "postfix"), TABLE.values(), ids=TABLE)


@ROWS
def test_repaired(sent: bytes, kept: bytes, postfix: bytes | None) -> None:
    """One line end each; no field becomes body, nothing in a field becomes a field, and nothing is taken away."""
    assert repaired(sent) == kept
    assert repaired(kept) is kept


@ROWS
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_at_the_door(sent: bytes, kept: bytes, postfix: bytes | None, size: int) -> None:
    """The same on a listener with ``tolerate: [bare_newlines]``, wherever the network cuts the message."""
    reader = DataReader(10_000, lambda: Refusal(552, "5.3.4", "too big", "too_big"), bare_newlines=True)
    whole = sent if sent.endswith(b"\r\n") else sent + b"\r\n"  # SMTP has no other end
    stuffed = whole.replace(b"\n.", b"\n..") + b".\r\n"
    for start in range(0, len(stuffed), size):
        assert reader.feed(stuffed[start : start + size]) == b""
    assert reader.done
    assert reader.message() == repaired(whole)


@given(st.text(alphabet="aB:.\r\n ", max_size=60).map(str.encode))
def test_a_repair_loses_nothing(raw: bytes) -> None:
    """Whatever comes: only CRLF ends lines afterwards, all else is there in its order, a second pass does nothing."""
    once = repaired(raw)
    assert b"\r" not in once.replace(b"\r\n", b"")
    assert once.count(b"\n") == once.count(b"\r\n")
    assert repaired(once) is once
    assert [byte for byte in once if byte not in b"\r\n "] == [byte for byte in raw if byte not in b"\r\n "]


@pytest.mark.parametrize("raw", [b"\r" * 2_000_000, b"a\n" + b"\r" * 2_000_000 + b"b\n", b"a\n" + b"\rb" * 1_000_000])
def test_repair_is_linear(raw: bytes) -> None:
    """Quadratic work would not come back within the test's time limit."""
    assert repaired(raw).endswith(b"\r\n")


def test_a_long_message_is_repaired_like_a_short_one() -> None:
    """Wherever it is taken to pieces, so that other threads run meanwhile."""
    sent, kept = b"one\r\r\n\rtwo\n\r\r.\rthree\n", b"one\r\ntwo\r\n.\r\nthree\r\n"
    assert repaired(b"A: b\n\n" + sent * 100_000) == b"A: b\r\n\r\n" + kept * 100_000


@pytest.fixture(scope="module")
def real() -> Iterator[tuple[Postfix, Server]]:
    """A Postfix of our own that hands on what it gets."""
    if os.geteuid() != 0 or shutil.which("postfix") is None:
        pytest.skip("needs root and Postfix (Debian package postfix)")
    with TemporaryDirectory() as folder, Server().running() as server:
        Path(folder).chmod(0o755)
        with postfix(Path(folder), relayhost=server.server_address[1]) as made:
            yield made, server


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_true_of_postfix(real: tuple[Postfix, Server], name: str) -> None:
    """By SMTP, but for blanks at the very end: there has to be a line end in front of the last dot."""
    sent, kept, theirs = TABLE[name]
    made, server = real
    server.content = b""
    with smtplib.SMTP("127.0.0.1", made.port) as client:
        client.ehlo_or_helo_if_needed()
        client.docmd("MAIL FROM:<a@example.com>")
        client.docmd("RCPT TO:<b@example.com>")
        client.docmd("DATA")
        whole = sent if sent.endswith(b"\r\n") else sent + b"\r\n"
        client.send(whole.replace(b"\n.", b"\n..") + b".\r\n")
        assert client.getreply()[0] == 250
    own = rb"(?m)^(?:Received|Message-I[dD]|Date|From): .*\r\n(?:[ \t].*\r\n)*"
    came = re.sub(own, b"", server.messages.get(timeout=30)).replace(b"\n..", b"\n.")
    assert came.rstrip() == (theirs or kept).rstrip()
