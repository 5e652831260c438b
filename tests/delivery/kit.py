"""What the tests of this room share: a dispatcher on a real spool, scripted backends, a clock that moves when told."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.clock import QueueIds
from gateway.config.models import BackendSettings, RetrySettings, RouteSettings, Settings
from gateway.delivery import Dispatcher
from gateway.delivery.ownership import Ownership
from gateway.events import Events
from gateway.model import Backend, Envelope, Recipient, SpoolFull
from gateway.routing import Routing
from gateway.spool import MessageDetail, Spool
from tests import builders
from tests.builders import BAD_LOGIN, GREYLISTED, NO_USER
from tests.fakes import FakeClock, ScriptedBackend, breathe, until
from tests.spool_kit import blank, engine_of

FULL = SpoolFull("not enough space in the spool")
DEFERRED, REJECTED, MISCONFIGURED = GREYLISTED, NO_USER, BAD_LOGIN
THROTTLED = replace(builders.THROTTLED, retry_after=timedelta(minutes=7))


def settings(
    path: Path, *names: str, routes: tuple[str, ...] = (), bounces: Mapping[str, str] | None = None,
    notice: timedelta = timedelta(hours=4), **changes: object,
) -> Settings:  # fmt: skip
    """One route to all of these backends in their order, or to ``routes``; ``changes`` are settings of each backend."""
    given: Any = {"type": "scripted", "concurrency": 4, **changes}
    return builders.settings(
        state_dir=path,
        backends={name: BackendSettings(**given) for name in names},
        routes=[RouteSettings(backend=routes or names)],
        retry=RetrySettings(jitter=0, delay_notice=notice),
        bounces=bounces or {},
    )


def routing(config: Settings, backends: Mapping[str, Backend]) -> Routing:
    return Routing(config.routes, {name: backend.capabilities for name, backend in backends.items()})


@dataclass
class House:
    """A spool and a dispatcher over it, and the few things tests do with them."""

    spool: Spool
    dispatcher: Dispatcher
    clock: FakeClock
    ids: Callable[[], str]
    events: Events
    log: io.StringIO
    backends: Sequence[ScriptedBackend] = ()

    def __post_init__(self) -> None:
        self.begun, self.ended = self.calls("keep_time"), self.calls("oldest")  # rounds of housekeeping

    async def put(self, backend: str, *addresses: str, sender: str = "s@x.org", notify: str = "", **more: Any) -> str:
        addresses, now = addresses or ("a@x.org",), self.clock.now()
        envelope = Envelope(sender, tuple(Recipient(address, notify=notify) for address in addresses))
        given = {"ident": self.ids(), "envelope": envelope, "received_at": now, **more}
        message = builders.new_message(*addresses, backend=backend, **given)
        await self.spool.put(message)
        return message.id

    async def put_many(self, count: int, backend: str, *addresses: str, **more: Any) -> list[str]:
        """Together, so that a few commits serve all."""
        return list(await asyncio.gather(*(self.put(backend, *addresses, **more) for _ in range(count))))

    def _before(self, name: str, step: Callable[..., Awaitable[None]]) -> None:
        """``step`` comes before each call of this method of the spool, or before each page that it hands out."""
        method = getattr(self.spool, name)

        async def both(*given: Any, **more: Any) -> Any:
            await step(*given)
            return await method(*given, **more)

        async def paged(*given: Any, **more: Any) -> AsyncIterator[Any]:
            async for page in method(*given, **more):
                await step(*given)
                yield page

        setattr(self.spool, name, paged if inspect.isasyncgenfunction(method) else both)

    def calls(self, name: str, go: asyncio.Event | None = None) -> list[tuple[Any, ...]]:
        """What this method of the spool is given from now on, by call or page; each waits until it may ``go`` on."""
        seen: list[tuple[Any, ...]] = []

        async def note(*given: Any) -> None:
            seen.append(given)
            if go is not None:
                await go.wait()

        self._before(name, note)
        return seen

    def refuse(self, name: str, *errors: Exception) -> list[Exception]:
        """The next calls of this method of the spool end with these; returns those that are still to come."""
        left = list(errors)

        async def refusing(*_: object) -> None:
            if left:
                raise left.pop(0)

        self._before(name, refusing)
        return left

    async def rounds(self, over: Callable[[], object]) -> None:
        """Let one round of housekeeping after the other begin and end until it holds: no time passes in a round."""
        while not over():
            self.clock.advance(16)
            for _ in range(20):  # until it has begun, if it was not in one
                await self.clock.sleep(0)
            while len(self.begun) > len(self.ended) and not over():
                await breathe()

    async def state(self, identifier: str) -> str:
        return (await self.spool.states([identifier])).get(identifier, "gone")

    async def settled(self, identifier: str, state: str) -> None:
        await self.all_settled([identifier], state)

    async def all_settled(self, identifiers: Sequence[str], state: str) -> None:
        while await self.spool.states(identifiers) != dict.fromkeys(identifiers, state):
            await breathe()

    async def tried(self, identifier: str) -> MessageDetail:
        """Wait until the last attempt has ended."""
        while True:
            detail = await self.spool.show(identifier)
            assert detail is not None
            if detail.attempts and detail.attempts[-1].ended_at is not None:
                return detail
            await breathe()

    async def queued(self, backend: str, count: int) -> None:
        """Wait until so many deliveries wait for it or are under way."""
        await until(lambda: self.spool.counts().get((backend, "queued"), 0) == count)

    def paused_by(self, backend: str) -> str:
        return self.dispatcher.status()[backend].paused_by

    def logged(self, event: str) -> list[dict[str, Any]]:
        self.events.flush()
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]


@asynccontextmanager
async def house(
    path: Path,
    *backends: ScriptedBackend,
    config: Settings | None = None,
    ownership: Ownership | None = None,
    later: float = 0.0,
    **changes: Any,
) -> AsyncIterator[House]:
    """Over these backends, by ``config`` or by ``settings`` with these changes; so many seconds ``later``."""
    config = config or settings(path, *(backend.name for backend in backends), **changes)
    clock, log = FakeClock(), io.StringIO()
    clock.advance(later)
    events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=log)
    events.declare(backends=[backend.name for backend in backends], clients=["c", "gateway"])
    ids = QueueIds(clock, random.Random(1))
    spool = await Spool.open(
        blank(path), clock, engine=engine_of(path, clock), events=events, reserve=0.0, retention=config.retention,
        wake=lambda name: dispatcher.wake(name), offer=lambda name: dispatcher.offer(name),  # noqa: PLW0108 - made below
    )  # fmt: skip
    by_name = {backend.name: backend for backend in backends}
    ways, rng = routing(config, by_name), random.Random(2)
    dispatcher = Dispatcher(spool, config, ways, events=events, clock=clock, ids=ids, rng=rng, ownership=ownership)
    at = House(spool, dispatcher, clock, ids, events, log, backends)
    await dispatcher.start(by_name)
    try:
        yield at
    finally:
        await dispatcher.drain(1)
        await spool.aclose()
        events.close()
