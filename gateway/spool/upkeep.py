"""What operators and retention do to the spool, each as a step within a write transaction. Times in microseconds.

Steps on messages return the ids they changed. All of them are late steps: states are right when they begin.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from gateway.config.models import RetentionSettings
from gateway.spool import acts, again, refusals, rests, tally
from gateway.spool.filters import still
from gateway.spool.listing import Filter
from gateway.spool.records import micros
from gateway.spool.sql import IN_IDS, UNDER_WAY
from gateway.spool.transaction import Transaction

_SWEEP = 200  # messages in one step, so that sweeping never holds up mail
_DUE_NOW = f"UPDATE delivery SET next_attempt_at = :now WHERE message_id {IN_IDS}"


def _ids(rows: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(row["message_id"] for row in rows))


Step = Callable[[Transaction, list[str], int], list[str]]


def change(tx: Transaction, step: Step, which: Filter, ids: list[str], now: int) -> list[str]:
    """One step on those of ``ids`` that still meet the filter."""
    meets, values = still(which)
    found = tx.all(f"SELECT id FROM message WHERE id {IN_IDS} AND {meets}", **{**values, "ids": ids})
    kept = [row["id"] for row in found]
    return step(tx, kept, now) if kept else []


def hold(tx: Transaction, ids: list[str], now: int) -> list[str]:
    """What is under way may still be sent."""
    step = f"UPDATE recipient SET state = 'held' WHERE message_id {IN_IDS} AND state = 'queued' RETURNING message_id"
    with tx.changing(ids):
        return _ids(tx.all(step, ids=ids))


def release(tx: Transaction, ids: list[str], now: int) -> list[str]:
    step = f"UPDATE recipient SET state = 'queued' WHERE message_id {IN_IDS} AND state = 'held'"
    with tx.changing(ids):
        rows = tx.all(f"{step} RETURNING message_id, backend", ids=ids)
        tx.all(f"{_DUE_NOW} AND state = 'held' AND NOT {UNDER_WAY}", ids=_ids(rows), now=now)
        again.revive(tx, _ids(rows))
    tx.woken.update(row["backend"] for row in rows)
    return _ids(rows)


def retry(tx: Transaction, ids: list[str], now: int, backend: str = "") -> list[str]:
    """Due now, except what is under way; of a ``backend`` only what waits for that."""
    step = f"""UPDATE delivery SET next_attempt_at = @least(next_attempt_at, :now) WHERE message_id {IN_IDS}
        AND state = 'queued' AND :backend IN ('', backend) AND NOT {UNDER_WAY} RETURNING message_id, backend"""
    rows = tx.all(step, ids=ids, now=now, backend=backend)
    tx.woken.update(row["backend"] for row in rows)
    return _ids(rows)


def delete(tx: Transaction, ids: list[str], now: int) -> list[str]:
    """Gone with all their rows."""
    with tx.changing(ids, anew=True):
        for table in ("attempt", "delivery", "recipient", "event", "poll", "bounce", "asked"):
            tx.all(f"DELETE FROM {table} WHERE message_id {IN_IDS}", ids=ids)
        tx.drop_bodies(f"message_id {IN_IDS}", ids)
        return [row["id"] for row in tx.all(f"DELETE FROM message WHERE id {IN_IDS} RETURNING id", ids=ids)]


def sweeps(now: datetime, kept: RetentionSettings) -> list[Callable[[Transaction], int]]:
    """Steps that remove some of what has been kept long enough; each returns how many."""
    sent, failed, history = (micros(now - span) for span in (kept.sent_body, kept.failed_body, kept.history))
    return [
        lambda tx: _sweep_bodies(tx, "done", sent, _SWEEP),
        lambda tx: _sweep_bodies(tx, "failed", failed, _SWEEP),
        lambda tx: _sweep_history(tx, history, _SWEEP),
        lambda tx: _sweep_door(tx, kept),
        lambda tx: acts.sweep(tx, history, _SWEEP) + rests.sweep(tx, kept.history),
    ]


def _sweep_bodies(tx: Transaction, state: str, before: int, limit: int) -> int:
    which = "state = :state AND has_body AND finished_at IS NOT NULL AND finished_at <= :before LIMIT :limit"
    found = tx.all(f"SELECT id FROM message WHERE {which}", state=state, before=before, limit=limit)
    ids = [row["id"] for row in found]
    tx.drop_bodies(f"message_id {IN_IDS}", ids)
    tx.all(f"UPDATE message SET has_body = FALSE WHERE id {IN_IDS}", ids=ids)
    return len(ids)


def _sweep_history(tx: Transaction, before: int, limit: int) -> int:
    """But for what a sender is still to hear of in a digest."""
    untold = "SELECT 1 FROM bounce b WHERE b.message_id = message.id AND b.reason = 'digest'"
    which = f"finished_at IS NOT NULL AND finished_at <= :before AND NOT EXISTS ({untold}) LIMIT :limit"
    found = tx.all(f"SELECT id FROM message WHERE {which}", before=before, limit=limit)
    return len(delete(tx, [row["id"] for row in found], tx.now))


def _sweep_door(tx: Transaction, kept: RetentionSettings) -> int:
    """Times of the machine's clock, which may be set to any year: what is past by the spool's time, too, is past,
    and what neither has reached yet is of now."""
    now, latest = min(tx.now, tx.wall), max(tx.now, tx.wall)
    tally.recall(tx, latest)
    tx.all(tally.FADE, before=now - tally.KEPT // timedelta(microseconds=1))
    folded = tally.fold(tx, now)
    return refusals.sweep(tx, now - kept.refusals // timedelta(microseconds=1), latest) + folded
