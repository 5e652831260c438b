"""A short conversation with a listener of this machine, as a stranger would have it."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from contextlib import suppress
from dataclasses import dataclass

from gateway.config.models import ListenerSettings
from gateway.networks import prefix_length
from gateway.proxyprotocol import LOCAL
from gateway.trust import VERSIONS

STEP = 5.0  # seconds for a connection, a handshake or a reply
_LONGEST = 100  # lines of a reply


class NoSmtp(Exception):
    """Somebody answers who does not speak SMTP, or no more. The text may be shown."""


@dataclass(frozen=True, slots=True)
class Reply:
    """RFC 5321, 4.2."""

    code: int
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    def __str__(self) -> str:
        return f"{self.code} {self.lines[0]}"


def any_tls(version: str = "") -> ssl.SSLContext:
    """Takes every certificate: it is looked at elsewhere. ``version``: this one alone, as old as it may be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = VERSIONS[version]
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


class Talk:
    """A connection that has been greeted. What is asked of it raises NoSmtp, and OSError: lost, or silent too long."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.greeting = Reply(0, ("",))

    @classmethod
    async def open(
        cls, host: str, port: int, section: ListenerSettings, *, tls: ssl.SSLContext | None = None, source: str = ""
    ) -> Talk:
        """From the address ``source``, "" for any; TLS by ``tls``, or any, where ``section`` begins with that.

        Who connects to an address of this machine comes from that address. Where it is one of a load balancer's, this
        speaks as one does that looks whether we are here.
        """
        local = (source, 0) if source else None
        async with asyncio.timeout(STEP):
            reader, writer = await asyncio.open_connection(host, port, local_addr=local)
            talk = cls(reader, writer)
            try:
                if prefix_length(section.proxy_protocol_from, source or host) >= 0:
                    writer.write(LOCAL)
                if section.tls == "implicit":
                    await writer.start_tls(tls or any_tls())
            except BaseException:
                talk.close()
                raise
        try:
            talk.greeting = await talk._reply()
        except BaseException:
            talk.close()
            raise
        return talk

    async def say(self, line: str) -> Reply:
        self._writer.write(line.encode() + b"\r\n")
        async with asyncio.timeout(STEP):
            await self._writer.drain()
        return await self._reply()

    async def secure(self, context: ssl.SSLContext) -> None:
        """STARTTLS, and the handshake. Raises ssl.SSLError, which is an OSError, for one that fails."""
        reply = await self.say("STARTTLS")
        if not reply.ok:
            raise NoSmtp(f"no TLS: {reply}")
        async with asyncio.timeout(STEP):
            await self._writer.start_tls(context)

    @property
    def tls(self) -> str:
        """The version of TLS in use, "" for none."""
        inside = self._writer.get_extra_info("ssl_object")
        return str(inside.version() or "") if inside else ""

    async def _reply(self) -> Reply:
        lines: list[str] = []
        try:
            async with asyncio.timeout(STEP):
                while len(lines) < _LONGEST:
                    line = (await self._reader.readuntil(b"\n")).decode("latin-1").rstrip("\r\n")
                    if not line[:3].isdigit():
                        raise NoSmtp(f"it says {line[:60]!r}, which is not SMTP")
                    lines.append(line[4:])
                    if line[3:4] != "-":
                        return Reply(int(line[:3]), tuple(lines))
        except asyncio.IncompleteReadError as error:
            raise NoSmtp("it hung up" + (f" after {error.partial[:60]!r}" if error.partial else "")) from None
        except asyncio.LimitOverrunError:
            raise NoSmtp("it sends lines without an end") from None
        raise NoSmtp("its reply has no end")

    async def goodbye(self) -> None:
        """QUIT, and the end of the connection, whatever becomes of that."""
        with suppress(OSError, NoSmtp):
            await self.say("QUIT")
        self.close()

    def close(self) -> None:
        with suppress(OSError, RuntimeError):
            self._writer.close()


def why(error: BaseException) -> str:
    """What kept a conversation from going on, in words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {STEP:g} s"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
