"""A copy of a spool in use: consistent, whole or not at all, and durable. All of it blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.spool.opening import publish
from gateway.spool.segment import Extent

_AT_A_TIME = 10_000  # pages
_OUTSIDE = "SELECT message_id, segment, start, length FROM body WHERE segment > 0"
_INSIDE = "UPDATE body SET raw = ?, segment = 0, start = 0, length = 0 WHERE message_id = ?"


def copy(
    source: sqlite3.Connection,
    to: Path,
    read: Callable[[Extent], bytes] | None = None,
    *,
    tell: Callable[[float], None] | None = None,
) -> None:
    """With ``read`` it has all bodies within; else those in segments stay there. ``tell`` hears what share is done."""
    fresh = to.with_name(f"{to.name}.part")
    try:
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as destination:
            source.backup(destination, pages=_AT_A_TIME if tell else -1, progress=_share(tell))
            if read is not None:
                _take_in(destination, read)
        publish(fresh, to)
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):  # half a copy would keep a full disk full
            fresh.with_name(f"{fresh.name}{ending}").unlink(missing_ok=True)


def _share(tell: Callable[[float], None] | None) -> Callable[[int, int, int], None] | None:
    return None if tell is None else lambda _, left, whole: tell(1 - left / (whole or 1))


def _take_in(copied: sqlite3.Connection, read: Callable[[Extent], bytes]) -> None:
    """In a transaction each: all of them would fill the log."""
    if "segment" not in {column[1] for column in copied.execute("PRAGMA table_info(body)")}:
        return  # of an older version
    copied.execute("PRAGMA synchronous=OFF")  # it is synced as a whole
    for ident, *extent in copied.execute(_OUTSIDE).fetchall():
        copied.execute(_INSIDE, (read(Extent(*extent)), ident))
