"""What was worth telling somebody, and who was told; and a test of the ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.alerts.ledger import Entry
from gateway.health.problem import Problem
from gateway.http.described import described
from gateway.http.problem import fields_of
from gateway.http.service import Service, running


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow(Problem):
    """A problem. ``told`` are the ways that have told of it, ``owed`` those that still have to, with new or over.

    ``over_at`` is when it was found to be over.
    """

    told: tuple[str, ...]
    owed: Mapping[str, str]
    over_at: datetime | None


@dataclass(frozen=True, slots=True)
class AlertList:
    """``ways`` are those that are configured: mail, webhook, command."""

    ways: tuple[str, ...]
    alerts: list[AlertRow]


@described(refusals=(503,))
async def alerts(service: Service, _request: Request) -> AlertList:
    """What somebody was told: the newest first, with what is over since at most 90 days."""
    running(service)
    return AlertList(service.alerts.ways, [_row(entry) for entry in service.alerts.entries])


def _row(entry: Entry) -> AlertRow:
    problem = {**fields_of(entry.event.problem), "key": entry.event.key, "since": entry.first}
    return AlertRow(**problem, told=entry.told, owed=dict(entry.owed), over_at=entry.over_at)


@dataclass(frozen=True, slots=True)
class Tested:
    """By way "" where it took the test, else why not."""

    ways: Mapping[str, str]


@described(refusals=(409, 503))
async def test(service: Service, _request: Request) -> Tested:
    """Send a test alert by every way."""
    running(service)
    if not service.alerts.ways:
        raise HTTPException(409, "nobody is told: write for example  alerts: {to: [admin@example.com]}  and reload")
    return Tested(await service.alerts.test())
