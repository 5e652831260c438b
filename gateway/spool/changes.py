"""Mail out: claim, release, move and recover, as steps within a write transaction.

Times in microseconds, of the spool where nothing else is said (steady).
Recipients are the truth: a step changes them; states of deliveries and messages follow (Transaction.changing).
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.model import Envelope, Recipient, SpooledMessage, Verdict
from gateway.spool.engine import Trouble, Unreadable
from gateway.spool.records import Claim, DeliveryId, Taken, moment
from gateway.spool.seal import intact
from gateway.spool.sql import (
    BODY,
    DUE,
    FIRST,
    IDLE,
    IN_IDS,
    LOAD_DELIVERIES,
    THESE,
    UNDER_WAY,
    load_to_claim,
)
from gateway.spool.transaction import AttemptId, Transaction
from gateway.spool.vault import Vault

UNKNOWN = "?"  # of a message's features
_LOST = "interrupted, may have been sent"
_CRASH_DELAY = 60_000_000  # per earlier interruption: a message that kills us cannot do it in a loop


# Of an attempt that ended otherwise than by an answer.
_BREAK_OFF = """
INSERT INTO attempt (id, message_id, backend, addresses, started_at, ended_at, owner,
    verdict, code, enhanced, detail, remote_id)
SELECT attempt_id, message_id, backend, addresses, started_at, :wall, owner, :verdict, NULL, '', :detail, ''
FROM delivery WHERE {} AND attempt_id IS NOT NULL"""
_CLOSE = "UPDATE delivery SET attempt_id = NULL WHERE {} AND attempt_id IS NOT NULL"
_DOUBT = f"""
UPDATE delivery SET next_attempt_at = coalesce(:now + in_doubt * :delay, next_attempt_at), sticky = TRUE,
    in_doubt = in_doubt + 1, attempt_id = NULL WHERE {THESE} AND attempt_id IS NOT NULL"""
_PUT_OFF = f"UPDATE delivery SET next_attempt_at = :until, attempts = attempts + 1 WHERE {THESE}"
_OPEN_ATTEMPT = """
WITH v(message_id, backend, until, attempt_id, started_at, addresses, owner) AS (VALUES (?, ?, ?, ?, ?, ?, ?))
UPDATE delivery SET next_attempt_at = v.until, attempts = attempts + 1, attempt_id = v.attempt_id,
    started_at = v.started_at, addresses = v.addresses, owner = v.owner
FROM v WHERE delivery.message_id = v.message_id AND delivery.backend = v.backend"""
_GIVE_BACK = """
WITH v(message_id, backend, attempt_id, now) AS (VALUES (?, ?, ?, ?))
UPDATE delivery SET attempts = attempts - 1, attempt_id = NULL,
    next_attempt_at = CASE WHEN attempts = 1 THEN received_at ELSE v.now END
FROM v WHERE delivery.message_id = v.message_id AND delivery.backend = v.backend
    AND delivery.attempt_id = v.attempt_id"""
_NEXT = f"{FIRST.format('next_attempt_at')} AND NOT message_id @in(:busy)"


def deliveries_from(
    rows: Iterable[Any], vault: Vault | None = None, *, taken: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """From sql.load: what makes each Delivery, and the ids of messages whose rows make no sense (damage).

    Without the vault, clients' tokens stay sealed. ``taken`` is how many attempts more there are than in the rows.
    """
    grouped: dict[DeliveryId, list[Any]] = {}
    for row in rows:
        grouped.setdefault((row["id"], row["backend"]), []).append(row)
    deliveries, damaged = [], []
    for group in grouped.values():
        try:
            deliveries.append(_delivery(group[0], group, vault, taken))
        except (TypeError, ValueError, OverflowError):
            damaged.append(group[0]["id"])
    return [delivery for delivery in deliveries if delivery["message"].envelope.recipients], damaged


def _delivery(row: Any, rows: Sequence[Any], vault: Vault | None, taken: int) -> dict[str, Any]:
    waiting = [each for each in rows if each["pending"]]
    recipients = tuple(Recipient(each["address"], each["notify"], each["orcpt"]) for each in waiting)
    smtputf8, eightbit = bool(row["smtputf8"]), bool(row["eightbit"])
    message = SpooledMessage(
        envelope=Envelope(row["sender"], recipients, smtputf8, eightbit, row["ret"], row["envid"]),
        received_at=moment(row["received_at"]),
        queued_at=moment(row["queued_at"]),
        expires_at=moment(row["expires_at"]),
        attempt=row["attempts"] + taken,
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
    same = {name: row[name] for name in ("backend", "in_doubt")}
    if row["in_doubt"]:  # a crash leaves everybody in doubt, and writes down nothing of it with them
        lost = tuple(each["address"] for each in waiting if each["said"] == Verdict.IN_DOUBT.value)
        same["doubted"] = lost or tuple(each["address"] for each in waiting)
    return {**same, "message": message, "sticky": bool(row["sticky"])}


def claim(tx: Transaction, now: int, until: int, which: str, **values: Any) -> list[Claim]:
    """Take the deliveries that ``which`` selects: out of reach until ``until``, the attempt's row written first."""
    return _claim(tx, until, which, {**values, "now": now})[0]


def take(tx: Transaction, now: int, until: int, *, eager: int, **values: Any) -> Taken:
    """Claim what is due of a ``backend``, at most ``limit``, with the bodies of up to ``eager`` bytes."""
    claims, rows = _claim(tx, until, DUE, {**values, "now": now})
    small = [each.message.id for each in claims if each.message.size <= eager]
    bodies, damaged = _bodies(tx, small, rows) if small else ({}, [])
    if damaged:
        corrupt(tx, damaged)
        claims = [each for each in claims if each.message.id not in damaged]
    due: int | None = now
    if len(claims) < values["limit"]:
        (first,) = tx.all(_NEXT, backend=values["backend"], busy=values["busy"])
        due = first["at"]
    return Taken(tuple(claims), bodies, None if due is None else moment(due))


def _bodies(tx: Transaction, ids: list[str], rows: Iterable[Any]) -> tuple[dict[str, bytes], list[str]]:
    """Those whose checksum holds, and the ids of those where it does not; ``rows`` from sql.load.

    Raises Unreadable for the sake of one, which must not cost the others.
    """
    tx.flush()
    try:
        read = tx.all(f"SELECT {BODY} FROM body WHERE message_id {IN_IDS}", ids=ids)
    except Exception as error:
        if tx.engine.classify(error) is Trouble.BROKEN:
            raise Unreadable from error
        raise
    known: dict[str, list[Any]] = {}
    for row in rows:
        known.setdefault(row["id"], []).append(row)
    whole = {}
    for found in read:
        ident, raw = found["body_of"], tx.engine.body(found)
        with suppress(TypeError, ValueError):  # a damaged value may be of any type
            if intact(known[ident][0], known[ident], raw):
                whole[ident] = raw
    return whole, [ident for ident in ids if ident not in whole]


def _claim(tx: Transaction, until: int, which: str, values: Mapping[str, Any]) -> tuple[list[Claim], Sequence[Any]]:
    if not tx.may_claim(values.get("backend", "")):
        return [], []
    rows = tx.all(load_to_claim(which), **values)
    if any(row["attempt_id"] is not None for row in rows):  # a send that outlived its lease
        keys = list(dict.fromkeys((row["id"], row["backend"]) for row in rows))
        _interrupt(tx, keys, now=None, delay=0)
        rows = tx.all(LOAD_DELIVERIES, keys=keys)
    deliveries, damaged = deliveries_from(rows, tx.vault, taken=1)
    if damaged:
        corrupt(tx, damaged)
    claims = [Claim(attempt_id=next(tx.attempt_ids), **delivery) for delivery in deliveries]
    open_attempts(tx, claims, until)
    if passed := {(row["id"], row["backend"]) for row in rows}.difference(each.delivery_id for each in claims):
        tx.all(_PUT_OFF, keys=list(passed), until=until)  # damaged, or of nobody: not found again at once
    return claims, rows


def open_attempts(tx: Transaction, claims: Iterable[Claim], until: int) -> None:
    """That these are under way, written down before anything of them touches the network; out of reach until then."""
    for each in claims:
        tx.later(_OPEN_ATTEMPT, (*each.delivery_id, until, *opened(tx, each)))


def opened(tx: Transaction, claim: Claim) -> tuple[int, int, str, str]:
    """What a delivery has of an attempt that is under way: attempt_id, started_at, addresses and owner."""
    addresses = json.dumps([recipient.address for recipient in claim.message.envelope.recipients])
    return claim.attempt_id, tx.wall, addresses, tx.engine.owner


def _interrupt(tx: Transaction, keys: list[DeliveryId], *, now: int | None, delay: int) -> None:
    """What is under way of these is broken off: due again at ``now``, later by ``delay`` for each time before."""
    tx.all(_BREAK_OFF.format(THESE), keys=keys, wall=tx.wall, verdict="interrupted", detail=_LOST)
    tx.all(_DOUBT, keys=keys, now=now, delay=delay)


def corrupt(tx: Transaction, ids: list[str]) -> None:
    """What cannot be trusted is never sent, and kept for a person to look at. A late step."""
    known = {"ids": ids, "detail": "damaged in the spool"}
    tx.damaged += ids
    with tx.changing(ids, anew=True):
        tx.all(f"UPDATE message SET state = 'corrupt' WHERE id {IN_IDS}", ids=ids)
        step = f"UPDATE recipient SET state = 'held', detail = :detail WHERE message_id {IN_IDS} AND state = 'queued'"
        tx.all(step, **known)
        of_these = f"message_id {IN_IDS}"
        tx.all(_BREAK_OFF.format(of_these), **known, wall=tx.wall, verdict="corrupt")
        tx.all(_CLOSE.format(of_these), ids=ids)


# A byte that flips in the name of a backend leaves a recipient that nobody would claim. The state is asked of the one
# delivery there can be: PostgreSQL without statistics would look through all that are queued, for each recipient.
_HEAL = """
INSERT INTO delivery (message_id, backend, n, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT DISTINCT r.message_id, r.backend, (SELECT coalesce(max(o.n) + 1, 0) FROM delivery o
    WHERE o.message_id = r.message_id), 'queued', :now, :now, 0, TRUE, 0
FROM message m @by(message_open) CROSS JOIN recipient r
WHERE r.message_id = m.id AND m.finished_at IS NULL AND m.state = 'queued' AND r.state = 'queued' AND coalesce((
    SELECT d.state FROM delivery d WHERE d.message_id = r.message_id AND d.backend = r.backend), '') <> 'queued'
ON CONFLICT (message_id, backend) DO UPDATE SET state = 'queued', next_attempt_at = :now RETURNING message_id"""
_UNDER_WAY = " UNION ALL ".join(  # as their indexes say it
    f"SELECT message_id, backend{{}} FROM delivery WHERE attempt_id IS NOT NULL AND state {which}"
    for which in ("= 'queued'", "<> 'queued'")
)


def recover(tx: Transaction) -> dict[str, int]:
    """At start: what was under way is interrupted and due again, for nobody else had this file; deliveries are counted.

    Returns how many were interrupted, and how many recipients without a delivery got one.
    """
    keys = break_off(tx, tx.engine.owner)
    healed = tx.all(_HEAL, now=tx.now)
    tx.counts.update(counted(tx))
    return {"interrupted": len(keys), "healed": len(healed)}


def break_off(tx: Transaction, owner: str) -> list[DeliveryId]:
    """What an instance that is over had under way is interrupted and due again; returns which. All, where there is
    only one."""
    own = f"SELECT * FROM ({_UNDER_WAY.format(', owner', ', owner')}) AS found WHERE owner = :owner"
    found = tx.all(own, owner=owner) if tx.engine.shared else tx.all(_UNDER_WAY.format("", ""))
    keys = [(row["message_id"], row["backend"]) for row in found]
    _interrupt(tx, keys, now=tx.now, delay=_CRASH_DELAY)
    return keys


def counted(tx: Transaction) -> dict[tuple[str, str], int]:
    """Deliveries by (backend, state)."""
    found = {}
    for state in ("queued", "held"):  # a literal state, so that the partial index serves
        for row in tx.all(f"SELECT backend, count(*) AS n FROM delivery WHERE state = '{state}' GROUP BY backend"):
            found[row["backend"], state] = int(row["n"])
    return found


def release_claims(tx: Transaction, claims: Iterable[Claim]) -> None:
    """These never reached the network: as if they had not been taken, so those that are new keep their turn."""
    give_back(tx, [(*each.delivery_id, each.attempt_id) for each in claims])


def give_back(tx: Transaction, attempts: Iterable[AttemptId]) -> None:
    """The same, by what is known of them; of one that has ended nothing is changed."""
    for message_id, backend, attempt_id in attempts:
        tx.woken.add(backend)
        tx.once(_GIVE_BACK, (message_id, backend, attempt_id, tx.now), (message_id, backend))


_MOVE_DELIVERIES = f"""
INSERT INTO delivery (message_id, backend, n, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT message_id, :backend, (SELECT max(o.n) + 1 FROM delivery o WHERE o.message_id = delivery.message_id),
    'done', :due, received_at, attempts, sticky, in_doubt FROM delivery WHERE {THESE}
ON CONFLICT (message_id, backend) DO UPDATE SET sticky = delivery.sticky OR excluded.sticky,
    next_attempt_at = CASE WHEN {UNDER_WAY} THEN delivery.next_attempt_at WHEN delivery.state = 'queued'
    THEN @least(delivery.next_attempt_at, excluded.next_attempt_at) ELSE excluded.next_attempt_at END"""
_MOVE_RECIPIENTS = f"""
UPDATE recipient SET backend = :backend WHERE state = 'queued' AND (message_id, backend) IN
    (SELECT message_id, backend FROM delivery WHERE {THESE})"""


def move_all(tx: Transaction, keys: list[DeliveryId], backend: str, due: int) -> None:
    """What waits in these goes to another backend, joining the message's delivery by it if it has one."""
    values = {"keys": tx.engine.listed(keys), "backend": backend, "due": due}
    tx.later(_MOVE_DELIVERIES, values)
    tx.later(_MOVE_RECIPIENTS, values)
    tx.woken.add(backend)


def move(tx: Transaction, delivery_ids: Sequence[DeliveryId], backend: str, due: int) -> int:
    """Those that still wait and are not under way; returns how many. A late step."""
    idle = tx.all(f"SELECT message_id, backend FROM delivery WHERE {IDLE}", keys=list(delivery_ids))
    with tx.changing(list({row["message_id"] for row in idle})):
        if idle:
            move_all(tx, [(row["message_id"], row["backend"]) for row in idle], backend, due)
    return len(idle)
