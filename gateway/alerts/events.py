"""What is worth telling, taken from a snapshot: every problem, and what ends, at each of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.health.problems import ending, problems
from gateway.health.records import Snapshot

ENDS = "ends"
ONCE = frozenset(("clock_stepped", "bug"))  # they are over at once: nobody needs to hear that
# So long it must be gone to be over. Strangers begin and end it as they like: else each of their pauses is two alerts.
CALMER: Mapping[str, timedelta] = {"log_in_attack": timedelta(days=1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """``key`` stays the same as long as it lasts. ``group``: another of the same group takes its place without a word.

    The other fields are those of health.Problem.
    """

    key: str
    group: str
    kind: str
    severity: str
    what: str
    since: datetime | None
    cost: str
    fix: str
    said: str = ""
    backend: str = ""


def events_of(seen: Snapshot) -> list[Event]:
    """The worst first. What ends has a key for each step (30, 14, 7, 1 days, ended), so that each is told once."""
    found = [
        Event(
            key=one.key, group=one.key, kind=one.kind, severity=one.severity, what=one.what, since=one.since,
            cost=one.cost, fix=one.fix, said=one.said, backend=one.backend,
        )
        for one in problems(seen)
        if one.kind != ENDS
    ]  # fmt: skip
    for each in seen.ends:
        if (step := each.step(seen.now)) is not None:
            one, group = ending(each, seen.now), f"{ENDS}:{each.key}"
            found.append(
                Event(
                    key=f"{group}:{step}", group=group, kind=ENDS, severity=one.severity, what=one.what, since=None,
                    cost=one.cost, fix=one.fix, backend=one.backend,
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: one.severity != "bad")
