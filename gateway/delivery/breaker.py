"""The circuit breaker of one backend: when it rests, until when, why, by whom, and what a person has to do about it.

Closed, it works. Open, it rests. Half open, the rest is over but nothing has succeeded since: one message at a time.
What is said of one message rests nobody, until several different ones in a row have heard it: then it was not theirs.
Pure state: time is passed in, as monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from gateway.model import Outcome, Scope, Verdict
from gateway.ratelimit import lengthened

FOREVER = float("inf")
OPERATOR = "operator"
MISCONFIGURED = "misconfigured"
UNREACHABLE = "unreachable"
THROTTLED = "throttled"
_IN_A_ROW = 3  # different messages that were put off, and none was taken between
_REGAINED = 0.005  # of all places, with each message that was sent
# What opens it, the gravest first; the first rest in seconds, which a hint of the provider replaces, and the longest.
_CAUSES = {
    Verdict.MISCONFIGURED: (MISCONFIGURED, 60.0, 900.0),
    Verdict.THROTTLED: (THROTTLED, 60.0, 900.0),
    Verdict.DEFERRED: (UNREACHABLE, 15.0, 60.0),
}


class State(Enum):
    """Only a closed breaker lets the backend work at its full concurrency."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an attempt means for its backend and for the message.

    ``opened_by`` is the outcome by which this attempt opened the breaker; ``rest`` is how long to wait then.
    ``patient``: the message is not to blame, so the attempt does not count. ``answered``: the other side is there,
    and nothing is wrong with the backend.
    """

    opened_by: Outcome | None = None
    rest: timedelta = timedelta(0)
    patient: bool = False
    answered: bool = False


class CircuitBreaker:
    """``by`` is misconfigured, throttled, unreachable, operator, or "" while closed; ``until`` may be FOREVER.

    ``since`` is when it opened for this cause, ``who`` ordered it.

    ``share`` is how much of its concurrency the backend may use: half as much each time it asks for less.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self.by = self.reason = self.fix = self.who = ""
        self.since = 0.0
        self._failures = 0  # probes in a row, the attempt that opened it counted
        self._cause, self._alike = "", 0  # of the last of them, and how many in a row had it
        self.share = 1.0
        self._waiting: set[str] = set()
        self._put_off: dict[str, set[str]] = {}  # recipients by message

    def state(self, now: float) -> State:
        if now < self.until:
            return State.OPEN
        return State.HALF_OPEN if self._failures else State.CLOSED

    def is_open(self, now: float) -> bool:
        return now < self.until

    def judge(self, message_id: str, outcomes: Mapping[str, Outcome], now: float) -> Ruling:
        """Open it where the outcomes call for that; closing is for the caller, who has messages to wake."""
        cause = _cause(outcomes)
        late = self.is_open(now)  # was under way when it opened, and had no chance of its own
        guilty = cause or (None if late else self._suspect(message_id, outcomes))
        if any(outcome.verdict is Verdict.SENT for outcome in outcomes.values()):
            self._put_off.clear()
            self.share = min(1.0, self.share + _REGAINED)
        if guilty is None:
            # A throttled one that puts off its probe is there, but works only when it takes one.
            doubtful = self.by == THROTTLED and _put_off(outcomes) is not None
            return Ruling(answered=not doubtful and any(map(_answered, outcomes.values())))
        by, first, longest = _CAUSES[guilty.verdict]
        self._failures += not late
        self._alike = self._alike + (not late) if by == self._cause else 1
        self._cause = by
        hint = guilty.retry_after
        seconds = lengthened(first if hint is None else hint.total_seconds(), self._alike, longest)
        if guilty.verdict is Verdict.THROTTLED and not late:
            self.share /= 2
        if self.by != OPERATOR:
            if by != self.by:
                self.since = now
            self.by, self.reason, self.fix = by, guilty.detail, guilty.fix
            self.until = max(self.until, now + seconds)
        if late or by == MISCONFIGURED:
            self._waiting.add(message_id)
        patient = cause is not None and (late or guilty.verdict is not Verdict.DEFERRED)
        return Ruling(None if late else guilty, timedelta(seconds=seconds), patient)

    def _suspect(self, message_id: str, outcomes: Mapping[str, Outcome]) -> Outcome | None:
        """What the backend itself is guilty of, now that one more message heard it for others than those before."""
        said = _put_off(outcomes)
        if said is None or message_id in self._put_off:
            return None
        doubt = said.verdict is Verdict.IN_DOUBT  # whoever it is for
        if not doubt and any(set(outcomes) & one for one in self._put_off.values()):
            return None
        self._put_off[message_id] = set(outcomes)
        if len(self._put_off) < _IN_A_ROW and not (doubt and self.by == UNREACHABLE):  # as a probe
            return None
        self._put_off.clear()
        if doubt:
            detail = f"messages got no answer: {said.detail}"
            return replace(said, verdict=Verdict.DEFERRED, scope=Scope.BACKEND, detail=detail, retry_after=None)
        detail = f"{_IN_A_ROW} messages in a row were put off: {said.detail}"
        return replace(said, verdict=Verdict.THROTTLED, scope=Scope.BACKEND, detail=detail)

    def condition(self, now: float) -> str:
        """A word for people: working, slowed_down by the provider, paused by a person, or stopped, until it is known
        to work again."""
        if self.state(now) is State.CLOSED:
            return "working"
        return {OPERATOR: "paused", THROTTLED: "slowed_down"}.get(self.by, "stopped")

    def pause(self, now: float, seconds: float | None, who: str = "", since: float | None = None) -> None:
        """Open by order of ``who``, for so long or until it is closed by order. Paused already, it only ends then.

        ``since``: the order was given then, and is heard of now.
        """
        if self.by != OPERATOR or not self.is_open(now):
            self.who, self.since = who, now if since is None else since
        self.by, self.reason, self.fix = OPERATOR, f"paused by {self.who or 'the operator'}", ""
        self.until = FOREVER if seconds is None else now + seconds

    def know(
        self, now: float, *, by: str = "", reason: str = "", fix: str = "", who: str = "",
        since: float | None = None, until: float = 0.0,
    ) -> None:  # fmt: skip
        """As who works the backend says that it stands; "" for ``by``: it works."""
        self.close()
        self.by, self.reason, self.fix, self.who = by, reason, fix, who
        self.since, self.until = now if since is None else since, until
        self._failures = int(by not in ("", OPERATOR))

    def close(self) -> tuple[str, ...]:
        """Back to work; returns the ids of the messages that only waited for the backend."""
        waiting = tuple(sorted(self._waiting))
        self._waiting.clear()
        self._put_off.clear()
        self.until, self._failures = 0.0, 0
        self._cause, self._alike = "", 0
        self.by = self.reason = self.fix = self.who = ""
        return waiting


def _cause(outcomes: Mapping[str, Outcome]) -> Outcome | None:
    """The gravest outcome about the backend as a whole, of several the one with the longest hint; None for none."""
    for verdict in _CAUSES:
        found = [one for one in outcomes.values() if one.verdict is verdict and one.scope is Scope.BACKEND]
        if found:
            return max(found, key=lambda outcome: outcome.retry_after or timedelta(0))
    return None


def _put_off(outcomes: Mapping[str, Outcome]) -> Outcome | None:
    """What a message was put off with that nobody took, and that any may hear: by SMTP, as a limit, or nothing."""
    if any(outcome.verdict is Verdict.SENT for outcome in outcomes.values()):
        return None
    return next((one for one in outcomes.values() if one.scope is Scope.MESSAGE and _of_any(one)), None)


def _of_any(outcome: Outcome) -> bool:
    said = outcome.verdict is Verdict.DEFERRED and outcome.said_by == "smtp"
    return said or outcome.verdict in (Verdict.THROTTLED, Verdict.IN_DOUBT)


def _answered(outcome: Outcome) -> bool:
    """Words of the other side; what we made up about a message proves nothing."""
    return outcome.verdict is Verdict.SENT or (outcome.said_by != "gateway" and outcome.verdict is not Verdict.IN_DOUBT)
