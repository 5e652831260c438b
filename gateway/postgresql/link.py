"""The connection that writes: of one thread at a time, with the word of the server on each commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import DictRow, dict_row
from psycopg.types.string import StrBinaryDumper, StrDumper

from gateway.postgresql.server import Server
from gateway.postgresql.terms import TERMS
from gateway.spool import rows as rows_of

_AT_A_TIME = range(64, 0, -1)  # rows: each statement costs a way to the server and back
_PREPARED = 500  # statements: each text is another, and so is each number of rows
_DURABLE = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"""


class Unwitnessed(Exception):
    """Whoever commits must be able to find out later that he did."""


class Link:
    """``before`` is what each transaction begins with, on the same way to the server; it has to change one row."""

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._connection = connection
        self.before: Callable[[], str] | None = None

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Raises Unwitnessed, with nothing done."""
        connection = self._connection
        text = f"BEGIN; {self.before()}" if self.before else "BEGIN"
        try:
            opening = connection.execute(text.encode(), prepare=False)
            while opening.nextset():
                pass
            if self.before and opening.rowcount != 1:
                raise Unwitnessed("this instance is taken for dead, and has not joined anew yet")
            yield
            connection.execute("COMMIT", prepare=False)
        except BaseException:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK", prepare=False)
            raise

    def all(self, statement: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> Sequence[DictRow]:
        cursor = self._connection.execute(statement, values)
        return cursor.fetchall() if cursor.description is not None else []

    def many(self, statement: str, rows: Sequence[Any]) -> None:
        """The same for each row. Rows of ``VALUES`` with places for tuples go in many at a time, except heavy ones."""
        if len(rows) == 1:
            self._connection.execute(statement, rows[0])
        elif rows_of.alone(statement, rows):
            with self._connection.cursor() as cursor:
                cursor.executemany(statement, rows)
        else:  # not in a pipeline: no server ends the transaction of one who freezes in the middle of it
            for text, values in rows_of.together(statement, rows, _AT_A_TIME):
                self._connection.execute(text, values)

    @property
    def lost(self) -> bool:
        return self._connection.closed or self._connection.broken

    def close(self) -> None:
        self._connection.close()


class _Text(StrDumper):
    """Text of strangers may hold a NUL, which no text has here."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


class _BinaryText(_Text, StrBinaryDumper):
    pass


class _Number(Loader):
    """No column is a ``numeric``; a sum of whole numbers is, and is one, too."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data).decode()
        return float(text) if "." in text else int(text)


def adapt(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Values are what they are with SQLite."""
    for dumper in (_BinaryText, _Text):
        connection.adapters.register_dumper(str, dumper)
    connection.adapters.register_loader("numeric", _Number)


def connect(server: Server, role: str, *options: str) -> psycopg.Connection[DictRow]:
    """Raises psycopg.Error."""
    made = psycopg.connect(server.conninfo(role), autocommit=True, row_factory=dict_row)
    try:
        made.prepared_max = _PREPARED
        adapt(made)
        for option in (TERMS, *options):
            made.execute(option)
    except BaseException:
        made.close()
        raise
    return made


def writing(server: Server) -> Link:
    """What it waits for has an end, and so has what others wait for because of it. Raises psycopg.Error."""
    rest = int(server.failover.total_seconds() * 1000)
    return Link(
        connect(
            server,
            "writer",
            f"SET idle_in_transaction_session_timeout = {rest}",
            _DURABLE,
        )
    )
