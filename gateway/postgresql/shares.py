"""Which instance works which backend: the same answer for all who see the same.

A free backend goes to who has the fewest of those that may work it. One is given back where another has two less: so
shares differ by one at most, and nothing moves to and fro.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(frozen=True, slots=True)
class Shares:
    """``take`` is free and for us, ``give`` is ours and for others; ``leave`` is ours, and we could not work it."""

    take: tuple[str, ...]
    give: tuple[str, ...]
    leave: tuple[str, ...]


def share(me: str, held: Mapping[str, str], may: Mapping[str, Collection[str]]) -> Shares:
    """``held``: who works what. ``may``: for each instance that lives, what it could work."""
    able: dict[str, list[str]] = {}
    for instance in sorted(may):
        for backend in sorted(may[instance]):
            able.setdefault(backend, []).append(instance)
    works = {backend: holder for backend, holder in held.items() if holder in able.get(backend, ())}
    has = Counter(works.values())
    for backend in sorted(able.keys() - works.keys(), key=lambda name: (len(able[name]), name)):
        works[backend] = min(able[backend], key=lambda instance: (has[instance], instance))
        has[works[backend]] += 1
    alike: _Alike = defaultdict(list)
    for backend in sorted(works):
        alike[works[backend], tuple(able[backend])].append(backend)  # sorted, so a heap
    while move := _next(has, alike):
        _, backend, to, holder, who = move
        heappush(alike[to, who], heappop(alike[holder, who]))
        has[holder] -= 1
        has[to] += 1
        works[backend] = to
    mine = sorted(backend for backend, holder in held.items() if holder == me)
    return Shares(
        take=tuple(sorted(backend for backend, to in works.items() if to == me and backend not in held)),
        give=tuple(backend for backend in mine if me in able.get(backend, ()) and works[backend] != me),
        leave=tuple(backend for backend in mine if me not in able.get(backend, ())),
    )


# Backends that the same one works and the same could work: of these the first goes first. There may be many of them.
_Alike = dict[tuple[str, tuple[str, ...]], list[str]]


def _next(has: Counter[str], alike: _Alike) -> tuple[int, str, str, str, tuple[str, ...]] | None:
    """The move that evens out most: by how much, a backend, who is to work it, who does, and who could."""
    return min(
        (
            (has[to] - has[holder], backends[0], to, holder, who)
            for (holder, who), backends in alike.items()
            if backends
            for to in who
            if has[holder] - has[to] > 1
        ),
        default=None,
    )
