"""The tables in PostgreSQL: made at the newest schema, and brought up to it.

Text is ordered by its bytes, as in SQLite, so that an id is younger than another on both. Later schemas are the
migrations of gateway.spool with a text POSTGRESQL of their own; the first that PostgreSQL knew is 0012.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import BigInteger, Boolean, Column, Dialect, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from gateway.postgresql.link import Link
from gateway.spool.opening import head, revision, scripts
from gateway.spool.records import SpoolError
from gateway.spool.schema import METADATA

_FIRST = "0012"
LOCK = 0x67776D61  # of all who make or change the schema of one database
_SETTINGS = (
    "ALTER TABLE body ALTER COLUMN raw SET STORAGE EXTERNAL",  # so that slices of it can be read
    *(
        f"ALTER TABLE {name} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, "
        "autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05)"
        for name in ("message", "recipient", "delivery", "body", "attempt")
    ),
    "ALTER TABLE instance SET (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE backend SET (fillfactor = 50)",
    "CREATE SEQUENCE attempt_block",
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
)


# Tables of which no statistics tell (pg_upgrade and pg_restore bring none), or those of a time when they were small.
_UNKNOWN = """
SELECT c.relname AS name FROM pg_class AS c
WHERE c.relkind = 'r' AND c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relname = ANY(%(names)s)
    AND pg_relation_size(c.oid) > 262144 AND (
        pg_relation_size(c.oid) > 2 * CAST(c.relpages AS BIGINT) * CAST(current_setting('block_size') AS INT)
        OR NOT EXISTS (
            SELECT 1 FROM pg_stats AS s WHERE s.schemaname = current_schema() AND s.tablename = c.relname))"""


def analyse(link: Link) -> None:
    """Where the server would not know by which index to go: each settlement would look through whole tables. Not in a
    transaction. Raises psycopg.Error."""
    for row in link.all(_UNKNOWN, {"names": sorted(METADATA.tables)}):
        with suppress(psycopg.errors.LockNotAvailable):  # somebody else is at it
            link.all(f'ANALYZE "{row["name"]}"')


def bring_up(link: Link, where: str) -> None:
    """Make what is missing, in one transaction, one instance after another. Raises SpoolError, psycopg.Error."""
    known = [revision(script) for script in scripts()]
    with link.begin():
        link.all("SELECT pg_advisory_xact_lock(%(key)s)", {"key": LOCK})
        found = current(link)
        if found is None:
            create(link, where)
        elif found not in known:
            text = f"the database {where} was written by a newer version (schema {found}, this one knows {known[-1]})"
            raise SpoolError(f"{text}: upgrade this instance, too")
        elif found < known[-1]:
            _upgrade(link, known[known.index(found) + 1 :])


def current(link: Link) -> str | None:
    """The schema that is there, None where there is none."""
    if not link.all("SELECT to_regclass('alembic_version') AS name")[0]["name"]:
        return None
    rows = link.all("SELECT version_num FROM alembic_version")
    return str(rows[0]["version_num"]) if rows else None


def create(link: Link, where: str) -> None:
    """In the transaction that is open, of the newest schema. Raises SpoolError where that cannot be the spool."""
    if link.all("SELECT to_regclass('message') AS name")[0]["name"]:
        text = f"the database {where} has a table message, but is no spool of gateway"
        raise SpoolError(f"{text}: make a database of its own: createdb --owner ROLE NAME")
    for statement in (*statements(), *_SETTINGS):
        link.all(statement.replace("%", "%%"))
    link.all("INSERT INTO alembic_version VALUES (%(version)s)", {"version": head()})


def _upgrade(link: Link, versions: Sequence[str]) -> None:
    for script in scripts():
        if revision(script) in versions:
            for statement in runpy.run_path(str(script))["POSTGRESQL"].split(";"):
                link.all(statement.replace("%", "%%"))
    link.all("UPDATE alembic_version SET version_num = %(version)s", {"version": versions[-1]})


@cache
def statements() -> tuple[str, ...]:
    """That make all tables and indexes."""
    metadata, texts = MetaData(), list[str]()
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for name in sorted(METADATA.tables):
        table = METADATA.tables[name].to_metadata(metadata)
        for column in table.columns:
            _retype(column)
        texts.append(str(CreateTable(table).compile(dialect=dialect)))
        texts += _indexes(table, dialect)
    return tuple(texts)


def _retype(column: Column[Any]) -> None:
    if isinstance(column.type, Boolean | LargeBinary):
        return
    column.type = BigInteger() if isinstance(column.type, Integer) else Text(collation="C")


def _indexes(table: Table, dialect: Dialect) -> list[str]:
    made = []
    for index in sorted(table.indexes, key=lambda one: str(one.name)):
        where = index.dialect_options["sqlite"]["where"]
        index.dialect_options["postgresql"]["where"] = where
        made.append(str(CreateIndex(index).compile(dialect=dialect)))
    return made
