"""What the database knows of the instances: a row for each, a lock for its name, for each backend it works, and for
the one that keeps house. Steps of a session.

Locks of two numbers (https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS) are of one database:
the class, and the number of the instance or the backend. Who holds one is told by the server, never by a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg

from gateway import __version__
from gateway.postgresql.session import CHANNEL, Session

NAME, BACKEND, HOUSE = 0x67770001, 0x67770002, 0x67770003
FEWEST, MOST = 0, 1023  # numbers of instances, which stand in queue ids
_TRIES = 5  # two that come at once choose the same number

_NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
_FREE = f"""
SELECT min(n) FROM generate_series({FEWEST}, {MOST}) AS n WHERE NOT EXISTS (
    SELECT 1 FROM instance WHERE number = n)"""  # noqa: S608 - of constants of ours
_ADD = """
INSERT INTO instance (name, number, backends, settings, version, started_at, beats, groups)
VALUES (%s, %s, '[]', '', '', 0, 0, 0) ON CONFLICT (name) DO NOTHING"""
_SIT = f"""
UPDATE instance SET beats = beats + 1, backends = %s, settings = %s, version = %s,
    started_at = CASE WHEN %s = 0 THEN {_NOW} ELSE %s END
WHERE name = %s AND number = %s RETURNING started_at"""  # noqa: S608
# It waits for nobody: a group that is being committed has the row, and may take long where it waits for a replica.
# Where one follows the other without a gap there is a wait after all, with an end.
_BEAT = f"""
WITH mine AS (SELECT name FROM instance WHERE name = %s AND number = %s AND started_at = %s FOR UPDATE SKIP LOCKED),
moved AS (UPDATE instance SET beats = beats + 1, backends = %s, settings = %s
    WHERE name IN (SELECT name FROM mine) RETURNING name)
SELECT {_NOW}, (SELECT count(*) FROM moved)
FROM instance WHERE name = %s AND number = %s AND started_at = %s"""  # noqa: S608
_MOVE = """
UPDATE instance SET beats = beats + 1, backends = %s, settings = %s
WHERE name = %s AND number = %s AND started_at = %s"""
# One that ends with something under way is buried by others, who see to that.
_LEAVE = """
DELETE FROM instance WHERE name = %s AND number = %s AND started_at = %s AND NOT EXISTS (
    SELECT 1 FROM delivery WHERE attempt_id IS NOT NULL AND owner = instance.name)"""
_LOCKS = """
SELECT CAST(classid AS BIGINT), CAST(objid AS BIGINT), pid FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND CAST(classid AS BIGINT) = ANY(%s)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_FROM = """
SELECT coalesce(host(a.client_addr), 'this machine''s socket') FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND CAST(l.classid AS BIGINT) = %s
    AND CAST(l.objid AS BIGINT) = %s AND l.database = a.datid"""
_ADD_BACKENDS = """
INSERT INTO backend (name, number, owner, paused, paused_since, paused_by, asked, standing)
SELECT new, (SELECT coalesce(max(number), 0) FROM backend) + row_number() OVER (ORDER BY new), '', FALSE, 0, '', 0, ''
FROM unnest(CAST(%s AS TEXT[])) AS new WHERE new NOT IN (SELECT name FROM backend) ON CONFLICT (name) DO NOTHING"""
# What was said of it was said by who had it then.
_OWN = "UPDATE backend SET owner = %s, standing = '' WHERE name = %s"
_DISOWN = "UPDATE backend SET owner = '', standing = '' WHERE owner = %s AND name = %s"
_DISOWN_ALL = "UPDATE backend SET owner = '', standing = '' WHERE owner = %s"


@dataclass(frozen=True, slots=True)
class Given:
    """What an instance says of itself."""

    backends: Sequence[str]
    settings: str

    @property
    def row(self) -> tuple[str, str]:
        return json.dumps(sorted(self.backends)), self.settings


@dataclass(frozen=True, slots=True)
class Peer:
    """An instance: ``lives`` while its session stands, ``keeps_house`` where it does what one does for all."""

    name: str
    number: int
    backends: tuple[str, ...]
    settings: str
    version: str
    started_at: int
    beats: int
    lives: bool
    keeps_house: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it at one moment. ``numbers`` are those of backends, ``held`` who works which now, ``said`` what that one
    says of it."""

    peers: tuple[Peer, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    @property
    def may(self) -> dict[str, tuple[str, ...]]:
        return {peer.name: peer.backends for peer in self.peers if peer.lives}


class Full(Exception):
    """There are as many instances as there may be."""


async def seat(session: Session, name: str) -> int | None:
    """The number of the instance of this name, with the lock of that; None where somebody else has it. Raises Full."""
    for _ in range(_TRIES):
        found = await session.ask("SELECT number FROM instance WHERE name = %s", name)
        if not found:
            ((free,),) = await session.ask(_FREE)
            if free is None:
                raise Full
            with suppress(psycopg.errors.UniqueViolation):
                await session.ask(_ADD, name, free)
            continue
        number = int(found[0][0])
        if not await lock(session, NAME, number):
            return None
        if await session.ask("SELECT 1 FROM instance WHERE name = %s AND number = %s", name, number):
            return number
        await unlock(session, NAME, number)  # buried just then
    return None


async def sit(session: Session, name: str, number: int, given: Given, started_at: int) -> int | None:
    """Once the name is ours: what was before is over. ``started_at`` 0: this is the first time. None: buried."""
    values = (*given.row, __version__, started_at, started_at, name, number)
    found = await session.ask(_SIT, *values)
    await session.ask(_DISOWN_ALL, name)
    return int(found[0][0]) if found else None


async def beat(session: Session, name: str, number: int, started_at: int, given: Given) -> datetime | None:
    """The database's time; None where our row is not there any more."""
    row = (name, number, started_at)
    found = await session.ask(_BEAT, *row, *given.row, *row)
    if found and not found[0][1]:
        with suppress(psycopg.errors.LockNotAvailable):  # the session stands all the same
            await session.ask(_MOVE, *given.row, *row)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(found[0][0])) if found else None


async def survey(session: Session) -> Survey:
    locks = await session.ask(_LOCKS, [NAME, BACKEND, HOUSE])
    rows = await session.ask(
        "SELECT name, number, backends, settings, version, started_at, beats FROM instance ORDER BY name"
    )
    backends = await session.ask("SELECT name, number, owner, standing FROM backend")
    numbers = {name: int(number) for name, number, *_ in backends}
    names = {int(number): name for name, number, *_ in rows}
    who = {pid: names[number] for kind, number, pid in locks if kind == NAME and number in names}
    holders = {number: who[pid] for kind, number, pid in locks if kind == BACKEND and pid in who}
    house = {who.get(pid) for kind, _, pid in locks if kind == HOUSE}
    lives = set(who.values())
    held = {name: holders[number] for name, number in numbers.items() if number in holders}
    return Survey(
        tuple(
            Peer(name, int(number), _list(backends), settings, version, started, beats, name in lives, name in house)
            for name, number, backends, settings, version, started, beats in rows
        ),
        numbers,
        held,
        {name: said for name, _, owner, said in backends if said and held.get(name) == owner},
    )


def _list(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in json.loads(text))
    except (ValueError, TypeError):
        return ()


async def add_backends(session: Session, names: Sequence[str]) -> None:
    """Those that nobody worked before, all together: others come with the same ones at the same moment."""
    for _ in range(_TRIES):
        with suppress(psycopg.errors.UniqueViolation):
            await session.ask(_ADD_BACKENDS, list(names))
            return


async def own(session: Session, backend: str, name: str) -> None:
    await session.ask(_OWN, name, backend)


async def disown(session: Session, backend: str, name: str) -> None:
    await session.ask(_DISOWN, name, backend)


async def leave(session: Session, name: str, number: int, started_at: int) -> None:
    await session.ask(_LEAVE, name, number, started_at)


async def where(session: Session, number: int) -> str:
    """From where the instance of this number is connected; "" where that is not known."""
    found = await session.ask(_FROM, NAME, number)
    return str(found[0][0]) if found else ""


async def tell(session: Session, payloads: Sequence[str]) -> None:
    await session.ask("SELECT pg_notify(%s, said) FROM unnest(CAST(%s AS TEXT[])) AS said", CHANNEL, list(payloads))


async def lock(session: Session, kind: int, number: int) -> bool:
    return bool((await session.ask("SELECT pg_try_advisory_lock(%s::int, %s::int)", kind, number))[0][0])


async def unlock(session: Session, kind: int, number: int) -> None:
    await session.ask("SELECT pg_advisory_unlock(%s::int, %s::int)", kind, number)
