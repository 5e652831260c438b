"""What the instances of one queue tell each other of their backends: who works one says how it stands, the rest show
and go by that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.delivery.breaker import FOREVER, MISCONFIGURED, OPERATOR, UNREACHABLE, CircuitBreaker
from gateway.delivery.standing import BackendStatus, Record, status_of
from gateway.delivery.told import Told, read, told_of
from gateway.events import Events
from gateway.spool import Spool


class Others:
    """``mine`` are the backends that are worked here, as they stand; ``breakers`` are those of all. ``asked`` says
    which order for a backend was obeyed or heard of last, None for none yet."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        events: Events,
        mine: Callable[[], Mapping[str, BackendStatus]],
        breakers: Mapping[str, CircuitBreaker],
        asked: Callable[[str], int | None],
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._events = events
        self._mine = mine
        self._breakers = breakers
        self._asked = asked
        self._said: dict[str, Told] = {}  # as it was read last, our own, too

    # -- said by others ----------------------------------------------------------------------------------------------

    def hear(self, said: Mapping[str, str]) -> None:
        """What is said now of all backends by who works them, and by nobody who is gone."""
        found = {name: told for name, text in said.items() if (told := read(text)) is not None}
        forgotten, self._said = self._said.keys() - found.keys(), found
        mine = self._mine().keys()
        for name in self._breakers.keys() - mine:
            if name in forgotten and self._breakers[name].by != OPERATOR:  # an order is in force all the same
                self._breakers[name].know(self._clock.monotonic())
                self._events.backend_known(name, up=True, paused=False)
            self.apply(name)

    def apply(self, name: str) -> None:
        """Go by it; but who has not yet heard of an order knows less than we."""
        told, asked = self._said.get(name), self._asked(name)
        if told is None or (asked is not None and told.asked < asked):
            return
        since, until = self._here(told.since), self._here(told.until)
        self._breakers[name].know(
            self._clock.monotonic(), by=told.by, reason=told.reason, fix=told.fix, who=told.who,
            since=since, until=until if until is not None else FOREVER if told.by else 0.0,
        )  # fmt: skip
        self._events.backend_known(name, up=told.by not in (MISCONFIGURED, UNREACHABLE), paused=bool(told.by))

    def heard(self, name: str, text: str) -> None:
        """Of this one, before it is read."""
        if name in self._breakers and name not in self._mine() and (told := read(text)) is not None:
            self._said[name] = told
            self.apply(name)

    def _here(self, at: datetime | None) -> float | None:
        return None if at is None else self._clock.monotonic() + (at - self._spool.now()).total_seconds()

    def status(self, name: str, all_settings: Settings, queued: int) -> BackendStatus:
        """Of one that another instance works."""
        settings = all_settings.backends[name]
        told, back = self._said.get(name), self._clock.now() - self._spool.now()
        record = Record(self._clock, None)
        if told is None:
            return status_of(name, settings, self._breakers[name], record, queued=queued, in_flight=0)
        record.know(told.last_success, told.heard, back)
        there = {"queued": queued, "in_flight": told.in_flight}
        return status_of(name, settings, self._breakers[name], record, **there, own=told.uses)

    # -- said here ---------------------------------------------------------------------------------------------------

    def text(self, name: str) -> str:
        """How this one stands, "" where it is not known."""
        status, asked = self._mine().get(name), self._asked(name)
        return told_of(status, asked, self._shift).text() if status is not None and asked is not None else ""

    @property
    def _shift(self) -> timedelta:
        return self._spool.now() - self._clock.now()

    async def say(self) -> bool:
        """Write down what has changed of ours since it was heard last; whether that is worth to be heard of at once.

        Raises SpoolTrouble.
        """
        shift = self._shift
        new: dict[str, Told] = {}
        for name, status in self._mine().items():
            if (asked := self._asked(name)) is not None:  # else it is not known yet what was ordered
                told = told_of(status, asked, shift)
                if not told.like(self._said.get(name)):
                    new[name] = told
        urgent = [name for name, told in new.items() if told.condition != _condition(self._said.get(name))]
        if new:
            await self._spool.stand({name: told.text() for name, told in new.items()})
        return bool(urgent)


def _condition(told: Told | None) -> tuple[int, str, str] | None:
    return None if told is None else told.condition
