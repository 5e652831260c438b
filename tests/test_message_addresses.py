"""Addresses are read from whatever stands in a header: none that another reader sees may stay hidden."""

from __future__ import annotations

from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import scan
from gateway.message.mailboxes import mailboxes, plain_addresses, sole_address
from tests.message_kit import python_calls


def read(value: bytes) -> tuple[str, ...]:
    return scan(b"To:" + value + b"\r\n\r\n").addresses("to")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" a@example.com", ["a@example.com"]),
        (b" A Name <A@Example.COM>", ["A@Example.COM"]),
        (b"<a@x>,b@x , <c@x>;", ["a@x", "b@x", "c@x"]),
        (b' "Doe, John" <john@x>, "b@evil" <b@x>', ["john@x", "b@x"]),
        (b' "a \\" , <no@x> " <a@x>', ["a@x"]),
        (b' "john doe"@x, <"a,b> c"@x>', ['"john doe"@x', '"a,b> c"@x']),
        (b" =?utf-8?q?Doe=2C_a=40evil?= <a@x>", ["a@x"]),
        (b" =?utf-8?q?Doe,_a@evil?= <a@x>, b@x", ["a@x", "b@x"]),
        (b" a (no, <b@x>) @ x . org (c@x)", ["a@x.org"]),
        (b" (outer (inner \\) ) <a@x>) b@x", ["b@x"]),
        (b' a@x (5" disk), b@x', ["a@x", "b@x"]),
        (b" Team: a@x, B <b@x>;, c@x", ["a@x", "b@x", "c@x"]),
        (b" undisclosed-recipients:;", []),
        (b" A:;, B: a@x;", ["a@x"]),
        (b" <@r1,@r2:a@x>", ["a@x"]),
        (b" a@[IPv6:2001:db8::1], <b@[192.0.2.1]>", ["a@[IPv6:2001:db8::1]", "b@[192.0.2.1]"]),
        (b" a@x,\r\n\tB\r\n <b@x>", ["a@x", "b@x"]),
        (b" j\xc3\xb6rg@x\xc3\xa4.org", ["jörg@xä.org"]),
        (b" , ,, ", []),
        (b"", []),
        (b" root, postmaster", []),
        (b" @x, a@, @", []),
    ],
)
def test_what_people_write(value: bytes, expected: list[str]) -> None:
    """Quoted commas, comments, groups, routes, folding, encoded names, literals (RFC 5322 3.4 and 4.4)."""
    assert list(read(value)) == expected


PIECES = [
    b"\\", b"a@x", b"A B", b" ", b",", b";", b"<", b">", b"<a@x.org>", b"\r\n ", b"\t", b"'", b".", b'"', b"(", b")",
    b":", b"@", b"=?utf-8?q?a=40b?=", b"\0", b"\xfc", b"[", b"]", b"_@_", b"a" * 70 + b"@x",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(b"".join))
def test_what_stands_before_and_behind_changes_nothing(value: bytes) -> None:
    """Plain entries are read at once: none is read otherwise for what comes before it."""
    alone = [(box.phrase, box.addresses) for box in mailboxes(value)]
    behind = [(box.phrase, box.addresses) for box in mailboxes(b"x@y, Z <z@y>;" + value)]
    assert behind == [(b"", ("x@y",)), (b"Z", ("z@y",)), *alone]
    slow = [(box.phrase, box.addresses) for box in mailboxes(b'"" x@y,' + value)]
    assert slow[1:] == alone


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" ok@x <evil@y>", ["evil@y"]),
        (b" <ok@x> <evil@y>", ["ok@x", "evil@y"]),
        (b" <ok@x>evil@y", ["ok@x"]),
        (b" <ok@x <evil@y>", ["ok@x", "evil@y"]),
        (b" <ok@x, evil@y", ["ok@x", "evil@y"]),
        (b" ok@x evil@y", ["ok@x", "evil@y"]),
        (b" evil@y:ok@x;", ["evil@y", "ok@x"]),
        (b' "open evil@y', ["evil@y"]),
        (b" (open evil@y", ["evil@y"]),
        (b" ((a) evil@y, (b) ok@x", ["evil@y", "ok@x"]),
        (b" [open <evil@y>", ["evil@y"]),
        (b" =?utf-8?q?evil=40y?=", ["evil@y"]),
        (b" =?utf-8?b?RXZpbCA8ZXZpbEB5Pg==?=", ["evil@y"]),
        (b' \\"ok@x, <evil@y>', ["\\ok@x", "evil@y"]),
        (b" ok@x\x00, ev\x1bil@y", ["ok@x?", "ev?il@y"]),
        (b" \\<evil@y>", ["evil@y"]),
    ],
)
def test_what_attackers_write(value: bytes, expected: list[str]) -> None:
    """Where readers may disagree, every address that one of them could see is returned."""
    assert list(read(value)) == expected


@pytest.mark.parametrize(
    "value",
    [
        b' "Doe, John" <a@good.com>',
        b" =?utf-8?q?J=C3=B6rg?= <a@good.com>",
        b" J\xf6rg Q. [ext] <a@good.com>\r\n",
        b" a@good.com (comment)",
        b" a@good.com (Acme (UK) Ltd)",
        b' "x@evil.com (" <a@good.com>',
        b' "a@good.com" <a@good.com>',
        b" a@good.com <a@good.com>",
        b" A@good.com <a@good.com>",
        b" Team: a@good.com, B\r\n <b@good.com>;",
        b' "a b"@good.com, <a@[IPv6:2001:db8::1]>',
        b" \xc3\xbc@good.com",
    ],
)
def test_one_reading(value: bytes) -> None:
    """What well-behaved programs write has one reading, the same as the tolerant one."""
    assert plain_addresses(value) == read(value) != ()


@pytest.mark.parametrize(
    "value",
    [
        b" Example Co., Ltd. <a@good.com>\r\n",
        b" Doe,\r\n Jane <a@good.com>",
        b" Alerts; Night Shift <a@good.com>",
        b" a@good.com,",
        b' Jim 6" Pipe <a@good.com>',
        b" Copier (2nd floor <a@good.com>",
        b" Backup: nightly <a@good.com>",
        b' "Night Shift" a@good.com',
        b" =?utf-8?q?Doe?=, Jane <a@good.com>",
    ],
)
def test_one_address_behind_any_name(value: bytes) -> None:
    """What devices and shops write around their only address is a name, commas and all."""
    assert sole_address(value) == "a@good.com"


@pytest.mark.parametrize(
    "value",
    [
        b"x@evil.com <a@good.com>",
        b"<a@good.com> x@evil.com",
        b"[x@evil.com] <a@good.com>",
        b"<x@evil.com@good.com>",
        b"x@evil.com\0@good.com",
        b"x\0@good.com",
        b"<=?utf-8?q?x=40evil.com?=>, a@good.com",
        b"=?utf-8?b?eEBldmlsLmNvbQ==?=@good.com",
        b"=?utf-8?b?eA==?=@good.com",
        b"<=?utf-8?b?eA==?=@good.com>",
        b"=?utf-8?q?a=40good.com?=",
        b"x@evil.com: <a@good.com>;",
        b"<@evil.com:a@good.com>",
        b"(x@evil.com) <a@good.com>",
        b'(" <x@evil.com>, ") <a@good.com>',
        b'a@good.com "',
        b"\xff@good.com",
        b"root, a@good.com",
        b"=?utf-8?q?x=40evil.com?=, Ltd. <a@good.com>",
        b"=?ansi_x3.4-1968?q?x=40evil.com?=, Ltd. <a@good.com>",
        b"=?utf-8?q?x=40evil.com and co?=, Ltd. <a@good.com>",
        b"=?utf-8?q?x=40evil.com, Ltd.?= <a@good.com>",
        b"=?utf-7?q?x+AEA-evil.com?=, Ltd. <a@good.com>",
        b'"x <" <a@good.com>, Ltd.',
        b"Co., Ltd. <a@good.com> (c) .evil.com",
        b"Co., Ltd. <a@good.com .evil.com>",
        b"Team:;",
        b"",
    ],
)
def test_more_than_one_reading(value: bytes) -> None:
    """Whatever another reader may take for another address, or for none, grants nothing."""
    assert plain_addresses(value) == ()
    assert sole_address(value) == ""


SHORT = rb"\s(\w[\w .'-]{0,9})?<[\w.+=-]{1,8}@[\w.-]{1,8}>\s?|[ \t]?[\w.+=-]{1,8}@[\w.-]{1,8}"


@given(st.from_regex(SHORT, fullmatch=True))
def test_the_short_way_reads_the_same(value: bytes) -> None:
    """The commonest forms are read by one expression; a comma behind them makes them go the long way."""
    (short,), (long,) = mailboxes(value), mailboxes(value + b",")
    assert short == long


def test_all_instances_are_read() -> None:
    """A second From is as good as the first (door.md row 14)."""
    header = scan(b"From: a@x\r\nX: 1\r\nFROM : b@x\r\nFrom:\r\n c@x\r\n\r\nFrom: body@x")
    assert header.addresses("from") == ("a@x", "b@x", "c@x")


def test_an_overlong_address_is_cut_but_not_hidden() -> None:
    """It equals nobody's address, so nothing is granted to it; it is not left out either."""
    (address,) = read(b" a@" + b"x" * 5000)
    assert len(address) == 1000


@given(st.binary(max_size=200) | st.text(alphabet='a@x.,;:<>()[]" \\\r\n=?', max_size=60).map(str.encode))
def test_never_raises_and_is_printable(value: bytes) -> None:
    """Any bytes; spans are in order and lie within the value."""
    end = 0
    for box in mailboxes(value):
        assert end <= box.start <= box.end <= len(value)
        end = box.end
        assert all("@" in address and address.isprintable() for address in box.addresses)
    read(value.replace(b"\n", b""))


ATOM = st.from_regex(r"[a-z0-9!#$%&'*+/=^_`{|}~-]{1,8}", fullmatch=True)
ADDRESS = st.builds("{}@{}.org".format, ATOM, st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True))
NAME = st.from_regex(r'[A-Za-z]{1,8}|"[A-Za-z,;:<>@() ]{0,12}"', fullmatch=True)


@given(st.lists(ADDRESS | st.builds("{} <{}>".format, NAME, ADDRESS) | st.builds("{} ({})".format, ADDRESS, ATOM)))
def test_agrees_with_the_standard_library(entries: list[str]) -> None:
    """On well-formed fields email.utils reads the same."""
    value = ",\r\n ".join(entries)
    theirs = [address for _, address in getaddresses([value.replace("\r\n", "")]) if address]
    assert list(read(value.encode())) == theirs


BOMBS = [
    b"(", b"<", b'"', b"[a", b"\\", b":", b"@", b"@ ", b"a(", b"(\\", b'"\\', b"(a)", b"<a@b>", b",a", b"a ", b" ",
    b"=?", b"=?utf-8?q?=61?= ", b'"a', b'"a"', b'a"', b'\\"', b"a@b\r\n ", b"(((\\)", b"<<a@b", b"a:b@c;", b"[a]",
]  # fmt: skip


@pytest.mark.parametrize("unit", BOMBS)
def test_work_is_linear(unit: bytes) -> None:
    """Twice the value is at most about twice the calls; and what happens inside a call lets 200 kB come back at all."""
    size = 10_000 // len(unit)
    once = python_calls(lambda: mailboxes(unit * size))
    twice = python_calls(lambda: mailboxes(unit * size * 2))
    assert twice < 2.2 * once + 200
    mailboxes(unit * (200_000 // len(unit)))
    plain_addresses(unit * (100_000 // len(unit)))
    sole_address(unit * (100_000 // len(unit)) + b"a@x")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"=?utf-8?q?=61=62?= " * 8000, 0),
        (b"=?utf-8?q?=61=62?= " * 5000 + b"<a@x>", 1),
        (b"(" * 400 + b"a@x", 1),
        (b"(" * 400 + b")" * 400 + b"a@x", 1),
        (b"a@x," * 25_000, 25_000),
    ],
)
def test_known_bombs(value: bytes, found: int) -> None:
    """Those that break or stall the email package (door.md 0.16)."""
    assert sum(len(box.addresses) for box in mailboxes(value)) == found
