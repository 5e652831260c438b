"""What a session may ask of the listener that it came through: the settings of now, and who may do what there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.auth import Authenticator
from gateway.clock import Clock
from gateway.config.models import ListenerSettings
from gateway.drop.compose import COMPLETES
from gateway.events import Events
from gateway.intake import Rules
from gateway.learn.ear import Ear
from gateway.learn.learner import Learner
from gateway.model import Client, NewMessage, Refusal
from gateway.networks import NOBODY, plain_address, prefix_length
from gateway.refusals import Refused
from gateway.smtp import replies
from gateway.smtp.limits import Shared
from gateway.smtp.login import MECHANISMS
from gateway.smtp.refused import refused
from gateway.smtp.tls import Certificate


class Room(Protocol):
    """Whether mail on its way in will find a place. Both are quick, and raise SpoolTrouble where it will not."""

    def admit(self, octets: int) -> None:
        """Of that size; 0 where it is not known."""

    def hold(self, octets: int) -> None:
        """Keep so much for it; negative octets give it back."""


@dataclass(slots=True, kw_only=True, eq=False)
class Site:
    """One listener, seen by its sessions. ``settings``, ``rules`` and ``auth`` are replaced by a reload.

    ``put`` returns when the message is safe on disk, or raises SpoolTrouble. ``shared`` is common to all listeners.
    Raises ValueError for a bad certificate.
    """

    name: str
    settings: ListenerSettings
    rules: Rules
    auth: Authenticator
    put: Callable[[NewMessage], Awaitable[None]]
    room: Room
    events: Events
    clock: Clock
    ids: Callable[[], str]
    shared: Shared
    learner: Learner | None = None
    certificate: Certificate | None = field(init=False)
    draining: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        tls = self.settings.tls != "none"
        self.certificate = Certificate(self.name, self.settings, self.events) if tls else None

    @property
    def implicit_tls(self) -> bool:
        """TLS from the first octet (RFC 8314 3)."""
        return self.settings.tls == "implicit"

    def admit(self, peer: str) -> Refusal | None:
        """Count a new connection, or say what it is refused with."""
        refusal = replies.STOPPING() if self.draining else self.shared.connect(peer, self.rules.limits)
        if refusal is None:
            self.events.connection_opened(self.name)
            if (learning := self.learning) is not None:
                learning.connected(peer)
        else:
            self.rejected(refused(refusal, listener=self.name, stage="connect", peer=peer))
        return refusal

    def expect(self, proxy: str) -> Refusal | None:
        """Count a connection of a load balancer, until it is ``known`` whose it is; or say what it is refused with."""
        refusal = replies.STOPPING() if self.draining else self.shared.expect(self.rules.limits)
        if refusal is not None:
            self.rejected(refused(refusal, listener=self.name, stage="connect", peer=proxy))
        return refusal

    def known(self) -> None:
        """The end of that, whether a header came or not."""
        self.shared.known()

    @property
    def learning(self) -> Ear | None:
        """Who listens here to learn; nearly always nobody."""
        return None if self.learner is None else self.learner.at.get(self.name)

    def rejected(self, refused: Refused) -> None:
        """Somebody heard no."""
        self.events.rejected(refused)
        if (learning := self.learning) is not None:
            learning.refused(refused)

    def gone(self, peer: str) -> None:
        """The end of a connection that was admitted."""
        self.shared.disconnect(peer)
        self.events.connection_closed(self.name)

    def by_network(self, peer: str) -> Client | None:
        """Who may send from this address without a login."""
        return None if self.settings.auth == "required" else self.auth.by_network(peer)

    @property
    def knows_logins(self) -> bool:
        """Whether anybody could log in here at all."""
        return self.settings.auth != "off" and any(client.logs_in for client in self.rules.clients.values())

    def offers_login(self, peer: str, *, tls: bool) -> bool:
        """No password over a clear line (RFC 4954 4), except from this host and from networks the operator named."""
        return self._takes_logins(peer, tls=tls) or self.draws_out(peer)

    def draws_out(self, peer: str) -> bool:
        """Whether a stranger who logs in is let go on, so that it shows what it would send. Nothing is accepted."""
        learning = self.learning
        if learning is None or self.settings.auth == "off" or not learning.hears_out(peer):
            return False
        return self.by_network(peer) is None

    def _takes_logins(self, peer: str, *, tls: bool) -> bool:
        if not self.knows_logins:
            return False
        networks = (network for client in self.rules.clients.values() for network in client.networks)
        return tls or plain_address(peer).is_loopback or prefix_length(networks, peer) >= 0

    def stranger(self, peer: str, *, tls: bool) -> Refusal:
        """The refusal for who is no client of ours, with what would help."""
        if self._takes_logins(peer, tls=tls):
            return Refusal(530, "5.7.0", "Authentication required", "auth_required")
        if self.knows_logins and self.certificate is not None and not tls:
            return Refusal(530, "5.7.0", "Must issue STARTTLS first, then log in", "tls_required")
        who = "the load balancer does not say who you are, which" if peer == NOBODY else peer
        text = f"Relay access denied: {who} is in no network of the setting clients"
        return Refusal(550, "5.7.1", text, "relay_denied")

    def extensions(self, client: Client | None, peer: str, *, tls: bool) -> list[str]:
        """The lines of the EHLO reply (RFC 5321 4.1.1.1), true for this client and this line."""
        able, cap = self.rules.routing.capabilities.values(), self.rules.limits.max_size
        if client is not None:
            size, _ = self.rules.routing.largest(client, cap)
        else:  # a login decides; until then the most that anybody could send
            size = min(cap, max((one.max_bytes for one in able), default=cap))
        lines = [self.rules.hostname, f"SIZE {size}", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN"]
        lines += ["SMTPUTF8"] * any(one.smtputf8 for one in able)
        lines += [COMPLETES.upper()] * bool(client is not None and client.default_domain)
        lines += ["STARTTLS"] * (self.certificate is not None and not tls)
        lines += ["AUTH " + " ".join(MECHANISMS)] * self.offers_login(peer, tls=tls)
        return lines
