"""What has happened since the start: bugs, refused log-ins, ends; small, whatever strangers do."""

from __future__ import annotations

import io

import pytest
from prometheus_client import CollectorRegistry

from gateway.events import Events
from gateway.events.memory import MANY, WITHIN
from gateway.refusals import Refused
from tests.fakes import START, FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events(clock: FakeClock) -> Events:
    return Events(CollectorRegistry(), format="json", clock=clock, stream=io.StringIO())


def refuse(events: Events, peer: str, result: str = "failed") -> None:
    said = Refused(listener="mail", stage="auth", reason="auth_failed", peer=peer)
    events.login_refused(said, "PLAIN", result)


def test_bugs_are_counted_with_their_places(events: Events, clock: FakeClock) -> None:
    """The first and the last time, and some of the places, each once."""
    assert events.memory.bugs is None
    for place in ("http", "smtp", "http", "a", "b"):
        events.bug(place, ValueError())
        clock.advance(60)
    found = events.memory.bugs
    assert found
    assert (found.count, found.where, found.since) == (5, ("http", "smtp", "a"), START)
    assert (found.last - found.since).total_seconds() == 240


def test_many_refused_log_ins_are_an_attack_until_they_end(events: Events, clock: FakeClock) -> None:
    """In a short time, whoever they come from; who comes most often is named. One that is let in counts for nothing."""
    for n in range(MANY - 1):
        refuse(events, "192.0.2.7" if n % 2 else f"198.51.100.{n}", "refused" if n % 3 else "failed")
        events.logged_in("mail", "PLAIN", "192.0.2.9", client="c", user="u")
        refuse(events, "192.0.2.9", "unavailable")
    assert events.memory.log_ins is None
    clock.advance(120)
    refuse(events, "192.0.2.7")
    found = events.memory.log_ins
    assert found
    assert (found.count, found.where[0]) == (MANY, "192.0.2.7")
    assert (found.last - found.since).total_seconds() == 120
    clock.advance(60 * WITHIN - 60)
    for _ in range(MANY):
        refuse(events, "192.0.2.7")
    later = events.memory.log_ins
    assert later
    assert later.since == found.since  # the event goes on
    clock.advance(60 * WITHIN)
    assert events.memory.log_ins is None


def test_a_slow_one_is_no_attack(events: Events, clock: FakeClock) -> None:
    """A device that asks once a minute for a day with an old password disturbs nobody."""
    for _ in range(24 * 60):
        refuse(events, "192.0.2.7")
        clock.advance(60)
        assert events.memory.log_ins is None


def test_ends_are_those_told_last(events: Events) -> None:
    """A sign-in that was renewed ends later."""
    events.credential_ends("office", 1.0)
    events.credential_ends("office", 2.0)
    events.tls_expiry("mail", 3.0)
    assert events.memory.ends == {("credential", "office"): 2.0, ("certificate", "mail"): 3.0}
