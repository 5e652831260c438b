"""What operators do to an open spool: each order in steps, so that mail gets in between, and kept with who gave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from gateway.actor import Order
from gateway.events import Events
from gateway.model import NewMessage, SpoolTrouble
from gateway.spool import acts, again, changes, filters, membership, putting, queries, sql, upkeep
from gateway.spool.listing import Filter
from gateway.spool.looking import Looking
from gateway.spool.records import Claim, micros
from gateway.spool.space import Room
from gateway.spool.transaction import Transaction
from gateway.spool.writer import Writer

Each = Callable[[Sequence[str]], object]
T = TypeVar("T")
LEASE = timedelta(minutes=5)  # for giving up, which needs no network


@dataclass(eq=False, repr=False)
class Ordering(Looking):
    """Orders return how many messages they changed. ``each`` is handed the ids that a step changed, once they are on
    disk; what it raises ends the order there."""

    _writer: Writer
    room: Room
    _events: Events

    async def hold(self, which: Filter, now: datetime, each: Each = len, order: Order | None = None) -> int:
        return await self._change(upkeep.hold, which, now, each, order)

    async def release(self, which: Filter, now: datetime, each: Each = len, order: Order | None = None) -> int:
        return await self._change(upkeep.release, which, now, each, order)

    async def retry(self, which: Filter, now: datetime, each: Each = len, order: Order | None = None) -> int:
        return await self._change(partial(upkeep.retry, backend=which.backend), which, now, each, order)

    async def delete(self, which: Filter, now: datetime, each: Each = len, order: Order | None = None) -> int:
        """Gone with all its rows; the log keeps the ids, and the order whose it was."""

        def deleted(ids: Sequence[str]) -> None:
            self._events.deleted(ids, order.actor.name if order else "")
            each(ids)

        return await self._change(upkeep.delete, which, now, deleted, order)

    async def _change(self, step: upkeep.Step, which: Filter, now: datetime, each: Each, order: Order | None) -> int:
        """``order``: on whose account; it is kept with each step, in the same transaction."""
        total = 0

        try:
            async for ids in queries.steps(self._moments.own, which):
                run = partial(upkeep.change, step=step, which=which, ids=ids, now=micros(now))
                changed = await self._noted(run, order)
                total += len(changed)
                each(changed)
        finally:
            if order and total:
                self._events.act(order, total)
        return total

    async def belong(self, clients: Mapping[str, str]) -> None:
        """From now on these clients belong to these tenants, and no others to any. Raises SpoolTrouble."""
        if clients or await self._ask("SELECT 1 FROM membership WHERE until_at IS NULL LIMIT 1"):
            await self._writer.submit(partial(membership.belong, wanted=dict(clients)), late=True)

    async def act(self, order: Order, *, ids: Sequence[str] = (), count: int = 0) -> None:
        """Keep what somebody ordered that is done already: what it changed are these messages, or ``count`` things.

        What he ordered holds though the disk be full: then only the log knows of it.
        """
        self._events.act(order, len(ids) or count)
        with suppress(SpoolTrouble):
            for n in range(0, max(1, len(ids)), queries.STEP):
                step = ids[n : n + queries.STEP]
                run = partial(acts.note, order=order, ids=step, count=None if ids else count)
                order.act = await self._writer.submit(run, late=True)

    async def fail(self, which: Filter, now: datetime) -> AsyncIterator[list[Claim]]:
        """Claims, in pages, on all that is queued or held of these and not under way; the caller settles as failed."""
        meets, values = filters.still_of_delivery(which)
        async for ids in queries.steps(self._moments.own, which):
            if claims := await self._claim(now, LEASE, f"{sql.IDLE_OF} AND {meets}", **{**values, "ids": ids}):
                yield claims

    # -- again, and another way --------------------------------------------------------------------------------------

    async def standing(self, which: Filter) -> AsyncIterator[list[again.Standing]]:
        """These messages as they stand, as many as one step takes."""
        async for ids in queries.steps(self._moments.own, which):
            async with self._moments.own() as reader:
                yield await again.standing(reader, ids)

    async def requeue(self, ways: Sequence[again.Way], expires: datetime, order: Order | None = None) -> list[str]:
        """Failed mail waits again, as these ways say, until ``expires`` by the spool's time; returns which of them."""
        step = partial(again.requeue, ways=ways, expires=micros(expires))
        return await self._noted(step, order)

    async def reroute(
        self, ids: Sequence[str], backend: str, *, force: bool = False, order: Order | None = None
    ) -> list[str]:
        """What waits or is held of these goes by that backend; returns which of them."""
        return await self._noted(partial(again.reroute, ids=list(ids), backend=backend, force=force), order)

    async def resend(self, copies: Sequence[NewMessage], order: Order | None = None) -> None:
        """Put copies of messages beside them, all or none. Raises SpoolFull or SpoolUnavailable."""

        def step(tx: Transaction) -> list[str]:
            putting.put(tx, copies)
            return [copy.resend_of for copy in copies]

        with self.room.taking(copies):
            await self._noted(step, order, fresh=True)

    async def _noted(
        self, step: Callable[[Transaction], list[str]], order: Order | None, *, fresh: bool = False
    ) -> list[str]:
        """One step, kept with the order in the same transaction."""

        def run(tx: Transaction) -> tuple[list[str], int | None]:
            changed = step(tx)
            return changed, acts.note(tx, order, changed) if order else None

        changed, act = await self._writer.submit(run, late=True, fresh=fresh)
        if order:
            order.act = act
        return changed

    # -- counts ------------------------------------------------------------------------------------------------------

    async def recount(self) -> None:
        """Where other instances change the queue, too: how much waits, in all."""

        def known(found: dict[tuple[str, str], int] | BaseException) -> None:
            if not isinstance(found, BaseException):
                self._engine.recounted(found)

        if self._engine.shared:
            await self._writer.submit(changes.counted, late=True, then=known)

    # -- claims ------------------------------------------------------------------------------------------------------

    async def _claim(self, now: datetime, lease: timedelta, which: str, **values: Any) -> list[Claim]:
        run = partial(changes.claim, now=micros(now), until=micros(now + lease), which=which, **values)
        return await self._taking(run, list)

    async def _taking(self, run: Callable[[Transaction], T], claims: Callable[[T], Sequence[Claim]]) -> T:
        """What ``run`` claims is given back where nobody waits for it any more."""

        def give_back(_: object) -> None:
            if not taken.cancelled() and not taken.exception() and (left := claims(taken.result())):
                with suppress(SpoolTrouble):
                    self._writer.submit(lambda tx: changes.release_claims(tx, left))

        taken = self._writer.submit(run, late=True)
        try:
            return await asyncio.shield(taken)
        except asyncio.CancelledError:
            taken.add_done_callback(give_back)  # nobody is left to work on them
            raise
