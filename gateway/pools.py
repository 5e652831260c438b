"""Threads for work that would hold up the loop. Those that wait for name servers are in names.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
_MAIL_THREADS = 4  # reading and encoding mail is work for the processor: more threads would not be quicker


@lru_cache(maxsize=1)
def _mail() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAIL_THREADS, thread_name_prefix="mail")


async def look_through_mail(work: Callable[[], T]) -> T:
    """What ``work`` returns: parsing, checking or encoding a message, never waiting for a disk or a network."""
    return await asyncio.get_running_loop().run_in_executor(_mail(), work)


@lru_cache(maxsize=1)
def _files() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="settings")


async def read_files(work: Callable[[], T]) -> T:
    """What ``work`` returns: reading settings, and the files that they name on whatever disks these are."""
    return await asyncio.get_running_loop().run_in_executor(_files(), work)
