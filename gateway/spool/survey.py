"""Looks over the whole spool while it is in use: who sends of late, and whether its file is whole."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

# The newest so many messages: ids sort by time, so this reads no more of the table than that.
SENDERS = """
SELECT CASE WHEN m.header_from <> '' THEN m.header_from ELSE m.sender END AS address,
       d.backend AS backend, count(*) AS n
FROM (SELECT id, sender, header_from FROM message WHERE NOT bounce ORDER BY id DESC LIMIT :limit) AS m
JOIN delivery AS d ON d.message_id = m.id
GROUP BY 1, 2 ORDER BY n DESC LIMIT 200
"""
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name = 'body', name"
_STEPS = 50_000  # of SQLite's machine between looks at the time


@dataclass(frozen=True, slots=True)
class SenderRow:
    """So many (``n``) of the newest messages left, or were to leave, by a backend under this From address."""

    address: str
    backend: str
    n: int


@dataclass(frozen=True, slots=True)
class Survey:
    """``fault`` is what SQLite found, "" for nothing. ``whole``: all of it was looked through in time."""

    fault: str
    whole: bool


def quick_check(path: Path, late: Callable[[], bool]) -> Survey:
    """Look through tables and indexes of a spool in use, by a connection that cannot write. Blocks until ``late``.

    Table by table, the bytes of mail last, and each in a transaction of its own: a reader that stays keeps the log from
    being used anew.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)) as connection:
        connection.set_progress_handler(lambda: int(late()), _STEPS)
        try:
            for (table,) in connection.execute(_TABLES).fetchall():
                [(said,)] = connection.execute(f'PRAGMA quick_check("{table}")').fetchmany(1)
                if said != "ok":
                    return Survey(f"{table}: {said}"[:300], True)
        except sqlite3.OperationalError as error:
            if late():
                return Survey("", False)
            raise error
        except sqlite3.DatabaseError as error:
            return Survey(str(error)[:300], True)
    return Survey("", True)


def overdue(seconds: float) -> Callable[[], bool]:
    """True from so many seconds on."""
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    timer.start()
    return over.is_set
