"""A message on its way in: its reader, its share of the memory for messages, and whether it makes progress."""

from __future__ import annotations

from gateway.config.models import LimitSettings
from gateway.model import SpoolTrouble
from gateway.smtp import replies
from gateway.smtp.data import DataReader
from gateway.smtp.limits import Shared
from gateway.smtp.site import Room
from gateway.smtp.waits import ROOM, SLOWEST, WINDOW, Wait


class Incoming:
    """What ``reader`` holds, memory reserved for octets that have come, and room in the spool for those to come.

    A reader that ends as overrun is cut off. Raises Refusal 452 or SpoolTrouble without room for ``declared`` octets.
    """

    def __init__(
        self, reader: DataReader, shared: Shared, room: Room, limits: LimitSettings, *, peer: str, declared: int,
        now: float,
    ) -> None:  # fmt: skip
        self.reader = reader
        self.ended = False  # or cut off
        self._shared = shared
        self._limits = limits
        self._peer = peer
        self._reserved = 0
        self._room = room
        self._held = 0  # of it, for octets come and declared
        self._mark = (now, 0)
        if not shared.has_room(peer, declared, limits):
            raise replies.BUSY()
        self._hold(declared)

    @property
    def cut_off(self) -> bool:
        """There is no end, and no use in waiting for it: the connection has to be closed with the refusal."""
        return self.reader.overrun or (self.reader.false_end and self.wait is Wait.REFUSED)

    @property
    def wait(self) -> Wait:
        """As of all that has come: what was put off is looked at."""
        reader = self.reader
        reader.look()
        if reader.refusal is not None:
            self.release()
        if reader.refusal is not None and reader.refusal.reason == replies.BARE_NEWLINES.reason:
            return Wait.REFUSED
        return Wait.FALSE_END if reader.false_end else Wait.MESSAGE

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire; returns those behind the end of the message."""
        reader = self.reader
        rest = reader.feed(data)
        self.ended = reader.done or self.cut_off
        if reader.refusal is None:
            self._make_room(reader.kept)
        if reader.refusal is not None:
            self.release()
        return rest

    def _make_room(self, octets: int) -> None:
        """For so many in all, in memory and in the spool; the reader fails where there is none."""
        if not self._shared.reserve(self._peer, octets - self._reserved, self._limits):
            self.reader.fail(replies.BUSY())
            return
        self._reserved = octets
        if octets > self._held:
            try:
                self._hold(octets)
            except SpoolTrouble as trouble:
                self.reader.fail(replies.refusal_of(trouble))

    def too_slow(self, now: float, *, crowded: bool) -> bool:
        """Whether others have to be let in. Called now and then."""
        (then, before), received = self._mark, self.reader.received
        if now - then < WINDOW:
            return False
        self._mark = (now, received)
        return received - before < SLOWEST * (now - then) and (crowded or self._short())

    def _short(self) -> bool:
        """Whether memory runs out, or the room in the spool, which is held for messages on their way in."""
        try:
            self._room.admit(ROOM)
        except SpoolTrouble:
            return True
        return not self._shared.has_memory(self._peer, self._limits)

    def hand_over(self) -> None:
        """Whoever stores it finds the room himself, at this moment: give it back."""
        if self._held:
            self._room.hold(-self._held)
        self._held = 0

    def release(self) -> None:
        """Give everything back: when the message is stored, or will not be."""
        if self._reserved:
            self._shared.release(self._peer, self._reserved)
            self._reserved = 0
        self.hand_over()

    def _hold(self, octets: int) -> None:
        self._room.hold(octets - self._held)
        self._held = octets
