"""The delivery loop on a real spool with scripted backends and a clock that moves when told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gateway.clock import QueueIds
from gateway.config.models import (
    AuthSettings,
    BackendSettings,
    BounceSettings,
    RetrySettings,
    RouteSettings,
    Settings,
)
from gateway.delivery import Dispatcher
from gateway.events import Events
from gateway.model import Backend, Envelope, NewMessage, Outcome, Rate, Recipient, Verdict
from gateway.routing import Routing
from gateway.spool import Spool
from tests.fakes import SENT, FakeClock, ScriptedBackend, until

DEFERRED = Outcome(Verdict.DEFERRED, 451, "4.2.0", "greylisted")
AWAY = Outcome(Verdict.DEFERRED, None, "4.4.1", "connection refused")
REJECTED = Outcome(Verdict.REJECTED, 550, "5.1.1", "no such user")
THROTTLED = Outcome(Verdict.THROTTLED, 429, "4.7.28", "slow down", retry_after=timedelta(minutes=7))
MISCONFIGURED = Outcome(Verdict.MISCONFIGURED, 401, "4.7.0", "bad key")
IN_DOUBT = Outcome(Verdict.IN_DOUBT, detail="lost after the dot")
RAW = b"From: s@x.org\r\nTo: a@x.org\r\nSubject: t\r\n\r\nhello\r\n"


def settings(path: Path, *names: str, routes: tuple[str, ...] = (), **changes: object) -> Settings:
    backends = {name: BackendSettings(type="scripted", concurrency=4, **changes) for name in names}  # type: ignore[arg-type]
    return Settings(
        hostname="relay.x.org",
        state_dir=path,
        listeners={},
        auth=AuthSettings(),
        clients={},
        backends=backends,
        routes=(RouteSettings(backend=routes or names),),
        retry=RetrySettings(jitter=0),
        bounces=BounceSettings(mode="auto"),
    )


def routing(config: Settings, backends: Mapping[str, Backend]) -> Routing:
    return Routing(config.routes, {name: backend.capabilities for name, backend in backends.items()})


class House:
    """A spool and a dispatcher over it, and the few things tests do with them."""

    def __init__(self, spool: Spool, dispatcher: Dispatcher, clock: FakeClock, ids: Callable[[], str]) -> None:
        self.spool = spool
        self.dispatcher = dispatcher
        self.clock = clock
        self.ids = ids

    async def put(self, lane: str, *addresses: str, sender: str = "s@x.org", notify: str = "") -> str:
        recipients = tuple(Recipient(address, notify=notify) for address in addresses or ("a@x.org",))
        identifier = self.ids()
        now = self.clock.now()
        await self.spool.put(
            NewMessage(
                id=identifier,
                envelope=Envelope(sender, recipients),
                raw=RAW,
                deliveries={lane: tuple(recipient.address for recipient in recipients)},
                received_at=now,
                expires_at=now + timedelta(days=5),
                client="c",
            )
        )
        return identifier

    async def state(self, identifier: str) -> str:
        detail = await self.spool.show(identifier)
        return detail.message.state if detail else "gone"

    async def settled(self, identifier: str, state: str) -> None:
        while await self.state(identifier) != state:
            await self.clock.sleep(0)


@asynccontextmanager
async def house(path: Path, config: Settings, *backends: ScriptedBackend) -> AsyncIterator[House]:
    clock = FakeClock()
    events = Events(CollectorRegistry(), format="json", level="error", clock=clock)
    events.declare(backends=[b.name for b in backends], clients=["c", "gateway"])
    ids = QueueIds(clock, random.Random(1))
    wakes: list[Callable[[str], None]] = []

    def wake(lane: str) -> None:
        wakes[0](lane)

    spool = await Spool.open(path, clock, events=events, wake=wake, reserve=0.0, retention=config.retention)
    by_name = {backend.name: backend for backend in backends}
    ways, rng = routing(config, by_name), random.Random(2)
    dispatcher = Dispatcher(spool, config, ways, events=events, clock=clock, ids=ids, rng=rng)
    wakes.append(dispatcher.wake)
    await dispatcher.start(by_name)
    try:
        yield House(spool, dispatcher, clock, ids)
    finally:
        await dispatcher.drain(1)
        await spool.aclose()


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
        detail = await wait_for_attempt(at, identifier)
        assert detail.recipients[0].detail == "greylisted"
        at.clock.advance(59)
        assert len(backend.calls) == 1
        at.clock.advance(2)
        await at.settled(identifier, "done")
        assert [m.attempt for m, _ in backend.calls] == [1, 2]


async def wait_for_attempt(at: House, identifier: str):  # type: ignore[no-untyped-def]
    while True:
        detail = await at.spool.show(identifier)
        assert detail is not None
        if detail.attempts and detail.attempts[-1].ended_at is not None:
            return detail
        await at.clock.sleep(0)


async def test_a_rejection_bounces_and_fails(tmp_path: Path) -> None:
    """A permanent refusal makes one report by the null sender to the sender; the message ends as failed."""
    backend = ScriptedBackend("b", REJECTED, SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await at.settled(identifier, "failed")
        await until(lambda: len(backend.calls) == 2)
        report, raw = backend.calls[1]
        assert report.envelope.sender == ""
        assert [r.address for r in report.envelope.recipients] == ["s@x.org"]
        assert b"no such user" in raw


@pytest.mark.parametrize(("sender", "notify"), [("", ""), ("s@x.org", "NEVER"), ("s@x.org", "SUCCESS")])
async def test_nobody_is_told_who_must_not_be(tmp_path: Path, sender: str, notify: str) -> None:
    """No report for the null sender, nor where NOTIFY does not ask for failures."""
    backend = ScriptedBackend("b", REJECTED)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b", sender=sender, notify=notify)
        await at.settled(identifier, "failed")
        assert [row.id for row in await at.spool.find()] == [identifier]


async def test_a_bounce_is_never_bounced(tmp_path: Path) -> None:
    """When the report is refused too, it fails alone."""
    backend = ScriptedBackend("b", REJECTED)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        await at.settled(await at.put("b"), "failed")
        await until(lambda: len(backend.calls) == 2)
        await at.settled(backend.calls[1][0].id, "failed")
        assert len(await at.spool.find()) == 2


async def test_one_probe_while_the_backend_is_away(tmp_path: Path) -> None:
    """An outage rests the lane: not every queued message tries; the first success sets all free at once."""
    backend = ScriptedBackend("b", AWAY)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        first = await at.put("b")
        await wait_for_attempt(at, first)
        rest = [await at.put("b") for _ in range(30)]
        assert at.dispatcher.status()["b"].paused_by == "unreachable"
        for n in range(2, 5):
            at.clock.advance(61)
            await until(lambda n=n: len(backend.calls) == n)
            await until(lambda: at.dispatcher.resting("b"))
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
        await wait_for_attempt(at, identifier)
        status = at.dispatcher.status()["b"]
        assert (status.paused_by, status.reason) == (by, outcome.detail)
        at.clock.advance(500)
        await at.settled(identifier, "done")


@pytest.mark.parametrize(
    ("outcome", "by_operator", "state"),
    [(THROTTLED, False, "failed"), (MISCONFIGURED, False, "held"), (DEFERRED, True, "held")],
)
async def test_the_lifetime_ends_also_while_paused(
    tmp_path: Path, outcome: Outcome, by_operator: bool, state: str
) -> None:
    """Nothing waits for ever: what a provider kept back fails and is reported, what we kept back is held."""
    backend, other = ScriptedBackend("b", outcome), ScriptedBackend("other")
    config = settings(tmp_path, "b", "other", routes=("b",))
    config = config.model_copy(update={"bounces": BounceSettings(mode="auto", backend="other")})
    async with house(tmp_path, config, backend, other) as at:
        identifier = await at.put("b")
        await wait_for_attempt(at, identifier)
        if by_operator:
            await at.dispatcher.pause("b", None)
        at.clock.advance(5 * 86400 + 60)
        await at.settled(identifier, state)
        if state == "failed":
            await until(lambda: len(other.calls) == 1)
            assert b"4.4.7" in other.calls[0][1]
        else:
            assert other.calls == []


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


async def test_a_pause_for_a_time_ends_by_itself(tmp_path: Path) -> None:
    """When the operator's time is over the lane works as before, at its full concurrency."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        await at.dispatcher.pause("b", 60)
        identifier = await at.put("b")
        assert at.dispatcher.status()["b"].paused_by == "operator"
        at.clock.advance(61)
        await at.settled(identifier, "done")
        assert at.dispatcher.status()["b"].paused_by == ""


async def test_resume_by_order_is_at_once(tmp_path: Path) -> None:
    """After ``backend resume`` nothing waits for its schedule, the failed probe neither."""
    backend = ScriptedBackend("b", AWAY, SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await wait_for_attempt(at, identifier)
        await at.dispatcher.resume("b")
        await at.settled(identifier, "done")


async def test_any_legal_name_may_be_a_backends(tmp_path: Path) -> None:
    """Our own tasks do not share a name space with backends."""
    backend = ScriptedBackend("housekeeping")
    async with house(tmp_path, settings(tmp_path, "housekeeping"), backend) as at:
        await at.settled(await at.put("housekeeping"), "done")
        assert at.dispatcher.alive


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
        await wait_for_attempt(at, identifier)
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
        await wait_for_attempt(at, identifier)
        at.clock.advance(61)
        await at.settled(identifier, "done")


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


async def test_success_is_reported_where_asked(tmp_path: Path) -> None:
    """NOTIFY=SUCCESS into a world without DSN gives one relayed report (RFC 3461 5.2.2)."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        await at.put("b", notify="SUCCESS,FAILURE")
        await until(lambda: len(backend.calls) == 2)
        assert b"Action: relayed" in backend.calls[1][1]


async def test_the_sender_hears_of_a_delay_once(tmp_path: Path) -> None:
    """After four hours without success one delay notice goes to the sender."""
    slow, other = ScriptedBackend("slow", DEFERRED), ScriptedBackend("other")
    config = settings(tmp_path, "slow", "other", routes=("slow",))
    config = config.model_copy(update={"bounces": BounceSettings(mode="auto", backend="other")})
    async with house(tmp_path, config, slow, other) as at:
        await at.put("slow")
        for n in range(1, 11):
            await until(lambda n=n: len(slow.calls) >= n)
            await until(lambda: at.dispatcher.status()["slow"].in_flight == 0)
            at.clock.advance(3700)
        await until(lambda: len(other.calls) >= 1)
        assert len(other.calls) == 1
        assert b"Action: delayed" in other.calls[0][1]


async def test_messages_of_a_removed_backend_find_a_new_way(tmp_path: Path) -> None:
    """After a reload without their backend, queued messages follow the new routes."""
    old, new = ScriptedBackend("old", MISCONFIGURED), ScriptedBackend("new")
    async with house(tmp_path, settings(tmp_path, "old"), old) as at:
        identifier = await at.put("old")
        await wait_for_attempt(at, identifier)
        config = settings(tmp_path, "new")
        await at.dispatcher.update(config, routing(config, {"new": new}), {"new": new})
        await at.settled(identifier, "done")
        assert len(new.calls) == 1
        await until(lambda: old.closed)
    assert len(new.calls) == 1
