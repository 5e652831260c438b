"""From nothing to a connection that is ready for MAIL: aiosmtplib connects and does TLS, and reads replies."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace

import aiosmtplib

from gateway.backends.shared.base import Context, NoAnswer, away, refused, safe, tells_of_trust
from gateway.backends.smtp.auth import Logins
from gateway.backends.smtp.connection import BROKEN, Connection
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
_NO_EHLO = (500, 502, 504)  # it does not know the command (RFC 5321, 4.2.2); others do not take the name in it
_SILENT = "ask its operator why it says nothing, and see what stands between (a firewall that looks into SMTP)"
_NAME = "check host of backends.{name}, and whether this machine's name server knows it: getent ahosts {host}"
_ROUTE = "check host and port of backends.{name}, and the firewall on the way: nc -vz {host} {port}"
_CERTIFICATE = "check host and server_name, and set ca_file where its certificate is of an authority of your own"


class Opener:
    """Opens connections for one backend. Whatever goes wrong here is about the backend, and no message's fault."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self._name = name
        self._settings = settings
        self._names = context.names
        self._hostname = settings.local_hostname or context.hostname
        self._where = settings.where
        self._logins = Logins(name, settings)
        self._trust = None
        if settings.tls != "none":
            self._trust = settings.trust(tells_of_trust(context.signals, name))
            self._trust.load()

    async def open(self) -> Connection:
        """A connection ready for MAIL. Raises NoAnswer, which blames the backend as a whole and never the message."""
        settings, seconds = self._settings, self._settings.timeout.total_seconds()
        step, failed = "greeting", self._logins.failed
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
            if settings.username is not None:
                step = "AUTH"
                await self._logins.log_in(client, failed)
            return Connection(self._name, client, seconds)
        except BaseException as error:
            client.close()
            if isinstance(error, BROKEN):
                raise self._failure(error, step) from error
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
            if self._settings.tls != "starttls" and self._settings.username is None:
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

    def _failure(self, error: BaseException | None, step: str) -> NoAnswer:
        """What went wrong before there was a transaction: that is the backend's, never a message's."""
        if isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= 400:
            outcome = refusal(self._name, error.code, error.message, *self._logins.secrets())
            # 432 4.7.12: the password must be changed first. With 4.3.2 it is Exchange's limit of sessions.
            ours = error.code >= 500 or (error.code == 432 and outcome.verdict is not Verdict.THROTTLED)
            own = outcome.fix if step == "AUTH" else ""  # what is known of such a reply says more than the step
            verdict, fix = (Verdict.MISCONFIGURED, own or self._fix(step)) if ours else (Verdict.THROTTLED, "")
            return NoAnswer(replace(outcome, verdict=verdict, scope=Scope.BACKEND, fix=fix))
        text = str(error).replace(" on port None", "")  # aiosmtplib was given a connection
        if isinstance(error, aiosmtplib.SMTPResponseException):
            text = safe(f"unexpected reply: {error.code} {error.message}", *self._logins.secrets())
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
