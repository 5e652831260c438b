"""Once for each event, once that it is over, by each way; and what an outage of a way changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.alerts import kept
from gateway.alerts.events import Event
from gateway.alerts.ledger import CALM, Entry, Ledger
from gateway.health.problem import Problem
from tests.fakes import START

MINUTE = timedelta(minutes=1)
STOPPED = Event("backend:office", "backend:office", Problem(
    key="backend:office", kind="backend_stopped", severity="bad", what="office cannot send.", since=START,
    cost="2 messages wait.", fix="Put in a new secret.", backend="office",
))  # fmt: skip


def changed(event: Event, key: str = "", group: str = "", **problem: Any) -> Event:
    return Event(key or event.key, group or event.group, replace(event.problem, **problem))


DISK = changed(STOPPED, "disk", "disk", kind="disk_low", severity="warn", what="full", backend="")
PATIENCE = {"backend_stopped": 15 * MINUTE}


def see(ledger: Ledger, *events: Event, after: timedelta, ways: Sequence[str] = ("mail",)) -> list[Entry]:
    return ledger.see(events, ways, START + after, PATIENCE)


def tell(ledger: Ledger, way: str = "mail") -> list[tuple[str, str]]:
    """All that it owes is told: keys with what is said of each."""
    owed = ledger.owed(way)
    ledger.said(way, owed)
    return [(entry.event.key, entry.owed[way]) for entry in owed]


def test_once_for_each_event_and_once_that_it_is_over() -> None:
    """A backend that is back within its time is never told of; one that lasts is told of once, and that it is over."""
    ledger = Ledger()
    see(ledger, STOPPED, after=MINUTE)
    assert tell(ledger) == []
    for minutes in (15, 16, 300):
        see(ledger, STOPPED, after=minutes * MINUTE)
    assert tell(ledger) == [("backend:office", "new")]
    see(ledger, STOPPED, after=301 * MINUTE)
    assert tell(ledger) == []
    see(ledger, after=302 * MINUTE)
    assert tell(ledger) == []
    see(ledger, after=302 * MINUTE + CALM)
    assert tell(ledger) == [("backend:office", "over")]
    see(ledger, after=900 * MINUTE)
    assert tell(ledger) == []


def test_what_comes_back_while_it_is_hardly_gone_is_the_same_event() -> None:
    """A backend that is tried again now and then does not send an alert each time."""
    ledger = Ledger()
    see(ledger, DISK, after=MINUTE)
    assert tell(ledger) == [("disk", "new")]
    see(ledger, after=2 * MINUTE)
    see(ledger, DISK, after=3 * MINUTE)
    see(ledger, after=2 * MINUTE + CALM)
    assert tell(ledger) == []


def test_what_strangers_begin_and_end_is_one_event_for_a_day() -> None:
    """Who guesses passwords in bursts sends nobody an alert for each of them."""
    ledger, guesses = Ledger(), changed(DISK, key="log_ins", group="log_ins", kind="log_in_attack")
    told = []
    for burst in range(200):
        see(ledger, changed(guesses, since=None), after=burst * 15 * MINUTE)
        see(ledger, after=(burst * 15 + 5) * MINUTE)
        see(ledger, after=(burst * 15 + 10) * MINUTE)
        told += tell(ledger)
    see(ledger, after=timedelta(days=4))
    assert [*told, *tell(ledger)] == [("log_ins", "new"), ("log_ins", "over")]


def test_what_comes_back_later_is_told_again() -> None:
    """The next outage is another event."""
    ledger = Ledger()
    for start in (0, 60):
        see(ledger, changed(DISK, since=None), after=start * MINUTE)
        assert tell(ledger) == [("disk", "new")]
        see(ledger, after=(start + 1) * MINUTE)
        see(ledger, after=(start + 1) * MINUTE + CALM)
        assert tell(ledger) == [("disk", "over")]


def test_what_nobody_heard_of_is_not_said_to_be_over() -> None:
    """While a way was broken: of two ways, only the one that told the first half tells the second."""
    ledger = Ledger()
    see(ledger, DISK, after=MINUTE, ways=("mail", "webhook"))
    assert tell(ledger, "mail") == [("disk", "new")]
    see(ledger, after=2 * MINUTE)
    see(ledger, after=2 * MINUTE + CALM)
    assert tell(ledger, "webhook") == []
    assert tell(ledger, "mail") == [("disk", "over")]


def test_what_is_over_while_it_is_told_is_said_to_be_over() -> None:
    """A webhook may take half a minute to answer."""
    ledger = Ledger()
    see(ledger, DISK, after=MINUTE)
    telling = ledger.owed("mail")
    see(ledger, after=2 * MINUTE)
    see(ledger, after=2 * MINUTE + CALM)
    ledger.said("mail", telling)
    assert tell(ledger) == [("disk", "over")]


def test_the_next_step_takes_the_place_of_the_one_before() -> None:
    """A certificate that ends in 7 days is not "over" ending in 14; renewed, it is over once."""
    ledger = Ledger()
    steps = [changed(DISK, kind="ends", key=f"ends:tls:{days}", group="ends:tls") for days in (14, 7)]
    see(ledger, steps[0], after=MINUTE)
    assert tell(ledger) == [("ends:tls:14", "new")]
    see(ledger, steps[1], after=2 * MINUTE)
    assert tell(ledger) == [("ends:tls:7", "new")]
    see(ledger, after=3 * MINUTE)
    see(ledger, after=3 * MINUTE + CALM)
    assert tell(ledger) == [("ends:tls:7", "over")]


@pytest.mark.parametrize("kind", ["clock_stepped", "bug"])
def test_what_happens_at_one_moment_is_never_over(kind: str) -> None:
    """Nobody has to hear that a step of the clock has ended."""
    ledger = Ledger()
    see(ledger, changed(DISK, kind=kind), after=MINUTE)
    assert tell(ledger) == [("disk", "new")]
    see(ledger, after=2 * MINUTE)
    see(ledger, after=2 * MINUTE + CALM)
    assert tell(ledger) == []


def test_the_worst_first() -> None:
    """What is bad before what is a warning, and what is over last."""
    ledger = Ledger()
    see(ledger, changed(DISK, key="a", group="a"), after=MINUTE)
    tell(ledger)
    see(ledger, DISK, STOPPED, after=20 * MINUTE)
    see(ledger, DISK, STOPPED, after=20 * MINUTE + CALM)
    assert tell(ledger) == [("backend:office", "new"), ("disk", "new"), ("a", "over")]


def test_a_restart_changes_nothing() -> None:
    """What was told before is not told again, and is said to be over."""
    ledger = Ledger()
    see(ledger, STOPPED, DISK, after=20 * MINUTE)
    tell(ledger)
    again = Ledger(kept.entries(kept.to_keep(entry) for entry in ledger.entries))
    assert again.entries == ledger.entries
    see(again, STOPPED, after=21 * MINUTE)
    see(again, STOPPED, after=21 * MINUTE + CALM)
    assert tell(again) == [("disk", "over")]


def test_words_that_count_on_are_not_written_each_time() -> None:
    """Else every look would be a commit."""
    ledger = Ledger()
    assert len(see(ledger, DISK, after=MINUTE)) == 1
    assert see(ledger, changed(DISK, what="fuller"), after=2 * MINUTE) == []
    assert ledger.owed("mail")[0].event.problem.what == "fuller"


def test_what_is_long_over_is_forgotten() -> None:
    """The table does not grow for ever; what lasts stays."""
    ledger = Ledger()
    see(ledger, STOPPED, DISK, after=MINUTE)
    see(ledger, STOPPED, after=2 * MINUTE)
    see(ledger, STOPPED, after=5 * MINUTE)
    assert ledger.forget(START + 6 * MINUTE) == ["disk"]
    assert [entry.event.key for entry in ledger.entries] == ["backend:office"]


def test_what_another_version_wrote_is_left_out() -> None:
    """A row that cannot be read keeps nobody from being told."""
    good = Entry(event=DISK, first=START, owed={})
    texts = ['{"event": {}}', "[]", "nonsense", '"2026-11-30T07:00:00+00:00"']
    rows = [*(replace(kept.to_keep(good), key=str(n), entry=text) for n, text in enumerate(texts)), kept.to_keep(good)]
    assert kept.entries(rows) == [good]
