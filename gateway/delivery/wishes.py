"""Checks and fixes that are wished for at an instance that does not work the backend: the one that does makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from gateway.clock import Clock
from gateway.delivery.ownership import Ownership
from gateway.events import Events
from gateway.model import SpoolTrouble
from gateway.spool import Spool
from gateway.spool.pauses import Ordered
from gateway.spool.wishes import Wish, read

_EVERY = 0.2  # seconds between two looks whether it is done
Grant = Callable[[str, Wish], Awaitable[Mapping[str, Any]]]


class Wishes:
    """``grant`` does it, and says what came of it; it is set by who can. ``here`` says whether a backend is worked
    here."""

    def __init__(self, spool: Spool, clock: Clock, events: Events, own: Ownership, here: Callable[[str], bool]) -> None:
        self.grant: Grant | None = None
        self._spool = spool
        self._clock = clock
        self._events = events
        self._own = own
        self._here = here
        self._at: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, what: str, who: str, seconds: float) -> Wish | None:
        """What came of it at the instance that works it; None where that has said nothing within ``seconds``: it does
        it when it can, or the next one does. Raises SpoolTrouble."""
        until = self._clock.monotonic() + seconds
        number = await self._spool.want(name, what, who)
        self._own.ordered(name)
        while number:
            wish = await self._spool.wish(name)
            if wish is not None and wish.number >= number and wish.done is not None:
                return wish
            if self._clock.monotonic() >= until:
                break
            await self._clock.sleep(_EVERY)
        return None

    def see(self, rows: Iterable[Ordered]) -> None:
        """Begin what is to be done of backends that are worked here."""
        for row in rows:
            wish = read(row.wanted)
            if wish is not None and wish.done is None and self._here(row.backend) and row.backend not in self._at:
                task = asyncio.create_task(self._do(row.backend, wish), name=f"delivery.wish.{row.backend}")
                self._at[row.backend] = task

    async def _do(self, name: str, wish: Wish) -> None:
        """Until nobody wishes anything more. Whoever gains the backend begins anew what was not said to be done."""
        left: Wish | None = wish
        try:
            while left is not None and self.grant is not None and self._here(name):
                found = await self.grant(name, left)
                left = await self._spool.wish_done(name, left.number, found)
                self._own.stir()
        except SpoolTrouble:  # with the next look at orders
            pass
        except Exception as error:
            self._events.bug(f"delivery.wish.{name}", error)
        finally:
            del self._at[name]

    async def aclose(self) -> None:
        tasks = set(self._at.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
