"""Asking what became of mail: the schedule, never more than a few at once, never while the backend rests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery.tracking import AT_ONCE, SCHEDULE
from gateway.model import DeliveryEvent, Outcome, Verdict
from gateway.spool import MessageDetail
from tests.delivery.kit import FULL, House, house, routing, settings
from tests.fakes import ScriptedBackend, until

HOUR = timedelta(hours=1)
QUEUED = DeliveryEvent("", "queued")
LOOK = 15


class TrackedBackend(ScriptedBackend):
    """Numbers what it takes; answers questions by the next line of ``said`` (the last one repeats)."""

    def __init__(self, name: str, *said: DeliveryEvent | Outcome | BaseException) -> None:
        super().__init__(name)
        self.said = list(said) or [QUEUED]
        self.asked: list[str] = []
        self.asking = 0
        self.most_asking = 0
        self.answer_gate: asyncio.Event | None = None

    @property
    def held(self) -> bool:
        return self.asking > 0 and self.answer_gate is not None and not self.answer_gate.is_set()

    async def send(self, message: Any, raw: bytes, progress: Any = None) -> dict[str, Outcome]:
        outcomes = await super().send(message, raw)
        taken = Outcome(Verdict.SENT, 200, "2.0.0", "", f"r{len(self.calls)}")
        return {address: taken if o.verdict is Verdict.SENT else o for address, o in outcomes.items()}

    async def status(self, remote_id: str) -> DeliveryEvent | Outcome:
        self.asked.append(remote_id)
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        try:
            if self.answer_gate is not None:
                await self.answer_gate.wait()
        finally:
            self.asking -= 1
        line = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(line, BaseException):
            raise line
        return line


async def told(at: House, ident: str) -> list[tuple[str, str]]:
    detail: MessageDetail | None = await at.spool.show(ident)
    assert detail is not None
    assert detail.state == "done"
    assert {row.source for row in detail.events} <= {"poll"}
    return [(row.state, row.detail) for row in detail.events]


async def wait(at: House, true: Callable[[], bool], within: timedelta, step: float = LOOK) -> float:
    """Let time pass in small steps until it holds, at most so long; returns how many seconds it took."""
    passed = 0.0
    await rest(at)
    while not true() and passed < within.total_seconds():
        at.clock.advance(step)
        passed += step
        await rest(at)
    return passed


async def rest(at: House) -> None:
    """Let who asks go on until he waits for time to pass, or for an answer that is held back."""
    backends = [one for one in at.backends if isinstance(one, TrackedBackend)]
    await until(lambda: at.clock.asleep("tracking.") or any(one.held for one in backends))


async def settled(at: House, name: str = "b") -> str:
    ident = await at.put(name)
    await at.settled(ident, "done")
    return ident


async def left(at: House, name: str = "b") -> int:
    return len(await at.spool.polls(name, 1000))


async def test_the_schedule(tmp_path: Path) -> None:
    """30 s, 2 min, 10 min, 1 h, 6 h and 24 h after one another; then nobody asks any more, and nothing is wrong."""
    backend = TrackedBackend("b")
    async with house(tmp_path, backend) as at:
        ident = await settled(at)
        waits = []
        for n, expected in enumerate(SCHEDULE):
            step = max(LOOK, expected.total_seconds() / 20)
            waits.append(await wait(at, lambda n=n: len(backend.asked) > n, 2 * expected, step))
            assert expected.total_seconds() <= waits[-1] <= expected.total_seconds() + 2 * step
            await rest(at)
        assert await left(at) == 0
        await wait(at, lambda: len(backend.asked) > len(SCHEDULE), timedelta(days=3), 6 * 3600)
        assert backend.asked == ["r1"] * len(SCHEDULE)
        assert await told(at, ident) == [("queued", "")]


@pytest.mark.parametrize("state", ["delivered", "bounced", "failed"])
async def test_a_final_answer_ends_the_questions(tmp_path: Path, state: str) -> None:
    """Kept with the message, which stays done; nobody gets a bounce from us."""
    backend = TrackedBackend("b", QUEUED, DeliveryEvent("ignored", state, "mailbox full"))
    async with house(tmp_path, backend) as at:
        ident = await settled(at)
        await wait(at, lambda: len(backend.asked) == 2, HOUR)
        await rest(at)
        assert await told(at, ident) == [("queued", ""), (state, "mailbox full")]
        assert await left(at) == 0
        await wait(at, lambda: len(backend.asked) > 2, 3 * HOUR, 600)
        assert (len(backend.asked), len(backend.calls)) == (2, 1)


async def test_a_webhook_ends_the_questions(tmp_path: Path) -> None:
    """Who was called back need not ask."""
    backend = TrackedBackend("b")
    async with house(tmp_path, backend) as at:
        await settled(at)
        await at.spool.add_events("b", [DeliveryEvent("r1", "delivered", key="k")], "webhook")
        await wait(at, lambda: bool(backend.asked), HOUR, 60)
        assert backend.asked == []


async def test_a_crash_between_hand_over_and_question(tmp_path: Path) -> None:
    """The question was written with the settlement: the next process asks it."""
    first, second = TrackedBackend("b"), TrackedBackend("b", DeliveryEvent("", "delivered"))
    async with house(tmp_path, first) as at:
        ident = await settled(at)
    async with house(tmp_path, second) as at:
        await wait(at, lambda: bool(second.asked), HOUR)
        await rest(at)
        assert (first.asked, second.asked) == ([], ["r1"])
        assert await told(at, ident) == [("delivered", "")]


async def test_few_at_a_time(tmp_path: Path) -> None:
    """A burst of mail is no burst of questions, and all are asked in the end."""
    backend = TrackedBackend("b", DeliveryEvent("", "delivered"))
    backend.answer_gate = asyncio.Event()
    async with house(tmp_path, backend) as at:
        for _ in range(25):
            await settled(at)
        await wait(at, lambda: backend.asking == AT_ONCE, HOUR)
        await rest(at)
        assert backend.asking == AT_ONCE
        backend.answer_gate.set()
        await until(lambda: len(backend.asked) == 25)
        await rest(at)
        assert (sorted(set(backend.asked)), backend.most_asking) == (sorted(backend.asked), AT_ONCE)
        assert await left(at) == 0


async def test_a_backend_that_rests_is_not_asked(tmp_path: Path) -> None:
    """Paused by an operator or by itself; asked when it works again."""
    backend = TrackedBackend("b")
    async with house(tmp_path, backend) as at:
        await settled(at)
        await at.dispatcher.pause("b", None)
        await wait(at, lambda: bool(backend.asked), HOUR, 60)
        assert backend.asked == []
        await at.dispatcher.resume("b")
        await wait(at, lambda: bool(backend.asked), HOUR)
        assert backend.asked == ["r1"]


@pytest.mark.parametrize(
    ("answer", "quiet"),
    [
        (Outcome(Verdict.THROTTLED, 429, "", "slow down", retry_after=timedelta(minutes=7)), 7 * 60),
        (Outcome(Verdict.THROTTLED, 429, "", "slow down"), 60),
        (Outcome(Verdict.MISCONFIGURED, 401, "", "bad key"), 60),
    ],
)
async def test_who_wants_to_be_left_alone_is(tmp_path: Path, answer: Outcome, quiet: int) -> None:
    """No question at all until the hint is over; the worker goes on sending and no state changes."""
    backend = TrackedBackend("b", answer)
    async with house(tmp_path, backend) as at:
        ident = await settled(at)
        at.clock.advance(20)
        await settled(at)
        await wait(at, lambda: bool(backend.asked), HOUR, 1)
        backend.said = [QUEUED]
        assert quiet <= await wait(at, lambda: len(backend.asked) > 1, HOUR) <= quiet + 2 * LOOK
        assert at.dispatcher.status()["b"].paused_by == ""
        await settled(at)
        assert await told(at, ident) in ([], [("queued", "")])


async def test_a_hint_puts_a_question_off(tmp_path: Path) -> None:
    """Longer than the schedule would."""
    backend = TrackedBackend("b", Outcome(Verdict.DEFERRED, 503, "", "later", retry_after=2 * HOUR), QUEUED)
    async with house(tmp_path, backend) as at:
        await settled(at)
        await wait(at, lambda: len(backend.asked) == 1, HOUR)
        assert 7200 <= await wait(at, lambda: len(backend.asked) == 2, 5 * HOUR, 60) <= 7320


@pytest.mark.parametrize(
    "answer", [Outcome(Verdict.DEFERRED, 503), Outcome(Verdict.REJECTED, 404), RuntimeError("bug")]
)
async def test_no_answer_counts_as_asked(tmp_path: Path, answer: Outcome | RuntimeError) -> None:
    """A provider that never knows is not asked for ever; neither does a bug in a backend stop the others' questions."""
    backend, other = TrackedBackend("b", answer), TrackedBackend("other", DeliveryEvent("", "delivered"))
    async with house(tmp_path, backend, other, routes=("b",)) as at:
        await settled(at)
        await settled(at, "other")
        await wait(at, lambda: len(backend.asked) == len(SCHEDULE), timedelta(days=3), 3600)
        await rest(at)
        assert (len(backend.asked), await left(at), other.asked) == (len(SCHEDULE), 0, ["r1"])
        assert at.dispatcher.alive


async def test_only_a_tracked_backend_is_polled(tmp_path: Path) -> None:
    """No questions are written for a backend that cannot answer them, and no task is there for it."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        await settled(at)
        assert await left(at) == 0
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert [name for name in names if "tracking" in name] == []


async def test_nothing_due_costs_nothing(tmp_path: Path) -> None:
    """While nothing is due the spool is looked at no more often than every 15 s."""
    backend = TrackedBackend("b")
    async with house(tmp_path, backend) as at:
        looks = at.calls("polls")
        for _ in range(60):
            at.clock.advance(1)
            await rest(at)
        assert 3 <= len(looks) <= 5


async def test_a_reload_replaces_who_asks(tmp_path: Path) -> None:
    """The old backend is asked nothing after it is closed; the new one is."""
    old, new = TrackedBackend("b"), TrackedBackend("b", DeliveryEvent("", "delivered"))
    old.answer_gate = asyncio.Event()
    config = settings(tmp_path, "b")
    async with house(tmp_path, old, config=config) as at:
        await settled(at)
        await wait(at, lambda: bool(old.asked), HOUR)
        await at.dispatcher.update(config, routing(config, {"b": new}), {"b": new})
        await until(lambda: old.closed)
        await wait(at, lambda: bool(new.asked), HOUR)
        assert (old.asked, new.asked, old.asking) == (["r1"], ["r1"], 0)
        assert at.dispatcher.alive
    assert new.closed


async def test_a_full_disk_only_delays(tmp_path: Path) -> None:
    """The answer that could not be written is asked for again."""
    backend = TrackedBackend("b", DeliveryEvent("", "delivered"))
    async with house(tmp_path, backend) as at:
        ident = await settled(at)
        at.refuse("add_events", FULL, FULL)
        await wait(at, lambda: len(backend.asked) == 3, HOUR)
        await rest(at)
        assert await told(at, ident) == [("delivered", "")]


async def test_a_bug_while_asking_is_not_the_end(tmp_path: Path) -> None:
    """The task is started again, as every task of delivery is."""
    backend = TrackedBackend("b", DeliveryEvent("", "delivered"))
    async with house(tmp_path, backend) as at:
        ident = await settled(at)
        bugs = at.refuse("polls", RuntimeError("bug"))
        await wait(at, lambda: bool(backend.asked), HOUR)
        await rest(at)
        assert (bugs, await told(at, ident), at.dispatcher.alive) == ([], [("delivered", "")], True)


async def test_a_stop_does_not_wait_for_an_answer(tmp_path: Path) -> None:
    """The question is asked again after the start."""
    backend = TrackedBackend("b")
    backend.answer_gate = asyncio.Event()
    async with house(tmp_path, backend) as at:
        await settled(at)
        await wait(at, lambda: backend.asking == 1, HOUR)
        await at.dispatcher.drain(1)
        assert (backend.asking, backend.closed, await left(at)) == (0, True, 1)


async def test_who_may_call_back(tmp_path: Path) -> None:
    """Only a backend that is there, knows how and has a secret."""

    class Calling(ScriptedBackend):
        hook = True

        def called_back(self, headers: object, body: bytes) -> list[DeliveryEvent]:
            return []

    deaf, plain, calling = Calling("deaf"), ScriptedBackend("plain"), Calling("calling")
    deaf.hook = False
    names = ("deaf", "plain", "calling")
    async with house(tmp_path, deaf, plain, calling) as at:
        found = {name: at.dispatcher.calls_back(name) for name in (*names, "nobody", "")}
        assert found == {**dict.fromkeys(found), "calling": calling}
