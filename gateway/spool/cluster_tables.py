"""The tables of several instances on one queue: who they are, who works which backend, what all of them need to have.

Times are of the spool's own time (steady). With SQLite there is one instance, and only ``backend`` and ``secret`` are
used.
"""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel


class BackendRow(SQLModel, table=True):
    """A backend: ``owner`` is the instance that works it, ``number`` names its lock. An operator's order stays until
    it is withdrawn: ``paused_until`` NULL is for ever. ``asked`` grows with every order, for the owner to see.
    ``standing`` is how the owner last said that it stands, ``wanted`` what it is to look at for another instance, and
    what came of it (both JSON)."""

    __tablename__ = "backend"
    __table_args__ = (Index("backend_by_number", "number", unique=True), {"sqlite_with_rowid": False})

    name: str = Field(primary_key=True)
    number: int
    owner: str = Field(sa_column_kwargs={"server_default": ""})
    paused: bool
    paused_since: int
    paused_until: int | None
    paused_by: str  # who ordered it
    asked: int = Field(sa_column_kwargs={"server_default": text("0")})
    standing: str = Field(sa_column_kwargs={"server_default": ""})
    wanted: str = Field(sa_column_kwargs={"server_default": ""})


class Instance(SQLModel, table=True):
    """``number`` (0 to 1023) stands in the queue ids that it gives. ``beats`` grows while it lives, ``groups`` with
    each group that it commits: the witness of a commit whose answer was lost. ``backends`` (JSON list) it could work;
    ``settings`` is a digest of those that must not differ."""

    __table_args__ = (Index("instance_by_number", "number", unique=True), {"sqlite_with_rowid": False})

    name: str = Field(primary_key=True)
    number: int
    backends: str
    settings: str
    version: str
    started_at: int
    beats: int = Field(sa_column_kwargs={"server_default": text("0")})
    groups: int = Field(sa_column_kwargs={"server_default": text("0")})


class Secret(SQLModel, table=True):
    """What a person or a provider gave that every instance needs, such as a sign-in: by vault.Vault."""

    __table_args__ = {"sqlite_with_rowid": False}

    name: str = Field(primary_key=True)
    sealed: bytes
    changed_at: int


class Cluster(SQLModel, table=True):
    """One row: a digest of the key that all instances must have, so that one with another is refused."""

    id: int | None = Field(primary_key=True)
    key: str
    made_at: int
