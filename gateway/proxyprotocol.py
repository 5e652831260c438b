"""The header of the PROXY protocol, versions 1 and 2: whose connection a load balancer hands on. Pure.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt; its sections are named below.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from gateway.networks import plain_address

_FIRST = b"PROXY "
_SECOND = b"\r\n\r\n\0\r\nQUIT\n"
_SHORTEST = len(b"PROXY UNKNOWN\r\n")  # of either version: so much may be read before more is known
_LINE = 107  # octets of the longest line, its end included (2.1)
_FIXED = 16  # octets of version 2 before its addresses
_LONGEST = 4096  # octets of version 2, as nginx has it: room for a certificate of the balancer's client
_LOCAL, _PROXY = 0, 1
_STREAM = 1
_ADDRESSES = {0: 0, 1: 12, 2: 36, 3: 216}  # octets by address family: unspecified, IPv4, IPv6, Unix
_CRC32C = 3
_TCP = re.compile(rb"PROXY TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n")
LOCAL = struct.pack(">12sBBH", _SECOND, 0x20 | _LOCAL, 0, 0)  # what a balancer says of a connection of its own


class BadHeader(ValueError):
    """These octets are no header. The text is for the log, and says nothing of what they were."""


def missing(start: bytes) -> int:
    """How many octets are still to come, at least, of a header that begins like this; 0: it is whole.

    Whoever reads no more than that never reads what follows the header. Raises BadHeader as early as it can be seen.
    """
    length = len(start)
    if not length:
        return _SHORTEST
    if start[:12] == _SECOND[:length]:
        return _missing_of_second(start)
    if start[:6] != _FIRST[:length]:
        raise BadHeader("other octets came than a header of the PROXY protocol")
    if (end := start.find(b"\n")) >= 0:
        if end != length - 1 or not start.endswith(b"\r\n"):
            raise BadHeader("the line of version 1 does not end as it must")
        return 0
    if length >= _LINE:
        raise BadHeader("the line of version 1 has no end")
    return min(1 if start.endswith(b"\r") else 2, _LINE - length)


def _missing_of_second(start: bytes) -> int:
    if (length := len(start)) < _FIXED:
        return _FIXED - length
    version, command = start[12] >> 4, start[12] & 15
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise BadHeader("a version or command that version 2 does not know")
    whole = _FIXED + int.from_bytes(start[14:16], "big")
    if whole > _LONGEST:
        raise BadHeader(f"a header of more than {_LONGEST} octets")
    return max(whole - length, 0)


def source(header: bytes) -> str:
    """The address of the client of a whole header, "" where it names none: LOCAL, UNKNOWN, and what is not TCP over IP.

    A mapped address is that of IPv4. Raises BadHeader.
    """
    found = _source_of_second(header) if header.startswith(_SECOND) else _source_of_first(header)
    plain = None if found is None else plain_address(str(found))
    return "" if plain is None or plain.is_unspecified else str(plain)


def _source_of_first(line: bytes) -> IPv4Address | IPv6Address | None:
    if line.startswith(b"PROXY UNKNOWN") and line[13:14] in (b" ", b"\r"):
        return None  # whatever else it says (2.1)
    if (parts := _TCP.fullmatch(line)) is None or any(int(port) > 65535 for port in parts.groups()[3:]):
        raise BadHeader("a line of version 1 that is none")
    kind = IPv4Address if parts[1] == b"4" else IPv6Address
    try:
        sender, _receiver = kind(parts[2].decode()), kind(parts[3].decode())
    except ValueError:
        raise BadHeader("a line of version 1 with an address that is none") from None
    return sender


def _source_of_second(header: bytes) -> IPv4Address | IPv6Address | None:
    if header[12] & 15 == _LOCAL:
        return None  # and the rest is to be ignored (2.2)
    family, transport = header[13] >> 4, header[13] & 15
    if family not in _ADDRESSES or transport > 2:
        raise BadHeader("an address family or transport that version 2 does not know")
    behind = _FIXED + _ADDRESSES[family]
    if len(header) < behind:
        raise BadHeader("too short for its addresses")
    if not family or not transport:
        return None  # what follows need not be in any form
    for kind, start, end in _vectors(header, behind):
        if kind == _CRC32C and not _is_intact(header, start, end):
            raise BadHeader("its checksum is wrong")
    if transport != _STREAM or family > 2:
        return None  # known, and not ours: to be taken as unspecified
    return IPv4Address(header[16:20]) if family == 1 else IPv6Address(header[16:32])


def _vectors(header: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each further field (2.2, TLV); they fill the header exactly."""
    while at < len(header):
        start = at + 3
        end = start + int.from_bytes(header[at + 1 : start], "big")
        if end > len(header):
            raise BadHeader("a field that is longer than the header")
        yield header[at], start, end
        at = end


def _is_intact(header: bytes, start: int, end: int) -> bool:
    """Whether the CRC32c that stands there is that of the header with zeros in its place (2.2.3)."""
    crc, table = 0xFFFFFFFF, _table()
    for octet in header[:start] + bytes(end - start) + header[end:]:
        crc = table[(crc ^ octet) & 0xFF] ^ crc >> 8
    return header[start:end] == (crc ^ 0xFFFFFFFF).to_bytes(4, "big")


@cache
def _table() -> tuple[int, ...]:
    """RFC 4960 B: Castagnoli's polynomial, its bits turned round."""

    def entry(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(map(entry, range(256)))
