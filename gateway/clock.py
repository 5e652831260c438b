"""Time and names made from time. The only file that reads the clock or sleeps."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base32: sorts like the number, no I L O U
_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # elsewhere than on Linux a sleep looks like a step
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


class Clock(Protocol):
    """Wall time for what is stored and shown, monotonic seconds for durations within one run."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def uptime(self) -> float:
        """As ``monotonic``, but going on while the machine sleeps."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - here is the one place

    def monotonic(self) -> float:
        return time.monotonic()  # noqa: TID251

    def uptime(self) -> float:
        return time.clock_gettime(_UPTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251


async def wait_for(event: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Until the event is set or the seconds (may be infinite) are over."""
    if seconds <= 0 or event.is_set():
        return
    if seconds == float("inf"):
        await event.wait()
        return
    waits = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class QueueIds:
    """Queue ids: 13 characters that sort by time and never repeat within a run, even when the clock steps back.

    ``number`` (0 to 1023) is that of an instance that shares a spool with others: it stands where otherwise there is
    chance, so that no two of them ever give the same id.
    """

    def __init__(self, clock: Clock, rng: random.Random, number: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._last = 0
        self._number = number or (lambda: rng.getrandbits(10))

    def __call__(self) -> str:
        micros = max(self._last + 1, int(self._clock.now().timestamp() * 1_000_000))
        self._last = micros
        return _spelled(micros << 10 | self._number() & 1023)


def _spelled(number: int) -> str:
    pairs = _PAIRS[number >> 55 & 1023] + _PAIRS[number >> 45 & 1023] + _PAIRS[number >> 35 & 1023]
    pairs += _PAIRS[number >> 25 & 1023] + _PAIRS[number >> 15 & 1023] + _PAIRS[number >> 5 & 1023]
    return pairs + _ALPHABET[number & 31]


def first_id(moment: datetime) -> str:
    """No queue id made at this time or later is smaller, and none made before it is not."""
    micros = int(moment.timestamp() * 1_000_000)
    return _spelled(min(max(micros, 0), 2**55 - 1) << 10)
