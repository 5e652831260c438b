"""A message on its way in: its reader, its share of the memory for messages, and whether it makes progress."""

from __future__ import annotations

from gateway.config.models import LimitSettings
from gateway.smtp import replies
from gateway.smtp.data import DataReader
from gateway.smtp.limits import Shared
from gateway.smtp.waits import SLOWEST, WINDOW, Wait


class Incoming:
    """What ``reader`` holds, and memory reserved for octets that have come.

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
        self._mark = (now, 0)
        if not shared.has_room(peer, declared, limits):
            raise replies.BUSY()

    @property
    def ended(self) -> bool:
        return self.reader.done or self.cut_off

    @property
    def cut_off(self) -> bool:
        """There is no end, and no use in waiting for it: the connection has to be closed with the refusal."""
        reader = self.reader
        return reader.overrun or (reader.refusal is not None and self.wait is Wait.REFUSED and reader.false_end)

    @property
    def wait(self) -> Wait:
        reader = self.reader
        if reader.refusal is not None and reader.refusal.reason == replies.BARE_NEWLINES.reason:
            return Wait.REFUSED
        return Wait.FALSE_END if reader.false_end else Wait.MESSAGE

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

    def too_slow(self, now: float, *, crowded: bool) -> bool:
        """Whether others have to be let in. Called now and then."""
        (then, before), received = self._mark, self.reader.received
        if now - then < WINDOW:
            return False
        self._mark = (now, received)
        short = not self._shared.has_memory(self._peer, self._limits)
        return (crowded or short) and received - before < SLOWEST * (now - then)

    def release(self) -> None:
        """Give the memory back: when the message is stored, or will not be."""
        self._reserve(-self._reserved)

    def _reserve(self, octets: int) -> None:
        self._shared.reserve(self._peer, octets)
        self._reserved += octets
