"""Revocations of a spool that other instances share: read again when one of them has spoken, and now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.auth.tokens import Known, Revocations
from gateway.clock import Clock, wait_for
from gateway.events import Events
from gateway.model import SpoolTrouble

_EVERY = 30.0  # seconds: where nothing was heard, a revocation of another instance holds after that
_AGAIN = 2.0  # seconds, when they could not be read


class Following:
    """``read`` gives all revocations as they are now; it may raise SpoolTrouble. For one instance alone it is nothing:
    what it knows is all that there is."""

    def __init__(
        self, revocations: Revocations, read: Callable[[], Awaitable[Known]], clock: Clock, events: Events
    ) -> None:
        self._revocations = revocations
        self._read = read
        self._clock = clock
        self._events = events
        self._heard = asyncio.Event()
        self._task = asyncio.create_task(self._follow(), name="revocations")

    def heard(self) -> None:
        """Another instance has revoked something. Quick."""
        self._heard.set()

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            self._heard.clear()  # what is heard from here on may not be in what is read now
            rest = _EVERY
            try:
                await self._revocations.load(self._read)
            except SpoolTrouble:
                rest = _AGAIN
            except Exception as error:  # this must not end: what others revoke would count here
                self._events.bug("auth.revocations", error)
            await wait_for(self._heard, self._clock, rest)
