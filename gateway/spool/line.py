"""The connection that writes to the spool's file: the driver's own, for nothing stands between it and a group."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from gateway.spool import rows as rows_of


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
        if rows_of.alone(statement, rows):
            self.executemany(statement, rows)
            return
        for text, values in rows_of.together(statement, rows):
            self.execute(text, values)
