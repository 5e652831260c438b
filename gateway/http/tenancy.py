"""What a tenant's log-in gets in the place of the service: only what is its own, and nothing else that there is.

Handlers do not know for whom they work. What stands here in the place of a part of the service has only what is listed
below, each within the tenant's scope: whatever a handler asks beyond that is missing, which is an error and no leak.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from starlette.exceptions import HTTPException

from gateway.actor import Actor, Order
from gateway.config.models import Settings
from gateway.config.tenants import within_reach
from gateway.delivery import BackendStatus
from gateway.http.service import Service
from gateway.http.work import Work
from gateway.lastuse import Kind, Use
from gateway.spool import (
    AnswerRow,
    CheckRow,
    Cut,
    Filter,
    Flow,
    MessageDetail,
    MessageRow,
    Page,
    Piles,
    RefusalFilter,
    RefusalPage,
    RefusalRow,
    Scope,
    Spool,
    TokenRow,
    Total,
)
from gateway.spool.records import ActRow, micros

_BEHIND = 10  # answers that are looked at for each that is shown


async def narrowed(service: Service, actor: Actor) -> Service:
    """For whom he logs in. Raises HTTPException where there is no such tenant."""
    if not actor.tenant:
        return service
    settings = service.settings
    if (own := settings.tenants.get(actor.tenant)) is None:
        raise HTTPException(403, f"there is no tenant {actor.tenant} in the settings any more")
    now = dict.fromkeys(own.clients, 0) | {"": micros(service.in_force.read_at)}
    scope = await service.spool.scope(actor.tenant, now)
    return cast(Service, Tenancy(service, scope, _settings(settings, actor.tenant), await service.spool.piles(scope)))


def _settings(settings: Settings, tenant: str) -> Settings:
    own = settings.tenants[tenant]
    backends = {name: settings.backends[name] for name in within_reach(settings, tenant)}
    kept = settings.bounces.model_copy(update={"backend": None, "copy_to": None})
    lines = (line for line in settings.routes if not line.clients or set(line.clients) & set(own.clients))
    routes = [
        line.model_copy(update={"clients": tuple(one for one in line.clients if one in own.clients)}) for line in lines
    ]
    return settings.model_copy(
        update={
            "clients": {name: one for name, one in settings.clients.items() if name in own.clients},
            "backends": backends,
            "routes": tuple(routes),
            "tenants": {tenant: own},
            "bounces": kept,
            "aliases": {},
        }
    )


class Tenancy:
    """Stands for a Service."""

    def __init__(self, service: Service, scope: Scope, settings: Settings, piles: Piles) -> None:
        own = frozenset(settings.tenants[scope.tenant].backends)
        self.settings = settings
        self.clock, self.draining = service.clock, service.draining
        self.spool = Mail(service.spool, scope, settings, piles, own)
        running = service.dispatcher
        self.dispatcher = Backends(running, scope, settings, piles, own) if running is not None else None
        self.works = OwnWorks(service.works, scope.tenant)
        self.events, used = SimpleNamespace(act=service.events.act), service.quotas
        self.quotas = SimpleNamespace(rates=used.rates, connections=used.connections, used=used.used)
        self.in_force = SimpleNamespace(loaded=SimpleNamespace(path=None))
        self._bounce, self._scope = service.bounce, scope

    async def bounce(self, which: Filter, each: Callable[[Mapping[str, bool]], object]) -> dict[str, bool]:
        return await self._bounce(replace(which, scope=self._scope), each)


@dataclass(frozen=True, slots=True)
class OwnUses:
    """When its clients and tokens were last of use, while they were its own."""

    of_all: Any
    scope: Scope
    jtis: frozenset[str]

    def of(self, kind: Kind, name: str) -> Use | None:
        found: Use | None = self.of_all.of(kind, name)
        if kind in ("token", "revoked"):
            return found if name in self.jtis else None
        since = [term.since for term in self.scope.terms if term.client == name and term.open]
        return found if found and since and micros(found.at) >= max(since) else None


class Mail:
    """Stands for a Spool."""

    def __init__(self, spool: Spool, scope: Scope, settings: Settings, piles: Piles, backends: frozenset[str]) -> None:
        self._spool, self._scope, self._piles = spool, scope, piles
        self._clients, self._reach, self._backends = settings.clients, settings.backends.keys(), backends
        self.room = SimpleNamespace(shut=spool.room.shut)
        self.uses = OwnUses(spool.uses, scope, frozenset())

    def _own(self, which: Filter) -> Filter:
        return replace(which, scope=self._scope)

    def one_moment(self) -> AbstractAsyncContextManager[None]:
        return self._spool.one_moment()

    def now(self) -> datetime:
        return self._spool.now()

    # -- messages ----------------------------------------------------------------------------------------------------

    async def page(self, which: Filter, cut: Cut) -> Page:
        return await self._spool.page(self._own(which), cut)

    async def counted_page(self, which: Filter, cut: Cut, most: int) -> tuple[Page, Total]:
        return await self._spool.counted_page(self._own(which), cut, most)

    async def total(self, which: Filter, most: int = 100_000) -> Total:
        return await self._spool.total(self._own(which), most)

    async def count(self, which: Filter) -> int:
        return await self._spool.count(self._own(which))

    async def find(self, which: Filter, *, limit: int = 100, before: str = "") -> list[MessageRow]:
        return await self._spool.find(self._own(which), limit=limit, before=before)

    async def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those that are there for it."""
        return {row.id: row.state for row in await self.find(Filter(ids=tuple(ids)), limit=max(1, len(ids)))}

    async def show(self, ident: str) -> MessageDetail | None:
        """What others ordered of many, and what a provider said of others' mail, is not told."""
        if not await self.states([ident]) or (found := await self._spool.show(ident)) is None:
            return None
        return replace(
            found,
            acts=tuple(act if act.tenant == self._scope.tenant else _blank(act) for act in found.acts),
            rests=tuple(
                rest if rest.backend in self._backends else replace(rest, detail="", fix="", who="")
                for rest in found.rests
            ),
            copies=tuple(await self.states(found.copies)) if found.copies else (),
        )

    async def raw(self, ident: str) -> bytes | None:
        return await self._spool.raw(ident) if await self.states([ident]) else None

    async def hold(self, which: Filter, now: datetime, each: Any, order: Order) -> int:
        return await self._spool.hold(self._own(which), now, each, order)

    async def release(self, which: Filter, now: datetime, each: Any, order: Order) -> int:
        return await self._spool.release(self._own(which), now, each, order)

    async def retry(self, which: Filter, now: datetime, each: Any, order: Order) -> int:
        return await self._spool.retry(self._own(which), now, each, order)

    async def delete(self, which: Filter, now: datetime, each: Any, order: Order) -> int:
        return await self._spool.delete(self._own(which), now, each, order)

    async def addresses(self, like: str) -> tuple[str, list[str]]:
        """Nobody is told of addresses that are like his."""
        return like, []

    async def counted(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        return []

    # -- acts --------------------------------------------------------------------------------------------------------

    async def act(self, order: Order, *, ids: Sequence[str] = (), count: int = 0) -> None:
        await self._spool.act(order, ids=ids, count=count)

    async def acts(self, *, limit: int = 100, before: int = 0, message: str = "", verb: str = "") -> list[ActRow]:
        """Of its own log-ins."""
        tenant = self._scope.tenant
        return await self._spool.acts(limit=limit, before=before, message=message, verb=verb, tenant=tenant)

    async def acted_on(self, act: int, *, limit: int = 1000, after: str = "") -> list[str]:
        own = await self.acts(limit=1, before=act + 1)
        return await self._spool.acted_on(act, limit=limit, after=after) if own and own[0].id == act else []

    # -- counts ------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[tuple[str, str], int]:
        return dict(self._piles.counts)

    async def queued(self) -> dict[str, int]:
        return {backend: count for (backend, state), count in self.counts().items() if state == "queued"}

    async def backlog(self) -> Any:
        """What one backend's page asks of it."""
        doubts = [SimpleNamespace(backend=name, count=count) for name, count in self._piles.doubts.items()]
        return SimpleNamespace(oldest=self._piles.oldest, doubts=doubts)

    async def flow(self, now: datetime, count: int, step: timedelta) -> Flow:
        return await self._spool.flow(now, count, step, self._scope)

    async def refusals(self, which: RefusalFilter, *, limit: int = 100, before: str = "") -> RefusalPage:
        return await self._spool.refusals(replace(which, scope=self._scope), limit=limit, before=before)

    async def last_refused(self, limit: int, client: str = "") -> Sequence[RefusalRow]:
        return await self._spool.last_refused(limit, client, self._scope)

    # -- backends and tokens -----------------------------------------------------------------------------------------

    async def checks(self) -> dict[str, CheckRow]:
        return {name: row for name, row in (await self._spool.checks()).items() if name in self._backends}

    async def answers(self, backend: str, limit: int = 50) -> list[AnswerRow]:
        """To its own mail."""
        rows = await self._spool.answers(backend, limit * _BEHIND) if backend in self._reach else []
        known = await self.states(sorted({row.message_id for row in rows})) if rows else {}
        return [row for row in rows if row.message_id in known][:limit]

    async def last_sent(self, backend: str) -> datetime | None:
        return None

    async def tokens(self) -> list[TokenRow]:
        """By which its clients log in."""
        mine = {(one.token, one.key) for one in self._clients.values() if one.token not in (None, "*")}
        rows = [row for row in await self._spool.tokens() if {(row.subject, row.key), (row.subject, None)} & mine]
        self.uses = replace(self.uses, jtis=frozenset(row.jti for row in rows))
        return rows

    async def revocations(self) -> tuple[set[str], dict[str, datetime]]:
        ids, subjects = await self._spool.revocations()
        own = {one.token for one in self._clients.values()}
        jtis = {row.jti for row in await self.tokens()}
        return ids & jtis, {name: at for name, at in subjects.items() if name in own}

    # -- the sign-in itself ------------------------------------------------------------------------------------------

    async def end_signins(self, key: str) -> int:
        return await self._spool.end_signins(key) if key else 0


def _blank(act: ActRow) -> ActRow:
    """What an operator did to it among others."""
    return replace(act, name="the operator", what="", count=1, messages=())


class Backends:
    """Stands for a Dispatcher."""

    def __init__(self, of_all: Any, scope: Scope, settings: Settings, piles: Piles, own: frozenset[str]) -> None:
        self._of_all, self._reach, self._piles, self._own = of_all, settings.backends.keys(), piles, own
        self.again = OwnAgain(of_all.again, scope)

    def status(self) -> dict[str, BackendStatus]:
        """Of a backend that others use as well whether it works, and nothing that was said of their mail."""
        found = {}
        for name, one in self._of_all.status().items():
            if name in self._reach:
                queued = self._piles.counts.get((name, "queued"), 0)
                plain = {"reason": "", "fix": "", "in_flight": 0, "last_success": None, "uses": (), "heard": None}
                found[name] = replace(one, queued=queued, **({} if name in self._own else {**plain, "who": ""}))
        return found


class OwnAgain:
    """Stands for delivery's Again."""

    def __init__(self, again: Any, scope: Scope) -> None:
        self._again, self._scope = again, scope

    def retry(self, which: Filter, order: Order, backend: str = "") -> AsyncIterator[Any]:
        return cast(AsyncIterator[Any], self._again.retry(replace(which, scope=self._scope), order, backend))

    def reroute(self, which: Filter, order: Order, backend: str, *, force: bool = False) -> AsyncIterator[Any]:
        asked = replace(which, scope=self._scope)
        return cast(AsyncIterator[Any], self._again.reroute(asked, order, backend, force=force))

    def resend(self, which: Filter, order: Order) -> AsyncIterator[Any]:
        return cast(AsyncIterator[Any], self._again.resend(replace(which, scope=self._scope), order))


class OwnWorks:
    """Stands for Works."""

    def __init__(self, works: Any, tenant: str) -> None:
        self._works, self._tenant = works, tenant

    def all(self) -> list[Work]:
        return [one for one in self._works.all() if one.tenant == self._tenant]

    def get(self, number: int) -> Work | None:
        found: Work | None = self._works.get(number)
        return found if found is not None and found.tenant == self._tenant else None

    def start(self, verb: str, what: str, by: str, **more: Any) -> Work:
        return cast(Work, self._works.start(verb, what, by, tenant=self._tenant, **more))

    def stop(self, work: Work) -> None:
        if work.tenant == self._tenant:
            self._works.stop(work)
