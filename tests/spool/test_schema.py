"""Migrations: what they make of a file is what the tables say, nothing in it is lost, and a kill undoes all of it."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from gateway.spool import Filter, SpoolError, opening
from gateway.spool.progress import Progress
from gateway.spool.records import micros
from gateway.spool.schema import METADATA
from tests.builders import RAW
from tests.fakes import START
from tests.spool.test_open import child
from tests.spool_kit import made, opened, peer

Schema = tuple[dict[str, object], dict[str, object]]
VERSIONS = opening.MIGRATIONS / "versions"
HEAD = max(file.name[:4] for file in VERSIONS.glob("[0-9]*.py"))
NEXT_ONE = f"{int(HEAD) + 1:04}"


def later_than(revision: str) -> Callable[[object, list[str]], set[str]]:
    """For copytree: what a version with this schema did not have."""
    return lambda folder, names: {name for name in names if name == "__pycache__" or revision < name[:4] < "1"}


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
    METADATA.create_all(engine)
    engine.dispose()
    return schema(path)


def of_old(directory: Path) -> None:
    """A new spool of the schema that the migrations say, which today's code need not understand."""
    opening.prepare(directory / "spool.db", lambda _: None, untouched=False, progress=Progress())


def test_a_new_spool_has_the_declared_schema(tmp_path: Path) -> None:
    """Tables, columns, keys, checks and indexes: none forgotten in a migration."""
    made(tmp_path)
    assert schema(tmp_path / "spool.db") == declared(tmp_path / "declared.db")


def test_a_spool_of_the_first_version_becomes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened by today's code it is like a new one."""
    scripts = tmp_path / "migrations"
    shutil.copytree(opening.MIGRATIONS, scripts, ignore=later_than("0001"))
    with monkeypatch.context() as first:
        first.setattr(opening, "MIGRATIONS", scripts)
        of_old(tmp_path)
    assert "event" not in schema(tmp_path / "spool.db")[0]
    made(tmp_path)
    assert schema(tmp_path / "spool.db") == declared(tmp_path / "declared.db")


def test_alembic_knows_the_migrations_by_the_names_of_their_files(tmp_path: Path) -> None:
    """A new spool is made of their texts without alembic, and says of itself what alembic would."""
    config = Config()
    config.set_main_option("script_location", str(opening.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    files = sorted(file.name[:4] for file in (opening.MIGRATIONS / "versions").glob("*.py"))
    assert [script.revision for script in scripts.walk_revisions()] == files[::-1]
    made(tmp_path)
    assert peer(tmp_path, "SELECT version_num FROM alembic_version") == [(scripts.get_current_head(),)]


OLD = """
INSERT INTO message VALUES
    ('M1', 'queued', 's@x', 's@x', '<1@x>', 'a@x', 'c', '', '', '', '', '', '', 0, 0, 0, 0, 0, 9, 9, :now, :later, NULL,
     'attachments', NULL),
    ('M2', 'done', 's@x', 's@x', '<2@x>', 'a@x', 'c', '', '', '', '', '', '', 0, 0, 0, 0, 0, 9, 9, :now, :later, :now,
     '?', NULL);
INSERT INTO recipient VALUES
    ('M1', 'b@x', 0, 'b@x', 'b', 'queued', '', '', '', NULL, '', '', '', :now),
    ('M2', 'b@x', 0, 'b@x', 'b', 'sent', '', '', 'sent', 250, '2.0.0', 'ok', 'r1', :now);
INSERT INTO delivery VALUES (1, 'M1', 'b', 'queued', :now, :now, 0, 0, 0), (2, 'M2', 'b', 'done', :now, :now, 1, 0, 0);
INSERT INTO attempt VALUES (1, 'M2', 2, 'b', '["b@x"]', :now, :now, 'sent', 250, '2.0.0', 'ok', 'r1');
INSERT INTO progress VALUES (1, 'M2', 'b', '', 'r1', 'queued', 'still waiting', :now, 'k', 'poll');
INSERT INTO question VALUES ('M2', 'b', 'r1', :later, 2)
"""


async def test_what_an_older_version_wrote_is_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema 0003 to 0004: what it called otherwise has its new name, what it did not know is empty."""
    scripts = tmp_path / "migrations"
    shutil.copytree(opening.MIGRATIONS, scripts, ignore=later_than("0003"))
    state, later = tmp_path / "state", START + timedelta(days=5)
    state.mkdir()
    with monkeypatch.context() as older:
        older.setattr(opening, "MIGRATIONS", scripts)
        of_old(state)
    with closing(sqlite3.connect(state / "spool.db")) as connection, connection:
        for statement in OLD.split(";"):
            connection.execute(statement, {"now": micros(START), "later": micros(later)})
    async with opened(state) as at:
        (delivery,) = await at.waiting()
        assert delivery.message.features == {"attachments": ""}
        assert (delivery.message.authors, delivery.message.own_token) == (("a@x",), False)
        detail = await at.show("M2")
        assert [(row.remote_id, row.detail, row.reported_at) for row in detail.events] == [
            ("r1", "still waiting", START)
        ]
        flow = await at.spool.flow(START, 24, timedelta(hours=1))  # so that it adds up from the first hour on
        assert (flow.total.accepted, flow.total.sent, flow.before) == (2, 1, 0)
        said = [(row.verdict, row.scope, row.said_by, row.fix) for row in (*detail.attempts, *detail.recipients)]
        assert said == [("sent", "", "", "")] * 2
        assert [(poll.remote_id, poll.next_at, poll.asked) for poll in await at.spool.polls("b", 9)] == [
            ("r1", later, 2)
        ]
        for found in (Filter(recipient="b@x"), Filter(recipient="x"), Filter(sender="s"), Filter(client="c")):
            assert [row.id for row in await at.spool.find(found)] == ["M2", "M1"]


NEXT = """
import os, signal
from alembic import op
revision = "{next}"
down_revision = "{head}"
def upgrade():
    op.execute("ALTER TABLE message ADD COLUMN colour VARCHAR NOT NULL DEFAULT 'blue'")
    {then}
    op.execute("CREATE TABLE paint (id INTEGER NOT NULL PRIMARY KEY)")
"""


def newer_code(directory: Path, then: str) -> Path:
    """Our migrations and one more."""
    scripts = directory / "migrations"
    shutil.rmtree(scripts, ignore_errors=True)
    shutil.copytree(opening.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"{NEXT_ONE}_next.py").write_text(NEXT.format(head=HEAD, next=NEXT_ONE, then=then))
    return scripts


UPGRADE = """
import asyncio, sys
from pathlib import Path
from gateway.spool import opening
from tests.spool_kit import opened
opening.MIGRATIONS = Path(sys.argv[2])
async def main():
    async with opened(Path(sys.argv[1])):
        pass
asyncio.run(main())
"""


async def test_a_kill_in_mid_migration_undoes_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old code still opens it, new code upgrades it with every message, and a copy of before is kept."""
    state = tmp_path / "state"
    async with opened(state) as at:
        ident = await at.put()
    with child(UPGRADE, state, newer_code(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")) as upgrade:
        assert upgrade.wait() == -9
    async with opened(state) as at:
        assert await at.spool.raw(ident) == RAW
    monkeypatch.setattr(opening, "MIGRATIONS", newer_code(tmp_path, "pass"))
    for _ in range(2):  # the second time there is nothing to do
        async with opened(state) as at:
            assert await at.spool.raw(ident) == RAW
            assert peer(state, "SELECT colour FROM message") == [("blue",)]
    monkeypatch.undo()
    with pytest.raises(SpoolError, match="newer version"):
        async with opened(state):
            pass
    (tmp_path / "old").mkdir()
    shutil.copy(state / f"spool.db.before-{NEXT_ONE}", tmp_path / "old" / "spool.db")
    async with opened(tmp_path / "old") as at:
        assert await at.spool.raw(ident) == RAW


async def test_the_copy_of_before_leaves_the_upgrade_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that has room for one of them it is the upgrade: without it there is no start."""
    async with opened(tmp_path / "state") as at:
        ident = await at.put()
    usage = shutil.disk_usage(tmp_path)
    size = (tmp_path / "state" / "spool.db").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(1.9 * size)))
    monkeypatch.setattr(opening, "MIGRATIONS", newer_code(tmp_path, "pass"))
    async with opened(tmp_path / "state") as at:
        assert await at.spool.raw(ident) == RAW
    assert not list((tmp_path / "state").glob("*.before-*"))


async def test_a_failed_migration_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays as it was."""
    async with opened(tmp_path / "state"):
        pass
    monkeypatch.setattr(opening, "MIGRATIONS", newer_code(tmp_path, "op.execute('INSERT INTO nowhere VALUES (1)')"))
    with pytest.raises(SpoolError, match="no such table: nowhere"):
        async with opened(tmp_path / "state"):
            pass
    monkeypatch.undo()
    async with opened(tmp_path / "state") as at:
        await asyncio.gather(at.put(), at.put())
