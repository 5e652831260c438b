"""What all listeners of a gateway count together: connections, memory for messages, failed logins."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from gateway.config.models import LimitSettings
from gateway.ratelimit import RateWindow
from gateway.smtp.replies import Terms

_FAILURES = 10  # failed logins an address may make at once
_FORGIVEN = 30.0  # seconds for each one to be forgotten
_REMEMBERED = 10_000  # addresses


class Shared:
    """Counters on one event loop. ``rates`` holds the clients' message rates."""

    def __init__(self) -> None:
        self.rates = RateWindow()
        self._connections: Counter[str] = Counter()
        self._open = 0
        self._memory = 0
        self._memory_of: Counter[str] = Counter()  # by network
        self._failures: dict[str, tuple[float, float]] = {}  # address -> failures not yet forgiven, as of when

    def connect(self, peer: str, limits: LimitSettings) -> Terms | None:
        """Count a new connection, or say why not."""
        if self._open >= limits.connections:
            return (421, "4.3.2", "Too many connections, try again later", "too_many_connections")
        if self._connections[peer] >= limits.connections_per_ip:
            return (421, "4.7.0", "Too many connections from your address", "too_many_connections")
        self._open += 1
        self._connections[peer] += 1
        return None

    def disconnect(self, peer: str) -> None:
        self._open -= 1
        self._connections[peer] -= 1
        if not self._connections[peer]:
            del self._connections[peer]

    def has_room(self, peer: str, octets: int, limits: LimitSettings) -> bool:
        """Whether so much more fits into the budget; one peer may hold half of it, and always one message."""
        most = max(limits.memory // 2, limits.max_size)
        return self._memory + octets <= limits.memory and self._memory_of[_network(peer)] + octets <= most

    def reserve(self, peer: str, octets: int) -> None:
        """Count octets of a message that is being received; negative ones give them back."""
        key = _network(peer)
        self._memory += octets
        self._memory_of[key] += octets
        if not self._memory_of[key]:
            del self._memory_of[key]

    def may_log_in(self, peer: str, now: float) -> bool:
        """False while an address has to pause after failed logins. ``now`` in monotonic seconds."""
        count, then = self._failures.get(_network(peer), (0.0, now))
        return count - (now - then) / _FORGIVEN <= _FAILURES - 1

    def login_failed(self, peer: str, now: float) -> None:
        key = _network(peer)
        count, then = self._failures.pop(key, (0.0, now))
        if len(self._failures) >= _REMEMBERED:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (max(0.0, count - (now - then) / _FORGIVEN) + 1, now)


def _network(peer: str) -> str:
    """IPv6 hosts choose among 2**64 addresses, so their /64 counts as one."""
    address = ip_address(peer)
    return peer if address.version == 4 else address.exploded[:19]
