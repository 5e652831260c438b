"""The one limiter: never more than allowed in any period, each key for itself."""

from __future__ import annotations

from datetime import timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.quota import Rate
from gateway.ratelimit import FailureLimit, RateWindow, Ring


@given(
    st.lists(st.floats(0, 30, allow_nan=False), max_size=200),
    st.integers(1, 20),
    st.sampled_from([1, 60, 3600]),
    st.floats(0, 1e6),
)
def test_rate_is_never_exceeded(gaps: list[float], count: int, period: int, start: float) -> None:
    """In no window of the period are there more than ``count`` events, and no refusal lasts much beyond it."""
    window, rate = RateWindow(), Rate(count, timedelta(seconds=period))
    now, allowed = start, []
    for gap in gaps:
        now += gap
        if window.allow("k", rate, now):
            allowed.append(now)
        else:
            recent = [moment for moment in allowed if now - moment <= period * (1 + 2 / 60)]
            assert len(recent) >= count
    for first, later in zip(allowed, allowed[count:], strict=False):
        assert later - first >= period * (1 - 1e-9)


@pytest.mark.parametrize(("second", "allowed"), [(59.9, False), (60.01, False), (61.0, True)])
def test_rate_at_the_edge_of_its_period(second: float, allowed: bool) -> None:
    """An event late in its sixtieth still counts when the period's last sixtieth has begun."""
    window, rate = RateWindow(), Rate(1, timedelta(seconds=60))
    assert window.allow("k", rate, 0.99)
    assert window.allow("k", rate, second) is allowed


AMOUNTS = st.lists(st.tuples(st.floats(0, 40, allow_nan=False), st.integers(1, 9)), max_size=80)


@given(AMOUNTS, st.integers(1, 30), st.sampled_from([1, 60, 3600, 86400]), st.floats(0, 1e6), st.floats(0, 2))
def test_what_is_spent_never_exceeds_the_most(
    steps: list[tuple[float, int]], most: int, period: int, start: float, asleep: float
) -> None:
    """In no period more than the most; who waits as long as it is said fits then, also in a copy that was kept."""
    ring, now, spent = Ring(period), start, list[tuple[float, int]]()
    for gap, amount in steps:
        now += gap * period / 60
        wait = ring.wait(amount, most, now)
        if amount > most:
            assert wait == inf
            continue
        assert 0 <= wait <= period * (1 + 2 / 60)
        if wait == 0:
            ring.add(amount, now)
            spent.append((now, amount))
        else:
            freed = Ring(period)
            freed.put_back(ring.spent(now), 0.0, now)
            assert freed.wait(amount, most, now + wait + period * 1e-6) == 0
        assert ring.used(now) <= most
        assert sum(n for then, n in spent if now - then < period * (1 - 1e-9)) <= most
    kept, later = Ring(period), now + asleep * period
    kept.put_back(ring.spent(now), asleep * period, later)
    assert kept.used(later) >= sum(n for then, n in spent if later - then < period * (1 - 1e-9))
    assert kept.used(later) <= ring.used(now)


@given(AMOUNTS, st.integers(1, 100))
def test_what_is_given_back_was_never_spent(steps: list[tuple[float, int]], more: int) -> None:
    """Whatever came between."""
    one, other, now = Ring(60), Ring(60), 0.0
    for gap, amount in steps:
        now += gap / 10
        one.add(amount, now)
        other.add(amount, now)
    one.add(more, now)
    one.give_back(more, now + 0.5)
    assert one.spent(now + 0.5) == other.spent(now + 0.5)


def test_rate_keys_are_apart_and_bounded() -> None:
    """One client's flood is not another's, and ten thousand keys are remembered at most."""
    window, rate = RateWindow(), Rate(1, timedelta(seconds=60))
    assert window.allow("a", rate, 0.0)
    assert not window.allow("a", rate, 1.0)
    assert window.allow("b", rate, 1.0)
    for number in range(9_998):
        window.allow(str(number), rate, 2.0)
    assert not window.allow("a", rate, 3.0)
    window.allow("one more", rate, 4.0)
    assert not window.allow("a", rate, 5.0), "recently used keys stay"
    assert window.allow("b", rate, 5.0), "the least recently used one is forgotten"


def test_failures_are_forgiven_one_by_one() -> None:
    """Three at once, then one more for each half minute that has passed; asking costs nothing."""
    limit = FailureLimit(3, 30.0)
    for second in (0.0, 0.0, 0.0):
        assert limit.allow("a", second)
        limit.add("a", second)
    assert not limit.allow("a", 29.0)
    assert limit.allow("b", 29.0)
    assert all(limit.allow("a", 30.0) for _ in range(5))
    limit.add("a", 30.0)
    assert not limit.allow("a", 59.0)
    limit.add("a", 1000.0)
    assert limit.allow("a", 1000.0), "a long rest is no credit, and leaves no debt"
    limit.add("a", 1000.0)
    limit.add("a", 1000.0)
    assert not limit.allow("a", 1000.0)


def test_what_was_no_failure_is_taken_back() -> None:
    limit = FailureLimit(2, 30.0)
    limit.add("a", 0.0)
    limit.add("a", 0.0)
    assert not limit.allow("a", 0.0)
    limit.forgive("a", 0.0)
    assert limit.allow("a", 0.0)
    limit.forgive("a", 0.0)
    limit.forgive("a", 0.0)
    limit.add("a", 0.0)
    assert limit.allow("a", 0.0), "never below none"
    limit.add("a", 0.0)
    assert not limit.allow("a", 0.0)


def test_failures_of_many_keys_are_bounded() -> None:
    """Who failed least recently makes room for the ten thousand and first."""
    limit = FailureLimit(1, 30.0)
    limit.add("first", 0.0)
    limit.add("second", 0.0)
    for number in range(9_998):
        limit.add(str(number), 0.0)
    limit.add("first", 0.0)
    assert not limit.allow("second", 0.0)
    limit.add("one more", 0.0)
    assert not limit.allow("first", 0.0)
    assert limit.allow("second", 0.0)
