"""Failover: what may go another way goes there at once, and what may have been sent stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.spool import Filter
from tests.builders import AWAY, GREYLISTED, IN_DOUBT
from tests.delivery.kit import house
from tests.fakes import SENT, ScriptedBackend, until


async def test_doubt_after_failover_stays_where_it_arose(tmp_path: Path) -> None:
    """The second backend may have taken it: the first, back again, must not send it too."""
    first, second = ScriptedBackend("first", AWAY, SENT), ScriptedBackend("second", IN_DOUBT, SENT)
    async with house(tmp_path, first, second) as at:
        identifier = await at.put("first")
        await until(lambda: len(second.calls) == 1)
        at.clock.advance(3700)
        await at.settled(identifier, "done")
        assert (len(first.calls), len(second.calls)) == (1, 2)


async def test_failover_goes_on_at_once(tmp_path: Path) -> None:
    """Where the first backend certainly did not take it, the second gets it in the same minute."""
    first, second = ScriptedBackend("first", AWAY), ScriptedBackend("second")
    async with house(tmp_path, first, second) as at:
        identifier = await at.put("first")
        await at.settled(identifier, "done")
        later = await at.put_many(3, "first")
        for each in later:
            await at.settled(each, "done")  # no time passes: mail behind the first failure waits for nothing
        assert len(first.calls) == 1
        assert [m.id for m, _ in second.calls] == [identifier, *later]


async def test_put_off_elsewhere_it_waits_its_time(tmp_path: Path) -> None:
    """The second backend's "later" is about this message: that the first still rests does not bring it back sooner."""
    first, second = ScriptedBackend("first", AWAY), ScriptedBackend("second", GREYLISTED, SENT)
    async with house(tmp_path, first, second) as at:
        identifier = await at.put("first")
        await until(lambda: len(second.calls) == 1)
        await at.queued("second", 1)
        at.clock.advance(11)
        later = await at.put("first")
        at.clock.advance(11)
        await at.settled(later, "done")
        assert [m.id for m, _ in second.calls] == [identifier, later]
        at.clock.advance(60)
        await at.settled(identifier, "done")


async def test_what_nobody_has_looked_at_waits_for_a_way_that_takes_all(tmp_path: Path) -> None:
    """Accepted before a limited backend came into the route: handed to that it would bounce for what it holds."""
    first, second, third = ScriptedBackend("first", AWAY), ScriptedBackend("second"), ScriptedBackend("third")
    second.capabilities = replace(second.capabilities, lacks=frozenset(("attachments",)))
    async with house(tmp_path, first, second, third) as at:
        identifier = await at.put("first")
        await at.settled(identifier, "done")
        assert (len(first.calls), second.calls, [m.id for m, _ in third.calls]) == (1, [], [identifier])


async def test_no_failover_from_doubt(tmp_path: Path) -> None:
    """A lost answer stays with its backend: once more after the longest delay, then held for a person."""
    first, second = ScriptedBackend("first", IN_DOUBT), ScriptedBackend("second")
    async with house(tmp_path, first, second) as at:
        identifier = await at.put("first")
        await at.tried(identifier)
        at.clock.advance(3601)
        await at.settled(identifier, "held")
        assert (len(first.calls), len(second.calls)) == (2, 0)


async def test_failover_of_thousands_in_a_few_steps(tmp_path: Path) -> None:
    """All that waits goes where it may, by pages and not one commit for each; what may have been sent stays."""
    first, second = ScriptedBackend("first", IN_DOUBT, AWAY), ScriptedBackend("second")
    async with house(tmp_path, first, second, concurrency=50) as at:
        await at.dispatcher.pause("second", None)
        doubtful = await at.put("first")
        await at.tried(doubtful)
        await at.tried(await at.put("first"))
        await at.put_many(3000, "first")
        steps = at.calls("move")
        await at.dispatcher.resume("second")
        at.clock.advance(11)
        await at.queued("first", 1)
        await at.queued("second", 0)
        assert (sum(len(ids) for ids, *_ in steps), len(second.calls)) == (3001, 3001)
        assert len(steps) <= 8
        assert await at.state(doubtful) == "queued"


async def test_nothing_is_routed_anew_where_nobody_is_free(tmp_path: Path) -> None:
    """A long queue costs nothing while all its ways rest."""
    first, second = ScriptedBackend("first", AWAY), ScriptedBackend("second", AWAY)
    async with house(tmp_path, first, second) as at:
        await at.tried(await at.put("first"))
        await until(lambda: at.paused_by("second") == "unreachable")
        looks = at.calls("deliveries")
        await at.dispatcher.pause("first", None)
        await at.dispatcher.pause("second", None)
        for _ in range(5):
            at.clock.advance(11)
            await at.spool.retry(Filter(), at.clock.now())
        assert looks == []


@pytest.mark.parametrize("authors", [("s@x.org",), ("s@x.org", "boss@x.org")])
async def test_failover_minds_every_author(tmp_path: Path, authors: tuple[str, ...]) -> None:
    """As the door does: a backend that may not send as the second author is no way for the message."""
    first, second = ScriptedBackend("first", AWAY), ScriptedBackend("second")
    second.capabilities = replace(second.capabilities, senders=("s@x.org",))
    async with house(tmp_path, first, second) as at:
        identifier = await at.put("first", authors=authors)
        detail = await at.tried(identifier)
        if len(authors) == 1:
            await at.settled(identifier, "done")
        else:
            assert ([row.backend for row in detail.deliveries], second.calls) == (["first"], [])
