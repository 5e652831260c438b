"""The two ends of a copy (moving) that are a spool's file. All of it blocks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.spool import vault
from gateway.spool.agreed import HeldKey
from gateway.spool.moving import Layout, Row, typed
from gateway.spool.opening import explained, head, lock, make, publish
from gateway.spool.records import SpoolError, micros
from gateway.spool.segments import FOLDER
from gateway.spool.sqlite import NAME, SQLite
from gateway.spool.steady import SpoolTime

_BODY = "message_id, raw, segment, start, length"
_CLOCK = "INSERT INTO clock (id, spool_at, wall_at) VALUES (1, ?, ?)"
_ENDINGS = ("", "-journal", "-wal", "-shm")


class _Looking:
    """A file that somebody has opened."""

    def __init__(self, name: str, connection: sqlite3.Connection, now: int) -> None:
        self.name = name
        self.connection = connection
        self._now = now

    def now(self) -> int:
        return self._now

    def count(self, table: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - ours

    def rows(self, layout: Layout, order: Sequence[str] = ()) -> Iterator[Row]:
        columns = ", ".join(f'"{name}"' for name in layout.columns)
        by = ", ".join(order or layout.order)
        for row in self.connection.execute(f"SELECT {columns} FROM {layout.name} ORDER BY {by}"):  # noqa: S608 - ours
            yield typed(layout, row, self.name)


class FileSource(_Looking):
    """``uncounted``: see steady. Bodies come from wherever they lie."""

    def __init__(self, engine: SQLite, connection: sqlite3.Connection, time: SpoolTime | None = None) -> None:
        super().__init__(engine.name, connection, micros(time.now()) if time else 0)
        self.uncounted = time.uncounted // timedelta(microseconds=1) if time else 0
        self.key = _digest(engine.path.parent)
        self.engine, self.version = engine.kind, engine.version
        self._sqlite = engine

    def ask(self, statement: str) -> list[dict[str, Any]]:
        cursor = self.connection.execute(statement)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def size(self) -> int:
        folder = self._sqlite.path.parent
        files = [*folder.glob(f"{NAME}*"), *(folder / FOLDER).glob("*")]
        return sum(file.stat().st_blocks * 512 for file in files)

    def living(self) -> tuple[str, ...]:
        return ()

    def damage(self) -> list[str]:
        """What is wrong with the file itself: every page and index is looked at."""
        found = [str(row[0]) for row in self.connection.execute("PRAGMA integrity_check(3)")]
        return [] if found == ["ok"] else found

    def rows(self, layout: Layout, order: Sequence[str] = ()) -> Iterator[Row]:
        if layout.name != "body":
            yield from super().rows(layout, order)
            return
        names = _BODY.split(", ")
        for row in self.connection.execute(f"SELECT {_BODY} FROM body ORDER BY message_id"):  # noqa: S608 - ours
            found = dict(zip(names, row, strict=True))
            yield typed(layout, (found["message_id"], self._sqlite.body(found)), self.name)


class FileTarget(_Looking):
    """A file that is not there yet, under another name until it is whole."""

    def agree(self, key: str) -> None:
        directory = Path(self.name).parent
        if _digest(directory) not in ("", key):
            text = f"{directory / vault.FILE} is another key than the one that secrets there were sealed with"
            raise SpoolError(f"{text}: put that of an instance in its place")

    def write(self, layout: Layout, rows: Iterable[Row]) -> None:
        columns = ", ".join(f'"{name}"' for name in layout.columns)
        places = ", ".join("?" * len(layout.columns))
        self.connection.executemany(f"INSERT INTO {layout.name} ({columns}) VALUES ({places})", rows)  # noqa: S608

    def complete(self) -> None:
        """Nothing: a file counts up from what is in it."""


@contextmanager
def source(directory: Path, clock: Clock) -> Iterator[FileSource]:
    """Locked, looked through, and of our schema. Raises SpoolError."""
    if not (directory / NAME).is_file():
        raise SpoolError(f"there is no spool in {directory}: no file {NAME}")
    _refuse_other_user(directory)
    engine = SQLite(directory)
    line = engine.open()
    try:
        if lost := engine.notes.get("missing"):
            raise SpoolError(f"{', '.join(lost)} is missing, where large messages lie: put it back first")
        with explained(engine.path):
            yield FileSource(engine, line, engine.time(clock, line))
    finally:
        engine.finish(line)
        engine.close()


@contextmanager
def looking(directory: Path) -> Iterator[FileSource]:
    """As it is at one moment, also while a service uses it; nothing is changed. Raises SpoolError."""
    engine = SQLite(directory)
    if not engine.path.is_file():
        raise SpoolError(f"there is no spool in {directory}: no file {NAME}")
    with explained(engine.path), closing(sqlite3.connect(f"{engine.path.resolve().as_uri()}?mode=ro", uri=True)) as one:
        one.isolation_level, one.text_factory = None, lambda text: text.decode("utf-8", "replace")
        one.execute("BEGIN")
        there = one.execute("SELECT max(version_num) FROM alembic_version").fetchone()[0]
        if there != head():
            raise SpoolError(
                f"spool {engine.path} is of schema {there}, not {head()}: start the service, which upgrades it"
            )
        yield FileSource(engine, one)


def _digest(directory: Path) -> str:
    file = directory / vault.FILE
    with suppress(OSError):
        return HeldKey(file, file.read_bytes()).digest()
    return ""


@contextmanager
def target(directory: Path, now: int, clock: Clock) -> Iterator[FileTarget]:
    """There at the end, and only then; ``now`` is the spool's time in it. Raises SpoolError."""
    path, made = directory / NAME, not directory.exists()
    _refuse_used(directory)
    with ExitStack() as end, explained(path):
        if made:
            end.callback(_remove, directory)
        _refuse_other_user(directory if not made else directory.parent)
        end.callback(os.close, lock(path))
        fresh = path.with_name(f"{NAME}.part")
        end.callback(_clear, fresh)
        make(fresh)
        connection = end.enter_context(_filling(fresh))
        connection.execute(_CLOCK, (now, micros(clock.now())))
        yield FileTarget(str(path), connection, now)
        connection.execute("COMMIT")
        connection.close()
        publish(fresh, path)


def _refuse_used(directory: Path) -> None:
    used = [directory / f"{NAME}{ending}" for ending in _ENDINGS]
    with suppress(FileNotFoundError):
        used += (directory / FOLDER).iterdir()
    if there := next((file for file in used if file.exists()), None):
        raise SpoolError(f"there is a spool in {directory} already, and nothing is mixed: move {there} away first")


def _refuse_other_user(directory: Path) -> None:
    """What root makes the service could not open."""
    if os.geteuid() == 0 and (owner := directory.stat().st_uid) != 0:
        raise SpoolError(f"{directory} belongs to user id {owner}: do this as that user (sudo -u '#{owner}' ...)")


@contextmanager
def _filling(fresh: Path) -> Iterator[sqlite3.Connection]:
    """It is synced as a whole, and gone if anything goes wrong: so it needs no log."""
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "BEGIN"):
            connection.execute(statement).fetchall()
        yield connection
    finally:
        connection.close()


def _clear(fresh: Path) -> None:
    for ending in _ENDINGS:
        fresh.with_name(f"{fresh.name}{ending}").unlink(missing_ok=True)


def _remove(directory: Path) -> None:
    """If it came to nothing."""
    if not (directory / NAME).exists():
        for file in (directory / "spool.lock", directory):
            with suppress(OSError):
                file.rmdir() if file.is_dir() else file.unlink()
