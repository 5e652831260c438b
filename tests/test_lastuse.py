"""When who was last of use: the last time counts, days make a habit, and nothing new is written twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.lastuse import LastUse, Use
from tests.fakes import START


@pytest.mark.parametrize(
    ("days_ago", "daily"),
    [
        ([0], False),
        ([6, 5, 4, 3, 2, 1, 0], True),
        ([6, 5, 4, 1, 0], True),  # a week with a weekend in it
        ([6, 5, 4, 1], False),
        ([21, 14, 7, 0], False),
        ([9, 8, 7, 6, 5, 0], False),  # a habit that was given up before
        ([40, 39, 38, 37, 36, 0], False),
    ],
)
def test_a_habit(days_ago: list[int], daily: bool) -> None:
    """Five of the seven days up to the last one make it daily; how often in a day counts for nothing."""
    uses = LastUse()
    for ago in days_ago:
        uses.note("client", "copier", START - timedelta(days=ago), "192.0.2.1")
        uses.note("client", "copier", START - timedelta(days=ago), "192.0.2.2")
    last = uses.of("client", "copier")
    assert last is not None
    assert (last.at, last.peer, last.daily) == (START - timedelta(days=days_ago[-1]), "192.0.2.2", daily)


def test_a_clock_set_back_keeps_the_habit() -> None:
    """The last is what came last, whatever the clock said."""
    uses = LastUse([("client", "copier", Use(START, "", 0b11111))])
    uses.note("client", "copier", START - timedelta(days=400), "::1")
    last = uses.of("client", "copier")
    assert last is not None
    assert (last.at, last.daily) == (START - timedelta(days=400), True)


def test_what_is_new_is_taken_once() -> None:
    """What was known is not new; what could not be written is new again."""
    uses = LastUse([("token", "t1", Use(START, ""))])
    assert uses.take() == []
    uses.note("token", "t2", START, "::1")
    taken = uses.take()
    assert taken == [("token", "t2", Use(START, "::1"))]
    assert uses.take() == []
    uses.give_back(taken)
    assert uses.take() == taken


def test_many_tokens_push_out_no_client() -> None:
    """Whoever logs in with ever new tokens makes us forget tokens only."""
    uses = LastUse()
    uses.note("client", "copier", START, "::1")
    for number in range(11_000):
        uses.note("token", str(number), START, "::1")
    assert uses.of("client", "copier")
    assert uses.of("token", "0") is None
    assert len(uses.take()) == 10_001


@pytest.mark.parametrize(("ahead", "days"), [(0, 0b111), (1, 0b1011), (30, 0b11 | 1 << 30), (31, 0b11), (400, 0b11)])
def test_what_was_noted_elsewhere_counts_too(ahead: int, days: int) -> None:
    """The later one says when and from where, whichever is learnt first; the days are those of both."""
    here, there = Use(START, "here", 0b101), Use(START + timedelta(days=ahead, seconds=1), "there", 0b11)
    for one, other in ((here, there), (there, here)):
        uses = LastUse([("client", "copier", one)])
        uses.learn([("client", "copier", other), ("client", "new", other)])
        expected = Use(there.at, "there", days & (1 << 31) - 1)
        assert (uses.of("client", "copier"), uses.of("client", "new")) == (expected, other)
        assert uses.take() == []
