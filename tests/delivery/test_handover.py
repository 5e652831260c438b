"""Hand-over at work: who gets a message in the commit that puts it, and what that costs nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from gateway.model import SpoolTrouble, SpoolUnavailable
from gateway.quota import Rate
from gateway.spool import Filter
from tests.builders import AWAY, GREYLISTED
from tests.delivery.kit import House, house, routing, settings
from tests.fakes import SENT, ScriptedBackend, breathe, until

QUIET = 1  # rounds of housekeeping at the start
SLEEPERS = 2  # who keeps house, and who measures the disk


async def ready(at: House) -> None:
    """Until the worker knows that nothing waits for it, and nobody is about to wake it."""
    await until(lambda: at.clock.sleepers == SLEEPERS)
    await at.settled(await at.put("b"), "done")
    await until(lambda: idle(at))


def idle(at: House) -> bool:
    """Whether nothing is being sent, and the worker would take something just now."""
    if at.dispatcher.status()["b"].in_flight:
        return False
    if offer := at.dispatcher.offer("b"):
        offer.taken(None, b"")
    return offer is not None


def offers(at: House, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each message put from now on is taken at once."""
    seen, ask = [], at.dispatcher.offer

    def offer(name: str) -> object:
        seen.append((made := ask(name)) is not None)
        return made

    monkeypatch.setattr(at.dispatcher, "offer", offer)
    return seen


async def test_an_idle_worker_takes_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks the queue: one commit holds message, claim and attempt, and the network comes after it."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        await ready(at)
        asked, offered = at.calls("claim"), offers(at, monkeypatch)
        backend.gate = asyncio.Event()
        ident = await at.put("b")
        detail = await at.spool.show(ident)
        assert detail is not None
        assert [row.ended_at for row in detail.attempts] == [None]
        await until(lambda: backend.running == 1)
        backend.gate.set()
        await at.settled(ident, "done")
        assert (asked, offered) == ([], [True])
        assert [message.attempt for message, _ in backend.calls[1:]] == [1]


async def test_as_many_as_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash interrupts what was handed over: never more than may be claimed ahead, three times the concurrency."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=4) as at:
        await ready(at)
        backend.gate, offered = asyncio.Event(), offers(at, monkeypatch)
        ids = await at.put_many(50, "b")
        assert offered.count(True) == 12
        for _ in range(20):
            await breathe()
        assert backend.running == 4
        backend.gate.set()
        await at.all_settled(ids, "done")
        assert len(backend.calls) == 51
        assert backend.most_running == 4


async def test_nobody_is_overtaken(tmp_path: Path) -> None:
    """While older mail waits, what comes is not handed over: all leave in the order in which they came."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=1) as at:
        await ready(at)
        backend.gate = asyncio.Event()
        ids = []
        for _ in range(30):
            ids.append(await at.put("b"))
            at.clock.advance(0.001)
        backend.gate.set()
        for _ in range(30):
            ids.append(await at.put("b"))
            at.clock.advance(0.001)
        await at.all_settled(ids, "done")
        assert [message.id for message, _ in backend.calls[1:]] == ids


class Turnstile(asyncio.Event):
    """A gate of a backend that lets through as many as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = asyncio.Semaphore(0)

    async def wait(self) -> Literal[True]:
        return await self.turns.acquire()

    def let(self, many: int) -> None:
        for _ in range(many):
            self.turns.release()


async def test_nobody_is_overtaken_though_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room again, but who waits in the queue is not claimed yet, for that is done in groups."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=4) as at:
        await ready(at)
        backend.gate, offered = (gate := Turnstile()), offers(at, monkeypatch)
        ids = [await at.put("b") for _ in range(14)]
        gate.let(3)
        await at.all_settled(ids[:3], "done")
        ids += [await at.put("b") for _ in range(3)]
        assert offered == [True] * 12 + [False] * 5
        gate.let(14)
        await at.all_settled(ids, "done")
        assert [message.id for message, _ in backend.calls[1:]] == ids


async def test_who_falls_due_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before its next try may go at once, what comes at that very moment goes after it."""
    backend = ScriptedBackend("b", SENT, GREYLISTED, SENT)
    async with house(tmp_path, backend) as at:
        await ready(at)
        late = await at.put("b")
        detail = await at.tried(late)
        assert detail.message.next_attempt_at is not None
        await until(lambda: idle(at))
        offered = offers(at, monkeypatch)
        between = await at.put("b")
        await at.settled(between, "done")
        at.clock.advance((detail.message.next_attempt_at - at.clock.now()).total_seconds())
        last = await at.put("b")
        assert offered == [True, False]
        await at.all_settled([late, last], "done")
        assert [message.id for message, _ in backend.calls[2:]] == [between, late, last]


async def test_who_is_given_back_keeps_its_turn(tmp_path: Path) -> None:
    """The backend goes away while some that were handed over wait for a place: they do not go behind who came later."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=1) as at:
        await ready(at)
        backend.gate, backend.script = asyncio.Event(), [AWAY, SENT]
        ids = []
        for _ in range(6):
            ids.append(await at.put("b"))
            at.clock.advance(1)
        backend.gate.set()
        await at.tried(ids[0])
        await until(lambda: not at.dispatcher.status()["b"].in_flight)
        at.clock.advance(10)
        await at.dispatcher.resume("b")
        await at.all_settled(ids, "done")
        assert [message.id for message, _ in backend.calls[2:] if message.id != ids[0]] == ids[1:]


async def test_giving_back_waits_for_the_disk(tmp_path: Path) -> None:
    """The backend rests while the disk takes no write, as when both are on one network: nothing is thought to be sent
    that was not."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=1) as at:
        await ready(at)
        backend.gate = asyncio.Event()
        ids = [await at.put("b") for _ in range(3)]
        left = at.refuse("release_claims", *[SpoolUnavailable("the disk")] * 3)
        await at.dispatcher.pause("b", None)
        for ident in ids[1:]:
            while await verdicts(at, ident):
                at.clock.advance(1)
                await breathe()
        assert not left
        waiting = [each async for page in at.spool.deliveries("b") for each in page]
        assert [(each.message.id, each.sticky) for each in waiting] == [(ident, False) for ident in ids[1:]]
        backend.gate.set()


async def _paced(at: House) -> None: ...


async def _paused(at: House) -> None:
    await at.dispatcher.pause("b", None)


async def _away(at: House) -> None:
    at.backends[0].script = [AWAY]
    await at.tried(await at.put("b"))


async def _probed(at: House) -> None:
    await _away(at)
    at.backends[0].gate = asyncio.Event()
    at.clock.advance(61)
    await until(lambda: at.backends[0].running == 1)


async def _full(at: House) -> None:
    at.refuse("claim", *[SpoolUnavailable("the disk")] * 3)
    at.dispatcher.wake("b")
    await breathe()


@pytest.mark.parametrize("state", [_paced, _paused, _away, _probed, _full])
async def test_who_does_not_work_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Callable[[House], Awaitable[None]]
) -> None:
    """A backend that is paced, paused, away, or probed by one message; one whose queue cannot be asked: it waits for
    its turn in the queue, as ever."""
    more = {"rate": Rate(1000, timedelta(seconds=1))} if state is _paced else {}
    async with house(tmp_path, ScriptedBackend("b"), **more) as at:
        await until(lambda: len(at.ended) == QUIET)
        await state(at)
        offered = offers(at, monkeypatch)
        ident = await at.put("b")
        assert offered == [False]
        backend = at.backends[0]
        backend.script = [SENT]
        if backend.gate:
            backend.gate.set()
        await at.dispatcher.resume("b")
        at.clock.advance(60)
        await at.settled(ident, "done")


async def _replace(at: House) -> None:
    """A reload brings another backend of this name."""
    other = {"b": ScriptedBackend("b")}
    await at.dispatcher.update(config := settings(Path("/nowhere"), "b"), routing(config, other), other)


async def _pause(at: House) -> None:
    await at.dispatcher.pause("b", None)


async def _stop(at: House) -> None:
    await at.dispatcher.drain(5)


async def _hurry(at: House) -> None:
    await at.dispatcher.drain(0)


async def verdicts(at: House, ident: str) -> list[str]:
    detail = await at.spool.show(ident)
    assert detail is not None
    return [row.verdict for row in detail.attempts]


async def until_given_back(at: House, ident: str) -> None:
    while await verdicts(at, ident):
        await breathe()


@pytest.mark.parametrize("change", [_replace, _pause, _stop, _hurry])
async def test_who_stops_at_that_moment_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[House], Awaitable[None]]
) -> None:
    """Between the offer and the commit a reload, a pause or a stop: it was not sent, and nobody thinks that it was."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        await ready(at)
        offered = offers(at, monkeypatch)
        putting = asyncio.create_task(at.put("b"))
        while not offered:
            await asyncio.sleep(0)
        assert offered == [True]
        assert not putting.done()
        await change(at)
        ident = await putting
        if change is _replace:
            await at.settled(ident, "done")
        else:
            await until(lambda: at.spool.counts() == {("b", "queued"): 1})
            await until_given_back(at, ident)
            (waiting,) = [each async for page in at.spool.deliveries("b") for each in page]
            assert (waiting.sticky, waiting.in_doubt) == (False, 0)
        assert await verdicts(at, ident) == (["sent"] if change is _replace else [])
        assert len(backend.calls) == 1


async def test_a_commit_that_fails_frees_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place held for a message that is not accepted is there for the next one, again and again."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=1) as at:
        await ready(at)
        offered = offers(at, monkeypatch)
        known = backend.calls[0][0].id
        for _ in range(10):
            with pytest.raises(SpoolTrouble):
                await at.put("b", ident=known)
        ident = await at.put("b")
        assert offered == [True] * 11
        await at.settled(ident, "done")


async def test_held_at_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``queue hold`` of what was handed over and waits for a place does as for any other claim: it is under way."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, concurrency=1) as at:
        await ready(at)
        backend.gate, offered = asyncio.Event(), offers(at, monkeypatch)
        first, second = await at.put("b"), await at.put("b")
        assert offered == [True, True]
        await at.spool.hold(Filter(ids=(second,)), at.clock.now())
        backend.gate.set()
        await at.all_settled([first, second], "done")
        assert [message.id for message, _ in backend.calls[1:]] == [first, second]
