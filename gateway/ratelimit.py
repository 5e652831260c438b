"""The one limiter: at most so much in any period, for each key. Time is passed in, as monotonic seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import TypeVar

from gateway.model import Rate

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
_KEYS = 10_000
_SLOTS = 60
_HOUR = 3600.0


def remember(table: dict[K, T], key: K, value: T) -> None:
    """Of too many keys the least recently used one is forgotten."""
    table.pop(key, None)
    table[key] = value
    if len(table) > _KEYS:
        del table[next(iter(table))]


class RateWindow:
    """At most ``count`` events in any ``period``, for each key. Counts by sixtieths of the period, so it is strict and
    small: a refusal may last a sixtieth longer than it had to. The least recently used key is forgotten first.
    """

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, int]] = {}

    def allow(self, key: str, rate: Rate, now: float) -> bool:
        """Count one event at ``now`` (monotonic seconds), unless that would exceed the rate."""
        current, slots = self._within(key, rate, now)
        allowed = sum(slots.values()) < rate.count
        if allowed:
            slots[current] = slots.get(current, 0) + 1
        remember(self._slots, key, slots)
        return allowed

    def used(self, key: str, rate: Rate, now: float) -> int:
        """How many of them count at ``now`` (monotonic seconds). Counts nothing."""
        return sum(self._within(key, rate, now)[1].values())

    def _within(self, key: str, rate: Rate, now: float) -> tuple[int, dict[int, int]]:
        current = int(now * _SLOTS / rate.period.total_seconds())
        return current, {slot: n for slot, n in self._slots.get(key, {}).items() if slot >= current - _SLOTS}


class FailureLimit:
    """At most ``most`` failures of each key at once; every ``seconds`` one of them is forgiven."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._failures: dict[Hashable, tuple[float, float]] = {}  # not yet forgiven, as of when

    def allow(self, key: Hashable, now: float) -> bool:
        """False while a further failure at ``now`` (monotonic seconds) would be one too many. Counts nothing."""
        return self._left(key, now) <= self._most - 1

    def add(self, key: Hashable, now: float) -> None:
        """Count one failure at ``now`` (monotonic seconds)."""
        remember(self._failures, key, (max(0.0, self._left(key, now)) + 1, now))

    def forgive(self, key: Hashable, now: float) -> None:
        """One of them was none."""
        if (left := self._left(key, now) - 1) > 0:
            remember(self._failures, key, (left, now))
        else:
            self._failures.pop(key, None)

    def _left(self, key: Hashable, now: float) -> float:
        count, then = self._failures.get(key, (0.0, now))
        return count - (now - then) / self._seconds


class Shares:
    """How much of something common each key holds now; its length is the number of those that hold any."""

    def __init__(self) -> None:
        self.total = 0
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def of(self, key: str) -> int:
        return self._held.get(key, 0)

    def add(self, key: str, amount: int) -> None:
        """A negative ``amount`` gives back."""
        self.total += amount
        if held := self._held.get(key, 0) + amount:
            self._held[key] = held
        else:
            self._held.pop(key, None)


def lengthened(first: float, times: int, longest: float) -> float:
    """Seconds to wait after having heard ``times`` in a row (1 or more) that it is too early, at ``first`` for so long.

    It doubles each time up to ``longest``, or an hour where that is asked for, and is never less than ``first``.
    """
    most = longest if first < longest else _HOUR
    return max(first, min(first * (1 << min(max(times - 1, 0), 20)), most))


class Budget:
    """At most ``amount`` in any ``period`` seconds; what costs more than that goes when nothing else did."""

    def __init__(self, amount: float, period: float) -> None:
        self.amount = amount
        self.period = period
        self._spent: deque[tuple[float, int]] = deque()  # when, how much
        self._total = 0

    def wait(self, cost: int, now: float) -> float:
        """Seconds until ``cost`` may be spent; 0 for now."""
        excess = self.used(now) + cost - self.amount
        free = now
        for when, spent in self._spent:
            if excess <= 0:
                break
            excess -= spent
            free = when + self.period
        return free - now

    def used(self, now: float) -> int:
        """What is spent of it at ``now``."""
        while self._spent and self._spent[0][0] <= now - self.period:
            self._total -= self._spent.popleft()[1]
        return self._total

    def spend(self, cost: int, now: float) -> None:
        self._spent.append((now, cost))
        self._total += cost
