"""What providers say of mail after they took it, and what they are still to be asked: steps within a transaction.

A provider may call back before the hand-over is written down: what it says waits with message_id '' until it is.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.model import DeliveryEvent
from gateway.spool.records import Poll
from gateway.spool.sql import clean
from gateway.spool.transaction import Transaction

EARLY = "SELECT * FROM event WHERE message_id = ''"
_MOST = 1000  # events kept of one hand-over: a provider that repeats itself must not fill the disk
_MOST_EARLY = 10_000  # of each backend
_WAIT = 3_600_000_000  # a send of many calls is written down when the last has ended
LONGEST = 500
_COLUMNS = 'backend, address, remote_id, state, detail, reported_at, "key", source'
_VALUES = ":backend, :address, :remote_id, :state, :detail, :reported_at, :key, :source"
_TAKEN = "FROM attempt WHERE remote_id = :remote_id AND remote_id <> '' AND backend = :backend"
_ADD = f"""
INSERT INTO event (message_id, {_COLUMNS}) SELECT DISTINCT message_id, {_VALUES} {_TAKEN}
    AND :most > (SELECT count(*) FROM event p
        WHERE p.message_id = attempt.message_id AND p.backend = :backend AND p.remote_id = :remote_id)
ON CONFLICT DO NOTHING RETURNING message_id"""
_ADD_EARLY = f"""
INSERT INTO event (message_id, {_COLUMNS}) SELECT '', {_VALUES}
WHERE :most > (SELECT count(*) FROM event WHERE message_id = '' AND backend = :backend) ON CONFLICT DO NOTHING"""
_HANDED_OVER = """EXISTS (SELECT 1 FROM attempt a
    WHERE a.remote_id = event.remote_id AND a.remote_id <> '' AND a.backend = event.backend)"""
_ANSWERED = f"""
DELETE FROM poll WHERE backend = :backend AND remote_id = :remote_id AND message_id IN (SELECT message_id {_TAKEN})
"""


class NewEvent(NamedTuple):
    """What was not known before; ``message_id`` "" where nothing was handed over by that name, or not yet."""

    message_id: str
    backend: str
    said: DeliveryEvent
    source: str


def add(tx: Transaction, backend: str, said: DeliveryEvent, source: str) -> list[NewEvent]:
    texts = {"address": clean(said.address)[:LONGEST], "detail": clean(said.detail)[:LONGEST]}
    row = {"backend": backend, "remote_id": clean(said.remote_id), "state": said.state, **texts}
    key = hashlib.sha256((clean(said.key) or "\0".join(row.values())).encode()).hexdigest()
    return _keep(tx, {**row, "key": key, "source": source, "reported_at": tx.wall})


def _keep(tx: Transaction, row: Mapping[str, Any]) -> list[NewEvent]:
    said = DeliveryEvent(row["remote_id"], row["state"], row["detail"], row["address"])
    handed_over = {name: row[name] for name in ("backend", "remote_id")}
    if not tx.all(f"SELECT 1 {_TAKEN} LIMIT 1", **handed_over):
        tx.all(_ADD_EARLY, **{**row, "reported_at": tx.now}, most=_MOST_EARLY)
        return [NewEvent("", row["backend"], said, row["source"])]
    added = tx.all(_ADD, **row, most=_MOST)
    if said.final:
        tx.all(_ANSWERED, **handed_over)
    return [NewEvent(found["message_id"], row["backend"], said, row["source"]) for found in added]


def adopt(tx: Transaction) -> list[NewEvent]:
    """Give some of what came early to the messages that have turned up; forget what is older and was of none."""
    early = tx.all(f"{EARLY} AND {_HANDED_OVER} LIMIT 1000")
    old = f"message_id = '' AND reported_at <= :before AND NOT {_HANDED_OVER}"
    tx.all(f"DELETE FROM event WHERE {old}", before=tx.now - _WAIT)
    tx.all("DELETE FROM event WHERE id @in(:ids)", ids=[row["id"] for row in early])
    unused, shift = {"id", "message_id"}, tx.wall - tx.now  # until then they were kept by the spool's time
    rows = [{**row, "reported_at": row["reported_at"] + shift} for row in early]
    return [event for row in rows for event in _keep(tx, {k: v for k, v in row.items() if k not in unused})]


def poll_again(tx: Transaction, poll: Poll, next_at: int | None) -> None:
    """At that time, or never; nothing where a final state has come meanwhile."""
    which = "WHERE message_id = :message_id AND backend = :backend AND remote_id = :remote_id"
    of = {name: getattr(poll, name) for name in ("message_id", "backend", "remote_id")}
    if next_at is None:
        tx.later(f"DELETE FROM poll {which}", of)
    else:
        tx.later(f"UPDATE poll SET next_at = :at, asked = asked + 1 {which}", {**of, "at": next_at})
