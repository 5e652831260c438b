"""A spool's file before it is used: locked, checked, created, migrated. All of it blocks."""

from __future__ import annotations

import fcntl
import os
import runpy
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError, NoSuchTableError
from sqlmodel import SQLModel

from gateway.files import sync_folder
from gateway.spool import vault
from gateway.spool.connecting import connect, driver
from gateway.spool.disk import check_access
from gateway.spool.progress import Progress
from gateway.spool.records import SpoolError

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK = "spool.lock"
RESCUED = "spool.db.rescued"
_VERSION = """CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"""
_LOOKED_THROUGH = dict.fromkeys(("message", "recipient", "delivery", "attempt"), 65)  # steps for each row, as _steps
_MAGIC = b"SQLite format 3\0"
Copy = Callable[[Path], None]


def prepare(path: Path, copy: Copy, *, untouched: bool, progress: Progress) -> None:
    """A whole spool of our schema, new if there is none. One that is ``untouched`` since it was whole is that still."""
    beside = (path.with_name(name) for name in (f"{path.name}-wal", vault.FILE))  # both made after the spool itself
    if path.exists():
        _check(path, copy, untouched, progress)
    elif left := [file.name for file in beside if file.exists() and file.stat().st_size]:
        raise SpoolError(f"{path} is missing but its {left[0]} is there: put the file back, or move that away")
    else:
        _create(path)


def check_files(path: Path) -> None:
    """No link, whose log would lie elsewhere; and files that root put back belong to root. Raises SpoolError."""
    if path.is_symlink():
        real = path.parent / path.readlink()
        text = f"{path} is a link: put {real} itself in its place, and {real}-wal beside it if there is one"
        raise SpoolError(f"{text}; for another disk make state_dir a link, or set it to a folder there")
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", "spool.mark", RESCUED):
        check_access(path.with_name(name))


def adopt(path: Path) -> None:
    """A kill came while the service was writing a removed spool back: that is whole, and holds what its log did."""
    rescued = path.with_name(RESCUED)
    if rescued.exists() and not path.exists():
        for ending in ("-wal", "-shm"):
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
        path.with_name("spool.mark").unlink(missing_ok=True)
        publish(rescued, path)


def _create(path: Path) -> None:
    """Make the file under another name first, so that a crash on the way leaves no half spool behind."""
    fresh = path.with_name(f"{path.name}.new")
    make(fresh)
    publish(fresh, path)


def make(fresh: Path) -> None:
    """An empty spool of our schema, not yet to be trusted; of one that was begun before nothing is left."""
    for leftover in fresh.parent.glob(fresh.name + "*"):
        leftover.unlink()
    fresh.touch(mode=0o600)
    with closing(connect(fresh)) as connection, connection.begin():
        _fill(connection)


def _fill(connection: Connection) -> None:
    """As alembic would by all migrations, which takes it as long as the rest of a start."""
    for file in scripts():
        for statement in runpy.run_path(str(file))["SCHEMA"].split(";"):
            connection.exec_driver_sql(statement)
    connection.exec_driver_sql(_VERSION)
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (head(),))


def scripts() -> list[Path]:
    """The migrations, oldest first. The name of each begins with its revision."""
    return sorted((MIGRATIONS / "versions").glob("[0-9]*.py"))


def revision(script: Path) -> str:
    return script.name.partition("_")[0]


def head() -> str:
    """The newest schema, which is ours."""
    return revision(scripts()[-1])


def _check(path: Path, copy: Copy, untouched: bool, progress: Progress) -> None:
    """Whole, ours, of our schema or upgraded to it: all in one transaction, so that a kill undoes an upgrade."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _damaged(path, "no SQLite file" if path.stat().st_size else "empty")
    known = [revision(script) for script in scripts()]
    with ExitStack() as told, _room(path), closing(connect(path)) as connection, connection.begin():

        def ask(text: str) -> Sequence[str]:
            return connection.exec_driver_sql(text).scalars().all()

        older = _seen(connection) in known[:-1]
        if older:
            told.enter_context(progress.upgrading(path, _seen(connection), known[-1]))
        if older or not untouched:
            with _looking(connection, progress) if older else nullcontext():
                verify(ask, path)
        inspector = inspect(connection)
        if not inspector.has_table("alembic_version"):
            raise SpoolError(f"{path} is a SQLite file but not a spool: move it away, or set another state_dir")
        if (found := _seen(connection)) not in known:
            text = f"spool {path} was written by a newer version (schema {found}, this one knows {known[-1]})"
            raise SpoolError(f"{text}: install that version, or restore the copy made before the upgrade")
        if older:
            _keep(path, path.with_name(f"{path.name}.before-{known[-1]}"), copy)
            _upgrade(connection, known[known.index(found) + 1 :], progress)
        for name, table in SQLModel.metadata.tables.items():
            try:
                there = {column["name"] for column in inspector.get_columns(name)}
            except NoSuchTableError:
                raise _damaged(path, f"table {name} is missing") from None
            if missing := set(table.columns.keys()) - there:
                raise _damaged(path, f"table {name} has no {', '.join(sorted(missing))}")


def _seen(connection: Connection) -> str:
    """The revision; "" where it cannot be read."""
    with suppress(DBAPIError):
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
    return ""


@contextmanager
def _room(path: Path) -> Iterator[None]:
    """For an upgrade, which is the only one that needs any."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
            raise
        size, free = path.stat().st_size, shutil.disk_usage(path.parent).free
        text = f"spool {path} is as it was: there is no room for its upgrade, which may need {size} bytes for a while"
        raise SpoolError(f"{text}, and {free} are free: make room, or move it to a larger disk") from error


def _keep(path: Path, to: Path, copy: Copy) -> None:
    """The spool as it was, unless that took the room of the upgrade, which is one transaction and needs no copy to be
    undone."""
    if shutil.disk_usage(path.parent).free < 2 * path.stat().st_size:
        return
    try:
        copy(to)
    except SpoolError as error:
        if getattr(error.__cause__, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
            raise


def lock(path: Path) -> int:
    """Make the spool ours until the returned descriptor is closed. Raises SpoolError with the owner's process id."""
    with explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(LOCK), os.O_RDWR | os.O_CREAT, 0o600)
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


def relock(path: Path, held: int) -> int:
    """The same lock, or a new one where its file was removed. Raises SpoolError: somebody else has it by now."""
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(held), path.with_name(LOCK).stat()):
            return held
    made = lock(path)
    os.close(held)
    return made


@contextmanager
def explained(path: Path) -> Iterator[None]:
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
        which = f"{error.filename}: " if error.filename and str(error.filename) != str(path) else ""
        raise SpoolError(f"spool {path} cannot be used: {which}{error.strerror}") from error


def publish(fresh: Path, path: Path) -> None:
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def verify(ask: Callable[[str], Sequence[str]], path: Path) -> None:
    """Look through every page and index (a million messages: 20 s). Raises SpoolError when the structure is damaged."""
    found = list(ask("PRAGMA integrity_check(3)"))
    if found != ["ok"]:
        raise _damaged(path, "; ".join(found))


def _damaged(path: Path, what: str) -> SpoolError:
    cure = f"Keep a copy of it; then put a backup in its place, or save what can be read with: sqlite3 {path} .recover"
    return SpoolError(f"spool {path} is damaged: {what}. {cure}")


def _upgrade(connection: Connection, revisions: Sequence[str], progress: Progress) -> None:
    """All of it in the transaction that has begun."""
    from alembic import command  # noqa: PLC0415 - costs a start much, and few of them need it
    from alembic.config import Config  # noqa: PLC0415

    chosen = [script for script in scripts() if revision(script) in revisions]
    steps = sum(_steps(connection, runpy.run_path(str(script)).get("STEPS", {})) for script in chosen)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with progress.working(driver(connection), "changing it", steps):
        command.upgrade(config, "head")


def _looking(connection: Connection, progress: Progress) -> AbstractContextManager[None]:
    return progress.working(driver(connection), "looking it through", _steps(connection, _LOOKED_THROUGH))


def _steps(connection: Connection, by_table: Mapping[str, int]) -> int:
    """Of SQLite's machine, from how many a row of each of these tables takes."""
    there = set(connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars())
    return sum(
        each * int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608 - names of ours
        for table, each in by_table.items()
        if table in there
    )
