"""The charts of the overview as numbers: by the hour or day, by client and backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from starlette.exceptions import HTTPException

from gateway.http.pages.visit import View, Visit
from gateway.http.problem import fields_of
from gateway.spool import Counts, Flow

_PERIODS = {"1": "24 hours", "7": "7 days", "30": "30 days", "90": "90 days"}
_MOST = 25  # clients in a table
_COLUMNS = (
    ("accepted", "Accepted"), ("sent", "Handed over"), ("failed", "Failed"), ("deferred", "Put off"),
    ("refused", "Refused"), ("deleted", "Deleted"),
)  # fmt: skip
_OF_CLIENTS, _OF_BACKENDS = tuple(one for one in _COLUMNS if one[0] not in ("deferred", "deleted")), _COLUMNS[1:4]
_BY = (
    ("listeners", "Listener", _OF_CLIENTS),
    ("clients", "Client", _OF_CLIENTS),
    ("backends", "Backend", _OF_BACKENDS),
)


@dataclass(frozen=True, slots=True)
class Group:
    """One table: who, and how much of each column."""

    heading: str
    heads: tuple[str, ...]
    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Mapping[str, Any]]]


async def page(visit: Visit) -> View:
    days = visit.text("days") or "1"
    if days not in _PERIODS:
        raise HTTPException(400, f"days is one of {', '.join(_PERIODS)}.")
    count, step = (24, timedelta(hours=1)) if days == "1" else (int(days), timedelta(days=1))
    flow = await visit.service.spool.flow(visit.service.clock.now(), count, step)
    values = {
        "section": "overview", "flow": flow, "days": days, "period": f"the last {_PERIODS[days]}",
        "periods": tuple(_PERIODS.items()), "columns": _COLUMNS, "heads": _heads(flow.step.capitalize(), _COLUMNS),
        "points": [fields_of(one) for one in flow.points[::-1]], "groups": _groups(flow),
        "total": fields_of(flow.total),
    }  # fmt: skip
    return View(template="flow.html", values=values)


def _groups(flow: Flow) -> list[Group]:
    found = []
    for which, word, columns in _BY:
        rows = [(name, fields_of(one)) for name, one in _busiest(getattr(flow, which))]
        all_of = len(getattr(flow, which))
        often = f", the {len(rows)} busiest of {all_of}" if all_of > len(rows) else ""
        found.append(Group(f"By {word.lower()}{often}", _heads(word, columns), columns, rows))
    return [one for one in found if one.rows]


def _busiest(group: Mapping[str, Counts]) -> list[tuple[str, Counts]]:
    """By name; of many those with most mail, for the rest is small."""
    if len(group) > _MOST:
        often = sorted(group, key=lambda name: group[name].accepted + group[name].sent + group[name].refused)[-_MOST:]
        return [(name, group[name]) for name in sorted(often)]
    return list(group.items())


def _heads(first: str, columns: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return (first, *(f">{word}" for _, word in columns))
