"""Keys that renew themselves are looked at every hour, by every instance: who is first does what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.checks import Renewed, Renews
from gateway.clock import Clock, wait_for
from gateway.events import Events
from gateway.model import Backend

_AFTER_BUG = 3600.0  # seconds
_DAILY = 86400.0  # what stays as it is, is told so often
_PATIENCE = 45.0  # seconds for an order, less than a command waits for its answer


class Renewals:
    """Of all backends; ``backends`` are those configured now."""

    def __init__(self, backends: Callable[[], Mapping[str, Backend]], events: Events, clock: Clock) -> None:
        self._backends = backends
        self._events = events
        self._clock = clock
        self._news = asyncio.Event()
        self._told: dict[str, tuple[str, float]] = {}
        self._ordered: set[asyncio.Task[Renewed | None]] = set()

    def look_again(self) -> None:
        """Soon: backends have changed, or one has a new key."""
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            waits = await asyncio.gather(*(self._keep(name, one) for name, one in list(self._backends().items())))
            await wait_for(self._news, self._clock, min(waits, default=float("inf")))

    async def order(self, name: str) -> Renewed | None:
        """Begin now. None: nothing of it renews itself. Raises KeyError, and TimeoutError: it goes on without us."""
        task = asyncio.create_task(self._look(name, self._backends()[name], ordered=True), name=f"renewal.{name}")
        self._ordered.add(task)
        task.add_done_callback(self._ended)
        if not (await asyncio.wait({task}, timeout=_PATIENCE))[0]:
            raise TimeoutError
        return task.result()

    async def aclose(self) -> None:
        """What is under way is given up: the next look goes on with it."""
        for task in self._ordered:
            task.cancel()
        if self._ordered:
            await asyncio.wait(self._ordered)

    def _ended(self, task: asyncio.Task[Renewed | None]) -> None:
        self._ordered.discard(task)
        self._news.set()
        if not task.cancelled() and (error := task.exception()):
            self._events.bug("delivery.renewals", error)

    async def _keep(self, name: str, backend: Backend) -> float:
        """Returns the seconds until it is worth looking again."""
        try:
            found = await self._look(name, backend)
        except Exception as error:  # one backend's bug is not the others'
            self._events.bug("delivery.renewals", error)
            return _AFTER_BUG
        return found.again if found else float("inf")

    async def _look(self, name: str, backend: Backend, *, ordered: bool = False) -> Renewed | None:
        found = await backend.renew(ordered=ordered) if isinstance(backend, Renews) else None
        if found is None:
            self._events.memory.renewals.pop(name, None)
            return None
        self._events.key_looked_at(name, found.trouble, found.fix)
        if found.result != "kept":
            before, at = self._told.get(name, ("", 0.0))
            now, said = self._clock.monotonic(), f"{found.result}: {found.summary}"
            news = said != before or now - at >= _DAILY
            if news:
                self._told[name] = said, now
            self._events.key_renewed(name, found.result, found.summary, found.fix, news=news)
        return found
