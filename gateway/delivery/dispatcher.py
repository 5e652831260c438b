"""The delivery loop: one lane for each backend, routing at attempt time, reports, and the housekeeping of the queue."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta

from gateway.clock import Clock, wait_for
from gateway.config.models import BackendSettings, RetrySettings, Settings
from gateway.delivery.bounces import Reporter
from gateway.delivery.desk import BackendStatus
from gateway.delivery.retry import EXPIRED, GAVE_UP, Decision
from gateway.delivery.tracking import Follower
from gateway.delivery.worker import SEND_LIMIT, Worker
from gateway.events import Events
from gateway.model import (
    Backend,
    CallsBack,
    Check,
    NewMessage,
    Outcome,
    SpooledMessage,
    SpoolTrouble,
    Tracked,
    Verdict,
    same_for_all,
)
from gateway.routing import Freight, Routing
from gateway.spool import Claim, Filter, Settlement, Spool

__all__ = ["BackendStatus", "Dispatcher"]

HOUSEKEEPING = 15.0  # seconds between looks at lifetimes, retention and gauges
RESTART_DELAY = 1.0


class Dispatcher:
    """Owns the lanes. ``update`` swaps settings and backends while messages are under way."""

    def __init__(
        self,
        spool: Spool,
        settings: Settings,
        routing: Routing,
        *,
        events: Events,
        clock: Clock,
        ids: Callable[[], str],
        rng: random.Random,
    ) -> None:
        self._spool = spool
        self._events = events
        self._clock = clock
        self._ids = ids
        self.rng = rng
        self._lanes: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()
        self._apply(settings, routing)

    def _apply(self, settings: Settings, routing: Routing) -> None:
        self._settings = settings
        self._routing = routing
        self._reporter = Reporter(settings, routing, self._events, self._ids, self.rng)

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, backends: Mapping[str, Backend]) -> None:
        """Open a lane for each backend and give messages of vanished backends a new way."""
        for name, backend in backends.items():
            self._open(name, backend)
        self._own("", self._keep_house)  # no backend can have this name
        await self._adopt_orphans()

    def _open(self, name: str, backend: Backend) -> None:
        settings: BackendSettings = self._settings.backends[name]
        lane = Worker(backend, settings, self, self._spool, self._events, self._clock)
        self._lanes[name] = lane
        self._own(name, lane.run)
        if isinstance(backend, Tracked):
            follower = Follower(name, backend, lane.resting, self._spool, self._events, self._clock)
            self._own(_asking(name), follower.run)

    def _own(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks[name] = asyncio.create_task(self._supervise(name, work), name=f"delivery-{name}")

    async def _supervise(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """A loop that dies of a bug is reported and started again; it is never silently gone."""
        while True:
            try:
                await work()
            except Exception as error:
                self._events.bug(f"delivery.{name}", error)
                await self._clock.sleep(RESTART_DELAY)
            else:
                return

    @property
    def alive(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks.values())

    async def update(self, settings: Settings, routing: Routing, backends: Mapping[str, Backend]) -> None:
        """Take over reloaded settings. A backend object that is new replaces its lane; the old one ends its sends."""
        before = {name: lane.backend for name, lane in self._lanes.items()}
        self._apply(settings, routing)
        for name, old in before.items():
            if backends.get(name) is not old:
                self._retire(name)
        for name, backend in backends.items():
            if name not in self._lanes:
                self._open(name, backend)
        await self._adopt_orphans()

    def _retire(self, name: str) -> None:
        ending = self._close(name, SEND_LIMIT)
        leaving = asyncio.create_task(ending, name=f"retire-{name}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _close(self, name: str, seconds: float) -> Coroutine[None, None, None]:
        """From now on the lane is not ours; it ends when the coroutine is run."""
        lane, task, asking = self._lanes.pop(name), self._tasks.pop(name), self._tasks.pop(_asking(name), None)

        async def close() -> None:
            lane.stop()
            if asking:
                asking.cancel()
                await asyncio.wait({asking})
            await task
            await lane.drain(seconds)
            await lane.backend.aclose()

        return close()

    async def drain(self, seconds: float) -> None:
        """Stop claiming, let running sends end within ``seconds``, close the backends."""
        self._stopping.set()
        if task := self._tasks.pop("", None):
            await task
        closing = [self._close(name, seconds) for name in list(self._lanes)]
        for ended in await asyncio.gather(*closing, *self._leaving, return_exceptions=True):
            if isinstance(ended, Exception):
                self._events.bug("delivery.drain", ended)

    # -- what the operator sees and steers --------------------------------------------------------------------------

    def wake(self, lane: str) -> None:
        if found := self._lanes.get(lane):
            found.wake()

    def calls_back(self, name: str) -> CallsBack | None:
        """The backend of this name, if its provider may call back."""
        backend = self._lanes[name].backend if name in self._lanes else None
        return backend if isinstance(backend, CallsBack) and backend.hook else None

    def status(self) -> dict[str, BackendStatus]:
        counts = self._spool.counts()
        return {name: lane.status(counts.get((name, "queued"), 0)) for name, lane in self._lanes.items()}

    async def pause(self, name: str, seconds: float | None) -> None:
        """Rest by order, for ``seconds`` or until resumed. KeyError when there is no such backend."""
        lane = self._lanes[name]
        lane.pause.by_operator(self._clock.monotonic(), seconds)
        self._events.backend_paused(name, "operator", "paused by the operator", seconds or 0.0)
        lane.wake()

    async def resume(self, name: str) -> None:
        """Back to work by order: what was put off is due now. KeyError when there is no such backend."""
        self._lanes[name].resume()
        await self._spool.retry(Filter(backend=name, state="queued"), self._clock.now())

    async def check(self, name: str) -> Check:
        """Try credentials and reachability now; what works again goes back to work."""
        lane = self._lanes[name]
        check = await lane.backend.check()
        self._events.backend_up(name, check.ok)
        if check.ok and lane.pause.by != "operator" and (lane.resting() or lane.pause.probing):
            lane.resume()
        return check

    # -- what a lane asks (lane.Desk) -------------------------------------------------------------------------------

    @property
    def retry(self) -> RetrySettings:
        return self._settings.retry

    def resting(self, lane: str) -> bool:
        return lane not in self._lanes or self._lanes[lane].resting()

    def fails_over(self, lane: str) -> bool:
        """May some route send elsewhere what waits in this lane?"""
        return self._routing.fails_over(lane)

    def candidates(self, message: SpooledMessage, addresses: Sequence[str]) -> tuple[str, ...]:
        """Backends, in failover order, that today's routes allow for every one of these recipients."""
        return self._routing.ways(Freight.of(message), addresses)

    def reports(
        self, message: SpooledMessage, raw: bytes, backend: str, decision: Decision, now: datetime
    ) -> tuple[tuple[NewMessage, ...], bool]:
        """Bounces for what failed, a notice for what is late, relayed reports for what was sent and asked for one."""
        notice = self._settings.retry.delay_notice
        late = bool(decision.pending) and not message.delay_notified and notice > timedelta(0)
        late = late and now - message.received_at >= notice
        wanted = {
            "failed": {address: decision.outcomes[address] for address in decision.failed},
            "delayed": {address: decision.outcomes[address] for address in decision.pending} if late else {},
            "relayed": {a: o for a, o in decision.outcomes.items() if o.verdict is Verdict.SENT and not o.dsn}
            if any("SUCCESS" in recipient.notify.upper() for recipient in message.envelope.recipients)
            else {},
        }
        try:
            return self._reporter.reports(message, raw, backend, wanted, now), late
        except Exception as error:  # without a settlement what was sent would be sent again
            self._events.bug("reports", error)
            return (), late

    # -- housekeeping --------------------------------------------------------------------------------------------

    async def _adopt_orphans(self) -> None:
        """Messages queued for a backend that is no longer configured get a new way, or wait and are shown."""
        for name in await self._spool.queued():
            if name in self._lanes:
                continue
            stranded = after = 0
            while page := await self._spool.deliveries(name, after=after):
                after, ways = page[-1].delivery_id, defaultdict[str, list[int]](list)
                for delivery in page:
                    addresses = [recipient.address for recipient in delivery.message.envelope.recipients]
                    way = next(iter(self.candidates(delivery.message, addresses)), "")
                    ways[way].append(delivery.delivery_id)
                stranded += len(ways.pop("", ()))
                for way, ids in ways.items():
                    await self._spool.move(ids, way, self._clock.now())
            if stranded:
                self._events.warning("no_backend", backend=name, messages=stranded)

    async def _keep_house(self) -> None:
        while not self._stopping.is_set():
            now = self._clock.now()
            try:
                await self._adopt_orphans()
                working = [name for name in self._lanes if not self.resting(name)]
                while late := await self._spool.overdue(now, working):
                    await self._give_up(late)
                await self._spool.sweep(now, self._settings.retention)
            except SpoolTrouble as trouble:
                self._events.warning("housekeeping_waits", reason=trouble.text)
            await self.publish()
            for lane in self._lanes.values():
                lane.wake()  # the clock may have been set
            await wait_for(self._stopping, self._clock, HOUSEKEEPING)

    async def publish(self) -> None:
        """Bring the queue gauges up to date."""
        now = self._clock.now()
        oldest = {name: (now - since).total_seconds() for name, since in (await self._spool.oldest()).items()}
        self._events.queue_gauges(self._spool.counts(), oldest)
        self._events.spool_space(*self._spool.space())

    async def bounce(self, which: Filter) -> list[str]:
        """Give up on these messages by order of the operator; returns the ids that had something left to give up."""
        outcome = Outcome(Verdict.REJECTED, enhanced="5.0.0", detail="returned by the operator")
        given_up: dict[str, None] = {}
        async for claims in self._spool.fail(which, self._clock.now()):
            await self._give_up(claims, outcome)
            given_up |= dict.fromkeys(claim.message.id for claim in claims)
        return list(given_up)

    async def _give_up(self, claims: Sequence[Claim], outcome: Outcome | None = None) -> None:
        for claim in claims:
            now = self._clock.now()
            lane = self._lanes.get(claim.backend)
            ours = outcome is None and lane is not None and lane.pause.by in ("misconfigured", "operator")
            outcomes = same_for_all(claim.message, outcome or _too_late(claim.backend, ours=ours))
            addresses = tuple(outcomes)
            states = dict.fromkeys(addresses, "held" if ours else "failed")
            decision = Decision(states, outcomes, failed=() if ours else addresses)
            raw = (await self._spool.bodies([claim.message.id])).get(claim.message.id, b"")
            reports, _ = self.reports(claim.message, raw, claim.backend, decision, now)
            self._events.settled(claim.message, claim.backend, outcomes, 0.0, now)
            await self._spool.settle(
                Settlement(
                    claim=claim,
                    ended_at=now,
                    outcomes=outcomes,
                    states=decision.states,
                    next_attempt_at=None,
                    backend=claim.backend,
                    bounces=reports,
                )
            )


def _asking(name: str) -> str:
    return f"{name}?"  # no backend can have this name


def _too_late(backend: str, *, ours: bool) -> Outcome:
    """For what could not be tried to the end: our own pause never becomes a bounce, it waits for a person."""
    text = f"{GAVE_UP}: {backend} was {'paused' if ours else 'not usable'}"
    return Outcome(Verdict.MISCONFIGURED if ours else Verdict.REJECTED, enhanced=EXPIRED, detail=text)
