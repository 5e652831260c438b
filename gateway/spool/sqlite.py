"""SQLite as the spool's engine: one file, locked, checked, created, migrated, opened, measured and copied."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.files import sync_folder, write_whole
from gateway.spool import connecting, disk, spelling, vault
from gateway.spool.alone import Alone
from gateway.spool.copying import copy
from gateway.spool.disk import Ballast, Shares
from gateway.spool.engine import Space, Trouble
from gateway.spool.line import Line
from gateway.spool.mark import MarkFile, examine, left_open, untouched
from gateway.spool.opening import RESCUED, adopt, check_files, explained, lock, prepare, publish, relock, verify
from gateway.spool.place import Place
from gateway.spool.progress import Progress
from gateway.spool.records import SpoolError
from gateway.spool.stowing import Stowing
from gateway.spool.walindex import FRAME, Log, WalIndex

NAME = "spool.db"
_PAGE = 4096
_MOMENT = 100  # milliseconds to wait for readers of our own
_MUCH, _QUICK = 16_000_000, 32_000_000  # bytes worth giving back; bytes written anew in a second
_CHECKPOINT = 1000  # pages in the log, then they are copied
# After these the connection and what it has cached are not to be trusted: open anew and look at every page.
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN}
_WHOLE = sqlite3.SQLITE_IOERR_WRITE  # a failed write is rolled back whole
_LAST_ATTEMPTS = """
SELECT max(id) AS id FROM attempt
UNION ALL SELECT max(attempt_id) FROM delivery WHERE state = 'queued' AND attempt_id IS NOT NULL
UNION ALL SELECT max(attempt_id) FROM delivery WHERE state <> 'queued' AND attempt_id IS NOT NULL"""


class SQLite(Alone, Stowing):
    """One file in a folder, ours alone while open (engine.Engine)."""

    kind = "sqlite"
    version = sqlite3.sqlite_version

    def __init__(
        self, directory: Path, *, reserve: float = 0.0, most: int | None = None, progress: Progress | None = None
    ) -> None:
        super().__init__(directory)
        self.path = directory / NAME
        self.name = str(self.path)
        self._reserve, self._most = reserve, most
        self._progress = progress or Progress()
        self._shares = Shares(0, 0)
        self._ballast = Ballast(directory)
        self._index = WalIndex(self.path)
        self._place = Place(self.path)
        self._mark = MarkFile(self.path)
        self._key = b""  # of the vault
        self._suspect = False  # that it is not in its place
        self._whole = True  # nothing has shown that it is damaged
        self._blocked_at = 0  # frames in the log when it could not begin anew
        self._log = Log()  # as of the last commit
        self._numbering = (b"", 0)  # how far which log was copied when the version was last raised
        self._numbered: tuple[bytes, int] | None = None  # and that is committed; None: nothing is yet
        self._lock = -1
        self._attempt_ids: Iterator[int] | None = None
        self._counts: Counter[tuple[str, str]] = Counter()

    def open(self) -> Line:
        self._lock = lock(self.path)
        try:
            with explained(self.path):
                self._look_at_disk()
                check_files(self.path)
                adopt(self.path)
                examine(self.path)
                known, ours = untouched(self.path), left_open(self.path)
                self._mark.open()
                prepare(self.path, self._keep, untouched=known, progress=self._progress)
                self._place.open()
                self._key = vault.key(self.path.parent)
                connection = self._connected()
                self._tidy(connection, ours=ours)
                return connection
        except BaseException:
            self.close()
            raise

    def reopen(self) -> Line:
        self._index.close()
        self._place.forget()  # the last connection to close takes the log away
        connection = self._connected()
        try:
            with connection.begin():
                verify(lambda text: [row[0] for row in connection.execute(text)], self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def readers(self) -> AsyncEngine:
        return connecting.readers(self.path)

    def close(self) -> None:
        for part in (self._index, self._place, self._mark, self._segments):
            part.close()
        os.close(self._lock)

    def classify(self, error: BaseException) -> Trouble:
        cause = getattr(error, "orig", error)  # of one that looks it comes wrapped
        if isinstance(cause, OSError):  # of a segment: undone with the transaction
            return Trouble.FULL if cause.errno in disk.NO_ROOM else Trouble.FAILED
        code: int = getattr(cause, "sqlite_errorcode", 0)
        if not isinstance(cause, sqlite3.Error) or code & 0xFF in (0, sqlite3.SQLITE_CONSTRAINT):
            return Trouble.OURS
        if code == _WHOLE and disk.why(self.path.parent) in disk.NO_ROOM:
            return Trouble.FULL  # a quota: SQLite knows only ENOSPC
        if code & 0xFF in _BROKEN and code != _WHOLE:
            self.distrust()
            return Trouble.BROKEN
        return {sqlite3.SQLITE_FULL: Trouble.FULL, sqlite3.SQLITE_BUSY: Trouble.BUSY}.get(code & 0xFF, Trouble.FAILED)

    def distrust(self) -> None:
        self._whole = False

    def render(self, statement: str) -> str:
        return spelling.sqlite(statement)

    def listed(self, values: Sequence[Any]) -> str:
        return json.dumps(values)

    def attempt_ids(self, connection: Line) -> Iterator[int]:
        if self._attempt_ids is None:
            last = max(row["id"] or 0 for row in connection.all(_LAST_ATTEMPTS))
            self._attempt_ids = itertools.count(1 + last)
        return self._attempt_ids

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        self._counts.update(counts)

    def counts(self) -> Mapping[tuple[str, str], int]:
        return {key: count for key, count in self._counts.items() if count > 0}

    def explain(self, error: BaseException) -> str:
        cause = getattr(error, "orig", error)
        number = disk.why(self.path.parent) if isinstance(cause, sqlite3.Error) else 0
        return f"{cause}: {os.strerror(number)}" if number else str(cause)

    def probe(self, connection: Line) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")  # writes the first page also if nothing changes

    def committed(self, connection: Line, now: int) -> str:
        self._numbered = self._numbering
        with suppress(OSError):  # what is committed stays so
            self._log = self._note(now)
        self._blocked_at = 0 if self._log.frames < self._blocked_at else self._blocked_at
        astray = self._given_back(connection)
        if self._place.in_place() and not self._suspect:
            return astray
        self._suspect = False
        return self._place.astray() or self._segments.astray()

    def lengthy(self) -> bool:
        return self._log.frames >= min(_CHECKPOINT, max(100, self._shares.log // 2 // FRAME))

    def shorten(self, connection: Line) -> None:
        """Not within COMMIT, as SQLite would: who is answered would wait for two fsyncs more."""
        with suppress(OSError, sqlite3.Error):
            frames = self._log.frames
            if (frames - self._blocked_at) * FRAME > self._shares.log:
                self._blocked_at = frames if self._blocked(connection) else 0
            else:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._log = self._note()

    def rescue(self, connection: Line) -> Line:
        gone, lost = self._place.astray(), self._segments.astray()
        if lost not in ("", "missing"):
            raise SpoolError(f"{self._segments.folder} is {lost}")
        if lost:
            with explained(self._segments.folder):
                self._lock = relock(self.path, self._lock)
                self._segments.write_back()
        return self._rescue(connection, gone) if gone or not lost else connection

    def _rescue(self, connection: Line, gone: str) -> Line:
        rescued = self.path.with_name(RESCUED)
        if gone not in ("missing", "log"):
            raise SpoolError(f"{self.path} is {gone}")
        if gone == "log":  # then all is in the file, whatever comes
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._check_room()
        with explained(self.path):
            self._lock = relock(self.path, self._lock)
            if not (key := self.path.with_name(vault.FILE)).exists():  # removed along with it
                write_whole(key, self._key)
            copy(connection, rescued)
            self._place.clear()
            if gone == "missing":
                os.link(rescued, self.path)  # unlike a rename it replaces nothing
                rescued.unlink()
                sync_folder(self.path.parent)
            else:
                publish(rescued, self.path)
        # SQLite sees that its file has another place, and leaves what is there now alone.
        connection.close()
        for part in (self._index, self._place, self._mark):
            part.close()
        self._place.open()
        self._mark.open()
        return self._connected()

    def _check_room(self) -> None:
        """Half a copy, made anew every second, would hold up everybody. Raises SpoolError, OSError."""
        found, needed = os.statvfs(self.path.parent), os.fstat(self._place.file).st_size
        if (free := found.f_bavail * found.f_frsize) < needed:
            raise SpoolError(f"no room to write {self.path} back: {needed} bytes are needed, {free} are free")

    def finish(self, connection: Line) -> None:
        with suppress(SpoolError, OSError, sqlite3.Error):  # it may be closed: broken, and not to be had again
            if self._place.astray() or self._segments.astray():
                connection = self.rescue(connection)
        all_copied = False
        with suppress(OSError, sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            log = self._index.read()
            if all_copied := log.copied == log.frames:
                self._mark.forget(self._place.file)
        tidy = self._all_given_back(connection)
        connection.close()
        if all_copied and self._whole and tidy:
            self._mark.stopped(self.path, self._place.file)

    def _note(self, now: int = 0) -> Log:
        """Whenever the log may have been copied: the next commit may write over what shows that."""
        log = self._index.read()
        self._mark.note(log, self._place.file, now)
        return log

    def _blocked(self, connection: sqlite3.Connection) -> bool:
        """Let the log begin anew; whether a reader that looks at it hinders that for longer than a moment."""
        connection.execute(f"PRAGMA busy_timeout={_MOMENT}")
        try:
            return bool(connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0])
        finally:
            connection.execute(f"PRAGMA busy_timeout={connecting.BUSY}")

    def relieve(self, connection: Line) -> str:
        found = os.statvfs(self.path.parent)  # knows of no quota of a user
        self._ballast.release()
        self._segments.begin()
        with suppress(OSError, sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._note()
        return "disk" if found.f_bavail * found.f_frsize < self._shares.log else "quota"

    def set_aside(self) -> int:
        return self._ballast.fill() or disk.why(self.path.parent)

    def space(self) -> Space:
        if astray := self._place.astray() or self._segments.astray():
            self._suspect = True
            return Space(0, 0, 0, astray=astray)
        folder, found = self.path.parent, os.statvfs(self.path.parent)
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as looking:
            unused = looking.execute("PRAGMA freelist_count").fetchone()[0] * _PAGE
        log, free = self._index.read(), found.f_bavail * found.f_frsize
        size, log_size, index = (disk.size(folder / f"{NAME}{ending}") for ending in ("", "-wal", "-shm"))
        held, growth = self._ballast.held, max(0, log.pages * _PAGE - size)
        return Space(
            # Not what an upgrade kept: no waiting makes that smaller.
            used=held + size + log_size + index + self._segments.used(),
            free=free,
            total=found.f_blocks * found.f_frsize,
            reusable=unused,
            owed=growth + max(0, self._shares.log - log_size),
            ballast=self._ballast.size,
            held=held,
            log=log_size + max(0, free - growth),
            blocked=self._blocked_at * FRAME,
        )

    def shrink(self, connection: Line) -> int:
        path, database = self.path, connection
        unused, pages = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
        used, before = (pages - unused) * _PAGE, disk.size(path)
        found = os.statvfs(path.parent)
        free = found.f_bavail * found.f_frsize - self._shares.log
        if unused * _PAGE < max(_MUCH, 3 * used) or used > min(_QUICK, free):
            return 0
        for step in ("PRAGMA temp_store=MEMORY", "VACUUM", "PRAGMA wal_checkpoint(RESTART)"):
            database.execute(step).fetchall()
        self._note()
        return before - disk.size(path)

    def copy(self, to: Path) -> None:
        with explained(to), self._segments.kept(), closing(self._looking()) as source:
            copy(source, to, self._segments.read)

    def _keep(self, to: Path) -> None:
        """As it is before an upgrade; what lies in segments stays there."""
        with explained(to), closing(self._looking()) as source:
            copy(source, to, tell=partial(self._progress.tell, "copying it"))

    def _looking(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)

    def _look_at_disk(self) -> None:
        """What is set aside. On a disk that is full already it is given up now: opening needs some room."""
        found = os.statvfs(self.path.parent)
        total = found.f_blocks * found.f_frsize
        reserve = int(self._reserve if self._reserve >= 1 else self._reserve * total)
        self._shares = Shares.of(min(total, self._most or total), reserve)
        self._ballast.size = self._shares.ballast
        if found.f_bavail * found.f_frsize < self._shares.log or not self._shares.ballast:
            self._ballast.release()

    def _connected(self) -> Line:
        connection = connecting.line(self.path)
        for pragma in (f"journal_size_limit={self._shares.log}", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        self._numbered = None  # a start writes nothing without need: the disk may be full
        try:
            self._join(connection)
        except BaseException:
            connection.close()
            raise
        connection.before = partial(self._begun, connection)
        return connection

    def _begun(self, connection: Line) -> None:
        """Raise the version in what the log holds beyond what was copied: by it the mark knows who copied that."""
        self._segments.begin()
        if self._numbered is None:
            return
        with suppress(OSError):
            log = self._index.read()
            self._numbering = log.salt, log.copied
        if self._numbering != self._numbered:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.execute(f"PRAGMA user_version = {version + 1}")
