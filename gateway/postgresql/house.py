"""What one instance does for all: bury the dead. Who is dead is told by counting beats, never by comparing clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gateway.events import Events
from gateway.model import SpoolTrouble
from gateway.postgresql import seats
from gateway.postgresql.seats import Peer
from gateway.postgresql.session import Session


@dataclass(slots=True)
class Pulses:
    """How long the beats of others have stood still, by our own monotonic seconds while our session stood."""

    grace: float
    _seen: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def look(self, peers: Iterable[Peer], now: float) -> list[Peer]:
        """Those whose session is over and who have not been heard of for ``grace``."""
        dead, seen = [], {}
        for peer in peers:
            started, beats, since = self._seen.get(peer.name, (0, -1, now))
            if peer.lives or (started, beats) != (peer.started_at, peer.beats):
                since = now
            elif now - since >= self.grace:
                dead.append(peer)
            seen[peer.name] = (peer.started_at, peer.beats, since)
        self._seen = seen
        return dead

    def forget(self) -> None:
        """We saw nothing for a while: nobody is the older for that."""
        self._seen.clear()


class House:
    """``kept``: it is ours to keep. ``bury`` is Member's."""

    def __init__(self, grace: float, bury: Callable[[str, int], Awaitable[int | None]], events: Events) -> None:
        self.kept = False
        self._pulses = Pulses(grace)
        self._bury = bury
        self._events = events
        self._burying: asyncio.Task[None] | None = None

    async def look(self, session: Session, others: Sequence[Peer], now: float, *, wanted: bool) -> None:
        """``wanted``: keep it if nobody else does."""
        if wanted and not self.kept:
            self.kept = await seats.lock(session, seats.HOUSE, 0)
        elif self.kept and not wanted:
            self.kept = False
            await seats.unlock(session, seats.HOUSE, 0)
        dead = self._pulses.look(others, now)
        if dead and self.kept and (self._burying is None or self._burying.done()):
            self._burying = asyncio.create_task(self._bury_all(dead), name="member.bury")

    def lost(self) -> None:
        self.kept = False
        self._pulses.forget()

    async def aclose(self) -> None:
        if self._burying is not None:
            await asyncio.wait({self._burying})

    async def _bury_all(self, dead: Sequence[Peer]) -> None:
        for peer in dead:
            try:
                interrupted = await self._bury(peer.name, peer.beats)
            except SpoolTrouble:  # with the next beat
                return
            except Exception as error:
                self._events.bug("member.bury", error)
                return
            if interrupted is not None:
                self._events.warning("instance_buried", instance=peer.name, interrupted=interrupted)
