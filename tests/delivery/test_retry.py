"""What outcomes mean: the rows of design.md sections 4 and 6."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.config.models import RetrySettings
from gateway.delivery.breaker import Pause, blame
from gateway.delivery.retry import Situation, decide
from gateway.model import Envelope, Outcome, Recipient, SpooledMessage, Verdict
from tests.fakes import SENT, START

MINUTE = timedelta(minutes=1)
DEFERRED = Outcome(Verdict.DEFERRED, 451, "4.2.0", "greylisted")
REJECTED = Outcome(Verdict.REJECTED, 550, "5.1.1", "no such user")
THROTTLED = Outcome(Verdict.THROTTLED, 429, "4.7.28", "slow down", retry_after=timedelta(minutes=7))
MISCONFIGURED = Outcome(Verdict.MISCONFIGURED, 401, "4.7.0", "bad key")
IN_DOUBT = Outcome(Verdict.IN_DOUBT, detail="lost after the dot")
AWAY = Outcome(Verdict.DEFERRED, None, "4.4.1", "connection refused")


def message(*addresses: str) -> SpooledMessage:
    recipients = tuple(Recipient(address) for address in addresses or ("a@x.org",))
    return SpooledMessage("ID", Envelope("s@x.org", recipients), 100, START, START + timedelta(days=5), "c")


def situation(**changes: object) -> Situation:
    exact = RetrySettings(jitter=0)
    base = Situation("b", START, exact, 1, random.Random(1))
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "at", "state", "after"),
    [
        (SENT, {}, "sent", None),
        (REJECTED, {}, "failed", None),
        (DEFERRED, {}, "queued", MINUTE),
        (DEFERRED, {"attempts": 2}, "queued", 5 * MINUTE),
        (DEFERRED, {"attempts": 99}, "queued", 60 * MINUTE),
        (replace(DEFERRED, retry_after=10 * MINUTE), {}, "queued", 10 * MINUTE),
        (replace(DEFERRED, retry_after=timedelta(seconds=5)), {}, "queued", MINUTE),
        (THROTTLED, {"patient": True, "pause": 7 * MINUTE}, "queued", 7 * MINUTE),
        (MISCONFIGURED, {"pause": 2 * MINUTE}, "queued", 2 * MINUTE),
        (IN_DOUBT, {}, "queued", 60 * MINUTE),
        (IN_DOUBT, {"doubts": 1}, "held", None),
        (IN_DOUBT, {"in_doubt": "hold"}, "held", None),
    ],
)
def test_one_recipient(outcome: Outcome, at: dict[str, object], state: str, after: timedelta | None) -> None:
    """Each verdict has one state and one delay; a provider's hint lengthens but never shortens ours."""
    made = decide(message(), {"a@x.org": outcome}, situation(**at))
    assert made.states == {"a@x.org": state}
    assert made.next_attempt_at == (None if after is None else START + after)


def test_recipients_are_settled_apart() -> None:
    """One refused recipient fails alone; the others go on."""
    outcomes = {"a@x.org": SENT, "b@x.org": REJECTED, "c@x.org": DEFERRED}
    made = decide(message(*outcomes), outcomes, situation())
    assert made.states == {"a@x.org": "sent", "b@x.org": "failed", "c@x.org": "queued"}
    assert made.failed == ("b@x.org",)
    assert made.pending == ("c@x.org",)


def test_failover_is_immediate_and_costs_no_patience() -> None:
    """Where another backend is free the message goes there now."""
    made = decide(message(), {"a@x.org": AWAY}, situation(alternative="second"))
    assert (made.backend, made.next_attempt_at, made.count_attempt) == ("second", START, False)


def test_no_failover_from_doubt() -> None:
    """A message that may have been taken never goes to a second backend."""
    made = decide(message(), {"a@x.org": IN_DOUBT}, situation(alternative="second"))
    assert made.backend == "b"


@pytest.mark.parametrize("outcome", [DEFERRED, THROTTLED, AWAY])
def test_lifetime_ends_with_the_last_answer(outcome: Outcome) -> None:
    """At the end of the lifetime what is pending fails as 4.4.7 and keeps the provider's words."""
    late = situation(now=START + timedelta(days=5))
    made = decide(message(), {"a@x.org": outcome}, late)
    assert made.states == {"a@x.org": "failed"}
    final = made.outcomes["a@x.org"]
    assert final.verdict is Verdict.REJECTED
    assert final.enhanced == "4.4.7"
    assert outcome.detail in final.detail


def test_wrong_settings_of_ours_never_become_a_bounce() -> None:
    """At the end of the lifetime a misconfigured backend leaves the message held for a person, not failed."""
    made = decide(message(), {"a@x.org": MISCONFIGURED}, situation(now=START + timedelta(days=5)))
    assert (made.states, made.failed) == ({"a@x.org": "held"}, ())


def test_the_last_try_is_not_after_the_lifetime() -> None:
    """A delay beyond the lifetime is cut, so that the sender hears in time."""
    near_end = situation(now=START + timedelta(days=5) - MINUTE, attempts=9)
    made = decide(message(), {"a@x.org": DEFERRED}, near_end)
    assert made.next_attempt_at == START + timedelta(days=5)


@pytest.mark.parametrize(
    ("outcomes", "by"),
    [
        ([SENT], None),
        ([DEFERRED], None),
        ([IN_DOUBT], None),
        ([AWAY], "unreachable"),
        ([SENT, THROTTLED], "throttled"),
        ([AWAY, THROTTLED, MISCONFIGURED], "misconfigured"),
    ],
)
def test_blame(outcomes: list[Outcome], by: str | None) -> None:
    """Only trouble of the backend itself rests the lane; the gravest reason is shown."""
    found = blame({f"{n}@x.org": outcome for n, outcome in enumerate(outcomes)})
    assert (found and found[0]) == by


def test_pause_grows_and_obeys_the_hint() -> None:
    """Failed probes lengthen the rest up to a limit; the provider's hint wins; success forgets."""
    pause = Pause()
    now, seen = 0.0, []
    for _ in range(4):
        seen.append(pause.strike("unreachable", AWAY, now))
        now = pause.until
    assert seen == [15, 30, 60, 60]
    assert pause.strike("throttled", THROTTLED, now) == 420
    pause.clear()
    assert not pause.probing
    assert not pause.resting(now)


def test_attempts_in_flight_count_once() -> None:
    """Ten sends that fail together are one strike, not ten."""
    pause = Pause()
    for _ in range(10):
        pause.strike("unreachable", AWAY, 0.0)
    assert pause.strikes == 1
    assert pause.until == 15


def test_operator_pause_is_not_shortened() -> None:
    """What the operator paused stays paused whatever a late answer says."""
    pause = Pause()
    pause.by_operator(0.0, None)
    pause.strike("unreachable", AWAY, 1.0)
    assert pause.by == "operator"
    assert pause.resting(1e9)
