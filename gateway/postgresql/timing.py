"""The spool's time where several machines share it: that of the database, whatever their own clocks show."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.clock import Clock
from gateway.spool.steady import SpoolTime, Step

_NEAR = timedelta(milliseconds=100)  # as much as an answer may be late


class SharedTime(SpoolTime):
    """``now`` was the database's time a moment ago."""

    def __init__(self, clock: Clock, now: datetime) -> None:
        super().__init__(clock, None)
        self._base = (now, clock.monotonic())

    def told(self, now: datetime) -> None:
        """Again: this machine's time may run faster or slower, and stands still while it sleeps."""
        if abs(now - self.now()) > _NEAR:
            self._base = (now, self._clock.monotonic())

    def look(self) -> Step | None:
        """Only people want to know whether this machine's clock was set."""
        kept = self._base
        step = super().look()
        self._base, self.uncounted = kept, timedelta(0)
        return step

    def to_note(self) -> bool:
        return False
