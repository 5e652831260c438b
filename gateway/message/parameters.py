"""Structured MIME fields: the word they begin with and their parameters (RFC 2045 5.1, RFC 2231)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from gateway.message.charset import roughly
from gateway.message.text import decode

_BLANKS = bytes(32 if byte < 32 or byte == 127 else byte for byte in range(256))
_WORD = re.compile(r"[!-'*+\-./0-:<-~]*+")
# A comment begins where a token could; "report(1).pdf" holds none. An open quote goes on to the end, or looking for
# the next one would take quadratic time.
_QUOTE_OR_COMMENT = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)|(?:(?<=[\s;=)])|\A)\(')
_IN_COMMENT = re.compile(r"\\.?|[()]")
_PARAMETER = re.compile(
    r';\s*+([^\s=;*"]++)(\*\d{1,4})?(\*)?\s*+=\s*+'
    # Unquoted encoded words in a row are against RFC 2047 5 and common.
    r'(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^\s;"]++(?:\s++=\?[^\s;"]++)*+))'
)


def structured(value: bytes) -> str:
    """A field's value on one line, without comments, control characters as blanks, encoded words as they are.

    Bytes that are not UTF-8 become surrogates, so that a boundary can be turned back.
    """
    text = value.replace(b"\r\n", b"").translate(_BLANKS).decode("utf-8", "surrogateescape")
    return _uncommented(text).strip() if "(" in text else text.strip()


def _uncommented(text: str) -> str:
    """A blank for each comment (RFC 5322 3.2.2). What opens one that never ends is text."""
    pieces, kept, position = [], 0, 0
    while match := _QUOTE_OR_COMMENT.search(text, position):
        position = match.end()
        if match[0] == "(":
            if not (position := _comment_end(text, position)):
                break
            pieces += [text[kept : match.start()], " "]
            kept = position
    return "".join((*pieces, text[kept:]))


def _comment_end(text: str, position: int) -> int:
    depth = 1
    for match in _IN_COMMENT.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return 0


def readable(text: str) -> str:
    """A value of ``structured`` or ``parameters`` for people: encoded words decoded, only printable characters."""
    return decode(text.encode("utf-8", "surrogateescape"))


def first_word(value: str) -> str:
    """What stands before the parameters, in lower case and ASCII."""
    match = _WORD.match(value)
    return match[0].lower() if match else ""


def parameters(value: str) -> dict[str, str]:
    """Parameters by their name in lower case; percent-encoded and continued values put together, which also win."""
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, str]]] = {}
    whole: dict[str, str] = {}
    for name, number, encoded, quoted, bare in _PARAMETER.findall(value):
        key, text = name.lower(), re.sub(r"\\(.)", r"\1", quoted) or bare
        if number:
            pieces.setdefault(key, {}).setdefault(int(number[1:]), (text, encoded))
        elif encoded:
            whole.setdefault(key, _joined([(text, encoded)]))
        else:
            plain.setdefault(key, text)
    joined = {key: _joined([found[number] for number in sorted(found)]) for key, found in pieces.items()}
    return plain | joined | whole


def _joined(pieces: list[tuple[str, str]]) -> str:
    """Only the first piece names charset and language; a character may begin in one piece and end in the next."""
    (first, first_encoded), *others = pieces
    charset = ""
    if first_encoded:
        *names, first = first.split("'", 2)
        charset = names[0] if names else ""
    data = []
    for text, encoded in [(first, first_encoded), *others]:
        raw = text.encode("utf-8", "surrogateescape")
        data.append(unquote_to_bytes(raw) if encoded else raw)
    return roughly(b"".join(data), charset)
