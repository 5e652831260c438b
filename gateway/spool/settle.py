"""What became of a claim, written down as one step within a write transaction.

Times in microseconds: due times are of the spool's time (steady), others of the machine's clock.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from gateway.model import Outcome, Verdict
from gateway.spool import answers
from gateway.spool.changes import move_all
from gateway.spool.putting import put
from gateway.spool.records import Settlement, micros
from gateway.spool.sql import STILL_OPEN, clean
from gateway.spool.transaction import Transaction

# Sent stays sent, whoever says so last; a claim that ran out of time may add nothing else. The name of a doubt stays
# until the doubt ends: an attempt since then that reached nobody says nothing about it.
_SETTLE_RECIPIENT = f"""
UPDATE recipient SET
    state = CASE WHEN :state IN ('sent', 'failed') OR :state = 'held' AND state = 'queued' THEN :state ELSE state END,
    verdict = coalesce(:verdict, verdict), code = CASE WHEN :verdict IS NULL THEN code ELSE :code END,
    enhanced = coalesce(:enhanced, enhanced), detail = coalesce(:detail, detail),
    scope = coalesce(:scope, scope), said_by = coalesce(:said_by, said_by), fix = coalesce(:fix, fix),
    remote_id = coalesce(nullif(:remote_id, ''), CASE WHEN :verdict IN ('sent', 'rejected') THEN '' END, remote_id),
    updated_at = :ended_at
WHERE message_id = :message_id AND address = :address AND state <> 'sent' AND (:state = 'sent' OR {STILL_OPEN})"""
_SETTLE_DELIVERY = f"""
UPDATE delivery SET next_attempt_at = :due, attempts = attempts - :uncount, sticky = sticky OR :doubt,
    in_doubt = CASE WHEN :doubt THEN in_doubt + 1 ELSE 0 END
WHERE id = :delivery_id AND {STILL_OPEN}"""
_END_ATTEMPT = """
UPDATE attempt SET ended_at = :ended_at, started_at = coalesce(:started_at, started_at), addresses = :addresses,
    verdict = :verdict, code = :code, enhanced = :enhanced, detail = :detail, remote_id = :remote_id,
    scope = :scope, said_by = :said_by, fix = :fix
WHERE id = :attempt_id AND delivery_id = :delivery_id"""
_ADD_ANSWER = """
INSERT INTO attempt (id, message_id, delivery_id, backend, addresses, started_at, ended_at,
    verdict, code, enhanced, detail, remote_id, owner, scope, said_by, fix)
SELECT :id, message_id, delivery_id, backend, :addresses, started_at, :ended_at,
    :verdict, :code, :enhanced, :detail, :remote_id, owner, :scope, :said_by, :fix
FROM attempt WHERE id = :attempt_id AND delivery_id = :delivery_id"""
_NARROW_ATTEMPT = """
UPDATE attempt SET addresses = :addresses WHERE id = :attempt_id AND delivery_id = :delivery_id AND ended_at IS NULL"""

_POLL = """
INSERT INTO poll (message_id, backend, remote_id, next_at, asked)
SELECT id, :backend, :remote_id, :at, 0 FROM message WHERE id = :message_id ON CONFLICT DO NOTHING"""

_TALLIED = {"sent": "sent", "failed": "failed", "queued": "deferred"}


def settle(tx: Transaction, done: Settlement) -> None:
    """Write down an attempt's outcome. Of a message deleted meanwhile nothing is written, and no bounce is sent."""
    of, ended = done.claim, micros(done.ended_at)
    due = tx.now if done.next_attempt_at is None else micros(done.next_attempt_at)
    delivery = {
        "message_id": of.message.id,
        "delivery_id": of.delivery_id,
        "attempt_id": of.attempt_id,
        "ended_at": ended,
    }
    if (done.bounces or done.told) and tx.all(
        f"SELECT 1 FROM delivery WHERE id = :delivery_id AND {STILL_OPEN}", **delivery
    ):
        put(tx, done.bounces)
        answers.tell(tx, of.message.id, done.told)
    for state, n in Counter(done.states.values()).items():
        if column := _TALLIED.get(state):
            tx.tally.add(column, backend=of.backend, client=of.message.client, n=n)
    for address, state in done.states.items():
        answer = answers.answer(done.outcomes.get(address))
        tx.later(_SETTLE_RECIPIENT, {**delivery, "address": address, "state": state, **answer})
    doubt = any(outcome.verdict is Verdict.IN_DOUBT for outcome in done.outcomes.values())
    if not done.under_way:
        tx.later(_SETTLE_DELIVERY, {**delivery, "due": due, "uncount": int(not done.count_attempt), "doubt": doubt})
    if done.backend not in ("", of.backend):
        move_all(tx, [of.delivery_id], done.backend, due)
    if done.poll_at is not None:
        given = {o.remote_id for o in done.outcomes.values() if o.verdict is Verdict.SENT and o.remote_id}
        for remote_id in map(clean, sorted(given)):
            tx.later(_POLL, {**delivery, "backend": of.backend, "remote_id": remote_id, "at": micros(done.poll_at)})
    _end_attempt(tx, done, delivery)


def _end_attempt(tx: Transaction, done: Settlement, delivery: dict[str, Any]) -> None:
    """One row for each distinct answer: the first fills the open row, others are added; none at all removes it.

    While it is under way for some, all are added, and the open row stays for these.
    """
    groups: dict[Outcome, list[str]] = {}
    for address, outcome in done.outcomes.items():
        groups.setdefault(outcome, []).append(address)
    if not groups:
        tx.later("DELETE FROM attempt WHERE id = :attempt_id AND delivery_id = :delivery_id", delivery)
    started = micros(done.started_at) if done.started_at else None
    for place, (outcome, addresses) in enumerate(groups.items()):
        values = {**delivery, **answers.answer(outcome), "addresses": json.dumps(addresses), "started_at": started}
        if place or done.under_way:
            tx.later(_ADD_ANSWER, {**values, "id": next(tx.attempt_ids)})
        else:
            tx.later(_END_ATTEMPT, values)
    if done.under_way:
        tx.later(_NARROW_ATTEMPT, {**delivery, "addresses": json.dumps(done.under_way)})
