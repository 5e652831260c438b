"""Who was turned away, why, and how to let him in; and how much mail came and went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.config.durations import parse_moment
from gateway.http.problem import fields_of
from gateway.http.service import Service
from gateway.remedies import remedy
from gateway.spool import RefusalFilter, RefusalRow

_PAGE = 100
_LARGEST_PAGE = 1000
_MOST_STEPS = {"hours": 168, "days": 90}


async def refusals(service: Service, request: Request) -> object:
    """Newest first; ``next`` is the ``before`` of the next page, "" on the last."""
    query, now = dict(request.query_params), service.clock.now()
    limit, before = _number(query.pop("limit", str(_PAGE)), "limit", _LARGEST_PAGE), query.pop("before", "")
    if unknown := query.keys() - {"q", "reason", "from", "to"}:
        known = "q, reason, from, to, before, limit"
        raise HTTPException(400, f"unknown filter {', '.join(sorted(unknown))}; there are {known}")
    since, until = _time(query, "from", now), _time(query, "to", now)
    which = RefusalFilter(q=query.get("q", ""), reason=query.get("reason", ""), since=since, until=until)
    try:
        page = await service.spool.refusals(which, limit=limit, before=before)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    found = fields_of(page)
    return {"refusals": [explained(service, row) for row in found.pop("rows")], **found}


def explained(service: Service, row: RefusalRow) -> dict[str, Any]:
    """A row with its plain reason and how to let it in, by the settings in force."""
    return {**fields_of(row), **fields_of(remedy(row, service.settings))}


async def flow(service: Service, request: Request) -> object:
    """``hours`` or ``days``, the running one included."""
    query = dict(request.query_params)
    unit = "days" if "days" in query else "hours"
    count = _number(query.pop(unit, "24"), unit, _MOST_STEPS[unit])
    if query:
        raise HTTPException(400, f"unknown: {', '.join(sorted(query))}; give hours or days")
    return await service.spool.flow(service.clock.now(), count, timedelta(**{unit: 1}))


def _number(given: str, name: str, most: int) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) < 6 and 1 <= int(given) <= most):
        raise HTTPException(400, f"{name} must be a number from 1 to {most}")
    return int(given)


def _time(query: Mapping[str, str], name: str, now: datetime) -> datetime | None:
    if not (given := query.get(name, "")):
        return None
    try:
        return parse_moment(given, now)
    except ValueError as error:
        raise HTTPException(400, f"{name}: {error}") from None
