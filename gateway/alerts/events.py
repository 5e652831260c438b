"""What is worth telling, taken from a snapshot: every problem, and what ends, at each of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from gateway.health.problem import Problem
from gateway.health.problems import ending, problems
from gateway.health.records import Snapshot

ENDS = "ends"
ONCE = frozenset(("clock_stepped", "bug"))  # they are over at once: nobody needs to hear that
# So long it must be gone to be over. Strangers begin and end it as they like: else each of their pauses is two alerts.
CALMER: Mapping[str, timedelta] = {"log_in_attack": timedelta(days=1), "over_quota": timedelta(hours=1)}


@dataclass(frozen=True, slots=True)
class Event:
    """``key`` stays the same as long as it lasts; another of the same ``group`` takes its place without a word."""

    key: str
    group: str
    problem: Problem


def events_of(seen: Snapshot) -> list[Event]:
    """The worst first. What ends has a key for each step (30, 14, 7, 1 days, ended), so that each is told once."""
    found = [Event(one.key, one.key, one) for one in problems(seen) if one.kind != ENDS]
    for each in seen.ends:
        if (step := each.step(seen.now)) is not None:
            one = ending(each, seen.now)
            found.append(Event(f"{one.key}:{step}", one.key, one))
    return sorted(found, key=lambda event: event.problem.severity != "bad")
