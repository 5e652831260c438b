"""What all listeners of a gateway count together: connections, memory for messages, failed logins."""

from __future__ import annotations

from collections import Counter

from gateway.config.models import LimitSettings
from gateway.model import Refusal
from gateway.networks import neighbour
from gateway.ratelimit import FailureLimit, RateWindow
from gateway.smtp import replies

_FAILURES = 10  # failed logins a network may make at once
_FORGIVEN = 30.0  # seconds for each one to be forgotten


class Shares:
    """How much of something common each key holds now; its length is the number of those that hold any."""

    def __init__(self) -> None:
        self.total = 0
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, key: str) -> int:
        return self._held[key]

    def add(self, key: str, amount: int) -> None:
        """A negative ``amount`` gives back."""
        self.total += amount
        self._held[key] += amount
        if not self._held[key]:
            del self._held[key]


class Shared:
    """Counters on one event loop. ``rates`` are the clients' message rates, ``memory`` octets of messages coming in."""

    def __init__(self) -> None:
        self.rates = RateWindow()
        self.connections = Shares()  # by neighbour: an address of IPv4, a /64 of IPv6
        self.memory = Shares()  # likewise
        self._failures = FailureLimit(_FAILURES, _FORGIVEN)

    def connect(self, peer: str, limits: LimitSettings) -> Refusal | None:
        """Count a new connection, or say why not."""
        if self.connections.total >= limits.connections:
            return replies.FULL()
        if self.connections.of(neighbour(peer)) >= limits.connections_per_ip:
            return replies.CROWDED()
        self.connections.add(neighbour(peer), 1)
        return None

    def disconnect(self, peer: str) -> None:
        self.connections.add(neighbour(peer), -1)

    def has_room(self, peer: str, octets: int, limits: LimitSettings) -> bool:
        """Whether so much more fits into the budget; one network may hold half of it, and always one message."""
        most = max(limits.memory // 2, limits.max_size)
        return self.memory.total + octets <= limits.memory and self.memory.of(neighbour(peer)) + octets <= most

    def reserve(self, peer: str, octets: int) -> None:
        """Count octets of a message that is being received; negative ones give them back."""
        self.memory.add(neighbour(peer), octets)

    def may_log_in(self, peer: str, now: float) -> bool:
        """False while a network has to pause after failed logins. ``now`` in monotonic seconds."""
        return self._failures.allow(neighbour(peer), now)

    def login_failed(self, peer: str, now: float) -> None:
        """Count one at ``now`` (monotonic seconds)."""
        self._failures.add(neighbour(peer), now)
