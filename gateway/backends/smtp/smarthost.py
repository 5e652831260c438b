"""Backend ``smtp``: an upstream SMTP server (smarthost)."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from gateway.backends.shared.base import UNBOUNDED, Context, NoAnswer, aside, canonical, limited, unrecorded
from gateway.backends.shared.calls import Call, Plan, carry_out
from gateway.backends.shared.most import Most
from gateway.backends.smtp.connection import Connection, name_recipients, open_transaction, send_message
from gateway.backends.smtp.fitting import fitted
from gateway.backends.smtp.opening import Opener
from gateway.backends.smtp.probes import SmtpProbes
from gateway.backends.smtp.settings import SmtpSettings
from gateway.checks import Check, Step, good, untried, wrong
from gateway.model import Capabilities, Envelope, Outcome, Progress, Scope, SpooledMessage, Verdict

__all__ = ["Smtp", "SmtpSettings"]

IDLE = 30.0  # seconds that a connection is kept for the next message

_UNTRIED = untried("Whether it takes mail from your senders, and to anywhere")


class Smtp:
    """Hands messages to one upstream server, over connections that are kept for a while."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self.name = name
        self.capabilities = limited(Capabilities(UNBOUNDED), settings)
        self._clock = context.clock
        self._settings, self._names = settings, context.names
        self._where = settings.where
        self._logs_in = settings.username is not None
        self._opener = Opener(name, settings, context)
        self._most = Most(settings.max_recipients, name, context)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._idle: dict[Connection, asyncio.TimerHandle] = {}

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        raw = await aside(len(raw), lambda: canonical(raw))
        everyone = tuple(recipient.address for recipient in message.envelope.recipients)
        make = partial(self._deliver, message.envelope, raw)
        async with self._slots:
            return await carry_out(message, lambda: Plan(self._calls(everyone)), make, self._clock, progress)

    def _calls(self, some: tuple[str, ...]) -> tuple[Call, ...]:
        """A transaction for as many as the server takes in one."""
        most = self._most.now()
        chunks = (some[start : start + most] for start in range(0, len(some), most))
        return tuple(Call(chunk, bytes, part=self._calls) for chunk in chunks)

    async def check(self) -> Check:
        """Connects, does TLS and AUTH as for a message, and says goodbye."""
        try:
            connection = await self._opener.open()
        except NoAnswer as error:
            outcome, fix = error.outcome, error.outcome.fix or "check host and port, and the way there"
            return Check(False, outcome.detail, fix, {"server": self._where}, self._failed(outcome))
        facts = {"server": self._where, "extensions": " ".join(sorted(connection.client.esmtp_extensions)).upper()}
        if tls := connection.client.get_transport_info("ssl_object"):
            ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
            days = (ends - self._clock.now()) // timedelta(days=1)
            facts |= {"tls": tls.version(), "certificate_expires": f"{ends:%Y-%m-%d} (in {days} days)"}
        steps = [good(f"{self._where} is reached.")]
        steps += [good(f"{tls.version()}: its certificate is good until {ends:%Y-%m-%d}.")] if tls else []
        steps += [good("The login is accepted.")] if self._logs_in else []
        connection.bid_farewell()
        summary = f"{self._where} is ready" + (", login accepted" if self._logs_in else "")
        return Check(True, summary, facts=facts, steps=(*steps, _UNTRIED))

    def _failed(self, outcome: Outcome) -> tuple[Step, ...]:
        """What came before the step that failed, as far as its outcome tells."""
        if outcome.enhanced in ("4.7.4", "4.7.5"):
            failing = "TLS with it, or a login over it, is not possible."
        elif outcome.said_by == "smtp":
            failing = "It does not accept us."
        else:
            return wrong(f"{self._where} is not reached.", outcome.detail), _UNTRIED
        return good(f"{self._where} is reached."), wrong(failing, outcome.detail), _UNTRIED

    def probes(self) -> SmtpProbes:
        settings = self._settings
        return SmtpProbes(
            name=self.name,
            host=settings.host,
            tls=settings.tls,
            max_size=settings.max_size,
            open=self._opener.open,
            names=self._names,
        )

    async def aclose(self) -> None:
        for connection in list(self._idle):
            self._retire(connection)

    async def _deliver(self, envelope: Envelope, raw: bytes, call: Call) -> dict[str, Outcome]:
        """One transaction. Whom it has no room for is not among the outcomes, and goes in the next."""
        some = envelope
        if len(call.addresses) < len(envelope.recipients):
            named = tuple(one for one in envelope.recipients if one.address in call.addresses)
            some = replace(envelope, recipients=named)
        outcomes: dict[str, Outcome] = {}
        try:
            await self._connected(some, raw, outcomes)
        except NoAnswer as error:
            return dict.fromkeys(call.addresses, error.outcome) | outcomes
        return outcomes

    async def _connected(self, envelope: Envelope, raw: bytes, outcomes: dict[str, Outcome]) -> None:
        """Raises NoAnswer, for whoever has no outcome."""
        if (connection := self._kept()) is not None:
            try:
                await self._transact(connection, envelope, raw, outcomes)
                return
            except NoAnswer as error:
                if connection.alive or error.outcome.verdict is Verdict.IN_DOUBT:
                    raise
                outcomes.clear()  # it was given up while it was kept, or dies of old age; nothing has been taken
        await self._transact(await self._opener.open(), envelope, raw, outcomes)

    async def _transact(
        self, connection: Connection, envelope: Envelope, raw: bytes, outcomes: dict[str, Outcome]
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
                self._idle[connection] = asyncio.get_running_loop().call_later(IDLE, self._retire, connection)

    def _kept(self) -> Connection | None:
        while self._idle:
            connection, timer = self._idle.popitem()
            timer.cancel()
            if connection.alive:
                return connection
        return None

    def _retire(self, connection: Connection) -> None:
        self._idle.pop(connection).cancel()
        connection.bid_farewell()
