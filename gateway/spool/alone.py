"""What an engine answers that has the database to itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from gateway.clock import Clock
from gateway.spool.engine import Connection
from gateway.spool.line import Line
from gateway.spool.records import moment
from gateway.spool.steady import Seen, SpoolTime

_LAST = "SELECT spool_at, wall_at FROM clock"


class Alone:
    """The part of engine.Engine that is about other instances: there are none."""

    owner = ""  # whoever holds the lock makes all attempts
    shared = False

    reopen: Callable[[], Line]

    def resume(self, *, made: bool) -> tuple[Line, bool]:
        return self.reopen(), False

    def hasten(self) -> None:
        pass

    def time(self, clock: Clock, connection: Any) -> SpoolTime:
        return SpoolTime(clock, _last_seen(connection))

    def may_claim(self, connection: Any, backend: str) -> bool:
        return True

    def recounted(self, counts: Mapping[tuple[str, str], int]) -> None:
        pass

    def announce(self, connection: Any, backends: Collection[str]) -> None:
        pass


def _last_seen(connection: Connection) -> Seen | None:
    """As the run before left it."""
    with connection.begin():
        found = [row[name] for row in connection.all(_LAST) for name in ("spool_at", "wall_at")]
    if not found or not all(isinstance(value, int) for value in found):  # damaged: begin anew
        return None
    return Seen(moment(found[0]), moment(found[1]))
