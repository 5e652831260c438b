"""From nothing to a connection that is ready for MAIL: aiosmtplib connects, does TLS and AUTH, and reads replies."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace

import aiosmtplib

from gateway.backends.shared.base import Context, NoAnswer, away, refused
from gateway.backends.smtp.connection import BROKEN, Connection
from gateway.backends.smtp.replies import refusal, spellings
from gateway.backends.smtp.settings import SmtpSettings
from gateway.model import Scope, Verdict

_CERTIFICATE = "check host, and set ca_file where its certificate is of an authority of your own"
_STARTTLS = "check host, port and tls"
_SETTINGS = "check tls, ca_file, username and password"


class Opener:
    """Opens connections for one backend. Whatever goes wrong here is about the backend, and no message's fault."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self._name = name
        self._settings = settings
        self._names = context.names
        self._hostname = settings.local_hostname or context.hostname
        self._where = settings.where
        self._username = settings.username or ""
        self._password = settings.password.get_secret_value() if settings.password else ""
        self._trust = None if settings.tls == "none" else ssl.create_default_context(cafile=settings.ca_file)

    async def open(self) -> Connection:
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
            await client.connect(sock=await self._names.connect(settings.host, settings.actual_port, seconds=seconds))
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
        return Connection(self._name, client, seconds)

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
            outcome = refusal(self._name, error.code, error.message, *spellings(self._username, self._password))
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
