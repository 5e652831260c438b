"""Housekeeping of the queue: new ways for orphans, the end of lifetimes, retention, delay notices, gauges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from gateway.clock import Clock, wait_for
from gateway.config.models import RetentionSettings
from gateway.delivery.batches import batches
from gateway.delivery.breaker import MISCONFIGURED, OPERATOR
from gateway.delivery.claims import give_back
from gateway.delivery.digests import Digests
from gateway.delivery.notices import DelayNotices
from gateway.delivery.orders import Orders
from gateway.delivery.ownership import Ownership
from gateway.delivery.reroute import reroute
from gateway.delivery.rests import Rests
from gateway.delivery.retry import Decision, returned, too_late
from gateway.events import Events
from gateway.model import SpoolTrouble, SpoolUnavailable
from gateway.spool import Claim, Delivery, Filter, Spool
from gateway.spool.members import Strays

Each = Callable[[Mapping[str, bool]], object]
EVERY = 15.0  # seconds between rounds
_LOOK_AGAIN = 20  # rounds: those that nobody can take may be many, and are not routed anew each time


class Upkeep:
    """``wake_all`` is called each round: after the machine has slept, what waits may be due."""

    def __init__(
        self, spool: Spool, events: Events, clock: Clock, wake_all: Callable[[], None], own: Ownership,
        in_hand: Callable[[], set[int]], look_at_orders: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        """``in_hand``: numbers of the attempts that workers are at."""
        self._own = own
        self._look_at_orders = look_at_orders
        self._in_hand, self._given_up = in_hand, set[int]()
        self._strays = Strays(clock)
        self._orders: Orders
        self._retention: RetentionSettings
        self._spool = spool
        self._events = events
        self._clock = clock
        self._wake_all = wake_all
        self._notices = DelayNotices(spool, clock)
        self._digests = Digests(spool, events, clock)
        self._rests = Rests(spool, clock, own)
        self._changed = asyncio.Event()
        self._stopping = False
        self._rounds = 0
        self._stranded: dict[str, int] = {}  # how many a look at all of a backend's left where they are

    def update(self, orders: Orders, retention: RetentionSettings) -> None:
        """From now on these, beginning with a round at once: what was stranded may have a way now."""
        self._orders, self._retention = orders, retention
        self._notices.update(orders)
        self._stranded.clear()
        self._changed.set()

    async def run(self) -> None:
        """Until stopped."""
        while not self._stopping:
            self._changed.clear()
            try:
                await self._spool.keep_time()
                await self._spool.uses.write()
                await self._spool.recount()
                if self._spool.shared:
                    await self._look_at_orders()
                await self._spool.take_back(self._strays, lambda: self._in_hand() | self._given_up)
                if self._own.keeps_house():
                    await self._keep_house()
                await self._rests.look(self._orders.breakers)
            except SpoolTrouble as trouble:
                self._events.warning("housekeeping_waits", reason=trouble.text)
            with suppress(SpoolTrouble):
                await self.publish()
            self._wake_all()
            await wait_for(self._changed, self._clock, EVERY)

    async def _keep_house(self) -> None:
        await self._adopt_orphans()
        await self._expire()
        while not self._stopping and await self._spool.sweep(self._spool.now(), self._retention):
            pass  # until nothing is left that is past its time
        await self._notices.tell(lambda: self._stopping)
        await self._digests.tell(self._orders.bouncer, lambda: self._stopping)

    def stop(self) -> None:
        """``run`` returns at the end of what it does now."""
        self._stopping = True
        self._changed.set()

    async def publish(self) -> None:
        """Bring the queue gauges up to date."""
        now = self._clock.now()
        oldest = {name: (now - since).total_seconds() for name, since in (await self._spool.oldest()).items()}
        self._events.queue_gauges(self._spool.counts(), oldest)
        room = self._spool.room
        free = None if room.database else room.space.free
        self._events.spool_space(room.space.used, free, room.left, room.shut)

    async def _adopt_orphans(self) -> None:
        """Messages queued for a backend that is no longer configured get a new way, or wait and are shown."""
        self._rounds += 1
        if self._rounds % _LOOK_AGAIN == 0:
            self._stranded.clear()
        known = self._orders.breakers.keys() | set(self._own.declared())
        for name, count in (await self._spool.queued()).items():
            if name in known or self._stranded.get(name) == count:
                continue
            left = 0
            async for stay in reroute(self._spool, name, self._first_way):
                left += stay
                if self._stopping:
                    return
            if left:
                self._events.warning("no_backend", backend=name, messages=left)
            self._stranded[name] = left

    def _first_way(self, delivery: Delivery) -> str:
        return next(iter(self._orders.ways(delivery.message)), "")

    async def _expire(self) -> None:
        """What backends that do not work were not able to try to the end, however much it is."""
        while not self._stopping:
            now = self._clock.monotonic()
            working = [name for name in self._orders.breakers if self._orders.free(name, now)]
            claims = await self._spool.overdue(self._spool.now(), working)
            if not claims:
                return
            await self._give_up(claims, self._too_late)

    def _too_late(self, claim: Claim) -> Decision:
        breaker = self._orders.breakers.get(claim.backend)
        ours = breaker is not None and breaker.by in (MISCONFIGURED, OPERATOR)
        return too_late(claim.message, claim.backend, ours=ours)

    async def bounce(self, which: Filter, each: Each = len) -> dict[str, bool]:
        """Give up on these messages by order of the operator: those that had something left to give up, by id, and
        whether the sender is told of it. ``each`` is handed the same of each step; what it raises ends it there.

        Raises SpoolTrouble, also when a stop comes between: then some are given up, and what is left is as it was.
        """
        found: dict[str, bool] = {}
        async for claims in self._spool.fail(which, self._spool.now()):
            step: dict[str, bool] = {}
            for ident, told in await self._give_up(claims, lambda claim: returned(claim.message)):
                step[ident] = told or step.get(ident, False)
            found |= step
            each(step)
        return found

    async def _give_up(self, claims: Sequence[Claim], decide: Callable[[Claim], Decision]) -> list[tuple[str, bool]]:
        """Settle these together, so that one commit serves many: the ids, and for each whether its sender is told.

        Raises SpoolTrouble when all have had their turn.
        """
        given_up: list[tuple[str, bool]] = []
        attempts = {claim.attempt_id for claim in claims}
        self._given_up |= attempts
        try:
            for some in batches(claims):
                if self._stopping:
                    raise SpoolUnavailable("the gateway is stopping: not all of it was done, ask again when it runs")
                bodies = await self._spool.bodies([claim.message.id for claim in some])
                whole = [claim for claim in some if claim.message.id in bodies]  # else the spool has marked it corrupt
                settling = [self._settle(claim, bodies[claim.message.id], decide(claim)) for claim in whole]
                for claim, told in zip(whole, await asyncio.gather(*settling, return_exceptions=True), strict=True):
                    if isinstance(told, BaseException):
                        raise told
                    given_up.append((claim.message.id, told))
        except BaseException:
            await give_back(self._spool, claims)
            raise
        finally:
            self._given_up -= attempts
        return given_up

    async def _settle(self, claim: Claim, raw: bytes, decision: Decision) -> bool:
        told = await self._orders.settle(self._spool, claim, raw, decision, self._clock.now())
        self._events.settled(claim.message, claim.backend, decision.outcomes, 0.0, self._spool.now())
        return told
