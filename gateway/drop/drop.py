"""Owns those who collect mail from folders: starts, looks after, replaces and stops them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.drop import folder, letter, posted
from gateway.drop.collector import QUIET, Collector, Kind
from gateway.drop.folder import Places
from gateway.drop.judge import Judge
from gateway.events import Events
from gateway.spool import Filter, Spool

_RESTART = 1.0  # seconds
_PATIENCE = 10.0  # seconds for what is being taken in at a stop


def places(settings: Settings) -> dict[str, Places]:
    """All folders that mail is taken from, by name."""
    named = {name: folder.pickup(section.directory) for name, section in settings.pickup.items()}
    return {folder.MAILDROP: folder.maildrop(settings.state_dir), **named}


class Drop:
    """The maildrop, and the folders of the setting ``pickup``."""

    def __init__(self, spool: Spool, ids: Callable[[], str], events: Events, clock: Clock) -> None:
        self._spool = spool
        self._ids = ids
        self._events = events
        self._clock = clock
        self._tasks: dict[Collector, asyncio.Task[None]] = {}

    def update(self, settings: Settings, judge: Judge) -> None:
        """From now on these folders, by this judge: at the start, and at each reload."""
        ours = Kind(letter.read, ours=True, quiet=0)
        plain = Kind(partial(posted.read, domain=settings.hostname), ours=False, quiet=QUIET)
        wanted = places(settings)
        there = {(one.name, one.places): one for one in self._tasks}
        for name, where in wanted.items():
            kind = ours if name == folder.MAILDROP else plain
            if collector := there.pop((name, where), None):
                collector.kind, collector.judge = kind, judge
            else:
                self._start(Collector(name, where, kind, judge, self._ids, self._known))
        for collector in there.values():
            collector.stop()
        self._events.drop_folders(wanted)

    def _start(self, collector: Collector) -> None:
        async def look_after() -> None:
            while True:
                try:
                    return await collector.run()
                except Exception as error:
                    self._events.bug(f"drop.{collector.name}", error)
                    await self._clock.sleep(_RESTART)

        task = self._tasks[collector] = asyncio.create_task(look_after(), name=f"drop.{collector.name}")
        task.add_done_callback(lambda _: self._tasks.pop(collector))

    async def _known(self, ids: Collection[str]) -> set[str]:
        rows = await self._spool.find(Filter(ids=tuple(ids)), limit=len(ids)) if ids else []
        return {row.id for row in rows}

    @property
    def hanging(self) -> set[str]:
        """The folders whose disk does not answer."""
        return {collector.name for collector in self._tasks if collector.hangs}

    @property
    def reasons(self) -> dict[str, str]:
        """Why mail waits in a folder, by its name; "" where none has to."""
        return {collector.name: collector.reason for collector in self._tasks}

    async def stop(self, seconds: float) -> None:
        """What is being taken in may end within these; what hangs on a disk is left to the next start."""
        tasks = list(self._tasks.values())
        for collector in self._tasks:
            collector.stop()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=min(seconds, _PATIENCE))
            for task in late:
                task.cancel()
