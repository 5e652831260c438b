"""A mapping of bounded size: what was not used for longest is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most ``limit`` entries, except that those which are ``busy`` are never forgotten."""

    def __init__(self, limit: int, busy: Callable[[V], bool] = lambda _: False) -> None:
        self._limit = limit
        self._busy = busy
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        if (value := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> V:
        """``value``, which is the newest entry from now on."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if (surplus := len(self._entries) - self._limit) > 0:
            free = (old for old, held in self._entries.items() if old != key and not self._busy(held))
            for old in list(islice(free, surplus)):
                del self._entries[old]
        return value

    def values(self) -> Iterable[V]:
        return self._entries.values()
