"""Instances that share the spool: what becomes of what one that is over had under way, and of what nobody has in hand.

Where there is only one (SQLite) none is written down, and all attempts are its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from gateway.clock import Clock
from gateway.spool import changes, pauses, wishes
from gateway.spool.ordering import Ordering
from gateway.spool.records import micros
from gateway.spool.transaction import AttemptId, Transaction

# Who commits just now lives; and so does who has beaten since somebody took him for dead.
_DEAD = "SELECT name FROM instance WHERE name = :name AND beats = :beats @lock @skip"
_GONE = "DELETE FROM instance WHERE name = :name"
_INSTANCES = "SELECT name, backends FROM instance ORDER BY name"
# What is under way is due when its claim ends: later than now, or it is claimed again without this.
_OPEN = """
SELECT message_id, backend, attempt_id FROM delivery
WHERE backend @in(:backends) AND state = 'queued' AND next_attempt_at > :now AND attempt_id IS NOT NULL
    AND owner = :owner
UNION ALL SELECT message_id, backend, attempt_id FROM delivery
WHERE attempt_id IS NOT NULL AND state <> 'queued' AND owner = :owner"""
_PATIENCE = 60.0  # seconds: what is claimed is in somebody's hand long before that


def bury(tx: Transaction, name: str, beats: int) -> int | None:
    """The instance is over: what it had under way is interrupted; returns how much. None where it lives after all, or
    somebody else has buried it."""
    if not tx.all(_DEAD, name=name, beats=beats):
        return None
    tx.all(_GONE, name=name)
    keys = changes.break_off(tx, name)
    tx.woken.update(backend for _, backend in keys)
    return len(keys)


def _names(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in json.loads(text))
    except (TypeError, ValueError):
        return ()


@dataclass(slots=True)
class Strays:
    """Attempts that nobody has in hand, by how long we have seen them so."""

    clock: Clock
    _since: dict[AttemptId, float] = field(default_factory=dict)

    def look(self, attempts: Iterable[AttemptId], in_hand: Collection[int]) -> list[AttemptId]:
        """Those of these that were never begun, or whose end could not be written down."""
        now = self.clock.monotonic()
        self._since = {each: self._since.get(each, now) for each in attempts if each[2] not in in_hand}
        return [each for each, since in self._since.items() if now - since >= _PATIENCE]


@dataclass(eq=False, repr=False)
class Sharing(Ordering):
    """What an instance asks of the spool because of the others, and of itself."""

    async def bury(self, name: str, beats: int) -> int | None:
        """Interrupt what a dead instance had under way, which had beaten so often; returns how much that was, None
        where it lives. Raises SpoolTrouble."""
        return await self._writer.submit(partial(bury, name=name, beats=beats), late=True)

    async def living(self) -> dict[str, tuple[str, ...]]:
        """Instances, and what each could work; none where there is only this one."""
        return {row["name"]: _names(row["backends"]) for row in await self._ask(_INSTANCES)}

    async def ordered(self) -> list[pauses.Ordered]:
        """What was ordered last of each backend. Raises SpoolTrouble."""
        return [pauses.ordered(row) for row in await self._ask(pauses.ALL)]

    async def pause(self, backend: str, lasts: timedelta | None, who: str) -> int:
        """Keep that it has to rest; returns Ordered.asked. Raises SpoolTrouble."""
        return await self._writer.submit(partial(pauses.pause, backend=backend, lasts=lasts, who=who))

    async def resume(self, backend: str) -> int:
        """Withdraw that; returns Ordered.asked. Raises SpoolTrouble."""
        return await self._writer.submit(partial(pauses.resume, backend=backend))

    async def stand(self, texts: Mapping[str, str]) -> None:
        """Keep how backends that are worked here stand, for the other instances. Raises SpoolTrouble."""
        await self._writer.submit(partial(pauses.stand, texts=texts), late=True)

    async def want(self, backend: str, what: str, who: str) -> int:
        """Keep that it is to be looked at by who works it; returns Wish.number, 0 where nobody has it."""
        return await self._writer.submit(partial(wishes.want, backend=backend, what=what, who=who))

    async def wish(self, backend: str) -> wishes.Wish | None:
        """What was wished for last, done or not. Raises SpoolTrouble."""
        rows = await self._ask(wishes.ONE, name=backend)
        return wishes.read(rows[0]["wanted"]) if rows else None

    async def wish_done(self, backend: str, number: int, found: Mapping[str, Any]) -> wishes.Wish | None:
        """Keep what came of it; returns what is to be done next. Raises SpoolTrouble."""
        return await self._writer.submit(partial(wishes.done, backend=backend, number=number, found=found))

    @property
    def shared(self) -> bool:
        """Whether other instances may work on it, too."""
        return self._engine.shared

    async def take_back(self, strays: Strays, in_hand: Callable[[], Collection[int]]) -> int:
        """Give back what was claimed here and is in nobody's hand (numbers of attempts) for a minute; returns how much.

        A claim whose giving back was refused would stay so, its owner living. Raises SpoolTrouble.
        """
        backends = sorted({backend for backend, _ in self._engine.counts()})
        given = {"backends": backends, "now": micros(self._time.now()), "owner": self._engine.owner}
        rows = await self._ask(_OPEN, **given)
        found = [(row["message_id"], row["backend"], row["attempt_id"]) for row in rows]
        if left := strays.look(found, in_hand()):
            await self._writer.submit(lambda tx: None)  # a claim whose answer was late is in somebody's hand now
            left = [each for each in left if each[2] not in in_hand()]
            await self._writer.submit(partial(changes.give_back, attempts=left))
        return len(left)
