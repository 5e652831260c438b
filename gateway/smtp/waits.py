"""How long a client may take, in one table. Pure.

RFC 5321 4.5.3.2.7 wants a server to wait at least 5 minutes for the next command. As in Postfix, that much silence is
allowed anywhere (smtpd_timeout, per read), however slowly octets come, and only where connections, memory or the
spool run out must a client be quick (its stress mode: smtpd_per_request_deadline, smtpd_min_data_rate).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique
from math import inf

SLOWEST = 500  # octets a second of a message, while others wait for room
ROOM = 1_000_000  # octets that the spool must be able to take besides
WINDOW = 10.0  # seconds over which they are counted
_IDLE = 0.0  # stands for limits.idle


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds: of ``silence``, ``whole`` for all of it, and ``crowded`` for all of it where room runs out."""

    silence: float = inf
    whole: float = inf
    crowded: float = inf


@unique  # rows with the same times would be one
class Wait(Enum):
    """What a client is waited for."""

    LINE = Limit(silence=_IDLE, crowded=10.0)  # the next command, or an answer within AUTH
    HANDSHAKE = Limit(whole=_IDLE, crowded=10.0)  # of TLS: its octets are seen by OpenSSL alone
    MESSAGE = Limit(silence=_IDLE)  # where room runs out, not slower than SLOWEST
    REFUSED = Limit(silence=5.0)  # a message with bare newlines, which could not be taken whatever else comes
    FALSE_END = Limit(silence=10.0)  # a message that its sender thinks has ended
    LAST_REPLY = Limit(silence=inf, whole=10.0)  # to leave, before the connection is cut off

    def is_over(self, silent: float, taken: float, idle: float, *, crowded: bool) -> bool:
        """Whether that is too long: seconds without an octet, and in all; ``idle`` is limits.idle."""
        limit = self.value
        whole = min(limit.whole or idle, limit.crowded) if crowded else limit.whole or idle
        return silent >= (limit.silence or idle) or taken >= whole
