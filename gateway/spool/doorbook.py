"""Refusals on their way to the table: gathered in memory, written down a second later. No session waits for any of it.

Within an hour alike refusals are one row, however many they are. Who comes in masses gets no row for each of his
names: a network of guessers, or a device with ever new senders, shares one that only counts (``mixed``).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any

from gateway.clock import Clock
from gateway.events import Events, masked
from gateway.model import SpoolTrouble
from gateway.networks import neighbour, plain_address
from gateway.ratelimit import remember
from gateway.refusals import Refused
from gateway.spool.counting import HOUR
from gateway.spool.records import micros
from gateway.spool.sql import clean

EVERY = 1.0  # seconds between writes: what a kill may take along
STEP = 250  # rows in one step of the writer, some 3 ms
_WAITING = 5000  # rows in memory, while the spool takes none
_SENDERS = 20  # rows of one client or address, for one reason in one hour
_OWN = {True: 500, False: 200}  # rows for one reason in one hour: of our own clients and networks, of strangers
_ALL = {True: 5000, False: 2000}  # ... for whatever reason
_AGAIN = 3  # a stranger who comes so often is more than a guess in passing
_REPEATERS = 500  # rows of such, when there are no others left
_SHOWN = 3  # recipients
_LENGTHS = {"helo": 100, "tls": 60, "user": 100, "sender": 256, "text": 400, "detail": 300}

Row = tuple[Any, ...]  # in the order of refusals.COLUMNS
Kind = tuple[str, str, str]  # way in, stage, reason
Write = Callable[[Sequence[Row], Counter[tuple[str, str]]], Awaitable[None]]


def ident(hour: int, kind: Kind, who: str, sender: str, *, mixed: bool = False) -> int:
    """Of the row; a positive number of 63 bits."""
    text = repr((hour, *kind, who, sender, mixed)).encode("utf-8", "replace")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


@lru_cache(maxsize=4096)
def is_near(peer: str) -> bool:
    """Whether no stranger on the Internet has this address; "" is this machine."""
    try:
        return not peer or not plain_address(peer).is_global
    except ValueError:
        return False


@dataclass(slots=True)
class _Line:
    """A row to be written, or to grow."""

    first_at: int
    last_at: int
    count: int
    near: bool
    mixed: bool
    last: Refused


@dataclass(slots=True)
class _Hour:
    """What got rows in this hour, so that it is known when there are enough. All of it is bounded."""

    number: int = -1
    rows: set[int] = field(default_factory=set)
    of_kind: Counter[tuple[Kind, bool]] = field(default_factory=Counter)
    of_who: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    all: Counter[bool] = field(default_factory=Counter)
    again: dict[tuple[Kind, str], int] = field(default_factory=dict)
    repeaters: int = 0

    def admits(self, kind: Kind, who: str, *, near: bool) -> bool:
        """Whether there is room for one more row of him."""
        if self.of_kind[kind, near] < _OWN[near] and self.all[near] < _ALL[near]:
            return True
        if near:
            return False
        times = self.again.get((kind, who), 0) + 1
        remember(self.again, (kind, who), times)
        if times < _AGAIN or self.repeaters >= _REPEATERS:
            return False
        self.repeaters += 1
        return True

    def add(self, number: int, kind: Kind, who: str, *, near: bool) -> None:
        self.rows.add(number)
        self.of_kind[kind, near] += 1
        self.of_who[kind, who] += 1
        self.all[near] += 1


class DoorBook:
    """Takes refusals at any speed, on the event loop. ``write`` writes rows, and counts by (way in, client)."""

    def __init__(self, write: Write, clock: Clock, events: Events) -> None:
        self._write = write
        self._clock = clock
        self._events = events
        self._hour = _Hour()
        self._lines: dict[int, _Line] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def begin(cls, write: Write, clock: Clock, events: Events) -> DoorBook:
        """From now on all refusals of these events are kept, until ``aclose``."""
        book = cls(write, clock, events)
        events.on_refusal = book.note
        book.start()
        return book

    def start(self) -> None:
        """Write now and then."""
        self._task = asyncio.create_task(self._run(), name="refusals")
        self._task.add_done_callback(self._ended)

    async def aclose(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.flush()

    def note(self, refused: Refused) -> None:
        """Quick, and never raises for what is in it. What only follows from an earlier refusal is no other."""
        if refused.follows:
            return
        now = micros(self._clock.now())
        self._counts[refused.listener, refused.client] += 1
        near = bool(refused.client) or is_near(refused.peer)
        number, mixed, of = self._place(refused, now // HOUR, near=near)
        if (line := self._lines.get(number)) is not None:
            line.last_at, line.count, line.last = now, line.count + 1, of
        elif len(self._lines) < (2 if mixed else 1) * _WAITING:
            self._lines[number] = _Line(now, now, 1, near, mixed, of)
        else:
            self._events.refusal_dropped()

    def _place(self, refused: Refused, hour: int, *, near: bool) -> tuple[int, bool, Refused]:
        """The row that it belongs to, whether that is a mixed one, and what of it is shown there."""
        if hour != self._hour.number:
            self._hour = _Hour(hour)
        known, kind = self._hour, (refused.listener, refused.stage, refused.reason)
        who = refused.client or neighbour(refused.peer) or refused.user
        number = ident(hour, kind, who, refused.sender)
        if number in known.rows:
            return number, False, refused
        if known.of_who[kind, who] >= _SENDERS:
            return (
                ident(hour, kind, who, "", mixed=True),
                True,
                _blurred(refused, client=refused.client, peer=refused.peer),
            )
        if len(self._lines) < _WAITING and known.admits(kind, who, near=near):
            known.add(number, kind, who, near=near)
            return number, False, refused
        return ident(hour, kind, "", "", mixed=True), True, _blurred(refused)

    async def flush(self) -> None:
        """Write what is there now; what comes meanwhile, and what the spool does not take, waits for the next time."""
        waiting, self._lines = self._lines, {}
        counts, self._counts = self._counts, Counter()
        while waiting or counts:
            lines, told = dict(islice(waiting.items(), STEP)), counts
            counts, waiting = Counter(), dict(islice(waiting.items(), STEP, None))
            try:
                await self._write([_row(number, line) for number, line in lines.items()], told)
            except SpoolTrouble:
                self._counts += told
                self._put_back(lines | waiting)
                return
            except asyncio.CancelledError:  # what is handed over is written all the same
                self._put_back(waiting)
                raise

    def _put_back(self, lines: dict[int, _Line]) -> None:
        for number, line in lines.items():
            if (newer := self._lines.get(number)) is None:
                self._lines[number] = line
            else:
                newer.first_at, newer.count = line.first_at, newer.count + line.count

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(EVERY)
            await self.flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """It never ends by itself: somebody hears of it, and begins anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._events.bug("refusals", error)
            self.start()


def _blurred(refused: Refused, *, client: str = "", peer: str = "") -> Refused:
    """What is true of all in a mixed row."""
    return Refused(
        listener=refused.listener, stage=refused.stage, reason=refused.reason, code=refused.code,
        enhanced=refused.enhanced, client=client, peer=peer,
    )  # fmt: skip


def _cut(name: str, value: str) -> str:
    most = _LENGTHS[name]
    value = clean(masked(value))
    return value if len(value) <= most else value[: most - 3] + "..."


def _row(number: int, line: _Line) -> Row:
    of = line.last
    shown = {name: _cut(name, getattr(of, name)) for name in _LENGTHS}
    recipients = [_cut("sender", one) for one in of.recipients[:_SHOWN]]
    return (
        number, line.first_at, line.last_at, line.count, of.listener, of.stage, of.reason, of.peer, line.near,
        line.mixed, shown["helo"], shown["tls"], of.client, shown["user"], shown["sender"], json.dumps(recipients),
        of.size, of.code, of.enhanced, shown["text"], shown["detail"],
    )  # fmt: skip
