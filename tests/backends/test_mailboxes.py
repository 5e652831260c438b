"""Rule: a mailbox is never asked for more than its provider allows, and one that must rest holds up no other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.shared.mailboxes import Budget, Mailboxes
from gateway.model import Outcome, Verdict
from tests.fakes import FakeClock, until

THROTTLED = Outcome(Verdict.THROTTLED, 429, "4.4.5", "slow down", retry_after=timedelta(seconds=90))


def mailboxes(clock: FakeClock, *, many: bool = False, calls: float = 30, in_flight: int = 4) -> Mailboxes:
    return Mailboxes(
        clock, many=many, in_flight=in_flight, calls=lambda: Budget(calls, 60), bytes_=lambda: Budget(1000, 300)
    )


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=60))
def test_no_window_holds_more_than_the_budget(asked: list[tuple[int, int]]) -> None:
    """Whoever waits as long as told never exceeds it; only what costs more than all of it goes alone."""
    budget, now = Budget(10, 60), 0.0
    spent: list[tuple[float, int]] = []
    for pause, cost in asked:
        now += pause
        now += budget.wait(cost, now)
        assert budget.wait(cost, now) == 0
        budget.spend(cost, now)
        spent.append((now, cost))
    for when, cost in spent:
        window = [c for at, c in spent if when - 60 < at <= when]
        assert sum(window) <= 10 or window == [cost]


def test_a_budget_makes_nobody_wait_longer_than_needed() -> None:
    """The wait ends when enough of what was spent is a period old."""
    budget = Budget(10, 60)
    for when, cost in ((0.0, 4.0), (10.0, 4.0), (20.0, 2.0)):
        budget.spend(cost, when)
    assert [budget.wait(cost, 30.0) for cost in (4, 5, 8, 9, 99)] == [30, 40, 40, 50, 50]


async def test_calls_in_flight_are_bounded_for_each_mailbox() -> None:
    """The fifth waits for one of the four; another mailbox does not."""
    clock = FakeClock()
    boxes, gate, entered = mailboxes(clock), asyncio.Event(), []

    async def call(name: str) -> None:
        async with boxes.turn(name) as late:
            assert late is None
            entered.append(name)
            await gate.wait()

    tasks = [asyncio.create_task(call("a@x")) for _ in range(5)] + [asyncio.create_task(call("b@x"))]
    await until(lambda: len(entered) == 5)
    assert sorted(entered) == ["a@x"] * 4 + ["b@x"]
    gate.set()
    await asyncio.gather(*tasks)
    assert len(entered) == 6


async def test_the_only_mailbox_waits_for_its_turn() -> None:
    """No message is deferred for a pace that time brings about."""
    clock = FakeClock()
    boxes, done = mailboxes(clock, calls=2), []

    async def call(number: int) -> None:
        async with boxes.turn("a@x") as late:
            done.append((number, late))

    tasks = [asyncio.create_task(call(number)) for number in range(3)]
    await until(lambda: len(done) == 2 and bool(clock._sleepers))
    clock.advance(60)
    await asyncio.gather(*tasks)
    assert done == [(0, None), (1, None), (2, None)]


async def test_the_only_mailbox_does_not_wait_into_the_limit_for_a_send() -> None:
    """That would end in doubt though nothing was sent: instead the backend pauses until there is room again."""
    clock = FakeClock()
    boxes = Mailboxes(clock, many=False, in_flight=4, calls=lambda: Budget(1, 3600), bytes_=lambda: Budget(1000, 300))
    async with boxes.turn("a@x") as first, boxes.turn("a@x") as late:
        assert first is None
        assert late is not None
        assert (late.verdict, late.retry_after) == (Verdict.THROTTLED, timedelta(hours=1))


async def test_one_of_many_is_deferred_and_the_others_go_on() -> None:
    """A busy mailbox must not occupy the places of the backend."""
    clock = FakeClock()
    boxes = mailboxes(clock, many=True, calls=1)
    async with boxes.turn("a@x") as first, boxes.turn("b@x") as other:
        assert first is other is None
    async with boxes.turn("A@X") as late:
        assert late is not None
        assert (late.verdict, late.code, late.retry_after) == (Verdict.DEFERRED, 451, timedelta(seconds=60))


async def test_a_throttled_one_of_many_rests_alone() -> None:
    """Its mail is deferred by the provider's hint; with one mailbox the whole backend pauses instead."""
    clock = FakeClock()
    many, one = mailboxes(clock, many=True), mailboxes(clock)
    judged = many.judged("a@x", THROTTLED)
    assert (judged.verdict, judged.retry_after) == (Verdict.DEFERRED, timedelta(seconds=90))
    async with many.turn("a@x") as late, many.turn("b@x") as other:
        assert late is not None
        assert late.retry_after == timedelta(seconds=90)
        assert other is None
    assert one.judged("a@x", THROTTLED) is THROTTLED


async def test_bytes_count_too() -> None:
    """What was uploaded in the last minutes is remembered; a single message of any size can go."""
    clock = FakeClock()
    boxes = mailboxes(clock, many=True)
    async with boxes.turn("a@x", size=5000) as late:
        assert late is None
    async with boxes.turn("a@x", size=1) as late:
        assert late is not None
        assert late.retry_after == timedelta(seconds=300)


async def test_what_is_remembered_is_bounded() -> None:
    """Three thousand senders leave a thousand behind; those at rest stay."""
    clock = FakeClock()
    boxes = mailboxes(clock, many=True)
    boxes.judged("resting@x", THROTTLED)
    for number in range(3000):
        async with boxes.turn(f"{number}@x"):
            pass
    assert len(boxes._known) <= 1001
    async with boxes.turn("resting@x") as late:
        assert late is not None


async def test_who_waited_too_long_for_a_place_is_deferred() -> None:
    """Cut off by the time limit of a send it would be in doubt, though nothing went out."""
    clock = FakeClock()
    boxes, late = mailboxes(clock, in_flight=1), []

    async def second() -> None:
        async with boxes.turn("a@x") as outcome:
            late.append(outcome)

    async with boxes.turn("a@x"):
        waiting = asyncio.create_task(second())
        await until(lambda: boxes._known["a@x"].users == 2)
        clock.advance(601)
    await waiting
    assert late[0] is not None
    assert (late[0].verdict, late[0].code) == (Verdict.DEFERRED, 451)
