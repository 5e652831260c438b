"""Keeps when backends did not work, for who asks later what a message waited for. Looked at now and then, not when it
happens: what is over sooner made nobody wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from gateway.clock import Clock
from gateway.delivery.breaker import CircuitBreaker, State
from gateway.delivery.ownership import Ownership
from gateway.spool import RestRow, Spool


class Rests:
    """``look`` raises SpoolTrouble; what it could not write it writes at the next look. Of backends that another
    instance works that one keeps it."""

    def __init__(self, spool: Spool, clock: Clock, own: Ownership) -> None:
        self._spool = spool
        self._clock = clock
        self._own = own
        self._mine: set[str] = set()
        self._known: dict[str, tuple[str, float]] = {}  # cause and beginning by backend
        self._anew = True

    async def look(self, breakers: Mapping[str, CircuitBreaker]) -> None:
        now, wall = self._clock.monotonic(), self._clock.now()
        mine = {name for name in breakers if self._own.owns(name)}
        resting = {name: one for name, one in breakers.items() if name in mine and one.state(now) is not State.CLOSED}
        seen = {name: (one.by, one.since) for name, one in resting.items()}
        began = [
            RestRow(
                name, wall - timedelta(seconds=now - one.since), None, one.by, one.who,
                "" if one.who else one.reason, one.fix,
            )
            for name, one in resting.items()
            if self._known.get(name) != seen[name]
        ]  # fmt: skip
        over = {name for name, what in self._known.items() if seen.get(name) != what}
        # Who works it now ends what another one left open; he may have begun anew since.
        ended = sorted((over & mine) | (over - breakers.keys()) | (mine - self._mine))
        if began or ended or self._anew:
            await self._spool.rested(began, ended, anew=self._anew)
        self._known, self._mine, self._anew = seen, mine, False
