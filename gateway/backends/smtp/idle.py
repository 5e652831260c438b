"""Connections that wait for the next message, each of the user who has logged in on it."""

from __future__ import annotations

import asyncio

from gateway.backends.smtp.connection import Connection


class Idle:
    """At most ``most`` of them; the one that has waited longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Connection, tuple[str, asyncio.TimerHandle]] = {}
        self._of: dict[str, dict[Connection, None]] = {}  # of each user, the last one used at the end

    def take(self, user: str) -> Connection | None:
        """One that is alive, the last one used."""
        while own := self._of.get(user):
            connection = next(reversed(own))
            self._drop(connection)
            if connection.alive:
                return connection
        return None

    def keep(self, user: str, connection: Connection, seconds: float) -> None:
        """For so long."""
        if len(self._waiting) >= self._most:
            self.retire(next(iter(self._waiting)))
        timer = asyncio.get_running_loop().call_later(seconds, self.retire, connection)
        self._waiting[connection] = user, timer
        self._of.setdefault(user, {})[connection] = None

    def retire(self, connection: Connection) -> None:
        self._drop(connection)
        connection.bid_farewell()

    def retire_all(self, user: str | None = None) -> None:
        """Of one user, or of all."""
        for connection in [one for one, (whose, _) in self._waiting.items() if user in (None, whose)]:
            self.retire(connection)

    def _drop(self, connection: Connection) -> None:
        user, timer = self._waiting.pop(connection)
        timer.cancel()
        del self._of[user][connection]
        if not self._of[user]:
            del self._of[user]
