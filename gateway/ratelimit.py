"""The one limiter: at most so much in any period, for each key. Time is passed in, as monotonic seconds."""

from __future__ import annotations

from collections import deque

from gateway.model import Rate

_KEYS = 10_000
_SLOTS = 60


class RateWindow:
    """At most ``count`` events in any ``period``, for each key. Counts by sixtieths of the period, so it is strict and
    small: a refusal may last a sixtieth longer than it had to. The least recently used key is forgotten first.
    """

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, int]] = {}

    def allow(self, key: str, rate: Rate, now: float) -> bool:
        """Count one event at ``now`` (monotonic seconds), unless that would exceed the rate."""
        current = int(now * _SLOTS / rate.period.total_seconds())
        slots = {slot: n for slot, n in self._slots.pop(key, {}).items() if slot >= current - _SLOTS}
        allowed = sum(slots.values()) < rate.count
        if allowed:
            slots[current] = slots.get(current, 0) + 1
        self._slots[key] = slots
        if len(self._slots) > _KEYS:
            del self._slots[next(iter(self._slots))]
        return allowed


class Budget:
    """At most ``amount`` in any ``period`` seconds; what costs more than that goes when nothing else did."""

    def __init__(self, amount: float, period: float) -> None:
        self._amount = amount
        self._period = period
        self._spent: deque[tuple[float, float]] = deque()  # when, how much

    def wait(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` may be spent; 0 for now."""
        while self._spent and self._spent[0][0] <= now - self._period:
            self._spent.popleft()
        excess = sum(spent for _, spent in self._spent) + cost - self._amount
        free = now
        for when, spent in self._spent:
            if excess <= 0:
                break
            excess -= spent
            free = when + self._period
        return free - now

    def spend(self, cost: float, now: float) -> None:
        self._spent.append((now, cost))
