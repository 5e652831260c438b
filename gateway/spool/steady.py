"""The spool's own time: it goes on as time does, whatever the machine's clock is set to.

What falls due, what grows too old and what has been kept long enough goes by it. Between two runs it goes on by what
the machine's clock says has passed, but never back, and by an hour at most: a machine without a battery for its clock
wakes up in any year, and mail grows old only while it could have been tried. What waits for a time does not wait the
longer for that: it becomes due as much earlier as was not counted (keeper).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from gateway.clock import Clock

STEP = timedelta(seconds=5)  # less is drift that is being corrected (NTP slews), or a leap second
UNSEEN = timedelta(hours=1)  # as much of a time when nobody worked counts
_INSTANT = 1.0  # seconds
_NONE = timedelta(0)
_EVERY = 300.0  # seconds: a crash and a dead battery together cost as much


@dataclass(frozen=True, slots=True)
class Seen:
    """What both clocks showed at one moment."""

    spool: datetime
    wall: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """The machine's clock was set: what it would have shown, and what it showed."""

    was: datetime
    now: datetime

    @property
    def size(self) -> timedelta:
        """Below zero: back."""
        return self.now - self.was


class SpoolTime:
    """``last`` is what was seen last in the run before, None at the first. ``now`` may be called from any thread.

    ``last_used`` is when that was, "" for never: who finds another year there has a wrong clock. ``uncounted`` is how
    much time passed, as the clocks say, that mail does not grow old by; for the caller to make nothing again.
    """

    def __init__(self, clock: Clock, last: Seen | None) -> None:
        self._clock = clock
        self._up, self._wall, since = clock.uptime(), clock.now(), clock.monotonic()
        self.unseen = self._wall - last.wall if last else _NONE
        self.last_used = last.wall.isoformat(timespec="seconds") if last else ""
        self._noted = -inf
        counted = min(max(self.unseen, _NONE), UNSEEN)
        self.uncounted = max(self.unseen, _NONE) - counted
        self._base = (last.spool + counted if last else self._wall, since)

    def now(self) -> datetime:
        start, since = self._base
        return start + timedelta(seconds=self._clock.monotonic() - since)

    def shift(self) -> int:
        """Microseconds to be added to a time of the spool for what the machine's clock shows then."""
        return (self._clock.now() - self.now()) // timedelta(microseconds=1)

    def seen(self) -> Seen:
        return Seen(self.now(), self._clock.now())

    def look(self) -> Step | None:
        """Whether the machine's clock was set since the last look; time that the machine slept through is none."""
        clock, unseen = self._clock, self.unseen
        up, wall, mono = clock.uptime(), clock.now(), clock.monotonic()
        if clock.uptime() - up > _INSTANT:
            return None  # stopped between two readings: they are not of one moment
        start, since = self._base
        slept = timedelta(seconds=(up - self._up) - (mono - since))
        slept = slept if slept >= STEP else _NONE
        counted = min(slept, UNSEEN)
        self._base = (start + timedelta(seconds=mono - since) + counted, mono)
        self.uncounted += slept - counted
        expected = self._wall + timedelta(seconds=up - self._up)
        self._up, self._wall, self.unseen = up, wall, _NONE
        if unseen <= -STEP:  # nothing runs backwards while the service is down
            return Step(wall - unseen, wall)
        return Step(expected, wall) if abs(wall - expected) >= STEP else None

    def to_note(self) -> bool:
        """Whether it is time to write down what time it is, for the next run."""
        if late := self._clock.monotonic() - self._noted >= _EVERY:
            self._noted = self._clock.monotonic()
        return late
