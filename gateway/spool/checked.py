"""What the spool knows of backends: the last answers, the last success, and the last check, with who asked for it."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Field, SQLModel

from gateway.checks import Check, Step
from gateway.spool.queries import Reader
from gateway.spool.records import AttemptRow, micros, moment, record
from gateway.spool.sql import insert_into
from gateway.spool.transaction import Transaction

_LOOKED_AT = 100_000  # attempts, the last ones: for more an index would be needed, that every attempt would pay for
_APART = (
    8_000  # numbers of attempts: instances take theirs in blocks of 1,000, so a later one may have a smaller number
)


class Checked(SQLModel, table=True):
    """The last check of a backend: ``facts`` and ``steps`` are JSON."""

    backend: str = Field(primary_key=True)
    at: int
    who: str
    ok: bool
    summary: str
    fix: str
    facts: str
    steps: str


_KEEP = f"""{insert_into(Checked, "backend at who ok summary fix facts steps")} ON CONFLICT (backend) DO UPDATE SET
    at = excluded.at, who = excluded.who, ok = excluded.ok, summary = excluded.summary, fix = excluded.fix,
    facts = excluded.facts, steps = excluded.steps"""
# Newest first by the key of the table: it ends with the first that fits, and only of a backend that never sent any it
# looks at all.
_SENT = "backend = :backend AND verdict = 'sent' AND ended_at IS NOT NULL"
_LAST_SENT = f"""
SELECT ended_at FROM attempt WHERE {_SENT}
    AND id > (SELECT id FROM attempt WHERE {_SENT} ORDER BY id DESC LIMIT 1) - {_APART}
ORDER BY ended_at DESC LIMIT 1"""
_ANSWERS = f"""
SELECT * FROM attempt WHERE id IN (
    SELECT id FROM attempt WHERE id > (SELECT coalesce(max(id), 0) FROM attempt) - {_LOOKED_AT}
        AND backend = :backend AND ended_at IS NOT NULL ORDER BY id DESC LIMIT :limit + {_APART})
ORDER BY ended_at DESC, id DESC LIMIT :limit"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow(AttemptRow):
    """An attempt that has ended, or one of its answers, and at which message."""

    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """The last check of a backend: when, asked for by whom, and what was found."""

    backend: str
    at: datetime
    who: str
    check: Check


def keep(tx: Transaction, row: CheckRow) -> None:
    check = row.check
    facts, steps = json.dumps(dict(check.facts)), json.dumps([(one.result, one.text, one.said) for one in check.steps])
    tx.later(_KEEP, (row.backend, micros(row.at), row.who, check.ok, check.summary, check.fix, facts, steps))


async def checks(reader: Reader) -> dict[str, CheckRow]:
    """The last check of each backend that was checked; a damaged row is none."""
    found = {}
    for row in await reader.all("SELECT * FROM checked"):
        try:
            steps = tuple(Step(*one) for one in json.loads(row["steps"]))
            check = Check(bool(row["ok"]), row["summary"], row["fix"], dict(json.loads(row["facts"])), steps)
            found[row["backend"]] = CheckRow(backend=row["backend"], at=moment(row["at"]), who=row["who"], check=check)
        except (ValueError, TypeError):
            continue
    return found


async def last_sent(reader: Reader, backend: str) -> datetime | None:
    rows = await reader.all(_LAST_SENT, backend=backend)
    return moment(rows[0]["ended_at"]) if rows else None


async def answers(reader: Reader, backend: str, limit: int) -> list[AnswerRow]:
    """Newest first."""
    return [
        record(AnswerRow, row, recipients=tuple(json.loads(row["addresses"])))
        for row in await reader.all(_ANSWERS, backend=backend, limit=limit)
    ]
