"""Mail out: claim, release, move and recover, as steps within a write transaction.

Times in microseconds, of the spool where nothing else is said (steady).
Recipients are the truth: a step changes them; states of deliveries and messages follow (Transaction.changing).
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from gateway.model import Envelope, Recipient, SpooledMessage, Verdict
from gateway.spool import tables
from gateway.spool.engine import Trouble, Unreadable
from gateway.spool.records import Claim, Taken, moment
from gateway.spool.seal import intact
from gateway.spool.sql import (
    DUE,
    FIRST,
    IDLE,
    IN_IDS,
    LOAD_DELIVERIES,
    NO_ANSWER,
    STILL_OPEN,
    UNDER_WAY,
    insert_into,
)
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault

UNKNOWN = "?"  # of a message's features
_CRASH_DELAY = 60_000_000  # per earlier interruption: a message that kills us cannot do it in a loop
_ADD_ATTEMPT = insert_into(
    tables.Attempt, "id message_id delivery_id backend addresses started_at owner", ended_at="NULL", **NO_ANSWER
)


_CLAIM = """
UPDATE delivery SET next_attempt_at = :until, attempts = attempts + 1
WHERE id IN (SELECT id FROM delivery WHERE {}) RETURNING id"""
_INTERRUPT = f"""
UPDATE attempt SET ended_at = :wall, verdict = 'interrupted', detail = 'interrupted, may have been sent'
WHERE ended_at IS NULL AND delivery_id {IN_IDS} RETURNING delivery_id"""
_DOUBT = f"""
UPDATE delivery SET next_attempt_at = coalesce(:now + in_doubt * :delay, next_attempt_at), sticky = TRUE,
    in_doubt = in_doubt + 1 WHERE id {IN_IDS}"""


def deliveries_from(rows: Iterable[Any], vault: Vault | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """From LOAD_DELIVERIES: what makes each Delivery, and the ids of messages whose rows make no sense (damage).

    Without the vault, clients' tokens stay sealed.
    """
    grouped: dict[int, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row["delivery_id"], []).append(row)
    deliveries, damaged = [], []
    for group in grouped.values():
        try:
            deliveries.append(_delivery(group[0], group, vault))
        except (TypeError, ValueError, OverflowError):
            damaged.append(group[0]["id"])
    return [delivery for delivery in deliveries if delivery["message"].envelope.recipients], damaged


def _delivery(row: Any, rows: Sequence[Any], vault: Vault | None) -> dict[str, Any]:
    waiting = [each for each in rows if each["pending"]]
    recipients = tuple(Recipient(each["address"], each["notify"], each["orcpt"]) for each in waiting)
    smtputf8, eightbit = bool(row["smtputf8"]), bool(row["eightbit"])
    message = SpooledMessage(
        envelope=Envelope(row["sender"], recipients, smtputf8, eightbit, row["ret"], row["envid"]),
        received_at=moment(row["received_at"]),
        queued_at=moment(row["queued_at"]),
        expires_at=moment(row["expires_at"]),
        attempt=row["attempts"],
        bounce=bool(row["bounce"]),
        everyone=tuple(each["address"] for each in rows),
        features=None if row["features"] == UNKNOWN else dict.fromkeys(row["features"].split(), ""),
        doubtful=bool(row["sticky"]),  # also after an attempt since then that sent nothing
        authors=tuple(json.loads(row["authors"])),
        own_token=row["sealed"] is not None,
        secret=vault.unseal(row["id"], row["sealed"]) if vault else "",
        doubt_id=next((each["doubt_id"] for each in waiting if each["doubt_id"]), ""),
        interrupted=tuple(json.loads(row["interrupted"] or "[]")),
        **{name: row[name] for name in ("id", "size", "client", "message_id", "header_from", "pin")},
    )
    same = {name: row[name] for name in ("delivery_id", "backend", "in_doubt")}
    if row["in_doubt"]:  # a crash leaves everybody in doubt, and writes down nothing of it with them
        lost = tuple(each["address"] for each in waiting if each["said"] == Verdict.IN_DOUBT.value)
        same["doubted"] = lost or tuple(each["address"] for each in waiting)
    return {**same, "message": message, "sticky": bool(row["sticky"])}


def claim(tx: Transaction, now: int, until: int, which: str, **values: Any) -> list[Claim]:
    """Take the deliveries that ``which`` selects: out of reach until ``until``, the attempt's row written first."""
    return _claim(tx, now, until, which, values)[0]


def take(tx: Transaction, now: int, until: int, *, eager: int, **values: Any) -> Taken:
    """Claim what is due of a ``backend``, at most ``limit``, with the bodies of up to ``eager`` bytes."""
    claims, rows = _claim(tx, now, until, DUE, values)
    small = [each.message.id for each in claims if each.message.size <= eager]
    bodies, damaged = _bodies(tx, small, rows) if small else ({}, [])
    if damaged:
        corrupt(tx, damaged)
        claims = [each for each in claims if each.message.id not in damaged]
    due: int | None = now
    if len(claims) < values["limit"]:
        (first,) = tx.all(FIRST.format("next_attempt_at"), backend=values["backend"])
        due = first["at"]
    return Taken(tuple(claims), bodies, None if due is None else moment(due))


def _bodies(tx: Transaction, ids: list[str], rows: Iterable[Any]) -> tuple[dict[str, bytes], list[str]]:
    """Those whose checksum holds, and the ids of those where it does not; ``rows`` from LOAD_DELIVERIES.

    Raises Unreadable for the sake of one, which must not cost the others.
    """
    tx.flush()
    try:
        read = tx.all(f"SELECT message_id, raw FROM body WHERE message_id {IN_IDS}", ids=ids)
    except Exception as error:
        if tx.engine.classify(error) is Trouble.BROKEN:
            raise Unreadable from error
        raise
    known: dict[str, list[Any]] = {}
    for row in rows:
        known.setdefault(row["id"], []).append(row)
    whole = {}
    for found in read:
        ident, raw = found["message_id"], found["raw"]
        with suppress(TypeError, ValueError):  # a damaged value may be of any type
            if intact(known[ident][0], known[ident], raw):
                whole[ident] = raw
    return whole, [ident for ident in ids if ident not in whole]


def _claim(tx: Transaction, now: int, until: int, which: str, values: Any) -> tuple[list[Claim], Sequence[Any]]:
    taken = [row["id"] for row in tx.all(_CLAIM.format(which), now=now, until=until, **values)]
    if not taken:
        return [], ()
    if interrupted := [row["delivery_id"] for row in tx.all(_INTERRUPT, ids=taken, wall=tx.wall)]:
        tx.all(_DOUBT, ids=interrupted, now=None, delay=0)  # a send that outlived its lease
    rows = tx.all(LOAD_DELIVERIES, ids=taken)
    deliveries, damaged = deliveries_from(rows, tx.vault)
    if damaged:
        corrupt(tx, damaged)
    claims = [Claim(attempt_id=next(tx.attempt_ids), **delivery) for delivery in deliveries]
    open_attempts(tx, claims)
    return claims, rows


def open_attempts(tx: Transaction, claims: Iterable[Claim]) -> None:
    """That these are under way, written down before anything of them touches the network."""
    for each in claims:
        addresses = json.dumps([recipient.address for recipient in each.message.envelope.recipients])
        row = (each.attempt_id, each.message.id, each.delivery_id, each.backend, addresses, tx.wall, tx.engine.owner)
        tx.later(_ADD_ATTEMPT, row)


def corrupt(tx: Transaction, ids: list[str]) -> None:
    """What cannot be trusted is never sent, and kept for a person to look at. A late step."""
    known = {"ids": ids, "text": "damaged in the spool"}
    tx.damaged += ids
    with tx.changing(ids):
        tx.all(f"UPDATE message SET state = 'corrupt' WHERE id {IN_IDS}", ids=ids)
        step = f"UPDATE recipient SET state = 'held', detail = :text WHERE message_id {IN_IDS} AND state = 'queued'"
        tx.all(step, **known)
        step = f"UPDATE attempt SET ended_at = :now, verdict = 'corrupt', detail = :text WHERE message_id {IN_IDS}"
        tx.all(f"{step} AND ended_at IS NULL", **known, now=tx.wall)


# A byte that flips in the name of a backend leaves a recipient that nobody would claim.
_HEAL = """
INSERT INTO delivery (message_id, backend, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT DISTINCT r.message_id, r.backend, 'queued', :now, :now, 0, TRUE, 0
FROM message m CROSS JOIN recipient r
WHERE r.message_id = m.id AND m.state = 'queued' AND r.state = 'queued' AND NOT EXISTS (
    SELECT 1 FROM delivery d WHERE d.message_id = r.message_id AND d.backend = r.backend AND d.state = 'queued')
ON CONFLICT (message_id, backend) DO UPDATE SET state = 'queued', next_attempt_at = :now RETURNING id"""


def recover(tx: Transaction) -> dict[str, int]:
    """At start: what was under way is interrupted and due again, for nobody else had this file; deliveries are counted.

    Returns how many were interrupted, and how many recipients without a delivery got one.
    """
    ids = [row["delivery_id"] for row in tx.all("SELECT delivery_id FROM attempt WHERE ended_at IS NULL")]
    tx.all(_INTERRUPT, ids=ids, wall=tx.wall)
    tx.all(_DOUBT, ids=ids, now=tx.now, delay=_CRASH_DELAY)
    healed = tx.all(_HEAL, now=tx.now)
    for state in ("queued", "held"):  # a literal state, so that the partial index serves
        for row in tx.all(f"SELECT backend, count(*) AS n FROM delivery WHERE state = '{state}' GROUP BY backend"):
            tx.counts[row["backend"], state] = row["n"]
    return {"interrupted": len(ids), "healed": len(healed)}


def release_claims(tx: Transaction, claims: Iterable[Claim]) -> None:
    """These never reached the network: as if they had not been taken."""
    undo = "attempts = attempts - 1, next_attempt_at = :now"
    for each in claims:
        tx.woken.add(each.backend)
        values = {"id": each.delivery_id, "attempt_id": each.attempt_id, "now": tx.now}
        tx.later(f"UPDATE delivery SET {undo} WHERE id = :id AND {STILL_OPEN}", values)
        tx.later("DELETE FROM attempt WHERE id = :attempt_id AND delivery_id = :id AND ended_at IS NULL", values)


_MOVE_DELIVERIES = f"""
INSERT INTO delivery (message_id, backend, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT message_id, :backend, 'done', :due, received_at, attempts, sticky, in_doubt FROM delivery WHERE id {IN_IDS}
ON CONFLICT (message_id, backend) DO UPDATE SET sticky = delivery.sticky OR excluded.sticky,
    next_attempt_at = CASE WHEN {UNDER_WAY} THEN delivery.next_attempt_at WHEN delivery.state = 'queued'
    THEN @least(delivery.next_attempt_at, excluded.next_attempt_at) ELSE excluded.next_attempt_at END"""
_MOVE_RECIPIENTS = f"""
UPDATE recipient SET backend = :backend WHERE state = 'queued' AND (message_id, backend) IN
    (SELECT message_id, backend FROM delivery WHERE id {IN_IDS})"""


def move_all(tx: Transaction, delivery_ids: list[int], backend: str, due: int) -> None:
    """What waits in these goes to another backend, joining the message's delivery by it if it has one."""
    values = {"ids": tx.engine.listed(delivery_ids), "backend": backend, "due": due}
    tx.later(_MOVE_DELIVERIES, values)
    tx.later(_MOVE_RECIPIENTS, values)
    tx.woken.add(backend)


def move(tx: Transaction, delivery_ids: Sequence[int], backend: str, due: int) -> int:
    """Those that still wait and are not under way; returns how many. A late step."""
    idle = tx.all(f"SELECT id, message_id FROM delivery WHERE {IDLE}", ids=list(delivery_ids))
    with tx.changing(list({row["message_id"] for row in idle})):
        if idle:
            move_all(tx, [row["id"] for row in idle], backend, due)
    return len(idle)
