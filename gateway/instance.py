"""One instance of several on a database: what others tell it, and what it tells them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import partial

from gateway import auth
from gateway.backends.shared.stores import Shared
from gateway.clock import Clock
from gateway.config import alike
from gateway.config.models import Settings
from gateway.delivery import Dispatcher
from gateway.events import Events
from gateway.model import SpoolTrouble
from gateway.postgresql.engine import Postgres
from gateway.postgresql.link import Link
from gateway.postgresql.member import ANEW, Member
from gateway.postgresql.server import Server
from gateway.sealed import sealed
from gateway.spool import Spool, agreed, vault


class Instance:
    """As sharing.Sharing says."""

    def __init__(self, settings: Settings, server: Server, key: bytes, clock: Clock, events: Events) -> None:
        self._settings, self._key = settings, key
        self._alike = alike.digests(settings, key)
        self._clock = clock
        self._events = events
        self._spool: Spool | None = None
        self._dispatcher: Dispatcher | None = None
        self._following: auth.Following | None = None
        self.member = Member(
            server,
            backends=self._backends,
            settings=lambda: self._alike,
            clock=clock,
            events=events,
            gain=self._gain,
            lose=self._lose,
            heard=self._heard,
            bury=self._bury,
            told=self._told,
            said=self._said,
        )
        self._saying: asyncio.Task[None] | None = None
        self._engine = Postgres(server, works=self.owns, run=lambda: self.member.started_at)

    @classmethod
    async def begin(cls, settings: Settings, clock: Clock, events: Events) -> Instance:
        """Be one of them. Raises SpoolError."""
        run = asyncio.get_running_loop().run_in_executor
        spool, server = settings.spool, server_of(settings)
        key = await run(None, vault.key, settings.state_dir)
        made = cls(settings, server, key, clock, events)
        await run(None, made.engine.prepare, partial(made._agree, spool.instance))
        await made.member.begin()
        return made

    def _agree(self, me: str, link: Link) -> None:
        settings = self._settings
        signing = {name: agreed.HeldKey(file, der) for name, (file, der) in auth.signing_keys(settings).items()}
        keys = agreed.HeldKeys(agreed.HeldKey(settings.state_dir / vault.FILE, self._key), signing)
        now = int(self._clock.now().timestamp() * 1_000_000)
        agreed.agree(link, self.engine.render, keys, me=me, now=now)

    @property
    def engine(self) -> Postgres:
        return self._engine

    def number(self, chance: random.Random) -> int:
        return self.member.number

    def know(self, spool: Spool, revocations: auth.Revocations) -> None:
        self._spool = spool
        self._following = auth.Following(revocations, spool.revocations, self._clock, self._events)

    def stores(self) -> Shared | None:
        assert self._spool is not None
        return sealed(self._spool.secrets, asyncio.get_running_loop())

    def serve(self, dispatcher: Dispatcher) -> None:
        self._dispatcher, self._settings = dispatcher, dispatcher.settings
        self._alike = alike.digests(dispatcher.settings, self._key)
        self.member.share()

    def revoked(self) -> None:
        """Those of a subject that others made may be known by their ids only: read them here, too."""
        if self._following is not None:
            self._following.heard()
        self.member.tell("revoked")

    async def aclose(self) -> None:
        if self._following is not None:
            await self._following.aclose()
        await self.member.aclose()
        if self._saying is not None:
            await asyncio.wait({self._saying})

    # -- delivery asks (delivery.Ownership) ---------------------------------------------------------------------------

    def owns(self, backend: str) -> bool:
        return self.member.owns(backend)

    def owner(self, backend: str) -> str:
        return self.member.workers.get(backend, "")

    def valid(self) -> bool:
        return self.member.valid()

    def alive(self) -> bool:
        return self.member.alive

    def keeps_house(self) -> bool:
        return self.member.keeps_house()

    def declared(self) -> Collection[str]:
        return self.member.declared()

    def ordered(self, backend: str) -> None:
        self.member.tell("order", backend)
        self.stir()

    def stir(self) -> None:
        self.member.look()

    # -- the member tells ---------------------------------------------------------------------------------------------

    def _backends(self) -> list[str]:
        return list(self._settings.backends)

    def _gain(self, backend: str) -> None:
        if self._dispatcher is not None:
            self._dispatcher.gain(backend)

    async def _lose(self, backend: str) -> None:
        if self._dispatcher is not None:
            await self._dispatcher.lose(backend)

    def _heard(self, kind: str, what: str) -> None:
        if kind in ("revoked", ANEW) and self._following is not None:
            self._following.heard()
        if self._dispatcher is not None and kind == "wake":
            self._dispatcher.wake(what)
        elif self._dispatcher is not None and kind == "order":
            self._dispatcher.hear_of_orders()
        elif self._dispatcher is not None and kind == ANEW:
            self._dispatcher.hear_of_orders()
            self._dispatcher.wake_all()

    async def _bury(self, name: str, beats: int) -> int | None:
        return None if self._spool is None else await self._spool.bury(name, beats)

    def _told(self, now: datetime) -> None:
        self.engine.told(now)

    def _said(self, texts: Mapping[str, str]) -> None:
        """At each beat, and as often at most is anything said of ours."""
        if self._dispatcher is None:
            return
        self._dispatcher.others.hear(texts)
        if self._saying is None or self._saying.done():
            self._saying = asyncio.create_task(self._say(self._dispatcher), name="instance.say")

    async def _say(self, dispatcher: Dispatcher) -> None:
        try:
            if await dispatcher.others.say():
                self.member.tell("stands")
        except SpoolTrouble:  # with the next beat
            pass
        except Exception as error:
            self._events.bug("instance.say", error)


def server_of(settings: Settings) -> Server:
    spool = settings.spool
    assert spool.url is not None
    password = spool.password.get_secret_value() if spool.password else ""
    return Server(spool.url, spool.instance, spool.failover, password)
