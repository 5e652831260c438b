"""Looking into the spool: lists, one message's life, and what waits. Every question is read from one moment."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.model import SpoolUnavailable
from gateway.spool.changes import deliveries_from
from gateway.spool.engine import UNREADABLE, Engine, Trouble
from gateway.spool.filters import LAST, Question, behind, question
from gateway.spool.listing import Cut, Filter, MessageRow, Page, Total
from gateway.spool.records import (
    Delivery,
    moment,
    record,
)
from gateway.spool.seal import intact
from gateway.spool.search import COUNTED, Found, Search
from gateway.spool.sql import IN_IDS, LOAD_DELIVERIES, UNDER_WAY

Rows = Sequence[RowMapping]
STEP = 250  # messages changed at a time, some 20 ms of the writer's time, so that mail gets in between
_PAGE = 5000  # ids read at a time
_SHOWN = 20  # recipients in a line of the list
OVERDUE = f"""
WITH late AS MATERIALIZED ( -- few are; PostgreSQL would look at all that is queued first
    SELECT m.id FROM message m @by(message_open) WHERE m.finished_at IS NULL AND m.expires_at <= :now)
SELECT delivery.message_id, delivery.backend FROM late CROSS JOIN delivery
WHERE delivery.message_id = late.id AND delivery.state = 'queued'
    AND NOT delivery.backend @in(:working)
    AND delivery.next_attempt_at <= :before AND NOT {UNDER_WAY}
LIMIT :limit"""
_WAITING = f"""
SELECT received_at, message_id FROM delivery WHERE backend = :backend AND state = 'queued' AND NOT {UNDER_WAY}
    AND (received_at, message_id) > (:received_at, :message_id)
ORDER BY received_at, message_id LIMIT :limit"""  # the order of an index, so that no page sorts the whole queue
_FIRST_PAGE = {"received_at": -(2**63), "message_id": ""}
_TOLD = "SELECT b.bounce_id FROM bounce b WHERE b.message_id = message.id AND b.kind = 'failed' AND b.bounce_id <> ''"
_MESSAGES = f"""
SELECT message.*, ({_TOLD} ORDER BY b.id DESC LIMIT 1) AS told_by FROM message WHERE id {IN_IDS}"""
# The first of each, and what is true of all of them.
_RECIPIENTS = f"""
SELECT r.*, t.total, t.at, t.sent, t.failed, t.doubt FROM (
    SELECT message_id, count(*) AS total, max(updated_at) AS at,
        sum(CASE WHEN state = 'sent' THEN 1 ELSE 0 END) AS sent,
        sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) AS failed,
        max(CASE WHEN state = 'held' AND verdict = 'in_doubt' THEN 1 ELSE 0 END) AS doubt
    FROM recipient WHERE message_id {IN_IDS} GROUP BY message_id) AS t
JOIN recipient r ON r.message_id = t.message_id AND r.n < :most ORDER BY r.n"""
POLLS = "SELECT * FROM poll WHERE backend = :backend ORDER BY next_at LIMIT :limit"
_BODIES = f"""
SELECT m.*, @raw(b.raw), b.segment, b.start, b.length, b.message_id AS body_of
FROM message m LEFT JOIN body b ON b.message_id = m.id
WHERE m.id {IN_IDS} AND (b.raw IS NOT NULL OR m.finished_at IS NULL)"""
STEPS = "SELECT was_at, now_at, 0 AS after FROM step ORDER BY id DESC LIMIT :limit"


class Reader:
    """A transaction that looks."""

    def __init__(self, connection: AsyncConnection, engine: Engine) -> None:
        self._connection = connection
        self._engine = engine

    async def all(self, statement: str, **values: Any) -> Rows:
        given = {k: self._engine.listed(value) if isinstance(value, list) else value for k, value in values.items()}
        try:
            return (await self._connection.exec_driver_sql(self._engine.render(statement), given)).mappings().all()
        except DBAPIError as error:
            refuse_if_away(self._engine, error)
            raise


def refuse_if_away(engine: Engine, error: DBAPIError) -> None:
    """The engine notes what the error may tell of a file. Raises SpoolUnavailable where a server does not answer."""
    if engine.classify(error) is not Trouble.OURS and engine.shared:
        raise SpoolUnavailable(UNREADABLE) from error


Reading = Callable[[], AbstractAsyncContextManager[Reader]]


def search(reader: Reader, asked: Question, *, oldest: bool = False, thorough: bool = True) -> Search:
    return Search(reader.all, asked, oldest, thorough)


async def steps(reading: Reading, which: Filter) -> AsyncIterator[list[str]]:
    """The ids that fit, as many as one step takes. Newest first, so that mail that comes in makes it no longer."""
    given = which.ids
    parts = [which]
    if given is not None:
        parts = [replace(which, ids=given[n : n + _PAGE]) for n in range(0, len(given), _PAGE)]
    for part in parts:
        asked, more = question(part), True
        while more:
            async with reading() as reader:
                found = await search(reader, asked, thorough=False).find(_PAGE)
            asked, more = asked.within(high=found.last), found.more
            for n in range(0, len(found.ids), STEP):
                yield list(found.ids[n : n + STEP])


async def waiting(reading: Reading, backend: str, limit: int) -> AsyncIterator[list[Delivery]]:
    """What waits for this backend and is not under way, the oldest first, in pages."""
    after: Mapping[Any, Any] = _FIRST_PAGE
    while True:
        async with reading() as reader:
            page = await reader.all(_WAITING, backend=backend, limit=limit, **after)
            rows = await reader.all(LOAD_DELIVERIES, keys=[(row["message_id"], backend) for row in page])
        if not page:
            return
        after = page[-1]
        loaded = {one["message"].id: Delivery(**one) for one in deliveries_from(rows)[0]}
        if found := [loaded[row["message_id"]] for row in page if row["message_id"] in loaded]:  # a damaged one is not
            yield found


async def count(reading: Reading, which: Filter) -> int:
    return sum([len(ids) async for ids in steps(reading, which)])


async def page(reader: Reader, which: Filter, cut: Cut, shift: int) -> Page:
    """``shift``: what the machine's clock shows minus the spool's time, in microseconds."""
    asked = question(which).within(behind(cut.after) if cut.after else "", cut.before or LAST)
    found = await search(reader, asked, oldest=cut.oldest != _back(cut)).find(cut.limit)
    return await _shown(reader, found, cut, shift)


async def counted_page(reader: Reader, which: Filter, cut: Cut, most: int, shift: int) -> tuple[Page, Total]:
    """With how many there are, at most ``most``: without an index that counts, a first page is a part of these."""
    counting = search(reader, question(which), oldest=cut.oldest)
    first = not (cut.before or cut.after)
    if first and not counting.countable:
        counted = await counting.find(max(cut.limit, min(most, COUNTED)))
        return await _shown(reader, counted.first(cut.limit), cut, shift), Total(len(counted.ids), counted.more)
    found = await page(reader, which, cut, shift)
    if first and not found.next:
        return found, Total(len(found.messages))
    return found, Total(*await counting.total(most))


def _back(cut: Cut) -> bool:
    """To what stands in front of a page that is known."""
    return bool(cut.before if cut.oldest else cut.after)


async def _shown(reader: Reader, found: Found, cut: Cut, shift: int) -> Page:
    ids = list(found.ids[::-1] if _back(cut) else found.ids)
    onward, known = found.last if found.more else "", cut.before or cut.after
    whence = ids[-1 if _back(cut) else 0] if known and ids else known
    following, previous = (whence, onward) if _back(cut) else (onward, whence)
    rows = [one.row for one in await listed(reader, ids, shift)]
    return Page(tuple(rows), following, previous, partial=found.more and len(ids) < cut.limit)


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list, and the rows of tables that it was made of."""

    row: MessageRow
    message: RowMapping
    recipients: Rows
    deliveries: Rows


async def listed(reader: Reader, ids: list[str], shift: int, recipients: int = _SHOWN) -> list[Listed]:
    """Those that are there, in the order of the ids; of each so many recipients at most."""
    rows = {row["id"]: row for row in await reader.all(_MESSAGES, ids=ids)} if ids else {}
    shown = [ident for ident in ids if ident in rows]
    if not shown:
        return []
    whom: dict[str, list[RowMapping]] = {ident: [] for ident in shown}
    for row in await reader.all(_RECIPIENTS, ids=shown, most=recipients):
        whom[row["message_id"]].append(row)
    ways = await of_messages(reader, "delivery", shown, order="n")
    return [Listed(_row(rows[one], whom[one], ways[one], shift), rows[one], whom[one], ways[one]) for one in shown]


def _row(message: RowMapping, recipients: Rows, deliveries: Rows, shift: int) -> MessageRow:
    total = recipients[0] if recipients else None
    due = [delivery["next_attempt_at"] for delivery in deliveries if delivery["state"] == "queued"]
    first = recipients[:_SHOWN]
    last = [dict(row) for row in sorted(first, key=lambda row: (row["state"] != "sent", row["updated_at"]))[-1:]]
    told = ("verdict", "enhanced", "detail", "said_by", "fix", "remote_id")
    said = {name: "".join(row[name] for row in last) for name in told}
    return record(
        MessageRow,
        message,
        recipients=tuple(row["address"] for row in first),
        recipient_count=total["total"] if total else 0,
        sent_count=total["sent"] if total else 0,
        failed_count=total["failed"] if total else 0,
        in_doubt=bool(total and total["doubt"]),
        backends=tuple(delivery["backend"] for delivery in deliveries),
        attempts=max((delivery["attempts"] for delivery in deliveries), default=0),
        next_attempt_at=moment(min(due) + shift) if due else None,
        expires_at=moment(message["expires_at"] + shift),
        finished_at=moment(total["at"]) if total and message["finished_at"] is not None else None,
        code=next((row["code"] for row in last), None),
        told_by=message["told_by"] or "",
        **said,
    )


async def of_messages(
    reader: Reader, table: str, ids: list[str], which: str = "TRUE", order: str = "id"
) -> Mapping[str, list[RowMapping]]:
    """The rows of these messages, in their order."""
    found: dict[str, list[RowMapping]] = {ident: [] for ident in ids}
    for row in await reader.all(
        f"SELECT * FROM {table} WHERE message_id {IN_IDS} AND {which} ORDER BY {order}", ids=ids
    ):
        found[row["message_id"]].append(row)
    return found


async def bodies(reader: Reader, ids: list[str]) -> tuple[Rows, Mapping[str, list[RowMapping]]]:
    return await reader.all(_BODIES, ids=ids), await of_messages(reader, "recipient", ids, order="n")


def verified(
    engine: Engine, bodies: Rows, recipients: Mapping[str, list[RowMapping]]
) -> tuple[dict[str, bytes], list[str]]:
    """The bodies whose checksum holds, and the ids of those where it does not. Slow for large ones: not on the loop."""
    whole = {}
    for row in bodies:
        with suppress(TypeError, ValueError):  # a damaged value may be of any type
            if intact(row, recipients[row["id"]], raw := engine.body(row)):
                whole[row["id"]] = raw
    return whole, [row["id"] for row in bodies if row["id"] not in whole]
