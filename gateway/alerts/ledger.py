"""Who has been told what: each event once by each way, and once that it is over. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gateway.alerts.events import CALMER, ONCE, Event

CALM = timedelta(minutes=2)  # so long an event must be gone, or it comes and goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event with its history. ``owed`` maps a way to "new" or "over", what it has still to say.

    ``told`` are the ways that said "new". ``gone`` is since when it is not seen, ``over_at`` when that was the end.
    """

    event: Event
    first: datetime
    due: bool = False
    gone: datetime | None = None
    over_at: datetime | None = None
    owed: Mapping[str, str]
    told: tuple[str, ...] = ()


class Ledger:
    """``entries`` are what was known before, by key. Each method returns the entries that changed."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.event.key: entry for entry in entries}

    @property
    def entries(self) -> Sequence[Entry]:
        """The newest first."""
        return sorted(self._entries.values(), key=lambda entry: entry.first, reverse=True)

    def open(self, key: str) -> bool:
        """Whether it is known, and not over."""
        return key in self._entries and self._entries[key].over_at is None

    def see(
        self, events: Iterable[Event], ways: Sequence[str], now: datetime, patience: Mapping[str, timedelta]
    ) -> list[Entry]:
        """What is the case now. An event of a kind in ``patience`` is told when it has lasted so long."""
        there = {event.key: event for event in events}
        groups = {event.group for event in there.values()}
        found = [self._seen(event, ways, now, patience) for event in there.values()]
        found += [
            self._missed(entry, now, replaced=entry.event.group in groups)
            for entry in self._entries.values()
            if entry.over_at is None and entry.event.key not in there
        ]
        self._entries |= {entry.event.key: entry for entry, _ in found}
        return [entry for entry, changed in found if changed]

    def _seen(
        self, event: Event, ways: Sequence[str], now: datetime, patience: Mapping[str, timedelta]
    ) -> tuple[Entry, bool]:
        """The entry, and whether it is worth writing down: words that only count on are not."""
        before = self._entries.get(event.key)
        new = before is None or before.over_at is not None
        if before is None or new:
            before = Entry(event=event, first=min(event.problem.since or now, now), owed={})
        entry = replace(before, event=event, gone=None)
        if not entry.due and now - entry.first >= patience.get(event.problem.kind, timedelta(0)):
            return replace(entry, due=True, owed=dict.fromkeys(ways, "new")), True
        return entry, new or before.gone is not None

    @staticmethod
    def _missed(entry: Entry, now: datetime, *, replaced: bool) -> tuple[Entry, bool]:
        if replaced:
            return replace(entry, over_at=now, owed={}), True
        if entry.gone is None:
            return replace(entry, gone=now), True
        if now - entry.gone < CALMER.get(entry.event.problem.kind, CALM):
            return entry, False
        owed = {} if entry.event.problem.kind in ONCE else dict.fromkeys(entry.told, "over")
        return replace(entry, over_at=now, owed=owed), True

    def owed(self, way: str) -> list[Entry]:
        """What this way has to say, news before what is over, the worst first."""
        found = [entry for entry in self._entries.values() if way in entry.owed]
        return sorted(found, key=lambda one: (one.owed[way] == "over", one.event.problem.severity != "bad", one.first))

    def said(self, way: str, entries: Iterable[Entry]) -> list[Entry]:
        """This way has said these, as they were when they were taken from ``owed``."""
        changed = []
        for taken in entries:
            stage, entry = taken.owed[way], self._entries[taken.event.key]
            told = (*entry.told, way) if stage == "new" and way not in entry.told else entry.told
            owed = {name: what for name, what in entry.owed.items() if (name, what) != (way, stage)}
            if stage == "new" and entry.over_at is not None and entry.event.problem.kind not in ONCE:
                owed[way] = "over"  # it was over while the way was saying it
            changed.append(replace(entry, told=told, owed=owed))
        self._entries |= {entry.event.key: entry for entry in changed}
        return changed

    def forget(self, before: datetime) -> list[str]:
        """The keys of what was over by then, which are gone from here."""
        old = [key for key, entry in self._entries.items() if entry.over_at is not None and entry.over_at < before]
        for key in old:
            del self._entries[key]
        return old
