"""The room that is left for mail: measured every second, counted down in between; says when the door is to be shut."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from math import inf
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.events import Events
from gateway.model import NewMessage, SpoolFull, SpoolTrouble, SpoolUnavailable
from gateway.spool.engine import OUT_OF_ORDER, Engine, Space
from gateway.spool.writer import NO_SPACE

_EVERY = 1.0  # seconds
_PATIENCE = 30.0  # seconds for the disk to answer
_ROWS = 2500  # octets of a message beside its bytes; each of its recipients needs a fifth more
_YET = 2000  # octets that a queued delivery will need for its attempts and a bounce
_WORDS = 512_000_000  # octets: what is announced, and may never come, keeps no more from others
_BLOCKED = 64_000_000  # octets of the log
_MARGIN = 64 * 1024  # octets: for the rows of those that are on their way in
_ANY = 2**62  # octets
_MISSED = 5  # looks in a row that a database did not answer: a restart of it is shorter
_REST = 5.0, 60.0  # seconds without trouble after which a database's disk is tried again, at first and at most
_LITTLE = 256 * 1024  # octets: with less the door is shut, with twice as much it opens
FIXES = {
    "disk": "delete something else on this disk or enlarge it, or wait until mail has left; see limits.spool_free",
    "quota": "raise the quota of the user of this service, or delete something of that user",
    "database": "the disk of the database is full: enlarge it, or delete something else there",
    "away": "the database does not answer: see that PostgreSQL runs, and that this machine reaches it",
    "spool_size": "wait until mail has left, raise limits.spool_size, or shorten retention",
    "missing": "spool.db, or a file in bodies/, was removed while it is in use; the service writes it back as soon as "
    "it can, do not stop it",
    "moved": "spool.db, its folder or bodies/ was moved away while it is in use: move it back, and do not stop the "
    "service",
    "replaced": "another file stands in the place of spool.db, or of one in bodies/: move that away, the service "
    "writes its own back",
    "log": "spool.db-wal was removed while it is in use; the service writes the spool anew as soon as it can",
    "silent": "the disk does not answer: look for it with dmesg, and at the server if it is a network's",
}
_UNAVAILABLE = ("away", "missing", "moved", "replaced", "log", "silent")
_READER = "another program reads spool.db and does not end: find it with lsof, or wait until the backup is done"


class Heal(Protocol):
    """Have something written, if that was not possible last time or the spool is not in its place."""

    async def __call__(self, *, astray: bool) -> None: ...


class Room:
    """``left`` is what new mail may take, in octets by what sets the bound; ``shut`` says why none is taken, or is "",
    and ``shut_at`` since when.

    ``reserve`` is kept free: a share of the disk, or bytes from 1 up. ``most`` is what the spool may take, None: all.
    ``run`` is for what blocks, ``heal`` is tried before each look.
    """

    def __init__(
        self,
        engine: Engine,
        run: Callable[[Callable[[], Any]], Awaitable[Any]],
        heal: Heal,
        *,
        reserve: float,
        most: int | None,
        clock: Clock,
        events: Events,
    ) -> None:
        self.space = Space(0, 0, 0)
        self.left: dict[str, int] = {}
        self.shut = ""
        self.shut_at: datetime | None = None
        self._engine = engine
        self._run = run
        self._heal = heal
        self._reserve = reserve
        self._most = most
        self._clock = clock
        self._events = events
        self._blocked = 0
        self._missed = 0
        self._rest = _REST[0]
        self._rested_at = -inf  # monotonic
        self._found = 0  # octets when last measured
        self._spent = 0  # since then
        self._coming = 0  # of messages on their way in

    # -- at the door: on the loop, and quick ---------------------------------------------------------------------------

    def admit(self, octets: int) -> None:
        """Raises SpoolFull where a message of that size has no room beside those on their way in, SpoolUnavailable."""
        if self.shut in _UNAVAILABLE:
            raise SpoolUnavailable(OUT_OF_ORDER)
        if self.shut or self._spare() < 2 * octets + _MARGIN:
            raise SpoolFull(NO_SPACE)

    def _spare(self) -> int:
        return self._found - self._spent - min(self._coming, _WORDS)

    def hold(self, octets: int) -> None:
        """Keep room for so much on its way in; negative ones give it back. Raises as ``admit`` does."""
        if octets >= 0:
            self.admit(octets)
        self._coming += 2 * octets  # once in the log, once in the file

    @contextmanager
    def taking(self, messages: Sequence[NewMessage]) -> Iterator[None]:
        """Around their commit. Raises as ``admit`` does."""
        whole = sum(len(each.raw) + _ROWS + len(each.envelope.recipients) * _ROWS // 5 for each in messages)
        if self.shut in _UNAVAILABLE:
            raise SpoolUnavailable(OUT_OF_ORDER)
        if self.shut or self._spare() < 2 * whole:
            raise SpoolFull(NO_SPACE)
        self._coming += 2 * whole
        try:
            yield
        finally:
            self._coming -= 2 * whole
            self._spent += whole + _YET * len(messages)  # until measured again

    def close(self, cause: str) -> None:
        """No new mail, for a cause of ``FIXES``; the room looks by itself when it is over."""
        now = self._clock.monotonic()
        if not self.shut:
            self._events.spool_shut(cause, FIXES[cause], self.space.free, self.left)
            self.shut_at = self._clock.now()
            again = now < self._rested_at + 2 * self._rest  # what is small may still fit, and then mail does not
            self._rest = min(2 * self._rest, _REST[1]) if again else _REST[0]
        if cause == "database":  # nobody can measure its disk from here
            self._rested_at = now + self._rest
        self.shut = cause

    @property
    def reserve(self) -> int:
        """Octets of the disk that are kept free of new mail."""
        return int(self._reserve if self._reserve >= 1 else self._reserve * self.space.total)

    @property
    def database(self) -> str:
        """Its name, where the spool is in one; "" where it is on this machine's disk."""
        return self._engine.name if self._engine.shared else ""

    def bound(self, reserve: float, most: int | None) -> None:
        """Other bounds from the next look on. What is set aside for a full disk stays as large as at the start."""
        self._reserve, self._most = reserve, most

    # -- the measure ---------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Raises OSError."""
        await self._heal(astray=False)
        if not await self._take_stock():
            await self._heal(astray=True)
            return
        if self._clock.monotonic() < self._rested_at:
            return
        if (self.shut or self.space.held < self.space.ballast) and self._found >= 2 * _LITTLE:
            # The ballast comes first, and tells of a quota too: mail that is here must be able to leave.
            if number := await self._run(self._engine.set_aside):
                self.close("quota" if number == errno.EDQUOT else "disk")
                return
            await self._take_stock()
            if self.shut and self._found >= 2 * _LITTLE:
                self.shut, self.shut_at = "", None
                self._events.spool_open(self.left)

    async def _take_stock(self) -> bool:
        """False where the spool is not in its place."""
        before = self._spent  # what is committed by now is seen
        found: Space = await self._run(self._engine.space)
        if found.astray:
            return False
        self.space = found
        self._spent -= before
        floor = self.reserve
        yet = sum(self._engine.counts().values()) * _YET + found.owed - found.reusable
        disk = found.free + found.held - max(floor, found.ballast) - yet
        # Pages within the file take mail also on a full disk, but first the log does, and that has to be there.
        free = found.free - found.owed if found.free < found.owed else disk
        self.left = {"disk": min(disk, 2 * found.log, free)} if found.total else {}  # of another machine: not known
        if self._most is not None:
            self.left["spool_size"] = self._most - found.used - max(0, found.ballast - found.held) - yet
        self._found = min(self.left.values(), default=_ANY)
        self._engine.allow(self._found - found.reusable)
        if found.blocked > _BLOCKED >= self._blocked:
            self._events.warning("spool_log_grows", log_bytes=found.blocked, fix=_READER)
        self._blocked = found.blocked
        if self._found < _LITTLE:
            self.close(min(self.left, key=self.left.__getitem__))
        return True

    async def watch(self) -> None:
        while True:
            await self._clock.sleep(_EVERY)
            looking = asyncio.ensure_future(self.look())
            try:
                if not (await asyncio.wait((looking,), timeout=_PATIENCE))[0]:
                    self.close("away" if self._engine.shared else "silent")
                await looking
                self._missed = 0
            except Exception as error:
                self._fail(error)
            finally:
                looking.cancel()

    def _fail(self, error: Exception) -> None:
        """A database may be away for a while."""
        if not (self._engine.shared and isinstance(error, OSError | SpoolTrouble)):
            self._events.bug("spool.space", error)
            return
        self._missed += 1
        if self._missed >= _MISSED:
            self.close("away")
