"""Brings the mail in one folder to the judge, file by file, each once: also what a crash left half done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import TypeVar

from gateway.clock import Clock, wait_for
from gateway.drop import folder
from gateway.drop.folder import File, Places, Unreadable
from gateway.drop.judge import Judge, Later, Origin
from gateway.drop.letter import ENVELOPE_LIMIT, Letter
from gateway.events import Events
from gateway.message import HEADER_LIMIT
from gateway.model import BadMessage
from gateway.pools import SMALL_MAIL, look_through_mail, read_files

T = TypeVar("T")
EVERY = 5.0  # seconds between looks
AGAIN = 60.0  # seconds before what was refused for the time being is tried again
QUIET = 5.0  # seconds that a plain file must have been left alone: its writer may not be done with it
_HALF_DONE = 86400.0  # seconds after which nobody works on a file of gateway-sendmail any more
_TOGETHER = (50, 16_000_000)  # files, and octets, in memory at one time
_HANGS = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Kind:
    """How a file is read, of which there may be more octets than are given (their number); whether the folder is ours
    to make; ``quiet`` in seconds.
    """

    read: Callable[[bytes, int], Letter]
    ours: bool
    quiet: float


class Collector:
    """``known`` says which of these ids the spool has: a crash may have come between its commit and our unlinking."""

    def __init__(
        self,
        name: str,
        places: Places,
        kind: Kind,
        judge: Judge,
        ids: Callable[[], str],
        known: Callable[[Collection[str]], Awaitable[set[str]]],
    ) -> None:
        self.name = name
        self.places = places
        self.kind = kind
        self.judge = judge
        self._reason = ""
        self._asked = inf  # since when the disk owes us an answer, monotonic
        self._ids = ids
        self._known = known
        self._stopping = asyncio.Event()
        self._again = 0.0  # when what waits is tried again, monotonic

    @property
    def _events(self) -> Events:
        return self.judge.events

    @property
    def _clock(self) -> Clock:
        return self.judge.clock

    async def run(self) -> None:
        """Until stopped."""
        while not self._stopping.is_set():
            await self.look()
            await wait_for(self._stopping, self._clock, EVERY)

    def stop(self) -> None:
        """``run`` returns after what it does now."""
        self._stopping.set()

    async def look(self) -> None:
        """Take in what is there, unless somebody else is at it."""
        try:
            descriptor = await self._disk(self._prepare)
            try:
                reason = "another service is at work in this folder" if descriptor is None else await self._work()
                waiting, corrupt = await self._disk(self._count)
            finally:
                if descriptor is not None:
                    os.close(descriptor)
        except OSError as error:
            return self._waits(f"{error.filename or self.places.new}: {error.strerror or error}")
        self._events.drop_files(self.name, waiting, corrupt)
        if reason or not waiting:
            self._waits(reason)
        return None

    def _prepare(self) -> int | None:
        if self.kind.ours:
            folder.make_maildrop(self.places)
            folder.sweep(self.places, self._clock.now().timestamp() - _HALF_DONE)
        return folder.lock(self.places)

    def _count(self) -> tuple[int, int]:
        both = (*folder.taken(self.places), *folder.waiting(self.places))
        return len(both), folder.corrupt(self.places)

    def _waits(self, reason: str) -> None:
        """Said once, until it is another."""
        if reason and reason != self._reason:
            self._events.drop_waits(self.name, self.places.new, reason)
        self._reason = reason

    @property
    def hangs(self) -> bool:
        """Whether the disk of this folder does not answer: then nobody else should ask it."""
        return self._clock.monotonic() - self._asked > _HANGS

    @property
    def reason(self) -> str:
        """Why something waits, "" for nothing."""
        return "its disk does not answer" if self.hangs else self._reason

    async def _disk(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, in a thread."""
        self._asked = self._clock.monotonic()
        try:
            return await read_files(work)
        finally:
            self._asked = inf

    async def _work(self) -> str:
        """Why something is left, "" for nothing. What was put off comes first, but not at every look."""
        reason = ""
        if self._clock.monotonic() >= self._again:
            self._again = self._clock.monotonic() + AGAIN
            for some in _batches(await self._disk(partial(folder.taken, self.places))):
                known = await self._known([file.ident for file in some])
                await self._disk(partial(folder.done, [file for file in some if file.ident in known]))
                later = await self._bring([file for file in some if file.ident not in known])
                reason = str(later or reason)
                if self._stopping.is_set() or (later and later.everything):
                    return reason
        now = self._clock.now().timestamp()
        found = await self._disk(partial(folder.waiting, self.places))
        for some in _batches(file for file in found if abs(now - file.modified) >= self.kind.quiet):
            moving = [(file, self._ids()) for file in some]
            moved, stuck = await self._disk(partial(folder.take, self.places, moving))
            later = await self._bring(moved)
            reason = next((f"{file.name}: {error.strerror}" for file, error in stuck), reason)
            reason = str(later or reason)
            if self._stopping.is_set() or (later and later.everything):
                break
        return reason

    async def _bring(self, files: Sequence[File]) -> Later | None:
        """These before the judge, together, so that one commit serves many; the first that is put off says why."""
        contents = await self._disk(partial(_contents, files, self.judge.rules.limits.max_size + ENVELOPE_LIMIT))
        ends = await asyncio.gather(*map(self._one, files, contents))
        await self._disk(partial(folder.done, [file for file, end in zip(files, ends, strict=True) if end is None]))
        put_off = [end for end in ends if isinstance(end, Later)]
        return next((one for one in put_off if one.everything), put_off[0] if put_off else None)

    async def _one(self, file: File, content: tuple[bytes, int] | Unreadable) -> Later | bool | None:
        """None: it is stored, and its file may go. True: the file was put aside."""
        try:
            if isinstance(content, Unreadable):
                raise content
            data, size = content
            read = partial(self.kind.read, data, size)
            letter = await look_through_mail(read) if len(data) > SMALL_MAIL else read()
            dropped_at = datetime.fromtimestamp(min(file.modified, self._clock.now().timestamp()), UTC)
            await self.judge.accept(letter, file.ident, Origin(self.name, file.owner, dropped_at))
        except Later as later:
            return later
        except (BadMessage, Unreadable) as error:
            return await self._put_aside(file, str(error))
        except Exception as error:
            self._events.bug("drop", error)
            return await self._put_aside(file, "it could not be dealt with: that is a fault of the gateway")
        if size > len(data):
            return await self._put_aside(file, "it is larger than limits.max_size: its header is in the spool")
        return None

    async def _put_aside(self, file: File, why: str) -> Later | bool:
        try:
            path = await self._disk(partial(folder.put_aside, self.places, file))
        except OSError as error:
            return Later(f"{self.places.corrupt}: {error.strerror}", everything=False)
        self._events.drop_corrupt(self.name, file.ident, path, file.owner, why)
        return True


def _contents(files: Iterable[File], most: int) -> list[tuple[bytes, int] | Unreadable]:
    found: list[tuple[bytes, int] | Unreadable] = []
    for file in files:
        try:
            found.append(folder.content(file, most, ENVELOPE_LIMIT + HEADER_LIMIT))
        except Unreadable as error:
            found.append(error)
    return found


def _batches(files: Iterable[File]) -> Iterator[list[File]]:
    """In their order, each of at least one."""
    some: list[File] = []
    size = 0
    for file in files:
        if some and (len(some) >= _TOGETHER[0] or size + file.size > _TOGETHER[1]):
            yield some
            some, size = [], 0
        some.append(file)
        size += file.size
    if some:
        yield some
