"""All that is known of one message, in few statements: its rows, and in one more whatever else concerns it."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from gateway.spool.queries import Reader, Rows, listed, of_messages
from gateway.spool.records import (
    ActRow,
    AskedRow,
    AttemptRow,
    BounceRow,
    ClockStep,
    DeliveryRow,
    EventRow,
    MessageDetail,
    RecipientRow,
    RestRow,
    moment,
    record,
)
from gateway.spool.sql import NO_ANSWER

R = TypeVar("R")
_RESTS = 20  # of a message
# What there is of each kind: its columns, whence they come, and in which order.
_BESIDE: Mapping[str, tuple[str, str, str]] = {
    "bounce": ("b.kind b.bounce_id b.reason b.made_at", "bounce b WHERE b.message_id = :id", "b.id"),
    "event": (
        "e.backend e.address e.remote_id e.state e.detail e.reported_at e.source",
        "event e WHERE e.message_id = :id",
        "e.reported_at, e.id",
    ),
    "step": (
        "s.was_at s.now_at s.attempt_id",
        """step s JOIN message m ON m.id = :id
        WHERE s.spool_at >= (SELECT min(d.received_at) FROM delivery d WHERE d.message_id = m.id)
            AND (m.finished_at IS NULL OR s.spool_at <= m.finished_at)""",
        "s.id",
    ),
    "act": (
        "a.id a.made_at a.name a.way a.verb a.what a.count a.tenant",
        "act_message am JOIN act a ON a.id = am.act_id WHERE am.message_id = :id",
        "a.id",
    ),
    # while it waited: from when it came to when the last of its recipients was done with
    "rest": (
        "q.backend q.since_at q.ended_at q.by q.who q.detail q.fix",
        """rest q JOIN message m ON m.id = :id WHERE q.backend IN (SELECT backend FROM delivery WHERE message_id = :id)
            AND (q.ended_at IS NULL OR q.ended_at >= m.received_at) AND (m.finished_at IS NULL
                OR q.since_at <= (SELECT max(updated_at) FROM recipient WHERE message_id = :id))""",
        "q.since_at",
    ),
    "asked": ("k.address k.became k.why k.rule", "asked k WHERE k.message_id = :id", "k.n"),
    "copy": ("m.id", "message m WHERE m.resend_of = :id AND m.resend_of <> ''", "m.id"),
}
_WIDTH = 8  # columns


def _union() -> Iterator[str]:
    for kind, (columns, whence, order) in _BESIDE.items():
        named = [*columns.split(), *["NULL"] * _WIDTH][:_WIDTH]
        shown = ", ".join(f"CAST({column} AS TEXT) AS c{n}" for n, column in enumerate(named))  # of one type for all
        yield f"SELECT '{kind}' AS kind_, row_number() OVER (ORDER BY {order}) AS n_, {shown} FROM {whence}"


_OTHERS = " UNION ALL ".join(_union())


async def show(reader: Reader, ident: str, shift: int) -> MessageDetail | None:
    """``shift``: what the machine's clock shows minus the spool's time, in microseconds."""
    found = await listed(reader, [ident], shift, recipients=2**31)
    if not found:
        return None
    (one,) = found
    ended = (await of_messages(reader, "attempt", [ident]))[ident]
    attempts: list[Mapping[Any, Any]] = [*ended, *_under_way(one.deliveries)]
    attempts.sort(key=lambda row: int(row["id"]))
    others = await _others(reader, ident)
    return MessageDetail(
        message=one.row,
        recipients=tuple(record(RecipientRow, row) for row in one.recipients),
        attempts=tuple(record(AttemptRow, row, recipients=tuple(json.loads(row["addresses"]))) for row in attempts),
        deliveries=tuple(
            record(DeliveryRow, row, next_attempt_at=moment(row["next_attempt_at"] + shift)) for row in one.deliveries
        ),
        events=_records(EventRow, others["event"]),
        bounces=_records(BounceRow, others["bounce"]),
        clock_steps=tuple(
            record(ClockStep, row, after=sum(attempt["id"] <= row["attempt_id"] for attempt in attempts))
            for row in others["step"]
        ),
        acts=_records(ActRow, others["act"]),
        rests=_records(RestRow, others["rest"][:_RESTS]),
        copies=tuple(row["id"] for row in others["copy"]),
        asked=_records(AskedRow, others["asked"]),
        how=str(one.message["how"]),
    )


def _under_way(deliveries: Rows) -> Iterator[dict[str, Any]]:
    """The attempts that have not ended, as they will stand among those that have."""
    for row in deliveries:
        if row["attempt_id"] is not None:
            same = {name: row[name] for name in ("backend", "addresses", "started_at")}
            yield {**dict.fromkeys(NO_ANSWER, ""), "code": None, **same, "id": row["attempt_id"], "ended_at": None}


def _records(kind: type[R], rows: list[dict[str, Any]]) -> tuple[R, ...]:
    return tuple(record(kind, row) for row in rows)


async def _others(reader: Reader, ident: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _BESIDE}
    for row in sorted(await reader.all(_OTHERS, id=ident), key=lambda row: int(row["n_"])):
        names = [column.partition(".")[2] for column in _BESIDE[row["kind_"]][0].split()]
        found[row["kind_"]].append({name: _value(row["kind_"], name, row[f"c{n}"]) for n, name in enumerate(names)})
    return found


def _value(kind: str, name: str, text: str | None) -> Any:
    """As it is in its table."""
    number = name.endswith("_at") or name in ("attempt_id", "count") or (kind, name) == ("act", "id")
    return int(text) if number and text is not None else text
