"""What senders are to hear of in one mail: found by sender, and marked once that mail is in the spool."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.model import NewMessage
from gateway.spool.changes import put
from gateway.spool.queries import Reader, of_messages
from gateway.spool.records import RecipientRow, moment, record
from gateway.spool.transaction import Transaction

_WAITS = "b.reason = 'digest' AND b.bounce_id = ''"
_FIRST = "SELECT made_at FROM bounce b WHERE b.reason = 'digest' ORDER BY b.id LIMIT 1"
_SENDERS = f"""
SELECT m.sender_key AS "key", min(m.sender) AS sender, count(*) AS n, max(b.id) AS last
FROM bounce b JOIN message m ON m.id = b.message_id
WHERE {_WAITS} GROUP BY m.sender_key ORDER BY min(b.id) LIMIT :limit"""
_OF = f"""
SELECT b.kind, m.id, m.received_at, m.message_id FROM bounce b JOIN message m ON m.id = b.message_id
WHERE {_WAITS} AND m.sender_key = :key AND b.id <= :last ORDER BY b.id LIMIT :limit"""
_MARK = """
UPDATE bounce SET bounce_id = :bounce_id, reason = :reason WHERE reason = 'digest' AND id <= :last
    AND EXISTS (SELECT 1 FROM message m WHERE m.id = bounce.message_id AND m.sender_key = :key)"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A message that failed or waits (``kind`` is failed or delayed), and its recipients with what was said last."""

    id: str
    kind: str
    received_at: datetime
    recipients: tuple[RecipientRow, ...]


@dataclass(frozen=True, slots=True)
class Untold:
    """What one sender is to hear: ``count`` messages, the first of them as ``pieces``; none after ``last``."""

    sender: str
    key: str
    count: int
    last: int
    pieces: tuple[Piece, ...]


async def first(reader: Reader) -> datetime | None:
    """Since when something waits for a digest, by the machine's clock of then."""
    rows = await reader.all(_FIRST)
    return moment(rows[0]["made_at"]) if rows else None


async def untold(reader: Reader, senders: int, pieces: int) -> list[Untold]:
    """At most so many senders, with at most so many messages of each."""
    found = []
    for row in await reader.all(_SENDERS, limit=senders):
        rows = await reader.all(_OF, key=row["key"], last=row["last"], limit=pieces)
        recipients = await of_messages(reader, "recipient", [one["id"] for one in rows], order="n")
        shown = tuple(
            Piece(
                one["id"],
                one["kind"],
                moment(one["received_at"]),
                tuple(record(RecipientRow, each) for each in recipients[one["id"]]),
            )
            for one in rows
        )
        found.append(Untold(row["sender"], row["key"], row["n"], row["last"], shown))
    return found


def told(tx: Transaction, what: Untold, message: NewMessage | None, reason: str) -> None:
    """Put the mail that says it, and mark all of it as told by that; without one, as not told for this ``reason``."""
    if message is not None:
        put(tx, message)
    ident = message.id if message is not None else ""
    tx.all(_MARK, bounce_id=ident, reason=reason, last=what.last, key=what.key)
