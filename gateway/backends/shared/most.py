"""How many recipients a provider takes at a time: as many as the setting says, until it is found to take fewer."""

from __future__ import annotations

from gateway.backends.shared.base import Context

_KEPT = 3600.0  # seconds for which what was found is remembered: it may have been the moment's


class Most:
    """The limit of the backend called ``name``."""

    def __init__(self, setting: int, name: str, context: Context) -> None:
        self._setting = setting
        self._name = name
        self._context = context
        self._found = setting
        self._until = 0.0

    def now(self) -> int:
        if self._context.clock.monotonic() >= self._until:
            self._found = self._setting
        return self._found

    def learn(self, most: int) -> None:
        """Of a call for more it took only so many, or none of twice as many."""
        before = self.now()
        self._found, self._until = max(1, min(most, before)), self._context.clock.monotonic() + _KEPT
        if self._found < before:
            self._context.signals.warning("recipient_limit", backend=self._name, recipients=self._found)
