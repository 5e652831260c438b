"""Mail that is to go out again, or another way: as it stands, and the steps that change its way. Times in microseconds.

States are right when a step begins (late), and at its end.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.model import Envelope, Recipient, SpooledMessage
from gateway.spool.changes import UNKNOWN
from gateway.spool.queries import Reader, of_messages
from gateway.spool.records import moment
from gateway.spool.seal import resealed
from gateway.spool.sql import IN_IDS, NO_ANSWER, UNDER_WAY
from gateway.spool.transaction import Transaction

_STANDING = f"SELECT message_id, backend, sticky, {UNDER_WAY} AS busy FROM delivery WHERE message_id {IN_IDS}"


@dataclass(frozen=True, slots=True)
class Place:
    """A recipient as he stands. ``sticky``: his backend may have taken it already; ``busy``: it is at it just now."""

    recipient: Recipient
    state: str
    backend: str
    sticky: bool
    busy: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A message with all its recipients; ``message.envelope`` holds all of them too. ``told``: of a failure."""

    message: SpooledMessage
    state: str
    has_body: bool
    places: tuple[Place, ...]
    told: bool

    def those(self, *states: str) -> list[Place]:
        return [place for place in self.places if place.state in states]


@dataclass(frozen=True, slots=True)
class Way:
    """By which backend a message is to go to whom."""

    message_id: str
    backends: Mapping[str, str]


async def standing(reader: Reader, ids: list[str]) -> list[Standing]:
    """In the order of the ids; those that are gone are not there."""
    rows = {row["id"]: row for row in await reader.all(f"SELECT * FROM message WHERE id {IN_IDS}", ids=ids)}
    recipients = await of_messages(reader, "recipient", ids, order="n")
    told = await of_messages(reader, "bounce", ids, "kind = 'failed' AND bounce_id <> ''")
    by = {(row["message_id"], row["backend"]): row for row in await reader.all(_STANDING, ids=ids)}
    found = []
    for ident in (one for one in ids if one in rows):
        row, places = rows[ident], []
        for each in recipients[ident]:
            delivery = by.get((ident, each["backend"]))
            sticky, busy = (bool(delivery["sticky"]), bool(delivery["busy"])) if delivery else (False, False)
            one = Recipient(each["address"], each["notify"], each["orcpt"])
            places.append(Place(one, each["state"], each["backend"], sticky, busy))
        everyone = tuple(place.recipient for place in places)
        smtputf8, eightbit = bool(row["smtputf8"]), bool(row["eightbit"])
        message = SpooledMessage(
            envelope=Envelope(
                row["sender"], everyone, smtputf8, eightbit, row["ret"], row["envid"], original=row["original"]
            ),
            received_at=moment(row["received_at"]),
            queued_at=moment(row["received_at"]),
            expires_at=moment(row["expires_at"]),
            bounce=bool(row["bounce"]),
            features=None if row["features"] == UNKNOWN else dict.fromkeys(row["features"].split(), ""),
            authors=tuple(json.loads(row["authors"])),
            own_token=row["sealed"] is not None,
            **{name: row[name] for name in ("id", "size", "client", "message_id", "header_from", "pin")},
        )
        found.append(Standing(message, row["state"], bool(row["has_body"]), tuple(places), bool(told[ident])))
    return found


_LEAST = 3_600_000_000  # of a lifetime
_NEW_LIFE = """
UPDATE message SET expires_at = :expires, checksum = :checksum, delay_notified = FALSE WHERE id = :id"""
_QUEUE = f"""
UPDATE recipient SET state = 'queued', backend = :backend, {", ".join(f"{k} = {v}" for k, v in NO_ANSWER.items())}
WHERE message_id = :id AND address = :address AND state = 'failed'"""
# As if it were new to this backend, but that an attempt may have been taken by it stays true.
_DELIVER = """
INSERT INTO delivery (message_id, backend, n, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT :id, :backend, coalesce(max(o.n) + 1, 0), 'done', :now, :now, 0, FALSE, 0
FROM delivery o WHERE o.message_id = :id
ON CONFLICT (message_id, backend) DO UPDATE SET
    next_attempt_at = :now, received_at = :now, attempts = 0, in_doubt = 0"""
_OVER = f"""
SELECT * FROM message WHERE id {IN_IDS} AND state = 'failed' AND has_body
    AND EXISTS (SELECT 1 FROM body WHERE body.message_id = message.id)"""


def requeue(tx: Transaction, ways: Sequence[Way], expires: int) -> list[str]:
    """Of messages that failed and whose text is kept: their failed recipients wait again, for these backends, and the
    message lives until ``expires``. Returns which. Who got it already is not asked for."""
    by_id = {way.message_id: way.backends for way in ways}
    with tx.changing(list(by_id)):
        rows = tx.all(_OVER, ids=list(by_id))
        ids = [row["id"] for row in rows]
        recipients: dict[str, list[object]] = {ident: [] for ident in ids}
        for each in tx.all(f"SELECT * FROM recipient WHERE message_id {IN_IDS} ORDER BY n", ids=ids):
            recipients[each["message_id"]].append(each)
        for row in rows:
            ident = row["id"]
            seal = resealed(row, recipients[ident], {"expires_at": expires})
            tx.later(_NEW_LIFE, {"id": ident, "expires": expires, "checksum": seal})
            for address, backend in by_id[ident].items():
                tx.later(_QUEUE, {"id": ident, "address": address, "backend": backend})
            for backend in dict.fromkeys(by_id[ident].values()):
                tx.later(_DELIVER, {"id": ident, "backend": backend, "now": tx.now})
                tx.woken.add(backend)
    return ids


_ENDED = f"""
SELECT m.*, (SELECT min(d.received_at) FROM delivery d WHERE d.message_id = m.id) AS since
FROM message m WHERE m.id {IN_IDS} AND m.expires_at <= :now"""


def revive(tx: Transaction, ids: list[str]) -> None:
    """Those past their end live as long again: what a person let go is not given up at the first delay."""
    ended = tx.all(_ENDED, ids=ids, now=tx.now)
    recipients: dict[str, list[object]] = {row["id"]: [] for row in ended}
    for each in tx.all(f"SELECT * FROM recipient WHERE message_id {IN_IDS} ORDER BY n", ids=list(recipients)):
        recipients[each["message_id"]].append(each)
    for row in ended:
        expires = tx.now + max(row["expires_at"] - (row["since"] or row["received_at"]), _LEAST)
        seal = resealed(row, recipients[row["id"]], {"expires_at": expires})
        tx.later(_NEW_LIFE, {"id": row["id"], "expires": expires, "checksum": seal})


_OF_OLD = "FROM delivery WHERE delivery.message_id = recipient.message_id AND delivery.backend = recipient.backend"
_MOVE = f"""
UPDATE recipient SET backend = :backend, remote_id = '' WHERE message_id {IN_IDS} AND state IN ('queued', 'held')
    AND backend <> :backend AND NOT EXISTS (SELECT 1 {_OF_OLD} AND (sticky AND NOT :force OR {UNDER_WAY}))
RETURNING message_id"""
_TAKE = f"""
INSERT INTO delivery (message_id, backend, n, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT message_id, :backend, max(n) + 1, 'done', :now, min(received_at), 0, FALSE, 0
FROM delivery WHERE message_id {IN_IDS} GROUP BY message_id
ON CONFLICT (message_id, backend) DO UPDATE SET next_attempt_at =
    CASE WHEN {UNDER_WAY} THEN delivery.next_attempt_at ELSE :now END"""


def reroute(tx: Transaction, ids: list[str], backend: str, *, force: bool) -> list[str]:
    """What waits or is held of these goes by that backend, and is due now; returns which. What is under way stays, and
    without ``force`` what another backend may have taken already. Held mail stays held."""
    with tx.changing(ids):
        rows = tx.all(_MOVE, ids=ids, backend=backend, force=force)
        moved = list(dict.fromkeys(row["message_id"] for row in rows))
        tx.all(_TAKE, ids=moved, backend=backend, now=tx.now)
    tx.woken.add(backend)
    return moved
