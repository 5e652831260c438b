"""A listener: its socket, its sessions, a look at their deadlines now and then, and the orderly end."""

from __future__ import annotations

import asyncio

from gateway.auth import Authenticator
from gateway.config.models import ListenerSettings
from gateway.config.values import parse_bind
from gateway.intake import Rules
from gateway.ports import cannot_listen
from gateway.smtp.session import Session
from gateway.smtp.site import Site
from gateway.smtp.verbs import VERBS

_SWEEP = 2.0  # seconds between looks at the sessions' deadlines and the certificate's file
_BACKLOG = 100
_COMMIT = 10.0  # seconds for a commit when nobody waits for its reply any more


class Listener:
    """The socket of ``site``, and the sessions there."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()  # of sessions, also of those whose client has gone
        self._server: asyncio.Server | None = None
        self._sessions: set[Session] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises BindError."""
        loop = asyncio.get_running_loop()
        host, port = parse_bind(self.site.settings.bind)
        try:
            self._server = await loop.create_server(self.new_connection, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise cannot_listen(f"listeners.{self.site.name}.bind", self.site.settings.bind, error) from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.create_task(self._sweep_now_and_then())

    def new_connection(self) -> asyncio.Protocol:
        """For a socket that is about to be served."""
        return Session(self.site, VERBS, asyncio.get_running_loop(), self._sessions, self.tasks).wire

    def update(self, settings: ListenerSettings | None, rules: Rules, auth: Authenticator) -> None:
        """Take over what a reload brought. Another ``bind`` or ``tls``, or its removal, waits for the next start."""
        site = self.site
        site.rules, site.auth = rules, auth
        if settings and (settings.bind, settings.tls) == (site.settings.bind, site.settings.tls):
            site.settings = settings

    @property
    def accepting(self) -> bool:
        return self._server is not None and self._server.is_serving()

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._sessions)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def drain(self, seconds: float) -> None:
        """Idle sessions hear 421 now, the others when they have ended what they do, at most ``seconds`` from now."""
        self.stop_accepting()
        self.site.draining = True
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
        if self.site.certificate is not None:
            self.site.certificate.refresh(self.site.settings)
