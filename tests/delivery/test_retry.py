"""What outcomes mean for a message: its state, its next attempt, its end."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.models import RetrySettings
from gateway.delivery.retry import Situation, decide, next_delay, returned, too_late
from gateway.model import Outcome, Scope, SpooledMessage, Verdict
from tests.builders import AWAY, IN_DOUBT, spooled_message
from tests.delivery.kit import DEFERRED, MISCONFIGURED, REJECTED, THROTTLED
from tests.fakes import SENT, START

MINUTE = timedelta(minutes=1)


def message(*addresses: str, attempt: int = 1) -> SpooledMessage:
    return spooled_message(*(addresses or ("a@x.org",)), attempt=attempt)


def situation(**changes: Any) -> Situation:
    return replace(Situation("b", START, RetrySettings(jitter=0), random.Random(1)), **changes)


@pytest.mark.parametrize(
    ("outcome", "at", "state", "after"),
    [
        (SENT, {}, "sent", None),
        (REJECTED, {}, "failed", None),
        (DEFERRED, {}, "queued", MINUTE),
        (replace(DEFERRED, retry_after=10 * MINUTE), {}, "queued", 10 * MINUTE),
        (replace(DEFERRED, retry_after=timedelta(seconds=5)), {}, "queued", timedelta(seconds=5)),
        (replace(DEFERRED, retry_after=timedelta(seconds=5)), {"rest": MINUTE}, "queued", MINUTE),
        (replace(THROTTLED, retry_after=timedelta(seconds=5)), {"patient": True, "rest": MINUTE}, "queued", MINUTE),
        (THROTTLED, {"patient": True, "rest": 7 * MINUTE}, "queued", 7 * MINUTE),
        (MISCONFIGURED, {"rest": 2 * MINUTE}, "queued", 2 * MINUTE),
        (IN_DOUBT, {}, "queued", 60 * MINUTE),
        (replace(IN_DOUBT, retry_after=5 * MINUTE), {}, "queued", 5 * MINUTE),
        (IN_DOUBT, {"doubts": 1}, "held", None),
        (IN_DOUBT, {"in_doubt": "hold"}, "held", None),
    ],
)
def test_one_recipient(outcome: Outcome, at: dict[str, Any], state: str, after: timedelta | None) -> None:
    """Each verdict has one state and one delay; a provider's hint takes the place of ours."""
    made = decide(message(), {"a@x.org": outcome}, situation(**at))
    assert made.states == {"a@x.org": state}
    assert made.next_attempt_at == (None if after is None else START + after)


@pytest.mark.parametrize(("attempt", "minutes"), [(1, 1), (2, 5), (99, 60)])
def test_the_delay_grows_with_the_attempts(attempt: int, minutes: int) -> None:
    """The last of the list repeats."""
    made = decide(message(attempt=attempt), {"a@x.org": DEFERRED}, situation())
    assert made.next_attempt_at == START + minutes * MINUTE


@pytest.mark.parametrize(
    ("hint", "seconds"), [(1, [1, 2, 4, 8, 16, 512]), (90, [90, 180, 360, 720, 1440, 3600]), (7200, [7200] * 6)]
)
def test_who_is_put_off_again_and_again_waits_longer(hint: int, seconds: list[int]) -> None:
    """From the hint on, up to our own delay: a provider that always says "in a second" is not asked each second."""
    said = {"a@x.org": replace(DEFERRED, retry_after=timedelta(seconds=hint))}
    made = [decide(message(attempt=n), said, situation()).next_attempt_at for n in (1, 2, 3, 4, 5, 10)]
    assert made == [START + timedelta(seconds=wait) for wait in seconds]


def test_the_longest_hint_counts_for_all_that_wait() -> None:
    """And our own delay for those without one: the next attempt is for all of them."""
    soon, late = (replace(DEFERRED, retry_after=timedelta(seconds=wait)) for wait in (5, 40))
    for other, wait in ((late, 40), (DEFERRED, 60)):
        made = decide(message("a@x.org", "b@x.org"), {"a@x.org": soon, "b@x.org": other}, situation())
        assert made.next_attempt_at == START + timedelta(seconds=wait)


def test_a_second_lost_answer_holds_only_whom_it_is_the_second_for() -> None:
    """Another's doubt is not his: who is in doubt for the first time is tried once more."""
    at = situation(doubts=1, doubted=("a@x.org",))
    made = decide(message("a@x.org", "b@x.org"), {"a@x.org": IN_DOUBT, "b@x.org": IN_DOUBT}, at)
    assert made.states == {"a@x.org": "held", "b@x.org": "queued"}


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
    near_end = situation(now=START + timedelta(days=5) - MINUTE)
    made = decide(message(attempt=9), {"a@x.org": DEFERRED}, near_end)
    assert made.next_attempt_at == START + timedelta(days=5)


@pytest.mark.parametrize(("ours", "state", "failed"), [(True, "held", ()), (False, "failed", ("a@x.org",))])
def test_what_was_never_tried_to_the_end(ours: bool, state: str, failed: tuple[str, ...]) -> None:
    """Where we paused, a person decides; else the sender hears of it. Nobody said a code, and none is made up."""
    made = too_late(message(), "b", ours=ours)
    assert (made.states, made.failed) == ({"a@x.org": state}, failed)
    final = made.outcomes["a@x.org"]
    assert final.verdict is (Verdict.DEFERRED if ours else Verdict.REJECTED)  # an order is no wrong password
    assert (final.code, final.enhanced, final.said_by, final.scope) == (None, "4.4.7", "gateway", Scope.MESSAGE)


def test_returned_by_order() -> None:
    """Every recipient that is left fails, without a code."""
    made = returned(message("a@x.org", "b@x.org"))
    assert made.failed == ("a@x.org", "b@x.org")
    assert {(outcome.verdict, outcome.code) for outcome in made.outcomes.values()} == {(Verdict.REJECTED, None)}


RETRY = RetrySettings(delays=("1m", "5m", "1h"), jitter=0.2)


@given(st.integers(0, 100), st.integers())
def test_next_delay(attempts: int, seed: int) -> None:
    """The list in order, its last entry for ever, each within the jitter."""
    minutes = {0: 1, 1: 1, 2: 5}.get(attempts, 60)
    delay = next_delay(RETRY, attempts, random.Random(seed))
    assert 0.8 * timedelta(minutes=minutes) <= delay <= 1.2 * timedelta(minutes=minutes)


def test_next_delay_differs() -> None:
    """Jitter: a thousand messages deferred at once do not come back at once."""
    rng = random.Random(1)
    assert len({next_delay(RETRY, 1, rng) for _ in range(100)}) > 90
