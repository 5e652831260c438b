"""The last decisions before a message is stored, the same for every way in: loop, sender, lanes, stamp. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.config.models import ClientSettings, LimitSettings, RetrySettings, RouteSettings, Settings
from gateway.message import Header, Trace, plain_addresses, scan, stamp, walk
from gateway.model import Client, Envelope, Limits, NewMessage, Refusal
from gateway.policy import Freight, check_sender, is_loop, may_send_as, route, usable

_FROM_LIMIT = 16_384  # octets: reading addresses costs time, and nobody has this many authors


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings and the backends say about accepting mail; swapped as a whole at a reload."""

    hostname: str
    limits: LimitSettings
    routes: tuple[RouteSettings, ...]
    retry: RetrySettings
    backend_limits: Mapping[str, Limits]
    clients: Mapping[str, ClientSettings]

    @property
    def particular(self) -> bool:
        """Whether any backend minds what is in a message, so that somebody has to look."""
        return any(limits.lacks for limits in self.backend_limits.values())

    @classmethod
    def of(cls, settings: Settings, backend_limits: Mapping[str, Limits]) -> Rules:
        return cls(
            settings.hostname, settings.limits, settings.routes, settings.retry, backend_limits, settings.clients
        )


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a message came: its queue id, and what the trace says. ``peer`` is an IP address, "" from inside."""

    id: str
    received_at: datetime
    listener: str
    peer: str
    helo: str
    protocol: str
    tls: str = ""


def prepare(
    raw: bytes, envelope: Envelope, client: Client, arrival: Arrival, rules: Rules, *, headerless: bool = True
) -> NewMessage:
    """The message as it is to be stored, with its lanes. Raises Refusal: 554, 553, 552 or 550.

    ``headerless`` says whether a message without any header field is tolerated.
    """
    header = scan(raw)
    _check_header(header, rules.hostname, headerless=headerless)
    shown = header.addresses("from")
    sender, rewrite_from = _senders(header, shown, envelope.sender, client)
    addresses = tuple(recipient.address for recipient in envelope.recipients)
    # A declared SMTPUTF8 that nothing needs must not close the way through backends without it.
    utf8 = envelope.smtputf8 and not ("".join((sender, *addresses)).isascii() and raw[: header.end].isascii())
    envelope = replace(envelope, sender=sender, smtputf8=utf8, eightbit=envelope.eightbit or not raw.isascii())
    message_id = header.first("message-id") or f"<{arrival.id}@{rules.hostname}>"
    trace = Trace(
        queue_id=arrival.id,
        hostname=rules.hostname,
        helo=arrival.helo,
        peer=arrival.peer,
        protocol="UTF8SMTP" + arrival.protocol.removeprefix("E")[4:] if utf8 else arrival.protocol,
        sender=sender,
        recipients=addresses,
        received_at=arrival.received_at,
        message_id=message_id,
        tls=arrival.tls,
    )
    stamped = stamp(raw, header, trace, rewrite_from=rewrite_from)
    # A From in which nobody stands is shown to readers as it is, and so is a Sender.
    stated = shown or (() if header.count("from") else (sender,))
    authors = (rewrite_from,) if rewrite_from else (*(stated or ("",)), *header.addresses("sender"))
    needs = walk(stamped).needs if rules.particular else None
    freight = Freight(len(stamped), not sender, utf8, authors, needs, token=bool(client.secret))
    return NewMessage(
        id=arrival.id,
        envelope=envelope,
        raw=stamped,
        lanes=_lanes(envelope, freight, client, rules),
        received_at=arrival.received_at,
        expires_at=arrival.received_at + rules.retry.lifetime,
        client=client.name,
        login=client.login,
        listener=arrival.listener,
        peer=arrival.peer,
        message_id=message_id,
        header_from=authors[0] or sender,
        pin=client.backend,
        needs=needs,
        secret=client.secret,
    )


def _check_header(header: Header, hostname: str, *, headerless: bool) -> None:
    if not header.fields and not headerless:
        text = "Message has no header; for a sender that cannot, set tolerate: [missing_headers]"
        raise Refusal(554, "5.6.0", text, "bad_message")
    if is_loop(header.count("received"), _own_hops(header, hostname)):
        raise Refusal(554, "5.4.6", "Too many hops, this looks like a mail loop", "mail_loop")
    if sum(len(field.raw) for field in header.fields if field.name in ("from", "sender")) > _FROM_LIMIT:
        raise Refusal(554, "5.6.0", "From and Sender fields are too long", "bad_message")


def _senders(header: Header, shown: Sequence[str], sender: str, client: Client) -> tuple[str, str]:
    """Envelope sender, and the address that is to replace From ("" for none). Bounces keep their null sender."""
    rewrite = client.rewrite
    if rewrite is None and all("*" in group for group in client.senders):
        return sender, ""
    # Where there is no From, the envelope sender will be written there.
    shown = (*(shown if header.count("from") else (sender,)), *header.addresses("sender"))
    plain = all(plain_addresses(field.value) for field in header.fields if field.name in ("from", "sender"))
    if rewrite is None:
        check_sender(client, sender, shown, plain=plain)
        return sender, ""
    honest = not rewrite.always and plain and any(shown) and all(may_send_as(client, address) for address in shown)
    if sender and (rewrite.always or not may_send_as(client, sender)):
        sender = rewrite.to
    return sender, "" if honest else rewrite.to


def _own_hops(header: Header, hostname: str) -> int:
    written = b"by " + hostname.lower().encode()
    return sum(written in field.raw.lower() for field in header.fields if field.name == "received")


def _lanes(envelope: Envelope, freight: Freight, client: Client, rules: Rules) -> dict[str, tuple[str, ...]]:
    """Every recipient in the lane of the first backend of its route that can carry the message."""
    lanes: dict[str, list[str]] = {}
    for recipient in envelope.recipients:
        names = route(
            rules.routes,
            client=client.name,
            pin=client.backend,
            sender=envelope.sender,
            recipient=recipient.address,
        )
        fit = usable(names, rules.backend_limits, freight)
        lanes.setdefault(fit[0], []).append(recipient.address)
    return {name: tuple(addresses) for name, addresses in lanes.items()}
