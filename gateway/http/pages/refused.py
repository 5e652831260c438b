"""What was turned away at the door, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.exceptions import HTTPException

from gateway.config.durations import format_duration
from gateway.config.values import parse_bind
from gateway.http import door
from gateway.http.pages.visit import View, Visit
from gateway.http.problem import fields_of
from gateway.http.service import Service
from gateway.spool import RefusalFilter, RefusalRow

_PAGE = 50
PERIODS = (("1", "Last 24 hours"), ("7", "Last 7 days"), ("30", "Last 30 days"), ("all", "All that is kept"))
_NEVER = (
    "If mail is missing here and under Messages too, it never reached this machine: look at server name and port on"
    " the device."
)
_SHUT = "No new mail is taken now: everybody is told to try again, and is listed here once there is room."
_SAID = {"1": "in the last 24 hours", "7": "in the last 7 days", "30": "in the last 30 days", "all": "of what is kept"}


async def page(visit: Visit) -> View:
    service, now = visit.service, visit.service.clock.now()
    q, reason, before = (visit.text(name)[:300] for name in ("q", "reason", "before"))
    days = visit.text("days") or "7"
    if days not in _SAID:
        raise HTTPException(400, f"days is one of {', '.join(_SAID)}.")
    since = None if days == "all" else now - timedelta(days=int(days))
    which = RefusalFilter(q=q, reason=reason, since=since)
    async with visit.desk.lock(visit.person.key):
        try:
            found = await service.spool.refusals(which, limit=_PAGE, before=before)
        except ValueError:
            raise HTTPException(400, "This is not the address of a page of this list.") from None
    values = {
        "section": "refused", "q": q, "reason": reason, "days": days, "before": before, "periods": PERIODS,
        "period": _SAID[days], "kept": _kept(service.settings.retention.refusals),
        "rows": [_row(service, row) for row in found.rows], "next": found.next, "since": found.since,
        "rows_kept": found.kept, "missing": _SHUT if service.spool.room.shut else _NEVER,
        "reasons": _reasons(found.reasons, reason),
        "total": sum(row.count for row in found.rows),
    }  # fmt: skip
    return View(template="refused.html", values=values)


def _reasons(found: Mapping[str, int], chosen: str) -> list[tuple[str, int]]:
    """Those that there are, the most frequent first; what was chosen stays to be seen."""
    return [*found.items(), *([(chosen, 0)] if chosen and chosen not in found else [])]


def _row(service: Service, row: RefusalRow) -> dict[str, Any]:
    whence = (row.peer if row.client else "not a client", f"login {row.user}" if row.user else "", _way(service, row))
    codes = (str(row.code) if row.code else "", row.enhanced, row.reason)
    shown = {"whence": ", ".join(filter(None, whence)), "codes": " ".join(filter(None, codes))}
    return fields_of(door.explained(service, row)) | shown


def _way(service: Service, row: RefusalRow) -> str:
    """As the device has it in its own settings: a port; or the folder that the file lay in."""
    if (known := service.settings.listeners.get(row.listener)) is None:
        return row.listener
    return f"port {parse_bind(known.bind)[1]}"


def _kept(lasts: timedelta) -> str:
    return f"{lasts.days} days" if lasts.days > 1 else format_duration(lasts)
