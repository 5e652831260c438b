"""Backend ``smtp``: an upstream SMTP server (smarthost)."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

from gateway.backends.shared.base import UNBOUNDED, Context, NoAnswer, aside, canonical, limited, unrecorded
from gateway.backends.smtp.connection import Connection, name_recipients, open_transaction, send_message
from gateway.backends.smtp.opening import Opener
from gateway.backends.smtp.settings import SmtpSettings
from gateway.model import Capabilities, Check, Envelope, Outcome, Progress, SpooledMessage, Verdict

__all__ = ["Smtp", "SmtpSettings"]

IDLE = 30.0  # seconds that a connection is kept for the next message


class Smtp:
    """Hands messages to one upstream server, over connections that are kept for a while."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self.name = name
        self.capabilities = limited(Capabilities(UNBOUNDED), settings)
        self._clock = context.clock
        self._where = settings.where
        self._logs_in = settings.username is not None
        self._opener = Opener(name, settings, context)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._idle: dict[Connection, asyncio.TimerHandle] = {}

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        raw = await aside(len(raw), lambda: canonical(raw))
        outcomes: dict[str, Outcome] = {}
        async with self._slots:
            try:
                await self._deliver(message.envelope, raw, outcomes)
            except NoAnswer as error:
                for recipient in message.envelope.recipients:
                    outcomes.setdefault(recipient.address, error.outcome)
        return outcomes

    async def check(self) -> Check:
        """Connects, does TLS and AUTH as for a message, and says goodbye."""
        try:
            connection = await self._opener.open()
        except NoAnswer as error:
            fix = error.outcome.fix or "check host and port, and the way there"
            return Check(False, error.outcome.detail, fix, {"server": self._where})
        facts = {"server": self._where, "extensions": " ".join(sorted(connection.client.esmtp_extensions)).upper()}
        if tls := connection.client.get_transport_info("ssl_object"):
            ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
            days = (ends - self._clock.now()) // timedelta(days=1)
            facts |= {"tls": tls.version(), "certificate_expires": f"{ends:%Y-%m-%d} (in {days} days)"}
        connection.bid_farewell()
        return Check(True, f"{self._where} is ready" + (", login accepted" if self._logs_in else ""), facts=facts)

    async def aclose(self) -> None:
        for connection in list(self._idle):
            self._retire(connection)

    async def _deliver(self, envelope: Envelope, raw: bytes, outcomes: dict[str, Outcome]) -> None:
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
            await open_transaction(connection, envelope, raw)
            if accepted := await name_recipients(connection, envelope, outcomes):
                outcomes |= dict.fromkeys(accepted, await send_message(connection, raw))
        finally:
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
