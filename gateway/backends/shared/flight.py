"""Single flight: what many want to know at the same time is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from gateway.backends.shared.base import away

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """At most one task for each key. Whoever waits for it may be cancelled, the task is for everybody."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def begin(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task under way for ``key``, else a new one. Nobody has to wait for it."""
        task = self._tasks.get(key)
        if task is None or task.done():
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(partial(self._ended, key))
        return task

    def _ended(self, key: K, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()  # fetched, or asyncio complains of a failure that nobody waited for

    async def get(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` returns or raises, done for whoever came first. Raises NoAnswer when it is closed."""
        task = self.begin(key, work)
        await asyncio.wait((task,))
        if task.cancelled():
            raise away("this backend is being closed")
        if error := task.exception():
            raise error.with_traceback(None)  # else it would grow with everybody who is told, and keep messages
        return task.result()

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
