"""Long work that somebody ordered: carried out in the service step by step, looked at, stopped between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.clock import Clock
from gateway.events import Events
from gateway.http.outcome import Changed
from gateway.model import Fault

KEPT = 50  # pieces of work that are remembered
RESULTS = 3  # of them, whose whole answer is: it may name 250,000 messages
AT_ONCE = 8


class Stopped(Exception):
    """Somebody does not want the rest of it."""


class Busy(Exception):
    """As much is under way as may be."""


@dataclass(slots=True, eq=False)
class Work:
    """``total``: how many messages it is about, ``total_more``: or more; ``changed`` of them so far.

    ``state`` is running, stopping, done, stopped, or failed, and then ``error`` says why. What was done holds in any
    case. ``result`` is what the act would have answered, as far as it went; null before it has ended,
    and of all but the last three that have. ``tenant`` is whose log-in ordered it, "" for an operator's.
    """

    id: int
    verb: str
    what: str
    by: str
    total: int
    total_more: bool
    started_at: datetime
    ended_at: datetime | None = None
    state: Literal["running", "stopping", "done", "stopped", "failed"] = "running"
    changed: int = 0
    error: str = ""
    result: Changed | None = None
    tenant: str = ""

    def go_on(self, changed: int) -> None:
        """Between two steps. Raises Stopped."""
        self.changed = changed
        if self.state == "stopping":
            raise Stopped


class Works:
    """All that is under way, and the last of what has ended. Nothing of it outlives the service."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self._clock = clock
        self._events = events
        self._works: dict[int, Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = 0
        self._closing = False

    def all(self) -> list[Work]:
        """The last first."""
        return list(self._works.values())[::-1]

    def get(self, number: int) -> Work | None:
        return self._works.get(number)

    def start(
        self, verb: str, what: str, by: str, *, total: int, total_more: bool, run: Callable[[Work], Awaitable[None]],
        tenant: str = "",
    ) -> Work:  # fmt: skip
        """``run`` counts in the work what it does. Raises Busy."""
        if self._closing or len(self._tasks) >= AT_ONCE:
            raise Busy
        self._last += 1
        work = Work(self._last, verb, what, by, total, total_more, self._clock.now(), tenant=tenant)
        self._works[work.id] = work
        for old in [one for one, kept in self._works.items() if kept.ended_at][: max(0, len(self._works) - KEPT)]:
            del self._works[old]
        for kept in [kept for kept in self._works.values() if kept.result][:-RESULTS]:
            kept.result = None
        task = asyncio.create_task(self._carry_out(work, run), name=f"work-{work.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return work

    async def _carry_out(self, work: Work, run: Callable[[Work], Awaitable[None]]) -> None:
        try:
            await run(work)
            work.state = "done"
        except Stopped:
            work.state = "stopped"
        except Fault as fault:
            work.state, work.error = "failed", fault.text
        except Exception as error:
            work.state, work.error = "failed", "internal error, see the log"
            self._events.bug(f"work.{work.verb}", error)
        finally:
            work.ended_at = self._clock.now()

    def stop(self, work: Work) -> None:
        """After the step that it is at; nothing where it has ended."""
        if work.state == "running":
            work.state = "stopping"

    async def aclose(self) -> None:
        """Stop it all, and wait for the steps under way; nothing begins any more."""
        self._closing = True
        for work in self._works.values():
            self.stop(work)
        if self._tasks:
            await asyncio.wait(self._tasks)
