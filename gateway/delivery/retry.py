"""What an attempt's outcomes mean for the queue: done, again, elsewhere, held or given up. Pure: no I/O, no clock."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gateway.config.models import RetrySettings
from gateway.model import Outcome, Scope, SpooledMessage, Verdict, same_for_all
from gateway.ratelimit import lengthened

EXPIRED = "4.4.7"  # RFC 3463 3.5: message expired
_GAVE_UP = "gave up at the end of the queue lifetime"


@dataclass(frozen=True, slots=True)
class Decision:
    """States by address; when and where what is left goes next; what failed for good, with the final outcome."""

    states: Mapping[str, str]
    outcomes: Mapping[str, Outcome]
    next_attempt_at: datetime | None = None
    backend: str = ""
    count_attempt: bool = True
    failed: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision depends on besides the outcomes.

    ``backend`` is where what is left waits, ``alternative`` where it may go at once, "" for nowhere. ``rest``: how long
    the backend rests now, 0 for not at all. ``doubts`` counts earlier attempts that ended without an answer,
    ``doubted`` says for whom, None for everybody. ``patient``: the attempt does not count. ``in_doubt`` is the setting,
    retry or hold.
    """

    backend: str
    now: datetime
    retry: RetrySettings
    rng: random.Random
    in_doubt: str = "retry"
    doubts: int = 0
    doubted: Collection[str] | None = None
    rest: timedelta = timedelta(0)
    patient: bool = False
    alternative: str = ""


def decide(message: SpooledMessage, outcomes: Mapping[str, Outcome], at: Situation) -> Decision:
    """Sort every recipient into sent, failed, held or queued, and find the time and backend of the next attempt."""
    states: dict[str, str] = {}
    final = dict(outcomes)
    expired = at.now >= message.expires_at
    for address, outcome in outcomes.items():
        state = _state(address, outcome, at)
        if state == "queued" and expired:
            final[address] = _expire(outcome)
            # Our own wrong settings never become a bounce: a person decides what is still of use.
            state = "held" if outcome.verdict is Verdict.MISCONFIGURED else "failed"
        states[address] = state
    pending = tuple(address for address, state in states.items() if state == "queued")
    failed = tuple(address for address, state in states.items() if state == "failed")
    if not pending:
        return Decision(states, final, failed=failed)
    waiting = [outcomes[address] for address in pending]
    doubtful = any(outcome.verdict is Verdict.IN_DOUBT for outcome in waiting)
    if at.alternative and not doubtful:
        return Decision(states, final, at.now, at.alternative, count_attempt=False, failed=failed, pending=pending)
    delay = _delay(message.attempt, waiting, at, doubtful)
    when = max(at.now, min(at.now + delay, message.expires_at))
    return Decision(states, final, when, at.backend, not at.patient, failed, pending)


def too_late(message: SpooledMessage, backend: str, *, ours: bool) -> Decision:
    """At the end of the lifetime of what could not be tried; ``ours``: because we paused, so a person decides."""
    if ours:
        text = f"{_GAVE_UP}: {backend} was paused"
        outcomes = same_for_all(message, Outcome(Verdict.DEFERRED, enhanced=EXPIRED, detail=text))
        return Decision(dict.fromkeys(outcomes, "held"), outcomes)
    return _failed(message, Outcome(Verdict.REJECTED, enhanced=EXPIRED, detail=f"{_GAVE_UP}: {backend} was not usable"))


def returned(message: SpooledMessage) -> Decision:
    """Given up by order of the operator."""
    return _failed(message, Outcome(Verdict.REJECTED, enhanced="5.0.0", detail="returned by the operator"))


def _failed(message: SpooledMessage, outcome: Outcome) -> Decision:
    outcomes = same_for_all(message, outcome)
    return Decision(dict.fromkeys(outcomes, "failed"), outcomes, failed=tuple(outcomes))


def _state(address: str, outcome: Outcome, at: Situation) -> str:
    match outcome.verdict:
        case Verdict.SENT:
            return "sent"
        case Verdict.REJECTED:
            return "failed"
        case Verdict.IN_DOUBT if at.in_doubt == "hold" or _again(address, at):
            return "held"  # a second lost answer is no accident: a person decides
        case _:
            return "queued"


def _again(address: str, at: Situation) -> bool:
    return at.doubts >= 1 and (at.doubted is None or address in at.doubted)


def next_delay(retry: RetrySettings, attempts: int, rng: random.Random) -> timedelta:
    """Pause after ``attempts`` (1 or more) tries; the last delay repeats, jitter keeps a crowd from coming at once."""
    delay = retry.delays[min(max(attempts, 1), len(retry.delays)) - 1]
    return delay * rng.uniform(1 - retry.jitter, 1 + retry.jitter)


def _delay(attempts: int, waiting: Sequence[Outcome], at: Situation, doubtful: bool) -> timedelta:
    """Until all that wait may be tried. A provider's hint takes the place of our own delay, which it grows up to."""
    if doubtful:
        own = max(at.retry.delays)  # the longest: the provider may still be working on the first copy
    elif at.patient:
        own = at.rest
    else:
        own = max(next_delay(at.retry, attempts, at.rng), at.rest)
    delays = [own]
    if hints := [one.retry_after for one in waiting if one.retry_after is not None and one.scope is not Scope.BACKEND]:
        longest = max(own, timedelta(seconds=1)).total_seconds()
        grown = [lengthened(hint.total_seconds(), attempts, longest) for hint in hints]
        delays = [timedelta(seconds=max(grown)), *([own] if len(hints) < len(waiting) else [at.rest])]
    return max(delays)


def _expire(outcome: Outcome) -> Outcome:
    text = f"{_GAVE_UP}; last answer: {outcome.detail or outcome.verdict.value}"
    verdict = outcome.verdict if outcome.verdict is Verdict.MISCONFIGURED else Verdict.REJECTED
    return replace(outcome, verdict=verdict, enhanced=EXPIRED, detail=text)
