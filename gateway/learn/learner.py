"""Learn mode: on or off, at which listeners and until when; what it knows is kept in a file of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from gateway.clock import Clock, wait_for
from gateway.config.models import Settings
from gateway.events import Events
from gateway.files import write_whole
from gateway.learn.book import Book
from gateway.learn.ear import Ear
from gateway.model import Network
from gateway.networks import is_public
from gateway.pools import read_files
from gateway.strangers import strict_json

FILE = "learn.json"
LONGEST = timedelta(days=31)
_EVERY = 30.0  # seconds between writes while something is learnt
OFF, WATCHES, HEARS_OUT = 0, 1, 2  # as the metric says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What ``gateway learn`` began: until when, at which listeners (() is all), which networks are heard out."""

    since: datetime
    until: datetime
    by: str
    listeners: tuple[str, ...] = ()
    hear_out: tuple[str, ...] = ()
    ended_at: datetime | None = None

    def at(self, listener: str) -> bool:
        return self.ended_at is None and (not self.listeners or listener in self.listeners)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Run:
        """Raises KeyError, TypeError, ValueError for what is none."""
        ended = found["ended_at"]
        return cls(
            since=datetime.fromisoformat(found["since"]), until=datetime.fromisoformat(found["until"]),
            by=str(found["by"]), listeners=tuple(map(str, found["listeners"])),
            hear_out=tuple(str(ip_network(one)) for one in found["hear_out"]),
            ended_at=datetime.fromisoformat(ended) if ended else None,
        )  # fmt: skip


class Learner:
    """``at`` has an ear for each listener where it is on. ``run`` is the last that was begun."""

    def __init__(self, settings: Settings, clock: Clock, events: Events) -> None:
        self.at: Mapping[str, Ear] = {}
        self.run: Run | None = None
        self.book = Book()
        self.fault = ""  # why what is learnt cannot be kept
        self._settings, self._clock, self._events = settings, clock, events
        self._path = settings.state_dir / FILE
        self._ends = 0.0  # as Clock.uptime
        self._turn = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Callable[[], Awaitable[None]]:
        """Go on where the last process left off; gives what ends it. A file that cannot be read is put aside."""
        try:
            text = await read_files(partial(_read, self._path))
            if text:
                found = strict_json(text)
                book, run = Book.of_file(found), found["run"]
                self.run = None if run is None else Run.of(run)
                self.book = book
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._events.warning("learn_unreadable", path=str(self._path), detail=str(error))
            with suppress(OSError):
                await read_files(partial(self._path.replace, self._path.with_suffix(".json.damaged")))
        self._set_end()
        self._direct()
        self._task = asyncio.create_task(self._keep(), name="learn")
        return self.aclose

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self.at or self.book.changed:
            await self._write()

    def update(self, settings: Settings) -> None:
        """By these settings from now on."""
        self._settings = settings
        self._direct()
        self._turn.set()

    # -- orders ----------------------------------------------------------------------------------------------------

    async def begin(self, lasting: timedelta, by: str, listeners: Sequence[str], hear_out: Sequence[str]) -> Run:
        """Learn for so long, beside what is learnt already. Raises ValueError in words for the operator, OSError."""
        if not timedelta(0) < lasting <= LONGEST:
            raise ValueError(f"learn for at most {LONGEST.days} days; for always: learn: true on the listener")
        if unknown := [one for one in listeners if one not in self._settings.listeners]:
            raise ValueError(f"no listener {unknown[0]}; there are {', '.join(self._settings.listeners)}")
        networks = [_network(one) for one in hear_out]
        if is_public(networks):
            raise ValueError("strangers of the Internet are not heard out: name your own networks, as 192.0.2.0/24")
        now = self._clock.now()
        self.run = Run(
            since=now, until=now + lasting, by=by, listeners=tuple(listeners), hear_out=tuple(map(str, networks))
        )
        self._set_end()
        self._direct()
        self._events.info("learning", on=True, until=self.run.until.isoformat(), hear_out=list(self.run.hear_out))
        await self._kept()
        self._turn.set()
        return self.run

    async def stop(self) -> bool:
        """End what was begun; False where nothing was. Raises OSError."""
        if self.run is None or self.run.ended_at is not None:
            return False
        self._end()
        await self._kept()
        return True

    async def forget(self) -> int:
        """All that was seen, of so many addresses; what is on goes on. Raises OSError."""
        count, self.book = len(self.book), Book()
        self._direct()
        await self._kept()
        return count

    # -- how it goes ------------------------------------------------------------------------------------------------

    @property
    def heard_out(self) -> Mapping[str, tuple[Network, ...]]:
        """By listener."""
        return {name: tuple(ear.hear_out) for name, ear in self.at.items() if ear.hear_out}

    def _set_end(self) -> None:
        if self.run is not None and self.run.ended_at is None:
            self._ends = self._clock.uptime() + min(self.run.until - self._clock.now(), LONGEST).total_seconds()

    def _over(self) -> bool:
        return self.run is not None and self.run.ended_at is None and self._clock.uptime() >= self._ends

    def _end(self) -> None:
        assert self.run is not None
        self.run = replace(self.run, ended_at=self._clock.now())
        self._direct()
        self._events.info("learning", on=False, addresses=len(self.book))

    def _direct(self) -> None:
        """Whoever is at a door now finds an ear there, or none."""
        ears: dict[str, Ear] = {}
        for name, section in self._settings.listeners.items():
            run = self.run if self.run is not None and self.run.at(name) else None
            if section.learn is None and run is None:
                continue
            networks = [*(section.learn.hear_out if section.learn else ()), *map(_network, run.hear_out if run else ())]
            ears[name] = Ear(name, self.book, self._clock, tuple(networks))
        self.at = ears
        for name in self._settings.listeners:
            self._events.learning(name, OFF if name not in ears else HEARS_OUT if ears[name].hear_out else WATCHES)

    async def _keep(self) -> None:
        while True:
            try:
                if self._over():
                    self._end()
                    await self._write()
                elif self.at or self.book.changed:
                    await self._write()
            except Exception as error:
                self._events.bug("learn", error)
            self._turn.clear()
            rest = self._ends - self._clock.uptime() if self.run and self.run.ended_at is None else _EVERY
            await wait_for(self._turn, self._clock, max(min(rest, _EVERY), 0.1) if self.at else float("inf"))

    async def _kept(self) -> None:
        """Raises OSError where it cannot be: an order that a restart forgets was not carried out."""
        await self._write()
        if self.fault:
            raise OSError(self.fault)

    async def _write(self) -> None:
        async with self._writing:
            run = json.dumps(asdict(self.run) if self.run else None, default=datetime.isoformat)
            text = await self.book.written(self._clock, run)
            try:
                await read_files(partial(write_whole, self._path, text.encode()))
            except OSError as error:
                if not self.fault:
                    self._events.warning("learn_not_kept", path=str(self._path), detail=str(error))
                self.fault = f"{self._path}: {error.strerror or error}"
            else:
                self.fault = ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _network(text: str) -> Network:
    try:
        return ip_network(text.strip())
    except ValueError:
        raise ValueError(f'"{text}" is no network, write for example 192.0.2.0/24') from None
