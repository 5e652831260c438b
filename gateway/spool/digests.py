"""What senders are to hear of in one mail: found by sender, and marked once that mail is in the spool."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.model import NewMessage
from gateway.spool.putting import put
from gateway.spool.queries import Reader, of_messages
from gateway.spool.records import RecipientRow, moment, record
from gateway.spool.sql import IN_IDS
from gateway.spool.transaction import Transaction

ROWS = 100_000  # of what waits, looked at together: so many are marked in well under a second
OVER = "over"  # in the place of a bounce: it was no longer so when the digest was written
_FIRST = "SELECT made_at FROM bounce b WHERE b.reason = 'digest' ORDER BY b.id LIMIT 1"
# Whether it is still so, of somebody who wants to hear of it (RFC 3461 4.1): since then he may have been sent it.
_STILL = """EXISTS (
    SELECT 1 FROM recipient r WHERE r.message_id = b.message_id AND CASE b.kind
        WHEN 'failed' THEN r.state = 'failed' AND (r.notify = '' OR upper(r.notify) LIKE '%FAILURE%')
        ELSE r.state IN ('queued', 'held') AND (r.notify = '' OR upper(r.notify) LIKE '%DELAY%') END)"""
_SENDERS = f"""
SELECT min(sender) AS sender, count(DISTINCT CASE WHEN still THEN kind || message_id END) AS n,
    @list(id) FILTER (WHERE still) AS ids, @list(id) FILTER (WHERE NOT still) AS over
FROM (
    SELECT b.id, b.kind, b.message_id, m.sender, m.sender_key, {_STILL} AS still
    FROM (SELECT id, kind, message_id FROM bounce WHERE reason = 'digest' ORDER BY id LIMIT :rows) AS b
    JOIN message m ON m.id = b.message_id) AS them
GROUP BY sender_key ORDER BY min(id) LIMIT :limit"""
_PIECES = f"""
SELECT b.kind, m.id, m.received_at FROM bounce b JOIN message m ON m.id = b.message_id
WHERE b.id {IN_IDS} GROUP BY 1, 2 ORDER BY min(b.id) LIMIT :limit"""
_MARK = f"""
UPDATE bounce SET bounce_id = :bounce_id, reason = :reason WHERE id {IN_IDS} AND reason = 'digest' RETURNING id"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A message that failed or waits (``kind`` is failed or delayed), and its recipients with what was said last."""

    id: str
    kind: str
    received_at: datetime
    recipients: tuple[RecipientRow, ...]


@dataclass(frozen=True, slots=True)
class Untold:
    """What one sender is to hear: of ``count`` messages, by the rows of ``ids``; what ``over`` is about is past."""

    sender: str
    count: int
    ids: Sequence[int]
    over: Sequence[int]


async def first(reader: Reader) -> datetime | None:
    """Since when something waits for a digest, by the machine's clock of then."""
    rows = await reader.all(_FIRST)
    return moment(rows[0]["made_at"]) if rows else None


async def untold(reader: Reader, senders: int) -> list[Untold]:
    """At most so many senders, those who wait longest first."""
    rows = await reader.all(_SENDERS, limit=senders, rows=ROWS)
    return [Untold(row["sender"], row["n"], json.loads(row["ids"]), json.loads(row["over"])) for row in rows]


async def pieces(reader: Reader, what: Untold, limit: int) -> list[Piece]:
    """The first of these messages."""
    rows = await reader.all(_PIECES, ids=list(what.ids), limit=limit)
    recipients = await of_messages(reader, "recipient", [row["id"] for row in rows], order="n")
    return [
        Piece(
            row["id"],
            row["kind"],
            moment(row["received_at"]),
            tuple(record(RecipientRow, each) for each in recipients[row["id"]]),
        )
        for row in rows
    ]


def told(tx: Transaction, what: Untold, message: NewMessage | None, reason: str) -> None:
    """Put the mail that says it, and mark all of it as told by that; without one, as not told for this ``reason``.

    What another instance has told meanwhile is not told again.
    """
    ident = message.id if message is not None else ""
    marked = tx.all(_MARK, ids=list(what.ids), bounce_id=ident, reason=reason)
    if marked and message is not None:
        put(tx, [message])
    tx.all(_MARK, ids=list(what.over), bounce_id="", reason=OVER)
