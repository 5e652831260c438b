"""What all listeners of a gateway count together: connections, messages, memory for messages."""

from __future__ import annotations

from gateway.config.models import LimitSettings
from gateway.model import Refusal
from gateway.networks import neighbour
from gateway.quotas import Quotas
from gateway.ratelimit import Shares
from gateway.smtp import replies

_NEARLY = 0.9  # of a limit: from there on slow clients must be quick
_BESIDES = 20  # connections that may say whose they are although there is no room: they then hear that by their address


class Shared:
    """Counters on one event loop. ``quotas`` is what clients have sent, ``memory`` octets of messages coming in."""

    def __init__(self) -> None:
        self.quotas = Quotas()
        self.connections = Shares()  # by neighbour: an address of IPv4, a /64 of IPv6
        self.memory = Shares()  # likewise
        self.unknown = 0  # connections of load balancers that have not yet said whose they are

    def connect(self, peer: str, limits: LimitSettings) -> Refusal | None:
        """Count a new connection, or say why not."""
        if self.connections.total + self.unknown >= limits.connections:
            return replies.FULL()
        if self.connections.of(neighbour(peer)) >= limits.connections_per_ip:
            return replies.CROWDED()
        self.connections.add(neighbour(peer), 1)
        return None

    def too_many_unknown(self, limits: LimitSettings) -> bool:
        """Whether no more may be to say whose they are: silent ones leave three quarters of all room to others."""
        room = limits.connections - self.connections.total
        return self.unknown >= max(_BESIDES, min(limits.connections // 4, room))

    def expect(self, limits: LimitSettings) -> Refusal | None:
        """Count a connection that is to say whose it is, until ``known``; or say why not."""
        if self.too_many_unknown(limits):
            return replies.FULL()
        self.unknown += 1
        return None

    def known(self) -> None:
        """One of those has said it, or has gone."""
        self.unknown -= 1

    def disconnect(self, peer: str) -> None:
        self.connections.add(neighbour(peer), -1)

    def crowded(self, limits: LimitSettings) -> bool:
        """Whether connections run out."""
        return self.connections.total + self.unknown >= limits.connections * _NEARLY

    def has_memory(self, peer: str, limits: LimitSettings) -> bool:
        """False when memory runs out, in all or for the network of ``peer``."""
        mine, most = self.memory.of(neighbour(peer)), max(limits.memory // 2, limits.max_size)
        return self.memory.total < limits.memory * _NEARLY and mine < most * _NEARLY

    def has_room(self, peer: str, octets: int, limits: LimitSettings) -> bool:
        """Whether so much more fits into the budget; one network may hold half of it, and always one message."""
        memory, most = self.memory, max(limits.memory // 2, limits.max_size)
        return memory.total + octets <= limits.memory and memory.of(neighbour(peer)) + octets <= most

    def reserve(self, peer: str, octets: int, limits: LimitSettings) -> bool:
        """Count so many more octets of a message that is being received; False where they do not fit."""
        if fits := self.has_room(peer, octets, limits):
            self.memory.add(neighbour(peer), octets)
        return fits

    def release(self, peer: str, octets: int) -> None:
        """Give them back."""
        self.memory.add(neighbour(peer), -octets)
