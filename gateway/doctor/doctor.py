"""Who runs the doctor in a service: one run at a time, whose report is kept until the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module

from gateway.doctor.finding import AREAS, Finding
from gateway.doctor.report import Report
from gateway.doctor.subject import Subject
from gateway.pools import read_files


class Busy(Exception):
    """No run can begin now; the text says why: another is under way, or the service ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """A run that has not ended. ``done`` are the areas that have."""

    since: datetime
    by: str
    areas: tuple[str, ...]
    done: tuple[str, ...]


class Doctor:
    """``subject`` is asked at each run what there is to look at."""

    def __init__(self, subject: Callable[[], Subject]) -> None:
        self.last: Report | None = None
        self._subject = subject
        self._run: asyncio.Task[Report] | None = None
        self._began: UnderWay | None = None
        self._closed = False
        self._done: list[str] = []
        self._waited: Mapping[str, int] = {}

    @property
    def under_way(self) -> UnderWay | None:
        if self._began is None or self._run is None or self._run.done():
            return None
        began = self._began
        return UnderWay(since=began.since, by=began.by, areas=began.areas, done=tuple(self._done))

    def start(self, by: str, areas: Sequence[str] = ()) -> asyncio.Task[Report]:
        """Begin a run of these areas, () for all. Raises Busy, and ValueError for what is no area.

        Nobody has to wait for the task: who asked may go.
        """
        if unknown := [area for area in areas if area not in AREAS]:
            raise ValueError(f"no area {', '.join(unknown)}; there are {', '.join(AREAS)}")
        if self._closed:
            raise Busy("the service is stopping")
        if (other := self.under_way) is not None:
            raise Busy(f"a run that {other.by} asked for at {other.since:%H:%M:%SZ} is under way; wait for its end")
        chosen = tuple(area for area in AREAS if area in areas) or tuple(AREAS)
        subject = self._subject()
        self._done = []
        self._began = UnderWay(since=subject.clock.now(), by=by, areas=chosen, done=())
        self._run = asyncio.create_task(self._examine(subject, by, chosen), name="doctor")
        return self._run

    async def run(self, by: str, areas: Sequence[str] = ()) -> Report:
        """``start`` and its end; who is cancelled here does not stop it."""
        return await asyncio.shield(self.start(by, areas))

    async def aclose(self) -> None:
        """The service ends, and the run with it, before what it looks at does."""
        self._closed = True
        if self._run is not None:
            self._run.cancel()
            with suppress(asyncio.CancelledError):
                await self._run

    async def _examine(self, subject: Subject, by: str, areas: tuple[str, ...]) -> Report:
        clock = subject.clock
        at, began = clock.now(), clock.monotonic()
        looks = await read_files(lambda: import_module("gateway.doctor.examine"))  # only now: many are never asked
        found: tuple[Finding, ...] = await looks.examine(
            replace(subject, before=self._waited), areas, done=self._done.append
        )
        if subject.spool is not None:
            self._waited = await subject.spool.queued()
        took = round(clock.monotonic() - began, 1)
        self.last = Report(at=at, by=by, seconds=took, service=subject.runs, areas=areas, findings=found)
        return self.last
