"""The first page: what is wrong, whether mail flows, where it waits, what ends soon, who was turned away, the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from gateway.health.gather import gather
from gateway.health.problem import Problem
from gateway.health.problems import problems, verdict
from gateway.health.records import BackendNow, Snapshot
from gateway.http import door
from gateway.http.pages.charts import charts
from gateway.http.pages.standing import ending, note, tag
from gateway.http.pages.text import Times, url
from gateway.http.pages.visit import View, Visit
from gateway.http.problem import fields_of
from gateway.spool import Counts

_DAY = 24  # hours of the charts
_HOUR = timedelta(hours=1)
_SOON = timedelta(days=30)
_REFUSED = 5


async def page(visit: Visit) -> View:
    service, times = visit.service, visit.times
    seen = await gather(service)
    found = problems(seen)
    values: dict[str, Any] = {"section": "overview", **_verdict(seen, found, times), "running": seen.running}
    values["found"] = [_problem(one, seen) for one in found]
    if visit.asked_part != "lead":
        flow = await service.spool.flow(times.now, _DAY, _HOUR)
        values |= {"charts": charts(flow, times), "backends": _backends(seen, flow.running, times)}
        values |= _totals(seen)
    if not visit.asked_part:
        values |= _ends(seen) | _disk(seen)
        values["refused"] = await _refused(visit)
    return View(template="overview.html", values=values, needs=len(found))


def _verdict(seen: Snapshot, found: Sequence[Problem], times: Times) -> dict[str, str]:
    """The heading, and the line below it."""
    heading, _, rest = verdict(seen, list(found)).rstrip(".").partition(". ")
    if found:
        return {"heading": heading, "lead": _what_still_works(seen, times)}
    if not rest:
        return {"heading": heading, "lead": "What is queued is kept. Start it with: systemctl start gateway"}
    soon = [one for one in seen.ends if one.ends_at - seen.now <= _SOON]
    ends = f"the next to end is {_lower(soon[0].what)} of {soon[0].of}" if soon else "nothing ends in the next 30 days"
    return {"heading": heading, "lead": f"{rest}, and {ends}."}


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _what_still_works(seen: Snapshot, times: Times) -> str:
    """Most panic is doubt about what is lost."""
    taken = seen.running and seen.disk.writable and not seen.disk.shut and not seen.draining
    lost = "Mail is being accepted and nothing is lost." if taken else "Nothing that was accepted is lost."
    parts = [text for one in seen.backends if (text := _rests(one, times))]
    if working := sum(one.state == "working" for one in seen.backends):
        parts.append("every backend works" if working == len(seen.backends) else "the rest works")
    if not parts:
        return lost
    text = ", ".join(parts)
    return f"{lost} {text if parts[0].partition(' ')[0] in names(seen) else text[:1].upper() + text[1:]}."


def names(seen: Snapshot) -> list[str]:
    return [one.name for one in seen.backends]


def _rests(one: BackendNow, times: Times) -> str:
    until = f" until {times.text(one.until, seconds=False)}" if one.until else ""
    if one.state == "slowed_down":
        return f"{one.name} is slowed down{until}"
    return f"{one.name} is paused{f' by {one.who}' if one.who else ''}{until}" if one.state == "paused" else ""


def _problem(one: Problem, seen: Snapshot) -> dict[str, Any]:
    """``link`` is where its messages are, ``by_whom`` who is quoted."""
    titles = {backend.name: backend.title for backend in seen.backends}
    state = {"in_doubt": "held", "damaged": "damaged"}.get(one.kind, "waiting")
    backend = one.backend or one.key.partition(":")[2] * (one.kind == "no_backend")
    link, fix = url("/ui/messages", state=state, backend=backend), one.fix
    if one.action == "fix":  # which the button does
        command = f"gateway backend fix {one.backend}"
        fix = fix.replace(f"Then: {command}", "Then press the button.")
        fix = fix.replace(f"try again: {command}", "press the button.")
    return {**fields_of(one), "fix": fix, "link": link, "by_whom": titles.get(one.backend, "").partition(",")[0]}


def _backends(seen: Snapshot, hour: Mapping[str, Counts], times: Times) -> list[dict[str, Any]]:
    """The worst first; ``hour`` is what each did in the running hour."""
    return [
        {
            **fields_of(one), "tag": tag(one.state, one.who), "note": note(one, times),
            "oldest_age": (seen.now - one.oldest).total_seconds() if one.oldest else 0.0,
            "sent": hour.get(one.name, Counts()).sent,
        }
        for one in seen.backends
    ]  # fmt: skip


def _totals(seen: Snapshot) -> dict[str, int]:
    return {"waiting": sum(one.waiting for one in seen.backends), "held": sum(one.held for one in seen.backends)}


def _ends(seen: Snapshot) -> dict[str, Any]:
    """Those of the next 30 days, and the first after that."""
    soon = [one for one in seen.ends if one.ends_at - seen.now <= _SOON]
    later = next((one for one in seen.ends if one.ends_at - seen.now > _SOON), None)
    return {"ends": [ending(one, seen.now) for one in soon], "first": later}


def _disk(seen: Snapshot) -> dict[str, Any]:
    disk = seen.disk
    used = (disk.total - disk.free) / disk.total if disk.total else 0.0
    mark = (disk.total - disk.reserve) / disk.total if disk.total else 1.0
    return {"disk": disk, "disk_part": round(used * 100, 1), "disk_mark": round(min(mark, 0.995) * 100, 1)}


async def _refused(visit: Visit) -> list[dict[str, Any]]:
    rows = await visit.service.spool.last_refused(_REFUSED)
    return [{**fields_of(door.explained(visit.service, row)), "short": row.reason.replace("_", " ")} for row in rows]
