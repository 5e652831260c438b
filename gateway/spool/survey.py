"""Looks over the whole spool while it is in use: who sends of late, and whether its file is whole."""

from __future__ import annotations

import sqlite3
import threading
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
_STEPS = 1000  # of SQLite's machine between looks at the time
# SQLite before 3.41 looks through the pages of a table in one go, whatever the time: of mail itself so much at most.
_BODIES = 500_000_000  # octets of the whole file


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


def quick_check(path: Path, seconds: float) -> Survey:
    """Look through tables and indexes of a spool in use, by a connection that cannot write, for about so long. Blocks.

    Table by table, the bytes of mail last, and each in a transaction of its own: a reader that stays keeps the log from
    being used anew. Raises sqlite3.OperationalError where it cannot be opened.
    """
    over = threading.Event()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)) as connection:

        def stop() -> None:
            over.set()
            connection.interrupt()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        connection.set_progress_handler(lambda: int(over.is_set()), _STEPS)
        try:
            return _tables(connection, over, bodies=path.stat().st_size <= _BODIES)
        except sqlite3.OperationalError:
            if over.is_set():
                return Survey("", False)
            raise
        except sqlite3.DatabaseError as error:
            return Survey(str(error)[:300], True)
        finally:
            timer.cancel()
            timer.join()  # it must not meet a connection that is closed


def _tables(connection: sqlite3.Connection, over: threading.Event, *, bodies: bool) -> Survey:
    for (table,) in connection.execute(_TABLES).fetchall():
        if over.is_set() or (table == "body" and not bodies):
            return Survey("", False)
        said = connection.execute(f'PRAGMA quick_check("{table}")').fetchall()
        if said != [("ok",)]:
            return Survey(f"{table}: {said[0][0]}"[:300], True)
    return Survey("", True)
