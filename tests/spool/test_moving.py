"""A spool is copied from one engine to another whole, compared with what was read, or not at all."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.clock import SystemClock
from gateway.model import DeliveryEvent, Envelope, Recipient
from gateway.postgresql import moving as database
from gateway.postgresql.server import Server
from gateway.spool import Filter, SpoolError, movefile
from gateway.spool.moving import LAYOUTS, Layout, Moved, Row, Side, checked, move
from gateway.spool.records import TokenRow, micros
from tests import postgres_kit
from tests.fakes import START, FakeClock
from tests.spool_kit import DEFERRED, LEASE, REJECTED, blank, message, opened, peer, settlement

Rows = dict[str, list[Row]]
NOW = START + timedelta(minutes=5)


@pytest.fixture
def server() -> Iterator[Server]:
    """An empty database."""
    with postgres_kit.database() as url:
        yield Server(url, "copy", timedelta(seconds=60), durable=False)


async def filled(directory: Path, number: int, clock: FakeClock | None = None) -> Path:
    """A spool with messages in all states, under way, with large bodies, and something in most tables."""
    rng = random.Random(7)
    async with opened(blank(directory), clock=clock or FakeClock(datetime.now(UTC))) as at:
        for n in range(number):
            two = {"deliveries": {"b": ("a@example.org",), "c": ("ü@example.org",)}} if n % 5 == 0 else {}
            addresses = ("a@example.org", "ü@example.org") if two else (f"r{n}@example.org",)
            raw = b"Subject: x\r\n\r\n" + rng.randbytes(100_000 if n % 100 == 0 else n % 700) + b"\0\r\n"
            given = {"raw": raw, "secret": "own" * (n % 3), "received_at": at.clock.now(), **two}
            await at.spool.put(message(*addresses, **given))
        now = at.clock.now()
        claims = list((await at.spool.claim("b", now=now, lease=LEASE, limit=number * 3 // 4)).claims)
        for n, claim in enumerate(claims[:-20]):  # the rest stays under way
            outcome = (DEFERRED, REJECTED, None, None)[n % 4]
            more = {"next_attempt_at": now + timedelta(minutes=9), "ended_at": now}
            await at.spool.settle(settlement(claim, outcome, **more) if outcome else settlement(claim, **more))
        await at.spool.hold(Filter(ids=tuple(each.message.id for each in claims[:9:3])), now)
        await at.spool.add_events("b", [DeliveryEvent("r1", "delivered")], "poll")
        await at.spool.add_token(TokenRow("j", "own", "s", "note", now))
        await at.spool.revoke(subject="s", now=now)
        await at.spool.add_link("k", "anna", "admin", timedelta(hours=1))
    return directory


def contents(side: Side) -> Rows:
    return {name: sorted(side.rows(layout), key=repr) for name, layout in LAYOUTS.items()}


def of_file(directory: Path) -> Rows:
    with movefile.source(directory, SystemClock()) as side:
        return contents(side)


def into_database(directory: Path, server: Server) -> Moved:
    with movefile.source(directory, SystemClock()) as here, database.target(server) as there:
        return move(here, there, micros(NOW), max)


def into_file(server: Server, directory: Path) -> Moved:
    with database.source(server) as there, movefile.target(directory, there.now(), SystemClock()) as here:
        return move(there, here, micros(NOW), max)


def rows_of(layout: str, rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    shape = LAYOUTS[layout]
    return [tuple(shape.record(row)[name] for name in names) for row in rows[layout]]


@pytest.mark.parametrize("number", [400, pytest.param(5000, marks=pytest.mark.slow)])
async def test_all_of_it_goes_there_and_back(tmp_path: Path, server: Server, number: int) -> None:
    """Row by row the same in every table, and every message whole; what was under way is interrupted."""
    before = of_file(await filled(tmp_path / "old", number))
    done = into_database(tmp_path / "old", server)
    with database.source(server) as side:
        there = contents(side)
    assert done.rows == {name: len(rows) for name, rows in there.items()}
    assert done.interrupted == 20
    assert done.verified == len(before["body"]) > number // 3
    assert not done.damaged
    for name in set(LAYOUTS) - {"delivery", "attempt"}:
        assert there[name] == before[name], name
    assert not any(ident for (ident,) in rows_of("delivery", there, "attempt_id"))
    ended = set(rows_of("attempt", there, "id", "verdict", "ended_at")) - set(
        rows_of("attempt", before, "id", "verdict", "ended_at")
    )
    under_way = {ident for (ident,) in rows_of("delivery", before, "attempt_id") if ident is not None}
    assert ended == {(ident, "interrupted", micros(NOW)) for ident in under_way}
    assert len(under_way) == 20

    back = into_file(server, tmp_path / "new")
    assert of_file(tmp_path / "new") == there
    assert back.interrupted == 0
    assert back.verified == done.verified


async def test_a_copy_is_a_spool_that_works(tmp_path: Path, server: Server) -> None:
    """Opened there, what waits can be claimed and read, and new attempts have numbers of their own."""
    await filled(tmp_path / "old", 40)
    into_database(tmp_path / "old", server)
    into_file(server, tmp_path / "new")
    async with opened(tmp_path / "new", clock=FakeClock(datetime.now(UTC))) as at:
        claims = await at.claim("c", now=at.clock.now())
        assert claims
        assert len(await at.spool.bodies([each.message.id for each in claims])) == len(claims)
    last = "SELECT max(id) FROM (SELECT id FROM attempt UNION ALL SELECT attempt_id FROM delivery) AS a"
    with psycopg.connect(server.url) as connection:
        (known,) = connection.execute(last).fetchone() or (None,)
        (block,) = connection.execute("SELECT nextval('attempt_block')").fetchone() or (None,)
        assert block * 1000 > known
        for layout in LAYOUTS.values():
            if layout.counter and layout.name not in ("attempt", "refusal"):
                table, column = layout.name, layout.counter
                asked = f"SELECT max({column}), nextval(pg_get_serial_sequence('{table}', '{column}')) FROM {table}"
                found = connection.execute(asked.encode()).fetchone()
                assert found is not None
                assert found[1] > (found[0] or 0), layout.name


async def test_time_goes_on_as_it_stood(tmp_path: Path, server: Server) -> None:
    """The spool's own time may be years from the database's: what had an hour left has that there, sealed anew."""
    old = of_file(await filled(tmp_path / "old", 40, FakeClock(START)))
    with closing(sqlite3.connect(tmp_path / "old" / "spool.db")) as file:
        ((spool_at,),) = file.execute("SELECT spool_at FROM clock").fetchall()
    into_database(tmp_path / "old", server)
    with database.source(server) as side:
        there, now = contents(side), side.now()
        assert all(good for _, good in checked(side))
    hour, slack = 3600_000_000, 60_000_000  # as much of the time since then counts
    for (was,), (is_,) in zip(
        rows_of("message", old, "expires_at"), rows_of("message", there, "expires_at"), strict=True
    ):
        assert abs((was - spool_at - hour) - (is_ - now)) < slack
    assert rows_of("message", there, "received_at") == rows_of("message", old, "received_at")


async def test_nul_in_a_text_becomes_a_sign_that_can_be_stored(tmp_path: Path, server: Server) -> None:
    """SQLite keeps a NUL within a text and PostgreSQL cannot; the message stays whole."""
    one = Recipient("a@example.org", orcpt="rfc822;a\0")
    async with opened(blank(tmp_path / "old"), clock=FakeClock(datetime.now(UTC))) as at:
        await at.spool.put(message(envelope=Envelope("s@example.com", (one,), envid="e\0")))
    peer(tmp_path / "old", "UPDATE message SET how = 'a' || char(0) || 'b'")
    peer(tmp_path / "old", "UPDATE recipient SET detail = 'said' || char(0)")
    done = into_database(tmp_path / "old", server)
    assert done.replaced
    assert done.verified == 1
    assert not done.damaged
    with database.source(server) as side:
        assert {how for (how,) in rows_of("message", contents(side), "how")} == {"a�b"}


async def test_damage_from_before_stays_and_is_named(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path / "old", 20)
    ((ident,),) = peer(tmp_path / "old", "SELECT message_id FROM body WHERE segment = 0 ORDER BY 1 LIMIT 1")
    peer(tmp_path / "old", "UPDATE body SET raw = x'00' WHERE message_id = ?", ident)
    assert into_database(tmp_path / "old", server).damaged == [ident]


class _Forgetful:
    """A target that loses a row, or a byte."""

    def __init__(self, inner: Any, table: str) -> None:
        self._inner, self._table = inner, table
        self.name = inner.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, layout: Layout, rows: Any) -> None:
        found = list(rows)
        self._inner.write(layout, found[1:] if layout.name == self._table else found)


@pytest.mark.parametrize("table", ["message", "body", "signin"])
async def test_what_does_not_arrive_leaves_nothing_behind(tmp_path: Path, server: Server, table: str) -> None:
    """All or nothing: the database has no table, the folder is not there, and the source is as it was."""
    before = of_file(await filled(tmp_path / "old", 20))
    with (
        pytest.raises(SpoolError, match=f"table {table}"),
        movefile.source(tmp_path / "old", SystemClock()) as here,
        database.target(server) as there,
    ):
        move(here, _Forgetful(there, table), micros(NOW), max)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT to_regclass('message')").fetchone() == (None,)
    into_database(tmp_path / "old", server)
    with (
        pytest.raises(SpoolError, match=f"table {table}"),
        database.source(server) as there,
        movefile.target(tmp_path / "new", there.now(), SystemClock()) as here,
    ):
        move(there, _Forgetful(here, table), micros(NOW), max)
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    assert of_file(tmp_path / "old") == before


async def test_nobody_may_be_at_work_on_either_side(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path / "old", 20)
    async with opened(tmp_path / "old"):
        with pytest.raises(SpoolError, match=f"in use by process {os.getpid()}"):
            into_database(tmp_path / "old", server)
    name = "gateway berlin member"
    with psycopg.connect(server.url, application_name=name), pytest.raises(SpoolError, match="berlin; stop every"):
        into_database(tmp_path / "old", server)
    into_database(tmp_path / "old", server)
    with psycopg.connect(server.url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(7)")
        with pytest.raises(SpoolError, match="stop every instance first"):
            into_file(server, tmp_path / "new")


async def test_what_is_there_is_never_mixed_with(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path / "old", 20)
    into_database(tmp_path / "old", server)
    with pytest.raises(SpoolError, match=r"in use already: .* rows are in table .*; make a new one: createdb"):
        into_database(tmp_path / "old", server)
    blank(tmp_path / "new")
    with pytest.raises(SpoolError, match=r"already, and nothing is mixed: move .*spool.db away"):
        into_file(server, tmp_path / "new")
    with pytest.raises(SpoolError, match="no spool in"), movefile.source(tmp_path / "none", SystemClock()):
        pass
    assert not (tmp_path / "none").exists()
