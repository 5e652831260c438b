"""What needs somebody because of those who send."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.health.problem import Problem
from gateway.health.records import Snapshot
from gateway.health.words import number


def over_quota(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.storms:
        name, whom = one.client, ", ".join(one.who)
        held = f" {number(one.held, 'message')} {'is' if one.held == 1 else 'are'} held." if one.held else ""
        yield Problem(
            key=f"over_quota:{name}", kind="over_quota", severity="warn", since=one.since,
            what=f"{name} sends more than its quota: {number(one.count, 'time')} too many.{held}",
            cost="What is too many is not sent. Mail of other clients goes on, and what was sent before has left.",
            fix=_look(name, held=one.held > 0),
            said=f"{one.why}; most of them from {whom}" if whom else one.why,
        )  # fmt: skip


def _look(name: str, *, held: bool) -> str:
    these = f"--client {name}" + " --state held" * held
    look = f"See what it is, a loop or an infected machine perhaps: gateway queue list {these}"
    decide = f"; to send it: gateway queue release {these} --yes, or: gateway queue delete {these} --yes"
    return look + decide * held


def log_ins(seen: Snapshot) -> Iterator[Problem]:
    if one := seen.log_ins:
        whom = ", ".join(one.where)
        yield Problem(
            key="log_ins", kind="log_in_attack", severity="warn", since=one.since,
            what=f"{number(one.count, 'log-in')} were refused within 10 minutes.",
            cost="Who guesses is slowed down. Nobody else is kept out, and no mail is lost.",
            fix="See who it is: gateway refused. A device of yours has a wrong password; else block the address.",
            said=f"most of them from {whom}" if whom else "",
        )  # fmt: skip
