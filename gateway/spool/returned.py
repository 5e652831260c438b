"""Mail that came back after a backend had handed it over: found by its Message-ID, and written down once.

Whoever knows a Message-ID can say that such mail failed. So it must be mail that this backend has sent to just that
recipient, not long ago, and the first word about him counts; nothing else of the message is changed.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.model import DeliveryEvent, NewMessage, SpooledMessage
from gateway.spool.again import standing
from gateway.spool.answers import tell
from gateway.spool.putting import put
from gateway.spool.queries import Reader
from gateway.spool.records import Told
from gateway.spool.sql import IN_IDS, clean
from gateway.spool.tracking import LONGEST, NewEvent
from gateway.spool.transaction import Transaction

_MOST = 50  # messages of one Message-ID that are looked at, the newest first: a program may give all the same
_NAMED = f"SELECT id, message_id FROM message WHERE message_id @in(:named) ORDER BY id DESC LIMIT {_MOST}"
_CALLED = f"""
SELECT DISTINCT message_id AS id FROM attempt
WHERE remote_id = :called AND remote_id <> '' AND backend = :backend LIMIT {_MOST}"""
_SENT = f"""
SELECT message_id, address, remote_id FROM recipient
WHERE message_id {IN_IDS} AND backend = :backend AND state = 'sent' AND updated_at >= :since"""
_BACK = f"SELECT message_id, address FROM event WHERE message_id {IN_IDS} AND state IN ('bounced', 'failed')"
_ADD = """
INSERT INTO event (message_id, backend, address, remote_id, state, detail, reported_at, "key", source)
SELECT id, :backend, :address, :remote_id, :state, :detail, :at, :key, :source FROM message WHERE id = :id
ON CONFLICT DO NOTHING RETURNING message_id"""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A message that a backend has sent. ``sent``: what the provider called it, by the address of the recipient.

    ``back``: of these it is known already that it came back.
    """

    message: SpooledMessage
    sent: Mapping[str, str]
    back: frozenset[str]


async def find(reader: Reader, backend: str, named: Sequence[str], called: str, since: int) -> list[HandedOver]:
    """In the order of the names, the newest message of each first, then by what the provider called it."""
    rows = await reader.all(_NAMED, named=[clean(name) for name in named]) if named else ()
    order = {name: place for place, name in enumerate(named)}
    ids = [row["id"] for row in sorted(rows, key=lambda row: order.get(row["message_id"], len(order)))]
    if called:
        ids += [row["id"] for row in await reader.all(_CALLED, called=clean(called), backend=backend)]
    ids = list(dict.fromkeys(ids))
    if not ids:
        return []
    sent: dict[str, dict[str, str]] = {ident: {} for ident in ids}
    for row in await reader.all(_SENT, ids=ids, backend=backend, since=since):
        sent[row["message_id"]][row["address"]] = row["remote_id"]
    back: dict[str, set[str]] = {ident: set() for ident in ids}
    for row in await reader.all(_BACK, ids=ids):
        back[row["message_id"]].add(row["address"])
    ours = [ident for ident in ids if sent[ident]]
    return [
        HandedOver(one.message, sent[one.message.id], frozenset(back[one.message.id]))
        for one in await standing(reader, ours)
    ]


@dataclass(frozen=True, slots=True)
class Back:
    """What is to be written down of one message, and what its sender is told of it: all of it or nothing."""

    backend: str
    message_id: str
    said: Sequence[DeliveryEvent]
    source: str
    bounces: Sequence[NewMessage] = ()
    told: Sequence[Told] = ()


def come_back(tx: Transaction, back: Back) -> list[NewEvent]:
    """Of what was known before nobody is told again. A late step."""
    new = []
    for each in back.said:
        # One key whatever is said: of several reports about one recipient the first is kept.
        key = hashlib.sha256(f"returned\0{each.address}".encode()).hexdigest()
        row = {"backend": back.backend, "address": each.address, "remote_id": clean(each.remote_id), "key": key}
        row |= {"state": each.state, "detail": clean(each.detail)[:LONGEST], "source": back.source}
        if tx.all(_ADD, id=back.message_id, at=tx.wall, **row):
            new.append(NewEvent(back.message_id, back.backend, each, back.source))
    if new and len(new) == len(back.said):
        put(tx, back.bounces)
        tell(tx, back.message_id, back.told)
    return new
