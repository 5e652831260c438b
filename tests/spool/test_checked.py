"""What the spool knows of backends: last answers, last success, what is in doubt, the first in the queue, checks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from gateway.checks import Check, good, untried, wrong
from gateway.spool import CheckRow
from tests.builders import IN_DOUBT, SENT
from tests.fakes import START
from tests.spool_kit import DEFERRED, At, of, opened, peer, settlement

HOUR = timedelta(hours=1)


async def test_answers_are_the_last_of_this_backend(at: At) -> None:
    """Newest first, with the message each is about; what is under way or another's is no answer of this one."""
    first, second = await at.put(), await at.put()
    await at.put("x@x.org", backend="other")
    claims = {claim.message.id: claim for claim in await at.claim()}
    await at.spool.settle(settlement(claims[first]))
    assert [(row.message_id, row.verdict) for row in await at.spool.answers("b")] == [(first, "sent")]
    await at.spool.settle(settlement(claims[second], DEFERRED, next_attempt_at=START + HOUR))
    found = await at.spool.answers("b")
    assert [(row.message_id, row.verdict, row.detail) for row in found] == [
        (second, "deferred", DEFERRED.detail),
        (first, "sent", SENT.detail),
    ]
    assert [row.message_id for row in await at.spool.answers("b", limit=1)] == [second]
    assert await at.spool.answers("other") == []


async def test_what_ended_last_is_the_last_whatever_its_number(at: At) -> None:
    """An instance that took its numbers sooner may be the one that sends now."""
    first, second = await at.put(), await at.put()
    claims = {claim.message.id: claim for claim in await at.claim()}
    await at.spool.settle(settlement(claims[second], ended_at=START + HOUR))
    await at.spool.settle(settlement(claims[first], ended_at=START + 2 * HOUR))
    assert claims[first].attempt_id < claims[second].attempt_id
    assert await at.spool.last_sent("b") == START + 2 * HOUR
    assert [row.message_id for row in await at.spool.answers("b")] == [first, second]
    assert [row.message_id for row in await at.spool.answers("b", limit=1)] == [first]


async def test_the_last_success_outlives_the_process(tmp_path: Path) -> None:
    """Of the backend that had it; one that never sent has none."""
    async with opened(tmp_path) as at:
        ident = await at.put()
        (claim,) = await at.claim()
        await at.spool.settle(settlement(claim))
        assert claim.message.id == ident
    async with opened(tmp_path) as at:
        assert await at.spool.last_sent("b") == START + timedelta(seconds=1)
        assert await at.spool.last_sent("other") is None


async def test_what_is_held_in_doubt(at: At) -> None:
    """Not what a person holds of mail that nobody has tried."""
    doubtful, held = await at.put(), await at.put()
    claim = next(one for one in await at.claim() if one.message.id == doubtful)
    await at.spool.settle(settlement(claim, DEFERRED, next_attempt_at=START + HOUR))
    await at.spool.hold(of(doubtful, held), START)
    assert (await at.spool.backlog()).doubts == []
    await at.spool.release(of(doubtful), START)
    claim = next(one for one in await at.claim(now=START + HOUR) if one.message.id == doubtful)
    held_all = {one.address: "held" for one in claim.message.envelope.recipients}
    await at.spool.settle(settlement(claim, IN_DOUBT, states=held_all))
    [doubt] = (await at.spool.backlog()).doubts
    assert (doubt.backend, doubt.count, doubt.since) == ("b", 1, START)


async def test_the_first_in_the_queue_and_what_was_said_of_it(at: At) -> None:
    """The oldest, however often it was tried; nobody where nothing waits."""
    assert (await at.spool.backlog()).firsts == {}
    ident = await at.put()
    await at.put()
    claim = next(one for one in await at.claim() if one.message.id == ident)
    await at.spool.settle(settlement(claim, DEFERRED, next_attempt_at=START + HOUR))
    found = (await at.spool.backlog()).firsts["b"]
    assert (found.message_id, found.attempts, found.detail) == (ident, 1, DEFERRED.detail)


async def test_the_last_check_is_kept(tmp_path: Path) -> None:
    """With all its steps, who asked and when, in the place of the one before; a damaged one is none."""
    bad = Check(False, "no", "do this", {"url": "https://x"}, (good("reached"), wrong("key", "401"), untried("from")))
    async with opened(tmp_path) as at:
        for who, check in (("root", Check(True, "yes")), ("admin", bad)):
            await at.spool.keep_check(CheckRow(backend="b", at=START, who=who, check=check))
    async with opened(tmp_path) as at:
        assert await at.spool.checks() == {"b": CheckRow(backend="b", at=START, who="admin", check=bad)}
    peer(tmp_path, "UPDATE checked SET steps = '[1]'")
    async with opened(tmp_path) as at:
        assert await at.spool.checks() == {}
