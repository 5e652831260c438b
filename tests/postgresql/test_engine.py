"""The spool on PostgreSQL where the connection or the server fails: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from os import urandom
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from gateway.clock import SystemClock
from gateway.events import Events
from gateway.model import SpoolFull, SpoolUnavailable
from gateway.postgresql.engine import Postgres
from gateway.postgresql.link import connect, writing
from gateway.postgresql.server import Server
from gateway.postgresql.session import Session
from gateway.spool import Notice, Spool, SpoolError
from tests import postgres_kit
from tests.builders import NO_USER
from tests.fakes import until
from tests.postgresql.proxy import Proxy, proxy
from tests.spool_kit import message, settlement

LEASE = timedelta(minutes=5)
SURELY = timedelta(seconds=10)  # how much two machines may differ about now for a moment


def server_of(url: str, instance: str = "a", *, durable: bool = False) -> Server:
    return Server(url, instance, timedelta(seconds=2), durable=durable)


@asynccontextmanager
async def opened(url: str, instance: str = "a", most: int | None = None) -> AsyncIterator[Spool]:
    with tempfile.TemporaryDirectory() as folder:
        events = Events(level="error")
        engine = Postgres(server_of(url, instance))
        spool = await Spool.open(Path(folder), SystemClock(), engine=engine, events=events, reserve=0.1, most=most)
        try:
            yield spool
        finally:
            await spool.aclose()
            events.close()


@contextmanager
def between() -> Iterator[tuple[Proxy, str]]:
    """A proxy before a database of its own, and the URL that leads through it."""
    own = postgres_kit.shared().folder
    with (
        postgres_kit.database() as url,
        tempfile.TemporaryDirectory() as folder,
        proxy(Path(folder), own) as made,
    ):
        yield made, url.replace(str(own), folder)


async def test_mail_goes_in_and_out() -> None:
    """Put, claimed with its bytes, settled; a large body comes in slices and is the same."""
    with postgres_kit.database() as url:
        async with opened(url) as spool:
            small, large = message(), message(raw=b"Subject: large\r\n\r\n" + b"0123456789" * 300_000)
            await spool.put(small, large)
            assert spool.counts() == {("b", "queued"): 2}
            taken = await spool.claim("b", now=spool.now(), lease=LEASE, limit=10, eager=1000)
            assert taken.bodies == {small.id: small.raw}
            assert await spool.bodies([small.id, large.id]) == {small.id: small.raw, large.id: large.raw}
            for claim in taken.claims:
                await spool.settle(settlement(claim))
            assert await spool.states([small.id, large.id]) == {small.id: "done", large.id: "done"}
            assert spool.counts() == {}


@pytest.mark.parametrize("after", [True, False])
async def test_an_answer_to_commit_that_is_lost_costs_nothing(after: bool) -> None:
    """Whether the database has committed the group or has not: it is there once, and its client hears 250."""
    with between() as (broken, url):
        async with opened(url) as spool:
            one, other = message(), message()
            await spool.put(one)
            broken.break_at(b"COMMIT", after=after)
            await spool.put(other)
            assert broken.broken == 1
            assert spool.counts() == {("b", "queued"): 2}
            assert {row.id for row in await spool.find()} == {one.id, other.id}
            assert spool.writable()


async def test_a_session_that_is_ended_is_replaced() -> None:
    """An administrator or a firewall ends all of them: who comes next notices nothing."""
    with postgres_kit.database() as url:
        async with opened(url) as spool:
            one, other = message(), message()
            await spool.put(one)
            postgres_kit.shared().cut(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
            await spool.put(other)
            assert {row.id for row in await spool.find()} == {one.id, other.id}


async def test_a_server_that_is_away_is_waited_for_and_then_mail_is_refused() -> None:
    """A restart costs nobody anything. Away for longer, it is 451 for who writes and looks, and all right when it is
    back."""
    with postgres_kit.cluster() as server:
        server.create("spool")
        async with opened(server.url("spool")) as spool:
            before, meanwhile, refused, later = message(), message(), message(), message()
            await spool.put(before)
            server.crash()
            putting = asyncio.ensure_future(spool.put(meanwhile))
            await asyncio.sleep(0)
            server.start()
            await putting
            server.stop()
            for asked in (spool.put(refused), spool.find()):
                with pytest.raises(SpoolUnavailable):
                    await asked
            assert not spool.writable()
            server.start()
            await spool.put(later)
            assert spool.writable()
            assert {row.id for row in await spool.find()} == {before.id, meanwhile.id, later.id}


async def test_two_instances_settle_one_message_at_once() -> None:
    """Each has a part of it: its state follows from both, whoever commits last."""
    with postgres_kit.database() as url:
        async with opened(url) as first, opened(url, "b") as second:
            for _ in range(20):
                both = message(
                    "a@example.org", "b@example.org", deliveries={"b": ("a@example.org",), "c": ("b@example.org",)}
                )
                await first.put(both)
                claims = [
                    (spool, (await spool.claim(name, now=spool.now() + SURELY, lease=LEASE, limit=1)).claims[0])
                    for spool, name in ((first, "b"), (second, "c"))
                ]
                await asyncio.gather(*(spool.settle(settlement(claim)) for spool, claim in claims))
                assert await first.states([both.id]) == {both.id: "done"}


async def test_one_time_for_all_and_no_number_twice() -> None:
    """Due times are of the database's time; attempts of two instances never have the same number."""
    with postgres_kit.database() as url:
        async with opened(url) as first, opened(url, "b") as second:
            assert abs(first.now() - second.now()) < timedelta(seconds=1)
            await first.put(*(message() for _ in range(4)))
            taken = [
                claim.attempt_id
                for spool in (first, second, first, second)
                for claim in (await spool.claim("b", now=spool.now(), lease=LEASE, limit=1)).claims
            ]
            assert len(set(taken)) == 4


REFUSED = [
    ("postgresql://postgres@/none?host={folder}", 'database "none" does not exist; make it on the server: createdb'),
    ("postgresql://nobody@/postgres?host={folder}", 'role "nobody" does not exist; make it on the server: createuser'),
    ("postgresql://postgres@/postgres?host=/nowhere", "No such file .*; check the host and port in spool.url"),
    ("postgresql://postgres@127.0.0.1:1/postgres", "Connection refused.*; check the host and port in spool.url"),
]


@pytest.mark.parametrize(("url", "words"), REFUSED)
async def test_what_cannot_be_the_spool_is_refused_with_the_fix(url: str, words: str) -> None:
    with pytest.raises(SpoolError, match=words):
        async with opened(url.format(folder=postgres_kit.shared().folder)):
            pass


async def test_a_server_that_could_lose_mail_is_refused() -> None:
    """fsync off; and one of somebody else's tables, or of a newer version."""
    with postgres_kit.database() as url:
        with pytest.raises(SpoolError, match=r"fsync is off there, .*: ALTER SYSTEM SET fsync = on"):
            Postgres(server_of(url, durable=True)).open()
        with psycopg.connect(url) as own:
            own.execute("CREATE TABLE message (id int)")
        with pytest.raises(SpoolError, match="has a table message, but is no spool"):
            Postgres(server_of(url)).open()
    with postgres_kit.database() as url:
        async with opened(url):
            pass
        with psycopg.connect(url) as own:
            own.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SpoolError, match=r"written by a newer version \(schema 9999"):
            Postgres(server_of(url)).open()


# What others set for the server, a database or a role, with their own programs in mind; and what it has to be.
ODD = [
    ("default_transaction_isolation", "serializable", "read committed"),
    ("client_encoding", "SQL_ASCII", "UTF8"),
    ("statement_timeout", "1min", "0"),
    ("lock_timeout", "1min", "5s"),
    ("idle_session_timeout", "1min", "0"),
    ("idle_in_transaction_session_timeout", "1min", "0"),
    ("standard_conforming_strings", "off", "on"),
]
OURS = {"writer": ("idle_in_transaction_session_timeout",)}
OURS["member"] = (*OURS["writer"], "idle_session_timeout", "lock_timeout")


async def test_what_is_set_for_other_programs_does_not_concern_us() -> None:
    """Neither the connection that writes, nor those that read, nor the session of an instance. Of SQL_ASCII, text would
    come as octets, and of a stricter isolation two instances would end each other's sessions again and again."""
    with postgres_kit.database() as url:
        with psycopg.connect(url, autocommit=True) as own:
            for name, value, _ in ODD:
                own.execute(f"ALTER DATABASE {own.info.dbname} SET {name} = '{value}'".encode())
        server = server_of(url)
        with closing(writing(server)) as link:
            seen = {"writer": [link.all(f"SELECT current_setting('{name}') AS s")[0]["s"] for name, *_ in ODD]}
        session = await Session.open(server, lambda said: None, 5.0)
        seen["member"] = [(await session.ask(f"SELECT current_setting('{name}')"))[0][0] for name, *_ in ODD]
        await session.close()
        readers = Postgres(server).readers()
        async with readers.connect() as reader:
            asked = [await reader.execute(text(f"SELECT current_setting('{name}')")) for name, *_ in ODD]
            seen["reader"] = [one.scalar() for one in asked]
        await readers.dispose()
        for role, values in seen.items():
            for (name, _, wanted), value in zip(ODD, values, strict=True):
                assert value == wanted or name in OURS.get(role, ()), (role, name)


@pytest.mark.slow
async def test_who_locks_a_table_keeps_nobody_waiting_for_ever() -> None:
    """Whoever looks hears after 5 seconds where to find the reason, and the log names it; by itself all goes on."""
    with postgres_kit.database() as url:
        async with opened(url) as spool, await psycopg.AsyncConnection.connect(url) as holder:
            await holder.execute("LOCK TABLE message")
            with pytest.raises(SpoolUnavailable, match="gateway spool info says why"):
                await spool.show("M")
            with closing(connect(server_of(url), "start")) as own, pytest.raises(psycopg.errors.LockNotAvailable):
                own.execute("SELECT count(*) FROM message")  # as gateway spool info does
            await holder.rollback()
            assert await spool.show("M") is None
            error = psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
            assert "pg_blocking_pids" in Postgres(server_of(url)).explain(error)


async def test_a_table_that_somebody_took_away_is_no_bug_of_ours() -> None:
    """Mail is refused for now, and so is who looks."""
    with postgres_kit.database() as url:
        async with opened(url) as spool:
            with psycopg.connect(url) as own:
                own.execute("ALTER TABLE message RENAME TO other")
            with pytest.raises(SpoolUnavailable):
                await spool.put(message())
            with pytest.raises(SpoolUnavailable):
                await spool.show("M")


async def test_a_database_that_cannot_hold_all_text_is_refused() -> None:
    server = postgres_kit.shared()
    server.ask("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(SpoolError, match=r"its encoding is LATIN1, .*: createdb --owner ROLE --encoding UTF8"):
            Postgres(server_of(server.url("latin"))).open()
    finally:
        server.drop("latin")


async def test_what_strangers_say_may_hold_a_nul() -> None:
    """No text has one here: a provider's answer is kept with U+FFFD in its place, and the delivery goes on."""
    with postgres_kit.database() as url:
        async with opened(url) as spool:
            one = message()
            await spool.put(one)
            (claim,) = (await spool.claim("b", now=spool.now(), lease=LEASE, limit=10)).claims
            said = replace(NO_USER, detail="no such\0user")
            await spool.settle(settlement(claim, said, ended_at=spool.now(), next_attempt_at=spool.now()))
            found = await spool.show(one.id)
            assert found is not None
            assert [row.detail for row in found.recipients] == ["no such\N{REPLACEMENT CHARACTER}user"]


async def test_a_large_body_that_cannot_be_read_is_no_damage_and_no_bug() -> None:
    """It has a connection of its own, which may fail alone: whoever asks tries again later."""
    nowhere = Postgres(server_of("postgresql://gateway@/gateway?host=/nowhere"))
    with pytest.raises(SpoolUnavailable):
        nowhere.body({"raw": b"", "length": 300_000, "body_of": "M"})


async def test_two_that_keep_house_for_a_moment_tell_a_sender_once() -> None:
    """One that was frozen in the middle of it goes on beside the one that took over."""
    with postgres_kit.database() as url:
        async with opened(url) as one, opened(url, "b") as two:
            late = message()
            await one.put(late)
            told = [Notice(late.id, ((late.id, "b"),), (), ())]
            with psycopg.connect(url) as holder:
                holder.execute("SELECT 1 FROM message FOR UPDATE")
                both = [asyncio.create_task(each.notice(told)) for each in (one, two)]
                await until(lambda: waiting(holder) == 2)
            assert sorted(await asyncio.gather(*both)) == [[], [late.id]]


async def test_two_that_keep_house_for_a_moment_put_one_digest() -> None:
    with postgres_kit.database() as url:
        async with opened(url) as one, opened(url, "b") as two:
            failed, told = message(), [message(), message()]
            await one.put(failed)
            (claim,) = (await one.claim("b", now=one.now(), lease=LEASE, limit=1)).claims
            await one.settle(settlement(claim, NO_USER))
            with psycopg.connect(url) as holder:
                added = "INSERT INTO bounce (message_id, kind, bounce_id, reason, made_at) VALUES (%s, %s, %s, %s, 0)"
                holder.execute(f"{added} RETURNING id", [failed.id, "failed", "", "digest"])
                holder.commit()
                (what,) = await one.untold(10)
                holder.execute("SELECT 1 FROM bounce FOR UPDATE")
                both = [
                    asyncio.create_task(each.digest(what, mail, ""))
                    for each, mail in zip((one, two), told, strict=True)
                ]
                await until(lambda: waiting(holder) == 2)
            await asyncio.gather(*both)
            assert list((await one.states([each.id for each in told])).values()) == ["queued"]
            assert await one.untold(10) == []


async def test_the_door_shuts_at_spool_size() -> None:
    """As large as the database is for its server; what is queued goes out."""
    with postgres_kit.database() as url:
        async with opened(url, most=20_000_000) as spool:
            left = [10**9]
            while left[-1] > 4_000_000:
                await spool.put(message(raw=b"Subject: x\r\n\r\n" + urandom(750_000).hex().encode()))
                await spool.room.look()
                left.append(spool.room.left["spool_size"])
            assert len(left) < 15
            with pytest.raises(SpoolFull):
                await spool.put(message(raw=b"Subject: x\r\n\r\n" + b"0" * 2_000_000))
            (claim, *_) = (await spool.claim("b", now=spool.now(), lease=LEASE, limit=1)).claims
            await spool.settle(settlement(claim))
            assert await spool.states([claim.message.id]) == {claim.message.id: "done"}


def waiting(connection: psycopg.Connection[Any]) -> int:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    connection.execute("SELECT pg_stat_clear_snapshot()")
    return int((connection.execute(asked).fetchone() or (0,))[0])


async def test_a_start_without_statistics_makes_them() -> None:
    """As after pg_upgrade or pg_restore: else the server goes through whole tables for each settlement."""
    with postgres_kit.database() as url, psycopg.connect(url, autocommit=True) as beside:
        asked = "SELECT DISTINCT tablename FROM pg_stats WHERE tablename IN ('body', 'tally')"
        async with opened(url):
            beside.execute(
                "INSERT INTO body (message_id, raw) SELECT 'M' || n, '0123456789' FROM generate_series(1, 9000) n"
            )
            assert beside.execute(asked).fetchall() == []
        async with opened(url):
            assert beside.execute(asked).fetchall() == [("body",)]
