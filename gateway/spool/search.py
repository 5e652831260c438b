"""Finding messages among millions: what is rare by its index, what is frequent by looking at the newest first.

Each search looks at a bounded number of messages: where several frequent things are hardly ever true together, it stops
on the way and says how far it has come.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import RowMapping

from gateway.spool.filters import Part, Question, Source, behind
from gateway.spool.sql import IN_IDS

All = Callable[..., Awaitable[Sequence[RowMapping]]]
COUNTED = 1000  # of what has to be looked at
RARE = 3000  # what there is no more of is fetched whole
LOOKED = 10_000  # messages looked at in one search
SORTED = 100_000  # rows of an index that are put in order; of what is there more often, the walk goes on
_CHUNK = 2000  # of them at a time
_EVERYTHING = (Part("message WHERE TRUE"),)
# What of a chunk meets everything; and how many were looked at, with the last of them.
_CHUNKED = """
WITH chunk(id) AS MATERIALIZED ({rows} LIMIT :limit)
SELECT 0 AS looked, id FROM message WHERE id IN (SELECT id FROM chunk) AND {meets}
UNION ALL SELECT count(*), coalesce({last}(id), '') FROM chunk"""


@dataclass(frozen=True, slots=True)
class Found:
    """Ids in their order. ``more``: whether there are, or may be, others behind ``last``, which was looked at last."""

    ids: Sequence[str]
    more: bool = False
    last: str = ""

    def first(self, limit: int) -> Found:
        """The same search with at most so many."""
        return Found(self.ids[:limit], True, self.ids[limit - 1]) if len(self.ids) > limit else self


@dataclass(frozen=True, slots=True)
class Search:
    """``all`` runs a statement of the reader. ``oldest``: in the order of ids; else the newest first.

    ``thorough``: a condition that stands alone is looked up in its index even where that has to be read whole.
    """

    all: All
    asked: Question
    oldest: bool = False
    thorough: bool = True
    rare: int = RARE
    looked: int = LOOKED
    sorted: int = SORTED

    async def find(self, limit: int) -> Found:
        """At most so many."""
        rare = self.asked.ids
        big: list[Source] = []
        if rare is None:
            rare, big = await self._probe([one for one in self.asked.sources if not one.scans])
        if rare is None:
            found = await self._walk(self._driver(big), limit)
            if not found.more or len(found.ids) >= limit:
                return found
            return await self._behind(found, limit - len(found.ids))
        return await self._checked_all(rare, limit)

    async def _probe(self, sources: Sequence[Source]) -> tuple[Sequence[str] | None, list[Source]]:
        """The ids of all that some of these say, if one of them says few; and those that say many."""
        few: set[str] | None = None
        many: list[Source] = []
        for source in sources:
            rows = await self._of(source, self.rare + 1, order="")
            if len(rows) > self.rare:
                many.append(source)
            else:
                ids = {row["id"] for row in rows}
                few = ids if few is None else few & ids
        return None if few is None else list(few), many

    @property
    def countable(self) -> bool:
        """Whether an index has each message once, and no other."""
        source = next(iter(self.asked.sources), None)
        apart = source is None or source.name in ("state", "client")
        return self.asked.ids is None and apart and len(self.asked.conditions) == len(self.asked.sources) <= 1

    async def total(self, most: int) -> tuple[int, bool]:
        """How many there are, and whether there are or may be more; at most ``most`` are counted."""
        if self.countable:
            counted = (
                f"SELECT count(*) AS n FROM ({self._union(next(iter(self.asked.sources), None))} LIMIT :limit) AS f"
            )
            number = int((await self.all(counted, **self._given(most + 1)))[0]["n"])
            return min(number, most), number > most
        found = await self.find(min(most, COUNTED))
        return len(found.ids), found.more

    def _driver(self, big: Sequence[Source]) -> Source | None:
        """Whose ids are walked: the more a source leaves out the better, and an index has to know their order."""
        names = ("recipient", "sender", "address", "client", "scope", "state", "backend")
        by_name = {source.name: source for source in big if source.ordered}
        return next((by_name[name] for name in names if name in by_name), None)

    async def _walk(self, driver: Source | None, limit: int) -> Found:
        """In order, as far as LOOKED goes."""
        ids: list[str] = []
        meets = self.asked.meets(driver.name if driver else "")
        looked, last = 0, ""
        here = self
        while looked < self.looked:
            chunk = self.looked if driver is not None and driver.whole else _CHUNK
            size = min(chunk, limit + 1 - len(ids) if meets == "TRUE" else self.looked)
            fit, there, last = await here._chunk(driver, size, meets)
            for ident in fit:
                if len(ids) == limit:
                    return Found(ids, more=True, last=ids[-1])
                ids.append(ident)
            if there < size:
                return Found(ids)
            looked += 0 if meets == "TRUE" else size
            here = here._from(last)
        return Found(ids, more=True, last=last)

    async def _chunk(self, driver: Source | None, size: int, meets: str) -> tuple[list[str], int, str]:
        """What of the first so many of a source meets this, how many are there, and the last of them."""
        if meets == "TRUE":
            found = list(await self._of(driver, size, order=self._order))
            ids = list(dict.fromkeys(row["id"] for row in found))
            return ids, len(found), ids[-1] if ids else ""
        rows = f"{self._union(driver)} ORDER BY 1 {self._order}"
        statement = _CHUNKED.format(rows=rows, meets=meets, last="max" if self.oldest else "min")
        *fit, seen = await self.all(statement, **self._given(size))
        return sorted((row["id"] for row in fit), reverse=not self.oldest), seen["looked"], seen["id"]

    async def _behind(self, found: Found, limit: int) -> Found:
        """What the walk did not come to, by indexes that take longer."""
        rest = self._from(found.last)
        rare, _ = await rest._probe([one for one in self.asked.sources if one.scans])
        if rare is not None:
            more = await rest._checked_all(rare, limit)
        elif not self.thorough or (source := await rest._sortable()) is None:
            return found
        elif len(self.asked.conditions) == 1:
            more = await rest._sorted(source, limit)
        else:  # as many of these, whatever came in after them
            more = await rest._walk(source, limit)
        return Found([*found.ids, *more.ids], more.more, more.last or found.last)

    async def _sortable(self) -> Source | None:
        """One that is read whole or put in order, where that is not too much."""
        for source in self.asked.sources:
            if source.whole:
                rows = f"SELECT count(*) AS n FROM ({self._union(source)} LIMIT :limit) AS found"
                if int((await self.all(rows, **self._given(self.sorted + 1)))[0]["n"]) <= self.sorted:
                    return source
        return None

    async def _sorted(self, source: Source, limit: int) -> Found:
        """As many as wanted of all that a source says; one message may be there several times."""
        size = limit + 1
        while True:
            rows = await self._of(source, size, order=self._order)
            ids = list(dict.fromkeys(row["id"] for row in rows))
            if len(ids) > limit:
                return Found(ids[:limit], more=True, last=ids[limit - 1])
            if len(rows) < size:
                return Found(ids)
            size *= 8

    async def _checked_all(self, ids: Sequence[str], limit: int) -> Found:
        """Those of few candidates that meet everything."""
        asked = self.asked
        wanted = sorted({one for one in ids if asked.low <= one < asked.high}, reverse=not self.oldest)
        found: list[str] = []
        for n in range(0, len(wanted), _CHUNK):
            found += await self._checked(wanted[n : n + _CHUNK], asked.meets())
            if len(found) > limit:
                return Found(found[:limit], more=True, last=found[limit - 1])
        return Found(found)

    async def _checked(self, ids: Sequence[str], meets: str) -> list[str]:
        statement = f"SELECT id FROM message WHERE id {IN_IDS} AND {meets} ORDER BY id {self._order}"
        return [row["id"] for row in await self.all(statement, ids=list(ids), **self.asked.values)] if ids else []

    async def _of(self, source: Source | None, limit: int, *, order: str) -> Sequence[RowMapping]:
        """So many ids, for each row there that has one."""
        ordered = f" ORDER BY 1 {order}" if order else ""
        return await self.all(f"{self._union(source)}{ordered} LIMIT :limit", **self._given(limit))

    def _union(self, source: Source | None) -> str:
        parts = source.parts if source else _EVERYTHING
        return (
            " UNION ALL ".join(
                f"SELECT {part.column} AS id FROM {part.rows} AND {part.column} >= :low AND {part.column} < :high"
                for part in parts
            )
            or "SELECT id FROM message WHERE FALSE"
        )

    def _given(self, limit: int) -> dict[str, Any]:
        return {**self.asked.values, "low": self.asked.low, "high": self.asked.high, "limit": limit}

    @property
    def _order(self) -> str:
        return "ASC" if self.oldest else "DESC"

    def _from(self, last: str) -> Search:
        """Behind that id."""
        asked = self.asked.within(low=behind(last)) if self.oldest else self.asked.within(high=last)
        return replace(self, asked=asked)
