"""The spool in a database: what its condition comes to, and that a real one can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.config.models import SpoolSettings
from gateway.doctor.database import judge, look
from gateway.doctor.machine import judge as judge_machine
from gateway.postgresql import condition
from gateway.postgresql.engine import Postgres
from gateway.postgresql.server import Server
from tests import postgres_kit
from tests.doctor.kit import settings
from tests.doctor.test_machine import WELL

GOOD = condition.Condition(
    version="15.18", vacuums=True, naptime=10, synchronous=False, replicas=0, spare=90, instances=2
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"database_good": "good"}),
        ({"oldest": 601, "who": "pg_dump", "pid": 7}, {"database_snapshot": "warn"}),
        ({"naptime": 60}, {"database_vacuum": "note", "database_good": "good"}),
        ({"vacuums": False}, {"database_vacuum": "warn"}),
        ({"replicas": 1}, {"database_replicas": "warn"}),
        ({"replicas": 1, "synchronous": True}, {"database_good": "good"}),
        ({"spare": 7}, {"database_connections": "warn"}),
    ],
)
def test_what_a_condition_comes_to(changes: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    found = list(judge(replace(GOOD, **changes)))
    assert {one.key: one.level for one in found} == expected
    assert all(one.fix and one.paste for one in found if one.level in ("bad", "warn"))


async def test_a_real_one_is_asked(tmp_path: Path) -> None:
    """By the settings alone; who holds a snapshot is named with his process. One that is away is said to be."""
    with postgres_kit.database() as url:
        engine = Postgres(Server(url, "a", timedelta(seconds=10), durable=False))
        engine.finish(engine.open())
        with psycopg.connect(url, application_name="report") as other:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT 1")
            found = condition.look(Server(url, "a", timedelta(seconds=10)))
            assert (found.instances, found.replicas, found.who) == (1, 0, "report")
            assert found.pid == other.info.backend_pid
        told = settings(tmp_path)().settings.model_copy(update={"spool": SpoolSettings(url=url)})
        assert {one.key for one in await look(told)} == {"database_vacuum"}  # the tests' own has none
    (away,) = await look(told)
    assert (away.key, away.level) == ("database_silent", "bad")


def test_what_the_machine_keeps_beside_a_database(tmp_path: Path) -> None:
    """Keys: their disk need not have room for mail, but must not go with a restart."""
    told = settings(tmp_path)().settings.model_copy(update={"spool": SpoolSettings(url="postgresql://db")})
    for changes, key in (
        ({"free": 9 * 10**9}, "disk_good"),
        ({"kind": "tmpfs"}, "disk_kind"),
        ({"inodes": 0}, "disk_low"),
    ):
        found = {one.key: one for one in judge_machine(replace(WELL, **changes), told, runs=True)}
        assert key in found
        assert "spool.key" in found["backup_unseen"].paste
