"""Mail that has waited so long that its sender should hear of it: found a page at a time, and marked once he does.

Times in microseconds of the spool's time (steady).
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from gateway.spool.answers import tell
from gateway.spool.changes import deliveries_from
from gateway.spool.filters import LAST
from gateway.spool.putting import put
from gateway.spool.queries import Reading, of_messages
from gateway.spool.records import Delivery, Late, Notice, RecipientRow, moment, record
from gateway.spool.sql import IDLE, IN_IDS, LOAD_DELIVERIES, UNDER_WAY
from gateway.spool.transaction import Transaction

# By age, in the order of an index, so that those who came later cost nothing; whose sender was told is passed over.
_LATE = """
SELECT received_at, message_id FROM delivery
WHERE backend = :backend AND state = 'queued' AND received_at <= :until
    AND (received_at, message_id) > (:received_at, :message_id) AND EXISTS (SELECT 1 FROM message m
        WHERE m.id = delivery.message_id AND NOT m.delay_notified AND m.expires_at > :now)
ORDER BY received_at, message_id LIMIT :limit"""
_QUEUED_OF = (
    f"SELECT message_id, backend, {UNDER_WAY} AS busy FROM delivery WHERE message_id {IN_IDS} AND state = 'queued'"
)
_UNTOLD = f"SELECT id FROM message WHERE id {IN_IDS} AND NOT delay_notified ORDER BY id @lock"


async def late(
    reading: Reading, backend: str, *, until: int, after: int, now: int, limit: int
) -> AsyncIterator[list[Late]]:
    """What has waited for this backend since ``until`` or longer, but not since ``after``; in pages, the oldest first.

    With it comes what else of the same messages waits, for any backend; nothing of those past their end.
    """
    cursor: Mapping[Any, Any] = {"received_at": after, "message_id": LAST}
    while True:
        where = {name: cursor[name] for name in ("received_at", "message_id")}
        given = {**where, "until": until, "now": now, "limit": limit}
        async with reading() as reader:
            page = await reader.all(_LATE, backend=backend, **given)
            ids = list(dict.fromkeys(row["message_id"] for row in page))
            queued = await reader.all(_QUEUED_OF, ids=ids)
            busy = {row["message_id"] for row in queued if row["busy"]}
            idle = [(row["message_id"], row["backend"]) for row in queued if row["message_id"] not in busy]
            rows = await reader.all(LOAD_DELIVERIES, keys=idle)
            recipients = await of_messages(reader, "recipient", ids, "state = 'queued'", "n")
        if not page:
            return
        cursor = page[-1]
        waiting: dict[str, list[Delivery]] = {ident: [] for ident in busy}
        for each in deliveries_from(rows)[0]:
            waiting.setdefault(each["message"].id, []).append(Delivery(**each))
        since = {row["message_id"]: moment(row["received_at"]) for row in page}
        said = {ident: {row["address"]: record(RecipientRow, row) for row in recipients[ident]} for ident in waiting}
        known = [ident for ident in ids if ident in waiting]  # a damaged one is not
        if found := [Late(ident, tuple(waiting[ident]), said[ident], since[ident]) for ident in known]:
            yield found


def notice(tx: Transaction, notices: Sequence[Notice]) -> list[str]:
    """Put what their senders are told, and mark the messages: those of whom all is as it was when they were read.

    Returns their ids. Nothing else of them is changed. A late step.
    """
    deliveries = [key for each in notices for key in each.delivery_ids]
    waits = tx.all(f"SELECT message_id, backend FROM delivery WHERE {IDLE}", keys=deliveries)
    idle = {(row["message_id"], row["backend"]) for row in waits}
    untold = {row["id"] for row in tx.all(_UNTOLD, ids=[each.message_id for each in notices])}
    kept = [each for each in notices if each.message_id in untold and idle.issuperset(each.delivery_ids)]
    for each in kept:
        put(tx, each.bounces)
        tell(tx, each.message_id, each.told)
    ids = [each.message_id for each in kept]
    tx.all(f"UPDATE message SET delay_notified = TRUE WHERE id {IN_IDS}", ids=ids)
    return ids
