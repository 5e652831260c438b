"""JSON that strangers wrote: what comes out can be stored, logged and answered with (RFC 7493), whatever went in."""

from __future__ import annotations

import pytest

from gateway.strangers import lenient_json, strict_json

# What is written; what is read of it where nothing else is to be had (None: nothing at all).
ROWS = [
    (rb'{"a": "\ud800"}', {"a": "?"}),
    (rb'{"\udfff": {"b": ["\ud83d!"]}}', {"?": {"b": ["?!"]}}),
    (b'{"a": NaN, "b": -Infinity, "c": 1}', {"a": None, "b": None, "c": 1}),
    (b'{"a": 1e999}', {"a": None}),
    (b'{"a": ' + b"9" * 5000 + b"}", {"a": None}),
    (b'{"a": 1, "a": 2}', {"a": 2}),
    (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", None),
    (b'{"a": ' + b'{"b":' * 64 + b"1" + b"}" * 65, None),
    (b"[" * 100_000, None),
    (b'{"a":' * 100_000, None),
    (b"[]", None),
    (b'"a"', None),
    (b"1", None),
    (b"", None),
    (b"{", None),
    (b'{"a": "\xff"}', {"a": "ÿ"}),
    ('{"a": 1}'.encode("utf-16"), None),
    (b'{"a": 1} b', None),
]


@pytest.mark.parametrize(("raw", "read"), ROWS, ids=[repr(row[0][:30]) for row in ROWS])
def test_what_is_no_clean_object(raw: bytes, read: object) -> None:
    """Refused with a reason by who must be strict; what can be used of a provider's answer is."""
    with pytest.raises(ValueError, match=r"."):
        strict_json(raw)
    assert lenient_json(raw) == (read or {})


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        rb'{"a": "\ud83d\udce7", "b": "\\ud800", "c": "\u00fc"}',
        '{"ü": [1, -1.5, null, true, {"b": []}]}'.encode(),
        b'{"a": 18446744073709551615, "b": -9223372036854775808}',
        b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}",
    ],
)
def test_what_is_clean(raw: bytes) -> None:
    """Both read the same."""
    assert strict_json(raw) == lenient_json(raw)
