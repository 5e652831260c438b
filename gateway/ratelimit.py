"""The one limiter: at most so much in any period, for each key. Time is passed in, as monotonic seconds."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Hashable, Iterable
from math import inf
from typing import TypeVar

from gateway.quota import Rate

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
_KEYS = 10_000
_SLOTS = 60
_LIVE = _SLOTS + 1  # of them count at a time: the first and the last may be cut
_HOUR = 3600.0


def remember(table: dict[K, T], key: K, value: T, most: int = _KEYS) -> None:
    """Of more than ``most`` keys the least recently used one is forgotten."""
    table.pop(key, None)
    table[key] = value
    if len(table) > most:
        del table[next(iter(table))]


class Ring:
    """How much was spent in any ``period`` (seconds). Counts by sixtieths of it, so it is strict and small: what was
    spent may count a sixtieth longer than it had to. Asking and counting take the same time whatever was spent.
    """

    __slots__ = ("_at", "_slots", "_total", "period")

    def __init__(self, period: float) -> None:
        self.period = period
        self._at = 0
        self._slots = array("I", [0] * _LIVE)
        self._total = 0

    def used(self, now: float) -> int:
        """What counts at ``now`` (monotonic seconds)."""
        at = int(now * _SLOTS / self.period)
        if at > self._at:
            for slot in range(self._at + 1, min(at, self._at + _LIVE) + 1):
                self._total -= self._slots[slot % _LIVE]
                self._slots[slot % _LIVE] = 0
            self._at = at
        return self._total

    def add(self, amount: int, now: float) -> None:
        self.used(now)
        self._slots[self._at % _LIVE] += amount
        self._total += amount

    def give_back(self, amount: int, now: float) -> None:
        """It was not spent after all: of what was counted last."""
        self.used(now)
        for slot in range(self._at, self._at - _LIVE, -1):
            back = min(amount, self._slots[slot % _LIVE])
            self._slots[slot % _LIVE] -= back
            self._total -= back
            amount -= back

    def wait(self, amount: int, most: int, now: float) -> float:
        """Seconds until ``amount`` more are no more than ``most``: 0 for now, infinite for more than there ever is."""
        excess = self.used(now) + amount - most
        if excess <= 0:
            return 0.0
        for slot in range(self._at - _SLOTS, self._at + 1):
            excess -= self._slots[slot % _LIVE]
            if excess <= 0:
                return (slot + _LIVE) * self.period / _SLOTS - now
        return inf

    def spent(self, now: float) -> list[tuple[int, int]]:
        """How many sixtieths ago, and how much: for ``put_back``."""
        self.used(now)
        return [(ago, spent) for ago in range(_LIVE) if (spent := self._slots[(self._at - ago) % _LIVE])]

    def put_back(self, spent: Iterable[tuple[int, int]], passed: float, now: float) -> None:
        """What was spent of it, as it was ``passed`` seconds before ``now``."""
        self.used(now)
        later = int(passed * _SLOTS / self.period)
        for ago, amount in spent:
            if 0 <= ago + later < _LIVE:
                self._slots[(self._at - ago - later) % _LIVE] += amount
                self._total += amount


class RateWindow:
    """At most ``count`` events in any ``period``, for each key. The least recently used key is forgotten first."""

    def __init__(self) -> None:
        self.rings: dict[tuple[str, float], Ring] = {}  # by key and period

    def allow(self, key: str, rate: Rate, now: float) -> bool:
        """Count one event at ``now`` (monotonic seconds), unless that would exceed the rate."""
        period = rate.period.total_seconds()
        ring = self.rings.get((key, period)) or Ring(period)
        if allowed := ring.used(now) < rate.count:
            ring.add(1, now)
        remember(self.rings, (key, period), ring)
        return allowed

    def used(self, key: str, rate: Rate, now: float) -> int:
        """How many of them count at ``now`` (monotonic seconds). Counts nothing."""
        ring = self.rings.get((key, rate.period.total_seconds()))
        return ring.used(now) if ring else 0


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
