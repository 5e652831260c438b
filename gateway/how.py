"""How a message came and what was decided of it, noted for people while it is known: one short text of JSON.

Everything here is on the way of every message: what takes long to find out is left out, and nothing is looked up.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache

from gateway.message import Arrival, Header, split_recipients
from gateway.model import Client, Envelope
from gateway.routing import Freight, Routing

_DISCLOSING = ("bcc", "resent-bcc", "return-path")
_EASY = 2000  # octets of To and Cc that are compared with the envelope: reading addresses takes time
_EACH = 50  # recipients whose line of routes is noted one by one
_LONGEST = 200  # characters of anything that strangers wrote
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def how(
    header: Header,
    arrival: Arrival,
    client: Client,
    envelope: Envelope,
    *,
    named: bool,
    shown: Sequence[str],
    rewrite_from: str,
    freight: Freight,
    routing: Routing,
    deliveries: Mapping[str, Sequence[str]],
    repairs: Sequence[str],
    rewritten: bool = False,
) -> str:
    """``named``: it came with a Message-ID. ``shown`` are the addresses of From as they came, ``repairs`` is what was
    mended on the way in. ``rewritten``: the envelope names others than were asked for."""
    names = header.named
    found: dict[str, Hashable] = {"with": arrival.protocol, "by": _known_by(client, arrival)}
    if arrival.helo:
        found["helo"] = arrival.helo[:_LONGEST]
    if arrival.tls:
        found["tls"] = arrival.tls[:_LONGEST]
    if client.token:
        found["key"] = client.token.key
    if (envelope.original or rewrite_from) and client.rewrite:
        found["rewrite"] = "always" if client.rewrite.always else "not_allowed"
        if rewrite_from and rewrite_from not in shown:
            found["from"] = ", ".join(shown)[:_LONGEST]
            if shown and "reply-to" not in names:
                found["answers"] = shown[0][:_LONGEST]
    stripped = tuple([name for name in _DISCLOSING if name in names])
    if rewrite_from and "sender" in names:
        stripped += ("sender",)
    if stripped:
        found["stripped"] = stripped
    added = tuple([name for name in ("date", "from") if name not in names])
    if added or not named:
        found["added"] = added if named else (*added, "message-id")
    if repairs:
        found["repairs"] = tuple(repairs)
    if not rewritten:
        found |= _seen(header, envelope)
    found["routes"] = _routes(freight, routing, deliveries, envelope)
    return _text(tuple(found.items()))


@lru_cache(maxsize=1024)
def _text(found: tuple[tuple[str, Hashable], ...]) -> str:
    """Of one client most mail comes in the same way."""
    return _encode(dict(found))


def _known_by(client: Client, arrival: Arrival) -> str:
    """By what the client was known."""
    if not arrival.peer:
        return "file" if arrival.listener else "inside"
    if client.token or client.secret:
        return "token" if client.token else "provider"
    return "password" if client.login else "network"


def _seen(header: Header, envelope: Envelope) -> dict[str, Hashable]:
    """Whom nobody sees, by their places in the envelope, and how many stand in To and Cc whom it does not name.

    ``crowded``: nobody has looked, which is something else than that there is nobody.
    """
    text = b"".join([field.raw for name in ("to", "cc") for field in header.named.get(name, ())])
    asked = [recipient.address.encode() for recipient in envelope.recipients]
    if text.count(b"@") == len(asked) and all(address in text for address in asked):  # so most mail is
        return {}
    if len(text) > _EASY:
        return {"crowded": True}
    split = split_recipients(header, envelope)
    places = {recipient.address: n for n, recipient in enumerate(envelope.recipients)}
    blind = tuple([places[address] for address in split.blind[:_EACH]])
    return {**({"blind": blind} if blind else {}), **({"unsent": len(split.header_only)} if split.header_only else {})}


def _routes(
    freight: Freight, routing: Routing, deliveries: Mapping[str, Sequence[str]], envelope: Envelope
) -> tuple[tuple[Hashable, ...], ...]:
    """For each line of routes that was used and each backend that it led to: the line's number from 1 on (0: the client
    demands the backend), its words, the backend, why those before it were passed over, and for how many.

    Those of few have their places in the envelope behind that, where not all go the same way.
    """
    if len(deliveries) == 1 and len(envelope.recipients) == 1:  # so most mail is
        name, (address,) = next(iter(deliveries.items()))
        return (routing.taken(freight, address, name),)
    used: dict[tuple[int, str], list[int]] = {}
    backend_of = {address: name for name, addresses in deliveries.items() for address in addresses}
    for place, recipient in enumerate(envelope.recipients[:_EACH]):
        way = routing.line(freight, recipient.address), backend_of[recipient.address]
        used.setdefault(way, []).append(place)
    found = [
        (*routing.taken(freight, envelope.recipients[places[0]].address, name), tuple(places))
        for (_, name), places in used.items()
    ]
    return tuple(found) if len(found) > 1 else tuple([one[:-1] for one in found])
