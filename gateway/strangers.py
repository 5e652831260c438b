"""JSON that strangers wrote, read as I-JSON (RFC 7493): whatever comes out can be stored, logged and answered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isfinite
from typing import Any

_DEEPEST = 64  # brackets within brackets; what reads it on must not run out of stack either
_DIGITS = 21  # as many as a number of 64 bits has, with its sign


def strict_json(raw: bytes) -> dict[str, Any]:
    """An object in UTF-8 that names nothing twice, with numbers and texts that exist. Raises ValueError, says why."""
    return _object(raw.decode(), _STRICT)


def lenient_json(raw: bytes) -> dict[str, Any]:
    """An object; {} for anything else. Numbers that do not exist are None, halves of surrogate pairs "?"."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # RFC 8259, 8.1 wants UTF-8, of which some know nothing; what we look for is ASCII
        text = raw.decode("latin-1")
    try:
        return _object(text, _LENIENT)
    except ValueError:
        return {}


def _object(text: str, decoder: json.JSONDecoder) -> dict[str, Any]:
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    _refuse_depth(value)
    if "\\u" not in text:  # else half a surrogate pair can be written, but never stored (RFC 7493 2.1)
        return value
    plain = json.dumps(value, ensure_ascii=False)
    if decoder is _LENIENT:
        found: dict[str, Any] = json.loads(plain.encode("utf-8", "replace"))
        return found
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair is no text") from None
    return value


def _decoder(
    no_number: Callable[[str], Any], pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> json.JSONDecoder:
    def whole(number: str) -> Any:
        return int(number) if len(number) <= _DIGITS else no_number(number)

    def real(number: str) -> Any:
        return value if isfinite(value := float(number)) else no_number(number)

    return json.JSONDecoder(object_pairs_hook=pairs, parse_int=whole, parse_float=real, parse_constant=no_number)


def _refuse_depth(value: Any) -> None:
    """Level by level, so that it needs no stack itself."""
    level = [value]
    for _ in range(_DEEPEST):
        inside = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inside if isinstance(each, dict | list)]
        if not level:
            return
    raise ValueError("nested too deep")


def _refuse_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is no number that can be worked with")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")  # RFC 7519 section 4
    return found


_STRICT = _decoder(_refuse_number, _unique)
_LENIENT = _decoder(lambda number: None)
