"""What became of a claim, written down as one step within a write transaction.

Times in microseconds: due times are of the spool's time (steady), others of the machine's clock.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections.abc import Mapping

from gateway.model import Verdict
from gateway.spool import answers
from gateway.spool.changes import move_all
from gateway.spool.putting import put
from gateway.spool.records import Settlement, micros
from gateway.spool.sql import NO_ANSWER, clean
from gateway.spool.transaction import Transaction

_ANSWER = ("started_at", "ended_at", "addresses", *NO_ANSWER)
# Sent stays sent, whoever says so last; a claim that ran out of time may add nothing else. The name of a doubt stays
# until the doubt ends: an attempt since then that reached nobody says nothing about it.
_SETTLE_RECIPIENT = """
WITH v(message_id, backend, attempt_id, ended_at, address, state,
    verdict, code, enhanced, detail, remote_id, scope, said_by, fix)
AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
UPDATE recipient SET
    state = CASE WHEN v.state IN ('sent', 'failed') OR v.state = 'held' AND recipient.state = 'queued'
        THEN v.state ELSE recipient.state END,
    verdict = coalesce(v.verdict, recipient.verdict),
    code = CASE WHEN v.verdict IS NULL THEN recipient.code ELSE v.code END,
    enhanced = coalesce(v.enhanced, recipient.enhanced), detail = coalesce(v.detail, recipient.detail),
    scope = coalesce(v.scope, recipient.scope), said_by = coalesce(v.said_by, recipient.said_by),
    fix = coalesce(v.fix, recipient.fix), remote_id = coalesce(nullif(v.remote_id, ''),
        CASE WHEN v.verdict IN ('sent', 'rejected') THEN '' END, recipient.remote_id),
    updated_at = v.ended_at
FROM v WHERE recipient.message_id = v.message_id AND recipient.address = v.address AND recipient.state <> 'sent'
    AND (v.state = 'sent' OR EXISTS (SELECT 1 FROM delivery d
        WHERE d.message_id = v.message_id AND d.backend = v.backend AND d.attempt_id = v.attempt_id))"""
# Of one that was written down as interrupted, what came of it after all.
_ADD_ATTEMPT = f"""
WITH v(id, message_id, backend, ended_at, started_at, addresses, owner,
    verdict, code, enhanced, detail, remote_id, scope, said_by, fix)
AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
INSERT INTO attempt (id, message_id, backend, ended_at, started_at, addresses, owner,
    verdict, code, enhanced, detail, remote_id, scope, said_by, fix)
SELECT v.id, v.message_id, v.backend, v.ended_at, coalesce(v.started_at, d.started_at, v.ended_at), v.addresses,
    v.owner, v.verdict, v.code, v.enhanced, v.detail, v.remote_id, v.scope, v.said_by, v.fix
FROM v CROSS JOIN delivery d WHERE d.message_id = v.message_id AND d.backend = v.backend
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _ANSWER)}"""
_FORGET_ATTEMPT = "DELETE FROM attempt WHERE id = ? AND message_id = ?"
_NARROW_ATTEMPT = """
WITH v(message_id, backend, attempt_id, addresses) AS (VALUES (?, ?, ?, ?))
UPDATE delivery SET addresses = v.addresses FROM v
WHERE delivery.message_id = v.message_id AND delivery.backend = v.backend AND delivery.attempt_id = v.attempt_id"""

_POLL = """
INSERT INTO poll (message_id, backend, remote_id, next_at, asked)
SELECT id, ?, ?, ?, 0 FROM message WHERE id = ? ON CONFLICT DO NOTHING"""

_IN_DOUBT = Verdict.IN_DOUBT.value
_TALLIED = {"sent": "sent", "failed": "failed", "queued": "deferred"}


def settle(tx: Transaction, done: Settlement) -> None:
    """Write down an attempt's outcome. Of a message deleted meanwhile nothing is written, and no bounce is sent."""
    of, ended = done.claim, micros(done.ended_at)
    due = tx.now if done.next_attempt_at is None else micros(done.next_attempt_at)
    if (done.bounces or done.told) and tx.is_open(of.delivery_id, of.attempt_id):
        put(tx, done.bounces)
        answers.tell(tx, of.message.id, done.told)
    key, message_id = of.delivery_id, of.message.id
    said = {address: answers.answer(outcome) for address, outcome in done.outcomes.items()}
    tx.in_order(_SETTLE_RECIPIENT, _ADD_ATTEMPT, _NARROW_ATTEMPT)  # the first of them as long as the attempt is open
    for address, state in done.states.items():
        if column := _TALLIED.get(state):
            tx.tally.add(column, backend=of.backend, client=of.message.client)
        answer = said.get(address, answers.NOTHING)
        tx.once(_SETTLE_RECIPIENT, (*key, of.attempt_id, ended, address, state, *answer), (message_id, address))
    _end_attempt(tx, done, ended, said)
    moves = done.backend not in ("", of.backend)
    if not done.under_way:
        doubt = any(answer[0] == _IN_DOUBT for answer in said.values())
        (tx.close_now if moves else tx.close)((*key, of.attempt_id), due, int(not done.count_attempt), doubt)
    if moves:
        move_all(tx, [key], done.backend, due)
    if done.poll_at is not None:
        given = {o.remote_id for o in done.outcomes.values() if o.verdict is Verdict.SENT and o.remote_id}
        for remote_id in map(clean, sorted(given)):
            tx.later(_POLL, (of.backend, remote_id, micros(done.poll_at), of.message.id))


def _end_attempt(tx: Transaction, done: Settlement, ended: int, said: Mapping[str, answers.Answer]) -> None:
    """One row for each distinct answer, the first with the number of the attempt; none at all leaves nothing of it.

    While it is under way for some, all get other numbers, and the attempt stays open for these.
    """
    of = done.claim
    groups: dict[answers.Answer, list[str]] = {}
    for address, answer in said.items():
        groups.setdefault(answer, []).append(address)
    if not groups:
        tx.later(_FORGET_ATTEMPT, (of.attempt_id, of.message.id))
    started = micros(done.started_at) if done.started_at else None
    for place, (answer, addresses) in enumerate(groups.items()):
        ident = next(tx.attempt_ids) if place or done.under_way else of.attempt_id
        tx.later(
            _ADD_ATTEMPT, (ident, *of.delivery_id, ended, started, json.dumps(addresses), tx.engine.owner, *answer)
        )
    if done.under_way:
        tx.once(_NARROW_ATTEMPT, (*of.delivery_id, of.attempt_id, json.dumps(done.under_way)), of.delivery_id)
