"""What an upgrade of the spool is at, told to the log: at its start, every few seconds, and at its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.clock import Clock
from gateway.events import Events

_EVERY = 5.0  # seconds
_STEPS = 200_000  # of SQLite's machine, some 10 ms, between two looks at the time


class Progress:
    """To the log. Without ``events`` nobody waits for it."""

    def __init__(self, events: Events | None = None, clock: Clock | None = None) -> None:
        self._events = events
        self._clock = clock
        self._next = 0.0  # monotonic seconds

    @contextmanager
    def upgrading(self, path: Path, old: str, new: str) -> Iterator[None]:
        begun = self._now()
        self._next = begun + _EVERY
        self._say("spool_upgrade", path=str(path), schema=old, to=new, bytes=path.stat().st_size)
        yield
        self._say("spool_upgraded", path=str(path), schema=new, seconds=round(self._now() - begun, 1))

    def tell(self, doing: str, share: float) -> None:
        """``share`` of what is to do is done."""
        if (now := self._now()) >= self._next:
            self._next = now + _EVERY
            self._say("spool_upgrading", doing=doing, percent=min(99, int(100 * share)))

    @contextmanager
    def working(self, connection: sqlite3.Connection, doing: str, expected: int) -> Iterator[None]:
        """While SQLite is at it, which takes about so many steps of its machine."""
        steps = 0

        def look() -> int:
            nonlocal steps
            steps += _STEPS
            self.tell(doing, steps / max(expected, 1))
            return 0

        connection.set_progress_handler(look, _STEPS)
        try:
            yield
        finally:
            connection.set_progress_handler(None, 0)

    def _now(self) -> float:
        return self._clock.monotonic() if self._clock else 0.0

    def _say(self, event: str, **facts: str | int | float) -> None:
        if self._events:
            self._events.info(event, **facts)
