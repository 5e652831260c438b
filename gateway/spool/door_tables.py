"""The tables of what is kept about the door: who was turned away, and how much mail came and went in each hour.

Times are integer microseconds since 1970 (UTC) of the machine's clock; ``hour_at`` is the beginning of an hour.
"""

from __future__ import annotations

from sqlalchemy import Index
from sqlmodel import Field, SQLModel


class Refusal(SQLModel, table=True):
    """Refusals of one hour that are alike: same way in, stage, reason, sender, and client or address.

    ``id`` is made of these (doorbook.ident), so that no further index is needed to find the row again. What differs
    among them is as in the last one. ``mixed``: others who came too many to be told apart. ``near``: a client, or an
    address that is not of the Internet; such rows are given up last.
    """

    __table_args__ = (Index("refusal_by_last", "last_at", "reason", "count", "first_at"),)  # all that is counted

    id: int | None = Field(primary_key=True)
    first_at: int
    last_at: int
    count: int
    listener: str
    stage: str
    reason: str
    peer: str
    near: bool
    mixed: bool
    helo: str
    tls: str
    client: str
    user: str
    sender: str
    recipients: str  # JSON list of the first few
    size: int
    code: int
    enhanced: str
    text: str
    detail: str


class Tally(SQLModel, table=True):
    """What happened in an hour, by way in and client (messages), or by backend and client (recipients).

    Messages: ``accepted`` and those taken up ``again`` come in; ``sent``, ``failed`` and ``deleted`` (before their end)
    go out; the rest waits. ``refused`` counts refusals, ``deferred`` recipients whom an attempt put off.
    """

    __table_args__ = {"sqlite_with_rowid": False}

    hour_at: int = Field(primary_key=True)
    listener: str = Field(primary_key=True)
    client: str = Field(primary_key=True)
    backend: str = Field(primary_key=True)
    accepted: int
    again: int
    sent: int
    failed: int
    deleted: int
    deferred: int
    refused: int
