"""How a backend stands, as an operator sees it: state and cause, limits, and what was heard of it last."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gateway.checks import Use
from gateway.clock import Clock
from gateway.config.models import BackendSettings
from gateway.delivery.breaker import FOREVER, CircuitBreaker, State
from gateway.model import Outcome, Verdict
from gateway.quota import Rate

_COUNTED = 10_000  # sends whose times are kept to show how much of a rate is used


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the last attempt that has ended came to."""

    at: datetime
    id: str
    verdict: str
    code: int | None
    enhanced: str
    detail: str
    fix: str
    said_by: str


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What ``backend list`` shows of one backend. ``in_flight`` counts attempts; ``paused_until`` None is for ever.

    ``state`` is working, slowed_down, paused or stopped; ``since`` is when that began, None while it works, and ``who``
    ordered it. ``owner`` is the instance that works it where several share the queue, else "".
    """

    name: str
    type: str
    queued: int
    in_flight: int
    paused_until: datetime | None
    paused_by: str
    reason: str
    last_success: datetime | None
    fix: str = ""
    state: str = "working"
    since: datetime | None = None
    who: str = ""
    title: str = ""
    concurrency: int = 0
    uses: tuple[Use, ...] = ()
    heard: Heard | None = None
    owner: str = ""


@dataclass(slots=True)
class Record:
    """What a worker remembers of its backend. Nothing here costs more than a few steps an attempt."""

    clock: Clock
    rate: Rate | None
    last_success: datetime | None = None
    heard: Heard | None = None
    _starts: deque[float] = field(default_factory=lambda: deque(maxlen=_COUNTED))

    def begun(self) -> None:
        if self.rate:
            self._starts.append(self.clock.monotonic())

    def ended(self, ident: str, outcomes: Mapping[str, Outcome], cause: Outcome | None) -> None:
        """An attempt at a message has ended; ``cause`` is what opened the breaker, if anything did."""
        now = self.clock.now()
        sent = any(outcome.verdict is Verdict.SENT for outcome in outcomes.values())
        if sent:
            self.last_success = now
        said = cause or next((one for one in outcomes.values() if not sent or one.verdict is Verdict.SENT), None)
        if said is not None:
            self.heard = Heard(
                at=now, id=ident, verdict=said.verdict.value,
                code=said.code, enhanced=said.enhanced, detail=said.detail, fix=said.fix, said_by=said.said_by,
            )  # fmt: skip

    def know(self, last_success: datetime | None, heard: Heard | None, shift: timedelta) -> None:
        """What another instance said, at times that are to be moved by that."""
        self.last_success = last_success + shift if last_success else None
        self.heard = replace(heard, at=heard.at + shift) if heard else None

    def uses(self) -> tuple[Use, ...]:
        if self.rate is None:
            return ()
        seconds, now = self.rate.period.total_seconds(), self.clock.monotonic()
        while self._starts and self._starts[0] <= now - seconds:
            self._starts.popleft()
        return (Use("rate", len(self._starts), self.rate.count, "messages", seconds),)


def status_of(
    name: str,
    settings: BackendSettings,
    breaker: CircuitBreaker,
    record: Record,
    *,
    queued: int,
    in_flight: int,
    own: Sequence[Use] = (),
) -> BackendStatus:
    """``own``: the limits of its provider."""
    now, wall = record.clock.monotonic(), record.clock.now()
    state = breaker.state(now)
    works, ends = state is State.CLOSED, state is State.OPEN and breaker.until != FOREVER
    return BackendStatus(
        name=name,
        type=settings.type,
        queued=queued,
        in_flight=in_flight,
        paused_until=wall + timedelta(seconds=breaker.until - now) if ends else None,
        paused_by="" if works else breaker.by,
        reason="" if works else breaker.reason,
        fix="" if works else breaker.fix,
        last_success=record.last_success,
        state=breaker.condition(now),
        since=None if works else wall - timedelta(seconds=now - breaker.since),
        who="" if works else breaker.who,
        title=settings.title,
        concurrency=settings.concurrency,
        uses=(*record.uses(), *own),
        heard=record.heard,
    )
