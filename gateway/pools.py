"""Threads for work that would hold up the loop, apart by what it waits for. Those for name servers are in names.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
# Reading settings, and the files that they name on whatever disks these are.
read_files = Pool("settings", 2)
