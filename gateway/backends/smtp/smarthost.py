"""Backend ``smtp``: an upstream SMTP server (smarthost). aiosmtplib connects, does TLS and AUTH, and reads replies."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

import aiosmtplib
from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.backends.shared.base import UNBOUNDED, Context, NoAnswer, aside, away, canonical, limited, refused
from gateway.backends.smtp.connection import BROKEN, Connection, name_recipients, open_transaction, send_message
from gateway.backends.smtp.replies import refusal, spellings
from gateway.config.finding import Ending, Examined, Finding
from gateway.config.models import BackendSettings
from gateway.model import Capabilities, Check, Envelope, Outcome, Scope, SpooledMessage, Verdict
from gateway.pem import complaint
from gateway.url import is_loopback

_PORTS = {"none": 25, "starttls": 587, "implicit": 465}
IDLE = 30.0  # seconds that a connection is kept for the next message
_CERTIFICATE = "check host, and set ca_file where its certificate is of an authority of your own"
_STARTTLS = "check host, port and tls"
_SETTINGS = "check tls, ca_file, username and password"


def _host(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"[^\s/:.]+(\.[^\s/:.]+)*\.?", text):
            raise ValueError("must be a host name or address alone; write the port as port: 587") from None
    return text


class SmtpSettings(BackendSettings):
    """``port`` follows from ``tls`` unless given. ``ca_file``: the certificates to trust instead of the system's."""

    type: Literal["smtp"] = "smtp"
    host: Annotated[str, AfterValidator(_host)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    ca_file: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    auth: Literal["auto", "plain", "login"] = "auto"
    local_hostname: Annotated[str, Field(pattern=r"^[\x21-\x7e]+$")] | None = None

    @model_validator(mode="after")
    def _login_is_safe(self) -> SmtpSettings:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.tls == "none" and not is_loopback(self.host):
            raise ValueError("a password is not sent unencrypted: set tls to starttls or implicit")
        return self

    def examine(self, name: str, state_dir: Path) -> Examined:
        """Whether ``ca_file`` can be trusted from, and until when. Where it is not used it hinders nobody."""
        if (file := self.ca_file) is None:
            return
        keys, used = ("ca_file",), self.tls != "none"
        try:
            trusted = ssl.create_default_context(cafile=file).get_ca_certs()
        except ssl.SSLError:
            yield Finding(keys, f"{file} {complaint(file.read_bytes(), 'certificate')}", fatal=used)
        except OSError as error:
            yield Finding(keys, f"{file}: {error.strerror}", fatal=used)
        else:
            if ends := [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in trusted]:
                yield Ending(keys, "the last certificate in it", datetime.fromtimestamp(max(ends), UTC))


class Smtp:
    """Hands messages to one upstream server, over connections that are kept for a while."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self.name = name
        self.capabilities = limited(Capabilities(UNBOUNDED), settings)
        self._settings = settings
        self._clock = context.clock
        self._names = context.names
        self._hostname = settings.local_hostname or context.hostname
        self._port = settings.port or _PORTS[settings.tls]
        self._where = f"{settings.host}:{self._port}"
        self._username = settings.username or ""
        self._password = settings.password.get_secret_value() if settings.password else ""
        self._trust = None if settings.tls == "none" else ssl.create_default_context(cafile=settings.ca_file)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._idle: dict[Connection, asyncio.TimerHandle] = {}

    async def send(self, message: SpooledMessage, raw: bytes) -> dict[str, Outcome]:
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
            connection = await self._connect()
        except NoAnswer as error:
            fix = error.outcome.fix or "check host and port, and the way there"
            return Check(False, error.outcome.detail, fix, {"server": self._where})
        facts = {"server": self._where, "extensions": " ".join(sorted(connection.client.esmtp_extensions)).upper()}
        if tls := connection.client.get_transport_info("ssl_object"):
            ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
            days = (ends - self._clock.now()) // timedelta(days=1)
            facts |= {"tls": tls.version(), "certificate_expires": f"{ends:%Y-%m-%d} (in {days} days)"}
        connection.bid_farewell()
        return Check(True, f"{self._where} is ready" + (", login accepted" if self._username else ""), facts=facts)

    async def aclose(self) -> None:
        for connection in list(self._idle):
            self._retire(connection)

    async def _deliver(self, envelope: Envelope, raw: bytes, outcomes: dict[str, Outcome]) -> None:
        connection = self._kept() or await self._connect()
        try:
            try:
                await open_transaction(connection, envelope, raw)
            except NoAnswer:
                if connection.fresh or connection.alive:
                    raise
                connection = await self._connect()  # it had died while it was kept; nothing was accepted yet
                await open_transaction(connection, envelope, raw)
            if accepted := await name_recipients(connection, envelope, outcomes):
                outcomes |= dict.fromkeys(accepted, await send_message(connection, raw))
        finally:
            if connection.alive:
                connection.fresh = False
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

    async def _connect(self) -> Connection:
        """A connection ready for MAIL. Raises NoAnswer, which blames the backend as a whole and never the message."""
        settings, seconds = self._settings, self._settings.timeout.total_seconds()
        client = aiosmtplib.SMTP(
            hostname=settings.host,  # the name that TLS asks for
            local_hostname=self._hostname,
            timeout=seconds,
            use_tls=settings.tls == "implicit",
            start_tls=False,
            tls_context=self._trust,
        )
        try:
            await client.connect(sock=await self._names.connect(settings.host, self._port, seconds=seconds))
            try:
                await client.ehlo()
            except aiosmtplib.SMTPHeloError:
                if not client.is_connected:
                    raise
                await client.helo()
            if settings.tls == "starttls":
                if not client.supports_extension("starttls"):
                    raise refused(f"{self._where} offers no STARTTLS; nothing was sent", _STARTTLS, "4.7.4")
                await client.starttls()
                await client.ehlo()
            if settings.username is not None:
                await self._login(client)
        except BaseException as error:
            client.close()
            if isinstance(error, BROKEN):
                raise self._failure(error) from error
            raise
        return Connection(self.name, client, seconds)

    async def _login(self, client: aiosmtplib.SMTP) -> None:
        wanted = ("plain", "login") if self._settings.auth == "auto" else (self._settings.auth,)
        offered = client.server_auth_methods
        if "plain" in wanted and "plain" in offered:
            await client.auth_plain(self._username, self._password)
        elif "login" in wanted and "login" in offered:
            await client.auth_login(self._username, self._password)
        else:
            detail = f"{self._where} offers no AUTH {' or '.join(wanted)} (but: {' '.join(offered) or 'none'})"
            raise refused(detail, "check tls, auth, username and password", "4.7.4")

    def _failure(self, error: BaseException | None) -> NoAnswer:
        """What went wrong before there was a transaction: that is the backend's, never a message's."""
        if isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= 400:
            outcome = refusal(self.name, error.code, error.message, *spellings(self._username, self._password))
            # 432 4.7.12: the password must be changed first. With 4.3.2 it is Exchange's limit of sessions.
            ours = error.code >= 500 or (error.code == 432 and outcome.verdict is not Verdict.THROTTLED)
            verdict, fix = (Verdict.MISCONFIGURED, _SETTINGS) if ours else (Verdict.THROTTLED, "")
            return NoAnswer(replace(outcome, verdict=verdict, scope=Scope.BACKEND, fix=fix))
        text = str(error).replace(" on port None", "")  # aiosmtplib was given a connection
        while error is not None:
            if isinstance(error, ssl.SSLCertVerificationError):
                detail = f"certificate of {self._where} not trusted: {error.verify_message}"
                return refused(detail, _CERTIFICATE, "4.7.5")
            if isinstance(error, ssl.SSLError):
                return away(f"TLS with {self._where} failed: {error.reason}", enhanced="4.7.5")
            if isinstance(error, socket.gaierror):
                return away(error.strerror or "", enhanced="4.4.3")
            if isinstance(error, OSError) and error.errno:
                return away(f"cannot connect to {self._where}: {os.strerror(error.errno)}")
            error = error.__cause__
        return away(f"{self._where}: {text}")
