"""What became of mail after a provider took it, for the log and the metrics."""

from __future__ import annotations

from typing import Any

from gateway.events.metrics import Metrics
from gateway.model import DeliveryEvent


class Afterwards:
    """A part of Events."""

    _metrics: Metrics
    _log: Any

    def delivery_event(self, ident: str, backend: str, said: DeliveryEvent, source: str) -> None:
        """What a provider says of mail it took; ``ident`` "" is none of ours. ``source`` is poll or webhook."""
        state = said.state if ident else "unknown"
        self._metrics.delivery_events(backend, state).inc()
        level = {"unknown": self._log.debug, "bounced": self._log.warning, "failed": self._log.warning}
        level.get(state, self._log.info)(
            "delivery_event", id=ident, backend=backend, state=said.state, recipient=said.address, detail=said.detail,
            remote_id=said.remote_id, source=source,
        )  # fmt: skip

    def returned(self, backend: str, result: str, count: int = 1) -> None:
        """What reports of mail that came back were: counted, known, unmatched, or other, which tell of no failure."""
        self._metrics.returned(backend, result).inc(count)

    def returns_read(self, backend: str, *, ok: bool) -> None:
        """Whether mail that came back can be looked for."""
        self._metrics.returns_readable(backend, ok=ok)

    def returns_unread(self, backend: str, detail: str, fix: str) -> None:
        self._log.warning("returns_unread", backend=backend, detail=detail, fix=fix)
