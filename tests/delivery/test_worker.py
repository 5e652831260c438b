"""One backend at work: attempts, retries, failover, and what may never happen twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.model import Outcome, Progress, Scope, SpooledMessage, SpoolUnavailable, Verdict
from gateway.quota import Rate
from tests.builders import AWAY, IN_DOUBT, RAW
from tests.delivery.kit import DEFERRED, FULL, MISCONFIGURED, THROTTLED, house
from tests.fakes import SENT, ScriptedBackend, breathe, until


async def test_a_message_is_sent_once_and_done(tmp_path: Path) -> None:
    """Put, claimed, sent, settled: one call, every byte, state done."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.settled(identifier, "done")
        assert [(m.id, raw) for m, raw in backend.calls] == [(identifier, RAW)]


async def test_deferred_is_tried_again_at_its_time(tmp_path: Path) -> None:
    """A temporary answer waits for the first delay of the list, then goes out."""
    backend = ScriptedBackend("b", DEFERRED, SENT)
    async with house(tmp_path, backend) as at:
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
    """An outage rests the backend: not every queued message tries; the first success sets all free at once."""
    backend = ScriptedBackend("b", AWAY)
    async with house(tmp_path, backend) as at:
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
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        status = at.dispatcher.status()["b"]
        assert (status.paused_by, status.reason) == (by, outcome.detail)
        at.clock.advance(500)
        await at.settled(identifier, "done")


async def test_a_slow_rate_sends_each_message_once(tmp_path: Path) -> None:
    """Waiting for its turn longer than a lease lasts does not send a message twice."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, rate=Rate(10, timedelta(hours=1))) as at:
        ids = [await at.put("b") for _ in range(12)]
        for n in range(1, 13):
            await until(lambda n=n: len(backend.calls) == n)
            await until(lambda: at.dispatcher.status()["b"].in_flight == 0)
            await at.settled(backend.calls[-1][0].id, "done")
            assert len(backend.calls) == n
            at.clock.advance(361)
        assert sorted(message.id for message, _ in backend.calls) == sorted(ids)


async def test_a_set_clock_does_not_send_again_what_is_being_sent(tmp_path: Path) -> None:
    """A lease that ran out by a step of the clock is still ours while the send goes on, and nobody asks on and on."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await until(lambda: backend.running == 1)
        at.clock.advance(3 * 3600)
        other = await at.put("b")
        await until(lambda: backend.running == 2)
        asked = at.calls("claim")
        for _ in range(50):
            assert await at.state(other) == "queued"
        assert len(asked) < 10  # whatever housekeeping woke
        backend.gate.set()
        for each in (identifier, other):
            await at.settled(each, "done")
        assert len(backend.calls) == 2


@pytest.mark.parametrize("days", [6, 730, -1])
async def test_a_clock_that_is_set_costs_nobody_his_mail(tmp_path: Path, days: int) -> None:
    """Neither what is being sent, nor what waits, nor what a paused backend keeps expires, is late, or waits longer."""
    busy, other = ScriptedBackend("busy", DEFERRED, SENT), ScriptedBackend("other")
    resting = ScriptedBackend("resting", THROTTLED, SENT)
    async with house(tmp_path, busy, resting, other, routes=("busy",), bounces={"backend": "other"}) as at:
        kept = await at.put("resting", pin="resting")
        await at.tried(kept)
        busy.gate = asyncio.Event()
        waits = await at.put("busy")
        await until(lambda: busy.running == 1)
        at.clock.set(timedelta(days=days))
        busy.gate.set()
        await at.tried(waits)
        assert (await at.state(waits), await at.state(kept)) == ("queued", "queued")
        at.clock.advance(60)
        await at.settled(waits, "done")
        at.clock.advance(7 * 60)
        await at.settled(kept, "done")
        await at.rounds(lambda: at.logged("clock_stepped"))
        (line,) = at.logged("clock_stepped")
        assert (line["direction"], line["seconds"]) == ("forward" if days > 0 else "back", abs(days) * 86400)
        assert (len(busy.calls), len(resting.calls), other.calls) == (2, 2, [])


async def test_doubt_can_be_held_at_once(tmp_path: Path) -> None:
    """``in_doubt: hold`` asks a person the first time."""
    backend = ScriptedBackend("b", IN_DOUBT)
    async with house(tmp_path, backend, in_doubt="hold") as at:
        await at.settled(await at.put("b"), "held")


async def test_concurrency_is_kept(tmp_path: Path) -> None:
    """Never more sends at once than the setting says."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend) as at:
        ids = [await at.put("b") for _ in range(20)]
        await until(lambda: backend.running == 4)
        backend.gate.set()
        await at.all_settled(ids, "done")
        assert backend.most_running == 4
        assert len(backend.calls) == 20


async def test_a_bug_in_a_backend_loses_nothing(tmp_path: Path) -> None:
    """An exception that escapes is deferred and tried again."""
    backend = ScriptedBackend("b", RuntimeError("bug"), SENT)
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        at.clock.advance(61)
        await at.settled(identifier, "done")


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (TimeoutError("no answer"), Verdict.IN_DOUBT),
        (RuntimeError("bug"), Verdict.DEFERRED),
        ({}, Verdict.IN_DOUBT),
    ],
)
async def test_what_nobody_said_has_no_code(
    tmp_path: Path, line: Mapping[str, Outcome] | BaseException, verdict: Verdict
) -> None:
    """A send without end, a bug and a forgotten recipient are that message's trouble: the backend goes on working."""
    backend = ScriptedBackend("b", line, SENT)
    async with house(tmp_path, backend) as at:
        (attempt,) = (await at.tried(await at.put("b"))).attempts
        said = (attempt.verdict, attempt.code, attempt.scope, attempt.said_by)
        assert said == (verdict.value, None, "message", "gateway")
        assert at.paused_by("b") == ""
        await at.settled(await at.put("b"), "done")


async def test_a_forgotten_recipient_costs_the_others_nothing(tmp_path: Path) -> None:
    """Whoever got an outcome keeps it."""
    backend = ScriptedBackend("b", {"a@x.org": SENT})
    async with house(tmp_path, backend) as at:
        detail = await at.tried(await at.put("b", "a@x.org", "c@x.org"))
        assert {row.address: row.state for row in detail.recipients} == {"a@x.org": "sent", "c@x.org": "queued"}


class Caller(ScriptedBackend):
    """One call for each recipient, as many providers have it."""

    async def send(
        self, message: SpooledMessage, raw: bytes, progress: Progress | None = None
    ) -> Mapping[str, Outcome]:
        assert progress is not None
        outcomes: dict[str, Outcome] = {}
        for recipient in message.envelope.recipients:
            answer = {recipient.address: (await super().send(message, raw))[recipient.address]}
            outcomes |= answer
            if not await progress(answer):
                break
        return {one.address: outcomes.get(one.address, DEFERRED) for one in message.envelope.recipients}


async def test_what_several_calls_have_sent_is_on_disk_before_the_next(tmp_path: Path) -> None:
    """The attempt goes on; in the end each recipient has one answer, and nobody two."""
    backend = Caller("b")
    async with house(tmp_path, backend) as at:
        settled = at.calls("settle")
        identifier = await at.put("b", "a@x.org", "b@x.org", "c@x.org")
        await at.settled(identifier, "done")
        detail = await at.tried(identifier)
        assert sorted(address for row in detail.attempts for address in row.recipients) == [
            "a@x.org",
            "b@x.org",
            "c@x.org",
        ]
        assert [one.under_way for (one,) in settled] == [("b@x.org", "c@x.org"), ("c@x.org",), ()]


async def test_without_a_place_to_write_it_down_there_is_no_next_call(tmp_path: Path) -> None:
    """On a full disk who got it is kept in mind, and who did not waits: nobody gets it twice."""
    backend = Caller("b")
    async with house(tmp_path, backend) as at:
        at.refuse("settle", FULL)
        identifier = await at.put("b", "a@x.org", "b@x.org")
        detail = await at.tried(identifier)
        assert {row.address: row.state for row in detail.recipients} == {"a@x.org": "sent", "b@x.org": "queued"}
        assert len(backend.calls) == 1
        at.clock.advance(61)
        await at.settled(identifier, "done")
        assert len(backend.calls) == 2


async def test_a_fault_of_one_message_rests_nobody(tmp_path: Path) -> None:
    """Without any code, but about this message: the next one is tried at once."""
    backend = ScriptedBackend("b", replace(AWAY, scope=Scope.MESSAGE), SENT)
    async with house(tmp_path, backend) as at:
        await at.tried(await at.put("b"))
        await at.settled(await at.put("b"), "done")
        assert at.paused_by("b") == ""


async def test_a_probe_that_was_not_tried_proves_nothing(tmp_path: Path) -> None:
    """A message refused before any connection leaves the breaker half open: still one at a time."""
    ours = Outcome(Verdict.REJECTED, enhanced="5.1.3", detail="no address", scope=Scope.RECIPIENT)
    backend = ScriptedBackend("b", AWAY, ours, AWAY, SENT)
    async with house(tmp_path, backend, bounces={"mode": "off"}) as at:
        await at.tried(await at.put("b"))
        await at.put("b")
        at.clock.advance(16)
        await until(lambda: len(backend.calls) == 2)
        await at.put_many(5, "b")
        await until(lambda: len(backend.calls) == 3 and at.dispatcher.status()["b"].paused_until is not None)
        assert backend.most_running == 1


async def test_who_asked_for_less_gets_less_at_once(tmp_path: Path) -> None:
    """A provider with few sessions: of a hundred that wait not all places are tried again when the rest is over."""
    backend = ScriptedBackend("b", THROTTLED, SENT)
    async with house(tmp_path, backend, concurrency=8) as at:
        first = await at.put("b")
        await at.tried(first)
        at.clock.advance(421)
        await at.settled(first, "done")
        backend.gate = asyncio.Event()
        ids = await at.put_many(30, "b")
        await until(lambda: backend.running == 4)
        backend.gate.set()
        for identifier in ids:
            await at.settled(identifier, "done")
        assert backend.most_running == 4


async def test_greylisted_messages_keep_no_others_waiting(tmp_path: Path) -> None:
    """One message is put off whenever it is tried; the backend works on, and it keeps its own schedule."""
    backend = ScriptedBackend("b", DEFERRED)
    async with house(tmp_path, backend) as at:
        grey = await at.put("b", "grey@x.org")
        await at.tried(grey)
        for minutes in (1, 5, 15):
            at.clock.advance(minutes * 60 + 1)
            await until(lambda: at.dispatcher.status()["b"].in_flight == 0 and len(backend.calls) > 1)
        assert at.paused_by("b") == ""
        backend.script = [SENT]
        await at.settled(await at.put("b"), "done")


async def test_a_change_of_the_queue_is_no_send(tmp_path: Path) -> None:
    """While the spool is slow to carry out what nobody waits for, nothing is in flight and every place is free."""
    backend = ScriptedBackend("b", MISCONFIGURED, SENT)
    async with house(tmp_path, backend, concurrency=1) as at:
        first = await at.put("b")
        await at.tried(first)
        go = asyncio.Event()
        asked = at.calls("retry", go)
        await at.dispatcher.check("b")
        await until(lambda: bool(asked))
        assert at.dispatcher.status()["b"].in_flight == 0
        await at.settled(await at.put("b"), "done")
        go.set()
        await at.settled(first, "done")


async def test_a_pause_gives_back_what_has_not_started(tmp_path: Path) -> None:
    """Claimed ahead, but not sent any more: held or deleted it can be at once, and no attempt is shown."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend, concurrency=1) as at:
        first, second = await at.put("b"), await at.put("b")
        await until(lambda: backend.running == 1)
        await at.dispatcher.pause("b", None)
        while (detail := await at.spool.show(second)) and detail.attempts:
            await breathe()
        backend.gate.set()
        await at.settled(first, "done")
        assert len(backend.calls) == 1


async def test_a_full_disk_keeps_the_answer(tmp_path: Path) -> None:
    """What was sent is written down when there is room again, and not sent twice."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        refusals = at.refuse("settle", FULL)
        identifier = await at.put("b")
        await until(lambda: not refusals)
        while await at.state(identifier) != "done":
            at.clock.advance(1)
            await breathe()
        assert len(backend.calls) == 1


async def test_while_nothing_can_be_written_down_few_are_sent(tmp_path: Path) -> None:
    """Of those that were claimed before, as many as are sent at once: a crash would send each of them again."""
    backend = ScriptedBackend("b")
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend) as at:
        ids = await at.put_many(12, "b")
        await until(lambda: backend.running == 4)
        refusals, writable = at.refuse("settle", *[FULL] * 1000), [False]
        at.spool.writable = lambda: writable[0]  # type: ignore[method-assign]
        backend.gate.set()
        await until(lambda: len(refusals) <= 996)
        for _ in range(40):
            await at.spool.due("b")
        assert len(backend.calls) == 4
        refusals.clear()
        writable[0] = True
        while await at.spool.states(ids) != dict.fromkeys(ids, "done"):
            at.clock.advance(1)
            await breathe()
        assert len(backend.calls) == 12


async def test_a_claim_that_is_refused_waits(tmp_path: Path) -> None:
    """Also while the spool says that it can be written: no round after the other at full speed."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        refusals = at.refuse("claim", *[SpoolUnavailable("try again later")] * 100)
        identifier = await at.put("b")
        await until(lambda: len(refusals) < 100)
        for _ in range(40):
            await at.spool.due("b")
        assert len(refusals) > 90
        refusals.clear()
        at.clock.advance(5)
        await at.settled(identifier, "done")
