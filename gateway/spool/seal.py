"""The checksum over a message's bytes and what of its rows decides where it goes: CRC-32 of one behind the other."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

CHECKED = "sender ret envid smtputf8 eightbit received_at expires_at"  # columns of message
_OF_RECIPIENT = ("address", "notify", "orcpt")
_POLYNOMIAL = 0xEDB88320  # of CRC-32, IEEE 802.3, its bits turned round


def checksum(checked: Iterable[object], recipients: Iterable[tuple[object, ...]], raw: bytes) -> int:
    return zlib.crc32(raw, _of_rows(checked, recipients))


def _of_rows(checked: Iterable[object], recipients: Iterable[tuple[object, ...]]) -> int:
    text = "\0".join(map(str, itertools.chain(checked, *recipients)))
    return zlib.crc32(text.encode("utf-8", "replace"))


def intact(message: Any, recipients: Iterable[Any], raw: bytes) -> bool:
    """Do rows and bytes meet their CRC-32? A flipped bit must change neither a message nor its way."""
    return checksum(_checked(message), _known(recipients), raw) == int(message["checksum"])


def resealed(message: Any, recipients: Iterable[Any], changed: Mapping[str, object]) -> int:
    """The checksum once these columns of it have other values: without a look at the bytes, so that what was damaged
    before stays found out.

    CRC-32 is linear: what the first part changes is carried through as many zeros as there are bytes behind it.
    """
    known = list(recipients)
    return moved((message, known), ({name: message[name] for name in CHECKED.split()} | dict(changed), known))


def moved(before: tuple[Any, Iterable[Any]], after: tuple[Any, Iterable[Any]]) -> int:
    """The same where message and recipients have become others. The bytes are those of before."""
    (message, was), (now, are) = before, after
    difference = _of_rows(_checked(message), _known(was)) ^ _of_rows(_checked(now), _known(are))
    carried = _times(_zeros(int(message["size"])), difference) if difference else 0
    return int(message["checksum"]) ^ carried


def _checked(message: Any) -> list[object]:
    values = [message[name] for name in CHECKED.split()]
    return [int(value) if isinstance(value, bool) else value for value in values]


def _known(recipients: Iterable[Any]) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in _OF_RECIPIENT) for row in recipients]


def _times(one: int, other: int) -> int:
    """Product of two polynomials over GF(2), modulo that of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product


def _zeros(octets: int) -> int:
    """x to the power of as many bits."""
    result, square, bits = 1 << 31, 1 << 30, 8 * octets
    while bits:
        if bits & 1:
            result = _times(result, square)
        square, bits = _times(square, square), bits >> 1
    return result
