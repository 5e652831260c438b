"""Connections to the spool's file: one that writes, and some that look."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from gateway.spool.line import Line

BUSY = 5000  # milliseconds to wait for a foreign lock
# Deleted mail is overwritten where that costs no extra write. Freed pages are used again (and see SQLite.shrink).
_WRITER = [
    "journal_mode=WAL",
    "synchronous=FULL",
    "secure_delete=FAST",
    "cache_size=-65536",
]
# Readers never write nor checkpoint: two connections that do can lose commits (SQLite < 3.51.3, the WAL-reset bug).
_READER = ["query_only=ON", "wal_autocheckpoint=0"]


def _url(path: Path, driver: str) -> URL:
    """Of a file that is there: a name that is gone must not become an empty file."""
    return URL.create(driver, database=path.resolve().as_uri(), query={"mode": "rw", "uri": "true"})


def connect(path: Path) -> Connection:
    """A connection that writes, for upgrades. Transactions are taken at once, as by a Line."""
    engine = create_engine(_url(path, "sqlite"), poolclass=NullPool)
    _prepare(engine, _WRITER, "BEGIN IMMEDIATE")
    return engine.connect()


def line(path: Path) -> Line:
    """The one that writes all the rest."""
    made = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,  # of one at a time, which is more than the driver can see
        factory=Line,
        cached_statements=256,
    )
    made.text_factory = _decode
    try:
        for pragma in (f"busy_timeout={BUSY}", *_WRITER):
            made.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        made.close()
        raise
    return made


def driver(connection: Connection) -> sqlite3.Connection:
    """What stands behind it."""
    found: Any = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


def readers(path: Path) -> AsyncEngine:
    engine = create_async_engine(_url(path, "sqlite+aiosqlite"), pool_size=4, max_overflow=0)
    _prepare(engine.sync_engine, _READER, "BEGIN")
    return engine


def _prepare(engine: Engine, pragmas: list[str], begin: str) -> None:
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        # A damaged byte must not make its neighbours unreadable; the checksum finds it.
        getattr(connection, "driver_connection", connection).text_factory = _decode
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY}", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")
