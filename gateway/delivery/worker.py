"""One backend's queue at work: claim what is due, send, conclude, settle; rest while its circuit breaker is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from gateway.checks import Check, Forgetful, Metered
from gateway.clock import Clock, wait_for
from gateway.config.models import BackendSettings
from gateway.delivery.breaker import FOREVER, OPERATOR, CircuitBreaker, Ruling, State
from gateway.delivery.claims import EAGER_BODY, Claims, give_back
from gateway.delivery.orders import Orders
from gateway.delivery.reroute import reroute
from gateway.delivery.retry import Situation, decide
from gateway.delivery.sending import answers, write_down
from gateway.delivery.standing import BackendStatus, Record, status_of
from gateway.delivery.tracking import SCHEDULE
from gateway.events import Events
from gateway.model import Backend, Outcome, SpoolTrouble, Tracked, Verdict
from gateway.spool import Claim, Filter, Offer, Spool

UNWRITABLE_WAIT = 5.0
AHEAD = 3  # times as many as are sent at once are claimed
UNSETTLED = 4  # and may be under way, with those whose outcome is being written down
DIVERT_EVERY = 10.0  # while some have to stay; for new ones at once


class Worker:
    """A slow backend delays only itself. New ``orders`` may be given at any moment."""

    def __init__(
        self, backend: Backend, settings: BackendSettings, orders: Orders, breaker: CircuitBreaker,
        spool: Spool, events: Events, clock: Clock, valid: Callable[[], bool] = lambda: True,
        before: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        """``valid``: whether the backend is still worked here, asked right before a send. ``before``: how many sends
        of workers that it had here before have not ended."""
        self.backend = backend
        self.orders = orders
        self.breaker = breaker
        self._name = backend.name
        self._settings = settings
        self._spool = spool
        self._events = events
        self._clock = clock
        self._valid, self._before = valid, before
        self._record = Record(clock, settings.rate)
        self._tracked = isinstance(backend, Tracked)
        self._claims = Claims(self._name, spool)
        self._changed = asyncio.Event()
        self._news = True  # something may be due that the last claim has not told of
        self._sends: set[asyncio.Task[None]] = set()
        self._changes: set[asyncio.Task[None]] = set()  # of the queue, which nobody waits for
        self._stopping = False
        self._next_send = self._next_divert = 0.0

    # -- what the operator sees and steers ---------------------------------------------------------------------------

    def status(self, queued: int) -> BackendStatus:
        own = self.backend.uses() if isinstance(self.backend, Metered) else ()
        there = {"queued": queued, "in_flight": len(self._sends)}
        return status_of(self._name, self._settings, self.breaker, self._record, **there, own=own)

    @property
    def in_hand(self) -> Collection[int]:
        """The numbers of attempts that are claimed and not yet settled."""
        return self._claims.in_hand

    @property
    def sending(self) -> int:
        """How many of its sends have not ended."""
        return self._claims.placed

    def wake(self) -> None:
        """There may be work that nobody knows of yet."""
        self._news = True
        self._changed.set()

    def offer(self) -> Offer | None:
        """To take a message in the commit that puts it: where nothing waits that would be overtaken, and there is room.

        At a backend that is paced or at rest it has to wait for its turn; one that is on trial takes one.
        """
        if self._stopping or self._news or self._settings.rate or self._until_due() <= 0 or self._free() <= 0:
            return None
        return self._claims.offer(lambda: not self._stopping, self._offered)

    def _offered(self) -> None:
        self._fill()
        self._changed.set()

    def pause(self, seconds: float | None, who: str = "", since: float | None = None) -> None:
        """Rest by order of ``who``, for so long or until resumed; what is under way ends."""
        self.breaker.pause(self._clock.monotonic(), seconds, who, since)
        self._events.backend_paused(self._name, OPERATOR, self.breaker.reason, FOREVER if seconds is None else seconds)
        self._fill()
        self.wake()

    def resume(self) -> None:
        """Work again; what only waited for the backend is due at once."""
        if isinstance(self.backend, Forgetful):
            self.backend.forget()
        waiting = self.breaker.close()
        self._events.backend_resumed(self._name)
        if waiting:
            self._aside(self._spool.retry(Filter(ids=waiting, backend=self._name), self._spool.now()))
        self.wake()

    async def check(self) -> Check:
        """Try credentials and reachability now; what works again goes back to work, except against an order."""
        check = await self.backend.check()
        self._events.backend_up(self._name, check.ok)
        if check.ok and self.breaker.by != OPERATOR and self._state() is not State.CLOSED:
            self.resume()
        return check

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _state(self) -> State:
        return self.breaker.state(self._clock.monotonic())

    async def run(self) -> None:
        """Until stopped: fill the free places with due work, then wait for a change or for the next due time."""
        self._aside(self._recall())
        while not self._stopping:
            self._changed.clear()
            if self._state() is State.OPEN:
                self._news = True
                await self._divert()
                now = self._clock.monotonic()
                await self._wait(
                    min(self.breaker.until, now + DIVERT_EVERY if self._next_divert <= now else self._next_divert) - now
                )
                continue
            if self.breaker.by == OPERATOR:
                self.resume()  # a pause for a time is over
            if (early := self._next_send - self._clock.monotonic()) > 0:
                await self._wait(early)
                continue
            room = self._room()
            if room <= 0 or not self._spool.writable():
                await self._wait(UNWRITABLE_WAIT)
                continue
            if not self._news and (early := self._until_due()) > 0:
                await self._wait(early)
                continue
            self._news = False
            try:
                taken = await self._claims.take(room)
            except SpoolTrouble:
                self._news = True
                await self._wait(UNWRITABLE_WAIT)
                continue
            if rate := self._settings.rate:  # paced before the claim: who waits for a turn can still be held or deleted
                pace = rate.period.total_seconds() / rate.count
                self._next_send = self._clock.monotonic() + taken * pace
            self._fill()

    def _until_due(self) -> float:
        """Seconds until the next delivery falls due, as the last claim told it."""
        due = self._claims.due
        return FOREVER if due is None else (due - self._spool.now()).total_seconds()

    async def _recall(self) -> None:
        """When it was last of use, which the process before knew; looked up beside the work."""
        found = await self._spool.last_sent(self._name)
        self._record.last_success = self._record.last_success or found

    def _places(self) -> int:
        """How many sends at once."""
        most = max(1, int(self._settings.concurrency * self.breaker.share))
        return {State.CLOSED: most, State.HALF_OPEN: 1, State.OPEN: 0}[self._state()] - self._before()

    def _room(self) -> int:
        """How many to claim: twice as many again as are sent at once, and in groups; but a probe goes alone."""
        places, closed = self._places(), self._state() is State.CLOSED
        if closed and not self._settings.rate and len(self._claims) > places // 2:
            return 0
        room = self._free()
        if rate := self._settings.rate:
            room = min(room, max(1, int(rate.count / rate.period.total_seconds())))
        return room

    def _free(self) -> int:
        """How many more may be taken from the queue; a probe goes alone."""
        ahead = AHEAD if self._state() is State.CLOSED else 1
        return self._places() * ahead - self._claims.held

    def _fill(self) -> None:
        if self._state() is State.OPEN and (waiting := self._claims.unstarted()):
            self._aside(self._give_back(waiting))
        # On a disk that takes no writes few are sent: after a crash each of them would be sent again.
        unsettled = self._settings.concurrency * (UNSETTLED if self._spool.writable() else 1)
        while self._claims and self._claims.placed < self._places() and len(self._sends) < unsettled:
            if self._stopping:
                return
            claim, raw = self._claims.pop()
            self._start(self._sends, self._attempt(claim, raw), f"send-{self._name}-{claim.message.id}")

    async def _give_back(self, waiting: Sequence[Claim]) -> None:
        while not await give_back(self._spool, waiting):
            await self._clock.sleep(UNWRITABLE_WAIT)

    def _aside(self, change: Awaitable[object]) -> None:
        """A change of the queue that nobody waits for; where the disk refuses it, the schedule brings it about."""

        async def carry_out() -> None:
            with suppress(SpoolTrouble):
                await change

        self._start(self._changes, carry_out(), f"change-{self._name}")

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None], name: str) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                self._events.bug(f"delivery.{self._name}", error)
            self._fill()
            self._changed.set()

        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(ended)

    async def _wait(self, seconds: float) -> None:
        await wait_for(self._changed, self._clock, seconds)

    async def _divert(self) -> None:
        """While the backend rests, what may go another way goes there; looked at now and then."""
        others, now = self.orders.routing.alternatives(self._name), self._clock.monotonic()
        if not others:
            self._next_divert = FOREVER
            return
        if now < self._next_divert < FOREVER:
            return
        self._next_divert = now + DIVERT_EVERY
        if any(self.orders.free(name, now) for name in others):
            left = 0
            moving = reroute(self._spool, self._name, lambda one: self.orders.elsewhere(one, now))
            with suppress(SpoolTrouble):
                async for stay in moving:
                    left += stay
                    if self._stopping:
                        return
                if not left:  # whoever comes next need not wait for a look at those that have to stay
                    self._next_divert = now

    # -- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, claim: Claim, raw: bytes | None) -> None:
        over = False
        try:
            if raw is None:
                try:
                    raw = (await self._spool.bodies([claim.message.id])).get(claim.message.id)
                except SpoolTrouble:  # it cannot be read now
                    self._aside(self._give_back([claim]))
                    return
            if not self._valid():  # another instance may send it by now
                self._aside(self._give_back([claim]))
            elif raw is not None:  # else the spool has marked the message corrupt
                over = await self._carry_out(claim, raw)
        finally:
            self._news = self._news or not over
            self._claims.ended(claim)

    async def _carry_out(self, claim: Claim, raw: bytes) -> bool:
        """Whether that was the last attempt for all of them."""
        self._events.attempt(claim.message.id, self._name, claim.message.attempt)
        started, began = self._clock.now(), self._clock.monotonic()
        self._record.begun()
        written: dict[str, Outcome] = {}
        progress = partial(self._write_down, claim, written)
        outcomes = await answers(self.backend, claim.message, raw, progress, self._events) | written
        now, ended = self._spool.now(), self._clock.monotonic()
        ruling = self._judge(claim, outcomes, ended)
        if claim.message.size <= EAGER_BODY:  # the next may go while this is written down; few large ones in memory
            self._claims.leave(claim)
            self._fill()
        waits_for, goes_to = self.orders.next_way(claim, outcomes, ended)
        situation = Situation(
            now=now,
            doubts=claim.in_doubt,
            doubted=claim.doubted,
            retry=self.orders.retry,
            rng=self.orders.rng,
            in_doubt=self._settings.in_doubt,
            rest=ruling.rest,
            patient=ruling.patient,
            backend=waits_for,
            alternative=goes_to,
        )
        decision = decide(claim.message, outcomes, situation)
        self._events.settled(claim.message, self._name, decision.outcomes, ended - began, now)
        poll_at, wall = self._poll_at(now), self._clock.now()
        while True:
            try:
                await self.orders.settle(
                    self._spool, claim, raw, decision, wall, started_at=started, poll_at=poll_at, written=written
                )
                return decision.next_attempt_at is None
            except SpoolTrouble as trouble:
                # Without a record the message would be sent again: keep the answer until the disk takes it.
                self._events.warning("settle_waits", id=claim.message.id, reason=trouble.text)
                await self._clock.sleep(UNWRITABLE_WAIT)

    def _poll_at(self, now: datetime) -> datetime | None:
        return now + SCHEDULE[0] if self._tracked else None

    async def _write_down(self, claim: Claim, written: dict[str, Outcome], sent: Mapping[str, Outcome]) -> bool:
        """Between two calls of an attempt: after a crash these are not sent to again. False where it cannot be done."""
        poll_at = self._poll_at(self._spool.now())
        return await write_down(self._spool, claim, written, sent, now=self._clock.now(), poll_at=poll_at)

    def _judge(self, claim: Claim, outcomes: Mapping[str, Outcome], now: float) -> Ruling:
        """Open or close the circuit breaker by what came back."""
        if self._stopping:  # the breaker is another's by now, with other settings: he finds out himself
            return CircuitBreaker().judge(claim.message.id, outcomes, now)
        ruling = self.breaker.judge(claim.message.id, outcomes, now)
        self._record.ended(claim.message.id, outcomes, ruling.opened_by)
        if cause := ruling.opened_by:
            self._events.backend_up(self._name, cause.verdict is Verdict.THROTTLED)
            self._events.backend_paused(self._name, cause.verdict.value, cause.detail, ruling.rest.total_seconds())
        if ruling.answered:
            self._events.backend_up(self._name, True)
            if self.breaker.state(now) is not State.CLOSED and self.breaker.by != OPERATOR:
                self.resume()
        return ruling

    # -- the end -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns soon."""
        self._stopping = True
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """After ``run`` has returned: give back what has not started, wait for what is under way, then cut it off."""
        if waiting := self._claims.unstarted():
            self._aside(self._give_back(waiting))
        if running := self._sends | self._changes:
            _, late = await asyncio.wait(running, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=5)
