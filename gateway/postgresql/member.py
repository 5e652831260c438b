"""This instance as one of several on one queue: while its session stands it works its share of the backends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from math import inf

import psycopg

from gateway.clock import Clock
from gateway.config.alike import differences
from gateway.events import Events
from gateway.postgresql import seats, starting
from gateway.postgresql.holding import Holding
from gateway.postgresql.house import House
from gateway.postgresql.seats import Given, Peer, Survey
from gateway.postgresql.server import Server
from gateway.postgresql.session import Lost, Session
from gateway.spool.records import SpoolError

ANEW = "anew"  # heard where notifications may have been missed: look at everything
_PROMPT = ("came", "bye", "free", "stands")  # what others say that changes shares, or how backends stand
_AGAIN = 0.5  # seconds between two tries to have a session
_LONGER = 2.0  # seconds that a name is waited for beyond ``failover``: it may be of a run that was cut off
_TELLING = 0.2  # seconds: a slower answer says little of what time it is there, unless all of them are slow
_APART = timedelta(seconds=1)
_NAME = "give each instance a name of its own in spool.instance"


class _Taken(Exception):
    """Somebody else has our name."""


class Member:
    """``backends`` is what this instance could work, ``settings`` are digests (gateway.config.alike).

    ``gain`` is called with each backend that is ours from now on; ``lose`` with each that is not, and returns when its
    sends have ended: it goes to others then, after ``failover`` in any case, or at once where the session was lost.
    ``gain`` may come again before that. ``heard`` is called with what others tell; ``bury`` interrupts what a dead
    instance, of so many beats, had under way, and returns how much that was, or None where it lives. ``told`` is called
    with the database's time, and ``said`` at each beat with what is said of backends by who works them.
    """

    def __init__(
        self,
        server: Server,
        *,
        backends: Callable[[], Sequence[str]],
        settings: Callable[[], str],
        clock: Clock,
        events: Events,
        gain: Callable[[str], None],
        lose: Callable[[str], Awaitable[None]],
        heard: Callable[[str, str], None],
        bury: Callable[[str, int], Awaitable[int | None]],
        told: Callable[[datetime], None] = lambda now: None,
        said: Callable[[Mapping[str, str]], None] = lambda texts: None,
    ) -> None:
        self.name = server.instance
        self.number = 0
        self.started_at = 0  # microseconds, by the database's clock: with the name it is this run, and no other
        self._quickest = timedelta(days=1)  # of late
        self.offset = timedelta(0)  # to be added to what our clock shows, for the database's time
        self._lease = server.failover.total_seconds()
        self._every, self._half = self._lease / 5, self._lease / 2
        self._server = server
        self._backends, self._settings = backends, settings
        self._clock, self._events = clock, events
        self._heard, self._time, self._said = heard, told, said
        self._session: Session | None = None
        self._valid_until = -inf  # of Clock.uptime: it goes on while the machine sleeps
        self._beat_at = -inf  # of Clock.monotonic
        self._survey = Survey()
        self._telling: dict[str, None] = {}
        self._differ: list[str] = []
        self._news = asyncio.Event()
        self._holding = Holding(
            self.name, gain=gain, lose=lose, stir=self._news.set, patience=self._lease, clock=clock, events=events
        )
        self._house = House(3 * self._lease, bury, events)
        self._sharing = self._closing = self._apart = False
        self._task: asyncio.Task[None] | None = None

    # -- for everybody ------------------------------------------------------------------------------------------------

    def valid(self) -> bool:
        """Whether nobody else can have what is ours: asked before each send and each claim."""
        return self._clock.uptime() < self._valid_until

    def owned(self) -> frozenset[str]:
        """The backends that are ours to work."""
        return frozenset(self._holding.owned) if self.valid() else frozenset()

    def owns(self, backend: str) -> bool:
        """The same of one, also in the moment when that is not certain: ask ``valid``, too."""
        return backend in self._holding.owned

    def keeps_house(self) -> bool:
        """Whether it is ours to do what one instance does for all."""
        return self._house.kept and self.valid()

    def declared(self) -> frozenset[str]:
        """What other instances could work, unless they were buried."""
        return frozenset(backend for peer in self.peers if peer.name != self.name for backend in peer.backends)

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def peers(self) -> tuple[Peer, ...]:
        """All instances, as they were at the last beat."""
        return self._survey.peers

    @property
    def workers(self) -> dict[str, str]:
        """Which instance works which backend, as it was at the last beat."""
        return dict(self._survey.held)

    def tell(self, kind: str, what: str = "") -> None:
        """Let the others hear of it soon; once, however often it is said before that."""
        self._telling[f"{kind} {what}"] = None
        self._news.set()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Be one of them, with a number and a name of its own, and work nothing yet. Raises SpoolError."""
        until = self._clock.monotonic() + self._lease + _LONGER
        while True:
            try:
                await self._join()
                break
            except (Lost, psycopg.Error) as error:
                cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
                if isinstance(cause, psycopg.Error):
                    raise starting.refused(self._server, cause) from error
                raise SpoolError(f"the database {self._server.shown} cannot be used: {error}") from error
            except seats.Full:
                raise SpoolError(f"the database {self._server.shown} has {seats.MOST + 1} instances already") from None
            except _Taken as taken:
                if self._clock.monotonic() >= until:
                    raise SpoolError(f"instance {self.name} runs already{taken}: stop it, or {_NAME}") from None
            await self._clock.sleep(_AGAIN)
        self._task = asyncio.create_task(self._run(), name="member")
        self._task.add_done_callback(self._ended)

    def share(self) -> None:
        """From now on take a share of the backends."""
        self._sharing = True
        self.look()
        self.tell("came", self.name)

    def look(self) -> None:
        """At once, not with the next beat."""
        self._beat_at = -inf
        self._news.set()

    async def aclose(self) -> None:
        """Lose all backends, and go: the others take them at once."""
        self._sharing, self._closing = False, True
        self.look()
        if self._task is None:
            return
        if self._session is None:
            self._task.cancel()
        await asyncio.wait({self._task})
        await self._holding.aclose()
        await self._house.aclose()
        self._valid_until = -inf
        session, self._session = self._session, None
        if session is not None:
            with suppress(Lost, psycopg.Error), session.within(self._half):
                await seats.leave(session, self.name, self.number, self.started_at)
                await seats.tell(session, [f"bye {self.name}"])
            await session.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._valid_until = -inf
            self._events.bug("member", error)

    # -- the session --------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        """Have a session, and our name. Raises Lost, psycopg.Error, Full; _Taken with from where."""
        session = await Session.open(self._server, self._hear, self._half)
        try:
            with session.within(self._half):
                began = self._clock.uptime()
                number = await seats.seat(session, self.name)
                if number is None:
                    raise _Taken(await self._taken_by(session))
                started = await seats.sit(session, self.name, number, self._given(), self.started_at)
                if started is None:
                    raise Lost("it was taken for dead just then")
        except BaseException:
            await session.close()
            raise
        self.number, self.started_at = number, started
        self._session = session
        self._valid_until = began + self._lease - self._every / 2
        self.look()

    async def _taken_by(self, session: Session) -> str:
        found = await session.ask("SELECT number FROM instance WHERE name = %s", self.name)
        place = await seats.where(session, found[0][0]) if found else ""
        return f", connected from {place}" if place else ""

    def _given(self) -> Given:
        return Given(self._backends() if self._sharing else (), self._settings())

    async def _run(self) -> None:
        """Until closed: a session that is lost is had again."""
        said = ""
        while True:
            try:
                if self._session is None:
                    await self._join()
                    self._events.info("session_back", instance=self.name)
                    self._pass_on(ANEW, "")
                    self.tell("came", self.name)
                await self._work()
                return
            except Lost as lost:
                reason = str(lost) or "lost"
            except _Taken as taken:
                reason = f"instance {self.name} runs elsewhere{taken}: {_NAME}"
            except seats.Full:
                reason = f"there are {seats.MOST + 1} instances already"
            except psycopg.Error as error:  # also of a database that is being restored
                reason = str(error)
            except Exception as error:
                self._events.bug("member", error)
                reason = type(error).__name__
            reason = starting.hinted(reason)
            stood = await self._lost()
            if stood is not None or reason != said:
                self._events.warning("session_lost", instance=self.name, detail=reason, backends=stood or [])
            said = reason
            if self._closing:
                return
            await self._clock.sleep(_AGAIN)

    async def _lost(self) -> list[str] | None:
        """At once everything is others': returns what was ours; None where there was no session."""
        session, self._session = self._session, None
        self._valid_until = -inf
        self._house.lost()
        owned = self._holding.lost()
        if session is None:
            return None
        await session.close()
        return owned

    async def _work(self) -> None:
        session = self._standing
        while not (self._closing and self._holding.idle):
            self._news.clear()
            with session.within(self._half):
                if self._clock.monotonic() >= self._beat_at:
                    await self._beat(session)
                for backend in await self._holding.let_go(session, self._survey.numbers):
                    self.tell("free", backend)
                    self.look()  # whether there is another one to give
                await self._speak(session)
            await session.wait(self._news, self._clock, self._beat_at - self._clock.monotonic())

    @property
    def _standing(self) -> Session:
        assert self._session is not None
        return self._session

    async def _beat(self, session: Session) -> None:
        began, wall = self._clock.uptime(), self._clock.now()
        self._beat_at = self._clock.monotonic() + self._every
        given = self._given()
        now = await seats.beat(session, self.name, self.number, self.started_at, given)
        if now is None:
            raise Lost("it was taken for dead: others did not hear of it for too long")
        self._valid_until = began + self._lease - self._every / 2
        self._learn(now, wall)
        self._survey = await seats.survey(session)
        if new := [name for name in given.backends if name not in self._survey.numbers]:
            await seats.add_backends(session, new)
            self._survey = await seats.survey(session)
        await self._holding.balance(session, self._survey, {**self._survey.may, self.name: given.backends})
        others = [peer for peer in self.peers if peer.name != self.name]
        await self._house.look(session, others, self._clock.monotonic(), wanted=self._sharing)
        self._compare()
        try:
            self._said(self._survey.said)
        except Exception as error:
            self._events.bug("member.said", error)

    def _learn(self, there: datetime, before: datetime) -> None:
        took = self._clock.now() - before
        if took < timedelta(0):
            return  # our clock was set meanwhile
        self._quickest = min(1.1 * self._quickest, took)
        if took > max(timedelta(seconds=_TELLING), 2 * self._quickest):
            return
        self.offset = there - before - took / 2
        self._time(there + took / 2)
        if (apart := abs(self.offset) > _APART) and not self._apart:
            seconds = round(-self.offset.total_seconds(), 1)
            self._events.warning("clock_differs", seconds=seconds, fix="set this machine's clock, by NTP for example")
        self._apart = apart

    def _compare(self) -> None:
        found = [str(each) for each in differences({peer.name: peer.settings for peer in self.peers if peer.lives})]
        if set(found) - set(self._differ):
            fix = "give all instances the same settings, and reload them"
            self._events.warning("settings_differ", differences=found, fix=fix)
        self._differ = found

    # -- what is said -------------------------------------------------------------------------------------------------

    async def _speak(self, session: Session) -> None:
        said, self._telling = self._telling, {}
        if said:
            try:
                await seats.tell(session, list(said))
            except BaseException:  # the next session says it; what was told meanwhile comes behind
                self._telling = said | self._telling
                raise

    def _hear(self, payload: str) -> None:
        kind, _, what = payload.partition(" ")
        if kind in _PROMPT:
            self.look()
        self._pass_on(kind, what)

    def _pass_on(self, kind: str, what: str) -> None:
        try:
            self._heard(kind, what)
        except Exception as error:
            self._events.bug("member.heard", error)
