"""Connections from load balancers: the PROXY protocol's header comes first, and says whose each is."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from gateway import proxyprotocol
from gateway.networks import plain_address, prefix_length
from gateway.proxyprotocol import BadHeader
from gateway.refusals import Refused
from gateway.smtp import replies
from gateway.smtp.session import Session
from gateway.smtp.site import Site

_PATIENCE = 5.0  # seconds for a header, as Postfix has it (smtpd_upstream_proxy_timeout); the protocol wants 3 or more
_SOON = 0.2  # seconds: balancers send the header as they connect; who is silent for longer gives way to others
_AGAIN = 3600.0  # seconds until the same fault of the same balancer is worth another line in the log
_MANY = 1000  # faults that are remembered
_MISSING = f"no header of the PROXY protocol came within {_PATIENCE:g} seconds"
_CROWDED = "no header of the PROXY protocol came at once, and others needed the room"
_CUT = "the header of the PROXY protocol was cut off"


@dataclass(slots=True)
class Introductions:
    """Those of one listener: who is waited for, the oldest first; who was sent off for others; and whose faults were
    logged when (monotonic seconds)."""

    waiting: dict[_Waiting, None] = field(default_factory=dict)
    leaving: set[_Waiting] = field(default_factory=set)
    told: dict[tuple[str, str], float] = field(default_factory=dict)

    def check(self, now: float) -> None:
        """Hang up on those from whom no header came in time."""
        for one in tuple(self.waiting):
            if now - one.began >= _PATIENCE:
                one.give_up(_MISSING)

    def make_room(self, site: Site) -> None:
        """For one more, where there is none: clients do not wait until silence has lasted its five seconds."""
        oldest = next(iter(self.waiting), None)
        if oldest is None or site.clock.monotonic() - oldest.began < _SOON:
            return
        if site.shared.too_many_unknown(site.rules.limits):
            del self.waiting[oldest]
            self.leaving.add(oldest)
            site.known()
            oldest.give_up(_CROWDED)

    def stop(self) -> None:
        """The listener closes: who has not said yet who it is hears nothing."""
        for one in tuple(self.waiting):
            one.give_up("")

    def is_news(self, proxy: str, fault: str, now: float) -> bool:
        if now - self.told.get((proxy, fault), -_AGAIN) < _AGAIN:
            return False
        if len(self.told) >= _MANY:
            self.told.clear()
        self.told[proxy, fault] = now
        return True


class Entrance(asyncio.Protocol):
    """Who has just connected to a listener with ``proxy_protocol_from``: a balancer, or anybody else, who is served at
    once, whatever he says about others."""

    def __init__(self, site: Site, introductions: Introductions, session: Callable[[], Session]) -> None:
        self._site = site
        self._introductions = introductions
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        link = cast(asyncio.Transport, transport)
        proxy = (link.get_extra_info("peername") or ("",))[0]
        if prefix_length(self._site.settings.proxy_protocol_from, proxy) < 0:
            wire = self._session().wire
            link.set_protocol(wire)
            wire.connection_made(link)
            return
        link.set_protocol(asyncio.Protocol())  # nobody's from here on
        proxy = str(plain_address(proxy))
        self._introductions.make_room(self._site)
        if refusal := self._site.expect(proxy):
            if not self._site.implicit_tls:
                link.write(replies.line(refusal))
            link.close()
            return
        # The header is read to its end and no further, so that what follows is there for TLS, which takes a socket and
        # nothing beside it. A transport reads as much as there is.
        try:
            line = socket.socket(fileno=os.dup(link.get_extra_info("socket").fileno()))
            line.setblocking(False)
        except OSError:  # no descriptor is left, or the peer is gone
            self._site.known()
        else:
            local = str(plain_address(link.get_extra_info("sockname")[0]))
            _Waiting(self._site, self._introductions, self._session, line, proxy, local)
        link.abort()


class _Waiting:
    """One connection of ``proxy``, until its header is here."""

    def __init__(
        self, site: Site, introductions: Introductions, session: Callable[[], Session], line: socket.socket, proxy: str,
        local: str,
    ) -> None:  # fmt: skip
        self.began = site.clock.monotonic()
        self._site = site
        self._introductions = introductions
        self._session = session
        self._line = line
        self._proxy = proxy
        self._is_this_machine = proxy == local or plain_address(proxy).is_loopback
        self._given_up: str | None = None
        introductions.waiting[self] = None
        # That holds it, and so its task, for as long as that runs.
        self._task = asyncio.get_running_loop().create_task(self._run(), name="proxy_protocol")

    def give_up(self, fault: str) -> None:
        self._given_up = fault
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)  # it reads the end now

    async def _run(self) -> None:
        line: socket.socket | None = self._line
        try:
            client = proxyprotocol.source(await self._header())
            self._leave()
            line = None  # it is the transport's
            await self._enter(client)
        except EOFError:  # a balancer that only looks whether the port is open
            pass
        except BadHeader as error:
            self._refuse(str(error))
        except OSError:
            pass
        except Exception as error:
            self._site.events.bug("smtp.introduced", error)
        finally:
            self._leave()
            if line is not None:
                line.close()

    def _leave(self) -> None:
        """It is counted no longer. May be called again."""
        introductions = self._introductions
        introductions.leaving.discard(self)
        if introductions.waiting.pop(self, self) is None:
            self._site.known()

    async def _header(self) -> bytes:
        """Raises BadHeader, OSError, and EOFError where nothing came."""
        loop, header = asyncio.get_running_loop(), b""
        while wanted := proxyprotocol.missing(header):
            octets = await loop.sock_recv(self._line, wanted)
            if not octets:
                if fault := (_CUT if header else "") if self._given_up is None else self._given_up:
                    raise BadHeader(fault)
                raise EOFError
            header += octets
        return header

    async def _enter(self, client: str) -> None:
        """As that client from now on. A loopback address of another machine is that machine."""
        if client and plain_address(client).is_loopback and not self._is_this_machine:
            client = ""
        session = self._session()
        session.wire.introduce(self._proxy, client)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: session.wire, self._line)

    def _refuse(self, fault: str) -> None:
        site = self._site
        refused = Refused(
            listener=site.name, stage="connect", reason="proxy_header", peer=self._proxy, detail=fault
        )  # fmt: skip
        site.events.not_introduced(
            refused, news=self._introductions.is_news(self._proxy, fault, site.clock.monotonic())
        )
