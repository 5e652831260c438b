"""Many rows in one statement: for each that it runs a driver does work of its own, and may give up the interpreter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

_CHUNKS = (64, 32, 16, 8, 4, 2, 1)
_HEAVY = 16 * 1024  # bytes: a statement keeps a copy of what it was given last
_VALUES = re.compile(r"\bVALUES (\([^()]*\))", re.ASCII)


def alone(statement: str, rows: Sequence[Any]) -> bool:
    """Whether each needs a statement of its own: only rows of ``VALUES`` with places for tuples go in many at a time,
    and no heavy ones."""
    return len(rows) == 1 or not isinstance(rows[0], tuple) or not _VALUES.search(statement) or _heavy(rows)


def together(
    statement: str, rows: Sequence[tuple[Any, ...]], sizes: Sequence[int] = _CHUNKS
) -> Iterator[tuple[str, list[Any]]]:
    """Statements for as many of them each as one of the ``sizes`` is, and the values for its places."""
    at = 0
    while at < len(rows):
        size = next(n for n in sizes if n <= len(rows) - at)
        yield _several(statement, size), [value for row in rows[at : at + size] for value in row]
        at += size


def _heavy(rows: Sequence[tuple[Any, ...]]) -> bool:
    blobs = [n for n, value in enumerate(rows[0]) if isinstance(value, bytes)]
    return any(len(row[n] or b"") > _HEAVY for n in blobs for row in rows)


@lru_cache(maxsize=1024)
def _several(statement: str, rows: int) -> str:
    return _VALUES.sub(lambda found: f"VALUES {', '.join([found[1]] * rows)}", statement, count=1)
