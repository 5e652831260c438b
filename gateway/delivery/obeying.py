"""What operators ordered of backends, here, at another instance, or before a restart: looked up, and obeyed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from gateway.clock import Clock
from gateway.delivery.breaker import CircuitBreaker
from gateway.model import SpoolTrouble, SpoolUnavailable
from gateway.spool import Spool
from gateway.spool.pauses import Ordered

_AGAIN = 1.0  # seconds


class Obeys(Protocol):
    """As a Worker does; of a backend that another instance works it is only known."""

    def pause(self, seconds: float | None, who: str = "", since: float | None = None) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Of a backend that another instance works, so that here it is shown and thought to rest."""

    breaker: CircuitBreaker
    clock: Clock

    def pause(self, seconds: float | None, who: str = "", since: float | None = None) -> None:
        self.breaker.pause(self.clock.monotonic(), seconds, who, since)

    def resume(self) -> None:
        self.breaker.close()


class Obeying:
    """``find`` gives whoever has to obey an order for a backend: None where there is no such backend. ``told`` is
    called with a backend that something was ordered of here, ``stir`` when what was ordered elsewhere is obeyed,
    ``see`` with all that was ordered, each time that is looked up."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        find: Callable[[str], Obeys | None],
        told: Callable[[str], None],
        stir: Callable[[], None] = lambda: None,
        see: Callable[[Collection[Ordered]], None] = lambda rows: None,
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._find = find
        self._told, self._stir, self._see = told, stir, see
        self._known: dict[str, int] = {}  # Ordered.asked, as last obeyed
        self._looking = asyncio.Lock()

    def asked(self, name: str) -> int | None:
        """Which order was obeyed or heard of last (Ordered.asked); None: none was asked for yet."""
        return self._known.get(name)

    def forget(self, name: str) -> None:
        """Who has to obey from now on has heard nothing yet."""
        self._known.pop(name, None)

    async def pause(self, name: str, seconds: float | None, who: str) -> None:
        """Rest by order of ``who``: at once, and after a restart, too. KeyError; raises SpoolTrouble."""
        obeys = self._found(name)
        if not isinstance(obeys, Elsewhere):
            obeys.pause(seconds, who)
        try:
            asked = await self._spool.pause(name, None if seconds is None else timedelta(seconds=seconds), who)
        except SpoolTrouble as trouble:
            if isinstance(obeys, Elsewhere):
                raise
            raise SpoolUnavailable(f"{name} is paused, but a restart would end that: {trouble.text}") from trouble
        if isinstance(obeys, Elsewhere):
            obeys.pause(seconds, who)
        self._done(name, asked)

    async def resume(self, name: str) -> None:
        """Withdraw that, and work. KeyError; raises SpoolTrouble."""
        obeys = self._found(name)
        if not isinstance(obeys, Elsewhere):
            obeys.resume()
        try:
            asked = await self._spool.resume(name)
        except SpoolTrouble as trouble:
            if isinstance(obeys, Elsewhere):
                raise
            text = f"{name} works again, but would be paused again after a restart: {trouble.text}"
            raise SpoolUnavailable(text) from trouble
        if isinstance(obeys, Elsewhere):
            obeys.resume()
        self._done(name, asked)

    def _found(self, name: str) -> Obeys:
        if (obeys := self._find(name)) is None:
            raise KeyError(name)
        return obeys

    def _done(self, name: str, asked: int) -> None:
        self._known[name] = max(asked, self._known.get(name, 0))
        self._told(name)

    async def look(self, names: Collection[str]) -> None:
        """Obey what was ordered of these since the last look. Raises SpoolTrouble."""
        async with self._looking:
            await self._look(names)

    async def know(self, name: str, wanted: Callable[[], bool]) -> None:
        """Return when what is in force for it is obeyed, or when that is not ``wanted`` any more."""
        while name not in self._known and wanted():
            try:
                async with self._looking:
                    if name not in self._known:
                        await self._look((name,))
            except SpoolTrouble:
                await self._clock.sleep(_AGAIN)

    async def _look(self, names: Collection[str]) -> None:
        found = {each.backend: each for each in await self._spool.ordered()}
        for name in names:
            if (obeys := self._find(name)) is None:
                continue
            known, ordered = self._known.get(name), found.get(name)
            asked = ordered.asked if ordered is not None else 0
            # What was ordered here meanwhile may be newer than what was read.
            self._known[name] = max(asked, known or 0)
            if ordered is not None and asked > (-1 if known is None else known):
                self._obey(obeys, ordered, anew=known is None)
                self._stir()
        self._see(found.values())

    def _obey(self, obeys: Obeys, ordered: Ordered, *, anew: bool) -> None:
        """``anew``: what was withdrawn or is over was never heard of."""
        now = self._spool.now()
        if ordered.holds(now):
            seconds = None if ordered.until is None else (ordered.until - now).total_seconds()
            obeys.pause(seconds, ordered.who, self._clock.monotonic() - (now - ordered.since).total_seconds())
        elif not anew:
            obeys.resume()
