"""SQLite as the spool's engine: one file, locked, checked, created, migrated, opened, measured and copied."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from gateway.files import sync_folder
from gateway.spool import vault
from gateway.spool.engine import Space, Trouble
from gateway.spool.records import SpoolError

NAME = "spool.db"
MIGRATIONS = Path(__file__).with_name("migrations")
_MAGIC = b"SQLite format 3\0"
BUSY = 5000  # milliseconds to wait for a foreign lock
# Deleted mail is overwritten where that costs no extra write. Freed pages are used again; the file does not shrink.
_WRITER = [
    "journal_mode=WAL",
    "synchronous=FULL",
    "secure_delete=FAST",
    "journal_size_limit=67108864",
    "cache_size=-65536",
]
# Readers never write nor checkpoint: two connections that do can lose commits (SQLite < 3.51.3, the WAL-reset bug).
_READER = ["query_only=ON", "wal_autocheckpoint=0"]
# After these the connection and what it has cached are not to be trusted: open anew and look at every page.
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN}
_WHOLE = sqlite3.SQLITE_IOERR_WRITE  # a failed write is rolled back whole


class SQLite:
    """One file in a folder, ours alone while open (engine.Engine)."""

    owner = ""  # whoever holds the lock makes all attempts
    version = sqlite3.sqlite_version

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self.name = str(self.path)
        self._lock = -1
        self._attempt_ids: Iterator[int] | None = None
        self._counts: Counter[tuple[str, str]] = Counter()

    def open(self) -> Connection:
        self._lock = _lock(self.path)
        try:
            with _explained(self.path):
                self._prepare()
                return _connect(self.path)
        except BaseException:
            self.close()
            raise

    def reopen(self) -> Connection:
        connection = _connect(self.path)
        with connection.begin():
            _verify(connection, self.path)
        return connection

    def readers(self) -> AsyncEngine:
        url = URL.create("sqlite+aiosqlite", database=self.name)
        engine = create_async_engine(url, pool_size=4, max_overflow=0)
        _prepare_connections(engine.sync_engine, _READER, "BEGIN")
        return engine

    def close(self) -> None:
        os.close(self._lock)

    def classify(self, error: BaseException) -> Trouble:
        code: int = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
        if not isinstance(error, DBAPIError) or code & 0xFF in (0, sqlite3.SQLITE_CONSTRAINT):
            return Trouble.OURS
        if code & 0xFF in _BROKEN and code != _WHOLE:
            return Trouble.BROKEN
        return {sqlite3.SQLITE_FULL: Trouble.FULL, sqlite3.SQLITE_BUSY: Trouble.BUSY}.get(code & 0xFF, Trouble.FAILED)

    def render(self, statement: str) -> str:
        return _rendered(statement)

    def listed(self, values: Sequence[Any]) -> str:
        return json.dumps(values)

    def attempt_ids(self, connection: Connection) -> Iterator[int]:
        if self._attempt_ids is None:
            last = connection.exec_driver_sql("SELECT max(id) FROM attempt").scalar()
            self._attempt_ids = itertools.count(1 + (last or 0))
        return self._attempt_ids

    def committed(self, counts: Mapping[tuple[str, str], int]) -> None:
        self._counts.update(counts)

    def counts(self) -> Mapping[tuple[str, str], int]:
        return {key: count for key, count in self._counts.items() if count > 0}

    def space(self) -> Space:
        disk = os.statvfs(self.path.parent)
        used = sum(part.stat().st_size for part in self.path.parent.glob(NAME + "*"))
        return Space(used, disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)

    def copy(self, to: Path) -> None:
        fresh = to.with_name(to.name + ".part")
        with _explained(to):
            try:
                fresh.unlink(missing_ok=True)
                fresh.touch(mode=0o600)
                source = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
                with closing(source), closing(sqlite3.connect(fresh)) as destination:
                    source.backup(destination)
                _publish(fresh, to)
            finally:
                fresh.unlink(missing_ok=True)  # half a copy would keep a full disk full

    def _prepare(self) -> None:
        """A whole spool of our schema, new if there is none."""
        beside = (self.path.with_name(name) for name in (f"{NAME}-wal", vault.FILE))  # both made after the spool itself
        if self.path.exists():
            self._check()
        elif left := [path.name for path in beside if path.exists() and path.stat().st_size]:
            raise SpoolError(f"{self.path} is missing but its {left[0]} is there: put the file back, or move that away")
        else:
            self._create()

    def _create(self) -> None:
        """Make the file under another name first, so that a crash on the way leaves no half spool behind."""
        fresh = self.path.with_name(NAME + ".new")
        for leftover in fresh.parent.glob(fresh.name + "*"):
            leftover.unlink()
        fresh.touch(mode=0o600)
        with closing(_connect(fresh)) as connection, connection.begin():
            command.upgrade(_alembic(connection), "head")
        _publish(fresh, self.path)

    def _check(self) -> None:
        """Whole, ours, of our schema or upgraded to it: all in one transaction, so that a kill undoes an upgrade."""
        path = self.path
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise _damaged(path, "no SQLite file" if path.stat().st_size else "empty")
        with closing(_connect(path)) as connection, connection.begin():
            _verify(connection, path)
            inspector = inspect(connection)
            if not inspector.has_table("alembic_version"):
                raise SpoolError(f"{path} is a SQLite file but not a spool: move it away, or set another state_dir")
            revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            scripts = ScriptDirectory.from_config(_alembic(connection))
            known = [script.revision for script in scripts.walk_revisions()]
            if revision not in known:
                text = f"spool {path} was written by a newer version (schema {revision}, this one knows {known[0]})"
                raise SpoolError(f"{text}: install that version, or restore the copy made before the upgrade")
            if revision != known[0]:
                self.copy(path.with_name(f"{NAME}.before-{known[0]}"))
                command.upgrade(_alembic(connection), "head")
            for name, table in SQLModel.metadata.tables.items():
                there = {column["name"] for column in inspector.get_columns(name)}
                if missing := set(table.columns.keys()) - there:
                    raise _damaged(path, f"table {name} has no {', '.join(sorted(missing))}")


@lru_cache(maxsize=512)
def _rendered(statement: str) -> str:
    listed = re.sub(r"@in\((:\w+)\)", r"IN (SELECT value FROM json_each(\1))", statement)
    return listed.replace("@least(", "min(").replace("@greatest(", "max(")


def _lock(path: Path) -> int:
    """Make the spool ours until the returned descriptor is closed. Raises SpoolError with the owner's process id."""
    with _explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name("spool.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        text = f"spool {path} is in use by process {owner}: stop it, or use the running service's commands"
        raise SpoolError(text) from None
    with suppress(OSError):  # a full disk: whose it is then stays unsaid
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema
        raise _damaged(path, "its schema is no text") from error
    except (DBAPIError, sqlite3.Error) as error:
        cause = getattr(error, "orig", error)
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, str(cause)) from error
        raise SpoolError(f"spool {path} cannot be used: {cause}") from error
    except OSError as error:
        raise SpoolError(f"spool {path} cannot be used: {error.strerror}") from error


def _publish(fresh: Path, path: Path) -> None:
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def _verify(connection: Connection, path: Path) -> None:
    """Look through every page and index (100,000 messages: 0.8 s). Raises SpoolError when the structure is damaged."""
    found = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars().all()
    if found != ["ok"]:
        raise _damaged(path, "; ".join(found))


def _damaged(path: Path, what: str) -> SpoolError:
    cure = f"Keep a copy of it; then put a backup in its place, or save what can be read with: sqlite3 {path} .recover"
    return SpoolError(f"spool {path} is damaged: {what}. {cure}")


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _connect(path: Path) -> Connection:
    """The one connection that writes. Transactions are taken at once, so that a wait for a lock is never a failure."""
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    _prepare_connections(engine, _WRITER, "BEGIN IMMEDIATE")
    return engine.connect()


def _prepare_connections(engine: Engine, pragmas: list[str], begin: str) -> None:
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
