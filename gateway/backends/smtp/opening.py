"""From nothing to a connection that is ready for MAIL: aiosmtplib connects and does TLS, and reads replies."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace

import aiosmtplib

from gateway.backends.shared.base import Context, NoAnswer, away, refused, safe, tells_of_trust
from gateway.backends.shared.logins import TokenLogin
from gateway.backends.shared.recent import Recent
from gateway.backends.shared.table import Row
from gateway.backends.smtp.connection import BROKEN, Connection
from gateway.backends.smtp.logins import Again, Credential, Logins, MailboxToken, Password, TokenFile
from gateway.backends.smtp.replies import refusal
from gateway.backends.smtp.settings import SmtpSettings
from gateway.model import Scope, Verdict
from gateway.trust import time_fix

# What to do about a refusal, by what was refused; {name} is the backend's.
_FIXES = {
    "greeting": "check host and port, and ask the server's operator whether this machine's address is refused there",
    "EHLO": "set backends.{name}.local_hostname to the name by which the world knows this machine, in place of {ehlo}",
    "STARTTLS": "check host, port and tls of backends.{name}",
    "AUTH": "check username and password of backends.{name}, and auth",
}
_USERS = 1000  # whose logins are remembered
_NO_EHLO = (500, 502, 504)  # it does not know the command (RFC 5321, 4.2.2); others do not take the name in it
_SILENT = "ask its operator why it says nothing, and see what stands between (a firewall that looks into SMTP)"
_NAME = "check host of backends.{name}, and whether this machine's name server knows it: getent ahosts {host}"
_ROUTE = "check host and port of backends.{name}, and the firewall on the way: nc -vz {host} {port}"
_CERTIFICATE = "check host and server_name, and set ca_file where its certificate is of an authority of your own"


class Opener:
    """Opens connections for one backend. Whatever goes wrong here is about the backend, and no message's fault."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context, tokens: TokenLogin | None = None) -> None:
        self._name = name
        self._tokens = tokens
        self._settings = settings
        self._names = context.names
        self._hostname = settings.local_hostname or context.hostname
        self._where = settings.where
        self._logins: Recent[str, Logins] = Recent(_USERS)
        self._trust = None
        if settings.tls != "none":
            self._trust = settings.trust(tells_of_trust(context.signals, name))
            self._trust.load()

    async def open(self, mailbox: str = "") -> Connection:
        """A connection ready for MAIL, logged in as ``mailbox`` where that is done by tokens of its provider.

        Raises NoAnswer, which blames the backend as a whole and never the message.
        """
        try:
            return await self._open(mailbox)
        except Again:
            pass
        try:
            return await self._open(mailbox)
        except Again as error:
            raise away(f"{self._where}: {error} (at AUTH)", _SILENT, "4.4.2") from None

    def _login_of(self, mailbox: str) -> Logins:
        if found := self._logins.get(mailbox.lower()):
            return found
        settings = self._settings
        credential: Credential = Password(settings)
        if self._tokens is not None:
            credential = MailboxToken(mailbox, self._tokens)
        elif settings.token_file is not None:
            credential = TokenFile(self._name, settings)
        return self._logins.put(mailbox.lower(), Logins(self._name, settings, credential))

    async def _open(self, mailbox: str) -> Connection:
        """Raises NoAnswer, Again."""
        settings, seconds = self._settings, self._settings.timeout.total_seconds()
        logins = self._login_of(mailbox)
        if self._tokens is not None:
            await self._tokens.token(mailbox)  # before the server has to wait for it
        step, failed = "greeting", logins.failed
        client = aiosmtplib.SMTP(
            hostname=settings.server_name or settings.host,  # the name that TLS asks for
            local_hostname=self._hostname,
            timeout=seconds,
            use_tls=settings.tls == "implicit",
            start_tls=False,
            tls_context=await self._trust.current() if self._trust else None,
        )
        try:
            await client.connect(sock=await self._names.connect(settings.host, settings.actual_port, seconds=seconds))
            step = "EHLO"
            await self._greet(client)
            if settings.tls == "starttls":
                step = "STARTTLS"
                if not client.supports_extension("starttls"):
                    text = f"{self._where} offers no STARTTLS; nothing was sent"
                    raise refused(text, self._fix(step), "4.7.4")
                await client.starttls()
                step = "EHLO"
                await self._greet(client)
            if settings.logs_in:
                step = "AUTH"
                await logins.log_in(client, failed)
            return Connection(self._known(mailbox), client, seconds)
        except BaseException as error:
            client.close()
            if isinstance(error, BROKEN):
                raise self._failure(error, step, mailbox) from error
            raise

    async def _greet(self, client: aiosmtplib.SMTP) -> None:
        """EHLO; HELO where that is refused and neither TLS nor a log-in is needed, of which HELO tells nothing.

        Raises NoAnswer, SMTPHeloError with the reply to EHLO, and what a lost connection does.
        """
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError as error:
            if error.code < 500 or not client.is_connected:
                raise
            if self._settings.tls != "starttls" and not self._settings.logs_in:
                try:
                    await client.helo()
                except aiosmtplib.SMTPHeloError:
                    raise error from None
            elif error.code in _NO_EHLO:
                text = f"{self._where} knows no EHLO, so neither STARTTLS nor AUTH: {error.code} {error.message}"
                raise refused(text, self._fix("STARTTLS"), "4.7.4") from None
            else:
                raise

    def _fix(self, step: str) -> str:
        return _FIXES[step].format(name=self._name, ehlo=self._hostname)

    def _way(self, fix: str) -> str:
        return fix.format(name=self._name, host=self._settings.host, port=self._settings.actual_port)

    def _known(self, mailbox: str) -> dict[str, str]:
        return {"name": self._name, "mailbox": mailbox or self._settings.username or "MAILBOX"}

    def _failure(self, error: BaseException | None, step: str, mailbox: str) -> NoAnswer:
        """What went wrong before there was a transaction: that is the backend's, never a message's."""
        secrets = self._login_of(mailbox).secrets()
        if isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= 400:
            rows: tuple[Row, ...] = ()
            known = self._known(mailbox)
            if self._tokens is not None and step == "AUTH":
                rows, known = tuple(self._tokens.rows), {**self._tokens.known, **known}
            outcome = refusal(known, error.code, error.message, *secrets, rows=rows)
            # 432 4.7.12: the password must be changed first. With 4.3.2 it is Exchange's limit of sessions.
            ours = error.code >= 500 or (error.code == 432 and outcome.verdict is not Verdict.THROTTLED)
            own = outcome.fix if step == "AUTH" else ""  # what is known of such a reply says more than the step
            verdict, fix = (Verdict.MISCONFIGURED, own or self._fix(step)) if ours else (Verdict.THROTTLED, outcome.fix)
            return NoAnswer(replace(outcome, verdict=verdict, scope=Scope.BACKEND, fix=fix))
        text = str(error).replace(" on port None", "")  # aiosmtplib was given a connection
        if isinstance(error, aiosmtplib.SMTPResponseException):
            text = safe(f"unexpected reply: {error.code} {error.message}", *secrets)
        silent = isinstance(error, aiosmtplib.SMTPTimeoutError)
        while error is not None:
            if isinstance(error, ssl.SSLCertVerificationError):
                detail = f"certificate of {self._where} not trusted: {error.verify_message}"
                # No word of theirs against us, and it may pass: a portal, a clock that is not set yet.
                return away(detail, time_fix(error) or _CERTIFICATE, "4.7.5")
            if isinstance(error, ssl.SSLError):
                return away(f"TLS with {self._where} failed: {error.reason}", self._fix("STARTTLS"), "4.7.5")
            if isinstance(error, socket.gaierror):
                return away(error.strerror or "", self._way(_NAME), "4.4.3")
            if isinstance(error, OSError) and error.errno:
                return away(f"cannot connect to {self._where}: {os.strerror(error.errno)}", self._way(_ROUTE))
            error = error.__cause__
        greeted, fix = step != "greeting", _SILENT if silent else self._fix(step)
        detail = f"{self._where}: {text}" + (f" (at {step})" if greeted else "")
        return away(detail, fix if greeted else self._way(_ROUTE), "4.4.2" if greeted else "4.4.1")
