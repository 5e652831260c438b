"""What needs somebody after mail was handed over: reports that cannot be read, addresses that take none any more."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.health.problem import Problem
from gateway.health.records import Snapshot
from gateway.health.words import number

_SHOWN = 10  # addresses; whoever has more looks at the reason, not at each


def unread(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.unread:
        fix = " ".join(one.fix.split()) or "See what is wrong, and try again"
        yield Problem(
            key=f"returns:{one.backend}", kind="returns_unread", severity="warn", since=one.since, said=one.said,
            backend=one.backend, what=f"{one.backend} cannot look for mail that came back.",
            cost="Mail is sent all the same. What comes back meanwhile is seen only later.",
            fix=f"{fix[:1].upper()}{fix[1:]}.",
        )  # fmt: skip


def addresses(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.dead[:_SHOWN]:
        yield Problem(
            key=f"dead:{one.address}", kind="address_dead", severity="warn", since=one.since, said=one.said,
            backend=one.backend, what=f"{number(one.count, 'message')} to {one.address} came back.",
            cost="The provider takes such mail, but nobody gets it. Too much of it costs you your reputation.",
            fix=f"Correct or remove the address where it is kept: gateway trace {one.address}",
        )  # fmt: skip
