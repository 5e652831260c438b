"""Acting on many messages: ids are read in pages and changed in small steps, so that mail gets in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial

from gateway.spool import queries, upkeep
from gateway.spool.queries import Reader
from gateway.spool.records import Filter, micros
from gateway.spool.writer import Writer

STEP = 250  # messages, some 20 ms of the writer's time
_PAGE = 5000  # ids read at a time
Reading = Callable[[], AbstractAsyncContextManager[Reader]]
Each = Callable[[Sequence[str]], None]


def ignore(ids: Sequence[str]) -> None:
    """For a caller who only wants to know how many."""


async def steps(reading: Reading, which: Filter) -> AsyncIterator[list[str]]:
    """The ids that fit, as many as one step takes. Newest first, so that mail that comes in makes it no longer."""
    parts = [which]
    if (given := which.ids) is not None:
        parts = [replace(which, ids=given[n : n + _PAGE]) for n in range(0, len(given), _PAGE)]
    for part in parts:
        before, page = "", [""] * _PAGE
        while len(page) == _PAGE:
            async with reading() as reader:
                page = await queries.ids(reader, part, _PAGE, before)
            before = page[-1] if page else ""
            for n in range(0, len(page), STEP):
                yield page[n : n + STEP]


async def change(reading: Reading, writer: Writer, step: upkeep.Step, which: Filter, now: datetime, each: Each) -> int:
    """How many messages were changed; ``each`` is handed the ids of each step once they are on disk."""
    total = 0
    async for ids in steps(reading, which):
        run = partial(upkeep.change, step=step, which=which, ids=ids, now=micros(now))
        changed = await writer.submit(run, late=True)
        each(changed)
        total += len(changed)
    return total
