"""A listener: its socket, its sessions, a look at their deadlines now and then, and the orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from contextlib import suppress

from gateway.auth import Authenticator
from gateway.config.models import ListenerSettings
from gateway.config.values import parse_bind
from gateway.intake import Rules
from gateway.ports import listen
from gateway.smtp.commands import Commands
from gateway.smtp.introduced import Entrance, Introductions
from gateway.smtp.session import Session
from gateway.smtp.site import Site
from gateway.smtp.verbs import VERBS

_SWEEP = 2.0  # seconds between looks at the sessions' deadlines and the certificate's file
_BACKLOG = 100
_COMMIT = 10.0  # seconds for a commit when nobody waits for its reply any more


class Listener:
    """The sockets of ``site``, and the sessions there."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.port = 0
        self.sockets: list[socket.socket] = []
        self.tasks: set[asyncio.Task[None]] = set()  # of sessions, also of those whose client has gone
        self._commands = Commands(VERBS)
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()
        self._introductions = Introductions()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises BindError."""
        await self.open()
        await self.serve()

    async def open(self, held: Collection[socket.socket] = ()) -> None:
        """Have the address (gateway.ports.listen); who connects waits for ``serve``. Raises BindError."""
        bind = self.site.settings.bind
        setting = f"listeners.{self.site.name}.bind"
        self.sockets = await listen(setting, bind, parse_bind(bind), _BACKLOG, held)
        self.port = self.sockets[0].getsockname()[1]

    async def serve(self) -> None:
        """Let in who connects."""
        loop = asyncio.get_running_loop()
        for one in self.sockets:
            self._servers.append(await loop.create_server(self.new_connection, sock=one, backlog=_BACKLOG))
        self._sweeper = loop.create_task(self._sweep_now_and_then())

    def new_connection(self) -> asyncio.Protocol:
        """For a socket that is about to be served."""
        if self.site.settings.proxy_protocol_from:
            return Entrance(self.site, self._introductions, self._new_session)
        return self._new_session().wire

    def _new_session(self) -> Session:
        return Session(self.site, self._commands, asyncio.get_running_loop(), self._sessions, self.tasks)

    def fits(self, settings: ListenerSettings | None) -> bool:
        """Whether it can take these settings over; else another one has to take its place."""
        own = self.site.settings
        return settings is not None and (settings.bind, settings.tls) == (own.bind, own.tls)

    def update(self, settings: ListenerSettings, rules: Rules, auth: Authenticator) -> None:
        """Take over what a reload brought and ``fits``."""
        site = self.site
        site.settings, site.rules, site.auth = settings, rules, auth

    @property
    def accepting(self) -> bool:
        return bool(self._servers) and all(one.is_serving() for one in self._servers)

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._sessions)

    def stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        for one in self.sockets:  # those that were never served
            one.close()
        self.sockets = []

    async def serve_waiting(self, sockets: Collection[socket.socket]) -> None:
        """Let in who waits at sockets that are about to be given up."""
        loop = asyncio.get_running_loop()
        for one in sockets:
            with suppress(OSError):  # nobody does
                for _ in range(_BACKLOG):
                    waiting, _address = one.accept()
                    waiting.setblocking(False)
                    await loop.connect_accepted_socket(self.new_connection, waiting)

    async def drain(self, seconds: float | None) -> None:
        """Idle sessions hear 421 now, the others when they have ended what they do, at most ``seconds`` from now (None:
        as long as each may take)."""
        self.stop_accepting()
        self.site.draining = True
        self._introductions.stop()
        for session in tuple(self._sessions):
            session.stop()
        if self.tasks:
            await asyncio.wait(tuple(self.tasks), timeout=seconds)
        for session in tuple(self._sessions):
            session.wire.abort()
        if self.tasks:  # without a connection there is only a commit to wait for
            await asyncio.wait(tuple(self.tasks), timeout=_COMMIT)
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep_now_and_then(self) -> None:
        while True:
            await self.site.clock.sleep(_SWEEP)
            try:
                self.sweep()
            except Exception as error:
                self.site.events.bug("smtp.sweep", error)

    def sweep(self) -> None:
        """Hang up on those whose time is over; load a certificate whose file has changed."""
        now = self.site.clock.monotonic()
        for session in tuple(self._sessions):
            session.check(now)
        self._introductions.check(now)
        if self.site.certificate is not None and not self.site.draining:
            self.site.certificate.refresh(self.site.settings)
