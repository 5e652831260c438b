"""Delay notices: each sender hears once that his mail waits, whether or not a backend has tried to send it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from gateway.clock import Clock
from gateway.delivery.batches import batches
from gateway.delivery.bounces import Bounces
from gateway.delivery.orders import Orders
from gateway.model import Outcome
from gateway.spool import Late, Notice, Spool

_PAGE = 200
_MOST = 2000  # in one round: bounces, orphans and expiry have their turn in between
_AT_ONCE = 10  # written without a pause, so that the loop is free in between
_LOOK_AGAIN = 20  # rounds: what was held when its time came, or was moved meanwhile
_INSTANT = timedelta(microseconds=1)


class DelayNotices:
    """Who is late is looked up by age, from where the last look ended; now and then all are looked at."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self.orders: Orders
        self._spool = spool
        self._clock = clock
        self._after: dict[str, datetime] = {}  # by backend: all who wait since then or longer have had their turn
        self._rounds = 0

    def update(self, orders: Orders) -> None:
        """From now on these; who had no notice by the settings of before may have one now."""
        self.orders = orders
        self._after.clear()

    async def tell(self, stopping: Callable[[], bool]) -> None:
        """Of those who are late by now, a few thousand at most. Raises SpoolTrouble."""
        span = self.orders.retry.delay_notice
        if span <= timedelta(0) or not self._spool.accepting():  # a full disk keeps its last room for the mail itself
            return
        self._rounds += 1
        if self._rounds % _LOOK_AGAIN == 0:
            self._after.clear()
        until, left = self._spool.now() - span, _MOST
        for backend in await self._spool.queued():
            after, looked = self._after.get(backend), until
            async for page in self._spool.late(backend, until=until, after=after, limit=_PAGE):
                told: set[str] = set()
                for some in batches([late for late in page if late.deliveries]):
                    told.update(await self._notice(some))
                # What is under way, or was changed just now, is looked at again in the next round.
                again = [late.queued_at - _INSTANT for late in page if late.ident not in told]
                looked = min([looked, *again])
                left -= len(page)
                if left <= 0 or stopping():
                    return
                self._after[backend] = min(looked, page[-1].queued_at - _INSTANT)  # another may be as old
            self._after[backend] = looked

    async def _notice(self, some: Sequence[Late]) -> list[str]:
        bouncer = self.orders.bouncer
        asking = {late.ident for late in some if bouncer.asks(late)}
        bodies = await self._spool.bodies(list(asking)) if asking else {}
        whole = [late for late in some if late.ident not in asking or late.ident in bodies]  # else corrupt
        made: dict[str, tuple[Late, Bounces]] = {}
        for number, late in enumerate(whole, 1):
            made[late.ident] = late, self._bounces(late, bodies.get(late.ident, b""))
            if number % _AT_ONCE == 0:
                await self._clock.sleep(0)
        told = [
            Notice(ident, tuple(one.delivery_id for one in late.deliveries), bounces.messages, bounces.told)
            for ident, (late, bounces) in made.items()
        ]
        marked = await self._spool.notice(told) if told else []
        for ident in marked:
            late, bounces = made[ident]
            bouncer.tell(late.message, bounces)
        return marked

    def _bounces(self, late: Late, raw: bytes) -> Bounces:
        mono = self._clock.monotonic()

        def untried(backend: str) -> Outcome:
            return self.orders.untried(backend, mono)

        return self.orders.bouncer.delayed(late, raw, untried, self._clock.now(), self._spool.now())
