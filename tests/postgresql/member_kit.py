"""Instances that share a database, with a note of what each was told."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import timedelta
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry
from psycopg.conninfo import conninfo_to_dict

from gateway.clock import Clock, SystemClock
from gateway.events import Events
from gateway.postgresql import schema
from gateway.postgresql.link import writing
from gateway.postgresql.member import Member
from gateway.postgresql.server import Server
from tests import postgres_kit
from tests.fakes import FakeClock, breathe, until

BACKENDS = ("up1", "up2", "up3", "up4")
_MINUTE = timedelta(minutes=1)


class Ticking(FakeClock):
    """Knows how many wait for it."""

    waiting = 0

    async def sleep(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await super().sleep(seconds)
        finally:
            self.waiting -= 1


def make(url: str) -> None:
    """The tables."""
    server = Server(url, "make", _MINUTE, durable=False)
    with closing(writing(server)) as link:
        schema.bring_up(link, server.shown)


def template() -> str:
    return postgres_kit.shared().template("members", make)


class Party:
    """One instance: what it gained and lost, what it heard, whom it buried. ``gate``: until when what is lost ends."""

    def __init__(
        self, url: str, name: str, clock: Clock, *, backends: Sequence[str] = BACKENDS, failover: timedelta = _MINUTE
    ) -> None:
        self.url = url
        self.log = io.StringIO()
        self.events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=self.log)
        self.backends, self.settings = list(backends), '{"routes":"same"}'
        self.gained: list[str] = []
        self.lost: list[str] = []
        self.heard: list[tuple[str, str]] = []
        self.buried: list[tuple[str, int]] = []
        self.said: Mapping[str, str] = {}
        self.gate: asyncio.Event | None = None
        self.clock = clock
        self.breaks = 0  # how many gains fail yet
        self.member = Member(
            Server(url, name, failover, durable=False),
            backends=lambda: self.backends,
            settings=lambda: self.settings,
            clock=clock,
            events=self.events,
            gain=self._gain,
            lose=self._lose,
            heard=lambda kind, what: self.heard.append((kind, what)),
            bury=self._bury,
            said=self._hear_said,
        )

    @property
    def beats(self) -> int:
        """As it saw its own row last."""
        return next((peer.beats for peer in self.member.peers if peer.name == self.member.name), 0)

    def _hear_said(self, texts: Mapping[str, str]) -> None:
        self.said = texts

    def _gain(self, backend: str) -> None:
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError(backend)
        self.gained.append(backend)

    async def _lose(self, backend: str) -> None:
        self.lost.append(backend)
        if self.gate is not None:
            await self.gate.wait()

    async def _bury(self, name: str, beats: int) -> int | None:
        """As the spool would (gateway.spool.members)."""
        self.buried.append((name, beats))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DELETE FROM instance WHERE name = %s AND beats = %s", (name, beats))
        return 0

    def logged(self, event: str) -> list[dict[str, Any]]:
        self.events.flush()
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]


class Cluster:
    """Instances on one database. With ``clock`` time moves only by ``beat``; without it is the machine's."""

    def __init__(self, url: str, clock: Ticking | None, failover: timedelta, parts: AsyncExitStack) -> None:
        self.url = url
        self.database = str(conninfo_to_dict(url)["dbname"])
        self.clock = clock
        self._failover = failover
        self._parts = parts
        self.parties: dict[str, Party] = {}

    async def join(
        self,
        name: str,
        *,
        backends: Sequence[str] = BACKENDS,
        url: str = "",
        clock: Clock | None = None,
        share: bool = True,
    ) -> Party:
        used = clock or self.clock or SystemClock()
        party = Party(url or self.url, name, used, backends=backends, failover=self._failover)
        self._parts.callback(party.events.close)
        await party.member.begin()
        self._parts.push_async_callback(party.member.aclose)
        self.parties[name] = party
        if share:
            party.member.share()
        return party

    async def beat(self, beats: int = 1, clock: Ticking | None = None) -> None:
        """Time for that many of all who go by this clock."""
        used = clock or self.clock
        assert used is not None
        going = [party for party in self.parties.values() if party.clock is used]
        for _ in range(beats):
            await self.rest(len(going), used)
            before = [party.beats for party in going]
            used.advance(self._failover.total_seconds() / 5)
            await until(lambda: all(party.beats > was for party, was in zip(going, before, strict=True)))  # noqa: B023

    async def rest(self, members: int, clock: Ticking | None = None) -> None:
        """Until so many wait for time to pass, and nobody has anything more to say to them."""
        used = clock or self.clock
        assert used is not None
        quiet = 0
        while quiet < 5:
            quiet = quiet + 1 if used.waiting == members else 0
            await breathe()

    def owners(self) -> dict[str, list[str]]:
        return {name: sorted(party.member.owned()) for name, party in self.parties.items()}

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return postgres_kit.shared().ask(statement, *values, database=self.database)

    async def settled(self, **owned: Sequence[str] | int) -> None:
        """Until these have these backends, or so many, and nobody has what another has."""

        def so() -> bool:
            has = self.owners()
            each = [backend for backends in has.values() for backend in backends]
            assert len(each) == len(set(each)), has
            return all(
                len(has[name]) == wanted if isinstance(wanted, int) else has[name] == sorted(wanted)
                for name, wanted in owned.items()
            )

        await until(so)


@asynccontextmanager
async def cluster(
    clock: Ticking | None = None, *, failover: timedelta = _MINUTE, url: str = ""
) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as parts:
        if not url:
            url = parts.enter_context(postgres_kit.database(template()))
        yield Cluster(url, clock, failover, parts)
