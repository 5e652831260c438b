"""An entry of the ledger as the text that the spool keeps. What an older or newer version wrote is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from gateway.alerts.events import Event
from gateway.alerts.ledger import Entry
from gateway.health.problem import Problem
from gateway.spool import Kept

_DIGEST = "digest"  # no event's key: those that have no name after them are of health.problems


def to_keep(entry: Entry) -> Kept:
    return Kept(entry.event.key, json.dumps(asdict(entry), default=datetime.isoformat))


def entries(kept: Iterable[Kept]) -> list[Entry]:
    return [entry for one in kept if (entry := _entry(one.entry)) is not None]


def last_digest(at: datetime) -> Kept:
    return Kept(_DIGEST, json.dumps(at.isoformat()))


def digested(kept: Iterable[Kept]) -> datetime | None:
    """When the last digest was sent."""
    with suppress(ValueError, TypeError):  # a damaged row is none
        return next((_time(json.loads(one.entry)) for one in kept if one.key == _DIGEST), None)
    return None


def _entry(text: str) -> Entry | None:
    try:
        found: dict[str, Any] = json.loads(text)
        event, problem = found["event"], found["event"]["problem"]
        event = Event(**{**event, "problem": Problem(**{**problem, "since": _time(problem["since"])})})
        times = {name: _time(found[name]) for name in ("first", "gone", "over_at")}
        return Entry(**{**found, **times, "event": event, "told": tuple(found["told"])})
    except (ValueError, TypeError, KeyError):
        return None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
