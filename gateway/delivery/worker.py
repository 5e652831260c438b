"""One backend's queue at work: claim what is due, send, settle; rest as a whole when the backend is at fault."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from gateway.clock import Clock, wait_for
from gateway.config.models import BackendSettings
from gateway.delivery.breaker import FOREVER, Pause, blame
from gateway.delivery.desk import BackendStatus, Desk
from gateway.delivery.retry import Situation, decide
from gateway.delivery.tracking import SCHEDULE
from gateway.events import Events
from gateway.model import Backend, Outcome, SpooledMessage, SpoolTrouble, Tracked, Verdict, same_for_all
from gateway.spool import Claim, Filter, Settlement, Spool

LEASE = timedelta(minutes=30)  # how long a claimed delivery stays out of reach; a send is cut off before that
SEND_LIMIT = 25 * 60.0
EAGER_BODY = 256 * 1024  # bodies up to this size are read together with their claims
UNWRITABLE_WAIT = 5.0
DIVERT_EVERY = 10.0


class Worker:
    """Claims no more than it can send soon, so that a crash interrupts few and a slow backend delays only itself."""

    def __init__(
        self, backend: Backend, settings: BackendSettings, desk: Desk, spool: Spool, events: Events, clock: Clock
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.pause = Pause()
        self.last_success: datetime | None = None
        self._desk = desk
        self._spool = spool
        self._events = events
        self._clock = clock
        self._follows = isinstance(backend, Tracked)
        self._changed = asyncio.Event()
        self._ready: deque[tuple[Claim, bytes | None]] = deque()
        self._active: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._next_send = self._next_divert = 0.0
        self._busy: set[int] = set()  # deliveries under way here: a lease that runs out must not send them twice

    @property
    def name(self) -> str:
        return self.backend.name

    def wake(self) -> None:
        self._changed.set()

    def resting(self) -> bool:
        return self.pause.resting(self._clock.monotonic())

    def status(self, queued: int) -> BackendStatus:
        until = None
        if self.resting() and self.pause.until != FOREVER:
            until = self._clock.now() + timedelta(seconds=self.pause.until - self._clock.monotonic())
        shown = self.pause if self.resting() or self.pause.probing else Pause()
        return BackendStatus(
            self.name, self.settings.type, queued, len(self._active), until, shown.by, shown.reason, self.last_success
        )

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until stopped: fill the free places with due work, then wait for news or for the next due time."""
        while not self._stopping:
            self._changed.clear()
            if self.resting():
                await self._divert()
                now = self._clock.monotonic()
                await self._wait(min(self.pause.until, self._next_divert) - now)
                continue
            if self.pause.by == "operator":
                self.resume()  # a pause for a time is over
            if (early := self._next_send - self._clock.monotonic()) > 0:
                await self._wait(early)
                continue
            room = self._limit() * (1 if self.pause.probing else 2) - len(self._active) - len(self._ready)
            if rate := self.settings.rate:
                room = min(room, max(1, int(rate.count / rate.period.total_seconds())))
            if room <= 0 or not self._spool.writable():
                await self._wait(UNWRITABLE_WAIT)
                continue
            claims = await self._claim(room)
            if rate:  # paced before the claim: whoever waits for its turn can still be held, deleted or paused
                self._next_send = self._clock.monotonic() + len(claims) * rate.period.total_seconds() / rate.count
            self._fill()
            if len(claims) < room:
                due = await self._spool.due(self.name)
                await self._wait(FOREVER if due is None else (due - self._clock.now()).total_seconds())

    def _limit(self) -> int:
        return 1 if self.pause.probing else self.settings.concurrency

    async def _claim(self, room: int) -> list[Claim]:
        try:
            busy = sorted(self._busy)
            claims = await self._spool.claim(self.name, now=self._clock.now(), lease=LEASE, limit=room, busy=busy)
        except SpoolTrouble:
            return []
        small = [claim.message.id for claim in claims if claim.message.size <= EAGER_BODY]
        try:
            bodies = await self._spool.bodies(small) if small else {}
        except BaseException:
            await self._spool.release_claims(claims)
            raise
        for claim in claims:
            raw = bodies.get(claim.message.id)
            if raw is not None or claim.message.size > EAGER_BODY:
                self._ready.append((claim, raw))
                self._busy.add(claim.delivery_id)
        return claims

    def _fill(self) -> None:
        while self._ready and len(self._active) < self._limit() and not self._stopping:
            claim, raw = self._ready.popleft()
            task = asyncio.create_task(self._attempt(claim, raw), name=f"send-{self.name}-{claim.message.id}")
            self._active.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._events.bug(f"delivery.{self.name}", error)
        if self.resting() and self._ready:
            self._return_ready()
        self._fill()
        self._changed.set()

    def _return_ready(self) -> None:
        """Claims that wait in a lane gone to rest go back untouched."""
        claims = [claim for claim, _ in self._ready]
        self._ready.clear()
        self._busy -= {claim.delivery_id for claim in claims}
        self._aside(self._spool.release_claims(claims))

    async def _wait(self, seconds: float) -> None:
        await wait_for(self._changed, self._clock, seconds)

    async def _divert(self) -> None:
        """While this lane rests, what may go another way goes there; looked at now and then."""
        if not self._desk.fails_over(self.name):
            self._next_divert = FOREVER
            return
        if self._clock.monotonic() < self._next_divert < FOREVER:
            return
        self._next_divert = self._clock.monotonic() + DIVERT_EVERY
        after = 0
        while deliveries := await self._spool.deliveries(self.name, after=after):
            after, ways = deliveries[-1].delivery_id, defaultdict[str, list[int]](list)
            for delivery in deliveries:
                addresses = [recipient.address for recipient in delivery.message.envelope.recipients]
                others = [name for name in self._desk.candidates(delivery.message, addresses) if name != self.name]
                free = next((name for name in others if not self._desk.resting(name)), "")
                if free and not delivery.sticky:
                    ways[free].append(delivery.delivery_id)
            for free, ids in ways.items():
                await self._spool.move(ids, free, self._clock.now())

    # -- one attempt ---------------------------------------------------------------------------------------------

    async def _attempt(self, claim: Claim, raw: bytes | None) -> None:
        try:
            await self._carry_out(claim, raw)
        finally:
            self._busy.discard(claim.delivery_id)

    async def _carry_out(self, claim: Claim, raw: bytes | None) -> None:
        if raw is None:
            raw = (await self._spool.bodies([claim.message.id])).get(claim.message.id)
            if raw is None:
                return  # the spool has marked the message corrupt
        self._events.attempt(claim.message.id, self.name, claim.message.attempt)
        began = self._clock.monotonic()
        started = self._clock.now()
        outcomes = await self._send(claim.message, raw)
        await self._conclude(claim, raw, outcomes, started, self._clock.monotonic() - began)

    async def _send(self, message: SpooledMessage, raw: bytes) -> dict[str, Outcome]:
        try:
            async with asyncio.timeout(SEND_LIMIT):
                answers = dict(await self.backend.send(message, raw))
        except TimeoutError:
            return same_for_all(message, Outcome(Verdict.IN_DOUBT, detail="no answer within the time limit"))
        except Exception as error:
            self._events.bug(f"backend.{self.name}", error)
            detail = "internal error in the backend, see the log"
            return same_for_all(message, Outcome(Verdict.DEFERRED, code=451, enhanced="4.3.0", detail=detail))
        for recipient in message.envelope.recipients:
            if recipient.address not in answers:
                self._events.bug(f"backend.{self.name}", LookupError("no outcome for a recipient"))
                answers[recipient.address] = Outcome(Verdict.IN_DOUBT, detail="the backend gave no outcome")
        return answers

    async def _conclude(
        self, claim: Claim, raw: bytes, outcomes: Mapping[str, Outcome], started: datetime, seconds: float
    ) -> None:
        now = self._clock.now()
        pause, patient = self._judge(claim, outcomes)
        candidates = self._desk.candidates(claim.message, _unsent(outcomes))
        # What this backend may have taken is not given to another.
        stays = claim.sticky or any(outcome.verdict is Verdict.IN_DOUBT for outcome in outcomes.values())
        decision = decide(
            claim.message,
            outcomes,
            Situation(
                backend=self.name if stays or not candidates else candidates[0],
                now=now,
                retry=self._desk.retry,
                attempts=claim.message.attempt,
                rng=self._desk.rng,
                in_doubt=self.settings.in_doubt,
                doubts=claim.in_doubt,
                pause=timedelta(seconds=pause),
                patient=patient,
                alternative="" if stays else self._alternative(candidates),
            ),
        )
        self._events.settled(claim.message, self.name, decision.outcomes, seconds, now)
        reports, delayed = self._desk.reports(claim.message, raw, self.name, decision, now)
        await self._settle(
            Settlement(
                claim=claim,
                ended_at=now,
                outcomes=decision.outcomes,
                states=decision.states,
                next_attempt_at=decision.next_attempt_at,
                backend=decision.backend or self.name,
                bounces=reports,
                delay_notified=delayed,
                count_attempt=decision.count_attempt,
                started_at=started,
                poll_at=now + SCHEDULE[0] if self._follows else None,
            )
        )

    def _judge(self, claim: Claim, outcomes: Mapping[str, Outcome]) -> tuple[float, bool]:
        """Rest or recover the lane; returns seconds to rest and whether the message loses no patience."""
        guilty = blame(outcomes)
        now = self._clock.monotonic()
        if guilty is None:
            if any(o.verdict in (Verdict.SENT, Verdict.REJECTED, Verdict.DEFERRED) for o in outcomes.values()):
                self.last_success = self._clock.now()
                self._events.backend_up(self.name, True)
                self._recover()
            return 0.0, False
        by, outcome = guilty
        follower = self.pause.resting(now)
        seconds = self.pause.strike(by, outcome, now)
        if follower or by == "misconfigured":
            self.pause.followers.add(claim.message.id)
        if not follower:
            self._events.backend_up(self.name, by == "throttled")
            self._events.backend_paused(self.name, outcome.verdict.value, outcome.detail, seconds)
        return seconds, follower or by != "unreachable"

    def _recover(self) -> None:
        if not self.pause.by and not self.pause.probing:
            return
        if self.pause.by == "operator":
            return
        self.resume()

    def resume(self) -> None:
        """Work again; what only waited for the backend is due at once."""
        followers = self.pause.clear()
        self._events.backend_resumed(self.name)
        if followers:
            self._aside(self._spool.retry(Filter(ids=tuple(sorted(followers))), self._clock.now()))
        self._changed.set()

    def _aside(self, change: Awaitable[object]) -> None:
        """A change of the queue that nobody waits for; where the disk refuses it, the schedule brings it about."""

        async def carry_out() -> None:
            with suppress(SpoolTrouble):
                await change

        task = asyncio.create_task(carry_out())
        self._active.add(task)
        task.add_done_callback(self._finished)

    def _alternative(self, candidates: Sequence[str]) -> str:
        """The next way after this one in failover order, if it is not resting itself."""
        later = candidates[candidates.index(self.name) + 1 :] if self.name in candidates else candidates
        return next((name for name in later if not self._desk.resting(name)), "")

    async def _settle(self, settlement: Settlement) -> None:
        while True:
            try:
                await self._spool.settle(settlement)
            except SpoolTrouble as trouble:
                # Without a record the message would be sent again: keep the answer until the disk takes it.
                self._events.warning("settle_waits", queue_id=settlement.claim.message.id, reason=trouble.text)
                await self._clock.sleep(UNWRITABLE_WAIT)
            else:
                return

    # -- the end -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns soon."""
        self._stopping = True
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """After ``run`` has returned: give back what has not started, wait for what is under way, then cut it off."""
        waiting = [claim for claim, _ in self._ready]
        self._ready.clear()
        if waiting:
            with suppress(SpoolTrouble):  # a full disk: they are shown as interrupted
                await self._spool.release_claims(waiting)
        if self._active:
            _, late = await asyncio.wait(self._active, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=5)


def _unsent(outcomes: Mapping[str, Outcome]) -> list[str]:
    done = (Verdict.SENT, Verdict.REJECTED)
    return [address for address, outcome in outcomes.items() if outcome.verdict not in done]
