"""A database of an older schema is brought up to the newest, by the first instance that knows it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from gateway.postgresql import schema
from gateway.postgresql.link import Link, writing
from gateway.spool.opening import head
from tests import postgres_kit
from tests.postgresql.test_engine import server_of

_COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"""
# What later schemas have made is undone: a migration adds its line here.
_FIRST = """
DROP TABLE membership;
ALTER TABLE act DROP COLUMN tenant;
ALTER TABLE signin DROP COLUMN tenant;
DROP TABLE asked;
ALTER TABLE backend DROP COLUMN wanted;
INSERT INTO backend (name, number, paused, paused_since, paused_by) VALUES ('b', 1, TRUE, 0, 'anna');
UPDATE alembic_version SET version_num = '0012'"""


def columns(link: Link) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in link.all(_COLUMNS)]


def test_a_database_of_the_first_schema_becomes_as_a_new_one() -> None:
    """What stands in it stays."""
    with postgres_kit.database() as url, closing(writing(server_of(url))) as link:
        schema.bring_up(link, "here")
        new = columns(link)
        for statement in _FIRST.split(";"):
            link.all(statement)
        assert columns(link) != new
        for _ in range(2):  # the second time there is nothing to do
            schema.bring_up(link, "here")
            assert columns(link) == new
            assert schema.current(link) == head()
        assert link.all("SELECT paused_by, wanted FROM backend") == [{"paused_by": "anna", "wanted": ""}]
