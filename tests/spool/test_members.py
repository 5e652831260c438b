"""What becomes of attempts whose instance is over, and of those that nobody has in hand; on both engines."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from psycopg.conninfo import conninfo_to_dict

from gateway.events import Events
from gateway.model import SpoolUnavailable
from gateway.postgresql.engine import Postgres
from gateway.postgresql.server import Server
from gateway.spool import Claim, Spool
from gateway.spool.members import Strays
from tests import postgres_kit
from tests.builders import GREYLISTED, new_message
from tests.fakes import START, FakeClock
from tests.postgresql.member_kit import template
from tests.spool_kit import LEASE, At, blank, opened, settlement


async def on_postgresql(url: str, name: str, folder: Path, clock: FakeClock, parts: AsyncExitStack) -> At:
    log = io.StringIO()
    at = At(clock, log)
    at.events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=log)
    parts.callback(at.events.close)
    server = Server(url, name, timedelta(minutes=1), durable=False)
    engine = Postgres(server, now=lambda link: clock.now())
    at.spool = await Spool.open(folder, clock, engine=engine, events=at.events, wake=at.woken.append, reserve=0.0)
    parts.push_async_callback(at.spool.aclose)
    return at


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[At]:
    async with AsyncExitStack() as parts:
        if request.param == "sqlite":
            yield await parts.enter_async_context(opened(blank(tmp_path)))
        else:
            url = parts.enter_context(postgres_kit.database(template()))
            yield await on_postgresql(url, "a", tmp_path, FakeClock(), parts)


class Two:
    """Instances a and b on one database, and what stands in it."""

    def __init__(self, url: str, a: At, b: At) -> None:
        self.url, self.a, self.b = url, a, b

        self.database = conninfo_to_dict(url)["dbname"]

    def ask(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return postgres_kit.shared().ask(statement, *values, database=self.database)

    async def claimed(self, at: At, mails: int) -> list[Claim]:
        """By this one, of mail that it took itself."""
        messages = [new_message() for _ in range(mails)]
        await at.spool.put(*messages)
        return list((await at.spool.claim("b", now=START, lease=LEASE, limit=mails)).claims)


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with AsyncExitStack() as parts:
        url = parts.enter_context(postgres_kit.database(template()))
        each = [await on_postgresql(url, name, tmp_path, FakeClock(), parts) for name in "ab"]
        yield Two(url, *each)


async def test_what_nobody_has_in_hand_is_given_back_after_a_minute(here: At) -> None:
    """As if it had never been claimed; what somebody has in hand is his, however long that takes."""
    await here.spool.put(new_message(), new_message())
    kept, dropped = await here.claim()
    strays, in_hand = Strays(here.clock), {kept.attempt_id}
    for seconds, given_back in ((0, 0), (59, 0), (1, 1), (100, 0)):
        here.clock.advance(seconds)
        assert await here.spool.take_back(strays, lambda: in_hand) == given_back
    (again,) = await here.claim()
    assert (again.message.id, again.message.attempt, again.sticky) == (dropped.message.id, 1, False)
    await here.spool.settle(settlement(kept))
    assert await here.spool.states([kept.message.id]) == {kept.message.id: "done"}


async def test_a_claim_that_comes_into_somebodys_hand_is_young_again(here: At) -> None:
    await here.put()
    (claim,) = await here.claim()
    strays = Strays(here.clock)
    assert await here.spool.take_back(strays, set) == 0
    here.clock.advance(59)
    assert await here.spool.take_back(strays, lambda: {claim.attempt_id}) == 0
    here.clock.advance(59)
    assert await here.spool.take_back(strays, set) == 0


async def test_a_claim_whose_answer_was_late_is_not_taken_out_of_a_hand(here: At) -> None:
    """It comes to a worker while what nobody has is being given back."""
    await here.put()
    (claim,) = await here.claim()
    strays, hands = Strays(here.clock), iter([set[int](), set[int](), {claim.attempt_id}])
    assert await here.spool.take_back(strays, lambda: next(hands)) == 0
    here.clock.advance(61)
    assert await here.spool.take_back(strays, lambda: next(hands)) == 0
    assert await here.claim() == []


async def test_where_there_is_only_one_nobody_is_buried(tmp_path: Path) -> None:
    async with opened(blank(tmp_path)) as at:
        assert (await at.spool.living(), await at.spool.bury("a", 0)) == ({}, None)


async def test_what_a_dead_instance_had_under_way_is_interrupted_and_nothing_else(two: Two) -> None:
    """Another goes on with it at once, and is woken for it; what came of it after all is still written down, when the
    dead one has joined anew: before that whoever wants to be sure of a commit makes none."""
    first, second = await two.claimed(two.a, 2)
    (other,) = await two.claimed(two.b, 1)
    two.b.woken.clear()
    two.ask("CREATE TABLE before AS SELECT * FROM instance WHERE name = 'a'")
    assert await two.b.spool.bury("a", 0) == 2
    assert two.b.woken == ["b"]
    assert set(await two.b.spool.living()) == {"b"}
    ended = two.ask("SELECT message_id, verdict, owner FROM attempt ORDER BY id")
    assert ended == [(claim.message.id, "interrupted", "a") for claim in (first, second)]
    again = await two.b.claim()
    assert {claim.message.id for claim in again} == {first.message.id, second.message.id}
    assert all(claim.sticky for claim in again)
    with pytest.raises(SpoolUnavailable):
        await two.a.spool.settle(settlement(first))  # it was only frozen
    two.ask("INSERT INTO instance SELECT * FROM before")
    await two.a.spool.settle(settlement(first))
    await two.a.spool.settle(settlement(second, GREYLISTED))
    await two.b.spool.settle(settlement(other))
    states = {first.message.id: "done", second.message.id: "queued", other.message.id: "done"}
    assert await two.b.spool.states(list(states)) == states


async def test_who_was_buried_commits_nothing_more(two: Two) -> None:
    """Nor does an earlier run of the same name: it could not find out whether a commit took place."""
    await two.a.put()
    assert await two.b.spool.bury("a", 0) == 0
    for asked in (two.a.claim(), two.a.put()):
        with pytest.raises(SpoolUnavailable):
            await asked
    assert not two.a.spool.writable()
    assert len(await two.b.claim()) == 1


@pytest.mark.parametrize("sign", ["beaten", "commits"])
async def test_who_gives_a_sign_of_life_is_not_buried(two: Two, sign: str) -> None:
    """It has beaten since, or is about to commit: nobody waits for that."""
    await two.claimed(two.a, 1)
    with postgres_kit.shared().connect(two.database) as somebody:
        if sign == "commits":
            somebody.execute("BEGIN")
        somebody.execute("UPDATE instance SET beats = beats + 1 WHERE name = 'a'")
        assert await two.b.spool.bury("a", 0) is None
        if sign == "commits":
            somebody.execute("ROLLBACK")
            assert await two.b.spool.bury("a", 0) == 1
            assert await two.b.spool.bury("a", 0) is None  # once


async def test_a_start_interrupts_only_what_is_its_own(two: Two, tmp_path: Path) -> None:
    (mine,) = await two.claimed(two.a, 1)
    (other,) = await two.claimed(two.b, 1)
    async with AsyncExitStack() as parts:
        again = await on_postgresql(two.url, "a", tmp_path, FakeClock(), parts)
        assert again.logged("spool_opened")[0]["interrupted"] == 1
    open_now = two.ask("SELECT message_id FROM delivery WHERE attempt_id IS NOT NULL")
    assert open_now == [(other.message.id,)]
    assert mine.message.id != other.message.id
