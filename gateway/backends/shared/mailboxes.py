"""What a provider allows one mailbox: calls in flight, calls and bytes in a time, and rest when it says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.recent import Recent
from gateway.checks import Use
from gateway.clock import Clock
from gateway.model import Outcome, Scope, Verdict
from gateway.ratelimit import Budget, lengthened

_KEPT = 1000  # mailboxes remembered; idle ones are forgotten first, the least recently used before others
_CROWD = 2  # messages for each place; more that wait would keep other mailboxes' mail waiting
_SOON = timedelta(seconds=10)
_SHORT = 5.0  # seconds that a send waits where mail of other mailboxes waits behind it
_LONG = 600.0  # ... and where nothing does: well below the limit for a send, which would end in doubt
_LONGEST = 900.0  # seconds of rest while it is throttled again and again
_IN_A_ROW = 3  # mailboxes
_HOUR = timedelta(hours=1)
_REST = timedelta(minutes=1)  # for a mailbox that asked for less and gave no time


@dataclass(slots=True)
class _Mailbox:
    places: asyncio.Semaphore
    calls: Budget
    bytes: Budget
    users: int = 0
    rest_until: float = 0.0  # monotonic seconds
    throttled: int = 0  # times in a row
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Mailboxes:
    """The turns of every mailbox that one backend sends as.

    ``many`` says that there may be several (``mailbox: sender``): then one that has to wait or rest must not hold up
    the others, and its mail is deferred instead of the whole backend being paused. ``own_tokens``: each has its own.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        many: bool,
        in_flight: int,
        calls: Callable[[], Budget],
        bytes_: Callable[[], Budget],
        own_tokens: bool = False,
    ) -> None:
        self._clock = clock
        self._many = many
        self._own_tokens = own_tokens
        self._in_flight = in_flight
        self._calls = calls
        self._bytes = bytes_
        self._refused: set[str] = set()  # since one was not
        self._known: Recent[str, _Mailbox] = Recent(_KEPT, self._in_use)

    @asynccontextmanager
    async def turn(self, name: str, *, calls: int = 1, size: int = 0) -> AsyncIterator[None]:
        """The call may be made within the block. Raises NoAnswer where this mailbox's mail has to wait."""
        mailbox = self._mailbox(name)
        if (
            self._many and calls and mailbox.users >= _CROWD * self._in_flight
        ):  # who waits here keeps others' mail waiting
            detail = "this mailbox has mail under way already"
            raise NoAnswer(Outcome(Verdict.DEFERRED, enhanced="4.4.5", detail=detail, retry_after=_SOON))
        mailbox.users += 1
        came = self._clock.monotonic()
        try:
            async with mailbox.places:
                async with mailbox.turn:  # in order: who came first pays first
                    await self._wait(mailbox, calls, size, came)
                yield
        except NoAnswer as error:
            raise NoAnswer(self.judged(name, error.outcome)) from None
        finally:
            mailbox.users -= 1

    async def _wait(self, mailbox: _Mailbox, calls: int, size: int, came: float) -> None:
        now = self._clock.monotonic()
        if now - came > _LONG:  # a send that is cut off before it began would look like one in doubt
            detail, fix = "no turn at this mailbox for too long", "lower the backend's concurrency"
            raise NoAnswer(Outcome(Verdict.DEFERRED, enhanced="4.4.5", detail=detail, fix=fix))
        wait = max(mailbox.rest_until - now, mailbox.calls.wait(calls, now), mailbox.bytes.wait(size, now))
        if wait > 0 and now - came + wait > (_SHORT if self._many else _LONG):
            detail, later = "this mailbox has sent as much as it may for now", timedelta(seconds=wait)
            verdict, scope = (Verdict.DEFERRED, Scope.MESSAGE) if self._many else (Verdict.THROTTLED, Scope.BACKEND)
            raise NoAnswer(Outcome(verdict, enhanced="4.4.5", detail=detail, retry_after=later, scope=scope))
        if wait > 0:
            await self._clock.sleep(wait)
            now = self._clock.monotonic()
        mailbox.calls.spend(calls, now)
        mailbox.bytes.spend(size, now)

    def uses(self, what: str, unit: str) -> tuple[Use, ...]:
        """How much of its calls the busiest mailbox has used just now."""
        now, one = self._clock.monotonic(), self._calls()
        used = max((mailbox.calls.used(now) for mailbox in self._known.values()), default=0.0)
        return (Use(what, used, one.amount, unit, one.period),)

    def judged(self, name: str, outcome: Outcome) -> Outcome:
        """What an answer means: with many mailboxes the throttled one rests alone, else the whole backend does."""
        if not self._many or outcome.verdict not in (Verdict.THROTTLED, Verdict.SENT, Verdict.MISCONFIGURED):
            return outcome
        if outcome.verdict is Verdict.MISCONFIGURED:
            return self._of_one(name, outcome)
        mailbox, now = self._mailbox(name), self._clock.monotonic()
        if outcome.verdict is Verdict.SENT:
            mailbox.throttled = 0
            self._refused.clear()
            return outcome
        mailbox.throttled += now >= mailbox.rest_until  # of those under way only the first counts
        seconds = lengthened((outcome.retry_after or _REST).total_seconds(), mailbox.throttled, _LONGEST)
        mailbox.rest_until = max(mailbox.rest_until, now + seconds)
        pause = timedelta(seconds=mailbox.rest_until - now)
        return replace(outcome, verdict=Verdict.DEFERRED, scope=Scope.MESSAGE, retry_after=pause)

    def _of_one(self, name: str, outcome: Outcome) -> Outcome:
        """A token that is refused for one mailbox (HTTP 401, SMTP 535); for several in a row it is refused for all."""
        if outcome.code not in (401, 535) or not self._own_tokens:
            return outcome
        self._refused.add(name.lower())
        if len(self._refused) >= _IN_A_ROW:
            return outcome
        return replace(outcome, verdict=Verdict.DEFERRED, scope=Scope.MESSAGE, retry_after=_HOUR)

    def _in_use(self, mailbox: _Mailbox) -> bool:
        return mailbox.users > 0 or mailbox.rest_until > self._clock.monotonic()

    def _mailbox(self, name: str) -> _Mailbox:
        key = name.lower()
        found = self._known.get(key)
        return found or self._known.put(key, _Mailbox(asyncio.Semaphore(self._in_flight), self._calls(), self._bytes()))
