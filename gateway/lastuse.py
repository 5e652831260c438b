"""When clients, tokens and device passwords were last of use, and from where: in memory, written down now and then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from gateway.ratelimit import remember

# client: mail was accepted from it; password, token: let somebody in; revoked: a revoked token was tried again.
Kind = Literal["client", "password", "token", "revoked"]
_WEEK = 0b111_1111
_MONTH = (1 << 31) - 1
_OFTEN = 5  # of seven days: who sends on working days sends daily


@dataclass(frozen=True, slots=True)
class Use:
    """``at`` is the last time, ``peer`` from where; bit n of ``days``: also n days before that day (UTC)."""

    at: datetime
    peer: str
    days: int = 1

    @property
    def daily(self) -> bool:
        """Whether it came day by day, until it came no more."""
        return (self.days & _WEEK).bit_count() >= _OFTEN


def joined(one: Use, other: Use) -> Use:
    earlier, later = sorted((one, other), key=lambda use: use.at)
    gap = later.at.toordinal() - earlier.at.toordinal()
    days = (later.days | earlier.days << gap) & _MONTH if gap < 31 else later.days
    return Use(later.at, later.peer, days)


class LastUse:
    """Noting costs one look into a dict, so it may stand where mail is accepted. Of too many names (other issuers'
    tokens) those least recently of use are forgotten."""

    def __init__(self, known: Iterable[tuple[Kind, str, Use]] = ()) -> None:
        self._last: dict[Kind, dict[str, Use]] = {kind: {} for kind in get_args(Kind)}
        self._fresh: set[tuple[Kind, str]] = set()
        self.learn(known)

    def learn(self, known: Iterable[tuple[Kind, str, Use]]) -> None:
        """What was noted elsewhere, too: the later time counts, and the days of both."""
        for kind, name, use in known:
            if kind in self._last:  # a later version may know more kinds
                mine = self._last[kind].get(name)
                remember(self._last[kind], name, joined(mine, use) if mine else use)

    def note(self, kind: Kind, name: str, at: datetime, peer: str) -> None:
        known, days = self._last[kind], 1
        if (before := known.get(name)) is not None:
            passed = at.toordinal() - before.at.toordinal()
            days = (before.days << max(passed, 0) | 1) & _MONTH if passed < 31 else 1
        remember(known, name, Use(at, peer, days))
        self._fresh.add((kind, name))

    def of(self, kind: Kind, name: str) -> Use | None:
        return self._last[kind].get(name)

    def take(self) -> list[tuple[Kind, str, Use]]:
        """What is new since this was last asked."""
        fresh, self._fresh = self._fresh, set()
        return [(kind, name, use) for kind, name in sorted(fresh) if (use := self._last[kind].get(name))]

    def give_back(self, taken: Iterable[tuple[Kind, str, Use]]) -> None:
        """It could not be written: it is new still."""
        self._fresh.update((kind, name) for kind, name, _ in taken)
