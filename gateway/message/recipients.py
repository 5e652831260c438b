"""Envelope against header: who is seen, who is blind, and To/Cc for backends that mail whoever stands there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate

from gateway.address import comparable, with_a_labels
from gateway.message.header import Field, Header, replace_fields, scan
from gateway.message.mailboxes import Mailbox, mailboxes, plain_addresses, qualify
from gateway.message.text import harmless
from gateway.model import Envelope

_NAMES = ("from", "sender", "reply-to", "to", "cc", "bcc")
_RECEIVERS = frozenset(("to", "cc", "resent-to", "resent-cc"))
_LONGEST = 600  # octets of an address
_SHOWN = 60_000  # octets of addresses in one field
_FIELDS = frozenset((*_NAMES, *(f"resent-{name}" for name in _NAMES)))


@dataclass(frozen=True, slots=True)
class Split:
    """``visible`` and ``blind`` are the envelope's recipients in its spelling; ``header_only`` must not be mailed."""

    visible: tuple[str, ...]
    blind: tuple[str, ...]
    header_only: tuple[str, ...]


def split_recipients(header: Header, envelope: Envelope) -> Split:
    """Compare the envelope's recipients with To and Cc, all instances of both, without regard to case.

    Of recipients that differ in nothing else only those spelled just so are visible: each must get its own mail.
    """
    spelled = (*header.addresses("cc"), *header.addresses("to"))
    named = {comparable(address): address for address in spelled}
    asked = {recipient.address: comparable(recipient.address) for recipient in envelope.recipients}
    twins, exact = Counter(asked.values()), set(spelled)
    seen = {address for address, key in asked.items() if key in named and (twins[key] == 1 or address in exact)}
    return Split(
        visible=tuple(address for address in asked if address in seen),
        blind=tuple(address for address in asked if address not in seen),
        header_only=tuple(address for key, address in named.items() if key not in twins),
    )


def qualify_header(raw: bytes, domain: str) -> bytes:
    """``@domain`` behind each local name in a field of addresses; without any the bytes come back as they are.

    So does a message that is signed (RFC 6376): the signature would break.
    """
    header, changes = scan(raw), dict[int, bytes]()
    if "dkim-signature" in header.named:
        return raw
    for place, field in enumerate(header.fields):
        if field.name in _FIELDS and (whole := qualify(field.value, domain)) != field.value:
            changes[place] = field.raw.partition(b":")[0] + b":" + whole
    return replace_fields(raw, header, raw[: header.start], changes) if changes else raw


def redirected(raw: bytes, to: str, asked: Iterable[str]) -> bytes:
    """To becomes just ``to``, so that no answer to all gets to whom it was for; those fields are kept as X-Original-To
    and the like, and X-Envelope-To names the recipients that were ``asked`` for (as far as they have room)."""
    header = scan(raw)
    renamed = {
        place: b"X-Original-" + field.raw for place, field in enumerate(header.fields) if field.name in _RECEIVERS
    }
    shown = [harmless(with_a_labels(address), limit=_LONGEST) for address in asked]
    room = [size <= _SHOWN for size in accumulate(len(one) for one in shown)].count(True)
    entries = [one.encode() for one in shown[:room]]
    more = f" (and {len(shown) - room} more)" if len(shown) > room else ""
    named = address_field("X-Envelope-To", entries).removesuffix(b"\r\n") + f"{more}\r\n".encode()
    new = address_field("To", [to.encode()]) + named
    return replace_fields(raw, header, raw[: header.start] + new, renamed)


def readdress(raw: bytes, header: Header, keep: Collection[str]) -> bytes:
    """To and Cc narrowed to the addresses in ``keep``. Untouched fields keep their bytes, and so do kept entries
    unless somebody else could be read in them; but domains are written in A-labels.

    A field left without anybody is deleted, also one that named nobody before: some APIs refuse it.
    """
    changes = _narrowed(header, keep)
    return replace_fields(raw, header, b"", changes) if changes else raw


def address_call(raw: bytes, header: Header, keep: Collection[str], blind: Collection[str]) -> bytes:
    """As ``readdress``, and one fresh Bcc with exactly ``blind``: for APIs that read all three and hide the last.

    To and Cc that stand behind the MIME fields are moved to the top: Gmail is said to overlook them there.
    """
    changes = _narrowed(header, keep)
    new = [address_field("Bcc", (with_a_labels(one).encode() for one in blind))] if blind else []
    mime = False
    for index, field in enumerate(header.fields):
        mime |= field.name == "mime-version" or field.name.startswith("content-")
        if field.name == "bcc":
            changes[index] = b""
        elif mime and field.name in ("to", "cc"):
            moved = changes.get(index, field.raw)
            new.append(moved if moved.endswith(b"\n") or not moved else moved + b"\r\n")
            changes[index] = b""
    return replace_fields(raw, header, b"".join(new), changes) if new or changes else raw


def _narrowed(header: Header, keep: Collection[str]) -> dict[int, bytes]:
    wanted = {comparable(address) for address in keep}
    found = ((index, _narrow(field, wanted)) for index, field in enumerate(header.fields) if field.name in ("to", "cc"))
    return {index: narrowed for index, narrowed in found if narrowed is not None}


def _narrow(field: Field, wanted: Collection[str]) -> bytes | None:
    """The field's new bytes, b"" when nobody is left, None when nobody goes."""
    boxes = mailboxes(field.value)
    kept = [box for box in boxes if box.addresses and all(comparable(person) in wanted for person in box.addresses)]
    ascii_only = all(person.rpartition("@")[2].isascii() for box in kept for person in box.addresses)
    if kept and len(kept) == len(boxes) and ascii_only and plain_addresses(field.value):
        return None
    entries = [_entry(field.value, box) for box in kept]
    return address_field(field.spelled, entries) if entries else b""


def address_field(name: str, entries: Iterable[bytes]) -> bytes:
    """A field of addresses, one on each line."""
    return name.encode() + b": " + b",\r\n\t".join(entries) + b"\r\n"


def _entry(value: bytes, box: Mailbox) -> bytes:
    """Its own bytes, or just its addresses where another reader could find somebody else in them."""
    own = value[box.start : box.end].strip()
    if not plain_addresses(own):
        return ", ".join(f"<{with_a_labels(address)}>" for address in box.addresses).encode()
    for address in box.addresses:  # APIs want A-labels, also where they read UTF-8 (RFC 5891, 5)
        at = address.rpartition("@")[1:]
        own = own.replace("".join(at).encode(), "".join(with_a_labels(address).rpartition("@")[1:]).encode())
    return own


def address_to(raw: bytes, header: Header, address: str) -> bytes:
    """To becomes just ``address``, Cc goes: one recipient's own copy."""
    changes = {index: b"" for index, field in enumerate(header.fields) if field.name in ("to", "cc")}
    to = f"To: {with_a_labels(address)}\r\n".encode()
    if not changes:
        return replace_fields(raw, header, to, {})
    return replace_fields(raw, header, b"", {**changes, min(changes): to})
