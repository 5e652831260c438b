"""The room that is left for mail: measured now and then, and counted down in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.events import Events
from gateway.model import SpoolFull
from gateway.spool.engine import Space
from gateway.spool.writer import NO_SPACE

_EVERY = 3.0  # seconds


class Room:
    """``reserve`` is kept free: a share of the disk, or bytes from 1 up."""

    def __init__(self, measure: Callable[[], Awaitable[Space]], reserve: float, clock: Clock, events: Events) -> None:
        self.used = self.free = self._floor = 0
        self._measure = measure
        self._reserve = reserve
        self._clock = clock
        self._events = events

    @property
    def enough(self) -> bool:
        return self.free >= self._floor

    def take(self, size: int) -> None:
        """So many bytes come in. Raises SpoolFull where they would eat into the reserve."""
        if self.free - size < self._floor:
            raise SpoolFull(NO_SPACE)
        self.free -= size  # until measured again

    async def look(self) -> None:
        """Raises OSError."""
        found = await self._measure()
        self.used, self.free = found.used, found.free
        self._floor = int(self._reserve if self._reserve >= 1 else self._reserve * found.total)

    async def watch(self) -> None:
        while True:
            await self._clock.sleep(_EVERY)
            try:
                await self.look()
            except Exception as error:
                self._events.bug("spool.space", error)
