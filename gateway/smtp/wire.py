"""The connection below the verbs: lines in, replies out, deadlines. Built on aiosmtpd's SMTP."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from math import inf
from typing import Any, Protocol, cast

from aiosmtpd.smtp import SMTP

from gateway.clock import Clock
from gateway.networks import NOBODY, plain_address
from gateway.smtp import replies
from gateway.smtp.commands import LONGEST
from gateway.smtp.handshake import HandshakeError, Spare
from gateway.smtp.incoming import Incoming

logging.getLogger("mail.log").disabled = True  # aiosmtpd's own log quotes what clients send, passwords included

_BUFFER = 65536  # octets read ahead of the commands
_GOODBYE = 10.0  # seconds for the end of TLS
_UNTIMED = 86_400.0  # asyncio would give a handshake 60 seconds; its time is looked at as all the others are


class Speaker(Protocol):
    """Who talks over a wire."""

    def opened(self) -> bool:
        """Somebody has connected; False when he is turned away."""

    def started(self, task: asyncio.Task[None]) -> None:
        """``converse`` runs in this task."""

    def converse(self) -> Coroutine[Any, Any, None]: ...

    def progress(self) -> bool:
        """Do at once what can be done with the input, so that most commands cost no switch to the task.

        Called when there is input and the task is ``parked``; True wakes it.
        """

    def gone(self) -> None:
        """The connection has ended; the wire lets go of its speaker."""


class Wire(SMTP):
    """What a session reads from and writes to.

    The client is waited for since ``began`` and was last heard at ``heard`` (monotonic seconds; began is infinite while
    it waits for us), which are looked at now and then: no timer per command. ``peer`` is an IP address, ``origin`` the
    same where it is known whose connection this is, else NOBODY. ``tls`` is version and cipher. ``closing``: no further
    command is obeyed. ``incoming``: the message that input belongs to. ``lf_only``: no line of this connection ended in
    CR LF so far.
    """

    def __init__(self, speaker: Speaker, clock: Clock, loop: asyncio.AbstractEventLoop, *, implicit_tls: bool) -> None:
        # Not SMTP.__init__: its reflection over methods and hooks costs more than taking in a message. The rest of
        # SMTP that is used, connection_made, needs the protocol below it and three attributes.
        asyncio.StreamReaderProtocol.__init__(self, None, loop=loop)  # type: ignore[arg-type] # None: no StreamReader
        self.loop = loop
        self._original_transport = self.transport = self._handler_coroutine = None
        self.began, self.heard = inf, 0.0
        self.lf_only = True
        self.peer = self.origin = ""
        self.implicit_tls = implicit_tls
        self.tls = ""
        self.closing = self.parked = self.securing = False
        self.incoming: Incoming | None = None
        self._speaker = speaker
        self._clock = clock
        self._link: asyncio.Transport
        self._socket: socket.socket | None = None  # during the handshake of implicit TLS
        self._in = bytearray()
        self._out: list[bytes] = []
        self._too_long = b""  # the beginning of a line that is being skipped
        self._waiter: asyncio.Future[None] | None = None
        self._eof = self._held = self._stuck = False

    def introduce(self, proxy: str, client: str) -> None:
        """Before ``connection_made``: whose connection ``proxy`` hands on; "" where it does not say."""
        self.peer = client or proxy
        self.origin = client or NOBODY

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = cast(asyncio.Transport, transport)
        if self._handler_coroutine is not None:  # again: the handshake of implicit TLS is done
            return
        if not self.peer:
            peer = transport.get_extra_info("peername") or (NOBODY,)  # unknown to uvloop when the peer has gone already
            self.peer = self.origin = str(plain_address(peer[0]))
        if not self._speaker.opened():
            return
        if self.implicit_tls:
            try:
                self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            except OSError:  # no descriptor is left
                self._link.abort()
                return
        super().connection_made(transport)  # starts _handle_client
        assert self._handler_coroutine is not None
        self._speaker.started(self._handler_coroutine)
        if self.implicit_tls:
            # The socket must leave this transport before anything is read: uvloop would read the client's hello
            # before the task runs, and start_tls takes no octets that are here already.
            self._link.set_protocol(asyncio.Protocol())
            self._link.abort()

    def _handle_client(self) -> Coroutine[Any, Any, None]:
        """What aiosmtpd makes the session's task of."""
        return self._speaker.converse()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """aiosmtpd's timer is not used."""

    def data_received(self, data: bytes) -> None:
        if self.incoming is not None and not self.incoming.ended:
            self.heard = self._clock.monotonic()
            data = self.incoming.feed(data)
            if not self.incoming.ended:
                return
        self._in += data
        if not self.parked or self._speaker.progress():
            self._wake()
        if len(self._in) > _BUFFER:
            self._held = True
            self._link.pause_reading()

    def eof_received(self) -> bool:
        """Who only stopped sending still gets the replies; TLS knows no half-closing."""
        self._eof = True
        self._wake()
        return not self.tls

    def connection_lost(self, error: Exception | None) -> None:
        # Not aiosmtpd's: that one cancels the session's task, and with it a commit under way.
        super(SMTP, self).connection_lost(error)
        self._eof = self.closing = True
        self._wake()
        if hasattr(self, "_speaker"):  # a failed handshake says so too
            self._speaker.gone()
            del self._speaker  # the two would keep each other until the next garbage collection

    def pause_writing(self) -> None:
        """Who does not read replies is not read from."""
        self._stuck = True
        self._link.pause_reading()

    def resume_writing(self) -> None:
        self._stuck = False
        self._link.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def ahead(self) -> bool:
        """Whether something has come that nobody has taken yet."""
        return bool(self._in)

    @property
    def idle(self) -> bool:
        """Waiting for a command."""
        return self._waiter is not None and self.incoming is None

    def reply(self, line: bytes) -> None:
        """Replies are collected; they leave in one write before the session waits for more input."""
        self._out.append(line)

    def flush(self) -> None:
        """Send the replies now."""
        if self._out and not self._link.is_closing():
            self._link.write(b"".join(self._out))
        self._out.clear()

    def wait(self) -> None:
        """From now on something is expected of the client."""
        self.began = self.heard = self._clock.monotonic()

    def close(self) -> None:
        """Send what was replied and hang up; who does not take it is cut off."""
        self.flush()
        self.closing = True
        self.wait()
        self._link.close()

    def abort(self) -> None:
        """Cut the connection off, with what is still to be sent."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._link.abort()

    async def more(self) -> None:
        """Wait for input. Raises EOFError when there will be none."""
        self.flush()
        if self._eof:
            raise EOFError
        if self._held and not self._stuck:
            self._held = False
            self._link.resume_reading()
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take_line(self, *, bare_lf: bool, verb: bytes = b"") -> bytes | None:
        """The next line without its end, None if there is no whole one. Raises Refusal for one that is none."""
        end = self._in.find(b"\n")
        if end < 0:
            if self._in[:1] == b"\x16":  # a TLS handshake, and no line end to wait for
                raise replies.foreign(b"\x16")
            if len(self._in) > LONGEST:
                self._too_long = self._too_long or bytes(self._in[:4])
                self._in.clear()
            return None
        line = bytes(self._in[:end])
        del self._in[: end + 1]
        if self._too_long or len(line) > LONGEST:
            start, self._too_long = self._too_long or line[:4], b""
            raise replies.too_long(verb or start)
        if line.endswith(b"\r"):
            self.lf_only = False
            return line[:-1]
        if bare_lf:
            return line
        # What follows may be a command smuggled into somebody's argument.
        if line[:1] == b"\x16":
            raise replies.foreign(line)
        raise (replies.BARE_LF if self.lf_only or b"AUTH" not in (verb, line[:4].upper()) else replies.CUT_LOGIN)()

    @property
    def cr_only(self) -> bool:
        """Whether what has come looks like lines that end in CR alone."""
        return b"\r" in self._in and b"\n" not in self._in

    def receive(self, incoming: Incoming) -> None:
        """From now on input belongs to a message."""
        self.incoming = incoming
        self.wait()
        ahead, self._in = bytes(self._in), bytearray()
        if ahead:
            self._in += incoming.feed(ahead)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """What the client sent ahead in the clear is forgotten (RFC 3207 5). Raises OSError; then it is gone."""
        self.flush()
        self._in.clear()
        self.securing = True
        self.wait()
        try:
            self._link = await self._shake_hands(context)
        except OSError:  # ssl.SSLError is one
            self.connection_lost(None)
            raise
        finally:
            self._socket = None
            self.securing, self.began = False, inf
        version, cipher = self._link.get_extra_info("ssl_object").version(), self._link.get_extra_info("cipher")
        self.tls = f"{version} {cipher[0]}"  # not cipher[1], the version that the cipher comes from

    async def _shake_hands(self, context: ssl.SSLContext) -> asyncio.Transport:
        line = self._socket or self._link.get_extra_info("socket")
        # asyncio closes the socket before the alert for a failed handshake has left.
        with Spare(line) as spare:
            try:
                secure: asyncio.Transport | None
                if self._socket is not None:
                    secure, _ = await self.loop.connect_accepted_socket(
                        lambda: self,
                        self._socket,
                        ssl=context,
                        ssl_handshake_timeout=_UNTIMED,
                        ssl_shutdown_timeout=_GOODBYE,
                    )
                else:
                    secure = await self.loop.start_tls(
                        self._link,
                        self,
                        context,
                        server_side=True,
                        ssl_handshake_timeout=_UNTIMED,
                        ssl_shutdown_timeout=_GOODBYE,
                    )
            except HandshakeError as error:
                spare.send(error.alert)
                raise
        if secure is None or secure.get_extra_info("cipher") is None:  # the client has gone, no error to asyncio
            raise ConnectionAbortedError
        return secure
