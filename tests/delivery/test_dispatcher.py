"""The workers as a whole: orders of the operator, reloads, the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.checks import Check
from gateway.config.models import RetrySettings, RouteSettings
from gateway.model import Outcome
from tests.builders import AWAY
from tests.delivery.kit import DEFERRED, MISCONFIGURED, REJECTED, House, house, routing, settings
from tests.fakes import SENT, ScriptedBackend, until


async def test_a_pause_for_a_time_ends_by_itself(tmp_path: Path) -> None:
    """When the operator's time is over the backend works as before, at its full concurrency."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        await at.dispatcher.pause("b", 60)
        identifier = await at.put("b")
        assert at.paused_by("b") == "operator"
        at.clock.advance(61)
        await at.settled(identifier, "done")
        assert at.paused_by("b") == ""


async def test_resume_by_order_is_at_once(tmp_path: Path) -> None:
    """After ``backend resume`` nothing waits for its schedule, the failed probe neither."""
    backend = ScriptedBackend("b", AWAY, SENT)
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        await at.dispatcher.resume("b")
        await at.settled(identifier, "done")


async def test_any_legal_name_may_be_a_backends(tmp_path: Path) -> None:
    """Our own tasks do not share a name space with backends."""
    backend = ScriptedBackend("housekeeping")
    async with house(tmp_path, backend) as at:
        await at.settled(await at.put("housekeeping"), "done")
        assert at.dispatcher.alive


async def test_drain_gives_back_what_has_not_started(tmp_path: Path) -> None:
    """At a stop, claims in waiting are undone: no attempt is recorded for them."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend) as at:
        ids = [await at.put("b") for _ in range(8)]
        await until(lambda: backend.running == 4)
        draining = asyncio.create_task(at.dispatcher.drain(5))
        await until(lambda: at.dispatcher.status() == {})
        backend.gate.set()
        await draining
        states = [await at.state(identifier) for identifier in ids]
        assert sorted(states) == ["done"] * 4 + ["queued"] * 4
        for identifier, state in zip(ids, states, strict=True):
            detail = await at.spool.show(identifier)
            assert detail is not None
            assert len(detail.attempts) == (1 if state == "done" else 0)


async def reload(at: House, path: Path, backend: ScriptedBackend) -> None:
    """With other settings of this backend."""
    config = settings(path, backend.name)
    await at.dispatcher.update(config, routing(config, {backend.name: backend}), {backend.name: backend})


async def test_other_settings_are_tried_at_once(tmp_path: Path) -> None:
    """After a reload that puts a password right nothing is paused any more, what waited goes, and no alarm stays."""
    old, new = ScriptedBackend("b", MISCONFIGURED), ScriptedBackend("b")
    async with house(tmp_path, old) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        assert b'gateway_backend_paused{backend="b"} 1.0' in at.events.render()[1]
        await reload(at, tmp_path, new)
        assert at.paused_by("b") == ""
        assert b'gateway_backend_paused{backend="b"} 0.0' in at.events.render()[1]
        await at.settled(identifier, "done")


async def test_other_settings_are_not_known_to_fail(tmp_path: Path) -> None:
    """What was found out about the old ones is no alarm about the new, also where no mail waits to try them."""
    old, new = ScriptedBackend("b"), ScriptedBackend("b")
    old.checked = Check(False, "wrong password")
    async with house(tmp_path, old) as at:
        await at.dispatcher.check("b")
        assert b'gateway_backend_up{backend="b"} 0.0' in at.events.render()[1]
        await reload(at, tmp_path, new)
        assert b'gateway_backend_up{backend="b"} 1.0' in at.events.render()[1]


async def test_an_order_outlives_a_reload(tmp_path: Path) -> None:
    """Paused until it is resumed, whatever else is changed meanwhile."""
    old, new = ScriptedBackend("b"), ScriptedBackend("b")
    async with house(tmp_path, old) as at:
        await at.dispatcher.pause("b", None)
        await reload(at, tmp_path, new)
        identifier = await at.put("b")
        await until(lambda: old.closed)
        assert (at.paused_by("b"), await at.state(identifier), new.calls) == ("operator", "queued", [])
        await at.dispatcher.resume("b")
        await at.settled(identifier, "done")


async def test_who_leaves_at_a_reload_has_no_say(tmp_path: Path) -> None:
    """The answer to the old password comes late: it does not pause the backend that has another."""
    old, new = ScriptedBackend("b", MISCONFIGURED), ScriptedBackend("b")
    old.gate = asyncio.Event()
    async with house(tmp_path, old) as at:
        first = await at.put("b")
        await until(lambda: old.running == 1)
        await reload(at, tmp_path, new)
        old.gate.set()
        await at.tried(first)
        assert at.paused_by("b") == ""
        assert at.logged("backend_paused") == []
        await at.settled(await at.put("b"), "done")


@pytest.mark.parametrize("outcome", [DEFERRED, MISCONFIGURED])
async def test_who_works_again_leaves_others_their_schedule(tmp_path: Path, outcome: Outcome) -> None:
    """By order or after a good check: what the same messages still have to do by another is tried at its time."""
    backend, other = ScriptedBackend("b", outcome, DEFERRED), ScriptedBackend("other", DEFERRED)
    ways = [RouteSettings(backend=("b",), recipients=("a@x.org",)), RouteSettings(backend=("other",))]
    config = settings(tmp_path, "b", "other").model_copy(update={"routes": tuple(ways)})
    async with house(tmp_path, backend, other, config=config) as at:
        both = {"b": ("a@x.org",), "other": ("c@x.org",)}
        identifier = await at.put("b", "a@x.org", "c@x.org", deliveries=both)
        for one in (backend, other):
            await until(lambda one=one: len(one.calls) == 1 and at.dispatcher.status()[one.name].in_flight == 0)
        await (at.dispatcher.check("b") if outcome is MISCONFIGURED else at.dispatcher.resume("b"))
        await until(lambda: len(backend.calls) == 2 and at.dispatcher.status()["b"].in_flight == 0)
        detail = await at.spool.show(identifier)
        assert detail is not None
        due = {row.backend: row.next_attempt_at - at.clock.now() for row in detail.deliveries}
        assert due["other"] == timedelta(minutes=1)


async def test_messages_of_a_removed_backend_find_a_new_way(tmp_path: Path) -> None:
    """After a reload without their backend, queued messages follow the new routes."""
    old, new = ScriptedBackend("old", MISCONFIGURED), ScriptedBackend("new")
    async with house(tmp_path, old) as at:
        identifier = await at.put("old")
        await at.tried(identifier)
        config = settings(tmp_path, "new")
        await at.dispatcher.update(config, routing(config, {"new": new}), {"new": new})
        await at.settled(identifier, "done")
        assert len(new.calls) == 1
        await until(lambda: old.closed)
    assert len(new.calls) == 1


class Remembering(ScriptedBackend):
    """Answers from memory until it forgets."""

    def forget(self) -> None:
        self.script = [SENT]


async def test_resume_by_order_asks_anew(tmp_path: Path) -> None:
    """A password that was corrected a moment ago counts at once, not when a remembered refusal is forgotten."""
    backend = Remembering("b", MISCONFIGURED)
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        await at.dispatcher.resume("b")
        await at.settled(identifier, "done")


async def test_resume_by_order_reaches_every_message(tmp_path: Path) -> None:
    """However many were put off: none of them waits for its schedule."""
    backend = ScriptedBackend("b", DEFERRED)
    async with house(tmp_path, backend, concurrency=200) as at:
        await at.put_many(1500, "b")
        await until(lambda: len(backend.calls) == 1500 and at.dispatcher.status()["b"].in_flight == 0)
        backend.script = [SENT]
        await at.dispatcher.resume("b")
        await at.queued("b", 0)
        assert len(backend.calls) == 3000


async def test_the_status_says_what_to_do(tmp_path: Path) -> None:
    """Beside the reason stands the fix, and both go when it works again; nothing is in flight by then."""
    backend = ScriptedBackend("b", MISCONFIGURED, SENT)
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        status = at.dispatcher.status()["b"]
        shown = (status.paused_by, status.reason, status.fix, status.queued, status.in_flight)
        assert shown == ("misconfigured", MISCONFIGURED.detail, MISCONFIGURED.fix, 1, 0)
        assert status.paused_until == at.clock.now() + timedelta(minutes=1)
        assert (await at.dispatcher.check("b")).ok
        await at.settled(identifier, "done")
        await until(lambda: at.dispatcher.status()["b"].in_flight == 0)
        status = at.dispatcher.status()["b"]
        assert (status.paused_by, status.reason, status.fix, status.paused_until) == ("", "", "", None)
        assert status.last_success == at.clock.now()


@pytest.mark.parametrize("said", [DEFERRED, REJECTED])
async def test_a_refusal_is_no_success(tmp_path: Path, said: Outcome) -> None:
    """A backend that answers and takes nothing shows no success, or who looks for the fault looks elsewhere."""
    async with house(tmp_path, ScriptedBackend("b", said)) as at:
        await at.tried(await at.put("b"))
        assert at.dispatcher.status()["b"].last_success is None


async def test_a_check_does_not_overrule_an_order(tmp_path: Path) -> None:
    """What the operator paused stays paused though it works; what does not work stays as it is."""
    backend = ScriptedBackend("b", AWAY)
    async with house(tmp_path, backend) as at:
        await at.tried(await at.put("b"))
        backend.checked = Check(False, "connection refused")
        assert not (await at.dispatcher.check("b")).ok
        assert at.paused_by("b") == "unreachable"
        await at.dispatcher.pause("b", None)
        backend.checked = Check(True, "scripted")
        assert (await at.dispatcher.check("b")).ok
        assert (at.paused_by("b"), at.dispatcher.status()["b"].paused_until) == ("operator", None)


async def test_orders_for_nobody(tmp_path: Path) -> None:
    """A backend that is not there is a KeyError, and waking it is nothing."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        for order in (at.dispatcher.pause("x", None), at.dispatcher.resume("x"), at.dispatcher.check("x")):
            with pytest.raises(KeyError):
                await order
        at.dispatcher.wake("x")


async def test_a_stop_in_a_hurry_waits_for_nobody_and_closes_all(tmp_path: Path) -> None:
    """A second signal cancels the draining: sends under way are cut off, and their backends closed all the same."""
    slow, other = ScriptedBackend("slow"), ScriptedBackend("other")
    slow.gate = asyncio.Event()
    async with house(tmp_path, slow, other) as at:
        await at.put("slow")
        await until(lambda: slow.running == 1)
        draining = asyncio.create_task(at.dispatcher.drain(3600))
        await until(lambda: other.closed)
        draining.cancel()
        await asyncio.wait({draining})
        assert (draining.cancelled(), slow.running, slow.closed) == (True, 0, True)


async def test_a_stop_does_not_wait_for_who_left_at_a_reload(tmp_path: Path) -> None:
    """The replaced worker's send is cut off with the others, when the time for a stop is over."""
    old, new = ScriptedBackend("b"), ScriptedBackend("b")
    old.gate = asyncio.Event()
    config = settings(tmp_path, "b")
    async with house(tmp_path, old, config=config) as at:
        identifier = await at.put("b")
        await until(lambda: old.running == 1)
        await at.dispatcher.update(config, routing(config, {"b": new}), {"b": new})
        await at.dispatcher.drain(0)
        assert (old.running, old.closed, new.closed) == (0, True, True)
        assert (await at.state(identifier), new.calls) == ("queued", [])


@pytest.mark.parametrize("waits_for", ["gone", "rests"])
async def test_a_stop_does_not_wait_for_all_that_goes_another_way(tmp_path: Path, waits_for: str) -> None:
    """However much waits for a backend that rests or is no more, a stop ends its moving after the step under way."""
    backends = [ScriptedBackend("rests"), ScriptedBackend("b")]
    async with house(tmp_path, *backends) as at:
        await at.dispatcher.pause("b", None)
        await at.dispatcher.pause("rests", None)
        await at.put_many(1001, waits_for)
        go = asyncio.Event()
        pages = at.calls("deliveries", go)
        if waits_for == "rests":
            await at.dispatcher.resume("b")
        await at.rounds(lambda: pages)
        draining = asyncio.create_task(at.dispatcher.drain(1))
        await at.clock.sleep(0)
        if waits_for == "rests":
            await until(lambda: at.dispatcher.status() == {})
        go.set()
        await draining
        assert len(pages) == 1


async def test_a_stop_does_not_wait_for_all_that_is_swept(tmp_path: Path) -> None:
    """However much is past its time, a stop ends the sweep after the step under way."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        sweeps, go = [], asyncio.Event()

        async def slow(*given: Any) -> int:
            sweeps.append(given)
            await go.wait()
            return 600 if len(sweeps) < 3 else 0

        at.spool.sweep = slow  # type: ignore[method-assign]
        await at.rounds(lambda: sweeps)
        draining = asyncio.create_task(at.dispatcher.drain(1))
        await at.clock.sleep(0)
        go.set()
        await draining
        assert len(sweeps) == 1


async def test_a_reload_gives_new_orders_to_who_stays(tmp_path: Path) -> None:
    """New delays count from the next attempt on, though the backend's own settings are the same."""
    backend = ScriptedBackend("b", DEFERRED, SENT)
    config = settings(tmp_path, "b")
    async with house(tmp_path, backend, config=config) as at:
        changed = config.model_copy(update={"retry": RetrySettings(jitter=0, delays=(timedelta(minutes=9),))})
        await at.dispatcher.update(changed, routing(changed, {"b": backend}), {"b": backend})
        detail = await at.tried(await at.put("b"))
        assert detail.deliveries[0].next_attempt_at == at.clock.now() + timedelta(minutes=9)
