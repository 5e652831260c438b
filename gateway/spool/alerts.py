"""What somebody was told of, and what is still to be told: as the alerts keep it between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Field, SQLModel

from gateway.spool.queries import Reader
from gateway.spool.transaction import Transaction


class Alert(SQLModel, table=True):
    """``entry`` is JSON of the room alerts."""

    __table_args__ = {"sqlite_with_rowid": False}

    key: str = Field(primary_key=True)
    entry: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry of the alerts by its key."""

    key: str
    entry: str


_KEEP = """
INSERT INTO alert (key, entry) VALUES (:key, :entry) ON CONFLICT (key) DO UPDATE SET entry = excluded.entry"""


def keep(tx: Transaction, entries: Sequence[Kept], forgotten: Sequence[str]) -> None:
    for each in entries:
        tx.later(_KEEP, {"key": each.key, "entry": each.entry})
    if forgotten:
        tx.all("DELETE FROM alert WHERE key @in(:keys)", keys=list(forgotten))


async def kept(reader: Reader) -> list[Kept]:
    return [Kept(row["key"], row["entry"]) for row in await reader.all("SELECT key, entry FROM alert ORDER BY key")]
