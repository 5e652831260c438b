"""What the clocks show, written down: for the next run to go on from, and for people to see when they were set.

What waits has waited also while nobody looked, though it has not grown old by it.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from datetime import timedelta

from gateway.events import Events
from gateway.model import SpoolTrouble
from gateway.spool.records import micros
from gateway.spool.sql import UNDER_WAY
from gateway.spool.steady import SpoolTime, Step
from gateway.spool.transaction import Transaction
from gateway.spool.writer import Writer

_MICROSECOND = timedelta(microseconds=1)
_KEPT = 100  # steps: a clock that is set all day long must not fill the disk
_NOTE = """
INSERT INTO clock (id, spool_at, wall_at) VALUES (1, :spool, :wall)
ON CONFLICT (id) DO UPDATE SET spool_at = :spool, wall_at = :wall"""
_STEP = """
INSERT INTO step (spool_at, was_at, now_at, attempt_id)
VALUES (:spool, :was, :now, :attempt)"""
# Never before the time that the machine's clock says: a provider's hint and the pause of a retry are obeyed.
_SOONER = (
    f"""UPDATE delivery SET next_attempt_at = @greatest(:now, next_attempt_at - :by)
WHERE state = 'queued' AND next_attempt_at > :now AND NOT {UNDER_WAY}""",
    "UPDATE poll SET next_at = @greatest(:now, next_at - :by) WHERE next_at > :now",
    "UPDATE backend SET paused_since = paused_since - :by, paused_until = paused_until - :by WHERE paused",
)


class Keeper:
    """Looks at the machine's clock."""

    def __init__(self, time: SpoolTime, writer: Writer, events: Events) -> None:
        self._time = time
        self._writer = writer
        self._events = events

    async def look(self, *, last: bool = False) -> None:
        """Whether it was set; now and then, and at the ``last`` look of a run, what is seen is written down."""
        if step := self._time.look():
            self._events.clock_stepped(step.was, step.now)
        uncounted, self._time.uncounted = self._time.uncounted, timedelta(0)
        if step or uncounted or last or self._time.to_note():
            try:
                await self._writer.submit(lambda tx: _note(tx, step, uncounted // _MICROSECOND), late=True)
            except SpoolTrouble:  # a full disk: at the next time
                self._time.uncounted += uncounted


def _note(tx: Transaction, step: Step | None, uncounted: int) -> None:
    """What time it is, that the machine's clock was set, and that what waits is due so much sooner (microseconds)."""
    for statement in _SOONER if uncounted else ():
        tx.all(statement, now=tx.now, by=uncounted)
    tx.all(_NOTE, spool=tx.now, wall=tx.wall)
    if step:
        last = next(tx.attempt_ids)  # of nobody: all that are under way have smaller ones
        tx.all(_STEP, spool=tx.now, was=micros(step.was), now=micros(step.now), attempt=last)
        tx.all("DELETE FROM step WHERE id <= (SELECT max(id) FROM step) - :kept", kept=_KEPT)
