"""Mail in: what a message needs in the spool, written down as one step within a write transaction.

Times in microseconds, of the spool where nothing else is said (steady).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from gateway.model import NewMessage
from gateway.spool import tables
from gateway.spool.answers import refuse, tell
from gateway.spool.changes import UNKNOWN
from gateway.spool.keys import key_of
from gateway.spool.records import Told, micros
from gateway.spool.seal import CHECKED, checksum
from gateway.spool.sql import NO_ANSWER, clean, insert_into
from gateway.spool.transaction import Transaction

_ADD_MESSAGE = insert_into(
    tables.Message,
    f"id client listener peer pin bounce features sealed authors {CHECKED} "
    "message_id header_from login sender_key size checksum original original_key how resend_of",
    **{"state": "'queued'", "delay_notified": "FALSE", "has_body": "TRUE", "finished_at": "NULL"},
)
_ADD_BODY = insert_into(tables.Body, "message_id raw")
_ADD_RECIPIENT = insert_into(
    tables.Recipient, "message_id address notify orcpt n key backend updated_at", state="'queued'", **NO_ANSWER
)
_ADD_DELIVERY = insert_into(
    tables.Delivery,
    "message_id backend next_attempt_at received_at",
    **{"id": "NULL", "state": "'queued'", "attempts": "0", "sticky": "FALSE", "in_doubt": "0"},
)


def put(tx: Transaction, *messages: NewMessage, told: Iterable[Told] = ()) -> None:
    """``told`` is what the sender of the first hears of it at once."""
    for message in messages:
        _put(tx, message)
    if told:
        tell(tx, messages[0].id, told)


def _put(tx: Transaction, message: NewMessage) -> None:
    """A message with its recipients and deliveries, due at once. KeyError for a recipient without a backend, who is not
    among the refused either."""
    envelope, received = message.envelope, micros(message.received_at)
    backend_of = {address: name for name, addresses in message.deliveries.items() for address in addresses}
    if message.refused:
        backend_of |= dict.fromkeys(message.refused, "")
    recipients: dict[str, tuple[str, ...]] = {}
    for each in envelope.recipients:
        recipients.setdefault(each.address, (each.address, each.notify, each.orcpt))
    expires = tx.now + micros(message.expires_at) - received  # so long, wherever the machine's clock is set to
    texts, times = (envelope.sender, envelope.ret, envelope.envid), (received, expires)
    flags = (envelope.smtputf8, envelope.eightbit)
    features = UNKNOWN if message.features is None else " ".join(sorted(message.features))
    sealed = tx.vault.seal(message.id, message.secret)
    authors = json.dumps([clean(author) for author in message.authors])
    origin = (message.id, message.client, message.listener, message.peer, message.pin, message.bounce)
    named = (clean(message.message_id), clean(message.header_from), clean(message.login))
    seal = checksum((*texts, *map(int, flags), *times), recipients.values(), message.raw)
    was = clean(envelope.original)
    found = (key_of(envelope.sender), len(message.raw), seal, was, key_of(was), message.how, message.resend_of)
    tx.later(_ADD_MESSAGE, (*origin, features, sealed, authors, *texts, *flags, *times, *named, *found))
    tx.later(_ADD_BODY, (message.id, message.raw))
    tx.tally.add("accepted", listener=message.listener, client=message.client)
    for n, (address, row) in enumerate(recipients.items()):
        tx.later(_ADD_RECIPIENT, (message.id, *row, n, key_of(address), backend_of[address], received))
    for name in filter(None, dict.fromkeys(backend_of[address] for address in recipients)):
        tx.later(_ADD_DELIVERY, (message.id, name, tx.now, tx.now))
        tx.counts[name, "queued"] += 1
        tx.woken.add(name)
    if message.refused:
        refuse(tx, message)
