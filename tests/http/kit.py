"""A service with a real spool, real events and real tokens, served on a real UNIX socket and TCP port."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from gateway import auth
from gateway.alerts.watch import Alerts
from gateway.backends import settings_types
from gateway.checks import Check
from gateway.clock import QueueIds
from gateway.config.finding import Ending
from gateway.config.inforce import InForce
from gateway.config.loading import Loaded, load
from gateway.config.models import HttpSettings
from gateway.config.renewal import Renewal
from gateway.delivery import BackendStatus
from gateway.delivery.again import Again
from gateway.delivery.bounces import Bouncer
from gateway.delivery.orders import Orders
from gateway.doctor import Doctor, Subject
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.health.gather import gather
from gateway.http.access import Access
from gateway.http.routes import build
from gateway.http.server import HttpServer
from gateway.http.work import Works
from gateway.learn.learner import Learner
from gateway.model import CallsBack, CannotCarry, Refusal, SpoolFull
from gateway.names import Names
from gateway.quotas import Quotas
from gateway.spool import Filter, Spool
from gateway.spool.wishes import Wish
from tests.builders import new_message, routing
from tests.fakes import START, FakeClock
from tests.spool_kit import blank, engine_of

RAW = b"Subject: secret\r\n\r\nbody\r\n"


class Dispatching:
    """Dispatcher as an operator sees it."""

    again: Again

    def __init__(self) -> None:
        self.alive = True
        self.paused: dict[str, float | None] = {}
        self.who, self.since = "", START
        self.published = 0
        self.hooks: dict[str, CallsBack] = {}
        self.found = Check(True, "it can be written")
        self.owners: dict[str, str] = {}  # of backends that other instances work
        self.wishes = Wishing(self)
        self.others = self.wishes

    def calls_back(self, name: str) -> CallsBack | None:
        return self.hooks.get(name)

    def status(self) -> Mapping[str, BackendStatus]:
        by = "operator" if "box" in self.paused else ""
        more: dict[str, Any] = {"who": self.who, "since": self.since, "state": "paused"} if by else {}
        return {"box": BackendStatus("box", "capture", 1, 0, None, by, "", START, **more)}

    def comebacks(self) -> Mapping[str, Any]:
        return {}

    async def publish(self) -> None:
        self.published += 1

    async def pause(self, name: str, seconds: float | None, who: str = "") -> None:
        self.paused[name], self.who = seconds, who

    async def resume(self, name: str) -> None:
        del self.paused[name]

    def elsewhere(self, name: str) -> str | None:
        return self.owners.get(name)

    async def check(self, name: str) -> Check:
        return self.found


class Wishing:
    """Another instance, which does what it is asked, unless it is ``silent``."""

    def __init__(self, dispatching: Dispatching) -> None:
        self._dispatching = dispatching
        self.silent = False
        self.taken: dict[str, list[str]] = {"taken": [], "differs": [], "errors": []}

    async def ask(self, name: str, what: str, who: str, seconds: float) -> Wish | None:
        if self.silent:
            return None
        found = self._dispatching.found
        if found.ok and what == "fix":
            self._dispatching.paused.pop(name, None)
        check = {"ok": found.ok, "summary": found.summary, "fix": found.fix, "facts": {}, "steps": [["good", "x", ""]]}
        done = {"by": self._dispatching.owners[name], "at": 0, "told": "", "check": check, "renewal": self.taken}
        return Wish(1, what, who, START, done)

    def heard(self, name: str, text: str) -> None:
        pass


@dataclass
class Listener:
    port: int = 8025
    accepting: bool = True
    connections: int = 2


@dataclass
class Alerting:
    """Nobody is told, and nothing was."""

    ways: tuple[str, ...] = ()
    entries: tuple[Any, ...] = ()


@dataclass
class Service:
    """What gateway.app.App is to the handlers."""

    loaded: Loaded
    clock: FakeClock
    events: Events
    spool: Spool
    authenticator: auth.Authenticator
    log: Path
    dispatcher: Dispatching | None = field(default_factory=Dispatching)
    drop: None = None
    listeners: dict[str, Listener] = field(default_factory=lambda: {"local": Listener()})
    draining: bool = False
    doctor: Doctor = field(init=False)
    done: list[Any] = field(default_factory=list)
    reload_error: Exception | None = None
    renewal: Renewal = field(default_factory=Renewal)
    ending: tuple[Ending, ...] = ()
    works: Works = field(init=False)
    quotas: Quotas = field(default_factory=Quotas)
    alerts: Alerting = field(default_factory=Alerting)
    learner: Learner = field(init=False)

    @cached_property
    def inside(self) -> ASGIApp:
        """The admin socket's application, for who asks without any socket."""
        return build(self, Access.SOCKET)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        self.settings = self.loaded.settings
        self.in_force = InForce(self.loaded, self.clock.now())
        self.doctor = Doctor(self.subject)
        self.works = Works(self.clock, self.events)
        self.learner = Learner(self.settings, self.clock, self.events)
        self.alerts = Alerts(self.spool, partial(gather, self), lambda name: True, self.events, self.clock, lambda: "N")
        if self.dispatcher:
            self.dispatcher.again = self._again()

    def _again(self) -> Again:
        """By backends that carry everything, under the settings' own routes."""
        rng, ids = random.Random(1), QueueIds(self.clock, random.Random(2))
        table = routing(self.settings)
        bouncer = Bouncer(self.settings, table, self.events, ids, rng)
        again = Again(self.spool, self.events, self.clock, ids)
        again.update(Orders(table, self.settings.retry, bouncer, {}, rng), self.settings)
        return again

    def subject(self) -> Subject:
        return Subject(
            settings=self.settings,
            read=lambda: read(self.settings.state_dir),
            clock=self.clock,
            names=Names(),
            fetch=Fetch(),
            signals=self.events,
            at_start=self.settings,
            spool=self.spool,
        )

    async def reload(self) -> list[str]:
        if self.reload_error:
            raise self.reload_error
        return ["limits.max_size"]

    async def renew(self, name: str) -> Renewal:
        self.done.append(("renew", name))
        return self.renewal

    async def endings(self) -> Sequence[Ending]:
        return self.ending

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes, *, client: str, pin: str) -> str:
        if sender == "bad@example.com":
            raise Refusal(553, "5.7.1", "sender not allowed", "sender")
        if sender == "big@example.com":
            raise CannotCarry("too_big", "5.3.4", "too big for box")
        if sender == "full@example.com":
            raise SpoolFull("no room")
        self.done.append((sender, tuple(recipients), raw, client, pin))
        return "NEW"

    async def bounce(self, which: Filter, each: Callable[[Mapping[str, bool]], object] = len) -> dict[str, bool]:
        found = {row.id: bool(row.sender) for row in await self.spool.find(which, limit=5000)}
        self.done.append(("bounce", tuple(found)))
        each(found)
        return found

    async def revoke(self, *, jti: str, subject: str) -> None:
        await self.spool.revoke(jti=jti, subject=subject, now=self.clock.now())

    async def put(self, number: int, *, sender: str = "app@example.com", to: str = "bob@example.net") -> str:
        received = START - timedelta(minutes=number)
        message = new_message(
            to,
            backend="box",
            ident=f"M{number:03}",
            sender=sender,
            raw=RAW,
            received_at=received,
            client="localhost",
            message_id=f"<{number}@example.com>",
        )
        await self.spool.put(message)
        return message.id

    def admin_token(
        self, audience: str = auth.ADMIN_AUDIENCE, expires: timedelta = timedelta(hours=1), role: str = ""
    ) -> str:
        claims = {name: value for name, value in {"aud": audience, "role": role}.items() if value}
        return auth.mint(
            self.settings, "own", subject="ops", expires_in=expires, now=self.clock.now(), jti="j1", claims=claims
        )


def read(folder: Path) -> Loaded:
    return load(None, {}, settings_types(), {"state_dir": str(folder), "http.bind": "127.0.0.1:0"})


@asynccontextmanager
async def service(file: Path | None = None) -> AsyncIterator[Service]:
    """Its own short directory: the path of a UNIX socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        path = blank(Path(folder))
        own = {"state_dir": folder, "http.bind": "127.0.0.1:0"}
        loaded = load(file, {}, settings_types(), own)
        settings = loaded.settings
        auth.ensure_own_key(settings)
        clock, fetch = FakeClock(), Fetch.__new__(Fetch)  # never used: the only key is our own
        with (path / "log").open("w") as log:
            events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=log)
            events.declare(listeners=["local"], backends=settings.backends, clients=settings.clients, keys=["own"])
            spool = await Spool.open(path, clock, engine=engine_of(path, clock), events=events, reserve=1.0)
            authenticator = auth.Authenticator(settings, clock, fetch, events, auth.Revocations(), uses=spool.uses)
            try:
                yield Service(loaded, clock, events, spool, authenticator, path / "log")
            finally:
                await authenticator.aclose()
                await spool.aclose()
                events.close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    where: Path | int | Service, method: str, path: str, body: object = None, host: str = "localhost", **headers: str
) -> Reply:
    """One request, written by hand so that every header is what the test says.

    ``where``: a socket file, a TCP port, or a service that is asked without any server, as the commands do offline.
    """
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if isinstance(where, Service):
        return await _inside(where, method, path, content)
    by_file = isinstance(where, Path)
    opening = asyncio.open_unix_connection(where) if by_file else asyncio.open_connection("127.0.0.1", where)
    reader, writer = await opening
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    return Reply(int(status.split()[1]), found, rest)


async def _inside(running: Service, method: str, path: str, content: bytes) -> Reply:
    transport = httpx.ASGITransport(running.inside)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.request(method, path, content=content)
    return Reply(reply.status_code, reply.headers, reply.content)


@asynccontextmanager
async def serving(running: Service, bind: str = "") -> AsyncIterator[HttpServer]:
    """As the settings say; or at this address, with a socket file of its own."""
    other = HttpSettings(bind=bind, socket=running.settings.state_dir / "other.sock")
    server = HttpServer(running, other if bind else running.settings.http)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
