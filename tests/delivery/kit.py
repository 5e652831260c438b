"""What the tests of this room share: a dispatcher on a real spool, scripted backends, a clock that moves when told."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.clock import QueueIds
from gateway.config.models import (
    AuthSettings,
    BackendSettings,
    BounceSettings,
    RetrySettings,
    RouteSettings,
    Settings,
)
from gateway.delivery import Dispatcher
from gateway.events import Events
from gateway.model import Backend, Envelope, NewMessage, Outcome, Recipient, Scope, Verdict
from gateway.routing import Routing
from gateway.spool import MessageDetail, Spool
from tests.fakes import FakeClock, ScriptedBackend

DEFERRED = Outcome(Verdict.DEFERRED, code=451, enhanced="4.2.0", detail="greylisted", said_by="smtp")
AWAY = Outcome(Verdict.DEFERRED, enhanced="4.4.1", detail="connection refused", scope=Scope.BACKEND)
REJECTED = Outcome(Verdict.REJECTED, code=550, enhanced="5.1.1", detail="no such user", said_by="smtp")
THROTTLED = Outcome(
    Verdict.THROTTLED,
    code=429,
    enhanced="4.7.28",
    detail="slow down",
    retry_after=timedelta(minutes=7),
    scope=Scope.BACKEND,
    said_by="http",
)
MISCONFIGURED = Outcome(
    Verdict.MISCONFIGURED,
    code=401,
    enhanced="4.7.0",
    detail="bad key",
    scope=Scope.BACKEND,
    said_by="http",
    fix="put a new key into api_key_file",
)
IN_DOUBT = Outcome(Verdict.IN_DOUBT, detail="lost after the dot")
RAW = b"From: s@x.org\r\nTo: a@x.org\r\nSubject: t\r\n\r\nhello\r\n"
LIFETIME = timedelta(days=5)


def settings(
    path: Path,
    *names: str,
    routes: tuple[str, ...] = (),
    bounces: BounceSettings | None = None,
    **changes: object,
) -> Settings:
    """One route to all of these backends in their order, or to ``routes``; ``changes`` are settings of each backend."""
    given: Any = {"type": "scripted", "concurrency": 4, **changes}
    return Settings(
        hostname="relay.x.org",
        state_dir=path,
        listeners={},
        auth=AuthSettings(),
        clients={},
        backends={name: BackendSettings(**given) for name in names},
        routes=(RouteSettings(backend=routes or names),),
        retry=RetrySettings(jitter=0),
        bounces=bounces or BounceSettings(mode="auto"),
    )


def routing(config: Settings, backends: Mapping[str, Backend]) -> Routing:
    return Routing(config.routes, {name: backend.capabilities for name, backend in backends.items()})


class House:
    """A spool and a dispatcher over it, and the few things tests do with them."""

    def __init__(self, spool: Spool, dispatcher: Dispatcher, clock: FakeClock, ids: Callable[[], str]) -> None:
        self.spool = spool
        self.dispatcher = dispatcher
        self.clock = clock
        self.ids = ids
        self.events: Events
        self.log = io.StringIO()

    async def put(self, backend: str, *addresses: str, sender: str = "s@x.org", notify: str = "", **more: Any) -> str:
        recipients = tuple(Recipient(address, notify=notify) for address in addresses or ("a@x.org",))
        now = self.clock.now()
        given = {
            "id": self.ids(),
            "envelope": Envelope(sender, recipients),
            "raw": RAW,
            "deliveries": {backend: tuple(recipient.address for recipient in recipients)},
            "received_at": now,
            "expires_at": now + LIFETIME,
            "client": "c",
        }
        await self.spool.put(NewMessage(**{**given, **more}))
        return str(given["id"])

    async def put_many(self, count: int, backend: str, **more: Any) -> list[str]:
        """Together, so that a few commits serve all."""
        return list(await asyncio.gather(*(self.put(backend, **more) for _ in range(count))))

    async def state(self, identifier: str) -> str:
        detail = await self.spool.show(identifier)
        return detail.message.state if detail else "gone"

    async def settled(self, identifier: str, state: str) -> None:
        while await self.state(identifier) != state:
            await self.clock.sleep(0)

    async def tried(self, identifier: str) -> MessageDetail:
        """Wait until the last attempt has ended."""
        while True:
            detail = await self.spool.show(identifier)
            assert detail is not None
            if detail.attempts and detail.attempts[-1].ended_at is not None:
                return detail
            await self.clock.sleep(0)

    async def queued(self, backend: str, count: int) -> None:
        """Wait until so many deliveries wait for it or are under way."""
        while self.spool.counts().get((backend, "queued"), 0) != count:
            await self.clock.sleep(0.0)

    def paused_by(self, backend: str) -> str:
        return self.dispatcher.status()[backend].paused_by

    def logged(self, event: str) -> list[dict[str, Any]]:
        self.events.flush()
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]


@asynccontextmanager
async def house(path: Path, config: Settings, *backends: ScriptedBackend) -> AsyncIterator[House]:
    clock, log = FakeClock(), io.StringIO()
    events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=log)
    events.declare(backends=[backend.name for backend in backends], clients=["c", "gateway"])
    ids = QueueIds(clock, random.Random(1))
    wakes: list[Callable[[str], None]] = []

    def wake(backend: str) -> None:
        for each in wakes:
            each(backend)

    spool = await Spool.open(path, clock, events=events, wake=wake, reserve=0.0, retention=config.retention)
    by_name = {backend.name: backend for backend in backends}
    ways, rng = routing(config, by_name), random.Random(2)
    dispatcher = Dispatcher(spool, config, ways, events=events, clock=clock, ids=ids, rng=rng)
    wakes.append(dispatcher.wake)
    at = House(spool, dispatcher, clock, ids)
    at.events, at.log = events, log
    await dispatcher.start(by_name)
    try:
        yield at
    finally:
        await dispatcher.drain(1)
        await spool.aclose()
        events.close()
