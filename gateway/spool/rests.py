"""When backends did not work, and why: what a message waited for. Times are what the machine's clock showed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import Field, SQLModel

from gateway.spool.records import RestRow, micros
from gateway.spool.sql import clean, insert_into
from gateway.spool.transaction import Transaction

_MOST = 10_000  # kept of all backends: one that comes and goes all day must not fill the disk
_LONGEST = 500


class Rest(SQLModel, table=True):
    """``ended_at`` is NULL while it lasts."""

    id: int | None = Field(primary_key=True)
    backend: str
    since_at: int
    ended_at: int | None
    by: str
    who: str
    detail: str
    fix: str


_ADD = insert_into(Rest, "backend since_at by who detail fix", id=None, ended_at="NULL")
_END = "UPDATE rest SET ended_at = :now WHERE ended_at IS NULL AND backend = :backend"
_END_ALL = """
UPDATE rest SET ended_at = :now WHERE ended_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM backend b JOIN instance i ON i.name = b.owner
    WHERE b.name = rest.backend AND b.owner <> :me) -- who may know that it lasts"""
_TRIM = "DELETE FROM rest WHERE ended_at <= :before OR id <= (SELECT max(id) FROM rest) - :most"


def note(tx: Transaction, began: Sequence[RestRow], ended: Sequence[str], *, anew: bool) -> None:
    """These began, those backends work again. ``anew``: of those that a service before this one left open nobody knows
    when they ended; they did by now. A late step."""
    if anew:
        tx.all(_END_ALL, now=tx.wall, me=tx.engine.owner)
    for backend in () if anew else ended:
        tx.all(_END, now=tx.wall, backend=backend)
    for row in began:
        texts = (clean(text)[:_LONGEST] for text in (row.detail, row.fix))
        tx.later(_ADD, (row.backend, micros(row.since_at), row.by, row.who, *texts))


def sweep(tx: Transaction, kept: timedelta) -> int:
    tx.all(_TRIM, before=tx.wall - kept // timedelta(microseconds=1), most=_MOST)
    return 0
