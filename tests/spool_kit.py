"""What the spool's tests share: messages, settlements, an open spool with a clock and a log to look at."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gateway.config.models import RetentionSettings
from gateway.events import Events
from gateway.model import Outcome, Verdict
from gateway.postgresql.engine import Postgres
from gateway.postgresql.server import Server
from gateway.spool import Claim, Delivery, Filter, MessageDetail, Offer, Settlement, Spool
from gateway.spool.line import Line
from gateway.spool.sqlite import SQLite
from tests import postgres_kit
from tests.builders import GREYLISTED, NO_USER, SENT, new_message
from tests.fakes import START, FakeClock

LEASE = timedelta(minutes=5)
DEFERRED, REJECTED = GREYLISTED, NO_USER
STATE = {Verdict.SENT: "sent", Verdict.REJECTED: "failed"}
message = new_message


def of(*ids: str) -> Filter:
    return Filter(ids=ids)


def settlement(claim: Claim, outcome: Outcome | Mapping[str, Outcome] = SENT, **more: Any) -> Settlement:
    addresses = [recipient.address for recipient in claim.message.envelope.recipients]
    outcomes = dict.fromkeys(addresses, outcome) if isinstance(outcome, Outcome) else dict(outcome)
    given = {
        "claim": claim,
        "ended_at": START + timedelta(seconds=1),
        "outcomes": outcomes,
        "states": {address: STATE.get(answer.verdict, "queued") for address, answer in outcomes.items()},
        "next_attempt_at": START + timedelta(minutes=1),
        "backend": claim.backend,
    }
    return Settlement(**{**given, **more})


def made(directory: Path) -> Path:
    """The file of a new spool, or of one that is there, brought up to date."""
    engine = SQLite(directory)
    with closing(engine), closing(engine.open()):
        return engine.path


@cache
def _new() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return made(Path(folder)).read_bytes()


_databases: list[dict[Path, str]] = []  # of the test that runs, by folder; without any, the file in a folder is used


@contextmanager
def on(kind: str) -> Iterator[None]:
    """What ``opened`` opens within: the file of a folder (sqlite), or the database that belongs to it (postgresql)."""
    if kind == "sqlite":
        yield
        return
    _databases.append({})
    try:
        yield
    finally:
        if made := _databases.pop():
            postgres_kit.shared().drop(*made.values())


def on_both(
    metafunc: pytest.Metafunc, files: Collection[str], but: Collection[str] = (), always: Collection[str] = ()
) -> None:
    """Run the tests of these files on both engines, ``but`` for those of these names; on PostgreSQL they are slow, for
    all take minutes, except in files that ``always`` run."""
    name = Path(metafunc.definition.path).name
    if name in files and metafunc.function.__name__ not in but:
        other = pytest.param("postgresql", marks=() if name in always else pytest.mark.slow)
        metafunc.parametrize("engine", ["sqlite", other], indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """On which the spools of a test are, for a conftest to import."""
    kind = getattr(request, "param", "sqlite")
    with on(kind):
        yield kind


@pytest.fixture(autouse=True, scope="module", name="engine")
def engine_of_file(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same, where a spool serves all tests of a file; what opens it has to ask for ``engine``."""
    kind = getattr(request, "param", "sqlite")
    with on(kind):
        yield kind


def _server(url: str) -> Server:
    return Server(url, "a", timedelta(seconds=10), durable=False)


def _make(url: str) -> None:
    engine = Postgres(_server(url))
    with closing(engine), closing(engine.open()):
        pass


def database(directory: Path) -> str:
    """The URL of that of this folder, the same each time."""
    server, known = postgres_kit.shared(), _databases[-1]
    if (key := directory.resolve()) not in known:
        name = f"s{len(known)}_{abs(hash(key)):x}"
        server.create(name, server.template("spool", _make))
        known[key] = name
    return server.url(known[key])


def engine_of(directory: Path, clock: FakeClock) -> Postgres | None:
    """None is for the file in the folder."""
    if not _databases:
        return None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Postgres(_server(database(directory)), now=lambda _link: clock.now())


def blank(directory: Path) -> Path:
    """The same folder, with a new spool in it if it was empty: a copy, for making one costs more than many a test."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _databases and not any(directory.iterdir()):
        file = directory / "spool.db"
        file.touch(mode=0o600)
        file.write_bytes(_new())
    return directory


def peer(directory: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What another connection is answered, to look or to spoil; also beside an open spool."""
    if _databases:
        with postgres_kit.shared().connect(database(directory).partition("@/")[2].partition("?")[0]) as other:
            done = other.execute(statement.replace("%", "%%").replace("?", "%s").encode(), values)
            return done.fetchall() if done.description else []
    with closing(sqlite3.connect(directory / "spool.db")) as file, file:
        file.execute("PRAGMA wal_autocheckpoint = 0")
        return file.execute(statement, values).fetchall()


@contextmanager
def foreign_lock(directory: Path) -> Iterator[None]:
    """Somebody is at work in the sqlite3 shell."""
    with closing(sqlite3.connect(directory / "spool.db", isolation_level=None)) as shell:
        shell.execute("PRAGMA wal_autocheckpoint = 0")
        shell.execute("BEGIN IMMEDIATE")
        yield


_lines: WeakSet[Line] = WeakSet()


def _note_line(name: str, values: tuple[Any, ...]) -> None:
    if name == "sqlite3.connect/handle" and isinstance(values[0], Line):
        _lines.add(values[0])


sys.addaudithook(_note_line)


@contextmanager
def statements() -> Iterator[list[str]]:
    """What any connection that is open carries out: every statement, and COMMIT for each commit."""
    seen: list[str] = []
    lines = list(_lines)

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    def commit(_: object) -> None:
        seen.append("COMMIT")

    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "commit", commit)
    for line in lines:
        _trace(line, seen.append)
    try:
        yield seen
    finally:
        for line in lines:
            _trace(line, None)
        event.remove(Engine, "before_cursor_execute", note)
        event.remove(Engine, "commit", commit)


def _trace(line: Line, into: Callable[[str], None] | None) -> None:
    with suppress(sqlite3.ProgrammingError):  # closed
        line.set_trace_callback(into)


class At:
    """An open spool, its clock, the backends woken and the log."""

    def __init__(self, clock: FakeClock, log: io.StringIO) -> None:
        self.spool: Spool
        self.clock = clock
        self.log = log
        self.events: Events
        self.woken: list[str] = []

    def logged(self, event: str) -> list[dict[str, Any]]:
        self.events.flush()
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]

    async def put(self, *addresses: str, **more: Any) -> str:
        one = message(*addresses, **more)
        await self.spool.put(one)
        return one.id

    async def claim(self, backend: str = "b", *, now: datetime = START, limit: int = 100) -> list[Claim]:
        return list((await self.spool.claim(backend, now=now, lease=LEASE, limit=limit)).claims)

    async def settle(
        self, outcome: Outcome | Mapping[str, Outcome] = SENT, *, backend: str = "b", now: datetime = START, **more: Any
    ) -> Claim:
        """Claim the one delivery that is due, and settle it."""
        (claim,) = await self.claim(backend, now=now)
        await self.spool.settle(settlement(claim, outcome, **more))
        return claim

    async def waiting(self, backend: str = "b") -> list[Delivery]:
        return [delivery async for page in self.spool.deliveries(backend) for delivery in page]

    async def show(self, ident: str) -> MessageDetail:
        detail = await self.spool.show(ident)
        assert detail is not None
        return detail

    async def states(self, ident: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """State of the message, of its recipients by address, of its deliveries by backend."""
        detail = await self.show(ident)
        recipients = {row.address: row.state for row in detail.recipients}
        return detail.state, recipients, {row.backend: row.state for row in detail.deliveries}


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    clock: FakeClock | None = None,
    reserve: float = 0.0,
    most: int | None = None,
    retention: RetentionSettings | None = None,
    offer: Callable[[str], Offer | None] = lambda backend: None,
) -> AsyncIterator[At]:
    log = io.StringIO()
    at = At(clock or FakeClock(), log)
    at.events = Events(CollectorRegistry(), format="json", level="info", clock=at.clock, stream=log)
    at.spool = await Spool.open(
        directory, at.clock, engine=engine_of(directory, at.clock), events=at.events, wake=at.woken.append, offer=offer,
        reserve=reserve, most=most, retention=retention,
    )  # fmt: skip
    try:
        yield at
    finally:
        await at.spool.aclose()
        at.events.close()
