"""Rule: a mailbox is never asked for more than its provider allows, and one that must rest holds up no other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.mailboxes import Budget, Mailboxes
from gateway.model import Outcome, Scope, Verdict
from tests.backends import kit
from tests.fakes import FakeClock, until

THROTTLED = Outcome(
    Verdict.THROTTLED, 429, "4.4.5", "slow down", retry_after=timedelta(seconds=90), scope=Scope.BACKEND
)


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
        async with boxes.turn(name):
            entered.append(name)
            await gate.wait()

    tasks = [asyncio.create_task(call("a@x")) for _ in range(5)] + [asyncio.create_task(call("b@x"))]
    await until(lambda: len(entered) == 5)
    assert sorted(entered) == ["a@x"] * 4 + ["b@x"]
    gate.set()
    await asyncio.gather(*tasks)
    assert len(entered) == 6


async def late(boxes: Mailboxes, name: str, size: int = 0) -> Outcome | None:
    """Why this mailbox's mail has to wait; None where its turn has come, which is then used."""
    try:
        async with boxes.turn(name, size=size):
            return None
    except NoAnswer as error:
        kit.assert_kept(error.outcome)
        return error.outcome


async def test_the_only_mailbox_waits_for_its_turn() -> None:
    """No message is deferred for a pace that time brings about."""
    clock = FakeClock()
    boxes, done = mailboxes(clock, calls=2), []

    async def call(number: int) -> None:
        done.append((number, await late(boxes, "a@x")))

    tasks = [asyncio.create_task(call(number)) for number in range(3)]
    await until(lambda: len(done) == 2 and clock.sleepers > 0)
    clock.advance(60)
    await asyncio.gather(*tasks)
    assert done == [(0, None), (1, None), (2, None)]


async def test_the_only_mailbox_does_not_wait_into_the_limit_for_a_send() -> None:
    """That would end in doubt though nothing was sent: instead the backend pauses until there is room again."""
    clock = FakeClock()
    boxes = Mailboxes(clock, many=False, in_flight=4, calls=lambda: Budget(1, 3600), bytes_=lambda: Budget(1000, 300))
    assert await late(boxes, "a@x") is None
    waits = await late(boxes, "a@x")
    assert waits is not None
    assert (waits.verdict, waits.retry_after) == (Verdict.THROTTLED, timedelta(hours=1))


async def test_one_of_many_is_deferred_and_the_others_go_on() -> None:
    """A busy mailbox must not occupy the places of the backend."""
    clock = FakeClock()
    boxes = mailboxes(clock, many=True, calls=1)
    assert (await late(boxes, "a@x"), await late(boxes, "b@x")) == (None, None)
    waits = await late(boxes, "A@X")
    assert waits is not None
    assert (waits.verdict, waits.scope, waits.code) == (Verdict.DEFERRED, Scope.MESSAGE, None)
    assert waits.retry_after == timedelta(seconds=60)


async def test_one_of_many_lets_no_crowd_wait_for_it() -> None:
    """Who waits for a place takes one of the backend's own, which other mailboxes need; the only one hurts nobody."""
    for many in (True, False):
        boxes, gate = mailboxes(FakeClock(), many=many, in_flight=2), asyncio.Event()

        async def call(boxes: Mailboxes = boxes, gate: asyncio.Event = gate) -> Outcome | None:
            try:
                async with boxes.turn("a@corp.example"):
                    await gate.wait()
            except NoAnswer as error:
                return error.outcome
            return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call()) for _ in range(6)]
            for _ in range(5):
                await asyncio.sleep(0)  # each has come to its place, or to its refusal
            assert sum(task.done() for task in tasks) == 2 * many
            gate.set()
        refused = [task.result() for task in tasks if task.result() is not None]
        assert [(one.verdict, one.scope) for one in refused] == [(Verdict.DEFERRED, Scope.MESSAGE)] * (2 * many)


async def test_a_throttled_one_of_many_rests_alone() -> None:
    """Its mail is deferred by the provider's hint; with one mailbox the whole backend pauses instead."""
    clock = FakeClock()
    many, one = mailboxes(clock, many=True), mailboxes(clock)
    judged = many.judged("a@x", THROTTLED)
    assert (judged.verdict, judged.scope) == (Verdict.DEFERRED, Scope.MESSAGE)
    assert judged.retry_after == timedelta(seconds=90)
    waits = await late(many, "a@x")
    assert waits is not None
    assert waits.retry_after == timedelta(seconds=90)
    assert await late(many, "b@x") is None
    assert one.judged("a@x", THROTTLED) is THROTTLED


async def test_a_call_that_throttles_within_its_turn_rests_that_mailbox_alone() -> None:
    """Also where the answer comes as an exception, as that of a look-up does."""
    many = mailboxes(FakeClock(), many=True)
    with pytest.raises(NoAnswer) as caught:
        async with many.turn("a@x"):
            raise NoAnswer(THROTTLED)
    assert (caught.value.outcome.verdict, caught.value.outcome.scope) == (Verdict.DEFERRED, Scope.MESSAGE)
    assert await late(many, "a@x") is not None
    assert await late(many, "b@x") is None


async def test_bytes_count_too() -> None:
    """What was uploaded in the last minutes is remembered; a single message of any size can go."""
    clock = FakeClock()
    boxes = mailboxes(clock, many=True)
    assert await late(boxes, "a@x", 5000) is None
    waits = await late(boxes, "a@x", 1)
    assert waits is not None
    assert waits.retry_after == timedelta(seconds=300)


async def test_what_is_remembered_is_bounded() -> None:
    """Three thousand senders leave a thousand behind: the first is as good as new, but those at rest stay."""
    clock = FakeClock()
    boxes = mailboxes(clock, many=True, calls=1)
    boxes.judged("resting@x", THROTTLED)
    for number in range(3000):
        assert await late(boxes, f"{number}@x") is None
    assert await late(boxes, "0@x") is None
    assert await late(boxes, "2999@x") is not None
    assert await late(boxes, "resting@x") is not None


async def test_who_waited_too_long_for_a_place_is_deferred() -> None:
    """Cut off by the time limit of a send it would be in doubt, though nothing went out."""
    clock = FakeClock()
    boxes = mailboxes(clock, in_flight=1)
    async with boxes.turn("a@x"):
        waiting = asyncio.create_task(late(boxes, "a@x"))
        await asyncio.sleep(0)  # it has come, and waits for the place
        clock.advance(601)
    waits = await waiting
    assert waits is not None
    assert (waits.verdict, waits.scope, "concurrency" in waits.fix) == (Verdict.DEFERRED, Scope.MESSAGE, True)
