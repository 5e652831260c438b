"""The circuit breaker: what opens it, for how long, and what closes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.delivery.breaker import FOREVER, CircuitBreaker, State
from gateway.model import Outcome, Scope, Verdict
from tests.builders import AWAY, IN_DOUBT
from tests.delivery.kit import DEFERRED, MISCONFIGURED, REJECTED, THROTTLED
from tests.fakes import SENT


def outcomes(*given: Outcome) -> dict[str, Outcome]:
    return {f"{n}@x.org": outcome for n, outcome in enumerate(given)}


@pytest.mark.parametrize(
    ("given", "guilty"),
    [
        ([SENT], None),
        ([DEFERRED], None),
        ([IN_DOUBT], None),
        ([AWAY], AWAY),
        ([SENT, THROTTLED], THROTTLED),
        ([AWAY, THROTTLED, MISCONFIGURED], MISCONFIGURED),
        ([THROTTLED, replace(THROTTLED, retry_after=None)], THROTTLED),
    ],
)
def test_the_gravest_cause(given: list[Outcome], guilty: Outcome | None) -> None:
    """Only trouble of the backend itself counts; of several the gravest, with the longest hint."""
    assert CircuitBreaker().judge("ID", outcomes(*given), 0.0).opened_by == guilty


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("code", [None, 451])
def test_scope_decides_who_waits(verdict: Verdict, scope: Scope, code: int | None) -> None:
    """A fault of a message or a recipient never rests the backend, whatever its verdict and with or without a code."""
    breaker = CircuitBreaker()
    breaker.judge("ID", outcomes(Outcome(verdict, code=code, scope=scope)), 0.0)
    opens = scope is Scope.BACKEND and verdict in (Verdict.DEFERRED, Verdict.THROTTLED, Verdict.MISCONFIGURED)
    assert breaker.state(0.0) is (State.OPEN if opens else State.CLOSED)


@pytest.mark.parametrize(
    ("outcome", "by"), [(AWAY, "unreachable"), (THROTTLED, "throttled"), (MISCONFIGURED, "misconfigured")]
)
def test_it_says_why(outcome: Outcome, by: str) -> None:
    """Open shows by what, in whose words, and what to do; closed shows nothing."""
    breaker = CircuitBreaker()
    assert breaker.judge("ID", outcomes(outcome), 0.0).opened_by == outcome
    assert (breaker.by, breaker.reason, breaker.fix) == (by, outcome.detail, outcome.fix)
    breaker.close()
    assert (breaker.by, breaker.reason, breaker.fix, breaker.state(0.0)) == ("", "", "", State.CLOSED)


def test_the_rest_grows_and_obeys_the_hint() -> None:
    """Failed probes lengthen the rest up to a limit; the provider's hint wins; closing forgets."""
    breaker, now, seen = CircuitBreaker(), 0.0, []
    for _ in range(4):
        seen.append(breaker.judge("ID", outcomes(AWAY), now).rest.total_seconds())
        now = breaker.until
        assert breaker.state(now) is State.HALF_OPEN
    assert seen == [15, 30, 60, 60]
    assert breaker.judge("ID", outcomes(THROTTLED), now).rest == timedelta(minutes=7)
    breaker.close()
    assert breaker.judge("ID", outcomes(AWAY), now).rest == timedelta(seconds=15)


def test_a_hint_is_not_shorter_than_the_first_rest() -> None:
    """A provider that says "in a second" is not asked each second."""
    hint = replace(THROTTLED, retry_after=timedelta(seconds=1))
    assert CircuitBreaker().judge("ID", outcomes(hint), 0.0).rest == timedelta(minutes=1)


def test_attempts_under_way_count_once() -> None:
    """Ten sends that fail together open it once, for the first rest; only the first is told that it opened."""
    breaker = CircuitBreaker()
    assert [breaker.judge(str(n), outcomes(AWAY), 0.0).opened_by for n in range(10)] == [AWAY] + [None] * 9
    assert breaker.until == 15
    assert breaker.judge("ID", outcomes(AWAY), 15.0).rest == timedelta(seconds=30)


def test_who_only_waits_loses_no_patience() -> None:
    """Late failures and our own wrong settings are due at once when it closes; the probe keeps its schedule."""
    breaker = CircuitBreaker()
    assert not breaker.judge("probe", outcomes(AWAY), 0.0).patient
    assert breaker.judge("late", outcomes(AWAY), 1.0).patient
    assert breaker.judge("ours", outcomes(MISCONFIGURED), 60.0).patient
    assert breaker.close() == ("late", "ours")
    assert breaker.close() == ()


def test_an_order_is_not_overruled() -> None:
    """What the operator paused stays paused whatever a late answer says, and shows his reason."""
    breaker = CircuitBreaker()
    breaker.pause(0.0, None)
    ruling = breaker.judge("ID", outcomes(MISCONFIGURED), 1.0)
    assert (ruling.opened_by, breaker.by, breaker.fix, breaker.until) == (None, "operator", "", FOREVER)
    assert breaker.is_open(1e9)
    breaker.pause(0.0, 60)
    assert [breaker.is_open(59.0), breaker.is_open(60.0)] == [True, False]


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ([SENT], True),
        ([REJECTED], True),
        ([DEFERRED], True),
        ([IN_DOUBT], False),
        ([Outcome(Verdict.DEFERRED, detail="internal error in the backend")], False),
        ([Outcome(Verdict.REJECTED, detail="cannot be carried")], False),
        ([SENT, AWAY], False),
        ([Outcome(Verdict.SENT, detail="captured")], True),
    ],
)
def test_what_proves_that_it_works(given: list[Outcome], answered: bool) -> None:
    """Words of the other side, also a no; not what we made up about a message without trying it."""
    assert CircuitBreaker().judge("ID", outcomes(*given), 0.0).answered is answered
