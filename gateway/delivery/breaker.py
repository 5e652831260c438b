"""The circuit breaker of one backend: when it rests, until when, why, by whom, and what a person has to do about it.

Closed, it works. Open, it rests. Half open, the rest is over but nothing has succeeded since: one message at a time.
Pure state: time is passed in, as monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from gateway.model import Outcome, Scope, Verdict

FOREVER = float("inf")
OPERATOR = "operator"
MISCONFIGURED = "misconfigured"
# What opens it, the gravest first; first and longest rest in seconds, which a hint of the provider replaces.
_CAUSES = {
    Verdict.MISCONFIGURED: (MISCONFIGURED, 60.0, 900.0),
    Verdict.THROTTLED: ("throttled", 60.0, 900.0),
    Verdict.DEFERRED: ("unreachable", 15.0, 60.0),
}


class State(Enum):
    """Only a closed breaker lets the backend work at its full concurrency."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an attempt means for its backend and for the message.

    ``opened_by`` is the outcome by which this attempt opened the breaker; ``rest`` is how long to wait then.
    ``patient``: the message is not to blame, so the attempt does not count. ``answered``: the other side is there,
    and nothing is wrong with the backend.
    """

    opened_by: Outcome | None = None
    rest: timedelta = timedelta(0)
    patient: bool = False
    answered: bool = False


class CircuitBreaker:
    """``by`` is misconfigured, throttled, unreachable, operator, or "" while closed; ``until`` may be FOREVER."""

    def __init__(self) -> None:
        self.until = 0.0
        self.by = self.reason = self.fix = ""
        self._failures = 0  # probes in a row, the attempt that opened it counted
        self._waiting: set[str] = set()

    def state(self, now: float) -> State:
        if now < self.until:
            return State.OPEN
        return State.HALF_OPEN if self._failures else State.CLOSED

    def is_open(self, now: float) -> bool:
        return now < self.until

    def judge(self, message_id: str, outcomes: Mapping[str, Outcome], now: float) -> Ruling:
        """Open it where the outcomes call for that; closing is for the caller, who has messages to wake."""
        guilty = _cause(outcomes)
        if guilty is None:
            return Ruling(answered=any(map(_answered, outcomes.values())))
        late = self.is_open(now)  # was under way when it opened, and had no chance of its own
        by, first, longest = _CAUSES[guilty.verdict]
        self._failures += not late
        seconds = min(longest, first * (1 << min(max(self._failures - 1, 0), 10)))
        if guilty.retry_after is not None:
            seconds = max(first, guilty.retry_after.total_seconds())
        if self.by != OPERATOR:
            self.by, self.reason, self.fix = by, guilty.detail, guilty.fix
            self.until = max(self.until, now + seconds)
        if late or by == MISCONFIGURED:
            self._waiting.add(message_id)
        patient = late or guilty.verdict is not Verdict.DEFERRED
        return Ruling(None if late else guilty, timedelta(seconds=seconds), patient)

    def pause(self, now: float, seconds: float | None) -> None:
        """Open by order, for so long or until it is closed by order."""
        self.by, self.reason, self.fix = OPERATOR, "paused by the operator", ""
        self.until = FOREVER if seconds is None else now + seconds

    def close(self) -> tuple[str, ...]:
        """Back to work; returns the ids of the messages that only waited for the backend."""
        waiting = tuple(sorted(self._waiting))
        self._waiting.clear()
        self.until, self._failures = 0.0, 0
        self.by = self.reason = self.fix = ""
        return waiting


def _cause(outcomes: Mapping[str, Outcome]) -> Outcome | None:
    """The gravest outcome about the backend as a whole, of several the one with the longest hint; None for none."""
    for verdict in _CAUSES:
        found = [one for one in outcomes.values() if one.verdict is verdict and one.scope is Scope.BACKEND]
        if found:
            return max(found, key=lambda outcome: outcome.retry_after or timedelta(0))
    return None


def _answered(outcome: Outcome) -> bool:
    """Words of the other side; what we made up about a message proves nothing."""
    return outcome.verdict is Verdict.SENT or (outcome.said_by != "gateway" and outcome.verdict is not Verdict.IN_DOUBT)
