"""The two ends of a copy (gateway.spool.moving) that are a database here. All of it blocks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Event
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from gateway.postgresql import schema, starting
from gateway.postgresql.link import Link, connect
from gateway.postgresql.server import Server
from gateway.spool.moving import LAYOUTS, Layout, Row, typed
from gateway.spool.opening import head
from gateway.spool.records import SpoolError

_TYPES = {bool: "bool", int: "int8", str: "text", bytes: "bytea"}
_AT_A_TIME = 1000  # rows
_OCTETS = 4_000_000  # of bodies at a time
_KEY = "spool.key"  # as agreed has it
_TIMEOUTS = ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout")
_PATIENCE, _PAUSE = 5, 0.1  # looks, and seconds between them
_NUMBERS = 1000  # attempts to a number of the sequence (engine)
# Of this database, and not our own: an instance that lives keeps such a lock, and says who it is.
_LIVING = """
SELECT DISTINCT coalesce(nullif(split_part(application_name, ' ', 2), ''), 'somebody') AS name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND (application_name LIKE 'gateway % %'
    OR pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory'))
ORDER BY name"""
_TIME = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS now"


class Database:
    """One of the two, within a transaction."""

    engine = "postgresql"
    uncounted = 0  # its time passes also while nobody uses it

    def __init__(self, name: str, connection: psycopg.Connection[Any]) -> None:
        self.name = name
        self._connection = connection
        self._now = int(self._one(_TIME)["now"])
        known = self._one("SELECT max(key) AS key FROM cluster")["key"]
        self.key = str(json.loads(known).get(_KEY, "")) if known else ""

    def now(self) -> int:
        return self._now

    @property
    def version(self) -> str:
        return self._connection.info.parameter_status("server_version") or ""

    def ask(self, statement: str) -> list[dict[str, Any]]:
        return list(self._connection.execute(statement.encode()).fetchall())

    def size(self) -> int:
        return int(self._one("SELECT pg_database_size(current_database()) AS n")["n"])

    def living(self) -> list[str]:
        return [row["name"] for row in self._connection.execute(_LIVING)]

    def count(self, table: str) -> int:
        return int(self._one(sql.SQL("SELECT count(*) AS n FROM {}").format(sql.Identifier(table)))["n"])

    def _one(self, statement: Any, *values: object) -> dict[str, Any]:
        found: dict[str, Any] = self._connection.execute(statement, values or None).fetchone() or {}
        return found

    def rows(self, layout: Layout, order: Sequence[str] = ()) -> Iterator[Row]:
        if layout.name == "body":
            yield from self._bodies(layout)
            return
        for row in self._read(_select(layout.columns, layout.name, order or layout.order)):
            yield typed(layout, tuple(row.values()), self.name)

    def _bodies(self, layout: Layout) -> Iterator[Row]:
        """As many at a time as there is room for."""
        ids: list[str] = []
        octets = 0
        for row in self._read(sql.SQL("SELECT message_id, octet_length(raw) AS size FROM body ORDER BY message_id")):
            if ids and (octets + row["size"] > _OCTETS or len(ids) >= _AT_A_TIME):
                yield from self._these(layout, ids)
                ids, octets = [], 0
            ids.append(row["message_id"])
            octets += row["size"]
        yield from self._these(layout, ids)

    def _these(self, layout: Layout, ids: list[str]) -> Iterator[Row]:
        asked = "SELECT message_id, raw FROM body WHERE message_id = ANY(%s) ORDER BY message_id"
        for row in self._connection.cursor(binary=True).execute(asked, (ids,)):
            yield typed(layout, tuple(row.values()), self.name)

    def _read(self, statement: sql.SQL | sql.Composed) -> Iterator[dict[str, Any]]:
        with self._connection.cursor(f"rows_{uuid4().hex}") as cursor:
            cursor.itersize = _AT_A_TIME
            yield from cursor.execute(statement, binary=True)

    def agree(self, key: str) -> None:
        """As the first instance would (agreed)."""
        if self.key and self.key != key:
            raise SpoolError(f"instances of the database {self.name} share another spool.key: make a new database")
        given = (json.dumps({_KEY: key}), self._now)
        self._connection.execute(
            "INSERT INTO cluster (id, key, made_at) VALUES (1, %s, %s) ON CONFLICT DO NOTHING", given
        )

    def write(self, layout: Layout, rows: Iterable[Row]) -> None:
        columns, kinds = list(layout.columns), [_TYPES[kind] for kind in layout.kinds]
        if body := layout.name == "body":
            columns, kinds = [*columns, "length"], [*kinds, "int8"]
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(layout.name), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(kinds)
            for row in rows:
                copy.write_row((*row, len(row[1])) if body else row)

    def complete(self) -> None:
        """What is counted up goes on behind what is there."""
        for layout in LAYOUTS.values():
            if not layout.counter:
                continue
            counted = self._one("SELECT pg_get_serial_sequence(%s, %s) AS name", layout.name, layout.counter)["name"]
            if counted is not None:
                last = sql.SQL("SELECT setval({}, max({}), TRUE) FROM {} HAVING max({}) > 0")
                column = sql.Identifier(layout.counter)
                self._connection.execute(last.format(sql.Literal(counted), column, sql.Identifier(layout.name), column))
        self._connection.execute(
            "SELECT setval('attempt_block', 1 + coalesce(max(n), 0) / %s) FROM (SELECT max(id) AS n FROM attempt"
            " UNION ALL SELECT max(attempt_id) FROM step UNION ALL SELECT max(attempt_id) FROM delivery) AS last",
            (_NUMBERS,),
        )
        self._connection.execute("ANALYZE")


def _select(columns: Sequence[str], table: str, order: Sequence[str]) -> sql.Composed:
    named, by = (sql.SQL(", ").join(map(sql.Identifier, names)) for names in (columns, order))
    return sql.SQL("SELECT {} FROM {} ORDER BY {}").format(named, sql.Identifier(table), by)


@contextmanager
def source(server: Server) -> Iterator[Database]:
    """As it is at one moment, and of nobody meanwhile. Raises SpoolError."""
    with _transaction(server, "BEGIN ISOLATION LEVEL REPEATABLE READ") as connection:
        _known(server, connection)
        yield Database(server.shown, connection)


@contextmanager
def looking(server: Server) -> Iterator[Database]:
    """As it is at one moment, also while instances use it; nothing is changed. Raises SpoolError."""
    try:
        with closing(connect(server, "look")) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _known(server, connection)
            yield Database(server.shown, connection)
    except psycopg.Error as error:
        raise starting.refused(server, error) from error


def _known(server: Server, connection: psycopg.Connection[Any]) -> None:
    """Raises SpoolError."""
    there = schema.current(Link(connection))
    if there is None:
        raise SpoolError(f"the database {server.shown} is empty: no instance has used it yet")
    if there != head():
        text = f"the database {server.shown} is of schema {there}, not {head()}"
        raise SpoolError(f"{text}: start an instance of this version, which upgrades it")


@contextmanager
def target(server: Server) -> Iterator[Database]:
    """Empty, and as it was unless this comes to its end. Raises SpoolError."""
    starting.check(server)
    with _transaction(server, "BEGIN") as connection:
        if schema.current(Link(connection)) is None:
            schema.create(Link(connection), server.shown)
        made = Database(server.shown, connection)
        for name in LAYOUTS:
            if number := made.count(name):
                text = f"the database {server.shown} is in use already: {number} rows are in table {name}"
                raise SpoolError(f"{text}; make a new one: createdb --owner ROLE NAME")
        yield made
        connection.execute("COMMIT")


@contextmanager
def _transaction(server: Server, begin: str) -> Iterator[psycopg.Connection[Any]]:
    """Undone unless it is committed. Nobody else makes tables, or joins, until it ends."""
    try:
        with closing(connect(server, "copy")) as connection:
            for name in _TIMEOUTS:  # the other side may be slow
                connection.execute("SELECT set_config(%s, '0', false)", (name,))
            connection.execute("SELECT pg_advisory_lock(%s)", (schema.LOCK,))
            _alone(server, connection)
            connection.execute(begin.encode())
            yield connection
    except psycopg.Error as error:
        raise starting.refused(server, error) from error


def _alone(server: Server, connection: psycopg.Connection[Any]) -> None:
    """Raises SpoolError. A session that has just ended is still seen for a moment."""
    for _ in range(_PATIENCE):
        if not (names := [row["name"] for row in connection.execute(_LIVING)]):
            return
        Event().wait(_PAUSE)
    raise SpoolError(f"somebody uses the database {server.shown}: {', '.join(names)}; stop every instance first")
