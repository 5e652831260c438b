"""Looking into an open spool: what waits, what became of a message. Nothing here waits for the writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from gateway.pools import read_files
from gateway.spool import (
    acts,
    alerts,
    backlog,
    checked,
    detail,
    digests,
    membership,
    near,
    notices,
    queries,
    refusals,
    signins,
    sql,
    tally,
    tokens,
)
from gateway.spool.engine import Engine
from gateway.spool.filters import question
from gateway.spool.keys import key_of
from gateway.spool.listing import Cut, Filter, MessageRow, Page, Total
from gateway.spool.moments import Moments
from gateway.spool.records import (
    ActRow,
    ClockStep,
    Delivery,
    Late,
    MessageDetail,
    Poll,
    TokenRow,
    micros,
    moment,
    record,
)
from gateway.spool.scope import Scope
from gateway.spool.steady import SpoolTime
from gateway.spool.survey import SENDERS, SenderRow, Survey, quick_check

T = TypeVar("T")
EVERYTHING = Filter()
ANYBODY = refusals.RefusalFilter()


@dataclass(frozen=True, slots=True)
class Piles:
    """Deliveries by (backend, state), since when the ``oldest`` of each backend waits, and ``doubts`` by backend."""

    counts: Mapping[tuple[str, str], int]
    oldest: Mapping[str, datetime]
    doubts: Mapping[str, int]


@dataclass(eq=False, repr=False)
class Looking:
    """The part of the spool that only reads."""

    _engine: Engine
    _moments: Moments
    _pool: ThreadPoolExecutor
    _time: SpoolTime

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    @asynccontextmanager
    async def one_moment(self) -> AsyncIterator[None]:
        """What this task asks within it, it asks of one moment, in one transaction. What it writes meanwhile is not
        seen. Not for long: until it ends, the log of the spool cannot begin anew."""
        async with self._moments.one():
            yield

    async def _ask(self, statement: str, **values: Any) -> queries.Rows:
        async with self._moments.reading() as reader:
            return await reader.all(statement, **values)

    def counts(self) -> dict[tuple[str, str], int]:
        """Deliveries by (backend, state); the states are queued and held."""
        return dict(self._engine.counts())

    async def queued(self) -> dict[str, int]:
        """Queued deliveries by backend."""
        return {backend: count for (backend, state), count in self.counts().items() if state == "queued"}

    async def due(self, backend: str) -> datetime | None:
        """When the backend's next delivery falls due, counting what is under way; None when it is empty."""
        at = (await self._ask(sql.FIRST.format("next_attempt_at"), backend=backend))[0]["at"]
        return None if at is None else moment(at)

    async def oldest(self) -> dict[str, datetime]:
        """Since when the oldest message of each backend waits, as the machine's clock shows it now."""
        async with self._moments.reading() as reader:
            return await backlog.oldest(reader, self._time.shift())

    async def backlog(self) -> backlog.Backlog:
        """What waits for whom and since when, what is in doubt, what is damaged, when the clock was set."""
        async with self._moments.reading() as reader:
            return await backlog.backlog(reader, self._time.shift())

    async def first_untold(self) -> datetime | None:
        """Since when something is to be told in a digest, by the machine's clock of then."""
        async with self._moments.reading() as reader:
            return await digests.first(reader)

    async def kept_alerts(self) -> list[alerts.Kept]:
        """What somebody was told of."""
        async with self._moments.reading() as reader:
            return await alerts.kept(reader)

    async def untold(self, senders: int) -> list[digests.Untold]:
        """By sender what he is to hear in a digest: at most so many senders."""
        async with self._moments.reading() as reader:
            return await digests.untold(reader, senders)

    async def pieces(self, what: digests.Untold, limit: int) -> list[digests.Piece]:
        """The first messages of what a sender is to hear."""
        async with self._moments.reading() as reader:
            return await digests.pieces(reader, what, limit)

    async def find(self, which: Filter = EVERYTHING, *, limit: int = 100, before: str = "") -> list[MessageRow]:
        """Newest first, however long it takes; ``before`` is the last id of the page before."""
        found, cut = await self.page(which, Cut(limit=limit, before=before)), Cut()
        rows = list(found.messages)
        while found.partial:
            cut = Cut(limit=limit - len(rows), before=found.next)
            found = await self.page(which, cut)
            rows += found.messages
        return rows

    async def page(self, which: Filter, cut: Cut) -> Page:
        """What can be found of it in bounded time. ValueError for a state that does not exist."""
        async with self._moments.reading() as reader:
            return await queries.page(reader, which, cut, self._time.shift())

    async def counted_page(self, which: Filter, cut: Cut, most: int) -> tuple[Page, Total]:
        """Both of one moment."""
        async with self._moments.reading() as reader:
            return await queries.counted_page(reader, which, cut, most, self._time.shift())

    async def total(self, which: Filter, most: int = 100_000) -> Total:
        """How many there are, as far as they can be counted in bounded time."""
        async with self._moments.reading() as reader:
            return Total(*await queries.search(reader, question(which)).total(most))

    async def count(self, which: Filter) -> int:
        """How many there are, however long it takes."""
        return await queries.count(self._moments.own, which)

    async def show(self, ident: str) -> MessageDetail | None:
        """All that is known of one message."""
        async with self._moments.reading() as reader:
            return await detail.show(reader, ident, self._time.shift())

    async def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those that are there."""
        rows = await self._ask("SELECT id, state FROM message WHERE id @in(:ids)", ids=list(ids))
        return {row["id"]: row["state"] for row in rows}

    async def raw(self, ident: str) -> bytes | None:
        """The bytes as they lie there, unchecked; None when there are none."""
        asked = f"SELECT {sql.BODY} FROM body WHERE message_id = :id"  # noqa: S608 - of constants of ours
        found = await self._ask(asked, id=ident)
        if not found:
            return None
        came: bytes = found[0]["raw"]
        if not found[0]["segment"] and (not self._engine.shared or len(came) == found[0]["length"]):
            return came  # whole
        raw = await self._run(lambda: self._engine.body(found[0]))
        async with self._moments.own() as reader:  # what is deleted meanwhile is none
            return raw if await reader.all(asked, id=ident) else None

    async def deliveries(self, backend: str, *, limit: int = 500) -> AsyncIterator[list[Delivery]]:
        """What waits for this backend and is not under way, the oldest first, in pages of 1 to ``limit``.

        Whatever becomes of those of a page meanwhile, none of the next is left out.
        """
        async for page in queries.waiting(self._moments.own, backend, limit):
            yield page

    async def late(
        self, backend: str, *, until: datetime, after: datetime | None = None, limit: int = 100
    ) -> AsyncIterator[list[Late]]:
        """What has waited for this backend since ``until`` or longer, but not since ``after``, and whose sender was not
        told of it: in pages of 1 to ``limit``, the oldest first. Nothing that is past its end."""
        since = -(2**63) if after is None else micros(after)
        given = {"until": micros(until), "after": since, "now": micros(self.now()), "limit": limit}
        async for page in notices.late(self._moments.own, backend, **given):
            yield page

    async def polls(self, backend: str, limit: int) -> list[Poll]:
        """What this provider is to be asked next, the first due first, also before its time."""
        return [record(Poll, row) for row in await self._ask(queries.POLLS, backend=backend, limit=limit)]

    async def acts(
        self, *, limit: int = 100, before: int = 0, message: str = "", verb: str = "", tenant: str | None = None
    ) -> list[ActRow]:
        """What operators ordered, the last first; ``before`` is the last id of the page before. Of one message or all,
        one verb or all, of one tenant's log-ins or (None) everybody's.

        Also of a message that is gone: who deleted it.
        """
        async with self._moments.reading() as reader:
            return await acts.find(reader, limit=limit, before=before, message=message, verb=verb, tenant=tenant)

    async def addresses(self, like: str) -> tuple[str, list[str]]:
        """The key of an address, and the keys of addresses that mail is from or to: for near.closest."""
        async with self._moments.reading() as reader:
            wanted = key_of(like)
            return wanted, await near.keys(reader, wanted)

    async def counted(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        """These as they are spelled, and how many messages have each, up to 1,001."""
        async with self._moments.reading() as reader:
            return await near.counted(reader, keys)

    async def acted_on(self, act: int, *, limit: int = 1000, after: str = "") -> list[str]:
        """The ids of the messages that an order changed, from behind that id on."""
        async with self._moments.reading() as reader:
            return await acts.messages(reader, act, limit=limit, after=after)

    async def senders(self, limit: int = 5000) -> list[SenderRow]:
        """By which backends the newest ``limit`` messages go, and as whom; the most frequent first."""
        return [record(SenderRow, row) for row in await self._ask(SENDERS, limit=limit)]

    async def survey(self, seconds: float) -> Survey:
        """Look the file through for damage, for at most so long; delivery and the door go on. Raises sqlite3.Error."""
        path = Path(self._engine.name)
        found = await read_files(lambda: quick_check(path, seconds))
        if found.fault:
            self._engine.distrust()
        return found

    async def tokens(self) -> list[TokenRow]:
        return [record(TokenRow, row) for row in await self._ask("SELECT * FROM token ORDER BY issued_at, jti")]

    async def revocations(self) -> tuple[set[str], dict[str, datetime]]:
        """Revoked token ids, and for each subject the time before which all its tokens are void."""
        async with self._moments.reading() as reader:
            return await tokens.revocations(reader)

    async def settings_told(self) -> dict[str, str]:
        """What each instance says of its settings (config.alike); nothing where there can be only one."""
        rows = await self._ask("SELECT name, settings FROM instance") if self._engine.shared else ()
        return {row["name"]: row["settings"] for row in rows}

    async def last_refused(
        self, limit: int, client: str = "", scope: Scope | None = None
    ) -> Sequence[refusals.RefusalRow]:
        """The newest refusals, of everybody or of one client."""
        async with self._moments.reading() as reader:
            return await refusals.last(reader, limit, client, scope)

    async def refusals(
        self, which: refusals.RefusalFilter = ANYBODY, *, limit: int = 100, before: str = ""
    ) -> refusals.RefusalPage:
        """Who was turned away, newest first; ``before`` is the ``next`` of the page before. Raises ValueError."""
        async with self._moments.reading() as reader:
            return await refusals.find(reader, which, limit, before)

    async def flow(self, now: datetime, count: int, step: timedelta, scope: Scope | None = None) -> tally.Flow:
        """How much came and went in the last ``count`` hours or days, as ``step`` says, the running one included."""
        async with self._moments.reading() as reader:
            return await tally.flow(reader, now, count, step, scope)

    async def scope(self, tenant: str, clients: Mapping[str, int]) -> Scope:
        """What a tenant may see (membership.scope)."""
        async with self._moments.reading() as reader:
            return await membership.scope(reader, tenant, clients)

    async def piles(self, which: Scope) -> Piles:
        """What waits of it."""
        async with self._moments.reading() as reader:
            shift = timedelta(microseconds=self._time.shift())
            found = await membership.piles(reader, which)
            counts = {key: n for key, (n, _) in found.items()}
            firsts = {backend: moment(at) + shift for (backend, state), (_, at) in found.items() if state == "queued"}
            return Piles(counts, firsts, await membership.in_doubt(reader, which))

    async def last_sent(self, backend: str) -> datetime | None:
        """When the backend last took a message, as far back as history goes. It may take a while: not for a page."""
        async with self._moments.reading() as reader:
            return await checked.last_sent(reader, backend)

    async def answers(self, backend: str, limit: int = 50) -> list[checked.AnswerRow]:
        """What the backend said last, newest first; of the last 100,000 attempts of all backends."""
        async with self._moments.reading() as reader:
            return await checked.answers(reader, backend, limit)

    async def checks(self) -> dict[str, checked.CheckRow]:
        """The last check of each backend."""
        async with self._moments.reading() as reader:
            return await checked.checks(reader)

    async def tokens_ending(self, after: datetime, before: datetime, lasting: timedelta) -> list[TokenRow]:
        """Tokens that end between these times, are not revoked, and were made for longer than that; at most 100."""
        async with self._moments.reading() as reader:
            return await tokens.ending(reader, micros(after), micros(before), lasting // timedelta(microseconds=1))

    async def signin(self, key: str) -> signins.SigninRow | None:
        """A link or a session of the operator's pages, by the hash of its secret."""
        async with self._moments.reading() as reader:
            return await signins.find(reader, key, self._time.shift())

    async def clock_steps(self, limit: int = 5) -> list[ClockStep]:
        """When the machine's clock was set, the last first."""
        return [record(ClockStep, row) for row in await self._ask(queries.STEPS, limit=limit)]

    def now(self) -> datetime:
        """What due times, lifetimes and retention go by: nobody can set it."""
        return self._time.now()
