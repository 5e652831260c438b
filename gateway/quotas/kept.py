"""What counts, in a file of its own beside the spool: a day's quota is not whole again because of a restart.

Each instance has one. A crash takes along what was counted in the last seconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.events import Events
from gateway.files import write_whole
from gateway.pools import Pool
from gateway.quotas.counts import Key, Kind, Quotas

NAME = "quotas.json"
EVERY = 5.0  # seconds between writes
_MEASURED = 6  # rounds between looks at how much is used
_VERSION = 1
_write = Pool("quotas", 1)  # its disk may hang: then nobody but the next write waits

Kept = list[tuple[Key, Kind, list[tuple[int, int]]]]


def as_text(kept: Kept, at: datetime) -> bytes:
    rows = [[*key, *kind, spent] for key, kind, spent in kept]
    return json.dumps({"version": _VERSION, "at": at.isoformat(), "spent": rows}, separators=(",", ":")).encode()


def put_back(quotas: Quotas, text: bytes, at: datetime, now: float) -> None:
    """``at`` and ``now`` are this moment on the wall and in monotonic seconds. Raises ValueError for a damaged file.

    A clock that was set back since then leaves all as it was; nothing ever counts for longer than its period.
    """
    try:
        found: Mapping[str, Any] = json.loads(text)
        if found["version"] != _VERSION:
            raise ValueError("of another version")
        passed = max(0.0, (at - datetime.fromisoformat(found["at"])).total_seconds())
        rows = [
            ((str(name), str(who)), (str(what), float(period)), [(int(ago), int(spent)) for ago, spent in each])
            for name, who, what, period, each in found["spent"]
        ]
        if any(not 1 <= period <= 86400 or not all(0 <= n < 2**31 for _, n in each) for _, (_, period), each in rows):
            raise ValueError("numbers that cannot be")
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"not what was written: {error!r}") from None
    for key, kind, each in rows:
        quotas.put_back(key, kind, each, passed, now)


class QuotaFile:
    """Keeps what ``quotas`` counts in the folder, and tells of who sends too much."""

    def __init__(self, quotas: Quotas, folder: Path, clock: Clock, events: Events) -> None:
        self._quotas = quotas
        self._path = folder / NAME
        self._clock = clock
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @classmethod
    async def begin(cls, quotas: Quotas, folder: Path, clock: Clock, events: Events) -> QuotaFile:
        """Go on with what was counted before, and write down now and then what is, until ``aclose``."""
        kept = cls(quotas, folder, clock, events)
        quotas.on_over = events.over_quota
        try:
            text = await _write(kept._path.read_bytes)
            put_back(quotas, text, clock.now(), clock.monotonic())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            events.warning("quotas_unread", path=str(kept._path), detail=str(error))
        kept._task = asyncio.create_task(kept._run(), name="quotas")
        return kept

    async def aclose(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.flush()

    async def _run(self) -> None:
        for number in count():
            await self._clock.sleep(EVERY)
            try:
                await self.flush()
                if number % _MEASURED == 0:
                    self.measure()
            except Exception as error:
                self._events.bug("quotas", error)

    def measure(self) -> None:
        """How much is used, for the metrics: who sends no more has used less and less."""
        now = self._clock.monotonic()
        for name, quota in self._quotas.known.items():
            used = (one.used / one.rate.count for one in self._quotas.used(name, quota, now))
            self._events.quota_used(name, max(used, default=0.0))

    async def flush(self) -> None:
        """Write, if anything was counted since the last time. What cannot be written is counted all the same."""
        if not self._quotas.changed:
            return
        self._quotas.changed = False
        now, at = self._clock.monotonic(), self._clock.now()
        kept = [(key, kind, spent) for key, kind, ring in self._quotas.rings() if (spent := ring.spent(now))]
        try:
            await _write(lambda: write_whole(self._path, as_text(kept, at)))
            self._failed = False
        except OSError as error:
            self._quotas.changed = True
            if not self._failed:
                self._events.warning("quotas_unwritten", path=str(self._path), detail=str(error))
            self._failed = True
