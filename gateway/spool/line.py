"""The connection that writes to the spool's file: the driver's own, for nothing stands between it and a group."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

# Rows in one statement. For each that it runs the driver gives up the interpreter, which a busy loop then has.
_CHUNKS = (64, 32, 16, 8, 4, 2, 1)
_HEAVY = 16 * 1024  # bytes: a statement keeps a copy of what it was given last
_VALUES = re.compile(r"\bVALUES (\([^()]*\))", re.ASCII)


class Line(sqlite3.Connection):
    """Of one thread at a time. ``before`` runs within each transaction before all else, ``last`` before its commit."""

    before: Callable[[], None] | None = None
    last: Callable[[], None] | None = None

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Taken at once, so that a wait for a lock is never a failure; undone whole by whatever is raised."""
        self.execute("BEGIN IMMEDIATE")
        try:
            if self.before is not None:
                self.before()
            yield
            if self.last is not None:
                self.last()
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # SQLite undoes some by itself
                with suppress(sqlite3.Error):
                    self.execute("ROLLBACK")
            raise

    def all(self, statement: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[dict[str, Any]]:
        cursor = self.execute(statement, values)
        if cursor.description is None:
            return []
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def many(self, statement: str, rows: Sequence[Any]) -> None:
        """The same for each row. Rows of ``VALUES`` with places for tuples go in many at a time, except heavy ones."""
        if len(rows) == 1 or not isinstance(rows[0], tuple) or not _VALUES.search(statement) or _heavy(rows):
            self.executemany(statement, rows)
            return
        at = 0
        while at < len(rows):
            size = next(n for n in _CHUNKS if n <= len(rows) - at)
            self.execute(_several(statement, size), [value for row in rows[at : at + size] for value in row])
            at += size


def _heavy(rows: Sequence[tuple[Any, ...]]) -> bool:
    blobs = [n for n, value in enumerate(rows[0]) if isinstance(value, bytes)]
    return any(len(row[n] or b"") > _HEAVY for n in blobs for row in rows)


@lru_cache(maxsize=256)
def _several(statement: str, rows: int) -> str:
    return _VALUES.sub(lambda found: f"VALUES {', '.join([found[1]] * rows)}", statement, count=1)
