"""The header of the PROXY protocol: what is one, whose address it names, and that no octet behind it is ever read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.networks import plain_address
from gateway.proxyprotocol import LOCAL, BadHeader, missing, source

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ONE, TWO = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 9])
SIX = IPv6Address("2001:db8::9").packed
PORTS = struct.pack(">HH", 40000, 25)


def second(block: bytes, kind: int = 0x11, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, kind, len(block) if length is None else length) + block


def field(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def crc32c(data: bytes) -> int:
    """Bit by bit, by the polynomial as RFC 3720 B.4 writes it."""
    crc = 0xFFFFFFFF
    for octet in data:
        for bit in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if (crc ^ octet >> bit) & 1 else 0)
    return crc ^ 0xFFFFFFFF


def summed(block: bytes, spoil: int = 0) -> bytes:
    """With a checksum among other fields."""
    before = block + field(4, b"\0" * 9) + field(3, b"\0" * 4)
    header = second(before + field(5, b"unique"))
    at = header.index(field(3, b"\0" * 4)) + 3
    return header[:at] + (crc32c(header) ^ spoil).to_bytes(4, "big") + header[at + 4 :]


FOUR = TWO + ONE + PORTS
GOOD = [
    (b"PROXY TCP4 198.51.100.9 192.0.2.1 40000 25\r\n", "198.51.100.9"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP4 1.2.3.4 0.0.0.0 0 0\r\n", "1.2.3.4"),
    (b"PROXY TCP6 2001:db8::9 ::1 40000 465\r\n", "2001:db8::9"),
    (b"PROXY TCP6 " + b" ".join([b":".join([b"fFfF"] * 8)] * 2) + b" 65535 65535\r\n", ":".join(["ffff"] * 8)),
    (b"PROXY TCP6 ::ffff:198.51.100.9 ::ffff:192.0.2.1 40000 25\r\n", "198.51.100.9"),
    (b"PROXY TCP4 0.0.0.0 192.0.2.1 40000 25\r\n", ""),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ""),
    (b"PROXY UNKNOWN \xff\0 what ever\r\n", ""),
    (LOCAL, ""),
    (second(b"", kind=0x00, command=0x20), ""),
    (second(FOUR, command=0x20), ""),
    (second(b"\1\2\3", kind=0xFF, command=0x20), ""),
    (second(b"", kind=0x00), ""),
    (second(b"junk", kind=0x00), ""),
    (second(FOUR), "198.51.100.9"),
    (second(FOUR + field(0x20, b"\1" + b"\0" * 4 + field(0x21, b"TLSv1.3")) + field(0xEE, b"")), "198.51.100.9"),
    (second(SIX + SIX + PORTS, kind=0x21), "2001:db8::9"),
    (second(b"\0" * 10 + b"\xff\xff" + TWO + SIX + PORTS, kind=0x21), "198.51.100.9"),
    (second(FOUR, kind=0x12), ""),
    (second(FOUR, kind=0x10), ""),
    (second(b"/run/x".ljust(216, b"\0"), kind=0x31), ""),
    (summed(FOUR), "198.51.100.9"),
    (second(FOUR + field(4, b"x" * (4096 - 16 - 12 - 3))), "198.51.100.9"),
]  # fmt: skip
BAD = [
    b"EHLO client.example\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"proxy TCP4 198.51.100.9 192.0.2.1 40000 25\r\n",
    b"PROXY  TCP4 198.51.100.9 192.0.2.1 40000 25\r\n",
    b"PROXY\tTCP4 198.51.100.9 192.0.2.1 40000 25\r\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 40000 25\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 40000 25 \r\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 40000\r\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 40000 65536\r\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 040000 25\r\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 -1 25\r\n",
    b"PROXY TCP4 198.51.100.09 192.0.2.1 40000 25\r\n",
    b"PROXY TCP4 198.51.100 192.0.2.1 40000 25\r\n",
    b"PROXY TCP4 198.51.100.256 192.0.2.1 40000 25\r\n",
    b"PROXY TCP4 198.51.100.9 nowhere 40000 25\r\n",
    b"PROXY TCP4 2001:db8::9 ::1 40000 25\r\n",
    b"PROXY TCP6 198.51.100.9 192.0.2.1 40000 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 40000 25\r\n",
    b"PROXY TCP6 1::2::3 ::1 40000 25\r\n",
    b"PROXY TCP5 198.51.100.9 192.0.2.1 40000 25\r\n",
    b"PROXY UDP4 198.51.100.9 192.0.2.1 40000 25\r\n",
    b"PROXY UNKNOWNS and so on\r\n",
    b"PROXY TCP4 \r\r\r\r\r\n",
    b"PROXY UNKNOWN\nEHLO x\r\n",
    b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    b"PROXY TCP4 " + b"1" * 2000,
    "PROXY TCP4 ١.2.3.4 192.0.2.1 40000 25\r\n".encode(),
    second(FOUR, command=0x11),
    second(FOUR, command=0x31),
    second(FOUR, command=0x22),
    second(FOUR, kind=0x41),
    second(FOUR, kind=0x13),
    second(FOUR[:-1]),
    second(b""),
    second(FOUR, kind=0x21),
    second(b"/run/x".ljust(215, b"\0"), kind=0x31),
    second(FOUR + b"\4"),
    second(FOUR + b"\4\0"),
    second(FOUR + b"\4\0\1"),
    second(FOUR + field(4, b"x") + b"\4\xff\xff" + b"y" * 40),
    second(FOUR + field(3, b"\0" * 4)),
    second(FOUR + field(3, b"")),
    summed(FOUR, spoil=1),
    second(FOUR + field(4, b"x" * (4096 - 16 - 12 - 2))),
    second(b"", length=65535),
    b"\r\n\r\n\0\r\nQUIT\r\n",
]  # fmt: skip


def read(octets: bytes, step: Callable[[int], int] = lambda wanted: wanted) -> tuple[str, bytes]:
    """As a socket is read: never more than asked for. The client, and what was left. Raises BadHeader, EOFError."""
    header, rest = b"", octets
    while wanted := missing(header):
        take = step(wanted)
        if len(rest) < take:
            raise EOFError
        header, rest = header + rest[:take], rest[take:]
    return source(header), rest


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_a_header(header: bytes, client: str) -> None:
    """By octets or at once, and what stands behind it is left alone: also a ClientHello, or another header."""
    for behind in (b"", b"\x16\x03\x01", b"EHLO x\r\n", header):
        for step in (lambda wanted: wanted, lambda wanted: 1):
            found, rest = read(header + behind, step)
            assert (found, rest) == (client, behind)
    for length in range(len(header)):
        assert missing(header[:length]) <= len(header) - length


@pytest.mark.parametrize("octets", BAD)
def test_what_is_none(octets: bytes) -> None:
    """Told from its own octets, however many follow."""
    with pytest.raises(BadHeader) as told:
        read(octets + b"\r\n" * 5000)
    assert str(told.value).isascii()
    with pytest.raises((BadHeader, EOFError)):
        read(octets)


@given(st.one_of(st.binary(), st.binary().map(lambda some: b"PROXY " + some), st.binary().map(second),
                 st.tuples(st.binary(), st.integers(0, 255), st.integers(0, 255)).map(lambda a: second(*a))),
       st.data())  # fmt: skip
def test_whatever_comes(octets: bytes, data: st.DataObject) -> None:
    """A client's address, or no header; nothing else is ever raised, and never more than the longest header is read."""
    try:
        found, rest = read(octets, lambda wanted: data.draw(st.integers(1, wanted)))
    except (BadHeader, EOFError):
        return
    assert len(octets) - len(rest) <= 4096
    if found:
        plain_address(found)


addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)


@given(addresses, st.integers(0, 65535), st.binary(max_size=40))
@example((IPv4Address("192.0.2.1"), IPv4Address("0.0.0.0")), 0, b"")
def test_both_versions_name_the_same_client(
    both: tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address], port: int, more: bytes
) -> None:
    one, other = both
    text = f"PROXY TCP{one.version} {one} {other} {port} 25\r\n".encode()
    block = one.packed + other.packed + struct.pack(">HH", port, 25) + field(0xE1, more)
    plain = plain_address(str(one))
    expected = "" if plain.is_unspecified else str(plain)
    assert read(text)[0] == read(second(block, kind=0x11 if one.version == 4 else 0x21))[0] == expected
