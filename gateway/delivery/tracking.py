"""What became of mail after the provider took it: polled on a fixed schedule, a few questions at a time.

Nothing here changes the state of a message or the pace of a worker; answers are kept beside the message's history.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from gateway.clock import Clock
from gateway.delivery.breaker import CircuitBreaker
from gateway.events import Events
from gateway.model import DeliveryEvent, Outcome, SpoolTrouble, Tracked, Verdict
from gateway.spool import Poll, Spool

# From the hand-over to the first question, then from each to the next; after the last there is none.
SCHEDULE = tuple(timedelta(seconds=s) for s in (30, 120, 600, 3600, 6 * 3600, 24 * 3600))
AT_ONCE = 4
LOOK = 15.0  # seconds between looks at the spool while nothing is due
PATIENCE = 120.0  # seconds for one answer; backends keep shorter deadlines of their own
_REST = timedelta(minutes=1)  # where a provider that wants to be left alone does not say for how long
_BUSY = (Verdict.THROTTLED, Verdict.MISCONFIGURED)


class Tracker:
    """Polls one backend. Cancelled at any moment it loses nothing: what has no answer in the spool is asked again."""

    def __init__(
        self, name: str, backend: Tracked, breaker: CircuitBreaker, spool: Spool, events: Events, clock: Clock
    ) -> None:
        self._name = name
        self._backend = backend
        self._breaker = breaker
        self._spool = spool
        self._events = events
        self._clock = clock
        self._quiet_until = 0.0

    async def run(self) -> None:
        while True:
            await self._clock.sleep(await self._round())

    async def _round(self) -> float:
        """Poll what is due; returns the seconds until it is worth looking again."""
        now = self._clock.monotonic()
        if self._breaker.is_open(now) or now < self._quiet_until:
            return LOOK
        waiting = await self._spool.polls(self._name, AT_ONCE)
        at = self._spool.now()
        due = [poll for poll in waiting if poll.next_at <= at]
        async with asyncio.TaskGroup() as group:
            for poll in due:
                group.create_task(self._poll(poll))
        if len(due) < len(waiting):
            return min(LOOK, (waiting[len(due)].next_at - at).total_seconds())
        return 0.0 if due else LOOK

    async def _poll(self, poll: Poll) -> None:
        answer = await self._status(poll.remote_id)
        asked = poll.asked + 1
        wait = SCHEDULE[asked] if asked < len(SCHEDULE) else None
        try:
            if isinstance(answer, Outcome):
                wait = wait and max(wait, answer.retry_after or wait)
            else:
                await self._spool.add_events(self._name, [replace(answer, remote_id=poll.remote_id)], "poll")
            await self._spool.poll_again(poll, None if wait is None else self._spool.now() + wait)
        except SpoolTrouble:  # asked again when the disk takes the answer
            self._rest(LOOK)

    async def _status(self, remote_id: str) -> DeliveryEvent | Outcome:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._backend.status(remote_id)
        except TimeoutError:
            return Outcome(Verdict.DEFERRED)
        except Exception as error:
            self._events.bug(f"backend.{self._name}", error)
            return Outcome(Verdict.DEFERRED)
        if isinstance(answer, Outcome) and answer.verdict in _BUSY:
            self._rest((answer.retry_after or _REST).total_seconds())
        return answer

    def _rest(self, seconds: float) -> None:
        self._quiet_until = max(self._quiet_until, self._clock.monotonic() + seconds)
