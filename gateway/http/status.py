"""How it goes: what needs somebody, and the whole of it on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

import gateway
from gateway.health.gather import gather
from gateway.health.problems import problems, verdict
from gateway.health.records import DiskNow, Snapshot
from gateway.health.timekeeping import synchronised
from gateway.http import door
from gateway.http.backends import backends
from gateway.http.problem import fields_of
from gateway.http.service import Service

_REFUSALS = 5


async def found(service: Service, _request: Request) -> object:
    """What needs somebody, worst first, and the verdict in words."""
    seen = await gather(service)
    return fields_of_found(seen)


def fields_of_found(seen: Snapshot) -> dict[str, Any]:
    needs = problems(seen)
    return {"verdict": verdict(seen, needs), "problems": needs}


async def status(service: Service, request: Request) -> object:
    """All that ``gateway status`` shows. Without a running service what the spool and the settings tell."""
    seen = await gather(service)
    queue: dict[str, dict[str, int]] = {}
    for (backend, state), count in service.spool.counts().items():
        queue.setdefault(backend, {})[state] = count
    refused = await service.spool.last_refused(_REFUSALS)
    in_force = service.in_force
    return {
        "version": gateway.__version__,
        "hostname": service.settings.hostname,
        "running": seen.running,
        "draining": seen.draining,
        "started_at": seen.started_at,
        "uptime_seconds": round((seen.now - seen.started_at).total_seconds()) if seen.started_at else None,
        **fields_of_found(seen),
        "settings": {
            "file": str(in_force.loaded.path) if in_force.loaded.path else None,
            "read_at": in_force.read_at,
            "failed": in_force.failed,
            "warnings": in_force.loaded.warnings,
        },
        "listeners": {one.name: fields_of(one) for one in seen.listeners},
        "queue": queue,
        "backends": await backends(service, request),
        "oldest": await service.spool.oldest(),
        "in_doubt": {pile.backend: pile.count for pile in seen.doubts},
        "damaged": seen.damaged,
        "clock": {
            "now": seen.now,
            "synchronised": synchronised(),
            "steps": await service.spool.clock_steps(),
        },
        "spool": _spool(seen.disk),
        "ends": [{**fields_of(one), "step": one.step(seen.now)} for one in seen.ends],
        "refusals": [door.explained(service, row) for row in refused],
    }


def _spool(disk: DiskNow) -> Mapping[str, Any]:
    return {
        "used_bytes": disk.used,
        "free_bytes": disk.free,
        "total_bytes": disk.total,
        "reserve_bytes": disk.reserve,
        "room_bytes": disk.room,
        "writable": disk.writable,
        "shut": disk.shut,
        "shut_at": disk.since,
        "fix": disk.fix,
    }
