"""What instances on one database know together: last uses, and since when backends do not work."""

from __future__ import annotations

import random
from datetime import timedelta

import psycopg

from gateway.delivery.breaker import CircuitBreaker
from gateway.delivery.ownership import Alone
from gateway.delivery.rests import Rests
from gateway.lastuse import Use, joined
from gateway.spool import RestRow, Told
from tests import postgres_kit
from tests.builders import NO_USER
from tests.fakes import START, FakeClock
from tests.postgresql.test_engine import LEASE, opened
from tests.spool_kit import message, settlement


async def test_last_uses_are_those_at_all_instances() -> None:
    """Neither writes over what the other noted: the later one counts, and the days of both; each learns of them."""
    rng = random.Random(1)
    noted = {}
    with postgres_kit.database() as url:
        async with opened(url, "a") as a, opened(url, "b") as b:
            for n in range(40):
                at = [START + timedelta(days=rng.choice([0, 0, 1, 3, 30, 31, 90]), seconds=n) for _ in "ab"]
                uses = [Use(moment, name, rng.getrandbits(31)) for name, moment in zip("ab", at, strict=True)]
                for spool, use in zip((a, b), uses, strict=True):
                    spool.uses.learn([("client", f"c{n}", use)])
                    spool.uses.give_back([("client", f"c{n}", use)])
                if at[0] != at[1]:
                    noted[f"c{n}"] = joined(*uses)
            a.uses.note("password", "copier", START, "192.0.2.1")
            await a.uses.write()
            await b.uses.write()
            assert {name: b.uses.of("client", name) for name in noted} == noted
            assert b.uses.of("password", "copier") == Use(START, "192.0.2.1")
        async with opened(url, "c") as c:
            assert {name: c.uses.of("client", name) for name in noted} == noted


class Shares(Alone):
    """Of an instance that works some backends."""

    def __init__(self, *mine: str) -> None:
        self.mine = set(mine)

    def owns(self, backend: str) -> bool:
        return backend in self.mine


async def test_rests_are_kept_by_whoever_works_the_backend() -> None:
    """One that starts ends none of another that lives; who takes a backend over ends what was left open there."""
    clock, rows = FakeClock(), "SELECT backend, ended_at FROM rest ORDER BY id"
    with postgres_kit.database() as url:
        async with opened(url, "a") as a, opened(url, "b") as b:

            def rests() -> list[tuple[str, bool]]:
                with psycopg.connect(url) as own:
                    return [(name, ended is None) for name, ended in own.execute(rows).fetchall()]

            with psycopg.connect(url, autocommit=True) as own:
                for number, (name, owner) in enumerate((("one", "a"), ("two", "a"), ("old", "dead"))):
                    own.execute(
                        "INSERT INTO backend (name, number, owner, paused, paused_since, paused_by) "
                        "VALUES (%s, %s, %s, FALSE, 0, '')",
                        (name, number, owner),
                    )
            breakers = {name: CircuitBreaker() for name in ("one", "two")}
            for breaker in breakers.values():
                breaker.pause(clock.monotonic(), None, "anna")
            shares = Shares("one", "two")
            here = Rests(a, clock, shares)
            await here.look(breakers)
            await b.rested([RestRow("old", clock.now(), None, "away", "", "", "")], [], anew=False)
            assert rests() == [("one", True), ("two", True), ("old", True)]
            there, working = Rests(b, clock, other := Shares()), {name: CircuitBreaker() for name in breakers}
            await there.look(working)
            assert rests() == [("one", True), ("two", True), ("old", False)]
            shares.mine.discard("one")
            other.mine.add("one")
            breakers["one"] = CircuitBreaker()
            await here.look(breakers)
            assert rests() == [("one", True), ("two", True), ("old", False)]
            working["one"].pause(clock.monotonic(), None, "berta")
            await there.look(working)
            await here.look(breakers)
            assert rests() == [("one", False), ("two", True), ("old", False), ("one", True)]


async def test_a_bounce_is_written_down() -> None:
    """With a number that the database gives it."""
    with postgres_kit.database() as url:
        async with opened(url) as spool:
            await spool.put(message())
            [claim] = (await spool.claim("b", now=spool.now(), lease=LEASE, limit=1)).claims
            bounce = message(bounce=True)
            await spool.settle(settlement(claim, NO_USER, bounces=(bounce,), told=(Told("failed", bounce.id),)))
            with psycopg.connect(url) as own:
                assert own.execute("SELECT id, bounce_id FROM bounce").fetchall() == [(1, bounce.id)]
