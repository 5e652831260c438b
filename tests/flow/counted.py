"""The ``gateway`` command, that counts what requests ask the spool: ``python -m tests.flow.counted FILE serve``.

FILE holds two numbers, each of 8 bytes: statements and transactions of connections that look, in tasks that have no
name of ours: those of requests.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

_TWO = struct.Struct("<QQ")


def read(file: Path) -> tuple[int, int]:
    """Statements and transactions so far."""
    statements, transactions = _TWO.unpack(file.read_bytes())
    return statements, transactions


def count_into(file: Path) -> None:
    file.write_bytes(bytes(_TWO.size))
    with file.open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), _TWO.size)
    seen = [0, 0]

    def add(place: int) -> None:
        seen[place] += 1
        shared[:] = _TWO.pack(*seen)

    def statement(connection: Connection, _cursor: object, text: str, *_rest: object) -> None:
        if connection.engine.driver == "aiosqlite" and (task := _task()) and task.get_name().startswith("Task-"):
            add(1 if text == "BEGIN" else 0)

    event.listen(Engine, "before_cursor_execute", statement)


def _task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


if __name__ == "__main__":
    from gateway.cli.__main__ import main

    count_into(Path(sys.argv.pop(1)))
    main()
