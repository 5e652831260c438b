"""Backend ``smtp``: an upstream SMTP server (smarthost). The only importer of aiosmtplib.

aiosmtplib connects, does TLS and AUTH, and reads replies. MAIL, RCPT and DATA are written here, because its own methods
rewrite odd addresses and pass twice over every body.
"""

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

from gateway.backends.shared.base import UNBOUNDED, Context, aside, canonical, limited, safe
from gateway.backends.smtp import authorities
from gateway.backends.smtp.replies import parameters, path, refusal, spellings, wire
from gateway.config.finding import Examined
from gateway.config.models import BackendSettings
from gateway.model import Capabilities, Check, Envelope, Outcome, SpooledMessage, Verdict
from gateway.url import is_loopback

_PORTS = {"none": 25, "starttls": 587, "implicit": 465}
_IDLE = 30.0  # seconds that a connection is kept for the next message
_END_OF_DATA = 600.0  # RFC 5321, 4.5.3.2.6: the reply to the final dot may take ten minutes
_QUEUED_AS = re.compile(r"(?:queued as|\bid=)\s*<?([\w.@-]{1,200})", re.IGNORECASE)
_BROKEN = (aiosmtplib.SMTPException, OSError)  # lost, timed out, unintelligible


def _host(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"[^\s/:]+", text):
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
        if self.ca_file is not None:
            yield from authorities.examine(("ca_file",), self.ca_file, used=self.tls != "none")


class _Stop(Exception):
    """The conversation ends here; ``outcome`` is for every recipient that has none yet."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class _Line:
    """One connection, in step with its server: every command has had its reply, or the connection is closed."""

    def __init__(self, client: aiosmtplib.SMTP, seconds: float) -> None:
        self.client = client
        self.offers = client.supports_extension
        self.fresh = True
        self.clean = True  # no transaction is open
        self._seconds = seconds

    @property
    def alive(self) -> bool:
        return self.client.is_connected

    async def say(self, *words: bytes) -> aiosmtplib.SMTPResponse:
        """A command and its reply. _Stop: no usable reply (451, 4.4.2), or 421."""
        try:
            reply = await self.client.execute_command(*words, timeout=self._seconds)
        except BaseException as error:
            self.client.close()
            if isinstance(error, _BROKEN):
                raise _lost(f"no usable reply to {words[0].decode()}: {error}") from error
            raise
        if reply.code == 421:
            raise _Stop(refusal(*reply))
        return reply

    async def transfer(self, raw: bytes) -> aiosmtplib.SMTPResponse:
        """The body and the reply to its final dot. _Stop: broken; in doubt only once the dot has been written."""
        if (protocol := self.client.protocol) is None:
            raise _lost("connection lost before the message")
        # Listening before the first byte: a server may refuse half-way, and hang up.
        listening = asyncio.ensure_future(protocol.read_response())
        written = False
        try:
            for piece, last in wire(raw):
                try:
                    protocol.write(piece)
                    written = last
                    async with asyncio.timeout(self._seconds):
                        await protocol._drain_helper()  # what asyncio.StreamWriter.drain calls
                except _BROKEN:
                    await asyncio.wait((listening,), timeout=1)
                    if not listening.done():
                        raise
                if listening.done():
                    break
            async with asyncio.timeout(max(_END_OF_DATA, self._seconds)):
                reply = await listening
            if not written and reply.code < 400:
                raise aiosmtplib.SMTPException(f"{reply.code} came too early")
        except BaseException as error:
            self.client.close()
            if isinstance(error, _BROKEN):
                where = "after" if written else "before"
                detail = f"no usable reply {where} the end of the message: {str(error) or 'timed out'}"
                raise _lost(detail, in_doubt=written) from error
            raise
        finally:
            listening.cancel()
        if not written or reply.code == 421:
            self.client.close()
        return reply

    def bid_farewell(self) -> None:
        """Says QUIT without waiting for the reply, and closes."""
        if self.alive and self.client.protocol is not None:
            self.client.protocol.write(b"QUIT\r\n")
        self.client.close()


class Smtp:
    """Hands messages to one upstream server, over connections that are kept for a while."""

    def __init__(self, name: str, settings: SmtpSettings, context: Context) -> None:
        self.name = name
        self.capabilities = limited(Capabilities(UNBOUNDED), settings)
        self._settings = settings
        self._clock = context.clock
        self._hostname = settings.local_hostname or context.hostname
        self._port = settings.port or _PORTS[settings.tls]
        self._where = f"{settings.host}:{self._port}"
        self._username = settings.username or ""
        self._password = settings.password.get_secret_value() if settings.password else ""
        self._trust = None if settings.tls == "none" else ssl.create_default_context(cafile=settings.ca_file)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._idle: dict[_Line, asyncio.TimerHandle] = {}

    async def send(self, message: SpooledMessage, raw: bytes) -> dict[str, Outcome]:
        raw = await aside(len(raw), lambda: canonical(raw))
        outcomes: dict[str, Outcome] = {}
        async with self._slots:
            try:
                await self._deliver(message.envelope, raw, outcomes)
            except _Stop as stop:
                for recipient in message.envelope.recipients:
                    outcomes.setdefault(recipient.address, stop.outcome)
        return outcomes

    async def check(self) -> Check:
        """Connects, does TLS and AUTH as for a message, and says goodbye."""
        try:
            line = await self._connect()
        except _Stop as stop:
            ours = stop.outcome.verdict is Verdict.MISCONFIGURED
            fix = "check tls, ca_file, username and password" if ours else "check host and port, and the way there"
            return Check(False, stop.outcome.detail, fix, {"server": self._where})
        facts = {"server": self._where, "extensions": " ".join(sorted(line.client.esmtp_extensions)).upper()}
        if tls := line.client.get_transport_info("ssl_object"):
            ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
            days = (ends - self._clock.now()) // timedelta(days=1)
            facts |= {"tls": tls.version(), "certificate_expires": f"{ends:%Y-%m-%d} (in {days} days)"}
        line.bid_farewell()
        return Check(True, f"{self._where} is ready" + (", login accepted" if self._username else ""), facts=facts)

    async def aclose(self) -> None:
        for line in list(self._idle):
            self._retire(line)

    async def _deliver(self, envelope: Envelope, raw: bytes, outcomes: dict[str, Outcome]) -> None:
        line = self._kept() or await self._connect()
        try:
            try:
                await _mail(line, envelope, raw)
            except _Stop:
                if line.fresh or line.alive:
                    raise
                line = await self._connect()  # it had died while it was kept; nothing was accepted yet
                await _mail(line, envelope, raw)
            if accepted := await _recipients(line, envelope, outcomes):
                outcomes |= dict.fromkeys(accepted, await _data(line, raw))
        finally:
            if line.alive:
                line.fresh = False
                self._idle[line] = asyncio.get_running_loop().call_later(_IDLE, self._retire, line)

    def _kept(self) -> _Line | None:
        while self._idle:
            line, timer = self._idle.popitem()
            timer.cancel()
            if line.alive:
                return line
        return None

    def _retire(self, line: _Line) -> None:
        self._idle.pop(line).cancel()
        line.bid_farewell()

    async def _connect(self) -> _Line:
        """A connection ready for MAIL. _Stop: the outcome blames the backend as a whole, never the message."""
        settings, seconds = self._settings, self._settings.timeout.total_seconds()
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=self._port,
            local_hostname=self._hostname,
            timeout=seconds,
            use_tls=settings.tls == "implicit",
            start_tls=False,
            tls_context=self._trust,
        )
        try:
            await client.connect()
            try:
                await client.ehlo()
            except aiosmtplib.SMTPHeloError:
                if not client.is_connected:
                    raise
                await client.helo()
            if settings.tls == "starttls":
                if not client.supports_extension("starttls"):
                    raise _never(Verdict.MISCONFIGURED, "4.7.4", f"{self._where} offers no STARTTLS; nothing was sent")
                await client.starttls()
                await client.ehlo()
            if settings.username is not None:
                await self._login(client)
        except BaseException as error:
            client.close()
            if isinstance(error, _BROKEN):
                raise _Stop(self._failure(error)) from error
            raise
        return _Line(client, seconds)

    async def _login(self, client: aiosmtplib.SMTP) -> None:
        wanted = ("plain", "login") if self._settings.auth == "auto" else (self._settings.auth,)
        offered = client.server_auth_methods
        if "plain" in wanted and "plain" in offered:
            await client.auth_plain(self._username, self._password)
        elif "login" in wanted and "login" in offered:
            await client.auth_login(self._username, self._password)
        else:
            detail = f"{self._where} offers no AUTH {' or '.join(wanted)} (but: {' '.join(offered) or 'none'})"
            raise _never(Verdict.MISCONFIGURED, "4.7.4", safe(detail))

    def _failure(self, error: BaseException) -> Outcome:
        if isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= 400:
            ours = error.code >= 500 or error.code == 432  # 432 4.7.12: the password must be changed first
            outcome = refusal(error.code, error.message, *spellings(self._username, self._password))
            return replace(outcome, verdict=Verdict.MISCONFIGURED if ours else Verdict.THROTTLED)
        link: BaseException | None = error
        while link is not None:
            if isinstance(link, ssl.SSLCertVerificationError):
                detail = f"certificate of {self._where} not trusted: {link.verify_message}"
                return Outcome(Verdict.MISCONFIGURED, None, "4.7.5", detail)
            if isinstance(link, ssl.SSLError):
                return Outcome(Verdict.DEFERRED, None, "4.7.5", f"TLS with {self._where} failed: {link.reason}")
            if isinstance(link, socket.gaierror):
                return Outcome(Verdict.DEFERRED, None, "4.4.3", f"cannot find {self._settings.host}: {link.strerror}")
            if isinstance(link, OSError) and link.errno:
                text = f"cannot connect to {self._where}: {os.strerror(link.errno)}"
                return Outcome(Verdict.DEFERRED, None, "4.4.1", text)
            link = link.__cause__
        return Outcome(Verdict.DEFERRED, None, "4.4.1", safe(f"{self._where}: {error}"))


async def _mail(line: _Line, envelope: Envelope, raw: bytes) -> None:
    """Opens the transaction. _Stop: the message cannot go this way, or the sender is refused."""
    sender = path(envelope.sender)
    if sender is None:
        raise _never(Verdict.REJECTED, "5.1.7", "the sender address cannot be written to the server as it is")
    eightbit = not raw.isascii()
    utf8 = envelope.smtputf8 and eightbit and not raw[: raw.find(b"\r\n\r\n")].isascii()
    if (utf8 or not sender.isascii()) and not line.offers("smtputf8"):
        raise _never(Verdict.REJECTED, "5.6.7", "the server takes no non-ASCII sender or headers (no SMTPUTF8)")
    if eightbit and not line.offers("8bitmime"):
        raise _never(Verdict.REJECTED, "5.6.3", "the message has 8-bit content, the server takes none (no 8BITMIME)")
    utf8 = utf8 or not all(
        address.isascii() for address in (envelope.sender, *(r.address for r in envelope.recipients))
    )
    words = [b"SIZE=%d" % len(raw)] if line.offers("size") else []
    words += [b"BODY=8BITMIME"] if eightbit else []
    words += [b"SMTPUTF8"] if utf8 and line.offers("smtputf8") else []
    words += parameters(RET=envelope.ret, ENVID=envelope.envid) if line.offers("dsn") else []
    if not line.clean:
        await line.say(b"RSET")
    line.clean = False
    reply = await line.say(b"MAIL", b"FROM:" + sender, *words)
    if not 200 <= reply.code < 300:
        raise _Stop(refusal(*reply))


async def _recipients(line: _Line, envelope: Envelope, outcomes: dict[str, Outcome]) -> list[str]:
    """Names every recipient. Returns the accepted ones; the others get their outcome."""
    accepted = []
    for recipient in envelope.recipients:
        address, to = recipient.address, path(recipient.address)
        if to is None:
            detail = "the address cannot be written to the server as it is"
            outcomes[address] = Outcome(Verdict.REJECTED, None, "5.1.3", detail)
        elif not to.isascii() and not line.offers("smtputf8"):
            detail = "the server takes no non-ASCII addresses (no SMTPUTF8)"
            outcomes[address] = Outcome(Verdict.REJECTED, None, "5.6.7", detail)
        else:
            words = parameters(NOTIFY=recipient.notify, ORCPT=recipient.orcpt) if line.offers("dsn") else []
            reply = await line.say(b"RCPT", b"TO:" + to, *words)
            if 200 <= reply.code < 300:
                accepted.append(address)
            else:
                outcomes[address] = refusal(*reply)
    for address, outcome in outcomes.items():
        if accepted and outcome.verdict is Verdict.THROTTLED:  # it takes others: this recipient alone has to wait
            outcomes[address] = replace(outcome, verdict=Verdict.DEFERRED)
    return accepted


async def _data(line: _Line, raw: bytes) -> Outcome:
    reply = await line.say(b"DATA")
    if reply.code != 354:
        if reply.code < 400:  # it has lost its place in the dialogue
            line.client.close()
        return refusal(*reply)
    code, text = await line.transfer(raw)
    if not 200 <= code < 300:
        return refusal(code, text)
    line.clean = True
    queued = _QUEUED_AS.search(text)
    remote_id = queued[1] if queued else ""
    return Outcome(
        Verdict.SENT, code, "2.0.0", safe(f"{code} {text}"), remote_id, dsn=line.offers("dsn"), said_by="smtp"
    )


def _lost(detail: str, *, in_doubt: bool = False) -> _Stop:
    """No reply: a code of our own unless in doubt, since the server itself was reached."""
    verdict = Verdict.IN_DOUBT if in_doubt else Verdict.DEFERRED
    return _Stop(Outcome(verdict, None if in_doubt else 451, "4.4.2", safe(detail)))


def _never(verdict: Verdict, enhanced: str, detail: str) -> _Stop:
    return _Stop(Outcome(verdict, None, enhanced, detail))
