"""What the gateway writes into an accepted message: the trace, missing fields, and nothing that discloses anyone."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from gateway.address import parse_address, with_a_labels
from gateway.message.header import Header, replace_fields
from gateway.message.text import date, decode, fold, harmless
from gateway.model import BadAddress

_REMOVED = frozenset(("bcc", "resent-bcc", "return-path"))
_PHRASE = re.compile(rb'(?:"(?:[^"\\]|\\.)*+"|[^"(),:;<>\[\]\\])++')
_NO_BRACKETS = str.maketrans("()\\", "???")
_NOT_IN_HELO = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a message came, and its queue id. ``peer`` is an IP address, "" from inside; ``tls`` names the cipher.

    ``protocol`` as in RFC 3848 and 6531 (ESMTPSA, UTF8SMTPS ...).
    """

    id: str
    received_at: datetime
    listener: str
    peer: str
    helo: str
    protocol: str
    tls: str = ""

    @property
    def utf8(self) -> bool:
        return self.protocol.startswith("UTF8")


def stamp(
    raw: bytes,
    header: Header,
    arrival: Arrival,
    *,
    hostname: str,
    sender: str,
    recipients: Sequence[str],
    message_id: str,
    rewrite_from: str = "",
) -> bytes:
    """The message to store: Received first, then what was missing of Date, Message-ID and From, then its own bytes.

    ``message_id`` (with angle brackets) is used where the message has none, ``sender`` where it has no From.
    mbox lines become fields as Postfix's smtpd makes them, X-Mailbox-Line.
    Bcc, Resent-Bcc and Return-Path fields are removed. With ``rewrite_from`` all From fields become one with that
    address and the display name kept, Sender goes, and the old From becomes Reply-To unless there is one.
    """
    names = header.named.keys()
    # A field without any counts as none.
    blank = {"message-id"} if "message-id" in names and not header.identifier("message-id") else set[str]()
    new = [received(arrival, hostname, recipients)]
    if "date" not in names:
        new.append(fold("Date", [date(arrival.received_at)]))
    if blank or "message-id" not in names:
        new.append(fold("Message-ID", [message_id]))
    removed = _REMOVED | blank if blank else _REMOVED
    if rewrite_from:
        new += _rewritten(header, rewrite_from, names, utf8=arrival.utf8)
        removed |= {"from", "sender"}
    elif "from" not in names:
        author = with_a_labels(sender) or f"MAILER-DAEMON@{hostname}"
        new.append(fold("From", [harmless(author, utf8=arrival.utf8, limit=900)]))
    if header.start:
        new += [b"X-Mailbox-Line: %b\n" % line for line in raw[: header.start].split(b"\n")[:-1]]
    changes = {}
    if not names.isdisjoint(removed):
        changes = {index: b"" for index, field in enumerate(header.fields) if field.name in removed}
    return replace_fields(raw, header, b"".join(new), changes)


def received(arrival: Arrival, hostname: str, recipients: Sequence[str]) -> bytes:
    """RFC 5321 4.4. ``for`` only where it discloses nobody: with exactly one recipient."""
    words = [
        *_origin(arrival.peer, arrival.helo[:255], arrival.tls),
        f"by {hostname}",
        f"with {arrival.protocol}",
        f"id {arrival.id}",
    ]
    if len(recipients) == 1 and harmless(only := with_a_labels(recipients[0]), utf8=arrival.utf8) == only:
        words.append(f"for <{only}>")  # the trace alone must not need SMTPUTF8 on the way out
    words[-1] += ";"
    return fold("Received", [*words, date(arrival.received_at)])


@lru_cache(maxsize=256)
def _origin(peer: str, helo: str, tls: str) -> tuple[str, ...]:
    found = []
    if peer:
        literal = f"IPv6:{peer.partition('%')[0]}" if ":" in peer else peer
        found += [f"from {_NOT_IN_HELO.sub('?', helo) or 'unknown'}", f"([{literal}])"]
    if tls:
        found.append(f"({harmless(tls).translate(_NO_BRACKETS)})")
    return tuple(found)


def _rewritten(header: Header, address: str, names: Collection[str], *, utf8: bool) -> list[bytes]:
    boxes = header.mailboxes("from")
    phrase = boxes[0].phrase.replace(b"\r\n", b"") if boxes else b""
    shown = phrase.decode("utf-8", "replace")
    # A broken name could swallow the address, and one that looks like an address would be read as it.
    keeps = _PHRASE.fullmatch(phrase) and "@" not in decode(phrase) and shown == harmless(shown, utf8=utf8)
    new = [fold("From", [*shown.split(), f"<{address}>"] if keeps else [address])]
    people = [person for box in boxes for person in box.addresses]
    if people and "reply-to" not in names:
        with suppress(BadAddress):
            new.append(fold("Reply-To", [parse_address(people[0], utf8=utf8)]))
    return new
