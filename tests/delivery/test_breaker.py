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


@pytest.mark.parametrize(
    ("hint", "seen"),
    [
        (3, [3, 6, 12, 24, 48, 96, 192, 384, 768, 900, 900]),
        (None, [60, 120, 240, 480, 900, 900]),
        (1800, [1800, 3600, 3600]),
        (86400, [86400, 86400]),
    ],
)
def test_the_hint_decides_and_doubles_from_there(hint: float | None, seen: list[int]) -> None:
    """Shorter or longer than our minute; throttled again and again it grows, and is never less than what they ask."""
    said = replace(THROTTLED, retry_after=None if hint is None else timedelta(seconds=hint))
    breaker, now, rests = CircuitBreaker(), 0.0, []
    for _ in seen:
        rests.append(breaker.judge("ID", outcomes(said), now).rest.total_seconds())
        now = breaker.until
    assert rests == seen


# What is said of a message, and may be true of any.
LATER = replace(THROTTLED, scope=Scope.MESSAGE, retry_after=None)


def to(name: str, *given: Outcome) -> dict[str, Outcome]:
    return {f"{name}{number}@x.org": outcome for number, outcome in enumerate(given)}


@pytest.mark.parametrize("said", [DEFERRED, LATER])
def test_several_different_messages_in_a_row_rest_the_backend(said: Outcome) -> None:
    """Not one, however often; not several to the same person; not when others are taken in between."""
    breaker = CircuitBreaker()
    for ident, name in (("1", "a"), ("1", "a"), ("2", "a"), ("3", "b")):
        assert breaker.judge(ident, to(name, said), 0.0).opened_by is None
    assert breaker.judge("4", to("c", SENT, said), 0.0).opened_by is None
    for ident in ("5", "6"):
        assert breaker.judge(ident, to(ident, said), 0.0).opened_by is None
    ruling = breaker.judge("7", to("7", said), 0.0)
    assert ruling.opened_by is not None
    assert (breaker.by, breaker.reason) == ("throttled", f"3 messages in a row were put off: {said.detail}")
    assert (ruling.rest, ruling.patient) == (timedelta(minutes=1), False)


def test_who_answers_nothing_gets_no_whole_queue() -> None:
    """Each lost answer is a doubt about one more message, and a second one is a person's work: three in a row rest it.

    Whoever they are for. Then each probe does; an answer ends that.
    """
    breaker, stale = CircuitBreaker(), replace(IN_DOUBT, retry_after=timedelta(minutes=5))
    for ident in ("1", "1", "2"):
        assert breaker.judge(ident, to("a", stale), 0.0).opened_by is None
    ruling = breaker.judge("3", to("a", stale), 0.0)
    assert ruling.opened_by is not None
    assert (breaker.by, ruling.rest, ruling.patient) == ("unreachable", timedelta(seconds=15), False)
    assert breaker.judge("4", to("4", IN_DOUBT), breaker.until).rest == timedelta(seconds=30)
    assert breaker.judge("5", to("5", REJECTED), breaker.until).answered


@pytest.mark.parametrize(
    "said", [replace(DEFERRED, scope=Scope.RECIPIENT), replace(DEFERRED, said_by="http"), REJECTED]
)
def test_what_is_one_persons_or_one_mailboxs_never_adds_up(said: Outcome) -> None:
    """Full mailboxes, mailboxes of ours that are throttled, refusals: a hundred in a row rest nobody."""
    breaker = CircuitBreaker()
    for number in range(100):
        assert breaker.judge(str(number), to(str(number), said), 0.0).opened_by is None


def test_a_probe_that_is_put_off_neither_renews_the_pause_nor_ends_it() -> None:
    """The next one is another message; when several hear it again the rest is doubled, when one is taken it is over."""
    breaker = CircuitBreaker()
    breaker.judge("1", to("1", THROTTLED), 0.0)
    now = breaker.until
    for ident in ("2", "2", "3"):
        ruling = breaker.judge(ident, to(ident, DEFERRED), now)
        assert (ruling.opened_by, ruling.answered, breaker.state(now)) == (None, False, State.HALF_OPEN)
    assert breaker.judge("4", to("4", DEFERRED), now).rest == timedelta(minutes=2)
    assert breaker.judge("5", to("5", SENT), breaker.until).answered


def test_a_backend_that_was_away_is_back_when_it_puts_off_its_probe() -> None:
    """It answers: what it says of one message is that message's."""
    breaker = CircuitBreaker()
    breaker.judge("1", to("1", AWAY), 0.0)
    assert breaker.judge("2", to("2", DEFERRED), breaker.until).answered


def test_who_is_asked_for_less_does_less_at_once() -> None:
    """Half as much each time it opens for that, and slowly more with what is sent; other trouble changes nothing."""
    breaker = CircuitBreaker()
    for _ in range(2):
        breaker.judge("1", to("1", THROTTLED), breaker.until)
        breaker.judge("late", to("late", THROTTLED), breaker.until - 1)
    breaker.judge("2", to("2", AWAY), breaker.until)
    assert breaker.share == 0.25
    for _ in range(20):
        breaker.judge("3", to("3", SENT), breaker.until)
    assert breaker.share == pytest.approx(0.35)
    for _ in range(200):
        breaker.judge("3", to("3", SENT), breaker.until)
    assert breaker.share == 1


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


@pytest.mark.parametrize(
    ("outcome", "word"), [(AWAY, "stopped"), (THROTTLED, "slowed_down"), (MISCONFIGURED, "stopped")]
)
def test_a_word_for_people(outcome: Outcome, word: str) -> None:
    """Slowed down by the provider is not stopped; half open is not working yet, for nothing has been sent."""
    breaker = CircuitBreaker()
    assert breaker.condition(0.0) == "working"
    breaker.judge("ID", outcomes(outcome), 5.0)
    assert (breaker.condition(5.0), breaker.since) == (word, 5.0)
    assert (breaker.state(10_000.0), breaker.condition(10_000.0)) == (State.HALF_OPEN, word)
    breaker.judge("ID", outcomes(outcome), 10_000.0)
    assert breaker.since == 5.0  # a probe that fails is no new event
    breaker.close()
    assert breaker.condition(10_000.0) == "working"


def test_who_paused_it_and_since_when() -> None:
    """An order has a name and a time of its own, until it is over."""
    breaker = CircuitBreaker()
    breaker.judge("ID", outcomes(AWAY), 5.0)
    breaker.pause(7.0, 60.0, "root")
    assert (breaker.condition(8.0), breaker.who, breaker.since) == ("paused", "root", 7.0)
    assert breaker.reason == "paused by root"
    breaker.pause(20.0, None, "anna")  # who paused it and when stays, only the end is another
    assert (breaker.who, breaker.since, breaker.until) == ("root", 7.0, float("inf"))
    breaker.pause(30.0, 5.0, "anna")
    assert (breaker.reason, breaker.since, breaker.until) == ("paused by root", 7.0, 35.0)
    breaker.pause(40.0, 5.0, "anna")  # it had ended
    assert (breaker.who, breaker.since) == ("anna", 40.0)
    breaker.close()
    assert (breaker.who, breaker.condition(8.0)) == ("", "working")
