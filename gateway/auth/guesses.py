"""Who guesses passwords is slowed, and keeps nobody else out: counted by neighbour and user name, each wrong pair once.

Dovecot's auth penalty does it so, too: a device that repeats its old password is no attacker.
"""

from __future__ import annotations

import hmac
import secrets

from gateway.ratelimit import FailureLimit, Shares, remember

_MOST = 10  # wrong passwords of one neighbour for one user name at once
_FORGIVEN = 30.0  # seconds for each of them
_REMEMBERED = 300.0  # seconds that a verdict is good for


class Guesses:
    """What the process knows of passwords that were tried, whatever settings are in force. Never a password itself.

    Times are monotonic seconds. ``at_work`` counts by neighbour the passwords that are looked at just now.
    """

    def __init__(self) -> None:
        self.at_work = Shares()
        self._secret = secrets.token_bytes(32)
        self._failures = FailureLimit(_MOST, _FORGIVEN)
        # Two tables: a flood of wrong ones must not displace what lets the right ones in. Until when, and the verdict.
        self._right: dict[bytes, tuple[float, bool]] = {}
        self._other: dict[bytes, tuple[float, bool]] = {}

    def mark(self, *parts: object) -> bytes:
        """What stands for these parts from now on: a hash under a key that dies with the process."""
        return hmac.digest(self._secret, repr(parts).encode(), "sha256")

    def recall(self, mark: bytes, now: float) -> bool | None:
        """The verdict on this pair from this neighbour; None where it has to be judged."""
        until, verdict = self._right.get(mark) or self._other.get(mark) or (0.0, False)
        return verdict if now < until else None

    def reserve(self, who: bytes, now: float) -> bool:
        """Room for one more guess, counted before it is judged; False when there is none."""
        if not self._failures.allow(who, now):
            return False
        self._failures.add(who, now)
        return True

    def release(self, who: bytes, now: float) -> None:
        """What was reserved was no guess."""
        self._failures.forgive(who, now)

    def learn(self, mark: bytes, verdict: bool, now: float, *, admitted: bool) -> None:
        """Remember a verdict. What lets nobody in is kept alike, right or wrong, so that time does not tell which."""
        remember(self._right if admitted else self._other, mark, (now + _REMEMBERED, verdict))
