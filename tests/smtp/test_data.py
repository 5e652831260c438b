"""The DATA reader: one message for any segmentation, dots, newlines, lengths, and bounded memory whatever comes."""

from __future__ import annotations

import re
import tracemalloc
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.model import Refusal
from gateway.smtp.data import DRAIN, DataReader

LIMIT = 1_000_000
SMUGGLING = [
    b"\n.\n", b"\n.\r", b"\n.\r\n", b"\n\n.\r\n", b"\r.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r",
    b"\r\n\0.\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n",
]  # fmt: skip


def too_big() -> Refusal:
    return Refusal(552, "5.3.4", "Message is larger than that", "too_big")


def read(reader: DataReader, *chunks: bytes, looks: bool = False) -> bytes:
    """Feed chunk after chunk; returns what was left behind the end, plus the chunks not needed.

    ``looks``: what small pieces wait for, that much has come, is there after each of them.
    """
    for number, chunk in enumerate(chunks):
        rest = reader.feed(chunk)
        if reader.done:
            return rest + b"".join(chunks[number + 1 :])
        assert rest == b""
        if looks:
            reader.look()
    return b""


def reference(wire: bytes) -> tuple[bytes, bytes] | None:
    """Message and rest as RFC 5321 4.5.2 says, line by line, with no cleverness."""
    lines = wire.split(b"\r\n")
    message = []
    for number, line in enumerate(lines[:-1]):
        if line == b".":
            return b"".join(message), b"\r\n".join(lines[number + 1 :])
        message.append((line[1:] if line.startswith(b".") else line) + b"\r\n")
    return None


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n...\r\n.\r\n", b"a\r\n..\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
        (b"a\r\n..\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"nul\0\xff\r\n.\r\n", b"nul\0\xff\r\n"),
    ],
)
def test_messages(wire: bytes, message: bytes) -> None:
    for size, looks in product(range(1, len(wire) + 1), (False, True)):
        reader = DataReader(LIMIT, too_big)
        rest = read(reader, *(wire[at : at + size] for at in range(0, len(wire), size)), looks=looks)
        assert (reader.done, reader.refusal, reader.message(), rest) == (True, None, message, b"")


PIECES = st.sampled_from([b"\r\n", b".", b"\r\n.\r\n", b"a", b"bc" * 30, b"..", b"\r\n.", b"\0", b"\xe9"])
WIRE = st.lists(PIECES, max_size=40).map(b"".join)


@given(WIRE, st.lists(st.integers(1, 20), min_size=1), st.booleans())
@example(b"a\r\n.\r\nMAIL", [1], True)
def test_any_segmentation_equals_the_reference(wire: bytes, sizes: list[int], looks: bool) -> None:
    """Against an independent line-by-line reader, for text in CRLF lines."""
    reader, position, turn = DataReader(LIMIT, too_big), 0, 0
    chunks = []
    while position < len(wire):
        size = sizes[turn % len(sizes)]
        chunks.append(wire[position : position + size])
        position, turn = position + size, turn + 1
    rest = read(reader, *chunks, looks=looks)
    expected = reference(wire)
    assert reader.done is (expected is not None)
    assert reader.refusal is None
    if expected:
        assert (reader.message(), rest) == expected


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\0"]), max_size=60).map(b"".join),
    st.lists(st.integers(1, 7), min_size=1),
    st.sampled_from(["strict", "tolerant", "lf_only"]),
    st.booleans(),
)
@example(b"\n.\n\r", [1], "lf_only", True)
@example(b"a\n..\n.\n", [1], "lf_only", True)
@example(b"\n.\n", [3], "strict", True)
def test_any_newlines_in_any_segmentation(wire: bytes, sizes: list[int], kind: str, looks: bool) -> None:
    """The cut makes no difference, CRLF.CRLF ends (where it may, LF.LF before any CR), nothing but CRLF is stored."""
    tolerant, lf_only = kind != "strict", kind == "lf_only"
    results = []
    for cuts in (sizes, [len(wire) or 1]):
        reader, position, turn = DataReader(LIMIT, too_big, bare_newlines=tolerant, lf_only=lf_only), 0, 0
        chunks = []
        while position < len(wire):
            chunks.append(wire[position : (position := position + cuts[turn % len(cuts)])])
            turn += 1
        rest = read(reader, *chunks, looks=looks and cuts is sizes)
        reader.look()
        code = reader.refusal.code if reader.refusal else 0
        results.append((reader.done, code, reader.message() if not code and reader.done else b"", rest))
    assert results[0] == results[1]
    done, code, message, rest = results[0]
    newline = b"\n" if lf_only else b"\r\n"
    whole, end = newline + wire, b"\r\n.\r\n"
    if lf_only and b"\n.\n" in whole.partition(b"\r")[0]:
        end = b"\n.\n"
    assert done is (end in whole)
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message)
    if done:
        body, _, expected = whole.partition(end)
        assert rest == expected
        body = body[len(newline) :] + end.partition(b".")[0]
        assert code == (550 if not tolerant and re.search(rb"(?<!\r)\n|\r(?!\n)", body) else 0)


@pytest.mark.parametrize("lines", [b"a\n..b\n.c\n...\nd\n", b"..a\n\n\n.\r\n..\nb\r\n"])
def test_dots_before_lines_that_end_in_lf_are_taken_off(lines: bytes) -> None:
    """As after CRLF (RFC 5321 4.5.2), and as Postfix does."""
    for size in range(1, len(lines) + 1):
        reader = DataReader(LIMIT, too_big, bare_newlines=True)
        read(reader, *(lines[at : at + size] for at in range(0, len(lines), size)), b"\r\n.\r\n")
        plain = re.sub(rb"^\.", b"", lines.replace(b"\r\n", b"\n"), flags=re.MULTILINE)
        assert reader.message() == plain.replace(b"\n", b"\r\n") + b"\r\n"


@pytest.mark.parametrize("sequence", SMUGGLING)
@pytest.mark.parametrize(("tolerant", "lf_only"), [(False, False), (True, False), (True, True)])
def test_smuggling(sequence: bytes, tolerant: bool, lf_only: bool) -> None:
    """The twelve smuggled sequences: all that follows, up to the true end, belongs to the one message."""
    inside = b"MAIL FROM:<evil@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nforged"
    reader = DataReader(LIMIT, too_big, bare_newlines=tolerant, lf_only=lf_only)
    assert reader.feed(b"Subject: x\r\n\r\nhello" + sequence + inside + b"\r\n.\r\nQUIT\r\n") == b"QUIT\r\n"
    assert reader.done
    bare = sequence != b"\r\n\0.\r\n"
    if bare and not tolerant:
        assert reader.refusal is not None
        assert (reader.refusal.code, reader.refusal.enhanced) == (550, "5.5.2")
        assert "tolerate: [bare_newlines]" in reader.refusal.text
    else:
        assert reader.refusal is None
        message = reader.message()
        assert message.endswith(inside + b"\r\n")
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message)


@pytest.mark.parametrize(
    ("length", "max_line", "accepted"),
    [(998, 998, True), (999, 998, False), (1000, 998, False), (65536, 65536, True), (65537, 65536, False)],
)
@pytest.mark.parametrize("size", [1, 7, 997, 998, 999, 1000, 1001, 100_000])
@pytest.mark.parametrize("looks", [False, True])
def test_line_lengths(length: int, max_line: int, accepted: bool, size: int, looks: bool) -> None:
    """Octets without CRLF and without the stuffed dot; cut anywhere (RFC 5321 4.5.3.1.6)."""
    if size == 1 and length > 1000:
        size = 333
    for line in (b"x" * length, b"." + b"." * length, b"x" * 500 + b"\r\n" + b"y" * length + b"\r\nshort"):
        wire = b"A: b\r\n\r\n" + line + b"\r\nend\r\n.\r\n"
        reader = DataReader(LIMIT, too_big, max_line=max_line)
        read(reader, *(wire[at : at + size] for at in range(0, len(wire), size)), looks=looks)
        assert reader.done
        assert (reader.refusal is None) is accepted
        if reader.refusal:
            assert (reader.refusal.code, reader.refusal.enhanced) == (554, "5.6.0")
            assert ("tolerate: [long_lines]" in reader.refusal.text) is (max_line == 998)


@given(WIRE, st.lists(st.integers(1, 9000), min_size=1), st.integers(16_000, 40_000))
def test_what_waits_makes_no_difference_to_large_messages(wire: bytes, sizes: list[int], length: int) -> None:
    """Looked at in between, whenever enough has come, and with an end across any two pieces."""
    whole = (b"x" * 70 + b"\r\n" + wire.replace(b"\r\n.\r\n", b"")) * (length // 70) + b"\r\n.\r\n" + wire
    reader, position, turn, chunks = DataReader(10 * LIMIT, too_big), 0, 0, []
    while position < len(whole):
        chunks.append(whole[position : (position := position + sizes[turn % len(sizes)])])
        turn += 1
    rest = read(reader, *chunks)
    assert (reader.message(), rest) == reference(whole)


def test_size_limit_is_exact_and_the_rest_is_drained() -> None:
    wire = b"x\r\n" * 100
    for limit, fits in ((300, True), (299, False)):
        reader = DataReader(limit, too_big)
        assert read(reader, wire, b".\r\nNOOP\r\n") == b"NOOP\r\n"
        assert (reader.refusal is None) is fits
        assert reader.refusal is None or (reader.refusal.code, reader.refusal.enhanced) == (552, "5.3.4")


def test_oversize_with_bad_dots_has_one_end() -> None:
    """What follows an oversize message's false end is not taken for commands."""
    reader = DataReader(100, too_big)
    rest = read(reader, b"x" * 98 + b"\r\n" * 50, b"\n.\nHELP\r\n", b"\r.\r\nHELP\r\n", b".\r\nQUIT\r\n")
    assert rest == b"QUIT\r\n"
    assert reader.refusal is not None
    assert reader.refusal.code == 552


def test_only_the_first_fault_is_kept() -> None:
    reader = DataReader(10_000, too_big, max_line=998)
    read(reader, b"a\nb\r\n", b"x" * 2000, b"x" * 20_000, b"\r\n.\r\n")
    assert reader.refusal is not None
    assert reader.refusal.code == 550


@pytest.mark.parametrize("line", [b"x", b"\r\n", b"\n", b"\r", b".", b"\r\n.", b"\0", b".\r\n."])
@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("size", [65536, 1000])
def test_memory_is_bounded(line: bytes, tolerant: bool, size: int) -> None:
    """A flood without end costs at most about the limit and ends in overrun."""
    reader = DataReader(LIMIT, too_big, bare_newlines=tolerant)
    chunk = (line * size)[:size]
    tracemalloc.start()
    for _ in range(200 * 65536 // size):
        reader.feed(chunk)
        if reader.overrun or reader.done:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.done or reader.overrun
    assert reader.received <= 2 * LIMIT + DRAIN + 65536
    assert peak < 2.5 * LIMIT
