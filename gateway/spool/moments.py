"""Who looks, looks at one moment: a question by itself, or all the questions that make up one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.model import SpoolUnavailable
from gateway.spool.engine import UNREADABLE, Engine
from gateway.spool.queries import Reader, refuse_if_away


class _Shared:
    """The transaction of one task; it begins with the first question."""

    def __init__(self, of: Moments, stack: AsyncExitStack) -> None:
        self.of = of
        self.task = asyncio.current_task()
        self._stack = stack
        self._reader: Reader | None = None

    async def reader(self) -> Reader:
        if self._reader is None:
            self._reader = await self._stack.enter_async_context(self.of.own())
        return self._reader


_shared: ContextVar[_Shared | None] = ContextVar("moment", default=None)


class Moments:
    """Gives out readers. Each question has a transaction of its own, but within ``one``."""

    def __init__(self, connections: AsyncEngine, engine: Engine) -> None:
        self._connections = connections
        self._engine = engine

    @asynccontextmanager
    async def own(self) -> AsyncIterator[Reader]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._connections.connect())
            except DBAPIError as error:
                refuse_if_away(self._engine, error)
                raise
            except NoneFree as error:  # all look, at a server that is slow or frozen
                raise SpoolUnavailable(UNREADABLE) from error
            yield Reader(connection, self._engine)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        """That of the moment in which this task is, or else one of its own."""
        shared = _shared.get()
        if shared is not None and shared.of is self and shared.task is asyncio.current_task():
            yield await shared.reader()
            return
        async with self.own() as reader:
            yield reader

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """What this task asks within it, it asks of one moment. What it writes meanwhile is not seen.

        Not for long: until it ends, the log of the spool cannot begin anew.
        """
        async with AsyncExitStack() as stack:
            token = _shared.set(_Shared(self, stack))
            try:
                yield
            finally:
                _shared.reset(token)
