"""Mail in: what a message needs in the spool, written down as one step within a write transaction.

Times in microseconds, of the spool where nothing else is said (steady).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from gateway.model import Envelope, NewMessage, Recipient, SpooledMessage
from gateway.spool import asked, tables
from gateway.spool.answers import hold, refuse, tell
from gateway.spool.changes import UNKNOWN, opened
from gateway.spool.keys import key_of
from gateway.spool.records import MICROSECOND, Claim, Offer, Told, micros, moment
from gateway.spool.seal import CHECKED, checksum
from gateway.spool.sql import NO_ANSWER, clean, insert_into
from gateway.spool.transaction import Transaction

_ADD_MESSAGE = insert_into(
    tables.Message,
    f"id client listener peer pin bounce features sealed authors {CHECKED} "
    "message_id header_from login sender_key size checksum original original_key how resend_of",
    **{"state": "'queued'", "delay_notified": "FALSE", "has_body": "TRUE", "finished_at": "NULL"},
)
_ADD_BODY = insert_into(tables.Body, "message_id raw segment start length")
_ADD_RECIPIENT = insert_into(
    tables.Recipient, "message_id address notify orcpt n key backend updated_at", state="'queued'", **NO_ANSWER
)
_ADD_DELIVERY = insert_into(
    tables.Delivery,
    "message_id backend n next_attempt_at received_at attempts attempt_id started_at addresses owner",
    **{"state": "'queued'", "sticky": "FALSE", "in_doubt": "0"},
)
Offers = Mapping[tuple[str, str], Offer]  # by queue id and backend


def put(
    tx: Transaction,
    messages: Sequence[NewMessage],
    told: Iterable[Told] = (),
    offers: Offers = MappingProxyType({}),
) -> list[Claim]:
    """``told`` is what the sender of the first hears of it at once. Returns the claims of what somebody takes."""
    claims: list[Claim] = []
    for message in messages:
        _put(tx, message, offers, claims)
    if told:
        tell(tx, messages[0].id, told)
    return claims


def _put(tx: Transaction, message: NewMessage, offers: Offers, claims: list[Claim]) -> None:
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
    tx.later(_ADD_BODY, (message.id, *tx.engine.stow(message.raw)))
    tx.tally.add("accepted", listener=message.listener, client=message.client)
    for n, (address, row) in enumerate(recipients.items()):
        tx.later(_ADD_RECIPIENT, (message.id, *row, n, key_of(address), backend_of[address], received))
    for n, name in enumerate(filter(None, dict.fromkeys(backend_of[address] for address in recipients))):
        tx.counts[name, "queued"] += 1
        if (offer := offers.get((message.id, name))) and tx.may_claim(name):
            own = [row for address, row in recipients.items() if backend_of[address] == name]
            claim = Claim(
                backend=name,
                message=_spooled(tx, message, own, tuple(recipients), expires),
                sticky=False,
                in_doubt=0,
                attempt_id=next(tx.attempt_ids),
            )
            until = tx.now + offer.lease // MICROSECOND
            tx.later(_ADD_DELIVERY, (message.id, name, n, until, tx.now, 1, *opened(tx, claim)))
            claims.append(claim)
        else:
            tx.later(_ADD_DELIVERY, (message.id, name, n, tx.now, tx.now, 0, None, None, "", ""))
            tx.woken.add(name)
    if message.rewritten:
        asked.put(tx, message)
    if message.refused:
        refuse(tx, message)
    if message.held:
        hold(tx, message)


def _spooled(
    tx: Transaction, new: NewMessage, own: Iterable[tuple[str, ...]], everyone: tuple[str, ...], expires: int
) -> SpooledMessage:
    """As a claim of the queue would have it."""
    envelope = new.envelope
    return SpooledMessage(
        id=new.id,
        envelope=Envelope(
            envelope.sender,
            tuple(Recipient(*row) for row in own),
            envelope.smtputf8,
            envelope.eightbit,
            envelope.ret,
            envelope.envid,
        ),
        received_at=moment(micros(new.received_at)),
        queued_at=moment(tx.now),
        expires_at=moment(expires),
        client=new.client,
        message_id=clean(new.message_id),
        header_from=clean(new.header_from),
        authors=tuple(map(clean, new.authors)),
        pin=new.pin,
        bounce=new.bounce,
        features=None if new.features is None else dict.fromkeys(sorted(new.features), ""),
        secret=new.secret,
        own_token=bool(new.secret),
        size=len(new.raw),
        everyone=everyone,
    )
