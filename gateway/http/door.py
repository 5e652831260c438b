"""Who was turned away, why, and how to let him in; and how much mail came and went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.config.durations import parse_moment
from gateway.http.described import described, given
from gateway.http.problem import fields_of
from gateway.http.service import Service
from gateway.remedies import remedy
from gateway.spool import Flow, RefusalFilter, RefusalRow

_PAGE = 100
_LARGEST_PAGE = 1000
_MOST_STEPS = {"hours": 168, "days": 90}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalShown(RefusalRow):
    """A row; ``why`` is the plain reason and ``fix`` what to do. ``yaml`` are settings to paste in the place of the
    same keys, ``command`` is what applies them, or helps without any. "" for none."""

    why: str
    fix: str
    yaml: str
    command: str


@dataclass(frozen=True, slots=True)
class RefusalList:
    """``reasons`` counts the refusals of all pages by reason. ``kept`` and ``since``: the rows looked at, and from when
    the oldest is."""

    refusals: list[RefusalShown]
    next: str
    reasons: Mapping[str, int]
    kept: int
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalQuery:
    q: str = given("An address of a device or of mail, a network, a domain, a client, a user name, a pattern with *.")
    reason: str = given("Only for this reason, as relay_denied.")
    from_: str = given("From then on: 2026-11-20T10:15Z, 10:15, or an age as 2h.")
    to: str = given("Up to then.")
    before: str = given("The next of the page before.")
    limit: int = given(f"At most so many, up to {_LARGEST_PAGE}.", _PAGE)


@described(query=RefusalQuery)
async def refusals(service: Service, request: Request) -> RefusalList:
    """Who was turned away at the door, newest first; ``next`` is the ``before`` of the next page, "" on the last."""
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
    rows = [explained(service, row) for row in page.rows]
    return RefusalList(rows, page.next, page.reasons, page.kept, page.since)


def explained(service: Service, row: RefusalRow) -> RefusalShown:
    """A row with its plain reason and how to let it in, by the settings in force."""
    return RefusalShown(**fields_of(row), **fields_of(remedy(row, service.settings)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowQuery:
    hours: int = given(f"So many hours, up to {_MOST_STEPS['hours']}.", 24)
    days: int | None = given(f"Instead of hours: so many days, up to {_MOST_STEPS['days']}.", None)


@described(query=FlowQuery)
async def flow(service: Service, request: Request) -> Flow:
    """How much mail came and went: ``hours`` or ``days``, the running one included."""
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
