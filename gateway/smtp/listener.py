"""A listener: who may connect, what is advertised to whom, and the orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from gateway.auth import Authenticator
from gateway.clock import Clock
from gateway.config.models import ListenerSettings
from gateway.config.values import parse_bind
from gateway.events import Events
from gateway.intake import Rules
from gateway.model import Client, NewMessage, Refusal
from gateway.smtp import replies
from gateway.smtp.limits import Shared
from gateway.smtp.login import MECHANISMS
from gateway.smtp.session import Session
from gateway.smtp.tls import Certificate

_SWEEP = 2.0  # seconds between looks at the sessions' deadlines and the certificate's file
_BACKLOG = 100
_COMMIT = 10.0  # seconds for a commit when nobody waits for its reply any more


class Listener:
    """One listener and its sessions. ``auth``, ``rules`` and ``listener`` may be replaced while it runs.

    ``put`` returns when the message is safe on disk, or raises SpoolTrouble. ``shared`` is common to all listeners.
    """

    def __init__(
        self,
        name: str,
        listener: ListenerSettings,
        rules: Rules,
        *,
        auth: Authenticator,
        put: Callable[[NewMessage], Awaitable[None]],
        events: Events,
        clock: Clock,
        ids: Callable[[], str],
        shared: Shared | None = None,
    ) -> None:
        self.name = name
        self.listener = listener
        self.rules = rules
        self.auth = auth
        self.events = events
        self.clock = clock
        self.ids = ids
        self.shared = shared or Shared()
        self.certificate = Certificate(name, listener, events) if listener.tls != "none" else None
        self.implicit_tls = listener.tls == "implicit"
        self.draining = False
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()  # of sessions, also of those whose client has gone
        self.put = put
        self._server: asyncio.Server | None = None
        self._sessions: set[Session] = set()
        self._sweeper: asyncio.Task[None] | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        host, port = parse_bind(self.listener.bind)

        def connected() -> Session:
            return Session(self, loop)

        self._server = await loop.create_server(connected, host, port, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.create_task(self._sweep_now_and_then())

    @property
    def accepting(self) -> bool:
        return self._server is not None and self._server.is_serving()

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def drain(self, seconds: float) -> None:
        """Idle sessions hear 421 now, the others when they have ended what they do, at most ``seconds`` from now."""
        self.stop_accepting()
        self.draining = True
        for session in tuple(self._sessions):
            if session.idle:
                session.hang_up(replies.STOPPING)
        if self.tasks:
            await asyncio.wait(tuple(self.tasks), timeout=seconds)
        for session in tuple(self._sessions):
            session.abort()
        if self.tasks:  # without a connection there is only a commit to wait for
            await asyncio.wait(tuple(self.tasks), timeout=_COMMIT)
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep_now_and_then(self) -> None:
        while True:
            await self.clock.sleep(_SWEEP)
            try:
                self.sweep()
            except Exception as error:
                self.events.bug("door", error)

    def sweep(self) -> None:
        now = self.clock.monotonic()
        for session in tuple(self._sessions):
            if session.deadline <= now:
                session.check(now)
        if self.certificate is not None:
            self.certificate.refresh(self.listener)

    # -- what sessions ask -------------------------------------------------------------------------------------------

    def admit(self, session: Session) -> bool:
        """Count a new session, or refuse it at the banner."""
        terms = replies.STOPPING if self.draining else self.shared.connect(session.peer, self.rules.limits)
        if terms is not None:
            self.events.connection_refused(self.name, terms[3], session.peer)
            if not self.implicit_tls:
                session.reply(replies.line(Refusal(*terms)))
            session.close()
            return False
        self._sessions.add(session)
        self.events.connection_opened(self.name)
        return True

    def gone(self, session: Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            self.shared.disconnect(session.peer)
            self.events.connection_closed(self.name)

    def by_network(self, peer: str) -> Client | None:
        """Who may send from this address without a login."""
        return None if self.listener.auth == "required" else self.auth.by_network(peer)

    @property
    def knows_logins(self) -> bool:
        """Whether anybody could log in here at all."""
        return self.listener.auth != "off" and any(client.logs_in for client in self.rules.clients.values())

    def offers_login(self, peer: str, *, tls: bool) -> bool:
        """No password over a clear line, except from this host and from networks the operator named."""
        if not self.knows_logins:
            return False
        address = ip_address(peer)
        networks = (network for client in self.rules.clients.values() for network in client.networks)
        return tls or address.is_loopback or any(address in network for network in networks)

    def stranger(self, peer: str, *, tls: bool) -> Refusal:
        """The refusal for who is no client of ours, with what would help."""
        if self.offers_login(peer, tls=tls):
            return Refusal(530, "5.7.0", "Authentication required", "auth_required")
        if self.knows_logins and self.certificate is not None and not tls:
            return Refusal(530, "5.7.0", "Must issue STARTTLS first, then log in", "tls_required")
        text = f"Relay access denied: {peer} is in no network of the setting clients"
        return Refusal(550, "5.7.1", text, "relay_denied")

    def extensions(self, client: Client | None, peer: str, *, tls: bool) -> list[str]:
        """The lines of the EHLO reply, true for this client and this line."""
        able, cap = self.rules.routing.capabilities.values(), self.rules.limits.max_size
        if client is not None:
            size, _ = self.rules.routing.largest(client, cap)
        else:  # a login decides; until then the most that anybody could send
            size = min(cap, max((one.max_bytes for one in able), default=cap))
        lines = [self.rules.hostname, f"SIZE {size}", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN"]
        lines += ["SMTPUTF8"] * any(one.smtputf8 for one in able)
        lines += ["STARTTLS"] * (self.certificate is not None and not tls)
        lines += ["AUTH " + " ".join(MECHANISMS)] * self.offers_login(peer, tls=tls)
        return lines
