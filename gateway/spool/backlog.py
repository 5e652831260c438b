"""What waits, as whoever looks over the whole wants to know it: one question, whatever the number of backends."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.spool.queries import Reader
from gateway.spool.records import ClockStep, moment
from gateway.spool.sql import IN_STATE

_STEPS = 5  # times that the clock was set
# From each backend for which something waits to the next by an index, and of each the first that waits.
_FIRST = """
WITH RECURSIVE waiting(name) AS (SELECT (SELECT min(backend) FROM delivery WHERE state = 'queued')
    UNION ALL SELECT (SELECT min(backend) FROM delivery WHERE state = 'queued' AND backend > waiting.name)
    FROM waiting WHERE name IS NOT NULL)
SELECT 'first' AS kind, d.backend AS name, d.attempts AS n, d.received_at AS at, 0 AS until, d.message_id AS id,
    coalesce(r.detail, '') AS said, coalesce(r.fix, '') AS fix
FROM waiting JOIN delivery d ON d.backend = waiting.name AND d.message_id = (SELECT f.message_id FROM delivery f
    WHERE f.backend = waiting.name AND f.state = 'queued' ORDER BY f.received_at LIMIT 1)
LEFT JOIN recipient r ON r.message_id = d.message_id AND r.address = (SELECT o.address FROM recipient o
    WHERE o.message_id = d.message_id AND o.backend = d.backend AND o.state = 'queued' ORDER BY o.n LIMIT 1)"""
_ALL = f"""{_FIRST}
UNION ALL SELECT 'doubt', backend, count(*), min(received_at), 0, '', '', ''
    FROM delivery WHERE state = 'held' AND in_doubt > 0 GROUP BY backend
UNION ALL SELECT 'damaged', '', count(*), 0, 0, coalesce(max(id), ''), '', '' FROM {IN_STATE.format("corrupt")}
UNION ALL SELECT * FROM (
    SELECT 'step', '', id, was_at, now_at, '', '', '' FROM step ORDER BY id DESC LIMIT {_STEPS}) AS steps"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRow:
    """What has waited longest for a backend, and what was last said of it."""

    message_id: str
    received_at: datetime
    attempts: int
    detail: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtRow:
    """So many deliveries of a backend are held in doubt, the oldest of them accepted then."""

    backend: str
    count: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """``firsts`` are what has waited longest, by backend; ``doubts`` what is held because nobody knows whether it
    arrived. So many messages are ``damaged``, the last of them ``damaged_id``, "" for none. ``steps``: when the
    machine's clock was set, the last first."""

    firsts: Mapping[str, FirstRow]
    doubts: Sequence[DoubtRow]
    damaged: int
    damaged_id: str
    steps: Sequence[ClockStep]

    @property
    def oldest(self) -> dict[str, datetime]:
        """Since when the oldest message of each backend waits."""
        return {name: row.received_at for name, row in self.firsts.items()}


async def backlog(reader: Reader, shift: int) -> Backlog:
    """Times as the machine's clock shows them now. ``shift``: that minus the spool's time, in microseconds."""
    rows = await reader.all(_ALL)
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in ("first", "doubt", "damaged", "step")}
    (damaged,) = of["damaged"]
    return Backlog(
        firsts={
            row["name"]: FirstRow(
                message_id=row["id"],
                received_at=moment(row["at"] + shift),
                attempts=row["n"],
                detail=row["said"],
                fix=row["fix"],
            )
            for row in of["first"]
        },
        doubts=[
            DoubtRow(backend=row["name"], count=row["n"], since=moment(row["at"] + shift))
            for row in sorted(of["doubt"], key=lambda row: str(row["name"]))
        ],
        damaged=damaged["n"],
        damaged_id=damaged["id"],
        steps=[
            ClockStep(was_at=moment(row["at"]), now_at=moment(row["until"]), after=0)
            for row in sorted(of["step"], key=lambda row: -row["n"])
        ],
    )


async def oldest(reader: Reader, shift: int) -> dict[str, datetime]:
    """Since when the oldest message of each backend waits."""
    return {row["name"]: moment(row["at"] + shift) for row in await reader.all(_FIRST)}
