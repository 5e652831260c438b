"""The workers as a whole: orders of the operator, reloads, the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.builders import AWAY
from tests.delivery.kit import MISCONFIGURED, house, routing, settings
from tests.fakes import SENT, ScriptedBackend, until


async def test_a_pause_for_a_time_ends_by_itself(tmp_path: Path) -> None:
    """When the operator's time is over the backend works as before, at its full concurrency."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        await at.dispatcher.pause("b", 60)
        identifier = await at.put("b")
        assert at.paused_by("b") == "operator"
        at.clock.advance(61)
        await at.settled(identifier, "done")
        assert at.paused_by("b") == ""


async def test_resume_by_order_is_at_once(tmp_path: Path) -> None:
    """After ``backend resume`` nothing waits for its schedule, the failed probe neither."""
    backend = ScriptedBackend("b", AWAY, SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        await at.dispatcher.resume("b")
        await at.settled(identifier, "done")


async def test_any_legal_name_may_be_a_backends(tmp_path: Path) -> None:
    """Our own tasks do not share a name space with backends."""
    backend = ScriptedBackend("housekeeping")
    async with house(tmp_path, settings(tmp_path, "housekeeping"), backend) as at:
        await at.settled(await at.put("housekeeping"), "done")
        assert at.dispatcher.alive


async def test_drain_gives_back_what_has_not_started(tmp_path: Path) -> None:
    """At a stop, claims in waiting are undone: no attempt is recorded for them."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        ids = [await at.put("b") for _ in range(8)]
        await until(lambda: backend.running == 4)
        draining = asyncio.create_task(at.dispatcher.drain(5))
        await asyncio.sleep(0)
        backend.gate.set()
        await draining
        states = [await at.state(identifier) for identifier in ids]
        assert sorted(states) == ["done"] * 4 + ["queued"] * 4
        for identifier, state in zip(ids, states, strict=True):
            detail = await at.spool.show(identifier)
            assert detail is not None
            assert len(detail.attempts) == (1 if state == "done" else 0)


async def test_messages_of_a_removed_backend_find_a_new_way(tmp_path: Path) -> None:
    """After a reload without their backend, queued messages follow the new routes."""
    old, new = ScriptedBackend("old", MISCONFIGURED), ScriptedBackend("new")
    async with house(tmp_path, settings(tmp_path, "old"), old) as at:
        identifier = await at.put("old")
        await at.tried(identifier)
        config = settings(tmp_path, "new")
        await at.dispatcher.update(config, routing(config, {"new": new}), {"new": new})
        await at.settled(identifier, "done")
        assert len(new.calls) == 1
        await until(lambda: old.closed)
    assert len(new.calls) == 1
