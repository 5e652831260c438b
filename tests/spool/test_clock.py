"""The spool's own time: whatever the machine's clock is set to, nothing falls due, grows old or is forgotten by it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.config.models import RetentionSettings
from gateway.model import DeliveryEvent
from gateway.spool.records import moment
from gateway.spool.steady import Seen, SpoolTime
from tests.builders import SENT
from tests.fakes import START, FakeClock
from tests.spool_kit import DEFERRED, LEASE, At, of, opened, peer, settlement, statements

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
YEAR = 365 * DAY
NOTHING = timedelta(0)
RETENTION = RetentionSettings(sent_body="36h", failed_body="30d", history="90d")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("happens", "passed", "by"),
    [
        (lambda clock: clock.advance(60), MINUTE, None),
        (lambda clock: clock.set(6 * DAY), NOTHING, 6 * DAY),
        (lambda clock: clock.set(-DAY), NOTHING, -DAY),
        (lambda clock: clock.set(HOUR), NOTHING, HOUR),
        (lambda clock: clock.set(-SECOND), NOTHING, None),  # a leap second
        (lambda clock: clock.set(4 * SECOND), NOTHING, None),  # drift put right
        (lambda clock: clock.suspend(30), 30 * SECOND, None),
        (lambda clock: clock.suspend(60 * 3600), HOUR, None),  # a weekend
        (lambda clock: (clock.suspend(60 * 3600), clock.set(-YEAR)), HOUR, -YEAR),
    ],
)
def test_what_happens_to_a_clock(happens: Callable[[FakeClock], None], passed: timedelta, by: timedelta | None) -> None:
    """By how much time goes on, and whether somebody set the clock; said once."""
    clock = FakeClock()
    time = SpoolTime(clock, None)
    happens(clock)
    step = time.look()
    assert (time.now() - START, step and step.size) == (passed, by)
    assert step is None or step.now == clock.now()
    assert time.look() is None
    clock.advance(60)
    assert (time.now() - START, time.look()) == (passed + MINUTE, None)


@pytest.mark.parametrize(
    ("away", "passed", "by"),
    [(MINUTE, MINUTE, None), (2 * HOUR, HOUR, None), (2 * YEAR, HOUR, None), (-56 * YEAR, NOTHING, -56 * YEAR)],
)
def test_between_two_runs(away: timedelta, passed: timedelta, by: timedelta | None) -> None:
    """What the clock says has passed counts as an hour at most, and never backwards; going back is a step."""
    last = Seen(START - 3 * DAY, START)
    time = SpoolTime(FakeClock(START + away), last)
    step = time.look()
    assert (time.now() - last.spool, step and step.size) == (passed, by)


@pytest.mark.parametrize("by", [6 * DAY, -DAY, HOUR, -56 * YEAR])
async def test_what_is_due_is_due_in_its_time(tmp_path: Path, by: timedelta) -> None:
    """A minute's wait is a minute, and is shown as a minute from now; so are a lifetime and a question's time."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        ident = await at.put(expires_at=START + 10 * MINUTE)
        await at.settle(DEFERRED, now=at.spool.now(), next_attempt_at=at.spool.now() + MINUTE)
        clock.set(by)
        assert await at.spool.due("b") == at.spool.now() + MINUTE
        (row,) = await at.spool.find()
        assert (row.next_attempt_at, row.expires_at) == (clock.now() + MINUTE, clock.now() + 10 * MINUTE)
        (delivery,) = (await at.show(ident)).deliveries
        assert delivery.next_attempt_at == row.next_attempt_at
        assert await at.spool.oldest() == {"b": clock.now()}
        clock.advance(59)
        assert await at.claim(now=at.spool.now()) == []
        clock.advance(1)
        (claim,) = await at.claim(now=at.spool.now())
        assert claim.message.expires_at == at.spool.now() + 9 * MINUTE
        await at.spool.settle(settlement(claim, next_attempt_at=None, poll_at=at.spool.now() + MINUTE))
        clock.set(-by)
        assert [poll.next_at - at.spool.now() for poll in await at.spool.polls("b", 9)] == [MINUTE]


@pytest.mark.parametrize("by", [2 * YEAR, -56 * YEAR])
async def test_another_year_at_the_start(tmp_path: Path, by: timedelta) -> None:
    """Nothing expires, no history goes, no new mail waits for years; and again when the clock is set right."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock, retention=RETENTION) as at:
        done = await at.put()
        await at.settle(SENT)
        waiting = await at.put()
        await at.settle(DEFERRED, now=at.spool.now(), next_attempt_at=at.spool.now() + HOUR)
    clock.set(by)
    async with opened(tmp_path, clock=clock, retention=RETENTION) as at:
        for set_right in (NOTHING, -by):
            clock.set(set_right)
            await at.spool.keep_time()
            assert await at.spool.overdue(at.spool.now()) == []
            assert await at.spool.sweep(at.spool.now(), RETENTION) == 0
            assert await at.spool.raw(done) is not None
            new = await at.put()
            assert [claim.message.id for claim in await at.claim(now=at.spool.now())][-1:] == [new]
        clock.advance(3600)
        assert waiting in [claim.message.id for claim in await at.claim(now=at.spool.now())]
        directions = [line["direction"] for line in at.logged("clock_stepped")]
        assert directions == (["back"] if by > NOTHING else ["back", "forward"])
        assert await at.spool.sweep(at.spool.now() + 90 * DAY, RETENTION) > 0


FEW, MANY = 10, 300  # more than any page
STOPS = [
    (HOUR, [3 * HOUR, 23 * HOUR]),
    (5 * HOUR, [NOTHING, 19 * HOUR]),
    (60 * HOUR, [NOTHING, NOTHING]),  # a weekend
]


async def wait_long(at: At, number: int) -> None:
    """Half of them for four hours and half for a day; one more is held, and one is to be asked about."""
    await asyncio.gather(*(at.put() for _ in range(number)))
    due = itertools.cycle((START + 4 * HOUR, START + DAY))
    deferred = [settlement(claim, DEFERRED, next_attempt_at=next(due)) for claim in await at.claim(limit=number)]
    await asyncio.gather(*map(at.spool.settle, deferred))
    held = await at.put(backend="held")
    await at.settle(DEFERRED, backend="held", next_attempt_at=START + DAY)
    await at.spool.hold(of(held), START)
    await at.put(backend="asked")
    await at.settle(SENT, backend="asked", poll_at=START + DAY)


async def left(path: Path, at: At, number: int) -> tuple[list[timedelta], timedelta, timedelta]:
    """How long each half waits, how long who is held would, and until the question."""
    now = at.spool.now()
    rows = peer(path, "SELECT next_attempt_at, count(*) FROM delivery WHERE backend = 'b' GROUP BY 1")
    half = [moment(due) - now for due, count in rows for _ in range(count // (number // 2))]
    ((held,),) = peer(path, "SELECT next_attempt_at FROM delivery WHERE backend = 'held'")
    (poll,) = await at.spool.polls("asked", 9)
    return half, moment(held) - START, poll.next_at - now


@pytest.mark.parametrize(("away", "waits"), [*STOPS, (2 * YEAR, [NOTHING] * 2), (-YEAR, [4 * HOUR, DAY])])
async def test_no_wait_is_longer_for_a_stop(tmp_path: Path, away: timedelta, waits: list[timedelta]) -> None:
    """Nor shorter than the machine's clock says, though mail grows old by an hour at most. What is held is left."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        await wait_long(at, FEW)
    for _ in range(2):
        clock.set(away)
        async with opened(tmp_path, clock=clock) as at:
            assert await left(tmp_path, at, FEW) == (waits, DAY, waits[-1])
        away = NOTHING  # a start that found nothing new changes nothing


@pytest.mark.parametrize(("away", "waits"), STOPS)
async def test_no_wait_is_longer_for_a_sleep(tmp_path: Path, away: timedelta, waits: list[timedelta]) -> None:
    """In one statement, however many wait. What is under way keeps its lease: nobody else may take it."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        await wait_long(at, MANY)
        await at.put(backend="busy")
        await at.claim("busy")
        clock.suspend(away.total_seconds())
        with statements() as seen:
            await at.spool.keep_time()
        assert len(seen) <= 6
        assert await left(tmp_path, at, MANY) == (waits, DAY, waits[-1])
        assert await at.spool.due("busy") == START + LEASE


async def test_steps_are_part_of_a_life(tmp_path: Path) -> None:
    """They stand between the attempts where they happened; those before and after the message are not its own."""
    clock = FakeClock()

    async def step(by: timedelta) -> None:
        clock.set(by)
        await at.spool.keep_time()

    async with opened(tmp_path, clock=clock) as at:
        await step(DAY)
        clock.advance(1)
        ident = await at.put()
        await step(2 * DAY)
        await at.settle(DEFERRED, now=at.spool.now(), next_attempt_at=at.spool.now())
        await step(-3 * DAY)
        clock.advance(1)
        await at.settle(SENT, now=at.spool.now())
        clock.advance(1)
        await step(4 * DAY)
        shown = [(each.now_at - each.was_at, each.after) for each in (await at.show(ident)).clock_steps]
        assert shown == [(2 * DAY, 0), (-3 * DAY, 1)]
        sizes = [each.now_at - each.was_at for each in await at.spool.clock_steps()]
        assert sizes == [4 * DAY, -3 * DAY, 2 * DAY, DAY]
        for _ in range(120):
            await step(DAY)
        assert len(await at.spool.clock_steps(1000)) == 100


async def test_words_that_came_before_the_hand_over_wait_their_hour(tmp_path: Path) -> None:
    """A provider's call that was early is not forgotten because the clock was set, and is shown at its time."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        ident = await at.put()
        (claim,) = await at.claim()
        await at.spool.add_events("b", [DeliveryEvent("r1", "delivered")], "webhook")
        clock.set(6 * DAY)
        clock.advance(60)
        await at.spool.sweep(at.spool.now(), RETENTION)
        await at.spool.settle(settlement(claim))
        await at.spool.sweep(at.spool.now(), RETENTION)
        (event,) = (await at.show(ident)).events
        assert event.reported_at == clock.now() - MINUTE


async def test_a_lease_and_what_is_given_back(tmp_path: Path) -> None:
    """What is given back is due at once, also after the clock was set back."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        await at.put()
        claims = (await at.spool.claim("b", now=at.spool.now(), lease=LEASE, limit=1)).claims
        clock.set(-DAY)
        await at.spool.release_claims(claims)
        assert len(await at.claim(now=at.spool.now())) == 1


async def test_what_was_seen_last_may_be_damaged(tmp_path: Path) -> None:
    """Then the spool begins anew with what the machine's clock shows."""
    async with opened(tmp_path) as at:
        await at.put()
    peer(tmp_path, "UPDATE clock SET spool_at = 'x'")
    async with opened(tmp_path) as at:
        assert at.spool.now() == START
        assert len(await at.claim()) == 1
