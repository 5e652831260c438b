"""A message on its way in: its reader, its share of the memory for messages, and whether it makes progress."""

from __future__ import annotations

from gateway.config.models import LimitSettings
from gateway.smtp import replies
from gateway.smtp.data import DataReader
from gateway.smtp.limits import Shared

_SLOWEST = 500  # octets a second, averaged over the window
_LONGEST = 3600.0  # seconds for one message


class Incoming:
    """What ``reader`` holds, and memory reserved for octets that have come. A reader that ends as overrun is cut off.

    Raises Refusal 452 when there is no memory for the ``declared`` octets.
    """

    def __init__(
        self, reader: DataReader, shared: Shared, limits: LimitSettings, *, peer: str, declared: int, now: float
    ) -> None:
        self.reader = reader
        self._shared = shared
        self._limits = limits
        self._peer = peer
        self._reserved = 0
        self._began = now
        self._mark = (now, 0)
        self.window = limits.idle.total_seconds() / 2
        if not shared.has_room(peer, declared, limits):
            raise replies.BUSY()

    @property
    def ended(self) -> bool:
        return self.reader.done or self.reader.overrun

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire; returns those behind the end of the message."""
        reader = self.reader
        rest = reader.feed(data)
        more = reader.size - self._reserved
        if reader.refusal is None and not self._shared.has_room(self._peer, more, self._limits):
            reader.fail(replies.BUSY())
        if reader.refusal is not None:
            self.release()
        else:
            self._reserve(more)
        return rest

    def too_slow(self, now: float) -> bool:
        """Called once in each window."""
        (then, before), self._mark = self._mark, (now, self.reader.received)
        return self.reader.received - before < _SLOWEST * (now - then) or now - self._began > _LONGEST

    def release(self) -> None:
        """Give the memory back: when the message is stored, or will not be."""
        self._reserve(-self._reserved)

    def _reserve(self, octets: int) -> None:
        self._shared.reserve(self._peer, octets)
        self._reserved += octets
