"""Where SQLite's spool keeps a body: in its row, or in a segment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from gateway.spool.line import Line
from gateway.spool.segment import Extent
from gateway.spool.segments import Segments

_EXTENTS = "SELECT segment, start, length FROM body WHERE segment > 0"
_COUNTED = """
SELECT segment, count(*) AS n, max(start + length) AS end FROM body WHERE segment > 0
GROUP BY segment ORDER BY segment"""
MISSING = "put them back and start again, then: gateway queue release --state corrupt; else what lay there is lost"
LEFT = "no message of this spool.db lies there: put back the one that was here before, or delete them"
# Bodies lie one behind the other: it is the last that begins before the end, or none.
_LED_TO = """
SELECT start + length AS end FROM body WHERE segment = ? AND segment > 0 AND start < ? ORDER BY start DESC LIMIT 1"""


class Stowing:
    """The part of the engine that does (engine.Engine)."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, list[str]] = {}
        self._segments = Segments(directory)

    def stow(self, raw: bytes) -> tuple[bytes, int, int, int]:
        there = self._segments.append(raw)
        return (raw, 0, 0, 0) if there is None else (b"", there.segment, there.start, there.length)

    def body(self, row: Any) -> bytes:
        raw: bytes = row["raw"]
        return self._segments.read(_extent(row)) if row["segment"] else raw

    def drop(self, rows: Iterable[Any]) -> None:
        self._segments.drop(_extents(rows))

    def allow(self, octets: int) -> None:
        self._segments.room = octets

    def _join(self, connection: Line) -> None:
        """Raises SpoolError, OSError, sqlite3.Error."""
        rows = [row for row in connection.all(_COUNTED) if _sound(row["segment"])]
        lost = self._segments.open({row["segment"]: row["n"] for row in rows}, rows[-1]["end"] if rows else 0)
        if lost:
            self.notes["missing"] = [str(self._segments.folder / f"{number:08d}") for number in lost]
        connection.last = self._segments.sync

    def _tidy(self, connection: Line, *, ours: bool) -> None:
        """``ours``: this is the very file that was in use when the service was killed."""

        def extents() -> Iterator[Extent]:
            return _extents(connection.all(_EXTENTS))

        with suppress(OSError):  # what is left over does no harm
            if left := self._segments.tidy(extents if ours else None):
                self.notes["left"] = [str(file) for file in left]

    def _given_back(self, connection: Line) -> str:
        """After a commit: what is wrong with the place of what it appended."""
        return self._segments.committed(partial(_leads_to, connection))

    def _all_given_back(self, connection: Line) -> bool:
        return self._segments.finish(partial(_leads_to, connection))


def _extent(row: Any) -> Extent:
    return Extent(row["segment"], row["start"], row["length"])


def _extents(rows: Iterable[Any]) -> Iterator[Extent]:
    """Those in segments; what is damaged may be of any type, and leads nowhere."""
    for row in rows:
        if row["segment"] and _sound(row["segment"]) and _sound(row["start"]) and _sound(row["length"]):
            yield _extent(row)


def _sound(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**40


def _leads_to(connection: Line, segment: int, start: int, end: int) -> bool:
    """When in doubt it does."""
    try:
        return any(row["end"] > start for row in connection.all(_LED_TO, (segment, end)))
    except (TypeError, sqlite3.Error):
        return True
