"""A copy of the message that Graph does not spoil: repairs of what it is known to refuse, lose or corrupt."""

from __future__ import annotations

from gateway.backends.microsoft.fields import listed, lost_fields
from gateway.backends.shared.base import canonical
from gateway.message import Field, Header, scan, walk
from gateway.message.header import replace_fields
from gateway.message.mailboxes import mailboxes
from gateway.message.recipients import address_field
from gateway.message.recode import patched, recoded
from gateway.message.text import decode

_ADDRESS_FIELDS = ("from", "sender", "to", "cc", "reply-to")
# What Exchange keeps of a MIME message besides X- and Content- fields; traces that it replaces are no loss.
_KEPT = frozenset((
    *_ADDRESS_FIELDS, "bcc", "subject", "date", "message-id", "mime-version", "in-reply-to", "references", "importance",
    "priority", "sensitivity", "disposition-notification-to", "return-receipt-to", "thread-topic", "thread-index",
    "received", "return-path",
))  # fmt: skip


def prepare(raw: bytes, *, base64_up_to: int = 0) -> tuple[bytes, str]:
    """The message in its canonical form, and a note of what will not arrive.

    Quoted-printable parts become base64 ones, but nothing in mail that is signed, where the whole then has at most
    ``base64_up_to`` bytes.
    """
    raw = canonical(raw)
    header = scan(raw)
    changes = {index: fixed for index, field in enumerate(header.fields) if (fixed := _unnamed(field))}
    automatic = header.word("auto-submitted")
    # Graph loses Auto-Submitted (RFC 3834); this one keeps Exchange's own out-of-office replies away.
    suppress = automatic not in ("", "no") and not header.count("x-auto-response-suppress")
    new = b"X-Auto-Response-Suppress: All\r\n" if suppress else b""
    if new or changes:
        raw = replace_fields(raw, header, new, changes)
        header = scan(raw)
    raw, note = _with_body(raw, header), _note(header)
    if len(raw) <= base64_up_to:
        if len(encoded := _encoded(raw)) > base64_up_to:
            return raw, f"{note}; left in quoted-printable, in base64 it is too large"
        raw = encoded
    return raw, note


def _unnamed(field: Field) -> bytes:
    """Entries whose display name looks like an address become just that; b"" where there is nothing to change.

    Graph takes ``From: scan@x <scan@x>`` for somebody else's address and answers ErrorSendAsDenied.
    """
    if field.name not in _ADDRESS_FIELDS:
        return b""
    boxes = mailboxes(field.value)
    if not any("@" in decode(box.phrase) for box in boxes):
        return b""
    entries = []
    for box in boxes:
        own = field.value[box.start : box.end].strip()
        entries += [f"<{one}>".encode() for one in box.addresses] if "@" in decode(box.phrase) else [own]
    return address_field(field.spelled, entries)


def _with_body(raw: bytes, header: Header) -> bytes:
    """An empty body becomes one empty line: without any, a MIME reader may take the header for unfinished."""
    if len(raw) > header.end:
        return raw
    end = header.fields[-1].end if header.fields else header.start
    if end < header.end:
        return raw + b"\r\n"
    return raw + (b"" if not raw or raw.endswith(b"\n") else b"\r\n") + b"\r\n\r\n"


def _note(header: Header) -> str:
    lost = lost_fields(header, _KEPT)
    return f"; Graph drops {listed(lost)}" if lost else ""


def _encoded(raw: bytes) -> bytes:
    content = walk(raw)
    leaves = [leaf for leaf in content.leaves if leaf.encoding == "quoted-printable"]
    if not leaves or not content.features.keys().isdisjoint(("signed", "encrypted", "malformed")):
        return raw
    parts = ((leaf, recoded(raw, leaf, "base64")) for leaf in leaves if not leaf.content_type.startswith("message/"))
    return patched(raw, ((leaf.header_start, leaf.end, part) for leaf, part in parts if part is not None))
