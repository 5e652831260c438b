"""What one transaction did, for the counts of its hour (door_tables.Tally): gathered, and written as one statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.spool.door_tables import Tally
from gateway.spool.sql import insert_into

HOUR = 3_600_000_000  # microseconds
COLUMNS = ("accepted", "again", "sent", "failed", "deleted", "deferred", "refused")
ROW = ("hour_at", "listener", "client", "backend", *COLUMNS)
# What is counted already grows.
GROWS = "ON CONFLICT (hour_at, listener, client, backend) DO UPDATE SET " + ", ".join(
    f"{name} = tally.{name} + excluded.{name}" for name in COLUMNS
)
ADD = f"{insert_into(Tally, ' '.join(ROW))} {GROWS}"
_ENDED = frozenset(("done", "failed"))
_OUT = {"done": "sent", "failed": "failed"}


class Counting:
    """By what and by whom: way in and client count messages, backend and client recipients."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, str]] = Counter()

    def add(self, column: str, *, listener: str = "", client: str = "", backend: str = "", n: int = 1) -> None:
        self._counts[listener, client, backend, column] += n

    def changed(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Rows of messages with state, listener and client, by id, as they were and as they are."""
        for ident, row in before.items():
            old, new = row["state"], after[ident]["state"] if ident in after else ""
            if old == new:
                continue
            whose = {"listener": row["listener"], "client": row["client"]}
            if old in _ENDED and new:
                self.add("again", **whose)
            if new in _ENDED:
                self.add(_OUT[new], **whose)
            elif not new and old not in _ENDED:
                self.add("deleted", **whose)

    def rows(self, now: int) -> Iterator[tuple[Any, ...]]:
        """For ``ADD``, in the hour of ``now``."""
        for key in dict.fromkeys(key[:3] for key in self._counts):
            yield (now // HOUR * HOUR, *key, *(self._counts[*key, column] for column in COLUMNS))
