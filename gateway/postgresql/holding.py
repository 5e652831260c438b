"""The backends that an instance works: each by a lock of its session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress

import psycopg

from gateway.clock import Clock
from gateway.events import Events
from gateway.postgresql import seats
from gateway.postgresql.seats import Survey
from gateway.postgresql.session import Session
from gateway.postgresql.shares import share

_AT_ONCE = 200  # taken with one beat, which has to end in time however far the server is


class Holding:
    """``gain``, ``lose`` are Member's; ``stir`` is called when something that was lost is at rest, which is waited for
    at most ``patience`` seconds: one send that hangs must not keep the rest from being worked."""

    def __init__(
        self,
        name: str,
        *,
        gain: Callable[[str], None],
        lose: Callable[[str], Awaitable[None]],
        stir: Callable[[], None],
        patience: float,
        clock: Clock,
        events: Events,
    ) -> None:
        self.owned: set[str] = set()
        self._name = name
        self._gain, self._lose, self._stir = gain, lose, stir
        self._patience, self._clock = patience, clock
        self._events = events
        self._leaving: dict[str, tuple[asyncio.Task[None], float]] = {}  # still locked, at most until then
        self._losing: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is ours, nor under way."""
        return not self.owned and not self._losing and not self._leaving

    async def balance(self, session: Session, found: Survey, may: Mapping[str, Collection[str]]) -> None:
        """Take what is free and for us; give back what others should have, one at a time."""
        shares = share(self._name, found.held, may)
        for backend in shares.leave:
            self._give(backend)
        if shares.give and not self._leaving:
            self._give(shares.give[0])
        for backend in [name for name in shares.take if name in found.numbers][:_AT_ONCE]:
            if await seats.lock(session, seats.BACKEND, found.numbers[backend]):
                await self._take(session, backend, found.numbers[backend])

    async def let_go(self, session: Session, numbers: Mapping[str, int]) -> list[str]:
        """What was given back and is at rest by now is free: returns that."""
        free, now = [], self._clock.monotonic()
        for backend in [name for name, (task, until) in self._leaving.items() if task.done() or now >= until]:
            with suppress(psycopg.errors.LockNotAvailable):  # with the next beat
                await seats.disown(session, backend, self._name)
                await seats.unlock(session, seats.BACKEND, numbers[backend])
                del self._leaving[backend]
                free.append(backend)
        return free

    def lost(self) -> list[str]:
        """All at once, with the session; returns what was ours."""
        owned, self.owned = sorted(self.owned), set()
        self._leaving.clear()
        for backend in owned:
            self._begin_losing(backend)
        return owned

    async def aclose(self) -> None:
        """Once all of it is lost."""
        while self._losing:
            await asyncio.wait(self._losing)

    async def _take(self, session: Session, backend: str, number: int) -> None:
        """It is locked. What fails is tried again with the next beat."""
        try:
            await seats.own(session, backend, self._name)
            self.owned.add(backend)
            self._gain(backend)
        except psycopg.errors.LockNotAvailable:  # a group that claims of it is being committed
            await seats.unlock(session, seats.BACKEND, number)
        except psycopg.Error:
            raise
        except Exception as error:
            self._events.bug("member.gain", error)
            self.owned.discard(backend)
            await seats.disown(session, backend, self._name)
            await seats.unlock(session, seats.BACKEND, number)

    def _give(self, backend: str) -> None:
        if backend in self.owned:
            self.owned.discard(backend)
            self._leaving[backend] = self._begin_losing(backend), self._clock.monotonic() + self._patience

    def _begin_losing(self, backend: str) -> asyncio.Task[None]:
        async def lose() -> None:
            try:
                await self._lose(backend)
            except Exception as error:
                self._events.bug("member.lose", error)

        task = asyncio.create_task(lose(), name=f"member.lose.{backend}")
        self._losing.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._losing.discard(task)
        self._stir()
