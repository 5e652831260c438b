"""Takes the snapshot that problems are computed from: of a running service, or of a spool alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from gateway.clock import Clock
from gateway.config.alike import differences
from gateway.config.finding import Ending
from gateway.config.inforce import InForce
from gateway.config.models import Settings
from gateway.delivery import BackendStatus, Comebacks, Dispatcher
from gateway.drop.drop import Drop, places
from gateway.events import Events
from gateway.health.descriptors import lacking
from gateway.health.ends import LASTING, ends
from gateway.health.problems import STUCK
from gateway.health.records import (
    BackendNow,
    DeadNow,
    DiskNow,
    ListenerNow,
    PickupNow,
    Pile,
    Snapshot,
    StepNow,
    Stuck,
    UnreadNow,
)
from gateway.spool import FIXES, Backlog, Spool

_OVER = timedelta(days=7)  # a token that ended longer ago is missed by nobody
_AHEAD = timedelta(days=30)


class Listening(Protocol):
    """The part of smtp.Listener that is seen from outside; ``connections`` are open now."""

    @property
    def port(self) -> int: ...
    @property
    def accepting(self) -> bool: ...
    @property
    def connections(self) -> int: ...


class Watched(Protocol):
    """What is looked at: a gateway that runs, or only its open spool; then ``dispatcher`` is None."""

    @property
    def settings(self) -> Settings: ...
    @property
    def in_force(self) -> InForce: ...
    @property
    def spool(self) -> Spool: ...
    @property
    def events(self) -> Events: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def dispatcher(self) -> Dispatcher | None: ...
    @property
    def drop(self) -> Drop | None: ...
    @property
    def listeners(self) -> Mapping[str, Listening]: ...
    @property
    def draining(self) -> bool: ...
    async def endings(self) -> Sequence[Ending]: ...


async def gather(seen: Watched) -> Snapshot:
    """A few short questions to the spool, whatever waits there. Nobody else is asked."""
    spool, settings, now, memory = seen.spool, seen.settings, seen.clock.now(), seen.events.memory
    dispatcher = seen.dispatcher
    backlog = await spool.backlog()
    backends = _backends(seen, backlog.oldest)
    tokens = await spool.tokens_ending(now - _OVER, now + _AHEAD, LASTING)
    disk = _disk(spool)
    return Snapshot(
        now=now,
        running=dispatcher is not None,
        disk=disk,
        started_at=memory.started_at if dispatcher is not None else None,
        draining=seen.draining,
        delivering=dispatcher is None or dispatcher.alive,
        backends=backends,
        doubts=tuple(Pile(backend=one.backend, count=one.count, since=one.since) for one in backlog.doubts),
        orphans=_orphans(seen, backlog.oldest),
        stuck=_stuck(backlog, backends, now),
        damaged=backlog.damaged,
        damaged_id=backlog.damaged_id,
        ends=ends(settings, await seen.endings(), memory.ends, tokens, memory.renewals),
        listeners=_listeners(seen),
        reload=seen.in_force.failed,
        differing=tuple(str(one) for one in differences(await spool.settings_told())),
        steps=tuple(StepNow(was_at=one.was_at, now_at=one.now_at) for one in backlog.steps),
        bugs=memory.bugs,
        log_ins=memory.log_ins,
        storms=memory.storms,
        descriptors=lacking(settings) if dispatcher is not None else "",
        pickups=() if disk.shut else _pickups(seen),
        unread=tuple(
            UnreadNow(backend=name, since=why.since, said=why.said, fix=why.fix)
            for name, one in _comebacks(seen).items()
            if (why := one.unread)
        ),
        dead=tuple(
            DeadNow(backend=name, address=each.address, count=each.count, since=each.since, said=each.said)
            for name, one in _comebacks(seen).items()
            for each in one.dead
        ),
    )


def _comebacks(seen: Watched) -> Mapping[str, Comebacks]:
    return seen.dispatcher.comebacks() if seen.dispatcher is not None else {}


def _backends(seen: Watched, oldest: Mapping[str, datetime]) -> tuple[BackendNow, ...]:
    """Worst first: who is awake at three in the morning reads from the top."""
    counts = seen.spool.counts()
    standing = seen.dispatcher.status() if seen.dispatcher is not None else {}
    found = [
        _backend(standing.get(name), name, section.type, section.title, counts, oldest.get(name))
        for name, section in seen.settings.backends.items()
    ]
    order = ("stopped", "slowed_down", "paused", "working", "")
    return tuple(sorted(found, key=lambda one: order.index(one.state)))


def _backend(
    stands: BackendStatus | None,
    name: str,
    kind: str,
    title: str,
    counts: Mapping[tuple[str, str], int],
    oldest: datetime | None,
) -> BackendNow:
    waiting, held = (counts.get((name, state), 0) for state in ("queued", "held"))
    plain = BackendNow(name=name, type=kind, title=title, state="", waiting=waiting, held=held, oldest=oldest)
    if stands is None:
        return plain
    return BackendNow(
        name=name,
        type=kind,
        title=title,
        state=stands.state,
        by=stands.paused_by,
        who=stands.who,
        since=stands.since,
        until=stands.paused_until,
        said=stands.reason,
        fix=stands.fix,
        waiting=waiting,
        held=held,
        oldest=oldest,
        in_flight=stands.in_flight,
        last_success=stands.last_success,
    )


def _orphans(seen: Watched, oldest: Mapping[str, datetime]) -> tuple[Pile, ...]:
    known = seen.settings.backends
    return tuple(
        Pile(backend=name, count=count, since=oldest.get(name))
        for (name, state), count in sorted(seen.spool.counts().items())
        if state == "queued" and count and name not in known
    )


def _stuck(backlog: Backlog, backends: Sequence[BackendNow], now: datetime) -> tuple[Stuck, ...]:
    working = [(one.name, backlog.firsts.get(one.name)) for one in backends if one.state == "working"]
    return tuple(
        Stuck(
            backend=name, since=row.received_at, id=row.message_id, attempts=row.attempts, said=row.detail, fix=row.fix
        )
        for name, row in working
        if row is not None and now - row.received_at > STUCK
    )


def _disk(spool: Spool) -> DiskNow:
    room = spool.room
    return DiskNow(
        used=room.space.used,
        free=room.space.free,
        total=room.space.total,
        reserve=room.reserve,
        room=max(0, min(room.left.values())) if room.left else None,
        database=room.database,
        shut=room.shut,
        fix=FIXES.get(room.shut, ""),
        since=room.shut_at,
        writable=spool.writable(),
    )


def _listeners(seen: Watched) -> tuple[ListenerNow, ...]:
    found = []
    for name, one in seen.listeners.items():
        section = seen.settings.listeners.get(name)  # None: taken out of the file since
        bind, tls, auth = (section.bind, section.tls, section.auth) if section else ("", "", "")
        found.append(
            ListenerNow(
                name=name, bind=bind, tls=tls, auth=auth, port=one.port, accepting=one.accepting,
                connections=one.connections,
            )
        )  # fmt: skip
    return tuple(found)


def _pickups(seen: Watched) -> tuple[PickupNow, ...]:
    if seen.drop is None:
        return ()
    paths = places(seen.settings)
    return tuple(
        PickupNow(name=name, path=str(paths[name].new), reason=reason)
        for name, reason in seen.drop.reasons.items()
        if reason and name in paths
    )
