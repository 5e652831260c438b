"""Owns the workers: starts, supervises, replaces and stops them, and passes on what an operator orders."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from gateway.checks import Check
from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.delivery.again import Again
from gateway.delivery.bounces import Bouncer
from gateway.delivery.breaker import OPERATOR, CircuitBreaker
from gateway.delivery.obeying import Elsewhere, Obeying, Obeys
from gateway.delivery.orders import Orders
from gateway.delivery.others import Others
from gateway.delivery.ownership import Alone, Ownership
from gateway.delivery.post import Post
from gateway.delivery.renewals import Renewals
from gateway.delivery.returned import Comebacks
from gateway.delivery.sending import SEND_LIMIT
from gateway.delivery.standing import BackendStatus
from gateway.delivery.tracking import Tracker
from gateway.delivery.upkeep import Upkeep
from gateway.delivery.wishes import Wishes
from gateway.delivery.worker import Worker
from gateway.events import Events
from gateway.model import Backend, CallsBack, NewMessage, SpoolTrouble, Tracked
from gateway.returned import Returns
from gateway.routing import Routing
from gateway.spool import Filter, Offer, Spool

RESTART_DELAY = 1.0  # seconds


class Dispatcher:
    """``update`` swaps settings and backends while messages are under way."""

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
        ownership: Ownership | None = None,
    ) -> None:
        self._own = ownership or Alone()
        self._backends: dict[str, Backend] = {}  # also those that another instance works
        self._spool = spool
        self._events = events
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._posts: dict[str, Post] = {}
        self._breakers: dict[str, CircuitBreaker] = {}
        self.wishes = Wishes(spool, clock, events, self._own, self._posts.__contains__)
        self._obeying = Obeying(spool, clock, self._who_obeys, self._own.ordered, self._own.stir, self.wishes.see)
        mine = lambda: {name: post.worker.status(0) for name, post in self._posts.items()}  # noqa: E731
        self.others = Others(spool, clock, events, mine, self._breakers, self._obeying.asked)
        self._upkeep = Upkeep(spool, events, clock, self.wake_all, self._own, self._in_hand, self.look_at_orders)
        self._hearing: asyncio.Task[None] | None = None
        self._news = False  # of orders
        self.renewals = Renewals(lambda: self._backends, events, clock)
        self._renewing: asyncio.Task[None] | None = None
        self.again = Again(spool, events, clock, ids)
        self.publish, self.bounce = self._upkeep.publish, self._upkeep.bounce
        self._keeping: asyncio.Task[None] | None = None
        self._leaving: dict[asyncio.Task[None], Worker] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._apply(settings, routing)

    def _apply(self, settings: Settings, routing: Routing) -> None:
        self._settings = settings
        bouncer = Bouncer(settings, routing, self._events, self._ids, self._rng, self.works)
        self._orders = Orders(routing, settings.retry, bouncer, MappingProxyType(self._breakers), self._rng)
        self._upkeep.update(self._orders, settings.retention)
        self.again.update(self._orders, settings)
        for post in self._posts.values():
            post.worker.orders = self._orders

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._settings

    def works(self, name: str) -> bool:
        """Whether a backend of this name sends now."""
        return self._orders.free(name, self._clock.monotonic())

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, backends: Mapping[str, Backend]) -> None:
        """Open a worker for each backend that is worked here."""
        self._adopt(backends, {}, ())
        with suppress(SpoolTrouble):  # else each worker looks before it begins
            await self.look_at_orders()
        self._keeping = self._supervised("upkeep", self._upkeep.run)
        self._renewing = self._supervised("renewals", self.renewals.run)

    def _adopt(
        self,
        backends: Mapping[str, Backend],
        breakers: Mapping[str, CircuitBreaker],
        here: Collection[str],
        *,
        resting: bool = False,
    ) -> None:
        """These are all there are; those ``here`` were worked here before. One that is worked elsewhere is thought to
        work."""
        self._backends = dict(backends)
        for name, backend in backends.items():
            if name not in self._posts and (name in here or self._own.owns(name)):
                self._open(name, backend, breakers.get(name, CircuitBreaker()), resting=resting)
            elif name not in self._posts:
                self._breakers[name] = CircuitBreaker()
                self._obeying.forget(name)
                self.others.apply(name)

    def gain(self, name: str) -> None:
        """From now on this backend is worked here."""
        if name in self._backends and name not in self._posts:
            self._obeying.forget(name)
            self._open(name, self._backends[name], CircuitBreaker())

    async def lose(self, name: str) -> None:
        """This backend is worked here no more: nothing new is begun; returns when what was under way has ended."""
        if name in self._posts:
            post = self._take(name)
            self._breakers[name] = CircuitBreaker()
            self._obeying.forget(name)
            self.hear_of_orders()
            await self._leave(name, post, backend=False)

    def _leave(self, name: str, post: Post, *, backend: bool = True) -> asyncio.Task[None]:
        leaving = asyncio.create_task(post.close(SEND_LIMIT, backend=backend), name=f"delivery.leaving.{name}")
        self._leaving[leaving] = post.worker
        leaving.add_done_callback(self._leaving.pop)
        leaving.add_done_callback(lambda _: self.wake(name))  # its places are free now
        return leaving

    def _before(self, backend: Backend) -> int:
        """Sends by it that workers which had to go have not ended: whoever comes has only what is left of places."""
        return sum(worker.sending for worker in self._leaving.values() if worker.backend is backend)

    def _open(self, name: str, backend: Backend, breaker: CircuitBreaker, *, resting: bool = False) -> None:
        """With the breaker of who was there before: an order stays in force, all else is found out anew, unless it is
        ``resting``."""
        self._breakers[name] = breaker
        settings = self._settings.backends[name]
        others = self._spool, self._events, self._clock, self._own.valid, partial(self._before, backend)
        worker = Worker(backend, settings, self._orders, breaker, *others)
        rests = resting and breaker.by not in ("", OPERATOR)
        self._events.backend_known(name, up=not rests, paused=breaker.by != "")  # until it is found not to be so
        if breaker.by not in ("", OPERATOR) and not rests:
            worker.resume()
        asking, comebacks = [], None
        if isinstance(backend, Tracked):
            tracker = Tracker(name, backend, breaker, self._spool, self._events, self._clock)
            asking.append(self._supervised(f"tracking.{name}", tracker.run))
        if isinstance(backend, Returns) and backend.returns:
            given = self._spool, self._events, self._clock, lambda: self._orders
            comebacks = Comebacks(name, backend, *given)
            asking.append(self._supervised(f"returned.{name}", comebacks.run))

        def here() -> bool:
            return name in self._posts and self._posts[name].worker is worker

        async def work() -> None:
            await self._obeying.know(name, here)
            await worker.run()

        self._posts[name] = Post(worker, self._supervised(f"worker.{name}", work), asking, comebacks)

    def _supervised(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """A loop that dies of a bug is reported and started again; it is never silently gone."""

        async def supervise() -> None:
            while True:
                try:
                    return await work()
                except Exception as error:
                    self._events.bug(f"delivery.{name}", error)
                    await self._clock.sleep(RESTART_DELAY)

        return asyncio.create_task(supervise(), name=f"delivery.{name}")

    @property
    def alive(self) -> bool:
        """Whether everybody is at work."""
        posts = self._posts.values()
        tasks = [self._keeping, self._renewing, *(post.working for post in posts)]
        tasks += [task for post in posts for task in post.asking]
        return self._own.alive() and all(task is not None and not task.done() for task in tasks)

    async def update(
        self, settings: Settings, routing: Routing, backends: Mapping[str, Backend], *, resting: bool = False
    ) -> None:
        """Take over reloaded settings. A backend object that is new replaces its worker; the old one ends its sends.

        It is thought to work until it is found not to; ``resting``: it goes on resting as the one before."""
        self._apply(settings, routing)
        breakers = dict(self._breakers)
        idle = {name: backend for name, backend in self._backends.items() if name not in self._posts}
        here = set(self._posts)
        for name, post in list(self._posts.items()):
            if backends.get(name) is not post.worker.backend:
                self._leave(name, self._take(name))
        self._adopt(backends, breakers, here, resting=resting)
        self.renewals.look_again()
        for name, old in idle.items():
            if backends.get(name) is not old:
                self._left.add(closing := asyncio.create_task(self._close(old), name=f"delivery.close.{name}"))
                closing.add_done_callback(self._left.discard)
            if name not in backends:
                self._breakers.pop(name, None)
        for name in breakers.keys() - backends.keys():
            self._obeying.forget(name)
        if self._spool.shared:
            self.hear_of_orders()

    async def _close(self, backend: Backend) -> None:
        """One that is not worked here any more, when the sends that were under way here have ended."""
        if leaving := [task for task, worker in self._leaving.items() if worker.backend is backend]:
            await asyncio.wait(leaving)
        await backend.aclose()

    def _take(self, name: str) -> Post:
        """From now on nobody is at this post; who leaves it ends his work."""
        del self._breakers[name]
        post = self._posts.pop(name)
        post.worker.stop()
        return post

    async def drain(self, seconds: float) -> None:
        """Stop claiming, let running sends end within ``seconds``, close the backends."""
        self._upkeep.stop()
        await self.wishes.aclose()
        for post in self._posts.values():
            post.worker.stop()
        if self._keeping:
            await self._keeping
        for task in filter(None, (self._hearing, self._renewing)):
            task.cancel()
            await asyncio.wait({task})
        await self.renewals.aclose()
        idle = [backend for name, backend in self._backends.items() if name not in self._posts]
        self._backends = {}
        closing = [self._take(name).close(seconds) for name in list(self._posts)]
        closing += map(self._close, idle)
        hurry = [worker.drain(seconds) for worker in self._leaving.values()]
        for ended in await asyncio.gather(*closing, *hurry, *self._leaving, *self._left, return_exceptions=True):
            if isinstance(ended, Exception):
                self._events.bug("delivery.drain", ended)

    # -- what the operator sees and steers ---------------------------------------------------------------------------

    def wake(self, backend: str) -> None:
        """There is new work for it."""
        if post := self._posts.get(backend):
            post.worker.wake()

    def offer(self, backend: str) -> Offer | None:
        """Of its worker, to take at once what comes for it just now (Worker.offer)."""
        post = self._posts.get(backend)
        return post.worker.offer() if post else None

    def wake_all(self) -> None:
        """There may be new work for any."""
        for post in self._posts.values():
            post.worker.wake()

    def _in_hand(self) -> set[int]:
        """The numbers of all attempts that somebody is at work on."""
        workers = (*(post.worker for post in self._posts.values()), *self._leaving.values())
        return {number for worker in workers for number in worker.in_hand}

    def calls_back(self, name: str) -> CallsBack | None:
        """The backend of this name, if its provider may call back."""
        backend = self._posts[name].worker.backend if name in self._posts else None
        return backend if isinstance(backend, CallsBack) and backend.hook else None

    def status(self) -> dict[str, BackendStatus]:
        counts = self._spool.counts()
        found = {}
        for name in self._backends:
            queued, post = counts.get((name, "queued"), 0), self._posts.get(name)
            status = post.worker.status(queued) if post else self.others.status(name, self._settings, queued)
            found[name] = replace(status, owner=self._own.owner(name))
        return found

    def comebacks(self) -> dict[str, Comebacks]:
        """Who looks here for mail that came back, by backend."""
        return {name: post.comebacks for name, post in self._posts.items() if post.comebacks}

    async def refuse(self, message: NewMessage, untold: str = "") -> None:
        """Keep a message with who was refused on its way in (Orders.refuse). Raises SpoolTrouble."""
        await self._orders.refuse(self._spool, message, self._clock.now(), untold=untold)

    async def pause(self, name: str, seconds: float | None, who: str = "") -> None:
        """Rest by order of ``who``, for ``seconds`` or until resumed. KeyError when there is no such backend."""
        await self._obeying.pause(name, seconds, who)

    async def resume(self, name: str) -> None:
        """Back to work by order: what was put off is due now. KeyError when there is no such backend."""
        await self._obeying.resume(name)
        await self._spool.retry(Filter(backend=name, state="queued"), self._spool.now())

    async def check(self, name: str) -> Check:
        """Try credentials and reachability now, from here; what is worked here and works again goes back to work.

        KeyError when there is no such backend.
        """
        post = self._posts.get(name)
        return await (post.worker.check() if post else self._backends[name].check())

    def elsewhere(self, name: str) -> str | None:
        """Which instance works it, "" for none just now; None: this one."""
        return self._own.owner(name) if name in self._backends and name not in self._posts else None

    def _who_obeys(self, name: str) -> Obeys | None:
        if name in self._posts:
            return self._posts[name].worker
        return Elsewhere(self._breakers[name], self._clock) if name in self._backends else None

    async def look_at_orders(self) -> None:
        """Obey what was ordered of backends at other instances, or before a restart. Raises SpoolTrouble."""
        await self._obeying.look(self._backends)

    def hear_of_orders(self) -> None:
        """Something was ordered elsewhere: look, soon."""

        async def look() -> None:
            while self._news:
                self._news = False
                with suppress(SpoolTrouble):  # with the next round of upkeep
                    await self.look_at_orders()

        self._news = True
        if self._hearing is None or self._hearing.done():
            self._hearing = self._supervised("orders", look)
