"""Whether a group took place whose answer to COMMIT was lost: asked of the run that made it, and never guessed."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from gateway.postgresql.engine import Postgres
from gateway.postgresql.link import Link, Unwitnessed
from gateway.postgresql.server import Server
from tests import postgres_kit
from tests.fakes import FakeClock

_AT_WORK = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


class _Fleeting(FakeClock):
    """40 seconds pass between two looks."""

    looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        self.advance(40)
        return super().monotonic()


def engine(url: str, failover: timedelta = timedelta(seconds=2), clock: FakeClock | None = None) -> Postgres:
    return Postgres(Server(url, "a", failover, durable=False), clock=clock)


def groups(link: Link, count: int) -> None:
    for _ in range(count):
        with link.begin():
            pass


def test_another_run_of_the_name_is_no_witness_of_ours() -> None:
    """A frozen twin wakes up, and the new run has come to the same number: his group did not take place."""
    with postgres_kit.database() as url, closing(engine(url)) as frozen, psycopg.connect(url, autocommit=True) as own:
        groups(frozen.open(), 1)
        assert frozen.resume(made=True)[1] is True
        own.execute("UPDATE instance SET started_at = started_at + 1")
        link, took_place = frozen.resume(made=True)
        assert took_place is False
        with pytest.raises(Unwitnessed), link.begin():
            raise AssertionError("nothing may be done in it")


async def test_a_session_that_is_still_in_its_commit_is_waited_for() -> None:
    """It waits for a replica, and its connection is gone: whoever asked too soon would do the same once more."""
    with postgres_kit.database() as url, closing(engine(url)) as ours, psycopg.connect(url) as old:
        groups(ours.open(), 1)
        old.execute("UPDATE instance SET groups = groups - 1")
        old.commit()
        old.execute("UPDATE instance SET groups = groups + 1")  # as the last group did
        asking = asyncio.create_task(asyncio.to_thread(ours.resume, made=True))
        with psycopg.connect(url, autocommit=True) as looking:
            while not (asking.done() or looking.execute(_AT_WORK).fetchall()):
                await asyncio.sleep(0.01)
        assert not asking.done()
        old.commit()
        assert (await asking)[1] is True


async def test_a_stop_waits_for_no_database() -> None:
    """Though it might come back: a service that does not end is killed."""
    with postgres_kit.cluster() as server:
        ours = engine(server.url("postgres"), timedelta(minutes=5))
        groups(ours.open(), 1)
        server.stop()
        waiting = asyncio.create_task(asyncio.to_thread(ours.resume, made=True))
        ours.hasten()
        with pytest.raises(psycopg.OperationalError):
            await waiting
        ours.close()


def test_the_wait_ends_by_the_clock() -> None:
    """Not by counting tries, each of which may take seconds where nobody answers."""
    with postgres_kit.cluster() as server:
        clock = _Fleeting()
        ours = engine(server.url("postgres"), timedelta(minutes=5), clock)
        groups(ours.open(), 1)
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            ours.resume(made=True)
        assert clock.looks == 3  # at the start, after 40 s and after 80
        ours.close()
