"""What came and went is counted with what is counted: in the same commit, by hour, and it always adds up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from gateway.config.models import RetentionSettings
from gateway.spool import Counts
from gateway.spool.records import micros
from tests.builders import NO_USER, SENT
from tests.fakes import START, FakeClock
from tests.spool_kit import DEFERRED, At, of, opened, peer, statements

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def test_each_way_to_the_end_is_counted(at: At) -> None:
    """By way in and client messages, by backend recipients; what was put off, and what was deleted on its way."""
    both = {"a": ("x@x.example",), "b": ("y@x.example", "z@x.example")}
    await at.put("x@x.example", "y@x.example", "z@x.example", deliveries=both, listener="local", client="c")
    await at.settle(DEFERRED, backend="a")
    answers = {"y@x.example": SENT, "z@x.example": NO_USER}
    await at.settle(answers, backend="b")
    flow = await at.spool.flow(START, 24, HOUR)
    assert flow.total == Counts(accepted=1, deferred=1)
    assert flow.waiting == {"queued": 1, "held": 0, "corrupt": 0}
    await at.settle(SENT, backend="a", now=START + timedelta(minutes=1))
    await at.spool.delete(of(await at.put(listener="devices", client="d")), START)
    kept = await at.put(listener="local", client="c")
    await at.spool.hold(of(kept), START)
    flow = await at.spool.flow(START, 24, HOUR)
    assert flow.total == Counts(accepted=3, failed=1, deleted=1, deferred=1)
    assert (flow.before, flow.waiting["held"]) == (0, 1)
    assert flow.listeners == {"devices": Counts(accepted=1, deleted=1), "local": Counts(accepted=2, failed=1)}
    assert flow.clients == {"c": Counts(accepted=2, failed=1), "d": Counts(accepted=1, deleted=1)}
    assert flow.backends == {"a": Counts(sent=1, deferred=1), "b": Counts(sent=1, failed=1)}


async def test_hours_and_days_end_with_the_running_one(tmp_path: Path) -> None:
    """Mail of before the first bar is in no bar, and what still waits of it is ``before``."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        await at.put()
        clock.advance(3 * 3600)
        now = clock.now()
        await at.put()
        three = await at.spool.flow(now, 3, HOUR)
        assert [point.accepted for point in three.points] == [0, 0, 1]
        assert (three.since, three.before, three.step) == (START.replace(minute=0) + HOUR, 1, "hour")
        four = await at.spool.flow(now, 4, HOUR)
        assert ([point.accepted for point in four.points], four.before) == ([1, 0, 0, 1], 0)
        week = await at.spool.flow(now, 7, DAY)
        assert ([point.accepted for point in week.points], week.step) == ([0] * 6 + [2], "day")
        assert week.points[-1].at == now.replace(hour=0, minute=0, second=0, microsecond=0)


async def test_a_clock_that_was_set_back_loses_nothing(tmp_path: Path) -> None:
    """What was counted in what is the future now stands in the running hour, and stays there."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        clock.set(5 * HOUR)
        await at.put()
        clock.set(-5 * HOUR)
        await at.put()
        for _ in range(2):
            flow = await at.spool.flow(clock.now(), 2, HOUR)
            assert ([point.accepted for point in flow.points], flow.before) == ([0, 2], 0)
            await at.spool.sweep(at.spool.now(), RetentionSettings())
        clock.advance(3600)
        flow = await at.spool.flow(clock.now(), 2, HOUR)
        assert [point.accepted for point in flow.points] == [2, 0]


async def test_a_group_is_counted_once(at: At) -> None:
    """In as few statements as seven rows take, however many messages are in it."""
    with statements() as seen:
        await asyncio.gather(*(at.put(client=f"c{n % 7}") for n in range(200)))
    assert 0 < sum("INTO tally" in text for text in seen) <= 3 * seen.count("COMMIT") < 30
    assert (await at.spool.flow(START, 1, HOUR)).total.accepted == 200


async def test_counts_stay_for_ninety_days(tmp_path: Path) -> None:
    """Longer than the messages, if these are kept shorter; then they go."""
    clock, kept = FakeClock(), RetentionSettings(history=timedelta(0))
    async with opened(tmp_path, clock=clock) as at:
        await at.put()
        await at.settle(SENT)
        for days, accepted in ((89, 1), (2, 0)):
            clock.advance(days * 86400)
            while await at.spool.sweep(at.spool.now(), kept):
                pass
            assert await at.spool.find() == []
            assert (await at.spool.flow(clock.now(), 120, DAY)).total.accepted == accepted


async def test_hours_become_days_and_no_count_changes(tmp_path: Path) -> None:
    """What is older than can be asked for by the hour is one row a day of each client; the young stays as it is."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        for n in range(12 * 8):  # each three hours
            await at.put(client=f"c{n % 2}")
            clock.advance(3 * 3600)
        flows = [await at.spool.flow(clock.now(), 30, DAY), await at.spool.flow(clock.now(), 168, HOUR)]
        rows = peer(tmp_path, "SELECT count(*) FROM tally")
        while await at.spool.sweep(at.spool.now(), RetentionSettings()):
            pass
        assert [await at.spool.flow(clock.now(), 30, DAY), await at.spool.flow(clock.now(), 168, HOUR)] == flows
        hours = [row[0] for row in peer(tmp_path, "SELECT hour_at FROM tally ORDER BY hour_at")]
        day, old = micros(START + DAY) - micros(START), micros(clock.now() - 10 * DAY)
        assert (len(hours) < rows[0][0], {hour % day for hour in hours if hour < old}) == (True, {0})
        assert sum(hour >= old for hour in hours) > 2 * 10
