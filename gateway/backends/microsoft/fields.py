"""A message's header as fields of Graph's resource, and which of it they cannot hold.

https://learn.microsoft.com/graph/api/resources/message; MAPI properties by MS-OXPROPS, header fields by MS-OXCMAIL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.address import comparable
from gateway.message import Header, Undecodable
from gateway.message.text import surely

_HEADERS = 5  # Graph takes no more fields of a sender's own
_NAMED = 40
_NAME_LIMIT = 100
_PEOPLE = {"to": "toRecipients", "cc": "ccRecipients", "bcc": "bccRecipients", "reply-to": "replyTo"}
_RECEIPTS = {
    "disposition-notification-to": "isReadReceiptRequested",
    "return-receipt-to": "isDeliveryReceiptRequested",
}
# Graph has no fields for them: PidTagInReplyToId, PidTagInternetReferences (MS-OXOMSG 2.2.1.15, 2.2.1.26).
_THREADING = {"in-reply-to": "String 0x1042", "references": "String 0x1039"}
SENSITIVITY = "Integer 0x36"  # PidTagSensitivity
_LEVELS = {"personal": "1", "private": "2", "company-confidential": "3"}
_IMPORTANCE = {
    **{"high": "high", "low": "low", "urgent": "high", "non-urgent": "low"},
    **{"1": "high", "2": "high", "4": "low", "5": "low"},  # X-Priority
}
_KEPT = frozenset((
    *_PEOPLE, *_RECEIPTS, *_THREADING, "from", "sender", "subject", "message-id", "importance", "priority",
    "sensitivity", "mime-version", "received", "return-path",  # how it came: no loss
))  # fmt: skip


def lost_fields(header: Header, kept: frozenset[str]) -> list[str]:
    """The header's fields, in its spelling, that are neither among ``kept`` nor X- or Content- fields."""
    names = header.names().items()
    return [spelled for name, spelled in names if name not in kept and not name.startswith(("x-", "content-"))]


def listed(names: list[str]) -> str:
    """All of them, as long as somebody would read it."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[:_NAME_LIMIT] for name in names[:_NAMED]) + more


def fields_of(header: Header, charset: str) -> tuple[dict[str, Any], list[str]]:
    """What the resource says of the message but for its body, and what will not arrive, in words.

    ``charset`` is that of text which names none. Raises Undecodable for the subject.
    """
    lost = lost_fields(header, _KEPT)
    people = {name: _people(header, name, charset, lost) for name in ("from", "sender", *_PEOPLE)}
    if len(people["from"]) > 1:
        lost.append("all From addresses but the first")
    return {
        "subject": surely(header.value("subject"), charset),
        "from": next(iter(people["from"]), None),
        "sender": next(iter(people["sender"]), None),
        **{place: people[name] for name, place in _PEOPLE.items()},
        "internetMessageId": header.identifier("message-id"),
        "internetMessageHeaders": list(_own(header, charset, lost)),
        "importance": _importance(header),
        **{place: _receipt(header, name, lost) for name, place in _RECEIPTS.items()},
        "singleValueExtendedProperties": list(_properties(header, lost)),
    }, lost


def _people(header: Header, name: str, charset: str, lost: list[str]) -> list[dict[str, Any]]:
    found = []
    for box in header.mailboxes(name):
        try:
            shown = surely(box.phrase, charset).strip('"').replace('\\"', '"')
        except Undecodable:
            shown = ""
            lost.append(f"the name of {', '.join(box.addresses)}, whose character set cannot be made out")
        named = {"name": shown} if shown else {}
        found += [{"emailAddress": {"address": address, **named}} for address in box.addresses]
    return found


def _own(header: Header, charset: str, lost: list[str]) -> Iterator[dict[str, str]]:
    fields = [field for field in header.fields if field.name.startswith("x-")]
    fields.sort(key=lambda field: field.name != "x-auto-response-suppress")
    lost += dict.fromkeys(field.spelled for field in fields[_HEADERS:])
    for field in fields[:_HEADERS]:
        try:
            yield {"name": field.spelled, "value": surely(field.value, charset)}
        except Undecodable:
            lost.append(field.spelled)


def _importance(header: Header) -> str:
    said = header.word("importance") or header.word("x-priority")[:1] or header.word("priority")
    return _IMPORTANCE.get(said, "")


def _receipt(header: Header, name: str, lost: list[str]) -> bool:
    """Exchange sends it to the sender, whoever is named."""
    senders = {comparable(address) for address in (*header.addresses("from"), *header.addresses("sender"))}
    if any(comparable(address) not in senders for address in header.addresses(name)):
        lost.append(f"the address in {name.title()}, for receipts go to the sender")
    return bool(header.count(name))


def _properties(header: Header, lost: list[str]) -> Iterator[dict[str, str]]:
    for name, place in _THREADING.items():
        if value := header.first(name):
            yield {"id": place, "value": value}
    if (said := header.word("sensitivity")) in _LEVELS:
        yield {"id": SENSITIVITY, "value": _LEVELS[said]}
    elif said not in ("", "normal"):
        lost.append("Sensitivity")
