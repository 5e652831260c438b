"""All that was seen, by listener and address: bounded, and never crowded out by strangers of the Internet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any

from gateway.clock import Clock
from gateway.learn.seen import Seen
from gateway.networks import neighbour, plain_address

PLACES = 600  # addresses told apart, by listener ...
STRANGERS = 200  # ... of these public ones
_TOGETHER = 16  # ... and of one /64 of IPv6, where a host has as many addresses as it likes
_FORMAT = 1
_TURN = 20  # entries written before others get their turn


class Book:
    """``others`` counts connections of addresses for which there was no place."""

    def __init__(self) -> None:
        self.others = 0
        self._seen: dict[tuple[str, str], Seen] = {}
        self._written: dict[tuple[str, str], str] = {}
        self._public = 0
        self._together: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def all(self) -> list[Seen]:
        return list(self._seen.values())

    @property
    def changed(self) -> bool:
        """Whether there is more than was written last."""
        return any(seen.changed for seen in self._seen.values())

    def of(self, listener: str, peer: str, at: datetime) -> Seen | None:
        """What is kept of this address; None: there is no place for it."""
        return self._seen.get((listener, peer)) or self._place(Seen(listener, peer, at))

    def _place(self, seen: Seen) -> Seen | None:
        public, near = is_public_peer(seen.peer), neighbour(seen.peer)
        crowd = self._together.get(near, 0) if _is_six(seen.peer) else 0
        if len(self._seen) >= PLACES or (public and self._public >= STRANGERS) or crowd >= _TOGETHER:
            return None
        self._public += public
        if _is_six(seen.peer):
            self._together[near] = crowd + 1
        self._seen[seen.listener, seen.peer] = seen
        return seen

    async def written(self, clock: Clock, run: str) -> str:
        """All of it as JSON, beside ``run``, which is JSON already. Others get their turn meanwhile."""
        for number, (key, seen) in enumerate(list(self._seen.items())):
            if seen.changed:
                seen.changed = False
                self._written[key] = json.dumps(seen.plain(), ensure_ascii=False)
            if number % _TURN == _TURN - 1:
                await clock.sleep(0)
        entries = ",\n".join(self._written.values())
        return f'{{"format": {_FORMAT}, "run": {run}, "others": {self.others}, "seen": [\n{entries}\n]}}\n'

    @classmethod
    def of_file(cls, found: Mapping[str, Any]) -> Book:
        """Raises ValueError for what ``written`` did not write."""
        book = cls()
        try:
            if found["format"] != _FORMAT:
                raise ValueError(f"format {found['format']} is not known here")
            book.others = int(found["others"])
            for one in found["seen"]:
                book._place(Seen.of(one))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"it is damaged: {error!r}") from None
        return book


def _is_six(peer: str) -> bool:
    try:
        return isinstance(plain_address(peer), IPv6Address)
    except ValueError:
        return False


def is_public_peer(peer: str) -> bool:
    """Whether somebody of the Internet has this address."""
    try:
        return plain_address(peer).is_global
    except ValueError:
        return False


def as_json(all_seen: Iterable[Seen]) -> list[dict[str, Any]]:
    return [one.plain() for one in all_seen]
