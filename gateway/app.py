"""The wiring: settings in, a running gateway out. Starts spool, dispatcher, listeners, HTTP; stops in reverse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from gateway import auth, checkup, intake, sharing
from gateway.alerts.watch import Alerts
from gateway.building import Built, Means, build, declare
from gateway.clock import Clock, QueueIds, SystemClock
from gateway.config import ConfigError
from gateway.config.finding import Ending
from gateway.config.inforce import InForce
from gateway.config.loading import Loaded
from gateway.config.models import ListenerSettings, Settings
from gateway.config.renewal import Renewal, renewed
from gateway.config.show import diff, restart_keys
from gateway.config.staying import in_place
from gateway.delivery import Dispatcher
from gateway.doctor import Doctor, Subject
from gateway.doors import Doors, Opened
from gateway.drop.drop import Drop
from gateway.drop.judge import Judge
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.health.gather import gather
from gateway.http.work import Works
from gateway.learn.learner import Learner
from gateway.message import Arrival
from gateway.model import Client, Envelope, Recipient, SpoolUnavailable
from gateway.names import Names
from gateway.pools import read_files
from gateway.quotas import QuotaFile
from gateway.readiness import Endings, ready
from gateway.sharing import Alone, Sharing
from gateway.smtp import Listener, Shared, Site
from gateway.spool import DoorBook, Filter, Offer, Spool

DRAIN = 30.0  # seconds for sessions and sends under way at a stop
Load = Callable[[], Loaded]


class App:
    """A gateway: its parts by name, and what the operator may ask of the whole.

    Time and chance enter here: without others, those of this machine. ``load`` reads the settings again.
    """

    def __init__(
        self,
        loaded: Loaded,
        load: Load,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        names: Names | None = None,
    ) -> None:
        self._load = load
        self._rng = rng or random.Random()  # noqa: S311 - delays and names, no secrets
        self.clock = clock or SystemClock()
        self.settings = self._at_start = loaded.settings
        self.in_force = InForce(loaded, self.clock.now())
        self.events = Events(format=self.settings.log.format, level=self.settings.log.level, clock=self.clock)
        self._sharing: Sharing = Alone()
        self.ids = QueueIds(self.clock, self._rng, lambda: self._sharing.number(self._rng))
        self._names = names or Names()
        self.fetch = Fetch(names=self._names)
        self.works = Works(self.clock, self.events)
        self.draining = False
        self.spool: Spool
        self.dispatcher: Dispatcher | None = None
        self.drop: Drop | None = None
        self.learner = Learner(self.settings, self.clock, self.events)
        self.alerts: Alerts
        self._doors = Doors(self, self.events)
        self._shared = Shared()
        self.quotas = self._shared.quotas
        self._built: Built | None = None
        self._patience = DRAIN
        self.doctor = Doctor(self._subject)
        self._reloading = asyncio.Lock()
        self._endings = Endings(self.clock)
        self._parts = AsyncExitStack()
        self._parts.callback(self.events.close)
        self._parts.push_async_callback(self.fetch.aclose)
        self._revocations, self._guesses = auth.Revocations(), auth.Guesses()

    # -- start and stop --------------------------------------------------------------------------------------------

    async def open_spool(self) -> None:
        """Raises SpoolError with a text for the operator."""
        settings = self.settings
        self._sharing = await sharing.join(settings, self.clock, self.events)
        self._parts.push_async_callback(self._sharing.aclose)
        self.spool = await Spool.open(
            settings.state_dir, self.clock, engine=self._sharing.engine, events=self.events, wake=self._wake,
            offer=self._offer, reserve=settings.limits.spool_free, most=settings.limits.spool_size,
            retention=settings.retention,
        )  # fmt: skip
        self._parts.push_async_callback(self.spool.aclose)
        self._revocations = auth.Revocations(*await self.spool.revocations())
        self._sharing.know(self.spool, self._revocations)

    async def start(self) -> None:
        """Open everything in order; ``stop`` closes what is open, also after an error in the middle."""
        auth.ensure_own_key(self.settings)
        declare(self.events, self.settings)
        self.events.capture_libraries()
        self._parts.callback(lambda: self.events.info("stopped"))
        await self.open_spool()
        self._parts.push_async_callback(DoorBook.begin(self.spool.note_refusals, self.clock, self.events).aclose)
        kept = await QuotaFile.begin(self.quotas, self.settings.state_dir, self.clock, self.events)
        self._parts.push_async_callback(kept.aclose)
        built = await build(self.settings, self._means(), None)
        self._adopt(built)
        self._parts.push_async_callback(await self.learner.start())
        self._parts.push_async_callback(self._close_built)
        self._parts.push_async_callback(self._doors.stop_http)
        await self._doors.start_http(self.settings)
        routing = built.rules.routing
        self.dispatcher = Dispatcher(
            self.spool, self.settings, routing, events=self.events, clock=self.clock, ids=self.ids, rng=self._rng,
            ownership=self._sharing,
        )  # fmt: skip
        self.dispatcher.wishes.grant = partial(checkup.grant, self, self.dispatcher)
        look, works, elsewhere = partial(gather, self), self.dispatcher.works, self.dispatcher.elsewhere
        self.alerts = Alerts(self.spool, look, works, self.events, self.clock, self.ids, elsewhere)
        self._parts.push_async_callback(self._drain_dispatcher)
        await self.dispatcher.start(built.backends)
        self._sharing.serve(self.dispatcher)
        self._parts.push_async_callback(self.works.aclose)
        self._parts.push_async_callback(self._unless_hurried, self._doors.drain)
        opened = await self._doors.open(self.settings, partial(self._site, built))
        await self._doors.enter(opened, self.settings, built.rules, built.auth)
        self.drop = Drop(self.spool, self.ids, self.events, self.clock)
        self._parts.push_async_callback(self._unless_hurried, self.drop.stop)
        self._direct_drop()
        self._parts.push_async_callback(self.doctor.aclose)
        self.alerts.update(self.settings, built.rules, built.ways)
        self._parts.push_async_callback(self._unless_hurried, self.alerts.stop)
        self.alerts.start()

    async def stop(self, seconds: float = DRAIN) -> None:
        """Stop accepting, let sessions and then sends end within ``seconds`` each, close in reverse order.

        Cancelled, it still closes everything, but waits for nobody.
        """
        self.draining, self._patience = True, seconds
        await self._parts.aclose()

    async def _unless_hurried(self, step: Callable[[float], Awaitable[None]]) -> None:
        """Cancelled, neither this step nor those after it wait for anybody."""
        try:
            await step(self._patience)
        except asyncio.CancelledError:
            self._patience = 0.0
            await step(0.0)
            raise

    async def _drain_dispatcher(self) -> None:
        assert self.dispatcher is not None
        await self.dispatcher.drain(self._patience)

    async def _close_built(self) -> None:
        """What the last reload made, else the start. The dispatcher closes the backends that it has taken over."""
        for backend in self._made.backends.values() if self.dispatcher is None else ():
            await backend.aclose()
        await self._made.auth.aclose()

    def _wake(self, backend: str) -> None:
        if self.dispatcher:
            self.dispatcher.wake(backend)

    def _offer(self, backend: str) -> Offer | None:
        return self.dispatcher.offer(backend) if self.dispatcher else None

    def _site(self, built: Built, name: str, section: ListenerSettings) -> Site:
        return Site(
            name=name, settings=section, rules=built.rules, auth=built.auth, put=self.spool.put, room=self.spool.room,
            events=self.events, clock=self.clock, ids=self.ids, shared=self._shared, learner=self.learner,
        )  # fmt: skip

    def _adopt(self, built: Built) -> None:
        """From now on by these."""
        self._built, self.settings = built, built.settings
        log, limits = built.settings.log, built.settings.limits
        self.events.style(log.format, log.level)
        self.spool.room.bound(limits.spool_free, limits.spool_size)
        self.learner.update(built.settings)

    def _direct_drop(self) -> None:
        """Mail that comes as files is judged as a listener on this machine would judge it."""
        if self.drop and self.dispatcher:
            rules, by_network, refuse = self._made.rules, self._made.auth.by_network, self.dispatcher.refuse
            quotas, put = self.quotas, self.spool.put
            self.drop.update(self.settings, Judge(rules, by_network, quotas, put, refuse, self.events, self.clock))

    def _means(self) -> Means:
        return Means(
            clock=self.clock, fetch=self.fetch, rng=self._rng, events=self.events, names=self._names,
            revocations=self._revocations, guesses=self._guesses, uses=self.spool.uses,
            shared=self._sharing.stores(),
        )  # fmt: skip

    @property
    def _made(self) -> Built:
        """What is made of the settings in force, once there is anything."""
        assert self._built is not None
        return self._built

    @property
    def authenticator(self) -> auth.Authenticator | None:
        """None: only the spool is open."""
        return self._built.auth if self._built else None

    @property
    def listeners(self) -> Mapping[str, Listener]:
        """Those in force, by name."""
        return self._doors.listeners

    # -- what the operator asks ------------------------------------------------------------------------------------

    async def reload(self) -> list[str]:
        """Read the configuration again: all or nothing. Returns what changed, in words.

        What needs a restart is named at every reload until there was one. Raises ConfigError, and SpoolUnavailable when
        the service stops meanwhile.
        """
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> list[str]:
        try:
            loaded, wanted = await read_files(self._look)
            self._refuse_while_stopping()
            before = self._made
            async with AsyncExitStack() as new:
                built = await build(loaded.settings, self._means(), before)
                new.push_async_callback(built.discard, before)
                opened = await self._doors.open(built.settings, partial(self._site, built))
                new.push_async_callback(opened.close)
                self._refuse_while_stopping()  # from here to the dispatcher nothing waits: no worker behind its back
                new.pop_all()
        except (ConfigError, ValueError, OSError) as error:
            self.events.reloaded(False, str(error))
            self.in_force = self.in_force.after_failure(self.clock.now(), str(error).splitlines())
            raise error if isinstance(error, ConfigError) else ConfigError([str(error)]) from error
        for warning in loaded.warnings:
            self.events.warning("settings_doubtful", detail=warning)
        self.in_force = InForce(loaded, self.clock.now())
        await self._switch(built, opened)
        lines = [f"{key}: {how}" for key, how in diff(before.settings, built.settings).items()]
        lines += [f"auth.keys.{name}: another key in its file" for name in built.auth.replaced(before.auth)]
        lines += [f"{key}: needs a restart" for key in restart_keys(diff(self._at_start, wanted))]
        self.events.reloaded(True, "; ".join(lines))
        return lines

    async def _switch(self, built: Built, opened: Opened, *, resting: bool = False) -> None:
        """Everybody goes by these from now on; ``resting``: a new backend that did not work is not thought to."""
        before, dispatcher = self._made, self.dispatcher
        assert dispatcher is not None
        self._adopt(built)
        declare(self.events, self.settings)
        self._direct_drop()
        self.alerts.update(built.settings, built.rules, built.ways)
        await dispatcher.update(built.settings, built.rules.routing, built.backends, resting=resting)
        self._sharing.serve(dispatcher)
        await self._doors.enter(opened, built.settings, built.rules, built.auth)
        await before.auth.aclose()

    def _refuse_while_stopping(self) -> None:
        if self.draining:
            raise SpoolUnavailable("the gateway is stopping; it reads its settings again when it starts")

    async def renew(self, name: str) -> Renewal:
        """Take the secrets of this backend that have changed on disk, and nothing else. It goes on resting as it did.

        Raises SpoolUnavailable when the service stops meanwhile.
        """
        async with self._reloading:
            try:
                before, loaded = self._made, await read_files(self._load)
                section, found = renewed(self.settings.backends[name], loaded.settings.backends.get(name))
                if not found.taken:
                    return found
                settings = self.settings.model_copy(update={"backends": {**self.settings.backends, name: section}})
                built = await build(settings, self._means(), before)
            except (ConfigError, ValueError, OSError) as error:
                return Renewal(errors=tuple(str(error).splitlines()))
            if self.draining:
                await built.discard(before)
                self._refuse_while_stopping()
            self.in_force = replace(self.in_force, loaded=replace(self.in_force.loaded, settings=settings))
            await self._switch(built, Opened(), resting=True)
            self.events.info("secrets_read", backend=name, settings=list(found.taken))
            return found

    async def endings(self) -> Sequence[Ending]:
        """Until when files are good that the settings name."""
        return await self._endings.of(self.settings)

    def _look(self) -> tuple[Loaded, Settings]:
        """The settings as they are now, as far as they can be taken, and as they are wanted. Blocks.

        Raises ConfigError with all that is wrong, ValueError, OSError.
        """
        loaded = ready(self._load(), self.clock.now())
        taken = replace(loaded, settings=in_place(loaded.settings, self.settings))
        auth.ensure_own_key(taken.settings)
        return taken, loaded.settings

    def _subject(self) -> Subject:
        """What the doctor looks at."""
        return Subject(
            settings=self.settings, read=lambda: ready(self._load(), self.clock.now()), clock=self.clock,
            names=self._names, fetch=self.fetch, signals=self.events, at_start=self._at_start,
            backends=self._made.backends, ports={name: one.port for name, one in self.listeners.items()},
            spool=self.spool, standing=self.dispatcher.status() if self.dispatcher else {},
        )  # fmt: skip

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes, *, client: str, pin: str = "") -> str:
        """Accept a message from inside (send-test). Returns the queue id; raises Refusal or Fault."""
        envelope = Envelope(sender, tuple(Recipient(address) for address in recipients))
        arrival = Arrival(self.ids(), self.clock.now(), listener="", peer="", helo="", protocol="local")
        message = intake.prepare(raw, envelope, Client(name=client, backend=pin), arrival, self._made.rules)
        await self.spool.put(message)
        self.events.accepted(message, 0.0)
        return message.id

    async def bounce(self, which: Filter, each: Callable[[Mapping[str, bool]], object] = len) -> dict[str, bool]:
        """Return these messages to their senders, and say for each given up whether its sender is told."""
        assert self.dispatcher is not None  # the interface asks first
        return await self.dispatcher.bounce(which, each)

    async def revoke(self, *, jti: str, subject: str) -> None:
        """Revoke a token by id, or all of a subject up to now; effective at once, also in open connections."""
        now = self.clock.now()
        await self.spool.revoke(jti=jti, subject=subject, now=now)
        if jti:
            self._revocations.revoke_jti(jti)
        if subject:
            self._revocations.revoke_subject(subject, now)
        self._sharing.revoked()
