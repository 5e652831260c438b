"""One backend at work: attempts, retries, failover, and what may never happen twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.model import Outcome, Rate
from tests.builders import AWAY, IN_DOUBT, RAW
from tests.delivery.kit import DEFERRED, MISCONFIGURED, THROTTLED, house, settings
from tests.fakes import SENT, ScriptedBackend, until


async def test_a_message_is_sent_once_and_done(tmp_path: Path) -> None:
    """Put, claimed, sent, settled: one call, every byte, state done."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await at.settled(identifier, "done")
        assert [(m.id, raw) for m, raw in backend.calls] == [(identifier, RAW)]


async def test_deferred_is_tried_again_at_its_time(tmp_path: Path) -> None:
    """A temporary answer waits for the first delay of the list, then goes out."""
    backend = ScriptedBackend("b", DEFERRED, SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await until(lambda: len(backend.calls) == 1)
        detail = await at.tried(identifier)
        assert detail.recipients[0].detail == "greylisted"
        at.clock.advance(59)
        assert len(backend.calls) == 1
        at.clock.advance(2)
        await at.settled(identifier, "done")
        assert [m.attempt for m, _ in backend.calls] == [1, 2]


async def test_one_probe_while_the_backend_is_away(tmp_path: Path) -> None:
    """An outage rests the lane: not every queued message tries; the first success sets all free at once."""
    backend = ScriptedBackend("b", AWAY)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        first = await at.put("b")
        await at.tried(first)
        rest = [await at.put("b") for _ in range(30)]
        assert at.paused_by("b") == "unreachable"
        for n in range(2, 5):
            at.clock.advance(61)
            await until(lambda n=n: len(backend.calls) == n)
            await until(lambda: at.dispatcher.status()["b"].paused_until is not None)
        backend.script = [SENT]
        at.clock.advance(61)
        for identifier in [first, *rest]:
            await at.settled(identifier, "done")
        assert len(backend.calls) == 4 + 31


@pytest.mark.parametrize(("outcome", "by"), [(THROTTLED, "throttled"), (MISCONFIGURED, "misconfigured")])
async def test_our_trouble_never_bounces(tmp_path: Path, outcome: Outcome, by: str) -> None:
    """A throttled or misconfigured backend pauses; a check or a resume brings it back; nothing failed."""
    backend = ScriptedBackend("b", outcome, SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        status = at.dispatcher.status()["b"]
        assert (status.paused_by, status.reason) == (by, outcome.detail)
        at.clock.advance(500)
        await at.settled(identifier, "done")


async def test_doubt_after_failover_stays_where_it_arose(tmp_path: Path) -> None:
    """The second backend may have taken it: the first, back again, must not send it too."""
    first, second = ScriptedBackend("first", AWAY, SENT), ScriptedBackend("second", IN_DOUBT, SENT)
    async with house(tmp_path, settings(tmp_path, "first", "second"), first, second) as at:
        identifier = await at.put("first")
        await until(lambda: len(second.calls) == 1)
        at.clock.advance(3700)
        await at.settled(identifier, "done")
        assert (len(first.calls), len(second.calls)) == (1, 2)


async def test_a_slow_rate_sends_each_message_once(tmp_path: Path) -> None:
    """Waiting for its turn longer than a lease lasts does not send a message twice."""
    backend = ScriptedBackend("b")
    config = settings(tmp_path, "b", rate=Rate(10, timedelta(hours=1)))
    async with house(tmp_path, config, backend) as at:
        ids = [await at.put("b") for _ in range(12)]
        for n in range(1, 13):
            await until(lambda n=n: len(backend.calls) == n)
            await until(lambda: at.dispatcher.status()["b"].in_flight == 0)
            await at.settled(backend.calls[-1][0].id, "done")
            assert len(backend.calls) == n
            at.clock.advance(361)
        assert sorted(message.id for message, _ in backend.calls) == sorted(ids)


async def test_a_set_clock_does_not_send_again_what_is_being_sent(tmp_path: Path) -> None:
    """A lease that ran out by a step of the clock is still ours while the send goes on."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await until(lambda: backend.running == 1)
        at.clock.advance(3 * 3600)
        other = await at.put("b")
        await until(lambda: backend.running == 2)
        backend.gate.set()
        for each in (identifier, other):
            await at.settled(each, "done")
        assert len(backend.calls) == 2


async def test_failover_goes_on_at_once(tmp_path: Path) -> None:
    """Where the first backend certainly did not take it, the second gets it in the same minute."""
    first, second = ScriptedBackend("first", AWAY), ScriptedBackend("second")
    async with house(tmp_path, settings(tmp_path, "first", "second"), first, second) as at:
        identifier = await at.put("first")
        await at.settled(identifier, "done")
        later = await at.put("first")
        at.clock.advance(11)
        await at.settled(later, "done")
        assert len(first.calls) == 1
        assert [m.id for m, _ in second.calls] == [identifier, later]


async def test_what_nobody_has_looked_at_waits_for_a_way_that_takes_all(tmp_path: Path) -> None:
    """Accepted before a limited backend came into the route: handed to that it would bounce for what it holds."""
    first, second, third = ScriptedBackend("first", AWAY), ScriptedBackend("second"), ScriptedBackend("third")
    second.capabilities = replace(second.capabilities, lacks=frozenset(("attachments",)))
    async with house(tmp_path, settings(tmp_path, "first", "second", "third"), first, second, third) as at:
        identifier = await at.put("first")
        await at.settled(identifier, "done")
        assert (len(first.calls), second.calls, [m.id for m, _ in third.calls]) == (1, [], [identifier])
    only = settings(tmp_path, "first", "second")
    first, second = ScriptedBackend("first", AWAY), ScriptedBackend("second")
    first.capabilities = second.capabilities = replace(second.capabilities, lacks=frozenset(("attachments",)))
    async with house(tmp_path / "only", only, first, second) as at:
        await at.settled(await at.put("first"), "done")
        assert len(second.calls) == 1


async def test_no_failover_from_doubt(tmp_path: Path) -> None:
    """A lost answer stays with its backend: once more after the longest delay, then held for a person."""
    first, second = ScriptedBackend("first", IN_DOUBT), ScriptedBackend("second")
    async with house(tmp_path, settings(tmp_path, "first", "second"), first, second) as at:
        identifier = await at.put("first")
        await at.tried(identifier)
        at.clock.advance(3601)
        await at.settled(identifier, "held")
        assert (len(first.calls), len(second.calls)) == (2, 0)


async def test_doubt_can_be_held_at_once(tmp_path: Path) -> None:
    """``in_doubt: hold`` asks a person the first time."""
    backend = ScriptedBackend("b", IN_DOUBT)
    async with house(tmp_path, settings(tmp_path, "b", in_doubt="hold"), backend) as at:
        await at.settled(await at.put("b"), "held")


async def test_concurrency_is_kept(tmp_path: Path) -> None:
    """Never more sends at once than the setting says."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        ids = [await at.put("b") for _ in range(20)]
        await until(lambda: backend.running == 4)
        backend.gate.set()
        for identifier in ids:
            await at.settled(identifier, "done")
        assert backend.most_running == 4
        assert len(backend.calls) == 20


async def test_a_bug_in_a_backend_loses_nothing(tmp_path: Path) -> None:
    """An exception that escapes is deferred and tried again."""
    backend = ScriptedBackend("b", RuntimeError("bug"), SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        at.clock.advance(61)
        await at.settled(identifier, "done")
