"""Backend ``smtp``: an upstream SMTP server (smarthost)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from gateway.address import comparable
from gateway.backends.shared.base import (
    UNBOUNDED,
    Context,
    NoAnswer,
    aside,
    canonical,
    limited,
    refused,
    tells_of_trust,
    unrecorded,
)
from gateway.backends.shared.calls import Call, Plan, carry_out
from gateway.backends.shared.logins import TokenLogin
from gateway.backends.shared.mailboxes import Mailboxes
from gateway.backends.shared.most import Most
from gateway.backends.smtp.checking import check
from gateway.backends.smtp.connection import Connection, name_recipients, open_transaction, send_message
from gateway.backends.smtp.fitting import fitted
from gateway.backends.smtp.idle import Idle
from gateway.backends.smtp.opening import Opener
from gateway.backends.smtp.probes import SmtpProbes
from gateway.backends.smtp.settings import SmtpSettings
from gateway.checks import Check, Renewed, Renews, Use
from gateway.clock import Clock
from gateway.model import Capabilities, Envelope, Outcome, Progress, Scope, SpooledMessage, Verdict, same_for_all
from gateway.ratelimit import Budget

__all__ = ["Smtp", "SmtpSettings"]

IDLE = 30.0  # seconds that a connection is kept for the next message


class Smtp:
    """Hands messages to one upstream server, over connections that are kept for a while."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self.name = name
        self.capabilities = limited(_able(settings), settings)
        self._clock = context.clock
        self._settings, self._names = settings, context.names
        self._where = settings.where
        self._login: TokenLogin | None = None
        if settings.tokens is not None and settings.mailbox is not None:
            way = settings.tokens.way(context.fetch, tells_of_trust(context.signals, name)) if context.fetch else None
            self._login = settings.tokens.login(name, settings.mailbox, replace(context, fetch=way or context.fetch))
        self._mailboxes = _mailboxes(settings, context.clock)
        self._opener = Opener(name, settings, context, self._login)
        self._most = Most(settings.max_recipients, name, context)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._idle = Idle(settings.concurrency)

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        raw = await aside(len(raw), lambda: canonical(raw))
        everyone = tuple(recipient.address for recipient in message.envelope.recipients)
        try:
            mailbox = await self._mailbox(message.header_from or message.envelope.sender)
        except NoAnswer as error:
            return same_for_all(message, error.outcome)
        envelope = self._from(message.envelope, mailbox)
        make = partial(self._deliver, envelope, raw, mailbox)
        async with self._slots:
            outcomes = await carry_out(message, lambda: Plan(self._calls(everyone)), make, self._clock, progress)
        if envelope is not message.envelope:
            return _noted(outcomes, f"; sent as {mailbox} in place of {message.envelope.sender or '<>'}")
        return outcomes

    async def _mailbox(self, author: str) -> str:
        """Who logs in by token for a message of ``author``; "" where no tokens are ours. Raises NoAnswer."""
        if self._login is None:
            return ""
        match self._settings.mailbox:
            case "sender":
                if not author:
                    detail = "no From address to log in as"
                    raise NoAnswer(Outcome(Verdict.REJECTED, enhanced="5.7.1", detail=detail))
                return author
            case "me":
                return await self._login.account()
            case fixed:
                return fixed or ""

    def _from(self, envelope: Envelope, mailbox: str) -> Envelope:
        """With the sender that the server takes from this mailbox."""
        tokens = self._settings.tokens
        if tokens is None or not tokens.takes_own_sender_only or comparable(envelope.sender) == comparable(mailbox):
            return envelope
        return replace(envelope, sender=mailbox)

    def _calls(self, some: tuple[str, ...]) -> tuple[Call, ...]:
        """A transaction for as many as the server takes in one."""
        most = self._most.now()
        chunks = (some[start : start + most] for start in range(0, len(some), most))
        return tuple(Call(chunk, bytes, part=self._calls) for chunk in chunks)

    def probes(self) -> SmtpProbes:
        settings = self._settings
        return SmtpProbes(
            urls=self._login.urls if self._login is not None else (),
            name=self.name,
            host=settings.host,
            tls=settings.tls,
            max_size=settings.max_size,
            open=self._opened,
            names=self._names,
        )

    async def check(self) -> Check:
        """Gets a token where the login is by one, connects, does TLS and AUTH as for a message, and says goodbye."""
        return await check(self._settings, self._login, self._example, self._look, self._clock)

    async def _example(self) -> str:
        """A mailbox to try a login with, "" where none is known. Raises NoAnswer."""
        named = next((one for one in self.capabilities.senders if "*" not in one), "")
        return "" if self._settings.mailbox == "sender" and not named else await self._mailbox(named)

    async def _look(self, mailbox: str) -> Connection:
        """A connection to look at, which takes no place of those that work. Raises NoAnswer."""
        if self._mailboxes is None:
            return await self._opener.open(mailbox)
        async with self._mailboxes.turn(mailbox, calls=0):
            self._idle.retire_all(mailbox.lower())
            return await self._opener.open(mailbox)

    async def _opened(self) -> Connection:
        """Raises NoAnswer."""
        mailbox = await self._example()
        if self._login is not None and not mailbox:
            raise refused("no whole address among senders", "")
        return await self._look(mailbox)

    async def renew(self, *, ordered: bool = False) -> Renewed | None:
        return await self._login.renew(ordered=ordered) if isinstance(self._login, Renews) else None

    def uses(self) -> tuple[Use, ...]:
        return (
            self._mailboxes.uses("mailbox_rate", "messages") if self._mailboxes and self._settings.mailbox_rate else ()
        )

    def forget(self) -> None:
        """Ask for tokens anew, whatever came last."""
        if self._login is not None:
            self._login.forget()

    async def aclose(self) -> None:
        self._idle.retire_all()
        if self._login is not None:
            await self._login.aclose()

    async def _deliver(self, envelope: Envelope, raw: bytes, mailbox: str, call: Call) -> dict[str, Outcome]:
        """One transaction, in the turn of this mailbox."""
        if self._mailboxes is None:
            return await self._in_turn(envelope, raw, mailbox, call)
        async with self._mailboxes.turn(mailbox, size=len(raw)):
            outcomes = await self._in_turn(envelope, raw, mailbox, call)
        return {address: self._mailboxes.judged(mailbox, outcome) for address, outcome in outcomes.items()}

    async def _in_turn(self, envelope: Envelope, raw: bytes, mailbox: str, call: Call) -> dict[str, Outcome]:
        """Whom the transaction has no room for is not among the outcomes, and goes in the next."""
        some = envelope
        if len(call.addresses) < len(envelope.recipients):
            named = tuple(one for one in envelope.recipients if one.address in call.addresses)
            some = replace(envelope, recipients=named)
        outcomes: dict[str, Outcome] = {}
        try:
            await self._connected(some, raw, mailbox, outcomes)
        except NoAnswer as error:
            return dict.fromkeys(call.addresses, error.outcome) | outcomes
        return outcomes

    async def _connected(self, envelope: Envelope, raw: bytes, mailbox: str, outcomes: dict[str, Outcome]) -> None:
        """Raises NoAnswer, for whoever has no outcome."""
        if (connection := self._idle.take(mailbox.lower())) is not None:
            try:
                await self._transact(connection, envelope, raw, mailbox, outcomes)
                return
            except NoAnswer as error:
                if connection.alive or error.outcome.verdict is Verdict.IN_DOUBT:
                    raise
                outcomes.clear()  # it was given up while it was kept, or dies of old age; nothing has been taken
        await self._transact(await self._opener.open(mailbox), envelope, raw, mailbox, outcomes)

    async def _transact(
        self, connection: Connection, envelope: Envelope, raw: bytes, mailbox: str, outcomes: dict[str, Outcome]
    ) -> None:
        """Raises NoAnswer, for whoever has no outcome."""
        try:
            fit, note = await fitted(connection, envelope, raw)
            named = await open_transaction(connection, envelope, fit)
            if accepted := await name_recipients(connection, named, outcomes, self._most.learn):
                outcome = await send_message(connection, fit, note)
                if outcome.scope is Scope.RECIPIENT and len(accepted) > 1:  # too many, told at the end
                    self._most.learn(len(accepted) // 2)
                else:
                    outcomes |= dict.fromkeys(accepted, outcome)
        finally:
            await connection.catch_up()
            if connection.alive:
                self._idle.keep(mailbox.lower(), connection, IDLE)


def _able(settings: SmtpSettings) -> Capabilities:
    """Whoever logs in as a mailbox sends as that, or as whom the settings allow."""
    if settings.tokens is None:
        return Capabilities(UNBOUNDED)
    fixed = () if settings.mailbox in ("sender", "me", None) else (settings.mailbox,)
    return Capabilities(UNBOUNDED, null_sender=False, senders=settings.senders or fixed)


def _mailboxes(settings: SmtpSettings, clock: Clock) -> Mailboxes | None:
    """None where nothing is counted: a server of one's own takes what it takes."""
    rate, at_once = settings.mailbox_rate, settings.mailbox_concurrency
    if settings.tokens is None and rate is None and at_once is None:
        return None
    return Mailboxes(
        clock,
        many=settings.mailbox == "sender",
        in_flight=at_once or settings.concurrency,
        calls=lambda: Budget(rate.count, rate.period.total_seconds()) if rate else Budget(float("inf"), 60),
        bytes_=lambda: Budget(float("inf"), 60),
        own_tokens=True,
    )


def _noted(outcomes: dict[str, Outcome], note: str) -> dict[str, Outcome]:
    return {address: replace(one, detail=one.detail + note) for address, one in outcomes.items()}
