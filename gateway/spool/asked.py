"""Recipients that were asked for and became somebody else, and copies that nobody asked for: rows beside the message.

Mail of which nothing was rewritten has none, and costs nothing for it.
"""

from __future__ import annotations

from sqlmodel import Field, Index, SQLModel

from gateway.model import NewMessage
from gateway.spool.keys import key_of
from gateway.spool.sql import clean, insert_into
from gateway.spool.transaction import Transaction


class Asked(SQLModel, table=True):
    """``address`` is as it was asked for, "" for a copy; ``became`` one of those who get the mail instead.

    ``why`` is alias, redirect or copy, ``rule`` the setting that says so.
    """

    __table_args__ = (Index("asked_by_key", "key"), {"sqlite_with_rowid": False})

    message_id: str = Field(primary_key=True)
    n: int = Field(primary_key=True)
    address: str
    key: str  # keys.key_of, to search by
    became: str
    why: str
    rule: str


_ADD = insert_into(Asked, "message_id n address key became why rule")


def put(tx: Transaction, message: NewMessage) -> None:
    pairs = [(one, to) for one in message.rewritten for to in one.became]
    for n, (one, to) in enumerate(pairs):
        asked = clean(one.asked)
        tx.later(_ADD, (message.id, n, asked, key_of(asked), to, one.why, one.by))
