"""What the migrations make of a file is what the tables in the code say."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlmodel import SQLModel

from gateway.spool import sqlite
from tests.spool_kit import made

Schema = tuple[dict[str, object], dict[str, object]]


def schema(path: Path) -> Schema:
    """Columns of each table by name (type, NOT NULL, default, key), its checks; how each index was made."""
    with closing(sqlite3.connect(path)) as file:
        made = file.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'").fetchall()
        tables = {
            name: {
                "columns": {row[1]: row[2:] for row in file.execute(f"PRAGMA table_info({name})")},
                "clustered": "WITHOUT ROWID" in sql,
                "checks": re.findall(r"CHECK \((.*?\))\)", sql),
            }
            for kind, name, sql in made
            if kind == "table"
        }
        indexes = {name: " ".join(sql.replace('"', "").split()) for kind, name, sql in made if kind == "index" and sql}
    return tables, indexes


def declared(path: Path) -> Schema:
    engine = create_engine(f"sqlite:///{path}")
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    return schema(path)


def test_a_new_spool_has_the_declared_schema(tmp_path: Path) -> None:
    """Tables, columns, keys, checks and indexes: none forgotten in a migration."""
    made(tmp_path)
    assert schema(tmp_path / "spool.db") == declared(tmp_path / "declared.db")


def test_a_spool_of_the_first_version_becomes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened by today's code it is like a new one."""
    scripts = tmp_path / "migrations"
    shutil.copytree(sqlite.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__", "000[2-9]*"))
    with monkeypatch.context() as first:
        first.setattr(sqlite, "MIGRATIONS", scripts)
        made(tmp_path)
    assert "event" not in schema(tmp_path / "spool.db")[0]
    made(tmp_path)
    assert schema(tmp_path / "spool.db") == declared(tmp_path / "declared.db")
