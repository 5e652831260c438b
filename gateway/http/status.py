"""How it goes: what needs somebody, and the whole of it on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request

import gateway
from gateway.config.inforce import FailedReload, InForce
from gateway.delivery import BackendStatus
from gateway.health.gather import gather
from gateway.health.problem import Problem
from gateway.health.problems import problems, verdict
from gateway.health.records import DiskNow, ListenerNow, Snapshot
from gateway.health.timekeeping import synchronised
from gateway.http import learn
from gateway.http.backends import backends
from gateway.http.door import RefusalShown, explained
from gateway.http.problem import fields_of
from gateway.http.service import Service
from gateway.spool.records import ClockStep

_REFUSALS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The ``verdict`` in words, and what needs somebody, worst first."""

    verdict: str
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class SettingsNow:
    """Which ``file``, null for none; when it was read; the reload that came to nothing since, null for none."""

    file: str | None
    read_at: datetime
    failed: FailedReload | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClockNow:
    """``synchronised`` is null where nobody can tell; ``steps``: when this machine's clock was set, the last first."""

    now: datetime
    synchronised: bool | None
    steps: list[ClockStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolNow:
    """``reserve_bytes`` is kept free of new mail, ``room_bytes`` is left for it. ``shut`` says why none is taken, or is
    "", since ``shut_at``, and ``fix`` what helps. ``database`` is the name of the one that it is in, "" where it is on
    this machine's disk; what is not known of a database is null."""

    used_bytes: int
    free_bytes: int | None
    total_bytes: int | None
    reserve_bytes: int | None
    room_bytes: int | None
    database: str
    writable: bool
    shut: str
    shut_at: datetime | None
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsShown:
    """What is good until ``ends_at``: ``kind`` is certificate, secret, sign_in, key or token, ``of`` whose it is,
    ``key`` stays the same. ``step``: within so many days of 30, 14, 7 and 1; 0: it has ended; null: there is time.
    ``renews``: by itself, 30 days before; ``trouble`` is what hinders that, and ``fix`` what helps."""

    key: str
    kind: str
    what: str
    of: str
    ends_at: datetime
    renews: bool
    trouble: str
    fix: str
    step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All of it. ``queue`` counts deliveries by backend and state, ``oldest`` is since when the first of what waits for
    a backend does, ``in_doubt`` counts what is held for no answer came, ``damaged`` messages that cannot be read.
    ``ends`` is what is good until a day, ``refusals`` are the last five. ``started_at`` is null where none runs."""

    version: str
    hostname: str
    running: bool
    draining: bool
    started_at: datetime | None
    uptime_seconds: int | None
    verdict: str
    problems: list[Problem]
    settings: SettingsNow
    listeners: Mapping[str, ListenerNow]
    queue: Mapping[str, Mapping[str, int]]
    backends: Mapping[str, BackendStatus]
    oldest: Mapping[str, datetime]
    in_doubt: Mapping[str, int]
    damaged: int
    clock: ClockNow
    learning: learn.LearnState
    spool: SpoolNow
    ends: list[EndsShown]
    refusals: list[RefusalShown]


async def found(service: Service, _request: Request) -> Needs:
    """What needs somebody, worst first, and the verdict in words."""
    seen = await gather(service)
    needs = problems(seen)
    return Needs(verdict=verdict(seen, needs), problems=needs)


async def status(service: Service, request: Request) -> Status:
    """All that ``gateway status`` shows. Without a running service what the spool and the settings tell."""
    async with service.spool.one_moment():
        return await _whole(service, request)


async def _whole(service: Service, request: Request) -> Status:
    seen = await gather(service)
    queue: dict[str, dict[str, int]] = {}
    for (backend, state), count in service.spool.counts().items():
        queue.setdefault(backend, {})[state] = count
    refused, needs = await service.spool.last_refused(_REFUSALS), problems(seen)
    return Status(
        version=gateway.__version__,
        hostname=service.settings.hostname,
        running=seen.running,
        draining=seen.draining,
        started_at=seen.started_at,
        uptime_seconds=round((seen.now - seen.started_at).total_seconds()) if seen.started_at else None,
        verdict=verdict(seen, needs),
        problems=needs,
        settings=_settings(service.in_force),
        listeners={one.name: one for one in seen.listeners},
        queue=queue,
        backends=await backends(service, request),
        oldest=_oldest(seen),
        in_doubt={pile.backend: pile.count for pile in seen.doubts},
        damaged=seen.damaged,
        clock=ClockNow(seen.now, synchronised(), await service.spool.clock_steps()),
        learning=learn.state(service),
        spool=_spool(seen.disk),
        ends=[EndsShown(**fields_of(one), step=one.step(seen.now)) for one in seen.ends],
        refusals=[explained(service, row) for row in refused],
    )


def _oldest(seen: Snapshot) -> dict[str, datetime]:
    """Since when the oldest waits, by backend, also by one that is no longer there."""
    known = {one.name: one.oldest for one in seen.backends} | {one.backend: one.since for one in seen.orphans}
    return {name: at for name, at in known.items() if at is not None}


def _settings(now: InForce) -> SettingsNow:
    path = now.loaded.path
    return SettingsNow(str(path) if path else None, now.read_at, now.failed, now.loaded.warnings)


def _spool(disk: DiskNow) -> SpoolNow:
    free, total, reserve = (None, None, None) if disk.database else (disk.free, disk.total, disk.reserve)
    return SpoolNow(
        used_bytes=disk.used,
        free_bytes=free,
        total_bytes=total,
        reserve_bytes=reserve,
        room_bytes=disk.room,
        database=disk.database,
        writable=disk.writable,
        shut=disk.shut,
        shut_at=disk.since,
        fix=disk.fix,
    )
