"""Which instance works which backend: the same answer for all who see the same.

A free backend goes to who has the fewest of those that may work it. One is given back where another has two less: so
shares differ by one at most, and nothing moves to and fro.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass


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
    while move := _next(has, works, able):
        backend, to = move
        has[works[backend]] -= 1
        has[to] += 1
        works[backend] = to
    mine = sorted(backend for backend, holder in held.items() if holder == me)
    return Shares(
        take=tuple(sorted(backend for backend, to in works.items() if to == me and backend not in held)),
        give=tuple(backend for backend in mine if me in able.get(backend, ()) and works[backend] != me),
        leave=tuple(backend for backend in mine if me not in able.get(backend, ())),
    )


def _next(has: Counter[str], works: Mapping[str, str], able: Mapping[str, list[str]]) -> tuple[str, str] | None:
    """The move that evens out most: a backend, and who is to work it."""
    moves = [
        (has[to] - has[holder], backend, to)
        for backend, holder in works.items()
        for to in able[backend]
        if has[holder] - has[to] > 1
    ]
    return min(moves)[1:] if moves else None
