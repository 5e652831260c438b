"""Who ordered what, when, and of which messages: steps within a write transaction, and what has been kept.

Of a message that was deleted it stays known who did it, as long as history is kept. Times in microseconds.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from gateway.actor import Order
from gateway.spool.queries import Reader
from gateway.spool.records import ActRow, record
from gateway.spool.sql import IN_IDS, clean, insert_into
from gateway.spool.transaction import Transaction

MOST = 1_000_000  # messages named by acts in all: who orders something of the whole queue every minute fills no disk
_NAMED = 20  # messages that a line of the list names
_LONGEST = 500  # characters of what an order was about


class Act(SQLModel, table=True):
    """An order. ``made_at`` is what the machine's clock showed, ``spool_at`` the spool's time (steady)."""

    id: int | None = Field(primary_key=True)
    made_at: int
    spool_at: int
    name: str
    way: str
    verb: str
    what: str
    count: int  # messages changed
    named: bool  # act_message tells which
    tenant: str = Field(sa_column_kwargs={"server_default": ""})  # whose log-in it was, "" for an operator's


class ActMessage(SQLModel, table=True):
    """Which messages an order changed. It outlives them."""

    __tablename__ = "act_message"
    __table_args__ = (Index("act_by_message", "message_id"), {"sqlite_with_rowid": False})

    act_id: int = Field(primary_key=True)
    message_id: str = Field(primary_key=True)


_ADD = """
INSERT INTO act (made_at, spool_at, name, way, verb, what, count, named, tenant)
VALUES (:made_at, :spool_at, :name, :way, :verb, :what, :count, :named, :tenant) RETURNING id"""
_TOO_MANY = """
SELECT id FROM (SELECT id, named, sum(count) OVER (ORDER BY id DESC) AS messages FROM act WHERE named) AS them
WHERE messages > :most ORDER BY id LIMIT 20"""
_ADD_MESSAGE = insert_into(ActMessage, "act_id message_id") + " ON CONFLICT DO NOTHING"
_MESSAGES = """
SELECT act_id, message_id FROM (
    SELECT act_id, message_id, row_number() OVER (PARTITION BY act_id ORDER BY message_id) AS n
    FROM act_message WHERE act_id @in(:ids)) AS them WHERE n <= :most"""


def note(tx: Transaction, order: Order, ids: Sequence[str], count: int | None = None) -> int | None:
    """That these messages were changed; ``count`` is for orders about something else. Returns the order's ``act``.

    Nothing for a step that changed nothing. Two statements, however many messages there are. A late step.
    """
    act = order.act
    if not ids and count is None:
        return act
    number = len(ids) if count is None else count
    if act is None:
        said = {"name": clean(order.actor.name), "way": order.actor.way, "verb": order.verb}
        said["tenant"] = order.actor.tenant
        times = {"made_at": tx.wall, "spool_at": tx.now}
        what = clean(order.what)[:_LONGEST]
        act = int(tx.all(_ADD, **said, **times, what=what, count=number, named=bool(ids))[0]["id"])
    else:
        tx.all("UPDATE act SET count = count + :number WHERE id = :act", number=number, act=act)
    for ident in ids:
        tx.later(_ADD_MESSAGE, (act, ident))
    return act


def sweep(tx: Transaction, before: int, limit: int) -> int:
    """Forget some of what was ordered before that time (the spool's), and whom the oldest of too many were about."""
    old = tx.all("SELECT id FROM act WHERE spool_at <= :before LIMIT :limit", before=before, limit=limit)
    ids = [row["id"] for row in old]
    tx.all(f"DELETE FROM act_message WHERE act_id {IN_IDS}", ids=ids)
    tx.all(f"DELETE FROM act WHERE id {IN_IDS}", ids=ids)
    crowd = [row["id"] for row in tx.all(_TOO_MANY, most=MOST)]
    tx.all(f"DELETE FROM act_message WHERE act_id {IN_IDS}", ids=crowd)
    tx.all(f"UPDATE act SET named = FALSE WHERE id {IN_IDS}", ids=crowd)
    return len(ids) + len(crowd)


async def find(reader: Reader, *, limit: int, before: int, message: str, verb: str, tenant: str | None) -> list[ActRow]:
    """The last first, from before that act on (0 is the last); of this message, of this verb; "" for all. Of one
    tenant's log-ins, or None for everybody's."""
    of = "id IN (SELECT act_id FROM act_message WHERE message_id = :message)" if message else "TRUE"
    of += " AND verb = :verb" if verb else ""
    of += " AND tenant = :tenant" if tenant is not None else ""
    page = f"SELECT * FROM act WHERE {of} AND (:before = 0 OR id < :before) ORDER BY id DESC LIMIT :limit"
    rows = await reader.all(page, limit=limit, before=before, message=message, verb=verb, tenant=tenant)
    named: dict[int, list[str]] = {row["id"]: [] for row in rows}
    for row in await reader.all(_MESSAGES, ids=list(named), most=_NAMED):
        named[row["act_id"]].append(row["message_id"])
    return [record(ActRow, row, messages=tuple(named[row["id"]])) for row in rows]


async def messages(reader: Reader, act: int, *, limit: int, after: str) -> list[str]:
    """The ids of those that it changed, from behind that id on."""
    page = "SELECT message_id FROM act_message WHERE act_id = :act AND message_id > :after ORDER BY 1 LIMIT :limit"
    return [row["message_id"] for row in await reader.all(page, act=act, after=after, limit=limit)]
