"""PostgreSQL as the spool's engine: a database that other instances use, too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
from psycopg.sql import Literal
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.clock import Clock, SystemClock
from gateway.model import SpoolUnavailable
from gateway.postgresql import schema, starting
from gateway.postgresql.link import Link, Unwitnessed, adapt, connect, writing
from gateway.postgresql.server import Server
from gateway.postgresql.terms import TERMS
from gateway.postgresql.timing import SharedTime
from gateway.spool import spelling
from gateway.spool.engine import OUT_OF_ORDER, Space, Trouble
from gateway.spool.records import SpoolError
from gateway.spool.steady import SpoolTime

_NUMBERS = 1000  # of attempts, taken from the sequence at a time
_PAUSE = 0.25  # seconds between two tries
_UNKNOWN = 60.0  # seconds to find out whether a group is committed
_SLICE = 1 << 20  # octets of a body read at a time
_TROUBLES: tuple[tuple[Trouble, tuple[type[Exception], ...]], ...] = (
    (Trouble.BUSY, (Unwitnessed,)),
    (Trouble.FULL, (psycopg.errors.DiskFull,)),
    (
        Trouble.AGAIN,
        (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure, psycopg.errors.LockNotAvailable),
    ),
    # The session is over, or is of a server that takes no writes any more (it became a replica).
    (
        Trouble.BROKEN,
        (
            psycopg.errors.AdminShutdown,
            psycopg.errors.CrashShutdown,
            psycopg.errors.CannotConnectNow,
            psycopg.errors.IdleInTransactionSessionTimeout,
            psycopg.errors.IdleSessionTimeout,
            psycopg.errors.ReadOnlySqlTransaction,
        ),
    ),
)
# Of a programming error's kind, but somebody's who took rights, tables or columns away.
_TAKEN = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedTable,
)
_OURS = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError)
# The first number that nobody has.
_JOIN = """
INSERT INTO instance (name, number, backends, settings, version, started_at)
SELECT %(name)s, (SELECT min(n) FROM generate_series(0, 1023) AS n
    WHERE NOT EXISTS (SELECT 1 FROM instance AS i WHERE i.number = n)), '[]', '', '',
    CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)
ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING groups, started_at"""
_WITNESS = "UPDATE instance SET groups = {} WHERE name = {} AND started_at = {}"
_OWNER = "SELECT owner FROM backend WHERE name = %(name)s FOR SHARE"
# Waits for a session of ours that is still in its COMMIT: but not for a row that it asks for by what that changes.
_WITNESSED = "SELECT groups FROM instance WHERE name = %(name)s AND started_at = %(run)s FOR UPDATE"


class Postgres:
    """One database, shared with others (engine.Engine). ``works``: the backends of this instance, ``run``:
    which of its runs this is, both as a member.Member says; without one it has them all. ``now``: whose time
    it is, the database's where nothing is said. ``clock`` is for waiting."""

    kind = "postgresql"
    shared = True

    def __init__(
        self,
        server: Server,
        *,
        works: Callable[[str], bool] = lambda backend: True,
        run: Callable[[], int] | None = None,
        now: Callable[[Link], datetime] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = server.shown
        self.owner = server.instance
        self.version = ""
        self.notes: dict[str, list[str]] = {}
        self._server = server
        self._counts: Counter[tuple[str, str]] = Counter()
        self._link: Link | None = None
        self._time: SharedTime | None = None
        self._looking: psycopg.Connection[Any] | None = None
        self._groups = 0  # that were begun
        self._witness = (0, 0)  # the run and the number of the last of them
        self._started_at = 0
        self._hurried = Event()
        self._works, self._run = works, run
        self._now, self._clock = now or _database_time, clock or SystemClock()
        self._numbers = self._attempt_ids()

    def prepare(self, agree: Callable[[Link], None] = lambda link: None) -> None:
        """See that the database will do, make its tables, and let ``agree`` look at what instances have to have in
        common, in a transaction. Raises SpoolError."""
        self.version = starting.check(self._server)
        try:
            with closing(writing(self._server)) as link:
                schema.bring_up(link, self.name)
                schema.analyse(link)
                with link.begin():
                    agree(link)
        except psycopg.Error as error:
            raise starting.refused(self._server, error) from error

    def open(self) -> Link:
        """By one of the instances: a member.Member has made it one, or it becomes one now."""
        self.prepare()
        try:
            link = self._connected()
            try:
                self._join(link)
            except BaseException:
                link.close()
                raise
        except psycopg.Error as error:
            raise starting.refused(self._server, error) from error
        link.before = self._begun
        return link

    def reopen(self) -> Link:
        return self.resume(made=False)[0]

    def resume(self, *, made: bool) -> tuple[Link, bool]:
        """Waits for a server that starts anew. Clients wait meanwhile, who have ten minutes (RFC 5321, 4.5.3.2.6)."""
        patience = _UNKNOWN if made else self._server.failover.total_seconds() / 2
        until = self._clock.monotonic() + patience
        self.close()
        while True:
            try:
                link = self._connected()
                took_place = made and self._took_place(link)
            except psycopg.OperationalError:
                self.close()
                if self._hurried.wait(_PAUSE) or self._clock.monotonic() >= until:
                    raise
            else:
                link.before = self._begun
                return link, took_place

    def hasten(self) -> None:
        self._hurried.set()

    def _connected(self) -> Link:
        self._link = writing(self._server)
        return self._link

    def _join(self, link: Link) -> None:
        with link.begin():
            link.all("SELECT pg_advisory_xact_lock(%(key)s)", {"key": schema.LOCK})
            found = link.all(_JOIN, {"name": self.owner})[0]
            self._groups, self._started_at = found["groups"], found["started_at"]

    def _begun(self) -> str:
        """The witness: what it says after a connection was lost tells whether the commit took place."""
        self._groups += 1
        self._witness = (self._run() if self._run else self._started_at, self._groups)
        return _WITNESS.format(self._groups, Literal(self.owner).as_string(), self._witness[0])

    def _took_place(self, link: Link) -> bool:
        run, groups = self._witness
        return [row["groups"] for row in link.all(_WITNESSED, {"name": self.owner, "run": run})] == [groups]

    def time(self, clock: Clock, connection: Link) -> SpoolTime:
        self._time = SharedTime(clock, self._now(connection))
        return self._time

    def told(self, now: datetime) -> None:
        """The database's time, again. Quick."""
        if self._time is not None:
            self._time.told(now)

    def may_claim(self, connection: Link, backend: str) -> bool:
        found = connection.all(_OWNER, {"name": backend}) if backend else ()
        if self._run is None and not (found and found[0]["owner"]):
            return True  # nobody shares them out
        return backend == "" or bool(found and found[0]["owner"] == self.owner)

    def announce(self, connection: Link, backends: Collection[str]) -> None:
        for name in backends:
            if not self._works(name):
                connection.all("SELECT pg_notify('gateway', %(what)s)", {"what": f"wake {name}"})

    def readers(self) -> AsyncEngine:
        async def made() -> psycopg.AsyncConnection[Any]:
            connection = await psycopg.AsyncConnection.connect(self._server.conninfo("reader"), autocommit=True)
            try:
                await connection.execute(TERMS, prepare=False)
                await connection.set_autocommit(False)
                await connection.set_read_only(True)
                adapt(connection)
            except BaseException:
                await connection.close()
                raise
            return connection

        return create_async_engine(
            "postgresql+psycopg://",
            async_creator=made,
            pool_size=4,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
        )

    def close(self) -> None:
        for connection in (self._link, self._looking):
            if connection is not None:
                connection.close()
        self._link = self._looking = None

    def classify(self, error: BaseException) -> Trouble:
        cause = getattr(error, "orig", error)  # of one that looks it comes wrapped
        for trouble, kinds in _TROUBLES:
            if isinstance(cause, kinds):
                return trouble
        if not isinstance(cause, psycopg.Error):
            return Trouble.OURS
        lost = self._link is not None and self._link.lost
        if lost or (isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None):
            return Trouble.BROKEN
        return Trouble.OURS if isinstance(cause, _OURS) and not isinstance(cause, _TAKEN) else Trouble.FAILED

    def distrust(self) -> None:
        """It looks after its pages itself."""

    def explain(self, error: BaseException) -> str:
        return starting.hinted(str(getattr(error, "orig", error)))

    def probe(self, connection: Link) -> None:
        """Also whether somebody keeps from us what new mail needs."""
        connection.all("UPDATE alembic_version SET version_num = version_num")
        connection.all("LOCK TABLE message, recipient, delivery, body IN ROW EXCLUSIVE MODE")

    def committed(self, connection: Link, now: int) -> str:
        return ""

    def lengthy(self) -> bool:
        return False

    def shorten(self, connection: Link) -> None:
        """It has no log of ours."""

    def rescue(self, connection: Link) -> Link:
        return connection

    def finish(self, connection: Link) -> None:
        with suppress(psycopg.Error):
            connection.close()

    def relieve(self, connection: Link) -> str:
        return "database"

    def set_aside(self) -> int:
        return 0

    def render(self, statement: str) -> str:
        return spelling.postgresql(statement)

    def listed(self, values: Sequence[Any]) -> Any:
        return json.dumps(values) if values and isinstance(values[0], tuple) else list(values)

    def stow(self, raw: bytes) -> tuple[bytes, int, int, int]:
        return raw, 0, 0, len(raw)

    def body(self, row: Any) -> bytes:
        raw: bytes = row["raw"]
        return raw if len(raw) == row["length"] else self._read(row["body_of"], row["length"])

    def _read(self, ident: str, length: int) -> bytes:
        """In slices: as a whole it would be there three times. Raises SpoolUnavailable."""
        whole = bytearray()
        try:
            with closing(connect(self._server, "body")) as own:
                for at in range(1, length + 1, _SLICE):
                    asked = "SELECT substring(raw FROM %s FOR %s) AS part FROM body WHERE message_id = %s"
                    with own.cursor(binary=True) as cursor:
                        row = cursor.execute(asked, (at, _SLICE, ident)).fetchone()
                    if row is None:
                        break
                    whole += row["part"]
        except psycopg.Error as error:
            raise SpoolUnavailable(OUT_OF_ORDER) from error
        return bytes(whole)

    def drop(self, rows: Iterable[Any]) -> None:
        """They were deleted with their rows."""

    def allow(self, octets: int) -> None:
        """There is nowhere else."""

    def attempt_ids(self, connection: Link) -> Iterator[int]:
        return self._numbers

    def _attempt_ids(self) -> Iterator[int]:
        while True:
            assert self._link is not None
            block = self._link.all("SELECT nextval('attempt_block') AS n")[0]["n"]
            yield from range(block * _NUMBERS, (block + 1) * _NUMBERS)

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        self._counts.update(counts)

    def recounted(self, counts: Mapping[tuple[str, str], int]) -> None:
        self._counts = Counter(counts)

    def counts(self) -> Mapping[tuple[str, str], int]:
        return {key: count for key, count in self._counts.items() if count > 0}

    def space(self) -> Space:
        looking = self._looking
        try:
            if looking is None or looking.closed:
                looking = self._looking = connect(self._server, "space")
            row = looking.execute("SELECT pg_database_size(current_database()) AS used").fetchone() or {"used": 0}
        except psycopg.Error as error:
            if looking is not None:
                looking.close()
            raise OSError(self.explain(error)) from error
        return Space(used=int(row["used"]), free=0, total=0)

    def shrink(self, connection: Link) -> int:
        return 0  # autovacuum does

    def copy(self, to: Path) -> None:
        raise SpoolError(f"the spool is the database {self.name}: pg_dump makes a copy of it")


def _database_time(link: Link) -> datetime:
    found: datetime = link.all("SELECT clock_timestamp() AS now")[0]["now"]
    return found.astimezone(UTC)
