"""Who failed, by a report in the form of RFC 3464, or by the header of one of Gmail's.

Only ``Action: failed`` counts. What is no report in this form is nobody's failure: answers of people on holiday,
receipts, complaints, journals. Never by the words of a subject, which are in the language of whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gateway.message.header import Header, normalise_newlines, scan_part
from gateway.message.leaf import leaf_bytes
from gateway.message.parameters import parameters
from gateway.message.parts import Multipart, Placed, Tree
from gateway.returned import Failed, Returned

_STATUS = ("message/delivery-status", "message/global-delivery-status")  # RFC 3464, RFC 6533
_ORIGINAL = (
    "message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers",
)  # fmt: skip
_MOST_PEOPLE = 1000  # that one report may tell of
_MOST_NAMES = 20  # Message-IDs that it may name
_MOST_STATUS = 1_000_000  # octets of the part that tells
_LONGEST = 500  # characters of what a stranger says
_IDENTIFIER = re.compile(r"<[^<>\s]{1,900}>")
_CODE = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")  # RFC 6533 3: utf-8-addr-xtext
# Gmail's of mail that is only late; it writes these in English, whatever the language of the mailbox.
_ONLY_LATE = re.compile(r"delay|incomplete|warning", re.IGNORECASE)
_DAEMON = re.compile(r"<?(mailer-daemon|postmaster)@", re.IGNORECASE)


def read(raw: bytes) -> Returned | None:
    """None: it tells of no failure. Never raises, and takes time in proportion to its length."""
    raw = normalise_newlines(raw)
    tree = Tree(raw)
    status, original = _parts(tree)
    if status is None or not (failed := tuple(_failed(leaf_bytes(raw, status.leaf)[:_MOST_STATUS]))):
        return None
    header = scan_part(leaf_bytes(raw, original.leaf)) if original else Header((), 0, 0)
    return Returned(tuple(_names(header, tree.header)), failed, subject=header.first("subject")[:_LONGEST])


def of_headers(given: Mapping[str, str]) -> Returned | None:
    """By the header alone, names in lower case: Gmail names in X-Failed-Recipients who failed, and not why."""
    text = "".join(f"{name}: {' '.join(value.split())}\r\n" for name, value in given.items())
    header = scan_part(text.encode("utf-8", "replace"))
    people = header.addresses("x-failed-recipients")[:_MOST_PEOPLE]
    kind = header.word("content-type")
    if not people or not _DAEMON.search(header.first("from")) or _ONLY_LATE.search(header.first("subject")):
        return None
    if kind == "multipart/report" and not _of_delivery(header):
        return None
    named = tuple(_names(Header((), 0, 0), header))
    return Returned(named, tuple(Failed((address,)) for address in people)) if named else None


def _of_delivery(header: Header) -> bool:
    """Not one of receipts (RFC 8098), abuse (RFC 5965) or TLS (RFC 8460). Some do not say which kind they are."""
    return parameters(header.structured("content-type")).get("report-type", "").lower() in ("", "delivery-status")


def _parts(tree: Tree) -> tuple[Placed | None, Placed | None]:
    """What tells of deliveries, and the original or its header: only of the report itself, not of what it brings."""
    root = tree.root
    if not isinstance(root, Multipart) or root.kind != "multipart/report" or not _of_delivery(tree.header):
        return None, None
    own = [one for one in root.children if isinstance(one, Placed)]
    status = next((one for one in own if one.leaf.content_type in _STATUS), None)
    original = next((one for one in own if one.leaf.content_type in _ORIGINAL), None)
    return status, original


def _failed(status: bytes) -> Iterator[Failed]:
    """The first group of fields is of the message, each other one of a recipient (RFC 3464 2.1)."""
    for number, block in enumerate(re.split(rb"\r?\n[ \t]*\r?\n", status)[: _MOST_PEOPLE + 1]):
        fields = scan_part(block.lstrip(b"\r\n") + b"\r\n")
        if number == 0 and not fields.count("final-recipient"):
            continue
        code = _CODE.search(fields.structured("status"))
        if fields.word("action") != "failed" or (code and code[1].startswith("2")):
            continue
        given = (_address(fields.first(name)) for name in ("original-recipient", "final-recipient"))
        if addresses := tuple(dict.fromkeys(filter(None, given))):
            said = fields.first("diagnostic-code").partition(";")[2].strip()[:_LONGEST]
            yield Failed(addresses, _code(code, said), said)


def _code(found: re.Match[str] | None, said: str) -> str:
    """The code of the field; where that says no more than that it failed, the one in the other side's words."""
    own = found[1] if found else ""
    if own not in ("", "5.0.0", "4.0.0"):
        return own
    return code_in(said) or own


def code_in(said: str) -> str:
    """The first status code (RFC 3463) of a failure in somebody's words, or ""."""
    return next((code for code in _CODE.findall(said) if code[0] != "2"), "")


def _address(text: str) -> str:
    """Of ``rfc822; ann@example.org`` or ``utf-8; ...``; what is of another kind is no address of ours."""
    kind, _, address = text.partition(";")
    if kind.strip().lower() not in ("rfc822", "utf-8", "smtp"):
        return ""
    address = address.strip().removeprefix("<").removesuffix(">")[:_LONGEST]
    return _ESCAPED.sub(_character, address) if kind.strip().lower() == "utf-8" else address


def _character(escaped: re.Match[str]) -> str:
    point = int(escaped[1], 16)
    return chr(point) if 0x20 < point < 0x110000 and not 0xD800 <= point < 0xE000 else "?"


def _names(original: Header, outer: Header) -> Iterator[str]:
    """The original's own Message-ID first, then what the report says that it answers: the last of a thread is it.

    Gmail keeps in another field the Message-ID that it has replaced.
    """
    texts = [original.structured(name) for name in ("x-google-original-message-id", "message-id")]
    found = [_IDENTIFIER.findall(text) for text in (*texts, outer.structured("in-reply-to"))]
    found.append(_IDENTIFIER.findall(outer.structured("references"))[::-1])
    yield from list(dict.fromkeys(name for names in found for name in names))[:_MOST_NAMES]
