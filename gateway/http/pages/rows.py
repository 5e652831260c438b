"""A line of the list of messages as people read it: state and what comes next, who, by which way, what was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from gateway.delivery import BackendStatus
from gateway.http.pages.text import Times, span
from gateway.lifeline import meaning, shown_row
from gateway.spool import MessageRow
from gateway.spool.records import Said
from gateway.telling import STATES, Shown, spoken


@dataclass(frozen=True, slots=True)
class Line:
    """``next`` stands below the state, ``code`` below what was ``said`` last."""

    row: MessageRow
    state: Shown
    next: str | Markup
    said: str
    code: str

    @property
    def to(self) -> str:
        return self.row.recipients[0] if self.row.recipients else "nobody"

    @property
    def more(self) -> int:
        return max(self.row.recipient_count - 1, 0)


def line(row: MessageRow, backends: Mapping[str, BackendStatus], times: Times) -> Line:
    state = shown_row(row)
    code, words = spoken(row.code, row.enhanced, row.detail, row.said_by)
    said = meaning(_said(row)) or words
    if row.verdict == "sent":
        said = f"Taken as {row.remote_id}" if row.remote_id else "Taken"
    if not row.verdict:
        said = _untried(row, backends)
    return Line(row, STATES[state], _next(row, state, backends, times), said, "" if said == code else code)


def _said(row: MessageRow) -> Said:
    return Said(
        backend=",".join(row.backends), verdict=row.verdict, code=row.code, enhanced=row.enhanced, detail=row.detail,
        remote_id=row.remote_id, scope="", said_by=row.said_by, fix=row.fix,
    )  # fmt: skip


def _resting(row: MessageRow, backends: Mapping[str, BackendStatus]) -> str:
    """The backend for which it waits though it is not at work, "" where one works."""
    resting = [name for name in row.backends if name not in backends or backends[name].paused_by]
    return resting[0] if resting and len(resting) == len(row.backends) else ""


def _untried(row: MessageRow, backends: Mapping[str, BackendStatus]) -> str:
    rests = _resting(row, backends)
    if not rests:
        return "Not tried yet"
    if rests not in backends:
        return f"Not tried yet, {rests} does not run"
    paused = backends[rests].paused_by
    word = {"operator": "paused", "throttled": "slowed down"}.get(paused, "stopped")
    return f"Not tried yet, {rests} is {word}"


def _next(row: MessageRow, state: str, backends: Mapping[str, BackendStatus], times: Times) -> str | Markup:
    if state == "waiting":
        if rests := _resting(row, backends):
            return f"when {rests} works"
        due = row.next_attempt_at
        seconds = (due - times.now).total_seconds() if due else 0.0
        return f"next try in {span(seconds)}" if seconds > 1 else "at its turn"
    if state == "partly_failed":
        return f"{row.failed_count} of {row.recipient_count} not sent"
    if state == "failed":
        return "sender told" if row.told_by else "nobody was told"
    if state == "damaged":
        return "not sent"
    return {"held": "until released", "in_doubt": "held, may have arrived"}.get(state, "")
