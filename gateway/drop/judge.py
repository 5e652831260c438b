"""Mail that came as a file, judged as if a program had handed it in by SMTP from this machine, and its sender told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from gateway.address import is_bare
from gateway.clock import Clock
from gateway.drop.compose import whole
from gateway.drop.letter import Letter
from gateway.events import Events
from gateway.intake import Rules, prepare
from gateway.message import Arrival, scan
from gateway.message.text import date, fold
from gateway.model import (
    BadMessage,
    Client,
    NewMessage,
    Outcome,
    Recipient,
    Refusal,
    Scope,
    SpoolTrouble,
    Verdict,
)
from gateway.pools import SMALL_MAIL, look_through_mail
from gateway.quotas import Quotas
from gateway.refusals import Refused, refusal_of
from gateway.transaction import Transaction

_HERE = ("127.0.0.1", "::1")
_LINE = 65536  # octets without CRLF, as a listener takes them with tolerate: [long_lines]
# A bounce to who may not send would be mail to whomever somebody likes.
_UNTOLD = ("relay_denied", "sender_denied")


class Later(Exception):
    """A temporary refusal; ``everything``: any other message would hear the same now."""

    def __init__(self, text: str, *, everything: bool) -> None:
        super().__init__(text)
        self.everything = everything


@dataclass(frozen=True, slots=True)
class Origin:
    """``way`` is the folder's name, ``owner`` whose file it was, ``dropped_at`` when."""

    way: str
    owner: int
    dropped_at: datetime


@dataclass(frozen=True, slots=True)
class Judge:
    """``rules``, and ``by_network`` (who an address is without a login), are those of now.

    ``put`` stores a message; ``refuse`` one of which somebody was refused, with a bounce unless its text says why not.
    """

    rules: Rules
    by_network: Callable[[str], Client | None]
    quotas: Quotas
    put: Callable[[NewMessage], Awaitable[None]]
    refuse: Callable[[NewMessage, str], Awaitable[None]]
    events: Events
    clock: Clock

    async def accept(self, letter: Letter, ident: str, origin: Origin) -> None:
        """Stored as the message ``ident`` when this returns, whoever was refused is accounted for. Raises Later."""
        started, notes = self.clock.monotonic(), _Notes()
        known = next(filter(None, map(self.by_network, _HERE)), None)
        client = replace(known or Client(name=""), login=f"user id {origin.owner}")
        client = replace(client, default_domain=client.default_domain or letter.domain)
        letter, bare = _whole(letter, client.default_domain)
        if client.rate and not self.quotas.allow(client, started):
            raise Later(f"faster than clients.{client.name}.rate allows", everything=True)
        arrival = Arrival(ident, self.clock.now(), listener=origin.way, peer="", helo="", protocol="local")
        message = await self._decide(letter, bare, client, arrival, origin.dropped_at, notes)
        try:
            if client.quota is None or not message.deliveries:
                await self._store(message, letter, notes)
            else:
                many = sum(map(len, message.deliveries.values()))
                with self.quotas.taking(client, message, letter.envelope.sender, many, started) as message:
                    await self._store(message, letter, notes)
        except (SpoolTrouble, Refusal) as trouble:  # others came between the look and this
            raise Later(trouble.text, everything=True) from trouble
        if message.deliveries:
            self.events.accepted(message, self.clock.monotonic() - started)
        for stage, refusal, recipients in notes.rejections:
            self.events.rejected(Refused(
                listener=origin.way, stage=stage, reason=refusal.reason, code=refusal.code, enhanced=refusal.enhanced,
                text=refusal.text, client=client.name, user=client.login, sender=letter.envelope.sender or "<>",
                recipients=recipients, size=len(letter.raw),
            ))  # fmt: skip

    async def _store(self, message: NewMessage, letter: Letter, notes: _Notes) -> None:
        if notes.refused:
            await self.refuse(_with(message, letter.envelope.recipients, notes.refused), notes.untold)
        else:
            await self.put(message)

    async def _decide(
        self,
        letter: Letter,
        bare: Collection[str],
        client: Client,
        arrival: Arrival,
        dropped_at: datetime,
        notes: _Notes,
    ) -> NewMessage:
        """The message, with deliveries to those who were not refused. Raises Later."""
        envelope, stage = letter.envelope, "mail"
        try:
            if not client.name:
                text = "Relay access denied: 127.0.0.1 is in no network of the setting clients"
                raise Refusal(550, "5.7.1", text, "relay_denied")
            transaction = Transaction(client, letter.size, envelope, self.rules)
            envelope = replace(envelope, sender=transaction.sender)
            for recipient in envelope.recipients:
                try:
                    named = recipient.address in bare
                    transaction.add(recipient.address, recipient.notify, recipient.orcpt, bare=named)
                except Exception as error:
                    notes.refuse("rcpt", error, recipient.address)
            if transaction.recipients:
                stage, many = "data", len(transaction.recipients)
                self.quotas.look(client, "", letter.envelope.sender, self.clock.monotonic(), recipients=many)
                ready = partial(_prepared, letter.raw, transaction, arrival, dropped_at, self.rules)
                return await look_through_mail(ready) if len(letter.raw) > SMALL_MAIL else ready()
        except Exception as error:
            notes.refuse(stage, error, *(recipient.address for recipient in envelope.recipients))
        return _unsent(replace(letter, envelope=envelope), client, arrival, self.rules)


@dataclass(slots=True)
class _Notes:
    """Who was refused, and each refusal with its stage and whom it is about."""

    refused: dict[str, Outcome] = field(default_factory=dict)
    rejections: list[tuple[str, Refusal, tuple[str, ...]]] = field(default_factory=list)

    @property
    def untold(self) -> str:
        """Why the sender gets no bounce."""
        return next((r.reason for stage, r, _ in self.rejections if stage == "mail" and r.reason in _UNTOLD), "")

    def refuse(self, stage: str, error: Exception, *addresses: str) -> None:
        """Raises Later for what is temporary, and what nobody expected as it is."""
        if (refusal := refusal_of(error)) is None:
            raise error
        if refusal.code < 500 and refusal.reason != "too_many_recipients":  # who are not fewer for waiting
            raise Later(refusal.text, everything=False) from error
        self.rejections.append((stage, refusal, addresses))
        enhanced = "5" + refusal.enhanced[1:]
        outcome = Outcome(Verdict.REJECTED, enhanced=enhanced, detail=refusal.text, scope=Scope.MESSAGE)
        self.refused |= {address: self.refused.get(address, outcome) for address in addresses}


def _prepared(raw: bytes, transaction: Transaction, arrival: Arrival, dropped_at: datetime, rules: Rules) -> NewMessage:
    """Raises Refusal, BadMessage, CannotCarry."""
    if any(len(line) > _LINE + 1 for line in raw.split(b"\n")):
        raise Refusal(554, "5.6.0", f"A line is longer than {_LINE} octets", "line_too_long")
    header = scan(raw)
    mended: tuple[str, ...] = ()
    if header.fields and not header.count("date"):  # it may have waited for long
        mended = ("dropped_date",)
        raw = raw[: header.start] + fold("Date", [date(dropped_at)]) + raw[header.start :]
    return prepare(
        raw, transaction.envelope(), transaction.client, arrival, rules,
        headerless=False, repairs=mended, rewritten=transaction.rewritten,
    )  # fmt: skip


def _whole(letter: Letter, domain: str) -> tuple[Letter, Collection[str]]:
    """With a domain behind the names in its envelope that have none, and which these are."""
    envelope = letter.envelope
    bare = {whole(one.address, domain) for one in envelope.recipients if is_bare(one.address)}
    if not bare and not is_bare(envelope.sender):
        return letter, ()
    recipients = tuple(replace(one, address=whole(one.address, domain)) for one in envelope.recipients)
    sender = whole(envelope.sender, domain)
    return replace(letter, envelope=replace(envelope, sender=sender, recipients=recipients)), bare


def _with(message: NewMessage, asked: Sequence[Recipient], refused: Mapping[str, Outcome]) -> NewMessage:
    """The same with those who were refused, in the order in which they were asked for; who gets it in the place of
    others comes behind them. Nobody is refused what he gets in such a place."""
    those = {*message.refused, *(address for addresses in message.deliveries.values() for address in addresses)}
    got = {recipient.address: recipient for recipient in message.envelope.recipients if recipient.address in those}
    refused = {**message.refused, **{address: no for address, no in refused.items() if address not in got}}
    known = {one.address: got.get(one.address, one) for one in asked if one.address in got or one.address in refused}
    envelope = replace(message.envelope, recipients=tuple((known | got).values()))
    return replace(message, envelope=envelope, refused=refused)


def _unsent(letter: Letter, client: Client, arrival: Arrival, rules: Rules) -> NewMessage:
    """For the record of a message that nobody gets."""
    try:
        message_id = scan(letter.raw).first("message-id")
    except BadMessage:
        message_id = ""
    return NewMessage(
        id=arrival.id,
        envelope=letter.envelope,
        raw=letter.raw,
        deliveries={},
        received_at=arrival.received_at,
        expires_at=arrival.received_at + rules.retry.lifetime,
        client=client.name,
        login=client.login,
        listener=arrival.listener,
        message_id=message_id,
        header_from=letter.envelope.sender,
    )
