"""The last decisions before a message is stored, the same for every way in: loop, sender, routing, stamp. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.config.aliases import Aliases
from gateway.config.checks import given_aliases
from gateway.config.models import ClientSettings, LimitSettings, RetrySettings, Settings
from gateway.copies import copies
from gateway.how import how
from gateway.message import (
    Arrival,
    Field,
    Header,
    may_show_address,
    plain_addresses,
    qualify_header,
    redirected,
    scan,
    sole_address,
    stamp,
    walk,
)
from gateway.message.text import harmless
from gateway.model import Client, Envelope, NewMessage, Outcome, Refusal
from gateway.policy import allowed, anybody, check_sender
from gateway.rewritten import Rewritten
from gateway.routing import Freight, Routing

_HOPS = 100  # Received fields in all, RFC 5321 6.3
_OWN_HOPS = 5  # ... and those that this host wrote
_LONG_HEADER = 20_000  # octets: what is added to a shorter one never makes it too long
_FROM_LIMIT = 16_384  # octets: reading addresses costs time, and nobody has this many authors


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings and the backends say about accepting mail; swapped as a whole at a reload."""

    hostname: str
    limits: LimitSettings
    retry: RetrySettings
    clients: Mapping[str, ClientSettings]
    routing: Routing
    aliases: Aliases | None = None  # None: nobody's name stands for another's

    @classmethod
    def of(cls, settings: Settings, routing: Routing) -> Rules:
        aliases = Aliases.of(given_aliases(settings)) if settings.aliases else None
        return cls(settings.hostname, settings.limits, settings.retry, settings.clients, routing, aliases)


def prepare(
    raw: bytes,
    envelope: Envelope,
    client: Client,
    arrival: Arrival,
    rules: Rules,
    *,
    headerless: bool = True,
    repairs: Sequence[str] = (),
    rewritten: Sequence[Rewritten] = (),
) -> NewMessage:
    """The message as it is to be stored, with its deliveries. Raises Refusal 554 or 553, BadMessage, CannotCarry.

    ``headerless`` says whether a message without any header field is tolerated; ``repairs`` is what was mended already
    (as gateway.lifeline tells it), and ``rewritten`` what became of recipients that were asked for.
    """
    if client.default_domain and (whole := qualify_header(raw, client.default_domain)) is not raw:
        raw, repairs = whole, (*repairs, "default_domain")
    if client.redirect_to and rewritten:
        raw = redirected(raw, client.redirect_to, [one.asked for one in rewritten])
    header = scan(raw)
    _check_header(header, rules.hostname, headerless=headerless)
    shown = header.addresses("from")
    sender, rewrite_from = _senders(header, shown, envelope.sender, client)
    addresses = tuple([recipient.address for recipient in envelope.recipients])
    # A declared SMTPUTF8 that nothing needs must not close the way through backends without it.
    utf8 = envelope.smtputf8 and not ("".join((sender, *addresses)).isascii() and raw[: header.end].isascii())
    original = envelope.original or (envelope.sender if envelope.sender != sender else "")
    if not original and rewrite_from not in ("", *shown):
        original = harmless(", ".join(shown), utf8=True)
    eightbit = envelope.eightbit or not raw.isascii()
    if (sender, original, utf8, eightbit) != (envelope.sender, envelope.original, envelope.smtputf8, envelope.eightbit):
        envelope = Envelope(sender, envelope.recipients, utf8, eightbit, envelope.ret, envelope.envid, original)
    named = header.identifier("message-id")
    message_id = named or f"<{arrival.id}@{rules.hostname}>"
    if utf8:  # RFC 6531 4.3
        arrival = replace(arrival, protocol="UTF8SMTP" + arrival.protocol.removeprefix("E")[4:])
    stamped = stamp(
        raw,
        header,
        arrival,
        hostname=rules.hostname,
        sender=sender,
        recipients=addresses,
        message_id=message_id,
        rewrite_from=rewrite_from,
    )
    if header.end > _LONG_HEADER:
        scan(stamped)  # delivery reads it again
    # A From in which nobody stands is shown to readers as it is, and so is a Sender.
    stated = shown or (() if header.count("from") else (sender,))
    authors = (rewrite_from,) if rewrite_from else (*(stated or ("",)), *header.addresses("sender"))
    features = walk(stamped).features if rules.routing.particular else None
    freight = Freight(
        client=client.name,
        sender=sender,
        size=len(stamped),
        pin=client.backend,
        smtputf8=utf8,
        authors=authors,
        features=features,
        own_token=bool(client.secret),
    )
    deliveries = rules.routing.deliveries(freight, addresses)
    noted = how(
        header,
        arrival,
        client,
        envelope,
        named=bool(named),
        shown=shown,
        rewrite_from=rewrite_from,
        freight=freight,
        routing=rules.routing,
        deliveries=deliveries,
        repairs=repairs,
        rewritten=bool(rewritten),
    )
    refused: Mapping[str, Outcome] = {}
    if (client.copy_to or rules.routing.copies) and not client.redirect_to:
        made = copies(client, rules.routing, freight, addresses)
        envelope = replace(envelope, recipients=(*envelope.recipients, *made.recipients))
        deliveries, refused = made.beside(deliveries), made.refused
        rewritten = (*rewritten, *made.rewritten)
    return NewMessage(
        id=arrival.id,
        envelope=envelope,
        raw=stamped,
        deliveries=deliveries,
        received_at=arrival.received_at,
        expires_at=arrival.received_at + rules.retry.lifetime,
        client=client.name,
        login=client.login,
        listener=arrival.listener,
        peer=arrival.peer,
        message_id=message_id,
        header_from=authors[0] or sender,
        authors=authors,
        pin=client.backend,
        features=features,
        how=noted,
        rewritten=rewritten,
        refused=refused,
        secret=client.secret,
    )


def _check_header(header: Header, hostname: str, *, headerless: bool) -> None:
    if not header.fields and not headerless:
        text = "Message has no header; for a sender that cannot, set tolerate: [missing_headers]"
        raise Refusal(554, "5.6.0", text, "bad_message")
    if hops := header.named.get("received", ()):
        by_us = b"by " + hostname.lower().encode()
        if len(hops) >= _HOPS or sum(by_us in field.raw.lower() for field in hops) >= _OWN_HOPS:
            raise Refusal(554, "5.4.6", "Too many hops, this looks like a mail loop", "mail_loop")
    if header.end > _FROM_LIMIT and sum(len(field.raw) for field in _authors(header)) > _FROM_LIMIT:
        raise Refusal(554, "5.6.0", "From and Sender fields are too long", "bad_message")


def _authors(header: Header) -> list[Field]:
    return [*header.named.get("from", ()), *header.named.get("sender", ())]


def _senders(header: Header, shown: Sequence[str], sender: str, client: Client) -> tuple[str, str]:
    """Envelope sender, and the address that is to replace From ("" for none). Bounces keep their null sender."""
    rewrite = client.rewrite
    if rewrite is None and anybody(client.senders):
        return sender, ""
    # Where there is no From, the envelope sender will be written there.
    shown = (*(shown if header.count("from") else (sender,)), *header.addresses("sender"))
    values = [field.value for field in _authors(header)]
    values += [sender.encode()] if sender and not header.count("from") else []
    plain = all(plain_addresses(value) or sole_address(value) for value in values)
    if rewrite is None:
        if not sender and not any(map(may_show_address, values)):
            return sender, ""  # a bounce of another host, "MAILER-DAEMON <>": nobody's address stands there
        check_sender(client, sender, shown, plain=plain)
        return sender, ""
    honest = not rewrite.always and plain and any(shown) and all(allowed(client.senders, address) for address in shown)
    if sender and (rewrite.always or not allowed(client.senders, sender)):
        sender = rewrite.to
    return sender, "" if honest else rewrite.to
