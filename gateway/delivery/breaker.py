"""A lane's rest: why it pauses, until when, and how the interval grows. Pure state, time is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.delivery.retry import unreachable
from gateway.model import Outcome, Verdict

# First and longest interval between probes, in seconds. A hint of the provider replaces it, up to a day.
INTERVALS = {"unreachable": (15.0, 60.0), "throttled": (60.0, 900.0), "misconfigured": (60.0, 900.0)}
FOREVER = float("inf")


def blame(outcomes: Mapping[str, Outcome]) -> tuple[str, Outcome] | None:
    """The strongest reason among the outcomes to rest the whole backend, or None."""
    for reason, applies in (
        ("misconfigured", lambda o: o.verdict is Verdict.MISCONFIGURED),
        ("throttled", lambda o: o.verdict is Verdict.THROTTLED),
        ("unreachable", unreachable),
    ):
        guilty = [outcome for outcome in outcomes.values() if applies(outcome)]
        if guilty:
            return reason, max(guilty, key=lambda o: o.retry_after or timedelta(0))
    return None


@dataclass(slots=True)
class Pause:
    """Until when (monotonic seconds) the lane rests, by whom and why; ``strikes`` counts failed probes in a row."""

    until: float = 0.0
    by: str = ""
    reason: str = ""
    strikes: int = 0
    followers: set[str] = field(default_factory=set)

    def resting(self, now: float) -> bool:
        return now < self.until

    def strike(self, by: str, outcome: Outcome, now: float) -> float:
        """Rest because of this outcome; returns the seconds. Attempts already under way do not count twice."""
        first, longest = INTERVALS[by]
        if not self.resting(now):
            self.strikes += 1
        seconds = min(longest, first * 2 ** min(self.strikes - 1, 10)) if self.strikes else first
        if outcome.retry_after is not None:
            seconds = max(first, outcome.retry_after.total_seconds())
        if self.by != "operator":
            self.by, self.reason = by, outcome.detail
            self.until = max(self.until, now + seconds)
        return seconds

    def by_operator(self, now: float, seconds: float | None) -> None:
        self.by, self.reason = "operator", "paused by the operator"
        self.until = FOREVER if seconds is None else now + seconds

    def clear(self) -> set[str]:
        """Back to work; returns the messages that only waited for the backend."""
        followers, self.followers = self.followers, set()
        self.until, self.by, self.reason, self.strikes = 0.0, "", "", 0
        return followers

    @property
    def probing(self) -> bool:
        """The rest is over but nothing has succeeded yet: one message at a time."""
        return self.strikes > 0
