"""Threads for work that would hold up the loop, apart by what it waits for. Those for name servers are in names.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Pool:
    """At most so many threads, which are made when they are needed."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def __call__(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


# Parsing, checking or encoding mail, never waiting for a disk or a network: more threads would not be quicker.
look_through_mail = Pool("mail", 4)
SMALL_MAIL = 16_000  # octets: looking through so little takes no longer than asking a thread to


async def read_files(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises: reading settings, what they name, folders of mail, on whatever disks these are.

    A thread of its own, which never holds up the end of the process: a disk may hang for ever.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # whoever waits may leave, the thread cannot

    def read() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=read, name="files", daemon=True).start()
    return await asyncio.wrap_future(answer)
